# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module health_gate as Ansible calls it: arguments in, one JSON document out."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.convoy.rollout.plugins.modules import health_gate


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[int, dict[str, Any]]:
    with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
        health_gate.main()
    return int(ended.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_healthy_component_lets_the_play_go_on(capsys: Any, port: int, check_mode: bool) -> None:
    code, result = call(
        capsys,
        probes=[{"kind": "tcp", "port": port}],
        gate={"interval": 0.01, "successes": 3},
        _ansible_check_mode=check_mode,
    )
    assert code == 0
    assert (result["verdict"], result["changed"], len(result["attempts"])) == ("pass", False, 3)


def test_an_unhealthy_one_fails_with_every_attempt(capsys: Any, port: int) -> None:
    gate = {"interval": 0.1, "successes": 1, "deadline": 0.25}
    code, result = call(
        capsys, probes=[{"kind": "command", "argv": ["false"]}, {"kind": "tcp", "port": port}], gate=gate
    )
    assert code == 1
    assert result["failed"] is True
    assert result["verdict"] == "fail"
    rounds = len(result["attempts"]) // 2  # three, where the machine has the time
    assert [attempt["ok"] for attempt in result["attempts"]] == [False, True] * rounds
    assert result["msg"] == (
        f"probe command false ended with 1 (expected 0), {rounds} of {rounds} rounds failed within the deadline of "
        "0.25 s"
    )


def test_a_watch_lasts_for_its_time(capsys: Any, port: int) -> None:
    code, result = call(capsys, probes=[{"kind": "tcp", "port": port}], gate={"interval": 0.25}, watch=1)
    assert (code, result["verdict"]) == (0, "pass")
    assert 2 <= len(result["attempts"]) <= 5


def test_a_watch_ends_with_the_first_unhealthy_answer(capsys: Any) -> None:
    code, result = call(capsys, probes=[{"kind": "command", "argv": ["false"]}], watch=60)
    assert (code, result["verdict"], len(result["attempts"])) == (1, "fail", 1)
    assert result["msg"] == "probe command false ended with 1 (expected 0)"


def test_no_probes_fail(capsys: Any) -> None:
    code, result = call(capsys)
    assert (code, result["verdict"]) == (1, "inconclusive")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"probes": [{"kind": "http", "url": "http://h/", "body": "("}]}, "probes[0].body is '('"),
        ({"probes": [{"kind": "http", "url": "http://h/", "port": 1}]}, "probes[0] has an unknown key 'port'"),
        ({"gate": {"deadline": 1, "min_healthy_time": 2}}, "gate.min_healthy_time is 2"),
    ],
)
def test_a_gate_that_is_written_wrong_is_an_error(capsys: Any, arguments: Any, words: str) -> None:
    code, result = call(capsys, **arguments)
    assert (code, result["verdict"], result["attempts"]) == (1, "error", [])
    assert words in result["msg"]


def test_the_headers_that_are_sent_are_not_shown(capsys: Any) -> None:
    headers = {"Authorization": "Bearer s3cr3t-word"}
    with patch_module_args({"probes": [{"kind": "http", "url": "http://127.0.0.1:9/", "headers": headers}]}):
        module = health_gate.AnsibleModule(argument_spec=health_gate.health_gate.arguments())
    assert "Bearer s3cr3t-word" in module.no_log_values
