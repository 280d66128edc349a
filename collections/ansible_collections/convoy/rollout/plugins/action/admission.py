# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the coordinator whether this host may go out of service now, and wait until it may."""

from __future__ import annotations

import time
from typing import Any

from ansible.utils.display import Display
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Answer, Denied, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

SAY_EVERY = 15.0  # seconds between two lines about what a host waits for


class ActionModule(ControllerAction):
    """``convoy.rollout.admission``"""

    _supports_check_mode = False
    SPEC = {
        **LEDGER_SPEC,
        "host": {"type": "str", "required": True},
        "poll": {"type": "float", "default": 0.25},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Wait for the answer."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), arguments["stream"])
        answer = self._await(rollouts, arguments)
        if isinstance(answer, Admitted):
            return {"changed": False, "admitted": True, "until": answer.until, "reason": ""}
        assert isinstance(answer, Denied)
        return {"changed": False, "admitted": False, "reason": answer.reason}

    def _await(self, rollouts: Rollouts, arguments: dict[str, Any]) -> Answer:
        said_at, head = time.monotonic(), -1
        answer: Answer | None = None
        while True:
            due = isinstance(answer, Wait) and answer.until is not None and time.time() >= answer.until
            latest = rollouts.head()
            if latest != head or due:
                answer = rollouts.admit(arguments["rollout"], arguments["token"], arguments["host"])
                head = latest
            if not isinstance(answer, Wait):
                assert answer is not None
                return answer
            if time.monotonic() - said_at >= SAY_EVERY:
                said_at = time.monotonic()
                Display().display(f"{arguments['host']} waits: {answer.reason}{_until(answer)}")
            time.sleep(arguments["poll"])


def _until(wait: Wait) -> str:
    return "" if wait.until is None else time.strftime(", until %H:%M:%S at the latest", time.localtime(wait.until))
