# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unix socket that answers what a real HAProxy answered; how many examples are tried of each property."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with something else is no fault of a test.
settings.register_profile(
    "convoy",
    max_examples=int(os.environ.get("CONVOY_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("convoy")

with open(
    os.path.join(os.path.dirname(__file__), "module_utils", "fixtures", "haproxy_2_6.json"), encoding="utf-8"
) as _file:
    RECORDED: dict[str, Any] = json.load(_file)


class Replay:
    """Answers each look with the next of the named snapshots (the last one repeats), and notes what is set.

    `set_answer` is what it says to each change; HAProxy says an empty line when it made it.
    """

    def __init__(self, path: str, snapshots: list[str], set_answer: str) -> None:
        self.path = path
        self.snapshots = snapshots
        self.set_answer = set_answer
        self.asked: list[str] = []
        self.set: list[str] = []

    def answer(self, line: str) -> str:
        """What HAProxy says to one line of commands."""
        self.asked.append(line)
        commands = line.split(";")
        if line.startswith("set server "):
            self.set.extend(command[len("set server ") :] for command in commands)
            return self.set_answer * len(commands) if self.set_answer == "\n" else self.set_answer
        if line == "show backend":
            return str(RECORDED["backends"])
        if commands[0] != "show servers state app":
            return str(RECORDED["no_backend"])
        name = self.snapshots.pop(0) if len(self.snapshots) > 1 else self.snapshots[0]
        return str(RECORDED["snapshots"][name])

    def serve(self, listener: socket.socket) -> None:
        """One connection after the other, each for one line; a connection without one is the last."""
        with listener:
            while True:
                client, _address = listener.accept()
                with client, client.makefile("rw", encoding="utf-8") as stream:
                    line = stream.readline().strip()
                    if not line:
                        return
                    stream.write(self.answer(line))


@pytest.fixture
def haproxy_replay() -> Iterator[Callable[..., Replay]]:
    """Start a Replay: haproxy_replay("up", "draining", "drained")."""
    # A path of a unix socket holds about 100 characters, and pytest's own directories are longer.
    directory = tempfile.mkdtemp()
    started: list[tuple[Replay, threading.Thread]] = []

    def start(*snapshots: str, set_answer: str = "\n") -> Replay:
        replay = Replay(os.path.join(directory, str(len(started))), list(snapshots), set_answer)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(replay.path)
        listener.listen(16)
        thread = threading.Thread(target=replay.serve, args=(listener,), daemon=True)
        started.append((replay, thread))
        thread.start()
        return replay

    yield start
    for replay, thread in started:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(replay.path)
        thread.join(10)
    shutil.rmtree(directory)
