# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blue and green: one colour serves, the other one goes to the release; then HAProxy is switched at once, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .environment import Ended, Environment, Look, Run
from .watching import Watched

FAILS_WITH_TRAFFIC = """
- name: Fail where the phase has traffic
  ansible.builtin.fail:
    msg: orders are lost
  when: rollout_gate.phase == 'live'
"""


@dataclass
class Site:
    """The hosts of the lab, in two colours."""

    environment: Environment
    blue: list[str]
    green: list[str]

    def run(self, playbook: str, version: str | None = None, **variables: Any) -> Ended:
        return self.start(playbook, version, **variables).end()

    def start(self, playbook: str, version: str | None = None, **variables: Any) -> Run:
        if version and playbook == "deploy.yml":
            self.environment.publish(version)
        return self.environment.start(playbook, version, **{**self.policy, **variables})

    @property
    def policy(self) -> dict[str, Any]:
        phases = [{"name": "idle", "max_unavailable": "100%"}, {"name": "live", "bake": 2}]
        return {"rollout_phases": phases, "rollout_colours": {"blue": "app_blue", "green": "app_green"}}

    def serves(self, colour: list[str], version: str) -> dict[str, Look]:
        """Assert that this colour alone is in service, and runs the version."""
        states = self.environment.balancer()
        assert {host for host, state in states.items() if state == "UP"} == set(colour), states
        looks = self.environment.look(*colour)
        assert {look.says for look in looks.values()} == {version}
        return looks

    def hook(self, text: str) -> dict[str, Any]:
        path = Path(self.environment.directory, "after_phase.yml")
        path.write_text(text)
        return {"rollout_hooks": {"after_phase": str(path)}}


@dataclass
class Story:
    """The first deployment, of 1.0.0; then that of 1.1.0, while clients ask."""

    first: Ended
    looks: dict[str, Look]
    second: Ended
    watched: Watched


@pytest.fixture(scope="module")
def site(environment: Environment) -> Iterator[Site]:
    half = len(environment.hosts) // 2
    made = Site(environment, environment.hosts[:half], environment.hosts[half:])
    groups = {"app_blue": made.blue, "app_green": made.green}
    inventory = environment.inventory / "colours.yaml"
    inventory.write_text(yaml.safe_dump({name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items()}))
    environment.wipe()
    yield made
    inventory.unlink()
    environment.wipe()


@pytest.fixture(scope="module")
def story(site: Site) -> Story:
    first = site.run("deploy.yml", "1.0.0")
    assert first.rc == 0, first.said
    looks = site.serves(site.blue, "1.0.0")
    site.environment.publish("1.1.0")
    with site.environment.watched() as watched:
        second = site.run("deploy.yml", "1.1.0")
    assert second.rc == 0, second.said
    return Story(first, looks, second, watched)


def test_the_first_deployment_goes_to_blue(site: Site, story: Story) -> None:
    assert "the load balancers are switched from green to blue" in story.first.said
    assert "live: blue; green is on standby" in story.first.summary
    assert set(story.looks) == set(site.blue)


def test_the_next_one_goes_to_green_and_no_request_fails(site: Site, story: Story) -> None:
    site.serves(site.green, "1.1.0")
    assert story.watched.broken == []
    assert story.watched.answered > 50 * story.watched.seconds
    assert max(map(len, story.watched.out())) <= len(site.blue), "fewer than one colour served"
    assert set().union(*story.watched.out()[:5]) == set(site.green), "the idle colour served before the switch"
    assert story.watched.grown("errors") == dict.fromkeys(site.environment.hosts, 0)


def test_the_other_colour_stays_warm_and_untouched(site: Site, story: Story) -> None:
    looks = site.environment.look(*site.blue)
    assert {host: look.untouched for host, look in looks.items()} == {
        h: look.untouched for h, look in story.looks.items()
    }


def test_status_tells_which_colour_is_live_and_reconcile_leaves_the_other_one_out(site: Site, story: Story) -> None:
    told = site.run("status.yml").said
    assert "live: green" in told
    assert "blue is on standby" in told
    assert "out of service" not in told
    assert site.run("playbooks/reconcile.yml").rc == 0
    site.serves(site.green, "1.1.0")


def test_the_same_again_changes_nothing(site: Site, story: Story) -> None:
    with site.environment.untouched():
        again = site.run("deploy.yml", "1.1.0")
    assert again.rc == 0, again.said
    assert "nothing to do" in again.summary


def test_what_fails_with_traffic_is_switched_back_at_once(site: Site, story: Story) -> None:
    before = site.environment.look()
    with site.environment.watched() as watched:
        ended = site.run("deploy.yml", "1.6.0", **site.hook(FAILS_WITH_TRAFFIC))
    assert ended.rc != 0
    assert "orders are lost" in ended.summary
    assert site.environment.view().status == "reverted"
    assert watched.broken == [], ended.said
    looks = site.serves(site.green, "1.1.0")
    assert all(looks[host].untouched == before[host].untouched for host in site.green)
    assert {look.says for look in site.environment.look(*site.blue).values()} == {"1.0.0"}


def test_rollback_switches_back(site: Site, story: Story) -> None:
    with site.environment.untouched(*site.environment.hosts), site.environment.watched() as watched:
        ended = site.run("rollback.yml")
    assert ended.rc == 0, ended.said
    assert watched.broken == []
    site.serves(site.blue, "1.0.0")


@pytest.mark.long
def test_a_controller_that_is_killed_while_it_switches(site: Site, story: Story) -> None:
    killed = site.start("deploy.yml", "1.1.0")
    killed.until("the load balancers are switched from blue to green")
    killed.kill()
    left = site.environment.view()
    assert left.state.traffic == "between"
    orders = {"ready": [*site.blue, site.green[0]], "drain": site.green[1:]}
    site.environment.tell_balancer(
        *(f"set server app/{host} state {order}" for order, hosts in orders.items() for host in hosts)
    )
    with site.environment.watched() as watched:
        ended = site.run("deploy.yml", "1.1.0")
    assert ended.rc == 0, ended.said
    assert f"rollout {left.id} goes on" in ended.said
    assert "half switched from blue to green: the switch is finished" in ended.said
    assert (site.environment.view().id, site.environment.view().status) == (left.id, "succeeded")
    assert watched.broken == []
    site.serves(site.green, "1.1.0")


@pytest.mark.long
def test_an_abort_is_a_switch_back_at_once(site: Site, story: Story) -> None:
    """It does not wait until the bake time is over, which is longer than this test may take."""
    live = next(colour for colour in (site.blue, site.green) if site.environment.balancer()[colour[0]] == "UP")
    before = {look.says for look in site.environment.look(*live).values()}
    run = site.start("deploy.yml", "1.6.0", rollout_phases=[{"name": "idle"}, {"name": "live", "bake": 3000}])
    run.until("bakes for 3000 s")
    assert site.run("abort.yml").rc == 0
    ended = run.end()
    assert ended.rc != 0
    assert site.environment.view().status == "reverted"
    site.serves(live, *before)
