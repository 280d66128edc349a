# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that looks healthy, but makes six times as many errors as the one before, is found while it bakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .environment import ALL_AT_ONCE, Ended, Environment

USUAL, BAD = 0.005, 0.03  # of the answers are errors
BAKE = 90
LOAD = 200  # requests a second
CANARY = [{"name": "canary", "size": 1, "bake": BAKE, "gates": ["errors"]}, {"name": "fleet", "size": "100%"}]


@pytest.fixture(scope="module")
def with_errors(environment: Environment) -> Iterator[Environment]:
    """The whole fleet on 1.0.0, which makes errors now and then."""
    environment.wipe()
    ended = environment.deploy("1.0.0", rollout_phases=ALL_AT_ONCE, hello_settings={"error_rate": USUAL})
    assert ended.rc == 0, ended.said
    yield environment
    environment.wipe()


def deploy_under_load(environment: Environment, rate: float, **variables: Any) -> tuple[Ended, float]:
    """Deploy a version with that rate of errors while clients ask; how it ended, and how many seconds it took."""
    given = {"rollout_phases": CANARY, "rollout_gate_options": {"interval": 1}, **variables}
    with environment.watched(LOAD) as watched:
        ended = environment.deploy("1.1.0", hello_settings={"error_rate": rate}, **given)
    return ended, watched.seconds


def assert_turned_back(environment: Environment, ended: Ended, seconds: float) -> None:
    """Found within the bake time, and turned back: no host but the canary ever had the version."""
    assert ended.rc == 2
    assert "the gate of phase canary failed: errors: canary hosts " in " ".join(ended.said.split())
    assert "to 1 against as good a release" in ended.said
    assert seconds < BAKE
    assert environment.view().status == "reverted"
    looks = environment.see("1.0.0")
    assert [host for host, look in looks.items() if look.activated("1.1.0")] == environment.hosts[:1]


def test_a_canary_with_more_errors_turns_back_by_the_load_balancer_s_counters_alone(with_errors: Environment) -> None:
    environment = with_errors
    ended, seconds = deploy_under_load(environment, BAD, rollout_gates={"errors": {}})
    assert_turned_back(environment, ended, seconds)


def test_a_component_is_asked_without_a_deployment(with_errors: Environment) -> None:
    environment = with_errors
    gates = {"errors": {}, "few errors": {"success": "< 0.02"}}
    with environment.watched():
        ended = environment.run("gate.yml", rollout_gates=gates, rollout_gate_options={"interval": 1})
    assert ended.rc == 0, ended.said
    rows = [line.split() for line in ended.summary.splitlines() if line]
    assert [row[0] for row in rows[:-1]] == [*environment.hosts, "few"]
    assert all("pass" in row for row in rows[:-1])
    assert "pass: 8 hosts healthy for" in ended.summary
    assert "the gate errors compares hosts, and there is no baseline" in " ".join(ended.said.split())


def test_its_exit_code_says_when_a_host_is_ill(with_errors: Environment) -> None:
    environment = with_errors
    environment.on_each("systemctl stop hello.service", ["app2"])
    try:
        ended = environment.run("gate.yml", rollout_gate_seconds=30)
    finally:
        environment.on_each("systemctl start hello.service", ["app2"])
    assert ended.rc == 2
    assert "fail: app2: probe unit (systemd hello.service) is inactive" in ended.summary
