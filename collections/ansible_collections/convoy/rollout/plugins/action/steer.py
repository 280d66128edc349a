# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steer the rollout that is running, from another terminal: pause, resume, advance, abort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run, user

DONE = {
    "pause": "is paused: no further host goes until playbook resume.yml",
    "resume": "goes on",
    "advance": "advances",
    "abort": "turns back",
}


class ActionModule(ControllerAction):
    """``convoy.rollout.steer``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str", "required": True},
        "order": {"type": "str", "required": True, "choices": list(DONE)},
        "reason": {"type": "str", "default": "no reason was given"},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Record the order; whoever waits for admission obeys it."""
        rollouts = Rollouts(
            Ledger(arguments["ledger_url"], str(this_run())), f"{arguments['environment']}/{arguments['component']}"
        )
        view = rollouts.view()
        if view is None or view.status.ended:
            raise LedgerError(f"no rollout of {rollouts.stream} is open: there is nothing to {arguments['order']}")
        why = f"{user()}: {arguments['reason']}"
        orders = {
            "pause": lambda: rollouts.pause(view.id, why),
            "resume": lambda: rollouts.unpause(view.id),
            "advance": lambda: rollouts.approve(view.id, why),
            "abort": lambda: rollouts.turn_back(view.id, None, why),
        }
        answer = orders[arguments["order"]]()
        if isinstance(answer, Denied):
            raise LedgerError(f"rollout {view.id}: {answer.reason}")
        told = f"rollout {view.id} {DONE[arguments['order']]}"
        return {"changed": True, "rollout": view.id, "convoy": {"summary": [told]}}
