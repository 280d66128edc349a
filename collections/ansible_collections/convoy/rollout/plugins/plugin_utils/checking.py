# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first step of a rollout: everything that can be refused without asking a host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.by_tasks import refuse_turning_back, task_files
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.migrations import parse_migrations
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    OnFailure,
    Quantity,
    RolloutSpec,
    Scope,
    SpecError,
    Unreachable,
    ZoneOrder,
    parse_choice,
    parse_failure_budget,
    parse_phases,
    parse_seconds,
    refuse_disordered,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    Depot,
    Resolved,
    require_directory,
    trust_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.kinds import check_kind, check_published, package_digest
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import stream_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.policy import refuse_when_frozen
from ansible_collections.convoy.rollout.plugins.plugin_utils.preflight import Unhealthy
from ansible_collections.convoy.rollout.plugins.plugin_utils.road import BALANCERS, site_files
from ansible_collections.convoy.rollout.plugins.plugin_utils.transfer import Transfer

if TYPE_CHECKING:
    from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_remote import RemoteDepot

PASSED_ON = (
    "kind", "environment", "component", "version", "hosts", "phases", "max_unavailable", "failure_budget",
    "turn_back_max_unavailable", "turn_back_scope", "lease", "min_available", "zone_order", "on_failure",
    "when_unreachable", "when_unhealthy", "min_up", "progress_deadline", "hooks", "keep", "colours", "component_kind",
    "migrations", "accept_irreversible", "inventory", "tasks", "in_doubt",
)  # fmt: skip
HEALTHY_DEADLINE = 30.0  # seconds, what a gate has by default
VARIABLE_OF = {"version": "component_version", "allowed_signers": "environment_allowed_signers"}


def check(asked: Mapping[str, Any], forks: int, now: float) -> dict[str, Any]:
    """What the steps after it need: the request, validated, and the verified artifact. Raises ConvoyError.

    ``asked`` are the arguments of the action ``rollout``; ``now`` is epoch seconds.
    """
    _refuse_ledger_in_container(asked["ledger_url"])
    check_kind(asked)
    _refuse_missing_files(site_files(asked["hooks"], asked["traffic_adapter"], asked["traffic_tasks"]))
    spec = spec_of(asked)
    _refuse_missing_files(task_files(asked.get("tasks", {})))
    refuse_turning_back(asked.get("tasks", {}), spec.phases)
    _refuse_missing_files(_migration_files(asked.get("migrations", ())))
    if asked.get("colours"):
        _refuse_unswitchable(asked, spec)
    _refuse_disordered_deadlines(asked["gate"], spec)
    _refuse_unusable_gates(asked, spec)
    parse_choice("rollout_unhealthy", asked["when_unhealthy"], Unhealthy)
    transfer = parse_choice("component_transfer", asked["transfer"], Transfer)
    if not asked["hosts"]:
        raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
    checked = {key: asked[key] for key in PASSED_ON}
    checked["stream"] = stream_of(asked)
    checked["warnings"] = _fork_warnings(spec, len(asked["hosts"]), forks)
    if asked["kind"] == "rollback":
        return {**checked, "override": ""}
    checked["override"] = refuse_when_frozen(asked["freezes"], now, asked["freeze_override"])
    left = {"releases": asked["releases"]} if asked["kind"] == "repair" else {}
    if asked["component_kind"] == "package":
        return {**checked, **left, **_resolve_package(asked)}
    resolved = _resolve(asked, now)
    check_published(asked["component_kind"], resolved.manifest)
    if transfer is Transfer.PULL:
        _refuse_unfetchable(asked, resolved.manifest)
    return {**checked, **left, **_facts(resolved)}


def spec_of(asked: Mapping[str, Any]) -> RolloutSpec:
    """How the rollout may proceed, validated."""
    on_failure = parse_choice("rollout_on_failure", asked["on_failure"], OnFailure)
    phases = parse_phases(
        asked["phases"],
        asked["max_unavailable"],
        "after_phase" in asked["hooks"],
        on_failure,
        bool(asked.get("colours")),
    )
    lease = parse_seconds("rollout_lease", asked["lease"], least=1)
    return RolloutSpec(
        phases=phases,
        failure_budget=parse_failure_budget(asked["failure_budget"]),
        turn_back_max_unavailable=Quantity.parse(
            "rollout_turn_back_max_unavailable", asked["turn_back_max_unavailable"], least=1
        ),
        lease=lease,
        min_available=Quantity.parse("rollout_min_available", asked["min_available"]),
        turn_back_scope=parse_choice("rollout_turn_back_scope", asked["turn_back_scope"], Scope),
        zone_order=parse_choice("rollout_zone_order", asked["zone_order"], ZoneOrder),
        unreachable=parse_choice("rollout_unreachable", asked["when_unreachable"], Unreachable),
        progress_deadline=parse_seconds("rollout_progress_deadline", asked["progress_deadline"]),
        migrations=parse_migrations(asked.get("migrations", ()), phases, lease, asked.get("inventory", ())),
    )


