# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens next: each answer of the coordinator, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Decision,
    Denied,
    HostRecord,
    Recorded,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Plan,
    PlannedHost,
    PlannedPhase,
    Sighting,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, Scope
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Event,
    HostStatus,
    RolloutState,
    Status,
    evolve,
)

NOW, LEASE = 1000.0, 60.0


class Rollout:
    """A rollout and its hosts, moved by decisions. Hosts are named after their phases: a0, a1, b0, …"""

    def __init__(self, *phases: PlannedPhase, budget: int = 0, back: int = 2, **statuses: HostStatus) -> None:
        hosts = [
            PlannedHost(name, index, name[-1], 0, "old", "new", statuses.get(name, HostStatus.PENDING))
            for index, phase in enumerate(phases)
            for name in [f"{'abc'[index]}{number}" for number in range(phase.hosts)]
        ]
        self.plan = Plan(phases, budget, back, LEASE, tuple(hosts))
        self.state = RolloutState()
        self.rows = {host.name: HostRecord(host.name, host.phase, host.zone, host.status) for host in hosts}
        self.now = NOW
        self.kinds: list[str] = []
        self.take(decide.opening(self.plan, self.now, "root", {"version": "1.1.0"}))

    def take(self, decision: Decision) -> Answer:
        for event in decision.events:
            self.state = evolve(self.state, event)
            self.kinds.append(event.kind)
            if event.kind == "moved":
                row = self.rows[str(event.host)]
                assert row.status == event.data["was"]
                self.rows[row.name] = replace(row, status=HostStatus(event.data["now"]))
        return decision.answer

    def ask(self, name: str) -> Answer:
        return self.take(decide.admit(self.plan, self.state, self.rows[name], self.now))

    def report(self, name: str, outcome: str, why: str = "") -> Answer:
        row = self.rows[name]
        return self.take(decide.report(self.plan, self.state, row, HostStatus(outcome), self.now, why))

    def go(self, *names: str, outcome: str = "succeeded") -> Answer:
        for name in names:
            assert isinstance(self.ask(name), Admitted)
            answer = self.report(name, outcome)
        return answer

    def judge(self, verdict: Verdict, why: str = "") -> Answer:
        return self.take(decide.judge(self.plan, self.state, verdict, self.now, why))

    def close(self) -> Answer:
        return self.take(decide.close(self.plan, self.state, self.now))

    def approve(self, why: str = "fine") -> Answer:
        return self.take(decide.approve(self.plan, self.state, why, self.now))

    def pause(self, why: str = "lunch") -> Answer:
        return self.take(decide.pause(self.state, why, self.now))

    def turn_back(self, reason: str = "abort") -> Answer:
        return self.take(decide.turn_back(self.plan, self.state, reason, self.now))

    def resume(self, **seen: Sighting) -> None:
        default = Sighting.SETTLED if self.state.status is Status.TURNING_BACK else Sighting.ELSEWHERE
        read = [(row, seen.get(row.name, default)) for row in self.rows.values()]
        self.take(decide.resume(self.plan, self.state, read, self.now, "another"))

    def status(self, name: str) -> str:
        return self.rows[name].status.value


def phase(name: str = "canary", hosts: int = 1, window: int = 1, **rules: Any) -> PlannedPhase:
    return PlannedPhase(name, hosts, window, **rules)


def two_phases(**rules: Any) -> Rollout:
    return Rollout(phase("canary", 1, 1, **rules), phase("fleet", 3, 2))


# Opening


def test_opening_records_the_plan() -> None:
    rollout = Rollout(phase(hosts=2))
    (opened,) = decide.opening(rollout.plan, NOW, "root", {"version": "1.1.0"}).events
    assert opened.data["version"] == "1.1.0"
    assert opened.data["rules"] == rollout.plan.rules()
    assert opened.data["hosts"][0] == ["a0", 0, "0", "old", "new", "pending"]
    assert opened.data["digest"] == rollout.plan.digest()


def test_a_fleet_that_is_there_already_has_nothing_to_do() -> None:
    rollout = Rollout(
        phase(bake=30), phase(hosts=2), a0=HostStatus.CURRENT, b0=HostStatus.CURRENT, b1=HostStatus.CURRENT
    )
    assert rollout.kinds == ["opened", "phase_passed", "phase_passed"]
    assert rollout.state.status is Status.ROLLED
    assert rollout.close() == Recorded()
    assert rollout.state.status is Status.SUCCEEDED


def test_more_unreachable_hosts_than_the_budget_and_no_host_is_touched() -> None:
    rollout = Rollout(phase(), phase(hosts=2), b1=HostStatus.UNREACHABLE)
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.state.reason == "1 failed, more than the failure budget of 0"
    assert isinstance(rollout.ask("a0"), Denied)
    rollout.close()
    assert rollout.state.status is Status.REVERTED


def test_a_canary_that_cannot_be_reached_opens_nothing_whatever_the_budget() -> None:
    rollout = Rollout(phase(), phase(hosts=2), budget=3, a0=HostStatus.UNREACHABLE)
    assert rollout.state.reason == "no host of phase canary succeeded"


# Admission


def test_phases_go_in_order_and_windows_slide() -> None:
    rollout = two_phases()
    assert rollout.ask("b0") == Wait("phase canary has 1 of 1 hosts to go")
    assert rollout.ask("a0") == Admitted(NOW + LEASE, first=True)
    assert rollout.ask("b0") == Wait("phase canary has 1 of 1 hosts to go", NOW + LEASE)
    rollout.report("a0", "succeeded")
    assert rollout.ask("b0") == Admitted(NOW + LEASE, first=True)
    assert rollout.ask("b1") == Admitted(NOW + LEASE)
    assert rollout.ask("b2") == Wait("b0, b1 fill the window of 2", NOW + LEASE)
    rollout.report("b1", "succeeded")
    assert isinstance(rollout.ask("b2"), Admitted)


