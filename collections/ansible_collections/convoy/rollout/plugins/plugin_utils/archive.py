# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening an archive at its publication, so that a hostile one never gets as far as a host."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils import record, unpack
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits, Source
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import FORMATS, Artifact

LIMITS = Limits()

_CHUNK = 1024 * 1024
_SUFFIXES = {f".{name}": name for name in FORMATS} | {".tgz": "tar.gz", ".whl": "zip"}


class UnsafeArtifactError(ConvoyError):
    """The archive cannot be read, or holds what no host would unpack."""

    reason: ClassVar[str] = "artifact-unsafe"


@dataclass(frozen=True)
class Contents:
    """An archive that was opened: what it is, and what it holds; ``image`` where that is one of a container."""

    artifact: Artifact
    files: tuple[FileEntry, ...]
    image: Image | None = None


def format_of(artifact: Path) -> str:
    """The format that the file's name says. Raises UnsafeArtifactError for no file, or one that hosts cannot unpack."""
    if not artifact.is_file():
        raise UnsafeArtifactError(f"the artifact {artifact} is no file: give the path of the archive to publish")
    for suffix, name in _SUFFIXES.items():
        if artifact.name.endswith(suffix):
            return name
    raise UnsafeArtifactError(f"the artifact {artifact} ends in none of {', '.join(_SUFFIXES)}")


def examine(archive: Path, archive_format: str, scratch: Path) -> Contents:
    """Open the archive, list what is in it, and prove in ``scratch`` that a host can unpack just that.

    Raises UnsafeArtifactError naming the member. The trial makes hosts and publisher agree on
    what is hostile: it is the same code.
    """
    with archive.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        artifact = unpack.Artifact(_digest(stream, size)[0], size, archive_format)
        try:
            stream.seek(0)
            files = _list_files(stream, artifact)
            stream.seek(0)
            unpack.unpack(stream, artifact, files, str(scratch), LIMITS, strict=False)
        except ArchiveError as error:
            raise UnsafeArtifactError(str(error)) from error
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise UnsafeArtifactError(f"the artifact cannot be read as {archive_format}: {error}") from error
    if not files:
        raise UnsafeArtifactError("the artifact holds no file")
    return Contents(Artifact(*artifact), files)


def _list_files(stream: BinaryIO, artifact: unpack.Artifact) -> tuple[FileEntry, ...]:
    files = {}
    for member, source in unpack.members(stream, artifact, LIMITS):
        path = member.name.removeprefix("./")
        if member.kind == "file":
            digest, size = _digest(source, member.size)
            mode = record.plain_mode(0o644 if member.mode is None else member.mode)
            files[path] = FileEntry(path, size, mode, digest)
        elif member.kind == "link":
            files[path] = FileEntry(path, mode=0o777, link=member.link)
    return tuple(files[path] for path in sorted(files))


def _digest(source: Source, size: int) -> tuple[str, int]:
    """The SHA-256 of at most ``size`` bytes, and how many there were."""
    digest, left = hashlib.sha256(), size
    while left and (chunk := source.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest(), size - left
