# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between a host and the record of a release is found, named, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import activation, drift, process, units
from ansible_collections.convoy.rollout.plugins.module_utils.drift import Finding, Request, Seen
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, Unit
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UnitStatus
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Current
from ansible_collections.convoy.rollout.plugins.module_utils.units import UnitFile

# --- the files: properties ----------------------------------------------------------------------------------------

PATHS = st.text("ab/", min_size=1, max_size=5)
DIGESTS = st.sampled_from(["1" * 64, "2" * 64])
REGULAR = st.builds(FileEntry, PATHS, st.integers(0, 2), st.sampled_from([0o644, 0o755]), DIGESTS)
LINKS = st.builds(lambda path, target: FileEntry(path, mode=0o777, link=target), PATHS, st.sampled_from("xy"))
RELEASES = st.lists(st.one_of(REGULAR, LINKS), unique_by=lambda entry: entry.path)
SIGHTS = st.one_of(
    st.builds(
        Seen, st.just("regular"), st.integers(0, 2), st.sampled_from([0o644, 0o755, 0o4755]), st.just(""), DIGESTS
    ),
    st.builds(lambda target: Seen("link", link=target), st.sampled_from("xy")),
    st.just(Seen("other")),
)


def as_recorded(entry: FileEntry) -> Seen:
    """A file that is as its record says."""
    if entry.link is not None:
        return Seen("link", link=entry.link)
    return Seen("regular", entry.size, entry.mode, sha256=entry.sha256)


@given(RELEASES)
def test_a_release_as_recorded_does_not_differ(release: list[FileEntry]) -> None:
    assert not list(drift.of_files(release, {entry.path: as_recorded(entry) for entry in release}))


@given(RELEASES, st.dictionaries(PATHS, SIGHTS))
def test_exactly_the_files_that_differ_are_named(release: list[FileEntry], seen: dict[str, Seen]) -> None:
    expected = {entry.path: as_recorded(entry) for entry in release}
    found = list(drift.of_files(release, seen))
    differing = {path for path in {*expected, *seen} if expected.get(path) != seen.get(path)}
    assert sorted(finding.name for finding in found) == sorted(differing)
    assert all(finding.expected != finding.actual for finding in found)


@given(RELEASES, st.dictionaries(PATHS, SIGHTS))
def test_a_file_that_was_not_read_differs_by_no_digest(release: list[FileEntry], seen: dict[str, Seen]) -> None:
    unread = {path: one._replace(sha256="") for path, one in seen.items()}
    found = list(drift.of_files(release, unread))
    assert not any("sha256" in finding.expected for finding in found)
    assert {finding.name for finding in found} <= {finding.name for finding in drift.of_files(release, seen)}


@given(RELEASES, st.dictionaries(PATHS, SIGHTS), st.sampled_from(["*", "a*", "b", ""]))
def test_what_is_ignored_is_left_out_and_nothing_else(
    release: list[FileEntry], seen: dict[str, Seen], pattern: str
) -> None:
    every = list(drift.of_files(release, seen))
    left = list(drift.without([pattern], every))
    assert set(left) <= set(every)
    ignored = {"*": lambda _name: True, "a*": lambda name: name.startswith("a"), "b": lambda name: name == "b"}
    assert {one.name for one in set(every) - set(left)} == set(
        filter(ignored.get(pattern, lambda _name: False), {one.name for one in every})
    )


# --- the units, and what runs: cases ------------------------------------------------------------------------------

UNIT = Unit("hello.service", "[Service]\nExecStart=/bin/hello\n[Install]\n")
PLAIN = Unit("hello.timer", "[Timer]\n")
WELL = UnitStatus(
    "hello.service", "loaded", "active", "running", "simple", "success", 7, "enabled", 0, False, "/u/hello.service"
)


def of_units(*found: UnitFile) -> list[Finding]:
    return list(drift.of_unit_files("hello", [UNIT], {there.name: there for there in found}))


