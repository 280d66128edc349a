# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind package on the road of all kinds: a real release tree, and a package manager that is made up."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import activation, drift, info, package_kind, packages
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ActivationError,
    InputError,
    LockedError,
    NotIntactError,
    PackageError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.packages import Change, Installed, Kept
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UnitStatus


class MadeUp:
    """A package manager whose host is a dictionary; the real one is tested on real hosts."""

    name = "made-up"
    spare = "/somewhere"

    def __init__(self, place: Path) -> None:
        self.place = place
        self.versions: dict[str, str] = {}
        self.held: set[str] = set()
        self.repository = {"hello": ["1:1.0", "1.1~x", "1.2"]}
        self.libraries = {"1.1~x": ("lib", "2")}
        self.calls: list[str] = []
        self.is_busy = False
        self.has_holds = True
        self.is_interrupted = False
        self.refused: str | None = None
        self.breaks = self.breaks_next = ""
        self.changed: list[str] = []
        self.fetched: list[tuple[str, str]] = []

    def installed(self, name: str) -> Installed | None:
        version = self.versions.get(name)
        return None if version is None else Installed(version, name in self.held, True, 0.0)

    def plan(self, name: str, version: str) -> tuple[Change, ...]:
        if version not in self.repository.get(name, []):
            raise packages.unknown_version(name, version, self.repository.get(name, []))
        beside = [self.libraries[version]] if version in self.libraries else []
        changes = [(name, version), *((one, new) for one, new in beside if self.versions.get(one) != new)]
        return tuple(Change(one, self.versions.get(one), new) for one, new in changes)

    def fetch(self, wanted: Sequence[tuple[str, str]], place: str) -> list[Kept]:
        kept = []
        for name, version in wanted:
            if name == "hello" and version not in self.repository["hello"]:
                raise PackageError("it is gone")
            path = Path(place) / f"{name}_{version}"
            path.write_text(f"{name} {version}")
            path.chmod(0o644)
            self.fetched.append((name, version))
            kept.append(Kept(str(path), name, version))
        return kept

    def wait(self) -> None:
        if self.is_busy:
            raise LockedError("somebody installs", locked=True)

    def repair(self) -> bool:
        was, self.is_interrupted = self.is_interrupted, False
        return was

    def refusal(self, paths: Sequence[str]) -> str | None:
        return self.refused

    def install(self, paths: Sequence[str]) -> None:
        for path in paths:
            name, version = Path(path).read_text().split()
            if version == self.breaks:
                raise PackageError("it could not be installed")
            self.calls.append(f"install {name} {version}")
            self.versions[name] = version
        self.changed.clear()
        self.breaks = self.breaks_next

    def remove(self, name: str) -> None:
        self.calls.append(f"remove {name}")
        del self.versions[name]

    def can_hold(self) -> bool:
        return self.has_holds

    def hold(self, name: str, is_held: bool) -> None:
        (self.held.add if is_held else self.held.discard)(name)

    def altered(self, name: str) -> list[str]:
        return self.changed

    def is_older(self, one: str, other: str) -> bool:
        return one < other


class Packages:
    """A host to deploy the package `hello` to."""

    def __init__(self, world: Any, manager: MadeUp) -> None:
        self.world, self.manager = world, manager

    def stage(self, version: str, is_check: bool = False, **fields: Any) -> dict[str, Any]:
        """Stage as the module does."""
        host = self.world.host()
        host.begin()
        self.host = host
        asked = {"release": self.release(version), "version": version, "package": {"name": "hello", "lock_timeout": 5}}
        nothing = {"artifact": None, "manifest": None, "config": [], "units": [], "delta": None, "url": None}
        usual = {"pull": None, "transfer": "push", "mend": False}
        return package_kind.PACKAGE.stage(host, {**nothing, **usual, **asked, **fields}, is_check)

    def activate(self, version: str, **fields: Any) -> dict[str, Any]:
        """Activate as the module does."""
        self.host = self.world.host()
        self.host.begin()
        return activation.activate(self.host, self.order(self.release(version), **fields))

    def order(self, release: str | None, **fields: Any) -> activation.Order:
        """What is asked for; healthy unless said otherwise."""
        gate = {"interval": 0.5, "successes": 1, "deadline": 2.0}
        return activation.Order(release, **{"probes": ({"kind": "command", "argv": ["true"]},), "gate": gate, **fields})

    def deploy(self, version: str, **fields: Any) -> dict[str, Any]:
        """Stage and activate."""
        self.stage(version)
        return self.activate(version, **fields)

    @staticmethod
    def release(version: str) -> str:
        """An id as the controller makes it."""
        return packages.in_release_id(version) + "-abc"


ILL = ({"kind": "command", "argv": ["false"]},)


