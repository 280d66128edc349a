# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell what is in the depot, verify, promote, retire and push releases, and collect what nobody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_push, depot_text, depot_upkeep, sbom
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    TRUST_SPEC,
    Author,
    Depot,
    Item,
    Trust,
    require_directory,
    trust_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import DepotError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_needs import versions_needed
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_target import target_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_text import Kept
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_upkeep import Findings
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import format_time
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import require_string
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import refuse_unknown

OF_A_RELEASE = ("show", "promote", "retire")


class DepotFaultyError(DepotError):
    """Something in the depot is not as it must be; the result still tells everything."""

    reason: ClassVar[str] = "depot-faulty"

    def __init__(self, message: str, told: Result) -> None:
        super().__init__(message)
        self.details = told


class ActionModule(ControllerAction):
    """``convoy.rollout.depot``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "do": {
            "type": "str",
            "choices": ["list", "show", "verify", "collect", "promote", "retire", "push"],
            "default": "list",
        },
        "depot": {"type": "path", "required": True},
        "depot_url": {"type": "str"},
        "depot_options": {"type": "dict", "default": {}, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str"},
        "version": {"type": "str"},
        **TRUST_SPEC,
        "ledger_url": {"type": "str", "no_log": True},
        "ledgers": {"type": "dict", "default": {}, "no_log": True},
        "keep": {"type": "int", "default": 5},
        "export": {"type": "path"},
        "reason": {"type": "str", "default": "no reason was given"},
    }
    REQUIRED_IF: ClassVar[tuple[Any, ...]] = (
        *(("do", do, ("component",)) for do in OF_A_RELEASE),
        ("do", "collect", ("ledger_url",)),
    )

    def before_validation(self, raw: Mapping[str, Any]) -> None:
        """Refuse a depot that is elsewhere, and a version that YAML made a number, before its type is converted."""
        if raw.get("do") == "push":
            _require_both(raw)
        else:
            require_directory(raw)
        if raw.get("version") is not None:
            require_string("component_version", raw["version"])

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do what ``do`` names."""
        refuse_unknown(task_vars)
        depot, do = Depot(Path(arguments["depot"])), arguments["do"]
        if do in OF_A_RELEASE and not arguments["version"]:
            raise SpecError("component_version is not set: give it with -e")
        return {
            "list": self._list,
            "show": self._show,
            "verify": self._verify,
            "collect": self._collect,
            "promote": self._promote,
            "retire": self._retire,
            "push": self._push,
        }[do](depot, arguments)

    def _list(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        with depot.failures_told():
            depot.check_usable()
            items = depot.items()
        return _told(False, depot_text.list_lines(items), releases=[_facts(item) for item in items])

    def _show(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        item, trust = depot.known(arguments["component"], arguments["version"]), trust_of(arguments)
        with depot.failures_told():
            kept = _kept(depot, item)
            lines = depot_text.show_lines(item, kept, _trusted(depot, item, trust))
            exported = self._export(depot, item, arguments["export"])
        facts = {**_facts(item), "provenance": [asdict(one) for one in kept.statements]}
        return _told(bool(exported), [*lines, *exported], releases=[facts])

    def _export(self, depot: Depot, item: Item, directory: str | None) -> list[str]:
        """What is said of each file that was written."""
        if not directory or item.manifest is None:
            return []
        written = depot.export(item.manifest, Path(directory), self.check_mode)
        return [f"{directory}/{name} {'would be' if self.check_mode else 'is'} written" for name in written]

    def _verify(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        """Fails, after all was told, where something is wrong; what is trusted leaves its quarantine."""
        trust = trust_of(arguments)
        found = depot_upkeep.look_through(depot, trust)
        if not self.check_mode:
            for component, version in found.trusted:
                depot.verify_quarantined(component, version, trust, _author(arguments))
        let_out = [" ".join(names) for names in found.trusted]
        lines = depot_text.findings_lines(found, let_out, self.check_mode)
        told = _told(bool(let_out), lines, faults=found.faults, notes=found.notes)
        _refuse_faulty(depot, found, told)
        return told

    def _collect(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        ledgers = {**arguments["ledgers"], arguments["environment"]: arguments["ledger_url"]}
        needed = versions_needed(ledgers, arguments["keep"], str(this_run()))
        with depot.failures_told():
            depot.check_usable()
        found, freed = depot_upkeep.collect(depot, needed, _author(arguments), self.check_mode)
        collected = [[item.component, item.version] for _path, items in found.artifacts for item in items]
        lines = depot_text.rubbish_lines(found, freed, self.check_mode)
        return _told(bool(found.left or found.artifacts), lines, collected=collected, freed=freed)

    def _promote(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        trust, what = trust_of(arguments), f"{arguments['component']} {arguments['version']}"
        changed = depot.promote(
            arguments["component"], arguments["version"], trust, _author(arguments), self.check_mode
        )
        return self._moved(changed, what, f"promoted for {trust.environment}")

    def _retire(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        what = f"{arguments['component']} {arguments['version']}"
        changed = depot.retire(
            arguments["component"],
            arguments["version"],
            _author(arguments),
            arguments["environment"],
            self.check_mode,
        )
        return self._moved(changed, what, "retired")

    def _push(self, depot: Depot, arguments: Mapping[str, Any]) -> Result:
        target = target_of(arguments["depot_url"], arguments["depot_options"], this_run())
        trust = trust_of(arguments)
        parcels = depot_push.gather(depot, trust, _only(arguments))
        compared = depot_push.compare(parcels, target)
        brought = [one for one in compared if not one.is_nothing]
        depot_push.check_artifacts(brought, depot)
        left = len(target.left())
        if (brought or left) and not self.check_mode:
            depot_push.bring(brought, depot, target)
        lines = depot_text.push_lines(compared, left, target.place.url, trust.environment, self.check_mode)
        return _told(
            bool(brought or left),
            lines,
            pushed=[_pushed(one) for one in brought],
            there=[[one.parcel.component, one.parcel.version] for one in compared if one.is_nothing],
            sent=sum(one.size for one in brought),
        )

    def _moved(self, changed: bool, what: str, done: str) -> Result:
        if not changed:
            return _told(False, [f"{what} was {done} before, nothing changed"])
        return _told(True, [f"{what} {'would be' if self.check_mode else 'is'} {done}"])


def _trusted(depot: Depot, item: Item, trust: Trust) -> str:
    """Whether the environment trusts the release, and whom it trusts, or why not."""
    try:
        resolved = depot.inspect(item.component, item.version, trust)
    except ConvoyError as error:
        return f"no: {error}"
    built = f", built by {resolved.builder.principal}" if resolved.builder else ""
    return "yes, " + ", ".join(one.principal for one in resolved.signers) + built


def _kept(depot: Depot, item: Item) -> Kept:
    """What is kept with the release."""
    found = item.manifest
    if found is None:
        return Kept("", [])
    try:
        content = depot.read_sbom(found)
        bill = "none" if content is None else str(sbom.read(content, "in the depot"))
    except ConvoyError as error:
        bill = str(error)
    return Kept(bill, depot.statements(item.component, item.version))


def _require_both(raw: Mapping[str, Any]) -> None:
    """Pushing goes from a directory to a URL."""
    require_directory({"depot": raw.get("depot")})
    if not raw.get("depot_url"):
        raise SpecError(
            "depot_url is not set, and that is where the depot is pushed to: give it with -e, such as "
            "depot_url=sftp://convoy@releases.example/srv/depot"
        )


def _only(arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """The release that is to be pushed, None where it is all of them."""
    if not arguments["version"]:
        return None
    if not arguments["component"]:
        raise SpecError("component_name is not set, and component_version is: give both, or neither to push everything")
    return arguments["component"], arguments["version"]


def _pushed(one: depot_push.Pending) -> Result:
    return {
        "component": one.parcel.component,
        "version": one.parcel.version,
        "new": one.is_new,
        "artifact": one.artifact is not None,
        "files": sorted(one.files),
        "bytes": one.size,
    }


def _author(arguments: Mapping[str, Any]) -> Author:
    return Author(str(this_run()), datetime.now(UTC), arguments["reason"])


def _told(changed: bool, lines: list[str], **facts: Any) -> Result:
    return {"changed": changed, **facts, "convoy": {"summary": lines}}


def _facts(item: Item) -> Result:
    found = item.manifest
    return {
        "component": item.component,
        "version": item.version,
        "state": None if found is None else item.standing.state.value,
        "promoted": list(item.standing.promoted),
        "serial": found.serial if found else None,
        "size": found.artifact.size if found else None,
        "created": format_time(found.created) if found else None,
        "artifact": item.has_artifact,
        "sbom": asdict(found.sbom) if found and found.sbom else None,
        "trouble": item.trouble,
    }


def _refuse_faulty(depot: Depot, found: Findings, told: Result) -> None:
    if found.faults:
        more = f"; and {len(found.faults) - 1} more, see above" if len(found.faults) > 1 else ""
        raise DepotFaultyError(f"the depot {depot.path} is not as it must be: {found.faults[0]}{more}", told)
