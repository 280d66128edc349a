# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What something costs: the time that it takes, the CPU time of all its processes, that of the rest of the machine.

Ansible leaves ssh's shared connections behind, which carry all that is sent, and belong to no process that waits for
them. They become children of this process instead, which ends them, so that their CPU time counts and nobody finds a
connection that another one has made.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Cost:
    """Seconds. ``rest`` is the CPU time of everything else: the hosts, the kernel, and who else was busy here."""

    wall: float
    cpu: float
    rest: float


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def measure(act: Callable[[], None]) -> Cost:
    """Do it, with nothing left of what was done before."""
    end_orphans()
    cpu, busy, began = _cpu(), _busy(), time.perf_counter()
    act()
    wall, busy = time.perf_counter() - began, _busy() - busy
    end_orphans()
    cpu = _cpu() - cpu
    return Cost(round(wall, 2), round(cpu, 2), round(max(0.0, busy - cpu), 2))


def end_orphans() -> None:
    """End every child, and wait for it."""
    for pid in _children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _children() -> list[int]:
    threads = Path("/proc/self/task").glob("*/children")
    return [int(pid) for thread in threads for pid in thread.read_text().split()]


def _cpu() -> float:
    """The CPU time of this process and of all its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _busy() -> float:
    """For how long the machine's cores have been busy, in all."""
    user, nice, system, _idle, _wait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
