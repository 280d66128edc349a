# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host goes in which phase, in which order, and how many may be out of service at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import RolloutSpec, SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus


class Health(StrEnum):
    """What was seen of a host before the plan, in the order in which hosts of a phase go."""

    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    HEALTHY = "healthy"


class Sighting(StrEnum):
    """What was seen of a host that a rollout wants on a release."""

    SETTLED = "settled"  # on that release, for good
    ELSEWHERE = "elsewhere"  # serves another release, for good
    BROKEN = "broken"  # not healthy, not confirmed, or not in service
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class HostFacts:
    """What was read from one host. ``target`` is the release it ought to run, ``active`` the one that it runs."""

    name: str
    target: str
    active: str | None = None
    zone: str = ""
    health: Health = Health.UNKNOWN
    confirmed: bool = True
    in_service: bool = True
    reachable: bool = True

    def settled_on(self, release: str | None) -> bool:
        """Whether it runs ``release`` for good: healthy, confirmed, and in service. None: whether it runs nothing."""
        return self.reachable and self.active == release and (release is None or self._serves)

    def sighting(self, release: str | None) -> Sighting:
        """What is seen of it, where ``release`` is wanted."""
        if not self.reachable:
            return Sighting.UNREACHABLE
        if self.settled_on(release):
            return Sighting.SETTLED
        return Sighting.ELSEWHERE if self.active is not None and self._serves else Sighting.BROKEN

    @property
    def _serves(self) -> bool:
        return self.health is Health.HEALTHY and self.confirmed and self.in_service


@dataclass(frozen=True)
class PlannedPhase:
    """A phase in numbers: ``window`` hosts at once, ``zone_window`` of one zone, ``bake`` in seconds.

    ``hooked``: something of the site's own belongs to its gate.
    """

    name: str
    hosts: int
    window: int
    zone_window: int | None = None
    bake: float = 0.0
    approval: bool = False
    hooked: bool = False


@dataclass(frozen=True)
class PlannedHost:
    """A host's place in the plan; ``position`` is its place in the order of the whole rollout."""

    name: str
    phase: int
    zone: str
    position: int
    from_release: str | None
    to_release: str
    status: HostStatus = HostStatus.PENDING


@dataclass(frozen=True)
class Plan:
    """What a rollout will do. ``lease`` is how long, in seconds, a host may be out before it counts as lost."""

    phases: tuple[PlannedPhase, ...]
    failure_budget: int
    turn_back_window: int
    lease: float
    hosts: tuple[PlannedHost, ...] = ()

    @property
    def pending(self) -> tuple[PlannedHost, ...]:
        """The hosts that have to move."""
        return tuple(host for host in self.hosts if host.status is HostStatus.PENDING)

    def rules(self) -> dict[str, Any]:
        """Everything but the hosts, as JSON types."""
        rules = asdict(self)
        del rules["hosts"]
        return rules

    @classmethod
    def from_rules(cls, rules: Mapping[str, Any]) -> Plan:
        """The inverse of ``rules``."""
        return cls(**{**rules, "phases": tuple(PlannedPhase(**phase) for phase in rules["phases"])})

    def digest(self) -> str:
        """SHA-256 over rules and moves: two plans with the same digest do the same to the same hosts.

        What the hosts run now is left out: it changes while the plan is carried out.
        """
        moves = sorted((host.name, host.phase, host.zone, host.to_release) for host in self.hosts)
        text = json.dumps([self.rules(), moves], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def make_plan(spec: RolloutSpec, hosts: Sequence[HostFacts]) -> Plan:
    """Put ``hosts`` (in the inventory's order) into the phases of ``spec``.

    A host's phase follows from the inventory's order alone, so that the canary is the same host each time;
    inside a phase unhealthy hosts go first, then unknown ones, then healthy ones, then those that are done already.
    A percentage is one of the fleet; a zone's window is one of the smallest zone.
    Raises SpecError for no hosts, a host named twice, or phases that do not cover the fleet.
    """
    names = [host.name for host in hosts]
    if not names:
        raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SpecError(f"rollout_target: named twice: {', '.join(twice)}: each host may stand in the plan once")

    smallest_zone = min(Counter(host.zone for host in hosts).values())
    phases: list[PlannedPhase] = []
    planned: list[PlannedHost] = []
    start = 0
    for phase in spec.phases:
        end = max(start, min(phase.size.up(len(hosts)), len(hosts)))
        if end == start:
            continue
        window = max(1, phase.max_unavailable.down(len(hosts)))
        per_zone = phase.max_unavailable_per_zone
        zone_window = None if per_zone is None else max(1, per_zone.down(smallest_zone))
        index = len(phases)
        phases.append(
            PlannedPhase(phase.name, end - start, window, zone_window, phase.bake, phase.approval, phase.hooked)
        )
        planned += [_place(host, index, start + n) for n, host in enumerate(sorted(hosts[start:end], key=_urgency))]
        start = end
    if start < len(hosts):
        last = spec.phases[-1]
        raise SpecError(
            f"rollout_phases: the last phase {last.name!r} reaches {start} of {len(hosts)} hosts: sizes are "
            "cumulative, so that it must reach '100%'"
        )
    return Plan(
        phases=tuple(phases),
        failure_budget=spec.failure_budget.down(len(hosts)),
        turn_back_window=max(1, spec.turn_back_max_unavailable.down(len(hosts))),
        lease=spec.lease,
        hosts=tuple(planned),
    )


def _urgency(host: HostFacts) -> tuple[bool, int]:
    return host.settled_on(host.target), list(Health).index(host.health)


def _place(host: HostFacts, phase: int, position: int) -> PlannedHost:
    status = HostStatus.PENDING
    if not host.reachable:
        status = HostStatus.UNREACHABLE
    elif host.settled_on(host.target):
        status = HostStatus.CURRENT
    return PlannedHost(host.name, phase, host.zone, position, host.active, host.target, status)
