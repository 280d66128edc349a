# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the coordinator whether this host may go out of service now, and wait until it may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.asking import await_admission, told
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Denied, Migrate
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run


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
        answer = await_admission(Rollouts(ledger, arguments["stream"]), arguments)
        ledger.close()
        known = {"changed": False, "migration": None, "reason": ""}
        if isinstance(answer, Admitted):
            return {**known, "admitted": True, "first": answer.first, "until": answer.until}
        if isinstance(answer, Migrate):
            return {**known, "admitted": False, "first": False, "migration": told(answer)}
        reason = answer.reason if isinstance(answer, Denied) else ""
        return {**known, "admitted": False, "first": False, "reason": reason}