def test_unit_files() -> None:
    right = UnitFile(UNIT.name, "hello", units.body(UNIT))
    assert of_units(right) == []
    assert of_units(right._replace(component=None)) == []
    assert of_units() == [Finding("unit", "hello.service", "there", "not there")]
    (changed,) = of_units(right._replace(body="other\n"))
    assert changed[:2] == ("unit", "hello.service")
    assert changed.expected == f"sha256 {units.digest(units.body(UNIT))}"
    assert changed.actual == f"sha256 {units.digest('other' + chr(10))}"
    (foreign,) = of_units(right._replace(component=None, body="other\n"))
    assert foreign.what == "foreign-unit"
    assert foreign.actual.endswith(", not written by Convoy")
    (of_another,) = of_units(right._replace(component="else"))
    assert of_another == Finding("foreign-unit", "hello.service", "of component hello", "of component else")
    (more,) = of_units(right, UnitFile("more.service", "hello", ""))
    assert more == Finding("unit", "more.service", "not there", "there")


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({}, None),
        ({"file_state": "disabled"}, Finding("enabled", "hello.service", "enabled", "disabled")),
        ({"drop_ins": ("/u/x.conf",)}, Finding("drop-in", "/u/x.conf", "not there", "there")),
        ({"drop_ins": ("/usr/lib/systemd/system/service.d/10-timeout.conf",)}, None),
        (
            {"fragment": "/run/hello.service"},
            Finding("foreign-unit", "hello.service", "loaded from /u/hello.service", "loaded from /run/hello.service"),
        ),
        (
            {"active": "failed", "sub": "failed", "result": "exit-code"},
            Finding("state", "hello.service", "active", "it is failed (failed), result exit-code"),
        ),
        (
            {"load": "masked", "fragment": ""},
            Finding("state", "hello.service", "active", "systemd could not load it (masked)"),
        ),
    ],
)
def test_services(changed: dict[str, Any], finding: Finding | None) -> None:
    services = drift.Services({UNIT.name: WELL._replace(**changed)}, {})
    found = [*drift.of_services([UNIT, PLAIN], "/u", services), *drift.of_states([UNIT, PLAIN], services)]
    assert found == ([finding] if finding else [])


def test_a_unit_that_asks_for_no_boot_is_not_to_have_one() -> None:
    status = WELL._replace(name=PLAIN.name, fragment="/u/hello.timer")
    services = drift.Services({PLAIN.name: status}, {})
    (found,) = drift.of_services([PLAIN], "/u", services)
    assert found == Finding("enabled", "hello.timer", "disabled", "enabled")


PLACE = "/srv/hello/releases/1.1.0-abc"


@pytest.mark.parametrize(
    ("cwd", "started", "action", "actual"),
    [
        (PLACE, 1000.0, "restart", ""),
        (f"{PLACE}/deep", 1000.0, "restart", ""),
        (PLACE, 750.0, "restart", ""),  # the clock was set meanwhile
        (PLACE, 600.0, "restart", "process 7 is 400 s older"),
        ("/srv/hello/releases/1.0.0-abc", 1000.0, "restart", "process 7 works in /srv/hello/releases/1.0.0-abc"),
        ("/srv/hello/releases/1.0.0-abc", 1000.0, "reload", ""),
        (f"{PLACE} (deleted)", 1000.0, "restart", f"process 7 works in {PLACE} (deleted)"),
        ("/", 1000.0, "restart", "process 7 works in /"),
    ],
)
def test_the_process_of_a_unit(tmp_path: Path, cwd: str, started: float, action: str, actual: str) -> None:
    services = drift.Services({}, {UNIT.name: Process(7, 0, started, cwd)})
    found = list(drift.of_processes([UNIT._replace(action=action)], PLACE, 1000.0, services))
    assert [finding.actual for finding in found] == ([actual] if actual else [])


@pytest.mark.parametrize(
    ("current", "actual"),
    [
        (Current("release", "1.1.0-abc", "releases/1.1.0-abc"), ""),
        (Current("release", "1.0.0-abc", "releases/1.0.0-abc"), "releases/1.0.0-abc"),
        (Current("absent"), "not there"),
        (Current("not_a_link"), "no symbolic link"),
        (Current("elsewhere", target="/tmp"), "/tmp"),
        (Current("dangling", "1.1.0-abc", "releases/1.1.0-abc"), "releases/1.1.0-abc, which is not there"),
    ],
)
def test_current(current: Current, actual: str) -> None:
    found = list(drift.of_current("1.1.0-abc", current))
    assert found == ([Finding("release", "current", "releases/1.1.0-abc", actual)] if actual else [])


# --- looking at a host --------------------------------------------------------------------------------------------


def deploy(world: Any, version: str) -> str:
    """Stage and activate a release; its id."""
    release: str = world.stage(version)
    host = world.host()
    host.begin()
    activation.activate(host, world.order(release))
    return release


def look(world: Any, **request: Any) -> dict[str, Any]:
    return drift.look(world.host(), Request(**request))


def named(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["what"], finding["name"]) for finding in facts["findings"]]


def test_a_host_as_it_was_deployed(world: Any) -> None:
    deploy(world, "1.0.0")
    release = deploy(world, "1.1.0")
    told = {"active": release, "compared": release, "version": "1.1.0", "findings": [], "more": 0, "incomplete": None}
    assert look(world) == told
    assert look(world, release=release) == told


def test_a_host_that_convoy_never_saw(world: Any) -> None:
    nothing = {"active": None, "compared": None, "version": None}
    assert look(world) == {**nothing, "findings": [], "more": 0, "incomplete": None}


def damage(world: Any, place: Path) -> None:
    (place / "version").write_text("9.9.9")


def damage_at_the_same_size(world: Any, place: Path) -> None:
    (place / "version").write_text("1.1.1")


def loosen(world: Any, place: Path) -> None:
    os.chmod(place / "version", 0o666)


