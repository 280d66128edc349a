# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a release: what it must consist of, kept apart from it, and compared with what is there."""

from __future__ import annotations

import json
import os
import stat

from ansible_collections.convoy.rollout.plugins.module_utils import names
from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Mapping

    from ansible_collections.convoy.rollout.plugins.module_utils.kinds import Kind

SCHEMA = 1
_PIECE = 128 * 1024
_MOST_FAULTS = 5
# Nobody but root writes in a release, and nothing in it grants more rights than it has.
MODE_MASK = 0o755


def plain_mode(mode: int) -> int:
    """A file's mode as it is in a release: no setuid, setgid, sticky, no write for others, readable by its owner."""
    return (mode & MODE_MASK) | 0o400


class FileEntry(NamedTuple):
    """A file of a release, or a symbolic link when `link` is not None. `path` is relative to the release."""

    path: str
    size: int = 0
    mode: int = 0o644
    sha256: str = ""
    link: str | None = None


class Unit(NamedTuple):
    """A systemd unit of a release. `action` is what makes it take a new release up: restart or reload."""

    name: str
    content: str
    action: str = "restart"


class Record(NamedTuple):
    """All that a release consists of. `probes` and `gate` are what it was gated with.

    `package` has what packages.Pinned has, where the release is a package: its units are only named then. `image` has
    what containers.Image has, where it is an image that runs in a container. `by_tasks`: tasks of the site put it in
    place; its units may be only named, where these bring them.
    """

    release: str
    version: str
    artifact: Mapping[str, Any]
    files: tuple[FileEntry, ...]
    units: tuple[Unit, ...] = ()
    probes: tuple[Mapping[str, Any], ...] = ()
    gate: Mapping[str, Any] | None = None
    staged_at: float = 0.0
    package: Mapping[str, Any] | None = None
    image: Mapping[str, Any] | None = None
    by_tasks: bool = False

    @property
    def own_units(self) -> tuple[Unit, ...]:
        """The units whose files the release writes."""
        if self.by_tasks:
            return tuple(unit for unit in self.units if unit.content)
        return self.units if self.package is None else ()

    def as_json(self) -> bytes:
        """As it is stored."""
        lists = {name: [one._asdict() for one in getattr(self, name)] for name in ("files", "units")}
        fields = {**self._asdict(), **lists, "schema": SCHEMA}
        for kind in ("package", "image"):
            if fields[kind] is None:
                del fields[kind]
        if not self.by_tasks:
            del fields["by_tasks"]
        return json.dumps(fields, sort_keys=True).encode("ascii") + b"\n"


def kind_of(recorded: Record) -> Kind | None:
    """What the kind of a release does besides; None for an archive. Its code is imported where it is needed only."""
    if recorded.by_tasks:
        from ansible_collections.convoy.rollout.plugins.module_utils.tasks_kind import TASKS

        return TASKS
    if recorded.package is not None:
        from ansible_collections.convoy.rollout.plugins.module_utils.package_kind import PACKAGE

        return PACKAGE
    if recorded.image is not None:
        from ansible_collections.convoy.rollout.plugins.module_utils.container_kind import CONTAINER

        return CONTAINER
    return None


