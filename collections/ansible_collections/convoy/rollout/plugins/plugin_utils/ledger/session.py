# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A connection that a process keeps for its decisions, and the statements that it sends over it.

SQLAlchemy makes connections and statements; the statements go to the driver itself, since SQLAlchemy takes several
times as long for each as the database does.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from select import select as select_files
from typing import Any, NamedTuple, Protocol

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema

if schema.INSTALLED:
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect

IDLE = 5.0  # seconds after which a connection is tried before it is used again
BUSY_TURN = 8  # milliseconds for which SQLite waits by itself, with pauses that grow, before it is asked anew
_INHERITED: list[Any] = []  # connections of a parent process: closing them here would disturb it

Values = Mapping[str, Any]
Call = tuple[Any, Sequence[Values]]  # a statement, and what it is run with, once for each
Row = tuple[Any, ...]


class Told(NamedTuple):
    """What PostgreSQL told: the stream's newest event, and the hosts that may go now (none named: all should ask)."""

    channel: str
    head: int
    hosts: frozenset[str]


class Session(Protocol):
    """A connection and its transaction."""

    def begin(self, lock: Call, read: Call) -> list[Row]:
        """Begin a transaction, wait for the lock, and read."""

    def rows(self, statement: Any, values: Values, writes: Sequence[Call] = ()) -> list[Row]:
        """What a statement finds when ``writes`` have been made."""

    def commit(self, calls: Sequence[Call]) -> None:
        """Run what is to be written, and commit."""

    def version(self) -> int:
        """A number that changes when another connection has written."""

    def lives(self) -> bool:
        """Whether the server is still there."""

    def close(self) -> None:
        """Close the connection."""


class Kept:
    """The session that this process keeps; never one of the process that it was forked from."""

    def __init__(self, connect: Callable[[], Session]) -> None:
        self._connect = connect
        self._idle: list[Session] = []
        self._owner = os.getpid()
        self._since = 0.0

    def take(self) -> Session:
        """The idle session, or a new one; the server may have closed one that was idle for long."""
        self._disown()
        if self._idle:
            session = self._idle.pop()
            if time.monotonic() - self._since < IDLE or session.lives():
                return session
            session.close()
        return self._connect()

    def give_back(self, session: Session) -> None:
        """Keep it for the next one who takes."""
        self._since = time.monotonic()
        if self._idle:
            session.close()
        else:
            self._idle.append(session)

    def close(self) -> None:
        """Close what is idle."""
        self._disown()
        while self._idle:
            self._idle.pop().close()

    def _disown(self) -> None:
        if self._owner != os.getpid():
            _INHERITED.extend(self._idle)
            self._idle, self._owner = [], os.getpid()


class SqliteSession:
    """A SQLite file. Its lock is the file's."""

    def __init__(self, connection: Any, busy_timeout: float) -> None:
        """``connection``: as the pool of SQLAlchemy hands it out."""
        self._connection = connection
        self._driver: sqlite3.Connection = connection.driver_connection
        self._busy_timeout = busy_timeout  # seconds

    def begin(self, lock: Call, read: Call) -> list[Row]:
        """SQLite's own waiting sleeps for up to 100 ms while others go ahead, so it is cut into turns."""
        deadline = time.monotonic() + self._busy_timeout
        self._driver.execute(f"PRAGMA busy_timeout={BUSY_TURN}")
        while not self._driver.in_transaction:
            try:
                self._driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the rest says what made it busy
                if not busy or time.monotonic() > deadline:
                    raise
        self._driver.execute(f"PRAGMA busy_timeout={self._busy_timeout * 1000:.0f}")
        return self.rows(read[0], read[1][0])

    def rows(self, statement: Any, values: Values, writes: Sequence[Call] = ()) -> list[Row]:
        """What a statement finds when ``writes`` have been made."""
        self._write(writes)
        return self._driver.execute(_named(statement), values).fetchall()

    def commit(self, calls: Sequence[Call]) -> None:
        """Run what is to be written, and commit: with synchronous=FULL it is on the disk then."""
        self._write(calls)
        self._driver.execute("COMMIT")

    def _write(self, calls: Sequence[Call]) -> None:
        for statement, values in calls:
            self._driver.executemany(_named(statement), values)

    def version(self) -> int:
        """A number that changes when another connection has written to the file."""
        (number,) = self._driver.execute("PRAGMA data_version").fetchone()
        return int(number)

    def lives(self) -> bool:
        """A file does not go away."""
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.invalidate()


