# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""End a run that would wait for ever for a worker that was killed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: watchdog
type: aggregate
short_description: End a run that would wait for ever for a worker that was killed
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - When the system kills one of Ansible's workers (because memory ran out, say), the strategies C(free) and
    C(host_pinned) wait for its result for ever.
  - This callback lets the other hosts go on to their end. When nobody else is at work any more, it says what happened
    and interrupts the run, as Ctrl-C would. The rollout stays open; the same command goes on with it.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess

from ansible.playbook import Playbook
from ansible.plugins.callback import CallbackBase

_LOOK = 0.25  # seconds from one look at the workers to the next
_PATIENCE = 5.0  # seconds without any worker, after one was killed


class CallbackModule(CallbackBase):
    """``convoy.rollout.watchdog``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "convoy.rollout.watchdog"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Begin to watch."""
        threading.Thread(target=Workers().watch, name="convoy-watchdog", daemon=True).start()


class Workers:
    """The workers of this process."""

    def __init__(self) -> None:
        self._known: set[BaseProcess] = set()
        self._killed: dict[int, int] = {}

    def watch(self) -> None:
        """Look at them again and again; interrupt this process when it waits for dead ones only."""
        idle_since = time.monotonic()
        while True:
            time.sleep(_LOOK)
            if self.look():
                idle_since = time.monotonic()
            elif self._killed and time.monotonic() - idle_since > _PATIENCE:
                self._tell()
                os.kill(os.getpid(), signal.SIGINT)
                return

    def look(self) -> bool:
        """Whether one is at work."""
        alive = set(multiprocessing.active_children())
        for gone in self._known - alive:
            with contextlib.suppress(ValueError):  # Ansible knows of its end, and has closed it
                if gone.pid and gone.exitcode is not None and gone.exitcode < 0:
                    self._killed[gone.pid] = -gone.exitcode
        self._known = alive
        return bool(alive)

    def _tell(self) -> None:
        killed = ", ".join(f"{pid} (signal {number})" for pid, number in self._killed.items())
        told = (
            f"\nERROR: Ansible's worker {killed} was killed, and Ansible would wait for its result for ever. "
            "Was memory short (dmesg says)? Fewer --forks need less of it\n"
        )
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), told.encode())
