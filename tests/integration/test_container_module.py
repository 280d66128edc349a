# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind container on a real host: its podman, its systemd, a tiny service, and what goes wrong with them."""

from __future__ import annotations

import base64
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import containers
from ansible_collections.convoy.rollout.plugins.plugin_utils import container_unit, oci
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import examine
from tests.hardening.moments import named_in

from .images import NESTED, PORT, PREPARE, make
from .on_host import OnHost
from .payload import PLUGINS, modules

HOST = "app2"
NAME = "convoy-test-container"
ROOT = f"/srv/{NAME}"
UNIT = f"{NAME}.service"
OLD, NEW, ILL, DEAD, FOREIGN = "1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
VERSIONS: dict[str, dict[str, str]] = {
    OLD: {},
    NEW: {},
    ILL: {"STATUS": "500"},
    DEAD: {"DIES": "1"},
    FOREIGN: {"architecture": "s390x"},
}
CLEAN = f"""
systemctl stop 'convoy-confirm-{NAME}*' {UNIT} 2>/dev/null
podman rm --force --ignore --all >/dev/null; podman rmi --force --all >/dev/null 2>&1
rm -rf {ROOT} /etc/systemd/system/convoy-*{NAME}* /etc/systemd/system/{UNIT} /etc/systemd/system/*.wants/{UNIT}
systemctl daemon-reload; systemctl reset-failed {UNIT} 2>/dev/null; true
"""
ASK = f"python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/').read().decode())\""
LOADED = "loaded"


class Published:
    """A version as the controller describes it, its artifact on the host."""

    def __init__(self, version: str, directory: Path) -> None:
        arguments = {"architecture": MACHINE, **VERSIONS[version]}
        layout = make(directory / "layout", version, **arguments)
        oci.pack(layout, directory / "layout.tar")
        contents = examine(directory / "layout.tar", "tar", directory / "trial")
        self.image = oci.read(directory / "trial", contents.files)
        self.artifact = directory / "layout.tar"
        artifact = {"sha256": contents.artifact.sha256, "size": contents.artifact.size, "format": "tar"}
        files = [{"path": one.path, "size": one.size, "mode": one.mode, "sha256": one.sha256} for one in contents.files]
        self.manifest = {"artifact": artifact, "files": files, "image": self.image._asdict()}


