# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollback goes that names no version, and a repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import spec_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Migrate,
    MigrationReport,
    ended,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError, schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.opening import (
    IrreversibleError,
    drifted,
    open_rollout,
    take_stock,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import release_id

OLDEST, OLD, NEW = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb", "1.2.0-cccccccccccc"
GOOD = {OLDEST: [OLDEST], OLD: [OLD, OLDEST], NEW: [NEW, OLD, OLDEST]}
ROLLBACK: dict[str, Any] = {
    "kind": "rollback",
    "component_kind": "archive",
    "component": "hello",
    "environment": "staging",
    "version": None,
    "phases": [{"name": "all", "size": "100%"}],
    "max_unavailable": 1,
    "failure_budget": 0,
    "turn_back_max_unavailable": "50%",
    "lease": 600,
    "turn_back_scope": "all",
    "min_available": 0,
    "zone_order": "inventory",
    "on_failure": "turn_back",
    "when_unreachable": "fail",
    "when_unhealthy": "go_first",
    "min_up": 0,
    "progress_deadline": 0,
    "hooks": {},
    "keep": 5,
    "override": "",
    "accept_irreversible": "",
}
ANOTHER_RUN = Run("elsewhere/boot", 7, 7, "somebody")


def reading(name: str, active: str | None) -> Reading:
    """A healthy host; every release before the active one was good."""
    good = GOOD[active] if active else []
    known = [{"id": one, "version": one.partition("-")[0]} for one in good]
    last = good[1] if len(good) > 1 else None
    read = {"active": active, "good": good, "last_good": last, "releases": known, "health": {"verdict": "pass"}}
    return Reading(name, read)


def rollouts(tmp_path: Path, kind: str, moves: dict[str, tuple[str | None, str]], status: Status | None) -> Rollouts:
    """A ledger in which a rollout of that kind was opened, and ended with that status (None: it is still open)."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "test")
    ledger.prepare()
    found = Rollouts(ledger, "staging/hello")
    seen = {name: HostFacts(name, target, active, health=Health.HEALTHY) for name, (active, target) in moves.items()}
    plan = make_plan(spec_of(ROLLBACK), list(seen.values()))
    found.open(plan, seen, {"kind": kind}, ANOTHER_RUN, lambda _run: True, "the-last-one", 60)
    if status is not None:
        with ledger.transaction(found.stream) as tx:
            tx.append("the-last-one", [ended(status, "", tx.now)])
            tx.write(text(f"UPDATE {schema.rollouts.name} SET status = :status"), {"status": status})
            tx.finish(rollout=None, holder=None)
    return found


def goals(found: Rollouts, *readings: Reading) -> dict[str, str]:
    """What the plan says that each host is to run."""
    summary = open_rollout(found, ROLLBACK, readings, "", dry=True)["convoy"]["summary"]
    moves = (line.split() for line in summary if line.startswith("  "))
    return {words[0]: next(word.rstrip(",") for word in reversed(words) if word.rstrip(",") in GOOD) for words in moves}


@pytest.mark.parametrize(
    ("kind", "status", "left", "right", "wanted"),
    [
        ("deploy", Status.SUCCEEDED, NEW, NEW, OLD),
        ("deploy", Status.REVERTED, OLD, OLD, OLDEST),
        ("deploy", None, NEW, OLD, OLD),
        ("deploy", None, OLD, NEW, OLD),
        ("deploy", None, OLD, OLD, OLD),
        ("deploy", Status.FAILED, NEW, OLD, OLD),
        ("deploy", Status.FAILED, OLD, OLD, OLDEST),
    ],
    ids=[
        "after a success: one further",
        "after all went back: one further",
        "open, one has gone: it comes back",
        "open, another has gone: it comes back",
        "open, none has gone: all stay",
        "failed, one has stayed: it comes back",
        "failed, all are back: one further",
    ],
)
def test_a_rollback_after_a_deployment(
    tmp_path: Path, kind: str, status: Status | None, left: str, right: str, wanted: str
) -> None:
    found = rollouts(tmp_path, kind, {"app1": (OLD, NEW), "app2": (OLD, NEW), "app3": (OLD, NEW)}, status)
    planned = goals(
        found, reading("app1", left), reading("app2", right), reading("app3", OLD if left != right else left)
    )
    assert planned == dict.fromkeys(("app1", "app2", "app3"), wanted)


@pytest.mark.parametrize("status", [None, Status.FAILED])
def test_a_rollback_that_stopped_goes_on_to_the_same_goal(tmp_path: Path, status: Status | None) -> None:
    found = rollouts(tmp_path, "rollback", {"app1": (NEW, OLD), "app2": (NEW, OLD), "app3": (NEW, OLD)}, status)
    planned = goals(found, reading("app1", OLD), reading("app2", OLD), reading("app3", NEW))
    assert planned == dict.fromkeys(("app1", "app2", "app3"), OLD)


def test_a_host_that_the_rollout_did_not_have_goes_to_its_last_good_release(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, NEW)}, None)
    assert goals(found, reading("app1", NEW), reading("app2", NEW)) == {"app1": OLD, "app2": OLD}


def test_a_first_deployment_that_stopped_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (None, OLDEST), "app2": (None, OLDEST)}, None)
    with pytest.raises(FleetError, match="there is no good release to roll back to"):
        goals(found, reading("app1", OLDEST), reading("app2", None))


def test_a_rollback_of_a_change_of_configuration_takes_back_that_change(tmp_path: Path) -> None:
    configured = "1.1.0-dddddddddddd"
    good = [configured, OLD, OLDEST]
    known = [{"id": one, "version": one.partition("-")[0]} for one in good]
    read = {"active": configured, "good": good, "last_good": OLD, "releases": known, "health": {"verdict": "pass"}}
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, configured)}, Status.SUCCEEDED)
    assert goals(found, Reading("app1", read), Reading("app2", read)) == {"app1": OLD, "app2": OLD}


# staging


def test_hosts_that_could_not_be_staged_are_reported_whichever_way_they_went(tmp_path: Path) -> None:
    hosts = ["app1", "app2", "app3", "app4", "app5", "app6"]
    found = rollouts(tmp_path, "deploy", dict.fromkeys(hosts, (OLD, NEW)), None)
    at_once = {
        "app1": {"changed": True},
        "app2": {"failed": True, "msg": "no room"},
        "app3": {"unreachable": True, "msg": "no route"},
    }
    stages = {"rollout_stages": {"results": at_once, "left": ["app4", "app5", "app6"]}}
    hostvars: dict[str, dict[str, Any]] = dict.fromkeys(hosts, stages)
    hostvars["app4"] = {**stages, "component_staged": {"changed": True}}
    hostvars["app5"] = {**stages, "rollout_stage_failed": "the hook failed"}
    hostvars["app6"] = {**stages, "component_staged": {"unreachable": True, "msg": "timed out"}}
    view = found.view()
    assert view is not None
    taken = take_stock(found, {"order": hosts, "rollout": view.id, "token": view.token}, hostvars)
    assert taken["convoy"]["lines"] == [
        "app2 unstaged: no room",
        "app3 unreachable: no route",
        "app5 unstaged: the hook failed",
        "app6 unreachable: timed out",
    ]


# migrations


FORWARD = {"name": "m1", "tasks": "/t.yml", "reverse": "/r.yml"}
FOR_GOOD = {"name": "m2", "tasks": "/t.yml", "irreversible": True}
DEPLOY = {**ROLLBACK, "kind": "deploy", "version": "1.2.0", "artifact_sha256": "0"}


def migrated(tmp_path: Path, *raw: dict[str, Any]) -> Rollouts:
    """A ledger in which a deployment from OLD to NEW ran migrations and succeeded."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "test")
    ledger.prepare()
    found = Rollouts(ledger, "staging/hello")
    seen = {"app1": HostFacts("app1", NEW, OLD, health=Health.HEALTHY)}
    plan = make_plan(spec_of({**ROLLBACK, "migrations": list(raw)}), list(seen.values()))
    token = found.open(plan, seen, {"kind": "deploy"}, ANOTHER_RUN, lambda _run: True, "the-last-one", 60).token
    while isinstance(run := found.admit_migration("the-last-one", token, "x"), Migrate):
        found.report_migration("the-last-one", token, MigrationReport(run.migration.name, run.until, True), "x")
    with ledger.transaction(found.stream) as tx:
        tx.append("the-last-one", [ended(Status.SUCCEEDED, "", tx.now)])
        tx.write(text(f"UPDATE {schema.rollouts.name} SET status = 'succeeded'"), {})
        tx.finish(rollout=None, holder=None)
    return found


def roll_back(found: Rollouts, *raw: dict[str, Any], **asked: Any) -> list[str]:
    """What a rollback from NEW would do."""
    rollback = {**ROLLBACK, "migrations": list(raw), **asked}
    return list(open_rollout(found, rollback, [reading("app1", NEW)], "", dry=True)["convoy"]["summary"])


def test_a_rollback_reverses_what_ran_after_the_release(tmp_path: Path) -> None:
    summary = roll_back(migrated(tmp_path, FORWARD), FORWARD)
    assert "migration m1: reversed once, on localhost, when all hosts are there" in summary


def test_a_rollback_past_an_irreversible_migration_wants_a_reason(tmp_path: Path) -> None:
    found = migrated(tmp_path, FOR_GOOD, FORWARD)
    with pytest.raises(IrreversibleError, match=r"nothing was touched: migration m2 .* and m2 cannot be reversed"):
        roll_back(found, FOR_GOOD, FORWARD)
    summary = roll_back(found, FOR_GOOD, FORWARD, accept_irreversible="nobody needs it")
    assert [line for line in summary if "migration" in line] == [
        "migration m1: reversed once, on localhost, when all hosts are there"
    ]


def test_a_migration_that_is_not_listed_any_more_cannot_be_reversed(tmp_path: Path) -> None:
    with pytest.raises(IrreversibleError, match="m1 cannot be reversed: it is irreversible, or not in component_migr"):
        roll_back(migrated(tmp_path, FORWARD))


def test_what_has_run_is_not_planned_again(tmp_path: Path) -> None:
    found, later = migrated(tmp_path, FORWARD), {**FORWARD, "name": "m3", "after": "last"}
    asked = {**DEPLOY, "migrations": [FORWARD, later]}
    read = {**reading("app1", NEW).read, "rendered": "0"}
    summary = open_rollout(found, asked, [Reading("app1", read)], "", dry=True)["convoy"]["summary"]
    assert [line for line in summary if "migration" in line] == [
        "migration m3: run once, on localhost, when all hosts are there"
    ]


@pytest.mark.parametrize(("kind", "runs"), [("deploy", True), ("catch_up", False), ("repair", False)])
def test_what_brings_a_release_once_more_leaves_migrations_as_they_are(tmp_path: Path, kind: str, runs: bool) -> None:
    """Neither the one that has yet to run is run, nor is the one that is not listed any more reversed."""
    release = release_id("1.2.0", ARTIFACT, RENDERED)
    asked = {"kind": kind, "version": "1.2.0", "artifact_sha256": ARTIFACT, "releases": {"app1": release}}
    read = {**reading("app1", NEW).read, "active": release, "rendered": RENDERED}
    found, later = migrated(tmp_path, FORWARD), {**FORWARD, "name": "m3"}
    told = open_rollout(found, {**ROLLBACK, **asked, "migrations": [later]}, [Reading("app1", read)], "", dry=True)
    assert any("migration" in line for line in told["convoy"]["summary"]) is runs


@pytest.mark.parametrize(
    ("tasks", "answer", "is_held"),
    [({"idempotent": False}, "", True), ({"idempotent": False}, "done", False), ({}, "", False)],
)
def test_tasks_in_doubt_that_may_not_run_again_are_held(
    tmp_path: Path, tasks: dict[str, Any], answer: str, is_held: bool
) -> None:
    asked = {**DEPLOY, "component_kind": "tasks", "tasks": tasks, "in_doubt": answer}
    unsettled = {"release": NEW, "is_known": False}
    read = {**reading("app1", NEW).read, "rendered": "0", "kind": "tasks", "unsettled": unsettled}
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, NEW)}, Status.SUCCEEDED)
    if is_held:
        with pytest.raises(FleetError, match="nothing was touched: app1: the tasks that put"):
            open_rollout(found, asked, [Reading("app1", read)], "", dry=True)
    else:
        told = open_rollout(found, asked, [Reading("app1", read)], "", dry=True)["convoy"]["summary"]
        assert "nothing to do" not in told[0]


