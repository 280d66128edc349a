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
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import TURN_GRACE
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import questions, schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import GENESIS, Entry, broken_link, link
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.questions import BUSY_TIMEOUT, CLOCK, Asked
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.session import (
    Call,
    Kept,
    PostgresSession,
    Row,
    Session,
    SqliteSession,
)

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
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    _STREAMS, _ROLLOUTS, _HOSTS = schema.streams, schema.rollouts, schema.hosts
    _READ = (
        select(
            *(_STREAMS.c[name] for name in schema.HEAD), *(_ROLLOUTS.c[name] for name in ("rules", "state", "digest"))
        )
        .select_from(
            _STREAMS.outerjoin(
                _ROLLOUTS, (_ROLLOUTS.c.id == bindparam("rollout_id")) & (_ROLLOUTS.c.stream == _STREAMS.c.name)
            )
        )
        .where(_STREAMS.c.name == bindparam("stream_name"))
    )
    _READ_WITH_TIME = _READ.add_columns(literal_column(CLOCK))
    _READ_HOST = select(*(_HOSTS.c[name] for name in ("position", "phase", "zone", "status"))).where(
        (_HOSTS.c.rollout == bindparam("rollout_id")) & (_HOSTS.c.name == bindparam("host_name"))
    )
    _HEAD = select(_STREAMS.c.head).where(_STREAMS.c.name == bindparam("stream_name"))
    _INSERT_STREAM = insert(_STREAMS)
    _INSERT_EVENT = insert(schema.events)
    _UPDATE_STREAM = (
        update(_STREAMS)
        .where(_STREAMS.c.name == bindparam("stream_name"))
        .values({name: bindparam(name) for name in schema.HEAD})
    )
    _LOCK = text("SELECT pg_advisory_xact_lock(:key)")
    _TELL = text("SELECT pg_notify(:channel, :told)")
    _TELL_NEXT = text(
        "SELECT pg_notify(:channel, :told || coalesce(string_agg(chr(10) || name, ''), '')) FROM (SELECT name "
        f"FROM {_HOSTS.name} WHERE rollout = :of AND status = 'pending' AND phase = :in_phase "
        "ORDER BY position LIMIT :places) AS next_to_go"
    )

CONNECT_TIMEOUT = 10  # seconds for which a database server is waited for
MISSED = 5.0  # seconds after which a wait looks for itself: a pooler between here and PostgreSQL may lose what it tells
MANY = 20  # hosts that may go at once: from here on all that wait are told to ask
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


class LedgerError(ConvoyError):
    """The ledger cannot be used, or is not what it claims to be."""

    reason: ClassVar[str] = "ledger"


class Read(NamedTuple):
    """What a transaction begins with: the stream's row, and that of the rollout that was asked for."""

    head: int
    head_hash: str
    token: int
    rollout: str | None
    holder: str | None
    seen_at: float
    clock_at: float
    rules: str | None = None
    state: str | None = None
    digest: str | None = None
    now: float = 0.0


class Transaction:
    """One transaction over a stream: nobody else writes to the stream until it ends. ``now``: epoch seconds.

    What is written is collected, and goes to the database when the block has ended. ``next_to_go`` names a rollout,
    its open phase and how many of its hosts may go now: only they are told that something has happened. None: all are.
    """

    def __init__(self, session: Session, stream: str, now: float, actor: str, row: Read) -> None:
        self._session = session
        self.stream = stream
        self.actor = actor
        self.row = row
        self.now = ledger_time(now, row.seen_at, row.clock_at)
        self._clock = now
        self.head, self._hash = row.head, row.head_hash
        self.next_to_go: tuple[str, int, int] | None = None
        self.writes: list[Call] = []

    def append(self, rollout: str, happened: Iterable[Event], actor: str = "") -> None:
        """Append events to the chain; ``actor``: who asked for them, if that is another one."""
        rows = []
        for one in happened:
            data = json.dumps(one.data, sort_keys=True, separators=(",", ":"))
            entry = Entry(self.stream, self.head + 1, rollout, one.kind, one.host, one.at, actor or self.actor, data)
            self.head, self._hash = entry.seq, link(self._hash, entry)
            rows.append({**vars(entry), "hash": self._hash})
        self.write(_INSERT_EVENT, *rows)

    def rows(self, statement: Any, values: Mapping[str, Any]) -> list[Row]:
        """What a statement finds. What was to be written until here is written before."""
        writes, self.writes = self.writes, []
        return self._session.rows(statement, values, writes)

    def write(self, statement: Any, *values: Mapping[str, Any]) -> None:
        """Have a statement run, once with each of ``values``."""
        self.writes.append((statement, values))

    @property
    def grown(self) -> bool:
        """Whether something has been appended."""
        return self.head > self.row.head

    def finish(self, **columns: Any) -> None:
        """Write the stream's row: the head of the chain, that the holder was heard of, and ``columns``."""
        kept = {"token": self.row.token, "rollout": self.row.rollout, "holder": self.row.holder}
        head = {"stream_name": self.stream, "head": self.head, "head_hash": self._hash}
        heard = {"seen_at": self.now, "clock_at": self._clock}
        self.write(_UPDATE_STREAM, {**kept, **head, **heard, **columns})


