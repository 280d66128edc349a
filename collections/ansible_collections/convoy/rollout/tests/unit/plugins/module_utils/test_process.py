# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, as /proc shows them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import process
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A directory of releases."""
    made = tmp_path / "releases"
    (made / "1.0.0" / "sub").mkdir(parents=True)
    (made / "1.0.01").mkdir()
    return made


@pytest.fixture
def running(releases: Path) -> Iterator[subprocess.Popen]:
    """A process of release 1.0.0."""
    child = subprocess.Popen(["sleep", "20"], cwd=releases / "1.0.0")
    yield child
    child.kill()
    child.wait()


def test_running_process(running: subprocess.Popen, releases: Path) -> None:
    before = process.ticks_now()
    found = process.read(running.pid)
    assert found is not None
    assert found.cwd == str(releases / "1.0.0")
    assert abs(found.started - time.time()) < 60
    assert found.started_ticks <= before
    assert process.fault(found, str(releases), "1.0.0", not_before=0) is None
    assert process.describe(found, str(releases))["release"] == "1.0.0"


def test_start_is_on_the_clock_that_it_is_compared_with(releases: Path) -> None:
    before = process.ticks_now()
    child = subprocess.Popen(["sleep", "20"], cwd=releases / "1.0.0")
    try:
        found = process.read(child.pid)
        assert found is not None
        assert before <= found.started_ticks <= process.ticks_now()
    finally:
        child.kill()
        child.wait()


def test_process_that_is_gone() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert process.read(child) is None


@pytest.mark.parametrize("name", ["plain", "with blank", "with) bracket", ") 1 2 3 4 5 6 7 8 9 (", "((("])
def test_name_of_the_command_does_not_confuse(tmp_path: Path, name: str) -> None:
    place = tmp_path / "7"
    place.mkdir()
    after = " ".join(str(number) for number in range(3, 30))
    (place / "stat").write_bytes(f"7 ({name}) {after}\n".encode())
    (place / "cwd").symlink_to("/srv")
    found = process.read(7, proc=str(tmp_path))
    assert found is not None
    assert (found.started_ticks, found.cwd) == (22, "/srv")


@pytest.mark.parametrize(
    ("cwd", "release"),
    [
        ("{}/1.0.0", "1.0.0"),
        ("{}/1.0.0/sub", "1.0.0"),
        ("{}/1.0.01", "1.0.01"),
        ("{}/1.0.0 (deleted)", "1.0.0"),
        ("{}", None),
        ("{}x/1.0.0", None),
        ("/", None),
    ],
)
def test_release_of_a_working_directory(releases: Path, cwd: str, release: str | None) -> None:
    seen = Process(1, 0, 0.0, cwd.format(releases))
    assert process.release_of(seen, str(releases)) == release


def test_tree_behind_a_link(releases: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    seen = Process(1, 0, 0.0, str(releases / "1.0.0"))
    assert process.release_of(seen, str(tmp_path / "link" / "releases")) == "1.0.0"


@pytest.mark.parametrize(
    ("cwd", "ticks", "fault"),
    [
        ("{}/1.0.0", 100, None),
        ("{}/1.0.0", 99, "is older than the switch: it was not restarted"),
        ("{}/1.0.01", 100, "runs from .*1.0.01, expected .*1.0.0"),
        ("{}/1.0.0 (deleted)", 100, r"runs from .*\(deleted\), expected"),
        ("/", 100, "works in /, outside .*releases, .*set WorkingDirectory=.*/current in its unit"),
    ],
)
def test_faults(releases: Path, cwd: str, ticks: int, fault: str | None) -> None:
    found = process.fault(Process(1, ticks, 0.0, cwd.format(releases)), str(releases), "1.0.0", not_before=100)
    assert found is None if fault is None else re.search(fault, str(found))


def test_children_are_told_from_those_of_others() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()", "a title"], stdin=subprocess.PIPE)
    try:
        (found,) = [one for one in process.children(os.getpid()) if one.pid == child.pid]
        read = process.read(child.pid)
        assert read is not None
        assert found.started_ticks == read.started_ticks
        assert found.title == process.title(child.pid)
        assert child.pid not in [one.pid for one in process.children(child.pid)]
    finally:
        child.communicate(b"\n")
    assert child.pid not in [one.pid for one in process.children(os.getpid())]
    assert process.title(child.pid) == ""


STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("program", "with_what"),
    [("import sys; print(flush=True); sys.stdin.read()", signal.SIGTERM), (STUBBORN, signal.SIGKILL)],
)
def test_a_process_is_asked_to_end_before_it_is_killed(program: str, with_what: signal.Signals) -> None:
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    read = process.read(child.pid)
    assert read is not None
    process.end(child.pid, read.started_ticks + 1, Clock())
    assert child.poll() is None
    process.end(child.pid, read.started_ticks, Clock(), patience=0.3)
    child.communicate()
    assert child.returncode == -with_what
    process.end(child.pid, read.started_ticks, Clock())
