# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations: how they are written, where they are put, what is due, and what becomes of them on a way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide, migrations
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Decision,
    Denied,
    HostRecord,
    Migrate,
    MigrationReport,
    Recorded,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, Plan, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    SpecError,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Applied,
    HostStatus,
    RolloutState,
    Standing,
    Status,
    evolve,
)

PHASES = (
    {"name": "canary", "size": 1},
    {"name": "early", "size": 2, "approval": True},
    {"name": "fleet", "size": "100%"},
)
RUN = "root@controller"


def spec(*raw: Any, phases: Any = PHASES) -> RolloutSpec:
    parsed = parse_phases(list(phases), 1)
    found = migrations.parse_migrations(list(raw), parsed, 600.0, ["db1"])
    return RolloutSpec(parsed, FailureBudget(Quantity(0)), Quantity(1), 600.0, migrations=found)


def one(name: str = "m1", **given: Any) -> dict[str, Any]:
    back = {} if "irreversible" in given else {"reverse": "/r.yml"}
    return {"name": name, "tasks": "/t.yml", **back, **given}


def plan(*raw: Any, phases: Any = PHASES, hosts: int = 3) -> Plan:
    facts = [HostFacts(f"app{n}", "new", "old", health=Health.HEALTHY) for n in range(1, hosts + 1)]
    return make_plan(spec(*raw, phases=phases), facts)


class Rollout:
    """A rollout that is moved by decisions."""

    def __init__(self, plan: Plan, before: RolloutState | None = None) -> None:
        self.plan, self.now, self.state = plan, 1000.0, RolloutState()
        self.take(decide.opening(plan, self.now, RUN, {}, before=before))

    def take(self, decision: Decision) -> decide.Answer:
        for event in decision.events:
            self.state = evolve(self.state, event)
        return decision.answer

    def ask(self) -> decide.Answer:
        return self.take(decide.admit_migration(self.plan, self.state, RUN, self.now))

    def report(self, run: Migrate, why: str = "") -> decide.Answer:
        said = MigrationReport(run.migration.name, run.until, not why, why)
        return self.take(decide.report_migration(self.plan, self.state, said, self.now, RUN))

    def migrate(self, why: str = "") -> str:
        """Run the one that is due; its name."""
        run = self.ask()
        assert isinstance(run, Migrate), run
        self.report(run, why)
        return run.migration.name

    def settle(self, name: str, done: bool) -> decide.Answer:
        return self.take(decide.settle_migration(self.plan, self.state, name, done, "anna: seen", self.now))

    def roll(self, nth: int, outcome: HostStatus = HostStatus.SUCCEEDED) -> None:
        host = HostRecord(f"app{nth}", nth - 1, "", HostStatus.PENDING)
        self.take(decide.admit(self.plan, self.state, host, self.now))
        admitted = replace(host, status=HostStatus.ADMITTED)
        self.take(decide.report(self.plan, self.state, admitted, outcome, self.now))

    def close(self) -> decide.Answer:
        return self.take(decide.close(self.plan, self.state, self.now))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("m1", "component_migrations[0]: 'm1' is no migration"),
        (one(nmae="m"), "component_migrations[0]: unknown key 'nmae': did you mean 'name'?"),
        ({"name": "m1", "reverse": "/r.yml"}, "component_migrations[0]: 'tasks' is missing"),
        (one(7), "component_migrations[0]: 'name' is missing, or no text: 7"),
        ({"name": "m1", "tasks": "/t.yml"}, "'m1' needs either reverse, the task file that takes it back, or irrev"),
        ({**one(irreversible=True), "reverse": "/r.yml"}, "'m1' needs either reverse"),
        (one(before="canry"), "component_migrations[0].before: there is no phase 'canry': did you mean 'canary'?"),
        (one(before="canary", after="fleet"), "component_migrations[0]: before and after are both set"),
        (one(run_on="db2"), "component_migrations[0].run_on: there is no host 'db2' in the inventory"),
        (one(timeout=0), "component_migrations[0].timeout: 0 is no time: write seconds, at least 1"),
        (one(idempotent="maybe"), "component_migrations[0].idempotent: 'maybe' is neither true nor false"),
        (one(irreversible=True, on_irreversible="go"), "component_migrations[0].on_irreversible: unknown value 'go'"),
        (one(on_irreversible="hold"), "component_migrations[0].on_irreversible: 'm1' can be reversed"),
    ],
)
def test_what_cannot_be_used_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        spec(raw)
    assert said in str(refused.value)


def test_a_list_that_is_none_and_a_name_that_is_used_twice_are_refused() -> None:
    with pytest.raises(SpecError, match="is no list of migrations"):
        migrations.parse_migrations({"name": "m1"}, parse_phases(list(PHASES), 1), 600.0, [])
    with pytest.raises(SpecError, match="the name 'm1' is used twice"):
        spec(one(), one())


