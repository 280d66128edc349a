# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the coordinator whether this host may go out of service now, and wait until it may."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Denied, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

SAY_EVERY = 15.0  # seconds between two lines about what a host waits for
SOON = 0.05  # seconds between two questions, at least, when the time has come


class ActionModule(ControllerAction):
    """``convoy.rollout.admission``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "host": {"type": "str", "required": True},
        "poll": {"type": "float", "default": 0.1},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Wait for the answer."""
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        answer = _await(Rollouts(ledger, arguments["stream"]), arguments)
        ledger.close()
        if isinstance(answer, Admitted):
            return {"changed": False, "admitted": True, "first": answer.first, "until": answer.until, "reason": ""}
        return {"changed": False, "admitted": False, "first": False, "reason": answer.reason}


def _await(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Admitted | Denied:
    """Ask again when something has happened, or when the time has come that the last answer named."""
    say_at = time.monotonic() + SAY_EVERY
    while True:
        answer = rollouts.admit(arguments["rollout"], arguments["token"], arguments["host"])
        if not isinstance(answer, Wait):
            return answer
        due = math.inf if answer.until is None else max(SOON, answer.until - time.time())
        left = max(SOON, say_at - time.monotonic())
        if not rollouts.wait_for_change(min(due, left), arguments["poll"], arguments["host"]) and left < due:
            say_at += SAY_EVERY  # asking again is also the run's sign of life
            Display().display(f"{arguments['host']} waits: {answer.reason}{_until(answer)}")


def _until(wait: Wait) -> str:
    return "" if wait.until is None else time.strftime(", until %H:%M:%S at the latest", time.localtime(wait.until))
