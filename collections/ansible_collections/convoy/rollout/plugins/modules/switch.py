#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/switch.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: switch
short_description: Wait until the load balancers may be switched, and report what became of it
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - For a rollout with two colours, blue and green. Asks the coordinator whether the load balancers may be switched to
    the new colour now, or back to the old one, and waits until they may or never will. Reports what became of it then.
  - The coordinator sees to it that the new colour has passed its gate, that a person has approved where that is wanted,
    that enough of its hosts are ready, and that one run at a time switches.
options:
  state:
    description:
      - V(admitted) asks, and waits for the answer.
      - V(reported) tells what M(convoy.rollout.haproxy) said. A switch that failed turns the rollout back.
    type: str
    required: true
    choices: [admitted, reported]
  until:
    description: What O(state=admitted) returned as RV(until). Required if O(state=reported).
    type: float
  checked:
    description: With O(state=reported), what the load balancers answered when they were asked in check mode.
    type: dict
    default: {}
  switched:
    description: With O(state=reported), what they answered when they were switched.
    type: dict
    default: {}
  poll:
    description: Seconds between two looks at the ledger. The coordinator is asked only when something happened there.
    type: float
    default: 0.25
extends_documentation_fragment:
  - convoy.rollout.ledger
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. No load balancer is contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: none
    details: It is skipped. A rollout is never open in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing but the ledger.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details: A switch that was admitted is not admitted again before it was reported.
seealso:
  - module: convoy.rollout.rollout
  - module: convoy.rollout.haproxy
"""

EXAMPLES = r"""
- name: Wait until the load balancers may be switched
  convoy.rollout.switch:
    state: admitted
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
  register: rollout_switch

- name: Switch them
  convoy.rollout.haproxy:
    state: switched
    backend: app
    servers: "{{ rollout_switch.joins }}"
    away: "{{ rollout_switch.leaves }}"
    min_up: "{{ rollout_switch.least }}"
  delegate_to: lb1
  when: rollout_switch.admitted
"""

RETURN = r"""
admitted:
  description: Whether the load balancers are to be switched now.
  returned: when O(state=admitted)
  type: bool
  sample: true
until:
  description: Until when it has to be reported, in seconds since the epoch.
  returned: when it was admitted
  type: float
  sample: 1767225600.0
back:
  description: Whether they are switched back.
  returned: when it was admitted
  type: bool
  sample: false
joins:
  description: The hosts that are to be in service.
  returned: when it was admitted
  type: list
  elements: str
  sample: [app3, app4]
leaves:
  description: The hosts that are to be out of service.
  returned: when it was admitted
  type: list
  elements: str
  sample: [app1, app2]
least:
  description: How many of RV(joins) have to be healthy for a load balancer to be switched.
  returned: when it was admitted
  type: int
  sample: 2
gate:
  description: The gate that has to be asked now, as M(convoy.rollout.report) returns it, or null.
  returned: when O(state=reported)
  type: dict
reason:
  description:
    - Why nothing is to be switched.
    - When the action fails, a short word for what was refused.
  returned: when it was not admitted, and on failure
  type: str
  sample: the rollout has succeeded
"""
