# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad versions end where they are found: the host that took one is back, and the others never had it."""

from __future__ import annotations

from typing import Any

import pytest

from .environment import ALL_AT_ONCE, Environment

BAKES = [{"name": "canary", "size": 1, "bake": 8}, {"name": "rest", "size": "100%"}]


def assert_told(environment: Environment, summary: str, version: str, *evidence: str) -> None:
    """The last lines: what happened, where, why, who runs what, what next."""
    runs = environment.look("app1")["app1"].active
    assert f"deploy of hello {version} in test: reverted" in summary
    for words in (*evidence, f"{runs}: app1, app2, app3", "next: ansible-playbook status.yml -i "):
        assert words in summary


def test_a_version_that_answers_500_ends_at_the_canary(on_1_1_0: Environment) -> None:
    others = on_1_1_0.hosts[1:]
    with on_1_1_0.watched() as watched, on_1_1_0.untouched(*others):
        ended = on_1_1_0.deploy("1.2.0")
    assert ended.rc != 0
    answer = "http://127.0.0.1:8080/healthz) answered 500 (expected 200)"
    assert_told(on_1_1_0, ended.summary, "1.2.0", "app1 reverted: ", "health", answer)
    assert on_1_1_0.statuses() == {"app1": "reverted", **dict.fromkeys(others, "pending")}
    looks = on_1_1_0.see("1.1.0")
    assert [host for host, look in looks.items() if look.activated("1.2.0")] == ["app1"]
    assert watched.broken == []
    assert watched.drained == {"app1"}


@pytest.mark.parametrize(
    ("version", "variables", "evidence"),
    [
        ("1.3.0", {"component_gate": {"interval": 0.2, "successes": 2, "deadline": 3}}, ["deadline of 3 s"]),
        ("1.4.0", {"rollout_phases": BAKES}, ["the gate of phase canary failed: app1: ", "unit"]),
        ("1.5.0", {}, ["app1 reverted: ", "version", "says 1.1.0 (expected 1.5.0)"]),
    ],
    ids=["starts too slowly", "crashes after 5 s", "lies about its version"],
)
def test_a_bad_version_ends_at_the_canary(
    on_1_1_0: Environment, version: str, variables: dict[str, Any], evidence: list[str]
) -> None:
    others = on_1_1_0.hosts[1:]
    with on_1_1_0.untouched(*others):
        ended = on_1_1_0.deploy(version, **on_1_1_0.few, **variables)
    assert ended.rc != 0
    assert_told(on_1_1_0, ended.summary, version, *evidence)
    looks = on_1_1_0.see("1.1.0")
    assert [host for host, look in looks.items() if look.activated(version)] == ["app1"]


@pytest.mark.long
def test_a_slow_version_passes_within_its_deadline(on_1_1_0: Environment) -> None:
    ended = on_1_1_0.deploy("1.3.0", **on_1_1_0.few, rollout_phases=ALL_AT_ONCE)
    assert ended.rc == 0, ended.said
    on_1_1_0.see("1.3.0", *on_1_1_0.hosts[:3])


def test_a_version_that_fails_late_turns_the_fleet_back(on_1_1_0: Environment) -> None:
    """1.6.0 is good everywhere but on the last host, whose own settings make it answer 500."""
    *good, sick = on_1_1_0.hosts
    phases = [
        {"name": "most", "size": len(good), "max_unavailable": 3},
        {"name": "last", "size": "100%", "max_unavailable": 1},
    ]
    with on_1_1_0.watched() as watched, on_1_1_0.host_variables(sick, hello_settings={"health_status": 500}):
        ended = on_1_1_0.deploy("1.6.0", rollout_phases=phases)
    assert ended.rc != 0
    assert "going back: " in ended.said
    assert f"  {sick} reverted: " in ended.summary
    assert "why: 1 failed, more than the failure budget of 0" in ended.summary
    assert on_1_1_0.view().status == "reverted"
    assert on_1_1_0.statuses() == {**dict.fromkeys(good, "returned"), sick: "reverted"}
    looks = on_1_1_0.see("1.1.0")
    assert all(look.activated("1.6.0") for look in looks.values())
    assert watched.broken == []
    assert watched.most_out() <= 3


def test_failures_within_the_budget_do_not_turn_the_fleet_back(on_1_1_0: Environment) -> None:
    with on_1_1_0.host_variables("app2", hello_settings={"health_status": 500}):
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few, rollout_phases=ALL_AT_ONCE, rollout_failure_budget=1)
    assert ended.rc == 0, ended.said
    assert "app2 reverted: " in ended.summary
    on_1_1_0.see("1.6.0", "app1", "app3")
    on_1_1_0.see("1.1.0", "app2")