def add(world: Any, place: Path) -> None:
    (place / "more").touch()


def edit_unit(world: Any, place: Path) -> None:
    with (world.units / "hello.service").open("a") as stream:
        stream.write("Nice=7\n")
    world.supervisor.daemon_reload()


def switch(world: Any, place: Path) -> None:
    os.unlink(world.root / "current")
    os.symlink("releases/1.0.0-abc", world.root / "current")


def stop(world: Any, place: Path) -> None:
    world.supervisor.stop(["hello.service"])


def disable(world: Any, place: Path) -> None:
    world.supervisor.disable(["hello.service"])


def lose_record(world: Any, place: Path) -> None:
    (world.root / ".convoy" / "releases" / "1.1.0-abc.json").unlink()


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (damage_at_the_same_size, ("file", "version")),
        (loosen, ("file", "version")),
        (add, ("foreign-file", "more")),
        (edit_unit, ("unit", "hello.service")),
        (switch, ("release", "current")),
        (stop, ("state", "hello.service")),
        (disable, ("enabled", "hello.service")),
        (lose_record, ("record", "1.1.0-abc")),
    ],
)
def test_what_somebody_changed_is_found(world: Any, tamper: Any, finding: tuple[str, str]) -> None:
    deploy(world, "1.0.0")
    release = deploy(world, "1.1.0")
    tamper(world, world.root / "releases" / release)
    assert named(look(world, release=release)) == [finding]


def test_what_only_a_digest_tells_is_found_only_with_digests(world: Any) -> None:
    release = deploy(world, "1.1.0")
    damage_at_the_same_size(world, world.root / "releases" / release)
    assert named(look(world, digests=False)) == []
    assert named(look(world, digests=True)) == [("file", "version")]


def test_ignored_names(world: Any) -> None:
    release = deploy(world, "1.1.0")
    add(world, world.root / "releases" / release)
    assert named(look(world, ignored=["mo*"])) == []


def test_no_more_findings_than_can_be_read(world: Any) -> None:
    release = deploy(world, "1.1.0")
    for number in range(60):
        (world.root / "releases" / release / f"more{number}").touch()
    facts = look(world)
    assert (len(facts["findings"]), facts["more"]) == (50, 10)


def test_a_directory_that_is_flooded_is_not_looked_through(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file counts as missing only because it was not come to."""
    release = deploy(world, "1.1.0")
    monkeypatch.setattr(drift, "_MOST_STRANGERS", 10)
    for number in range(20):
        (world.root / "releases" / release / f"more{number}").touch()
    facts = look(world)
    assert facts["incomplete"].endswith("holds over 10 files that are not of the release")
    assert facts["findings"] == []


def test_a_look_that_takes_too_long_says_so(world: Any) -> None:
    deploy(world, "1.1.0")
    world.supervisor.stop(["hello.service"])
    facts = look(world, seconds=0.0001)
    assert "0.0001 s were not enough" in facts["incomplete"]
    assert named(facts) == [("state", "hello.service")]


def test_a_process_beside_the_unit_is_found(world: Any) -> None:
    """The unit's own process belongs to no control group here, so that it is left out by its number."""
    release = deploy(world, "1.0.0")
    place = world.root / "releases" / release
    (place / "run.py").write_text("import time; time.sleep(60)")
    owned = {one.pid for one in process.strays(str(world.root / "releases"), [], [sys.executable])}
    beside = subprocess.Popen([sys.executable, "run.py"], cwd=world.root / "current")
    try:
        strays = process.strays(str(world.root / "releases"), [], [sys.executable])
        assert [(one.pid, one.file) for one in strays if one.pid not in owned] == [(beside.pid, str(place / "run.py"))]
        assert process.strays(str(world.root / "releases"), [], ["/bin/sh"]) == []
        services = drift.Services({}, {}, strays)
        (found,) = drift.of_processes([UNIT], str(place), None, services)
        assert found == Finding(
            "process", str(place / "run.py"), "run by the release's units alone", f"process {beside.pid} runs it too"
        )
    finally:
        beside.kill()
        beside.wait()


@pytest.mark.parametrize(
    ("group", "owner", "belongs"),
    [
        ("hello.service", "hello.service", True),
        ("hello@1.service", "hello@.service", True),
        ("hello@1.socket", "hello@.service", False),
        ("hello2.service", "hello.service", False),
    ],
)
def test_the_control_group_of_a_unit(tmp_path: Path, group: str, owner: str, belongs: bool) -> None:
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/system.slice/{group}/sub\n0::/\n")
    assert process._belongs(str(tmp_path), [owner]) is belongs


def test_the_programs_of_units() -> None:
    text = "[Service]\nExecStartPre=-/bin/a x\nExecStart=!!/bin/b\nExecReload=kill\nUser=/bin/c\n"
    assert units.programs([Unit("x.service", text)]) == {"/bin/a", "/bin/b"}
