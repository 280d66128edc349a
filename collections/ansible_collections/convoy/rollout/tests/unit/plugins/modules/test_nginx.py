# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules nginx and nginx_info as Ansible calls them, where no nginx runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.convoy.rollout.plugins.modules import nginx, nginx_info


def call(module: Any, capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[int, dict[str, Any]]:
    with patch_module_args({"upstream": "app", **arguments}), pytest.raises(SystemExit) as ended:
        module.main()
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "app.conf"
    path.write_text("upstream app { server 127.0.0.1:1; server 127.0.0.1:2 down; }\n")
    return path


@pytest.mark.parametrize("check_mode", [False, True])
def test_without_nginx_nothing_is_changed(capsys: Any, config: Path, tmp_path: Path, check_mode: bool) -> None:
    before = config.read_bytes()
    code, result = call(
        nginx,
        capsys,
        config=str(config),
        servers=["127.0.0.1:1"],
        state="drained",
        min_up=0,
        pid_file=str(tmp_path / "nginx.pid"),
        fence=str(tmp_path / "fence"),
        _ansible_check_mode=check_mode,
    )
    assert (code, result["changed"]) == (1, False)
    assert f"{tmp_path}/nginx.pid is not there: nginx does not run" in result["msg"]
    assert config.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": "drained"}, "missing required arguments: servers"),
        ({"state": "drained", "servers": []}, "servers is empty"),
        ({"state": "drained", "servers": ["a"], "timeout": -1}, "timeout is -1.0: must be 0 or more"),
        ({"state": "drained", "servers": ["a"], "min_up": -1}, "min_up is -1"),
        ({"state": "watched", "servers": ["a"]}, "value of state must be one of: drained, ready, switched"),
        ({"state": "switched", "servers": ["a"], "away": ["b", "a"]}, "a in servers and in away"),
        ({"state": "ready", "servers": ["a"], "probe": "ftp://{server}/"}, "probe is 'ftp://{server}/': write a URL"),
        ({"state": "ready", "servers": ["127.0.0.1:11"]}, "has no server '127.0.0.1:11', did you mean '127.0.0.1:1'?"),
    ],
)
def test_what_is_wrong_is_named(capsys: Any, config: Path, arguments: Any, words: str) -> None:
    code, result = call(nginx, capsys, config=str(config), **arguments)
    assert code == 1
    assert words in result["msg"]


def test_a_fence_that_cannot_be_made(capsys: Any, config: Path) -> None:
    code, result = call(
        nginx, capsys, config=str(config), servers=["127.0.0.1:1"], state="ready", token=1, fence=str(config / "fence")
    )
    assert code == 1
    assert "the token of the rollout cannot be remembered there" in result["msg"]


def test_info_needs_nginx_too(capsys: Any, config: Path, tmp_path: Path) -> None:
    code, result = call(nginx_info, capsys, config=str(config), pid_file=str(tmp_path / "nginx.pid"))
    assert code == 1
    assert "nginx does not run" in result["msg"]
