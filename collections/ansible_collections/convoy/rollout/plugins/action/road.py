# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take a host its whole road within one worker: admission, the steps, the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import asking, inline, road
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied, Migrate
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

NOT_GONE: Result = {"changed": False, "gone": False, "gate": None, "migration": None}


class ActionModule(ControllerAction):
    """``convoy.rollout.road``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "host": {"type": "str", "required": True},
        "steps": {"type": "list", "elements": "str", "required": True},
        "hooks": {"type": "dict", "default": {}},
        "adapter": {"type": "str", "required": True},
        "tasks": {"type": "dict", "default": {}},
        "back": {"type": "bool", "default": False},
        "poll": {"type": "float", "default": 0.1},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Go, where nothing of the site's own lies on the road."""
        steps, adapter = arguments["steps"], arguments["adapter"]
        if not road.is_ours(steps, arguments["hooks"], adapter, arguments["tasks"]) or not inline.possible():
            return NOT_GONE
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        rollouts = Rollouts(ledger, arguments["stream"])
        answer = asking.await_admission(rollouts, arguments)
        ledger.close()
        if isinstance(answer, Denied):
            return {"changed": False, "gone": True, "gate": None, "reason": answer.reason}
        if isinstance(answer, Migrate):
            return {**NOT_GONE, "migration": asking.told(answer)}
        here = inline.Inline()

        def take(step: str) -> Result:
            result: Result = {}
            for file in road.steps([step], adapter=adapter):
                result = here.run(file)
            return result

        became = road.go_back(steps, take) if arguments["back"] else road.go_forward(steps, take)
        told = asking.report(rollouts, arguments, HostStatus(became["outcome"]), became["why"])
        return {"changed": here.changed, "gone": True, "reason": "", **became, **told}
