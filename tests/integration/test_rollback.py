# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback.yml: to what was good before, never forward, never a green nothing; allowed whenever it is needed."""

from __future__ import annotations

import pytest

from .environment import ALL_AT_ONCE, Environment

FROZEN = [{"name": "always", "from": "2020-01-01", "until": "2099-01-01"}]


def test_each_rollback_goes_further_back_until_nothing_good_is_left(on_1_1_0: Environment) -> None:
    few = {**on_1_1_0.few, "rollout_phases": ALL_AT_ONCE}
    hosts = on_1_1_0.hosts[:3]
    deployed = on_1_1_0.deploy("1.1.0", **few, hello_greeting="Hello, all of you,")
    assert deployed.rc == 0, deployed.said
    changed = on_1_1_0.see("1.1.0", *hosts)["app1"].active
    before = on_1_1_0.look("app4")["app4"].active
    assert changed != before

    back = on_1_1_0.run("rollback.yml", **few)
    assert back.rc == 0, back.said
    assert {look.active for look in on_1_1_0.see("1.1.0", *hosts).values()} == {before}
    assert on_1_1_0.fleet.shell("app1", "cat /srv/hello/current/etc/hello.json").count("all of you") == 0

    back = on_1_1_0.run("rollback.yml", **few)
    assert back.rc == 0, back.said
    assert "rollback of hello 1.0.0 in test: succeeded" in back.summary
    on_1_1_0.see("1.0.0", *hosts)

    with on_1_1_0.untouched():
        refused = on_1_1_0.run("rollback.yml", **few)
    assert refused.rc != 0
    assert "there is no good release to roll back to" in refused.said


def test_the_whole_fleet_goes_back_without_a_lost_request(on_1_1_0: Environment) -> None:
    with on_1_1_0.watched() as watched:
        back = on_1_1_0.run("rollback.yml")
    assert back.rc == 0, back.said
    on_1_1_0.see("1.0.0")
    assert watched.broken == []
    assert watched.drained == set(on_1_1_0.hosts)
    assert watched.most_out() <= 2


def test_a_freeze_bars_the_way_forward_and_not_the_way_back(on_1_1_0: Environment) -> None:
    few = {**on_1_1_0.few, "environment_freezes": FROZEN, "rollout_phases": ALL_AT_ONCE}
    with on_1_1_0.untouched():
        refused = on_1_1_0.deploy("1.6.0", **few)
    assert refused.rc != 0
    assert "the environment is frozen (always)" in refused.said
    back = on_1_1_0.run("rollback.yml", "1.0.0", **few)
    assert back.rc == 0, back.said
    on_1_1_0.see("1.0.0", *on_1_1_0.hosts[:3])


@pytest.mark.long
def test_a_version_that_is_not_there_or_was_never_good_is_no_goal(on_1_1_0: Environment) -> None:
    bad = on_1_1_0.deploy("1.2.0", **on_1_1_0.few)
    assert bad.rc != 0
    assert on_1_1_0.look("app1")["app1"].releases[-1].startswith("1.2.0-")
    for version in ("1.2.0", "9.9.9"):
        with on_1_1_0.untouched():
            refused = on_1_1_0.run("rollback.yml", version, **on_1_1_0.few)
        assert refused.rc != 0
        assert f"app1 has no good release of version {version}" in refused.said
    on_1_1_0.see("1.1.0")


def test_a_rollback_of_a_rollout_that_was_killed_takes_back_what_it_had_changed(on_1_1_0: Environment) -> None:
    """Most hosts still run 1.1.0, and have 1.0.0 behind it: that is not where the rollback goes."""
    on_1_1_0.publish("1.6.0")
    phases = [{"name": "canary", "size": 1, "bake": 60}, {"name": "rest", "size": "100%"}]
    killed = on_1_1_0.start("deploy.yml", "1.6.0", **on_1_1_0.few, rollout_phases=phases)
    killed.until("bakes for")
    killed.kill()
    back = on_1_1_0.run("rollback.yml", **on_1_1_0.few)
    assert back.rc == 0, back.said
    on_1_1_0.see("1.1.0")
    assert not any(entry["rollout"] == on_1_1_0.view().id for entry in on_1_1_0.look("app2")["app2"].journal)
