# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the events of a rollout tell people: in one row, or as the whole story. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import FAILURES, HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry

_FAILED = frozenset({*FAILURES, HostStatus.STUCK})


@dataclass(frozen=True)
class Chapter:
    """A rollout in short. ``opened_at``, ``closed_at``: epoch seconds; ``by``: who opened it.

    ``moved`` counts the hosts that ever came to the new release, ``failed`` those that ever failed, were lost or
    stuck: what became of them later does not undo that.
    """

    id: str
    kind: str
    version: str
    status: Status
    opened_at: float
    closed_at: float | None
    by: str
    moved: int
    failed: int


@dataclass(frozen=True)
class Refusal:
    """A rollout that was asked for and refused before it was opened. ``at``: epoch seconds."""

    at: float
    by: str
    kind: str
    version: str
    reason: str
    why: str


@dataclass(frozen=True)
class Line:
    """One event for people. ``host`` is empty where it concerns none."""

    seq: int
    at: float
    actor: str
    host: str
    what: str


def chapter(entries: Sequence[Entry], status: Status) -> Chapter:
    """Sum the events of one rollout up, oldest first; ``status`` is where they lead."""
    opened = json.loads(entries[0].data)
    moved: set[str | None] = set()
    failed: set[str | None] = {host[0] for host in opened["hosts"] if host[-1] in _FAILED}
    for entry in entries:
        if entry.kind == "moved":
            now = json.loads(entry.data)["now"]
            moved |= {entry.host} if now == HostStatus.SUCCEEDED else set()
            failed |= {entry.host} if now in _FAILED else set()
    closings = [entry.at for entry in entries if entry.kind == "closed"]
    return Chapter(
        id=entries[0].rollout,
        kind=str(opened.get("kind", "")),
        version=str(opened.get("version", "")),
        status=status,
        opened_at=entries[0].at,
        closed_at=closings[0] if closings else None,
        by=entries[0].actor,
        moved=len(moved),
        failed=len(failed),
    )


def refusal(entry: Entry) -> Refusal:
    """What an event of that kind tells."""
    data = json.loads(entry.data)
    kind, version, reason, why = (str(data.get(key) or "") for key in ("kind", "version", "reason", "why"))
    return Refusal(entry.at, entry.actor, kind, version, reason, why)


def story(entries: Sequence[Entry]) -> Iterator[Line]:
    """Every event of one rollout, oldest first. One that cannot be read is told as it stands."""
    phases: list[str] = []
    phase = 0
    for entry in entries:
        try:
            data = json.loads(entry.data)
            if entry.kind == "opened":
                phases = [str(planned["name"]) for planned in data["rules"]["phases"]]
            phase = data.get("phase", phase) if entry.kind in ("phase_passed", "approved") else phase
            what = _TOLD.get(entry.kind, _tell_anything)(entry.kind, data, phases[phase])
            phase = min(phase + 1, len(phases) - 1) if entry.kind == "phase_passed" else phase
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            what = f"{entry.kind}, which cannot be read: {entry.data}"
        yield Line(entry.seq, entry.at, entry.actor, entry.host or "", what)


def _because(text: str, data: Mapping[str, Any], key: str) -> str:
    return f"{text}: {data[key]}" if data.get(key) else text


def _tell_opened(_kind: str, data: Mapping[str, Any], _phase: str) -> str:
    of = " ".join(str(data[key]) for key in ("component", "version") if data.get(key))
    count = f"{len(data['hosts'])} host{'' if len(data['hosts']) == 1 else 's'}"
    return f"opened: {data.get('kind', 'rollout')} of {of}, {count} in phases {', '.join(_names(data))}"


def _names(opened: Mapping[str, Any]) -> list[str]:
    return [str(phase["name"]) for phase in opened["rules"]["phases"]]


def _tell_phase_closed(_kind: str, data: Mapping[str, Any], phase: str) -> str:
    asker = f"; {data['holder']} asks its gate" if data["holder"] else "; nobody asks its gate"
    return f"phase {phase} closed{asker}"


def _migration(data: Mapping[str, Any]) -> str:
    return f"{'the reversal of ' if data['back'] else ''}migration {data['migration']}"


def _tell_anything(kind: str, data: Mapping[str, Any], _phase: str) -> str:
    """An event of a kind that has no sentence of its own."""
    told = ", ".join(f"{key} {value}" for key, value in data.items() if not isinstance(value, (dict, list)))
    return f"{kind.replace('_', ' ')}: {told}" if told else kind.replace("_", " ")


_TOLD: Mapping[str, Callable[[str, Mapping[str, Any], str], str]] = {
    "opened": _tell_opened,
    "resumed": lambda kind, data, phase: f"taken up again by {data['by']}",
    "moved": lambda kind, data, phase: _because(f"{data['was']} -> {data['now']}", data, "why"),
    "phase_closed": _tell_phase_closed,
    "gate_held": lambda kind, data, phase: f"a person is awaited: {data['reason']}",
    "held": lambda kind, data, phase: f"held, a person is awaited: {data['reason']}",
    "let_go_on": lambda kind, data, phase: _because("goes on in spite of its failures", data, "why"),
    "unlocked": lambda kind, data, phase: _because(f"taken away from {data['holder']}", data, "why"),
    "phase_passed": lambda kind, data, phase: _because(f"phase {phase} passed", data, "why"),
    "turned_back": lambda kind, data, phase: _because("turns back", data, "reason"),
    "switch_begun": lambda kind, data, phase: f"{data['by']} switches the load balancers to {data['to']}",
    "switched": lambda kind, data, phase: f"the load balancers are switched to {data['to']}",
    "switch_failed": lambda kind, data, phase: _because(f"the switch to {data['to']} failed", data, "why"),
    "migration_started": lambda kind, data, phase: f"{_migration(data)} begins on {data['run_on']}, by {data['by']}",
    "migration_ended": lambda kind, data, phase: _because(f"{_migration(data)} has taken effect", data, "why"),
    "migration_failed": lambda kind, data, phase: _because(f"{_migration(data)} failed", data, "why"),
    "migration_in_doubt": lambda kind, data, phase: _because(f"{_migration(data)} is in doubt", data, "why"),
    "migration_to_run_again": lambda kind, data, phase: _because(f"{_migration(data)} counts as not run", data, "why"),
    "paused": lambda kind, data, phase: _because("paused", data, "reason"),
    "unpaused": lambda kind, data, phase: "goes on after the pause",
    "approved": lambda kind, data, phase: _because(f"phase {phase} approved", data, "why"),
    "closed": lambda kind, data, phase: _because(f"closed, {data['verdict']}", data, "reason"),
}
