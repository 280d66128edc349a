# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts ought to be by the ledger, before they are looked at; and after that, whether they are."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.plugin_utils import drift
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.drift import Expectation, HostDrift, Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, stream_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import command, this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.text import names
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import refuse_unknown

SCHEMA = 1


class DriftedError(ConvoyError):
    """Hosts are not as they were deployed; the result still tells everything."""

    reason: ClassVar[str] = "drift"

    def __init__(self, message: str, told: Result) -> None:
        super().__init__(message)
        self.details = told


class ActionModule(ControllerAction):
    """``convoy.rollout.drift``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "state": {"type": "str", "required": True, "choices": ["expected", "compared"]},
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str", "required": True},
        "expected": {"type": "dict", "default": {}},
        "json": {"type": "path"},
        "fails": {"type": "bool", "default": True},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do the step that ``state`` names. Whatever keeps it from telling is no drift, and leaves all unknown."""
        try:
            return self._perform(arguments, task_vars)
        except DriftedError:
            raise
        except ConvoyError as error:
            return {"unreachable": True, "changed": False, "reason": error.reason, "msg": str(error)}

    def _perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        refuse_unknown(task_vars)
        if not arguments["hosts"]:
            raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
        known = _expectations(arguments)
        if arguments["state"] == "expected":
            return {"changed": False, "expected": {host: asdict(one) for host, one in known.items()}}
        hostvars = task_vars["hostvars"]
        hosts = [
            drift.judge(host, Expectation(**before), known[host], hostvars[host].get("component_drift") or {})
            for host, before in arguments["expected"].items()
        ]
        return self._tell(hosts, arguments, command("repair.yml", task_vars))

    def _tell(self, hosts: Sequence[HostDrift], arguments: Mapping[str, Any], repair: str) -> Result:
        verdict, lines = drift.overall(hosts), drift.lines(hosts)
        mendable = [host.host for host in hosts if host.mendable]
        result: Result = {
            "changed": False,
            "verdict": verdict.value,
            "hosts": [host.as_dict() for host in hosts],
            "mendable": mendable,
            "releases": {host.host: host.release for host in hosts},
            "versions": {host.release: host.version for host in hosts if host.release and host.version},
        }
        if arguments["json"]:
            lines += self._write(arguments["json"], {"hosts": result["hosts"], "verdict": verdict.value}, arguments)
        if not arguments["fails"]:
            return {**result, "convoy": {"lines": lines}}
        if mendable:
            lines.append(f"next: {repair}    (deploys what the ledger says to {names(mendable)} again)")
        result["convoy"] = {"summary": lines}
        if verdict is Verdict.DRIFTED:
            raise DriftedError(drift.tally(hosts), result)
        if verdict is Verdict.UNKNOWN:
            return {**result, "unreachable": True, "msg": drift.tally(hosts)}
        return result

    def _write(self, path: str, facts: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
        """Write the file for machines, all or nothing; what is said of it."""
        if self.check_mode:
            return [f"check mode: {path} would be written, it was not"]
        about = {key: arguments[key] for key in ("environment", "component")}
        text = json.dumps({"schema": SCHEMA, "at": time.time(), **about, **facts}, indent=1)
        try:
            durable.write_file(os.path.abspath(path), text.encode() + b"\n", 0o600)
        except OSError as error:
            raise SpecError(f"drift_json: {path} cannot be written: {error.strerror}") from error
        return [f"written to {path}"]


def _expectations(arguments: Mapping[str, Any]) -> dict[str, Expectation]:
    """What the ledger says of each host now."""
    ledger = Ledger(arguments["ledger_url"], str(this_run()), reads_only=True)
    ledger.expect()
    rows = Rollouts(ledger, stream_of(arguments)).newest_rows(arguments["hosts"])
    return {host: drift.expectation_of(rows.get(host)) for host in arguments["hosts"]}
