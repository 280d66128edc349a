# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stream of the ledger looked through: its chain verified, its tables compared with its events, its history told.

Everything is read from one view of the database, so that a rollout that is running makes no difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import nearest
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import RolloutState
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry, broken_link
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.history import Chapter, Refusal, chapter, refusal
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rebuild import (
    RebuildError,
    Rebuilt,
    differences,
    rebuild,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import NO_ROLLOUT, hosts_in
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import LedgerError, entries_in, head_in

if schema.INSTALLED:
    from sqlalchemy import Connection, func, select


@dataclass
class Audit:
    """What was found. ``broken``: the first entry that does not fit its chain; ``differs``: what the tables say
    otherwise than the events, one sentence each; ``chapters``, ``refusals``: the newest, newest first.
    """

    stream: str
    head: int
    head_hash: str
    broken: str | None = None
    differs: list[str] = field(default_factory=list)
    chapters: list[Chapter] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    rebuilt: int = 0


def audit(connection: Connection, stream: str, last: int) -> Audit:
    """Look through the whole stream; tell the newest ``last`` rollouts and refusals. LedgerError if it is missing."""
    head, head_hash = head_in(connection, stream)
    rollouts = _rollouts(connection, stream)
    if not rollouts and not head:
        raise LedgerError(f"the ledger has nothing of {stream}: {_others(connection, stream)}")
    found = Audit(stream, head, head_hash, broken_link(entries_in(connection, stream), head, head_hash))
    still_open = []
    for rollout in rollouts:
        entries = list(entries_in(connection, stream, rollout))
        told = _told(found, rollout, entries)
        if told is None:
            continue
        found.differs += [f"rollout {rollout}: {what}" for what in _compared(connection, rollout, told)]
        still_open += [] if told.state.status.ended else [rollout]
        if len(found.chapters) < last:
            found.chapters.append(chapter(entries, told.state.status))
    found.differs += _open_differs(connection, stream, still_open)
    found.refusals = [refusal(entry) for entry in entries_in(connection, stream, NO_ROLLOUT)][: -last - 1 : -1]
    return found


def _told(found: Audit, rollout: str, entries: Sequence[Entry]) -> Rebuilt | None:
    """The rollout by its events, where they can be read from the first on."""
    if not entries or entries[0].kind != "opened":
        found.differs.append(f"rollout {rollout}: its first event is missing")
        return None
    try:
        told = rebuild(entries)
    except RebuildError as error:
        found.differs.append(f"rollout {rollout} cannot be rebuilt: {error}")
        return None
    found.rebuilt += 1
    return told


def _compared(connection: Connection, rollout: str, told: Rebuilt) -> list[str]:
    row = connection.execute(select(schema.rollouts).where(schema.rollouts.c.id == rollout)).mappings().first()
    if row is None:
        return ["it is missing in the tables"]
    try:
        state = RolloutState.from_json(json.loads(row["state"]))
        kept = Rebuilt(state, hosts_in(connection, rollout))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [f"its rows in the tables cannot be read: {error!r}"]
    found = differences(told, kept)
    if row["status"] != told.state.status:
        found.append(f"its row has the status {row['status']}, the events say {told.state.status}")
    return found


def _open_differs(connection: Connection, stream: str, still_open: Sequence[str]) -> list[str]:
    named = connection.scalar(select(schema.streams.c.rollout).where(schema.streams.c.name == stream))
    if [named] == list(still_open) or (named is None and not still_open):
        return []
    return [
        f"the tables say that {named or 'no rollout'} is open, the events {', '.join(still_open) or 'that none is'}"
    ]


def _rollouts(connection: Connection, stream: str) -> list[str]:
    """The ids of all rollouts of the stream, newest first, also of those that are in one place only."""
    events, rows = schema.events.c, schema.rollouts.c
    first = select(events.rollout).where(events.stream == stream).group_by(events.rollout)
    told = connection.scalars(first.order_by(func.min(events.seq).desc()))
    kept = connection.scalars(select(rows.id).where(rows.stream == stream).order_by(rows.opened_at.desc()))
    return [rollout for rollout in dict.fromkeys([*told, *kept]) if rollout != NO_ROLLOUT]


def _others(connection: Connection, stream: str) -> str:
    names: Iterable[str] = connection.scalars(select(schema.streams.c.name))
    known = list(names)
    return nearest(stream, known) if known else "it is empty, since nothing was deployed yet"
