#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/status.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Compare what hosts run with what the ledger says
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Puts what was read from the hosts beside the newest rollout of the ledger. Tells for every host its release, since
    when it runs, its health, whether it is in the load balancer, and what differs from what ought to be.
  - The hosts must have been read before, by M(convoy.rollout.release_info) registered as C(component_read).
options:
  ledger_url:
    description:
      - The ledger, as an SQLAlchemy URL. C(sqlite:////path/file.db) for one controller,
        C(postgresql+psycopg://user@host/database) for several.
    type: str
    required: true
  environment:
    description: The environment's name.
    type: str
    required: true
  component:
    description: The component's name.
    type: str
    required: true
  hosts:
    description: The hosts to tell about.
    type: list
    elements: str
    required: true
  membership:
    description: Which hosts the load balancers have in service, as P(convoy.rollout.membership#filter) makes it.
    type: dict
    default: {}
  colours:
    description:
      - The inventory groups of the two colours, as C(rollout_colours) of the role P(convoy.rollout.rollout#role)
        describes them. Empty where hosts have none.
    type: raw
    default: {}
  rotation:
    description: What each load balancer says of each host, as P(convoy.rollout.rotation#filter) makes it.
    type: dict
    default: {}
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The hosts are not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It only looks, so it does the same in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.release_info
"""

EXAMPLES = r"""
- name: Compare the hosts with the ledger
  convoy.rollout.status:
    ledger_url: "{{ environment_ledger_url }}"
    environment: staging
    component: hello
    hosts: "{{ groups['app'] }}"
  register: rollout_status

- name: Fail unless every host runs what the ledger says
  ansible.builtin.assert:
    that: rollout_status.hosts | map(attribute='differs') | flatten | length == 0
"""

RETURN = r"""
hosts:
  description: The hosts, in the order of O(hosts).
  returned: success
  type: list
  elements: dict
  contains:
    host:
      description: The host's name.
      type: str
      sample: app1
    reachable:
      description: Whether it could be read.
      type: bool
      sample: true
    release:
      description: The release that is active, or null.
      type: str
      sample: 1.1.0-5f2c1e8ab904
    health:
      description: V(healthy), V(unhealthy) or V(unknown).
      type: str
      sample: healthy
    in_service:
      description: Whether the load balancers have it in service, or null where none knows it.
      type: bool
      sample: true
    differs:
      description: What is not as the ledger and the host's journal say, one sentence each.
      type: list
      elements: str
      sample: [the ledger says 1.1.0-5f2c1e8ab904]
live:
  description: The colour that the load balancers send requests to. Null without colours, and where it cannot be told.
  returned: success
  type: str
  sample: blue
rollout:
  description: The id of the newest rollout, or null.
  returned: success
  type: str
  sample: 20260105-091500-3fa2
held_by:
  description: Who runs the rollout that is open, or null where none is, or where its process is gone.
  returned: success
  type: str
  sample: alice@deploy1 (process 4242)
left_out:
  description: The hosts that are healthy, but that a load balancer has out of service.
  returned: success
  type: list
  elements: str
  sample: [app3]
status:
  description: Where that rollout stands, or null.
  returned: success
  type: str
  sample: succeeded
reason:
  description: A short word for what was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: ledger
convoy:
  description: What is told in the terminal, in RV(convoy.summary).
  returned: success
  type: dict
  contains:
    summary:
      description: The table of the hosts, and the newest rollout.
      type: list
      elements: str
      sample: ["host  release             since                health  traffic  differs"]
"""
