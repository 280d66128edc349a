# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger tells, as lines of text. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.audit import Audit
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.history import Chapter, Line, Refusal
from ansible_collections.convoy.rollout.plugins.plugin_utils.progress import duration
from ansible_collections.convoy.rollout.plugins.plugin_utils.text import table


def history_lines(chapters: Sequence[Chapter], now: float) -> list[str]:
    """A table of rollouts, in their order."""
    heading = ("rollout", "kind", "version", "status", "opened", "closed", "took", "by", "moved", "failed")
    return table([heading, *(_row(one, now) for one in chapters)])


def _row(one: Chapter, now: float) -> tuple[str, ...]:
    took = duration((one.closed_at or max(now, one.opened_at)) - one.opened_at)
    return (
        one.id,
        one.kind,
        one.version,
        one.status,
        moment(one.opened_at),
        "open" if one.closed_at is None else moment(one.closed_at),
        took,
        one.by.partition(" (process")[0],
        str(one.moved),
        str(one.failed),
    )


def refusal_lines(refusals: Sequence[Refusal]) -> list[str]:
    """A table of what was refused, in their order."""
    rows = [
        (one.kind, one.version, moment(one.at), one.by.partition(" (process")[0], one.why.partition("\n")[0])
        for one in refusals
    ]
    return table([("refused", "version", "at", "by", "why"), *rows]) if rows else []


def story_lines(story: Iterable[Line]) -> list[str]:
    """Every event: when, who, which host, what. What was reported may have several lines."""
    rows = [(moment(line.at), line.actor, line.host, " / ".join(line.what.splitlines())) for line in story]
    return table(rows) if rows else []


def verdict_lines(found: Audit) -> list[str]:
    """Whether the chain holds, and whether the tables say what the events say."""
    if found.broken:
        chain = f"NOT INTACT: {found.broken}"
    else:
        chain = f"intact: every event from 1 to {found.head} fits its hash; the head is {found.head_hash}"
    if found.differs:
        return [chain, "the tables differ from the events:", *(f"  {what}" for what in found.differs)]
    count = f"{found.rebuilt} rollout{'' if found.rebuilt == 1 else 's'}"
    return [chain, f"the tables say what the events say ({count} rebuilt and compared)"]


def moment(at: float) -> str:
    """A time, as the controller's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
