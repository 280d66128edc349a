#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/ledger_info.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_info
short_description: Tell, verify and export what the ledger holds of a component
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Tells the rollouts of a component in an environment, newest first, or the whole story of one of them.
  - Verifies the hash of every event from the first to the newest, rebuilds every rollout from its events, and compares
    that with the tables that are kept beside them.
  - It fails where the chain does not hold or the tables differ, after telling what is there.
  - A ledger that is not there is not made.
options:
  ledger_url:
    description: The ledger, as an SQLAlchemy URL.
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
  rollout:
    description: The id of a rollout, to tell all of its events instead of the history.
    type: str
    default: ""
  last:
    description: How many rollouts are told. All are verified and compared, however many are told.
    type: int
    default: 20
  export:
    description:
      - A file on the controller to which every event is written, one a line, as JSON, with its hash. The file is for
        its owner alone, and is written whole or not at all. In check mode it is not written.
    type: path
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The hosts are not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: The ledger is only read. O(export) writes nothing in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details: An export is a change only where the file did not hold the same already.
seealso:
  - module: convoy.rollout.status
"""

EXAMPLES = r"""
- name: Tell the history, and verify it
  convoy.rollout.ledger_info:
    ledger_url: "{{ environment_ledger_url }}"
    environment: staging
    component: hello

- name: Tell the story of one rollout, and keep all events elsewhere
  convoy.rollout.ledger_info:
    ledger_url: "{{ environment_ledger_url }}"
    environment: staging
    component: hello
    rollout: 20260105-091500-3fa2
    export: /var/backups/convoy/staging-hello.jsonl
"""

RETURN = r"""
intact:
  description: Whether every event fits its hash, and the newest one is the head.
  returned: success and failure
  type: bool
  sample: true
differs:
  description: What the tables say otherwise than the events, one sentence each.
  returned: success and failure
  type: list
  elements: str
  sample: []
head:
  description: The newest event. Kept elsewhere, it shows later that nothing before it was cut off or written anew.
  returned: success and failure
  type: dict
  contains:
    seq:
      description: Its number.
      type: int
      sample: 120
    hash:
      description: Its hash, which covers all before it.
      type: str
      sample: 9f2c51d0a2f7c5a1d3de1a5d5f4f3a0e6c0a8a2b1f4e7d6c5b4a39281706f5e4
refusals:
  description: The newest of the rollouts that were refused before they were opened, newest first.
  returned: success and failure
  type: list
  elements: dict
  contains:
    at:
      description: When, in seconds since 1970.
      type: float
      sample: 1767604500.0
    by:
      description: Who asked for it.
      type: str
      sample: maria@control1 (process 4711)
    kind:
      description: V(deploy), V(rollback) or V(catch_up).
      type: str
      sample: deploy
    version:
      description: The version that was asked for; empty where none was named.
      type: str
      sample: 1.1.0
    reason:
      description: The kind of refusal, in a word.
      type: str
      sample: frozen
    why:
      description: What was said.
      type: str
      sample: 'component_version: no version 9.9.9 of hello was published'
rollouts:
  description: The newest rollouts, newest first.
  returned: success and failure
  type: list
  elements: dict
  contains:
    id:
      description: The rollout's id.
      type: str
      sample: 20260105-091500-3fa2
    kind:
      description: V(deploy) or V(rollback).
      type: str
      sample: deploy
    version:
      description: The version that was rolled out.
      type: str
      sample: 1.1.0
    status:
      description: Where it stands, or how it ended.
      type: str
      sample: succeeded
    opened_at:
      description: When it was opened, in seconds since 1970.
      type: float
      sample: 1767604500.0
    closed_at:
      description: When it was closed, or null while it is open.
      type: float
      sample: 1767605100.0
    by:
      description: Who opened it.
      type: str
      sample: alice@deploy1 (process 4242)
    moved:
      description: How many hosts ever came to its release.
      type: int
      sample: 40
    failed:
      description: How many hosts ever failed, reverted, or were lost, unreachable or stuck.
      type: int
      sample: 0
story:
  description: Every event of O(rollout), oldest first; empty without it.
  returned: success and failure
  type: list
  elements: dict
  contains:
    seq:
      description: The event's number.
      type: int
      sample: 7
    at:
      description: When, in seconds since 1970.
      type: float
      sample: 1767604500.0
    actor:
      description: Who.
      type: str
      sample: alice@deploy1 (process 4242)
    host:
      description: The host, or an empty string where the event concerns none.
      type: str
      sample: app1
    what:
      description: What happened, and why.
      type: str
      sample: "admitted -> reverted: probe http answered 500"
reason:
  description: A short word for what was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: ledger
convoy:
  description: What is told in the terminal, in RV(convoy.summary).
  returned: success and failure
  type: dict
  contains:
    summary:
      description: The history or the story, and what was verified.
      type: list
      elements: str
      sample: ["intact: every event from 1 to 120 fits its hash; the head is 9f2c51d0"]
"""