def test_a_failed_host_keeps_its_place_in_the_window() -> None:
    rollout = Rollout(phase(hosts=4, window=2), budget=1)
    rollout.go("a0", outcome="failed")
    assert isinstance(rollout.ask("a1"), Admitted)
    assert rollout.ask("a2") == Wait("a0, a1 fill the window of 2", NOW + LEASE)


def test_a_reverted_host_gives_its_place_back() -> None:
    rollout = Rollout(phase(hosts=3, window=1), budget=1)
    rollout.go("a0", outcome="reverted")
    assert isinstance(rollout.ask("a1"), Admitted)


def test_many_hosts_that_fill_a_window_are_counted_not_listed() -> None:
    rollout = Rollout(phase(hosts=6, window=4))
    for name in ("a0", "a1", "a2", "a3"):
        rollout.ask(name)
    assert rollout.ask("a4") == Wait("4 hosts fill the window of 4", NOW + LEASE)


def test_zones_have_windows_of_their_own() -> None:
    rollout = Rollout(phase(hosts=4, window=4, zone_window=1))
    rollout.rows["a3"] = replace(rollout.rows["a3"], zone="0")
    assert isinstance(rollout.ask("a0"), Admitted)
    assert rollout.ask("a3") == Wait("zone 0 has its 1 hosts out", NOW + LEASE)
    assert isinstance(rollout.ask("a1"), Admitted)


def test_hosts_that_are_out_for_good_and_fill_the_window_turn_the_rollout_round() -> None:
    rollout = Rollout(phase(hosts=4, window=1), budget=3)
    rollout.go("a0", outcome="failed")
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.state.reason == "a0 fill the window of 1: no further host may go"


def test_hosts_that_are_out_for_good_and_fill_the_zone_turn_it_round_when_the_zone_asks() -> None:
    rollout = Rollout(phase(hosts=4, window=4, zone_window=1), budget=3)
    rollout.rows["a3"] = replace(rollout.rows["a3"], zone="0")
    rollout.go("a0", outcome="failed")
    assert isinstance(rollout.ask("a1"), Admitted)
    assert rollout.ask("a3") == Denied("1 hosts out of service fill the window of 1 of zone 0: no further host may go")
    assert rollout.state.status is Status.TURNING_BACK


@pytest.mark.parametrize("outcome", ["succeeded", "reverted", "failed", "lost"])
def test_a_host_goes_once(outcome: str) -> None:
    rollout = Rollout(phase(hosts=3, window=2), budget=3)
    rollout.go("a0", outcome=outcome)
    assert rollout.ask("a0") == Denied(f"it is {outcome} already")


def test_the_first_host_of_a_phase_is_told_so() -> None:
    rollout = Rollout(phase(), phase(hosts=4, window=2), budget=3, b3=HostStatus.CURRENT)
    rollout.report("b0", "unstaged")
    assert rollout.ask("a0") == Admitted(NOW + LEASE, first=True)
    rollout.report("a0", "succeeded")
    assert rollout.ask("b1") == Admitted(NOW + LEASE, first=True)
    assert rollout.ask("b2") == Admitted(NOW + LEASE)


def test_an_approval_is_waited_for() -> None:
    rollout = Rollout(phase(), phase("fleet", 2, 2, approval=True))
    rollout.go("a0")
    assert rollout.ask("b0") == Wait("phase fleet waits for an approval")
    assert rollout.approve() == Recorded()
    assert isinstance(rollout.ask("b0"), Admitted)
    assert rollout.approve() == Denied("nothing waits for an approval: phase fleet has 2 of 2 hosts to go")


# Leases


def test_a_host_whose_lease_runs_out_is_lost() -> None:
    rollout = Rollout(phase(hosts=4, window=2), budget=1)
    rollout.ask("a0")
    rollout.now += LEASE
    assert isinstance(rollout.ask("a1"), Admitted)
    assert rollout.status("a0") == "lost"
    assert rollout.ask("a2") == Wait("a0, a1 fill the window of 2", rollout.now + LEASE)


def test_a_host_that_asks_again_after_its_lease_ran_out_is_lost() -> None:
    rollout = Rollout(phase(hosts=4, window=2), budget=1)
    rollout.ask("a0")
    rollout.now += LEASE
    assert rollout.ask("a0") == Denied("it is lost already")


@pytest.mark.parametrize(("outcome", "out"), [("succeeded", False), ("reverted", False), ("failed", True)])
def test_a_late_report_still_tells_the_truth(outcome: str, out: bool) -> None:
    rollout = Rollout(phase(hosts=4, window=2), budget=1)
    rollout.ask("a0")
    rollout.now += LEASE + 1
    rollout.ask("a1")
    assert rollout.status("a0") == "lost"
    assert rollout.report("a0", outcome) == Recorded()
    assert rollout.status("a0") == outcome
    assert ("a0" in rollout.state.out) is out


def test_a_report_at_the_last_moment_is_in_time_for_the_host_and_late_for_others() -> None:
    rollout = Rollout(phase(hosts=4, window=3), budget=2)
    rollout.ask("a0")
    rollout.ask("a1")
    rollout.now += LEASE
    rollout.report("a0", "succeeded")
    assert (rollout.status("a0"), rollout.status("a1")) == ("succeeded", "lost")


