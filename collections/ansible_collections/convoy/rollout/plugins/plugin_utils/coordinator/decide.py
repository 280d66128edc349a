# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens next: pure answers to what hosts ask and report.

Each function takes the plan, the state and the time and returns a Decision: an answer, and the events that make it
true. Whoever calls appends those events to the ledger and hands out the answer in the same transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import migrations
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Plan,
    PlannedHost,
    PlannedMigration,
    PlannedPhase,
    Sighting,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, Scope
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    FAILURES,
    IN_FLIGHT,
    ON_THE_NEW_RELEASE,
    READY,
    Applied,
    Event,
    Gate,
    HostStatus,
    RolloutState,
    Standing,
    Status,
    Traffic,
    evolve,
)

NOBODY = ""  # who has to ask a gate when a phase was closed by a lease that ran out
TURN_GRACE = 3.0  # seconds for which a free place is kept for the host whose turn it is
GATE_LEASE = 120.0  # seconds, at least, for which the holder of a phase's gate is waited for after the bake time


class Verdict(StrEnum):
    """What a gate may say."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


@dataclass(frozen=True)
class HostRecord:
    """One host's row in the ledger.

    ``ahead``: how many hosts of its phase and zone have to go, and stand before it; ``places_for_others`` are enough.
    """

    name: str
    phase: int
    zone: str
    status: HostStatus
    ahead: int = 0


@dataclass(frozen=True)
class Admitted:
    """The host may go; it must report before ``until`` (epoch seconds). ``first``: it begins its phase."""

    until: float
    first: bool = False


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
class Migrate:
    """The asker has to run this migration (its reversal, where it says ``back``) and report before ``until``."""

    migration: PlannedMigration
    until: float


@dataclass(frozen=True)
class Recorded:
    """It is in the ledger. ``gate_due``: the asker has to run the gate of the phase that has just closed."""

    gate_due: bool = False


Answer = Admitted | Wait | Denied | Migrate | Recorded


@dataclass(frozen=True)
class Decision:
    """An answer, and what has to be appended to the ledger for it to be true."""

    answer: Answer
    events: tuple[Event, ...] = ()


def opening(
    plan: Plan,
    now: float,
    opener: str,
    facts: dict[str, Any],
    traffic: Traffic = Traffic.OLD,
    before: RolloutState | None = None,
) -> Decision:
    """The first events of a rollout; ``facts`` (JSON types) go into the ledger with it.

    ``traffic`` is where the load balancers stand that the plan switches, ``before`` how the last rollout ended.
    """
    known = migrations.inherited(before) if before else {}
    counts: list[dict[str, int]] = [{} for _phase in plan.phases]
    for host in plan.hosts:
        counts[host.phase][host.status] = counts[host.phase].get(host.status, 0) + 1
    hosts = [[host.name, host.phase, host.zone, host.from_release, host.to_release, host.status] for host in plan.hosts]
    planned = {
        "rules": plan.rules(),
        "hosts": hosts,
        "counts": counts,
        "absent": {host.name: _yet_to_go(host) for host in plan.hosts if not host.serves},
        "failed_in": dict(Counter(host.zone for host in plan.hosts if host.status in FAILURES)),
        "digest": plan.digest(),
        **({"traffic": traffic} if plan.switch else {}),
        **({"migrations": {name: asdict(one) for name, one in known.items()}} if known else {}),
    }
    events = [Event("opened", now, data={**facts, **planned})]
    if plan.switch and traffic is not Traffic.OLD and plan.pending:
        events.append(_turned(plan, _served_too_soon(plan.switch.coming, [host.name for host in plan.pending]), now))
    return _decide(plan, RolloutState(), events, now, opener)


def _yet_to_go(host: PlannedHost) -> int | None:
    return host.phase if host.status is HostStatus.PENDING else None


def resume(
    plan: Plan,
    state: RolloutState,
    seen: Iterable[tuple[HostRecord, Sighting]],
    now: float,
    by: str,
    traffic: Traffic = Traffic.OLD,
) -> Decision:
    """Pick a rollout up whose controller died.

    ``seen`` pairs each host with what was seen of it, where the rollout wants it on its new release, or on its old one
    when it turns back; ``traffic`` is where the load balancers were seen that the plan switches. What a host is
    decides, not what was written down last. A colour that serves and is not ready is left at once.
    """
    back = state.status is Status.TURNING_BACK
    moves = [move for host, sighting in seen if (move := _reread(state, host, sighting, now, back))]
    found = {"traffic": traffic} if plan.switch else {}
    gone = [_in_doubt(name, one, now, f"{one.by}, which ran it, is gone") for name, one in migrations.running(state)]
    events = [Event("resumed", now, data={"by": by, **found}), *gone, *moves]
    if plan.switch and not back and traffic is not Traffic.OLD:
        not_ready = [str(move.host) for move in moves if move.data["was"] in READY and move.data["now"] not in READY]
        if not_ready or not _awaits_switch(plan, state):
            events.append(_turned(plan, _served_too_soon(plan.switch.coming, not_ready), now))
    return _decide(plan, state, events, now, by)


def _served_too_soon(coming: str, hosts: Sequence[str]) -> str:
    why = f"{_names(hosts)} of it not ready" if hosts else "it has not passed its gate"
    return f"the load balancers send requests to {coming}, and {why}"


_SIGHTINGS = (Sighting.SETTLED, Sighting.ELSEWHERE, Sighting.BROKEN, Sighting.UNREACHABLE)
_UNTOUCHED = (HostStatus.CURRENT, HostStatus.PENDING, HostStatus.PENDING, HostStatus.UNREACHABLE)
_DEFERRED = (HostStatus.CURRENT, HostStatus.PENDING, HostStatus.PENDING, HostStatus.DEFERRED)
_TOUCHED = (HostStatus.SUCCEEDED, HostStatus.PENDING, HostStatus.PENDING, HostStatus.LOST)
_REREAD_FORWARD = {  # what was written: what it is, by sighting
    HostStatus.PENDING: _UNTOUCHED,
    HostStatus.CURRENT: _UNTOUCHED,
    HostStatus.UNREACHABLE: _UNTOUCHED,
    HostStatus.DEFERRED: _DEFERRED,
    HostStatus.UNSTAGED: _UNTOUCHED,
    HostStatus.ADMITTED: _TOUCHED,
    HostStatus.SUCCEEDED: _TOUCHED,
    HostStatus.LOST: _TOUCHED,
    HostStatus.REVERTED: (HostStatus.SUCCEEDED, HostStatus.REVERTED, HostStatus.FAILED, HostStatus.FAILED),
    HostStatus.FAILED: (HostStatus.SUCCEEDED, HostStatus.REVERTED, HostStatus.FAILED, HostStatus.FAILED),
}
_TO_RETURN = (HostStatus.RETURNED, HostStatus.SUCCEEDED, HostStatus.LOST, HostStatus.LOST)
_REREAD_BACK = {
    HostStatus.ADMITTED: _TO_RETURN,
    HostStatus.SUCCEEDED: _TO_RETURN,
    HostStatus.LOST: _TO_RETURN,
    HostStatus.FAILED: _TO_RETURN,
    HostStatus.RETURNING: _TO_RETURN,
    HostStatus.RETURNED: _TO_RETURN,
    HostStatus.STUCK: _TO_RETURN,
}


def _reread(state: RolloutState, host: HostRecord, sighting: Sighting, now: float, back: bool) -> Event | None:
    """What the host is, if that is not what was written; a broken one that was touched is down until it goes again."""
    was_down = host.name in state.down
    written = HostStatus.ADMITTED if was_down else host.status
    row = (_REREAD_BACK if back else _REREAD_FORWARD).get(written)
    if row is None:
        return None
    is_now = row[_SIGHTINGS.index(sighting)]
    down = row is _TOUCHED and sighting is Sighting.BROKEN
    if (is_now, down) == (host.status, was_down):
        return None
    return _move(host, is_now, now, "read from the host as the rollout was resumed", down=down)


def admit(plan: Plan, state: RolloutState, host: HostRecord, now: float) -> Decision:
    """May ``host`` go out of service now? Forward, or back where the rollout turns back.

    Forward it may be told to run a migration first, and to ask again when it has reported that.
    """
    expired = _decide(plan, state, expire(state, now), now, NOBODY).events
    state = _after(state, expired)
    for event in expired:
        if event.host == host.name:
            host = replace(host, status=event.data["now"])
    zone_full = _zone_lost(plan, state, host)
    if zone_full:
        ends = _failed(plan, state, zone_full, now, lasting=True)
        refusal = Wait(f"held: {zone_full}") if ends.kind == "held" else Denied(zone_full)
        return Decision(refusal, (*expired, ends))
    back = state.status is Status.TURNING_BACK
    answer = _admit_back(plan, state, host, now) if back else _admit_forward(plan, state, host, now)
    if isinstance(answer, Migrate):
        return Decision(answer, (*expired, _begun(answer, host.name, now)))
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
    if state.held:
        return Wait(f"held: {state.held}")
    phase = plan.phases[state.phase]
    if state.gate:
        return _await_gate(phase, state.gate, now)
    migration = _migrate(plan, state, now)
    if migration:
        return migration
    if host.phase > state.phase:
        to_go = f"phase {phase.name} has {_unfinished(state, state.phase)} of {phase.hosts} hosts to go"
        return Wait(to_go, _next_lease(state))
    if _awaits_approval(plan, state):
        return Wait(f"phase {phase.name} waits for an approval")
    begun = state.count(_BEGUN, host.phase)
    full = (
        _await_window(phase, state, host) or _await_available(plan, state, host) or _await_turn(phase, state, host, now)
    )
    return full or Admitted(now + plan.lease, first=not begun)


def _await_gate(phase: PlannedPhase, gate: Gate, now: float) -> Answer:
    if gate.held:
        return Wait(gate.held)
    if not gate.holder or gate.until <= now:
        silent = f"{gate.holder}, which was to ask its gate, is silent" if gate.holder else "nobody asks its gate"
        return Denied(f"phase {phase.name} has closed, but {silent}: run the same command again to go on")
    if now < gate.bake_until:
        return Wait(f"phase {phase.name} bakes, then its gate is asked", gate.bake_until)
    return Wait(f"{gate.holder} asks the gate of phase {phase.name}", gate.until)


def _await_window(phase: PlannedPhase, state: RolloutState, host: HostRecord) -> Wait | None:
    """What fills the window or the zone's. A host that is down already takes nothing more out of service."""
    zones = {name: lease.zone for name, lease in state.leases.items()}
    if host.name not in state.down:
        zones |= {**state.out, **state.down}
    if len(zones) >= phase.window:
        return Wait(f"{_names(zones)} fill the window of {phase.window}", _next_lease(state))
    if phase.zone_window is not None and list(zones.values()).count(host.zone) >= phase.zone_window:
        return Wait(f"zone {host.zone} has its {phase.zone_window} hosts out", _next_lease(state))
    return None