@pytest.mark.parametrize(
    ("place", "phase", "early"),
    [
        ({}, 0, False),
        ({"before": "first"}, 0, False),
        ({"after": "canary"}, 1, True),
        ({"before": "early"}, 1, False),
        ({"before": "last"}, 2, False),
        ({"after": "last"}, 3, True),
    ],
)
def test_each_has_its_place(place: dict[str, str], phase: int, early: bool) -> None:
    (found,) = plan(one(**place)).migrations
    assert (found.phase, found.early) == (phase, early)


def test_a_phase_that_has_no_hosts_is_a_place_all_the_same() -> None:
    small = plan(one("m1", before="early"), one("m2", after="early"), hosts=1)
    assert [(phase.name, found.phase) for phase, found in zip(small.phases * 2, small.migrations, strict=True)] == [
        ("canary", 1),
        ("canary", 1),
    ]


def test_only_what_is_irreversible_after_the_last_phase_holds_by_itself() -> None:
    asked = [
        one("m1", irreversible=True),
        one("m2", irreversible=True, on_irreversible="hold"),
        one("m3", irreversible=True, after="last"),
        one("m4", irreversible=True, after="last", on_irreversible="go_back"),
        one("m5", after="last"),
    ]
    assert [found.holds for found in plan(*asked).migrations] == [False, True, True, False, False]


def test_the_plan_survives_its_way_through_the_ledger() -> None:
    found = plan(one(), one("m2", irreversible=True, after="last"))
    assert replace(Plan.from_rules(found.rules()), hosts=found.hosts) == found
    assert found.digest() != plan(one()).digest()


def test_a_plan_without_any_is_that_of_a_version_that_knew_of_none() -> None:
    """So that a rollout which such a version left open is resumed, and not superseded."""
    assert "migrations" not in plan().rules()


def test_those_that_have_yet_to_run_keep_the_order_in_which_they_were_written() -> None:
    found = plan(one("m1", after="last"), one("m2"))
    with pytest.raises(SpecError, match="'m2' comes after 'm1', but would run before it"):
        migrations.plan_forward(found, {}, "1.1.0")
    known = {"m1": Applied(Standing.APPLIED, 1)}
    assert {one.release for one in migrations.plan_forward(found, known, "1.1.0").migrations} == {"1.1.0"}


def test_each_runs_in_its_place_and_nobody_goes_before() -> None:
    rollout = Rollout(plan(one("m1"), one("m2", after="canary"), one("m3", before="early"), one("m4", after="last")))
    host = HostRecord("app1", 0, "", HostStatus.PENDING)
    run = rollout.take(decide.admit(rollout.plan, rollout.state, host, rollout.now))
    assert isinstance(run, Migrate)
    waits = rollout.take(decide.admit(rollout.plan, rollout.state, replace(host, name="app2"), rollout.now))
    assert waits == Wait("app1 runs migration m1", run.until)
    assert isinstance(rollout.report(run), Recorded)
    rollout.roll(1)
    assert rollout.migrate() == "m2"
    assert rollout.ask() == Wait("phase early waits for an approval")
    rollout.take(decide.approve(rollout.plan, rollout.state, "yes", rollout.now))
    assert rollout.migrate() == "m3"
    rollout.roll(2)
    rollout.roll(3)
    assert rollout.close() == Denied("migration m4 has not been run yet")
    assert rollout.migrate() == "m4"
    assert isinstance(rollout.close(), Recorded)
    assert rollout.state.status is Status.SUCCEEDED


def test_all_who_wait_are_woken_when_one_is_due_or_has_ended() -> None:
    """Otherwise only those are that may go next, and nobody would learn in time that there is something to run."""
    phases = [{"name": "canary", "size": 1}, {"name": "fleet", "size": "100%"}]
    rollout = Rollout(plan(one("m1", before="fleet"), phases=phases))

    def woken(decision: Decision) -> int | None:
        rollout.take(decision)
        return decide.places_to_fill(rollout.plan, rollout.state, decision.events)

    assert woken(Decision(Recorded())) == 1
    at_first = plan(one("m1"), phases=phases)
    assert decide.places_to_fill(at_first, rollout.state, ()) is None
    host = HostRecord("app1", 0, "", HostStatus.PENDING)
    assert woken(decide.admit(rollout.plan, rollout.state, host, rollout.now)) == 0
    going = replace(host, status=HostStatus.ADMITTED)
    assert woken(decide.report(rollout.plan, rollout.state, going, HostStatus.SUCCEEDED, rollout.now)) is None
    other = replace(host, name="app2", phase=1)
    begun = decide.admit(rollout.plan, rollout.state, other, rollout.now)
    assert isinstance(begun.answer, Migrate)
    assert woken(begun) is None
    said = MigrationReport("m1", begun.answer.until, went_well=True)
    assert woken(decide.report_migration(rollout.plan, rollout.state, said, rollout.now, "app2")) is None
    assert woken(decide.admit(rollout.plan, rollout.state, other, rollout.now)) == 0


