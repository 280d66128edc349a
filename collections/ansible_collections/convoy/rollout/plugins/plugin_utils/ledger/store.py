# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Transactions over one stream of the ledger: serialised by the database, appended with the chain's hash."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from select import select as select_files
from typing import Any, ClassVar, NamedTuple, cast

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import GENESIS, Entry, broken_link, link

if schema.INSTALLED:
    from sqlalchemy import (
        URL,
        Connection,
        Engine,
        bindparam,
        create_engine,
        event,
        insert,
        inspect,
        literal_column,
        select,
        text,
        update,
    )
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
    from sqlalchemy.pool import QueuePool

    POOL: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": -1}

    # Made once, for the driver below: an admission is a handful of these.
    _STREAMS, _ROLLOUTS, _HOSTS = schema.streams, schema.rollouts, schema.hosts
    _READ = (
        select(
            *(_STREAMS.c[name] for name in ("head", "head_hash", "token", "rollout", "holder", "seen_at")),
            *(_ROLLOUTS.c[name] for name in ("rules", "state", "digest")),
            *(_HOSTS.c[name] for name in ("position", "phase", "zone", "status")),
        )
        .select_from(
            _STREAMS.outerjoin(
                _ROLLOUTS, (_ROLLOUTS.c.id == bindparam("rollout_id")) & (_ROLLOUTS.c.stream == _STREAMS.c.name)
            ).outerjoin(_HOSTS, (_HOSTS.c.rollout == _ROLLOUTS.c.id) & (_HOSTS.c.name == bindparam("host_name")))
        )
        .where(_STREAMS.c.name == bindparam("stream_name"))
    )
    _READ_WITH_TIME = _READ.add_columns(literal_column("extract(epoch FROM clock_timestamp())::float8"))
    _HEAD = select(_STREAMS.c.head).where(_STREAMS.c.name == bindparam("stream_name"))
    _INSERT_STREAM = insert(_STREAMS)
    _INSERT_EVENT = insert(schema.events)
    _UPDATE_STREAM = (
        update(_STREAMS)
        .where(_STREAMS.c.name == bindparam("stream_name"))
        .values({name: bindparam(name) for name in ("head", "head_hash", "token", "rollout", "holder", "seen_at")})
    )
    _LOCK = text(
        "SELECT set_config('lock_timeout', :limit, true), "
        "set_config('idle_in_transaction_session_timeout', :limit, true), "
        "set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock(:key)"
    )

BUSY_TIMEOUT = 30  # seconds for which a transaction waits for the others to finish
CONNECT_TIMEOUT = 10  # seconds for which a database server is waited for
BUSY_TURN = 8  # milliseconds for which SQLite waits by itself, with pauses that grow, before it is asked anew
MISSED = 5.0  # seconds after which a wait looks for itself: a pooler between here and PostgreSQL may lose what it tells
IDLE = 5.0  # seconds after which a kept connection is tried before it is used again
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_INHERITED: list[Any] = []  # connections of a parent process: closing them here would disturb it


class LedgerError(ConvoyError):
    """The ledger cannot be used, or is not what it claims to be."""

    reason: ClassVar[str] = "ledger"


class Read(NamedTuple):
    """What a transaction begins with: the stream's row, and of the rollout and the host that were asked for."""

    head: int
    head_hash: str
    token: int
    rollout: str | None
    holder: str | None
    seen_at: float
    rules: str | None = None
    state: str | None = None
    digest: str | None = None
    position: int | None = None
    phase: int | None = None
    zone: str | None = None
    status: str | None = None
    now: float = 0.0


