#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/report.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Tell the coordinator what became of a host
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Records in the ledger how a host's road ended, and gives the host's lease back.
  - The report that closes a phase tells its host to run the phase's gate. The next phase opens when
    M(convoy.rollout.verdict) has told how that went.
  - The failure that uses the failure budget up turns the rollout round.
options:
  host:
    description: The host that the report is about.
    type: str
    required: true
  outcome:
    description:
      - V(succeeded) runs the new release and is in service.
      - V(reverted) failed, and runs the old release in service again.
      - V(failed) failed, and is not known to serve.
      - V(lost) went away after it was admitted.
      - V(unreachable) could not be reached before it was touched.
      - V(unstaged) could not take the release in. What it runs was not touched.
      - V(returned) came back to its old release after the rollout had turned round.
      - V(stuck) could not be brought back.
    type: str
    required: true
    choices: [succeeded, reverted, failed, lost, unreachable, unstaged, returned, stuck]
  why:
    description: Why, in one line. It stands in the ledger and in the last lines of the run.
    type: str
    default: ""
extends_documentation_fragment:
  - convoy.rollout.ledger
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The host is not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: none
    details: It is skipped. A rollout is never open in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing on hosts.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.admission
  - module: convoy.rollout.verdict
"""

EXAMPLES = r"""
- name: Report that the host runs the new release
  convoy.rollout.report:
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    host: "{{ inventory_hostname }}"
    outcome: succeeded
  register: rollout_report

- name: Report a host that took itself back
  convoy.rollout.report:
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    host: "{{ inventory_hostname }}"
    outcome: reverted
    why: "{{ component_activated.msg }}"
"""

RETURN = r"""
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
  description: A short word for what was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: stale_token
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
