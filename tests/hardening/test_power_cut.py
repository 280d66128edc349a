# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts: what a disk holds at a moment of a deployment is looked at as the next boot would find it.

The release tree is on an ext4 of its own, on a loop device over a file. At each moment of a call (see moments) the
process is stopped and that file copied: it holds what was written to the device until then, while all that the kernel
had not yet written is missing, as after a power cut. The copies are mounted one after the other, which replays the
journal of ext4. Needs root and a loop device.

CONVOY_CUTS says how many of the cuts to look into, spread evenly over those of a road; 0 for all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, durable, guard, record, staging
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ActivationError
from ansible_collections.convoy.rollout.plugins.module_utils.journal import Entry, Journal
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.tests.unit.plugins.release_world import DirectorySupervisor, World
from tests.hardening import moments

CUTS = int(os.environ.get("CONVOY_CUTS", "4"))
SIZE = 24 * 1024 * 1024
OLD, NEW, ILL = "1.0.0-abc", "1.1.0-abc", "1.2.0-abc"
GATE = {"interval": 0.01, "successes": 1, "deadline": 30.0, "timeout": 10.0}  # the machine may be busy
# Nothing but what is asked for reaches the disk within the seconds that this takes.
OPTIONS = "loop,commit=300"


def run(*command: str) -> str:
    """What a command says; it has to succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def obstacle() -> str:
    """Why no power can be cut here; empty where it can."""
    if os.geteuid() != 0:
        return "not root, so that nothing can be mounted"
    if not shutil.which("mkfs.ext4"):
        return "there is no mkfs.ext4 (Debian: e2fsprogs)"
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else f"there is no loop device: {found.stderr.strip()}"


pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "none")


class Disk:
    """A file with an ext4 in it."""

    def __init__(self, place: Path) -> None:
        self.image = place / "disk"
        self.mounted = place / "mounted"
        self.mounted.mkdir()
        with self.image.open("wb") as stream:
            stream.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))

    @contextmanager
    def mount(self, image: Path | None = None) -> Iterator[World]:
        """A host in it, as after a boot: nothing runs. In the end nothing does either, and the file system is sound."""
        image = image or self.image
        run("mount", "-o", OPTIONS, str(image), str(self.mounted))
        world = World(self.mounted)
        world.clock = Clock()
        shutil.rmtree(world.supervisor.state, ignore_errors=True)
        try:
            yield world
        finally:
            world.supervisor.end_everything()
            self._unmount()
        run("e2fsck", "-fn", str(image))

    def _unmount(self) -> None:
        """As soon as the processes that were killed are gone."""
        for _attempt in range(100):
            if subprocess.run(["umount", str(self.mounted)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        run("umount", str(self.mounted))

    def commit(self) -> None:
        """Have ext4 write its journal, as it does by itself every few seconds: names are there then, not bytes."""
        descriptor = os.open(self.mounted / "unrelated", os.O_WRONLY | os.O_CREAT)
        os.fsync(descriptor)
        os.close(descriptor)

    def copy(self, to: Path) -> None:
        """What has reached the device until now, all at the same moment."""
        device = Path(run("findmnt", "-no", "SOURCE", str(self.mounted))).name
        counted = Path("/sys/block") / device / "stat"
        while True:
            before = counted.read_text().split()
            run("cp", "--sparse=always", str(self.image), str(to))
            if counted.read_text().split()[4:9] == before[4:9] and before[8] == "0":
                return


@dataclass(frozen=True)
class Cut:
    """A power cut: what had come to pass until then, and what the disk held."""

    passed: tuple[str, ...]
    image: Path


def cuts(disk: Disk, road: Callable[[World], None], mutation: Callable[[], None], commits: bool) -> list[Cut]:
    """Go the road in a process that is stopped at each of its moments; the cuts there.

    `commits`: whether ext4 has just committed its journal by itself each time, or never did.
    """
    found = []
    with disk.mount() as world:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _go(world, road, mutation, write)
        os.close(write)
        passed: list[str] = []
        with os.fdopen(read) as said:
            while True:
                _pid, status = os.waitpid(child, os.WUNTRACED)
                if not os.WIFSTOPPED(status):
                    assert os.WIFEXITED(status), status
                    assert os.WEXITSTATUS(status) == 0
                    break
                passed.append(said.readline().strip())
                image = disk.image.with_name(f"cut{len(passed)}")
                if commits:
                    disk.commit()
                disk.copy(image)
                found.append(Cut(tuple(passed), image))
                os.kill(child, signal.SIGCONT)
    return found


def _go(world: World, road: Callable[[World], None], mutation: Callable[[], None], write: int) -> None:
    def tell(moment: str) -> None:
        os.write(write, moment.encode() + b"\n")
        os.kill(os.getpid(), signal.SIGSTOP)

    try:
        mutation()
        moments.watch(tell, DirectorySupervisor)
        road(world)
        tell("the end")
        os._exit(0)
    finally:
        os._exit(9)


# --- the roads -----------------------------------------------------------------------------------------------------


def stage(world: World, version: str, healthy: bool = True) -> None:
    """As the module does."""
    nice = {"1.0.0": 1, "1.1.0": 2, "1.2.0": 3}[version]
    more = record.Unit(f"more{nice}.service", world.service().content)
    files = {"a/b/c": b"content" * 5000, **({} if healthy else {"refuses-to-start": b""})}
    # Artifacts come from elsewhere: this one is not on the disk that is cut.
    place, world.place = world.place, world.place.parent
    wanted, artifact = world.wanted(version, files=files, units=(world.service(f"Nice={nice}\n"), more))
    world.place = place
    host = world.host()
    host.begin()
    if staging.is_staged(host, wanted):
        staging.ensure_noted(host, wanted.release)
    else:
        staging.stage(host, wanted, artifact, Limits(), strict=False)


def activate(world: World, release: str) -> None:
    """As the module does."""
    host = world.host()
    host.begin()
    activation.activate(host, world.order(release, gate=GATE))


def deploy(world: World) -> None:
    """A release that is healthy."""
    stage(world, "1.1.0")
    activate(world, NEW)


def fail(world: World) -> None:
    """One that is not: the host goes back."""
    stage(world, "1.2.0", healthy=False)
    with pytest.raises(ActivationError):
        activate(world, ILL)


def roll_back(world: World) -> None:
    """Back to the first release."""
    host = world.host("r-2", 2)
    host.begin()
    activation.revert(host, world.order(OLD, gate=GATE))


ROADS: dict[str, tuple[Callable[[World], None], str, str, str]] = {
    "deployment": (deploy, OLD, NEW, NEW),
    "unhealthy release": (fail, OLD, ILL, OLD),
    "rollback": (roll_back, NEW, OLD, OLD),
}


@pytest.fixture
def place() -> Iterator[Path]:
    """Where disks are, in memory if possible: what is synced there costs no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        yield Path(made)


