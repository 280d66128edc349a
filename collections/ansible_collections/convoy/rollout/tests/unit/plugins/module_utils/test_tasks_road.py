# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two calls with the tasks of a site between them, over real trees and processes."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, record, staging, tasks_road
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ActivationError,
    ConvoyTargetError,
    InputError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.tasks_kind import TASKS
from ansible_collections.convoy.rollout.plugins.module_utils.tasks_road import Asked
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Limits


def stage(world: Any, version: str, **release: Any) -> str:
    """Bring a release to the host that tasks are to put in place."""
    host = world.host()
    host.begin()
    wanted, artifact = world.wanted(version, **release)
    wanted = wanted._replace(by_tasks=True)
    staging.check(host, wanted)
    staging.stage(host, wanted, artifact, Limits(), strict=False)
    return str(wanted.release)


def begin(world: Any, release: str | None, rollout: str = "r-1", **asked: Any) -> dict[str, Any]:
    host = world.host(rollout)
    host.begin()
    return tasks_road.begin(host, world.order(release), Asked(**asked))


def settle(world: Any, release: str | None, rollout: str = "r-1", **asked: Any) -> dict[str, Any]:
    host = world.host(rollout)
    host.begin(goes_on=True)
    return tasks_road.settle(host, world.order(release), Asked(**asked))


def deploy(world: Any, version: str, **release: Any) -> dict[str, Any]:
    staged = stage(world, version, **release)
    begun = begin(world, staged)
    return settle(world, staged, written=begun["tasks"]["written"])


def test_a_release_is_announced_put_in_place_and_found_good(world: Any) -> None:
    release = stage(world, "1.0.0")
    begun = begin(world, release)
    assert world.current == "releases/1.0.0-abc"
    assert begun["tasks"] == {
        "begun": True,
        "run": True,
        "release": {"id": release, "version": "1.0.0", "path": str(world.root / "releases" / release)},
        "previous": None,
        "written": ["hello.service"],
    }
    assert world.supervisor.running() == {}
    assert world.journal()[-1]["reason"] == "by tasks of the site"
    settled = settle(world, release)
    assert (settled["changed"], settled["active"], settled["gate"]["verdict"]) == (True, release, "pass")
    assert settled["process"]["hello.service"]["release"] == release
    assert world.events() == ["staged 1.0.0", "activating 1.0.0", "good 1.0.0"]


def test_the_tasks_are_told_what_they_come_from(world: Any) -> None:
    deploy(world, "1.0.0")
    begun = begin(world, stage(world, "1.1.0"))
    assert begun["tasks"]["previous"]["version"] == "1.0.0"
    assert world.journal()[-1]["from"] == "1.0.0-abc"


def test_what_serves_as_it_should_is_left_alone(world: Any) -> None:
    deploy(world, "1.0.0")
    before, pids = world.events(), world.supervisor.running()
    begun = begin(world, "1.0.0-abc")
    assert (begun["changed"], begun["tasks"]["begun"], begun["tasks"]["run"]) == (False, False, False)
    assert begun["gate"]["verdict"] == "pass"
    assert (world.events(), world.supervisor.running()) == (before, pids)


def test_a_repair_runs_them_all_the_same(world: Any) -> None:
    deploy(world, "1.0.0")
    host = world.host()
    host.begin()
    assert tasks_road.begin(host, world.order("1.0.0-abc", mend=True), Asked())["tasks"]["run"] is True


def test_units_may_be_there_by_the_tasks(world: Any) -> None:
    release = stage(world, "1.0.0", units=[record.Unit("hello.service", "")])
    begun = begin(world, release)
    assert begun["tasks"]["written"] == []
    (world.units / "hello.service").write_text(world.service().content)
    assert settle(world, release)["process"]["hello.service"]["release"] == release
    assert (world.units / "hello.service").read_text() == world.service().content, "it is not Convoy's"


def test_a_unit_that_the_tasks_did_not_bring_is_a_fault(world: Any) -> None:
    release = stage(world, "1.0.0", units=[record.Unit("hello.service", "")])
    begin(world, release)
    with pytest.raises(ActivationError, match=r"hello\.service not found"):
        settle(world, release)


