# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge a new release by what its hosts' metrics say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import parse_gate
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.fetching import fetcher
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.watch import GateOutcome, run
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, parse_seconds


class ActionModule(ControllerAction):
    """``convoy.rollout.metric_gate``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "metrics": {"type": "list", "elements": "dict", "required": True},
        "canary": {"type": "list", "elements": "str", "default": []},
        "baseline": {"type": "list", "elements": "str", "default": []},
        "zones": {"type": "dict", "default": {}},
        "names": {"type": "dict", "default": {}},
        "before": {"type": "dict"},
        "duration": {"type": "float", "default": 600.0},
        "interval": {"type": "float", "default": 60.0},
        "ends_early": {"type": "bool", "default": True},
        "score": {"type": "dict"},
        "timeout": {"type": "float", "default": 10.0},
        "ca_path": {"type": "path"},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Look until there is a verdict; fail unless it is a pass. In check mode, look once."""
        outcome = self._judge(arguments)
        failure = {} if outcome.verdict is Verdict.PASS else {"failed": True, "msg": outcome.message}
        lines = [f"metrics: {outcome.verdict}: {outcome.message}"]
        return {"changed": False, **outcome.as_dict(), **failure, "convoy": {"lines": lines}}

    def _judge(self, arguments: dict[str, Any]) -> GateOutcome:
        try:
            gate = parse_gate(arguments)
            timeout = parse_seconds("timeout", arguments["timeout"], least=0.1)
        except SpecError as error:
            return GateOutcome(Verdict.ERROR, str(error), (), 0.0)
        if self.check_mode:
            gate = replace(gate, duration=0.0)
        return run(gate, Clock(), fetcher(timeout, arguments["ca_path"]))