def _await_turn(phase: PlannedPhase, state: RolloutState, host: HostRecord, now: float) -> Wait | None:
    """Hosts go in the plan's order, as far as those before them ask soon: a dead worker's host holds nobody up."""
    if host.name in state.down or host.ahead < _free(phase, state) or now >= state.changed_at + TURN_GRACE:
        return None
    return Wait(f"hosts of phase {phase.name} that stand before it go first", state.changed_at + TURN_GRACE)


def places_for_others(plan: Plan, state: RolloutState, host: HostRecord) -> int:
    """How many hosts before ``host`` keep it from going; 0 where its place in the plan's order cannot matter."""
    if host.status is not HostStatus.PENDING or host.phase != state.phase or host.name in state.down:
        return 0
    free = _free(plan.phases[state.phase], state)
    return free if 0 < free < state.count({HostStatus.PENDING}, state.phase) else 0


def places_to_fill(plan: Plan, state: RolloutState, events: Iterable[Event]) -> int | None:
    """How many hosts may go after ``events``: those that come first in the plan. None: any may have something to learn.

    Tells who is to be woken, so it errs by None.
    """
    phase = plan.phases[state.phase]
    usual = all(event.kind == "moved" for event in events) and state.status is Status.ROLLING
    waits = state.paused or state.held or state.down or state.absent or plan.min_available
    if not usual or waits or phase.zone_window is not None or _awaits_approval(plan, state):
        return None
    if migrations.due(plan, state):
        return None
    return max(0, _free(phase, state))