# Reports


def test_a_report_that_is_repeated_changes_nothing() -> None:
    rollout = two_phases(bake=30.0)
    rollout.ask("a0")
    assert rollout.report("a0", "succeeded") == Recorded(gate_due=True)
    kinds = list(rollout.kinds)
    assert rollout.report("a0", "succeeded") == Recorded(gate_due=True)
    assert rollout.kinds == kinds


@pytest.mark.parametrize(("outcome", "recorded"), [("unreachable", "lost"), ("unstaged", "failed"), ("lost", "lost")])
def test_a_host_that_was_touched_is_not_merely_unreachable(outcome: str, recorded: str) -> None:
    rollout = Rollout(phase(hosts=4, window=4), budget=3)
    rollout.ask("a0")
    rollout.report("a0", outcome)
    assert rollout.status("a0") == recorded
    assert rollout.state.out == {"a0": "0"}


@pytest.mark.parametrize("outcome", ["unreachable", "unstaged"])
def test_a_host_that_was_not_touched_is_in_service(outcome: str) -> None:
    rollout = Rollout(phase(hosts=4, window=4), budget=3)
    rollout.report("a0", outcome)
    assert rollout.status("a0") == outcome
    assert rollout.state.out == {}


@pytest.mark.parametrize(
    "outcome", ["pending", "current", "admitted", "succeeded", "reverted", "returning", "returned", "stuck"]
)
def test_a_host_that_was_not_admitted_cannot_have_gone(outcome: str) -> None:
    rollout = two_phases()
    answer = rollout.report("a0", outcome)
    assert answer == (Recorded() if outcome == "pending" else Denied(f"a0 is pending: it cannot have {outcome}"))
    assert rollout.kinds == ["opened"]


@pytest.mark.parametrize("outcome", ["succeeded", "reverted", "failed", "lost", "unreachable"])
def test_a_report_from_the_way_forward_does_not_end_the_way_back(outcome: str) -> None:
    rollout = Rollout(phase(hosts=2, window=2))
    rollout.ask("a0")
    rollout.now += LEASE
    rollout.ask("a1")
    assert isinstance(rollout.ask("a0"), Admitted)
    assert isinstance(rollout.report("a0", outcome), Denied)
    assert rollout.status("a0") == "returning"
    assert rollout.report("a0", "returned") == Recorded()


# The failure budget


@pytest.mark.parametrize("outcome", ["reverted", "failed", "lost", "unreachable", "unstaged"])
@pytest.mark.parametrize("budget", [0, 1, 2])
def test_more_failures_than_the_budget_turn_the_rollout_round(outcome: str, budget: int) -> None:
    rollout = Rollout(phase(hosts=6, window=6), budget=budget)
    for index in range(budget + 1):
        assert rollout.state.status is Status.ROLLING
        name = f"a{index}"
        if outcome not in ("unreachable", "unstaged"):
            rollout.ask(name)
        rollout.report(name, outcome)
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.state.reason == f"{budget + 1} failed, more than the failure budget of {budget}"


def test_the_budget_is_of_the_whole_rollout() -> None:
    rollout = Rollout(phase(hosts=2), phase(hosts=3), budget=1)
    rollout.go("a0", outcome="reverted")
    rollout.go("a1")
    rollout.go("b0", outcome="reverted")
    assert rollout.state.status is Status.TURNING_BACK


def test_a_failure_while_a_gate_is_asked_counts() -> None:
    rollout = two_phases(bake=30.0)
    rollout.go("a0")
    rollout.report("b0", "unstaged")
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.judge(Verdict.PASS) == Denied("no gate is open: the rollout is turning_back")


def test_a_failure_before_the_closing_counts() -> None:
    rollout = Rollout(phase())
    rollout.go("a0")
    assert rollout.state.status is Status.ROLLED
    rollout.report("a0", "failed")
    assert rollout.state.status is Status.TURNING_BACK


def test_a_phase_without_a_success_does_not_pass_whatever_the_budget() -> None:
    rollout = Rollout(phase(hosts=2), phase(), budget=5)
    rollout.go("a0", "a1", outcome="reverted")
    assert rollout.state.reason == "no host of phase canary succeeded"


# Gates


def test_without_a_bake_the_next_phase_opens_at_once() -> None:
    rollout = two_phases()
    assert rollout.go("a0") == Recorded()
    assert (rollout.state.status, rollout.state.phase) == (Status.ROLLING, 1)


def test_who_closes_a_phase_asks_its_gate() -> None:
    rollout = two_phases(bake=30.0)
    assert rollout.go("a0") == Recorded(gate_due=True)
    assert rollout.state.gate is not None
    assert (rollout.state.gate.holder, rollout.state.gate.bake_until) == ("a0", NOW + 30)
    assert rollout.ask("b0") == Wait("phase canary bakes, then its gate is asked", NOW + 30)
    assert rollout.judge(Verdict.PASS) == Wait("phase canary bakes", NOW + 30)
    rollout.now += 30
    assert rollout.ask("b0") == Wait("a0 asks the gate of phase canary", NOW + 30 + decide.GATE_LEASE)
    assert rollout.judge(Verdict.PASS) == Recorded()
    assert isinstance(rollout.ask("b0"), Admitted)


def test_a_phase_with_a_hook_has_a_gate_though_it_does_not_bake() -> None:
    rollout = two_phases(hooked=True)
    assert rollout.go("a0") == Recorded(gate_due=True)
    assert isinstance(rollout.ask("b0"), Wait)
    assert rollout.judge(Verdict.PASS) == Recorded()
    assert isinstance(rollout.ask("b0"), Admitted)


