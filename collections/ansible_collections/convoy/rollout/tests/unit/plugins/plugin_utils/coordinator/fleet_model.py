# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet that the coordinator moves: what hosts really are, beside what the events say of them.

It does what the ledger and the hosts would do, in memory, so that the coordinator is checked against a world
of which it hears only by reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide, migrations
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Decision,
    Denied,
    HostRecord,
    Migrate,
    MigrationReport,
    Recorded,
    SwitchReport,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    Plan,
    PlannedMigration,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, Scope
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    FAILURES,
    Event,
    HostStatus,
    RolloutState,
    Standing,
    Status,
    Traffic,
    evolve,
)

OLD, NEW = "old", "new"
HOLDERS_RUN = "root@controller"


@dataclass(frozen=True)
class Real:
    """What a host really is. ``taken``: the rollout has taken it out of service, and it is not back."""

    runs: str | None = OLD
    serves: bool = True
    reachable: bool = True
    taken: bool = False


@dataclass
class Fleet:
    """A rollout under way. ``passes`` says how each closed phase was passed: by a gate, a person, or by itself.

    ``holders`` are those who were told to ask the open gate, and still live; ``held`` are the phases whose gates
    could not tell; ``lit`` are the hosts that really get requests, where the plan has load balancers switched.
    ``runners`` are those who run a migration and still live; of the migrations ``unknown`` nobody has said how they
    ended that were begun.
    """

    plan: Plan
    now: float
    real: dict[str, Real]
    state: RolloutState = field(default_factory=RolloutState)
    rows: dict[str, HostRecord] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    passes: dict[int, str] = field(default_factory=dict)
    baked: dict[int, float] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    lit: set[str] = field(default_factory=set)
    runners: list[Migrate] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    stores: bool = True

    @classmethod
    def open(cls, plan: Plan, now: float, real: dict[str, Real], before: RolloutState | None = None) -> Fleet:
        fleet = cls(plan, now, real)
        fleet.lit = {host.name for host in plan.hosts if host.status is HostStatus.STANDBY}
        fleet.rows = {host.name: HostRecord(host.name, host.phase, host.zone, host.status) for host in plan.hosts}
        fleet.record(decide.opening(plan, now, HOLDERS_RUN, {}, before=before), "itself")
        fleet.unknown = {
            name for name, one in fleet.state.migrations.items() if one.standing is Standing.IN_DOUBT and not one.again
        }
        return fleet

    @property
    def origin(self) -> dict[str, str | None]:
        """What each host ran before the rollout."""
        return {host.name: host.from_release for host in self.plan.hosts}

    def copy(self) -> Fleet:
        """The same rollout, to try something out. It does not bother to store its events as JSON."""
        fresh = {name: type(value)(value) for name, value in vars(self).items() if isinstance(value, (dict, list, set))}
        return Fleet(**{**vars(self), **fresh, "stores": False})

    def record(self, decision: Decision, cause: str) -> Answer:
        """Do what the ledger does: events as JSON, state and rows brought up to date."""
        for event in decision.events:
            stored = replace(event, data=json.loads(json.dumps(event.data))) if self.stores else event
            self.events.append(stored)
            self.state = evolve(self.state, stored)
            if stored.kind == "moved":
                self._move(stored)
            elif stored.kind == "phase_closed":
                self.baked[self.state.phase] = stored.data["bake_until"]
            elif stored.kind == "gate_held":
                self.held.add(self.state.phase)
            elif stored.kind == "phase_passed":
                self._pass(stored.data["phase"], cause)
            elif stored.kind == "resumed":
                self.holders.clear()
                self.held.clear()
        return decision.answer

    def _move(self, event: Event) -> None:
        row = self.rows[str(event.host)]
        assert row.status == event.data["was"], (
            f"{row.name} is {row.status}, an event moves it from {event.data['was']}"
        )
        self.rows[row.name] = replace(row, status=HostStatus(event.data["now"]))

    def _pass(self, phase: int, cause: str) -> None:
        """No phase passes before its hosts are through, has baked, and a gate or a person has said so."""
        if self.plan.switch and phase == len(self.plan.phases) - 1:
            assert cause in ("gate", "person"), f"the switch passed by {cause}"
            assert cause == "person" or self.now >= self.baked[phase], "the switch passed before it had baked"
            assert self.lit, "the switch passed, and nobody gets requests"
            assert self.lit <= self.coming, f"the switch passed, and {self.lit} get requests"
        members = [row.status for row in self.rows.values() if row.phase <= phase]
        assert not {HostStatus.PENDING, HostStatus.ADMITTED} & set(members), f"phase {phase} passed with {members}"
        for one in self.plan.migrations:
            known = self.state.migrations.get(one.name)
            ran = known is not None and known.standing is Standing.APPLIED
            assert one.back or one.phase > phase or ran, f"phase {phase} passed before {one.name}"
        changed = HostStatus.SUCCEEDED in [row.status for row in self.rows.values() if row.phase == phase]
        if (self.plan.phases[phase].bake or self.plan.phases[phase].hooked) and changed:
            assert cause in ("gate", "person"), f"phase {phase} passed by {cause}"
            assert cause == "gate" or phase in self.held, f"somebody passed phase {phase}, whose gate could tell"
            assert cause == "person" or self.now >= self.baked[phase], f"phase {phase} passed before it had baked"
        self.passes[phase] = cause

    # What hosts, gates and people do

    def ask(self, name: str) -> Answer:
        """A host asks whether it may go; the answer is checked against the world."""
        row = replace(self.rows[name], ahead=self.ahead(name))
        was, was_down, before = self.state, name in self.state.down, self.state.unavailable
        answer = self.record(decide.admit(self.plan, self.state, row, self.now), "itself")
        if isinstance(answer, Migrate):
            self.begin(answer, was)
        if not isinstance(answer, Admitted):
            return answer
        assert answer.until > self.now
        assert not (self.plan.switch and name in self.lit), f"{name} is touched, and gets requests"
        going = self.rows[name].status
        if going is HostStatus.ADMITTED:
            self.check_admission(row, was_down, before)
        self.real[name] = replace(self.real[name], serves=False, taken=True)
        return answer

    def ahead(self, name: str) -> int:
        """How many hosts of its phase, and where zones have windows of its zone, have to go and stand before it."""
        row, names = self.rows[name], list(self.rows)
        zoned = self.plan.phases[row.phase].zone_window is not None
        return sum(
            other.status is HostStatus.PENDING and other.phase == row.phase and (not zoned or other.zone == row.zone)
            for other in (self.rows[before] for before in names[: names.index(name)])
        )

    def check_admission(self, row: HostRecord, was_down: bool, before: frozenset[str]) -> None:
        """Nobody goes before the phases before have passed, nor beyond the window of the open phase."""
        assert not self.state.status.ended
        assert not self.state.paused
        assert not self.state.held
        assert self.state.gate is None
        assert all(phase in self.passes for phase in range(row.phase)), f"{row.name} went before {self.passes} passed"
        for one in self.plan.migrations:
            assert one.back or one.phase > row.phase or self.applied(one.name), f"{row.name} went before {one.name}"
        phase = self.plan.phases[self.state.phase]
        assert not phase.approval or self.state.phase in self.state.approved
        taken = {name for name, real in self.real.items() if real.taken} | {row.name}
        known = {*self.state.leases, *self.state.out, *self.state.down}
        assert len(self.state.leases) <= phase.window
        left = len(self.rows) - len(self.state.unavailable)
        if row.name not in before and not self.plan.switch:
            assert left >= self.plan.min_available, f"{left} serve, {self.plan.min_available} have to"
        if not was_down:
            for out in (taken, known):  # what the world says, and what the events say
                assert len(out) <= phase.window, f"{out} are out, the window is {phase.window}"
                in_zone = [name for name in out if self.rows[name].zone == row.zone]
                assert phase.zone_window is None or len(in_zone) <= phase.zone_window, (
                    f"{in_zone} of {row.zone} are out"
                )

    def report(self, name: str, outcome: HostStatus, real: Real) -> Answer:
        """A host is ``real``, and says that it is ``outcome``."""
        self.real[name] = real
        answer = self.record(decide.report(self.plan, self.state, self.rows[name], outcome, self.now, "said"), "itself")
        if isinstance(answer, Recorded) and answer.gate_due:
            self.holders.add(name)
        return answer

    # Migrations

    def applied(self, name: str) -> bool:
        """Whether it is known to have taken effect."""
        known = self.state.migrations.get(name)
        return known is not None and known.standing is Standing.APPLIED and name not in self.unknown

    def begin(self, answer: Migrate, was: RolloutState) -> None:
        """Somebody was told to run a migration; that is checked against the world."""
        one = answer.migration
        assert all(one.until <= self.now for _name, one in migrations.running(was)), "two migrations at once"
        assert answer.until > self.now
        assert not was.status.ended
        assert one.name not in self.unknown or one.idempotent, f"{one.name} is run again, and nobody knows how it ended"
        if one.back:
            self.check_reversal(one)
        else:
            self.check_migration(one)
        self.unknown.add(one.name)
        self.runners.append(answer)

    def check_migration(self, one: PlannedMigration) -> None:
        """It runs once, in its place, and in the list's order there."""
        state = self.state
        assert not state.paused
        assert not state.held
        assert state.gate is None
        assert state.status in (Status.ROLLING, Status.ROLLED)
        assert all(phase in self.passes for phase in range(one.phase))
        assert one.early or one.phase == len(self.plan.phases) or self.is_approved(one.phase)
        place = (one.phase, not one.early)
        same = [other for other in self.plan.migrations if (other.phase, not other.early) == place]
        earlier = [other for other in self.plan.migrations if (other.phase, not other.early) < place]
        for other in (*earlier, *same[: same.index(one)]):
            assert self.applied(other.name), f"{one.name} runs before {other.name}"

    def is_approved(self, phase: int) -> bool:
        return not self.plan.phases[phase].approval or phase in self.state.approved or phase < self.state.phase

    def check_reversal(self, one: PlannedMigration) -> None:
        """Nobody who needs it runs any more: hosts that this rollout moved, or that a rollback had to move."""
        if self.state.status is Status.TURNING_BACK:
            moved = [name for name, real in self.real.items() if real.runs != self.origin[name]]
            assert not moved, f"{one.name} is reversed, and {moved} run the new release"
        else:
            left = [name for name, real in self.real.items() if real.runs != NEW]
            assert not left, f"{one.name} is reversed, and {left} did not go back"
        newer = [
            name for name, known in self.state.migrations.items() if known.nth > self.state.migrations[one.name].nth
        ]
        planned = {other.name for other in self.plan.migrations}
        assert not [name for name in newer if name in planned], f"{one.name} is reversed before {newer}"

    def ask_migration(self) -> Answer:
        """The controller asks whether one is left that no host was told to run."""
        was = self.state
        answer = self.record(decide.admit_migration(self.plan, self.state, HOLDERS_RUN, self.now), "itself")
        if isinstance(answer, Migrate):
            self.begin(answer, was)
        return answer

    def report_migration(self, run: Migrate, went_well: bool = True) -> Answer:
        if run in self.runners:
            self.runners.remove(run)
        said = MigrationReport(run.migration.name, run.until, went_well, "" if went_well else "refused")
        answer = self.record(decide.report_migration(self.plan, self.state, said, self.now, HOLDERS_RUN), "itself")
        if isinstance(answer, Recorded):
            if went_well or not run.migration.back:
                self.unknown.discard(run.migration.name)
            if answer.gate_due:
                self.holders.add(HOLDERS_RUN)
        return answer

    def settle(self, name: str, done: bool) -> Answer:
        answer = self.people(decide.settle_migration(self.plan, self.state, name, done, "seen", self.now))
        if isinstance(answer, Recorded):
            self.unknown.discard(name)
        return answer

    def in_doubt(self) -> list[str]:
        return [name for name, one in self.state.migrations.items() if one.standing is Standing.IN_DOUBT]

    def check_migrations_at_the_end(self) -> None:
        """What a verdict says of them."""
        assert migrations.running(self.state) == []
        known = self.state.migrations
        if self.state.status is Status.SUCCEEDED:
            for one in self.plan.migrations:
                assert (one.name not in known) if one.back else self.applied(one.name), f"succeeded without {one.name}"
        elif self.state.status is Status.REVERTED and self.state.scope is not Scope.NONE:
            reversible = {one.name for one in self.plan.migrations if one.reversible and not one.back}
            newest = max((one for one in known.items() if one[1].here), key=lambda one: one[1].nth, default=None)
            assert newest is None or newest[0] not in reversible, f"reverted, and {newest} was not reversed"

    @property
    def coming(self) -> set[str]:
        """The hosts of the colour that is to be switched to."""
        return {row.name for row in self.rows.values() if row.status is not HostStatus.STANDBY}

    def ask_switch(self) -> Answer:
        """Somebody asks whether the load balancers may be switched; a yes is checked against the world."""
        was = self.state
        answer = self.record(decide.admit_switch(self.plan, self.state, HOLDERS_RUN, self.now), "itself")
        if isinstance(answer, Admitted):
            assert was.switching is None or was.switching.until <= self.now, "two switch at once"
            assert self.state.switching is not None
            assert answer.until > self.now
            if not self.state.switching.back:
                self.check_switch()
        return answer

    def check_switch(self) -> None:
        """Nobody switches forward before the idle colour is ready, nor where a person has to say yes first."""
        last = len(self.plan.phases) - 1
        assert set(range(last)) <= self.passes.keys(), f"switched before {self.passes} passed"
        assert not self.state.paused
        assert not self.state.held
        assert not self.plan.phases[last].approval or last in self.state.approved
        assert len(self.ready()) >= max(1, self.plan.min_available), "too few would serve"

    def ready(self) -> set[str]:
        """The hosts that are switched to."""
        return {row.name for row in self.rows.values() if row.status.name in ("SUCCEEDED", "CURRENT")}

    def goal(self) -> set[str]:
        """The hosts that the switch under way wants to get requests."""
        back = self.state.switching is not None and self.state.switching.back
        return {row.name for row in self.rows.values() if row.status is HostStatus.STANDBY} if back else self.ready()

    def report_switch(self, went_well: bool, lit: set[str], until: float) -> Answer:
        """The hosts ``lit`` get requests now, and it is said so."""
        touched, self.lit = self.lit != lit, set(lit)
        said = SwitchReport(until, went_well, touched, "" if went_well else "refused")
        decision = decide.report_switch(self.plan, self.state, said, self.now, HOLDERS_RUN)
        answer = self.record(decision, "itself")
        if isinstance(answer, Recorded) and answer.gate_due:
            self.holders.add(HOLDERS_RUN)
        return answer

    @property
    def traffic(self) -> Traffic:
        """Where the load balancers stand, as one reads them."""
        if not self.lit & self.coming:
            return Traffic.OLD
        return Traffic.NEW if self.lit <= self.coming else Traffic.BETWEEN

    def judge(self, verdict: Verdict) -> Answer:
        answer = self.record(decide.judge(self.plan, self.state, verdict, self.now, "seen"), "gate")
        if isinstance(answer, Recorded):
            self.holders.clear()
        return answer

    def people(self, decision: Decision) -> Answer:
        return self.record(decision, "person")

    def close(self) -> Answer:
        answer = self.record(decide.close(self.plan, self.state, self.now), "itself")
        if isinstance(answer, Recorded):
            self.check_verdict()
        return answer

    def resume(self) -> None:
        """The controller and all its workers are gone; another one reads the hosts and goes on."""
        back = self.state.status is Status.TURNING_BACK
        wanted = self.origin if back else dict.fromkeys(self.rows, NEW)
        self.runners.clear()  # the ledger does not listen to them any more
        seen = [(row, self.facts(row.name).sighting(wanted[row.name])) for row in self.rows.values()]
        self.record(decide.resume(self.plan, self.state, seen, self.now, HOLDERS_RUN, self.traffic), "itself")
        if self.state.gate:
            self.holders.add(HOLDERS_RUN)

    def facts(self, name: str) -> HostFacts:
        real = self.real[name]
        health = Health.HEALTHY if real.serves else Health.UNHEALTHY
        return HostFacts(name, NEW, real.runs, self.rows[name].zone, health, reachable=real.reachable)

    # What must hold

    def check(self) -> None:
        """What must hold after every single thing that happens."""
        state = self.state
        statuses = [row.status for row in self.rows.values()]
        assert sum(state.count(HostStatus, phase) for phase in range(len(self.plan.phases))) == len(statuses)
        assert all(state.count({status}) == statuses.count(status) for status in HostStatus)
        assert all(number >= 0 for counts in state.counts for number in counts.values())
        replayed = RolloutState()
        for event in self.events:
            replayed = evolve(replayed, event)
        assert replayed == state, "the events say something else than the state"
        assert RolloutState.from_json(json.loads(json.dumps(state.to_json()))) == state
        if self.plan.switch and not state.status.ended:
            assert state.traffic is not Traffic.OLD or not self.lit & self.coming, "the new colour serves unnoticed"
            assert state.traffic is not Traffic.NEW or self.lit <= self.coming, "the old colour serves unnoticed"
        if state.status.ended:
            return
        in_flight = {row.name for row in self.rows.values() if row.status.name in ("ADMITTED", "RETURNING")}
        assert state.leases.keys() == in_flight
        assert state.out.keys() == {
            row.name for row in self.rows.values() if row.status.name in ("FAILED", "LOST", "STUCK")
        }
        assert all(self.rows[name].status is HostStatus.PENDING for name in state.down)
        taken = {name for name, real in self.real.items() if real.taken}
        assert taken <= {*state.leases, *state.out, *state.down}, "a host is out of service and nobody counts it"
        failures = state.count(FAILURES) - state.forgiven
        if failures > self.plan.failure_budget and not self.goes_on_regardless():
            stopped = state.status is Status.TURNING_BACK or state.held
            assert stopped, f"{failures} failed, and the rollout is {state.status}"
        if state.status is Status.TURNING_BACK and not state.leases:
            for name in self.to_return():
                answer = decide.admit(self.plan, state, self.rows[name], self.now).answer
                assert isinstance(answer, Admitted), f"nothing is in flight, but {name} may not go back: {answer}"

    def goes_on_regardless(self) -> bool:
        """Whether the open phase does not mind failures beyond the budget."""
        return self.plan.phases[self.state.phase].on_failure is OnFailure.CONTINUE

    def check_verdict(self) -> None:
        """A verdict says what the hosts are."""
        self.check_migrations_at_the_end()
        statuses = {row.status for row in self.rows.values()}
        assert not statuses & {HostStatus.ADMITTED, HostStatus.RETURNING}
        moved = [name for name, real in self.real.items() if real.runs != self.origin[name]]
        if self.state.status is Status.SUCCEEDED:
            assert self.passes.keys() == set(range(len(self.plan.phases)))
            assert HostStatus.PENDING not in statuses
            assert not self.plan.switch or (self.lit and self.lit <= self.coming)
            assert self.state.count(FAILURES) - self.state.forgiven <= self.plan.failure_budget
        elif self.state.status is Status.REVERTED:
            assert not moved, f"the rollout has reverted, but {moved} run the new release"
            assert not [name for name, real in self.real.items() if real.taken]
            assert not self.lit & self.coming or not self.plan.switch
        else:
            assert self.state.status is Status.FAILED
            kept = self.state.scope is not Scope.ALL and (HostStatus.SUCCEEDED in statuses or self.state.out)
            went_on = self.goes_on_regardless() and self.state.count(FAILURES)
            between = self.state.traffic is not Traffic.OLD or "is not reversed" in self.state.reason
            assert between or self.to_return() or HostStatus.STUCK in statuses or kept or went_on or self.state.down

    def to_go(self) -> list[str]:
        rows = [row for row in self.rows.values() if row.status is HostStatus.PENDING]
        return [row.name for row in sorted(rows, key=lambda row: row.name not in self.state.down)]

    def to_return(self) -> list[str]:
        return [row.name for row in self.rows.values() if decide.may_go_back(self.state, row)]

    # How it ends when nothing fails any more

    def finish(self, forks: int) -> Status:
        """Run the rollout to its end the way a play does: ``forks`` hosts at a time ask until they are answered.

        Every host that is admitted succeeds. Where a person is awaited, one says yes; where a run ends without an
        end of the rollout, another one resumes it. Raises AssertionError where neither gets it to an end.
        """
        if self.state.status.ended:
            return self.state.status
        for _run in range(3):
            self._roll(forks)
            self._migrate()
            if self.plan.switch:
                self._switch_over()
            if self.state.status is Status.TURNING_BACK:
                self._turn_back(forks)
                self._migrate()
            self._let_switch_run_out()
            answer = self.close()
            assert not isinstance(answer, Wait), f"the run is over, but {answer}"
            if self.state.status.ended:
                return self.state.status
            self._please(answer)
            self.resume()
        raise AssertionError(f"three runs did not end the rollout: {self.state}")

    def _please(self, answer: Answer) -> None:
        assert isinstance(answer, Denied)
        if self.state.paused:
            self.people(decide.unpause(self.state, self.now))
        elif self.state.gate is not None and self.state.gate.held:
            self.people(decide.approve(self.plan, self.state, "yes", self.now))
        elif self.state.held:
            self._let_it_go_on()
        elif self.in_doubt():
            self._settle_doubts()

    def _settle_doubts(self) -> bool:
        """Whether a person had to say of a migration how it ended."""
        doubts = [name for name in self.in_doubt() if name in migrations.missing(self.plan, self.state)]
        for name in doubts:
            assert isinstance(self.settle(name, True), Recorded)
        return bool(doubts)

    def _migrate(self) -> None:
        """The controller runs what no host was told to run."""
        if not self.plan.migrations:
            return
        while not isinstance(answer := self.ask_migration(), Denied):
            if isinstance(answer, Migrate):
                self.report_migration(answer)
                self._answer_gate()
            else:
                assert isinstance(answer, Wait)
                self._pass_time([answer])

    def _let_it_go_on(self) -> None:
        """A person wants a rollout to go on that holds; where that is not possible, to turn back; and else to end."""
        if isinstance(self.people(decide.approve(self.plan, self.state, "yes", self.now)), Denied) or self.state.held:
            answer = self.people(decide.turn_back(self.plan, self.state, "no use", self.now))
            if isinstance(answer, Denied):
                self.people(decide.turn_back(self.plan, self.state, "no use", self.now, stop=True))

    def _roll(self, forks: int) -> None:
        self._answer_gate()
        self._work(self.to_go(), forks, HostStatus.SUCCEEDED)
        self._let_leases_run_out()

    def _switch_over(self) -> None:
        """To the new colour, and back where that has to be."""
        for _time in range(2):
            answer = self.ask_switch()
            while isinstance(answer, Wait):
                self._pass_time([answer])
                answer = self.ask_switch()
            if not isinstance(answer, Admitted):
                return
            self.report_switch(True, self.goal(), answer.until)
            self._answer_gate()

    def _turn_back(self, forks: int) -> None:
        self._work(self.to_return(), forks, HostStatus.RETURNED)
        self._let_leases_run_out()

    def _work(self, order: list[str], forks: int, outcome: HostStatus) -> None:
        waiting = list(order)
        while waiting:
            answers = {name: self.ask(name) for name in waiting[:forks]}
            for name, answer in answers.items():
                if isinstance(answer, Migrate):
                    self.report_migration(answer)
                    self._answer_gate()
                if isinstance(answer, (Wait, Migrate)):
                    continue
                waiting.remove(name)
                if isinstance(answer, Admitted):
                    self.report(name, outcome, Real(NEW if outcome is HostStatus.SUCCEEDED else self.origin[name]))
                    self._answer_gate()
            if all(isinstance(answer, Wait) for answer in answers.values()):
                self._pass_time([answer for answer in answers.values() if isinstance(answer, Wait)])

    def _pass_time(self, waits: Iterable[Wait]) -> None:
        """All hosts wait: for a time that comes, or for a person."""
        if self.state.paused:
            self.people(decide.unpause(self.state, self.now))
            return
        if self.state.held:
            self._let_it_go_on()
            return
        if self._settle_doubts():
            return
        if isinstance(self.people(decide.approve(self.plan, self.state, "yes", self.now)), Recorded):
            return
        untils = [wait.until for wait in waits if wait.until is not None]
        assert untils, f"nobody knows what is waited for: {waits}"
        assert min(untils) > self.now, f"what is waited for has come already: {waits}"
        self.now = min(untils)

    def _answer_gate(self) -> None:
        while self.holders and self.state.gate:
            answer = self.judge(Verdict.PASS)
            if isinstance(answer, Wait):
                assert answer.until is not None
                self.now = answer.until

    def _let_leases_run_out(self) -> None:
        """Workers that died never report."""
        if self.state.leases:
            self.now = max(lease.until for lease in self.state.leases.values())

    def _let_switch_run_out(self) -> None:
        """Who switches the load balancers died, and a rollout that stops where it is has nobody switch them back."""
        if self.state.switching:
            self.now = max(self.now, self.state.switching.until)
