#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/migration.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Ask for a migration that has to be run now, and report what became of it
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - A migration runs once in the whole rollout, over all runs that take part in it. Most are run by the host that
    M(convoy.rollout.admission) tells to. This asks for those that are left, which run after the last phase, before
    a phase without a host that moves, or on the way back. It reports of all of them.
  - What failed turns the rollout back, or holds it. A migration that is reported by nobody in time is in doubt.
options:
  state:
    description:
      - V(admitted) asks, and waits while another run is at it or a person is awaited.
      - V(reported) tells what became of it.
    type: str
    required: true
    choices: [admitted, reported]
  host:
    description: Who asks, or ran it.
    type: str
    required: true
  migration:
    description: With O(state=reported), what RV(migration) told. Required if O(state=reported).
    type: dict
  failure:
    description: With O(state=reported), why it failed. Empty if it did not.
    type: str
    default: ""
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
    details: All of it runs on the controller. What the migration does is done by the site's task file.
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
    details: A migration that somebody was told to run is not given to another one before it was reported.
seealso:
  - module: convoy.rollout.admission
  - module: convoy.rollout.rollout
"""

EXAMPLES = r"""
- name: Ask whether a migration is to be run now
  convoy.rollout.migration:
    state: admitted
    ledger_url: "{{ environment_ledger_url }}"
    stream: "{{ rollout_current.stream }}"
    rollout: "{{ rollout_current.rollout }}"
    token: "{{ rollout_current.token }}"
    host: "{{ inventory_hostname }}"
  register: rollout_migration_due
"""

RETURN = r"""
migration:
  description: What has to be run now, or null.
  returned: when O(state=admitted)
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: 0001_add_greeting
    back:
      description: Whether it is to be reversed.
      type: bool
      sample: false
    run_on:
      description: The host on which its tasks run.
      type: str
      sample: localhost
    until:
      description: Until when it has to be reported, in seconds since the epoch.
      type: float
      sample: 1767225600.0
    release:
      description: The version that it runs for.
      type: str
      sample: 1.1.0
gate:
  description: The gate that has to be asked now, as M(convoy.rollout.report) returns it, or null.
  returned: when O(state=reported)
  type: dict
reason:
  description:
    - Why nothing is to be run, or why the report was not taken. Empty otherwise.
    - When the action fails, a short word for what was refused.
  returned: always
  type: str
  sample: no migration has to run now
"""
