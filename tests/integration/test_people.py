# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""People and several runs: what they tell a rollout, and how rollouts of one component get out of each other's way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from tests.ledger.cluster import Cluster

from .environment import ALL_AT_ONCE, STREAM, Environment

ONE_BY_ONE = [{"name": "all", "size": "100%", "max_unavailable": 1}]
BAKES = [{"name": "canary", "size": 1, "bake": 15}, {"name": "rest", "size": "100%"}]
BROKEN = {"hello_settings": {"health_status": 500}}
AWAY = {"ansible_port": 1, "ansible_ssh_retries": 0}


def test_a_host_that_is_away_is_deferred_and_caught_up_with(on_1_0_0: Environment) -> None:
    with on_1_0_0.host_variables("app2", **AWAY):
        ended = on_1_0_0.deploy("1.1.0", **on_1_0_0.few, rollout_phases=ALL_AT_ONCE, rollout_unreachable="defer")
    assert ended.rc == 0, ended.said
    assert "  app2 deferred: " in ended.summary
    assert "next: ansible-playbook catch_up.yml -i " in ended.summary
    on_1_0_0.see("1.0.0", "app2")
    caught_up = on_1_0_0.run("catch_up.yml", **on_1_0_0.few, rollout_phases=ALL_AT_ONCE)
    assert caught_up.rc == 0, caught_up.said
    assert on_1_0_0.statuses() == {"app2": "succeeded"}
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
    again = on_1_0_0.run("catch_up.yml", **on_1_0_0.few)
    assert again.rc == 0, again.said
    assert "deferred no host" in again.summary


def test_a_deployment_queues_behind_another_one(on_1_0_0: Environment) -> None:
    on_1_0_0.publish("1.1.0", "1.6.0")
    first = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    first.until("bakes for")
    second = on_1_0_0.start(
        "deploy.yml", "1.6.0", **on_1_0_0.few, rollout_phases=ALL_AT_ONCE, rollout_when_busy="queue"
    )
    second.until("waits: rollout ")
    assert first.end().rc == 0, first.said
    assert second.end().rc == 0, second.said
    on_1_0_0.see("1.6.0", *on_1_0_0.hosts[:3])


@pytest.mark.long
def test_a_deployment_cancels_an_older_one(on_1_0_0: Environment) -> None:
    on_1_0_0.publish("1.1.0", "1.6.0")
    first = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    first.until("bakes for")
    older = on_1_0_0.view().id
    cancels = {"rollout_phases": ALL_AT_ONCE, "rollout_when_busy": "cancel_older"}
    second = on_1_0_0.run("deploy.yml", "1.6.0", **on_1_0_0.few, **cancels)
    assert first.end().rc != 0
    assert second.rc == 0, second.said
    assert on_1_0_0.rollouts().standing(older).status == "reverted"
    on_1_0_0.see("1.6.0", *on_1_0_0.hosts[:3])


def test_a_rollout_that_holds_goes_on_when_somebody_says_so(on_1_0_0: Environment) -> None:
    on_1_0_0.publish("1.1.0")
    with on_1_0_0.host_variables("app2", **BROKEN):
        holds = {"rollout_phases": ONE_BY_ONE, "rollout_on_failure": "hold"}
        rolling = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, **holds)
        rolling.until("app2 reverted: ")
        assert on_1_0_0.view().state.held == "1 failed, more than the failure budget of 0"
        assert on_1_0_0.run("advance.yml", rollout_reason="app2 is known to be ill").rc == 0
        ended = rolling.end()
    assert ended.rc == 0, ended.said
    assert on_1_0_0.statuses() == {"app1": "succeeded", "app2": "reverted", "app3": "succeeded"}