class PostgresSession:
    """A PostgreSQL server. Statements are prepared once, and sent together: one journey, however many they are."""

    def __init__(self, connection: Any, busy_timeout: float) -> None:
        """``connection``: as the pool of SQLAlchemy hands it out; ``busy_timeout``: seconds.

        No longer than that does it wait for the others, or may it bar them when its process has stopped.
        """
        from psycopg.adapt import Transformer
        from psycopg.pq import Escaping

        limit = f"'{busy_timeout:.0f}s'"
        self._settings = [
            "BEGIN",  # a transaction of their own: the next one is of the isolation that they set
            "SET client_encoding = 'UTF8'",
            "SET default_transaction_isolation = 'read committed'",
            "SET synchronous_commit = on",
            "SET plan_cache_mode = force_generic_plan",  # else the server plans a statement anew, again and again
            f"SET lock_timeout = {limit}",
            f"SET idle_in_transaction_session_timeout = {limit}",
            "COMMIT",
        ]
        self._connection = connection
        self._driver = connection.driver_connection
        self._driver.autocommit = True
        self._escaping = Escaping(self._driver.pgconn)
        self._translator = Transformer(self._driver)
        self._calls: dict[Any, tuple[str, Sequence[str]]] = {}
        self._heard: deque[Told] = deque()
        self._channels: set[str] = set()
        self._driver.add_notify_handler(self._hear)
        self.name = str(uuid.uuid4())

    def begin(self, lock: Call, read: Call) -> list[Row]:
        """One journey. What is read is what stands there when the lock is granted: each statement looks anew."""
        return self._send("BEGIN", lock, read)[-1]

    def ask(self, question: Call, lock: Call, answered: Call) -> list[Row]:
        """One journey: write down what is asked for all to see, wait for the lock, and look for an answer.

        The lock is the session's: outside a transaction, so that ``answered`` can give it back where it has an answer.
        """
        return self._send("BEGIN", question, "COMMIT", lock, answered)[-1]

    def rows(self, statement: Any, values: Values, writes: Sequence[Call] = ()) -> list[Row]:
        """What a statement finds when ``writes`` have been made. One journey."""
        begin = ["BEGIN"] if writes and not self._in_transaction() else []
        return self._send(*begin, *writes, (statement, [values]))[-1]

    def commit(self, calls: Sequence[Call], unlock: Sequence[Call] = ()) -> None:
        """One journey. The server answers when the commit is on its disk."""
        begin = [] if self._in_transaction() else ["BEGIN"]
        self._send(*begin, *calls, "COMMIT", *unlock)

    def _in_transaction(self) -> bool:
        return bool(self._driver.pgconn.transaction_status)

    def survey(self, *tables: str) -> None:
        """Have the server count what is in the tables."""
        self._send(f"ANALYZE {', '.join(tables)}")

    def listen(self, channel: str) -> bool:
        """From now on hear what is told there; whether that is new."""
        if channel in self._channels:
            return False
        self._send(f"LISTEN {channel}")
        self._channels.add(channel)
        return True

    def heard(self, channel: str, timeout: float) -> list[Told]:
        """What has been told there, waited for at most ``timeout`` seconds."""
        self._listen_to_driver()  # what came with the answer to the last statement is not seen by select
        if not self._heard:
            select_files([self._driver], [], [], timeout)
            self._driver.pgconn.consume_input()
            self._listen_to_driver()
        told = [one for one in self._heard if one.channel == channel]
        self._heard.clear()
        return told

    def version(self) -> int:
        """Nothing that PostgreSQL has: it tells instead."""
        return 0

    def lives(self) -> bool:
        """Whether the server is still there."""
        try:
            self._send("SELECT 1")
        except self._driver.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.invalidate()

    def _listen_to_driver(self) -> None:
        while notification := self._driver.pgconn.notifies():
            self._take(notification.relname.decode(), notification.extra.decode())

    def _hear(self, notification: Any) -> None:
        self._take(notification.channel, notification.payload)

    def _take(self, channel: str, payload: str) -> None:
        head, *hosts = payload.split("\n")
        self._heard.append(Told(channel, int(head), frozenset(hosts)))

    def _send(self, *calls: Call | str) -> list[list[Row]]:
        """Run them, in their order; what each of those found that look for something.

        A cursor of the driver takes longer for it than the server: only its parts are used, which talk and translate.
        """
        import psycopg

        words, self._settings = self._settings, []
        for call in calls:
            if isinstance(call, str):
                words.append(call)
                continue
            execute, names = self._calls.get(call[0]) or self._prepare(call[0], words)
            words += [execute % tuple(self._literal(values[name]) for name in names) for values in call[1]]
        self._driver.pgconn.send_query("; ".join(words).encode())
        found = []
        for result in self._driver.wait(psycopg.generators.execute(self._driver.pgconn)):
            if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
            if result.nfields:
                self._translator.set_pgresult(result)
                found.append(self._translator.load_rows(0, result.ntuples, tuple))
        return found

    def _literal(self, value: str | float | None) -> str:
        """The value as a statement has it: since several statements are sent together, none can have parameters."""
        if value is None:
            return "NULL"
        if not isinstance(value, str):
            return repr(value)
        if "\0" in value:
            raise self._driver.DataError(f"PostgreSQL has no text with a NUL in it: {value!r}")
        return self._escaping.escape_literal(value.encode()).decode()

    def _prepare(self, statement: Any, words: list[str]) -> tuple[str, Sequence[str]]:
        """Have ``words`` prepare the statement; how to execute it, and the names of its values.

        A server plans a prepared statement once, not each time.
        """
        name = f"convoy_{len(self._calls)}"
        text, names = _numbered(statement)
        words.append(f"PREPARE {name} AS {text}")
        self._calls[statement] = (
            f"EXECUTE {name}({', '.join(['%s'] * len(names))})" if names else f"EXECUTE {name}",
            names,
        )
        return self._calls[statement]


@cache
def _named(statement: Any) -> str:
    """The statement as SQLite's driver takes it, with the names of its values."""
    return str(statement.compile(dialect=SQLiteDialect(paramstyle="named")))


@cache
def _numbered(statement: Any) -> tuple[str, Sequence[str]]:
    """The statement as PostgreSQL prepares it, and the names of its values by their numbers."""
    from sqlalchemy.dialects.postgresql.base import PGDialect

    dialect: Any = PGDialect
    compiled = statement.compile(dialect=dialect(paramstyle="numeric_dollar"))
    return str(compiled), tuple(compiled.positiontup or ())