@pytest.fixture
def hello(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    """A host whose package manager is made up."""
    manager = MadeUp(tmp_path)
    kind = package_kind.Package({"sh": lambda _host, _patience: manager, "made-up": lambda _host, _patience: manager})
    monkeypatch.setattr(package_kind, "PACKAGE", kind)
    return Packages(world, manager)


def problems(hello: Packages) -> list[str]:
    found: list[str] = info.look(hello.world.host(), [], verify=True)["problems"]
    return found


def test_there_and_back(hello: Packages) -> None:
    first = hello.deploy("1:1.0")
    assert (first["changed"], first["active"], first["previous"]) == (True, "1_1.0-abc", None)
    assert hello.stage("1.1~x")["changed"] is True
    assert hello.manager.versions == {"hello": "1:1.0"}
    hello.manager.repository.clear()
    second = hello.activate("1.1~x")
    assert (second["active"], second["previous"]) == ("1.1_x-abc", "1_1.0-abc")
    assert (hello.manager.versions, hello.manager.held) == ({"hello": "1.1~x", "lib": "2"}, {"hello"})
    assert hello.activate("1.1~x")["changed"] is False
    assert problems(hello) == []
    back = activation.revert(hello.world.host(), hello.order(None))
    assert (back["changed"], back["active"]) == (True, "1_1.0-abc")
    assert hello.manager.versions == {"hello": "1:1.0", "lib": "2"}
    assert problems(hello) == []


def test_info_says_the_kind(hello: Packages) -> None:
    hello.deploy("1:1.0")
    look = info.look(hello.world.host(), [], verify=False)
    assert (look["kind"], look["version"]) == ("package", "1:1.0")


def test_staging_twice_changes_nothing(hello: Packages) -> None:
    assert hello.stage("1.2", is_check=True)["changed"] is True
    assert hello.world.host().tree.present() == set()
    assert hello.stage("1.2")["changed"] is True
    assert hello.stage("1.2")["changed"] is False


def test_an_id_stands_for_one_package(hello: Packages) -> None:
    hello.stage("1.2")
    with pytest.raises(InputError, match="an id must stand for one content"):
        hello.stage("1.2", package={"name": "other", "lock_timeout": None})


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"package": {"name": "-oops", "lock_timeout": None}}, "component_package.name '-oops' is not the name"),
        ({"package": {"name": "hello", "lock_timeout": -1}}, "component_package.lock_timeout is -1: must be 0 or more"),
        ({"version": "1.0 --help"}, "version '1.0 --help' is not the version of a package"),
        ({"version": ""}, "version '' is not the version of a package"),
        ({"artifact": "/x.tar"}, "artifact is for releases of an archive: leave it away for a package"),
        ({"manifest": {"files": []}}, "manifest is for releases of an archive"),
        ({"config": [{"dest": "a"}]}, "config is for releases of an archive"),
        ({"url": "https://depot.example/x"}, "url is for releases of an archive"),
        ({"pull": {"retries": 1}}, "pull is for releases of an archive"),
        ({"transfer": "delta"}, "transfer is 'delta', which is for releases of an archive: hosts fetch a package from"),
        ({"transfer": "pull"}, "transfer is 'pull', which is for releases of an archive"),
        ({"units": [{"name": "a.service", "content": "x", "action": "restart"}]}, "unit 'a.service' has content"),
        (
            {"units": [{"name": "a", "content": None, "action": "restart"}]},
            "unit 'a' is not the name of a systemd unit",
        ),
    ],
)
def test_bad_input_is_refused(hello: Packages, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        hello.stage(**{"version": "1.2", **fields})
    assert hello.world.host().tree.present() == set()


@pytest.mark.parametrize("fault", ["breaks", "probes"])
def test_a_version_that_fails_goes_back(hello: Packages, fault: str) -> None:
    hello.deploy("1:1.0")
    hello.manager.breaks = "1.2" if fault == "breaks" else ""
    with pytest.raises(ActivationError, match=r"1_1\.0-abc is active again") as caught:
        hello.deploy("1.2", **({"probes": ILL} if fault == "probes" else {}))
    assert (caught.value.details["reverted"], caught.value.details["active"]) == (True, "1_1.0-abc")
    assert hello.manager.versions == {"hello": "1:1.0"}
    assert problems(hello) == []


def test_a_way_back_that_fails_too_is_no_way_back(hello: Packages) -> None:
    hello.deploy("1:1.0")
    hello.stage("1.2")
    hello.manager.breaks_next = "1:1.0"
    with pytest.raises(ActivationError, match=r"The way back to 1_1\.0-abc failed too") as caught:
        hello.activate("1.2", probes=ILL)
    assert caught.value.details["reverted"] is False


def test_a_first_version_that_fails_is_removed(hello: Packages) -> None:
    with pytest.raises(ActivationError, match="nothing was active before, and nothing is now"):
        hello.deploy("1.2", probes=ILL)
    assert hello.manager.versions == {}
    assert hello.world.current is None


def test_what_was_installed_before_is_kept_for_the_way_back(hello: Packages) -> None:
    hello.manager.versions["hello"] = "1:1.0"
    hello.stage("1.2")
    assert hello.world.current == "releases/1_1.0-found"
    with pytest.raises(ActivationError, match=r"1_1\.0-found is active again"):
        hello.activate("1.2", probes=ILL)
    assert (hello.manager.versions, hello.manager.held) == ({"hello": "1:1.0"}, set())


def test_a_host_that_can_hold_nothing_says_so_once(hello: Packages) -> None:
    hello.manager.has_holds = False
    hello.stage("1.2")
    assert "hello will not be held, since made-up cannot lock a version on this host" in hello.host.warnings[0]
    assert hello.activate("1.2")["active"] == "1.2-abc"
    assert hello.manager.held == set()
    assert problems(hello) == []


def test_the_package_manager_that_is_asked_for(hello: Packages) -> None:
    with pytest.raises(PackageError, match=r"manager is made-up, and this host has no made-up: set it to auto"):
        hello.stage("1.2", package={"name": "hello", "lock_timeout": 5, "manager": "made-up"})
    asked = {"name": "hello", "lock_timeout": 5, "manager": "sh"}
    assert hello.stage("1.2", package=asked)["changed"] is True


@pytest.mark.parametrize(("name", "other"), [("apt", "dnf"), ("dnf", "apt")])
def test_one_package_manager_imports_nothing_of_another(
    world: Any, monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    for manager in (name, other):
        monkeypatch.delitem(sys.modules, f"{packages.__name__.rpartition('.')[0]}.{manager}", raising=False)
    assert package_kind.MANAGERS[name](world.host(), 5.0).name == name
    assert not any(module.endswith(f"module_utils.{other}") for module in sys.modules)


def test_without_a_way_back_nothing_is_staged(hello: Packages) -> None:
    hello.manager.versions["hello"] = "0.9"
    with pytest.raises(PackageError, match=r"0\.9 is installed here, not by Convoy, .* it is gone"):
        hello.stage("1.2")
    assert (hello.world.current, hello.world.host().tree.present()) == (None, set())


@pytest.mark.parametrize(
    ("fault", "error"), [({"is_busy": True}, LockedError), ({"refused": "unmet dependencies"}, PackageError)]
)
def test_what_cannot_be_installed_is_found_before_anything_is_announced(
    hello: Packages, fault: dict[str, Any], error: type[Exception]
) -> None:
    hello.deploy("1:1.0")
    hello.stage("1.2")
    vars(hello.manager).update(fault)
    before = hello.world.events()
    with pytest.raises(error):
        hello.activate("1.2")
    assert hello.world.events() == before
    assert hello.manager.versions == {"hello": "1:1.0"}


def test_an_interrupted_installation_is_mended_and_said(hello: Packages) -> None:
    hello.stage("1.2")
    hello.manager.is_interrupted = True
    hello.activate("1.2")
    assert "repaired" in [step["step"] for step in hello.host.steps]
    assert "dpkg --configure -a was run" in hello.host.warnings[0]


def test_drift_is_told_and_mended(hello: Packages) -> None:
    hello.deploy("1:1.0")
    hello.manager.versions["hello"] = "1.2"
    assert problems(hello) == ["package hello is 1.2 here, the active release has 1:1.0"]
    assert hello.activate("1:1.0")["changed"] is True
    assert problems(hello) == []


def findings(hello: Packages, **request: Any) -> list[tuple[str, ...]]:
    """What drift_info would tell."""
    told = drift.look(hello.world.host(), drift.Request(**request))
    assert told["incomplete"] is None
    return [tuple(finding.values()) for finding in told["findings"]]


def upgrade(hello: Packages) -> None:
    hello.manager.versions["hello"] = "1.2"


def let_go(hello: Packages) -> None:
    hello.manager.held.clear()


def remove(hello: Packages) -> None:
    hello.manager.versions.clear()
    hello.manager.held.clear()


def change(hello: Packages) -> None:
    hello.manager.changed.append("/usr/bin/hello")


def damage(hello: Packages) -> None:
    (hello.world.root / "current/archives/lib_2").write_text("lib 7")


CHANGED = ("file", "/usr/bin/hello", "as package hello brought it", "changed or gone")


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (upgrade, ("package", "hello", "1.1~x, held", "1.2, held")),
        (let_go, ("package", "hello", "1.1~x, held", "1.1~x, not held")),
        (remove, ("package", "hello", "1.1~x, held", "not installed")),
        (change, CHANGED),
        (damage, ("file", "archives/lib_2", "sha256 {0}", "sha256 {1}")),
    ],
)
def test_drift_is_found_and_repaired(hello: Packages, tamper: Callable[[Packages], None], finding: tuple[str]) -> None:
    hello.deploy("1:1.0")
    hello.deploy("1.1~x")
    assert findings(hello) == []
    tamper(hello)
    (found,) = findings(hello)
    digests = [hashlib.sha256(content).hexdigest() for content in (b"lib 2", b"lib 7")]
    assert found == tuple(text.format(*digests) for text in finding)
    hello.stage("1.1~x", mend=True)
    result = hello.activate("1.1~x", mend=True)
    assert (result["changed"], result["active"], result["previous"]) == (True, "1.1_x-abc", "1_1.0-abc")
    assert findings(hello) == []
    assert problems(hello) == []
    assert not os.path.exists(hello.world.host().tree.mended("1.1_x-abc"))


