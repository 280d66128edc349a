# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs ask in PostgreSQL about their hosts: whoever gets the lock answers all who wait for it, with its own.

A transaction for each would cost two journeys and a commit, one after the other, while the others wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.session import Call, PostgresSession, Row

BUSY_TIMEOUT = 30  # seconds for which a transaction waits for the others to finish, and a question for its answer
FORGET_AFTER = 60  # seconds after which the place of who has asked nothing more is removed

CLOCK = "extract(epoch FROM clock_timestamp())::float8"

if schema.INSTALLED:
    from sqlalchemy import bindparam, literal_column, null, select, text

    _TABLE, _STREAMS, _ROLLOUTS, _HOSTS = schema.questions, schema.streams, schema.rollouts, schema.hosts
    _ASKED: dict[str, Any] = {name: bindparam(name) for name in ("stream", "rollout", "host", "actor", "question")}
    _LOCK = text("SELECT pg_advisory_lock(:key), set_config('idle_session_timeout', :limit, false)")
    _UNLOCK = "pg_advisory_unlock(:key), set_config('idle_session_timeout', '0', false)"
    _RELEASE = text(f"SELECT {_UNLOCK}")
    _ANSWERED = text(f"SELECT answer, {_UNLOCK} FROM {_TABLE.name} WHERE asker = :asker AND answer IS NOT NULL")
    _READ = (
        select(
            *(_STREAMS.c[name] for name in schema.HEAD),
            *(_ROLLOUTS.c[name] for name in ("rules", "state", "digest")),
            literal_column(CLOCK),
            *(_TABLE.c[name] for name in ("asker", "actor", "host", "question")),
            *(_HOSTS.c[name] for name in ("position", "phase", "zone", "status")),
        )
        .select_from(
            _TABLE.join(_STREAMS, _STREAMS.c.name == _TABLE.c.stream)
            .outerjoin(_ROLLOUTS, (_ROLLOUTS.c.id == _TABLE.c.rollout) & (_ROLLOUTS.c.stream == _STREAMS.c.name))
            .outerjoin(_HOSTS, (_HOSTS.c.rollout == _ROLLOUTS.c.id) & (_HOSTS.c.name == _TABLE.c.host))
        )
        .where(
            (_TABLE.c.stream == bindparam("stream"))
            & (_TABLE.c.rollout == bindparam("rollout"))
            & _TABLE.c.answer.is_(None)
            & (_TABLE.c.asked_at > literal_column(f"{CLOCK} - {BUSY_TIMEOUT}"))
        )
        .order_by(_TABLE.c.asked_at)
    )
    _ANSWER = text(
        f"UPDATE {_TABLE.name} SET answer = value FROM json_each_text(CAST(:said AS json)) WHERE asker = key"
    )
    _FORGET = text(f"DELETE FROM {_TABLE.name} WHERE asked_at < {CLOCK} - {FORGET_AFTER}")


@cache
def _ask() -> Any:
    """Write down what is asked. Whose ledger is in SQLite asks nothing so, and does not import this dialect."""
    from sqlalchemy.dialects.postgresql import insert

    values = {**_ASKED, "asked_at": literal_column(CLOCK)}
    written = insert(_TABLE).values(asker=bindparam("asker"), **values)
    return written.on_conflict_do_update(index_elements=["asker"], set_={**values, "answer": null()})


class Asked(NamedTuple):
    """A question about a host, who asks it, and what the tables say of the host: nothing, if it is not in the plan."""

    asker: str
    actor: str
    host: str
    question: str
    position: int | None = None
    phase: int | None = None
    zone: str | None = None
    status: str | None = None


def ask(session: PostgresSession, rollout: str, asked: Asked, lock: Mapping[str, Any]) -> tuple[str | None, list[Row]]:
    """The answer, if somebody gave it while the lock was waited for; else all open questions, and the lock is held.

    ``lock``: stream, key, limit. A row: the stream's columns, the rollout's, the time (epoch seconds), those of Asked.
    """
    values = {**lock, **asked._asdict(), "rollout": rollout}
    answered = session.ask((_ask(), [values]), (_LOCK, [values]), (_ANSWERED, [values]))
    if answered:
        return answered[0][0], []
    return None, session.rows(_READ, values)


def answer(session: PostgresSession, writes: Sequence[Call], said: Mapping[str, str], lock: Mapping[str, Any]) -> None:
    """Commit ``writes`` and what is ``said`` to whom, and give the lock to the next one."""
    session.commit([*writes, (_ANSWER, [{"said": json.dumps(said)}]), (_FORGET, [{}])], [(_RELEASE, [lock])])