def _free(phase: PlannedPhase, state: RolloutState) -> int:
    return phase.window - len({*state.leases, *state.out, *state.down})


def _await_available(plan: Plan, state: RolloutState, host: HostRecord) -> Wait | None:
    """Whether too few hosts would serve. One that does not serve anyway takes nothing away."""
    if not _too_few(plan, state) or host.name in state.unavailable:
        return None
    return Wait(f"only {_serving(plan, state)} hosts serve, {plan.min_available} always have to", _next_lease(state))


def _too_few(plan: Plan, state: RolloutState) -> bool:
    """Whether no further host may leave. The hosts of an idle colour serve nobody: the switch asks how many do."""
    return plan.switch is None and plan.min_available > 0 and _serving(plan, state) <= plan.min_available


def _serving(plan: Plan, state: RolloutState) -> int:
    return plan.size - len(state.unavailable)


def _admit_back(plan: Plan, state: RolloutState, host: HostRecord, now: float) -> Answer:
    """The way back keeps to its window too, but one host may always go: nothing may bar it for good."""
    if host.status is HostStatus.ADMITTED:
        return Wait("it has not reported from its way forward yet", state.leases[host.name].until)
    if not goes_back(state, host):
        return Denied(f"the rollout turns back: {state.reason}")
    others_out = len({*state.out, *state.down} - {host.name})
    room = max(1, plan.turn_back_window - others_out)
    if len(state.leases) >= room:
        fill = _names({*state.leases, *state.out, *state.down})
        return Wait(f"{fill} fill the window of {plan.turn_back_window} on the way back", _next_lease(state))
    zone_window = plan.phases[host.phase].zone_window
    if zone_window is not None and sum(lease.zone == host.zone for lease in state.leases.values()) >= zone_window:
        return Wait(f"zone {host.zone} has its {zone_window} hosts out", _next_lease(state))
    return (_await_available(plan, state, host) if state.leases else None) or Admitted(now + plan.lease)


def admit_switch(plan: Plan, state: RolloutState, asker: str, now: float) -> Decision:
    """May ``asker`` switch the load balancers now? To the new colour, or back where the rollout turns back."""
    expired = _decide(plan, state, expire(state, now), now, NOBODY).events
    state = _after(state, expired)
    if plan.switch is None:
        return Decision(Denied("the plan has nothing to switch"), expired)
    back = state.status is Status.TURNING_BACK
    answer = _admit_switch_back(plan, state, now) if back else _admit_switch_forward(plan, state, now)
    if not isinstance(answer, Admitted):
        return Decision(answer, expired)
    ready, needed = state.count(READY), max(1, plan.min_available)
    if not back and ready < needed:
        reason = f"only {ready} hosts of {plan.switch.coming} are ready, at least {needed} have to serve"
        return Decision(Denied(reason), (*expired, _turned(plan, reason, now)))
    to = plan.switch.leaving if back else plan.switch.coming
    begun = Event("switch_begun", now, data={"to": to, "back": back, "by": asker, "until": answer.until})
    return Decision(answer, (*expired, begun))


