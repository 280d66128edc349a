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
    UNSTAGED = "unstaged"  # the release could not be staged; untouched
    RETURNING = "returning"
    RETURNED = "returned"
    STUCK = "stuck"  # could not be brought back


IN_FLIGHT = frozenset({HostStatus.ADMITTED, HostStatus.RETURNING})
FAILURES = frozenset(
    {HostStatus.REVERTED, HostStatus.FAILED, HostStatus.LOST, HostStatus.UNREACHABLE, HostStatus.UNSTAGED}
)
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
class RolloutState:
    """Where a rollout stands.

    ``counts[phase]`` maps a host status to how many hosts of the phase have it. ``out`` maps the hosts that are
    out of service without a lease (failed, lost, stuck) to their zones, ``down`` those that a dead run left out of
    service and that have to go again. ``paused`` is why a person stopped the way forward.
    """

    status: Status = Status.ROLLING
    phase: int = 0
    counts: tuple[Mapping[HostStatus, int], ...] = ()
    leases: Mapping[str, Lease] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None
    approved: frozenset[int] = frozenset()
    paused: str = ""
    reason: str = ""

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
            status=Status(data["status"]),
            phase=data["phase"],
            counts=tuple({HostStatus(key): n for key, n in counts.items()} for counts in data["counts"]),
            leases={name: Lease(**lease) for name, lease in data["leases"].items()},
            out=data["out"],
            down=data["down"],
            gate=Gate(**data["gate"]) if data["gate"] else None,
            approved=frozenset(data["approved"]),
            paused=data["paused"],
            reason=data["reason"],
        )


def evolve(state: RolloutState, event: Event) -> RolloutState:
    """The state after ``event``. Raises KeyError for a kind of event that does not exist."""
    return _EVOLUTIONS[event.kind](state, event)


def replay(events: Iterable[Event]) -> RolloutState:
    """The state after all of ``events``, from the beginning."""
    state = RolloutState()
    for event in events:
        state = evolve(state, event)
    return state


def _opened(state: RolloutState, event: Event) -> RolloutState:
    counts = tuple({HostStatus(key): n for key, n in counts.items()} for counts in event.data["counts"])
    return RolloutState(counts=counts)


def _resumed(state: RolloutState, event: Event) -> RolloutState:
    """A new controller goes on; the phase that was open is open again, so that its gate is asked anew."""
    status = state.status if state.status is Status.TURNING_BACK else Status.ROLLING
    return replace(state, status=status, gate=None)


def _moved(state: RolloutState, event: Event) -> RolloutState:
    """A host went from one status to another; entering or leaving flight takes or ends its lease."""
    host, data = str(event.host), event.data
    was, now, phase = HostStatus(data["was"]), HostStatus(data["now"]), data["phase"]
    counts = dict(state.counts[phase])
    counts[was] -= 1
    counts[now] = counts.get(now, 0) + 1
    leases, out, down = (_without(host, hosts) for hosts in (state.leases, state.out, state.down))
    if now in IN_FLIGHT:
        leases[host] = Lease(data["until"], phase, data["zone"], back=now is HostStatus.RETURNING)
    elif now in OUT_OF_SERVICE:
        out[host] = data["zone"]
    elif data.get("down"):
        down[host] = data["zone"]
    counts_of_all = (*state.counts[:phase], counts, *state.counts[phase + 1 :])
    return replace(state, counts=counts_of_all, leases=leases, out=out, down=down)


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
    return replace(state, status=Status.ROLLING, phase=following, gate=None)


def _turned_back(state: RolloutState, event: Event) -> RolloutState:
    return replace(state, status=Status.TURNING_BACK, gate=None, paused="", reason=event.data["reason"])


def _closed(state: RolloutState, event: Event) -> RolloutState:
    return replace(
        state,
        status=Status(event.data["verdict"]),
        leases={},
        gate=None,
        paused="",
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
    "paused": lambda state, event: replace(state, paused=event.data["reason"]),
    "unpaused": lambda state, event: replace(state, paused=""),
    "approved": lambda state, event: replace(state, approved=state.approved | {event.data["phase"]}),
    "closed": _closed,
}
