# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example service, started for real on a loopback port of the kernel's choice."""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = EXAMPLES / "hello" / "app" / "hello.py"
PATIENCE = 15  # seconds until a test gives a process or an answer up


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def get(self, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, body

    def statuses(self, path: str, times: int) -> list[int]:
        return [self.get(path)[0] for _time in range(times)]

    def metrics(self) -> dict[str, float]:
        lines = self.get("/metrics")[2].splitlines()
        return {
            name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        }

    def said(self) -> str:
        return self.process.communicate(timeout=PATIENCE)[1]


def launch(config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-B", str(HELLO), str(config)], stderr=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    ready, _writable, _broken = select.select([process.stderr], [], [], PATIENCE)
    assert ready, "the service said nothing"
    return process.stderr.readline()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the service with the given settings; whatever is left of it ends with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start_with(**settings: object) -> Running:
        config = tmp_path / f"config-{len(processes)}.json"
        config.write_text(json.dumps({"address": "127.0.0.1", "port": 0, **settings}))
        process = launch(config)
        processes.append(process)
        line = first_line(process)
        found = re.search(r"listens on port (\d+)", line)
        assert found, line
        return Running(process, int(found.group(1)))

    yield start_with
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)