def _admit_switch_forward(plan: Plan, state: RolloutState, now: float) -> Answer:
    phase = plan.phases[state.phase]
    if state.status.ended or state.status is Status.ROLLED:
        return Denied(f"the rollout has {state.status}")
    if state.paused or state.held:
        return Wait(f"paused: {state.paused}" if state.paused else f"held: {state.held}")
    if state.gate:
        return _await_gate(phase, state.gate, now)
    to_go = sum(_unfinished(state, index) for index in range(state.phase + 1))
    if to_go or not _awaits_switch(plan, state):
        reason = f"{to_go} hosts have to go before the switch"
        return Wait(reason, _next_lease(state)) if state.leases else Denied(f"{reason}, and none is under way")
    if _awaits_approval(plan, state):
        return Wait(f"the switch, phase {phase.name}, waits for an approval")
    return _await_switching(state, now) or Admitted(now + plan.lease)


def _admit_switch_back(plan: Plan, state: RolloutState, now: float) -> Answer:
    """Nothing but somebody who switches already bars the way back."""
    if state.scope is Scope.NONE:
        return Denied(f"the rollout stops where it is: {state.reason}")
    if state.traffic is Traffic.OLD:
        return Denied(f"the load balancers need not be switched back: {state.reason}")
    return _await_switching(state, now) or Admitted(now + plan.lease)


def _await_switching(state: RolloutState, now: float) -> Wait | None:
    if state.switching is None or state.switching.until <= now:
        return None
    return Wait("another run switches the load balancers", state.switching.until)


@dataclass(frozen=True)
class SwitchReport:
    """What became of a switch, admitted ``until`` a time. ``touched``: a load balancer may have been changed."""

    until: float
    went_well: bool
    touched: bool = True
    why: str = ""


def report_switch(plan: Plan, state: RolloutState, report: SwitchReport, now: float, asker: str) -> Decision:
    """Take what became of the switch. Where it has failed the rollout turns back, and is switched back."""
    if plan.switch is None or state.switching is None or state.switching.until != report.until:
        return Decision(Denied("it is not the switch that is under way"))
    back = state.switching.back
    to = plan.switch.leaving if back else plan.switch.coming
    if report.went_well:
        decision = _decide(plan, state, [Event("switched", now, data={"to": to, "back": back})], now, asker)
        return replace(decision, answer=Recorded(any(event.kind == "phase_closed" for event in decision.events)))
    events = [Event("switch_failed", now, data={"to": to, "back": back, "touched": report.touched, "why": report.why})]
    if state.status is not Status.TURNING_BACK:
        events.append(_turned(plan, f"the switch to {to} failed: {report.why}", now))
    return _decide(plan, state, events, now, asker)


def admit_migration(plan: Plan, state: RolloutState, asker: str, now: float) -> Decision:
    """May ``asker``, which is no host of the plan, run a migration that no host has been told to run?

    Those after the last phase, those before phases without a host that moves, and reversals are left to it.
    """
    expired = _decide(plan, state, expire(state, now), now, NOBODY).events
    state = _after(state, expired)
    answer = _admit_migration(plan, state, now)
    if not isinstance(answer, Migrate):
        return Decision(answer, expired)
    return Decision(answer, (*expired, _begun(answer, asker, now)))


def _admit_migration(plan: Plan, state: RolloutState, now: float) -> Answer:
    back = state.status is Status.TURNING_BACK
    if migrations.due(plan, state) is None and not migrations.running(state):
        return Denied("no migration has to run now")
    if not back and (state.paused or state.held):
        return Wait(f"paused: {state.paused}" if state.paused else f"held: {state.held}")
    if not back and state.gate:
        return _await_gate(plan.phases[state.phase], state.gate, now)
    return _migrate(plan, state, now) or Denied("no migration has to run now")


def _migrate(plan: Plan, state: RolloutState, now: float) -> Migrate | Wait | None:
    """The migration that is due has to run before anything else: by the asker, unless somebody runs it already."""
    under_way = _await_migration(state)
    if under_way:
        return under_way
    planned = migrations.due(plan, state)
    if planned is None:
        return None
    known = state.migrations.get(planned.name)
    if known and known.standing is Standing.IN_DOUBT and not migrations.may_rerun(planned, known):
        return Wait(f"held: {migrations.doubt(planned.name, known)}")
    waits = state.status is Status.ROLLING and not planned.early and planned.phase == state.phase
    if waits and _awaits_approval(plan, state):
        return Wait(f"phase {plan.phases[state.phase].name} waits for an approval")
    return Migrate(planned, now + planned.lease)


def _await_migration(state: RolloutState) -> Wait | None:
    return next((Wait(f"{one.by} runs migration {name}", one.until) for name, one in migrations.running(state)), None)


