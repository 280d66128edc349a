# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger promises on every database that it knows."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event, HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import store
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rebuild import rebuild
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError

STREAM = "staging/hello"


def write(ledger: Ledger, *kinds: str) -> None:
    with ledger.transaction(STREAM) as tx:
        tx.append("r1", [Event(kind, tx.now, "app1", {"why": "snow \N{SNOWMAN}"}) for kind in kinds])
        tx.finish()


def tamper(ledger: Ledger, statement: str) -> None:
    with ledger.transaction("another stream") as tx:
        tx.connection.execute(text(statement))


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
    with pytest.raises(LedgerError, match="has schema version 7, this collection writes version 2"):
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
        assert tx.connection.scalar(text("SHOW transaction_isolation")) == "read committed"


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
    seen = {"app1": HostFacts("app1", "new", "old", health=Health.HEALTHY)}
    spec = RolloutSpec(
        parse_phases([{"name": "all", "size": "100%"}], 1), FailureBudget(Quantity(0)), Quantity(1), 60.0
    )
    plan = make_plan(spec, list(seen.values()))
    run = Run("deploy1", 1, 1, "anna")
    token = rollouts.open(plan, seen, {"version": "1"}, run, lambda _run: None, "r1", 60.0).token
    rollouts.admit("r1", token, "app1")
    rollouts.report("r1", token, "app1", HostStatus.FAILED, why)
    view = rollouts.standing("r1")
    assert (view.state, view.hosts) == tuple(vars(rebuild(ledger.entries(STREAM, "r1"))).values())
    ledger.verify(STREAM)