def test_a_gate_that_fails_need_not_wait_for_the_bake() -> None:
    rollout = two_phases(bake=30.0)
    rollout.go("a0")
    assert rollout.judge(Verdict.FAIL, "errors rose") == Recorded()
    assert rollout.state.status is Status.TURNING_BACK
    assert rollout.state.reason == "the gate of phase canary failed: errors rose"


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_gate_that_cannot_tell_asks_a_person(verdict: Verdict) -> None:
    rollout = two_phases(bake=30.0)
    rollout.go("a0")
    assert rollout.judge(verdict, "no traffic") == Recorded()
    rollout.now += 10_000
    held = f"the gate of phase canary is {verdict}: no traffic"
    assert rollout.ask("b0") == Wait(held)
    assert rollout.close() == Denied(held)
    assert rollout.approve() == Recorded()
    assert isinstance(rollout.ask("b0"), Admitted)


def test_nobody_passes_a_gate_that_is_still_asked() -> None:
    rollout = two_phases(bake=30.0)
    rollout.go("a0")
    unanswered = "nothing waits for an approval: the gate of phase canary has not been answered"
    assert rollout.approve() == Denied(unanswered)


def test_a_holder_that_goes_silent_ends_the_run_not_the_rollout() -> None:
    rollout = two_phases(bake=30.0)
    rollout.go("a0")
    rollout.now += 30 + decide.GATE_LEASE
    silent = (
        "phase canary has closed, but a0, which was to ask its gate, is silent: run the same command again to go on"
    )
    assert rollout.ask("b0") == Denied(silent)
    assert rollout.close() == Denied("the gate of phase canary has not been answered")
    rollout.resume(a0=Sighting.SETTLED)
    assert rollout.state.gate is not None
    assert rollout.state.gate.holder == "another"


def test_a_phase_that_a_lost_host_closes_has_nobody_to_ask_its_gate() -> None:
    rollout = Rollout(phase(hosts=2, window=2, bake=30.0), phase(), budget=1)
    rollout.go("a0")
    rollout.ask("a1")
    rollout.now += LEASE
    nobody = "phase canary has closed, but nobody asks its gate: run the same command again to go on"
    assert rollout.ask("b0") == Denied(nobody)


def test_no_gate_is_open() -> None:
    assert two_phases().judge(Verdict.PASS) == Denied("no gate is open: the rollout is rolling")


# People


def test_a_pause_admits_nobody_until_it_ends() -> None:
    rollout = Rollout(phase(hosts=2))
    assert rollout.pause() == Recorded()
    assert rollout.ask("a0") == Wait("paused: lunch")
    assert rollout.close() == Denied("paused: lunch")
    assert rollout.take(decide.unpause(rollout.state, NOW)) == Recorded()
    assert isinstance(rollout.ask("a0"), Admitted)
    assert rollout.take(decide.unpause(rollout.state, NOW)) == Denied("the rollout is not paused")


def test_what_is_under_way_is_reported_while_paused() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.ask("a0")
    rollout.pause()
    assert rollout.report("a0", "succeeded") == Recorded()
    assert rollout.status("a0") == "succeeded"


def test_a_pause_survives_the_run() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.pause()
    rollout.resume()
    assert rollout.ask("a0") == Wait("paused: lunch")


def test_the_way_back_does_not_pause() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.go("a0")
    rollout.pause()
    assert rollout.turn_back() == Recorded()
    assert isinstance(rollout.ask("a0"), Admitted)
    assert rollout.pause() == Denied("the rollout is turning_back: only the way forward can be paused")


def test_it_turns_back_once() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.turn_back()
    assert rollout.turn_back() == Denied("the rollout is turning_back already")


@pytest.mark.parametrize("act", [Rollout.pause, Rollout.approve, Rollout.turn_back])
def test_nobody_changes_what_has_ended(act: Any) -> None:
    rollout = Rollout(phase())
    rollout.go("a0")
    rollout.close()
    assert isinstance(act(rollout), Denied)
    assert isinstance(rollout.ask("a0"), Denied)


# The way back


def test_only_hosts_of_the_new_release_go_back() -> None:
    rollout = Rollout(phase(hosts=5, window=5), budget=2, a4=HostStatus.CURRENT)
    rollout.go("a0", outcome="succeeded")
    rollout.go("a1", outcome="reverted")
    rollout.go("a2", outcome="failed")
    rollout.turn_back("abort")
    assert [type(rollout.ask(name)) for name in ("a0", "a1", "a2", "a3", "a4")] == [
        Admitted,
        Denied,
        Admitted,
        Denied,
        Denied,
    ]
    assert rollout.ask("a3") == Denied("the rollout turns back: abort")


def test_the_way_back_has_its_own_window() -> None:
    rollout = Rollout(phase(hosts=4, window=4), back=2)
    rollout.go("a0", "a1", "a2")
    rollout.turn_back()
    assert [type(rollout.ask(name)) for name in ("a0", "a1", "a2")] == [Admitted, Admitted, Wait]
    assert rollout.ask("a2") == Wait("a0, a1 fill the window of 2 on the way back", NOW + LEASE)


def test_one_host_may_always_go_back_however_many_are_out() -> None:
    rollout = Rollout(phase(hosts=5, window=5), budget=4, back=1)
    rollout.go("a0")
    rollout.go("a1", "a2", outcome="failed")
    rollout.turn_back()
    assert isinstance(rollout.ask("a0"), Admitted)
    assert isinstance(rollout.ask("a1"), Wait)