def prepared(place: Path, road: str) -> Disk:
    """A disk as it is before the road."""
    disk = Disk(place)
    with disk.mount() as world:
        stage(world, "1.0.0")
        activate(world, OLD)
        if road == "rollback":
            deploy(world)
    return disk


# --- what must hold ------------------------------------------------------------------------------------------------


def faults_of(disk: Disk, cut: Cut, road: str) -> list[str]:
    """What does not hold when the host boots after the cut, and when the same is asked for again."""
    go, before, after, ends = ROADS[road]
    try:
        with disk.mount(cut.image) as world:
            boot(world)
            found = [*not_whole(world, {before, after}), *broken_promises(world, cut.passed, road)]
            if not found:
                go(world)
                found = not_settled(world, ends)
    except (AssertionError, subprocess.CalledProcessError) as error:
        return [f"{type(error).__name__}: {error}"]
    return found


def boot(world: World) -> None:
    """What systemd starts before the units of the component, if it is to."""
    _service, link = guard._recovery_paths(world.host())
    if os.path.exists(link):
        guard.recover(world.host())


def not_whole(world: World, allowed: set[str]) -> list[str]:
    """The old release or the new one is active, whole, with its units; so is every release that has its name."""
    host = world.host()
    tree, found = host.tree, []
    active = tree.look_at_current()
    if active.kind != "release" or active.release not in allowed:
        return [f"current is {active}"]
    for release in sorted(tree.present()):
        faults = record.compare(tree.read_record(release), tree.release(release)).faults
        if faults:
            found.append(f"{release} is not whole: {faults}")
    if host.units.plan(tree.read_record(str(active.release)).units):
        found.append(f"the units are not those of {active.release}")
    if host.journal.read().damaged:
        found.append("the journal is damaged")
    return found


