# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""status.yml tells what is so and what differs; reconcile.yml puts back what is healthy and was left out."""

from __future__ import annotations

from .environment import Environment


def rows(summary: str) -> dict[str, str]:
    """The lines about hosts, by host."""
    return {line.split()[0]: line for line in summary.splitlines() if line.startswith("app")}


def test_a_fleet_in_order(on_1_1_0: Environment) -> None:
    with on_1_1_0.untouched():
        told = on_1_1_0.run("status.yml")
    assert told.rc == 0, told.said
    looks = on_1_1_0.look()
    assert set(rows(told.summary)) == set(on_1_1_0.hosts)
    for host, row in rows(told.summary).items():
        assert looks[host].active in row
        assert row.split()[-2:] == ["pass", "in"]
    assert "last rollout: " in told.summary
    assert "deploy of 1.1.0" in told.summary


def test_what_differs_is_told_and_what_was_left_out_is_put_back(on_1_1_0: Environment) -> None:
    first = on_1_1_0.look("app4")["app4"].releases[0]
    on_1_1_0.tell_balancer("set server app/app2 state drain", "set server app/app3 state drain")
    on_1_1_0.fleet.shell("app3", "systemctl stop hello.service")
    on_1_1_0.fleet.shell("app4", f"ln -sfn releases/{first} /srv/hello/current")
    with on_1_1_0.host_variables("app5", ansible_port=1):
        told = on_1_1_0.run("status.yml")
        assert told.rc == 0, told.said
        row = rows(told.summary)
        assert row["app1"].split()[-2:] == ["pass", "in"]
        assert row["app2"].split()[-2:] == ["pass", "out"]
        assert " fail " in row["app3"]
        assert " out" in row["app3"]
        assert f"the ledger says {on_1_1_0.look('app1')['app1'].active}" in row["app4"]
        assert "unreachable" in row["app5"]
        assert "healthy, but out of service: app2; playbooks/reconcile.yml puts them back" in told.summary

        put_back = on_1_1_0.run("playbooks/reconcile.yml")
        assert put_back.rc == 0, put_back.said
    states = on_1_1_0.balancer()
    assert states.pop("app3") != "UP"
    assert states == dict.fromkeys(set(on_1_1_0.hosts) - {"app3"}, "UP")


def test_the_next_deployment_mends_what_somebody_broke(on_1_1_0: Environment) -> None:
    """The same version again: only the hosts that are not as they should be are touched."""
    first = on_1_1_0.look("app2")["app2"].releases[0]
    on_1_1_0.fleet.shell("app2", f"ln -sfn releases/{first} /srv/hello/current; systemctl restart hello.service")
    on_1_1_0.fleet.shell("app3", "systemctl stop hello.service")
    with on_1_1_0.untouched("app1"):
        ended = on_1_1_0.deploy("1.1.0", **on_1_1_0.few)
    assert ended.rc == 0, ended.said
    assert on_1_1_0.statuses() == {"app1": "current", "app2": "succeeded", "app3": "succeeded"}
    on_1_1_0.see("1.1.0")


def test_nothing_is_put_back_while_a_rollout_runs(on_1_0_0: Environment) -> None:
    phases = [{"name": "canary", "size": 1, "bake": 20}, {"name": "fleet", "size": "100%"}]
    rolling = on_1_0_0.start("deploy.yml", "1.1.0", rollout_phases=phases, **on_1_0_0.few)
    rolling.until("phase fleet")
    refused = on_1_0_0.run("playbooks/reconcile.yml", **on_1_0_0.few)
    assert refused.rc != 0
    assert f"is held by {on_1_0_0.view().holder}" in refused.said
    ended = rolling.end()
    assert ended.rc == 0, ended.said
