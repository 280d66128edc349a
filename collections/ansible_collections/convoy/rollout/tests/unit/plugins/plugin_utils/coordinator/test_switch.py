# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two colours: when the load balancers may be switched, and what follows from how that went."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Decision,
    Denied,
    HostRecord,
    Recorded,
    SwitchReport,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Plan,
    PlannedHost,
    PlannedPhase,
    Sighting,
    Switch,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, Scope
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    HostStatus,
    RolloutState,
    Status,
    Traffic,
    evolve,
)

NOW, LEASE = 1000.0, 60.0


class Rollout:
    """Two hosts of green, which is idle, and two of blue, which is live."""

    def __init__(
        self,
        live: PlannedPhase | None = None,
        traffic: Traffic = Traffic.OLD,
        min_available: int = 0,
        status: HostStatus = HostStatus.PENDING,
        budget: int = 0,
    ) -> None:
        green = [PlannedHost(f"g{n}", 0, "", n, "older", "new", status) for n in range(2)]
        blue = [PlannedHost(f"b{n}", 1, "", 2 + n, "old", "old", HostStatus.STANDBY) for n in range(2)]
        phases = (PlannedPhase("idle", 2, 2), live or PlannedPhase("live", 2, 2, bake=30))
        plan = Plan(phases, budget, 2, LEASE, (*green, *blue), size=4, switch=Switch("green", "blue", ("b0", "b1")))
        self.plan = replace(plan, min_available=min_available)
        self.state, self.now = RolloutState(), NOW
        self.rows = {host.name: HostRecord(host.name, host.phase, "", host.status) for host in self.plan.hosts}
        self.kinds: list[str] = []
        self.take(decide.opening(self.plan, NOW, "root", {}, traffic))

    def take(self, decision: Decision) -> Answer:
        for event in decision.events:
            self.state = evolve(self.state, event)
            self.kinds.append(event.kind)
            if event.kind == "moved":
                row = self.rows[str(event.host)]
                self.rows[row.name] = replace(row, status=HostStatus(event.data["now"]))
        assert RolloutState.from_json(self.state.to_json()) == self.state
        return decision.answer

    def go(self, *names: str, outcome: HostStatus = HostStatus.SUCCEEDED) -> None:
        for name in names:
            assert isinstance(self.take(decide.admit(self.plan, self.state, self.rows[name], self.now)), Admitted)
            self.take(decide.report(self.plan, self.state, self.rows[name], outcome, self.now))

    def ask(self) -> Answer:
        return self.take(decide.admit_switch(self.plan, self.state, "root", self.now))

    def switch(self, went_well: bool = True, touched: bool = True) -> Answer:
        answer = self.ask()
        assert isinstance(answer, Admitted)
        said = SwitchReport(answer.until, went_well, touched, "refused")
        return self.take(decide.report_switch(self.plan, self.state, said, self.now, "root"))

    def judge(self, verdict: Verdict) -> Answer:
        self.now += 30
        return self.take(decide.judge(self.plan, self.state, verdict, self.now, "seen"))

    def close(self) -> Answer:
        return self.take(decide.close(self.plan, self.state, self.now))

    def resume(self, traffic: Traffic, sighting: Sighting = Sighting.SETTLED) -> None:
        seen = [(row, sighting if row.phase == 0 else Sighting.ELSEWHERE) for row in self.rows.values()]
        self.take(decide.resume(self.plan, self.state, seen, self.now, "another", traffic))


def ready(live: PlannedPhase | None = None, min_available: int = 0) -> Rollout:
    """Green runs the release, without traffic."""
    rollout = Rollout(live, min_available=min_available)
    rollout.go("g0", "g1")
    return rollout


def switched(live: PlannedPhase | None = None) -> Rollout:
    rollout = ready(live)
    assert rollout.switch() == Recorded(gate_due=True)
    return rollout


def test_the_way_of_a_rollout() -> None:
    rollout = switched()
    assert (rollout.state.status, rollout.state.traffic) == (Status.GATING, Traffic.NEW)
    assert rollout.judge(Verdict.PASS) == Recorded()
    assert rollout.close() == Recorded()
    assert rollout.state.status is Status.SUCCEEDED
    later = ["phase_passed", "switch_begun", "switched", "phase_closed", "phase_passed", "closed"]
    assert rollout.kinds[-6:] == later


def test_the_hosts_on_standby_do_not_go() -> None:
    rollout = ready()
    assert decide.admit(rollout.plan, rollout.state, rollout.rows["b0"], NOW).answer == Denied("it is standby already")


