# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the actions that ask the coordinator about a rollout that is open."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents what plugin_utils/controller_action.py's LEDGER_SPEC adds to an argument spec."""

    DOCUMENTATION = r"""
options:
  ledger_url:
    description:
      - The ledger, as an SQLAlchemy URL. C(sqlite:////path/file.db) for one controller,
        C(postgresql+psycopg://user@host/database) for several.
    type: str
    required: true
  stream:
    description:
      - Whose rollouts are meant. The environment and the component, with a slash between them.
    type: str
    required: true
  rollout:
    description: The rollout's id, as RV(convoy.rollout.rollout#module:rollout) told it.
    type: str
    required: true
  token:
    description:
      - The fencing token of this run, as RV(convoy.rollout.rollout#module:token) told it. The ledger refuses one that
        is not the newest, so that a run that was taken over changes nothing any more.
    type: int
    required: true
"""
