#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/road.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: road
short_description: Take a host its whole road at once
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Waits for admission as M(convoy.rollout.admission) does, takes the steps of the host's road, what is left of it back
    where one of them fails, and reports what became of the host as M(convoy.rollout.report) does.
  - The steps are the tasks of the roles P(convoy.rollout.component#role) and P(convoy.rollout.traffic#role). Ansible's
    executor runs them in the worker that this action has already, which saves the controller a fork for each of them.
    Callbacks are told of each.
  - Where the site has tasks of its own on the road it does nothing, so that the steps can be included one by one; and
    with an ansible-core whose executor it does not know.
options:
  host:
    description: The host that goes.
    type: str
    required: true
  steps:
    description: The names of the steps, hooks among them.
    type: list
    elements: str
    required: true
  hooks:
    description: The site's task files by the name of the hook, as C(rollout_hooks) has them.
    type: dict
    default: {}
  adapter:
    description: How hosts are taken out of their load balancer, as C(traffic_adapter) says.
    type: str
    required: true
  tasks:
    description: What puts a release in place where that is the site's, as C(component_tasks) has it.
    type: dict
    default: {}
  back:
    description: Whether the road leads back, in a rollout that turns back.
    type: bool
    default: false
  poll:
    description:
      - Seconds between two looks at a ledger in SQLite while the host waits. PostgreSQL tells when something happens.
    type: float
    default: 0.1
extends_documentation_fragment:
  - convoy.rollout.ledger
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: It runs on the controller; the steps contact the host and its load balancers.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: none
    details: It is skipped. A rollout is never open in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: The steps say what they changed.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.admission
  - module: convoy.rollout.report
"""

EXAMPLES = r"""
- name: Take the host to its release, or leave it on the old one
  convoy.rollout.road:
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    host: "{{ inventory_hostname }}"
    steps: [drain, activate, undrain]
    adapter: haproxy
  register: rollout_road
"""

RETURN = r"""
gone:
  description: Whether the host's road is over. If not, nothing was done.
  returned: success
  type: bool
  sample: true
migration:
  description:
    - What has to be run before anybody goes on, as M(convoy.rollout.admission) has it, or null. The host's road has not
      begun then.
  returned: when RV(gone=false)
  type: dict
outcome:
  description: What became of the host, as M(convoy.rollout.report) has it.
  returned: when the host was admitted
  type: str
  sample: succeeded
why:
  description: Why, in one line.
  returned: when the host was admitted
  type: str
  sample: ""
gate:
  description: The gate that this host has to run because it closed its phase, or null.
  returned: success
  type: dict
  contains:
    phase:
      description: The phase's name.
      type: str
      sample: canary
    bake:
      description: For how many seconds the phase has to stay healthy.
      type: float
      sample: 30.0
    bake_left:
      description: How many of these seconds are left, by the ledger's clock.
      type: float
      sample: 29.8
    hosts:
      description: The hosts of the phase that run the new release.
      type: list
      elements: str
      sample: [app1]
reason:
  description:
    - Why the host may not go. Empty when it went.
    - When the action fails, a short word for what was refused.
  returned: when RV(gone=true)
  type: str
  sample: "the rollout turns back: 1 failed, more than the failure budget of 0"
convoy:
  description: What is told in the terminal, in RV(convoy.lines).
  returned: success
  type: dict
  contains:
    lines:
      description: One line for each thing that happened.
      type: list
      elements: str
      sample: [app1 succeeded, phase canary has closed and bakes for 30 s]
"""
