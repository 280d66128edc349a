# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening a rollout with what was read from the hosts, joining one that is open, and what staging made of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils.packages import in_release_id, is_found
from ansible_collections.convoy.rollout.plugins.plugin_utils import colours, config_diff, fleet, preflight, text
from ansible_collections.convoy.rollout.plugins.plugin_utils.by_tasks import in_doubt
from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import PASSED_ON, spec_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.colours import Draft
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import migrations
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Recorded
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Plan, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import RolloutSpec, SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Applied, HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.releases import version_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import (
    Opened,
    Rollouts,
    RolloutView,
    stream_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.preflight import Unhealthy
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import release_id
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, this_run, user
from ansible_collections.convoy.rollout.plugins.plugin_utils.terms import check_serial


class IrreversibleError(ConvoyError):
    """A rollback would go past a migration that cannot be reversed, and nobody has accepted that."""

    reason: ClassVar[str] = "irreversible"


SILENCE = 120.0  # seconds beyond its longest step after which a run that cannot be seen counts as dead
RECORDED = (
    "kind", "environment", "component", "version", "artifact", "artifact_sha256", "manifest", "serial", "signer",
    "override",
)  # fmt: skip


def open_rollout(
    rollouts: Rollouts,
    checked: Mapping[str, Any],
    readings: Sequence[Reading],
    retry: str,
    dry: bool,
    members_up: int | None = None,
) -> dict[str, Any]:
    """Plan, take the token, record the opening; ``dry`` only plans. Raises ConvoyError before anything is touched.

    ``members_up`` servers of the load balancer are up (None: there is none).
    """
    kind = checked["component_kind"] if checked["kind"] != "rollback" else None
    problems = fleet.objections(readings, checked.get("need_bytes", 0), kind)
    if kind == "tasks" and in_doubt(checked["tasks"], checked["in_doubt"]) == "hold":
        problems += fleet.doubts(readings)
    if problems:
        raise fleet.FleetError("nothing was touched: " + "; ".join(problems))
    refuse_going_below(rollouts, checked)
    latest = rollouts.view()
    left_open = latest is not None and not latest.status.ended
    left_out: list[str] = []
    if checked["kind"] != "rollback" and not left_open:
        mends = checked["kind"] == "repair"  # what is ill is what it is for
        policy = Unhealthy.GO_FIRST if mends else Unhealthy(checked["when_unhealthy"])
        readings, left_out = preflight.admit(readings, policy, checked["min_up"], members_up)
    draft = _draft(checked, latest, readings)
    checked = {**checked, "version": checked["version"] or fleet.version_of(readings, draft.seen)}
    known = migrations.inherited(latest.state) if latest else {}
    plan, accepted = _with_migrations(rollouts, draft.plan, latest, known, checked)
    if accepted:
        checked["override"] = accepted
    ahead = [one for one in plan.migrations if not migrations.is_done(one, known)]
    told_plan = replace(plan, migrations=tuple(ahead))
    done = draft.done and not left_open and not ahead
    doubts = migrations.doubts_elsewhere(plan, known)
    warnings = [*fleet.unread(readings), *fleet.skewed(readings), *left_out, *doubts]
    differs = _config_lines(plan, readings, checked)
    if dry or done:
        summary = _done_summary(draft, checked) if done else [*_plan_summary(told_plan, readings, checked), *differs]
        return {"changed": False, "warnings": warnings, "idle": True, "order": [], "convoy": {"summary": summary}}
    facts = {key: checked.get(key) for key in RECORDED}
    if checked.get("builder"):
        facts["builder"] = checked["builder"]
    silence = patience(spec_of(checked))
    opened = rollouts.open(plan, draft.seen, facts, this_run(), dead, _new_id(), silence, draft.traffic, latest)
    if checked.get("held") and not opened.resumed:
        rollouts.pause(opened.rollout, checked["held"])
    view = rollouts.standing(opened.rollout)
    lines = [
        *_opening_lines(opened, checked),
        *colours.opening_lines(draft, view),
        *text.plan_lines(told_plan, _notes(plan, readings, checked)),
        *differs,
    ]
    gate = rollouts.gate(opened.rollout) if opened.gate_due else None
    told = {"lines": lines, "resume": retry}
    return {**passed_on(view, retry), "changed": True, "warnings": warnings, "gate": gate, "convoy": told}


def _with_migrations(
    rollouts: Rollouts,
    plan: Plan,
    latest: RolloutView | None,
    known: Mapping[str, Applied],
    checked: Mapping[str, Any],
) -> tuple[Plan, str]:
    """The plan with the migrations that it runs or reverses, and what was accepted, for the record.

    Raises IrreversibleError for a rollback past one that stays. A rollback that a dead run left is gone on with.
    """
    if checked["kind"] in migrations.BRING_WHAT_WAS_DEPLOYED:
        return replace(plan, migrations=()), ""
    if checked["kind"] != "rollback":
        return (migrations.plan_forward(plan, known, checked["version"]) if plan.migrations else plan), ""
    if not known:
        return replace(plan, migrations=()), ""
    goals = {host.name: host.to_release for host in plan.hosts}
    if latest is not None and not latest.status.ended and goals == {row.name: row.to_release for row in latest.hosts}:
        return replace(plan, migrations=latest.plan.migrations), ""
    reversible = {one.name for one in plan.migrations if one.reversible}
    way = migrations.way_back(known, rollouts.applied_with(list(set(goals.values()))), reversible)
    back = migrations.plan_back(plan, way.reverses)
    if not way.stays:
        return back, ""
    stay = f"migration {', '.join(f'{name} (of {known[name].release})' for name in way.stays)}"
    if not checked["accept_irreversible"].strip():
        raise IrreversibleError(
            f"nothing was touched: {stay} ran after the release to go back to, and {way.barrier} cannot be reversed: "
            "it is irreversible, or not in component_migrations. Where the older release can do with it, accept that "
            "it stays: -e \"rollout_accept_irreversible='the reason'\""
        )
    return back, f"{stay} stays, accepted by {user()}: {checked['accept_irreversible'].strip()}"


def refuse_going_below(rollouts: Rollouts, checked: Mapping[str, Any]) -> None:
    """Raise ReplayedSerialError for a deployment of a release that is older than what was deployed.

    A repair goes to what is deployed, be that after a rollback.
    """
    if checked["kind"] not in ("rollback", "repair") and checked.get("serial") is not None:
        check_serial(checked["component"], checked["version"], checked["serial"], rollouts.serial_mark())


def _draft(checked: Mapping[str, Any], latest: RolloutView | None, readings: Sequence[Reading]) -> Draft:
    """What would be done, planned with what was read."""
    spec = spec_of(checked)
    if checked.get("colours"):
        return colours.draft(checked, spec, latest, readings, lambda: _target(checked, latest, readings))
    seen = fleet.targets_of(readings, _target(checked, latest, readings))
    if checked["kind"] == "repair":
        seen = {name: replace(facts, drifted=True) for name, facts in seen.items()}
    plan = make_plan(spec, list(seen.values()))
    done = all(host.status is HostStatus.CURRENT for host in plan.hosts)
    return Draft(plan, seen, done, {host.name: host.to_release for host in plan.hosts})


def join(rollouts: Rollouts, retry: str, here: Sequence[str]) -> dict[str, Any]:
    """Take part in the rollout that another run has opened, with those of its hosts that are ``here``.

    Several runs may, each with hosts of its own: they share its window, its budget and the order of its phases.
    """
    view = rollouts.view()
    if view is None or view.status.ended:
        last = f"; the last one, {view.id}, has {view.status}" if view else ""
        raise LedgerError(f"no rollout of {rollouts.stream} is open{last}: open one with open.yml or deploy.yml")
    rollouts.share(view.id, user())
    passed, mine = passed_on(view, retry), set(here)
    return {**passed, "changed": False, "order": [host for host in passed["order"] if host in mine], "here": list(here)}


def passed_on(view: RolloutView, retry: str) -> dict[str, Any]:
    """What the plays after the opening need to know."""
    return {
        **view.facts,
        "idle": False,
        "stream": stream_of(view.facts),
        "rollout": view.id,
        "token": view.token,
        "order": [] if view.status is Status.TURNING_BACK else view.to_go,
        "switch": asdict(view.plan.switch) if view.plan.switch else None,
        "migrates": bool(view.plan.migrations),
        "hosts": {row.name: {"to": row.to_release, "from": row.from_release} for row in view.hosts},
        "retry": retry,
    }


def take_stock(
    rollouts: Rollouts, opened: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Report the hosts that could not be staged; say which are to roll."""
    failures = _staging_failures(opened["order"], hostvars)
    if not failures:
        return {"changed": False, "order": opened["order"], "gate": None}
    gate_due = False
    for host, (outcome, why) in failures.items():
        answer = rollouts.report(opened["rollout"], opened["token"], host, outcome, why)
        gate_due = gate_due or (isinstance(answer, Recorded) and answer.gate_due)
    view = rollouts.standing(opened["rollout"])
    rolls = [host for host in opened["order"] if host not in failures and view.status is not Status.TURNING_BACK]
    lines = [f"{row.name} {row.status}: {row.why}" for row in view.hosts if row.name in failures]
    gate = rollouts.gate(opened["rollout"]) if gate_due else None
    return {"changed": False, "order": rolls, "gate": gate, "convoy": {"lines": lines}}


def stragglers(rollouts: Rollouts, hosts: Sequence[str]) -> dict[str, Any]:
    """The hosts that the last rollout deferred, as far as they are among ``hosts``, and the version that they miss."""
    view = rollouts.view()
    if view is None:
        raise LedgerError(f"no rollout of {rollouts.stream} has been recorded: there is nothing to catch up with")
    if view.facts["kind"] == "rollback" or view.status is not Status.SUCCEEDED:
        raise LedgerError(
            f"the last rollout of {rollouts.stream}, {view.id}, is a {view.facts['kind']} that has {view.status}: only "
            "a deployment that succeeded can be caught up with; deploy again instead"
        )
    deferred = {row.name for row in view.hosts if row.status is HostStatus.DEFERRED}
    return {"version": view.facts["version"], "hosts": [host for host in hosts if host in deferred]}


def drifted(rollouts: Rollouts, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hosts that are to be mended, and the version that all of them were left with.

    Raises ConvoyError where that is not one version, or where it is not decided yet what hosts ought to run.
    """
    if arguments["mendable"] is None:
        raise SpecError("rollout_kind: a repair begins with a look at the hosts: run repair.yml instead")
    view = rollouts.view()
    if view is not None and not view.status.ended and view.facts["kind"] != "repair":
        what = f"a {view.facts['kind']} of {view.facts.get('version')}"
        raise LedgerError(
            f"rollout {view.id}, {what}, is open: let it end, or go on with it, before anything is repaired"
        )
    if arguments["colours"]:
        raise SpecError(
            "rollout_colours: a repair goes host by host, and would put the colour on standby into service: deploy "
            "the version again, which goes to the other colour"
        )
    hosts = arguments["mendable"]
    found = [host for host in hosts if is_found(arguments["releases"][host])]
    if found:
        raise SpecError(
            f"{text.names(found)}: what runs there was installed before Convoy came, and cannot be deployed once more: "
            "deploy a version, or repair the others with -e rollout_target=..."
        )
    versions = sorted({_version_left(arguments["releases"][host], arguments) for host in hosts})
    if len(versions) > 1:
        raise SpecError(
            f"the hosts that drifted were left with several versions, {', '.join(versions)}: repair those of one at a "
            "time, with -e rollout_target=..."
        )
    return {"hosts": hosts, "version": versions[0] if hosts else None}


def _version_left(release: str, arguments: Mapping[str, Any]) -> str:
    """The version of a release that hosts were left with; the id of one that is a package need not tell it."""
    in_id = version_of(release)
    known = (arguments["versions"].get(release), arguments["version"])
    return next((version for version in known if version and in_release_id(version) == in_id), in_id)


def nothing_drifted(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is passed on where no host is to be mended."""
    told = f"nothing to repair for {asked['component']} in {asked['environment']}"
    return {**{key: asked[key] for key in PASSED_ON}, "stream": stream_of(asked), "convoy": {"lines": [told]}}


def nothing_deferred(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is passed on where no host is to be caught up with."""
    told = f"nothing to do: the last rollout of {asked['component']} in {asked['environment']} deferred no host"
    kept = {key: asked[key] for key in PASSED_ON}
    return {**kept, "stream": stream_of(asked), "convoy": {"summary": [told]}}


def _staging_failures(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[HostStatus, str]]:
    """Why hosts could not be staged: what the plays before left in their variables, step by step or at once."""
    failures, at_once = {}, fleet.done_at_once("rollout_stages", hosts, hostvars)
    for name in hosts:
        if name in at_once:
            staged = at_once[name]
            failed = staged.get("failed") and (staged.get("msg") or "staging failed")
        else:
            staged = hostvars[name].get("component_staged") or {}
            failed = hostvars[name].get("rollout_stage_failed")
        if staged.get("unreachable"):
            failures[name] = (HostStatus.UNREACHABLE, str(staged.get("msg", "")).strip())
        elif failed:
            failures[name] = (HostStatus.UNSTAGED, str(failed).strip())
    return failures


def _target(
    checked: Mapping[str, Any], latest: RolloutView | None, readings: Sequence[Reading]
) -> Callable[[Reading], str]:
    """What release a host is to run, as a function of its reading."""
    if checked["kind"] == "repair":
        return _as_left(checked)
    if checked["kind"] != "rollback":
        return lambda reading: release_id(checked["version"], checked["artifact_sha256"], reading.read["rendered"])
    if checked["version"]:
        return fleet.known_version(checked["version"])
    return _back_from_between(latest, readings) or fleet.last_good(readings)


def _as_left(checked: Mapping[str, Any]) -> Callable[[Reading], str]:
    """The release that the ledger says. Raises SpecError where the version would be another one of it today."""

    def left(reading: Reading) -> str:
        was = str(checked["releases"][reading.name])
        now = release_id(checked["version"], checked["artifact_sha256"], reading.read["rendered"])
        if now != was:
            raise SpecError(
                f"{reading.name}: the ledger says {was}, and the variables and templates of today make {now} of "
                f"{checked['version']}: a repair changes no configuration. Deploy {checked['version']} to bring it, "
                "or put variables and templates back"
            )
        return was

    return left


def _back_from_between(latest: RolloutView | None, readings: Sequence[Reading]) -> Callable[[Reading], str] | None:
    """Where a rollback goes when a rollout stopped on its way: to what ran before it, or on if it was a rollback.

    None where no rollout did, or where all hosts of a failed one are there already.
    """
    if latest is None or latest.status in (Status.SUCCEEDED, Status.REVERTED):
        return None
    on = latest.facts["kind"] == "rollback"
    goals = {row.name: row.to_release if on else row.from_release for row in latest.hosts}
    all_there = all(goals.get(reading.name) in (None, reading.active) for reading in readings if reading.reachable)
    if latest.status.ended and all_there:
        return None
    return lambda reading: goals.get(reading.name) or fleet.last_good(readings)(reading)


def _new_id() -> str:
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)


def patience(spec: RolloutSpec) -> float:
    """Seconds of silence after which a run that cannot be seen counts as dead."""
    longest = [spec.lease, *(phase.bake for phase in spec.phases), *(one.timeout for one in spec.migrations)]
    return max(longest) + SILENCE


def _opening_lines(opened: Opened, checked: Mapping[str, Any]) -> list[str]:
    verb = "goes on" if opened.resumed else "opens"
    line = f"rollout {opened.rollout} {verb}: {checked['kind']} of {checked['component']} {checked['version']}"
    return [line, checked["override"]] if checked["override"] else [line]


def _done_summary(draft: Draft, checked: Mapping[str, Any]) -> list[str]:
    told = f"nothing to do for {checked['component']} in {checked['environment']}"
    return [told, *text.runs_lines(draft.runs), *draft.lines]


def _plan_summary(plan: Plan, readings: Sequence[Reading], checked: Mapping[str, Any]) -> list[str]:
    return ["check mode: this would be done, nothing was", *text.plan_lines(plan, _notes(plan, readings, checked))]


def _config_lines(plan: Plan, readings: Sequence[Reading], checked: Mapping[str, Any]) -> list[str]:
    """How the configuration of the hosts that move would change, where that was asked for."""
    read = {reading.name: reading.read.get("config_diff", ()) for reading in readings}
    if checked["kind"] == "rollback" or not any("config_diff" in reading.read for reading in readings):
        return []
    return config_diff.told({host.name: read[host.name] for host in plan.pending}) or ["no configuration changes"]


def _notes(plan: Plan, readings: Sequence[Reading], checked: Mapping[str, Any]) -> dict[str, str]:
    """What would be fetched and pruned on each host that moves."""
    read = {reading.name: reading for reading in readings}
    notes = {}
    for host in plan.pending:
        reading = read[host.name]
        what = "the package" if checked["component_kind"] == "package" else text.size(checked.get("artifact_size", 0))
        fetched = "" if reading.has(host.to_release) else f"fetches {what}"
        pruned = ", ".join(reading.would_prune(host.to_release, checked["keep"]))
        notes[host.name] = ", ".join(filter(None, (fetched, f"prunes {pruned}" if pruned else "")))
    return notes