def _begun(answer: Migrate, asker: str, now: float) -> Event:
    planned = answer.migration
    data = {
        "migration": planned.name,
        "back": planned.back,
        "release": planned.release,
        "run_on": planned.run_on,
        "by": asker,
        "until": answer.until,
        "idempotent": planned.idempotent,
    }
    return Event("migration_started", now, data=data)


@dataclass(frozen=True)
class MigrationReport:
    """What became of a migration, or of its reversal, that was to be run ``until`` a time."""

    name: str
    until: float
    went_well: bool
    why: str = ""


def report_migration(plan: Plan, state: RolloutState, report: MigrationReport, now: float, asker: str) -> Decision:
    """Take what became of a migration. A report that comes late still tells the truth, unless a later run has begun.

    Where it failed the rollout turns back, or holds: nothing goes on without it. A reversal that failed is in doubt.
    """
    known = state.migrations.get(report.name)
    if known is None or known.until != report.until or known.standing is Standing.APPLIED:
        return Decision(Denied(f"it is not the run of migration {report.name} that is under way"))
    told = {"migration": report.name, "back": known.back}
    if report.went_well:
        events = [Event("migration_ended", now, data=told)]
    elif known.back:
        events = [Event("migration_in_doubt", now, data={**told, "why": f"it failed: {report.why}"})]
    else:
        events = [Event("migration_failed", now, data={**told, "why": report.why})]
        if state.status is not Status.TURNING_BACK:
            events.append(_migration_lost(plan, state, f"migration {report.name} failed: {report.why}", now))
    decision = _decide(plan, state, events, now, asker)
    return replace(decision, answer=Recorded(any(event.kind == "phase_closed" for event in decision.events)))


def _migration_lost(plan: Plan, state: RolloutState, reason: str, now: float) -> Event:
    """Where the rollout would go on in spite of failures it holds: what comes after the migration relies on it."""
    if plan.phases[state.phase].on_failure is OnFailure.TURN_BACK:
        return _turned_or_held(plan, state, reason, now)
    return Event("held", now, data={"reason": f"{reason}; to run it again advance", "lasting": False})


def settle_migration(plan: Plan, state: RolloutState, name: str, done: bool, why: str, now: float) -> Decision:
    """A person says of a migration that is in doubt that it took effect (``done``), or has to be run again."""
    expired = tuple(expire(state, now))
    state = _after(state, expired)
    known = state.migrations.get(name)
    if known is None or known.standing is not Standing.IN_DOUBT:
        return Decision(Denied(f"migration {name} is not in doubt: {_told(name, known)}"), expired)
    told = {"migration": name, "back": known.back, "why": why}
    if done:
        decision = _decide(plan, state, [Event("migration_ended", now, data=told)], now, NOBODY)
        return replace(decision, events=(*expired, *decision.events))
    if known.back and state.status is not Status.TURNING_BACK and not migrations.plans_back(plan):
        return Decision(
            Denied(f"this rollout goes forward, the reversal of migration {name} is in doubt: reverse it, say done"),
            expired,
        )
    return Decision(Recorded(), (*expired, Event("migration_to_run_again", now, data=told)))


def _told(name: str, known: Applied | None) -> str:
    return f"it is {known.standing}" if known else "it has not run, or was reversed"


def _in_doubt(name: str, known: Applied, now: float, why: str) -> Event:
    data = {"migration": name, "back": known.back, "again": known.again, "why": why}
    return Event("migration_in_doubt", now, data=data)


def may_go_back(state: RolloutState, host: HostRecord) -> bool:
    """Whether a rollout that turns back takes ``host`` back, or may yet do so when it has reported."""
    under_way = host.status is HostStatus.ADMITTED and state.scope is not Scope.NONE
    return goes_back(state, host) or (under_way and state.traffic is Traffic.OLD)


def goes_back(state: RolloutState, host: HostRecord) -> bool:
    """Whether a rollout that turns back takes ``host`` back: what failed always, the others by its scope."""
    if state.scope is Scope.NONE or state.traffic is not Traffic.OLD:
        return False
    if host.name in state.down or host.status in (HostStatus.FAILED, HostStatus.LOST):
        return True
    if host.status is not HostStatus.SUCCEEDED:
        return False
    return state.scope is Scope.ALL or (state.scope is Scope.PHASE and host.phase == state.phase)


def report(
    plan: Plan, state: RolloutState, host: HostRecord, outcome: HostStatus, now: float, why: str = ""
) -> Decision:
    """Take what became of ``host``. A report that comes after the lease ran out still tells the truth.

    A host that the rollout has touched is not merely unreachable or unstaged: it is lost, or has failed.
    """
    if host.status in _GOING_FORWARD or host.name in state.down:
        outcome = _OF_A_TOUCHED_HOST.get(outcome, outcome)
    elif plan.defers and outcome is HostStatus.UNREACHABLE:
        outcome = HostStatus.DEFERRED
    if host.status is outcome:
        return Decision(Recorded(gate_due=state.gate is not None and state.gate.holder == host.name))
    if host.status not in _REPORTABLE.get(outcome, ()):
        return Decision(Denied(f"{host.name} is {host.status}: it cannot have {outcome}"))
    others = [event for event in expire(state, now) if event.host != host.name]
    decision = _decide(plan, state, [*others, _move(host, outcome, now, why)], now, host.name)
    gate_due = any(event.kind == "phase_closed" for event in decision.events)
    return Decision(Recorded(gate_due), decision.events)


