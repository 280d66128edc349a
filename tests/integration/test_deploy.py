# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml: the first time, the second time, in check mode, beside another one, with a site's own steps."""

from __future__ import annotations

import pytest

from .conftest import FirstRollouts
from .environment import ALL_AT_ONCE, Environment


def test_a_fleet_that_ran_nothing_gets_its_first_release(first_rollouts: FirstRollouts) -> None:
    assert first_rollouts.deployed.rc == 0, first_rollouts.deployed.said
    assert "deploy of hello 1.0.0 in test: succeeded" in first_rollouts.deployed.summary
    assert {look.says for look in first_rollouts.looks.values()} == {"1.0.0"}
    assert len({look.active for look in first_rollouts.looks.values()}) == 1
    assert {tuple(entry["event"] for entry in look.journal) for look in first_rollouts.looks.values()} == {
        ("staged", "activating", "good")
    }


def test_a_second_run_changes_nothing(on_1_1_0: Environment) -> None:
    with on_1_1_0.untouched():
        ended = on_1_1_0.deploy("1.1.0")
    assert ended.rc == 0, ended.said
    assert ended.changed == dict.fromkeys([*on_1_1_0.hosts, "localhost"], 0)
    assert "nothing to do for hello in test" in ended.summary


def test_check_mode_tells_the_plan_and_changes_nothing(on_1_1_0: Environment) -> None:
    on_1_1_0.publish("1.6.0")
    with on_1_1_0.untouched():
        ended = on_1_1_0.deploy("1.6.0", "--check", component_keep=2)
    assert ended.rc == 0, ended.said
    assert set(ended.changed.values()) == {0}
    was = on_1_1_0.look("app1")["app1"].active
    first = on_1_1_0.look("app1")["app1"].releases[0]
    assert "check mode: this would be done, nothing was" in ended.summary
    assert "phase canary: 1 host, at most 1 at once, then 1 s of baking" in ended.summary
    assert f"phase fleet: {len(on_1_1_0.hosts) - 1} hosts, at most 2 at once" in ended.summary
    for host in on_1_1_0.hosts:
        line = next(line for line in ended.summary.splitlines() if f"  {host}  " in line)
        assert f"{was} -> 1.6.0-" in line
        assert "fetches" in line
        assert f"prunes {first}" in line


def test_people_pause_a_rollout_that_bars_another_one_and_let_it_go_on(on_1_1_0: Environment) -> None:
    on_1_1_0.publish("1.6.0")
    phases = [{"name": "canary", "size": 1, "bake": 15}, {"name": "rest", "size": "100%"}]
    rolling = on_1_1_0.start("deploy.yml", "1.6.0", **{**on_1_1_0.few, "rollout_phases": phases})
    rolling.until("phase canary")
    paused = on_1_1_0.run("pause.yml", rollout_reason="wait for the database")
    assert paused.rc == 0, paused.said
    assert on_1_1_0.view().state.paused.endswith(": wait for the database")
    second = on_1_1_0.deploy("1.6.0", **on_1_1_0.few)
    assert second.rc != 0
    assert f"is held by {on_1_1_0.view().holder}" in second.said
    assert f"(process {rolling.pid})" in second.said
    resumed = on_1_1_0.run("resume.yml")
    assert resumed.rc == 0, resumed.said
    ended = rolling.end()
    assert ended.rc == 0, ended.said
    looks = on_1_1_0.see("1.6.0", *on_1_1_0.hosts[:3])
    assert {look.token for look in looks.values()} == {on_1_1_0.view().token}
    assert on_1_1_0.view().facts["version"] == "1.6.0"