def test_one_that_fails_turns_the_rollout_back_and_the_others_are_reversed_when_the_hosts_are_back() -> None:
    rollout = Rollout(plan(one("m1"), one("m2", after="canary")))
    rollout.migrate()
    rollout.roll(1)
    rollout.migrate("no such table")
    assert (rollout.state.status, rollout.state.reason) == (Status.TURNING_BACK, "migration m2 failed: no such table")
    assert isinstance(rollout.ask(), Denied), "app1 runs the new release"
    host = HostRecord("app1", 0, "", HostStatus.SUCCEEDED)
    rollout.take(decide.admit(rollout.plan, rollout.state, host, rollout.now))
    returning = replace(host, status=HostStatus.RETURNING)
    rollout.take(decide.report(rollout.plan, rollout.state, returning, HostStatus.RETURNED, rollout.now))
    assert rollout.close() == Denied("migration m1 has not been reversed yet")
    run = rollout.ask()
    assert isinstance(run, Migrate)
    assert run.migration.back
    rollout.report(run)
    rollout.close()
    assert (rollout.state.status, rollout.state.migrations) == (Status.REVERTED, {})


@pytest.mark.parametrize("on_failure", ["hold", "continue"])
def test_one_that_fails_holds_a_rollout_that_would_not_turn_back(on_failure: str) -> None:
    rollout = Rollout(plan(one(), phases=[{"name": "all", "size": "100%", "on_failure": on_failure}], hosts=1))
    rollout.migrate("no such table")
    assert isinstance(rollout.ask(), Wait)
    assert "migration m1 failed: no such table" in rollout.state.held
    rollout.take(decide.approve(rollout.plan, rollout.state, "mended", rollout.now))
    assert rollout.migrate() == "m1"


def test_one_that_is_not_reported_in_time_is_in_doubt_until_a_person_has_spoken() -> None:
    rollout = Rollout(plan(one(timeout=30)))
    run = rollout.ask()
    assert isinstance(run, Migrate)
    rollout.now += 30
    held = rollout.ask()
    assert isinstance(held, Wait)
    assert "held: migration m1 is in doubt: root@controller, which ran it, did not report in time" in held.reason
    assert "playbooks/migration.yml -e rollout_migration=m1 -e rollout_order=done" in held.reason
    assert isinstance(rollout.settle("m2", True), Denied)
    assert isinstance(rollout.settle("m1", False), Recorded)
    again = rollout.ask()
    assert isinstance(again, Migrate)
    assert isinstance(rollout.report(run), Denied), "the first one has been overtaken"
    assert isinstance(rollout.report(again), Recorded)


def test_a_report_that_comes_late_ends_the_doubt() -> None:
    rollout = Rollout(plan(one(timeout=30)))
    run = rollout.ask()
    assert isinstance(run, Migrate)
    rollout.now += 31
    assert isinstance(rollout.ask(), Wait)
    assert isinstance(rollout.report(run), Recorded)
    assert isinstance(rollout.ask(), Denied)


@pytest.mark.parametrize("idempotent", [False, True])
def test_one_whose_run_is_gone_is_in_doubt_at_once(idempotent: bool) -> None:
    rollout = Rollout(plan(one(idempotent=idempotent)))
    assert isinstance(rollout.ask(), Migrate)
    rollout.take(decide.resume(rollout.plan, rollout.state, [], rollout.now, RUN))
    assert rollout.state.migrations["m1"].standing is Standing.IN_DOUBT
    assert isinstance(rollout.ask(), Migrate if idempotent else Wait)


def test_the_next_rollout_inherits_what_is_known() -> None:
    before = RolloutState(
        migrations={"m1": Applied(Standing.APPLIED, 1, "1.0.0"), "m2": Applied(Standing.RUNNING, 2, until=9.0, by="x")}
    )
    rollout = Rollout(plan(one("m1"), one("m2"), one("m3")), before)
    held = rollout.ask()
    assert isinstance(held, Wait)
    assert "migration m2 is in doubt: x, which ran it, has ended" in held.reason
    rollout.settle("m2", True)
    assert rollout.migrate() == "m3"
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", rollout.now))
    assert rollout.migrate() == "m3"
    rollout.close()
    assert {name: known.here for name, known in rollout.state.migrations.items()} == {"m1": False, "m2": False}


