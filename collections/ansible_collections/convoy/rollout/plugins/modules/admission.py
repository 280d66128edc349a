#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/admission.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: admission
short_description: Wait until a host may go out of service
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Asks the coordinator whether the host may go now, forward or back, and waits until it may or never will.
  - The coordinator sees to it that no more hosts are out of service than the window and the zone allow, over all
    controllers together, that the phases go in order, and that no host goes once the failure budget is used up.
  - An admitted host holds a lease. It counts as lost if M(convoy.rollout.report) has not been called for it before the
    lease ends.
  - Use it in a play with the strategy P(ansible.builtin.host_pinned#strategy), and with as many forks as the window is
    wide.
options:
  host:
    description: The host that asks.
    type: str
    required: true
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
    details: A host that was admitted is not admitted again, it has to report first.
seealso:
  - module: convoy.rollout.rollout
  - module: convoy.rollout.report
"""

EXAMPLES = r"""
- name: Wait for admission
  convoy.rollout.admission:
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    host: "{{ inventory_hostname }}"
  register: rollout_admission

- name: Leave out a host that may not go
  ansible.builtin.meta: end_host
  when: not rollout_admission.admitted
"""

RETURN = r"""
admitted:
  description: Whether the host may go.
  returned: success
  type: bool
  sample: true
first:
  description: Whether the host begins its phase.
  returned: success
  type: bool
  sample: false
until:
  description: When the host's lease ends, in seconds since the epoch.
  returned: when the host was admitted
  type: float
  sample: 1767225600.0
migration:
  description:
    - What has to be run before anybody goes on, by whoever asked, and reported by M(convoy.rollout.migration). The
      host has to ask again then. Null where there is nothing.
  returned: always
  type: dict
reason:
  description:
    - Why the host may not go. Empty when it may.
    - When the action fails, a short word for what was refused.
  returned: always
  type: str
  sample: "the rollout turns back: 1 failed, more than the failure budget of 0"
"""
