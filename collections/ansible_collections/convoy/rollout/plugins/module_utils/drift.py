# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a release is not as it was deployed: its files, its units, what runs of it. Never changes anything.

``look`` reads, within a time. What it read is judged by the pure functions in between: each takes what the record of
the release says and what was seen, and yields findings.
"""

from __future__ import annotations

import fnmatch
import os
import stat

from ansible_collections.convoy.rollout.plugins.module_utils import process, units
from ansible_collections.convoy.rollout.plugins.module_utils import record as records
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process, Stray
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, Record, Unit, kind_of
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UnitStatus, unit_fault
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Current
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple
from ansible_collections.convoy.rollout.plugins.module_utils.units import UnitFile

if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

    from ansible_collections.convoy.rollout.plugins.module_utils.kinds import Kind

MOST_FINDINGS = 50
# Files beyond those of the release, after which its directory is not looked through any further.
_MOST_STRANGERS = 10_000
# Seconds by which a clock may have been set back since a release was activated, as far as hosts are deployed to at all.
_CLOCK_ALLOWANCE = 300.0
# Where distributions keep what they add to all services.
_OF_THE_SYSTEM = ("/usr/", "/lib/")
_THERE, _NOT_THERE = "there", "not there"


class Finding(NamedTuple):
    """Something that is not as it was deployed: what kind of thing, which one, how it should be, how it is."""

    what: str
    name: str
    expected: str
    actual: str


class Seen(NamedTuple):
    """A file of a release as found. `link` is the target of a symbolic link, `sha256` empty where it was not read."""

    kind: str  # regular, link or other
    size: int = 0
    mode: int = 0
    link: str = ""
    sha256: str = ""


class Services(NamedTuple):
    """The units of a release as systemd has them, and their main processes."""

    statuses: Mapping[str, UnitStatus]
    processes: Mapping[str, Process]
    strays: Sequence[Stray] = ()


class IncompleteError(ConvoyTargetError):
    """Not everything could be looked at, in the time that there was or at all."""


# --- what differs: pure ------------------------------------------------------------------------------------------


def of_current(release: str, current: Current) -> Iterator[Finding]:
    """Whether `current` points to the release."""
    if current.kind != "release" or current.release != release:
        actual = {"absent": _NOT_THERE, "not_a_link": "no symbolic link"}.get(current.kind, current.target)
        dangles = ", which is not there" if current.kind == "dangling" else ""
        yield Finding("release", "current", f"releases/{release}", actual + dangles)


def of_files(recorded: Iterable[FileEntry], seen: Mapping[str, Seen]) -> Iterator[Finding]:
    """How the files of a release differ from its record; digests are compared where they were read."""
    known = set()
    for entry in recorded:
        known.add(entry.path)
        there = seen.get(entry.path)
        if there is None:
            yield Finding("file", entry.path, _THERE, _NOT_THERE)
        elif entry.link is not None or there.kind != "regular":
            expected = "regular file" if entry.link is None else f"symbolic link to {entry.link}"
            actual = {"link": f"symbolic link to {there.link}", "regular": "regular file"}.get(there.kind, "no file")
            if actual != expected:
                yield Finding("file", entry.path, expected, actual)
        else:
            yield from _of_content(entry, there)
    for path in sorted(set(seen) - known):
        yield Finding("foreign-file", path, _NOT_THERE, _THERE)


def _of_content(entry: FileEntry, there: Seen) -> Iterator[Finding]:
    compared = [
        (f"mode {entry.mode:04o}", f"mode {there.mode:04o}"),
        (f"{entry.size} bytes", f"{there.size} bytes"),
        (f"sha256 {entry.sha256}", f"sha256 {there.sha256 or entry.sha256}"),
    ]
    differs = [pair for pair in compared if pair[0] != pair[1]]
    if differs:
        expected, actual = (", ".join(texts) for texts in zip(*differs))
        yield Finding("file", entry.path, expected, actual)


def of_unit_files(component: str, wanted: Sequence[Unit], found: Mapping[str, UnitFile]) -> Iterator[Finding]:
    """How the unit files of a component differ from those of its release."""
    for unit in wanted:
        there = found.get(unit.name)
        expected = f"sha256 {units.digest(units.body(unit))}"
        if there is None:
            yield Finding("unit", unit.name, _THERE, _NOT_THERE)
        elif there.component not in (None, component):
            yield Finding("foreign-unit", unit.name, f"of component {component}", f"of component {there.component}")
        elif there.body != units.body(unit):
            actual = f"sha256 {units.digest(there.body)}"
            if there.component is None:
                yield Finding("foreign-unit", unit.name, expected, f"{actual}, not written by Convoy")
            else:
                yield Finding("unit", unit.name, expected, actual)
    names = {unit.name for unit in wanted}
    for name, there in sorted(found.items()):
        if there.component == component and name not in names:
            yield Finding("unit", name, _NOT_THERE, _THERE)


def of_services(wanted: Sequence[Unit], directory: str, services: Services) -> Iterator[Finding]:
    """How systemd has the units that the release writes, other than as their files say."""
    for unit in wanted:
        status = services.statuses.get(unit.name)
        if status is None:
            continue
        path = os.path.join(directory, unit.name)
        if status.fragment and status.fragment != path:
            yield Finding("foreign-unit", unit.name, f"loaded from {path}", f"loaded from {status.fragment}")
        for drop_in in status.drop_ins:
            if not drop_in.startswith(_OF_THE_SYSTEM):
                yield Finding("drop-in", drop_in, _NOT_THERE, _THERE)
        boot = {True: "enabled", False: "disabled"}[units.is_installable(unit)]
        if status.file_state in ("enabled", "disabled") and status.file_state != boot:
            yield Finding("enabled", unit.name, boot, status.file_state)


def of_states(wanted: Sequence[Unit], services: Services) -> Iterator[Finding]:
    """Which units do not do what they are for."""
    for unit in wanted:
        status = services.statuses.get(unit.name)
        fault = unit_fault(status) if status is not None else None
        if fault is not None:
            yield Finding("state", unit.name, "active", fault)


def of_processes(wanted: Sequence[Unit], place: str, since: float | None, services: Services) -> Iterator[Finding]:
    """How the processes are other than fresh ones of the release in `place`, which is active `since` then.

    A unit that is only reloaded keeps the process, and so the directory, that it was started with.
    """
    restarted = {unit.name for unit in wanted if unit.action == "restart"}
    for name, running in sorted(services.processes.items()):
        if name not in restarted:
            continue
        runs = process.release_of(running, os.path.dirname(place))
        if runs != os.path.basename(place) or process.is_deleted(running):
            yield Finding("process", name, f"works in {place}", f"process {running.pid} works in {running.cwd}")
        elif since is not None and running.started < since - _CLOCK_ALLOWANCE:
            older = since - running.started
            yield Finding("process", name, "begun with the release", f"process {running.pid} is {older:.0f} s older")
    for stray in services.strays:
        yield Finding("process", stray.file, "run by the release's units alone", f"process {stray.pid} runs it too")


def without(ignored: Sequence[str], findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings whose names match none of the patterns."""
    return (one for one in findings if not any(fnmatch.fnmatchcase(one.name, pattern) for pattern in ignored))


