# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that looks healthy, but makes six times as many errors as the one before, is found while it bakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .environment import ALL_AT_ONCE, Ended, Environment
from .monitoring import start_prometheus, stop_prometheus

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


@pytest.fixture
def prometheus(with_errors: Environment) -> Iterator[str]:
    """The address of a Prometheus that reads every host."""
    yield start_prometheus(with_errors.fleet, with_errors.hosts)
    stop_prometheus(with_errors.fleet)


def deploy_under_load(environment: Environment, rate: float, **variables: Any) -> Ended:
    """Deploy a version with that rate of errors while clients ask."""
    given = {"rollout_phases": CANARY, "rollout_gate_options": {"interval": 1}, **variables}
    environment.publish("1.1.0")
    with environment.watched(LOAD):
        return environment.deploy("1.1.0", hello_settings={"error_rate": rate}, **given)


def assert_turned_back(environment: Environment, ended: Ended) -> None:
    """Found within the bake time, and turned back: no host but the canary ever had the version."""
    assert ended.rc == 2
    assert "the gate of phase canary failed: errors: canary hosts " in " ".join(ended.said.split())
    assert "to 1 against as good a release" in ended.said
    (closed,), (turned,) = environment.events("phase_closed"), environment.events("turned_back")
    assert closed["at"] < turned["at"] < closed["bake_until"]
    assert environment.view().status == "reverted"
    looks = environment.see("1.0.0")
    assert [host for host, look in looks.items() if look.activated("1.1.0")] == environment.hosts[:1]


def test_a_canary_with_more_errors_turns_back_by_the_load_balancer_s_counters_alone(with_errors: Environment) -> None:
    ended = deploy_under_load(with_errors, BAD, rollout_gates={"errors": {}})
    assert_turned_back(with_errors, ended)


def test_a_canary_with_more_errors_turns_back_by_what_prometheus_read(
    with_errors: Environment, prometheus: str
) -> None:
    counters = {
        "url": prometheus,
        "events": 'hello_requests_total{endpoint="/",code="500"}',
        "total": 'hello_requests_total{endpoint="/"}',
    }
    ended = deploy_under_load(with_errors, BAD, rollout_gates={"errors": {"prometheus": counters}})
    assert_turned_back(with_errors, ended)


@pytest.mark.long
def test_a_canary_with_as_many_errors_goes_on(with_errors: Environment) -> None:
    gates = {"errors": {"acceptable": 0.03}, "no errors": {"judge": "threshold", "success": "== 0", "dry_run": True}}
    canary = {**CANARY[0], "bake": 45, "gates": list(gates)}
    fleet = {"name": "two", "size": 2}
    ended = deploy_under_load(
        with_errors,
        USUAL,
        rollout_gates=gates,
        rollout_phases=[canary, fleet],
        rollout_target=",".join(["app1", "app4"]),
    )
    assert ended.rc == 0, ended.said
    (passed, _last) = with_errors.events("phase_passed")
    assert "1 host healthy for 4" in passed["why"]
    assert "errors: canary hosts " in passed["why"]
    assert "dry run of no errors: fail: " in passed["why"]


def test_a_component_is_asked_without_a_deployment(with_errors: Environment) -> None:
    gates = {"errors": {}, "few errors": {"judge": "threshold", "success": "< 0.5"}}
    warm = {"module": "warm_up", "args": {"urls": ["http://127.0.0.1:8080/version"], "within": 10}}
    with with_errors.watched():
        ended = with_errors.run(
            "gate.yml",
            rollout_gates=gates,
            rollout_gate_options={"interval": 1},
            component_probe_modules=[warm],
        )
    assert ended.rc == 0, ended.said
    rows = [line.split() for line in ended.summary.splitlines() if line]
    assert [row[0] for row in rows[:-1]] == [*with_errors.hosts, "few"]
    assert all("pass" in row for row in rows[:-1])
    assert f"pass: {len(with_errors.hosts)} hosts healthy for" in ended.summary
    assert "the gate errors compares hosts, and there is no baseline" in " ".join(ended.said.split())


def test_its_exit_code_says_when_a_host_is_ill(with_errors: Environment) -> None:
    with_errors.on_each("systemctl stop hello.service", ["app2"])
    try:
        ended = with_errors.run("gate.yml", rollout_gate_seconds=30)
    finally:
        with_errors.on_each("systemctl start hello.service", ["app2"])
    assert ended.rc == 2
    assert "fail: app2: probe unit (systemd hello.service) is inactive" in ended.summary


def test_a_module_of_the_site_is_a_probe(with_errors: Environment) -> None:
    cold = {"module": "warm_up", "args": {"urls": ["http://127.0.0.1:1/"], "patience": 0}}
    ended = with_errors.run("gate.yml", component_probe_modules=[cold], rollout_target="app1")
    assert ended.rc == 2
    assert "fail: app1: warm_up: not warm after 0 s and 1 rounds: http://127.0.0.1:1/ did not answer" in ended.summary