def test_when_the_last_one_cannot_be_reversed_a_person_decides_about_the_way_back() -> None:
    phases = [{"name": "all", "size": "100%"}]
    raw = [one("m1", irreversible=True, after="last"), one("m2", after="last")]
    for advance in (True, False):
        rollout = Rollout(plan(*raw, phases=phases, hosts=1))
        rollout.roll(1)
        rollout.migrate()
        rollout.migrate("no such table")
        assert rollout.state.status is Status.ROLLED
        assert rollout.state.held == "migration m2 failed: no such table; migration m1 has run and cannot be reversed"
        assert isinstance(rollout.close(), Denied)
        if advance:
            rollout.take(decide.approve(rollout.plan, rollout.state, "mended", rollout.now))
            assert rollout.migrate() == "m2"
        else:
            rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", rollout.now))
            assert rollout.state.status is Status.TURNING_BACK


def test_a_gate_that_fails_after_one_that_holds_asks_a_person() -> None:
    phases = [{"name": "canary", "size": 1, "bake": 1}, {"name": "fleet", "size": "100%"}]
    rollout = Rollout(plan(one(irreversible=True, on_irreversible="hold"), phases=phases))
    rollout.migrate()
    rollout.roll(1)
    rollout.take(decide.judge(rollout.plan, rollout.state, Verdict.FAIL, rollout.now, "errors"))
    assert rollout.state.gate is not None
    assert rollout.state.gate.held.endswith("errors; migration m1 has run and cannot be reversed")


def test_what_cannot_be_reversed_stays_with_all_before_it_and_the_way_back_is_not_barred() -> None:
    rollout = Rollout(plan(one("m1"), one("m2", irreversible=True), one("m3")))
    for name in ("m1", "m2", "m3"):
        assert rollout.migrate() == name
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", rollout.now))
    assert rollout.migrate() == "m3"
    rollout.close()
    assert (rollout.state.status, rollout.state.reason) == (Status.REVERTED, "abort; migration m2, m1 stays")


def test_a_reversal_that_fails_is_in_doubt_and_holds_the_end() -> None:
    rollout = Rollout(plan(one()))
    rollout.migrate()
    rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", rollout.now))
    rollout.migrate("locked")
    assert isinstance(rollout.ask(), Wait)
    assert isinstance(rollout.close(), Denied)
    rollout.settle("m1", False)
    assert rollout.migrate() == "m1"
    rollout.close()
    assert rollout.state.status is Status.REVERTED


def test_a_rollback_reverses_when_all_are_back_and_cannot_turn_round_then() -> None:
    found = plan(one("m1"), one("m2"), phases=[{"name": "all", "size": "100%"}], hosts=1)
    before = RolloutState(migrations={name: Applied(Standing.APPLIED, nth) for nth, name in enumerate(("m1", "m2"))})
    rollout = Rollout(migrations.plan_back(found, ["m2", "m1"]), before)
    assert isinstance(rollout.ask(), Denied)
    rollout.roll(1)
    assert rollout.migrate() == "m2"
    refused = rollout.take(decide.turn_back(rollout.plan, rollout.state, "abort", rollout.now))
    assert isinstance(refused, Denied)
    assert rollout.migrate() == "m1"
    rollout.close()
    assert (rollout.state.status, rollout.state.migrations) == (Status.SUCCEEDED, {})


def test_a_rollback_that_leaves_a_host_behind_reverses_nothing_and_has_failed() -> None:
    phases = [{"name": "all", "size": "100%", "on_failure": "continue"}]
    found = migrations.plan_back(plan(one(), phases=phases, hosts=2), ["m1"])
    found = replace(found, failure_budget=1)
    rollout = Rollout(found, RolloutState(migrations={"m1": Applied(Standing.APPLIED, 1)}))
    for nth, outcome in ((1, HostStatus.SUCCEEDED), (2, HostStatus.REVERTED)):
        host = HostRecord(f"app{nth}", 0, "", HostStatus.PENDING)
        rollout.take(decide.admit(found, rollout.state, host, rollout.now))
        rollout.take(
            decide.report(found, rollout.state, replace(host, status=HostStatus.ADMITTED), outcome, rollout.now)
        )
    assert isinstance(rollout.ask(), Denied)
    rollout.close()
    assert rollout.state.status is Status.FAILED
    assert "migration m1 is not reversed" in rollout.state.reason


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_the_way_back_is_newest_first_and_ends_before_what_cannot_be_reversed(
    order: list[int], kept: set[int], irreversible: set[int]
) -> None:
    known = {f"m{number}": Applied(Standing.APPLIED, nth) for nth, number in enumerate(order)}
    names = [f"m{number}" for number in reversed(order) if number not in kept]
    reversible = {f"m{number}" for number in range(6)} - {f"m{number}" for number in irreversible}
    way = migrations.way_back(known, {f"m{number}" for number in kept}, reversible)
    assert [*way.reverses, *way.stays] == names
    assert set(way.reverses) <= reversible
    assert way.barrier not in reversible