class Component(OnHost):
    """A container as a component of one host."""

    def __init__(self, fleet: Any, published: dict[str, Published]) -> None:
        super().__init__(fleet, HOST, ROOT, PORT)
        self.published = published

    def stage(self, version: str, greeting: str = "", **arguments: Any) -> dict[str, Any]:
        """Bring a version beside the one that runs, with a greeting that is a part of its release."""
        settings = {
            **NESTED,
            "environment": {"GREETING": greeting or f"hello from {version}"},
            "volumes": ["./etc/told:/etc/told:ro"],
            "user": "1000:1000",
        }
        known = {
            "release": release(version),
            "version": version,
            "manifest": self.published[version].manifest,
            "artifact": f"/run/convoy-test-{version}.tar",
            "config": [{"dest": "etc/told", "content": f"told by {version}\n", "mode": "0644"}],
            "units": [container_unit.unit(NAME, ROOT, settings)],
        }
        return {"changed": None} | self.call("staged", **{**known, **arguments})

    def activate(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Take a staged version into service."""
        return self.call("active", release=release(version), **arguments)

    def deploy(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Stage and activate; the activation's result."""
        staged = self.stage(version)
        assert not staged["failed"], staged.get("msg")
        return self.activate(version, **arguments)

    def info(self) -> dict[str, Any]:
        """Call the module release_info."""
        return self.run("release_info", {"verify": True})

    def findings(self) -> list[str]:
        """Call the module drift_info; what kinds of things differ."""
        told = self.run("drift_info", {})
        assert told["incomplete"] is None, told
        return [finding["what"] for finding in told["findings"]]

    def images(self) -> list[str]:
        """The releases whose images podman has."""
        names = self.shell("podman images --format '{{.Repository}}:{{.Tag}}'").split()
        assert all(name.startswith(f"{containers.repository(NAME, ROOT)}:") for name in names), names
        return sorted(name.rpartition(":")[2] for name in names)

    def check_serving(self, version: str) -> None:
        """podman, systemd, the service and `current` say the same."""
        info = self.info()
        assert info["problems"] == []
        assert self.findings() == []
        assert (info["active"], info["version"], info["kind"]) == (release(version), version, "container")
        greeting = f"hello from {version}"
        told = {"version": version, "greeting": greeting, "file": f"told by {version}", "user": 1000}
        assert json.loads(self.shell(ASK)) == told
        runs = self.shell(f"podman container inspect --format '{{{{.Image}}}}' {NAME}")
        assert f"sha256:{runs}" == self.published[version].image.id
        assert self.shell(f"ls -A {ROOT}/.convoy/incoming; ls -d /run/convoy-image-* 2>/dev/null || true") == ""


def release(version: str) -> str:
    """An id as the controller would make it; podman's names know no '+'."""
    return f"{version}+b-abc"


def tag(version: str) -> str:
    """What the image of a release is called, without its repository."""
    return containers.name_of(NAME, ROOT, release(version)).rpartition(":")[2]


@pytest.fixture(scope="module")
def prepared(fleet: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Component]:
    """A host that runs containers, with the modules and all artifacts on it."""
    published = {version: Published(version, tmp_path_factory.mktemp(version)) for version in VERSIONS}
    fleet.shell(HOST, PREPARE)
    fleet.shell(HOST, "base64 -d > /run/convoy-test-modules.zip", base64.b64encode(modules()).decode())
    for version, one in published.items():
        content = base64.b64encode(one.artifact.read_bytes()).decode()
        fleet.shell(HOST, f"base64 -d > /run/convoy-test-{version}.tar", content)
    yield Component(fleet, published)
    fleet.shell(HOST, "rm -f /run/convoy-test-*")


@pytest.fixture
def component(prepared: Component) -> Iterator[Component]:
    """A host on which nothing was ever deployed."""
    prepared.killed_at = ""
    prepared.shell(CLEAN)
    yield prepared
    prepared.killed_at = ""
    prepared.shell(CLEAN)


def test_the_whole_road_and_back(component: Component) -> None:
    staged = component.stage(OLD)
    assert (staged["failed"], staged.get("changed")) == (False, True), staged
    assert component.shell(f"podman ps --quiet; ls /etc/systemd/system/{UNIT} 2>/dev/null || true") == ""
    assert component.stage(OLD)["changed"] is False
    first = component.activate(OLD)
    assert (first["failed"], first["changed"], first["active"]) == (False, True, release(OLD)), first
    component.check_serving(OLD)
    staged = component.stage(NEW)
    assert (staged["failed"], staged["changed"]) == (False, True), staged
    assert json.loads(component.shell(ASK))["version"] == OLD
    second = component.activate(NEW)
    assert (second["active"], second["previous"]) == (release(NEW), release(OLD)), second
    component.check_serving(NEW)
    pid = component.info()["process"][UNIT]["pid"]
    assert component.activate(NEW)["changed"] is False
    assert component.info()["process"][UNIT]["pid"] == pid
    back = component.call("reverted", rollout="r-2", token=2)
    assert (back["failed"], back["changed"], back["active"]) == (False, True, release(OLD)), back
    component.check_serving(OLD)


@pytest.mark.parametrize(("version", "why"), [(ILL, "500"), (DEAD, "refused")])
def test_version_that_is_ill_or_dies_goes_back(component: Component, version: str, why: str) -> None:
    component.deploy(OLD)
    result = component.deploy(version)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, release(OLD)), result
    assert why in result["msg"].lower(), result["msg"]
    assert f"{release(OLD)} is active again" in result["msg"]
    component.check_serving(OLD)


def test_container_that_podman_does_not_start_goes_back(component: Component) -> None:
    component.deploy(OLD)
    unit = container_unit.unit(NAME, ROOT, {**NESTED, "volumes": ["/nowhere/at/all:/data"]})
    component.stage(NEW, units=[unit])
    result = component.activate(NEW)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, release(OLD)), result
    assert any("/nowhere/at/all" in line for line in result["log"]), result["log"]
    component.check_serving(OLD)


def test_first_version_that_fails_leaves_nothing(component: Component) -> None:
    result = component.deploy(DEAD)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, None), result
    assert component.shell("podman ps --all --quiet") == ""
    assert component.shell(f"systemctl show -P LoadState {UNIT}") == "not-found"


def test_unit_that_died_is_told_and_brought_back(component: Component) -> None:
    component.deploy(OLD)
    component.shell(f"systemctl stop {UNIT}; podman rmi --force --all >/dev/null")
    problems = " ".join(component.info()["problems"])
    assert f"{UNIT}: it is inactive" in problems
    assert "is not there, the active release has in podman's storage" in problems, problems
    assert component.findings() == ["state", "image"]
    result = component.activate(OLD)
    assert (result["failed"], result["changed"]) == (False, True), result
    component.check_serving(OLD)