# What answers questions: they, in the transaction that it writes in, to what it says to each asker.
Answering = Callable[[Transaction, Sequence[Asked]], Mapping[str, str]]


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
        self._kept = Kept(partial(_connect, self._engine))
        weakref.finalize(self, self._kept.close)

    def prepare(self) -> None:
        """Create the tables where they are missing, and bring those of an older version up to date.

        Raises LedgerError if they are of a version that is not known here.
        """
        with _told(self._engine), self._engine.begin() as connection:
            if not self.sqlite:
                connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT}s'"))
                connection.execute(_LOCK, {"key": _number(schema.ledger_version.name)})
            if not inspect(connection).has_table(schema.ledger_version.name):
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.ledger_version).values(version=schema.VERSION))
            version = connection.scalar(select(schema.ledger_version.c.version))
            while version in schema.CHANGES:
                for change in schema.CHANGES[version]:
                    connection.execute(text(change))
                version += 1
                connection.execute(update(schema.ledger_version).values(version=version))
            if not self.sqlite:
                schema.questions.create(connection, checkfirst=True)
        self._refuse_other(version)

    def close(self) -> None:
        """Close the connection that is kept for the next transaction."""
        self._kept.close()

    def expect(self) -> None:
        """Raise LedgerError unless the tables are there, of this version. Makes none."""
        with self.reading() as connection:
            if not inspect(connection).has_table(schema.ledger_version.name):
                raise _missing(str(self._engine.url))
            version = connection.scalar(select(schema.ledger_version.c.version))
        self._refuse_other(version)

    def _refuse_other(self, version: int | None) -> None:
        if version in schema.CHANGES:
            raise LedgerError(
                f"the ledger {self._engine.url!r} has schema version {version}: the next deployment, or a check of it "
                f"with --check, brings it to version {schema.VERSION}. Nothing is read until then"
            )
        if version != schema.VERSION:
            raise LedgerError(
                f"the ledger {self._engine.url!r} has schema version {version}, this collection writes version "
                f"{schema.VERSION}: use the collection that wrote it"
            )

    @contextmanager
    def transaction(self, stream: str, rollout: str | None = None) -> Iterator[Transaction]:
        """To write: the stream is locked from the start to the end of the block."""
        with self._session() as session:
            row = self._begin(session, stream, rollout)
            tx = Transaction(session, stream, self._clock() if self.sqlite else row.now, self._actor, row)
            yield tx
            session.commit([*tx.writes, *([] if self.sqlite else _tell(tx))])

    def ask(self, stream: str, rollout: str, host: str, question: str, answer: Answering) -> str:
        """To write as well: what ``answer`` says to a question about a host, in a transaction that it writes in.

        It gets the questions that are open, and says something to each by its asker. In SQLite that is this one; in
        PostgreSQL those of all who wait for the lock, so that somebody else may have answered this one.
        """
        if not self.sqlite:
            with self._session() as session:
                return self._ask_among_others(cast(PostgresSession, session), stream, rollout, host, question, answer)
        with self.transaction(stream, rollout) as tx:
            rows = tx.rows(_READ_HOST, {"rollout_id": rollout, "host_name": host})
            asked = Asked("this run", self._actor, host, question, *(rows[0] if rows else ()))
            return answer(tx, [asked])[asked.asker]

    def _ask_among_others(
        self, session: PostgresSession, stream: str, rollout: str, host: str, question: str, answer: Answering
    ) -> str:
        lock = {"stream": stream, "key": _number(stream), "limit": f"{BUSY_TIMEOUT}s"}
        asked = Asked(session.name, self._actor, host, question)
        answered, rows = questions.ask(session, rollout, asked, lock)
        if answered is not None:
            return answered
        row, width = Read(*rows[0][: len(Read._fields)]), len(Read._fields)
        tx = Transaction(session, stream, row.now, self._actor, row)
        said = answer(tx, [Asked(*row[width:]) for row in rows])
        questions.answer(session, [*tx.writes, *_tell(tx)], said, lock)
        return said[session.name]

    def survey(self) -> None:
        """Have PostgreSQL count what has just been written, before it plans how to find it.

        Otherwise it takes a table for empty, until it looks by itself, and reads all hosts to find one.
        """
        with self._session() as session:
            if isinstance(session, PostgresSession):
                session.survey(schema.hosts.name)

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

    def wait_for_change(self, stream: str, head: int, timeout: float, poll: float, host: str = "") -> bool:
        """Wait until there is an event after ``head``, at most ``timeout`` seconds; whether there is one.

        PostgreSQL tells of it; who waits for ``host`` hears it at once where ``host`` may go next, and some seconds
        later otherwise. SQLite cannot tell: there a counter of the file is looked at every ``poll`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._session() as session:
            if isinstance(session, PostgresSession):
                return self._await_telling(session, stream, head, deadline, host)
            return self._await_version(session, stream, head, deadline, poll)

    def _await_telling(self, session: PostgresSession, stream: str, head: int, deadline: float, host: str) -> bool:
        channel = _channel(stream)
        now = time.monotonic()
        look_at = now if session.listen(channel) else now + MISSED
        while True:
            if now >= look_at and _head(session, stream) != head:
                return True
            if now >= deadline:
                return False
            look_at = look_at if look_at > now else now + MISSED
            news = [told for told in session.heard(channel, min(deadline, look_at) - now) if told.head > head]
            if any(not told.hosts or host in told.hosts for told in news):
                return True
            now = time.monotonic()
            look_at = min(look_at, now + TURN_GRACE) if news else look_at

    def _await_version(self, session: Session, stream: str, head: int, deadline: float, poll: float) -> bool:
        seen = None
        while True:
            version = session.version()
            if version != seen and _head(session, stream) != head:
                return True
            seen, left = version, deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, poll))

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

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """The connection that is kept; one on which something went wrong is not kept."""
        with _told(self._engine):
            session, sound = self._kept.take(), False
            try:
                yield session
                sound = True
            finally:
                if sound:
                    self._kept.give_back(session)
                else:
                    session.close()

    def _begin(self, session: Session, stream: str, rollout: str | None) -> Read:
        """Lock the stream for this transaction; its row, made where it is missing, and the rollout's beside it.

        In PostgreSQL the time comes with it, by the clock that all runs share.
        """
        query = _READ if self.sqlite else _READ_WITH_TIME
        names = {"stream_name": stream, "rollout_id": rollout}
        rows = session.begin((_LOCK, [{"key": _number(stream)}]), (query, [names]))
        if not rows:
            first = {"name": stream, "head": 0, "head_hash": GENESIS, "token": 0, "seen_at": 0.0, "clock_at": 0.0}
            rows = session.rows(query, names, [(_INSERT_STREAM, [{**first, "rollout": None, "holder": None}])])
        return Read(*rows[0])


def _tell(tx: Transaction) -> list[Call]:
    """What tells those who wait; nothing where none of them may go."""
    if not tx.grown:
        return []
    told = {"channel": _channel(tx.stream), "told": str(tx.head)}
    if tx.next_to_go is None or tx.next_to_go[2] > MANY:
        return [(_TELL, [told])]
    rollout, phase, places = tx.next_to_go
    return [(_TELL_NEXT, [{**told, "of": rollout, "in_phase": phase, "places": places}])] if places else []


def _head(session: Session, stream: str) -> int:
    rows = session.rows(_HEAD, {"stream_name": stream})
    return int(rows[0][0]) if rows else 0


def _connect(engine: Engine) -> Session:
    connection = engine.raw_connection()
    if engine.dialect.name == "sqlite":
        return SqliteSession(connection, BUSY_TIMEOUT)
    return PostgresSession(connection, BUSY_TIMEOUT)


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
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        if cause == "database is locked":
            cause += f" for {BUSY_TIMEOUT} s: who holds it is stopped or hangs (fuser names the process); end it"
        raise LedgerError(f"the ledger {engine.url!r} cannot be used: {cause}") from error