def test_failed_tasks_are_written_down_and_the_release_waits_to_be_taken_back(world: Any) -> None:
    deploy(world, "1.0.0")
    release = stage(world, "1.1.0")
    begin(world, release)
    with pytest.raises(ActivationError, match=r"its tasks failed: no licence\. It stays active") as caught:
        settle(world, release, failure="no licence")
    assert (caught.value.details["active"], caught.value.details["reverted"]) == (release, False)
    assert caught.value.details["tasks"]["begun"] is True
    assert world.journal()[-1]["reason"] == "its tasks failed: no licence"
    unsettled = world.host().history().unsettled(release)
    assert unsettled is not None
    assert unsettled.is_known is True

    back = begin(world, "1.0.0-abc", back=True)
    assert (back["tasks"]["release"]["version"], back["tasks"]["previous"]["version"]) == ("1.0.0", "1.1.0")
    assert world.current == "releases/1.0.0-abc"
    returned = settle(world, "1.0.0-abc", back=True, written=back["tasks"]["written"])
    assert (returned["reverted"], returned["active"]) == (True, "1.0.0-abc")
    assert world.events()[-4:] == ["bad 1.1.0", "reverting 1.1.0", "reverted 1.1.0", "good 1.0.0"]


def test_an_unhealthy_release_is_bad(world: Any) -> None:
    release = stage(world, "1.0.0", files={"refuses-to-start": b""})
    begin(world, release)
    with pytest.raises(ActivationError, match=r"Job for hello\.service failed"):
        settle(world, release)
    assert world.events()[-1] == "bad 1.0.0"


def test_the_first_release_goes_back_to_nothing(world: Any) -> None:
    release = stage(world, "1.0.0")
    begin(world, release)
    with pytest.raises(ActivationError):
        settle(world, release, failure="x")
    begun = begin(world, None, back=True)
    assert (begun["tasks"]["release"], begun["tasks"]["previous"]["id"]) == (None, release)
    settled = settle(world, None, back=True)
    assert (settled["active"], settled["reverted"]) == (None, True)
    assert world.current is None
    assert not (world.units / "hello.service").exists()
    assert begin(world, None, back=True)["tasks"]["begun"] is False


def test_a_way_back_to_nothing_whose_tasks_fail_is_gone_again(world: Any) -> None:
    begin(world, stage(world, "1.0.0"))
    begin(world, None, back=True)
    with pytest.raises(ActivationError, match="the way back to nothing failed: its tasks failed: x"):
        settle(world, None, back=True, failure="x")
    assert world.current is not None
    assert begin(world, None, back=True)["tasks"]["begun"] is True
    assert settle(world, None, back=True)["active"] is None


