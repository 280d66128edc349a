# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed anywhere, called again: the host ends on the old release or the new one, whole, and the journal is true.

A child process does the work and dies by SIGKILL just before its n-th change to the file system,
for every n that there is; and at moments that nobody chose. Then the same call is made again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, record, staging, tasks_road
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ActivationError
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Limits

CHANGES = {"os.rename", "os.remove", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod", "subprocess.Popen", "os.kill"}
BAD = {"refuses-to-start": b""}
ONE_ROUND = {"interval": 0.5, "successes": 1, "deadline": 1.0}


def dies(work: Callable[[], object], before_change: int = 0, after: float = 0.0) -> bool:
    """Do the work in a child that is killed; False when it ended before that."""
    child = os.fork()
    if child == 0:
        _live_dangerously(before_change, after)
        try:
            work()
        except ActivationError:
            os._exit(3)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 3), "the child failed otherwise"
    return os.WIFSIGNALED(status)


def _live_dangerously(before_change: int, after: float) -> None:
    left = [before_change]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        is_creating = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if is_creating or event in CHANGES:
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGKILL)

    if before_change:
        sys.addaudithook(count)
    if after:
        # The time limit of a test has a handler for it; without one it ends the process as abruptly.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, after)


def check_whole(world: Any) -> None:
    """What must hold at every moment."""
    tree = world.host().tree
    current = tree.look_at_current()
    assert current.kind in ("absent", "release")
    if current.release:
        recorded = tree.read_record(current.release)
        assert record.compare(recorded, tree.release(current.release)).faults == ()
    assert world.host().journal.read().damaged == ()


def check_settled(world: Any, release: str | None) -> None:
    """What must hold once a call came to its end."""
    check_whole(world)
    host = world.host()
    history = host.history()
    assert host.tree.active() == release
    assert history.pending is None
    assert list((world.root / ".convoy" / "incoming").iterdir()) == []
    assert sorted(path.name for path in world.root.iterdir()) == sorted(
        [".convoy", "releases", "shared", *(["current"] if release else [])]
    )
    assert [path.name for path in world.units.iterdir() if path.name.startswith((".", "convoy-"))] == []
    wanted = host.tree.read_record(release).units if release else ()
    assert not host.units.plan(wanted)
    assert sorted(world.supervisor.running()) == sorted(unit.name for unit in wanted)
    if release:
        assert history.state(release) == "good"
        processes = activation._look_at_processes(host, host.tree.read_record(release), 0)
        assert processes[1] == []


def every_change(work: Callable[[], object], again: Callable[[], object], world: Any, most: int = 200) -> int:
    """Kill the work before its first, second, … change, and call `again` after each; how many there were."""
    for number in range(1, most):
        if not dies(work, before_change=number):
            return number - 1
        check_whole(world)
        again()
    pytest.fail(f"more than {most} changes")


