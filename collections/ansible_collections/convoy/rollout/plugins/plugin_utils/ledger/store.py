# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transactions over one stream of the ledger: serialised by the database, appended with the chain's hash."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import GENESIS, Entry, broken_link, link

if schema.INSTALLED:
    from sqlalchemy import (
        URL,
        Connection,
        Engine,
        RowMapping,
        create_engine,
        event,
        func,
        insert,
        inspect,
        select,
        text,
        update,
    )
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

BUSY_TIMEOUT = 30  # seconds for which a transaction waits for the others to finish
CONNECT_TIMEOUT = 10  # seconds for which a database server is waited for
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


class LedgerError(ConvoyError):
    """The ledger cannot be used, or is not what it claims to be."""

    reason: ClassVar[str] = "ledger"


class Transaction:
    """One transaction over a stream: nobody else writes to the stream until it ends. ``now``: epoch seconds."""

    def __init__(self, connection: Connection, stream: str, now: float, actor: str) -> None:
        self.connection = connection
        self.stream = stream
        self.actor = actor
        row = connection.execute(select(schema.streams).where(schema.streams.c.name == stream)).mappings().first()
        if row is None:
            first = {"name": stream, "head": 0, "head_hash": GENESIS, "token": 0, "seen_at": now, "clock_at": now}
            connection.execute(insert(schema.streams).values(first))
            row = connection.execute(select(schema.streams).where(schema.streams.c.name == stream)).mappings().one()
        self.row: RowMapping = row
        self.now = ledger_time(now, row["seen_at"], row["clock_at"])
        self._clock = now
        self._head, self._hash = row["head"], row["head_hash"]

    def append(self, rollout: str, happened: Iterable[Event]) -> None:
        """Append events to the chain."""
        rows = []
        for one in happened:
            data = json.dumps(one.data, sort_keys=True, separators=(",", ":"))
            entry = Entry(self.stream, self._head + 1, rollout, one.kind, one.host, one.at, self.actor, data)
            self._head, self._hash = entry.seq, link(self._hash, entry)
            rows.append({**vars(entry), "hash": self._hash})
        if rows:
            self.connection.execute(insert(schema.events), rows)

    def finish(self, **columns: Any) -> None:
        """Write the stream's row: the head of the chain, that the holder was heard of, and ``columns``."""
        heard = {"seen_at": self.now, "clock_at": self._clock}
        changes = {"head": self._head, "head_hash": self._hash, **heard, **columns}
        self.connection.execute(update(schema.streams).where(schema.streams.c.name == self.stream).values(changes))


def ledger_time(clock: float, seen_at: float, clock_at: float) -> float:
    """The time in the ledger, which was ``seen_at`` when the clock said ``clock_at``; all in epoch seconds.

    Whatever a clock does, time never runs backwards here, nor does it stand still, with leases and bake times that
    never end: behind a clock that was set back it goes on at half the speed, until the clock has caught up.
    """
    return clock if clock >= seen_at else seen_at + max(0.0, clock - clock_at) / 2


