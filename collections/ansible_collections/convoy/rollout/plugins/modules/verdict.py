#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/verdict.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verdict
short_description: Tell the coordinator what the gate of a closed phase said
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Records the verdict over a phase whose hosts have all reported. It opens the next phase, turns the rollout round, or
    leaves the decision to a person.
  - A pass that comes before the end of the bake time waits for it.
options:
  verdict:
    description:
      - V(pass) opens the next phase.
      - V(fail) turns the rollout round.
      - V(inconclusive) says that there was nothing to judge, V(error) that the gate itself could not be used. Neither
        is a pass. The rollout waits for a person.
    type: str
    required: true
    choices: [pass, fail, inconclusive, error]
  why:
    description: What the gate saw, in one line.
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
    details: The second verdict over the same phase is not recorded.
seealso:
  - module: convoy.rollout.report
  - module: convoy.rollout.health_gate
"""

EXAMPLES = r"""
- name: Record that the hosts of the phase stayed healthy
  convoy.rollout.verdict:
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    verdict: pass
    why: 2 hosts healthy for 30 s
"""

RETURN = r"""
recorded:
  description: Whether the verdict counted. It does not when no gate is open, because the rollout has turned round, say.
  returned: success
  type: bool
  sample: true
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
      sample: ["gate: pass: 2 hosts healthy for 30 s"]
"""
