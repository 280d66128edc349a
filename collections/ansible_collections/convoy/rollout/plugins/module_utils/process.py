# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running process says of itself: when it started, and from which release it runs."""

from __future__ import annotations

import os
import signal
import time

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import AbstractSet, Any, Iterable, Sequence

_DELETED = " (deleted)"
_LONGEST_COMMAND = 4096  # bytes of a command line that are looked at
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process: `started_ticks` on the kernel's clock since boot, `started` in seconds since the epoch."""

    pid: int
    started_ticks: int
    started: float
    cwd: str


class Child(NamedTuple):
    """A process by what nobody else has, its number with its start; `title` is its command line."""

    pid: int
    started_ticks: int
    title: str


class Stray(NamedTuple):
    """A process that runs of a release without belonging to its units; `file` is what it runs."""

    pid: int
    started_ticks: int
    file: str


def ticks_now() -> int:
    """Now, on the clock on which the kernel notes when a process started."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_A_SECOND)


def read(pid: int, proc: str = "/proc") -> Process | None:
    """The process `pid`, None when there is none (any more)."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as stream:
            ticks = _start_ticks(stream.read())
        cwd = os.readlink(f"{proc}/{pid}/cwd")
    except (FileNotFoundError, ProcessLookupError):
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Process(pid, ticks, booted + ticks / _TICKS_A_SECOND, cwd)


def title(pid: int, proc: str = "/proc") -> str:
    """The command line of a process, as it shows itself; empty when there is none (any more)."""
    try:
        with open(f"{proc}/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(parent: int, proc: str = "/proc") -> list[Child]:
    """The processes that `parent` has begun and that are at work; one that has ended and was not noticed is none."""
    found = []
    for name in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(f"{proc}/{name}/stat", "rb") as stream:
                stat = stream.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, of = _after_name(stat)[:2]
        if int(of) == parent and state not in (b"Z", b"X"):
            found.append(Child(int(name), _start_ticks(stat), title(int(name), proc)))
    return found


def strays(releases: str, owners: Sequence[str], programs: Iterable[str], proc: str = "/proc") -> list[Stray]:
    """The processes that run something of `releases` outside of the units `owners`.

    What a process runs is its program; or, where that is one of `programs`, the file that is its first argument in
    there, or the directory there that it works in. A shell or an editor that somebody has open there runs nothing.
    A process that the kernel lets nobody look into, root included, is left out.
    """
    inside = os.path.join(os.path.realpath(releases), "")
    interpreters = {os.path.realpath(program) for program in programs}
    found = []
    for name in filter(str.isdigit, os.listdir(proc)):
        try:
            file = _runs(f"{proc}/{name}", inside, interpreters)
            if file is None or _belongs(f"{proc}/{name}", owners):
                continue
            with open(f"{proc}/{name}/stat", "rb") as stream:
                found.append(Stray(int(name), _start_ticks(stream.read()), file))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return sorted(found)


def end(pid: int, started_ticks: int, clock: Clock, patience: float = 10.0) -> None:
    """End a process, which may take so many seconds for it before it is killed; never another one of its number."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = clock.now() + patience
        try:
            if _started(pid) != started_ticks:
                return
            os.kill(pid, number)
            while _started(pid) == started_ticks and clock.now() < deadline:
                clock.sleep(0.05)
        except ProcessLookupError:
            return


def _started(pid: int) -> int | None:
    """When a process started, None when there is none (any more), or only what its parent has not noticed yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            stat = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if _after_name(stat)[0] in (b"Z", b"X") else _start_ticks(stat)


def _runs(place: str, inside: str, interpreters: AbstractSet[str]) -> str | None:
    """What a process runs of the directory `inside`, None for nothing. A process of another file system has nothing."""
    program = os.readlink(f"{place}/exe")
    if program.startswith(inside):
        return program
    if program not in interpreters or os.readlink(f"{place}/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
        return None
    cwd = os.readlink(f"{place}/cwd")
    with open(f"{place}/cmdline", "rb") as stream:
        arguments = stream.read(_LONGEST_COMMAND).decode("utf-8", "surrogateescape").split("\0")[1:]
    paths = (os.path.realpath(os.path.join(cwd, one)) for one in arguments if one and not one.startswith("-"))
    file = next((path for path in paths if path.startswith(inside) and os.path.isfile(path)), None)
    return file or (cwd if any(arguments) and os.path.join(cwd, "").startswith(inside) else None)


def _belongs(place: str, owners: Sequence[str]) -> bool:
    """Whether a process was started by one of the units, as its control group tells."""
    with open(f"{place}/cgroup", encoding="utf-8", errors="replace") as stream:
        groups = {part for line in stream for part in line.strip().split("/")[1:]}
    return any(_is_of(group, owner) for group in groups for owner in owners)


def _is_of(group: str, owner: str) -> bool:
    """Whether a control group is that of a unit, or of an instance of it where it is a template."""
    stem, kind = owner.rsplit(".", 1)
    return group == owner or (stem.endswith("@") and group.startswith(stem) and group.endswith("." + kind))


def _start_ticks(stat: bytes) -> int:
    """Field 22 of proc_pid_stat(5)."""
    return int(_after_name(stat)[19])


def _after_name(stat: bytes) -> list[bytes]:
    """The fields from the third one on. The command's name, field 2, may hold blanks and brackets."""
    return stat[stat.rindex(b")") + 2 :].split()


def release_of(process: Process, releases: str) -> str | None:
    """The release that a process works in, None when it works elsewhere."""
    cwd = process.cwd
    if cwd.endswith(_DELETED):
        cwd = cwd[: -len(_DELETED)]
    inside = os.path.join(os.path.realpath(releases), "")
    if not cwd.startswith(inside):
        return None
    return cwd[len(inside) :].split("/", 1)[0]


def is_deleted(process: Process) -> bool:
    """Whether the directory that a process works in is no longer there."""
    return process.cwd.endswith(_DELETED)


def describe(process: Process, releases: str) -> dict[str, Any]:
    """As a module returns it: pid, started (seconds since the epoch), cwd, release."""
    return {
        "pid": process.pid,
        "started": round(process.started, 2),
        "cwd": process.cwd,
        "release": release_of(process, releases),
    }


def fault(process: Process, releases: str, release: str, not_before: int) -> str | None:
    """Why a process is not a fresh one of `release`, None when it is. `not_before`: in ticks since boot."""
    runs = release_of(process, releases)
    if runs is None:
        return (
            f"process {process.pid} works in {process.cwd}, outside {releases}, so it cannot be told which release "
            f"it is; set WorkingDirectory={os.path.join(os.path.dirname(releases), 'current')} in its unit"
        )
    if runs != release or is_deleted(process):
        return f"process {process.pid} runs from {process.cwd}, expected {os.path.join(releases, release)}"
    if process.started_ticks < not_before:
        return f"process {process.pid} is older than the switch: it was not restarted"
    return None
