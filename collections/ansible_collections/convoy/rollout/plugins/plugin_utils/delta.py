# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small artifacts: of a published one, only the files that a host lacks. Made once for all hosts that lack the same."""

from __future__ import annotations

import fcntl
import hashlib
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ansible_collections.convoy.rollout.plugins.module_utils import unpack
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, digest_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest

FORMAT = "tar.gz"
_LEVEL = 6


class DeltaError(Exception):
    """It cannot be made, and the artifact has to go whole. What is wrong with that, its own checks say better."""


@dataclass(frozen=True)
class Delta:
    """A small artifact that was made."""

    path: Path
    sha256: str
    size: int

    def for_host(self, base: str) -> dict[str, str | int]:
        """What a host needs to know to add it to its release ``base``."""
        return {"base": base, "sha256": self.sha256, "size": self.size, "format": FORMAT}


def delta_of(artifact: Path, manifest: Manifest, missing: Collection[str], cache: Path) -> Delta:
    """The small artifact of the files ``missing``, from ``cache`` where somebody has made it before.

    Raises DeltaError. Directories are in it too, since only an archive knows of those that are empty; links are not,
    since the manifest knows all of them.
    """
    path = cache / f"delta-{_name(manifest.artifact.sha256, missing)}"
    with path.with_suffix(".sha256").open("a+") as known:
        fcntl.flock(known, fcntl.LOCK_EX)  # whoever comes meanwhile waits, instead of making it too
        known.seek(0)
        sha256 = known.read()
        if not sha256:
            _make(artifact, manifest, missing, path)
            sha256 = digest_of(str(path))
            known.write(sha256)
    return Delta(path, sha256, path.stat().st_size)


def _name(sha256: str, missing: Collection[str]) -> str:
    return hashlib.sha256("\0".join((sha256, *sorted(missing))).encode()).hexdigest()[:32]


def _make(artifact: Path, manifest: Manifest, missing: Collection[str], path: Path) -> None:
    wanted = {entry.path: entry for entry in manifest.files if entry.path in missing}
    described = unpack.Artifact(manifest.artifact.sha256, manifest.artifact.size, manifest.artifact.format)
    try:
        with artifact.open("rb") as stream, tarfile.open(path, "w:gz", compresslevel=_LEVEL) as archive:
            for member, source in unpack.members(stream, described, Limits()):
                name = member.name.removeprefix("./").rstrip("/")
                if member.kind == "directory" and name not in ("", "."):
                    archive.addfile(_header(name, tarfile.DIRTYPE, 0o755))
                elif member.kind == "file" and name in wanted:
                    content: IO[bytes] = cast("IO[bytes]", source)  # all that is asked of it is to be read
                    archive.addfile(_file_header(wanted.pop(name)), content)
    except (OSError, ArchiveError) as error:
        raise DeltaError(f"{artifact}: {error}") from error
    if wanted:
        raise DeltaError(f"{artifact}: member {min(wanted)!r} of the manifest is not in it")


def _file_header(entry: FileEntry) -> tarfile.TarInfo:
    header = _header(entry.path, tarfile.REGTYPE, entry.mode)
    header.size = entry.size
    return header


def _header(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode = kind, mode
    return header
