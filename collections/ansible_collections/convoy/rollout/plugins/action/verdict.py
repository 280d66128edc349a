# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the coordinator what the gate of the closed phase said."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Answer, Denied, Verdict, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

ASK_EVERY = 1.0  # seconds


class ActionModule(ControllerAction):
    """``convoy.rollout.verdict``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "verdict": {"type": "str", "required": True, "choices": [verdict.value for verdict in Verdict]},
        "why": {"type": "str", "default": ""},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Record the verdict; a pass that comes before the end of the bake time waits for it."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), arguments["stream"])
        verdict = Verdict(arguments["verdict"])
        answer = tell(lambda: rollouts.judge(arguments["rollout"], arguments["token"], verdict, arguments["why"]))
        why = f": {arguments['why']}" if arguments["why"] else ""
        lines = [f"gate: {verdict}{why}"]
        return {"changed": False, "recorded": not isinstance(answer, Denied), "convoy": {"lines": lines}}


def tell(
    judge: Callable[[], Answer], clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
) -> Answer:
    """Record a verdict as soon as it is taken. The ledger's clock need not be this one's: it is asked anew."""
    while True:
        answer = judge()
        if not isinstance(answer, Wait) or answer.until is None:
            return answer
        sleep(min(ASK_EVERY, max(0.05, answer.until - clock())))
