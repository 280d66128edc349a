# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said to people: plans, outcomes, states of a fleet, as lines of text. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Plan,
    PlannedHost,
    PlannedPhase,
    Switch,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    FAILURES,
    HostStatus,
    Status,
    Traffic,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HostRow, RolloutView


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, without the columns that are empty."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]


def size(number: float) -> str:
    """Bytes, as people write them."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"


def plan_lines(plan: Plan, notes: Mapping[str, str]) -> list[str]:
    """The plan, host by host; ``notes`` says of a host what would be fetched and pruned."""
    lines = []
    for index, phase in enumerate(plan.phases):
        lines += _migration_lines(plan, index, f"before phase {phase.name}")
        if plan.switch and index == len(plan.phases) - 1:
            lines.append(_switch_line(plan.switch, phase))
            continue
        hosts = [host for host in plan.hosts if host.phase == index]
        per_zone = f", {phase.zone_window} of a zone" if phase.zone_window is not None else ""
        bake = f", then {phase.bake:g} s of baking" if phase.bake else ""
        approval = ", after an approval" if phase.approval else ""
        count = f"{phase.hosts} host{'' if phase.hosts == 1 else 's'}"
        lines.append(f"phase {phase.name}: {count}, at most {phase.window} at once{per_zone}{bake}{approval}")
        lines += [f"  {row}" for row in table([_plan_row(host, notes.get(host.name, "")) for host in hosts])]
    lines += _migration_lines(plan, len(plan.phases), "when all hosts are there")
    return [*lines, *_limits(plan)]


def _migration_lines(plan: Plan, phase: int, when: str) -> list[str]:
    """The migrations at one place of the plan."""
    return [
        f"migration {one.name}: {'reversed' if one.back else 'run'} once, on {one.run_on}, {when}"
        f"{'' if one.reversible else ', irreversible'}"
        for one in plan.migrations
        if one.phase == phase
    ]


def _switch_line(switch: Switch, phase: PlannedPhase) -> str:
    approval = "after an approval " if phase.approval else ""
    bake = f", then {phase.bake:g} s of baking with traffic" if phase.bake else ""
    stays = f"{switch.leaving} stays as it is, on standby"
    return f"phase {phase.name}: {approval}the load balancers are switched to {switch.coming} at once{bake}; {stays}"


def _limits(plan: Plan) -> list[str]:
    in_a_row = "" if plan.consecutive_failures is None else f", {plan.consecutive_failures} one after the other"
    in_a_zone = "" if plan.zone_failures is None else f", {plan.zone_failures} of a zone"
    moving = sum(host.status is not HostStatus.STANDBY for host in plan.hosts)
    lines = [f"failure budget: {plan.failure_budget} of {moving} hosts{in_a_row}{in_a_zone}"]
    if plan.min_available:
        lines.append(f"at least {plan.min_available} hosts serve at any time")
    return lines


def _plan_row(host: PlannedHost, note: str) -> tuple[str, ...]:
    move = f"{host.from_release or 'nothing'} -> {host.to_release}"
    if host.status is HostStatus.CURRENT:
        move = f"{host.to_release}, nothing to do"
    elif host.status is HostStatus.UNREACHABLE:
        move = "unreachable"
    elif host.status is HostStatus.DEFERRED:
        move = "unreachable, deferred"
    return (host.name, f"zone {host.zone}" if host.zone else "", move, note)


def runs_lines(releases: Mapping[str, str | None]) -> list[str]:
    """Who runs what, in one line a release; ``releases`` maps hosts to releases."""
    by_release: dict[str, list[str]] = {}
    for host, release in releases.items():
        by_release.setdefault(release or "nothing", []).append(host)
    return [f"{release}: {names(hosts)}" for release, hosts in by_release.items()]


def names(hosts: Sequence[str]) -> str:
    """A list of hosts that stays readable for thousands of them."""
    return ", ".join(hosts) if len(hosts) <= 12 else f"{', '.join(hosts[:10])} and {len(hosts) - 10} more"


def final_release(row: HostRow) -> str | None:
    """What a host runs at the end of a rollout, as far as the ledger knows; '?' where it does not."""
    if row.status in (HostStatus.SUCCEEDED, HostStatus.CURRENT):
        return row.to_release
    if row.status in (HostStatus.FAILED, HostStatus.LOST, HostStatus.STUCK, HostStatus.ADMITTED, HostStatus.RETURNING):
        return "unknown"
    if row.status in (HostStatus.UNREACHABLE, HostStatus.DEFERRED):
        return row.from_release or "unknown"
    return row.from_release


def outcome_lines(view: RolloutView, retry: str) -> list[str]:
    """The last lines of a rollout: the verdict, each host that did not go well and why, who runs what, what next."""
    what = f"{view.facts['kind']} of {view.facts['component']} {view.facts['version']} in {view.facts['environment']}"
    lines = [f"{what}: {view.status} (rollout {view.id})"]
    if view.status is not Status.SUCCEEDED and view.state.reason:
        lines.append(f"why: {view.state.reason}")
    lines += [f"  {row.name} {row.status}: {row.why or 'no reason was reported'}" for row in _troubled(view.hosts)]
    lines += runs_lines({row.name: final_release(row) for row in view.hosts})
    lines += _live_lines(view)
    return [*lines, f"next: {retry}"] if retry else lines


def _live_lines(view: RolloutView) -> list[str]:
    """Which colour gets the requests at the end of a rollout that switches."""
    switch = view.plan.switch
    if switch is None:
        return []
    new = view.state.traffic is Traffic.NEW
    live, idle = (switch.coming, switch.leaving) if new else (switch.leaving, switch.coming)
    if view.state.traffic is Traffic.BETWEEN:
        return [f"the load balancers stand between {switch.leaving} and {switch.coming}: see status.yml"]
    return [f"live: {live}; {idle} is on standby"]


def _troubled(rows: Iterable[HostRow]) -> list[HostRow]:
    told = {*FAILURES, HostStatus.DEFERRED, HostStatus.STUCK, HostStatus.ADMITTED}
    return [row for row in rows if row.status in told]


def status_lines(
    readings: Sequence[Reading],
    expected: Mapping[str, str | None],
    view: RolloutView | None,
    left_out: Sequence[str] | None = None,
    colours: Sequence[str] = (),
) -> list[str]:
    """Each host's release, since when, health, place in the load balancer, and what differs from the ledger.

    ``left_out`` are the hosts that ought to be in service (None: every healthy one ought to); ``colours`` tells which
    one is live, where there are two.
    """
    rows: list[tuple[str, ...]] = [("host", "release", "since", "health", "traffic", "differs")]
    for reading in readings:
        if not reading.reachable:
            rows.append((reading.name, "?", "", "unreachable", "", reading.trouble))
            continue
        traffic = {True: "in", False: "out", None: "-"}[reading.in_service]
        health = str((reading.read.get("health") or {}).get("verdict", "not asked"))
        differs = "; ".join(differences(reading, expected.get(reading.name)))
        rows.append((reading.name, reading.active or "nothing", _since(reading), health, traffic, differs))
    lines = table(rows)
    lines += colours
    if left_out is None:
        left_out = [reading.name for reading in readings if reading.left_out]
    if left_out:
        lines.append(f"healthy, but out of service: {names(left_out)}; playbooks/reconcile.yml puts them back")
    if view is None:
        return [*lines, "no rollout has been recorded yet"]
    verdict = view.status if view.status.ended else f"{view.status}, open"
    opened = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(view.opened_at))
    return [*lines, f"last rollout: {view.id}, {view.facts['kind']} of {view.facts['version']}, {opened}: {verdict}"]


def differences(reading: Reading, expected: str | None) -> list[str]:
    """What of a host is not as the ledger and the host's own journal say."""
    found = [str(problem) for problem in reading.read.get("problems", ())]
    if expected and expected != "unknown" and reading.active != expected:
        found.append(f"the ledger says {expected}")
    if reading.read.get("unconfirmed"):
        found.append("not confirmed yet")
    return found


def _since(reading: Reading) -> str:
    since = reading.read.get("active_since")
    if not since:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since)) if isinstance(since, (int, float)) else str(since)
