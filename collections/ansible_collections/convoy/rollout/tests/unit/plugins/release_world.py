# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory: a real release tree, real processes, and a supervisor that behaves as systemd does."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils import record, staging
from ansible_collections.convoy.rollout.plugins.module_utils.activation import Order
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import SupervisorError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import Entry
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UnitStatus
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact


class FakeClock(Clock):
    """Time passes when somebody sleeps, and a millisecond whenever somebody looks."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.wall()

    def wall(self) -> float:
        self.time += 0.001
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)


class DirectorySupervisor:
    """systemd's manners, kept in files so that they outlive whoever called.

    A unit is known as it was when it was last read. A service is one real process, which runs in
    its WorkingDirectory. A release with a file `refuses-to-start` does just that.
    """

    def __init__(self, state: Path, units: Path) -> None:
        self.state = state
        self.units = units
        self.calls: list[str] = []

    def show(self, names: Sequence[str]) -> dict[str, UnitStatus]:
        self.calls.append("show")
        return {name: self._status(name) for name in names}

    def restart(self, names: Sequence[str]) -> None:
        for name in names:
            self.calls.append(f"restart {name}")
            self._end(name)
            self._start(name)

    def reload(self, names: Sequence[str]) -> None:
        for name in names:
            self.calls.append(f"reload {name}")
            if not self._pid(name):
                self._start(name)

    def stop(self, names: Sequence[str]) -> None:
        for name in names:
            self.calls.append(f"stop {name}")
            self._end(name)

    def enable(self, names: Sequence[str]) -> None:
        for name in names:
            self.calls.append(f"enable {name}")
            self._mark("enabled", name, "yes")

    def disable(self, names: Sequence[str]) -> None:
        for name in names:
            self.calls.append(f"disable {name}")
            self._mark("enabled", name, None)

    def forget_failures(self, names: Sequence[str]) -> None:
        for name in names:
            self._mark("failed", name, None)

    def daemon_reload(self) -> None:
        self.calls.append("daemon-reload")
        for known in (self.state / "loaded").glob("*"):
            known.unlink()
        for unit in self.units.glob("*.*"):
            if unit.is_file():
                self._mark("loaded", unit.name, unit.read_text())

    def last_words(self, names: Sequence[str], since: float) -> list[str]:
        return [f"{name} said goodbye" for name in names]

    def enabled(self) -> set[str]:
        """The units that start at boot."""
        return {path.name for path in (self.state / "enabled").glob("*")}

    def running(self) -> dict[str, int]:
        """The services that run."""
        return {path.name: pid for path in (self.state / "pid").glob("*") for pid in [self._pid(path.name)] if pid}

    def end_everything(self) -> None:
        for path in (self.state / "pid").glob("*"):
            self._end(path.name)

    def _status(self, name: str) -> UnitStatus:
        loaded, pid = self._text(name), self._pid(name)
        if loaded is None:
            return UnitStatus(name)
        on_disk = (self.units / name).read_text() if (self.units / name).is_file() else None
        active = "active" if pid or not name.endswith(".service") else "inactive"
        active = "failed" if self._read("failed", name) else active
        return UnitStatus(
            name,
            load="loaded",
            active=active,
            sub="running" if pid else "dead",
            kind="simple",
            result="success" if active != "failed" else "exit-code",
            pid=pid,
            file_state="enabled" if name in self.enabled() else "disabled",
            is_outdated=on_disk != loaded,
        )

    def _text(self, name: str) -> str | None:
        """The unit as it is known; one that was never asked for is read now."""
        known = self._read("loaded", name)
        if known is None and (self.units / name).is_file():
            known = (self.units / name).read_text()
            self._mark("loaded", name, known)
        return known

    def _start(self, name: str) -> None:
        text = self._text(name)
        if text is None:
            raise SupervisorError(f"Unit {name} not found.")
        if not name.endswith(".service"):
            return
        directory = next(line[17:] for line in text.splitlines() if line.startswith("WorkingDirectory="))
        if not os.path.isdir(directory) or os.path.exists(os.path.join(directory, "refuses-to-start")):
            self._mark("failed", name, "yes")
            raise SupervisorError(f"Job for {name} failed.")
        command = ["sleep", "20"] if "old-directory" not in text else ["sh", "-c", "cd /; exec sleep 20"]
        process = subprocess.Popen(command, cwd=os.path.realpath(directory), start_new_session=True)
        self._mark("pid", name, str(process.pid))
        self._mark("failed", name, None)

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
        self._mark("pid", name, None)

    def _pid(self, name: str) -> int:
        text = self._read("pid", name)
        if not text:
            return 0
        try:
            with open(f"/proc/{text}/stat") as stream:
                return 0 if ") Z " in stream.read() else int(text)
        except FileNotFoundError:
            return 0

    def _read(self, what: str, name: str) -> str | None:
        path = self.state / what / name
        return path.read_text() if path.is_file() else None

    def _mark(self, what: str, name: str, text: str | None) -> None:
        path = self.state / what / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.with_name(f".{name}").write_text(text)
            path.with_name(f".{name}").rename(path)
        elif path.exists():
            path.unlink()


class World:
    """A host to deploy the component `hello` to."""

    unit = "hello.service"

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "srv" / "hello"
        self.units = place / "systemd"
        self.units.mkdir(exist_ok=True)
        self.supervisor = DirectorySupervisor(place / "supervisor", self.units)
        self.clock: Clock = FakeClock()

    def host(self, rollout: str = "r-1", token: int = 1) -> Host:
        """The host in the hands of a rollout."""
        tree = Tree(str(self.root), "hello")
        tree.create()
        return Host(tree, self.supervisor, self.clock, rollout, token, unit_directory=str(self.units))

    @property
    def current(self) -> str | None:
        """Where `current` points to."""
        link = self.root / "current"
        return os.readlink(link) if link.is_symlink() else None

    def service(self, extra: str = "", action: str = "restart") -> record.Unit:
        """The unit of the component."""
        text = f"[Service]\nWorkingDirectory={self.root}/current\n{extra}[Install]\nWantedBy=multi-user.target\n"
        return record.Unit(self.unit, text, action)

    def wanted(
        self, version: str, files: Mapping[str, bytes] | None = None, units: Sequence[record.Unit] | None = None
    ) -> tuple[staging.Wanted, str]:
        """A release and its artifact. Healthy unless files say otherwise (see DirectorySupervisor, and `probe`)."""
        contents = {"version": version.encode(), "healthy": b"", **(files or {})}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, content in contents.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        data = gzip.compress(packed.getvalue(), mtime=0)
        artifact = self.place / f"{version}.tar.gz"
        artifact.write_bytes(data)
        entries = tuple(
            record.FileEntry(path, len(content), 0o644, hashlib.sha256(content).hexdigest())
            for path, content in contents.items()
        )
        chosen = (self.service(),) if units is None else tuple(units)
        described = Artifact(hashlib.sha256(data).hexdigest(), len(data), "tar.gz")
        return staging.Wanted(f"{version}-abc", version, described, entries, units=chosen), str(artifact)

    def stage(self, version: str, host: Host | None = None, **release: Any) -> str:
        """Bring a release to the host, as the module does; its id."""
        host = host or self.host()
        wanted, artifact = self.wanted(version, **release)
        host.begin()
        if not staging.is_staged(host, wanted):
            staging.stage(host, wanted, artifact, Limits(), strict=False)
        return wanted.release

    @property
    def probe(self) -> dict[str, Any]:
        """Asks whether the active release has a file `healthy`."""
        return {"kind": "command", "argv": ["test", "-e", f"{self.root}/current/healthy"]}

    def order(self, release: str | None, **fields: Any) -> Order:
        """What a rollout asks for."""
        gate = {"interval": 0.5, "successes": 2, "deadline": 3.0}
        return Order(release, **{"probes": (self.probe,), "gate": gate, **fields})

    def journal(self) -> list[dict[str, Any]]:
        """The journal, line by line."""
        path = self.root / ".convoy" / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self) -> list[str]:
        """The journal in short."""
        return [f"{line['event']} {line['release'].split('-')[0]}" for line in self.journal()]

    def write_journal(self, *entries: Entry) -> None:
        """Make a past."""
        for entry in entries:
            self.host().journal.append(entry)
