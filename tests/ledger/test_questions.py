# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In PostgreSQL whoever gets the lock answers all who wait for it: as if each had asked alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Migrate,
    MigrationReport,
    Recorded,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import PlannedMigration
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import rollouts as rollouts_module
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import store
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, StaleTokenError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError

from .scene import STREAM, assert_whole, open_hosts

HOSTS = [f"app{number}" for number in range(6)]
MIGRATION = PlannedMigration("0001_add_tone", 0, run_on="db1", lease=30.0, release="1.1.0")
Question = Callable[[Rollouts], Any]


@pytest.fixture
def url(cluster: Any) -> str:
    database: str = cluster.database()
    Ledger(database, "the test").prepare()
    return database


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url, "the test")


@contextmanager
def nobody_decides(ledger: Ledger, waiting: int) -> Iterator[None]:
    """Hold the lock until so many wait for it."""
    with ledger.reading() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": store._number(STREAM)})
        yield
        ends = time.monotonic() + 20
        while open_questions(ledger) < waiting:
            assert time.monotonic() < ends, "they do not ask"
            time.sleep(0.01)


def open_questions(ledger: Ledger) -> int:
    with ledger.reading() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM convoy_questions WHERE answer IS NULL")) or 0)


class Asker(threading.Thread):
    """A run, with a connection of its own, that asks once; ``answer`` is what it was told, or the error."""

    def __init__(self, url: str, name: str, question: Question) -> None:
        super().__init__(name=name)
        self._url, self._question = url, question
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._question(Rollouts(Ledger(self._url, f"run of {self.name}"), STREAM))
        except (LedgerError, StaleTokenError) as error:
            self.answer = error


def ask_at_once(ledger: Ledger, url: str, questions: dict[str, Question]) -> dict[str, Any]:
    """What each is told, when all have asked before the first one is answered."""
    with nobody_decides(ledger, len(questions)):
        askers = [Asker(url, name, question) for name, question in questions.items()]
    for asker in askers:
        asker.join(30)
    return {asker.name: asker.answer for asker in askers}


def admission(token: int, host: str) -> Question:
    return lambda rollouts: rollouts.admit("r1", token, host)


def success(token: int, host: str) -> Question:
    return lambda rollouts: rollouts.report("r1", token, host, HostStatus.SUCCEEDED)


def test_those_who_wait_are_answered_together_and_each_host_is_its_askers(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=6)
    told = ask_at_once(ledger, url, {name: admission(token, name) for name in HOSTS})
    assert all(isinstance(answer, Admitted) for answer in told.values()), told
    assert sum(answer.first for answer in told.values()) == 1
    entries = ledger.entries(STREAM, "r1")[1:]
    assert {entry.host: entry.actor for entry in entries} == {name: f"run of {name}" for name in HOSTS}
    assert len({entry.at for entry in entries}) <= 2, "one transaction; the first may have begun before the others"
    assert_whole(ledger)


def test_no_more_are_admitted_together_than_the_window_has_room_for(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=2)
    told = ask_at_once(ledger, url, {name: admission(token, name) for name in HOSTS})
    assert [name for name in HOSTS if isinstance(told[name], Admitted)] == HOSTS[:2], "in the plan's order"
    assert_whole(ledger)


def test_a_place_that_becomes_free_is_taken_at_once(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=1)
    Rollouts(ledger, STREAM).admit("r1", token, "app0")
    told = ask_at_once(ledger, url, {"app1": admission(token, "app1"), "app0": success(token, "app0")})
    assert told["app0"] == Recorded()
    assert isinstance(told["app1"], Admitted)
    assert_whole(ledger)


def run_of(told: dict[str, Any], names: Sequence[str] = HOSTS) -> tuple[str, Migrate]:
    """Who was told to run the migration, and what; all others of ``names`` wait for that one."""
    runs = [(name, answer) for name, answer in told.items() if isinstance(answer, Migrate)]
    assert len(runs) == 1, told
    runner, run = runs[0]
    waits = [answer for name, answer in told.items() if name != runner]
    assert all(isinstance(answer, Wait) for answer in waits), told
    assert {answer.reason for answer in waits} == {f"{runner} runs migration 0001_add_tone"}
    assert {answer.until for answer in waits} == {run.until}
    assert told.keys() == set(names)
    return runner, run


def test_one_of_all_who_ask_at_once_is_told_to_run_a_migration(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=6, migrations=(MIGRATION,))
    questions = {name: admission(token, name) for name in HOSTS}
    runner, run = run_of(ask_at_once(ledger, url, questions))
    assert run.migration == MIGRATION
    ((kind, actor),) = [(entry.kind, entry.actor) for entry in ledger.entries(STREAM, "r1")[1:]]
    assert (kind, actor) == ("migration_started", f"run of {runner}")
    told = ask_at_once(ledger, url, questions)
    assert all(isinstance(answer, Wait) for answer in told.values()), f"it was told a second time: {told}"
    said = MigrationReport(run.migration.name, run.until, went_well=True)
    rollouts = Rollouts(ledger, STREAM)
    with pytest.raises(StaleTokenError):
        rollouts.report_migration("r1", token - 1, said, runner)
    assert rollouts.report_migration("r1", token, said, runner) == Recorded()
    told = ask_at_once(ledger, url, questions)
    assert all(isinstance(answer, Admitted) for answer in told.values()), told
    assert_whole(ledger)