_OF_A_TOUCHED_HOST = {HostStatus.UNREACHABLE: HostStatus.LOST, HostStatus.UNSTAGED: HostStatus.FAILED}
_GOING_FORWARD = frozenset({HostStatus.ADMITTED, HostStatus.LOST})
_NOT_BEGUN = frozenset(
    {HostStatus.PENDING, HostStatus.CURRENT, HostStatus.UNREACHABLE, HostStatus.DEFERRED, HostStatus.UNSTAGED}
)
_BEGUN = frozenset(HostStatus) - _NOT_BEGUN
_GONE_FORWARD = frozenset({HostStatus.SUCCEEDED, HostStatus.REVERTED, HostStatus.FAILED, *_GOING_FORWARD})
_REPORTABLE = {  # outcome: what the host may have been before
    HostStatus.SUCCEEDED: _GOING_FORWARD,
    HostStatus.REVERTED: _GONE_FORWARD,
    HostStatus.FAILED: frozenset({HostStatus.PENDING, *_GONE_FORWARD}),
    HostStatus.LOST: frozenset({HostStatus.PENDING, *_GONE_FORWARD}),
    HostStatus.UNREACHABLE: _NOT_BEGUN,
    HostStatus.DEFERRED: _NOT_BEGUN,
    HostStatus.UNSTAGED: _NOT_BEGUN,
    HostStatus.RETURNED: frozenset({HostStatus.RETURNING, HostStatus.STUCK}),
    HostStatus.STUCK: frozenset({HostStatus.RETURNING, *ON_THE_NEW_RELEASE}),
}


def judge(plan: Plan, state: RolloutState, verdict: Verdict, now: float, why: str = "") -> Decision:
    """Take the verdict of the open gate: pass opens the next phase, fail turns back, anything else asks a person.

    With ``on_failure: hold`` a person is asked about a failure too.
    """
    if state.gate is None:
        return Decision(Denied(f"no gate is open: the rollout is {state.status}"))
    name, barred = plan.phases[state.phase].name, migrations.bars_turning_back(plan, state)
    if verdict is Verdict.PASS and now < state.gate.bake_until:
        return Decision(Wait(f"phase {name} bakes", state.gate.bake_until))
    if verdict is Verdict.PASS:
        event = _passed(state.phase, why, now)
    elif verdict is Verdict.FAIL and plan.phases[state.phase].on_failure is not OnFailure.HOLD and not barred:
        event = _turned(plan, f"the gate of phase {name} failed: {why}", now)
    else:
        because = f"; {barred}" if barred else ""
        event = Event("gate_held", now, data={"reason": f"the gate of phase {name} is {verdict}: {why}{because}"})
    return _decide(plan, state, [event], now, state.gate.holder)


def pause(state: RolloutState, why: str, now: float) -> Decision:
    """Admit no further host, because somebody wants that. The way back does not pause."""
    if state.status.ended or state.status is Status.TURNING_BACK:
        return Decision(Denied(f"the rollout is {state.status}: only the way forward can be paused"))
    return Decision(Recorded(), (Event("paused", now, data={"reason": why}),))


def unpause(state: RolloutState, now: float) -> Decision:
    """Go on after a pause."""
    if not state.paused:
        return Decision(Denied("the rollout is not paused"))
    return Decision(Recorded(), (Event("unpaused", now),))


def approve(plan: Plan, state: RolloutState, why: str, now: float) -> Decision:
    """Say yes to what a person is awaited for: a gate that could not tell, failures beyond the budget of a rollout
    that holds then, or the approval of the open phase.
    """
    if state.gate and state.gate.held:
        return _decide(plan, state, [_passed(state.phase, why, now)], now, NOBODY)
    if state.lasting:
        return Decision(Denied(f"{state.held}. Mend the hosts and deploy again, or abort"))
    if state.held:
        return _decide(plan, state, [Event("let_go_on", now, data={"why": why})], now, NOBODY)
    if state.status is Status.ROLLING and _awaits_approval(plan, state):
        return Decision(Recorded(), (Event("approved", now, data={"phase": state.phase, "why": why}),))
    return Decision(Denied(f"nothing waits for an approval: {_standing(plan, state)}"))


def turn_back(plan: Plan, state: RolloutState, reason: str, now: float, stop: bool = False) -> Decision:
    """Turn the rollout round because somebody wants it; ``stop``: leave it where it is instead."""
    if state.status.ended or state.status is Status.TURNING_BACK:
        return Decision(Denied(f"the rollout is {state.status} already"))
    barred = migrations.bars_turning_back(plan, state) if migrations.plans_back(plan) else ""
    if barred and not stop:
        return Decision(Denied(f"{barred}, so that hosts cannot go to the newer release again; it may be stopped"))
    return Decision(Recorded(), (_turned(plan, reason, now, Scope.NONE if stop else None),))