def broken_promises(world: World, passed: Sequence[str], road: str) -> list[str]:
    """What the call had come by, and the disk does not know."""
    tree = world.host().tree
    after, found = ROADS[road][2], []
    if "step staged" in passed and after not in tree.present():
        found.append(f"{after} was staged, and is not there")
    if passed.count("step switched") == 1 and "before journal reverting" not in passed:
        active = tree.look_at_current().release
        found += [] if active == after else [f"{after} was switched to, and {active} is active"]
    written = sum(name.startswith("after journal ") for name in passed)
    known = len(Journal(tree.journal).read().entries) - KNOWN_BEFORE[road]
    if known < written:
        found.append(f"{written} entries were written, the journal has {known} of them")
    return found


# Entries of the journal that are there before: staged, activating, good; the same once more for the second release.
KNOWN_BEFORE = {"deployment": 3, "unhealthy release": 3, "rollback": 6}


def not_settled(world: World, release: str) -> list[str]:
    """The road's end."""
    host = world.host()
    history = host.history()
    found = not_whole(world, {release})
    if history.pending or history.state(release) != "good":
        found.append(f"the journal says {history}")
    if os.listdir(host.tree.incoming):
        found.append("something is left in incoming")
    return found


def campaign(
    place: Path,
    road: str,
    choose: Callable[[list[Cut]], list[Cut]],
    mutation: Callable[[], None] = lambda: None,
    commits: bool = False,
) -> tuple[int, dict[str, list[str]]]:
    """Into how many cuts of those that came was looked, and what did not hold, by their last moment."""
    disk = prepared(place, road)
    chosen = choose(cuts(disk, ROADS[road][0], mutation, commits))
    faults = {f"{number}: {cut.passed[-1]}": faults_of(disk, cut, road) for number, cut in enumerate(chosen)}
    return len(chosen), {moment: told for moment, told in faults.items() if told}


def spread(found: list[Cut]) -> list[Cut]:
    """As many as are asked for, evenly, the last one among them."""
    return found[:: -max(1, len(found) // CUTS)] if CUTS else found


@pytest.mark.parametrize("commits", [False, True], ids=["ext4 waits", "ext4 commits"])
@pytest.mark.parametrize("road", sorted(ROADS))
def test_power_cuts(place: Path, road: str, commits: bool) -> None:
    began = time.monotonic()
    count, faults = campaign(place, road, spread, commits=commits)
    told = f"{road}, ext4 {'commits' if commits else 'waits'}"
    print(f"{told}: {count} power cuts, {len(faults)} faults, {time.monotonic() - began:.0f} s")
    assert faults == {}
    assert count >= (CUTS or 50)


# --- the test can fail ---------------------------------------------------------------------------------------------


def switch_without_fsync() -> None:
    """The link is renamed, and its directory not synced."""
    inner, fsync = durable.replace_symlink, durable.fsync_directory

    def replace(target: str, path: str) -> None:
        durable.fsync_directory = lambda path: None
        inner(target, path)
        durable.fsync_directory = fsync

    durable.replace_symlink = replace


def release_without_sync() -> None:
    """The files of a release get their name, and are not synced."""
    durable.sync_file_system = lambda path: None


def journal_without_fsync() -> None:
    """An entry is written, and not synced."""
    inner, fsync = Journal.append, os.fsync

    def append(self: Journal, entry: Entry) -> None:
        os.fsync = lambda fd: None
        inner(self, entry)
        os.fsync = fsync

    mock.patch.object(Journal, "append", append).start()


def units_without_recovery() -> None:
    """Units are changed, and the next boot is not told to make them fit."""
    guard.stand_by = lambda host, units: None


@pytest.mark.parametrize(
    ("mutation", "moment", "fault"),
    [
        (switch_without_fsync, "step switched", "was switched to, and 1.0.0-abc is active"),
        (release_without_sync, "step staged", "1.1.0-abc is not whole"),
        (journal_without_fsync, "after journal good", "entries were written"),
        (units_without_recovery, "step units", "the units are not those of"),
    ],
)
def test_what_is_not_synced_is_found(place: Path, mutation: Callable[[], None], moment: str, fault: str) -> None:
    count, faults = campaign(
        place, "deployment", lambda found: [cut for cut in found if cut.passed[-1] == moment][-1:], mutation
    )
    assert count == 1
    assert fault in str(faults)