def test_the_controller_and_hosts_that_ask_at_once_run_a_migration_once(ledger: Ledger, url: str) -> None:
    """The controller asks in a transaction of its own, not among those who are answered together."""
    token = open_hosts(ledger, *HOSTS, window=6, migrations=(MIGRATION,))
    with nobody_decides(ledger, len(HOSTS)):
        askers = [Asker(url, name, admission(token, name)) for name in HOSTS]
        askers.append(Asker(url, "localhost", lambda rollouts: rollouts.admit_migration("r1", token, "localhost")))
    for asker in askers:
        asker.join(30)
    run_of({asker.name: asker.answer for asker in askers}, [*HOSTS, "localhost"])
    assert [entry.kind for entry in ledger.entries(STREAM, "r1")[1:]] == ["migration_started"]
    assert_whole(ledger)


def test_one_that_was_not_reported_in_time_is_in_doubt_for_all_who_ask(ledger: Ledger, url: str) -> None:
    """The first one who is answered finds that, and it is recorded once."""
    token = open_hosts(ledger, *HOSTS, window=6, migrations=(replace(MIGRATION, lease=0.2),))
    assert isinstance(Rollouts(ledger, STREAM).admit("r1", token, "app0"), Migrate)
    time.sleep(0.3)
    told = ask_at_once(ledger, url, {name: admission(token, name) for name in HOSTS})
    assert all("0001_add_tone is in doubt: app0, which ran it" in answer.reason for answer in told.values()), told
    kinds = [entry.kind for entry in ledger.entries(STREAM, "r1")[1:]]
    assert kinds == ["migration_started", "migration_in_doubt"]
    assert Rollouts(ledger, STREAM).settle_migration("r1", "0001_add_tone", True, "anna: it is there") == Recorded()
    told = ask_at_once(ledger, url, {name: admission(token, name) for name in HOSTS})
    assert all(isinstance(answer, Admitted) for answer in told.values()), told
    assert_whole(ledger)


def test_an_error_is_told_to_the_one_who_asked(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=6)
    told = ask_at_once(
        ledger,
        url,
        {"app0": admission(token, "app0"), "stale": admission(token - 1, "app1"), "new": admission(token, "app9")},
    )
    assert isinstance(told["app0"], Admitted)
    assert isinstance(told["stale"], StaleTokenError)
    assert f"the token {token - 1} is stale: anna@deploy1 (process 1) took over with {token}" in str(told["stale"])
    assert isinstance(told["new"], LedgerError)
    assert "host app9 is not in the plan of rollout r1" in str(told["new"])
    assert_whole(ledger)


@pytest.mark.parametrize("fault", ["dies", "stops"])
def test_who_does_not_come_to_answer_harms_nobody_else(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The connection of the first one who answers breaks, or its process stands still for longer than is waited."""
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 1)
    token = open_hosts(ledger, *HOSTS, window=6)
    answer_all, first = rollouts_module._answer_all, threading.Lock()

    def falter(*arguments: Any) -> dict[str, str]:
        said = answer_all(*arguments)
        if first.acquire(blocking=False):
            if fault == "dies":
                raise LedgerError("broken")
            time.sleep(2.5)
        return said

    monkeypatch.setattr(rollouts_module, "_answer_all", falter)
    told: dict[str, Any] = {}
    with nobody_decides(ledger, 2):
        askers = [Asker(url, name, admission(token, name)) for name in HOSTS[:2]]
    late = Asker(url, "app5", lambda rollouts: (time.sleep(1.5), admission(token, "app5")(rollouts))[1])
    for asker in (*askers, late):
        asker.join(30)
        told[asker.name] = asker.answer
    assert isinstance(told["app5"], Admitted), told
    assert sum(isinstance(answer, LedgerError) for answer in told.values()) in (1, 2), told
    moved = [entry.host for entry in ledger.entries(STREAM, "r1")[1:]]
    assert len(moved) == len(set(moved))
    assert {name for name, answer in told.items() if isinstance(answer, Admitted)} <= set(moved)
    assert_whole(ledger)


def test_a_question_that_nobody_waits_for_any_more_is_not_answered(ledger: Ledger, url: str) -> None:
    token = open_hosts(ledger, *HOSTS, window=6)
    left = {"stream": STREAM, "rollout": "r1", "host": "app1", "question": f'[{token}, null, ""]'}
    with ledger.transaction("another stream") as tx:
        tx.write(
            text(
                "INSERT INTO convoy_questions (asker, actor, stream, rollout, host, question, asked_at) "
                "SELECT 'gone', 'gone', :stream, :rollout, :host, :question, "
                "extract(epoch FROM clock_timestamp()) - 31"
            ),
            left,
        )
    assert isinstance(Rollouts(Ledger(url, "the test"), STREAM).admit("r1", token, "app0"), Admitted)
    assert [entry.host for entry in ledger.entries(STREAM, "r1")[1:]] == ["app0"]
