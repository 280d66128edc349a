# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions that are taken and recorded at once: who holds a rollout, and what the tables say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Denied,
    Migrate,
    MigrationReport,
    Recorded,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    Plan,
    PlannedMigration,
    make_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    HostStatus,
    Standing,
    Status,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import rollouts, schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rebuild import rebuild
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import (
    HEARD,
    BusyError,
    HostRow,
    Opened,
    Rollouts,
    RolloutView,
    Run,
    StaleTokenError,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError

STREAM = "staging/hello"
ANNA = Run("deploy1/0a1b2c3d", 100, 5000, "anna")
BERT = Run("deploy2/9f8e7d6c", 200, 6000, "bert")
FACTS = {"kind": "deploy", "component": "hello", "version": "1.1.0", "environment": "staging"}
START, LEASE, PATIENCE = 1_000_000.0, 60.0, 300.0
S = HostStatus


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


class Scene:
    """A ledger, and the rollouts of one component in it."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.ledger = Ledger(f"sqlite:///{path}", "anna@deploy1", self.clock)
        self.ledger.prepare()
        self.rollouts = Rollouts(self.ledger, STREAM)
        self.token = 0

    def open(self, run: Run = ANNA, new_id: str = "r1", dead: bool | None = True, **options: Any) -> Opened:
        seen = options.get("seen", fleet(4))
        plan = options.get("plan", a_plan())
        opened = self.rollouts.open(plan, seen, FACTS, run, lambda _run: dead, new_id, PATIENCE)
        self.token = opened.token
        return opened

    def admit(self, host: str) -> Admitted | Wait | Denied:
        return self.rollouts.admit("r1", self.token, host)

    def report(self, host: str, outcome: HostStatus, why: str = "") -> Any:
        return self.rollouts.report("r1", self.token, host, outcome, why)

    def go(self, *hosts: str) -> None:
        for host in hosts:
            assert isinstance(self.admit(host), Admitted)
            self.report(host, S.SUCCEEDED)

    @property
    def view(self) -> RolloutView:
        return self.rollouts.standing("r1")

    def row(self, host: str) -> HostRow:
        return next(row for row in self.view.hosts if row.name == host)


def fleet(number: int, **facts: Any) -> dict[str, HostFacts]:
    old = HostFacts("", "hello-1.1.0", "hello-1.0.0", health=Health.HEALTHY, **facts)
    return {f"app{index}": replace(old, name=f"app{index}") for index in range(1, number + 1)}


def a_plan(hosts: dict[str, HostFacts] | None = None, **rules: Any) -> Plan:
    phases = [{"name": "canary", "size": 1, **rules}, {"name": "fleet", "size": "100%"}]
    spec = RolloutSpec(parse_phases(phases, 2), FailureBudget(Quantity(0)), Quantity(50, percent=True), LEASE)
    return make_plan(spec, list((hosts or fleet(4)).values()))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "ledger.db")


def assert_tables_tell_what_the_events_tell(scene: Scene, rollout: str = "r1") -> None:
    told = rebuild(scene.ledger.entries(STREAM, rollout))
    kept = select(schema.rollouts.c.state).where(schema.rollouts.c.id == rollout)
    with scene.ledger.reading() as connection:
        assert json.loads(connection.scalar(kept)) == json.loads(json.dumps(told.state.to_json()))
    view = scene.rollouts.standing(rollout)
    assert (view.state, view.hosts, view.status) == (told.state, told.hosts, told.state.status)
    scene.ledger.verify(STREAM)


# Opening


def test_opening_records_everything_that_was_planned(scene: Scene) -> None:
    opened = scene.open()
    assert (opened.rollout, opened.resumed, opened.gate_due) == ("r1", False, False)
    assert opened.token == START
    view = scene.view
    assert (view.status, view.token, view.holder, view.opened_at) == (Status.ROLLING, opened.token, ANNA, START)
    assert view.facts == FACTS
    assert view.plan == replace(a_plan(), hosts=())
    assert [(row.name, row.phase, row.position, row.status) for row in view.hosts] == [
        ("app1", 0, 0, S.PENDING), ("app2", 1, 1, S.PENDING), ("app3", 1, 2, S.PENDING), ("app4", 1, 3, S.PENDING),
    ]  # fmt: skip
    (entry,) = scene.ledger.entries(STREAM)
    assert (entry.kind, entry.actor) == ("opened", "anna@deploy1")
    assert json.loads(entry.data)["version"] == "1.1.0"
    assert_tables_tell_what_the_events_tell(scene)


def test_before_the_first_rollout_there_is_none(scene: Scene) -> None:
    assert scene.rollouts.view() is None
    assert scene.rollouts.head() == 0
    with pytest.raises(LedgerError, match="rollout r1 is not in the ledger of staging/hello: check its id"):
        scene.rollouts.standing("r1")


def test_tokens_grow_though_the_clock_stands_still(scene: Scene) -> None:
    first = scene.open().token
    second = scene.open(BERT).token
    assert second > first


def test_a_token_is_newer_than_those_of_a_ledger_that_was_lost(scene: Scene, tmp_path: Path) -> None:
    before = scene.open().token
    other = Scene(tmp_path / "restored.db")
    other.clock.now += 1
    assert other.open().token > before


def test_a_ledger_that_was_tampered_with_opens_nothing(scene: Scene) -> None:
    scene.open()
    with scene.ledger.transaction(STREAM) as tx:
        tx.write(text("UPDATE convoy_events SET actor = 'nobody'"), {})
    with pytest.raises(LedgerError, match="is not intact"):
        scene.open(BERT, "r2")


# Who holds it


@pytest.mark.parametrize("plan", [a_plan(), a_plan(bake=5)])
def test_a_second_run_is_told_who_holds_the_rollout(scene: Scene, plan: Plan) -> None:
    scene.open(ANNA)
    with pytest.raises(BusyError) as refusal:
        scene.open(BERT, "r2", dead=False, plan=plan)
    assert str(refusal.value).startswith(
        "staging/hello: rollout r1 is held by anna@deploy1 (process 100) (it is running). "
    )
    assert refusal.value.reason == "busy"
    assert scene.view.holder == ANNA


def test_other_components_are_not_held(scene: Scene) -> None:
    scene.open(ANNA)
    other = Rollouts(scene.ledger, "staging/other")
    opened = other.open(a_plan(), fleet(4), FACTS, BERT, lambda _run: False, "r2", PATIENCE)
    assert not opened.resumed


def test_the_same_run_goes_on(scene: Scene) -> None:
    scene.open(ANNA)
    assert scene.open(ANNA, "r2", dead=False).resumed


@pytest.mark.parametrize(("silence", "taken"), [(0.0, False), (PATIENCE, False), (PATIENCE + 1, True)])
def test_a_run_that_cannot_be_seen_is_dead_after_long_silence(scene: Scene, silence: float, taken: bool) -> None:
    scene.open(ANNA)
    scene.clock.now += silence
    if taken:
        assert scene.open(BERT, "r2", dead=None).resumed
        return
    with pytest.raises(BusyError, match=rf"last heard of {silence:.0f} s ago, waited for 300 s"):
        scene.open(BERT, "r2", dead=None)


def test_a_run_that_asks_is_heard_of(scene: Scene) -> None:
    scene.open(ANNA)
    scene.clock.now += PATIENCE
    assert isinstance(scene.admit("app2"), Wait)
    scene.clock.now += PATIENCE
    with pytest.raises(BusyError):
        scene.open(BERT, "r2", dead=None)


def test_who_only_waits_writes_nothing_but_a_sign_of_life_now_and_then(scene: Scene) -> None:
    scene.open(ANNA)

    def seen_at() -> float:
        with scene.ledger.transaction(STREAM) as tx:
            return tx.row.seen_at

    scene.clock.now += 1
    assert isinstance(scene.admit("app2"), Wait)
    assert seen_at() == START
    scene.clock.now += HEARD
    assert isinstance(scene.admit("app2"), Wait)
    assert seen_at() == START + 1 + HEARD


def test_who_waits_is_told_when_something_has_happened_since_the_answer(scene: Scene) -> None:
    scene.open(ANNA)
    assert isinstance(scene.admit("app2"), Wait)
    assert not scene.rollouts.wait_for_change(timeout=0.01, poll=0.005)
    Rollouts(scene.ledger, STREAM).pause("r1", "lunch")
    assert scene.rollouts.wait_for_change(timeout=600, poll=600)


def test_a_run_that_was_taken_over_changes_nothing_any_more(scene: Scene) -> None:
    stale = scene.open(ANNA).token
    scene.open(BERT)
    head = scene.rollouts.head()
    for act in (
        lambda: scene.rollouts.admit("r1", stale, "app1"),
        lambda: scene.rollouts.report("r1", stale, "app1", S.SUCCEEDED),
        lambda: scene.rollouts.judge("r1", stale, Verdict.PASS),
        lambda: scene.rollouts.turn_back("r1", stale, "abort"),
        lambda: scene.rollouts.close("r1", stale),
    ):
        with pytest.raises(StaleTokenError) as refusal:
            act()
        assert f"the token {stale} is stale: bert@deploy2 (process 200) took over" in str(refusal.value)
        assert refusal.value.reason == "stale_token"
    assert scene.rollouts.head() == head


def test_a_rollout_that_ended_is_held_by_nobody(scene: Scene) -> None:
    scene.open(ANNA)
    scene.go("app1", "app2", "app3", "app4")
    assert scene.rollouts.close("r1", scene.token) == Recorded()
    assert (scene.view.status, scene.view.holder) == (Status.SUCCEEDED, None)
    opened = scene.open(BERT, "r2", dead=False)
    assert (opened.rollout, opened.resumed) == ("r2", False)
    assert scene.rollouts.view().id == "r2"


def test_an_old_rollout_cannot_be_changed_with_a_new_token(scene: Scene) -> None:
    scene.open(ANNA)
    scene.rollouts.turn_back("r1", scene.token, "abort")
    scene.rollouts.close("r1", scene.token)
    scene.clock.now += 1
    scene.open(BERT, "r2")
    with pytest.raises(LedgerError, match="rollout r1 is not open: it has reverted"):
        scene.report("app1", S.FAILED)
    assert scene.rollouts.standing("r2").holder == BERT


def test_a_rollout_of_another_component_is_unknown_here(scene: Scene) -> None:
    scene.open(ANNA)
    other = Rollouts(scene.ledger, "staging/other")
    token = other.open(a_plan(), fleet(4), FACTS, BERT, lambda _run: False, "r2", PATIENCE).token
    with pytest.raises(LedgerError, match="rollout r1 is not in the ledger of staging/other"):
        other.admit("r1", token, "app1")


def test_a_host_that_is_not_in_the_plan(scene: Scene) -> None:
    scene.open()
    with pytest.raises(LedgerError, match="host db1 is not in the plan of rollout r1: deploy again to plan anew"):
        scene.admit("db1")


# Going on


def test_the_same_plan_goes_on_where_the_dead_run_stopped(scene: Scene) -> None:
    scene.open(ANNA)
    scene.go("app1")
    scene.admit("app2")
    scene.admit("app3")
    seen = fleet(4)
    seen["app1"] = replace(seen["app1"], active="hello-1.1.0")
    seen["app3"] = replace(seen["app3"], in_service=False)
    scene.clock.now += 1
    opened = scene.open(BERT, "r2", seen=seen)
    assert (opened.rollout, opened.resumed) == ("r1", True)
    assert [row.status for row in scene.view.hosts] == [S.SUCCEEDED, S.PENDING, S.PENDING, S.PENDING]
    assert scene.view.to_go == ["app3", "app2", "app4"]
    assert scene.row("app2").why == "read from the host as the rollout was resumed"
    assert_tables_tell_what_the_events_tell(scene)


def test_a_host_that_was_not_read_counts_as_unreachable(scene: Scene) -> None:
    scene.open(ANNA)
    seen = fleet(4)
    del seen["app4"]
    scene.open(BERT, seen=seen)
    assert scene.row("app4").status is S.UNREACHABLE


def test_on_the_way_back_a_host_is_wanted_on_its_old_release(scene: Scene) -> None:
    scene.open(ANNA)
    scene.go("app1", "app2")
    scene.rollouts.turn_back("r1", scene.token, "abort")
    seen = fleet(4)
    seen["app2"] = replace(seen["app2"], active="hello-1.1.0")
    opened = scene.open(BERT, seen=seen)
    assert opened.state.status is Status.TURNING_BACK
    assert [row.status for row in scene.view.hosts] == [S.RETURNED, S.SUCCEEDED, S.PENDING, S.PENDING]


def test_a_gate_that_a_dead_run_left_open_is_due(scene: Scene) -> None:
    plan = a_plan(bake=30)
    scene.open(ANNA, plan=plan)
    scene.go("app1")
    assert scene.rollouts.gate("r1") == {
        "phase": "canary",
        "bake": 30,
        "bake_left": 30,
        "hosts": ["app1"],
        "gates": [],
        "sides": {"canary": ["app1"], "baseline": ["app2", "app3", "app4"], "zones": {}},
    }
    seen = fleet(4)
    seen["app1"] = replace(seen["app1"], active="hello-1.1.0")
    scene.clock.now += 100
    assert scene.open(BERT, plan=plan, seen=seen).gate_due
    scene.clock.now += 12
    assert scene.rollouts.gate("r1")["bake_left"] == 18
    scene.clock.now += 50
    assert scene.rollouts.gate("r1")["bake_left"] == 0


def test_another_plan_supersedes_what_a_dead_run_left(scene: Scene) -> None:
    scene.open(ANNA)
    scene.admit("app1")
    scene.clock.now += 1
    opened = scene.open(BERT, "r2", plan=a_plan(bake=5))
    assert (opened.rollout, opened.resumed) == ("r2", False)
    assert scene.view.status is Status.FAILED
    assert scene.view.state.reason == "superseded by r2, which has another plan"
    for rollout in ("r1", "r2"):
        assert_tables_tell_what_the_events_tell(scene, rollout)


# What happens to hosts


def test_a_host_goes_and_its_report_is_kept(scene: Scene) -> None:
    scene.open()
    scene.clock.now += 5
    assert scene.admit("app1") == Admitted(START + 5 + LEASE, first=True)
    assert scene.row("app1").status is S.ADMITTED
    scene.clock.now += 5
    assert scene.report("app1", S.REVERTED, "probe answered 500") == Recorded()
    row = scene.row("app1")
    assert (row.status, row.why, row.updated_at) == (S.REVERTED, "probe answered 500", START + 10)
    assert scene.view.status is Status.TURNING_BACK
    assert_tables_tell_what_the_events_tell(scene)


@pytest.mark.parametrize("why", ["\0", "caf\udce9", "\N{SNOWMAN}\n" * 10_000, "'; DROP TABLE convoy_hosts; --"])
def test_a_report_may_hold_anything(scene: Scene, why: str) -> None:
    scene.open()
    scene.admit("app1")
    assert scene.report("app1", S.FAILED, why) == Recorded()
    assert_tables_tell_what_the_events_tell(scene)


def test_who_has_to_go_back_and_in_which_order(scene: Scene) -> None:
    lenient = replace(a_plan(), failure_budget=2)
    scene.open(plan=lenient)
    scene.go("app1")
    scene.clock.now += 1
    scene.go("app2")
    scene.admit("app3")
    scene.report("app3", S.FAILED)
    scene.clock.now += 1
    scene.admit("app4")
    scene.rollouts.turn_back("r1", scene.token, "abort")
    assert scene.view.to_return == ["app3", "app2", "app1", "app4"]


def test_a_late_report_after_the_end_is_still_recorded(scene: Scene) -> None:
    scene.open()
    scene.admit("app1")
    scene.clock.now += LEASE + 1
    scene.rollouts.turn_back("r1", scene.token, "abort")
    scene.rollouts.close("r1", scene.token)
    assert scene.view.status is Status.FAILED
    assert scene.report("app1", S.REVERTED) == Recorded()
    assert (scene.view.status, scene.row("app1").status) == (Status.FAILED, S.REVERTED)
    assert_tables_tell_what_the_events_tell(scene)


# People


def test_people_need_no_token(scene: Scene) -> None:
    scene.open(plan=a_plan(approval=True))
    assert scene.admit("app1") == Wait("phase canary waits for an approval")
    assert scene.rollouts.approve("r1", "looks good") == Recorded()
    assert scene.rollouts.pause("r1", "lunch") == Recorded()
    assert scene.admit("app1") == Wait("paused: lunch")
    assert scene.rollouts.unpause("r1") == Recorded()
    assert isinstance(scene.admit("app1"), Admitted)
    assert scene.rollouts.turn_back("r1", None, "abort") == Recorded()
    assert scene.view.state.reason == "abort"
    assert [entry.kind for entry in scene.ledger.entries(STREAM)] == [
        "opened", "approved", "paused", "unpaused", "moved", "turned_back",
    ]  # fmt: skip
    assert_tables_tell_what_the_events_tell(scene)


def test_people_change_only_what_is_open(scene: Scene) -> None:
    scene.open()
    scene.rollouts.turn_back("r1", None, "abort")
    scene.rollouts.close("r1", scene.token)
    for act in (
        lambda: scene.rollouts.pause("r1", "lunch"),
        lambda: scene.rollouts.unpause("r1"),
        lambda: scene.rollouts.approve("r1", "yes"),
        lambda: scene.rollouts.turn_back("r1", None, "again"),
    ):
        with pytest.raises(LedgerError, match="rollout r1 is not open: it has reverted"):
            act()


# Whatever happens

HOSTS = st.sampled_from(sorted(fleet(4)))
ACTS = st.one_of(
    st.tuples(st.just("admit"), HOSTS),
    st.tuples(st.just("report"), HOSTS, st.sampled_from(list(S))),
    st.tuples(st.just("judge"), st.sampled_from(list(Verdict))),
    st.tuples(st.just("pass"), st.sampled_from([1.0, LEASE])),
    st.tuples(st.sampled_from(["unpause", "resume", "close"])),
    st.tuples(st.sampled_from(["pause", "approve"]), st.text(max_size=3)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACTS, max_size=30), budget=st.integers(0, 2))
def test_the_tables_always_tell_what_the_events_tell(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[Any, ...]], budget: int
) -> None:
    scene = Scene(tmp_path_factory.mktemp("ledger") / "ledger.db")
    plan = replace(a_plan(bake=30), failure_budget=budget)
    scene.open(plan=plan)
    for act, *arguments in acts:
        if act == "pass":
            scene.clock.now += arguments[0]
        elif scene.view.status.ended:
            break
        elif act == "resume":
            scene.open(BERT, plan=plan)
        elif act in ("admit", "report"):
            getattr(scene, act)(*arguments)
        elif act in ("judge", "close"):
            getattr(scene.rollouts, act)("r1", scene.token, *arguments)
        else:
            getattr(scene.rollouts, act)("r1", *arguments)
    assert_tables_tell_what_the_events_tell(scene)


# Migrations


M1, M2 = PlannedMigration("m1", 0), PlannedMigration("m2", 2, early=True)


def migrate(scene: Scene, asker: str = "anna") -> Migrate:
    run = scene.rollouts.admit_migration("r1", scene.token, asker)
    assert isinstance(run, Migrate), run
    return run


def report_of(run: Migrate) -> MigrationReport:
    return MigrationReport(run.migration.name, run.until, True)


def test_a_migration_is_run_by_one_of_all_who_ask(scene: Scene) -> None:
    scene.open(plan=replace(a_plan(), migrations=(M1, M2)))
    run = scene.rollouts.admit("r1", scene.token, "app1")
    assert isinstance(run, Migrate)
    for other in ("app2", "app3"):
        waits = scene.rollouts.admit("r1", scene.token, other)
        assert isinstance(waits, Wait)
        assert waits.reason == "app1 runs migration m1"
    assert isinstance(scene.rollouts.report_migration("r1", scene.token, report_of(run), "app1"), Recorded)
    scene.go("app1", "app2", "app3", "app4")
    answer = scene.rollouts.close("r1", scene.token)
    assert isinstance(answer, Denied)
    assert scene.rollouts.report_migration("r1", scene.token, report_of(migrate(scene)), "anna") == Recorded()
    assert scene.rollouts.close("r1", scene.token) == Recorded()
    assert scene.view.status is Status.SUCCEEDED
    assert_tables_tell_what_the_events_tell(scene)


def test_a_run_that_was_taken_over_cannot_say_what_became_of_a_migration(scene: Scene) -> None:
    plan = replace(a_plan(), migrations=(M1,))
    scene.open(plan=plan)
    run, stale = migrate(scene), scene.token
    assert scene.open(BERT, plan=plan).resumed
    with pytest.raises(StaleTokenError):
        scene.rollouts.report_migration("r1", stale, report_of(run), "anna")
    assert scene.view.state.migrations["m1"].standing is Standing.IN_DOUBT
    assert scene.rollouts.settle_migration("r1", "m1", True, "bert: seen") == Recorded()
    assert scene.view.state.migrations["m1"].standing is Standing.APPLIED
    assert_tables_tell_what_the_events_tell(scene)


def test_only_the_run_that_holds_the_token_asks_and_nobody_speaks_of_a_rollout_that_has_ended(scene: Scene) -> None:
    scene.open(plan=replace(a_plan(), migrations=(M1,)))
    with pytest.raises(StaleTokenError):
        scene.rollouts.admit_migration("r1", scene.token - 1, "anna")
    with pytest.raises(StaleTokenError):
        scene.rollouts.admit("r1", scene.token - 1, "app1")
    assert scene.view.state.migrations == {}
    scene.rollouts.turn_back("r1", None, "bert: no")
    assert scene.rollouts.close("r1", scene.token) == Recorded()
    assert isinstance(scene.rollouts.admit_migration("r1", scene.token, "anna"), Denied)
    with pytest.raises(LedgerError, match="rollout r1 is not open: it has reverted"):
        scene.rollouts.settle_migration("r1", "m1", True, "bert: seen")


def open_next(scene: Scene, new_id: str, before: RolloutView, release: str, kind: str = "deploy") -> Opened:
    seen = {name: replace(host, target=release) for name, host in fleet(4).items()}
    plan, facts = replace(a_plan(seen), migrations=(M1,)), {**FACTS, "kind": kind}
    return scene.rollouts.open(plan, seen, facts, ANNA, lambda _run: True, new_id, PATIENCE, before=before)


def test_what_has_run_is_known_to_every_later_rollout(scene: Scene) -> None:
    scene.open(plan=replace(a_plan(), migrations=(M1,)))
    scene.rollouts.report_migration("r1", scene.token, report_of(migrate(scene)), "anna")
    scene.go("app1", "app2", "app3", "app4")
    scene.rollouts.close("r1", scene.token)
    before = scene.view
    assert open_next(scene, "r2", before, "hello-1.2.0").state.migrations["m1"].standing is Standing.APPLIED
    assert_tables_tell_what_the_events_tell(scene, "r2")
    assert scene.rollouts.applied_with(["hello-1.1.0"]) == {"m1"}
    assert scene.rollouts.applied_with(["hello-1.0.0"]) == frozenset()
    with pytest.raises(BusyError, match="something was recorded since it was read"):
        open_next(scene, "r3", before, "hello-1.3.0")


@pytest.mark.parametrize(("kind", "belongs"), [("deploy", {"m1"}), ("repair", set()), ("catch_up", set())])
def test_a_repair_does_not_say_what_belongs_to_a_release(scene: Scene, kind: str, belongs: set[str]) -> None:
    """It comes to hosts that stayed on the older release, while the migrations of the newer one have run."""
    scene.open(plan=replace(a_plan(), migrations=(M1,)))
    scene.rollouts.report_migration("r1", scene.token, report_of(migrate(scene)), "anna")
    scene.go("app1", "app2", "app3", "app4")
    scene.rollouts.close("r1", scene.token)
    opened = open_next(scene, "r2", scene.view, "hello-1.0.0", kind)
    assert set(opened.state.migrations) == {"m1"}
    assert scene.rollouts.applied_with(["hello-1.0.0"]) == belongs
    assert scene.rollouts.applied_with(["hello-1.1.0"]) == {"m1"}


@pytest.mark.parametrize(
    "answer",
    [
        Admitted(1_767_225_600.123456, first=True),
        Wait("app1 runs migration m1", 1_767_225_600.1),
        Wait("it is held"),
        Denied("it has gone"),
        Recorded(gate_due=True),
        Migrate(replace(M2, back=True, run_on="db1", release="1.1.0"), 1_767_225_600.123456),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_another_run_understands_what_it_is_told(answer: Answer) -> None:
    """A report names the time until which the migration was to be run, so that it must come through as it was."""
    assert rollouts._understood(rollouts._told(answer, 7)) == (answer, 7)


def test_every_answer_can_be_told() -> None:
    assert {answer.__name__ for answer in get_args(Answer)} == rollouts._SAID.keys()


def test_the_newest_row_of_a_host_is_that_of_the_last_rollout_that_had_it(scene: Scene) -> None:
    scene.open()
    scene.go("app1")
    rows = scene.rollouts.newest_rows(["app1", "app2", "elsewhere"])
    assert set(rows) == {"app1", "app2"}
    assert (rows["app1"].rollout, rows["app1"].ended, rows["app1"].row.status) == ("r1", False, S.SUCCEEDED)
    few = fleet(1)
    scene.open(new_id="r2", seen=few, plan=a_plan(few))
    rows = scene.rollouts.newest_rows(["app1", "app2"])
    assert (rows["app1"].rollout, rows["app2"].rollout) == ("r2", "r1")
    assert (rows["app1"].ended, rows["app2"].ended) == (False, True)
