# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who runs a rollout, and whether they still do: seen on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, machine, started, this_run, user


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is told to, or at the latest with the test."""
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield running
    running.kill()
    running.communicate()


def run_of(pid: int) -> Run:
    return Run(machine(), pid, started(pid) or 0, "ann")


def test_the_run_is_the_process_that_forked_this_one() -> None:
    run = this_run()
    assert (run.machine, run.pid, run.started) == (machine(), os.getppid(), started(os.getppid()))
    assert dead(run) is False


def test_a_run_is_alive_until_its_process_ends(process: subprocess.Popen[bytes]) -> None:
    run = run_of(process.pid)
    assert dead(run) is False
    process.kill()
    process.wait()
    assert dead(run) is True


def test_a_process_that_only_waits_to_be_reaped_is_dead(process: subprocess.Popen[bytes]) -> None:
    run = run_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert started(process.pid) is None
    assert dead(run) is True


def test_another_process_with_the_same_number_is_not_the_run(process: subprocess.Popen[bytes]) -> None:
    run = run_of(process.pid)
    assert dead(Run(run.machine, run.pid, run.started - 1, run.user)) is True


def test_no_process_outlives_the_boot_of_its_machine() -> None:
    run = run_of(os.getpid())
    name = run.machine.partition("/")[0]
    assert dead(Run(f"{name}/00000000", run.pid, run.started, run.user)) is True


def test_of_another_machine_nothing_can_be_seen() -> None:
    run = run_of(os.getpid())
    assert dead(Run(f"other-{run.machine}", run.pid, run.started, run.user)) is None


def test_a_name_with_blanks_and_brackets_does_not_hide_the_start_time(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "a) R (b")
    os.symlink(os.path.realpath(sys.executable), script)
    with subprocess.Popen([script, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        found = started(running.pid)
        running.kill()
    assert found is not None
    assert found >= (started(os.getpid()) or 0)


def test_the_user_is_the_one_that_awx_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWX_USER_NAME", "ann")
    monkeypatch.setenv("SUDO_USER", "ben")
    assert user() == "ann"


def test_the_user_is_the_one_that_became_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWX_USER_NAME", raising=False)
    monkeypatch.setenv("SUDO_USER", "ben")
    assert user() == "ben"


def test_the_user_is_the_login_name_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWX_USER_NAME", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "carol")
    assert user() == "carol"