def test_a_host_that_is_still_on_its_way_forward_is_waited_for() -> None:
    rollout = Rollout(phase(hosts=2, window=2))
    rollout.ask("a0")
    rollout.turn_back()
    assert rollout.ask("a0") == Wait("it has not reported from its way forward yet", NOW + LEASE)
    rollout.report("a0", "succeeded")
    assert isinstance(rollout.ask("a0"), Admitted)


def test_a_host_that_was_lost_on_its_way_forward_goes_back() -> None:
    rollout = Rollout(phase(hosts=2, window=2))
    rollout.ask("a0")
    rollout.turn_back()
    rollout.now += LEASE
    assert isinstance(rollout.ask("a0"), Admitted)


def test_a_host_that_is_lost_on_its_way_back_is_stuck() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.go("a0")
    rollout.turn_back()
    rollout.ask("a0")
    rollout.now += LEASE
    assert rollout.ask("a0") == Denied("the rollout turns back: abort")
    assert rollout.status("a0") == "stuck"
    rollout.report("a0", "returned")
    assert rollout.status("a0") == "returned"


# Closing


def test_success() -> None:
    rollout = two_phases()
    rollout.go("a0", "b0", "b1")
    assert rollout.close() == Denied("phase fleet has 1 of 3 hosts to go")
    rollout.go("b2")
    assert rollout.close() == Recorded()
    assert rollout.state.status is Status.SUCCEEDED


def test_everything_came_back() -> None:
    rollout = Rollout(phase(hosts=3, window=3))
    rollout.go("a0")
    rollout.go("a1", outcome="reverted")
    rollout.go("a0", outcome="returned")
    assert rollout.close() == Recorded()
    assert rollout.state.status is Status.REVERTED


@pytest.mark.parametrize("outcome", ["stuck", None])
def test_a_host_that_did_not_come_back_makes_it_failed(outcome: str | None) -> None:
    rollout = Rollout(phase(hosts=3, window=3))
    rollout.go("a0")
    rollout.turn_back()
    if outcome:
        rollout.go("a0", outcome=outcome)
    rollout.close()
    assert rollout.state.status is Status.FAILED
    assert rollout.state.reason == "abort"


@pytest.mark.parametrize("back", [False, True])
def test_a_rollout_does_not_close_while_others_are_at_work(back: bool) -> None:
    rollout = Rollout(phase(hosts=3, window=3))
    if back:
        rollout.go("a0")
        rollout.turn_back()
    rollout.ask("a0")
    rollout.turn_back()
    assert rollout.close() == Wait("a0 have not reported yet", NOW + LEASE)
    rollout.now += LEASE
    assert rollout.close() == Recorded()
    assert rollout.status("a0") == ("stuck" if back else "lost")
    assert rollout.state.status is Status.FAILED


def test_a_loss_that_the_closing_finds_turns_the_rollout_round_first() -> None:
    rollout = Rollout(phase(hosts=2, window=2))
    rollout.ask("a0")
    rollout.now += LEASE
    assert rollout.close() == Denied("the rollout turns back: 1 failed, more than the failure budget of 0")
    assert rollout.state.status is Status.TURNING_BACK
    rollout.go("a0", outcome="returned")
    rollout.close()
    assert rollout.state.status is Status.REVERTED


def test_it_closes_once() -> None:
    rollout = Rollout(phase())
    rollout.go("a0")
    rollout.close()
    assert rollout.close() == Denied("the rollout has succeeded")


# Resuming

S = Sighting


@pytest.mark.parametrize(
    ("written", "settled", "elsewhere", "broken", "unreachable"),
    [
        ("pending", "current", "pending", "pending", "unreachable"),
        ("current", "current", "pending", "pending", "unreachable"),
        ("unreachable", "current", "pending", "pending", "unreachable"),
        ("unstaged", "current", "pending", "pending", "unreachable"),
        ("admitted", "succeeded", "pending", "pending, down", "lost"),
        ("succeeded", "succeeded", "pending", "pending, down", "lost"),
        ("lost", "succeeded", "pending", "pending, down", "lost"),
        ("reverted", "succeeded", "reverted", "failed", "failed"),
        ("failed", "succeeded", "reverted", "failed", "failed"),
    ],
)
def test_what_a_host_is_decides_not_what_was_written(
    written: str, settled: str, elsewhere: str, broken: str, unreachable: str
) -> None:
    for sighting, expected in zip(Sighting, (settled, elsewhere, broken, unreachable), strict=True):
        rollout = Rollout(phase(hosts=3, window=3), budget=3, **given_status(written))
        reach(rollout, written)
        rollout.resume(a0=sighting)
        is_now = rollout.status("a0") + (", down" if "a0" in rollout.state.down else "")
        assert is_now == expected, f"{written}, then seen {sighting}"


@pytest.mark.parametrize(
    ("written", "elsewhere", "broken"),
    [
        ("admitted", "succeeded", "lost"),
        ("succeeded", "succeeded", "lost"),
        ("lost", "succeeded", "lost"),
        ("failed", "succeeded", "lost"),
        ("returning", "succeeded", "lost"),
        ("returned", "succeeded", "lost"),
        ("stuck", "succeeded", "lost"),
    ],
)
def test_on_the_way_back_whatever_is_not_there_goes_again(written: str, elsewhere: str, broken: str) -> None:
    for sighting, expected in zip(Sighting, ("returned", elsewhere, broken, broken), strict=True):
        rollout = Rollout(phase(hosts=3, window=3), budget=3)
        if written in ("returning", "returned", "stuck"):
            rollout.go("a0")
            rollout.turn_back()
            rollout.ask("a0")
            if written != "returning":
                rollout.report("a0", written)
        else:
            reach(rollout, written)
            rollout.turn_back()
        rollout.resume(a0=sighting)
        assert rollout.status("a0") == expected, f"{written}, then seen {sighting}"


