# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind container on the road of all kinds: a real release tree, and a storage of images that is made up."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import (
    activation,
    container_kind,
    containers,
    drift,
    info,
    staging,
)
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Container, Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ActivationError,
    ContainerError,
    InputError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import SupervisorError

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
ILL = ({"kind": "command", "argv": ["false"]},)


class MadeUp:
    """What runs containers, whose storage is a dictionary: the processes are those of the world."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.images: dict[str, str] = {}
        self.loaded: list[str] = []
        self.removed: list[str] = []
        self.foreign: Container | None = None
        self.runs: str | None = None
        self.broken: str | None = None

    def check(self) -> None:
        if self.broken is not None:
            raise ContainerError(self.broken)

    def has(self, image: Image) -> bool:
        return image.id in self.images.values()

    def load(self, layout: str, image: Image, name: str) -> None:
        self.check()
        assert (Path(layout) / "version").is_file()
        self.loaded.append(layout)
        self.images[name] = image.id

    def name(self, image: Image, name: str) -> None:
        self.images[name] = image.id

    def names(self, repository: str) -> list[str]:
        self.check()
        return [name for name in self.images if name.startswith(repository + ":")]

    def forget(self, name: str) -> None:
        del self.images[name]

    def container(self, name: str) -> Container | None:
        assert name == "hello"
        pid = self.world.supervisor.running().get("hello.service")
        if self.foreign is not None or pid is None:
            return self.foreign
        text = Path(os.readlink(f"/proc/{pid}/cwd"), containers.IMAGE_FILE).read_text()
        runs = self.runs or "sha256:" + text.strip().partition("=")[2]
        return Container(runs, "hello", is_running=True)

    def remove(self, name: str) -> None:
        self.removed.append(name)
        self.foreign = None


class Images:
    """A host to deploy the component `hello` to, as a container."""

    def __init__(self, world: Any, engine: MadeUp) -> None:
        self.world, self.engine = world, engine

    def wanted(self, version: str, **fields: Any) -> tuple[staging.Wanted, str]:
        """A release and its artifact; each version is an image of its own."""
        wanted, artifact = self.world.wanted(version)
        digits = version.replace(".", "").ljust(64, "0")
        image = Image(f"sha256:{digits}", f"sha256:{digits[::-1]}", "x", 9, "linux", ARCHITECTURE)._replace(**fields)
        return wanted._replace(image=image, config=(staging.image_file(image),)), artifact

    def stage(self, version: str, **fields: Any) -> str:
        """Stage as the module does; the release's id."""
        host = self.world.host()
        host.begin()
        wanted, artifact = self.wanted(version, **fields)
        staging.check(host, wanted)
        if not staging.is_staged(host, wanted):
            staging.stage(host, wanted, artifact, Limits(), strict=False)
        return wanted.release

    def activate(self, version: str, **fields: Any) -> dict[str, Any]:
        """Activate as the module does."""
        self.host = self.world.host()
        self.host.begin()
        return activation.activate(self.host, self.world.order(f"{version}-abc", **fields))

    def deploy(self, version: str, **fields: Any) -> dict[str, Any]:
        """Stage and activate."""
        self.stage(version)
        return self.activate(version, **fields)

    def tags(self) -> list[str]:
        """The releases that there are images of."""
        return sorted(name.rpartition(":")[2] for name in self.engine.images)

    def problems(self) -> list[str]:
        found: list[str] = info.look(self.world.host(), [], verify=True)["problems"]
        return found

    def findings(self) -> list[tuple[str, str]]:
        told = drift.look(self.world.host(), drift.Request())
        assert told["incomplete"] is None
        return [(finding["what"], finding["name"]) for finding in told["findings"]]


@pytest.fixture
def hello(world: Any, monkeypatch: pytest.MonkeyPatch) -> Images:
    """A host whose podman is made up."""
    engine = MadeUp(world)
    monkeypatch.setattr(container_kind, "CONTAINER", container_kind.ContainerKind(lambda: engine))
    return Images(world, engine)


def test_there_and_back(hello: Images) -> None:
    first = hello.deploy("1.0")
    assert (first["changed"], first["active"]) == (True, "1.0-abc")
    hello.stage("1.1")
    assert hello.tags() == ["1.0-abc", "1.1-abc"]
    second = hello.activate("1.1")
    assert (second["active"], second["previous"]) == ("1.1-abc", "1.0-abc")
    assert hello.activate("1.1")["changed"] is False
    assert (hello.problems(), hello.findings()) == ([], [])
    look = info.look(hello.world.host(), [], verify=False)
    assert (look["kind"], look["version"]) == ("container", "1.1")
    back = activation.revert(hello.world.host(), hello.world.order(None))
    assert (back["changed"], back["active"]) == (True, "1.0-abc")
    assert (hello.problems(), hello.findings()) == ([], [])


def test_an_image_is_loaded_before_its_release_is_there(hello: Images) -> None:
    hello.stage("1.0")
    assert [os.path.dirname(layout) for layout in hello.engine.loaded] == [f"{hello.world.root}/.convoy/incoming"]
    hello.engine.broken = "podman is ill"
    with pytest.raises(ContainerError, match="podman is ill"):
        hello.stage("1.1")
    assert hello.world.host().tree.present() == {"1.0-abc"}
    assert list((hello.world.root / ".convoy" / "incoming").iterdir()) == []


@pytest.mark.parametrize("fields", [{"architecture": "pdp11"}, {"os": "plan9"}])
def test_an_image_of_other_machines_is_refused_before_it_comes(hello: Images, fields: dict[str, str]) -> None:
    with pytest.raises(ContainerError, match=f"and this host is linux/{ARCHITECTURE}"):
        hello.stage("1.0", **fields)
    assert hello.engine.loaded == []


