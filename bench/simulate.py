# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large fleet, rolled by the coordinator itself with a simulated clock: no database, no hosts.

Many controllers with several forks each take their slices of the fleet forward. How long a host is out of service is
drawn from a log-normal distribution; some hosts go back, a few stay failed. *makespan* compares how long the last and
largest phase took with what no schedule can beat: the work divided by the window, or the longest host.
"""

from __future__ import annotations

import heapq
import itertools
import json
import multiprocessing
import random
import resource
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Decision,
    HostRecord,
    Recorded,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, RolloutState, evolve

SEED = 20260105


@dataclass(frozen=True)
class Fleet:
    """What is simulated. ``window`` hosts at once over all controllers, each of which has ``forks``."""

    hosts: int
    controllers: int
    forks: int
    zones: int
    window: int
    reverted: float = 0.005
    failed: float = 0.0001


FLEETS = (Fleet(1_000, 5, 12, 5, 50), Fleet(10_000, 10, 12, 20, 100), Fleet(100_000, 50, 12, 20, 500))


@dataclass
class Simulation:
    """A rollout under way. ``slices``: the hosts that each controller has yet to begin, in order."""

    fleet: Fleet
    dice: random.Random
    now: float = 0.0
    state: RolloutState = field(default_factory=RolloutState)
    rows: dict[str, HostRecord] = field(default_factory=dict)
    slices: list[deque[str]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    position: dict[str, int] = field(default_factory=dict)
    first_to_go: list[int] = field(default_factory=list)
    waiting: list[tuple[int, int, str]] = field(default_factory=list)
    agenda: list[tuple[float, int, int, str, HostStatus | Verdict | None]] = field(default_factory=list)
    asks_at: float = 0.0
    numbers: Iterable[int] = field(default_factory=itertools.count)
    work: list[float] = field(default_factory=list)
    asked: int = 0
    admitted: int = 0
    last_phase_began: float = 0.0

    def open(self) -> None:
        """Plan, and deal the hosts out to the controllers as AWX slices an inventory."""
        names = [f"app{index:06}" for index in range(self.fleet.hosts)]
        zones = [f"zone{self.dice.randrange(self.fleet.zones)}" for _name in names]
        hosts = [HostFacts(n, "new", "old", zone, Health.HEALTHY) for n, zone in zip(names, zones, strict=True)]
        sizes = (("canary", "1%", 60), ("tenth", "10%", 60), ("fleet", "100%", 0))
        phases = parse_phases([{"name": n, "size": s, "bake": bake} for n, s, bake in sizes], self.fleet.window)
        spec = RolloutSpec(phases, FailureBudget(Quantity(2, percent=True)), Quantity(50, percent=True), lease=3600.0)
        self.plan = make_plan(spec, hosts)
        self.rows = {host.name: HostRecord(host.name, host.phase, host.zone, host.status) for host in self.plan.hosts}
        self.record(decide.opening(self.plan, self.now, "bench", {}))
        self.plan = replace(self.plan, hosts=())
        order = list(self.rows)
        self.position = {name: position for position, name in enumerate(order)}
        self.order = order
        self.first_to_go = [
            min(self.position[row.name] for row in self.rows.values() if row.phase == phase)
            for phase in range(len(sizes))
        ]
        self.slices = [deque(order[index :: self.fleet.controllers]) for index in range(self.fleet.controllers)]

    def record(self, decision: Decision) -> Answer:
        """Do what the ledger does: bring state and rows up to date."""
        for event in decision.events:
            self.state = evolve(self.state, event)
            if event.kind == "moved":
                row = self.rows[str(event.host)]
                self.rows[row.name] = replace(row, status=HostStatus(event.data["now"]))
            elif event.kind == "phase_passed" and event.data["phase"] + 1 < len(self.plan.phases):
                self.last_phase_began = self.now
                self.work = []
        return decision.answer

    def run(self) -> None:
        """From the first question to the last report."""
        for controller, _fork in itertools.product(range(self.fleet.controllers), range(self.fleet.forks)):
            self.take_next(controller)
        self.let_go()
        while self.agenda:
            self.now, _number, controller, host, outcome = heapq.heappop(self.agenda)
            if isinstance(outcome, Verdict):
                self.record(decide.judge(self.plan, self.state, outcome, self.now))
            elif outcome is not None:
                self.report(controller, host, outcome)
            self.let_go()

    def take_next(self, controller: int) -> None:
        """A fork of the controller turns to its next host, and waits with it."""
        if self.slices[controller]:
            host = self.slices[controller].popleft()
            heapq.heappush(self.waiting, (self.position[host], controller, host))

    def let_go(self) -> None:
        """Let those that wait ask, in the plan's order: when one may not go, none after it may."""
        while self.waiting:
            position, controller, host = heapq.heappop(self.waiting)
            self.asked += 1
            answer = self.record(decide.admit(self.plan, self.state, self.in_turn(self.rows[host]), self.now))
            if isinstance(answer, Wait):
                heapq.heappush(self.waiting, (position, controller, host))
                self.ask_again(answer.until)
                return
            if not isinstance(answer, Admitted):
                raise TypeError(f"{host}: {answer}")
            self.send(controller, host)

    def in_turn(self, row: HostRecord) -> HostRecord:
        """As the ledger does: the hosts before it are counted as far as they keep it from going."""
        places = decide.places_for_others(self.plan, self.state, row)
        if not places:
            return row
        self.first_to_go[row.phase] = next(self.to_go(row.phase))
        ahead = sum(
            1 for position in itertools.islice(self.to_go(row.phase), places) if position < self.position[row.name]
        )
        return replace(row, ahead=ahead)

    def to_go(self, phase: int) -> Iterator[int]:
        """The positions of the phase's hosts that have yet to go, in order."""
        positions = range(self.first_to_go[phase], len(self.order))
        return (position for position in positions if self.rows[self.order[position]].status is HostStatus.PENDING)

    def ask_again(self, at: float | None) -> None:
        """Ask when a free place is no longer kept for the host whose turn it is."""
        if at is not None and self.now < at <= self.now + decide.TURN_GRACE and self.asks_at != at:
            self.asks_at = at
            self.plan_for(at, 0, "", None)

    def send(self, controller: int, host: str) -> None:
        """The host goes; decide what will become of it, and when."""
        self.admitted += 1
        seconds = self.dice.lognormvariate(4.0, 0.4)
        self.work.append(seconds)
        luck = self.dice.random()
        bad = HostStatus.FAILED if luck < self.fleet.failed else HostStatus.REVERTED
        outcome = bad if luck < self.fleet.failed + self.fleet.reverted else HostStatus.SUCCEEDED
        self.plan_for(self.now + seconds, controller, host, outcome)

    def plan_for(self, at: float, controller: int, host: str, outcome: HostStatus | Verdict | None) -> None:
        """Put something on the agenda: an outcome, the gate's verdict, or that somebody asks again."""
        heapq.heappush(self.agenda, (at, next(iter(self.numbers)), controller, host, outcome))

    def report(self, controller: int, host: str, outcome: HostStatus) -> None:
        """The host is back; its fork turns to the next one, after its gate where it has to ask one."""
        answer = self.record(decide.report(self.plan, self.state, self.rows[host], outcome, self.now))
        if isinstance(answer, Recorded) and answer.gate_due and self.state.gate:
            self.plan_for(self.state.gate.bake_until, controller, host, Verdict.PASS)
        self.take_next(controller)


def figures() -> list[dict[str, Any]]:
    """Simulate each fleet, in a process of its own: its memory is measured."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(simulate, FLEETS, chunksize=1)


def simulate(fleet: Fleet) -> dict[str, Any]:
    """Roll the fleet; what that took."""
    simulation = Simulation(fleet, random.Random(SEED))
    simulation.open()
    began = time.process_time()
    simulation.run()
    seconds = time.process_time() - began
    closed = decide.close(simulation.plan, simulation.state, simulation.now)
    verdict = closed.events[-1].data["verdict"] if closed.events else str(closed.answer)
    shortest = max(sum(simulation.work) / fleet.window, max(simulation.work))
    return {
        **asdict(fleet),
        "verdict": str(verdict),
        "cpu_seconds": round(seconds, 1),
        "admissions_per_second": round(simulation.admitted / seconds),
        "questions_per_second": round(simulation.asked / seconds),
        "makespan": round((simulation.now - simulation.last_phase_began) / shortest, 3),
        "state_kb": round(len(json.dumps(simulation.state.to_json())) / 1000, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
    }