def test_of_the_units_of_a_package_only_what_they_do_is_looked_at(
    hello: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = "hello.service"
    hello.stage("1.2", units=[{"name": unit, "content": None, "action": "restart"}])
    hello.manager.versions["hello"] = "1.2"
    hello.manager.held.add("hello")
    well = UnitStatus(unit, "loaded", "active", file_state="disabled", fragment="/x", drop_ins=("/etc/x.conf",))
    running = Process(7, 0, 100.0, "/")

    def looked_at() -> list[tuple[str, ...]]:
        monkeypatch.setattr(drift, "_services", lambda *_: drift.Services({unit: well}, {unit: running}))
        return [found for found in findings(hello, release="1.2-abc") if found[0] != "release"]

    assert looked_at() == []
    well, running = well._replace(active="failed", sub="failed", result="signal"), running._replace(started=-9.0)
    older = "process 7 is older than the files of hello 1.2: restart its unit"
    assert looked_at() == [
        ("state", unit, "active", "it is failed (failed), result signal"),
        ("process", unit, "begun with the release", older),
    ]


def test_what_is_ignored_and_what_is_not_read_is_no_drift(hello: Packages) -> None:
    hello.deploy("1.2")
    change(hello)
    assert findings(hello) == [CHANGED]
    assert findings(hello, ignored=["/usr/bin/*"]) == []
    assert findings(hello, digests=False) == []


def test_what_the_package_manager_does_not_tell_is_not_known(hello: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    hello.deploy("1.2")

    def hang(_name: str) -> Installed | None:
        raise PackageError("dpkg-query has not ended within 120 s")

    monkeypatch.setattr(hello.manager, "installed", hang)
    told = drift.look(hello.world.host(), drift.Request())
    assert (told["findings"], told["incomplete"]) == ([], "dpkg-query has not ended within 120 s")


def test_a_damaged_release_in_use_is_only_brought_anew_to_be_repaired(hello: Packages) -> None:
    hello.deploy("1:1.0")
    hello.deploy("1.1~x")
    damage(hello)
    with pytest.raises(NotIntactError, match=r"mend it with repair\.yml"):
        hello.stage("1.1~x")
    hello.manager.fetched.clear()
    hello.stage("1.1~x", mend=True)
    # Both are installed, so that apt would not bring them again by itself.
    assert hello.manager.fetched == [("hello", "1.1~x"), ("lib", "2")]
    assert (hello.world.root / "current/archives/lib_2").read_text() == "lib 7"


def test_a_release_that_can_be_had_nowhere_is_not_repaired(hello: Packages) -> None:
    hello.deploy("1.2")
    shutil.rmtree(hello.world.root / "current/archives")
    hello.manager.repository["hello"].remove("1.2")
    with pytest.raises(PackageError, match="it is gone"):
        hello.stage("1.2", mend=True)
    assert hello.manager.versions == {"hello": "1.2"}
    assert hello.world.current == "releases/1.2-abc"


def test_a_repair_needs_no_record(hello: Packages) -> None:
    hello.deploy("1.2")
    (hello.world.root / ".convoy/releases/1.2-abc.json").unlink()
    assert [found[:2] for found in findings(hello, release="1.2-abc")] == [("record", "1.2-abc")]
    hello.stage("1.2", mend=True)
    hello.activate("1.2", mend=True)
    assert findings(hello) == []


def test_an_archive_imports_nothing_of_packages(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    top = "ansible_collections.convoy.rollout.plugins.module_utils."
    for module in ("package_kind", "packages", "apt", "dnf", "kinds"):
        monkeypatch.setitem(sys.modules, top + module, None)
    release = world.stage("1.0.0")
    assert activation.activate(world.host(), world.order(release))["active"] == release
    assert info.look(world.host(), [], verify=True)["kind"] == "archive"
    assert drift.look(world.host(), drift.Request())["findings"] == []
    activation.activate(world.host(), world.order(release)._replace(mend=True))