@pytest.mark.parametrize(
    ("gone", "answer"),
    [
        ((), Denied("2 hosts have to go before the switch, and none is under way")),
        (("g0",), Denied("1 hosts have to go before the switch, and none is under way")),
    ],
)
def test_nobody_switches_before_the_idle_colour_is_ready(gone: tuple[str, ...], answer: Answer) -> None:
    rollout = Rollout()
    rollout.go(*gone)
    assert rollout.ask() == answer


def test_the_switch_waits_for_hosts_under_way() -> None:
    rollout = Rollout()
    rollout.take(decide.admit(rollout.plan, rollout.state, rollout.rows["g0"], NOW))
    assert rollout.ask() == Wait("2 hosts have to go before the switch", NOW + LEASE)


def test_the_switch_waits_for_people() -> None:
    rollout = ready(PlannedPhase("live", 2, 2, approval=True))
    assert rollout.ask() == Wait("the switch, phase live, waits for an approval")
    rollout.take(decide.pause(rollout.state, "lunch", NOW))
    assert rollout.ask() == Wait("paused: lunch")
    rollout.take(decide.unpause(rollout.state, NOW))
    rollout.take(decide.approve(rollout.plan, rollout.state, "go", NOW))
    assert isinstance(rollout.ask(), Admitted)


def test_one_run_at_a_time_switches() -> None:
    rollout = ready()
    first = rollout.ask()
    assert isinstance(first, Admitted)
    assert rollout.ask() == Wait("another run switches the load balancers", NOW + LEASE)
    assert rollout.close() == Wait("another run switches the load balancers", NOW + LEASE)
    rollout.now = first.until
    assert isinstance(rollout.ask(), Admitted)
    late = SwitchReport(first.until, True)
    answer = rollout.take(decide.report_switch(rollout.plan, rollout.state, late, rollout.now, "root"))
    assert answer == Denied("it is not the switch that is under way")


def test_a_switch_is_never_made_twice() -> None:
    rollout = switched()
    rollout.judge(Verdict.PASS)
    assert rollout.ask() == Denied("the rollout has rolled")


@pytest.mark.parametrize(("least", "goes"), [(1, True), (2, False)])
def test_enough_hosts_have_to_be_ready(least: int, goes: bool) -> None:
    rollout = Rollout(min_available=least, budget=1)
    rollout.go("g0")
    rollout.go("g1", outcome=HostStatus.REVERTED)
    answer = rollout.ask()
    assert isinstance(answer, Admitted) is goes
    if not goes:
        assert answer == Denied("only 1 hosts of green are ready, at least 2 have to serve")
        assert rollout.state.status is Status.TURNING_BACK


def test_a_colour_that_runs_the_release_already_is_switched_to() -> None:
    rollout = Rollout(status=HostStatus.CURRENT)
    assert rollout.kinds == ["opened", "phase_passed"]
    assert rollout.switch() == Recorded(gate_due=True)


def test_a_failed_gate_is_followed_by_the_switch_back_and_only_then_do_hosts_go_back() -> None:
    rollout = switched()
    rollout.judge(Verdict.FAIL)
    assert rollout.state.status is Status.TURNING_BACK
    assert not decide.may_go_back(rollout.state, rollout.rows["g0"])
    answer = rollout.ask()
    assert isinstance(answer, Admitted)
    assert rollout.state.switching is not None
    assert rollout.state.switching.back
    assert not decide.may_go_back(rollout.state, rollout.rows["g0"])
    said = SwitchReport(answer.until, True)
    rollout.take(decide.report_switch(rollout.plan, rollout.state, said, rollout.now, "root"))
    assert rollout.state.traffic is Traffic.OLD
    rollout.go("g0", "g1", outcome=HostStatus.RETURNED)
    assert rollout.close() == Recorded()
    assert rollout.state.status is Status.REVERTED


def test_a_gate_that_cannot_tell_holds_with_the_traffic_where_it_is() -> None:
    rollout = switched()
    rollout.judge(Verdict.INCONCLUSIVE)
    assert isinstance(rollout.ask(), Wait)
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "no", rollout.now))
    assert isinstance(rollout.ask(), Admitted)


def test_a_gate_that_fails_where_people_decide_holds() -> None:
    rollout = switched(PlannedPhase("live", 2, 2, bake=30, on_failure=OnFailure.HOLD))
    rollout.judge(Verdict.FAIL)
    assert rollout.state.gate is not None
    assert rollout.state.gate.held == "the gate of phase live is fail: seen"


