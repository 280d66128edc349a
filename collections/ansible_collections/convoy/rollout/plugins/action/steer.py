# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steer the rollout that is open, from another terminal: pause, resume, advance, abort, stop, unlock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, stream_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run, user

NO_REASON = "no reason was given"
DONE = {
    "pause": "is paused: no further host goes until playbook resume.yml",
    "resume": "goes on",
    "advance": "advances",
    "abort": "turns back",
    "stop": "stops where it is",
    "unlock": "is free: the next run of the same command goes on with it",
    "done": "takes the migration for one that took effect",
    "again": "takes the migration for one that has to be run again",
}


class ActionModule(ControllerAction):
    """``convoy.rollout.steer``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str", "required": True},
        "order": {"type": "str", "required": True, "choices": list(DONE)},
        "reason": {"type": "str", "default": NO_REASON},
        "rollout": {"type": "str"},
        "migration": {"type": "str"},
    }
    REQUIRED_IF: ClassVar[tuple[Any, ...]] = (
        ("order", "unlock", ("rollout",)),
        ("order", "done", ("migration",)),
        ("order", "again", ("migration",)),
    )

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Record the order; whoever waits for admission obeys it."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), stream_of(arguments))
        view = rollouts.view()
        if view is None or view.status.ended:
            raise LedgerError(f"no rollout of {rollouts.stream} is open: {_nothing_to_do(arguments)}")
        if arguments["rollout"] not in (None, view.id):
            raise LedgerError(f"rollout {arguments['rollout']} is not the one that is open: that is {view.id}")
        why = f"{user()}: {arguments['reason']}"
        if arguments["order"] == "unlock":
            _unlock(rollouts, view.id, arguments["reason"], why)
        else:
            _order(rollouts, view.id, arguments, why)
        told = f"rollout {view.id} {DONE[arguments['order']]}"
        return {"changed": True, "rollout": view.id, "convoy": {"summary": [told]}}


def _nothing_to_do(arguments: Mapping[str, Any]) -> str:
    if arguments["migration"] is None:
        return f"there is nothing to {arguments['order']}"
    return f"if migration {arguments['migration']} is in doubt, the next deployment waits for it: say it then"


def _unlock(rollouts: Rollouts, rollout: str, reason: str, why: str) -> None:
    if reason == NO_REASON:
        raise SpecError("rollout_reason is not set: say with -e rollout_reason='...' why the lock is taken away")
    rollouts.unlock(rollout, why)


def _order(rollouts: Rollouts, rollout: str, arguments: Mapping[str, Any], why: str) -> None:
    order, migration = arguments["order"], str(arguments["migration"])
    orders = {
        "pause": lambda: rollouts.pause(rollout, why),
        "resume": lambda: rollouts.unpause(rollout),
        "advance": lambda: rollouts.approve(rollout, why),
        "abort": lambda: rollouts.turn_back(rollout, None, why),
        "stop": lambda: rollouts.turn_back(rollout, None, why, stop=True),
        "done": lambda: rollouts.settle_migration(rollout, migration, True, why),
        "again": lambda: rollouts.settle_migration(rollout, migration, False, why),
    }
    answer = orders[order]()
    if isinstance(answer, Denied):
        raise LedgerError(f"rollout {rollout}: {answer.reason}")
