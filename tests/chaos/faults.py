# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of the campaign, caused and undone for real."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import LedgerError
from tests.integration.breaking import BACK_DOOR, CLOSE_BACK_DOOR, OPEN_BACK_DOOR, SSHD_DIES
from tests.integration.environment import Environment, Run, descendants
from tests.ledger.cluster import Cluster

from .outside import Containers
from .scenarios import Kind, Scenario

# A file system of the host's own for its releases, so that it can be filled without filling this machine's.
ON_A_SMALL_DISK = """
set -eu
cp -a /srv/hello /srv/hello.kept
mount -t tmpfs -o size=8m,mode=755 none /srv/hello
cp -a /srv/hello.kept/. /srv/hello/
rm -rf /srv/hello.kept
systemctl restart hello.service
"""
ON_THE_OLD_DISK = """
set -eu
cp -a /srv/hello /srv/hello.kept
systemctl stop hello.service
umount --lazy /srv/hello
rm -rf /srv/hello
mv /srv/hello.kept /srv/hello
systemctl start hello.service
"""
# What a campaign that was killed has left.
ON_NO_DISK = """
set -eu
! mountpoint --quiet /srv/hello || { systemctl stop hello.service; umount --lazy /srv/hello; }
rm -rf /srv/hello.kept
"""
FILL = "cat /dev/zero > /srv/hello/full 2>/dev/null || true; test -s /srv/hello/full"
FREE = "rm -f /srv/hello/full"
SOURCE = Path(__file__).with_name("stepped_clock.c")


@dataclass
class Scene:
    """What a fault is caused in. ``go_on`` begins the same command again; ``others`` are runs that it began."""

    scenario: Scenario
    environment: Environment
    containers: Containers
    cluster: Cluster
    go_on: Callable[[], Run]
    others: list[Run] = field(default_factory=list)
    stale: int = 0  # the token of a run that was overtaken


class Fault:
    """Something breaks. ``prepare`` and ``leave`` frame the whole run, ``cause`` and ``undo`` the fault."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.scenario = scene.scenario
        self.victim = scene.scenario.victim

    def prepare(self) -> None:
        """What has to be there for it to be caused."""

    def cause(self, run: Run) -> None:
        """Break it."""

    def undo(self, run: Run) -> None:
        """Mend it."""

    def leave(self) -> None:
        """Leave everything as it was found."""

    def shell(self, script: str, port: int = 22) -> None:
        self.scene.environment.fleet.shell(self.victim, script, port=port)


class ControllerKilled(Fault):
    """SIGKILL for the run; its workers live on for as long as they can, or die with it."""

    def cause(self, run: Run) -> None:
        run.kill(workers=self.scenario.abrupt)


class WorkerKilled(Fault):
    """SIGKILL for one of the workers that a run has forked."""

    def cause(self, run: Run) -> None:
        while run.lives(0.02):
            workers = [pid for pid in descendants(run.pid) if b"ansible-playbook" in _command(pid)]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(workers[self.scenario.seed % len(workers)], signal.SIGKILL)
                return


class RunStopped(Fault):
    """SIGSTOP for a run and its workers until its leases have run out; a person lets another run take over."""

    def cause(self, run: Run) -> None:
        environment = self.scene.environment
        view = self.stop(run)
        self.scene.stale = view.token
        if view.status.ended:
            self.undo(run)
            return
        time.sleep(max([lease.until for lease in view.state.leases.values()], default=time.time()) - time.time() + 1)
        said = environment.run("unlock.yml", rollout_id=view.id, rollout_reason="it hangs")
        assert said.rc == 0, said.said
        self.scene.others.append(self.scene.go_on())

    def stop(self, run: Run) -> RolloutView:
        """Stop it, and see the rollout. Not while it writes: then it would hold a ledger in SQLite for ever."""
        while True:
            _tell(run, signal.SIGSTOP)
            try:
                return self.scene.environment.view()
            except LedgerError:
                _tell(run, signal.SIGCONT)
                time.sleep(0.1)

    def undo(self, run: Run) -> None:
        _tell(run, signal.SIGCONT)


def _tell(run: Run, number: signal.Signals) -> None:
    for pid in (run.pid, *descendants(run.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class HostRebooted(Fault):
    """A host is restarted, in order or as if its plug was pulled."""

    def cause(self, run: Run) -> None:
        self.scene.containers.restart(self.victim, self.scenario.abrupt)


class SshdStopped(Fault):
    """A host's sshd dies with its sessions."""

    def prepare(self) -> None:
        self.shell(OPEN_BACK_DOOR)

    def cause(self, run: Run) -> None:
        self.shell(SSHD_DIES, BACK_DOOR)

    def undo(self, run: Run) -> None:
        self.shell("systemctl start ssh.service", BACK_DOOR)

    def leave(self) -> None:
        self.shell(CLOSE_BACK_DOOR)


class BalancerStopped(Fault):
    """HAProxy stops; when it comes back it has forgotten who was drained."""

    def cause(self, run: Run) -> None:
        self.scene.environment.fleet.shell("lb1", "systemctl stop haproxy.service")

    def undo(self, run: Run) -> None:
        self.scene.environment.fleet.shell("lb1", "systemctl start haproxy.service")


class DatabaseStopped(Fault):
    """The ledger's database crashes."""

    def cause(self, run: Run) -> None:
        self.scene.cluster.crash()

    def undo(self, run: Run) -> None:
        self.scene.cluster.start()


class DiskFull(Fault):
    """No byte is left where a host keeps its releases."""

    def prepare(self) -> None:
        self.shell(ON_A_SMALL_DISK)

    def cause(self, run: Run) -> None:
        self.shell(FILL)

    def undo(self, run: Run) -> None:
        self.shell(FREE)

    def leave(self) -> None:
        self.shell(ON_THE_OLD_DISK)


class ClockStepped(Fault):
    """The clock of the controller is set; only the run sees it, see stepped_clock.c."""

    @property
    def _file(self) -> Path:
        return self.scene.environment.directory / "clock"

    def prepare(self) -> None:
        self._file.write_text("0")
        library = self._file.with_suffix(".so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        variables = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}
        self.scene.environment.process_variables = variables

    def cause(self, run: Run) -> None:
        self.scene.environment.process_variables = {}  # of runs that begin later, which have the right time
        new = self._file.with_suffix(".new")
        new.write_text(str(self.scenario.step))
        new.replace(self._file)

    def leave(self) -> None:
        self.scene.environment.process_variables = {}


FAULTS: Mapping[Kind, type[Fault]] = {
    Kind.CONTROLLER_KILLED: ControllerKilled,
    Kind.WORKER_KILLED: WorkerKilled,
    Kind.RUN_STOPPED: RunStopped,
    Kind.HOST_REBOOTED: HostRebooted,
    Kind.SSHD_STOPPED: SshdStopped,
    Kind.BALANCER_STOPPED: BalancerStopped,
    Kind.DATABASE_STOPPED: DatabaseStopped,
    Kind.DISK_FULL: DiskFull,
    Kind.CLOCK_STEPPED: ClockStepped,
}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