@pytest.mark.parametrize("written", ["pending", "current", "reverted", "unreachable", "unstaged"])
@pytest.mark.parametrize("sighting", list(Sighting))
def test_on_the_way_back_what_never_went_is_left_alone(written: str, sighting: Sighting) -> None:
    rollout = Rollout(phase(hosts=3, window=3), budget=3, **given_status(written))
    reach(rollout, written)
    rollout.turn_back()
    rollout.resume(a0=sighting)
    assert rollout.status("a0") == written


def given_status(written: str) -> dict[str, HostStatus]:
    return {"a0": HostStatus(written)} if written in ("current", "unreachable") else {}


def reach(rollout: Rollout, written: str) -> None:
    """Get host a0 where it is ``written``."""
    if written not in ("pending", "current", "unreachable", "unstaged"):
        rollout.ask("a0")
    if written not in ("pending", "current", "unreachable", "admitted"):
        rollout.report("a0", written)
    assert rollout.status("a0") == written


def test_hosts_that_a_dead_run_left_down_keep_their_place_in_the_window_and_go_first() -> None:
    rollout = Rollout(phase(hosts=4, window=2))
    rollout.ask("a0")
    rollout.ask("a1")
    rollout.resume(a0=S.BROKEN, a1=S.BROKEN)
    assert rollout.ask("a2") == Wait("a0, a1 fill the window of 2")
    assert isinstance(rollout.ask("a1"), Admitted)
    assert rollout.ask("a2") == Wait("a0, a1 fill the window of 2", NOW + LEASE)
    rollout.report("a1", "succeeded")
    assert isinstance(rollout.ask("a2"), Admitted)
    assert isinstance(rollout.ask("a0"), Wait) is False
    assert rollout.ask("a3") == Wait("a0, a2 fill the window of 2", NOW + LEASE)


def test_a_host_that_is_down_goes_into_a_full_zone_since_it_is_out_already() -> None:
    rollout = Rollout(phase(hosts=4, window=4, zone_window=1), budget=3)
    rollout.rows["a3"] = replace(rollout.rows["a3"], zone="0")
    rollout.go("a0", outcome="failed")
    rollout.state = replace(rollout.state, down={"a3": "0"})
    assert isinstance(rollout.ask("a3"), Admitted)


def test_a_host_that_is_down_goes_back_with_the_others() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.ask("a0")
    rollout.resume(a0=S.BROKEN)
    rollout.turn_back()
    rollout.take(Decision(Recorded()))
    assert isinstance(rollout.ask("a0"), Admitted)
    rollout.report("a0", "returned")
    rollout.close()
    assert rollout.state.status is Status.REVERTED


def test_a_host_that_is_left_down_makes_the_rollout_failed() -> None:
    rollout = Rollout(phase(hosts=2))
    rollout.ask("a0")
    rollout.resume(a0=S.BROKEN)
    rollout.turn_back()
    rollout.close()
    assert rollout.state.status is Status.FAILED


@pytest.mark.parametrize(
    ("sighting", "status", "down"),
    [
        (S.SETTLED, "succeeded", False),
        (S.ELSEWHERE, "pending", False),
        (S.BROKEN, "pending", True),
        (S.UNREACHABLE, "lost", False),
    ],
)
def test_a_host_that_was_down_is_read_again(sighting: Sighting, status: str, down: bool) -> None:
    rollout = Rollout(phase(hosts=2, window=2), budget=1)
    rollout.ask("a0")
    rollout.resume(a0=S.BROKEN)
    rollout.resume(a0=sighting)
    assert (rollout.status("a0"), "a0" in rollout.state.down) == (status, down)


@pytest.mark.parametrize(("outcome", "recorded"), [("unreachable", "lost"), ("unstaged", "failed")])
def test_a_host_that_is_down_and_cannot_begin_stays_out(outcome: str, recorded: str) -> None:
    rollout = Rollout(phase(hosts=4, window=2), budget=1)
    rollout.ask("a0")
    rollout.resume(a0=S.BROKEN)
    rollout.report("a0", outcome)
    assert rollout.status("a0") == recorded
    assert rollout.state.out == {"a0": "0"}


def test_who_resumes_after_the_last_host_asks_the_gate() -> None:
    rollout = two_phases(bake=30.0)
    rollout.ask("a0")
    rollout.resume(a0=S.SETTLED)
    assert rollout.state.status is Status.GATING
    assert rollout.state.gate is not None
    assert rollout.state.gate.holder == "another"


def test_phases_that_passed_stay_passed() -> None:
    rollout = two_phases()
    rollout.go("a0", "b0")
    rollout.resume(a0=S.SETTLED, b0=S.SETTLED)
    assert rollout.state.phase == 1
    assert isinstance(rollout.ask("b1"), Admitted)


def test_a_canary_that_reverted_by_itself_goes_again_beside_the_open_phase() -> None:
    rollout = two_phases()
    rollout.go("a0", "b0")
    rollout.resume(a0=S.ELSEWHERE, b0=S.SETTLED)
    assert rollout.status("a0") == "pending"
    rollout.go("b1", "b2")
    assert rollout.state.status is Status.ROLLING
    rollout.go("a0")
    assert rollout.state.status is Status.ROLLED


