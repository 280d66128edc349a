# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are killed; the same command again makes the fleet whole, and does not wait for leases to run out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .environment import ALL_AT_ONCE, Environment, Run, descendants

BAKES = [{"name": "canary", "size": 1, "bake": 20}, {"name": "rest", "size": "100%"}]


def await_drain(environment: Environment, run: Run) -> None:
    """Wait until HAProxy drains a server."""
    while not any(state.startswith("DRAIN") for state in environment.balancer().values()):
        assert "PLAY RECAP" not in run.said, run.said
        time.sleep(0.05)


def goes_on(environment: Environment, left: str, version: str, **variables: object) -> None:
    """The same command again takes the rollout up at once and brings it to its end."""
    ended = environment.deploy(version, **variables)
    assert ended.rc == 0, ended.said
    assert f"rollout {left} goes on" in ended.said
    view = environment.view()
    assert (view.id, view.status) == (left, "succeeded")
    assert view.state.leases == {}


def test_a_run_that_is_killed_in_the_middle_of_the_roll(on_1_0_0: Environment) -> None:
    with on_1_0_0.watched() as watched:
        killed = on_1_0_0.start("deploy.yml", "1.1.0")
        killed.until("gate: pass")
        await_drain(on_1_0_0, killed)
        killed.kill()
        left = on_1_0_0.view()
        assert left.status == "rolling"
        assert left.state.leases
        goes_on(on_1_0_0, left.id, "1.1.0")
    on_1_0_0.see("1.1.0")
    assert watched.broken == []
    assert watched.most_out() <= 2


def test_a_run_whose_workers_outlive_it(on_1_0_0: Environment) -> None:
    killed = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few)
    killed.until("phase fleet")
    await_drain(on_1_0_0, killed)
    workers = descendants(killed.pid)
    killed.kill(workers=False)
    goes_on(on_1_0_0, on_1_0_0.view().id, "1.1.0", **on_1_0_0.few)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == [], "they end by themselves"
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])


@pytest.mark.long
def test_a_run_that_is_killed_while_a_phase_bakes(on_1_0_0: Environment) -> None:
    variables = {**on_1_0_0.few, "rollout_phases": BAKES}
    killed = on_1_0_0.start("deploy.yml", "1.1.0", **variables)
    killed.until("bakes for")
    killed.kill()
    left = on_1_0_0.view()
    assert left.status == "gating"
    goes_on(on_1_0_0, left.id, "1.1.0", **variables)
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
    canary = on_1_0_0.look("app1")["app1"].journal
    assert [e["event"] for e in canary if e["release"].startswith("1.1.0-")].count("activating") == 1


@pytest.mark.long
def test_a_run_that_is_killed_while_it_turns_back(on_1_1_0: Environment) -> None:
    phases = [{"name": "two", "size": 2, "max_unavailable": 2}, {"name": "last", "size": "100%"}]
    variables = {**on_1_1_0.few, "rollout_phases": phases, "rollout_turn_back_max_unavailable": 1}
    on_1_1_0.publish("1.6.0")
    with on_1_1_0.host_variables("app3", hello_settings={"health_status": 500}):
        killed = on_1_1_0.start("deploy.yml", "1.6.0", **variables)
        killed.until("going back: ")
        await_drain(on_1_1_0, killed)
        killed.kill()
        left = on_1_1_0.view()
        assert left.status == "turning_back"
        ended = on_1_1_0.deploy("1.6.0", **variables)
    assert ended.rc != 0
    assert f"rollout {left.id} goes on" in ended.said
    assert (on_1_1_0.view().id, on_1_1_0.view().status) == (left.id, "reverted")
    assert on_1_1_0.statuses() == {"app1": "returned", "app2": "returned", "app3": "reverted"}
    on_1_1_0.see("1.1.0")


@pytest.mark.parametrize(
    "version", [pytest.param("1.0.0", marks=pytest.mark.long), "1.6.0"], ids=["another version", "the next version"]
)
def test_another_version_supersedes_a_run_that_was_killed(on_1_0_0: Environment, version: str) -> None:
    killed = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few)
    killed.until("phase fleet")
    await_drain(on_1_0_0, killed)
    killed.kill()
    left = on_1_0_0.view()
    ended = on_1_0_0.deploy(version, **on_1_0_0.few, rollout_phases=ALL_AT_ONCE)
    assert ended.rc == 0, ended.said
    on_1_0_0.see(version, *on_1_0_0.hosts[:3])
    assert on_1_0_0.rollouts().standing(left.id).status == "failed"
    assert on_1_0_0.view().id != left.id
