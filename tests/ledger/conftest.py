# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real databases and real processes for the ledger: SQLite files, and a PostgreSQL cluster of the tests' own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger

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

    def stop(self, signal: int) -> None:
        self._process.send_signal(signal)


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


class Cluster:
    """A PostgreSQL server that nobody else uses, on a socket in a directory of its own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="convoy-postgresql-"))
        self._numbers = itertools.count()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.directory, "postgres", "postgres")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self.directory / "data"), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # The server would keep the pipes of capture_output open.
        with (self.directory / "said").open("a+") as said:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", check=False)
            said.seek(0)
            assert ended.returncode == 0, f"{program} failed:\n{said.read()}"

    def create(self) -> None:
        self._run("initdb", "--username=convoy", "--auth=trust", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.directory}' -c max_connections=60"
        self._run("pg_ctl", "-w", "-t", "60", "-l", str(self.directory / "log"), "-o", options, "start")

    def crash(self) -> None:
        """Stop the server as if it had lost its power."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://convoy@/{database}?host={self.directory}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"ledger{next(self._numbers)}"
        with psycopg.connect(host=str(self.directory), user="convoy", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def remove(self) -> None:
        try:
            self.crash()
        finally:
            shutil.rmtree(self.directory)


def _binaries() -> Path:
    """Where the newest PostgreSQL server lies; Debian keeps it off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.fail("the ledger's tests need a PostgreSQL server: apt-get install --no-install-recommends postgresql")
    return Path(initdb).parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(_binaries())
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
