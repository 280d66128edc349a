# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The road of a release into service and back, over real trees and processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, process, record, staging
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ActivationError,
    GateError,
    NotIntactError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Limits


def deploy(world: Any, version: str, rollout: str = "r-1", token: int = 1, **fields: Any) -> dict[str, Any]:
    """Stage and activate a release, as a rollout does."""
    release = world.stage(version, host=world.host(rollout, token), **fields.pop("release", {}))
    host = world.host(rollout, token)
    host.begin()
    return activation.activate(host, world.order(release, **fields))


def deploy_unhealthy(world: Any, version: str, **fields: Any) -> ActivationError:
    """Deploy a release whose health check fails; the error."""
    host = world.host()
    wanted, _artifact = world.wanted(version)
    without = tuple(entry for entry in wanted.files if entry.path != "healthy")
    assert len(without) == len(wanted.files) - 1
    release = world.stage(version, host=host)
    os.unlink(world.root / "releases" / release / "healthy")
    recorded = host.tree.read_record(release)
    kept = record.Record(**{**recorded._asdict(), "files": without})
    with open(host.tree.record_path(release), "wb") as stream:
        stream.write(kept.as_json())
    with pytest.raises(ActivationError) as caught:
        activation.activate(world.host(), world.order(release, **fields))
    return caught.value


def test_first_deployment(world: Any) -> None:
    result = deploy(world, "1.0.0")
    assert result["changed"] is True
    assert (result["active"], result["previous"], result["reverted"]) == ("1.0.0-abc", None, False)
    assert world.current == "releases/1.0.0-abc"
    assert result["gate"]["verdict"] == "pass"
    assert result["process"]["hello.service"]["release"] == "1.0.0-abc"
    assert world.events() == ["staged 1.0.0", "activating 1.0.0", "good 1.0.0"]
    assert world.supervisor.enabled() == {"hello.service"}
    assert (world.units / "hello.service").read_text().startswith("# Managed by Convoy: hello 1.0.0-abc\n")


def test_second_release_takes_the_first_ones_place(world: Any) -> None:
    deploy(world, "1.0.0")
    result = deploy(world, "1.1.0")
    assert (result["active"], result["previous"]) == ("1.1.0-abc", "1.0.0-abc")
    assert world.journal()[-2]["from"] == "1.0.0-abc"


def test_active_and_healthy_is_left_alone(world: Any) -> None:
    deploy(world, "1.0.0")
    before, pids = world.events(), world.supervisor.running()
    world.supervisor.calls.clear()
    result = deploy(world, "1.0.0")
    assert result["changed"] is False
    assert result["gate"]["verdict"] == "pass"
    assert (world.events(), world.supervisor.running()) == (before, pids)
    assert set(world.supervisor.calls) == {"show"}


def test_a_release_that_drifted_is_mended_and_restarted_though_it_seems_well(world: Any) -> None:
    release = world.stage("1.0.0")
    activation.activate(world.host(), world.order(release))
    before = world.supervisor.running()
    (world.root / "releases" / release / "version").write_text("9.9.9")
    world.supervisor.disable(["hello.service"])
    host = world.host("r-2", 2)
    staging.stage(host, *world.wanted("1.0.0"), Limits(), strict=False)
    result = activation.activate(host, world.order(release, mend=True))
    assert (result["changed"], result["active"]) == (True, release)
    assert (world.root / "releases" / release / "version").read_text() == "1.0.0"
    assert world.supervisor.running() != before
    assert world.supervisor.enabled() == {"hello.service"}
    assert world.events()[-2:] == ["activating 1.0.0", "good 1.0.0"]


def test_a_process_beside_the_unit_is_ended_when_a_release_is_mended(world: Any) -> None:
    unit = world.service(f"ExecStart={sys.executable} run.py\n")
    files = {"run.py": b"import time; time.sleep(60)"}
    release = world.stage("1.0.0", units=[unit], files=files)
    activation.activate(world.host(), world.order(release))
    beside = subprocess.Popen([sys.executable, "run.py"], cwd=world.root / "current")
    editor = subprocess.Popen(["sleep", "60"], cwd=world.root / "current")
    try:
        while not process.strays(str(world.root / "releases"), ["hello.service"], [sys.executable]):
            assert beside.poll() is None
        activation.activate(world.host(), world.order(release, mend=True))
        assert beside.wait(10) == -signal.SIGTERM
        assert editor.poll() is None
    finally:
        for one in (beside, editor):
            one.kill()
            one.wait()


