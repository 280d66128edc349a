# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a rollout stands: a fold over its events.

The state holds counts and the hosts that are out right now, never the whole fleet: deciding costs the same
for 5 hosts and for 5,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import Scope


class Status(StrEnum):
    """Where a rollout is on its way."""

    ROLLING = "rolling"
    GATING = "gating"  # a phase has closed; it bakes, and its gate is asked
    ROLLED = "rolled"  # every phase has passed; only the closing is left
    TURNING_BACK = "turning_back"
    SUCCEEDED = "succeeded"
    REVERTED = "reverted"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (Status.SUCCEEDED, Status.REVERTED, Status.FAILED)


class HostStatus(StrEnum):
    """Where a host is on its way."""

    PENDING = "pending"
    CURRENT = "current"  # ran the release, in service, before the rollout began
    ADMITTED = "admitted"
    SUCCEEDED = "succeeded"
    REVERTED = "reverted"  # failed, and took itself back
    FAILED = "failed"  # failed, and is not known to serve
    LOST = "lost"  # went away after it was admitted
    UNREACHABLE = "unreachable"  # could not be reached before it was touched
    DEFERRED = "deferred"  # could not be reached before it was touched, and is brought up later
    UNSTAGED = "unstaged"  # the release could not be staged; untouched
    RETURNING = "returning"
    RETURNED = "returned"
    STUCK = "stuck"  # could not be brought back
    STANDBY = "standby"  # of the colour that the rollout leaves: it is switched away from, and not touched


class Traffic(StrEnum):
    """Which colour the load balancers send requests to, where a plan switches them."""

    OLD = "old"
    BETWEEN = "between"  # both, some of them, or nobody knows
    NEW = "new"


IN_FLIGHT = frozenset({HostStatus.ADMITTED, HostStatus.RETURNING})
READY = frozenset({HostStatus.SUCCEEDED, HostStatus.CURRENT})
FAILURES = frozenset(
    {HostStatus.REVERTED, HostStatus.FAILED, HostStatus.LOST, HostStatus.UNREACHABLE, HostStatus.UNSTAGED}
)
_SERVING = frozenset({HostStatus.CURRENT, HostStatus.SUCCEEDED, HostStatus.RETURNED, HostStatus.REVERTED})
OUT_OF_SERVICE = frozenset({HostStatus.FAILED, HostStatus.LOST, HostStatus.STUCK})
ON_THE_NEW_RELEASE = frozenset({HostStatus.SUCCEEDED, HostStatus.FAILED, HostStatus.LOST})


@dataclass(frozen=True)
class Event:
    """Something that happened or was decided. ``at``: epoch seconds; ``data``: JSON types only."""

    kind: str
    at: float
    host: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """A host that may be out of service until ``until`` (epoch seconds), on its way forward or back."""

    until: float
    phase: int
    zone: str
    back: bool = False


@dataclass(frozen=True)
class Gate:
    """The gate of a closed phase: in the hands of ``holder`` until ``until``; passes no earlier than ``bake_until``.

    ``held`` says why it neither passed nor failed, so that a person has to decide. Without a holder nobody asks it.
    """

    holder: str
    bake_until: float
    until: float
    held: str = ""


@dataclass(frozen=True)
class Switching:
    """Somebody switches the load balancers, ``back`` or forward, until ``until``; ``was`` is how they stood before."""

    until: float
    was: Traffic
    back: bool = False


class Standing(StrEnum):
    """Where a migration stands. One that is not recorded has not run, or was reversed."""

    RUNNING = "running"
    APPLIED = "applied"
    IN_DOUBT = "in_doubt"  # it was begun, and nobody knows how it ended


