# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rollout, one a task: check, open or join, take stock of staging, decide, close."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.utils.display import Display

from ansible_collections.convoy.rollout.plugins.plugin_utils import closing, fleet, opening
from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import check, spec_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import parse_colours, parse_seconds
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import TRUST_SPEC, Depot
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, stream_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import command, dead, this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import require_string
from ansible_collections.convoy.rollout.plugins.plugin_utils.superseding import Patience, WhenBusy, make_way
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
        "kind": {"type": "str", "choices": ["deploy", "rollback", "catch_up", "repair"], "default": "deploy"},
        "environment": {"type": "str"},
        "component": {"type": "str"},
        "version": {"type": "str"},
        "component_kind": {"type": "str", "default": "archive"},
        "package": {"type": "dict", "default": {}},
        "tasks": {"type": "dict", "default": {}},
        "in_doubt": {"type": "str", "default": ""},
        "confirm_within": {"type": "raw", "default": 0},
        "container": {"type": "raw", "default": {}},
        "artifact": {"type": "str", "default": ""},
        "config": {"type": "raw", "default": []},
        "units": {"type": "raw", "default": []},
        "depot": {"type": "path"},
        "depot_url": {"type": "str"},
        "depot_cache": {"type": "path", "default": "~/.cache/convoy/depots"},
        "depot_options": {"type": "dict", "default": {}, "no_log": True},
        **TRUST_SPEC,
        "requires_promotion": {"type": "bool", "default": False},
        "freezes": {"type": "list", "elements": "dict", "default": []},
        "freeze_override": {"type": "str", "default": ""},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "mendable": {"type": "list", "elements": "str"},
        "releases": {"type": "dict", "default": {}},
        "versions": {"type": "dict", "default": {}},
        "colours": {"type": "raw", "default": {}},
        "phases": {"type": "raw"},
        "max_unavailable": {"type": "raw", "default": 1},
        "failure_budget": {"type": "raw", "default": 0},
        "turn_back_max_unavailable": {"type": "raw", "default": "50%"},
        "turn_back_scope": {"type": "str", "default": "all"},
        "lease": {"type": "raw", "default": 600},
        "min_available": {"type": "raw", "default": 0},
        "zone_order": {"type": "str", "default": "inventory"},
        "on_failure": {"type": "str", "default": "turn_back"},
        "when_unreachable": {"type": "str", "default": "fail"},
        "when_unhealthy": {"type": "str", "default": "go_first"},
        "min_up": {"type": "int", "default": 0},
        "members_up": {"type": "int"},
        "alertmanager": {"type": "dict", "default": {}},
        "progress_deadline": {"type": "raw", "default": 0},
        "gate": {"type": "dict", "default": {}},
        "gates": {"type": "dict", "default": {}},
        "gate_options": {"type": "dict", "default": {}},
        "balancers": {"type": "list", "elements": "str", "default": []},
        "backend": {"type": "str", "default": ""},
        "when_busy": {"type": "str", "choices": [policy.value for policy in WhenBusy], "default": "reject"},
        "queue_deadline": {"type": "float", "default": 3600},
        "hooks": {"type": "dict", "default": {}},
        "migrations": {"type": "raw", "default": []},
        "accept_irreversible": {"type": "str", "default": ""},
        "traffic_adapter": {"type": "str", "default": "none"},
        "traffic_tasks": {"type": "dict", "default": {}},
        "keep": {"type": "int", "default": 5},
        "transfer": {"type": "str", "default": "push"},
        "artifact_url": {"type": "str", "default": ""},
        "pull": {"type": "dict", "default": {}, "no_log": True},
        "checked": {"type": "dict"},
        "membership": {"type": "dict", "default": {}},
        "rotation": {"type": "dict", "default": {}},
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

    def refused(self, raw: Mapping[str, Any], error: ConvoyError) -> None:
        """Record that no rollout was opened, and why; unless nothing may be changed, or the ledger is at fault."""
        if self.check_mode or raw.get("state") not in ("checked", "opened") or isinstance(error, LedgerError):
            return
        asked = raw.get("checked") or raw
        with contextlib.suppress(KeyError, LedgerError):
            rollouts = self._rollouts(raw, stream_of(asked))
            rollouts.refuse(str(asked.get("kind", "deploy")), str(asked.get("version") or ""), error)

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do the step that ``state`` names."""
        state, opened = arguments["state"], arguments["opened"]
        if state == "checked":
            refuse_unknown(task_vars)
            of_colours = parse_colours(arguments["colours"], task_vars.get("groups", {}), arguments["hosts"])
            inventory = task_vars.get("groups", {}).get("all", []) if arguments["migrations"] else []
            arguments = {**arguments, "colours": of_colours, "inventory": inventory}
            return {"changed": False, **self._check(arguments, task_vars.get("ansible_forks", 5))}
        if state == "opened":
            return self._open(arguments, task_vars)
        if state == "joined":
            stream = stream_of(arguments)
            return opening.join(self._rollouts(arguments, stream), _deploy_again(task_vars), arguments["hosts"])
        if opened["idle"]:
            return {"changed": False, "order": [], "to_return": []}
        rollouts = self._rollouts(arguments, opened["stream"])
        if state == "staged":
            return opening.take_stock(rollouts, opened, task_vars["hostvars"])
        if state == "decided":
            silence = rollouts.standing(opened["rollout"]).plan.lease
            return closing.decide_return(rollouts, opened, _patience(silence))
        return closing.close(rollouts, opened, command("status.yml", task_vars), command("catch_up.yml", task_vars))

    def _check(self, arguments: dict[str, Any], forks: int) -> Result:
        """Refuse what can be refused before anything is locked; then wait until no other rollout is in the way."""
        rollouts = None
        if arguments["kind"] == "catch_up":
            rollouts = self._rollouts(arguments, stream_of(arguments))
            arguments = {**arguments, **opening.stragglers(rollouts, arguments["hosts"])}
            if not arguments["hosts"]:
                return opening.nothing_deferred(arguments)
        if arguments["kind"] == "repair":
            rollouts = self._rollouts(arguments, stream_of(arguments))
            arguments = {**arguments, **opening.drifted(rollouts, arguments)}
            if not arguments["hosts"]:
                return opening.nothing_drifted(arguments)
        checked = check(arguments, forks, time.time())
        if arguments["kind"] != "rollback":
            _refuse_when_firing(arguments["alertmanager"])
        if self.check_mode:
            return checked
        is_in_depot = arguments["component_kind"] != "package"
        if arguments["kind"] != "rollback" and is_in_depot and not arguments["depot_url"]:
            Depot(Path(arguments["depot"])).note(arguments["environment"])
        policy = WhenBusy(arguments["when_busy"])
        patience = _patience(arguments["queue_deadline"])
        silence = opening.patience(spec_of(checked))
        rollouts = rollouts or self._rollouts(arguments, checked["stream"])
        waited_for = make_way(
            rollouts, lambda: rollouts.in_the_way(this_run(), dead, silence), policy, patience, str(this_run())
        )
        opening.refuse_going_below(rollouts, checked)
        held = f"it waited for rollout {waited_for}, and is held" if policy is WhenBusy.HOLD and waited_for else ""
        return {**checked, "held": held}

    def _open(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        checked = {**arguments["checked"], "rotation": arguments["rotation"]}
        if not checked["hosts"]:
            return {"changed": False, "idle": True, "order": []}
        readings = fleet.readings_of(checked["hosts"], task_vars["hostvars"], arguments["membership"])
        version = f" -e component_version={checked['version']}" if checked["version"] else ""
        retry = command(f"{checked['kind']}.yml", task_vars) + version
        rollouts = self._rollouts(arguments, checked["stream"])
        return opening.open_rollout(rollouts, checked, readings, retry, self.check_mode, arguments["members_up"])

    @staticmethod
    def _rollouts(arguments: Mapping[str, Any], stream: str) -> Rollouts:
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        ledger.prepare()
        return Rollouts(ledger, stream)


def _refuse_when_firing(alertmanager: Mapping[str, Any]) -> None:
    """Ask Alertmanager, where one is configured; only there what is needed for it is imported."""
    if not alertmanager:
        return
    from ansible_collections.convoy.rollout.plugins.plugin_utils import alerts
    from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.fetching import fetcher

    request = alerts.request_of(alertmanager)
    timeout = parse_seconds(f"{alerts.FIELD}.timeout", alertmanager.get("timeout", 10.0), least=0.1)
    answers = fetcher(timeout, alertmanager.get("ca_path"))([request])
    alerts.refuse_when_firing(request, answers[request])


def _patience(seconds: float) -> Patience:
    return Patience(time.monotonic, time.sleep, Display().display, seconds)


def _deploy_again(task_vars: Mapping[str, Any]) -> str:
    return command("deploy.yml", task_vars)