def test_units_are_read_again_only_when_their_text_changed(world: Any) -> None:
    deploy(world, "1.0.0")
    world.supervisor.calls.clear()
    deploy(world, "1.1.0")
    assert "daemon-reload" not in world.supervisor.calls
    deploy(world, "1.2.0", release={"units": [world.service("Nice=5\n")]})
    assert world.supervisor.calls.count("daemon-reload") == 1


def test_unhealthy_release_goes_back(world: Any) -> None:
    deploy(world, "1.0.0")
    error = deploy_unhealthy(world, "1.1.0")
    assert error.details["reverted"] is True
    assert error.details["active"] == "1.0.0-abc"
    assert error.details["gate"]["verdict"] == "fail"
    assert error.details["gate_after"]["verdict"] == "pass"
    assert "1.0.0-abc is active again" in error.message
    assert world.current == "releases/1.0.0-abc"
    assert world.events()[-3:] == ["activating 1.1.0", "reverting 1.1.0", "bad 1.1.0"]
    assert world.journal()[-1]["to"] == "1.0.0-abc"
    running = activation._look_at_processes(world.host(), world.host().tree.read_record("1.0.0-abc"), 0)[0]
    assert running["hello.service"]["release"] == "1.0.0-abc"


def test_first_deployment_that_fails_leaves_nothing(world: Any) -> None:
    error = deploy_unhealthy(world, "1.0.0")
    assert (error.details["reverted"], error.details["active"]) == (True, None)
    assert world.current is None
    assert not (world.root / "current").exists()
    assert not (world.units / "hello.service").exists()
    assert world.supervisor.running() == {}
    assert world.supervisor.enabled() == set()


def test_release_that_does_not_start_goes_back(world: Any) -> None:
    deploy(world, "1.0.0")
    with pytest.raises(ActivationError, match=r"Job for hello.service failed.*1\.0\.0-abc is active again") as caught:
        deploy(world, "1.1.0", release={"files": {"refuses-to-start": b""}})
    assert caught.value.details["log"] == ["hello.service said goodbye"]
    assert world.current == "releases/1.0.0-abc"
    assert list(world.supervisor.running()) == ["hello.service"]


def test_process_that_is_not_the_release_goes_back(world: Any) -> None:
    deploy(world, "1.0.0")
    with pytest.raises(ActivationError, match=r"outside .*releases.*WorkingDirectory="):
        deploy(world, "1.1.0", release={"units": [world.service("# old-directory\n")]})
    assert world.current == "releases/1.0.0-abc"
    assert "old-directory" not in (world.units / "hello.service").read_text()


def test_unit_of_the_new_release_only_is_gone_after_the_way_back(world: Any) -> None:
    deploy(world, "1.0.0")
    worker = record.Unit("worker.service", world.service().content)
    with pytest.raises(ActivationError):
        deploy(world, "1.1.0", release={"files": {"refuses-to-start": b""}, "units": [world.service(), worker]})
    assert not (world.units / "worker.service").exists()
    assert list(world.supervisor.running()) == ["hello.service"]
    assert world.supervisor.enabled() == {"hello.service"}


def test_unit_of_the_old_release_only_comes_back(world: Any) -> None:
    worker = record.Unit("worker.service", world.service("Nice=5\n").content)
    deploy(world, "1.0.0", release={"units": [world.service(), worker]})
    with pytest.raises(ActivationError):
        deploy(world, "1.1.0", release={"files": {"refuses-to-start": b""}})
    assert "Nice=5" in (world.units / "worker.service").read_text()
    assert sorted(world.supervisor.running()) == ["hello.service", "worker.service"]


