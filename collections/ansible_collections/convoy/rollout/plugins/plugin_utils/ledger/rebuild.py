# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rollout as its events alone tell it, to compare with the tables that are kept beside them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Event,
    HostStatus,
    RolloutState,
    evolve,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HostRow, storable


@dataclass(frozen=True)
class Rebuilt:
    """State and hosts (in the plan's order) after all events of a rollout."""

    state: RolloutState
    hosts: tuple[HostRow, ...]


def rebuild(entries: Iterable[Entry]) -> Rebuilt:
    """Fold the entries of one rollout, oldest first."""
    state = RolloutState()
    hosts: dict[str, HostRow] = {}
    for entry in entries:
        event = Event(entry.kind, entry.at, entry.host, json.loads(entry.data))
        state = evolve(state, event)
        if event.kind == "opened":
            hosts = {row.name: row for row in _planned(event)}
        elif event.kind == "moved":
            row = hosts[str(event.host)]
            moved = replace(row, status=HostStatus(event.data["now"]), why=storable(event.data.get("why", "")))
            hosts[row.name] = replace(moved, updated_at=event.at)
    return Rebuilt(state, tuple(hosts.values()))


def _planned(opened: Event) -> list[HostRow]:
    return [
        HostRow(name, position, phase, zone, from_release, to_release, HostStatus(status), "", opened.at)
        for position, (name, phase, zone, from_release, to_release, status) in enumerate(opened.data["hosts"])
    ]