def test_a_way_back_whose_tasks_fail_is_told(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0")
    begin(world, "1.0.0-abc", back=True)
    with pytest.raises(ActivationError, match=r"went back to 1.0.0-abc, and it is unhealthy: its tasks failed: x"):
        settle(world, "1.0.0-abc", back=True, failure="x")
    assert world.events()[-2:] == ["reverted 1.1.0", "bad 1.0.0"]
    assert begin(world, "1.0.0-abc", back=True)["tasks"]["run"] is True
    assert settle(world, "1.0.0-abc", back=True)["active"] == "1.0.0-abc"


# --- a controller that dies between the two ----------------------------------------------------------------------


def test_nobody_believes_what_was_only_begun(world: Any) -> None:
    deploy(world, "1.0.0")
    release = stage(world, "1.1.0")
    begin(world, release)
    assert list(TASKS.info(world.host(), world.host().tree.read_record(release), False)) == [
        "the tasks that put 1.1.0-abc in place were begun, and it is not known whether they are done: run the "
        "deployment again"
    ]
    again = begin(world, release)
    assert (again["tasks"]["run"], again["tasks"]["previous"]["version"]) == (True, "1.0.0")
    assert again["tasks"]["written"] == ["hello.service"], "it is not known whether it was restarted"
    interrupted = world.journal()[-2]
    assert (interrupted["event"], interrupted["reason"]) == (
        "interrupted",
        "begun by tasks, not known whether they are done",
    )
    settle(world, release)
    assert world.host().history().unsettled(release) is None


def test_tasks_in_doubt_are_held_or_taken_for_done_as_is_asked(world: Any) -> None:
    release = stage(world, "1.0.0")
    begin(world, release)
    with pytest.raises(TreeError, match="it is not known whether they are done; nothing was changed"):
        begin(world, release, in_doubt="hold")
    assert begin(world, release, in_doubt="done")["tasks"] == {
        "begun": True,
        "run": False,
        "release": {"id": release, "version": "1.0.0", "path": str(world.root / "releases" / release)},
        "previous": None,
        "written": ["hello.service"],
    }
    assert settle(world, release)["active"] == release


def test_another_release_runs_its_tasks_whatever_is_said_of_the_one_in_doubt(world: Any) -> None:
    begin(world, stage(world, "1.0.0"))
    begun = begin(world, stage(world, "1.1.0"), in_doubt="done")
    assert begun["tasks"]["run"] is True


def test_the_way_back_is_never_held(world: Any) -> None:
    deploy(world, "1.0.0")
    begin(world, stage(world, "1.1.0"))
    assert begin(world, "1.0.0-abc", back=True, in_doubt="hold")["tasks"]["run"] is True
    assert begin(world, "1.0.0-abc", back=True, in_doubt="hold")["tasks"]["run"] is True, "it was killed as well"
    unsettled = world.host().history().unsettled("1.0.0-abc")
    assert unsettled is not None
    assert unsettled.is_known is False
    assert settle(world, "1.0.0-abc", back=True)["active"] == "1.0.0-abc"
    assert world.host().history().unsettled("1.0.0-abc") is None


def test_only_the_rollout_that_began_may_settle(world: Any) -> None:
    release = stage(world, "1.0.0")
    with pytest.raises(TreeError, match="rollout r-1 has begun nothing on this host"):
        settle(world, release)
    begin(world, release)
    with pytest.raises(TreeError, match="rollout r-2 has begun nothing on this host"):
        settle(world, release, rollout="r-2")


# --- what does not fit -------------------------------------------------------------------------------------------


def test_a_release_that_is_to_be_verified_waits_for_that(world: Any) -> None:
    release = stage(world, "1.0.0")
    begin(world, release)
    settle(world, release, verifies=True)
    assert world.events()[-1] == "active 1.0.0"
    assert begin(world, release)["tasks"]["begun"] is False
    host = world.host()
    host.begin()
    activation.confirm(host, world.order(release))
    assert world.events()[-1] == "good 1.0.0"


def test_one_call_does_not_do_it_and_two_do_no_archive(world: Any) -> None:
    release = stage(world, "1.0.0")
    with pytest.raises(InputError, match="call state=begun, run them, and call state=settled; nothing was changed"):
        activation.activate(world.host(), world.order(release))
    archive = world.stage("1.1.0")
    with pytest.raises(InputError, match="was not staged as one that tasks put in place"):
        begin(world, archive)
    assert world.current is None


def test_a_host_has_no_tasks_to_take_a_release_back_by_itself() -> None:
    with pytest.raises(InputError, match="confirm_within is 60: a host cannot take a release back by itself"):
        tasks_road.asked_of({"confirm_within": 60, "tasks": {}})


def test_a_process_may_work_anywhere_but_in_another_release(world: Any) -> None:
    deploy(world, "1.0.0")
    host = world.host()
    running = next(iter(world.supervisor.running().values()))
    seen = activation.process.read(running)
    assert seen is not None
    recorded = host.tree.read_record("1.0.0-abc")
    assert TASKS.process_fault(host, seen, recorded, 0) is None
    assert TASKS.process_fault(host, seen._replace(cwd="/opt/vendor"), recorded, 0) is None
    other = TASKS.process_fault(host, seen, recorded._replace(release="1.1.0-abc"), 0)
    assert other is not None
    assert "works in release 1.0.0-abc" in other
    older = TASKS.process_fault(host, seen, recorded, seen.started_ticks + 1)
    assert older is not None
    assert "was not restarted" in older


def test_drift_names_tasks_that_did_not_end_well(world: Any) -> None:
    release = stage(world, "1.0.0")
    begin(world, release)
    recorded = world.host().tree.read_record(release)
    assert list(TASKS.drift(world.host(), recorded, True)) == [
        ("tasks", release, "ended well", "were begun, and it is not known whether they are done")
    ]
    with pytest.raises(ConvoyTargetError):
        settle(world, release, failure="x")
    assert list(TASKS.drift(world.host(), recorded, True)) == [("tasks", release, "ended well", "failed")]


def test_foreseen(world: Any) -> None:
    release = stage(world, "1.0.0")
    before = world.events()
    foreseen = tasks_road.foresee(world.host(), "begun", world.order(release), Asked())
    assert (foreseen["changed"], foreseen["tasks"]["run"]) == (True, True)
    assert tasks_road.foresee(world.host(), "settled", world.order(release), Asked())["changed"] is True
    assert world.events() == before
    deploy_again = begin(world, release)
    assert deploy_again["tasks"]["run"] is True
    settle(world, release)
    assert tasks_road.foresee(world.host(), "begun", world.order(release), Asked())["tasks"]["run"] is False
