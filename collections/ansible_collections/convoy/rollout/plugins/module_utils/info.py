# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be said of a component on a host without changing anything."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.convoy.rollout.plugins.module_utils import gate, names, process, record, units
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import BY_TASKS, History, Reading
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record, kind_of
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import unit_fault
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import AbstractSet, Any, Iterator, Mapping, Sequence

# Bytes. Configuration is shown up to the first, and compared up to the second.
_LONGEST_SHOWN = 64 * 1024
_LONGEST_READ = 16 * 1024 * 1024


def look(host: Host, unit_names: Sequence[str], verify: bool) -> dict[str, Any]:
    """The facts of the release tree, the units and the processes. Reads only; nothing missing is an error."""
    tree = host.tree
    present, current = tree.present(), tree.look_at_current()
    active = current.release if current.kind == "release" else None
    reading = host.journal.read()
    history = History.of(reading.entries)
    records = dict(_records(host, present))
    recorded = records.get(active or "")
    names = list(unit_names) or [unit.name for unit in (recorded.units if recorded else ())]
    reloaded = {unit.name for unit in recorded.units if unit.action == "reload"} if recorded else set()
    processes, process_problems = _processes(host, names, reloaded, active, recorded)
    busy = tree.holder()
    problems = [
        *filter(None, [tree.current_fault(current)]),
        *_journal_problems(host, reading, history, busy),
        *_release_problems(host, active, recorded, verify),
        *(f"{name} in {tree.releases} is none of Convoy's releases" for name in tree.strangers()),
        *(process_problems if active else []),
    ]
    unconfirmed = history.unconfirmed
    return {
        "present": tree.exists(),
        "active": active,
        "version": recorded.version if recorded else None,
        "kind": _kind(recorded),
        "active_since": history.standings[active].since if active in history.standings else None,
        "good": history.good(present),
        "last_good": history.last_good(present, besides=active),
        "staged": sorted(present),
        "obstacle": tree.current_fault(current) or next(_damage(host, reading), None),
        "problems": problems,
        "unsettled": _unsettled(recorded, history),
        "unconfirmed": _unconfirmed(unconfirmed.until if unconfirmed else None, active, history),
        "busy": busy,
        "process": processes,
        "releases": _releases(history, records),
    }


