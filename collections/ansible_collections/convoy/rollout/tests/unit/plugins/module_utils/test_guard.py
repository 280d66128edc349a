# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does by itself: the deadline of a confirmation, and units after a power cut."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, guard
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.guard import Deadline

TIMER, SERVICE = "convoy-confirm-hello.timer", "convoy-confirm-hello.service"


def deploy(world: Any, version: str, units: Any = None, **fields: Any) -> None:
    """Stage and activate a release."""
    release = world.stage(version, units=units)
    host = world.host()
    host.begin()
    activation.activate(host, world.order(release, **fields))


def let_pass(world: Any, seconds: float) -> None:
    """Time goes by: on the wall, which is all that a test can move."""
    world.clock.sleep(seconds)


def helpers(world: Any) -> list[str]:
    """The unit files that are neither the component's nor anybody's but Convoy's."""
    return sorted(path.name for path in world.units.iterdir() if path.name.startswith("convoy-"))


@pytest.mark.parametrize(
    ("wall", "boot", "uptime", "passed"),
    [
        (1000.0, "b1", 500.0, False),
        (1058.0, "b1", 558.0, False),
        (1059.0, "b1", 559.0, True),
        # The clock was set back: the host was up for long enough.
        (10.0, "b1", 560.0, True),
        # After a reboot the wall clock decides, and if that is wrong, the time since the boot.
        (1061.0, "b2", 5.0, True),
        (1030.0, "b2", 5.0, False),
        (10.0, "b2", 5.0, False),
        (10.0, "b2", 60.0, True),
    ],
)
def test_deadline(wall: float, boot: str, uptime: float, passed: bool) -> None:
    deadline = Deadline("r", seconds=60.0, until=1060.0, boot="b1", armed_at=500.0)
    assert deadline.has_passed(wall, boot, uptime) is passed


def test_timer_is_set_before_the_switch_and_again_after_the_gate(world: Any) -> None:
    deploy(world, "1.0.0")
    world.supervisor.calls.clear()
    deploy(world, "1.1.0", confirm_within=60)
    starts = [at for at, call in enumerate(world.supervisor.calls) if call == f"restart {TIMER}"]
    restart = world.supervisor.calls.index("restart hello.service")
    assert len(starts) == 2
    assert starts[0] < restart < starts[1]
    assert helpers(world) == [SERVICE, TIMER]
    assert TIMER in world.supervisor.enabled()
    assert "OnActiveSec=61s\n" in (world.units / TIMER).read_text()
    assert " UTC\n" in (world.units / TIMER).read_text()
    deadline = guard.read_deadline(world.host())
    assert deadline is not None
    assert (deadline.release, deadline.seconds) == ("1.1.0-abc", 60)


def test_confirmation_removes_the_timer(world: Any) -> None:
    deploy(world, "1.0.0", confirm_within=60)
    activation.confirm(world.host(), world.order("1.0.0-abc"))
    assert helpers(world) == []
    assert guard.read_deadline(world.host()) is None
    assert TIMER not in world.supervisor.enabled()
    let_pass(world, 100)
    assert guard.revert(world.host()) == "nothing waits for a confirmation"
    assert world.current == "releases/1.0.0-abc"


def test_confirmation_that_died_leaves_no_timer_when_it_comes_again(world: Any) -> None:
    deploy(world, "1.0.0", confirm_within=60)
    world.host().note("good", "1.0.0-abc")
    assert activation.confirm(world.host(), world.order("1.0.0-abc"))["changed"] is False
    assert helpers(world) == []