def test_image_that_somebody_removed_is_had_from_the_release(component: Component) -> None:
    component.deploy(OLD)
    component.stage(NEW)
    component.shell("podman image prune --all --force >/dev/null")
    assert component.images() == [tag(OLD)]
    assert component.stage(NEW)["changed"] is True
    component.shell("podman image prune --all --force >/dev/null")
    assert component.activate(NEW)["active"] == release(NEW)
    component.shell("podman image prune --all --force >/dev/null")
    assert component.images() == [tag(NEW)]
    assert component.call("reverted", rollout="r-2", token=2)["active"] == release(OLD)
    component.check_serving(OLD)


def test_images_go_with_their_releases(component: Component) -> None:
    for version in (OLD, NEW):
        component.deploy(version, keep=1)
    component.shell(f"podman tag {component.published[OLD].image.id[7:]} localhost/of-somebody:else")
    unit = container_unit.unit(NAME, ROOT, {**NESTED, "environment": {"GREETING": "again"}})
    component.stage(NEW, release="third", units=[unit])
    result = component.call("active", release="third", keep=1)
    assert (result["failed"], result["pruned"]) == (False, [release(OLD)]), result
    component.shell("podman untag localhost/of-somebody:else localhost/of-somebody:else && podman image prune -f")
    assert component.images() == [tag(NEW), "third"]
    component.stage(OLD)
    assert component.call("absent", release=release(OLD))["changed"] is True
    assert tag(OLD) not in " ".join(component.images())


def test_another_container_under_its_name_is_found(component: Component) -> None:
    component.deploy(OLD)
    component.stage(NEW)
    other = component.published[NEW].image.id[len("sha256:") :]
    options = f"--name {NAME} --network host --cgroupns private --env PORT={PORT}"
    component.shell(f"systemctl stop {UNIT}; podman run --detach --pull never {options} {other} >/dev/null")
    assert component.findings() == ["state", "container"]
    refused = component.activate(OLD)
    assert refused["failed"] is True
    assert f"there is a container '{NAME}' on this host that is not of component" in refused["msg"]
    assert component.shell("podman ps --quiet") != ""
    component.shell(f"podman rm --force {NAME}")
    assert component.activate(OLD)["changed"] is True
    component.check_serving(OLD)


def test_image_for_other_machines_is_refused_before_anything_is_brought(component: Component) -> None:
    result = component.stage(FOREIGN, artifact=None)
    assert result["failed"] is True
    assert f"is made for linux/s390x, and this host is linux/{MACHINE}" in result["msg"]
    assert component.shell(f"ls {ROOT}/releases; podman images --quiet") == ""


def test_every_step_of_containers_is_killed_at() -> None:
    steps = named_in((PLUGINS / "module_utils/container_kind.py").read_text())
    assert steps == {f"step {LOADED}"}


@pytest.mark.parametrize("step", [pytest.param("unpacked", marks=pytest.mark.long), LOADED, "switched", "restarted"])
def test_killed_and_run_again(component: Component, step: str) -> None:
    component.deploy(OLD)
    is_staging = step in ("unpacked", LOADED)
    if not is_staging:
        component.stage(NEW)
    component.killed_at = step
    killed = component.stage(NEW) if is_staging else component.activate(NEW)
    component.killed_at = ""
    assert {key: value for key, value in killed.items() if value is not None} == {"failed": True}
    result = component.deploy(NEW)
    assert (result["failed"], result["active"], result["previous"]) == (False, release(NEW), release(OLD)), result
    component.check_serving(NEW)
    assert component.images() == [tag(OLD), tag(NEW)]


def test_killed_while_it_activates_and_taken_back(component: Component) -> None:
    component.deploy(OLD)
    component.stage(NEW)
    component.killed_at = "switched"
    component.activate(NEW)
    component.killed_at = ""
    result = component.call("reverted", release=release(OLD), rollout="r-2", token=2)
    assert (result["failed"], result["active"]) == (False, release(OLD)), result
    component.check_serving(OLD)


def test_unconfirmed_version_is_taken_back_by_the_host(component: Component) -> None:
    component.deploy(OLD)
    component.deploy(NEW, confirm_within=2)
    deadline = time.monotonic() + 60
    while component.info()["active"] != release(OLD) or component.info()["problems"]:
        assert time.monotonic() < deadline, component.info()
        time.sleep(0.5)
    component.check_serving(OLD)