def close(plan: Plan, state: RolloutState, now: float) -> Decision:
    """The verdict over the rollout, if it has come to an end."""
    turned_before = state.status is Status.TURNING_BACK
    expired = _decide(plan, state, expire(state, now), now, NOBODY).events
    state = _after(state, expired)
    left = state.count({*ON_THE_NEW_RELEASE, HostStatus.STUCK}) + len(state.down) + (state.traffic is not Traffic.OLD)
    if state.leases:
        return Decision(Wait(f"{_names(state.leases)} have not reported yet", _next_lease(state)), expired)
    switching = _await_switching(state, now)
    if switching:
        return Decision(switching, expired)
    migrating = _unmigrated(plan, state)
    if migrating:
        return Decision(migrating, expired)
    if state.status is Status.ROLLED:
        too_many = _over_budget(plan, state) or _unreversed(plan, state)
        state = replace(state, reason=too_many)
        verdict = Status.FAILED if too_many else Status.SUCCEEDED
    elif state.status is not Status.TURNING_BACK or (left and not turned_before):
        return Decision(Denied(_standing(plan, state)), expired)
    else:
        verdict = Status.FAILED if left else Status.REVERTED
    return Decision(Recorded(), (*expired, ended(verdict, state.reason + _staying(plan, state), now)))


def _unmigrated(plan: Plan, state: RolloutState) -> Wait | Denied | None:
    """Why the rollout cannot end for a migration; None where it can."""
    under_way = _await_migration(state)
    if under_way:
        return under_way
    if state.status is Status.ROLLED and state.held:
        return Denied(f"held: {state.held}")
    missing = migrations.missing(plan, state)
    return Denied(missing) if missing and state.status is not Status.ROLLING else None


def _unreversed(plan: Plan, state: RolloutState) -> str:
    """Why a rollback whose hosts are through did not reverse its migrations; empty where it did."""
    left = [one.name for one in plan.migrations if one.back and one.name in state.migrations]
    if not left:
        return ""
    return f"migration {', '.join(left)} is not reversed, since some hosts did not go back: mend them, roll back again"


def _staying(plan: Plan, state: RolloutState) -> str:
    """What a rollout that turned back says of the migrations that it ran and left."""
    stays = migrations.of_turning_back(plan, state).stays if state.status is Status.TURNING_BACK else ()
    return f"; migration {', '.join(stays)} stays" if stays else ""


def _standing(plan: Plan, state: RolloutState) -> str:
    """Where the rollout stands, for people."""
    if state.status.ended or (state.status is Status.ROLLED and not state.held):
        return f"the rollout has {state.status}"
    if state.status is Status.TURNING_BACK:
        return f"the rollout turns back: {state.reason}"
    phase = plan.phases[state.phase]
    if state.paused:
        return f"paused: {state.paused}"
    if state.held:
        return f"held: {state.held}"
    if state.gate:
        return state.gate.held or f"the gate of phase {phase.name} has not been answered"
    if _awaits_approval(plan, state):
        return f"phase {phase.name} waits for an approval"
    missing = migrations.missing(plan, state)
    if missing:
        return missing
    if plan.switch and _awaits_switch(plan, state):
        return f"the load balancers have not been switched to {plan.switch.coming} yet"
    return f"phase {phase.name} has {_unfinished(state, state.phase)} of {phase.hosts} hosts to go"


def ended(verdict: Status, reason: str, now: float) -> Event:
    """The last event of a rollout."""
    return Event("closed", now, data={"verdict": verdict, "reason": reason})