ARTIFACT, RENDERED = "a" * 64, "b" * 64
LEFT = release_id("1.1.0", ARTIFACT, RENDERED)


def repair(tmp_path: Path, left: str, health: str = "pass", **checked: Any) -> list[str]:
    """What is planned for a host that runs LEFT and drifted, where the ledger says that it was left with ``left``."""
    read = {"active": LEFT, "good": [LEFT], "rendered": RENDERED, "health": {"verdict": health}}
    asked = {"kind": "repair", "version": "1.1.0", "artifact_sha256": ARTIFACT, "releases": {"app1": left}, "serial": 1}
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, LEFT)}, Status.SUCCEEDED)
    told = open_rollout(found, {**ROLLBACK, **asked, **checked}, [Reading("app1", read)], "", dry=True)
    lines: list[str] = told["convoy"]["summary"]
    return lines


@pytest.mark.parametrize("health", ["pass", "fail"])
def test_a_host_that_drifted_goes_to_what_it_runs_already(tmp_path: Path, health: str) -> None:
    lines = repair(tmp_path, LEFT, health, when_unhealthy="fail")
    assert any(line.split()[:4] == ["app1", LEFT, "->", LEFT] for line in lines)


def test_a_repair_changes_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"the ledger says {OLD}, and the variables and templates of today make {LEFT}"):
        repair(tmp_path, OLD)


