# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind container: an archive that is the OCI layout of an image, which the release's unit runs with podman.

Everything that an archive has, a container has: its directory, configuration and units are staged, switched to and gone
back from as those are. What is added is the image in podman's storage. That is a copy of what lies in the release's
directory, and is brought in anew from there where it is gone. Which image a unit runs is said by a file of the release.
"""

from __future__ import annotations

import platform

from ansible_collections.convoy.rollout.plugins.module_utils import containers
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ContainerError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.podman import Engine, Podman
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable, Iterator

    from ansible_collections.convoy.rollout.plugins.module_utils.kinds import Difference


class ContainerKind:
    """See kinds.Kind. `engine` makes what runs the containers of a host."""

    def __init__(self, engine: Callable[[], Engine] = Podman) -> None:
        self._engine = engine()

    def check(self, image: Image) -> None:
        """Raise ContainerError where this host cannot run the image; nothing has been brought then."""
        containers.check_machine(image, platform.machine())
        self._engine.check()

    def has(self, host: Host, recorded: Record) -> bool:
        """Whether the image of a release is where its unit takes it from."""
        return self._engine.has(_image(recorded))

    def load(self, host: Host, recorded: Record, layout: str) -> None:
        """Bring the image of a release, which lies in the directory `layout`, into podman's storage."""
        self._engine.load(layout, _image(recorded), _name(host, recorded.release))
        host.done("loaded")

    def ready(self, host: Host, recorded: Record) -> None:
        """See Kind. The container's name must be free, or this component's already."""
        component = host.tree.component
        found = self._engine.container(component)
        if found is not None and found.component != component:
            raise ContainerError(
                f"there is a container {component!r} on this host that is not of component {component!r}; nothing was "
                f"changed. Remove it (podman rm --force {component}) or rename it, and run this again"
            )
        self._have(host, recorded)

    def activate(self, host: Host, recorded: Record) -> None:
        """See Kind. What runs is changed by the restart of the unit."""
        self._have(host, recorded)

    def revert(self, host: Host, recorded: Record) -> None:
        """See Kind. The unit has been stopped and removed, and its container with it, unless that was broken off."""
        found = self._engine.container(host.tree.component)
        if found is not None and found.component == host.tree.component:
            self._engine.remove(host.tree.component)

    def sweep(self, host: Host) -> None:
        """See Kind."""
        kept = {_name(host, release) for release in host.tree.present()}
        for name in self._engine.names(containers.repository(host.tree.component, host.tree.root)):
            if name not in kept:
                self._engine.forget(name)

    def info(self, host: Host, recorded: Record, verify: bool) -> Iterator[str]:
        """See Kind."""
        for what, name, expected, actual in self.drift(host, recorded, verify):
            yield f"{what} {name} is {actual}, the active release has {expected}"

    def drift(self, host: Host, recorded: Record, digests: bool) -> Iterator[Difference]:
        """See Kind. podman's storage is not read: it is the kernel that would have to find damage there."""
        image = _image(recorded)
        if not self._engine.has(image):
            yield ("image", image.digest, "in podman's storage", "not there")
        found = self._engine.container(host.tree.component)
        if found is not None and found.image != image.id:
            yield ("container", host.tree.component, f"of image {image.id}", f"of image {found.image}")

    def process_fault(self, host: Host, running: Process, recorded: Record, not_before: int) -> str | None:
        """See Kind. The process of the unit is the one that keeps the container; what that runs, podman knows."""
        if running.started_ticks < not_before:
            return f"process {running.pid} is older than the switch: it was not restarted"
        component, image = host.tree.component, _image(recorded)
        found = self._engine.container(component)
        if found is None or not found.is_running:
            return f"there is no container {component!r} that runs"
        if found.image != image.id:
            return f"container {component!r} runs image {found.image}, expected {image.id}"
        return None

    def _have(self, host: Host, recorded: Record) -> None:
        """See that the image is in podman's storage: somebody may have removed what nothing ran."""
        image = _image(recorded)
        if self._engine.has(image):
            self._engine.name(image, _name(host, recorded.release))
        else:
            self.load(host, recorded, host.tree.release(recorded.release))


def _image(recorded: Record) -> Image:
    return containers.image_of(recorded.image or {})


def _name(host: Host, release: str) -> str:
    return containers.name_of(host.tree.component, host.tree.root, release)


CONTAINER = ContainerKind()