def _migration_files(migrations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The task files of migrations that were found good, by where they are named."""
    return {
        f"component_migrations[{nth}].{key}": str(one[key])
        for nth, one in enumerate(migrations)
        for key in ("tasks", "reverse")
        if one.get(key)
    }


def _refuse_unswitchable(asked: Mapping[str, Any], spec: RolloutSpec) -> None:
    """With two colours everything hangs on the load balancer, which has to be one that can be read and switched."""
    if asked["traffic_adapter"] not in BALANCERS:
        raise SpecError(
            f"rollout_colours: they need traffic_adapter: haproxy or nginx, and it is {asked['traffic_adapter']!r}: "
            "which colour is live is read from the load balancer, and it is switched at once. Leave rollout_colours "
            "away to roll host by host"
        )
    if "after_undrain" in asked["hooks"]:
        raise SpecError(
            "rollout_hooks.after_undrain: it never runs with rollout_colours, since no host is put into service by "
            "itself: use after_phase, which runs before the switch and after it"
        )
    if spec.migrations:
        raise SpecError(
            "component_migrations: they do not go with rollout_colours: the colour on standby would be left with a "
            "schema that it does not know. Leave rollout_colours away to roll host by host"
        )
    if spec.unreachable is Unreachable.DEFER:
        raise SpecError(
            "rollout_unreachable: 'defer' does not go with rollout_colours: a colour takes over whole, or within "
            "rollout_failure_budget"
        )


def _refuse_unusable_gates(asked: Mapping[str, Any], spec: RolloutSpec) -> None:
    """The judges are imported only where there is a gate: that costs more than all the rest of this step."""
    if not asked["gates"] and not any(phase.gates for phase in spec.phases):
        return
    from ansible_collections.convoy.rollout.plugins.plugin_utils.gates import Balancers, check_gates

    balancers = Balancers(tuple(asked["balancers"]), asked["backend"])
    check_gates(asked["gates"], asked["gate_options"], spec.phases, balancers)


def _refuse_disordered_deadlines(gate: Mapping[str, Any], spec: RolloutSpec) -> None:
    """A host must be able to become healthy before it counts as lost, and before the rollout counts as stalled."""
    refuse_disordered(
        [
            ("component_gate.min_healthy_time", _seconds(gate, "min_healthy_time", 0)),
            ("component_gate.deadline", _seconds(gate, "deadline", HEALTHY_DEADLINE)),
            ("rollout_progress_deadline", spec.progress_deadline),
        ]
    )


def _seconds(gate: Mapping[str, Any], key: str, default: float) -> float:
    return parse_seconds(f"component_gate.{key}", gate.get(key, default))


def _refuse_unfetchable(asked: Mapping[str, Any], manifest: Manifest) -> None:
    from ansible_collections.convoy.rollout.plugins.plugin_utils import pulling

    pulling.check(asked["artifact_url"], manifest, asked["pull"])


def _resolve(asked: Mapping[str, Any], now: float) -> Resolved:
    """The verified artifact of the version, by the depot."""
    for field, variable in VARIABLE_OF.items():
        if not asked[field]:
            raise SpecError(f"{variable} is not set: give it with -e or in the inventory's group_vars")
    return _depot(asked).resolve(
        asked["component"],
        asked["version"],
        trust_of(asked),
        now=datetime.fromtimestamp(now, UTC),
        requires_promotion=asked["requires_promotion"],
    )


def _facts(resolved: Resolved) -> dict[str, Any]:
    """What the steps after it need of the artifact."""
    artifact = resolved.manifest.artifact
    unpacked = sum(member.size or 0 for member in resolved.manifest.files)
    return {
        "artifact": str(resolved.artifact),
        "artifact_sha256": artifact.sha256,
        "artifact_size": artifact.size,
        "manifest": {"path": str(resolved.path), "sha256": resolved.digest},
        "serial": resolved.manifest.serial,
        "signer": ", ".join(signer.principal for signer in resolved.signers),
        **({"builder": resolved.builder.principal} if resolved.builder else {}),
        "need_bytes": 2 * (unpacked + artifact.size),
    }


def _depot(asked: Mapping[str, Any]) -> Depot | RemoteDepot:
    """The depot that the release is taken from. What reads one elsewhere is imported only for that."""
    if asked["depot_url"]:
        from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_remote import RemoteDepot

        return RemoteDepot(asked["depot_url"], Path(asked["depot_cache"]), asked["depot_options"])
    require_directory(asked)
    return Depot(Path(asked["depot"]))


def _resolve_package(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for the artifact where every host has it from its repositories."""
    if not asked["version"]:
        raise SpecError("component_version is not set: give it with -e or in the inventory's group_vars")
    return {"artifact_sha256": package_digest(asked["package"]["name"], asked["version"])}


def _refuse_ledger_in_container(url: str) -> None:
    """What a job writes in AWX's container is gone with the job: a ledger there would be forgotten each time."""
    if url.startswith("sqlite") and "AWX_PRIVATE_DATA_DIR" in os.environ:
        raise LedgerError(
            "environment_ledger_url: a SQLite file in an AWX job is lost with its container: give a PostgreSQL URL, "
            "e.g. postgresql+psycopg://convoy@db.example/convoy"
        )


def _refuse_missing_files(files: Mapping[str, str]) -> None:
    for variable, path in files.items():
        if not Path(path).is_file():
            raise SpecError(f"{variable}: there is no file {path}: give the path of a task file on the controller")


def _fork_warnings(spec: RolloutSpec, hosts: int, forks: int) -> list[str]:
    window = max(phase.max_unavailable.down(hosts) for phase in spec.phases)
    if window <= forks:
        return []
    return [f"a window of {window} hosts needs as many forks, but only {forks} are set: run with --forks {window}"]
