# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens next: pure answers to what hosts ask and report.

Each function takes the plan, the state and the time and returns a Decision: an answer, and the events that make it
true. Whoever calls appends those events to the ledger and hands out the answer in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Plan, PlannedPhase
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    FAILURES,
    IN_FLIGHT,
    ON_THE_NEW_RELEASE,
    Event,
    HostStatus,
    RolloutState,
    Status,
    evolve,
)

GATE_LEASE = 120.0  # seconds beyond the bake time for which the holder of a phase's gate is waited for


class Verdict(StrEnum):
    """What a gate may say."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


@dataclass(frozen=True)
class HostRecord:
    """One host's row in the ledger."""

    name: str
    phase: int
    zone: str
    status: HostStatus


@dataclass(frozen=True)
class Admitted:
    """The host may go; it must report before ``until`` (epoch seconds)."""

    until: float


@dataclass(frozen=True)
class Wait:
    """Not yet, for ``reason``. ``until``: epoch seconds, where it is known when to ask again."""

    reason: str
    until: float | None = None


@dataclass(frozen=True)
class Denied:
    """Not in this rollout, for ``reason``."""

    reason: str


@dataclass(frozen=True)
class Recorded:
    """It is in the ledger. ``gate_due``: the asker has to run the gate of the phase that has just closed."""

    gate_due: bool = False


Answer = Admitted | Wait | Denied | Recorded


@dataclass(frozen=True)
class Decision:
    """An answer, and what has to be appended to the ledger for it to be true."""

    answer: Answer
    events: tuple[Event, ...] = ()


def opening(plan: Plan, now: float, opener: str, facts: dict[str, Any]) -> Decision:
    """The first events of a rollout; ``facts`` (JSON types) go into the ledger with it."""
    counts: list[dict[str, int]] = [{} for _phase in plan.phases]
    for host in plan.hosts:
        counts[host.phase][host.status] = counts[host.phase].get(host.status, 0) + 1
    hosts = [[host.name, host.phase, host.zone, host.from_release, host.to_release, host.status] for host in plan.hosts]
    planned = {"rules": plan.rules(), "hosts": hosts, "counts": counts, "digest": plan.digest()}
    opened = Event("opened", now, data={**facts, **planned})
    return _decide(plan, RolloutState(), [opened], now, opener)


def resume(plan: Plan, state: RolloutState, seen: Iterable[tuple[HostRecord, bool]], now: float, by: str) -> Decision:
    """Pick a rollout up whose controller died.

    ``seen`` pairs each host with whether it was read to be where the rollout wants it: on its new release, or on its
    old one when the rollout turns back. What a host is decides, not what was written down last.
    """
    reread = _REREAD_BACK if state.status is Status.TURNING_BACK else _REREAD_FORWARD
    moves = [
        _move(host, reread[host.status][there], now, "read from the host as the rollout was resumed")
        for host, there in seen
        if host.status in reread and reread[host.status][there] is not host.status
    ]
    return _decide(plan, state, [Event("resumed", now, data={"by": by}), *moves], now, by)


_REREAD_FORWARD = {  # what was written: (what it is if it is not there, what it is if it is there)
    HostStatus.PENDING: (HostStatus.PENDING, HostStatus.CURRENT),
    HostStatus.CURRENT: (HostStatus.PENDING, HostStatus.CURRENT),
    HostStatus.ADMITTED: (HostStatus.PENDING, HostStatus.SUCCEEDED),
    HostStatus.SUCCEEDED: (HostStatus.PENDING, HostStatus.SUCCEEDED),
    HostStatus.LOST: (HostStatus.PENDING, HostStatus.SUCCEEDED),
}
_REREAD_BACK = {
    HostStatus.ADMITTED: (HostStatus.LOST, HostStatus.RETURNED),
    HostStatus.SUCCEEDED: (HostStatus.SUCCEEDED, HostStatus.RETURNED),
    HostStatus.FAILED: (HostStatus.FAILED, HostStatus.RETURNED),
    HostStatus.LOST: (HostStatus.LOST, HostStatus.RETURNED),
    HostStatus.RETURNING: (HostStatus.LOST, HostStatus.RETURNED),
    HostStatus.STUCK: (HostStatus.LOST, HostStatus.RETURNED),
}


