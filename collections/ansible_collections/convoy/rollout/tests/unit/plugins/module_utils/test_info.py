# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a host: facts, problems, health, and never a change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, info
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree


def deploy(world: Any, version: str, **fields: Any) -> None:
    """Stage and activate a release."""
    release = world.stage(version)
    host = world.host()
    host.begin()
    activation.activate(host, world.order(release, **fields))


def look(world: Any, *units: str, verify: bool = False) -> dict[str, Any]:
    """The facts."""
    return info.look(world.host(), units, verify)


def test_host_that_convoy_never_saw(world: Any) -> None:
    host = Host(
        Tree(str(world.place / "none"), "hello"), world.supervisor, world.clock, unit_directory=str(world.units)
    )
    facts = info.look(host, [], False)
    assert facts == {
        "present": False,
        "active": None,
        "version": None,
        "kind": None,
        "active_since": None,
        "good": [],
        "last_good": None,
        "staged": [],
        "obstacle": None,
        "problems": [],
        "unsettled": None,
        "unconfirmed": None,
        "busy": None,
        "process": {},
        "releases": [],
    }
    assert host.tree.token().value == 0
    assert host.tree.free()[0] > 0
    assert host.tree.place().endswith(":none")
    assert not (world.place / "none").exists()


def test_host_that_is_well(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0")
    world.stage("1.2.0")
    facts = look(world, verify=True)
    assert facts["problems"] == []
    assert (facts["active"], facts["version"], facts["last_good"]) == ("1.1.0-abc", "1.1.0", "1.0.0-abc")
    assert facts["good"] == ["1.1.0-abc", "1.0.0-abc"]
    assert facts["staged"] == ["1.0.0-abc", "1.1.0-abc", "1.2.0-abc"]
    assert [(release["id"], release["state"]) for release in facts["releases"]] == [
        ("1.2.0-abc", "staged"),
        ("1.1.0-abc", "good"),
        ("1.0.0-abc", "good"),
    ]
    assert facts["process"]["hello.service"]["release"] == "1.1.0-abc"
    assert facts["active_since"] == pytest.approx(world.journal()[-2]["at"], abs=1)


def damage(world: Any) -> None:
    (world.root / "releases" / "1.0.0-abc" / "version").write_text("9.9.9")


def add(world: Any) -> None:
    (world.root / "releases" / "1.0.0-abc" / "stranger").touch()


def edit_unit(world: Any) -> None:
    with (world.units / "hello.service").open("a") as stream:
        stream.write("Nice=7\n")


def add_unit(world: Any) -> None:
    (world.units / "more.service").write_text("# Managed by Convoy: hello x\n[Service]\n")


def stop(world: Any) -> None:
    world.supervisor.stop(["hello.service"])


def dangle(world: Any) -> None:
    os.unlink(world.root / "current")
    os.symlink("releases/gone", world.root / "current")


def die(world: Any) -> None:
    world.host().note("activating", "2.0.0-abc", came_from="1.0.0-abc")


def die_on_the_way_back(world: Any) -> None:
    world.host().note("reverting", "1.0.0-abc")


def garble(world: Any) -> None:
    with (world.root / ".convoy" / "journal.jsonl").open("a") as stream:
        stream.write("garbled\n")


def put_beside(world: Any) -> None:
    (world.root / "releases" / "by-hand").mkdir()


def lose_record(world: Any) -> None:
    (world.root / ".convoy" / "releases" / "1.0.0-abc.json").unlink()


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (damage, "the active release differs: version: other content than recorded"),
        (add, "the active release has a file more than it should: stranger"),
        (edit_unit, "unit hello.service differs from the active release's"),
        (add_unit, "unit more.service does not belong to the active release"),
        (stop, "hello.service: it is inactive (dead), result success"),
        (dangle, "current points to releases/gone, which is not there"),
        (die, "the activation of 2.0.0-abc by rollout r-1 did not end: run the deployment or the rollback again"),
        (die_on_the_way_back, "the way back of 1.0.0-abc by rollout r-1 did not end"),
        (garble, "journal.jsonl cannot be read"),
        (put_beside, "by-hand in "),
        (lose_record, "the active release 1.0.0-abc has no record"),
    ],
)
def test_every_problem_is_named(world: Any, harm: Any, problem: str) -> None:
    deploy(world, "1.0.0")
    harm(world)
    before = sorted(str(path) for path in world.place.rglob("*"))
    problems = look(world, verify=True)["problems"]
    assert any(problem in found for found in problems), problems
    assert sorted(str(path) for path in world.place.rglob("*") if "loaded" not in str(path)) == [
        path for path in before if "loaded" not in path
    ]


@pytest.mark.parametrize(("harm", "is_obstacle"), [(dangle, True), (garble, True), (stop, False), (damage, False)])
def test_only_what_bars_a_deployment_is_an_obstacle(world: Any, harm: Any, is_obstacle: bool) -> None:
    deploy(world, "1.0.0")
    assert look(world)["obstacle"] is None
    harm(world)
    assert (look(world)["obstacle"] is not None) is is_obstacle


def test_content_is_read_only_on_request(world: Any) -> None:
    deploy(world, "1.0.0")
    damage(world)
    assert look(world)["problems"] == []


def test_process_of_another_release(world: Any) -> None:
    deploy(world, "1.0.0")
    world.stage("1.1.0")
    os.unlink(world.root / "current")
    os.symlink("releases/1.1.0-abc", world.root / "current")
    assert any("runs from" in problem and "1.0.0-abc" in problem for problem in look(world)["problems"])


def test_call_that_is_under_way_is_no_problem(world: Any) -> None:
    deploy(world, "1.0.0")
    die(world)
    host = world.host()
    with host.tree.lock(world.clock, 0, "state=active of rollout r-9"):
        facts = look(world)
        assert facts["busy"] == f"process {os.getpid()}, state=active of rollout r-9"
        assert facts["problems"] == []
    assert look(world)["busy"] is None


def test_unconfirmed_release(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    unconfirmed = look(world)["unconfirmed"]
    assert unconfirmed["release"] == "1.1.0-abc"
    assert unconfirmed["until"] == pytest.approx(world.clock.time + 60, abs=1)
    activation.confirm(world.host(), world.order("1.1.0-abc"))
    assert look(world)["unconfirmed"] is None


def test_health_is_asked_once(world: Any) -> None:
    deploy(world, "1.0.0")
    healthy = info.health(world.host(), "1.0.0-abc", [world.probe], {})
    assert healthy is not None
    assert (healthy["verdict"], len(healthy["attempts"])) == ("pass", 1)
    ill = info.health(world.host(), "1.0.0-abc", [{"kind": "command", "argv": ["false"]}], {})
    assert ill is not None
    assert (ill["verdict"], len(ill["attempts"])) == ("fail", 1)


def test_health_of_nothing_is_not_asked(world: Any) -> None:
    deploy(world, "1.0.0")
    assert info.health(world.host(), None, [world.probe], {}) is None
    assert info.health(world.host(), "1.0.0-abc", [], {}) is None
    with pytest.raises(GateError):
        info.health(world.host(), None, [{"kind": "telepathy"}], {})


def test_unit_by_name(world: Any) -> None:
    deploy(world, "1.0.0")
    assert look(world, "other.service")["problems"] == ["other.service: systemd could not load it (not-found)"]


def test_journal_with_a_torn_end_is_read(world: Any) -> None:
    deploy(world, "1.0.0")
    path = Path(world.root, ".convoy", "journal.jsonl")
    path.write_bytes(path.read_bytes() + b'{"at":1')
    assert look(world)["problems"] == []
