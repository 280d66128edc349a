# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real databases and real processes for the ledger: SQLite files, and a PostgreSQL cluster of the tests' own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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


class Cluster:
    """A PostgreSQL server that nobody else uses, on a socket in a directory of its own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="convoy-postgresql-"))
        self._numbers = itertools.count()
        self._server: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")

    def create(self) -> None:
        initdb = self._command("initdb", "--username=convoy", "--auth=trust", "--encoding=UTF8", "--locale=C")
        subprocess.run(initdb, cwd="/", check=True, stdout=subprocess.DEVNULL)
        self.start()

    def start(self) -> None:
        settings = {"listen_addresses": "", "unix_socket_directories": self.directory, "max_connections": 60}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.directory / "log").open("a") as log:
            self._server = subprocess.Popen(self._command("postgres", *options), cwd="/", stdout=log, stderr=log)
        deadline = time.monotonic() + ANSWER
        while not self._answers():
            running = self._server.poll() is None and time.monotonic() < deadline
            assert running, f"PostgreSQL did not start:\n{(self.directory / 'log').read_text()}"
            time.sleep(0.05)

    def crash(self) -> None:
        """Stop the server as if it had lost its power."""
        assert self._server is not None
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(ANSWER)

    def _command(self, program: str, *options: str) -> list[str]:
        """The program, which ends when the tests end, however they end; PostgreSQL refuses to run as root."""
        to_user = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        place = ["-D", str(self.directory / "data")]
        return ["setpriv", "--pdeathsig=QUIT", *to_user, str(self._binaries / program), *place, *options]

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.directory), user="convoy", dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://convoy@/{database}?host={self.directory}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"ledger{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def remove(self) -> None:
        try:
            if self._server:
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