# --- looking ------------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """What is looked at. `release` is None for the one that is active; without `digests` no file is read."""

    release: str | None = None
    digests: bool = True
    seconds: float = 300.0
    ignored: Sequence[str] = ()


def look(host: Host, request: Request) -> dict[str, Any]:
    """Everything that the module returns. Nothing missing is an error."""
    current = host.tree.look_at_current()
    release = request.release or (current.release if current.kind == "release" else None)
    deadline = _Deadline(host, request.seconds)
    recorded, fault = _record(host, release) if release is not None else (None, "")
    if recorded is not None:
        findings = _of_release(host, recorded, current, request.digests, deadline)
    else:
        findings = _of_none(host, release, current, fault)
    found: list[Finding] = []
    incomplete = None
    try:
        for finding in without(request.ignored, findings):
            found.append(finding)
    except IncompleteError as error:
        incomplete = error.message
    return {
        "active": current.release if current.kind == "release" else None,
        "compared": release,
        "version": recorded.version if recorded is not None else None,
        "findings": [one._asdict() for one in found[:MOST_FINDINGS]],
        "more": len(found[MOST_FINDINGS:]),
        "incomplete": incomplete,
    }


class _Deadline:
    """Raises IncompleteError when the time is over."""

    def __init__(self, host: Host, seconds: float) -> None:
        self._clock, self._seconds = host.clock, seconds
        self._end = host.clock.now() + seconds

    def __call__(self) -> None:
        if self._clock.now() > self._end:
            raise IncompleteError(
                f"{self._seconds:g} s were not enough to read all files; give more, or ask for no digests"
            )


