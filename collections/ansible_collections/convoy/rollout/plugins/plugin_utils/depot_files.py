# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a depot: where they are, who may see them, how they get there. Nothing here is verified.

blobs/sha256/<digest>                                 artifacts, named for their content
components/<component>/<version>/manifest.json        what was published; appears whole or not at all
components/<component>/<version>/manifest.json.sig    the publisher's signature
components/<component>/<version>/signatures/*.sig     those of others, named for their keys
components/<component>/<version>/sbom.json            its bill of material, where it has one
components/<component>/<version>/provenance/*.json    who says how it was built, named for their content
components/<component>/<version>/states/<n>.json      what became of it, one record a change
environments/<name>                                   environments that use the depot
serials/<component>                                   the highest serial that was given out
incoming/                                             what is being published, or was when something died
lock                                                  held while something is changed

Nothing that was published changes any more; records, signatures, provenance and environments are added. The mode of the
directory of the depot decides the modes of all that is in it: 0750 or 0700, and setgid where a group deploys.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, unquote

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.plugin_utils import provenance
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import (
    Change,
    StateRecordError,
    change_from_json,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

DIRECTORIES = ("blobs", "blobs/sha256", "components", "environments", "serials", "incoming")
FIRST_SIGNATURE = "manifest.json.sig"  # of who published
NEW_MODE = 0o750  # of a new depot, less the umask
KEPT_BITS = stat.S_ISGID | NEW_MODE
FORBIDDEN = 0o027  # to write for the group, anything for others
_WRITABLE = 0o022
_RECORD = re.compile(r"\d{6}\.json")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.convoy-new")  # as durable.temporary_name() makes them


class DepotError(ConvoyError):
    """The depot refuses. Each subclass is one reason."""

    reason: ClassVar[str] = "depot"


class UnsafeDepotError(DepotError):
    """Others may write in the depot, or read it."""

    reason: ClassVar[str] = "depot-unsafe"


class DamagedReleaseError(DepotError):
    """Something of a published release is missing, or not what its manifest says."""

    reason: ClassVar[str] = "release-damaged"


class DepotFiles:
    """The files below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # where things are

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / "sha256" / sha256

    def release(self, component: str, version: str) -> Path:
        return self.root / "components" / component / version

    def manifest(self, component: str, version: str) -> Path:
        return self.release(component, version) / "manifest.json"

    def sbom(self, component: str, version: str) -> Path:
        return self.release(component, version) / "sbom.json"

    def provenance(self, component: str, version: str) -> Path:
        return self.release(component, version) / "provenance"

    def serial(self, component: str) -> Path:
        return self.root / "serials" / component

    def components(self) -> list[str]:
        return _listed(self.root / "components")

    def versions(self, component: str) -> list[str]:
        """The component's versions by their names."""
        return _listed(self.root / "components" / component)

    def blobs(self) -> list[str]:
        return _listed(self.root / "blobs" / "sha256")

    def environment(self, name: str) -> Path:
        return self.root / "environments" / quote(name, safe="")

    def environments(self) -> list[str]:
        return [unquote(name) for name in _listed(self.root / "environments")]

    # who may see them

    def check_private(self) -> None:
        """Raise UnsafeDepotError for a depot that others may read, or that its group may write."""
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if mode & FORBIDDEN:
            raise UnsafeDepotError(
                f"the depot {self.root} has mode {mode:04o}: others could read releases or put their own there. "
                f"Look at what is in it, then: chmod {NEW_MODE:04o} {shlex.quote(str(self.root))}"
            )
        for name in DIRECTORIES:
            path = self.root / name
            if path.is_dir() and stat.S_IMODE(path.stat().st_mode) & _WRITABLE:
                raise UnsafeDepotError(f"{self._told(path)}. Look at what is in it, then: {self._repair()}")

    def exposed(self) -> list[str]:
        """What is in the depot and open to others, or to its group for writing, with the command that repairs it."""
        paths = (path for path in sorted(self.root.rglob("*")) if not path.is_symlink())
        wrong = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & FORBIDDEN]
        return [f"{self._told(path)}: {self._repair()}" for path in wrong]

    def _told(self, path: Path) -> str:
        mode = stat.S_IMODE(path.stat().st_mode)
        return f"{path} has mode {mode:04o}: it is open to others than those who publish"

    def _repair(self) -> str:
        return f"chmod -R g-w,o= {shlex.quote(str(self.root))}"

    # reading

    def read_release(self, component: str, version: str) -> tuple[bytes, dict[str, bytes]]:
        """A manifest, and its signatures by the names of their files, that of the publisher first."""
        path = self.manifest(component, version)
        try:
            content = path.read_bytes()
            signatures = {FIRST_SIGNATURE: (path.parent / FIRST_SIGNATURE).read_bytes()}
            for name in _listed(path.parent / "signatures"):
                signatures[name] = (path.parent / "signatures" / name).read_bytes()
        except OSError as error:
            raise DamagedReleaseError(
                f"{component} {version}: {error.filename}: {error.strerror}. Restore it from a backup, or remove "
                f"{path.parent} and publish it again"
            ) from error
        return content, signatures

    def read_provenance(self, component: str, version: str) -> dict[str, bytes]:
        """The envelopes that are kept with a release, by the names of their files, each up to what is too large."""
        directory = self.provenance(component, version)
        return {name: read_up_to(directory / name, provenance.LARGEST) for name in _listed(directory)}

    def read_changes(self, component: str, version: str) -> list[Change]:
        """The records of a release's states, oldest first. Raises StateRecordError where one is missing."""
        directory = self.release(component, version) / "states"
        names = [name for name in _listed(directory) if _RECORD.fullmatch(name)]
        for number, name in enumerate(names, start=1):
            if int(name.partition(".")[0]) != number:
                raise StateRecordError(f"{directory}/{number:06d}.json is missing: restore it from a backup")
        return [change_from_json((directory / name).read_bytes(), str(directory / name)) for name in names]

    def leftovers(self) -> list[Path]:
        """What was interrupted left in the depot: incoming files, and temporary ones anywhere."""
        incoming = self.root / "incoming"
        left = sorted(incoming.iterdir()) if incoming.is_dir() else []
        temporary = [path for path in sorted(self.root.rglob(".*")) if _TEMPORARY.fullmatch(path.name)]
        return [*left, *(path for path in temporary if incoming not in path.parents)]

    def strangers(self) -> list[Path]:
        """What is in the depot and no part of one."""
        known = {*(Path(name).parts[0] for name in DIRECTORIES), "lock"}
        found = [self.root / name for name in _listed(self.root) if name not in known]
        for component in self.components():
            for version in self.versions(component):
                release = self.release(component, version)
                parts = ("manifest.json", FIRST_SIGNATURE, "signatures", "sbom.json", "provenance", "states")
                found += [release / name for name in _listed(release) if name not in parts]
        return found

    # writing

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile. The depot is made where there is none."""
        self._prepare()
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(descriptor, self._file_mode())
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Nobody changes anything meanwhile; for those who only read."""
        descriptor = os.open(self.root / "lock", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory for this publication, the only one: what a killed one left there is removed."""
        incoming = self.root / "incoming"
        for left in incoming.iterdir():
            remove(left)
        with tempfile.TemporaryDirectory(dir=incoming) as directory:
            yield Path(directory)

    def place(self, source: Path, destination: Path) -> None:
        """Move a file into the depot, whole and durable."""
        with source.open("rb") as stream:
            os.fchmod(stream.fileno(), self._file_mode())
            os.fsync(stream.fileno())
        durable.rename(str(source), str(destination))

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the depot, whole or not at all; its directory is made where it is missing."""
        self.make_directory(path.parent)
        durable.write_file(str(path), content, self._file_mode())

    def make_directory(self, path: Path) -> None:
        if not path.is_dir():
            durable.make_directory(str(path), self._directory_mode())

    def append_change(self, component: str, version: str, change: Change) -> None:
        """Add a record; only while the depot is locked."""
        number = len(self.read_changes(component, version)) + 1
        self.write(self.release(component, version) / "states" / record_name(number), change.to_json())

    def _prepare(self) -> None:
        if not self.root.is_dir():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(NEW_MODE, exist_ok=True)
            durable.fsync_directory(str(self.root.parent))
        self.check_private()
        for name in DIRECTORIES:
            self.make_directory(self.root / name)

    def _directory_mode(self) -> int:
        """As the depot's own directory, whose group its directories share where it is setgid."""
        return stat.S_IMODE(self.root.stat().st_mode) & KEPT_BITS | 0o700

    def _file_mode(self) -> int:
        return self._directory_mode() & 0o640


def read_up_to(path: Path, largest: int) -> bytes:
    """What is in the file; of one with more than ``largest`` bytes only one byte more, so that it shows."""
    with path.open("rb") as stream:
        return stream.read(largest + 1)


def record_name(number: int) -> str:
    """The file of the record with this number, from 1 on."""
    return f"{number:06d}.json"


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it, for good."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        durable.fsync_directory(str(path.parent))
    else:
        durable.unlink(str(path))


def _listed(directory: Path) -> list[str]:
    """The names in a directory but for those of temporary files, sorted; none where there is no directory."""
    if not directory.is_dir():
        return []
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