def shown(host: Host, active: str | None, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the files and units of the active release say that are asked about; then the names of its other units.

    `sha256` is None for one that is not there, `text` None for one that is secret, no text, or long.
    """
    recorded = dict(_records(host, {active})).get(active) if active else None
    own = {unit.name: units.body(unit).encode("utf-8") for unit in (recorded.own_units if recorded else ())}
    found = []
    for one in asked:
        content = own.get(one["name"]) if one["kind"] == "unit" else _content(host, active, one["name"])
        found.append(_shown(one["name"], content, bool(one["secret"])))
    known = {one["name"] for one in asked if one["kind"] == "unit"}
    return found + [_shown(name, content, True) for name, content in own.items() if name not in known]


def _shown(name: str, content: bytes | None, is_secret: bool) -> dict[str, Any]:
    import hashlib

    text = None
    if content is not None and not is_secret and len(content) <= _LONGEST_SHOWN:
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode("utf-8")
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest() if content is not None else None, "text": text}


def _content(host: Host, active: str | None, path: str) -> bytes | None:
    """A file of the active release; None when it is not there, or not inside it."""
    if active is None or names.path_fault(path):
        return None
    directory = os.path.realpath(host.tree.release(active))
    place = os.path.join(directory, path)
    if os.path.realpath(place) != place or not os.path.isfile(place):
        return None
    with open(place, "rb") as stream:
        return stream.read(_LONGEST_READ)


def health(host: Host, active: str | None, probes: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """One round of the gate; None without probes or without an active release. GateError when it is written wrong."""
    recorded = dict(_records(host, {active})).get(active) if active else None
    version = recorded.version if recorded else None
    probing = gate.validate(gate.expecting(probes, version or "unknown"), dict(options))
    if not probing.probes or active is None:
        return None
    return gate.once(probing, host.clock).as_dict()


def dependencies(host: Host, probes: Sequence[Any]) -> dict[str, Any] | None:
    """One round of probes of what the host needs; None without any. GateError when one is written wrong."""
    probing = gate.validate(list(probes), {})
    return gate.once(probing, host.clock).as_dict() if probing.probes else None


def _records(host: Host, present: Sequence[str] | set[str]) -> Iterator[tuple[str, Record]]:
    """The records that can be read; one that cannot is found by _release_problems where it matters."""
    for release in present:
        try:
            yield release, host.tree.read_record(release)
        except ConvoyTargetError:
            continue


def _kind(recorded: Record | None) -> str | None:
    """Of which component kind the active release is."""
    if recorded is None:
        return None
    if recorded.by_tasks:
        return "tasks"
    if recorded.package is not None:
        return "package"
    return "container" if recorded.image is not None else "archive"


def _damage(host: Host, reading: Reading) -> Iterator[str]:
    for number in reading.damaged:
        yield (
            f"line {number} of {host.tree.journal} cannot be read, so it is not known which releases are good; "
            "compare it with the ledger, and correct or remove the line"
        )


def _journal_problems(host: Host, reading: Reading, history: History, busy: str | None) -> Iterator[str]:
    yield from _damage(host, reading)
    pending = history.pending
    if pending is not None and busy is None and pending.reason != BY_TASKS:
        what = "activation" if pending.event == "activating" else "way back"
        yield (
            f"the {what} of {pending.release} by rollout {pending.rollout or 'unknown'} did not end: "
            "run the deployment or the rollback again"
        )


def _release_problems(host: Host, active: str | None, recorded: Record | None, verify: bool) -> Iterator[str]:
    """How the active release and its unit files differ from what they should be."""
    if active is None:
        return
    if recorded is None:
        yield f"the active release {active} has no record that can be read"
        return
    comparison = record.compare(recorded, host.tree.release(active), digests=verify)
    yield from (f"the active release differs: {fault}" for fault in comparison.faults)
    yield from (f"the active release has a file more than it should: {path}" for path in comparison.unexpected)
    try:
        plan = host.units.plan(recorded.own_units)
        kind = kind_of(recorded)
        yield from kind.info(host, recorded, verify) if kind is not None else ()
    except ConvoyTargetError as error:
        yield error.message
        return
    yield from (f"unit {unit.name} differs from the active release's" for unit in plan.write)
    yield from (f"unit {name} does not belong to the active release" for name in plan.remove)


def _processes(
    host: Host, names: Sequence[str], reloaded: AbstractSet[str], active: str | None, recorded: Record | None
) -> tuple[dict[str, Any], list[str]]:
    """The main processes of units, and what is wrong with them. One that is only reloaded keeps its old directory."""
    seen: dict[str, Any] = {}
    problems = []
    runnable = [name for name in names if not units.is_template(name)]
    for name, status in host.supervisor.show(runnable).items():
        running = process.read(status.pid) if status.pid else None
        if running is not None:
            seen[name] = process.describe(running, host.tree.releases)
        fault = unit_fault(status)
        if fault is None and running is not None and active is not None and name not in reloaded:
            wanted = recorded or Record(active, active, {}, ())
            fault = host.process_fault(running, wanted, not_before=0)
        if fault is not None:
            problems.append(f"{name}: {fault}")
    return seen, problems


def _unsettled(recorded: Record | None, history: History) -> dict[str, Any] | None:
    """What is open of tasks that ought to put the active release in place."""
    unsettled = history.unsettled(recorded.release) if recorded is not None and recorded.by_tasks else None
    return None if unsettled is None else unsettled._asdict()


def _unconfirmed(until: float | None, active: str | None, history: History) -> dict[str, Any] | None:
    """The release that waits for its confirmation, and until when."""
    unconfirmed = history.unconfirmed
    if unconfirmed is None or unconfirmed.release != active or history.state(str(active)) != "active":
        return None
    return {"release": active, "until": until}


def _releases(history: History, records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """Every release on the host, the one that was staged last first."""
    newest_first = sorted(records.values(), key=lambda recorded: (recorded.staged_at, recorded.release), reverse=True)
    return [
        {
            "id": recorded.release,
            "version": recorded.version,
            "state": history.state(recorded.release) or "unknown",
            "artifact": recorded.artifact.get("sha256"),
        }
        for recorded in newest_first
    ]
