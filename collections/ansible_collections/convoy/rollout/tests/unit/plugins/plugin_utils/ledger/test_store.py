# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger in a SQLite file: what it promises, and what it says when it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema, session, store
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError

STREAM = "staging/hello"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Ledger:
    ledger = Ledger(f"sqlite:///{path}", "root@controller", clock)
    ledger.prepare()
    return ledger


def write(ledger: Ledger, *kinds: str) -> None:
    with ledger.transaction(STREAM) as tx:
        tx.append("r1", [Event(kind, tx.now, data={"b": 1, "a": "ü"}) for kind in kinds])
        tx.finish()


def write_what_cannot_be_written(ledger: Ledger) -> None:
    with ledger.transaction(STREAM) as tx:
        tx.append("r1", [Event("paused", tx.now)])
        tx.finish()
        tx.append("r1", [Event("paused", tx.now, data={"reason": object()})])


def sql(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_preparing_twice_changes_nothing(ledger: Ledger) -> None:
    write(ledger, "opened")
    ledger.prepare()
    assert ledger.head(STREAM) == 1


def test_nobody_else_reads_the_file(ledger: Ledger, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_was_committed_is_on_the_disk(ledger: Ledger) -> None:
    with ledger.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_events_are_chained_in_order(ledger: Ledger) -> None:
    write(ledger, "opened", "paused")
    write(ledger, "unpaused")
    entries = ledger.entries(STREAM)
    assert [(entry.seq, entry.kind, entry.actor) for entry in entries] == [
        (1, "opened", "root@controller"),
        (2, "paused", "root@controller"),
        (3, "unpaused", "root@controller"),
    ]
    assert entries[0].data == '{"a":"\\u00fc","b":1}'
    assert ledger.head(STREAM) == 3
    ledger.verify(STREAM)


def test_streams_have_chains_of_their_own(ledger: Ledger) -> None:
    write(ledger, "opened")
    with ledger.transaction("production/hello") as tx:
        tx.append("r2", [Event("opened", tx.now)])
        tx.finish()
    assert (ledger.head(STREAM), ledger.head("production/hello"), ledger.head("nowhere")) == (1, 1, 0)
    for stream in (STREAM, "production/hello", "nowhere"):
        ledger.verify(stream)


def test_the_events_of_one_rollout(ledger: Ledger) -> None:
    write(ledger, "opened")
    with ledger.transaction(STREAM) as tx:
        tx.append("r2", [Event("opened", tx.now)])
        tx.finish()
    assert [entry.seq for entry in ledger.entries(STREAM, "r2")] == [2]


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    write(ledger, "opened")
    with pytest.raises(TypeError):
        write_what_cannot_be_written(ledger)
    assert ledger.head(STREAM) == 1
    ledger.verify(STREAM)


def test_time_never_runs_backwards(ledger: Ledger, clock: Clock) -> None:
    write(ledger, "opened")
    clock.now -= 500
    write(ledger, "paused")
    clock.now += 501
    write(ledger, "unpaused")
    assert [entry.at for entry in ledger.entries(STREAM)] == [1000.0, 1000.0, 1001.0]


def test_time_does_not_stand_still_behind_a_clock_that_was_set_back(ledger: Ledger, clock: Clock) -> None:
    write(ledger, "opened")
    for step in (-500, 10, 10, 2000):
        clock.now += step
        write(ledger, "paused")
    assert [entry.at for entry in ledger.entries(STREAM)] == [1000.0, 1000.0, 1005.0, 1010.0, 2520.0]


def test_who_reads_sees_one_moment(ledger: Ledger) -> None:
    write(ledger, "opened")
    with ledger.reading() as connection:
        count = schema.events.select()
        assert len(connection.execute(count).all()) == 1
        write(ledger, "paused")
        assert len(connection.execute(count).all()) == 1
    assert ledger.head(STREAM) == 2


def test_who_waits_too_long_for_the_others_is_told(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: database is locked"):
            write(ledger, "opened")
        assert ledger.head(STREAM) == 0
    finally:
        other.close()


TAMPERING: list[tuple[str, str]] = [
    ("UPDATE convoy_events SET data = '{}' WHERE seq = 2", "entry 2 (paused, rollout r1) does not match its hash"),
    ("UPDATE convoy_events SET actor = 'nobody' WHERE seq = 1", "entry 1 (opened, rollout r1) does not match its hash"),
    ("UPDATE convoy_events SET at = at + 1 WHERE seq = 3", "entry 3 (unpaused, rollout r1) does not match its hash"),
    ("DELETE FROM convoy_events WHERE seq = 2", "entry 2 is missing: entry 3 follows entry 1"),
    ("DELETE FROM convoy_events WHERE seq = 3", "the head names entry 3, but the last one is 2: entries were cut off"),
    ("DELETE FROM convoy_events", "the head names entry 3, but the last one is 0: entries were cut off"),
    ("DELETE FROM convoy_streams", "the head names entry 0, but the last one is 3"),
    ("UPDATE convoy_streams SET head = 2", "the head names entry 2, but the last one is 3"),
    ("UPDATE convoy_streams SET head_hash = 'abc'", "the head names another entry 3 than the one that is there"),
    (
        "INSERT INTO convoy_events SELECT stream, 4, rollout, kind, host, at, actor, data, hash FROM convoy_events "
        "WHERE seq = 3",
        "entry 4 (unpaused, rollout r1) does not match its hash",
    ),
    ("UPDATE convoy_events SET stream = 'elsewhere' WHERE seq = 3", "the head names entry 3, but the last one is 2"),
]


@pytest.mark.parametrize(("tampering", "finding"), TAMPERING)
def test_tampering_is_found_and_named(ledger: Ledger, path: Path, tampering: str, finding: str) -> None:
    write(ledger, "opened", "paused", "unpaused")
    sql(path, tampering)
    with pytest.raises(LedgerError) as refusal:
        ledger.verify(STREAM)
    assert str(refusal.value).startswith(f"the ledger of {STREAM} is not intact: {finding}")
    assert str(refusal.value).endswith("Nothing is deployed until it is restored")


def test_a_ledger_of_an_older_version_is_brought_up_to_date(path: Path, ledger: Ledger) -> None:
    write(ledger, "opened")
    sql(path, "ALTER TABLE convoy_streams DROP COLUMN clock_at", "UPDATE convoy_ledger SET version = 1")
    with pytest.raises(LedgerError, match="has schema version 1: the next deployment, or a check"):
        Ledger(f"sqlite:///{path}", "root", reads_only=True).expect()
    newer = Ledger(f"sqlite:///{path}", "root", lambda: 1010.0)
    newer.prepare()
    newer.prepare()
    write(newer, "paused")
    assert [entry.at for entry in newer.entries(STREAM)] == [1000.0, 1010.0]
    newer.verify(STREAM)


def test_a_ledger_of_another_version_is_left_alone(path: Path, ledger: Ledger) -> None:
    sql(path, "UPDATE convoy_ledger SET version = 7", "DROP TABLE convoy_hosts")
    with pytest.raises(LedgerError, match="has schema version 7, this collection writes version 3: use the collection"):
        ledger.prepare()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM sqlite_master WHERE name = 'convoy_hosts'").fetchall() == []
    connection.close()


def test_a_ledger_that_was_never_prepared(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: no such table: convoy_streams"):
        Ledger(f"sqlite:///{path}", "root").head(STREAM)


# The connection that is kept


def test_a_connection_is_not_used_by_a_process_that_was_forked(ledger: Ledger) -> None:
    write(ledger, "opened")
    child = os.fork()
    if not child:
        write(ledger, "paused")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert session._INHERITED == []
    write(ledger, "unpaused")
    assert [entry.kind for entry in ledger.entries(STREAM)] == ["opened", "paused", "unpaused"]
    ledger.verify(STREAM)


def test_a_transaction_within_a_view_has_a_connection_of_its_own(ledger: Ledger) -> None:
    write(ledger, "opened")
    with ledger.reading() as connection, ledger.reading() as other:
        assert connection.connection.driver_connection is not other.connection.driver_connection


# Waiting for others


def test_what_happened_before_is_not_waited_for(ledger: Ledger) -> None:
    write(ledger, "opened")
    assert ledger.wait_for_change(STREAM, 0, timeout=600, poll=600)
    assert ledger.wait_for_change("nowhere", 1, timeout=600, poll=600)


def test_nothing_that_happens_is_waited_for_no_longer_than_said(ledger: Ledger) -> None:
    write(ledger, "opened")
    assert not ledger.wait_for_change(STREAM, 1, timeout=0.02, poll=0.005)


def test_what_others_write_ends_the_waiting(ledger: Ledger, path: Path) -> None:
    write(ledger, "opened")
    other = threading.Timer(0.05, write, (Ledger(f"sqlite:///{path}", "bert"), "paused"))
    other.start()
    assert ledger.wait_for_change(STREAM, 1, timeout=30, poll=0.005)
    other.join()


def test_what_happens_elsewhere_does_not_end_the_waiting(ledger: Ledger, path: Path) -> None:
    write(ledger, "opened")
    with Ledger(f"sqlite:///{path}", "bert").transaction("production/hello") as tx:
        tx.append("r9", [Event("opened", tx.now)])
        tx.finish()
    assert not ledger.wait_for_change(STREAM, 1, timeout=0.02, poll=0.005)


# A ledger that is only read


def test_a_ledger_that_is_not_there_is_not_made(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger at .*ledger\.db: the first deployment makes one"):
        Ledger(f"sqlite:///{path}", "root", reads_only=True)
    assert not path.parent.exists()


def test_an_empty_file_is_no_ledger_and_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerError, match=r"there is no ledger at sqlite:.*the first deployment makes one"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db", "root", reads_only=True).expect()
    assert (tmp_path / "ledger.db").stat().st_size == 0


def test_who_only_reads_cannot_write(ledger: Ledger, path: Path) -> None:
    write(ledger, "opened")
    reader = Ledger(f"sqlite:///{path}", "root", reads_only=True)
    reader.expect()
    reader.verify(STREAM)
    with pytest.raises(LedgerError, match="attempt to write a readonly database"):
        write(reader, "paused")
    assert reader.head(STREAM) == 1


def test_a_ledger_of_another_version_is_not_read(path: Path, ledger: Ledger) -> None:
    sql(path, "UPDATE convoy_ledger SET version = 7")
    with pytest.raises(LedgerError, match="has schema version 7, this collection writes version 3"):
        Ledger(f"sqlite:///{path}", "root", reads_only=True).expect()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("my shopping list\n" * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: file is not a database"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db", "root").prepare()


def test_a_file_that_was_cut_off(path: Path, ledger: Ledger) -> None:
    write(ledger, "opened")
    ledger.close()
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode=DELETE")
    os.truncate(path, 8192)
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be used: database disk image is malformed"):
        ledger.verify(STREAM)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "this is no database URL: write sqlite:////path/to/ledger.db or postgresql+psycopg://user@host/database"),
        ("/var/lib/convoy/ledger.db", "this is no database URL"),
        ("postgresql://convoy:hunter2@db:port/convoy", "this is no database URL"),
        ("sqlite://", "a ledger in memory is lost with the process: give a file"),
        ("sqlite:///:memory:", "a ledger in memory is lost with the process: give a file"),
        (
            "mysql://convoy:hunter2@db/convoy",
            "a ledger cannot be kept in mysql: use sqlite:// or postgresql+psycopg://",
        ),
        ("postgresql+asyncpg://convoy:hunter2@db/convoy", "a ledger cannot be kept in postgresql+asyncpg"),
        ("sqlite:////proc/convoy/ledger.db", "/proc/convoy/ledger.db cannot be opened for writing: No such file"),
        ("sqlite:////", "cannot be opened for writing: Is a directory"),
    ],
)
def test_a_bad_url_is_refused_and_no_password_repeated(url: str, complaint: str) -> None:
    with pytest.raises(LedgerError) as refusal:
        Ledger(url, "root")
    assert complaint in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.reason == "ledger"


@pytest.mark.parametrize("url", ["postgresql://convoy:hunter2@127.0.0.1:1/convoy?connect_timeout=2"])
def test_a_database_that_is_away(url: str) -> None:
    with pytest.raises(
        LedgerError, match=r"postgresql\+psycopg://convoy:\*\*\*@127\.0\.0\.1:1.* cannot be used: "
    ) as refusal:
        Ledger(url, "root").prepare()
    assert "Connection refused" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError, match=r"needs the Python package psycopg: pip install 'psycopg\[binary\]'"):
        Ledger("postgresql://convoy@db/convoy", "root")


def test_without_sqlalchemy_a_ledger_says_so(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(schema, "INSTALLED", False)
    with pytest.raises(
        LedgerError, match="needs the Python package sqlalchemy on the controller: pip install sqlalchemy"
    ):
        Ledger(f"sqlite:///{path}", "root")


IMPORTS = """
import sys
sys.modules["sqlalchemy"] = None
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import audit, export, rollouts
"""


def test_the_modules_import_without_sqlalchemy() -> None:
    collections = Path(store.__file__).parents[6]
    subprocess.run([sys.executable, "-c", IMPORTS], env={"PYTHONPATH": str(collections)}, check=True)


def test_a_clock_may_count_in_whole_seconds(ledger: Ledger, clock: Clock) -> None:
    clock.now = 2000
    write(ledger, "opened")
    ledger.verify(STREAM)
