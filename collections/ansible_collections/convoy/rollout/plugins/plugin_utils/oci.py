# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading an OCI layout when it is published: which image it is, and that all of it is there.

See https://github.com/opencontainers/image-spec: a layout is a directory with oci-layout, index.json, and every blob
under the name of its digest.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image, is_digest
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs"
LAYOUT_VERSION = "1.0.0"
LARGEST_DOCUMENT = 4 * 1024 * 1024  # bytes of an index, a manifest or a configuration: what registries take
REF_NAME = "org.opencontainers.image.ref.name"
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
DEEPEST = 4  # indexes in each other
_SHOWN = 8


class NotAnImageError(ConvoyError):
    """What is to be published as a container is no OCI layout, or does not say which image it is."""

    reason: ClassVar[str] = "artifact-no-image"


def pack(directory: Path, archive: Path) -> None:
    """Make a tar of a layout's directory; the same layout makes the same bytes. Raises NotAnImageError for another."""
    if not (directory / LAYOUT).is_file():
        raise _no_layout(f"the directory {directory} has no file {LAYOUT}")
    found = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(found):
            tar.add(path, str(path.relative_to(directory)), filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs from one machine to the next."""
    member.mode, member.mtime = 0o644, 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def read(directory: Path, files: Sequence[FileEntry], chosen: str | None = None) -> Image:
    """The image of an unpacked layout that consists of ``files``, with all that it needs.

    ``chosen`` is its name (the annotation org.opencontainers.image.ref.name) or the digest of its manifest, where the
    layout has several. Raises NotAnImageError, which names what is wrong.
    """
    layout = _Layout(directory, files)
    layout.check()
    descriptor = _choose(list(layout.images(layout.index(), 0)), chosen)
    manifest = layout.document(descriptor, "manifest")
    config, layers = manifest.get("config"), manifest.get("layers")
    if not isinstance(config, Mapping) or not isinstance(layers, list):
        raise NotAnImageError(f"manifest {descriptor['digest']} of the layout has no config and layers: not an image")
    for layer in layers:
        layout.check_blob(layer, "layer")
    described = layout.document(config, "configuration")
    os, architecture = described.get("os"), described.get("architecture")
    if os != "linux" or not isinstance(architecture, str) or not architecture:
        raise NotAnImageError(
            f"image {descriptor['digest']} is made for {os or 'no system'}/{architecture or 'no architecture'}: Convoy "
            "runs images for linux that say their architecture"
        )
    return Image(
        digest=str(descriptor["digest"]),
        id=str(config["digest"]),
        media_type=str(descriptor["mediaType"]),
        size=int(descriptor["size"]),
        os=os,
        architecture=architecture,
    )


class _Layout:
    """A layout that was unpacked, whose files have been listed with their digests."""

    def __init__(self, directory: Path, files: Sequence[FileEntry]) -> None:
        self._directory = directory
        self._files = {entry.path: entry for entry in files if entry.link is None}

    def check(self) -> None:
        """Whether it is one, and every blob in it has the digest that it is named after."""
        for name in (LAYOUT, INDEX):
            if name not in self._files:
                raise _no_layout(f"the artifact has no file {name}")
        version = self._read(LAYOUT, LAYOUT).get("imageLayoutVersion")
        if version != LAYOUT_VERSION:
            raise _no_layout(f"its {LAYOUT} says version {version!r}, and {LAYOUT_VERSION} is known")
        for path, entry in self._files.items():
            if path.startswith(f"{BLOBS}/sha256/") and path != f"{BLOBS}/sha256/{entry.sha256}":
                raise NotAnImageError(
                    f"blob {path.rpartition('/')[2]} of the layout has other content, with the digest {entry.sha256}: "
                    "it was damaged; make the layout anew"
                )

    def index(self) -> Mapping[str, Any]:
        """What it holds, as it says itself."""
        return self._read(INDEX, INDEX)

    def images(self, index: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
        """The descriptors of all images, those in indexes too; what only describes others is left out."""
        descriptors = index.get("manifests")
        if not isinstance(descriptors, list) or depth > DEEPEST:
            raise NotAnImageError(f"an index of the layout has no list of manifests, or lies deeper than {DEEPEST}")
        for descriptor in descriptors:
            self.check_blob(descriptor, "manifest")
            if descriptor.get("mediaType") in INDEXES:
                for inner in self.images(self.document(descriptor, "index"), depth + 1):
                    yield {**inner, "annotations": {**_notes(descriptor), **_notes(inner)}}
            elif descriptor.get("mediaType") in MANIFESTS and _platform(descriptor) != "unknown/unknown":
                yield descriptor

    def document(self, descriptor: Mapping[str, Any], what: str) -> dict[str, Any]:
        """A blob that is JSON."""
        self.check_blob(descriptor, what)
        return self._read(_path(str(descriptor["digest"])), f"{what} {descriptor['digest']}")

    def check_blob(self, descriptor: object, what: str) -> None:
        """Whether what a descriptor names is there, in its size."""
        if not isinstance(descriptor, Mapping) or not is_digest(descriptor.get("digest")):
            raise NotAnImageError(
                f"a {what} of the layout is named by {descriptor!r:.200}, which has no SHA-256 digest"
            )
        digest, size = str(descriptor["digest"]), descriptor.get("size")
        entry = self._files.get(_path(digest))
        if entry is None:
            raise NotAnImageError(f"{what} {digest} is not in the layout: make it anew, with all blobs")
        if entry.size != size:
            raise NotAnImageError(f"{what} {digest} has {entry.size} bytes, and the layout says {size!r}")

    def _read(self, path: str, what: str) -> dict[str, Any]:
        if self._files[path].size > LARGEST_DOCUMENT:
            raise NotAnImageError(f"{what} of the layout is larger than {LARGEST_DOCUMENT} bytes")
        try:
            found = json.loads((self._directory / path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise NotAnImageError(f"{what} of the layout is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise NotAnImageError(f"{what} of the layout is no JSON object")
        return found


def _choose(images: Sequence[Mapping[str, Any]], chosen: str | None) -> Mapping[str, Any]:
    """The one image that is meant."""
    if not images:
        raise NotAnImageError("the layout holds no image: its index names no manifest of one")
    wanted = [image for image in images if chosen in (None, image["digest"], _notes(image).get(REF_NAME))]
    digests = {image["digest"] for image in wanted}
    if len(digests) == 1:
        return wanted[0]
    known = "; ".join(_told(image) for image in images[:_SHOWN])
    more = f" and {len(images) - _SHOWN} more" if len(images) > _SHOWN else ""
    if not digests:
        raise NotAnImageError(f"the layout holds no image {chosen!r}; there is {known}{more}: set publish_image to one")
    how = "by its name or digest" if chosen is None else "by its digest"
    raise NotAnImageError(
        f"the layout holds {len(digests)} images{f' {chosen!r}' if chosen else ''}: choose one with publish_image, "
        f"{how}; there is {known}{more}"
    )


def _told(image: Mapping[str, Any]) -> str:
    name, platform = _notes(image).get(REF_NAME), _platform(image)
    return " ".join(filter(None, [str(name) if name else "", image["digest"], f"for {platform}" if platform else ""]))


def _notes(descriptor: Mapping[str, Any]) -> Mapping[str, Any]:
    found = descriptor.get("annotations")
    return found if isinstance(found, Mapping) else {}


def _platform(descriptor: Mapping[str, Any]) -> str:
    found = descriptor.get("platform")
    return f"{found.get('os')}/{found.get('architecture')}" if isinstance(found, Mapping) else ""


def _path(digest: str) -> str:
    return f"{BLOBS}/{digest.replace(':', '/')}"


def _no_layout(why: str) -> NotAnImageError:
    return NotAnImageError(
        f"this is no OCI layout: {why}. Make one, such as with skopeo copy docker-daemon:NAME oci:DIRECTORY, or podman "
        "save --format oci-archive, and publish that"
    )
