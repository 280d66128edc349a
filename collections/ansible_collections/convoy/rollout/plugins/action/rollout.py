# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rollout, one a task: check, open or join, take stock of staging, decide, close."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import closing, fleet, opening
from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import check
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import require_string
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import refuse_unknown


class ActionModule(ControllerAction):
    """``convoy.rollout.rollout``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "state": {
            "type": "str",
            "required": True,
            "choices": ["checked", "opened", "joined", "staged", "decided", "closed"],
        },
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "kind": {"type": "str", "choices": ["deploy", "rollback"], "default": "deploy"},
        "environment": {"type": "str"},
        "component": {"type": "str"},
        "version": {"type": "str"},
        "depot": {"type": "path"},
        "allowed_signers": {"type": "path"},
        "revoked_signers": {"type": "path"},
        "freezes": {"type": "list", "elements": "dict", "default": []},
        "freeze_override": {"type": "str", "default": ""},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "phases": {"type": "raw"},
        "max_unavailable": {"type": "raw", "default": 1},
        "failure_budget": {"type": "raw", "default": 0},
        "turn_back_max_unavailable": {"type": "raw", "default": "50%"},
        "turn_back_scope": {"type": "str", "default": "all"},
        "lease": {"type": "raw", "default": 600},
        "min_available": {"type": "raw", "default": 0},
        "zone_order": {"type": "str", "default": "inventory"},
        "on_failure": {"type": "str", "default": "turn_back"},
        "unreachable": {"type": "str", "default": "fail"},
        "progress_deadline": {"type": "raw", "default": 0},
        "gate": {"type": "dict", "default": {}},
        "hooks": {"type": "dict", "default": {}},
        "traffic_adapter": {"type": "str", "default": "none"},
        "traffic_tasks": {"type": "dict", "default": {}},
        "keep": {"type": "int", "default": 5},
        "checked": {"type": "dict"},
        "membership": {"type": "dict", "default": {}},
        "opened": {"type": "dict"},
    }
    REQUIRED_IF: ClassVar[tuple[Any, ...]] = (
        ("state", "checked", ("environment", "component", "phases")),
        ("state", "opened", ("checked",)),
        ("state", "joined", ("environment", "component")),
        ("state", "staged", ("opened",)),
        ("state", "decided", ("opened",)),
        ("state", "closed", ("opened",)),
    )

    def before_validation(self, raw: Mapping[str, Any]) -> None:
        """Refuse a version that YAML made a number, before its type is converted."""
        if raw.get("version") is not None:
            require_string("component_version", raw["version"])

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do the step that ``state`` names."""
        state, opened = arguments["state"], arguments["opened"]
        if state == "checked":
            refuse_unknown(task_vars)
            return {"changed": False, **check(arguments, task_vars.get("ansible_forks", 5), time.time())}
        if state == "opened":
            return self._open(arguments, task_vars)
        if state == "joined":
            stream = f"{arguments['environment']}/{arguments['component']}"
            return opening.join(self._rollouts(arguments, stream), _deploy_again(task_vars), arguments["hosts"])
        if opened["idle"]:
            return {"changed": False, "order": [], "to_return": []}
        rollouts = self._rollouts(arguments, opened["stream"])
        if state == "staged":
            return opening.take_stock(rollouts, opened, task_vars["hostvars"])
        if state == "decided":
            return closing.decide_return(rollouts, opened)
        return closing.close(rollouts, opened, _playbook("status.yml", task_vars))

    def _open(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        checked = arguments["checked"]
        readings = fleet.readings_of(checked["hosts"], task_vars["hostvars"], arguments["membership"])
        version = f" -e component_version={checked['version']}" if checked["version"] else ""
        retry = _playbook(f"{checked['kind']}.yml", task_vars) + version
        rollouts = self._rollouts(arguments, checked["stream"])
        return opening.open_rollout(rollouts, checked, readings, retry, dry=self.check_mode)

    @staticmethod
    def _rollouts(arguments: Mapping[str, Any], stream: str) -> Rollouts:
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        ledger.prepare()
        return Rollouts(ledger, stream)


def _deploy_again(task_vars: Mapping[str, Any]) -> str:
    return _playbook("deploy.yml", task_vars)


def _playbook(name: str, task_vars: Mapping[str, Any]) -> str:
    """The command that runs a playbook with the inventories of this run."""
    sources = task_vars.get("ansible_inventory_sources") or ["?"]
    shown = (os.path.relpath(source) if os.path.exists(source) else str(source) for source in sources)
    return f"ansible-playbook {name} " + " ".join(f"-i {source}" for source in shown)