class Ledger:
    """A ledger by its URL, e.g. ``sqlite:////var/lib/convoy/ledger.db`` or ``postgresql+psycopg://user@host/db``."""

    def __init__(self, url: str, actor: str, clock: Callable[[], float] = time.time, reads_only: bool = False) -> None:
        """``reads_only``: a ledger that is not there is not made, and nothing can be written."""
        self._actor = actor
        self._clock = clock
        self._engine = _engine(url, reads_only)
        self.sqlite = self._engine.dialect.name == "sqlite"

    def prepare(self) -> None:
        """Create the tables where they are missing. Raises LedgerError if they are of another version."""
        with _told(self._engine), self._engine.begin() as connection:
            self._lock(connection, schema.ledger_version.name)
            if not inspect(connection).has_table(schema.ledger_version.name):
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.ledger_version).values(version=schema.VERSION))
            version = connection.scalar(select(schema.ledger_version.c.version))
        self._refuse_other(version)

    def expect(self) -> None:
        """Raise LedgerError unless the tables are there, of this version. Makes none."""
        with self.reading() as connection:
            if not inspect(connection).has_table(schema.ledger_version.name):
                raise _missing(str(self._engine.url))
            version = connection.scalar(select(schema.ledger_version.c.version))
        self._refuse_other(version)

    def _refuse_other(self, version: int | None) -> None:
        if version != schema.VERSION:
            raise LedgerError(
                f"the ledger {self._engine.url!r} has schema version {version}, this collection writes version "
                f"{schema.VERSION}: use the collection that wrote it"
            )

    @contextmanager
    def transaction(self, stream: str) -> Iterator[Transaction]:
        """The only way to write: the stream is locked from the start to the end of the block."""
        with _told(self._engine), self._engine.begin() as connection:
            yield Transaction(connection, stream, self._lock(connection, stream), self._actor)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view that locks nobody out."""
        options = {"convoy_reads": True} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with _told(self._engine), self._engine.connect() as connection:
            yield connection.execution_options(**options)

    def head(self, stream: str) -> int:
        """The number of the newest event: when it has not changed, nothing has."""
        with self.reading() as connection:
            return connection.scalar(select(schema.streams.c.head).where(schema.streams.c.name == stream)) or 0

    def entries(self, stream: str, rollout: str | None = None) -> list[Entry]:
        """The events of a stream, or of one of its rollouts, oldest first."""
        with self.reading() as connection:
            return list(entries_in(connection, stream, rollout))

    def verify(self, stream: str) -> None:
        """Raise LedgerError naming the first entry that was edited, removed or cut off."""
        with self.reading() as connection:
            wrong = broken_link(entries_in(connection, stream), *head_in(connection, stream))
        if wrong:
            raise not_intact(stream, wrong)

    def _lock(self, connection: Connection, stream: str) -> float:
        """Lock the stream for this transaction; the time, in epoch seconds, by the clock that all runs share."""
        if self.sqlite:  # BEGIN IMMEDIATE has locked the database already
            return self._clock()
        key = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big", signed=True)
        for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):  # a stopped process bars nobody for long
            connection.execute(select(func.set_config(limit, f"{BUSY_TIMEOUT}s", True)))
        connection.execute(select(func.pg_advisory_xact_lock(key)))
        return float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)


def entries_in(connection: Connection, stream: str, rollout: str | None = None) -> Iterator[Entry]:
    """The events of a stream, or of one of its rollouts, oldest first, without holding them all in memory."""
    query = select(schema.events).where(schema.events.c.stream == stream).order_by(schema.events.c.seq)
    if rollout is not None:
        query = query.where(schema.events.c.rollout == rollout)
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield Entry(*row)


def head_in(connection: Connection, stream: str) -> tuple[int, str]:
    """Number and hash of the newest event, as the stream's row names them."""
    named = select(schema.streams.c.head, schema.streams.c.head_hash).where(schema.streams.c.name == stream)
    head = connection.execute(named).first()
    return (head[0], head[1]) if head else (0, GENESIS)


def not_intact(stream: str, wrong: str) -> LedgerError:
    """What is raised for a chain that does not hold."""
    return LedgerError(f"the ledger of {stream} is not intact: {wrong}. Nothing is deployed until it is restored")


def _missing(place: str) -> LedgerError:
    return LedgerError(
        f"there is no ledger at {place}: the first deployment makes one. Nothing was made; check "
        "environment_ledger_url, and -i, if deployments were made"
    )


def _engine(url: str, reads_only: bool) -> Engine:
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        return _sqlite_engine(parsed, reads_only)
    options = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_TIMEOUT}
    try:
        return create_engine(parsed, poolclass=NullPool, isolation_level="READ COMMITTED", connect_args=options)
    except ModuleNotFoundError as error:
        raise LedgerError(
            f"a ledger in PostgreSQL needs the Python package {error.name}: pip install 'psycopg[binary]'"
        ) from error


def _parse(url: str) -> URL:
    """The URL with the driver that is used. An error does not repeat the URL: it may hold a password."""
    if not schema.INSTALLED:
        raise LedgerError("the ledger needs the Python package sqlalchemy on the controller: pip install sqlalchemy")
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise LedgerError(
            "environment_ledger_url: this is no database URL: write sqlite:////path/to/ledger.db or "
            "postgresql+psycopg://user@host/database"
        ) from error
    for backend, driver in DRIVERS.items():
        if parsed.drivername in (backend, driver):
            return parsed.set(drivername=driver)
    raise LedgerError(
        f"environment_ledger_url: a ledger cannot be kept in {parsed.drivername}: "
        f"use {' or '.join(f'{driver}://' for driver in DRIVERS.values())}"
    )


def _sqlite_engine(url: URL, reads_only: bool) -> Engine:
    if not url.database or url.database == ":memory:":
        raise LedgerError("environment_ledger_url: a ledger in memory is lost with the process: give a file")
    path = Path(url.database)
    if reads_only and not path.is_file():
        raise _missing(str(path))
    try:
        if not reads_only:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | (0 if reads_only else os.O_CREAT), 0o600))
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be opened for writing: {error.strerror}") from error
    engine = create_engine(url, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000}")
        if reads_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("convoy_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. Several who begin with a new file at once are refused at once, not after busy_timeout."""
    ends = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise LedgerError(f"the ledger {engine.url!r} cannot be used: {cause}") from error
