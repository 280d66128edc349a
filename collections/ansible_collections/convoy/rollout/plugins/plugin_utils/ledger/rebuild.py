# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout as its events alone tell it, to compare with the tables that are kept beside them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Event,
    HostStatus,
    RolloutState,
    evolve,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HostRow, storable

SHOWN = 3  # how many hosts that differ are named


class RebuildError(ConvoyError):
    """An event makes no sense after those before it: it was edited, or some are missing."""

    reason: ClassVar[str] = "ledger"


@dataclass(frozen=True)
class Rebuilt:
    """State and hosts (in the plan's order) after all events of a rollout."""

    state: RolloutState
    hosts: tuple[HostRow, ...]


def rebuild(entries: Iterable[Entry]) -> Rebuilt:
    """Fold the entries of one rollout, oldest first. Raises RebuildError naming the first that makes no sense."""
    state = RolloutState()
    hosts: dict[str, HostRow] = {}
    for entry in entries:
        try:
            event = Event(entry.kind, entry.at, entry.host, json.loads(entry.data))
            state = evolve(state, event)
            hosts = _follow(hosts, event)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise RebuildError(
                f"entry {entry.seq} ({entry.kind}) makes no sense after those before it: {error!r}"
            ) from error
    return Rebuilt(state, tuple(hosts.values()))


def differences(told: Rebuilt, kept: Rebuilt) -> list[str]:
    """What the tables (``kept``) say otherwise than the events (``told``), one clause each."""
    found = [
        f"{field.name} is {getattr(kept.state, field.name)!r}, the events say {getattr(told.state, field.name)!r}"
        for field in fields(RolloutState)
        if getattr(kept.state, field.name) != getattr(told.state, field.name)
    ]
    there, expected = ({row.name: row for row in rows} for rows in (kept.hosts, told.hosts))
    others = [name for name in {**expected, **there} if there.get(name) != expected.get(name)]
    found += [_difference(name, expected.get(name), there.get(name)) for name in others[:SHOWN]]
    return [*found, f"{len(others) - SHOWN} more hosts differ"] if len(others) > SHOWN else found


def _difference(name: str, expected: HostRow | None, there: HostRow | None) -> str:
    if expected is None:
        return f"host {name} is in the tables, but in no event"
    if there is None:
        return f"host {name} is missing in the tables"
    if there.status is not expected.status:
        return f"host {name} is {there.status}, the events say {expected.status}"
    columns = [key for key, value in vars(expected).items() if value != getattr(there, key)]
    return f"host {name} differs in {', '.join(columns)}"


def _follow(hosts: dict[str, HostRow], event: Event) -> dict[str, HostRow]:
    """The rows after the event."""
    if event.kind == "opened":
        return {row.name: row for row in _planned(event)}
    if event.kind == "moved":
        row = hosts[str(event.host)]
        moved = replace(row, status=HostStatus(event.data["now"]), why=storable(event.data.get("why", "")))
        hosts[row.name] = replace(moved, updated_at=event.at)
    return hosts


def _planned(opened: Event) -> list[HostRow]:
    return [
        HostRow(name, position, phase, zone, from_release, to_release, HostStatus(status), "", opened.at)
        for position, (name, phase, zone, from_release, to_release, status) in enumerate(opened.data["hosts"])
    ]
