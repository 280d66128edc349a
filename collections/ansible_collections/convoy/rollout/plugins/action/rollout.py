# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's steps of a rollout: check what is asked, open, decide what goes back, close."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.convoy.rollout.plugins.plugin_utils import fleet, text
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, Plan, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    Quantity,
    RolloutSpec,
    SpecError,
    parse_phases,
    parse_seconds,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Depot
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Opened, Rollouts, RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.policy import refuse_when_frozen
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import release_id
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshVerifier
from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import require_string
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import refuse_unknown

SILENCE = 120.0  # seconds beyond its longest step after which a run that cannot be seen counts as dead


class ActionModule(ControllerAction):
    """``convoy.rollout.rollout``"""

    SPEC = {
        "state": {"type": "str", "required": True, "choices": ["checked", "opened", "decided", "closed"]},
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
        "lease": {"type": "raw", "default": 600},
        "checked": {"type": "dict"},
        "membership": {"type": "dict", "default": {}},
        "opened": {"type": "dict"},
    }
    REQUIRED_IF = (
        ("state", "checked", ("environment", "component", "phases")),
        ("state", "opened", ("checked",)),
        ("state", "decided", ("opened",)),
        ("state", "closed", ("opened",)),
    )

    def before_validation(self, raw: Mapping[str, Any]) -> None:
        """Refuse a version that YAML made a number, before its type is converted."""
        if raw.get("version") is not None:
            require_string("component_version", raw["version"])

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do the step that ``state`` names."""
        step = {"checked": self._check, "opened": self._open, "decided": self._decide, "closed": self._close}
        return step[arguments["state"]](arguments, task_vars)

    def _check(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Everything that can be refused without asking a host."""
        refuse_unknown(task_vars)
        _refuse_ledger_in_container(arguments["ledger_url"])
        spec = _spec(arguments)
        rollback = arguments["kind"] == "rollback"
        override = "" if rollback else refuse_when_frozen(
            arguments["freezes"], time.time(), arguments["freeze_override"]
        )  # fmt: skip
        kept = ("kind", "environment", "component", "version", "hosts", *SPEC_FIELDS)
        result: Result = {key: arguments[key] for key in kept}
        result["stream"] = f"{arguments['environment']}/{arguments['component']}"
        if not rollback:
            result.update(_resolve(arguments))
        warnings = _fork_warnings(spec, len(arguments["hosts"]), task_vars.get("ansible_forks", 5))
        return {**result, "changed": False, "warnings": warnings, "override": override}

    def _open(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Plan with what was read from the hosts, take the token, and record the opening."""
        checked = arguments["checked"]
        readings = fleet.readings_of(checked["hosts"], task_vars["hostvars"], arguments["membership"])
        problems = fleet.objections(readings, checked.get("need_bytes", 0))
        if problems:
            raise fleet.FleetError("nothing was touched: " + "; ".join(problems))
        rollouts = self._rollouts(arguments["ledger_url"], checked["stream"])
        latest = rollouts.view()
        seen = fleet.targets_of(readings, _target(checked, latest, readings))
        checked["version"] = checked["version"] or fleet.version_of(readings, seen)
        plan = make_plan(_spec(checked), list(seen.values()))
        retry = _command(task_vars, checked)
        left_open = latest is not None and not latest.status.ended
        idle = not left_open and all(host.status is HostStatus.CURRENT for host in plan.hosts)
        result: Result = {"changed": False, "warnings": fleet.skewed(readings), "order": [], "hosts": {}, "retry": retry}
        if self.check_mode or idle:
            return {**result, "idle": True, "convoy": {"summary": _idle_summary(plan, seen, checked, idle)}}
        opened = rollouts.open(
            plan, seen, _facts(checked), this_run(), dead, _new_id(), _patience(plan)
        )
        view = rollouts.view(opened.rollout)
        assert view is not None
        pending = [row for row in view.hosts if row.status is HostStatus.PENDING]
        goes = [] if view.status is Status.TURNING_BACK else pending
        result["order"] = [row.name for row in sorted(goes, key=lambda row: (row.phase, row.position))]
        result["hosts"] = {row.name: {"to": row.to_release, "from": row.from_release} for row in view.hosts}
        gate = rollouts.gate(opened.rollout) if opened.gate_due else None
        lines = [*_opening_lines(opened, view, checked), *text.plan_lines(plan, {})]
        same = {key: checked[key] for key in ("stream", "kind", "component", "environment")}
        return {
            **result, **same, "changed": True, "idle": False, "gate": gate, "version": view.facts["version"],
            "rollout": opened.rollout, "token": opened.token, "convoy": {"lines": lines},
        }  # fmt: skip

    def _decide(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Which hosts have to go back."""
        opened = arguments["opened"]
        if opened["idle"]:
            return {"changed": False, "to_return": []}
        view = self._rollouts(arguments["ledger_url"], opened["stream"]).view(opened["rollout"])
        assert view is not None
        if view.status is not Status.TURNING_BACK:
            return {"changed": False, "to_return": []}
        lines = [f"the rollout turns back: {view.state.reason}"]
        if view.to_return:
            lines.append(f"going back: {text.names(view.to_return)}")
        return {"changed": False, "to_return": view.to_return, "convoy": {"lines": lines}}

    def _close(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """End the rollout; anything but success is a failure of the run."""
        opened = arguments["opened"]
        if opened["idle"]:
            return {"changed": False, "status": "idle"}
        rollouts = self._rollouts(arguments["ledger_url"], opened["stream"])
        answer = rollouts.close(opened["rollout"], opened["token"])
        view = rollouts.view(opened["rollout"])
        assert view is not None
        succeeded = view.status is Status.SUCCEEDED
        summary = text.outcome_lines(view, "" if succeeded else _next_step(view, opened["retry"], task_vars))
        result = {"changed": False, "status": view.status.value, "convoy": {"summary": summary}}
        if isinstance(answer, Denied):
            raise AnsibleActionFail(f"the rollout has not ended: {answer.reason}", result=result)
        if not succeeded:
            raise AnsibleActionFail(f"the rollout has {view.status}: {view.state.reason}", result=result)
        return result

    @staticmethod
    def _rollouts(url: str, stream: str) -> Rollouts:
        ledger = Ledger(url, str(this_run()))
        ledger.prepare()
        return Rollouts(ledger, stream)


SPEC_FIELDS = ("phases", "max_unavailable", "failure_budget", "turn_back_max_unavailable", "lease")


def _spec(arguments: Mapping[str, Any]) -> RolloutSpec:
    return RolloutSpec(
        phases=parse_phases(arguments["phases"], arguments["max_unavailable"]),
        failure_budget=Quantity.parse("rollout_failure_budget", arguments["failure_budget"]),
        turn_back_max_unavailable=Quantity.parse(
            "rollout_turn_back_max_unavailable", arguments["turn_back_max_unavailable"], least=1
        ),
        lease=parse_seconds("rollout_lease", arguments["lease"], least=1),
    )


def _resolve(arguments: Mapping[str, Any]) -> Result:
    """The verified artifact of the version, by the depot."""
    for field in ("version", "depot", "allowed_signers"):
        if not arguments[field]:
            raise SpecError(f"{VARIABLE_OF[field]} is not set: give it with -e or in the inventory's group_vars")
    revoked = arguments["revoked_signers"]
    verifier = SshVerifier(Path(arguments["allowed_signers"]), Path(revoked) if revoked else None)
    resolved = Depot(Path(arguments["depot"])).resolve(
        arguments["component"], arguments["version"], verifier,
        environment=arguments["environment"], now=datetime.now(UTC),
    )  # fmt: skip
    artifact = resolved.manifest.artifact
    unpacked = sum(member.size or 0 for member in resolved.manifest.files)
    return {
        "artifact": str(resolved.artifact),
        "artifact_sha256": artifact.sha256,
        "manifest": {"path": str(resolved.path), "sha256": resolved.digest},
        "signer": resolved.signer.principal,
        "need_bytes": 2 * (unpacked + artifact.size),
    }


VARIABLE_OF = {"version": "component_version", "depot": "depot_path", "allowed_signers": "environment_allowed_signers"}


def _refuse_ledger_in_container(url: str) -> None:
    """What a job writes in AWX's container is gone with the job: a ledger there would be forgotten each time."""
    if url.startswith("sqlite") and "AWX_PRIVATE_DATA_DIR" in os.environ:
        raise LedgerError(
            "environment_ledger_url: a SQLite file in an AWX job is lost with its container: give a PostgreSQL URL, "
            "e.g. postgresql+psycopg://convoy@db.example/convoy"
        )


def _fork_warnings(spec: RolloutSpec, hosts: int, forks: int) -> list[str]:
    window = max(phase.max_unavailable.down(hosts) for phase in spec.phases)
    if window <= forks:
        return []
    return [f"a window of {window} hosts needs as many forks, but only {forks} are set: run with --forks {window}"]


def _target(
    checked: Mapping[str, Any], latest: RolloutView | None, readings: list[Reading]
) -> Callable[[Reading], str]:
    """What release a host is to run, as a function of its reading."""
    if checked["kind"] == "deploy":
        return lambda reading: release_id(checked["version"], checked["artifact_sha256"], reading.read["rendered"])
    if checked["version"]:
        return fleet.known_version(checked["version"])
    if latest is not None and not latest.status.ended and latest.facts["kind"] == "rollback":
        planned = {row.name: row.to_release for row in latest.hosts}
        return lambda reading: planned[reading.name]
    return fleet.last_good(readings)


def _facts(checked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: checked.get(key) for key in ("kind", "environment", "component", "version", "artifact_sha256", "signer", "override")}


def _new_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)


def _patience(plan: Plan) -> float:
    return max(plan.lease, *(phase.bake for phase in plan.phases)) + SILENCE


def _command(task_vars: Mapping[str, Any], checked: Mapping[str, Any]) -> str:
    """The command that does the same again."""
    version = f" -e component_version={checked['version']}" if checked["version"] else ""
    return f"ansible-playbook {checked['kind']}.yml -i {_inventory(task_vars)}{version}"


def _inventory(task_vars: Mapping[str, Any]) -> str:
    sources = task_vars.get("ansible_inventory_sources") or ["?"]
    return " -i ".join(os.path.relpath(source) if os.path.exists(source) else str(source) for source in sources)


def _next_step(view: RolloutView, retry: str, task_vars: Mapping[str, Any]) -> str:
    if not view.status.ended:
        return f"{retry}    (goes on where it stopped)"
    if view.status is Status.REVERTED:
        return f"publish a version that is mended and deploy it; what runs: ansible-playbook status.yml -i {_inventory(task_vars)}"
    return f"ansible-playbook status.yml -i {_inventory(task_vars)}    (then {retry})"


def _opening_lines(opened: Opened, view: RolloutView, checked: Mapping[str, Any]) -> list[str]:
    verb = "goes on" if opened.resumed else "opens"
    lines = [f"rollout {opened.rollout} {verb}: {checked['kind']} of {checked['component']} {view.facts['version']}"]
    return [*lines, checked["override"]] if checked.get("override") else lines


def _idle_summary(plan: Plan, seen: Mapping[str, HostFacts], checked: Mapping[str, Any], idle: bool) -> list[str]:
    if idle:
        runs = text.runs_lines({host.name: host.to_release for host in plan.hosts})
        return [f"nothing to do for {checked['component']} in {checked['environment']}", *runs]
    return ["check mode: this would be done, nothing was", *text.plan_lines(plan, {})]
