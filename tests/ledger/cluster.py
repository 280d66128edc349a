# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

ANSWER = 60.0  # seconds after which a server that has not answered is given up


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


def binaries() -> Path:
    """Where the newest PostgreSQL server lies; Debian keeps it off the PATH. Raises FileNotFoundError where none is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        raise FileNotFoundError("a PostgreSQL server is needed: apt-get install --no-install-recommends postgresql")
    return Path(initdb).parent
