# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of containers: how they are described, and what they are called."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import containers
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ContainerError, InputError

IMAGE = Image(f"sha256:{'0a' * 32}", f"sha256:{'0b' * 32}", "application/x", 400, "linux", "amd64")


def test_an_image_is_read_back() -> None:
    assert containers.image_of(IMAGE._asdict()) == IMAGE
    assert IMAGE.environment == f"CONVOY_IMAGE={'0b' * 32}\n"


@pytest.mark.parametrize(
    "spoil",
    [
        {"digest": "0a" * 32},
        {"digest": "sha256:../../../etc"},
        {"digest": None},
        {"id": f"sha256:{'0B' * 32}"},
        {"id": f"sha256:{'0b' * 32}\n"},
        {"size": 0},
        {"size": "400"},
        {"size": True},
        {"os": None},
        {"architecture": 64},
        {"media_type": []},
        {"more": "x"},
    ],
)
def test_what_is_no_image_is_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the manifest's image"):
        containers.image_of({**IMAGE._asdict(), **spoil})


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(InputError, match="other fields than digest, id, media_type, size, os, architecture"):
        containers.image_of({})


@pytest.mark.parametrize(
    ("architecture", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64"), ("arm", "armv7l")]
)
def test_machines_run_their_images(architecture: str, machine: str) -> None:
    containers.check_machine(IMAGE._replace(architecture=architecture), machine)


@pytest.mark.parametrize(
    ("image", "machine", "complaint"),
    [
        (IMAGE, "aarch64", "is made for linux/amd64, and this host is linux/arm64: publish the release with an image"),
        (IMAGE._replace(os="windows"), "x86_64", "is made for windows/amd64, and this host is linux/amd64"),
    ],
)
def test_images_of_other_machines_are_refused(image: Image, machine: str, complaint: str) -> None:
    with pytest.raises(ContainerError, match=complaint):
        containers.check_machine(image, machine)


@pytest.mark.parametrize("release", ["1.0.0-abc", "1.0+build.7-abc", "_x-1", "+1-abc", "1" * 128, "+" * 128])
def test_names_are_what_podman_takes(release: str) -> None:
    name = containers.name_of("Hello.World_2", "/srv/Hello", release)
    assert re.fullmatch(r"localhost/convoy/hello-world-2-[0-9a-f]{12}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name)
    assert name.startswith(containers.repository("Hello.World_2", "/srv/Hello") + ":")


def test_names_tell_components_and_releases_apart() -> None:
    places = [("hello", "/srv/hello"), ("Hello", "/srv/hello"), ("hello", "/srv/b")]
    releases = ["1+a", "1_a", "1-a", "1" * 127, "1" * 128]
    names = {containers.name_of(component, root, release) for component, root in places for release in releases}
    assert len(names) == len(places) * len(releases)