def test_unit_that_left_the_component_is_removed(world: Any) -> None:
    worker = record.Unit("worker.service", world.service().content)
    deploy(world, "1.0.0", release={"units": [world.service(), worker]})
    deploy(world, "1.1.0")
    assert not (world.units / "worker.service").exists()
    assert list(world.supervisor.running()) == ["hello.service"]


def test_reload_keeps_the_process(world: Any) -> None:
    units = {"units": [world.service(action="reload")]}
    deploy(world, "1.0.0", release=units)
    before = world.supervisor.running()
    deploy(world, "1.1.0", release=units)
    assert world.supervisor.running() == before
    assert (world.root / "releases" / "1.0.0-abc").is_dir()


def test_reload_of_a_changed_unit_is_a_restart(world: Any) -> None:
    deploy(world, "1.0.0", release={"units": [world.service(action="reload")]})
    before = world.supervisor.running()
    deploy(world, "1.1.0", release={"units": [world.service("Nice=5\n", action="reload")]})
    assert world.supervisor.running() != before


def test_unit_of_somebody_else_is_refused_before_anything_is_touched(world: Any) -> None:
    (world.units / "hello.service").write_text("[Service]\nExecStart=/usr/bin/mine\n")
    with pytest.raises(TreeError, match=r"hello\.service was not written by Convoy"):
        deploy(world, "1.0.0")
    assert world.events() == ["staged 1.0.0"]
    assert world.current is None


def test_damaged_release_is_never_activated(world: Any) -> None:
    release = world.stage("1.0.0")
    (world.root / "releases" / release / "version").write_text("9.9.9")
    with pytest.raises(NotIntactError, match="version: other content than recorded"):
        activation.activate(world.host(), world.order(release))
    assert world.current is None


def test_without_a_probe_nothing_is_activated(world: Any) -> None:
    release = world.stage("1.0.0")
    with pytest.raises(TreeError, match="there is no probe"):
        activation.activate(world.host(), world.order(release, probes=()))
    assert world.events() == ["staged 1.0.0"]


def test_gate_that_is_written_wrong_is_found_before_anything_is_touched(world: Any) -> None:
    release = world.stage("1.0.0")
    with pytest.raises(GateError):
        activation.activate(world.host(), world.order(release, gate={"deadline": 1, "min_healthy_time": 5}))
    assert world.current is None


