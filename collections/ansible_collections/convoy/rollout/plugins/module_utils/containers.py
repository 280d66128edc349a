# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of containers, as a manifest names them, and what they and their containers are called on a host. Pure."""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ContainerError, InputError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Mapping

# Where a release says to its unit which image to run, so that it changes with `current` in one step.
IMAGE_FILE = "convoy-image.env"
IMAGE_VARIABLE = "CONVOY_IMAGE"
LABEL = "io.convoy.component"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What uname(2) calls a machine, and what images call it.
_ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armv6l": "arm",
    "armv7l": "arm",
    "loongarch64": "loong64",
}
_LONGEST_TAG = 128


class Image(NamedTuple):
    """An image in an OCI layout. `digest` and `size` are those of its manifest, `id` is that of its configuration.

    The id is what podman knows an image by. It stands for the whole content, since the configuration has the digests
    of all layers as they are unpacked.
    """

    digest: str
    id: str
    media_type: str
    size: int
    os: str
    architecture: str

    @property
    def environment(self) -> str:
        """The content of IMAGE_FILE."""
        return f"{IMAGE_VARIABLE}={self.id[len('sha256:') :]}\n"


class Container(NamedTuple):
    """A container of a host: the id of its image, and its component, None where it is not Convoy's."""

    image: str
    component: str | None
    is_running: bool


def is_digest(value: object) -> bool:
    """Whether a value is a digest as images have them."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def image_of(fields: Mapping[str, Any]) -> Image:
    """An image as a manifest or a record names it. InputError for anything else."""
    try:
        image = Image(**fields)
    except TypeError as error:
        raise InputError(f"the manifest's image has other fields than {', '.join(Image._fields)}: {error}") from error
    texts = (image.media_type, image.os, image.architecture)
    if not is_digest(image.digest) or not is_digest(image.id) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"the manifest's image must have digest, id, media_type, os and architecture, not {fields!r}")
    if not isinstance(image.size, int) or isinstance(image.size, bool) or image.size < 1:
        raise InputError(f"the manifest's image has size {image.size!r}, which is not a number of bytes")
    return image


def check_machine(image: Image, machine: str) -> None:
    """Raise ContainerError for an image that is made for other machines than one that uname(2) calls so."""
    here = _ARCHITECTURES.get(machine, machine)
    if image.os != "linux" or image.architecture != here:
        raise ContainerError(
            f"image {image.digest} is made for {image.os}/{image.architecture}, and this host is linux/{here}: publish "
            "the release with an image for its architecture"
        )


def repository(component: str, root: str) -> str:
    """The name, without a tag, of all images of a component. Two components never have the same one."""
    plain = re.sub(r"[^a-z0-9]+", "-", component.lower()).strip("-")
    return f"localhost/convoy/{plain}-{_short(component, root)}"


def name_of(component: str, root: str, release: str) -> str:
    """The name of the image of a release. It keeps the image from being pruned with those that have no name."""
    tag = re.sub(r"[^A-Za-z0-9_.-]", "_", release)
    if tag != release or len(tag) > _LONGEST_TAG:
        tag = f"{tag[: _LONGEST_TAG - 13]}-{_short(release)}"
    return f"{repository(component, root)}:{tag}"


def _short(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