def test_nothing_is_written_of_hosts_that_are_as_was_written() -> None:
    rollout = two_phases()
    rollout.go("a0")
    events: tuple[Event, ...] = decide.resume(
        rollout.plan,
        rollout.state,
        [(rollout.rows["a0"], S.SETTLED), (rollout.rows["b0"], S.ELSEWHERE)],
        NOW,
        "another",
    ).events
    assert [event.kind for event in events] == ["resumed"]


# budgets, scopes, holds, and what always serves


def limited(*phases: PlannedPhase, rules: dict[str, Any], **statuses: HostStatus) -> Rollout:
    """A rollout whose plan has further rules."""
    rollout = Rollout(*phases, **statuses)
    rollout.plan = replace(rollout.plan, size=len(rollout.rows), **rules)
    return rollout


SIX = PlannedPhase("all", 6, 6)


def test_failures_one_after_the_other_turn_it_round_though_the_budget_would_allow_them() -> None:
    rollout = limited(SIX, rules={"failure_budget": 5, "consecutive_failures": 1})
    rollout.go("a0", outcome="reverted")
    rollout.go("a1")
    rollout.go("a2", outcome="reverted")
    assert rollout.state.status is Status.ROLLING
    rollout.go("a3", outcome="reverted")
    assert rollout.state.reason == "2 failed one after the other, more than the 1 that may"


def test_failures_of_one_zone_turn_it_round() -> None:
    rollout = limited(
        PlannedPhase("one", 2, 2), PlannedPhase("two", 2, 2), rules={"failure_budget": 4, "zone_failures": 1}
    )
    rollout.go("a0", outcome="reverted")  # a zone is named after the last letter of its hosts
    rollout.go("a1")
    rollout.go("b1", outcome="reverted")
    assert rollout.state.status is Status.ROLLING
    rollout.go("b0", outcome="reverted")
    assert rollout.state.reason == "2 of zone 0 failed, more than the failure budget of 1 of a zone"


def test_unreachable_hosts_of_a_zone_count_from_the_beginning() -> None:
    plan = replace(
        Rollout(PlannedPhase("one", 3, 1), a1=HostStatus.UNREACHABLE).plan, zone_failures=0, failure_budget=3
    )
    opened = decide.opening(plan, NOW, "root", {})
    assert [event.kind for event in opened.events] == ["opened", "turned_back"]


@pytest.mark.parametrize(
    ("scope", "back"),
    [(Scope.ALL, {"a0", "b0"}), (Scope.PHASE, {"b0"}), (Scope.HOST, set()), (Scope.NONE, set())],
)
def test_the_scope_says_which_hosts_go_back(scope: Scope, back: set[str]) -> None:
    rollout = limited(PlannedPhase("one", 1, 3), PlannedPhase("two", 3, 3), rules={"scope": scope})
    rollout.go("a0", "b0")
    rollout.go("b1", outcome="reverted")
    assert rollout.state.status is Status.TURNING_BACK
    assert {name for name, row in rollout.rows.items() if decide.goes_back(rollout.state, row)} == back
    for name in back:
        rollout.go(name, outcome="returned")
    assert rollout.take(decide.close(rollout.plan, rollout.state, rollout.now)) == Recorded()
    assert rollout.state.status is (Status.REVERTED if scope is Scope.ALL else Status.FAILED)


def test_a_host_that_failed_goes_back_in_every_scope_but_none() -> None:
    for scope in Scope:
        rollout = limited(PlannedPhase("one", 2, 2), rules={"scope": scope})
        rollout.go("a0", outcome="failed")
        assert decide.goes_back(rollout.state, rollout.rows["a0"]) is (scope is not Scope.NONE)


def test_a_person_may_stop_it_where_it_is() -> None:
    rollout = Rollout(PlannedPhase("one", 2, 1))
    rollout.go("a0")
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "enough", rollout.now, stop=True))
    assert rollout.ask("a0") == Denied("the rollout turns back: enough")
    rollout.take(decide.close(rollout.plan, rollout.state, rollout.now))
    assert rollout.state.status is Status.FAILED


def test_a_rollout_that_holds_waits_for_a_person_and_forgets_what_failed() -> None:
    rollout = Rollout(PlannedPhase("one", 4, 4, on_failure=OnFailure.HOLD))
    rollout.go("a0", outcome="reverted")
    told = "1 failed, more than the failure budget of 0"
    assert rollout.ask("a1") == Wait(f"held: {told}")
    assert rollout.take(decide.approve(rollout.plan, rollout.state, "known", rollout.now)) == Recorded()
    rollout.go("a1")
    rollout.go("a2", outcome="reverted")
    assert rollout.state.held == told


def test_a_rollout_that_cannot_go_on_is_not_let_go_on() -> None:
    rollout = Rollout(PlannedPhase("one", 4, 1, on_failure=OnFailure.HOLD), budget=3)
    rollout.go("a0", outcome="failed")
    assert rollout.state.held == "a0 fill the window of 1: no further host may go"
    answer = rollout.take(decide.approve(rollout.plan, rollout.state, "go", rollout.now))
    assert isinstance(answer, Denied)
    assert answer.reason.endswith("Mend the hosts and deploy again, or abort")


def test_a_gate_that_fails_holds_too() -> None:
    rollout = Rollout(PlannedPhase("one", 1, 1, bake=5.0, on_failure=OnFailure.HOLD))
    rollout.go("a0")
    rollout.judge(Verdict.FAIL, "too slow")
    assert rollout.state.gate
    assert rollout.state.gate.held == "the gate of phase one is fail: too slow"