def test_unhealthy_release_that_was_good_before_stays(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0")
    probe = {"kind": "command", "argv": ["false"]}
    with pytest.raises(ActivationError, match="It stays active") as caught:
        activation.activate(world.host(), world.order("1.1.0-abc", probes=(probe,)))
    assert caught.value.details["reverted"] is False
    assert world.current == "releases/1.1.0-abc"
    assert world.host().history().last_good({"1.0.0-abc", "1.1.0-abc"}, besides=None) == "1.0.0-abc"


def test_stopped_service_is_started_again(world: Any) -> None:
    deploy(world, "1.0.0")
    world.supervisor.stop(["hello.service"])
    assert deploy(world, "1.0.0")["changed"] is True
    assert list(world.supervisor.running()) == ["hello.service"]
    assert deploy(world, "1.0.0")["changed"] is False


def test_unit_file_that_was_edited_is_put_right(world: Any) -> None:
    deploy(world, "1.0.0")
    with (world.units / "hello.service").open("a") as stream:
        stream.write("# a person was here\n")
    assert deploy(world, "1.0.0")["changed"] is True
    assert "a person" not in (world.units / "hello.service").read_text()


def test_unit_that_was_written_but_not_read_is_read(world: Any) -> None:
    deploy(world, "1.0.0")
    text = (world.units / "hello.service").read_text()
    (world.units / "hello.service").write_text(text + "Nice=5\n")
    world.supervisor.daemon_reload()
    (world.units / "hello.service").write_text(text)
    assert deploy(world, "1.0.0")["changed"] is True
    assert world.supervisor.show(["hello.service"])["hello.service"].is_outdated is False


def test_release_without_a_record_is_what_there_is_to_go_back_to(world: Any) -> None:
    world.host()
    by_hand = world.root / "releases" / "20240101"
    by_hand.mkdir()
    (by_hand / "healthy").write_text("")
    (world.root / "current").symlink_to("releases/20240101")
    with pytest.raises(ActivationError, match="20240101 is active again"):
        deploy(world, "1.0.0", release={"files": {"refuses-to-start": b""}})
    assert world.current == "releases/20240101"
    assert deploy(world, "1.1.0")["active"] == "1.1.0-abc"


# --- reverted ----------------------------------------------------------------------------------------------------


def revert(world: Any, release: str | None = None, rollout: str = "r-2") -> dict[str, Any]:
    """Go back, as a rollout does."""
    host = world.host(rollout, 2)
    host.begin()
    return activation.revert(host, world.order(release))


def test_rollback_goes_to_the_last_good_one(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0")
    result = revert(world)
    assert (result["changed"], result["reverted"], result["active"]) == (True, True, "1.0.0-abc")
    assert world.events()[-3:] == ["reverting 1.1.0", "reverted 1.1.0", "good 1.0.0"]
    assert world.host().history().is_good("1.1.0-abc") is False


def test_rollback_is_done_once_within_a_rollout(world: Any) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        deploy(world, version)
    assert revert(world)["active"] == "1.1.0-abc"
    again = revert(world)
    assert (again["changed"], again["active"]) == (False, "1.1.0-abc")
    assert revert(world, rollout="r-3")["active"] == "1.0.0-abc"


def test_rollback_passes_over_bad_releases(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy_unhealthy(world, "1.1.0")
    deploy(world, "1.2.0")
    assert revert(world)["active"] == "1.0.0-abc"


def test_rollback_to_a_named_release(world: Any) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        deploy(world, version)
    assert revert(world, "1.0.0-abc")["active"] == "1.0.0-abc"
    assert revert(world, "1.0.0-abc")["changed"] is False
    assert world.host().history().is_good("1.1.0-abc") is True


def test_rollback_brings_the_old_units_back(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", release={"units": [world.service("Nice=5\n")]})
    revert(world)
    assert "Nice=5" not in (world.units / "hello.service").read_text()


def test_rollback_without_a_good_release_is_refused(world: Any) -> None:
    deploy(world, "1.0.0")
    with pytest.raises(TreeError, match=r"no good release.*1\.0\.0-abc stays active"):
        revert(world)
    assert world.current == "releases/1.0.0-abc"


def test_way_back_of_a_first_rollout_leaves_nothing(world: Any) -> None:
    deploy(world, "1.0.0", rollout="r-1")
    result = revert(world, rollout="r-1")
    assert (result["changed"], result["active"]) == (True, None)
    assert world.current is None
    assert world.supervisor.running() == {}
    assert revert(world, rollout="r-1")["changed"] is False


def test_way_back_after_the_host_went_back_itself_goes_no_further(world: Any) -> None:
    deploy(world, "1.0.0", rollout="r-0")
    deploy(world, "1.1.0", rollout="r-1")
    with pytest.raises(ActivationError):
        deploy(world, "1.2.0", rollout="r-2", token=2, release={"files": {"refuses-to-start": b""}})
    result = revert(world, rollout="r-2")
    assert (result["changed"], result["active"]) == (False, "1.1.0-abc")


def test_rollback_to_an_unhealthy_release_stops_there(world: Any) -> None:
    database = world.place / "database"
    database.touch()
    deploy(world, "1.0.0", probes=({"kind": "command", "argv": ["test", "-e", str(database)]},))
    deploy(world, "1.1.0")
    database.unlink()
    with pytest.raises(ActivationError, match=r"went back to 1\.0\.0-abc, and it is unhealthy") as caught:
        revert(world)
    assert caught.value.details["active"] == "1.0.0-abc"
    assert world.events()[-2:] == ["reverted 1.1.0", "bad 1.0.0"]


# --- confirmed ---------------------------------------------------------------------------------------------------


def confirm(world: Any, release: str) -> dict[str, Any]:
    """Confirm, as a rollout does."""
    host = world.host("r-2", 2)
    host.begin()
    return activation.confirm(host, world.order(release))


def test_unconfirmed_release_is_not_yet_good(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    history = world.host().history()
    assert history.is_good("1.1.0-abc") is False
    assert history.unconfirmed is not None
    assert confirm(world, "1.1.0-abc")["changed"] is True
    assert world.host().history().is_good("1.1.0-abc") is True
    assert confirm(world, "1.1.0-abc")["changed"] is False


def test_confirming_what_is_not_active_is_refused(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    revert(world)
    with pytest.raises(TreeError, match=r"1\.1\.0-abc cannot be confirmed: it was left for 1\.0\.0-abc"):
        confirm(world, "1.1.0-abc")


def test_unconfirmed_release_is_nothing_to_go_back_to(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    with pytest.raises(ActivationError, match=r"1\.0\.0-abc is active again"):
        deploy(world, "1.2.0", release={"files": {"refuses-to-start": b""}})


# --- after a kill ------------------------------------------------------------------------------------------------


def test_killed_after_the_switch(world: Any) -> None:
    """The process is still the old one: only its working directory tells."""
    deploy(world, "1.0.0")
    release = world.stage("1.1.0")
    world.host().note("activating", release, came_from="1.0.0-abc")
    os.unlink(world.root / "current")
    (world.root / "current").symlink_to(f"releases/{release}")
    assert deploy(world, "1.1.0")["changed"] is True
    assert world.events()[-3:] == ["interrupted 1.1.0", "activating 1.1.0", "good 1.1.0"]
    assert world.journal()[-2]["from"] == "1.0.0-abc"


def test_killed_after_the_switch_and_unhealthy_goes_back_all_the_same(world: Any) -> None:
    deploy(world, "1.0.0")
    release = world.stage("1.1.0", files={"refuses-to-start": b""})
    world.host().note("activating", release, came_from="1.0.0-abc")
    os.unlink(world.root / "current")
    (world.root / "current").symlink_to(f"releases/{release}")
    with pytest.raises(ActivationError, match=r"1\.0\.0-abc is active again"):
        deploy(world, "1.1.0", release={"files": {"refuses-to-start": b""}})


def test_first_deployment_killed_twice_still_leaves_nothing_when_it_fails(world: Any) -> None:
    release = world.stage("1.0.0", files={"refuses-to-start": b""})
    (world.root / "current").symlink_to(f"releases/{release}")
    for _kill in range(2):
        host = world.host()
        host.begin()
        host.note("activating", release)
    with pytest.raises(ActivationError, match="nothing was active before"):
        deploy(world, "1.0.0", release={"files": {"refuses-to-start": b""}})
    assert world.current is None


def test_rollback_killed_after_the_switch_is_completed(world: Any) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        deploy(world, version)
    world.host("r-2", 2).note("reverting", "1.2.0-abc", went_to="1.1.0-abc")
    os.unlink(world.root / "current")
    (world.root / "current").symlink_to("releases/1.1.0-abc")
    result = revert(world, rollout="r-3")
    assert (result["changed"], result["active"]) == (True, "1.1.0-abc")
    assert world.events()[-4:] == ["interrupted 1.2.0", "reverting 1.2.0", "reverted 1.2.0", "good 1.1.0"]


# --- foreseen ----------------------------------------------------------------------------------------------------


def test_check_mode_tells_and_changes_nothing(world: Any) -> None:
    for number in range(4):
        deploy(world, f"1.{number}.0")
    release = world.stage("2.0.0")
    before = world.journal()
    foreseen = activation.foresee(world.host(), "active", world.order(release, keep=2))
    assert foreseen["changed"] is True
    assert foreseen["pruned"] == ["1.0.0-abc", "1.1.0-abc", "1.2.0-abc"]
    assert world.journal() == before
    assert world.current == "releases/1.3.0-abc"
    assert deploy(world, "2.0.0", keep=2)["pruned"] == foreseen["pruned"]
    assert activation.foresee(world.host(), "active", world.order(release))["changed"] is False
    assert activation.foresee(world.host(), "reverted", world.order(None))["release"] == "1.3.0-abc"
