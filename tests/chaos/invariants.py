# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold whatever is broken, and what was seen that says otherwise. Pure: it judges what others looked at."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Event,
    HostStatus,
    RolloutState,
    Status,
    evolve,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry

from .outside import Moment, Seen

SLACK = 1.5  # seconds between what HAProxy shows and what the ledger says
NEW = frozenset({HostStatus.SUCCEEDED, HostStatus.CURRENT})
OLD = frozenset(
    {
        HostStatus.REVERTED,
        HostStatus.RETURNED,
        HostStatus.PENDING,
        HostStatus.UNREACHABLE,
        HostStatus.DEFERRED,
        HostStatus.UNSTAGED,
    }
)


@dataclass(frozen=True)
class Step:
    """Where a rollout stood from ``at`` on."""

    at: float
    rollout: str
    plan: Plan
    state: RolloutState


@dataclass
class Told:
    """A rollout by its events: its plan, and its hosts with status, old and new release."""

    plan: Plan
    hosts: dict[str, tuple[HostStatus, str | None, str]]
    phases: dict[str, int]
    state: RolloutState = field(default_factory=RolloutState)


def steps(entries: Sequence[Entry]) -> tuple[list[Step], dict[str, Told]]:
    """How the rollouts went, event by event; and where each of them stands in the end."""
    found: list[Step] = []
    rollouts: dict[str, Told] = {}
    for entry in entries:
        data = json.loads(entry.data)
        if entry.kind == "opened":
            hosts = {name: (HostStatus(status), old, new) for name, _phase, _zone, old, new, status in data["hosts"]}
            phases = {name: phase for name, phase, *_others in data["hosts"]}
            rollouts[entry.rollout] = Told(Plan.from_rules(data["rules"]), hosts, phases)
        told = rollouts.get(entry.rollout)
        if told is None:
            continue
        told.state = evolve(told.state, Event(entry.kind, entry.at, entry.host, data))
        if entry.kind == "moved" and entry.host:
            _status, old, new = told.hosts[entry.host]
            told.hosts[entry.host] = HostStatus(data["now"]), old, new
        found.append(Step(entry.at, entry.rollout, told.plan, told.state))
    return found, rollouts


def allowed(step: Step) -> int:
    """How many hosts may be out of service at once."""
    plan, state = step.plan, step.state
    window = plan.phases[min(state.phase, len(plan.phases) - 1)].window
    if state.status in (Status.TURNING_BACK, Status.REVERTED, Status.FAILED):
        # One host may always go back, whatever else is out.
        return max(window, plan.turn_back_window, len({*state.out, *state.down}) + 1)
    return window


def within_the_window(
    moments: Sequence[Moment], told: Sequence[Step], spared: Collection[str], skewed: bool
) -> list[str]:
    """Never more hosts out of service by our doing than the window. ``skewed``: the ledger's times differ."""
    worst: dict[int, str] = {}
    for moment in moments:
        near = list(told) if skewed else _near(told, moment.at)
        ours = {name for step in near for name in {*step.state.leases, *step.state.out, *step.state.down}}
        out = {
            name
            for name, status in moment.servers.items()
            if name not in spared and (status.startswith(("DRAIN", "MAINT")) or (_is_out(status) and name in ours))
        }
        limit = max(map(allowed, near), default=0)
        if len(out) > limit:
            names = ", ".join(f"{name} {moment.servers[name]}" for name in sorted(out))
            worst.setdefault(len(out), f"{len(out)} hosts were out at {moment.at:.1f}, allowed were {limit}: {names}")
    return [f"1 window: {worst[max(worst)]}"] if worst else []


def _is_out(status: str) -> bool:
    return not status.startswith("UP")


def _near(told: Sequence[Step], at: float) -> list[Step]:
    """The steps that held about that time."""
    before = [step for step in told if step.at <= at - SLACK]
    return before[-1:] + [step for step in told if at - SLACK < step.at <= at + SLACK]


