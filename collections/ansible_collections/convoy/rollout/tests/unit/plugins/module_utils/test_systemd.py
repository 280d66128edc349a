# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemctl's answers as they were given, and the commands that are given to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.errors import SupervisorError
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import Systemd, UnitStatus, parse_show

ANSWER = """\
Type=simple
MainPID=4711
Result=success
NRestarts=2
Id=hello.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
NeedDaemonReload=yes
FragmentPath=/etc/systemd/system/hello.service
DropInPaths=/etc/systemd/system/hello.service.d/a.conf /run/systemd/system/hello.service.d/b.conf

Id=hello.timer
LoadState=loaded
ActiveState=active
SubState=waiting
UnitFileState=static
NeedDaemonReload=no

MainPID=0
Id=gone.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
NeedDaemonReload=no
"""


def test_answer_about_several_units() -> None:
    assert parse_show(ANSWER) == [
        UnitStatus(
            "hello.service",
            "loaded",
            "active",
            "running",
            "simple",
            "success",
            4711,
            "enabled",
            2,
            True,
            "/etc/systemd/system/hello.service",
            ("/etc/systemd/system/hello.service.d/a.conf", "/run/systemd/system/hello.service.d/b.conf"),
        ),
        UnitStatus("hello.timer", "loaded", "active", "waiting", file_state="static"),
        UnitStatus("gone.service", "not-found", "inactive", "dead"),
    ]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes what it is told, and answers as the file `answer` says; the file that it notes in."""
    program = tmp_path / "systemctl"
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/told\ncat {tmp_path}/answer 2>/dev/null\n'
        f"test -f {tmp_path}/complaint && cat {tmp_path}/complaint >&2 && exit 5\nexit 0\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "told"


def test_one_call_answers_for_every_unit(systemctl: Path) -> None:
    (systemctl.parent / "answer").write_text(ANSWER)
    shown = Systemd().show(["hello.service", "hello.timer", "gone.service"])
    assert [status.name for status in shown.values()] == list(shown)
    assert len(systemctl.read_text().splitlines()) == 1


def test_no_unit_needs_no_call(systemctl: Path) -> None:
    supervisor = Systemd()
    assert supervisor.show([]) == {}
    for act in (supervisor.restart, supervisor.reload, supervisor.stop, supervisor.enable, supervisor.disable):
        act([])
    supervisor.forget_failures([])
    assert supervisor.last_words([], 0.0) == []
    assert not systemctl.exists()


def test_several_units_are_restarted_together(systemctl: Path) -> None:
    Systemd().restart(["a.service", "b.service"])
    assert systemctl.read_text() == "restart -- a.service b.service\n"


def test_refusal_is_told_in_systemds_words(systemctl: Path) -> None:
    (systemctl.parent / "complaint").write_text("Failed to restart a.service:\n  Unit a.service not found.\n")
    with pytest.raises(
        SupervisorError, match=r"'systemctl restart -- a\.service' ended with 5: Failed to restart .* not found"
    ):
        Systemd().restart(["a.service"])


def test_stop_counts_when_nothing_runs_whatever_systemctl_says(systemctl: Path) -> None:
    (systemctl.parent / "complaint").write_text("Unit a.service not loaded.\n")
    program = systemctl.parent / "systemctl"
    program.write_text(program.read_text().replace("exit 5", 'test "$1" = stop && exit 5'))
    (systemctl.parent / "answer").write_text("Id=a.service\nActiveState=inactive\n")
    Systemd().stop(["a.service"])
    (systemctl.parent / "answer").write_text("Id=a.service\nActiveState=active\n")
    with pytest.raises(SupervisorError, match=r"systemd did not stop a\.service; see systemctl status"):
        Systemd().stop(["a.service"])


def test_host_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SupervisorError, match=r"cannot run systemctl: .*Convoy needs systemd"):
        Systemd().daemon_reload()
    assert Systemd().last_words(["a.service"], 0.0) == []