def test_a_rollout_that_continues_has_failed_in_the_end() -> None:
    rollout = Rollout(PlannedPhase("one", 3, 3, on_failure=OnFailure.CONTINUE))
    rollout.go("a0", "a1", outcome="reverted")
    rollout.go("a2")
    rollout.take(decide.close(rollout.plan, rollout.state, rollout.now))
    assert rollout.state.status is Status.FAILED
    assert rollout.state.reason == "2 failed, more than the failure budget of 0"


def test_so_many_serve_at_any_time() -> None:
    rollout = limited(PlannedPhase("one", 4, 4), rules={"min_available": 2})
    assert isinstance(rollout.ask("a0"), Admitted)
    assert isinstance(rollout.ask("a1"), Admitted)
    assert rollout.ask("a2") == Wait("only 2 hosts serve, 2 always have to", rollout.now + LEASE)
    rollout.report("a0", "succeeded")
    assert isinstance(rollout.ask("a2"), Admitted)


def test_where_too_few_serve_for_good_it_turns_back() -> None:
    rollout = limited(PlannedPhase("one", 3, 3), rules={"min_available": 2, "failure_budget": 3})
    rollout.go("a0", outcome="failed")
    assert rollout.state.reason == "only 2 hosts serve, and 2 always have to: no further host may go"


def test_a_host_that_does_not_serve_may_always_go() -> None:
    rollout = limited(PlannedPhase("one", 2, 2), rules={"min_available": 1})
    rollout.state = replace(rollout.state, absent={"a1": 0})
    assert isinstance(rollout.ask("a0"), Wait)
    rollout.go("a1")
    assert isinstance(rollout.ask("a0"), Admitted)


def test_hosts_go_in_order_as_long_as_those_before_them_may_ask() -> None:
    rollout = Rollout(PlannedPhase("one", 3, 1))
    third = replace(rollout.rows["a2"], ahead=2)
    asked = decide.admit(rollout.plan, rollout.state, third, rollout.now)
    assert asked.answer == Wait("hosts of phase one that stand before it go first", NOW + decide.TURN_GRACE)
    late = decide.admit(rollout.plan, rollout.state, third, rollout.now + decide.TURN_GRACE)
    assert isinstance(late.answer, Admitted)


def test_the_hosts_before_another_are_counted_only_where_they_may_bar_it() -> None:
    rollout = Rollout(PlannedPhase("one", 4, 2), PlannedPhase("two", 1, 2))

    def places(name: str) -> int:
        return decide.places_for_others(rollout.plan, rollout.state, rollout.rows[name])

    assert (places("a3"), places("b0")) == (2, 0)
    rollout.ask("a0")
    assert (places("a3"), places("a0")) == (1, 0)
    rollout.ask("a1")
    assert places("a3") == 0  # the window is full, whoever asks
    rollout.report("a0", "succeeded")
    rollout.report("a1", "succeeded")
    assert places("a3") == 0  # there is room for all that have to go


def test_who_waits_is_woken_only_where_it_may_go_or_has_something_to_learn() -> None:
    rollout = Rollout(PlannedPhase("one", 4, 2), PlannedPhase("two", 1, 2))

    def after(decision: Decision) -> int | None:
        rollout.take(decision)
        return decide.places_to_fill(rollout.plan, rollout.state, decision.events)

    def ask(name: str) -> Decision:
        return decide.admit(rollout.plan, rollout.state, rollout.rows[name], rollout.now)

    def report(name: str) -> Decision:
        return decide.report(rollout.plan, rollout.state, rollout.rows[name], HostStatus.SUCCEEDED, rollout.now)

    assert [after(ask("a0")), after(ask("a1"))] == [1, 0]
    assert after(report("a0")) == 1
    assert after(decide.pause(rollout.state, "lunch", rollout.now)) is None
    assert after(report("a1")) is None  # paused
    assert after(decide.turn_back(rollout.plan, rollout.state, "enough", rollout.now)) is None


def test_without_progress_it_fails_unless_a_person_is_awaited() -> None:
    rollout = limited(PlannedPhase("one", 3, 3), rules={"progress_deadline": 50.0})
    rollout.go("a0")
    rollout.take(decide.pause(rollout.state, "lunch", rollout.now))
    rollout.now += 51
    assert rollout.ask("a1") == Wait("paused: lunch")
    rollout.take(decide.unpause(rollout.state, rollout.now))
    rollout.now += 50
    assert isinstance(rollout.ask("a1"), Admitted)
    rollout.now += 1
    rollout.ask("a2")
    assert rollout.state.reason == "no host has succeeded for 51 s, the progress deadline is 50 s"


def test_a_host_that_cannot_be_reached_may_be_deferred() -> None:
    rollout = limited(PlannedPhase("one", 2, 2), rules={"defers": True})
    rollout.report("a0", "unreachable")
    assert rollout.rows["a0"].status is HostStatus.DEFERRED
    rollout.go("a1")
    rollout.take(decide.close(rollout.plan, rollout.state, rollout.now))
    assert rollout.state.status is Status.SUCCEEDED


def test_a_host_that_goes_away_on_its_way_is_lost_and_not_deferred() -> None:
    rollout = limited(PlannedPhase("one", 2, 2), rules={"defers": True, "failure_budget": 1})
    rollout.go("a0", outcome="unreachable")
    assert rollout.rows["a0"].status is HostStatus.LOST
