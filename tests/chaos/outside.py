# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts, HAProxy and the ledger, seen from outside: nothing here asks the toolkit, nor needs a host's sshd."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from tests.integration.environment import STREAM
from tests.integration.watching import Watch

SERVICE = b"hello.py"
SAMPLE_EVERY = 0.5


@dataclass(frozen=True)
class Seen:
    """A host: where `current` points, where the process stands, when it started, and what its tree holds."""

    active: str
    running: str
    started: str
    token: int
    incoming: tuple[str, ...]
    journal: tuple[dict[str, Any], ...]

    @property
    def live(self) -> tuple[Any, ...]:
        """What does not change as long as nothing live is touched."""
        return self.active, self.running, self.started, len(self.journal)


class Containers:
    """The hosts of a lab, through the processes of their containers."""

    def __init__(self, lab: str, hosts: Sequence[str]) -> None:
        self._lab = lab
        self.hosts = list(hosts)
        self._first: dict[str, int] = {}

    def name(self, host: str) -> str:
        """The container of a host."""
        return f"convoy-{self._lab}-{host}"

    def restart(self, host: str, abrupt: bool) -> None:
        """Reboot a host; ``abrupt``: as if somebody had pulled its plug."""
        self._first.pop(host, None)
        self._podman("restart", "--time", "0" if abrupt else "20", self.name(host))

    def root(self, host: str) -> Path | None:
        """The root directory of a host; None while it does not run."""
        pid = self._first.get(host, 0)
        if not pid or not Path(f"/proc/{pid}/root/srv").exists():
            pid = int(self._podman("inspect", "--format", "{{.State.Pid}}", self.name(host)).strip() or 0)
            self._first[host] = pid
        root = Path(f"/proc/{pid}/root")
        return root if pid and (root / "srv").exists() else None

    def look(self, host: str) -> Seen | None:
        """A host as it is; None while it does not run."""
        root = self.root(host)
        if root is None:
            return None
        tree = root / "srv/hello"
        running, started = self._processes().get(host, ("", ""))
        return Seen(
            active=_last(tree / "current"),
            running=running,
            started=started,
            token=int(json.loads(_read(tree / ".convoy/token") or "{}").get("token", 0)),
            incoming=tuple(sorted(path.name for path in (tree / ".convoy/incoming").glob("*"))),
            journal=tuple(
                json.loads(line)
                for line in _read(tree / ".convoy/journal.jsonl").splitlines(True)
                if line.endswith("\n")
            ),
        )

    def glance(self) -> dict[str, tuple[str, str]]:
        """What each host that runs has active, and where its service stands: little work, to be done often."""
        processes = self._processes()
        roots = {host: self.root(host) for host in self.hosts}
        return {
            host: (_last(root / "srv/hello/current"), processes.get(host, ("", ""))[0])
            for host, root in roots.items()
            if root
        }

    def look_at_all(self) -> dict[str, Seen | None]:
        """Every host as it is."""
        return {host: self.look(host) for host in self.hosts}

    def locked(self, host: str) -> bool:
        """Whether a call still changes the tree of a host."""
        root = self.root(host)
        return root is not None and _locked(root / "srv/hello/.convoy/lock")

    def faults(self, host: str, release: str, artifact: dict[str, str], greeting: str) -> list[str]:
        """What is not as it was published in a release of a host. ``artifact``: path: SHA-256."""
        root = self.root(host)
        if root is None:
            return [f"{host} does not run"]
        directory = root / "srv/hello/releases" / release
        found = [
            f"{host}: {release}/{path} is not what was published"
            for path, digest in artifact.items()
            if _digest(directory / path) != digest
        ]
        if greeting and json.loads(_read(directory / "etc/hello.json") or "{}").get("greeting") != greeting:
            found.append(f"{host}: {release}/etc/hello.json has another greeting than {greeting!r}")
        return found

    def _processes(self) -> dict[str, tuple[str, str]]:
        """Where the service of each host that runs stands, and when it started."""
        hosts = {}
        for host, first in self._first.items():
            with contextlib.suppress(OSError):
                hosts[os.readlink(f"/proc/{first}/ns/pid")] = host
        found = {}
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                own = command.parent
                if SERVICE in command.read_bytes() and (host := hosts.get(os.readlink(own / "ns/pid"), "")):
                    found[host] = _last(own / "cwd"), (own / "stat").read_text().rpartition(")")[2].split()[19]
        return found

    def _podman(self, *arguments: str) -> str:
        called = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
        if called.returncode and arguments[0] != "inspect":
            raise AssertionError(f"podman {' '.join(arguments)}: {called.stderr}")
        return called.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _last(link: Path) -> str:
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return ""


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class Moment:
    """HAProxy's servers at a time, by their status; and what each host had active, where that was seen."""

    at: float
    servers: dict[str, str]


class Observer(Watch):
    """Asks the service and HAProxy, and reads the hosts, also while some of them are away."""

    def __init__(self, balancer: str, containers: Containers) -> None:
        super().__init__(balancer, ask_every=0.05, look_every=0.2)
        self.moments: list[Moment] = []
        self.active: dict[str, list[tuple[float, str, str]]] = {host: [] for host in containers.hosts}
        self._containers = containers
        self._reader = threading.Thread(target=self._read_hosts, daemon=True)

    def __enter__(self) -> Observer:
        super().__enter__()
        self._reader.start()
        return self

    def __exit__(self, *ended: object) -> None:
        super().__exit__(*ended)
        self._reader.join()

    async def _look_once(self) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            servers = await self._servers()
            self.moments.append(Moment(time.time(), {name: server.status for name, server in servers.items()}))

    def _read_hosts(self) -> None:
        """Each change of what a host has active, with what runs there."""
        while not self._over.wait(SAMPLE_EVERY):
            for host, glance in self._containers.glance().items():
                told = self.active[host]
                if not told or told[-1][1:] != glance:
                    told.append((time.time(), *glance))


class Story:
    """The ledger, as somebody reads it who has no part in what happens."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(url, "the campaign", reads_only=True)

    def head(self) -> int:
        """The number of the newest event; -1 while the database is away."""
        try:
            return self.ledger.head(STREAM)
        except LedgerError:
            return -1

    def since(self, head: int) -> list[Entry]:
        """The events after that one; none while the database is away."""
        events = schema.events.c
        query = select(schema.events).where((events.stream == STREAM) & (events.seq > head)).order_by(events.seq)
        try:
            with self.ledger.reading() as connection:
                return [Entry(*row) for row in connection.execute(query)]
        except LedgerError:
            return []


@contextmanager
def observed(balancer: str, containers: Containers) -> Iterator[Observer]:
    """Watch, meanwhile."""
    with Observer(balancer, containers) as observer:
        yield observer
