# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the ledger says of releases: the serial that deployments may not go below, and what hosts may still need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema

if schema.INSTALLED:
    from sqlalchemy import Connection, select

LEAST_KEPT = 2  # releases that a host keeps in any case: the one that it runs, and the last good one
_GOOD = frozenset({HostStatus.SUCCEEDED, HostStatus.CURRENT})


@dataclass(frozen=True)
class Deployed:
    """A rollout that succeeded. ``serial`` is that of its release; None where it was not recorded."""

    kind: str
    version: str
    serial: int | None


@dataclass(frozen=True)
class Move:
    """A host in a rollout of ``kind``: what it ran before, where it was to go, and what became of it."""

    host: str
    kind: str
    from_release: str | None
    to_release: str
    status: HostStatus


def serial_mark(newest_first: Iterable[Deployed]) -> int:
    """The serial below which a deployment would go back; 0 where nothing is known.

    It is the highest that was deployed. A rollback, which is recorded as one, takes it along: from there on the way
    forward begins at the release that it went back to.
    """
    mark, back_to = 0, None
    for one in newest_first:
        if back_to is None and one.kind == "rollback":
            back_to = one.version
        elif back_to is None:
            mark = max(mark, one.serial or 0)
        elif one.version == back_to and one.serial is not None:
            return max(mark, one.serial)
    return mark


def serial_mark_in(connection: Connection, stream: str) -> int:
    """The same, of a stream of the ledger."""
    return serial_mark(_succeeded_in(connection, stream))


def _succeeded_in(connection: Connection, stream: str) -> Iterator[Deployed]:
    rows = schema.rollouts.c
    of_stream = select(rows.facts).where((rows.stream == stream) & (rows.status == Status.SUCCEEDED))
    for (text,) in connection.execute(of_stream.order_by(rows.opened_at.desc(), rows.id.desc())):
        facts = json.loads(text)
        yield Deployed(str(facts.get("kind", "")), str(facts.get("version", "")), facts.get("serial"))


@dataclass
class _Kept:
    """What a host has, as far as the ledger tells: ``good`` releases, newest first, and others that it may have."""

    good: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)


def held(newest_first: Iterable[Move], keep: int) -> set[str]:
    """The releases that hosts run, may be about to run, or could go back to, where each keeps ``keep`` good ones.

    Rather one too many: what a host left on a way back, or failed to come to, does not count among the good ones until
    it is good again; it is held all the same.
    """
    hosts: dict[str, _Kept] = {}
    for move in newest_first:
        kept = hosts.setdefault(move.host, _Kept())
        if len(kept.good) >= max(keep, LEAST_KEPT):
            continue
        if move.status in _GOOD:
            _add(kept, move.to_release)
        elif move.to_release not in kept.good:
            kept.others.add(move.to_release)
        if move.from_release is None:
            continue
        if move.kind != "rollback" or move.status not in _GOOD:
            _add(kept, move.from_release)
        elif move.from_release not in kept.good:
            kept.others.add(move.from_release)
    return {release for kept in hosts.values() for release in (*kept.good, *kept.others)}


def _add(kept: _Kept, release: str) -> None:
    if release not in kept.good and release not in kept.others:
        kept.good.append(release)


def held_in(connection: Connection, stream: str, keep: int) -> set[str]:
    """The versions whose releases the hosts of a stream need."""
    return {version_of(release) for release in held(_moves_in(connection, stream), keep)}


def _moves_in(connection: Connection, stream: str) -> Iterator[Move]:
    rollouts, hosts = schema.rollouts.c, schema.hosts.c
    query = (
        select(hosts.name, rollouts.facts, hosts.from_release, hosts.to_release, hosts.status)
        .select_from(schema.hosts.join(schema.rollouts, rollouts.id == hosts.rollout))
        .where(rollouts.stream == stream)
        .order_by(rollouts.opened_at.desc(), rollouts.id.desc())
    )
    for name, facts, was, goal, status in connection.execute(query, execution_options={"yield_per": 1000}):
        yield Move(name, str(json.loads(facts).get("kind", "")), was, goal, HostStatus(status))


def version_of(release: str) -> str:
    """The version in the id of a release, which ends in a digest."""
    return release.rpartition("-")[0] or release


def streams_in(connection: Connection, environment: str) -> list[str]:
    """The streams of an environment that something was written to."""
    names = connection.scalars(select(schema.streams.c.name).where(schema.streams.c.head > 0))
    return sorted(name for name in names if name.startswith(f"{environment}/"))
