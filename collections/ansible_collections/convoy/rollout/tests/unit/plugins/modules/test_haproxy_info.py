# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module haproxy_info as Ansible calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.convoy.rollout.plugins.module_utils.haproxy import stat_rows
from ansible_collections.convoy.rollout.plugins.modules import haproxy_info


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[int, dict[str, Any]]:
    with patch_module_args({"backend": "app", **arguments}), pytest.raises(SystemExit) as ended:
        haproxy_info.main()
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


def test_info_of_all_servers(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    code, result = call(capsys, socket=haproxy_replay("drained_failing").path)
    assert (code, result["changed"]) == (0, False)
    assert {name: server["state"] for name, server in result["servers"].items()} == {
        "app1": "drained",
        "app2": "up",
        "app3": "up",
        "spare": "up",
        "bare": "up",
    }


def test_info_of_some(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    _code, result = call(capsys, socket=haproxy_replay("up").path, servers=["app2"])
    assert list(result["servers"]) == ["app2"]


def test_all_counters_are_told_where_they_are_wanted(capsys: Any, haproxy_replay: Callable[..., Any]) -> None:
    _code, result = call(capsys, socket=haproxy_replay("up").path, statistics=True)
    assert {"app1", "app2", "app3", "spare", "bare"} == {row["svname"] for row in stat_rows(result["statistics"])}
    _code, result = call(capsys, socket=haproxy_replay("up").path)
    assert "statistics" not in result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backend": "ap"}, "HAProxy has no backend 'ap', did you mean 'app'?"),
        ({"servers": ["app22"]}, "HAProxy's backend 'app' has no server 'app22', did you mean 'app2'?"),
    ],
)
def test_what_is_not_there_is_named(
    capsys: Any, haproxy_replay: Callable[..., Any], arguments: Any, words: str
) -> None:
    code, result = call(capsys, socket=haproxy_replay("up").path, **arguments)
    assert code == 1
    assert words in result["msg"]


def test_no_haproxy(capsys: Any) -> None:
    code, result = call(capsys, socket="/nowhere/s")
    assert (code, result["msg"].startswith("HAProxy's runtime socket /nowhere/s is not there")) == (1, True)