def test_a_rollout_is_stopped_where_it_is(on_1_0_0: Environment) -> None:
    on_1_0_0.publish("1.1.0")
    rolling = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    rolling.until("bakes for")
    assert on_1_0_0.run("abort.yml", rollout_order="stop", rollout_reason="enough for today").rc == 0
    ended = rolling.end()
    assert ended.rc != 0
    assert "enough for today" in ended.summary
    assert on_1_0_0.statuses() == {"app1": "succeeded", "app2": "pending", "app3": "pending"}
    on_1_0_0.see("1.1.0", "app1")
    on_1_0_0.see("1.0.0", "app2", "app3")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of an empty ledger in a PostgreSQL server, which is what slices on several machines need."""
    cluster = Cluster()
    try:
        cluster.create()
        yield cluster.database()
    finally:
        cluster.remove()


def newest(ledger_url: str) -> RolloutView:
    ledger = Ledger(ledger_url, "test")
    ledger.verify(STREAM)
    view = Rollouts(ledger, STREAM).view()
    assert view is not None
    return view


def migration(directory: Path, name: str, **place: str) -> dict[str, Any]:
    """A migration that fails when it is run a second time."""
    tasks = directory / f"{name}.yml"
    once = {"argv": ["mkdir", str(directory / name)]}
    tasks.write_text(yaml.safe_dump([{"name": "Do it", "ansible.builtin.command": once, "changed_when": True}]))
    return {"name": name, "tasks": str(tasks), "irreversible": True, **place}


@pytest.mark.long
def test_slices_share_one_rollout(on_1_0_0: Environment, postgresql: str, tmp_path: Path) -> None:
    """Two runs of roll.yml with hosts of their own: one window over both, each migration once, and one verdict."""
    on_1_0_0.publish("1.1.0")
    migrations = [migration(tmp_path, "0001"), migration(tmp_path, "0002", after="last")]
    ledger = {"environment_ledger_url": postgresql, "component_migrations": migrations}
    opened = on_1_0_0.run("playbooks/open.yml", "1.1.0", **ledger, rollout_phases=ONE_BY_ONE)
    assert opened.rc == 0, opened.said
    assert on_1_0_0.run("playbooks/stage.yml", **ledger).rc == 0
    halves = [",".join(on_1_0_0.hosts[start::2]) for start in (0, 1)]
    with on_1_0_0.watched() as watched:
        slices = [on_1_0_0.start("playbooks/roll.yml", **ledger, rollout_target=half) for half in halves]
        for one in slices:
            assert one.end().rc == 0, one.said
    said = "".join(one.said for one in slices)
    assert [said.count(f"migration {name} has taken effect") for name in ("0001", "0002")] == [1, 1]
    closed = on_1_0_0.run("playbooks/close.yml", **ledger)
    assert closed.rc == 0, closed.said
    assert watched.most_out() == 1
    assert watched.broken == []
    assert newest(postgresql).status == "succeeded"
    on_1_0_0.see("1.1.0")


def test_slices_turn_their_own_hosts_back(on_1_0_0: Environment, postgresql: str) -> None:
    on_1_0_0.publish("1.1.0")
    ledger = {"environment_ledger_url": postgresql}
    phases = [{"name": "most", "size": 5, "max_unavailable": 5}, {"name": "last", "size": "100%"}]
    with on_1_0_0.host_variables("app6", **BROKEN):
        opened = on_1_0_0.run("playbooks/open.yml", "1.1.0", **ledger, rollout_phases=phases)
        assert opened.rc == 0, opened.said
        assert on_1_0_0.run("playbooks/stage.yml", **ledger).rc == 0
        halves = [",".join(half) for half in (on_1_0_0.hosts[:3], on_1_0_0.hosts[3:])]
        slices = [on_1_0_0.start("playbooks/roll.yml", **ledger, rollout_target=half) for half in halves]
        for one in slices:
            assert one.end().rc == 0, one.said
    assert on_1_0_0.run("playbooks/close.yml", **ledger).rc != 0
    assert newest(postgresql).status == "reverted"
    for one, hosts in zip(slices, (on_1_0_0.hosts[:3], on_1_0_0.hosts[3:5]), strict=True):
        told = next(line for line in one.said.splitlines() if "going back: " in line)
        assert sorted(told.partition("going back: ")[2].split(", ")) == hosts
    on_1_0_0.see("1.0.0")


def test_a_run_that_hangs_is_unlocked_and_changes_nothing_any_more(on_1_0_0: Environment) -> None:
    on_1_0_0.publish("1.1.0")
    hung = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    hung.until("bakes for")
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        refused = on_1_0_0.run("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
        assert refused.rc != 0
        assert "is held by" in refused.said
        rollout = on_1_0_0.view().id
        assert on_1_0_0.run("unlock.yml", rollout_id=rollout).rc != 0
        unlocked = on_1_0_0.run("unlock.yml", rollout_id=rollout, rollout_reason="it hangs")
        assert unlocked.rc == 0, unlocked.said
        goes_on = on_1_0_0.run("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
        assert goes_on.rc == 0, goes_on.said
    finally:
        os.kill(hung.pid, signal.SIGCONT)
    woken = hung.end()
    assert woken.rc != 0
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])


@pytest.mark.parametrize(("how", "rc"), [(signal.SIGINT, 99), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_run_that_is_interrupted_says_how_to_go_on(on_1_0_0: Environment, how: signal.Signals, rc: int) -> None:
    on_1_0_0.publish("1.1.0")
    rolling = on_1_0_0.start("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    rolling.until("bakes for")
    os.kill(rolling.pid, how)
    ended = rolling.end()
    assert ended.rc == rc
    assert "interrupted: the rollout is open" in ended.said
    assert "next: ansible-playbook deploy.yml -i " in ended.said
    again = on_1_0_0.run("deploy.yml", "1.1.0", **on_1_0_0.few, rollout_phases=BAKES)
    assert again.rc == 0, again.said
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