def _of_none(host: Host, release: str | None, current: Current, fault: str) -> Iterator[Finding]:
    """What can be said where nothing is active, or there is no record of the release."""
    if release is not None:
        yield from of_current(release, current)
        yield Finding("record", release, "a record of the release", fault)
        return
    if current.kind != "absent":
        yield from of_current("ID", current)
    yield from of_unit_files(host.tree.component, (), host.units.find(()))


def _of_release(
    host: Host, recorded: Record, current: Current, digests: bool, deadline: Callable[[], None]
) -> Iterator[Finding]:
    """All findings, what is most telling first."""
    release, wanted, own = recorded.release, recorded.units, recorded.own_units
    yield from of_current(release, current)
    kind = kind_of(recorded)
    services = _services(host, recorded)
    if kind is None:
        place = os.path.join(os.path.realpath(host.tree.releases), release)
        yield from of_processes(wanted, place, _taken_into_service(host, release), services)
    yield from of_states(wanted, services)
    yield from of_services(own, host.unit_directory, services)
    yield from of_unit_files(host.tree.component, own, host.units.find(own))
    if kind is not None:
        yield from _of_kind(host, recorded, kind, services, digests)
    yield from of_files(recorded.files, _survey(host.tree.release(release), recorded, digests, deadline))


def _of_kind(host: Host, recorded: Record, kind: Kind, services: Services, digests: bool) -> Iterator[Finding]:
    """What the kind knows of the host and of what runs there."""
    restarted = {unit.name for unit in recorded.units if unit.action == "restart"}
    try:
        for name in sorted(restarted & set(services.processes)):
            fault = kind.process_fault(host, services.processes[name], recorded, not_before=0)
            if fault is not None:
                yield Finding("process", name, "begun with the release", fault)
        yield from (Finding(*differs) for differs in kind.drift(host, recorded, digests))
    except ConvoyTargetError as error:
        raise IncompleteError(error.message) from error


def _record(host: Host, release: str) -> tuple[Record | None, str]:
    """The record of a release; else why there is none."""
    try:
        return host.tree.read_record(release), ""
    except ConvoyTargetError as error:
        return None, error.message


def _taken_into_service(host: Host, release: str) -> float | None:
    """When the release was last switched to, in seconds since the epoch, as far as the journal says."""
    for entry in reversed(host.journal.read().entries):
        if release == {"activating": entry.release, "reverting": entry.went_to}.get(entry.event):
            return entry.at
    return None


def _services(host: Host, recorded: Record) -> Services:
    wanted = recorded.units
    statuses = host.supervisor.show([unit.name for unit in wanted if not units.is_template(unit.name)])
    running = {name: process.read(status.pid) for name, status in statuses.items() if status.pid}
    names = [unit.name for unit in wanted]
    strays = process.strays(host.tree.releases, names, units.programs(recorded.own_units))
    return Services(statuses, {name: one for name, one in running.items() if one is not None}, strays)


def _survey(directory: str, recorded: Record, digests: bool, deadline: Callable[[], None]) -> dict[str, Seen]:
    """The files of a release as they are. One whose size or kind differs already is not read as well."""
    expected = {entry.path: entry for entry in recorded.files}
    seen: dict[str, Seen] = {}
    for path, status in records.walk(directory):
        if len(seen) > len(expected) + _MOST_STRANGERS:
            raise IncompleteError(f"{directory} holds over {_MOST_STRANGERS} files that are not of the release")
        seen[path] = _seen(os.path.join(directory, path), status, expected.get(path), digests, deadline)
        deadline()
    return seen


def _seen(
    path: str, status: os.stat_result, entry: FileEntry | None, digests: bool, deadline: Callable[[], None]
) -> Seen:
    if stat.S_ISLNK(status.st_mode):
        return Seen("link", link=os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        return Seen("other")
    reads = digests and entry is not None and entry.link is None and entry.size == status.st_size
    digest = records.digest_of(path, deadline) if reads else ""
    return Seen("regular", status.st_size, stat.S_IMODE(status.st_mode), sha256=digest)