class Transaction:
    """One transaction over a stream: nobody else writes to the stream until it ends. ``now``: epoch seconds.

    What is written is collected, and goes to the database when the block has ended.
    """

    def __init__(self, connection: Connection, stream: str, now: float, actor: str, row: Read) -> None:
        self.connection = connection
        self.stream = stream
        self.actor = actor
        self.row = row
        self.now = max(now, row.seen_at)  # time never runs backwards in the ledger, whatever a clock does
        self.head, self._hash = row.head, row.head_hash
        self.writes: list[tuple[Any, Sequence[Mapping[str, Any]]]] = []

    def append(self, rollout: str, happened: Iterable[Event]) -> None:
        """Append events to the chain."""
        rows = []
        for one in happened:
            data = json.dumps(one.data, sort_keys=True, separators=(",", ":"))
            entry = Entry(self.stream, self.head + 1, rollout, one.kind, one.host, one.at, self.actor, data)
            self.head, self._hash = entry.seq, link(self._hash, entry)
            rows.append({**vars(entry), "hash": self._hash})
        self.write(_INSERT_EVENT, *rows)

    def read(self, statement: Any, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The first row that a statement finds, as everything stood before this transaction."""
        return _Batch(self.connection).add(statement, values).send() or ()

    def write(self, statement: Any, *values: Mapping[str, Any]) -> None:
        """Have a statement run, once with each of ``values``."""
        self.writes.append((statement, values))

    def finish(self, **columns: Any) -> None:
        """Write the stream's row: the head of the chain, that the holder was heard of, and ``columns``."""
        kept = {"token": self.row.token, "rollout": self.row.rollout, "holder": self.row.holder}
        head = {"stream_name": self.stream, "head": self.head, "head_hash": self._hash, "seen_at": self.now}
        self.write(_UPDATE_STREAM, {**kept, **head, **columns})


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
        with _told(self._engine), self._writing().begin() as connection:
            self._lock_tables(connection)
            if not inspect(connection).has_table(schema.ledger_version.name):
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.ledger_version).values(version=schema.VERSION))
            version = connection.scalar(select(schema.ledger_version.c.version))
        self._refuse_other(version)

    def close(self) -> None:
        """Close the connection that is kept for the next transaction."""
        self._engine.dispose()

    def _writing(self) -> Engine:
        """The engine for what is done once, statement by statement."""
        return self._engine if self.sqlite else self._engine.execution_options(isolation_level="READ COMMITTED")

    def _lock_tables(self, connection: Connection) -> None:
        if not self.sqlite:
            connection.execute(_LOCK, _lock_values(schema.ledger_version.name))

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
    def transaction(self, stream: str, rollout: str | None = None, host: str | None = None) -> Iterator[Transaction]:
        """The only way to write: the stream is locked from the start to the end of the block."""
        with _told(self._engine), self._engine.connect() as connection, connection.begin() as begun:
            row = self._lock(connection, stream, rollout, host)
            tx = Transaction(connection, stream, self._clock() if self.sqlite else row.now, self._actor, row)
            yield tx
            ending = _Batch(connection)
            for statement, values in tx.writes:
                ending.add(statement, *values)
            if not self.sqlite:
                _end(ending, stream, wrote=bool(tx.writes), grown=tx.head != row.head)
            ending.send()
            begun.commit()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view that locks nobody out."""
        options = {"convoy_reads": True} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with _told(self._engine), self._engine.connect() as connection:
            yield connection.execution_options(**options)

    def head(self, stream: str) -> int:
        """The number of the newest event: when it has not changed, nothing has."""
        with self.reading() as connection:
            return connection.scalar(_HEAD, {"stream_name": stream}) or 0

    def wait_for_change(self, stream: str, head: int, timeout: float, poll: float) -> bool:
        """Wait until there is an event after ``head``, at most ``timeout`` seconds; whether there is one.

        PostgreSQL tells of it. SQLite cannot: there a counter of the file is looked at every ``poll`` seconds.
        """
        deadline = time.monotonic() + timeout
        with _told(self._engine), self._engine.connect() as connection:
            connection = connection.execution_options(convoy_reads=True)
            changed = _changed_file if self.sqlite else _told_by_server
            with closing(changed(connection, stream, deadline, poll)) as changes:
                for _change in changes:
                    found = connection.scalar(_HEAD, {"stream_name": stream}) or 0
                    connection.rollback()
                    if found != head:
                        return True
        return False

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

    def _lock(self, connection: Connection, stream: str, rollout: str | None, host: str | None) -> Read:
        """Lock the stream for this transaction; its row, made where it is missing, and what was asked for beside it.

        In PostgreSQL the time comes with it, by the clock that all runs share.
        """
        query = _READ if self.sqlite else _READ_WITH_TIME
        names = {"stream_name": stream, "rollout_id": rollout, "host_name": host}
        first = {"name": stream, "head": 0, "head_hash": GENESIS, "token": 0, "seen_at": 0.0}
        reading = _Batch(connection)
        if not self.sqlite:  # there BEGIN IMMEDIATE has locked the database already
            reading.add("BEGIN ISOLATION LEVEL READ COMMITTED", {})
            reading.add(_LOCK, _lock_values(stream))
        row = reading.add(query, names).send()
        if row is None:
            making = _Batch(connection).add(_INSERT_STREAM, {**first, "rollout": None, "holder": None})
            row = making.add(query, names).send()
        return Read(*(row or ()))


class _Batch:
    """Statements that are sent together: one journey to PostgreSQL, however many they are.

    They were made once and go to the driver itself: SQLAlchemy takes several times as long for each.
    """

    def __init__(self, connection: Connection) -> None:
        self._dialect = connection.dialect
        self._driver = _driver(connection)
        self._statements: list[tuple[str, Mapping[str, Any]]] = []

    def add(self, statement: Any, *values: Mapping[str, Any]) -> _Batch:
        """Have a statement run, once with each of ``values``."""
        words = statement if isinstance(statement, str) else _words(statement, self._dialect)
        self._statements += [(words, one) for one in values]
        return self

    def send(self) -> tuple[Any, ...] | None:
        """Run them, in their order; the first row of the last one."""
        if not self._statements:
            return None
        if self._dialect.name == "sqlite":
            for words, values in self._statements:
                answer = self._driver.execute(words, values)
            return cast("tuple[Any, ...] | None", answer.fetchone())
        return self._send_at_once()

    def _send_at_once(self) -> tuple[Any, ...] | None:
        from psycopg import ClientCursor  # which puts the values into the text, since many statements cannot have any

        with ClientCursor(self._driver) as cursor:
            cursor.execute("; ".join(cursor.mogrify(words, values) for words, values in self._statements))
            while cursor.nextset():
                pass
            return cursor.fetchone() if cursor.description else None


@cache
def _words(statement: Any, dialect: Any) -> str:
    """The statement in the language of the database, with the names of its values."""
    return str(statement.compile(dialect=dialect))


def _lock_values(name: str) -> dict[str, Any]:
    """A process that stopped bars the others for a while only."""
    return {"limit": f"{BUSY_TIMEOUT}s", "key": _number(name)}


def _end(ending: _Batch, stream: str, wrote: bool, grown: bool) -> None:
    """Tell who waits, commit, and then wait for the disk.

    Once it has committed, the transaction has given its lock away: the next one need not wait for the disk, and many of
    them reach it with one write. Nobody is told of a decision before that: a crash of the server takes back only the
    newest ones, of which nobody knows, since what was written later never lasts without what was written before.
    """
    if grown:
        ending.add(f"NOTIFY {_channel(stream)}", {})
    ending.add("COMMIT", {})
    if wrote:
        ending.add("SELECT pg_logical_emit_message(true, 'convoy', '')", {})


def _told_by_server(connection: Connection, stream: str, deadline: float, _poll: float) -> Generator[None, None, None]:
    """Once at the beginning, and whenever PostgreSQL has told that the stream may have grown."""
    driver, heard = _driver(connection), threading.Event()

    def hear(_notification: Any) -> None:
        heard.set()

    driver.add_notify_handler(hear)
    try:
        driver.execute(f"LISTEN {_channel(stream)}")
        while True:
            heard.clear()
            yield
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if not heard.is_set() and driver.pgconn.notifies() is None:
                select_files([driver], [], [], min(left, MISSED))
    finally:
        driver.remove_notify_handler(hear)
        if not driver.closed:
            driver.execute("UNLISTEN *")


def _changed_file(connection: Connection, _stream: str, deadline: float, poll: float) -> Generator[None, None, None]:
    """Once at the beginning, and whenever another connection has written to the file."""
    driver, version = _driver(connection), None
    while True:
        (newest,) = driver.execute("PRAGMA data_version").fetchone()
        if newest != version:
            version = newest
            yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, poll))


def _driver(connection: Connection) -> Any:
    """The connection as psycopg has it."""
    return connection.connection.driver_connection


def _number(stream: str) -> int:
    """What stands for the stream in locks."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big", signed=True)