def test_an_id_stands_for_one_image(hello: Images) -> None:
    hello.stage("1.0")
    with pytest.raises(InputError, match="an id must stand for one content"):
        hello.stage("1.0", digest=f"sha256:{'f' * 64}")


def test_an_image_that_is_gone_is_had_from_its_release(hello: Images) -> None:
    hello.deploy("1.0")
    hello.engine.images.clear()
    assert any("is not there, the active release has in podman's storage" in one for one in hello.problems())
    assert [what for what, _name in hello.findings()] == ["image"]
    running = hello.world.supervisor.running()
    assert hello.activate("1.0")["active"] == "1.0-abc"
    assert hello.world.supervisor.running() == running
    assert hello.engine.loaded[-1] == f"{hello.world.root}/releases/1.0-abc"
    hello.engine.images.clear()
    assert staging.ensure_loaded(hello.world.host(), "1.0-abc") is True
    assert staging.ensure_loaded(hello.world.host(), "1.0-abc") is False


def test_an_image_without_its_name_gets_it_back(hello: Images) -> None:
    hello.stage("1.0")
    name = next(iter(hello.engine.images))
    hello.engine.images = {"localhost/of-somebody:else": hello.engine.images[name]}
    hello.activate("1.0")
    assert name in hello.engine.images


@pytest.mark.parametrize("fault", ["probes", "image", "start"])
def test_a_version_that_fails_goes_back(hello: Images, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hello.deploy("1.0")
    hello.stage("1.1")
    if fault == "image":
        hello.engine.runs = f"sha256:{'10'.ljust(64, '0')[::-1]}"
    if fault == "start":
        restart = hello.world.supervisor.restart

        def fails_once(names: list[str]) -> None:
            monkeypatch.setattr(hello.world.supervisor, "restart", restart)
            raise SupervisorError(f"Job for {', '.join(names)} failed.")

        monkeypatch.setattr(hello.world.supervisor, "restart", fails_once)
    with pytest.raises(ActivationError, match=r"1\.0-abc is active again") as caught:
        hello.activate("1.1", **({"probes": ILL} if fault == "probes" else {}))
    assert (caught.value.details["reverted"], caught.value.details["active"]) == (True, "1.0-abc")
    assert hello.problems() == []


def test_a_first_version_that_fails_leaves_no_container(hello: Images) -> None:
    hello.stage("1.0")
    with pytest.raises(ActivationError, match="nothing was active before, and nothing is now"):
        hello.activate("1.0", probes=ILL)
    assert hello.world.supervisor.running() == {}


def test_a_container_that_outlived_its_unit_is_removed_with_it(hello: Images) -> None:
    hello.deploy("1.0")
    host = hello.world.host()
    recorded = host.tree.read_record("1.0-abc")
    hello.engine.foreign = Container("sha256:x", "somebody", is_running=True)
    container_kind.CONTAINER.revert(host, recorded)
    assert hello.engine.removed == []
    hello.engine.foreign = Container("sha256:x", "hello", is_running=True)
    container_kind.CONTAINER.revert(host, recorded)
    assert hello.engine.removed == ["hello"]


def test_a_container_of_somebody_else_is_not_replaced(hello: Images) -> None:
    hello.stage("1.0")
    hello.engine.foreign = Container("sha256:x", None, is_running=False)
    with pytest.raises(ContainerError, match=r"there is a container 'hello' .* nothing was changed\. Remove it"):
        hello.activate("1.0")
    assert hello.world.current is None


def test_images_go_with_their_releases(hello: Images) -> None:
    for version in ("1.0", "1.1", "1.2"):
        hello.deploy(version, keep=1)
    hello.engine.images["localhost/convoy/hello-of-somebody:1.0"] = "sha256:x"
    assert hello.tags() == ["1.0", "1.1-abc", "1.2-abc"]
    hello.stage("1.3")
    assert staging.remove(hello.world.host(), "1.3-abc") is True
    assert hello.tags() == ["1.0", "1.1-abc", "1.2-abc"]


def test_that_images_could_not_be_removed_is_no_fault_of_the_release(hello: Images) -> None:
    hello.stage("1.0")
    hello.engine.broken = "podman is ill"
    assert hello.activate("1.0")["active"] == "1.0-abc"
    assert hello.host.warnings == ["not everything of releases that are gone could be removed: podman is ill"]


def test_another_image_that_runs_is_told(hello: Images) -> None:
    hello.deploy("1.0")
    hello.engine.runs = "sha256:other"
    problems = " ".join(hello.problems())
    assert "container hello is of image sha256:other, the active release has of image sha256:" in problems
    assert "hello.service: container 'hello' runs image sha256:other, expected sha256:" in problems
    assert [what for what, _name in hello.findings()] == ["process", "container"]
    hello.engine.foreign = Container("sha256:x", "hello", is_running=False)
    assert "hello.service: there is no container 'hello' that runs" in hello.problems()


def test_a_process_that_was_not_restarted_is_found(hello: Images) -> None:
    hello.deploy("1.0")
    host = hello.world.host()
    recorded = host.tree.read_record("1.0-abc")
    running = drift.process.read(hello.world.supervisor.running()["hello.service"])
    assert running is not None
    late = running.started_ticks + 1
    assert "is older than the switch" in str(host.process_fault(running, recorded, late))
    assert host.process_fault(running, recorded, running.started_ticks) is None
