# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module haproxy as Ansible calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.convoy.rollout.plugins.modules import haproxy


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[int, dict[str, Any]]:
    with patch_module_args({"backend": "app", **arguments}), pytest.raises(SystemExit) as ended:
        haproxy.main()
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_drained_and_ready(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", "drained")
    code, result = call(capsys, socket=replay.path, servers=["app1"], state="drained", min_up=3)
    assert (code, result["changed"], result["forced"]) == (0, True, False)
    replay.snapshots[:] = ["drained", "drained", "up"]
    code, result = call(capsys, socket=replay.path, servers=["app1"], state="ready")
    assert (code, result["changed"], result["held"]) == (0, True, [])
    assert replay.set == ["app/app1 state drain", "app/app1 state ready"]


@pytest.mark.parametrize(("state", "snapshot"), [("drained", "up"), ("ready", "drained")])
def test_check_mode_changes_nothing(capsys: Any, haproxy_replay: Callable[..., Any], state: str, snapshot: str) -> None:
    replay = haproxy_replay(snapshot)
    code, result = call(capsys, socket=replay.path, servers=["app1"], state=state, _ansible_check_mode=True)
    assert (code, result["changed"], replay.set) == (0, True, [])


def test_watched(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    code, result = call(capsys, socket=replay.path, servers=["app1"], state="watched", duration=0)
    assert (code, result["changed"], result["elapsed"] < 1) == (0, False, True)


def test_a_failure_says_why_and_how_the_servers_are(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    code, result = call(capsys, socket=haproxy_replay("down").path, servers=["app1"], state="watched")
    assert (code, result["servers"]["app1"]["state"]) == (1, "down")
    assert result["msg"].startswith("app1 is not up for HAProxy but DOWN")


def test_maintenance_is_a_warning(
    capsys: Any, haproxy_replay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the module: a process with the controller's code in it shows warnings instead of returning them."""
    warned: list[str] = []
    monkeypatch.setattr(haproxy.AnsibleModule, "warn", lambda _module, warning: warned.append(warning))
    code, result = call(capsys, socket=haproxy_replay("maint").path, servers=["app1"], state="ready")
    assert (code, result["held"]) == (0, ["app1"])
    assert "is in maintenance" in str(warned)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": "drained"}, "missing required arguments: servers"),
        ({"state": "drained", "servers": []}, "servers is empty"),
        ({"state": "drained", "servers": ["app1"], "timeout": -1}, "timeout is -1.0: must be 0 or more"),
        ({"state": "watched", "servers": ["app1"], "duration": -1}, "duration is -1.0"),
        ({"state": "drained", "servers": ["app1"], "min_up": -1}, "min_up is -1"),
        ({"state": "up", "servers": ["app1"]}, "value of state must be one of: drained, ready, switched, watched"),
        (
            {"state": "ready", "servers": ["app1"], "socket": "/nowhere/s"},
            "HAProxy's runtime socket /nowhere/s is not there",
        ),
    ],
)
def test_what_is_wrong_is_named(capsys: Any, arguments: Any, words: str) -> None:
    code, result = call(capsys, **arguments)
    assert code == 1
    assert words in result["msg"]


def test_switched(capsys: Any, haproxy_replay: Callable[..., Any], tmp_path: Path) -> None:
    replay = haproxy_replay("drained", "up")
    arguments = {"socket": replay.path, "servers": ["app1"], "state": "switched", "fence": str(tmp_path)}
    code, result = call(capsys, **arguments, token=7, rollout="r7")
    assert (code, result["changed"]) == (0, True)
    assert replay.set == ["app/app1 state ready"]
    code, result = call(capsys, **arguments, token=6, rollout="r6")
    assert (code, result["stale_token"], result["highest"]) == (1, True, 7)
    assert replay.set == ["app/app1 state ready"]


@pytest.mark.parametrize("state", ["drained", "ready"])
def test_a_stale_rollout_changes_nothing(
    capsys: Any, haproxy_replay: Callable[..., Any], tmp_path: Path, state: str
) -> None:
    replay = haproxy_replay("up")
    arguments = {"socket": replay.path, "servers": ["app1"], "min_up": 0, "fence": str(tmp_path)}
    assert call(capsys, **arguments, state="ready", token=7, rollout="r7")[0] == 0
    code, result = call(capsys, **arguments, state=state, token=6, rollout="r6")
    assert (code, result["stale_token"], result["changed"]) == (1, True, False)
    assert "rollout r7 came here with token 7; nothing was changed" in result["msg"]
    assert replay.set == []


@pytest.mark.parametrize(
    ("servers", "away", "message"),
    [
        (["app1"], ["app1", "app2"], "app1 in servers and in away"),
        ([], [], "servers is empty: name at least one server of the backend"),
    ],
)
def test_a_switch_that_means_nothing(capsys: Any, servers: list[str], away: list[str], message: str) -> None:
    code, result = call(capsys, servers=servers, away=away, state="switched")
    assert code == 1
    assert result["msg"].startswith(message)


def test_a_fence_that_cannot_be_made(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, result = call(
        capsys, servers=["app1"], state="switched", token=1, fence=str(tmp_path / "file"), socket="/nowhere"
    )
    assert code == 1
    assert "the token of the rollout cannot be remembered there" in result["msg"]
