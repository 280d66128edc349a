# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ledger looked through: its history, and whatever was edited, cut off or added, by name."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import chronicle
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    Plan,
    make_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    SpecError,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.audit import Audit, audit
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import GENESIS, Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.export import export
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.history import Chapter, story
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError, entries_in

STREAM = "staging/hello"
ANNA = Run("deploy1/0a1b2c3d", 100, 5000, "anna")
START = 1_000_000.0
S = HostStatus


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


class Scene:
    """Two rollouts: r1 came to its end, r2 turns back because its second host failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.clock = Clock()
        self.ledger = Ledger(self.url, "anna@deploy1 (process 100)", self.clock)
        self.ledger.prepare()
        self.rollouts = Rollouts(self.ledger, STREAM)
        self.token = self.open("r1", "1.1.0")
        self.go("r1", "app1", "app2", "app3")
        self.clock.now += 65
        self.rollouts.close("r1", self.token)
        self.token = self.open("r2", "1.2.0")
        self.go("r2", "app1")
        self.rollouts.admit("r2", self.token, "app2")
        self.rollouts.report("r2", self.token, "app2", S.REVERTED, "probe answered 500\nand again")

    def open(self, rollout: str, version: str) -> int:
        seen = {name: HostFacts(name, version, "old", health=Health.HEALTHY) for name in ("app1", "app2", "app3")}
        facts = {"kind": "deploy", "component": "hello", "version": version}
        return self.rollouts.open(a_plan(seen), seen, facts, ANNA, lambda _run: True, rollout, 300.0).token

    def go(self, rollout: str, *hosts: str) -> None:
        for host in hosts:
            self.clock.now += 1
            self.rollouts.admit(rollout, self.token, host)
            self.rollouts.report(rollout, self.token, host, S.SUCCEEDED)

    def sql(self, *statements: str) -> None:
        with sqlite3.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def audit(self, stream: str = STREAM, last: int = 20) -> Audit:
        ledger = Ledger(self.url, "the reader", reads_only=True)
        ledger.expect()
        with ledger.reading() as connection:
            return audit(connection, stream, last)


def a_plan(seen: dict[str, HostFacts]) -> Plan:
    phases = [{"name": "canary", "size": 1}, {"name": "fleet", "size": "100%"}]
    spec = RolloutSpec(parse_phases(phases, 1), FailureBudget(Quantity(0)), Quantity(1), 60.0)
    return make_plan(spec, list(seen.values()))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "ledger.db")


# What is told


def test_the_history_is_told_newest_first(scene: Scene) -> None:
    by = "anna@deploy1 (process 100)"
    assert scene.audit().chapters == [
        Chapter("r2", "deploy", "1.2.0", Status.TURNING_BACK, START + 68, None, by, moved=1, failed=1),
        Chapter("r1", "deploy", "1.1.0", Status.SUCCEEDED, START, START + 68, by, moved=3, failed=0),
    ]


def test_only_the_newest_are_told_but_all_are_compared(scene: Scene) -> None:
    scene.sql("UPDATE convoy_hosts SET status = 'failed' WHERE rollout = 'r1' AND name = 'app3'")
    found = scene.audit(last=1)
    assert [one.id for one in found.chapters] == ["r2"]
    assert found.differs == ["rollout r1: host app3 is failed, the events say succeeded"]


def test_what_was_refused_is_told_newest_first_and_belongs_to_no_rollout(scene: Scene) -> None:
    before = scene.audit()
    for version, why in (("1.3.0", "frozen"), ("1.4.0", "no room\0\non app1")):
        scene.clock.now += 60
        scene.rollouts.refuse("deploy", version, SpecError(why))
    found = scene.audit()
    assert [(one.version, one.reason, one.why) for one in found.refusals] == [
        ("1.4.0", "spec", "no room\N{REPLACEMENT CHARACTER}\non app1"),
        ("1.3.0", "spec", "frozen"),
    ]
    assert (found.broken, found.differs, found.chapters) == (None, [], before.chapters)
    assert found.head == before.head + 2
    assert [one.version for one in scene.audit(last=1).refusals] == ["1.4.0"]
    heading, newest, _oldest = chronicle.refusal_lines(found.refusals)
    assert heading.split() == ["refused", "version", "at", "by", "why"]
    assert newest.endswith("anna@deploy1  no room\N{REPLACEMENT CHARACTER}")
    assert chronicle.refusal_lines([]) == []


def test_a_refusal_does_not_keep_a_silent_holder_alive(scene: Scene) -> None:
    scene.clock.now += 1000
    scene.rollouts.refuse("deploy", "1.3.0", SpecError("no"))
    assert scene.rollouts.in_the_way(Run("deploy2/x", 1, 1, "bob"), lambda _run: None, 300.0) is None


def test_the_history_as_lines(scene: Scene) -> None:
    heading, newest, oldest = chronicle.history_lines(scene.audit().chapters, START + 80)
    assert heading.split() == [
        "rollout", "kind", "version", "status", "opened", "closed", "took", "by", "moved", "failed",
    ]  # fmt: skip
    assert newest.split()[:4] == ["r2", "deploy", "1.2.0", "turning_back"]
    assert newest.split()[-5:] == ["open", "12s", "anna@deploy1", "1", "1"]
    assert oldest.split()[-4:] == ["1m08s", "anna@deploy1", "3", "0"]


def test_a_story_tells_every_event(scene: Scene) -> None:
    told = list(story(scene.ledger.entries(STREAM, "r2")))
    assert [(line.host, line.what) for line in told] == [
        ("", "opened: deploy of hello 1.2.0, 3 hosts in phases canary, fleet"),
        ("app1", "pending -> admitted"),
        ("app1", "admitted -> succeeded"),
        ("", "phase canary passed: every host passed its gate, and no bake time is set"),
        ("app2", "pending -> admitted"),
        ("app2", "admitted -> reverted: probe answered 500\nand again"),
        ("", "turns back: 1 failed, more than the failure budget of 0"),
    ]
    assert {line.actor for line in told} == {"anna@deploy1 (process 100)"}
    lines = chronicle.story_lines(told)
    assert len(lines) == len(told)
    assert lines[5].endswith("app2  admitted -> reverted: probe answered 500 / and again")


@pytest.mark.parametrize(
    ("kind", "data", "what"),
    [
        ("resumed", {"by": "bert"}, "taken up again by bert"),
        ("phase_closed", {"holder": "app1", "bake_until": 1, "until": 2}, "phase canary closed; app1 asks its gate"),
        ("phase_closed", {"holder": "", "bake_until": 1, "until": 2}, "phase canary closed; nobody asks its gate"),
        ("gate_held", {"reason": "no data"}, "a person is awaited: no data"),
        ("paused", {"reason": "anna: lunch"}, "paused: anna: lunch"),
        ("unpaused", {}, "goes on after the pause"),
        ("approved", {"phase": 1, "why": "fine"}, "phase fleet approved: fine"),
        ("closed", {"verdict": "failed", "reason": "abort"}, "closed, failed: abort"),
        ("hid_itself", {"well": "yes", "hosts": []}, "hid itself: well yes"),
        ("moved", {}, "moved, which cannot be read: {}"),
        ("approved", {"phase": "x"}, 'approved, which cannot be read: {"phase": "x"}'),
    ],
)
def test_each_kind_of_event_has_its_sentence(scene: Scene, kind: str, data: dict[str, object], what: str) -> None:
    opened = scene.ledger.entries(STREAM, "r1")[0]
    entry = Entry(STREAM, 2, "r1", kind, None, START, "anna", json.dumps(data))
    assert [line.what for line in story([opened, entry])][1] == what


def test_every_kind_that_the_coordinator_knows_can_be_told_and_rebuilt(scene: Scene) -> None:
    scene.rollouts.admit("r2", scene.token, "app1")
    scene.rollouts.report("r2", scene.token, "app1", S.RETURNED)
    scene.rollouts.close("r2", scene.token)
    found = scene.audit()
    assert (found.broken, found.differs, found.rebuilt) == (None, [], 2)
    assert found.chapters[0].status is Status.REVERTED
    assert chronicle.verdict_lines(found) == [
        f"intact: every event from 1 to {found.head} fits its hash; the head is {found.head_hash}",
        "the tables say what the events say (2 rollouts rebuilt and compared)",
    ]


# What was changed


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        (
            "UPDATE convoy_events SET data = '{}' WHERE seq = 2",
            "entry 2 (moved, rollout r1) does not match its hash: it was edited",
        ),
        ("UPDATE convoy_events SET data = 'no JSON' WHERE seq = 1", "entry 1 (opened, rollout r1) does not match"),
        ("UPDATE convoy_events SET kind = 'hid' WHERE seq = 3", "entry 3 (hid, rollout r1) does not match its hash"),
        ("DELETE FROM convoy_events WHERE seq = 1", "entry 1 is missing: entry 2 follows entry 0"),
        ("DELETE FROM convoy_events WHERE seq > 12", "entries were cut off or added"),
        ("DELETE FROM convoy_streams", "the head names entry 0, but the last one is 17"),
    ],
)
def test_what_was_edited_or_cut_off_is_named_and_the_rest_is_told(scene: Scene, statement: str, broken: str) -> None:
    scene.sql(statement)
    found = scene.audit()
    assert broken in str(found.broken)
    assert chronicle.verdict_lines(found)[0] == f"NOT INTACT: {found.broken}"
    assert found.chapters


@pytest.mark.parametrize(
    ("statement", "differs"),
    [
        (
            "UPDATE convoy_hosts SET status = 'pending' WHERE name = 'app1' AND rollout = 'r2'",
            "rollout r2: host app1 is pending, the events say succeeded",
        ),
        (
            "UPDATE convoy_hosts SET why = 'snow', zone = 'z' WHERE name = 'app2' AND rollout = 'r2'",
            "rollout r2: host app2 differs in zone, why",
        ),
        (
            "DELETE FROM convoy_hosts WHERE name = 'app3' AND rollout = 'r1'",
            "rollout r1: host app3 is missing in the tables",
        ),
        (
            "UPDATE convoy_hosts SET name = 'app0' WHERE name = 'app3' AND rollout = 'r1'",
            "rollout r1: host app0 is in the tables, but in no event",
        ),
        (
            "UPDATE convoy_rollouts SET status = 'failed' WHERE id = 'r1'",
            "rollout r1: its row has the status failed, the events say succeeded",
        ),
        (
            "UPDATE convoy_rollouts SET state = json_set(state, '$.paused', 'lunch') WHERE id = 'r2'",
            "rollout r2: paused is 'lunch', the events say ''",
        ),
        ("UPDATE convoy_rollouts SET state = '{}' WHERE id = 'r2'", "rollout r2: its rows in the tables cannot be"),
        ("DELETE FROM convoy_rollouts WHERE id = 'r1'", "rollout r1: it is missing in the tables"),
        ("UPDATE convoy_streams SET rollout = NULL", "the tables say that no rollout is open, the events r2"),
        ("UPDATE convoy_streams SET rollout = 'r1'", "the tables say that r1 is open, the events r2"),
        (
            "INSERT INTO convoy_rollouts SELECT 'r9', stream, 1, status, facts, rules, digest, state "
            "FROM convoy_rollouts WHERE id = 'r1'",
            "rollout r9: its first event is missing",
        ),
    ],
)
def test_what_the_tables_say_otherwise_is_named(scene: Scene, statement: str, differs: str) -> None:
    scene.sql(statement)
    found = scene.audit()
    assert found.broken is None
    assert any(line.startswith(differs) for line in found.differs), found.differs
    assert chronicle.verdict_lines(found)[1] == "the tables differ from the events:"


def test_of_many_hosts_that_differ_a_few_are_named(scene: Scene) -> None:
    statement = "INSERT INTO convoy_hosts SELECT rollout, name || {}, position, phase, zone, from_release, to_release, "
    scene.sql(
        *(f"{statement.format(n)} status, why, updated_at FROM convoy_hosts WHERE name = 'app1'" for n in (1, 2, 3, 4))
    )
    assert "rollout r1: 1 more hosts differ" in scene.audit().differs


def test_an_event_that_makes_no_sense_is_named(scene: Scene) -> None:
    scene.sql("UPDATE convoy_events SET data = '{}' WHERE seq = 2")
    assert (
        scene.audit()
        .differs[0]
        .startswith("rollout r1 cannot be rebuilt: entry 2 (moved) makes no sense after those before it: KeyError")
    )


# What is not there


def test_a_component_that_was_never_deployed(scene: Scene) -> None:
    with pytest.raises(LedgerError, match="the ledger has nothing of staging/helo: did you mean 'staging/hello'"):
        scene.audit("staging/helo")


def test_a_ledger_in_which_nothing_was_deployed(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "anna")
    ledger.prepare()
    with ledger.reading() as connection, pytest.raises(LedgerError, match="nothing of staging/hello: it is empty"):
        audit(connection, STREAM, 1)


# What is taken elsewhere


def verified(path: Path) -> int:
    """Verify an export as the documentation tells other programs to; the number of events."""
    previous, count = "0" * 64, 0
    for line in path.read_text().splitlines():
        event = json.loads(line)
        keys = ("stream", "seq", "rollout", "kind", "host", "at", "actor", "data")
        covered = json.dumps([previous, *(event[key] for key in keys)])
        previous, count = hashlib.sha256(covered.encode()).hexdigest(), count + 1
        assert previous == event["hash"], event["seq"]
    return count


def test_an_export_can_be_verified_by_others(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with scene.ledger.reading() as connection:
        assert export(entries_in(connection, STREAM), path)
        assert not export(entries_in(connection, STREAM), path)
    assert verified(path) == scene.rollouts.head()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.convoy-new"))
    path.write_text(path.read_text().replace("reverted", "succeeded"))
    with pytest.raises(AssertionError):
        verified(path)


def test_an_export_that_others_could_read_is_written_anew(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    entries = scene.ledger.entries(STREAM)
    export(entries, path)
    path.chmod(0o644)
    assert export(entries, path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("what was there")

    def entries() -> Iterator[Entry]:
        yield Entry(STREAM, 1, "r1", "opened", None, START, "anna", "{}", GENESIS)
        raise LedgerError("the database went away")

    with pytest.raises(LedgerError):
        export(entries(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["events.jsonl"]
    assert path.read_text() == "what was there"


@pytest.mark.parametrize(("name", "why"), [("nowhere/events.jsonl", "No such file"), ("directory", "Is a directory")])
def test_an_export_to_a_place_that_cannot_be_written(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(LedgerError, match=f"ledger_export: .*{name} cannot be written: {why}"):
        export([], tmp_path / name)


def test_a_whole_second_is_exported_as_the_hash_covers_it(tmp_path: Path) -> None:
    entry = Entry(STREAM, 1, "r1", "opened", None, START, "anna", "{}", GENESIS)
    export([replace(entry, at=1)], tmp_path / "events.jsonl")
    assert '"at": 1.0,' in (tmp_path / "events.jsonl").read_text()