@pytest.mark.parametrize(("touched", "traffic"), [(True, Traffic.BETWEEN), (False, Traffic.OLD)])
def test_a_switch_that_fails_turns_back(touched: bool, traffic: Traffic) -> None:
    rollout = ready()
    rollout.switch(went_well=False, touched=touched)
    assert (rollout.state.status, rollout.state.traffic) == (Status.TURNING_BACK, traffic)
    assert rollout.state.reason == "the switch to green failed: refused"
    assert isinstance(rollout.ask(), Admitted if touched else Denied)


def test_a_switch_back_that_fails_leaves_hosts_where_they_are_and_says_so() -> None:
    rollout = switched()
    rollout.judge(Verdict.FAIL)
    rollout.switch(went_well=False)
    assert not decide.may_go_back(rollout.state, rollout.rows["g0"])
    assert rollout.close() == Recorded()
    assert (rollout.state.status, rollout.state.traffic) == (Status.FAILED, Traffic.BETWEEN)


def test_an_abort_while_it_is_switched_waits_for_it_and_goes_back() -> None:
    rollout = ready()
    first = rollout.ask()
    assert isinstance(first, Admitted)
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", NOW))
    assert isinstance(rollout.ask(), Wait)
    said = SwitchReport(first.until, True)
    rollout.take(decide.report_switch(rollout.plan, rollout.state, said, NOW, "root"))
    assert rollout.state.traffic is Traffic.NEW
    assert isinstance(rollout.ask(), Admitted)


def test_a_rollout_that_stops_where_it_is_is_not_switched_back() -> None:
    rollout = switched()
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "stop", NOW, stop=True))
    assert rollout.state.scope is Scope.NONE
    assert rollout.ask() == Denied("the rollout stops where it is: stop")
    assert rollout.close() == Recorded()
    assert (rollout.state.status, rollout.state.traffic) == (Status.FAILED, Traffic.NEW)


def test_a_rollout_that_stops_while_it_is_switched_ends_when_the_switch_does() -> None:
    rollout = ready()
    first = rollout.ask()
    assert isinstance(first, Admitted)
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "stop", NOW, stop=True))
    assert rollout.ask() == Denied("the rollout stops where it is: stop")
    assert rollout.close() == Wait("another run switches the load balancers", first.until)
    rollout.now = first.until
    assert rollout.close() == Recorded()
    assert (rollout.state.status, rollout.state.traffic) == (Status.FAILED, Traffic.BETWEEN)


@pytest.mark.parametrize("traffic", [Traffic.OLD, Traffic.BETWEEN])
def test_a_dead_run_in_the_middle_of_the_switch_is_finished(traffic: Traffic) -> None:
    rollout = ready()
    rollout.ask()
    rollout.resume(traffic)
    assert rollout.state.traffic is traffic
    assert rollout.switch() == Recorded(gate_due=True)


def test_a_dead_run_that_had_switched_has_its_gate_asked_again() -> None:
    rollout = switched()
    rollout.now += 10
    rollout.resume(Traffic.NEW)
    assert rollout.state.gate is not None
    assert rollout.state.gate.holder == "another"


@pytest.mark.parametrize("traffic", [Traffic.BETWEEN, Traffic.NEW])
def test_a_colour_that_is_not_healthy_when_the_run_is_resumed_is_left(traffic: Traffic) -> None:
    rollout = switched()
    rollout.resume(traffic, Sighting.BROKEN)
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.state.reason == "the load balancers send requests to green, and g0, g1 of it not ready"
    assert isinstance(rollout.ask(), Admitted)


def test_a_dead_run_that_went_back_is_finished() -> None:
    rollout = switched()
    rollout.judge(Verdict.FAIL)
    rollout.ask()
    rollout.resume(Traffic.BETWEEN, Sighting.ELSEWHERE)
    assert rollout.switch() == Recorded()
    assert rollout.state.traffic is Traffic.OLD


def test_requests_that_reach_a_colour_that_is_not_ready_are_taken_away_first() -> None:
    rollout = Rollout(traffic=Traffic.BETWEEN)
    assert rollout.kinds == ["opened", "turned_back"]
    assert isinstance(rollout.ask(), Admitted)


def test_a_plan_without_colours_has_nothing_to_switch() -> None:
    plan = Plan((PlannedPhase("all", 1, 1),), 0, 1, LEASE, (PlannedHost("a", 0, "", 0, "old", "new"),))
    state = evolve(RolloutState(), decide.opening(plan, NOW, "root", {}).events[0])
    assert decide.admit_switch(plan, state, "root", NOW).answer == Denied("the plan has nothing to switch")
