# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over hosts behind a real nginx, which stands beside the lab's HAProxy and asks nobody twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from .environment import Ended, Environment
from .watching import Watch, Watched

PORT = 81
CONFIG = "/etc/nginx/conf.d/hello.conf"
SITE = """upstream hello {{
{servers}
}}
server {{
    listen {port};
    location / {{
        proxy_pass http://hello;
        proxy_next_upstream off;
    }}
}}
"""
CLEAR = "systemctl stop nginx; rm -rf /etc/nginx/conf.d/hello.conf /var/lib/convoy/nginx"


class Balanced:
    """The hosts of the lab behind nginx."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.hosts = environment.hosts
        servers = "\n".join(f"    server {self.address(host)};" for host in self.hosts)
        self.site = SITE.format(servers=servers, port=PORT)

    def address(self, host: str) -> str:
        return f"{self.environment.fleet.address(host)}:8080"

    def tell(self, script: str, given: str = "") -> str:
        """What a script says on the load balancer."""
        return str(self.environment.fleet.shell("lb1", script, given))

    def begin(self) -> None:
        """Nginx, with every host in service, and hosts on which nothing was ever deployed."""
        self.environment.wipe()
        self.tell(f"{CLEAR}; cat > {CONFIG}; systemctl start nginx", self.site)

    @property
    def variables(self) -> dict[str, Any]:
        """As docs/traffic.md has them."""
        return {
            "traffic_adapter": "nginx",
            "traffic_nginx_probe": "http://{server}/healthz",
            "traffic_nginx_servers": (
                "{{ dict(groups['app'] | zip(groups['app'] | map('extract', hostvars, 'ansible_host') "
                "| map('regex_replace', '$', ':8080'))) }}"
            ),
        }

    def run(self, playbook: str, version: str | None = None, **variables: Any) -> Ended:
        if version:
            self.environment.publish(version)
        return self.environment.run(playbook, version, **{**self.variables, **variables})

    def down(self) -> list[str]:
        """The hosts that the file has out of service."""
        lines = self.tell(f"cat {CONFIG}").splitlines()
        return [host for host in self.hosts if f"    server {self.address(host)} down;" in lines]

    def watching(self) -> Watch:
        return Watch(self.environment.fleet.address("lb1"), 1 / 50, port=PORT)


@dataclass(frozen=True)
class Rolled:
    """A deployment, what clients saw meanwhile, and its id."""

    ended: Ended
    watched: Watched
    rollout: str


@pytest.fixture(scope="module")
def balanced(environment: Environment) -> Iterator[Balanced]:
    balanced = Balanced(environment)
    balanced.begin()
    yield balanced
    balanced.tell(CLEAR)
    environment.wipe()


@pytest.fixture(scope="module")
def rolled(balanced: Balanced) -> Rolled:
    """The first deployment, of 1.0.0; then that of 1.1.0, while clients ask."""
    first = balanced.run("deploy.yml", "1.0.0")
    assert first.rc == 0, first.said
    balanced.environment.publish("1.1.0")
    with balanced.watching() as watch:
        ended = balanced.run("deploy.yml", "1.1.0")
    return Rolled(ended, watch.watched, balanced.environment.view().id)


def test_no_request_fails_while_a_release_rolls_over_the_fleet(balanced: Balanced, rolled: Rolled) -> None:
    ended, watched = rolled.ended, rolled.watched
    assert ended.rc == 0, ended.said
    assert watched.broken == []
    assert watched.answered > 30 * watched.seconds
    looks = balanced.environment.look()
    assert {look.says for look in looks.values()} == {"1.1.0"}
    assert balanced.tell(f"cat {CONFIG}") == balanced.site
    assert balanced.environment.statuses() == dict.fromkeys(balanced.hosts, "succeeded")


def test_a_second_run_changes_nothing(balanced: Balanced, rolled: Rolled) -> None:
    with balanced.environment.untouched():
        ended = balanced.run("deploy.yml", "1.1.0")
    assert ended.rc == 0, ended.said
    assert set(ended.changed.values()) == {0}


def test_the_load_balancer_knows_its_rollout_and_has_nothing_begun(balanced: Balanced, rolled: Rolled) -> None:
    remembered = json.loads(balanced.tell("cat /var/lib/convoy/nginx/hello/.convoy/token"))
    assert remembered["rollout"] == rolled.rollout
    assert balanced.tell("ls -A /var/lib/convoy/nginx/.convoy").split() == ["lock"]


def test_what_a_dead_run_left_drained_is_told_and_put_back(balanced: Balanced, rolled: Rolled) -> None:
    assert rolled.ended.rc == 0
    wanted = {
        "config": CONFIG,
        "upstream": "hello",
        "servers": [balanced.address("app2")],
        "state": "drained",
    }
    left = balanced.environment.fleet.module("lb1", "convoy.rollout.nginx", wanted)
    assert left["changed"] is True, left
    told = balanced.run("status.yml")
    assert "healthy, but out of service: app2; playbooks/reconcile.yml puts them back" in told.summary
    assert balanced.down() == ["app2"]
    put_back = balanced.run("playbooks/reconcile.yml")
    assert put_back.rc == 0, put_back.said
    assert balanced.down() == []


def test_a_release_that_is_bad_leaves_every_host_in_service(balanced: Balanced, rolled: Rolled) -> None:
    assert rolled.ended.rc == 0
    balanced.environment.publish("1.2.0")
    with balanced.watching() as watch:
        ended = balanced.run("deploy.yml", "1.2.0")
    assert ended.rc != 0
    assert watch.watched.broken == []
    assert {look.says for look in balanced.environment.look().values()} == {"1.1.0"}
    assert balanced.down() == []


def test_without_nginx_nothing_is_touched(balanced: Balanced, rolled: Rolled) -> None:
    assert rolled.ended.rc == 0
    balanced.tell("systemctl stop nginx")
    try:
        with balanced.environment.untouched():
            refused = balanced.run("deploy.yml", "1.6.0")
    finally:
        balanced.tell("systemctl start nginx")
    assert refused.rc != 0
    assert "nginx does not run" in refused.said


@pytest.mark.long
def test_two_colours_are_switched_at_once(balanced: Balanced) -> None:
    environment = balanced.environment
    half = len(balanced.hosts) // 2
    colours = {"app_blue": balanced.hosts[:half], "app_green": balanced.hosts[half:]}
    inventory = environment.inventory / "colours.yaml"
    inventory.write_text(yaml.safe_dump({name: {"hosts": dict.fromkeys(hosts)} for name, hosts in colours.items()}))
    variables = {
        "rollout_phases": [{"name": "idle", "max_unavailable": "100%"}, {"name": "live", "bake": 2}],
        "rollout_colours": {"blue": "app_blue", "green": "app_green"},
    }
    try:
        balanced.begin()
        first = balanced.run("deploy.yml", "1.0.0", **variables)
        assert first.rc == 0, first.said
        assert balanced.down() == colours["app_green"]
        environment.publish("1.1.0")
        with balanced.watching() as watch:
            second = balanced.run("deploy.yml", "1.1.0", **variables)
            third = balanced.run("rollback.yml", **variables)
        assert (second.rc, third.rc) == (0, 0), second.said + third.said
        assert watch.watched.broken == []
        assert watch.watched.answered > 30 * watch.watched.seconds
        assert balanced.down() == colours["app_green"]
        assert {look.says for look in environment.look(*colours["app_green"]).values()} == {"1.1.0"}
        assert {look.says for look in environment.look(*colours["app_blue"]).values()} == {"1.0.0"}
        told = balanced.run("status.yml", **variables)
        assert "blue" in told.summary, told.said
    finally:
        inventory.unlink()
