# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nginx that runs on this host: its configuration tested and read again, and what became of its workers.

A reload is asked for by a signal, and nobody answers. What can be seen are the master's children: it begins new
workers with the new configuration, then tells the old ones to take no new connections and to end when those that they
have are over; such a one shows 'is shutting down' as its title.
"""

from __future__ import annotations

import os
import re
import signal

from ansible_collections.convoy.rollout.plugins.module_utils import process
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.process import Child
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterable, Mapping, Sequence, Tuple

POLL = 0.05
RELOAD_SECONDS = 30.0
TEST_SECONDS = 60.0

_MASTER = "nginx: master process"
_WORKER = "nginx: worker process"
_LEAVING = "is shutting down"
_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)

if TYPE_CHECKING:
    Workers = Mapping[Tuple[int, int], Child]


def is_taken(before: Workers, now: Workers) -> bool:
    """Whether a reload has happened: there are new workers, and each of the old ones is leaving or gone."""
    return any(key not in before for key in now) and all(is_leaving(now[key]) for key in before if key in now)


def is_leaving(worker: Child) -> bool:
    """Whether it takes no new connections any more."""
    return _LEAVING in worker.title


class Nginx:
    """The nginx whose master process is named in `pid_file`, and that reads `main`."""

    def __init__(self, executable: str, main: str, pid_file: str, clock: Clock) -> None:
        self.executable, self.main, self.pid_file, self.clock = executable, main, pid_file, clock

    def test(self, config: str) -> None:
        """Have nginx test its whole configuration, to which the file `config` has to belong. Else TrafficError."""
        import subprocess

        command = [self.executable, "-T", "-q", "-c", self.main]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TrafficError(f"nginx had not tested its configuration after {TEST_SECONDS:g} s") from error
        except OSError as error:
            raise TrafficError(
                f"{self.executable} cannot be run: {error.strerror}; name nginx's program as executable"
            ) from error
        if ended.returncode:
            said = " ".join(ended.stderr.decode("utf-8", "replace").split())[-500:]
            raise TrafficError(f"nginx refuses its configuration: {said}")
        files = _FILE.findall(ended.stdout.decode("utf-8", "surrogateescape"))
        if os.path.realpath(config) not in map(os.path.realpath, files):
            raise TrafficError(
                f"{config} is no part of nginx's configuration: {self.main} does not include it; include it, or name "
                "the file that has the upstream block as config"
            )

    def reload(self) -> list[Child]:
        """Have the configuration read again. The old workers, which may still have connections.

        Returns when none of them takes new ones any more. Raises TrafficError when nginx does not do it.
        """
        master = self.master()
        before = self.workers(master)
        try:
            os.kill(master, signal.SIGHUP)
        except PermissionError as error:
            raise TrafficError("nginx may not be reloaded by this user: run the task with become: true") from error
        ends = self.clock.now() + RELOAD_SECONDS
        while not is_taken(before, self.workers(master)):
            if self.clock.now() >= ends:
                raise TrafficError(
                    f"nginx, process {master}, has no new workers {RELOAD_SECONDS:g} s after it was told to read its "
                    "configuration again; its error log says why"
                )
            self.clock.sleep(POLL)
        return list(before.values())

    def master(self) -> int:
        """The number of the master process. TrafficError when nginx does not run."""
        try:
            with open(self.pid_file, encoding="ascii") as stream:
                pid = int(stream.read())
        except FileNotFoundError as error:
            raise TrafficError(
                f"{self.pid_file} is not there: nginx does not run, or its pid directive names another file"
            ) from error
        except (OSError, ValueError) as error:
            raise TrafficError(f"{self.pid_file} cannot be read as the number of a process: {error}") from error
        title = process.title(pid)
        if not title.startswith(_MASTER):
            raise TrafficError(
                f"{self.pid_file} names process {pid}, which is {title or 'not there'!r}: nginx does not run"
            )
        return pid

    def workers(self, master: int) -> Workers:
        """The workers by what nobody else has."""
        found = process.children(master)
        return {(child.pid, child.started_ticks): child for child in found if child.title.startswith(_WORKER)}

    def leaving(self) -> list[Child]:
        """The workers of earlier configurations."""
        return [worker for worker in self.workers(self.master()).values() if is_leaving(worker)]

    def alive(self, workers: Iterable[Child]) -> Sequence[Child]:
        """Those of these workers that have not ended."""
        now = self.workers(self.master())
        return [worker for worker in workers if (worker.pid, worker.started_ticks) in now]
