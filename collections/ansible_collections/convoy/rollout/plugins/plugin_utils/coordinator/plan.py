# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which host goes in which phase, in which order, and how many may be out of service at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    MigrationSpec,
    OnFailure,
    OnIrreversible,
    PhaseSpec,
    Quantity,
    RolloutSpec,
    Scope,
    SpecError,
    Unreachable,
    ZoneOrder,
)
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
    """What was read from one host. ``target`` is the release it ought to run, ``active`` the one that it runs.

    ``drifted``: it is not as that release was deployed, so that it has to be deployed again.
    """

    name: str
    target: str
    active: str | None = None
    zone: str = ""
    health: Health = Health.UNKNOWN
    confirmed: bool = True
    in_service: bool = True
    reachable: bool = True
    drifted: bool = False

    def settled_on(self, release: str | None) -> bool:
        """Whether it runs ``release`` for good: healthy, confirmed, and in service. None: whether it runs nothing."""
        there = self.reachable and self.active == release and not self.drifted
        return there and (release is None or self.serves)

    def sighting(self, release: str | None) -> Sighting:
        """What is seen of it, where ``release`` is wanted."""
        if not self.reachable:
            return Sighting.UNREACHABLE
        if self.settled_on(release):
            return Sighting.SETTLED
        return Sighting.ELSEWHERE if self.serves else Sighting.BROKEN

    @property
    def serves(self) -> bool:
        """Whether it runs some release for good: healthy, confirmed, and in service."""
        if not self.reachable or self.active is None:
            return False
        return self.health is Health.HEALTHY and self.confirmed and self.in_service


@dataclass(frozen=True)
class PlannedPhase:
    """A phase in numbers: ``window`` hosts at once, ``zone_window`` of one zone, ``bake`` in seconds.

    ``hooked``: something of the site's own belongs to its gate. ``gates`` are the names of the metric gates that do.
    """

    name: str
    hosts: int
    window: int
    zone_window: int | None = None
    bake: float = 0.0
    approval: bool = False
    on_failure: OnFailure = OnFailure.TURN_BACK
    hooked: bool = False
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedHost:
    """A host's place in the plan; ``position`` is its place in the order of the whole rollout.

    ``serves``: whether it did before the rollout.
    """

    name: str
    phase: int
    zone: str
    position: int
    from_release: str | None
    to_release: str
    status: HostStatus = HostStatus.PENDING
    serves: bool = True


@dataclass(frozen=True)
class Switch:
    """Before the last phase the load balancers are switched at once, from one colour to another.

    ``serving`` are the hosts of the colour ``leaving`` that were in service: they are, when it is switched back.
    """

    coming: str
    leaving: str
    serving: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedMigration:
    """Something of the site that runs once for the whole rollout, before phase number ``phase`` may begin.

    With the number of all phases it runs when the last one has passed. ``early``: it does not wait for the approval of
    the phase, since it belongs to the one before. ``run_on`` is the host on which it runs, ``lease`` (seconds) how long
    it may. ``idempotent``: it may be run again where nobody knows how it ended. ``holds``: when it has run, the rollout
    does not turn back by itself. ``back``: the plan is to reverse it. ``release`` is the version that it runs for.
    """

    name: str
    phase: int
    run_on: str = "localhost"
    lease: float = 600.0
    reversible: bool = True
    idempotent: bool = False
    holds: bool = False
    early: bool = False
    back: bool = False
    release: str = ""


