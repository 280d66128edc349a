# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger promises on every database that it knows."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event, HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import session, store
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rebuild import rebuild
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError

from .scene import STREAM, open_hosts


def write(ledger: Ledger, *kinds: str) -> None:
    with ledger.transaction(STREAM) as tx:
        tx.append("r1", [Event(kind, tx.now, "app1", {"why": "snow \N{SNOWMAN}"}) for kind in kinds])
        tx.finish()


def tamper(ledger: Ledger, statement: str) -> None:
    with ledger.transaction("another stream") as tx:
        tx.write(text(statement), {})


def test_what_was_written_is_read_back_and_fits_its_hashes(ledger: Ledger) -> None:
    write(ledger, "opened", "paused")
    write(ledger, "unpaused")
    assert [(entry.seq, entry.kind, entry.host) for entry in ledger.entries(STREAM)] == [
        (1, "opened", "app1"), (2, "paused", "app1"), (3, "unpaused", "app1"),
    ]  # fmt: skip
    ledger.verify(STREAM)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE convoy_events SET data = '{}' WHERE seq = 2", "entry 2 (paused, rollout r1) does not match its hash"),
        ("UPDATE convoy_events SET at = at + 0.001 WHERE seq = 1", "entry 1 (opened, rollout r1) does not match"),
        ("DELETE FROM convoy_events WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM convoy_events WHERE seq = 3", "the head names entry 3, but the last one is 2"),
        ("DELETE FROM convoy_events", "the head names entry 3, but the last one is 0"),
        ("UPDATE convoy_streams SET head_hash = 'abc'", "the head names another entry 3"),
    ],
)
def test_tampering_is_found(ledger: Ledger, statement: str, finding: str) -> None:
    write(ledger, "opened", "paused", "unpaused")
    tamper(ledger, statement)
    with pytest.raises(LedgerError) as refusal:
        ledger.verify(STREAM)
    assert finding in str(refusal.value)


def test_a_ledger_of_another_version_is_refused(ledger: Ledger) -> None:
    tamper(ledger, "UPDATE convoy_ledger SET version = 7")
    with pytest.raises(LedgerError, match="has schema version 7, this collection writes version 3"):
        ledger.prepare()


def test_who_reads_sees_one_moment(ledger: Ledger) -> None:
    write(ledger, "opened")
    count = text("SELECT count(*) FROM convoy_events")
    with ledger.reading() as connection:
        assert connection.scalar(count) == 1
        write(ledger, "paused")
        assert connection.scalar(count) == 1


def test_streams_do_not_wait_for_each_other_in_postgresql(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 1)
    ledger = Ledger(cluster.database(), "the test")
    ledger.prepare()
    with ledger.transaction("production/hello"):
        write(ledger, "opened")


def test_a_run_that_stopped_inside_a_transaction_bars_the_others_for_a_while_only(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 1)
    url = cluster.database()
    ledger, other = Ledger(url, "the test"), Ledger(url, "another")
    ledger.prepare()
    with pytest.raises(LedgerError, match="cannot be used: "):
        write_late(ledger, other)
    assert [entry.actor for entry in other.entries(STREAM)] == ["another"]
    ledger.verify(STREAM)


def write_late(ledger: Ledger, other: Ledger) -> None:
    """Stand still inside a transaction until somebody else has written."""
    with ledger.transaction(STREAM) as tx:
        tx.append("r1", [Event("opened", tx.now)])
        while not other.head(STREAM):
            write_if_free(other)
        tx.finish()


def write_if_free(ledger: Ledger) -> None:
    with suppress(LedgerError):
        write(ledger, "opened")


def test_a_server_whose_default_is_a_stricter_isolation_still_sees_what_others_wrote(cluster: Any) -> None:
    """With a snapshot from before the lock was granted, two runs would write the same number."""
    url = cluster.database() + "&options=-c%20default_transaction_isolation%3Dserializable"
    ledger = Ledger(url, "the test")
    ledger.prepare()
    with ledger.transaction(STREAM) as tx:
        assert tx.rows(text("SELECT current_setting('transaction_isolation')"), {}) == [("read committed",)]