def mendable(releases: dict[str, str], **asked: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"versions": {}, "version": None, "colours": {}}
    return {"mendable": list(releases), "releases": releases, **known, **asked}


def test_hosts_of_one_version_are_repaired_together(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (None, OLD)}, Status.SUCCEEDED)
    both = mendable({"app1": OLD, "app2": "1.1.0-dddddddddddd"})
    assert drifted(found, both) == {"hosts": ["app1", "app2"], "version": "1.1.0"}
    assert drifted(found, mendable({})) == {"hosts": [], "version": None}
    with pytest.raises(SpecError, match=r"several versions, 1\.1\.0, 1\.2\.0: repair those of one at a time"):
        drifted(found, mendable({"app1": OLD, "app2": NEW}))
    with pytest.raises(SpecError, match=r"begins with a look at the hosts: run repair\.yml instead"):
        drifted(found, mendable({}, mendable=None))
    with pytest.raises(SpecError, match="rollout_colours: a repair goes host by host"):
        drifted(found, mendable({"app1": OLD}, colours={"blue": ["app1"]}))


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ({}, "1_1.0_x"),
        ({"versions": {"1_1.0_x-aaaaaaaaaaaa": "1:1.0~x"}}, "1:1.0~x"),
        ({"versions": {"1_1.0_x-aaaaaaaaaaaa": "2.0"}}, "1_1.0_x"),
        ({"version": "1:1.0^x"}, "1:1.0^x"),
        ({"version": "1:1.1"}, "1_1.0_x"),
    ],
)
def test_the_version_of_a_package_is_not_in_the_id_of_its_release(
    tmp_path: Path, asked: dict[str, Any], version: str
) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (None, OLD)}, Status.SUCCEEDED)
    assert drifted(found, mendable({"app1": "1_1.0_x-aaaaaaaaaaaa"}, **asked))["version"] == version


def test_what_was_there_before_convoy_is_not_repaired(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "rollback", {"app1": (None, OLD)}, Status.SUCCEEDED)
    with pytest.raises(SpecError, match="app2: what runs there was installed before Convoy came, and cannot be"):
        drifted(found, mendable({"app1": OLD, "app2": "1.1.0-found"}))


@pytest.mark.parametrize(("kind", "refused"), [("deploy", True), ("rollback", True), ("repair", False)])
def test_nothing_is_repaired_while_another_rollout_is_open(tmp_path: Path, kind: str, refused: bool) -> None:
    found = rollouts(tmp_path, kind, {"app1": (None, OLD)}, None)
    if refused:
        with pytest.raises(LedgerError, match=f"rollout the-last-one, a {kind} of .*, is open: let it end"):
            drifted(found, mendable({"app1": OLD}))
    else:
        assert drifted(found, mendable({"app1": OLD}))["hosts"] == ["app1"]