def admit(plan: Plan, state: RolloutState, host: HostRecord, now: float) -> Decision:
    """May ``host`` go out of service now? Forward, or back where the rollout turns back."""
    expired = _decide(plan, state, expire(state, now), now, host.name).events
    if any(event.host == host.name for event in expired):
        return Decision(Denied("its lease ran out before it reported"), expired)
    state = _after(state, expired)
    zone_full = _zone_lost(plan, state, host)
    if zone_full:
        turn = _turned(zone_full, now)
        return Decision(Denied(zone_full), (*expired, turn))
    back = state.status is Status.TURNING_BACK
    answer = _admit_back(plan, state, host, now) if back else _admit_forward(plan, state, host, now)
    if not isinstance(answer, Admitted):
        return Decision(answer, expired)
    going = HostStatus.RETURNING if back else HostStatus.ADMITTED
    return Decision(answer, (*expired, _move(host, going, now, until=answer.until)))


def _admit_forward(plan: Plan, state: RolloutState, host: HostRecord, now: float) -> Answer:
    if state.status.ended or state.status is Status.ROLLED:
        return Denied(f"the rollout has {state.status}")
    if host.status is not HostStatus.PENDING:
        return Denied(f"it is {host.status} already")
    if state.paused:
        return Wait(f"paused: {state.paused}")
    phase = plan.phases[state.phase]
    if state.gate:
        return Wait(f"phase {phase.name} bakes, then its gate is asked", max(state.gate.bake_until, now))
    if host.phase > state.phase:
        return Wait(f"phase {phase.name} has {_unfinished(state, state.phase)} of {phase.hosts} hosts to go")
    if phase.approval and state.phase not in state.approved:
        return Wait(f"phase {phase.name} waits for an approval")
    if len(state.leases) + len(state.out) >= phase.window:
        return Wait(f"{_out(state)} fill the window of {phase.window}", _next_lease(state))
    if phase.zone_window is not None and _in_zone(state, host.zone) >= phase.zone_window:
        return Wait(f"zone {host.zone} has its {phase.zone_window} hosts out", _next_lease(state))
    return Admitted(now + plan.lease)


def _admit_back(plan: Plan, state: RolloutState, host: HostRecord, now: float) -> Answer:
    """The way back keeps to its window too, but one host may always go: nothing may bar it for good."""
    if host.status not in ON_THE_NEW_RELEASE:
        return Denied(f"the rollout turns back: {state.reason}")
    others_out = len(state.out.keys() - {host.name})
    room = max(1, plan.turn_back_window - others_out)
    if len(state.leases) >= room:
        return Wait(f"{_out(state)} fill the window of {plan.turn_back_window} on the way back", _next_lease(state))
    zone_window = plan.phases[host.phase].zone_window
    if zone_window is not None and sum(lease.zone == host.zone for lease in state.leases.values()) >= zone_window:
        return Wait(f"zone {host.zone} has its {zone_window} hosts out", _next_lease(state))
    return Admitted(now + plan.lease)


def report(
    plan: Plan, state: RolloutState, host: HostRecord, outcome: HostStatus, now: float, why: str = ""
) -> Decision:
    """Take what became of ``host``. A report that comes after the lease ran out still tells the truth."""
    if host.status is outcome:
        return Decision(Recorded())
    others = [event for event in expire(state, now) if event.host != host.name]
    decision = _decide(plan, state, [*others, _move(host, outcome, now, why)], now, host.name)
    gate_due = any(event.kind == "phase_closed" for event in decision.events)
    return Decision(Recorded(gate_due), decision.events)


def judge(plan: Plan, state: RolloutState, verdict: Verdict, now: float, why: str = "") -> Decision:
    """Take the verdict of the open gate: pass opens the next phase, fail turns back, anything else asks a person."""
    if state.gate is None:
        return Decision(Denied(f"no gate is open: the rollout is {state.status}"))
    name = plan.phases[state.phase].name
    if verdict is Verdict.PASS and now < state.gate.bake_until:
        return Decision(Wait(f"phase {name} bakes", state.gate.bake_until))
    if verdict is Verdict.PASS:
        event = _passed(state.phase, why, now)
    elif verdict is Verdict.FAIL:
        event = _turned(f"the gate of phase {name} failed: {why}", now)
    else:
        event = Event("paused", now, data={"reason": f"the gate of phase {name} is {verdict}: {why}"})
    return _decide(plan, state, [event], now, state.gate.holder)


def turn_back(state: RolloutState, reason: str, now: float) -> Decision:
    """Turn the rollout round because somebody wants it."""
    if state.status.ended or state.status is Status.TURNING_BACK:
        return Decision(Denied(f"the rollout is {state.status} already"))
    return Decision(Recorded(), (_turned(reason, now),))