def expire(state: RolloutState, now: float) -> list[Event]:
    """The hosts, and the migration, whose leases ran out: nobody knows what they are doing."""
    silent = [
        _in_doubt(name, one, now, f"{one.by}, which ran it, did not report in time")
        for name, one in migrations.running(state)
        if one.until <= now
    ]
    return silent + [
        _move(
            HostRecord(name, lease.phase, lease.zone, HostStatus.RETURNING if lease.back else HostStatus.ADMITTED),
            HostStatus.STUCK if lease.back else HostStatus.LOST,
            now,
            "its lease ran out before it reported",
        )
        for name, lease in state.leases.items()
        if lease.until <= now
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
    if state.status not in (Status.ROLLING, Status.GATING, Status.ROLLED) or state.held:
        return None
    too_many = _over_budget(plan, state)
    on_failure = plan.phases[min(state.phase, len(plan.phases) - 1)].on_failure
    if too_many and on_failure is not OnFailure.CONTINUE:
        return _failed(plan, state, too_many, now)
    if state.status is not Status.ROLLING:
        return None
    phase = plan.phases[state.phase]
    if sum(_unfinished(state, index) for index in range(state.phase + 1)):
        lost = _window_lost(phase, state) or _service_lost(plan, state)
        why = lost or _stalled(plan, state, now)
        return _failed(plan, state, why, now, lasting=bool(lost)) if why else None
    if _awaits_switch(plan, state):
        return _closed_phase(plan, phase, now, asker) if state.traffic is Traffic.NEW else None
    if not state.count(READY, state.phase):
        return _turned_or_held(plan, state, f"no host of phase {phase.name} succeeded", now, lasting=True)
    if migrations.due(plan, state):
        return None
    if not state.count({HostStatus.SUCCEEDED}, state.phase):
        return _passed(state.phase, "nothing had to change", now)
    if not phase.bake and not phase.hooked:
        return _passed(state.phase, "every host passed its gate, and no bake time is set", now)
    return _closed_phase(plan, phase, now, asker)


def _awaits_switch(plan: Plan, state: RolloutState) -> bool:
    """Whether the open phase is the one that begins with the switch."""
    return plan.switch is not None and state.phase == len(plan.phases) - 1


def _closed_phase(plan: Plan, phase: PlannedPhase, now: float, asker: str) -> Event:
    until = now + phase.bake
    patience = max(GATE_LEASE, plan.lease)
    return Event("phase_closed", now, data={"holder": asker, "bake_until": until, "until": until + patience})


def _over_budget(plan: Plan, state: RolloutState) -> str:
    """Which limit of the failure budget is exceeded; empty if none is."""
    failures = state.count(FAILURES) - state.forgiven
    if failures > plan.failure_budget:
        return f"{failures} failed, more than the failure budget of {plan.failure_budget}"
    if plan.consecutive_failures is not None and state.streak > plan.consecutive_failures:
        return f"{state.streak} failed one after the other, more than the {plan.consecutive_failures} that may"
    if plan.zone_failures is not None:
        for zone, failed in state.failed_in.items():
            if failed > plan.zone_failures:
                return f"{failed} of zone {zone} failed, more than the failure budget of {plan.zone_failures} of a zone"
    return ""


def _failed(plan: Plan, state: RolloutState, reason: str, now: float, lasting: bool = False) -> Event:
    """Turn back, or hold where the open phase wants that; ``lasting``: nobody's word lets it go on."""
    if plan.phases[state.phase].on_failure is OnFailure.HOLD and state.status is not Status.ROLLED:
        return Event("held", now, data={"reason": reason, "lasting": lasting})
    return _turned_or_held(plan, state, reason, now, lasting)


def _turned_or_held(plan: Plan, state: RolloutState, reason: str, now: float, lasting: bool = False) -> Event:
    """Turn back, unless a migration has run after which a person has to want that (playbook abort)."""
    barred = migrations.bars_turning_back(plan, state)
    if not barred:
        return _turned(plan, reason, now)
    return Event("held", now, data={"reason": f"{reason}; {barred}", "lasting": lasting})


def _window_lost(phase: PlannedPhase, state: RolloutState) -> str:
    """Hosts that are out for good and fill the window: waiting would never end."""
    if len(state.out) < phase.window or state.leases or state.down:
        return ""
    return f"{_names(state.out)} fill the window of {phase.window}: no further host may go"


def _service_lost(plan: Plan, state: RolloutState) -> str:
    """Too few hosts serve, and nothing under way will change that. Hosts that do not serve may still go, and help."""
    if state.leases or state.down or not _too_few(plan, state) or state.phase in state.absent.values():
        return ""
    serving = _serving(plan, state)
    return f"only {serving} hosts serve, and {plan.min_available} always have to: no further host may go"


def _stalled(plan: Plan, state: RolloutState, now: float) -> str:
    """No host has succeeded for too long, though nobody had to be waited for."""
    if not plan.progress_deadline or state.paused or _awaits_approval(plan, state) or migrations.due(plan, state):
        return ""
    silence = now - state.progress_at
    if silence <= plan.progress_deadline:
        return ""
    return f"no host has succeeded for {silence:.0f} s, the progress deadline is {plan.progress_deadline:g} s"


def _zone_lost(plan: Plan, state: RolloutState, host: HostRecord) -> str:
    """Why the host's zone will never have room for it again; empty if it may have."""
    if state.status is not Status.ROLLING or host.status is not HostStatus.PENDING or host.phase > state.phase:
        return ""
    if state.held or host.name in state.down:
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


def _awaits_approval(plan: Plan, state: RolloutState) -> bool:
    return plan.phases[state.phase].approval and state.phase not in state.approved


def _names(hosts: Iterable[str]) -> str:
    names = sorted(hosts)
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} hosts"


def _next_lease(state: RolloutState) -> float | None:
    return min((lease.until for lease in state.leases.values()), default=None)


def _move(
    host: HostRecord, now_is: HostStatus, now: float, why: str = "", until: float | None = None, down: bool = False
) -> Event:
    data: dict[str, Any] = {"was": host.status, "now": now_is, "phase": host.phase, "zone": host.zone}
    extras = {"until": until, "why": why, "down": down}
    return Event("moved", now, host.name, {**data, **{key: value for key, value in extras.items() if value}})


def _passed(phase: int, why: str, now: float) -> Event:
    return Event("phase_passed", now, data={"phase": phase, "why": why})


def _turned(plan: Plan, reason: str, now: float, scope: Scope | None = None) -> Event:
    return Event("turned_back", now, data={"reason": reason, "scope": scope or plan.scope})