class Calls:
    """What a rollout asks, as callables."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.old_units = (world.service(), record.Unit("old.service", world.service("Nice=1\n").content))
        self.new_units = (world.service("Nice=5\n"), record.Unit("new.service", world.service("Nice=2\n").content))

    def stage(self, version: str, **release: Any) -> None:
        host = self.world.host()
        wanted, artifact = self.world.wanted(version, **release)
        host.begin()
        if staging.is_staged(host, wanted):
            staging.ensure_noted(host, wanted.release)
        else:
            staging.stage(host, wanted, artifact, Limits(), strict=False)

    def activate(self, version: str) -> None:
        host = self.world.host()
        host.begin()
        activation.activate(host, self.world.order(f"{version}-abc", gate=ONE_ROUND))

    def activate_and_fail(self, version: str) -> None:
        with pytest.raises(ActivationError):
            self.activate(version)

    def revert(self, version: str) -> None:
        host = self.world.host()
        host.begin()
        activation.revert(host, self.world.order(f"{version}-abc", gate=ONE_ROUND))


def test_staging(world: Any) -> None:
    calls = Calls(world)
    host = world.host()

    def again() -> None:
        calls.stage("1.0.0", files={"a/b/c": b"content"})
        check_settled(world, None)
        assert host.tree.verify("1.0.0-abc")
        assert world.host().history().state("1.0.0-abc") == "staged"
        staging.remove(host, "1.0.0-abc")

    assert every_change(lambda: calls.stage("1.0.0", files={"a/b/c": b"content"}), again, world) > 10


def test_staging_over_a_damaged_release(world: Any) -> None:
    calls = Calls(world)

    def damage() -> None:
        calls.stage("1.0.0")
        (world.root / "releases" / "1.0.0-abc" / "version").write_text("damaged")

    def again() -> None:
        calls.stage("1.0.0")
        check_settled(world, None)
        assert world.host().tree.verify("1.0.0-abc")
        damage()

    damage()
    assert every_change(lambda: calls.stage("1.0.0"), again, world) > 10


def test_activation(world: Any) -> None:
    """Every unit changes: one is written anew, one goes, one comes."""
    calls = Calls(world)
    calls.stage("1.0.0", units=calls.old_units)
    calls.stage("1.1.0", units=calls.new_units)
    calls.activate("1.0.0")

    def again() -> None:
        calls.activate("1.1.0")
        check_settled(world, "1.1.0-abc")
        calls.revert("1.0.0")
        check_settled(world, "1.0.0-abc")

    assert every_change(lambda: calls.activate("1.1.0"), again, world) > 15


def test_activation_that_fails(world: Any) -> None:
    calls = Calls(world)
    calls.stage("1.0.0", units=calls.old_units)
    calls.stage("1.1.0", units=calls.new_units, files=BAD)
    calls.activate("1.0.0")

    def again() -> None:
        calls.activate_and_fail("1.1.0")
        check_settled(world, "1.0.0-abc")

    assert every_change(lambda: calls.activate("1.1.0"), again, world) > 30


def test_first_activation_that_fails(world: Any) -> None:
    calls = Calls(world)
    calls.stage("1.0.0", units=calls.old_units, files=BAD)

    def again() -> None:
        calls.activate_and_fail("1.0.0")
        check_settled(world, None)

    assert every_change(lambda: calls.activate("1.0.0"), again, world) > 15


def test_rollback(world: Any) -> None:
    calls = Calls(world)
    calls.stage("1.0.0", units=calls.old_units)
    calls.stage("1.1.0", units=calls.new_units)
    calls.activate("1.0.0")
    calls.activate("1.1.0")

    def again() -> None:
        calls.revert("1.0.0")
        check_settled(world, "1.0.0-abc")
        assert world.host().history().state("1.1.0-abc") == "reverted"
        calls.activate("1.1.0")

    assert every_change(lambda: calls.revert("1.0.0"), again, world) > 15


def test_tasks_of_a_site_between_two_calls(world: Any) -> None:
    """Nobody believes that the tasks are done but where the second call came to its end."""
    calls = Calls(world)
    order = world.order

    def go(version: str, back: bool) -> bool:
        """Whether the tasks ran."""
        host = world.host()
        host.begin()
        asked = tasks_road.Asked(back=back)
        begun = tasks_road.begin(host, order(f"{version}-abc", gate=ONE_ROUND), asked)["tasks"]
        if begun["begun"]:
            host = world.host()
            host.begin(goes_on=True)
            tasks_road.settle(host, order(f"{version}-abc", gate=ONE_ROUND), asked._replace(written=begun["written"]))
        return bool(begun["run"])

    def again() -> None:
        settled = world.events()[-1] == "good 1.1.0"
        assert go("1.1.0", back=False) is not settled
        check_settled(world, "1.1.0-abc")
        go("1.0.0", back=True)
        check_settled(world, "1.0.0-abc")

    for version, units in (("1.0.0", calls.old_units), ("1.1.0", calls.new_units)):
        host = world.host()
        host.begin()
        wanted, artifact = world.wanted(version, units=units)
        staging.stage(host, wanted._replace(by_tasks=True), artifact, Limits(), strict=False)
    go("1.0.0", back=False)
    assert every_change(lambda: go("1.1.0", back=False), again, world) > 15


def test_removal(world: Any) -> None:
    calls = Calls(world)

    def remove() -> None:
        host = world.host()
        host.begin()
        staging.remove(host, "1.0.0-abc")

    def again() -> None:
        remove()
        check_settled(world, None)
        assert world.host().tree.present() == set()
        assert world.host().history().standings == {}
        calls.stage("1.0.0")

    calls.stage("1.0.0")
    assert every_change(remove, again, world) > 5


@pytest.mark.parametrize("seed", range(12))
def test_a_whole_deployment_at_moments_that_nobody_chose(world: Any, seed: int) -> None:
    calls = Calls(world)
    dice = random.Random(seed)
    calls.stage("1.0.0", units=calls.old_units)
    calls.activate("1.0.0")

    def deploy() -> None:
        calls.stage("1.1.0", units=calls.new_units)
        calls.activate("1.1.0")

    for _attempt in range(20):
        if not dies(deploy, after=dice.uniform(0.001, 0.15)):
            break
        check_whole(world)
    deploy()
    check_settled(world, "1.1.0-abc")
    assert world.host().history().last_good(world.host().tree.present(), besides="1.1.0-abc") == "1.0.0-abc"