def phases_in_order(entries: Sequence[Entry], seen: Mapping[str, Seen | None], skewed: bool) -> list[str]:
    """No host of a phase was touched before the phase ahead of it had passed: by the ledger, and by hosts' journals."""
    passed: dict[tuple[str, int], float] = {}
    phases: dict[tuple[str, str], int] = {}
    found = []
    for entry in entries:
        data = json.loads(entry.data)
        if entry.kind == "opened":
            phases |= {(entry.rollout, name): phase for name, phase, *_others in data["hosts"]}
        if entry.kind == "phase_passed":
            passed[entry.rollout, data["phase"]] = entry.at
        admitted = entry.kind == "moved" and data["now"] == HostStatus.ADMITTED and data["phase"]
        if admitted and (entry.rollout, data["phase"] - 1) not in passed:
            found.append(f"2 phases: {entry.host} of phase {data['phase']} was admitted before the one ahead passed")
    for host, look in seen.items():
        for line in look.journal if look else ():
            phase = phases.get((line.get("rollout", ""), host), 0)
            if line["event"] != "activating" or not phase:
                continue
            at = passed.get((line["rollout"], phase - 1))
            if at is None or (not skewed and line["at"] < at - 0.01):
                found.append(f"2 phases: {host} of phase {phase} was switched at {line['at']}, phase {phase - 1}: {at}")
    return found


def named_truly(told: Mapping[str, Told], seen: Mapping[str, Seen | None], spared: Collection[str]) -> list[str]:
    """The newest rollout, if it has ended, names each host's real state."""
    if not told:
        return []
    rollout, last = list(told.items())[-1]
    if not last.state.status.ended:
        return []
    found = []
    for host, (status, old, new) in last.hosts.items():
        look = seen.get(host)
        wanted = new if status in NEW else old if status in OLD else None
        if status in (HostStatus.ADMITTED, HostStatus.RETURNING):
            found.append(f"3 truth: {rollout} has {last.state.status}, but {host} is {status}")
        elif look and wanted and look.active != wanted:
            found.append(f"3 truth: {host} is {status} in the ledger, but has {look.active}, not {wanted}, active")
        elif look and look.active not in (old, new):
            found.append(f"3 truth: {host} has {look.active} active, neither {old} nor {new}")
        elif look and wanted and look.running != look.active and host not in spared:
            found.append(f"3 truth: {host} is {status} in the ledger, but runs {look.running or 'nothing'}")
    return found


def old_or_new(
    active: Mapping[str, Sequence[tuple[float, str, str]]], known: Mapping[str, Collection[str]]
) -> list[str]:
    """At any time each host had a release active that it was told to have."""
    return [
        f"5 whole: {host} had {release or 'nothing'} active at {at:.1f}"
        for host, told in active.items()
        for at, release, _running in told
        if release not in known[host]
    ]


def stale_did_nothing(seen: Mapping[str, Seen | None], stale: int) -> list[str]:
    """After a host had heard of a newer token, the stale one changed nothing there."""
    found = []
    for host, look in seen.items():
        newest = 0
        for line in look.journal if look else ():
            token = line.get("token", 0)
            newest = max(newest, token)
            if token == stale < newest:
                found.append(f"7 token: {host} did '{line['event']}' of {line['release']} for the stale token {stale}")
    return found


def nothing_left(
    servers: Mapping[str, str], seen: Mapping[str, Seen | None], locked: Collection[str], holder: str | None
) -> list[str]:
    """In the end nothing is drained, locked, half staged or held."""
    found = [f"8 left: {name} is {status} in HAProxy" for name, status in servers.items() if status != "UP"]
    found += [f"8 left: {host} keeps {list(look.incoming)}" for host, look in seen.items() if look and look.incoming]
    found += [f"8 left: the tree of {host} is locked" for host in locked]
    found += [f"8 left: {host} does not run" for host, look in seen.items() if look is None]
    return [*found, f"8 left: the token is held by {holder}"] if holder else found


def same(before: Mapping[str, Seen | None], after: Mapping[str, Seen | None], heads: tuple[int, int]) -> list[str]:
    """A second run of a deployment that had finished changed nothing."""
    was, became = ({host: look and look.live for host, look in looks.items()} for looks in (before, after))
    found = [f"9 again: {host} was {was[host]}, is {became[host]}" for host in was if was[host] != became[host]]
    return found if heads[0] == heads[1] else [*found, f"9 again: the ledger went from {heads[0]} to {heads[1]}"]
