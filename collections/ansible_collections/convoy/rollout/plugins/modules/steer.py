#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/steer.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: steer
short_description: Pause, resume, advance or abort the rollout that is running
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Gives an order to the rollout that is open, from another terminal or job. Whoever waits for admission obeys it.
  - The order is recorded in the ledger with who gave it and why. It runs on the controller.
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
  order:
    description:
      - V(pause) lets no further host go; those that are out finish. V(resume) ends the pause.
      - V(advance) approves what the rollout waits for, a phase that needs an approval or a gate that could not tell.
        A rollout that holds because too many hosts have failed goes on, and those failures count no more.
      - V(abort) turns the rollout back, as far as its scope says. V(stop) ends it where it is. Nothing goes back.
      - V(unlock) takes the token away from the run that holds it, be it alive or not. The next run of the same command
        goes on with the rollout; what the last one still tries is refused. It needs O(rollout) and O(reason).
      - V(done) says of a migration that is in doubt that it took effect, V(again) that it has to be run again. They
        need O(migration).
    type: str
    required: true
    choices: [pause, resume, advance, abort, stop, unlock, done, again]
  reason:
    description: Why. It is recorded.
    type: str
    default: no reason was given
  rollout:
    description:
      - The id of the rollout that is meant. The order is refused where another one is open.
        Required if O(order=unlock).
    type: str
  migration:
    description: The name of the migration that is meant. Required if O(order=done) or O(order=again).
    type: str
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The hosts are not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: none
    details: It is skipped in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details: An order that cannot be followed any more is refused.
seealso:
  - module: convoy.rollout.rollout
  - module: convoy.rollout.admission
"""

EXAMPLES = r"""
- name: Let no further host go
  convoy.rollout.steer:
    ledger_url: sqlite:////var/lib/convoy/staging.db
    environment: staging
    component: hello
    order: pause
    reason: the database is being moved
"""

RETURN = r"""
rollout:
  description: The id of the rollout that was given the order.
  returned: success
  type: str
  sample: 20260105-091500-3fa2
"""