@dataclass(frozen=True)
class Plan:
    """What a rollout will do. ``lease`` is how long, in seconds, a host may be out before it counts as lost.

    Failures are limited in all, in a row and in a zone (None: without limit). At least ``min_available`` of ``size``
    hosts serve at any time. After ``progress_deadline`` seconds (0: never) without a host that succeeds the rollout
    counts as failed.
    """

    phases: tuple[PlannedPhase, ...]
    failure_budget: int
    turn_back_window: int
    lease: float
    hosts: tuple[PlannedHost, ...] = ()
    consecutive_failures: int | None = None
    zone_failures: int | None = None
    min_available: int = 0
    size: int = 0
    scope: Scope = Scope.ALL
    defers: bool = False
    progress_deadline: float = 0.0
    switch: Switch | None = None
    migrations: tuple[PlannedMigration, ...] = ()

    @property
    def pending(self) -> tuple[PlannedHost, ...]:
        """The hosts that have to move."""
        return tuple(host for host in self.hosts if host.status is HostStatus.PENDING)

    def rules(self) -> dict[str, Any]:
        """Everything but the hosts, as JSON types."""
        rules = asdict(self)
        del rules["hosts"]
        migrations = list(rules.pop("migrations"))
        if migrations:  # else the digest is that of a rollout opened by a version that knew of none: it can be resumed
            rules["migrations"] = migrations
        rules["phases"] = [{**phase, "gates": list(phase["gates"])} for phase in rules["phases"]]
        return rules

    @classmethod
    def from_rules(cls, rules: Mapping[str, Any]) -> Plan:
        """The inverse of ``rules``."""
        phases = [
            PlannedPhase(
                **{
                    **phase,
                    "on_failure": OnFailure(phase.get("on_failure", "turn_back")),
                    "gates": tuple(phase.get("gates", ())),
                }
            )
            for phase in rules["phases"]
        ]
        migrations = tuple(PlannedMigration(**one) for one in rules.get("migrations", ()))
        known = {
            **rules,
            "phases": tuple(phases),
            "scope": Scope(rules.get("scope", "all")),
            "migrations": migrations,
        }
        switch = rules.get("switch")
        return cls(**{**known, "switch": Switch(**{**switch, "serving": tuple(switch["serving"])}) if switch else None})

    def digest(self) -> str:
        """SHA-256 over rules and moves: two plans with the same digest do the same to the same hosts.

        What the hosts run now is left out: it changes while the plan is carried out.
        """
        moves = sorted((host.name, host.phase, host.zone, host.to_release) for host in self.hosts)
        text = json.dumps([self.rules(), moves], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def make_plan(spec: RolloutSpec, hosts: Sequence[HostFacts]) -> Plan:
    """Put ``hosts`` (in the inventory's order) into the phases of ``spec``.

    A host's phase follows from the inventory's order and the zones alone, so that the canary is the same host each
    time; inside a phase unhealthy hosts go first, then unknown ones, then healthy ones, then those that are done
    already. A percentage is one of the fleet; a zone's window or budget is one of the smallest zone.
    Raises SpecError for no hosts, a host named twice, phases that do not cover the fleet, or too many that must serve.
    """
    _refuse_repeated([host.name for host in hosts])
    smallest_zone = min(Counter(host.zone for host in hosts).values())
    ordered = _spread(hosts) if spec.zone_order is ZoneOrder.SPREAD else list(hosts)
    phases: list[PlannedPhase] = []
    planned: list[PlannedHost] = []
    bounds: dict[str, tuple[int, int]] = {}
    start = 0
    for phase in spec.phases:
        end = max(start, min(phase.size.up(len(hosts)), len(hosts)))
        window = max(1, phase.max_unavailable.down(len(hosts)))
        per_zone = phase.max_unavailable_per_zone
        zone_window = None if per_zone is None else max(1, per_zone.down(smallest_zone))
        parts = _parts(phase, ordered[start:end], spec.zone_order)
        for nth, (name, members) in enumerate(parts):
            asks = phase.approval and nth == 0
            planned += [
                _place(host, len(phases), len(planned) + n, spec.unreachable)
                for n, host in enumerate(sorted(members, key=_urgency))
            ]
            phases.append(
                PlannedPhase(
                    name,
                    len(members),
                    window,
                    zone_window,
                    phase.bake,
                    asks,
                    phase.on_failure,
                    phase.hooked,
                    phase.gates,
                )
            )
        bounds[phase.name] = (len(phases) - len(parts), len(phases))
        start = end
    if start < len(hosts):
        last = spec.phases[-1]
        raise SpecError(
            f"rollout_phases: the last phase {last.name!r} reaches {start} of {len(hosts)} hosts: sizes are "
            "cumulative, so that it must reach '100%'"
        )
    budget = spec.failure_budget
    return Plan(
        phases=tuple(phases),
        failure_budget=budget.hosts.down(len(hosts)),
        turn_back_window=max(1, spec.turn_back_max_unavailable.down(len(hosts))),
        lease=spec.lease,
        hosts=tuple(planned),
        consecutive_failures=budget.consecutive,
        zone_failures=None if budget.per_zone is None else budget.per_zone.down(smallest_zone),
        min_available=_must_serve(spec.min_available, len(hosts)),
        size=len(hosts),
        scope=spec.turn_back_scope,
        defers=spec.unreachable is Unreachable.DEFER,
        progress_deadline=spec.progress_deadline,
        migrations=tuple(_place_migration(one, bounds, len(phases)) for one in spec.migrations),
    )


def make_switch_plan(
    spec: RolloutSpec, coming: Sequence[HostFacts], leaving: Sequence[HostFacts], switch: Switch
) -> Plan:
    """Put the hosts of the colour ``coming`` into the first phase of ``spec``; the second one begins with the switch.

    A percentage is one of the colour that it is about. The hosts ``leaving`` stay as they are, on standby.
    """
    first, last = spec.phases
    plan = make_plan(replace(spec, phases=(first,), min_available=Quantity(0)), coming)
    standby = [
        PlannedHost(
            host.name,
            len(plan.phases),
            host.zone,
            len(coming) + nth,
            host.active,
            host.active or "",
            HostStatus.STANDBY,
            host.serves,
        )
        for nth, host in enumerate(leaving)
    ]
    _refuse_repeated([host.name for host in (*plan.hosts, *standby)])
    switched = PlannedPhase(
        last.name, len(leaving), len(coming), None, last.bake, last.approval, last.on_failure, last.hooked
    )
    must_serve = spec.min_available.up(len(leaving))
    if must_serve > min(len(coming), len(leaving)):
        raise SpecError(
            f"rollout_min_available: {spec.min_available} is more than the {min(len(coming), len(leaving))} hosts of "
            "a colour: the other one could not take over"
        )
    return replace(
        plan,
        phases=(*plan.phases, switched),
        hosts=(*plan.hosts, *standby),
        min_available=must_serve,
        size=len(coming) + len(leaving),
        switch=switch,
    )


def _refuse_repeated(names: Sequence[str]) -> None:
    if not names:
        raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise SpecError(f"rollout_target: named twice: {', '.join(twice)}: each host may stand in the plan once")


def _must_serve(asked: Quantity, hosts: int) -> int:
    number = asked.up(hosts)
    if number and number >= hosts:
        raise SpecError(
            f"rollout_min_available: {asked} of {hosts} hosts is all of them: none could be taken out of service; "
            f"write at most {hosts - 1}"
        )
    return number


def _spread(hosts: Sequence[HostFacts]) -> list[HostFacts]:
    """The first host of each zone, then the second of each, and so on."""
    turn: Counter[str] = Counter()
    keyed = []
    for host in hosts:
        keyed.append((turn[host.zone], host))
        turn[host.zone] += 1
    return [host for _turn, host in sorted(keyed, key=lambda pair: pair[0])]


def _parts(phase: PhaseSpec, hosts: Sequence[HostFacts], order: ZoneOrder) -> list[tuple[str, list[HostFacts]]]:
    """The phases that a phase of the specification becomes, each with its hosts; none without hosts."""
    if order is not ZoneOrder.ONE_AT_A_TIME:
        return [(phase.name, list(hosts))] if hosts else []
    zones = list(dict.fromkeys(host.zone for host in hosts))
    if len(zones) == 1:
        return [(phase.name, list(hosts))]
    return [(f"{phase.name} in {zone or 'no zone'}", [host for host in hosts if host.zone == zone]) for zone in zones]


def _place_migration(asked: MigrationSpec, bounds: Mapping[str, tuple[int, int]], phases: int) -> PlannedMigration:
    """``bounds`` has where each phase of the specification begins and ends, as numbers of phases of the plan."""
    phase = bounds[asked.phase][asked.after]
    choice = asked.on_irreversible or (OnIrreversible.HOLD if phase == phases else OnIrreversible.GO_BACK)
    return PlannedMigration(
        name=asked.name,
        phase=phase,
        run_on=asked.run_on,
        lease=asked.timeout,
        reversible=asked.reversible,
        idempotent=asked.idempotent,
        holds=not asked.reversible and choice is OnIrreversible.HOLD,
        early=asked.after,
    )


def _urgency(host: HostFacts) -> tuple[bool, int]:
    return host.settled_on(host.target), list(Health).index(host.health)


def _place(host: HostFacts, phase: int, position: int, unreachable: Unreachable) -> PlannedHost:
    status = HostStatus.PENDING
    if not host.reachable:
        status = HostStatus.DEFERRED if unreachable is Unreachable.DEFER else HostStatus.UNREACHABLE
    elif host.settled_on(host.target):
        status = HostStatus.CURRENT
    return PlannedHost(host.name, phase, host.zone, position, host.active, host.target, status, host.serves)
