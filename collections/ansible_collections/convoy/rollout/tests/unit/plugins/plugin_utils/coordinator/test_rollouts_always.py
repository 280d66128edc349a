# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must always hold of a rollout, whatever hosts, gates, people, clocks and controllers do.

300 histories by default, and a third of that with migrations; CONVOY_HISTORIES in the environment names another number
(10,000 take about half an hour: give pytest -o timeout=0 too).
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Denied,
    Migrate,
    MigrationReport,
    Recorded,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Plan,
    PlannedHost,
    PlannedMigration,
    PlannedPhase,
    Switch,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, Scope
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Applied,
    HostStatus,
    RolloutState,
    Standing,
    Status,
)
from ansible_collections.convoy.rollout.tests.unit.plugins.plugin_utils.coordinator.fleet_model import (
    NEW,
    OLD,
    Fleet,
    Real,
)

USUAL = settings(
    max_examples=int(os.environ.get("CONVOY_HISTORIES", "300")),
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

LEASE = 100.0


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans as ``make_plan`` makes them: every phase has hosts, every window is at least one."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    total = sum(sizes)
    window = st.integers(1, max(1, total - 1))
    phases = [
        PlannedPhase(
            name=f"phase{index}",
            hosts=size,
            window=draw(window),
            zone_window=draw(st.none() | st.integers(1, 2)),
            bake=draw(st.sampled_from([0.0, 30.0])),
            approval=draw(st.sampled_from([False, False, True])),
            on_failure=draw(st.sampled_from([OnFailure.TURN_BACK, *OnFailure])),
            hooked=draw(st.sampled_from([False, False, True])),
        )
        for index, size in enumerate(sizes)
    ]
    phase_of = [index for index, size in enumerate(sizes) for _host in range(size)]
    defers = draw(st.booleans())
    away = HostStatus.DEFERRED if defers else HostStatus.UNREACHABLE
    untouched = [HostStatus.PENDING] * 10 + [HostStatus.CURRENT] * 2 + [away]
    statuses = draw(st.lists(st.sampled_from(untouched), min_size=total, max_size=total))
    hosts = [
        PlannedHost(
            name=f"host{position}",
            phase=phase,
            zone=draw(st.sampled_from("ab")),
            position=position,
            from_release=NEW if status is HostStatus.CURRENT else OLD,
            to_release=NEW,
            status=status,
            serves=status is not away,
        )
        for position, (phase, status) in enumerate(zip(phase_of, statuses, strict=True))
    ]
    budget = draw(st.sampled_from([0, 1, 2, 2, 3]))
    return Plan(
        tuple(phases),
        budget,
        draw(window),
        LEASE,
        tuple(hosts),
        consecutive_failures=draw(st.none() | st.integers(0, 2)),
        zone_failures=draw(st.none() | st.integers(0, 2)),
        min_available=draw(st.integers(0, max(0, total - 1))),
        size=total,
        scope=draw(st.sampled_from([Scope.ALL, *Scope])),
        defers=defers,
        progress_deadline=draw(st.sampled_from([0.0, 0.0, 5 * LEASE])),
    )


def real_at_the_start(status: HostStatus) -> Real:
    away = status in (HostStatus.UNREACHABLE, HostStatus.DEFERRED)
    return Real(NEW if status is HostStatus.CURRENT else OLD, reachable=not away)


def left(origin: str | None) -> list[Real]:
    """What a host may be whose worker died: before it began, when it was done, or in between."""
    out = Real(serves=False, taken=True)
    between = [replace(out, runs=runs, reachable=near) for runs in (origin, NEW) for near in (True, False)]
    return [Real(origin), Real(NEW), *between]


class RolloutMachine(RuleBasedStateMachine):
    """Everything that can happen to a rollout, in any order. ``workers``: the hosts at work, and whether it is back."""

    fleet: Fleet
    workers: dict[str, bool]
    checked: tuple[int, float]

    @initialize(plan=plans(), gone=st.integers(0, 9))
    def open(self, plan: Plan, gone: int) -> None:
        """The rollout opens, and some hosts go before anything interesting happens."""
        real = {host.name: real_at_the_start(host.status) for host in plan.hosts}
        self.fleet = Fleet.open(plan, 1000.0, real)
        self.workers = {}
        self.checked = (0, 0.0)
        self.goes_well(gone)

    def pick(self, data: st.DataObject, names: list[str]) -> str:
        return data.draw(st.sampled_from(sorted(names)), label="host")

    def under_way(self) -> bool:
        return not self.fleet.state.status.ended

    def working(self, back: bool) -> list[str]:
        return [name for name, way in self.workers.items() if way is back]

    # Hosts

    @rule(data=st.data())
    def asks(self, data: st.DataObject) -> None:
        name = self.pick(data, list(self.fleet.rows))
        before = self.fleet.state.status
        answer = self.fleet.ask(name)
        if isinstance(answer, Admitted):
            assert not before.ended
            self.workers[name] = self.fleet.state.status is Status.TURNING_BACK

    @rule(data=st.data())
    def all_that_may_ask(self, data: st.DataObject) -> None:
        back = self.fleet.state.status is Status.TURNING_BACK
        names = self.fleet.to_return() if back else self.fleet.to_go()
        for name in data.draw(st.permutations(names), label="in this order"):
            if isinstance(self.fleet.ask(name), Admitted):
                self.workers[name] = self.fleet.state.status is Status.TURNING_BACK

    @rule(hosts=st.integers(1, 9))
    def goes_well(self, hosts: int) -> None:
        """For a while everybody asks, succeeds, the gates pass, and people say yes."""
        self.somebody_approves()
        for name in self.fleet.to_go()[:hosts]:
            if isinstance(self.fleet.ask(name), Admitted):
                self.fleet.report(name, HostStatus.SUCCEEDED, Real(NEW))
            if self.fleet.holders and self.fleet.state.gate:
                self.fleet.now = max(self.fleet.now, self.fleet.state.gate.bake_until)
                self.fleet.judge(Verdict.PASS)

    @precondition(lambda self: self.working(back=False))
    @rule(data=st.data())
    def succeeds(self, data: st.DataObject) -> None:
        """In time, or long after its lease ran out."""
        name = self.pick(data, self.working(back=False))
        del self.workers[name]
        self.fleet.report(name, HostStatus.SUCCEEDED, Real(NEW))

    @precondition(lambda self: self.working(back=False))
    @rule(data=st.data(), outcome=st.sampled_from(["reverted", "failed", "lost", "unreachable"]))
    def fails(self, data: st.DataObject, outcome: str) -> None:
        name = self.pick(data, self.working(back=False))
        del self.workers[name]
        out = Real(NEW, serves=False, reachable=outcome == "failed", taken=True)
        self.fleet.report(name, HostStatus(outcome), Real(self.fleet.origin[name]) if outcome == "reverted" else out)

    @precondition(lambda self: self.working(back=True))
    @rule(data=st.data(), outcome=st.sampled_from(["returned", "returned", "stuck"]))
    def goes_back(self, data: st.DataObject, outcome: str) -> None:
        name = self.pick(data, self.working(back=True))
        del self.workers[name]
        out = Real(NEW, serves=False, taken=True)
        self.fleet.report(name, HostStatus(outcome), Real(self.fleet.origin[name]) if outcome == "returned" else out)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def vanishes(self, data: st.DataObject) -> None:
        name = self.pick(data, list(self.workers))
        del self.workers[name]
        self.fleet.real[name] = data.draw(st.sampled_from(left(self.fleet.origin[name])))

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), outcome=st.sampled_from(["unreachable", "unstaged", "", "", "", ""]))
    def cannot_begin(self, data: st.DataObject, outcome: str) -> None:
        waiting = self.fleet.to_go()
        if waiting and outcome:
            name = self.pick(data, waiting)
            reachable = outcome != "unreachable"
            self.fleet.report(name, HostStatus(outcome), replace(self.fleet.real[name], reachable=reachable))

    @rule(data=st.data(), outcome=st.sampled_from(list(HostStatus)))
    def says_nonsense(self, data: st.DataObject, outcome: HostStatus) -> None:
        """What contradicts the record is refused, and changes nothing."""
        name = self.pick(data, list(self.fleet.rows))
        row = self.fleet.rows[name]
        forward = {HostStatus.ADMITTED, HostStatus.LOST}
        back = {HostStatus.RETURNING, HostStatus.STUCK}
        nonsense = {
            HostStatus.PENDING: set(HostStatus),
            HostStatus.CURRENT: set(HostStatus),
            HostStatus.ADMITTED: set(HostStatus),
            HostStatus.RETURNING: set(HostStatus),
            HostStatus.SUCCEEDED: set(HostStatus) - forward,
            HostStatus.RETURNED: set(HostStatus) - back,
            HostStatus.FAILED: back,
            HostStatus.UNSTAGED: {*back, HostStatus.SUCCEEDED},
        }
        if row.status in nonsense.get(outcome, set()) - {outcome}:
            answer = self.fleet.report(name, outcome, self.fleet.real[name])
            assert isinstance(answer, Denied)

    # Gates

    @precondition(lambda self: self.fleet.holders)
    @rule(verdict=st.sampled_from([Verdict.PASS, Verdict.PASS, *Verdict]))
    def is_judged(self, verdict: Verdict) -> None:
        self.fleet.judge(verdict)

    @precondition(lambda self: self.fleet.holders)
    @rule()
    def holder_of_the_gate_dies(self) -> None:
        self.fleet.holders.clear()

    # People

    @precondition(lambda self: self.under_way())
    @rule(chance=st.integers(0, 5))
    def somebody_pauses(self, chance: int) -> None:
        if chance == 5:
            answer = self.fleet.people(decide.pause(self.fleet.state, "lunch", self.fleet.now))
            assert isinstance(answer, Denied) or self.fleet.state.paused

    @precondition(lambda self: self.fleet.state.paused)
    @rule()
    def somebody_goes_on(self) -> None:
        assert isinstance(self.fleet.people(decide.unpause(self.fleet.state, self.fleet.now)), Recorded)

    @rule()
    def somebody_approves(self) -> None:
        self.fleet.people(decide.approve(self.fleet.plan, self.fleet.state, "fine", self.fleet.now))

    @precondition(lambda self: self.under_way())
    @rule(chance=st.integers(0, 9), stop=st.booleans())
    def somebody_turns_it_back(self, chance: int, stop: bool) -> None:
        if chance == 9:
            self.fleet.people(decide.turn_back(self.fleet.plan, self.fleet.state, "abort", self.fleet.now, stop))
            assert self.fleet.state.status is Status.TURNING_BACK

    # Time, and controllers

    @rule(seconds=st.sampled_from([1.0, 29.0, 30.0, 99.0, LEASE, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds

    @precondition(lambda self: self.under_way())
    @rule(data=st.data())
    def controller_dies_and_another_resumes(self, data: st.DataObject) -> None:
        for name in self.workers:
            self.fleet.real[name] = data.draw(st.sampled_from(left(self.fleet.origin[name])), label=name)
        self.workers.clear()
        name = self.pick(data, list(self.fleet.rows))
        real = self.fleet.real[name]
        if not real.taken:
            by_itself = [real, real, replace(real, serves=False), replace(real, runs=self.fleet.origin[name])]
            self.fleet.real[name] = data.draw(st.sampled_from(by_itself), label="by itself")
        self.fleet.resume()

    @rule()
    def is_closed(self) -> None:
        live = [lease for lease in self.fleet.state.leases.values() if lease.until > self.fleet.now]
        answer = self.fleet.close()
        assert not (live and isinstance(answer, Recorded)), "it was closed while others were at work"

    # What must hold

    @invariant()
    def holds_and_can_always_end(self) -> None:
        if self.checked == (len(self.fleet.events), self.fleet.now):
            return
        self.checked = (len(self.fleet.events), self.fleet.now)
        self.fleet.check()
        same_run = self.fleet.copy()
        same_run.finish(forks=len(self.fleet.rows))
        next_run = self.fleet.copy()
        if self.under_way():
            next_run.resume()
        windows = [phase.window for phase in self.fleet.plan.phases]
        next_run.finish(forks=max(*windows, self.fleet.plan.turn_back_window))


@st.composite
def coloured_plans(draw: st.DrawFn) -> Plan:
    """Plans as ``make_switch_plan`` makes them: the phases of one colour, and one that begins with the switch."""
    plan = draw(plans())
    standby = draw(st.integers(1, 3))
    last = replace(
        plan.phases[-1], name="live", hosts=standby, bake=draw(st.sampled_from([0.0, 30.0])), zone_window=None
    )
    names = [f"standby{number}" for number in range(standby)]
    hosts = [
        PlannedHost(name, len(plan.phases), "a", plan.size + nth, OLD, OLD, HostStatus.STANDBY)
        for nth, name in enumerate(names)
    ]
    return replace(
        plan,
        phases=(*plan.phases, last),
        hosts=(*plan.hosts, *hosts),
        min_available=draw(st.integers(0, min(plan.size, standby))),
        size=plan.size + standby,
        switch=Switch("green", "blue", tuple(names)),
    )


class ColouredMachine(RolloutMachine):
    """The same with two colours, and load balancers that are switched. ``switcher``: until when somebody is at it."""

    switcher: float

    @initialize(plan=coloured_plans(), gone=st.integers(0, 9), begun=st.sampled_from(["", "begun", "done", "done"]))
    def open(self, plan: Plan, gone: int, begun: str = "") -> None:
        """Most are seen from where the switch begins, or is done."""
        self.switcher = 0.0
        super().open(plan, 9 if begun else gone)
        if begun == "done":
            self.switch_goes_well()
        elif begun:
            self.somebody_approves()
            self.somebody_would_switch()

    @rule()
    def somebody_would_switch(self) -> None:
        answer = self.fleet.ask_switch()
        if isinstance(answer, Admitted):
            self.switcher = answer.until

    @rule()
    def switch_goes_well(self) -> None:
        self.somebody_approves()
        answer = self.fleet.ask_switch()
        if isinstance(answer, Admitted):
            self.fleet.report_switch(True, self.fleet.goal(), answer.until)

    @precondition(lambda self: self.switcher)
    @rule()
    def is_switched(self) -> None:
        """A switch ends before its lease does, or is not taken."""
        if self.fleet.now < self.switcher:
            self.fleet.report_switch(True, self.fleet.goal(), self.switcher)
        self.switcher = 0.0

    @precondition(lambda self: self.switcher)
    @rule(data=st.data())
    def switch_fails(self, data: st.DataObject) -> None:
        if self.fleet.now < self.switcher:
            self.fleet.report_switch(False, self.half_way(data), self.switcher)
        self.switcher = 0.0

    @precondition(lambda self: self.switcher)
    @rule(data=st.data())
    def who_switches_vanishes(self, data: st.DataObject) -> None:
        if self.fleet.now < self.switcher:
            self.fleet.lit = self.half_way(data)
        self.switcher = 0.0

    def half_way(self, data: st.DataObject) -> set[str]:
        """What gets requests where a switch ends in the middle, or before it begins."""
        both = sorted(self.fleet.lit | self.fleet.goal())
        some = data.draw(st.sets(st.sampled_from(both)) if both else st.just(set()), label="some")
        return set(data.draw(st.sampled_from([self.fleet.lit, set(both), some]), label="half way"))

    @rule()
    def says_nonsense_of_a_switch(self) -> None:
        """A report of another switch than the one under way is refused, and changes nothing."""
        before = self.fleet.state
        assert isinstance(self.fleet.report_switch(True, self.fleet.lit, 1.0), Denied)
        assert self.fleet.state == before

    @precondition(lambda self: self.under_way())
    @rule(data=st.data())
    def controller_dies_and_another_resumes(self, data: st.DataObject) -> None:
        if self.switcher and self.fleet.now < self.switcher:
            self.fleet.lit = self.half_way(data)
        self.switcher = 0.0
        super().controller_dies_and_another_resumes(data)


@st.composite
def migrating_plans(draw: st.DrawFn) -> tuple[Plan, RolloutState]:
    """Plans with migrations in all places, or with some that a rollback reverses; and what is known of them before."""
    plan = draw(plans())
    back = draw(st.sampled_from([False, False, True]))
    places = draw(st.lists(st.integers(0, len(plan.phases)), min_size=1, max_size=4))
    found = [
        PlannedMigration(
            f"migration{nth}",
            len(plan.phases) if back else phase,
            lease=draw(st.sampled_from([50.0, LEASE])),
            reversible=back or draw(st.sampled_from([True, True, True, False])),
            idempotent=draw(st.booleans()),
            early=back or phase == len(plan.phases) or (phase > 0 and draw(st.booleans())),
            back=back,
        )
        for nth, phase in enumerate(sorted(places))
    ]
    found = [one if one.reversible else replace(one, holds=draw(st.booleans())) for one in found]
    known = {
        one.name: Applied(draw(st.sampled_from([Standing.APPLIED, Standing.APPLIED, Standing.IN_DOUBT])), nth, "1.0.0")
        for nth, one in enumerate(reversed(found) if back else found)
        if back or draw(st.sampled_from([True, False, False, False]))
    }
    return replace(plan, migrations=tuple(found)), RolloutState(migrations=known)


DRAWN = st.shared(migrating_plans(), key="a plan with migrations, and the state before it")


class MigratingMachine(RolloutMachine):
    """The same with migrations: run well, badly, by runs that vanish or come late; and people who settle doubts."""

    @initialize(
        plan=DRAWN.map(lambda drawn: drawn[0]), gone=st.integers(0, 9), before=DRAWN.map(lambda drawn: drawn[1])
    )
    def open(self, plan: Plan, gone: int, before: RolloutState | None = None) -> None:
        real = {host.name: real_at_the_start(host.status) for host in plan.hosts}
        self.fleet = Fleet.open(plan, 1000.0, real, before)
        self.workers = {}
        self.checked = (0, 0.0)
        for _host in range(gone):
            self.migrations_go_well()
            self.goes_well(1)

    @rule()
    def migrations_go_well(self) -> None:
        for _one in range(4):
            if isinstance(answer := self.fleet.ask_migration(), Migrate):
                self.fleet.report_migration(answer)

    @rule()
    def the_controller_asks_for_one(self) -> None:
        self.fleet.ask_migration()

    @precondition(lambda self: self.fleet.runners)
    @rule(data=st.data(), went_well=st.sampled_from([True, True, False]))
    def one_ends(self, data: st.DataObject, went_well: bool) -> None:
        """In time, or long after its lease ran out: then it counts unless somebody else has begun, or has spoken."""
        run = data.draw(st.sampled_from(self.fleet.runners), label="run")
        self.fleet.report_migration(run, went_well)

    @precondition(lambda self: self.fleet.runners)
    @rule(data=st.data())
    def who_runs_one_vanishes(self, data: st.DataObject) -> None:
        self.fleet.runners.remove(data.draw(st.sampled_from(self.fleet.runners), label="run"))

    @precondition(lambda self: self.fleet.in_doubt())
    @rule(data=st.data(), done=st.booleans())
    def somebody_settles_one(self, data: st.DataObject, done: bool) -> None:
        name = data.draw(st.sampled_from(self.fleet.in_doubt()), label="migration")
        going_back = self.fleet.state.migrations[name].back
        answer = self.fleet.settle(name, done)
        assert isinstance(answer, Recorded) or (going_back and not done)

    @rule(data=st.data(), done=st.booleans())
    def says_nonsense_of_one(self, data: st.DataObject, done: bool) -> None:
        """A report of a run that is not under way, and a word about what is not in doubt, change nothing."""
        plan, state, now = self.fleet.plan, self.fleet.state, self.fleet.now
        name = data.draw(st.sampled_from(plan.migrations)).name
        decision = decide.report_migration(plan, state, MigrationReport(name, 1.0, done), now, "nobody")
        assert (type(decision.answer), decision.events) == (Denied, ())
        known = state.migrations.get(name)
        if known is None or known.standing is Standing.APPLIED:
            assert isinstance(decide.settle_migration(plan, state, name, done, "seen", now).answer, Denied)

    @precondition(lambda self: self.under_way())
    @rule(chance=st.integers(0, 4), stop=st.sampled_from([False, False, True]))
    def somebody_turns_it_back(self, chance: int, stop: bool) -> None:
        """A rollback that has reversed one can only be stopped: the newer release needs what is reversed."""
        if chance != 4:
            return
        reversed_one = any(one.back for one in self.fleet.plan.migrations) and self.fleet.state.reversed_here
        self.fleet.people(decide.turn_back(self.fleet.plan, self.fleet.state, "abort", self.fleet.now, stop))
        if stop or not any(one.back for one in self.fleet.plan.migrations):
            assert self.fleet.state.status is Status.TURNING_BACK
        if reversed_one and not stop and self.fleet.state.scope is not Scope.NONE:
            assert self.fleet.state.status is not Status.TURNING_BACK

    @invariant()
    def what_waits_says_why(self) -> None:
        """A migration that is in doubt is named, with what to do, to whoever cannot go on for it."""
        if self.fleet.state.status is not Status.ROLLING:
            return
        answer = decide.admit_migration(self.fleet.plan, self.fleet.state, "anybody", self.fleet.now).answer
        if isinstance(answer, Wait) and "in doubt" in answer.reason:
            assert "rollout_order=done" in answer.reason


TestMigrations = MigratingMachine.TestCase
TestMigrations.settings = settings(USUAL, max_examples=max(1, USUAL.max_examples // 3))
TestColours = ColouredMachine.TestCase
TestColours.settings = USUAL
TestRollouts = RolloutMachine.TestCase
TestRollouts.settings = USUAL