@dataclass(frozen=True)
class Applied:
    """What is known of a migration in an environment. ``back``: it is its reversal that runs, or is in doubt.

    ``nth`` counts what was begun in the environment, so that the newest is reversed first; ``release`` is the version
    that brought it, ``here``: this rollout ran it. The run that ``until`` (epoch seconds) belongs to is the only one
    whose report is taken. ``again``: what is in doubt may be run again without asking a person.
    """

    standing: Standing
    nth: int
    release: str = ""
    back: bool = False
    here: bool = True
    until: float = 0.0
    by: str = ""
    again: bool = False
    why: str = ""


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout stands.

    ``counts[phase]`` maps a host status to how many hosts of the phase have it. ``out`` maps the hosts that are
    out of service without a lease (failed, lost, stuck) to their zones, ``down`` those that a dead run left out of
    service and that have to go again, ``absent`` those that did not serve before the rollout and do not yet, with the
    phase in which they have yet to go (None: they will not).
    ``paused`` is why a person stopped the way forward, ``held`` why one has to decide how it goes on
    (``lasting``: it cannot).
    ``streak`` hosts have failed since the last one succeeded; ``failed_in`` counts failures by zone; ``forgiven``
    failures no longer count, since a person wanted to go on. ``progress_at`` (epoch seconds) is when the rollout last
    came forward, ``changed_at`` when anything last happened to it. ``scope`` says which hosts go back.
    ``traffic`` is where the load balancers stand that the plan switches, ``switching`` who is at it.
    ``migrations`` are those of the environment, by name, also of earlier rollouts; ``reversed_here`` were reversed in
    this one.
    """

    status: Status = Status.ROLLING
    phase: int = 0
    counts: tuple[Mapping[HostStatus, int], ...] = ()
    leases: Mapping[str, Lease] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, int | None] = field(default_factory=dict)
    gate: Gate | None = None
    approved: frozenset[int] = frozenset()
    paused: str = ""
    held: str = ""
    lasting: bool = False
    streak: int = 0
    failed_in: Mapping[str, int] = field(default_factory=dict)
    forgiven: int = 0
    progress_at: float = 0.0
    changed_at: float = 0.0
    scope: Scope = Scope.ALL
    reason: str = ""
    traffic: Traffic = Traffic.OLD
    switching: Switching | None = None
    migrations: Mapping[str, Applied] = field(default_factory=dict)
    reversed_here: tuple[str, ...] = ()

    @property
    def unavailable(self) -> frozenset[str]:
        """The hosts that do not serve, as far as is known."""
        return frozenset({*self.absent, *self.leases, *self.out, *self.down})

    def count(self, statuses: Iterable[HostStatus], phase: int | None = None) -> int:
        """How many hosts have one of ``statuses``, in one phase or in all."""
        phases = self.counts if phase is None else self.counts[phase : phase + 1]
        return sum(counts.get(status, 0) for counts in phases for status in statuses)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "approved": sorted(self.approved)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RolloutState:
        """The inverse of ``to_json``."""
        return cls(
            **{
                **data,
                "status": Status(data["status"]),
                "counts": tuple({HostStatus(key): n for key, n in counts.items()} for counts in data["counts"]),
                "leases": {name: Lease(**lease) for name, lease in data["leases"].items()},
                "gate": Gate(**data["gate"]) if data["gate"] else None,
                "approved": frozenset(data["approved"]),
                "scope": Scope(data.get("scope", Scope.ALL)),
                "traffic": Traffic(data.get("traffic", Traffic.OLD)),
                "switching": _switching(data.get("switching")),
                "migrations": applied_from_json(data.get("migrations", {})),
                "reversed_here": tuple(data.get("reversed_here", ())),
            }
        )


def _switching(data: Mapping[str, Any] | None) -> Switching | None:
    return Switching(**{**data, "was": Traffic(data["was"])}) if data else None


def applied_from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Applied]:
    """Migrations by name, as ``asdict`` made them JSON types."""
    return {name: Applied(**{**one, "standing": Standing(one["standing"])}) for name, one in data.items()}


def evolve(state: RolloutState, event: Event) -> RolloutState:
    """The state after ``event``. Raises KeyError for a kind of event that does not exist."""
    return replace(_EVOLUTIONS[event.kind](state, event), changed_at=event.at)


def replay(events: Iterable[Event]) -> RolloutState:
    """The state after all of ``events``, from the beginning."""
    state = RolloutState()
    for event in events:
        state = evolve(state, event)
    return state


def _opened(state: RolloutState, event: Event) -> RolloutState:
    counts = tuple({HostStatus(key): n for key, n in counts.items()} for counts in event.data["counts"])
    absent, failed_in = (event.data.get(key, {}) for key in ("absent", "failed_in"))
    traffic = Traffic(event.data.get("traffic", Traffic.OLD))
    opened = RolloutState(counts=counts, absent=absent, failed_in=failed_in, progress_at=event.at, traffic=traffic)
    return replace(opened, migrations=applied_from_json(event.data.get("migrations", {})))


def _resumed(state: RolloutState, event: Event) -> RolloutState:
    """A new controller goes on; the phase that was open is open again, so that its gate is asked anew."""
    status = state.status if state.status is Status.TURNING_BACK else Status.ROLLING
    fresh = replace(state, status=status, gate=None, held="", lasting=False, progress_at=event.at)
    return replace(fresh, switching=None, traffic=Traffic(event.data.get("traffic", state.traffic)))


def _moved(state: RolloutState, event: Event) -> RolloutState:
    """A host went from one status to another; entering or leaving flight takes or ends its lease."""
    host, data = str(event.host), event.data
    was, now, phase = HostStatus(data["was"]), HostStatus(data["now"]), data["phase"]
    counts = dict(state.counts[phase])
    counts[was] -= 1
    counts[now] = counts.get(now, 0) + 1
    absent = _without(host, state.absent)
    if host in state.absent and now not in _SERVING:
        absent[host] = phase if now is HostStatus.PENDING else None
    leases, out, down = (_without(host, hosts) for hosts in (state.leases, state.out, state.down))
    if now in IN_FLIGHT:
        leases[host] = Lease(data["until"], phase, data["zone"], back=now is HostStatus.RETURNING)
    elif now in OUT_OF_SERVICE:
        out[host] = data["zone"]
    elif data.get("down"):
        down[host] = data["zone"]
    counts_of_all = (*state.counts[:phase], counts, *state.counts[phase + 1 :])
    moved = replace(state, counts=counts_of_all, leases=leases, out=out, down=down, absent=absent)
    return _tallied(moved, was, now, data["zone"], event.at)


def _tallied(state: RolloutState, was: HostStatus, now: HostStatus, zone: str, at: float) -> RolloutState:
    """What the move of a host means for the failure budget and the progress."""
    if now is HostStatus.SUCCEEDED:
        state = replace(state, streak=0, progress_at=at)
    more = (now in FAILURES) - (was in FAILURES)
    if not more:
        return state
    in_zone = max(0, state.failed_in.get(zone, 0) + more)
    streak = max(0, state.streak + more)
    return replace(state, streak=streak, failed_in={**state.failed_in, zone: in_zone})


def _without(host: str, hosts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in hosts.items() if name != host}


def _phase_closed(state: RolloutState, event: Event) -> RolloutState:
    data = event.data
    gate = Gate(data["holder"], data["bake_until"], data["until"])
    return replace(state, status=Status.GATING, gate=gate)


def _gate_held(state: RolloutState, event: Event) -> RolloutState:
    """The gate could not tell: a person has to, for however long that takes."""
    return replace(state, gate=replace(state.gate, held=event.data["reason"])) if state.gate else state


def _phase_passed(state: RolloutState, event: Event) -> RolloutState:
    following = event.data["phase"] + 1
    if following == len(state.counts):
        return replace(state, status=Status.ROLLED, gate=None)
    return replace(state, status=Status.ROLLING, phase=following, gate=None, progress_at=event.at)


def _turned_back(state: RolloutState, event: Event) -> RolloutState:
    scope = Scope(event.data.get("scope", Scope.ALL))
    turned = replace(state, status=Status.TURNING_BACK, scope=scope, reason=event.data["reason"])
    return replace(turned, gate=None, paused="", held="", lasting=False)


def _switch_begun(state: RolloutState, event: Event) -> RolloutState:
    switching = Switching(event.data["until"], state.traffic, event.data["back"])
    return replace(state, traffic=Traffic.BETWEEN, switching=switching)


def _switched(state: RolloutState, event: Event) -> RolloutState:
    return replace(state, traffic=Traffic.OLD if event.data["back"] else Traffic.NEW, switching=None)


def _switch_failed(state: RolloutState, event: Event) -> RolloutState:
    """What has touched nothing leaves the load balancers as they were."""
    untouched = state.switching is not None and not event.data["touched"]
    traffic = state.switching.was if state.switching and untouched else Traffic.BETWEEN
    return replace(state, traffic=traffic, switching=None)


def _migration_started(state: RolloutState, event: Event) -> RolloutState:
    name, data = event.data["migration"], event.data
    before = state.migrations.get(name)
    nth = before.nth if before else 1 + max((one.nth for one in state.migrations.values()), default=0)
    kept = before if before and data["back"] else None
    running = Applied(
        Standing.RUNNING,
        nth,
        kept.release if kept else data["release"],
        data["back"],
        kept.here if kept else True,
        data["until"],
        data["by"],
        data["idempotent"],
    )
    return replace(state, migrations={**state.migrations, name: running})


def _migration_ended(state: RolloutState, event: Event) -> RolloutState:
    """It went well: it is applied, or no longer is."""
    name = event.data["migration"]
    if event.data["back"]:
        left = {other: one for other, one in state.migrations.items() if other != name}
        return replace(state, migrations=left, reversed_here=(*state.reversed_here, name), progress_at=event.at)
    applied = replace(state.migrations[name], standing=Standing.APPLIED, until=0.0, by="", again=False, why="")
    return replace(state, migrations={**state.migrations, name: applied}, progress_at=event.at)


def _migration_failed(state: RolloutState, event: Event) -> RolloutState:
    """A migration that says that it failed counts as not run."""
    name = event.data["migration"]
    return replace(state, migrations={other: one for other, one in state.migrations.items() if other != name})


def _migration_in_doubt(state: RolloutState, event: Event) -> RolloutState:
    name, data = event.data["migration"], event.data
    again = data.get("again", False)
    doubted = replace(state.migrations[name], standing=Standing.IN_DOUBT, again=again, why=data["why"])
    return replace(state, migrations={**state.migrations, name: doubted})


def _migration_to_run_again(state: RolloutState, event: Event) -> RolloutState:
    """A person says that what is in doubt has to be run again: it counts as not run, and a reversal as not begun."""
    name = event.data["migration"]
    left = {other: one for other, one in state.migrations.items() if other != name}
    if event.data["back"]:
        before = replace(state.migrations[name], standing=Standing.APPLIED, back=False, until=0.0, by="", why="")
        left = {**left, name: before}
    return replace(state, migrations=left, progress_at=event.at)


def _let_go_on(state: RolloutState, event: Event) -> RolloutState:
    """A person wants the rollout to go on in spite of its failures: those so far count no more."""
    failures = state.count(FAILURES)
    return replace(state, held="", forgiven=failures, streak=0, failed_in={}, progress_at=event.at)


def _closed(state: RolloutState, event: Event) -> RolloutState:
    return replace(
        state,
        status=Status(event.data["verdict"]),
        leases={},
        gate=None,
        switching=None,
        paused="",
        held="",
        lasting=False,
        reason=event.data.get("reason", state.reason),
    )


_EVOLUTIONS: dict[str, Callable[[RolloutState, Event], RolloutState]] = {
    "opened": _opened,
    "resumed": _resumed,
    "moved": _moved,
    "phase_closed": _phase_closed,
    "gate_held": _gate_held,
    "phase_passed": _phase_passed,
    "turned_back": _turned_back,
    "switch_begun": _switch_begun,
    "switched": _switched,
    "switch_failed": _switch_failed,
    "migration_started": _migration_started,
    "migration_ended": _migration_ended,
    "migration_failed": _migration_failed,
    "migration_in_doubt": _migration_in_doubt,
    "migration_to_run_again": _migration_to_run_again,
    "paused": lambda state, event: replace(state, paused=event.data["reason"]),
    "unpaused": lambda state, event: replace(state, paused="", progress_at=event.at),
    "approved": lambda state, event: replace(
        state, approved=state.approved | {event.data["phase"]}, progress_at=event.at
    ),
    "held": lambda state, event: replace(state, held=event.data["reason"], lasting=event.data["lasting"]),
    "let_go_on": _let_go_on,
    "unlocked": lambda state, event: state,
    "closed": _closed,
}