def from_json(data: bytes, source: str) -> Record:
    """Read a record back. Raises TreeError naming `source` when it is not one."""
    try:
        fields = json.loads(data.decode("ascii"))
        if fields.pop("schema") != SCHEMA:
            raise ValueError("written by another version of Convoy")
        fields["files"] = tuple(FileEntry(**entry) for entry in fields["files"])
        fields["units"] = tuple(Unit(**unit) for unit in fields["units"])
        fields["probes"] = tuple(fields["probes"])
        return Record(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TreeError(f"{source} is not the record of a release ({error}); stage the release again") from error


def file_entry(fields: Mapping[str, Any]) -> FileEntry:
    """A file as a manifest names it. Raises InputError naming the file and what is wrong with it."""
    path = fields.get("path")
    if not isinstance(path, str):
        raise InputError(f"a file of the manifest has no path: {dict(fields)!r}")
    fault = names.path_fault(path)
    if fault:
        raise InputError(f"file {path!r} of the manifest: {fault}")
    if fields.get("link") is not None:
        return FileEntry(path, mode=0o777, link=str(fields["link"]))
    size, digest = fields.get("size"), fields.get("sha256")
    if not isinstance(size, int) or size < 0:
        raise InputError(f"file {path!r} of the manifest: size {size!r} is not a number of bytes")
    if not is_sha256(digest):
        raise InputError(f"file {path!r} of the manifest: sha256 {digest!r} is not 64 lower-case hexadecimal digits")
    return FileEntry(path, size, plain_mode(octal(fields.get("mode"), path)), str(digest))


def octal(value: object, path: str) -> int:
    """A mode as a manifest or a variable gives it: 420, or "0644". Raises InputError naming the file."""
    if isinstance(value, int) and 0 <= value <= 0o7777:
        return value
    try:
        mode = int(str(value), 8)
    except ValueError:
        mode = -1
    if isinstance(value, int) or not 0 <= mode <= 0o7777:
        raise InputError(f'file {path!r}: mode {value!r} is not a mode such as "0644"')
    return mode


def is_sha256(value: object) -> bool:
    """Whether a value is a SHA-256 digest as it is written."""
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


class Comparison(NamedTuple):
    """What differs between a record and a directory: the first few of each."""

    faults: tuple[str, ...]
    unexpected: tuple[str, ...]


def compare(record: Record, directory: str, digests: bool = True) -> Comparison:
    """Look at every file of a release. Without `digests`: at what is told by its inode alone."""
    found = dict(walk(directory))
    faults = []
    for entry in record.files:
        status = found.pop(entry.path, None)
        found_fault = _fault(entry, status, os.path.join(directory, entry.path), digests)
        if found_fault:
            faults.append(f"{entry.path}: {found_fault}")
            if len(faults) == _MOST_FAULTS:
                break
    return Comparison(tuple(faults), tuple(sorted(found)[:_MOST_FAULTS]))


def survey(directory: str) -> tuple[FileEntry, ...]:
    """The files of a directory as a record names them."""
    entries = []
    for path, status in sorted(walk(directory)):
        full = os.path.join(directory, path)
        if stat.S_ISLNK(status.st_mode):
            entries.append(FileEntry(path, mode=0o777, link=os.readlink(full)))
        elif stat.S_ISREG(status.st_mode):
            entries.append(FileEntry(path, status.st_size, stat.S_IMODE(status.st_mode), digest_of(full)))
    return tuple(entries)


def fault(entry: FileEntry, directory: str) -> str | None:
    """How one file of a release differs from its record; None when it does not."""
    path = os.path.join(directory, entry.path)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    return _fault(entry, status, path, digests=True)


def walk(directory: str, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Everything below a directory that is not one, never through a symbolic link."""
    try:
        entries = list(os.scandir(os.path.join(directory, prefix)))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(directory, path + "/")
        else:
            yield path, entry.stat(follow_symlinks=False)


def _fault(entry: FileEntry, status: os.stat_result | None, path: str, digests: bool) -> str | None:
    if status is None:
        return "missing"
    if entry.link is not None:
        is_same = stat.S_ISLNK(status.st_mode) and os.readlink(path) == entry.link
        return None if is_same else f"not the symbolic link to {entry.link}"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size != entry.size:
        return f"{status.st_size} bytes, expected {entry.size}"
    if stat.S_IMODE(status.st_mode) != entry.mode:
        return f"mode {stat.S_IMODE(status.st_mode):04o}, expected {entry.mode:04o}"
    if digests and digest_of(path) != entry.sha256:
        return "other content than recorded"
    return None


def digest_of(path: str, while_reading: Callable[[], None] | None = None) -> str:
    """The SHA-256 of a file that is not a link. `while_reading` is called for each piece of it, and may raise."""
    import hashlib

    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        for piece in iter(lambda: os.read(descriptor, _PIECE), b""):
            digest.update(piece)
            if while_reading is not None:
                while_reading()
    finally:
        os.close(descriptor)
    return digest.hexdigest()
