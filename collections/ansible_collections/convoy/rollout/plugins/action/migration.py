# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the coordinator for a migration that has to be run now, and tell it what became of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import asking
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Denied,
    Migrate,
    MigrationReport,
    Recorded,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run


class ActionModule(ControllerAction):
    """``convoy.rollout.migration``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "state": {"type": "str", "required": True, "choices": ["admitted", "reported"]},
        "host": {"type": "str", "required": True},
        "migration": {"type": "dict"},
        "failure": {"type": "str", "default": ""},
        "poll": {"type": "float", "default": 0.25},
    }
    REQUIRED_IF: ClassVar[tuple[Any, ...]] = (("state", "reported", ("migration",)),)

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Wait for the answer, or report."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), arguments["stream"])
        if arguments["state"] == "admitted":
            return _admitted(rollouts, arguments)
        return _reported(rollouts, arguments)


def _admitted(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Result:
    rollout, token, host = (arguments[key] for key in ("rollout", "token", "host"))
    answer = asking.await_answer(
        rollouts, lambda: rollouts.admit_migration(rollout, token, host), host, arguments["poll"]
    )
    if isinstance(answer, Migrate):
        return {"changed": False, "migration": asking.told(answer), "reason": ""}
    return {"changed": False, "migration": None, "reason": answer.reason if isinstance(answer, Denied) else ""}


def _reported(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Result:
    one, failure, rollout = arguments["migration"], arguments["failure"], arguments["rollout"]
    what = f"{'the reversal of ' if one['back'] else ''}migration {one['name']}"
    report = MigrationReport(one["name"], one["until"], not failure, failure)
    answer = rollouts.report_migration(rollout, arguments["token"], report, arguments["host"])
    became = f"{what} failed: {failure}" if failure else f"{what} has taken effect"
    if isinstance(answer, Denied):
        lines = [f"{became}, which is not taken: {answer.reason}"]
        return {"changed": False, "gate": None, "reason": answer.reason, "convoy": {"lines": lines}}
    gate = rollouts.gate(rollout) if isinstance(answer, Recorded) and answer.gate_due else None
    return {"changed": not failure, "gate": gate, "reason": "", "convoy": {"lines": [became]}}
