# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real databases and real processes for the ledger: SQLite files, and a PostgreSQL cluster of the tests' own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger

from .cluster import Cluster, binaries

HERE = Path(__file__).resolve().parent
COLLECTIONS = HERE.parents[1] / "collections"
STREAM = "staging/hello"
ANSWER = 60.0  # seconds after which a process that has not answered is given up


class Process:
    """A run in a process of its own; see run.py."""

    def __init__(self, command: str, url: str, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "run.py"), command, url, json.dumps(arguments)],
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._ready = False

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        self._ready = self._ready or self._process.stdout.readline() == "ready\n"
        assert self._ready, f"process {self.pid} did not start"

    def go(self) -> None:
        self.wait_until_ready()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"process {self.pid} ended without an answer, exit code {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> list[dict[str, Any]]:
        """End its input; what it still said."""
        said, _ = self._process.communicate(timeout=ANSWER)
        return [json.loads(line) for line in said.splitlines()]

    def kill(self) -> list[dict[str, Any]]:
        """SIGKILL; what it said before, as far as whole lines go."""
        self._process.kill()
        said, _ = self._process.communicate(timeout=ANSWER)
        return [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a run; all that still live at the end of the test are killed."""
    processes: list[Process] = []

    def start_one(command: str, url: str, **arguments: Any) -> Process:
        processes.append(Process(command, url, **arguments))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(binaries())
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that does not exist yet, once for each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    database: str = request.getfixturevalue("cluster").database()
    return database


@pytest.fixture
def ledger(url: str) -> Ledger:
    ledger = Ledger(url, "the test")
    ledger.prepare()
    return ledger
