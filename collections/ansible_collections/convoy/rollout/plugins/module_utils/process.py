# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running process says of itself: when it started, and from which release it runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

_DELETED = " (deleted)"
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
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