def _channel(stream: str) -> str:
    """Where PostgreSQL tells that the stream has grown."""
    return f"convoy_{_number(stream) & (1 << 64) - 1:016x}"


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
        return _kept(create_engine(parsed, isolation_level="AUTOCOMMIT", connect_args=options, **POOL))
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
    engine = _kept(create_engine(url, paramstyle="named", **POOL))

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
        if connection.get_execution_options().get("convoy_reads", False):
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_immediate(_driver(connection))

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


def _kept(engine: Engine) -> Engine:
    """Keep one connection for the next transaction, unless this process was forked off since, or it was left idle."""

    @event.listens_for(engine, "checkin")
    def _lay_down(_connection: Any, record: Any) -> None:
        record.info.update(pid=os.getpid(), used=time.monotonic())

    @event.listens_for(engine, "checkout")
    def _pick_up(connection: Any, record: Any, proxy: Any) -> None:
        if record.info.get("pid", os.getpid()) != os.getpid():
            _INHERITED.append(connection)
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("the connection belongs to the process that this one was forked from")
        idle = time.monotonic() - record.info.get("used", math.inf)
        if idle > IDLE and not _answers(engine.dialect, connection):
            raise DisconnectionError("the server has closed the connection")

    return engine


def _answers(dialect: Any, connection: Any) -> bool:
    """Whether the server is still there."""
    try:
        return bool(dialect.do_ping(connection))
    except dialect.dbapi.Error:
        return False


def _begin_immediate(connection: sqlite3.Connection) -> None:
    """Wait for the other writers. SQLite's own waiting sleeps for up to 100 ms while others go ahead, so it is cut."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    connection.execute(f"PRAGMA busy_timeout={BUSY_TURN}")
    while not connection.in_transaction:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000}")


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise LedgerError(f"the ledger {engine.url!r} cannot be used: {cause}") from error