def test_host_goes_back_when_nobody_confirms(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    assert guard.revert(world.host()) == "1.1.0-abc may still be confirmed"
    assert world.current == "releases/1.1.0-abc"
    let_pass(world, 60)
    assert "not confirmed within 60 s. 1.0.0-abc is active again" in guard.revert(world.host())
    assert world.current == "releases/1.0.0-abc"
    assert world.events()[-2:] == ["reverting 1.1.0", "reverted 1.1.0"]
    assert world.journal()[-1]["rollout"] == "r-1"
    assert helpers(world) == []
    assert guard.revert(world.host()) == "nothing waits for a confirmation"


def test_first_release_that_nobody_confirms_leaves_nothing(world: Any) -> None:
    deploy(world, "1.0.0", confirm_within=60)
    let_pass(world, 60)
    guard.revert(world.host())
    assert world.current is None
    assert world.supervisor.running() == {}
    assert os.listdir(world.units) == ["multi-user.target.wants"]


def test_activation_that_died_is_undone_at_its_deadline(world: Any) -> None:
    deploy(world, "1.0.0")
    release = world.stage("1.1.0")
    host = world.host()
    host.note("activating", release, came_from="1.0.0-abc")
    guard.arm(host, release, 60)
    os.unlink(world.root / "current")
    (world.root / "current").symlink_to(f"releases/{release}")
    let_pass(world, 60)
    assert "1.0.0-abc is active again" in guard.revert(world.host())
    assert world.events()[-3:] == ["interrupted 1.1.0", "reverting 1.1.0", "reverted 1.1.0"]


def test_deadline_of_a_release_that_was_left_is_removed(world: Any) -> None:
    deploy(world, "1.0.0")
    deploy(world, "1.1.0", confirm_within=60)
    deploy(world, "1.2.0")
    assert helpers(world) == []
    let_pass(world, 60)
    guard.revert(world.host())
    assert world.current == "releases/1.2.0-abc"


def test_helpers_are_no_units_of_the_component(world: Any) -> None:
    deploy(world, "1.0.0", confirm_within=60)
    assert set(world.host().units.find(())) == {"hello.service"}


def test_deadline_that_cannot_be_read_is_named(world: Any) -> None:
    (Path(world.host().tree.state) / "deadline.json").write_text("{}")
    with pytest.raises(TreeError, match=r"deadline\.json cannot be read"):
        guard.read_deadline(world.host())


# --- a power cut -------------------------------------------------------------------------------------------------


def test_units_that_do_not_fit_are_made_to_fit_at_boot(world: Any) -> None:
    deploy(world, "1.0.0")
    host = world.host()
    new = [world.service("Nice=5\n")]
    guard.stand_by(host, ["hello.service", "new.service"])
    host.units.write([*new, type(new[0])("new.service", new[0].content)], "1.1.0-abc")
    recovery = (world.units / "convoy-recover-hello.service").read_text()
    assert "Before=hello.service new.service\n" in recovery
    assert (world.units / "multi-user.target.wants" / "convoy-recover-hello.service").exists()
    assert guard.recover(world.host()) == "the units were made to fit"
    assert sorted(os.listdir(world.units)) == ["hello.service", "multi-user.target.wants"]
    assert "Nice=5" not in (world.units / "hello.service").read_text()
    assert os.listdir(world.units / "multi-user.target.wants") == []


def test_units_without_a_release_are_removed_at_boot(world: Any) -> None:
    host = world.host()
    guard.stand_by(host, ["hello.service"])
    host.units.write([world.service()], "1.0.0-abc")
    assert guard.recover(world.host()) == "the units were made to fit"
    assert os.listdir(world.units) == ["multi-user.target.wants"]


def test_units_that_fit_are_left_alone_at_boot(world: Any) -> None:
    deploy(world, "1.0.0")
    before = (world.units / "hello.service").stat().st_mtime_ns
    assert guard.recover(world.host()) == "the units fit"
    assert (world.units / "hello.service").stat().st_mtime_ns == before


def test_next_boot_is_prepared_only_while_units_change(world: Any) -> None:
    deploy(world, "1.0.0")
    wants = world.units / "multi-user.target.wants"
    before = wants.stat().st_mtime_ns
    deploy(world, "1.1.0")
    assert wants.stat().st_mtime_ns == before
    deploy(world, "1.2.0", units=[world.service("Nice=5\n")])
    assert wants.stat().st_mtime_ns != before
    assert os.listdir(wants) == []


# --- the script --------------------------------------------------------------------------------------------------


def test_script_needs_nothing_but_python(world: Any) -> None:
    """The script looks at the real clock, and finds that there is time left."""
    world.clock.time = time.time()
    deploy(world, "1.0.0", confirm_within=3600)
    script = world.root / ".convoy" / "guard.pyz"
    assert script.stat().st_mode & 0o777 == 0o600
    command = [sys.executable, "-I", "-S", str(script), "hello", str(world.root), "revert"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False)
    assert done.stdout == "1.0.0-abc may still be confirmed\n", done.stderr
    assert done.returncode == 0


def test_script_says_what_is_wrong(world: Any) -> None:
    deploy(world, "1.0.0", confirm_within=60)
    (world.root / ".convoy" / "deadline.json").write_text("")
    script = str(world.root / ".convoy" / "guard.pyz")
    command = [sys.executable, "-I", script, "hello", str(world.root), "revert"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "deadline.json cannot be read" in done.stderr


def test_script_is_made_of_the_sources_and_always_the_same(tmp_path: Path) -> None:
    guard.build_script.cache_clear()
    first = guard.build_script()
    guard.build_script.cache_clear()
    assert guard.build_script() == first
    path = tmp_path / "guard.pyz"
    path.write_bytes(first)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    package = guard.PACKAGE.replace(".", "/")
    assert {"__main__.py", f"{package}/activation.py", f"{package}/gate.py", f"{package}/__init__.py"} <= names


def test_script_can_be_made_from_within_an_archive(tmp_path: Path) -> None:
    """That is where a module runs from on a host."""
    path = tmp_path / "module.zip"
    path.write_bytes(guard.build_script())
    program = f"import sys; from {guard.PACKAGE} import guard; sys.stdout.buffer.write(guard.build_script())"
    made = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(path)}, stdout=-1, check=True).stdout
    assert made == guard.build_script()


def test_command_survives_odd_paths(world: Any) -> None:
    host = world.host()
    odd = type(host.tree)('/srv/a "b" 100%', "hello")
    assert guard._command(type(host)(odd, world.supervisor, world.clock)).endswith('"hello" "/srv/a \\"b\\" 100%%"')
