# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell the coordinator what became of this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import asking
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

OUTCOMES = ("succeeded", "reverted", "failed", "lost", "unreachable", "unstaged", "returned", "stuck")


class ActionModule(ControllerAction):
    """``convoy.rollout.report``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "host": {"type": "str", "required": True},
        "outcome": {"type": "str", "required": True, "choices": OUTCOMES},
        "why": {"type": "str", "default": ""},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Record the outcome; say whether this host has to run its phase's gate."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), arguments["stream"])
        outcome = HostStatus(arguments["outcome"])
        return {"changed": False, **asking.report(rollouts, arguments, outcome, arguments["why"])}