def close(state: RolloutState, now: float) -> Decision:
    """The verdict over the rollout, if it has come to an end."""
    if state.status is Status.ROLLED:
        verdict = Status.SUCCEEDED
    elif state.status is not Status.TURNING_BACK:
        return Decision(Denied(state.paused or f"the rollout is {state.status}"))
    elif state.count({*IN_FLIGHT, *ON_THE_NEW_RELEASE, HostStatus.STUCK}):
        verdict = Status.FAILED
    else:
        verdict = Status.REVERTED
    return Decision(Recorded(), (ended(verdict, state.reason, now),))


def ended(verdict: Status, reason: str, now: float) -> Event:
    """The last event of a rollout."""
    return Event("closed", now, data={"verdict": verdict, "reason": reason})


def expire(state: RolloutState, now: float) -> list[Event]:
    """The hosts whose leases ran out: nobody knows what they are doing."""
    return [
        _move(
            HostRecord(name, lease.phase, lease.zone, HostStatus.RETURNING if lease.back else HostStatus.ADMITTED),
            HostStatus.STUCK if lease.back else HostStatus.LOST,
            now,
            "its lease ran out before it reported",
        )
        for name, lease in state.leases.items()
        if lease.until < now
    ]


def _decide(plan: Plan, state: RolloutState, events: Sequence[Event], now: float, asker: str) -> Decision:
    """``events``, and everything that follows from them."""
    all_events = list(events)
    state = _after(state, events)
    while (following := _consequence(plan, state, now, asker)) is not None:
        all_events.append(following)
        state = evolve(state, following)
    return Decision(Recorded(), tuple(all_events))


def _consequence(plan: Plan, state: RolloutState, now: float, asker: str) -> Event | None:
    if state.status not in (Status.ROLLING, Status.GATING):
        return None
    failures = state.count(FAILURES)
    if failures > plan.failure_budget:
        return _turned(f"{failures} failed, more than the failure budget of {plan.failure_budget}", now)
    if state.status is Status.GATING:
        return None
    phase = plan.phases[state.phase]
    if sum(_unfinished(state, index) for index in range(state.phase + 1)):
        return _blocked(phase, state, now)
    if not state.count({HostStatus.SUCCEEDED, HostStatus.CURRENT}, state.phase):
        return _turned(f"no host of phase {phase.name} succeeded", now)
    if not state.count({HostStatus.SUCCEEDED}, state.phase):
        return _passed(state.phase, "nothing had to change", now)
    if not phase.bake:
        return _passed(state.phase, "every host passed its gate, and no bake time is set", now)
    until = now + phase.bake
    return Event("phase_closed", now, data={"holder": asker, "bake_until": until, "until": until + GATE_LEASE})


def _blocked(phase: PlannedPhase, state: RolloutState, now: float) -> Event | None:
    """Hosts that are out for good and fill the window: waiting would never end."""
    if len(state.out) < phase.window or state.leases:
        return None
    return _turned(f"{_out(state)} fill the window of {phase.window}: no further host may go", now)


def _zone_lost(plan: Plan, state: RolloutState, host: HostRecord) -> str:
    if state.status is not Status.ROLLING or host.status is not HostStatus.PENDING or host.phase > state.phase:
        return ""
    limit = plan.phases[state.phase].zone_window
    lost = sum(zone == host.zone for zone in state.out.values())
    if limit is None or lost < limit:
        return ""
    return f"{lost} hosts out of service fill the window of {limit} of zone {host.zone}: no further host may go"


def _after(state: RolloutState, events: Iterable[Event]) -> RolloutState:
    for event in events:
        state = evolve(state, event)
    return state


def _unfinished(state: RolloutState, phase: int) -> int:
    return state.count({HostStatus.PENDING, *IN_FLIGHT}, phase)


def _in_zone(state: RolloutState, zone: str) -> int:
    return sum(lease.zone == zone for lease in state.leases.values()) + sum(z == zone for z in state.out.values())


def _out(state: RolloutState) -> str:
    names = sorted({*state.leases, *state.out})
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} hosts"


def _next_lease(state: RolloutState) -> float | None:
    return min((lease.until for lease in state.leases.values()), default=None)


def _move(host: HostRecord, now_is: HostStatus, now: float, why: str = "", until: float | None = None) -> Event:
    data: dict[str, Any] = {"was": host.status, "now": now_is, "phase": host.phase, "zone": host.zone}
    if until is not None:
        data["until"] = until
    if why:
        data["why"] = why
    return Event("moved", now, host.name, data)


def _passed(phase: int, why: str, now: float) -> Event:
    return Event("phase_passed", now, data={"phase": phase, "why": why})


def _turned(reason: str, now: float) -> Event:
    return Event("turned_back", now, data={"reason": reason})