def test_who_waits_too_long_for_the_lock_is_told(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_TIMEOUT", 1)
    url = cluster.database()
    ledger, other = Ledger(url, "the test"), Ledger(url, "another")
    ledger.prepare()
    with other.reading() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": store._number(STREAM)})
        with pytest.raises(LedgerError, match="cannot be used: canceling statement due to lock timeout"):
            write(ledger, "opened")
    write(ledger, "opened")
    assert ledger.head(STREAM) == 1


def test_who_waits_is_woken_by_what_another_process_writes(ledger: Ledger, url: str) -> None:
    write(ledger, "opened")
    began = time.monotonic()
    other = threading.Timer(0.2, write, (Ledger(url, "another"), "paused"))
    other.start()
    assert ledger.wait_for_change(STREAM, 1, timeout=60, poll=0.01)
    other.join()
    assert time.monotonic() - began < store.MISSED
    assert not ledger.wait_for_change(STREAM, 2, timeout=0.1, poll=0.01)


def test_who_waits_costs_next_to_nothing(ledger: Ledger) -> None:
    write(ledger, "opened")
    ledger.wait_for_change(STREAM, 1, timeout=0.1, poll=0.1)
    began = time.process_time()
    assert not ledger.wait_for_change(STREAM, 1, timeout=2.0, poll=0.1)
    assert time.process_time() - began < 0.1


def test_a_host_is_woken_when_its_turn_has_come_and_the_others_look_after_a_while(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "TURN_GRACE", 60.0)
    monkeypatch.setattr(store, "MISSED", 60.0)
    url = cluster.database()
    ledger = Ledger(url, "the test")
    ledger.prepare()
    token = open_hosts(ledger, "app1", "app2", "app3")
    first, second, third = (Rollouts(Ledger(url, "the test"), STREAM) for _run in range(3))
    assert isinstance(first.admit("r1", token, "app1"), Admitted)
    for run, host in ((second, "app2"), (third, "app3")):
        assert isinstance(run.admit("r1", token, host), Wait)
        assert not run.wait_for_change(0.01, 1.0, host)
    first.report("r1", token, "app1", HostStatus.SUCCEEDED)
    assert not third.wait_for_change(0.3, 1.0, "app3")
    assert second.wait_for_change(60.0, 1.0, "app2")
    assert isinstance(second.admit("r1", token, "app2"), Admitted)
    monkeypatch.setattr(store, "MISSED", 0.0)
    assert third.wait_for_change(60.0, 1.0, "app3"), "whatever was told, it looks for itself now and then"


def test_a_pause_wakes_all(cluster: Any) -> None:
    url = cluster.database()
    ledger = Ledger(url, "the test")
    ledger.prepare()
    token = open_hosts(ledger, "app1", "app2", "app3")
    rollouts = Rollouts(ledger, STREAM)
    rollouts.admit("r1", token, "app1")
    assert isinstance(rollouts.admit("r1", token, "app3"), Wait)
    assert not rollouts.wait_for_change(0.01, 1.0, "app3")
    Rollouts(Ledger(url, "anna"), STREAM).pause("r1", "lunch")
    began = time.monotonic()
    assert rollouts.wait_for_change(60.0, 1.0, "app3")
    assert time.monotonic() - began < store.TURN_GRACE


def test_a_notification_that_is_lost_is_waited_for_a_while_only(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a pooler stands between the controller and the server."""
    monkeypatch.setattr(store, "MISSED", 0.2)
    url = cluster.database()
    ledger, other = Ledger(url, "the test"), Ledger(url, "another")
    ledger.prepare()
    monkeypatch.setattr(store, "_channel", lambda stream: "nobody_listens")
    ledger.wait_for_change(STREAM, 0, timeout=0.1, poll=0.1)
    monkeypatch.setattr(store, "_channel", lambda stream: "nobody_tells")
    late = threading.Timer(0.1, write, (other, "opened"))
    late.start()
    assert ledger.wait_for_change(STREAM, 0, timeout=60, poll=60)
    late.join()


def test_a_server_that_was_started_anew_is_connected_to_anew(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(cluster.database(), "the test")
    ledger.prepare()
    write(ledger, "opened")
    cluster.crash()
    cluster.start()
    monkeypatch.setattr(session, "IDLE", -1.0)
    write(ledger, "paused")
    assert ledger.head(STREAM) == 2


def test_a_connection_is_not_used_by_a_process_that_was_forked(ledger: Ledger) -> None:
    write(ledger, "opened")
    child = os.fork()
    if not child:
        write(ledger, "paused")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    write(ledger, "unpaused")
    assert [entry.kind for entry in ledger.entries(STREAM)] == ["opened", "paused", "unpaused"]
    ledger.verify(STREAM)


def test_a_decision_is_on_the_disk_before_it_is_told(cluster: Any) -> None:
    """Whatever the server's default is."""
    ledger = Ledger(cluster.database() + "&options=-c%20synchronous_commit%3Doff", "the test")
    ledger.prepare()
    with ledger.transaction(STREAM) as tx:
        assert tx.rows(text("SELECT current_setting('synchronous_commit')"), {}) == [("on",)]
        tx.append("r1", [Event("opened", tx.now)])
        tx.finish()
    with ledger.reading() as connection:
        assert connection.scalar(text("SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"))


def test_a_database_that_does_not_exist(cluster: Any) -> None:
    with pytest.raises(LedgerError, match=r'cannot be used: .*database "nowhere" does not exist'):
        Ledger(cluster.url("nowhere"), "the test").prepare()


def test_a_plain_postgresql_url_finds_its_driver(cluster: Any) -> None:
    ledger = Ledger(cluster.database().replace("postgresql+psycopg://", "postgresql://"), "the test")
    ledger.prepare()
    write(ledger, "opened")
    ledger.verify(STREAM)


@pytest.mark.parametrize("why", ["\0", "caf\udce9", "\N{SNOWMAN}" * 100_000])
def test_a_report_may_hold_anything(ledger: Ledger, why: str) -> None:
    rollouts = Rollouts(ledger, STREAM)
    token = open_hosts(ledger, "app1")
    rollouts.admit("r1", token, "app1")
    rollouts.report("r1", token, "app1", HostStatus.FAILED, why)
    view = rollouts.standing("r1")
    assert (view.state, view.hosts) == tuple(vars(rebuild(ledger.entries(STREAM, "r1"))).values())
    ledger.verify(STREAM)