def test_people_turn_a_rollout_back(on_1_1_0: Environment) -> None:
    on_1_1_0.publish("1.6.0")
    phases = [{"name": "canary", "size": 1, "bake": 30}, {"name": "rest", "size": "100%"}]
    rolling = on_1_1_0.start("deploy.yml", "1.6.0", **on_1_1_0.few, rollout_phases=phases)
    rolling.until("bakes for")
    assert on_1_1_0.run("abort.yml", rollout_reason="it is the wrong version").rc == 0
    ended = rolling.end()
    assert ended.rc != 0
    assert "it is the wrong version" in ended.summary
    assert on_1_1_0.statuses() == {"app1": "returned", "app2": "pending", "app3": "pending"}
    on_1_1_0.see("1.1.0")


def test_hosts_that_have_no_place_for_the_library_get_modules_and_artifact_as_ansible_sends_them(
    on_1_0_0: Environment,
) -> None:
    on_1_0_0.on_each("rm -rf /var/lib/convoy/lib && touch /var/lib/convoy/lib")
    try:
        ended = on_1_0_0.deploy("1.1.0", **on_1_0_0.few)
    finally:
        on_1_0_0.on_each("rm /var/lib/convoy/lib")
    assert ended.rc == 0, ended.said
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])


def test_hooks_and_a_load_balancer_of_the_site_get_their_turns(on_1_0_0: Environment) -> None:
    log = on_1_0_0.directory / "steps.log"
    each = (
        "before_stage", "after_stage", "before_drain", "drain", "after_drain", "before_activate", "after_activate",
        "before_undrain", "undrain", "after_undrain",
    )  # fmt: skip
    once = ("before_phase", "after_phase")
    files = {}
    for step in (*each, *once):
        files[step] = on_1_0_0.directory / f"{step}.yml"
        files[step].write_text(
            "- name: Note the step\n"
            f"  ansible.builtin.shell: echo {step} {{{{ inventory_hostname }}}} >> {log}\n"
            "  delegate_to: localhost\n"
        )
    paths = {step: str(path) for step, path in files.items()}
    ended = on_1_0_0.deploy(
        "1.1.0",
        **on_1_0_0.few,
        rollout_phases=[{"name": "all", "size": "100%", "max_unavailable": 2, "bake": 0.5}],
        rollout_hooks={step: path for step, path in paths.items() if step not in ("drain", "undrain")},
        traffic_adapter="tasks",
        traffic_tasks={step: paths[step] for step in ("drain", "undrain")},
    )
    assert ended.rc == 0, ended.said
    noted = [tuple(line.split()) for line in log.read_text().splitlines()]
    for host in on_1_0_0.hosts[:3]:
        assert [step for step, where in noted if where == host and step not in once] == list(each)
    steps = [step for step, _host in noted]
    assert [steps.count(step) for step in once] == [1, 1]
    first = next(where for step, where in noted if step == "before_phase")
    assert noted.index(("before_phase", first)) < noted.index(("before_drain", first))
    assert steps[-1] == "after_phase"
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])


def test_a_hook_that_fails_takes_the_host_back(on_1_0_0: Environment) -> None:
    cold = on_1_0_0.directory / "cold.yml"
    cold.write_text("- name: Warm up\n  ansible.builtin.fail:\n    msg: it stays cold\n")
    ended = on_1_0_0.deploy("1.1.0", **on_1_0_0.few, rollout_hooks={"after_activate": str(cold)})
    assert ended.rc != 0
    assert "app1 reverted: it stays cold" in ended.summary
    assert on_1_0_0.look("app1")["app1"].activated("1.1.0")
    on_1_0_0.see("1.0.0")


@pytest.mark.long
def test_a_fleet_is_taken_at_once_where_that_is_allowed(on_1_0_0: Environment) -> None:
    """Without traffic to keep up: every host in one window, and the load balancer is left alone."""
    with on_1_0_0.watched() as watched:
        ended = on_1_0_0.deploy("1.1.0", **on_1_0_0.few, rollout_phases=ALL_AT_ONCE, traffic_adapter="none")
    assert ended.rc == 0, ended.said
    assert watched.drained == set()
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
