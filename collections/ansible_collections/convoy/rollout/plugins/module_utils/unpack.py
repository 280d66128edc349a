# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking an artifact without believing anything it says.

An archive is opened once. Its size and digest are compared with the manifest, then its members are
read from the same descriptor. Only files, directories and symbolic links pass; every file must be
one that the manifest names, with that size, mode and digest, and in the end none may be missing.
Symbolic links are made last, so that nothing is ever written through one. Nothing of the standard
library's own extraction is used: what it lets through differs from one Python to the next. Archives
are read by tar_reader and zip_reader.
"""

from __future__ import annotations

import hashlib
import os

from ansible_collections.convoy.rollout.plugins.module_utils import durable, forward, names
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.member import (
    LONGEST_LINK,
    Limits,
    Member,
    Source,
    refusal,
    unreadable,
)
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, plain_mode
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import BinaryIO, Callable, Iterable, Mapping, Sequence

    from ansible_collections.convoy.rollout.plugins.module_utils.member import Members

_CHUNK = 128 * 1024
_DIRECTORY_MODE = 0o755


class Artifact(NamedTuple):
    """What the manifest says of the archive as a whole."""

    sha256: str
    size: int
    format: str


class Delta(NamedTuple):
    """An archive of only those files that a host lacks. `copy` makes each of the others at a path."""

    artifact: Artifact
    copy: Callable[[FileEntry, str], None]


def unpack(
    stream: BinaryIO,
    artifact: Artifact,
    files: Sequence[FileEntry],
    destination: str,
    limits: Limits,
    strict: bool,
    delta: Delta | None = None,
) -> None:
    """Verify the archive in `stream` and unpack it into the new directory `destination`.

    The archive is the artifact, or the delta where there is one; the result is the same. Raises
    ArchiveError, which names the member; what was written until then is the caller's to remove.
    """
    sent = delta.artifact if delta else artifact
    check_manifest(artifact, files, limits)
    check_artifact(stream, sent)
    _make_directory(destination)
    unpacking = _Unpacking(destination, files, limits, strict)
    for member, source in members(stream, sent, limits):
        unpacking.add(member, source)
    if delta:
        unpacking.add_rest(delta.copy)
    unpacking.finish()


def check_manifest(artifact: Artifact, files: Sequence[FileEntry], limits: Limits) -> None:
    """Hold the manifest itself against the limits, before a byte is read."""
    check_format(artifact.format)
    total = sum(entry.size for entry in files)
    if len(files) > limits.members:
        raise ArchiveError(f"the artifact has {len(files)} files, more than the limit of {limits.members} members")
    if total > limits.bytes:
        raise ArchiveError(f"the artifact unpacks to {total} bytes, more than the limit of {limits.bytes}")
    if total > limits.ceiling(artifact.size):
        raise ArchiveError(f"the artifact unpacks to more than {limits.ratio} times its size of {artifact.size} bytes")
    for entry in files:
        if entry.path.count("/") >= limits.depth:
            raise ArchiveError(f"member {entry.path[:200]!r} lies deeper than the limit of {limits.depth} directories")
    places = len(files) + len(directories_of(entry.path for entry in files))
    if places > limits.members:
        raise ArchiveError(
            f"the artifact makes {places} files and directories, more than the limit of {limits.members} members"
        )


def check_format(name: str) -> None:
    """Whether this host can unpack that. ArchiveError says what it can."""
    if name not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise ArchiveError(f"artifact format {name!r} is not one that can be unpacked: {known}")
    if name == "tar.zst" and not forward.knows_zst():
        import platform

        raise ArchiveError(
            f"the artifact is a tar.zst, which Python can unpack from 3.14 on, and this is Python "
            f"{platform.python_version()}: publish the release as tar.xz or tar.gz"
        )


def directories_of(paths: Iterable[str]) -> set[str]:
    """All directories above the files of a release, its own left out."""
    found: set[str] = set()
    for path in paths:
        parent = os.path.dirname(path)
        while parent and parent not in found:
            found.add(parent)
            parent = os.path.dirname(parent)
    return found


def check_artifact(stream: BinaryIO, artifact: Artifact) -> None:
    """Compare size and digest of the archive with the manifest; leaves the stream at its beginning."""
    size = os.fstat(stream.fileno()).st_size
    if size != artifact.size:
        raise ArchiveError(
            f"the artifact has {size} bytes, the manifest says {artifact.size}: it was cut off or is another one. "
            "Bring it again from the depot"
        )
    digest = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        digest.update(chunk)
    if digest.hexdigest() != artifact.sha256:
        raise ArchiveError(
            f"the artifact has SHA-256 {digest.hexdigest()}, the manifest says {artifact.sha256}: it was damaged or "
            "swapped. Bring it again from the depot"
        )
    stream.seek(0)


def members(stream: BinaryIO, artifact: Artifact, limits: Limits) -> Members:
    """The members of an archive in their order, each with its bytes. ArchiveError when it cannot be read."""
    check_format(artifact.format)
    try:
        for number, found in enumerate(_READERS[artifact.format](stream, artifact.size, limits), start=1):
            if number > limits.members:
                raise ArchiveError(f"the artifact has more than {limits.members} members, which is the limit")
            yield found
    except (ValueError, LookupError, RuntimeError) as error:
        raise unreadable(artifact.format, error) from error


class _Unpacking:
    """One archive on its way into a directory."""

    def __init__(self, destination: str, files: Sequence[FileEntry], limits: Limits, strict: bool) -> None:
        self._destination = destination
        self._limits = limits
        self._strict = strict
        self._missing = {entry.path: entry for entry in files}
        self._kinds: dict[str, str] = {}
        self._named: set[str] = set()
        self._links: dict[str, str] = {}
        self._made: set[str] = {""}

    def add(self, member: Member, source: Source) -> None:
        """Take one member, or refuse it."""
        path = self._place(member)
        if path is None:
            return
        self._enter(path, member)
        if self._strict:
            _check_strictly(member)
        if member.kind == "file":
            self._write(self._expected(path, member), member, source)
        elif member.kind == "link":
            self._links[path] = self._expected(path, member).link or ""

    def add_rest(self, copy: Callable[[FileEntry, str], None]) -> None:
        """Take what no member was: links from the manifest, files from where `copy` has them."""
        for path, entry in sorted(self._missing.items()):
            self._enter(path, Member(path, "file" if entry.link is None else "link"))
            if entry.link is not None:
                self._links[path] = entry.link
            else:
                self._make_directory(os.path.dirname(path))
                copy(entry, os.path.join(self._destination, path))
        self._missing.clear()

    def finish(self) -> None:
        """Make directories that hold nothing and the links, once it is certain that nothing is missing."""
        if self._missing:
            first = min(self._missing)
            raise ArchiveError(
                f"member {first!r} of the manifest is not in the artifact ({len(self._missing)} missing in all)"
            )
        for path, target in self._links.items():
            fault = link_fault(path, target, self._links)
            if fault:
                raise ArchiveError(f"member {path!r} is a symbolic link to {target!r}: {fault}")
        for path, kind in self._kinds.items():
            if kind == "directory":
                self._make_directory(path)
        for path, target in self._links.items():
            self._make_directory(os.path.dirname(path))
            os.symlink(target, os.path.join(self._destination, path))

    def _place(self, member: Member) -> str | None:
        """The member's path in plain form; None for the top directory itself."""
        path = member.name[2:] if member.name.startswith("./") else member.name
        if member.kind == "directory":
            path = path.rstrip("/") if path != "/" else path
            if path in ("", "."):
                return None
        fault = names.path_fault(path)
        if fault is None and path.count("/") >= self._limits.depth:
            fault = f"it lies deeper than the limit of {self._limits.depth} directories"
        if fault:
            raise refusal(member.name, fault)
        return path

    def _enter(self, path: str, member: Member) -> None:
        """Refuse a second member of the same name, and one that is a file here and a directory there."""
        if path in self._named:
            raise ArchiveError(f"member {path!r} is refused: it is in the artifact twice")
        self._named.add(path)
        if self._kinds.setdefault(path, member.kind) != member.kind:
            raise ArchiveError(f"member {path!r} is refused: other members lie below it as if it were a directory")
        parent = os.path.dirname(path)
        while parent and self._kinds.get(parent) != "directory":
            if parent in self._kinds:
                raise ArchiveError(f"member {path!r} is refused: {parent!r} is not a directory in the artifact")
            self._kinds[parent] = "directory"
            parent = os.path.dirname(parent)
        if len(self._kinds) > self._limits.members:
            raise ArchiveError(
                f"the artifact makes more than {self._limits.members} files and directories, the limit of members"
            )

    def _expected(self, path: str, member: Member) -> FileEntry:
        """What the manifest says of this member, or refuse it."""
        entry = self._missing.pop(path, None)
        if entry is None:
            raise ArchiveError(f"member {path!r} is refused: the manifest does not name it")
        if (entry.link is None) == (member.kind == "link"):
            raise ArchiveError(f"member {path!r} is refused: it is a {member.kind}, the manifest says otherwise")
        if entry.link is not None and entry.link != member.link:
            raise ArchiveError(f"member {path!r} is refused: it points to {member.link!r}, not to {entry.link!r}")
        if entry.link is None and entry.size != member.size:
            raise ArchiveError(f"member {path!r} is refused: {member.size} bytes, the manifest says {entry.size}")
        if entry.link is None and member.mode is not None and plain_mode(member.mode) != entry.mode:
            raise ArchiveError(
                f"member {path!r} is refused: mode {plain_mode(member.mode):04o}, the manifest says {entry.mode:04o}"
            )
        return entry

    def _write(self, entry: FileEntry, member: Member, source: Source) -> None:
        self._make_directory(os.path.dirname(entry.path))
        path = os.path.join(self._destination, entry.path)
        digest = hashlib.sha256()
        left = member.size
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise ArchiveError(f"member {entry.path!r} is refused: it ends {left} bytes too early")
                durable.write_all(descriptor, chunk)
                digest.update(chunk)
                left -= len(chunk)
            os.fchmod(descriptor, entry.mode)
        finally:
            os.close(descriptor)
        if digest.hexdigest() != entry.sha256:
            raise ArchiveError(f"member {entry.path!r} is refused: its content is not the one that the manifest names")

    def _make_directory(self, path: str) -> None:
        if path in self._made:
            return
        self._make_directory(os.path.dirname(path))
        _make_directory(os.path.join(self._destination, path))
        self._made.add(path)


def _make_directory(path: str) -> None:
    """Whatever the umask is."""
    os.mkdir(path, _DIRECTORY_MODE)
    os.chmod(path, _DIRECTORY_MODE)


def _check_strictly(member: Member) -> None:
    """What is put right in silence otherwise is refused under the strict policy."""
    if member.is_foreign:
        raise ArchiveError(f"member {member.name!r} is refused by the strict policy: it does not belong to root")
    if member.kind != "link" and member.mode is not None and member.mode & ~0o755:
        raise ArchiveError(
            f"member {member.name!r} is refused by the strict policy: mode {member.mode:04o} grants more than 0755"
        )


def link_fault(path: str, target: str, links: Mapping[str, str]) -> str | None:
    """Why a symbolic link may not be; None when it stays inside and leads through no other link."""
    try:
        raw = target.encode("utf-8")
    except UnicodeEncodeError:
        return "its target is not valid UTF-8"
    if not 0 < len(raw) <= LONGEST_LINK:
        return f"a target has 1 to {LONGEST_LINK} bytes"
    if target.startswith("/"):
        return "it leads to an absolute path"
    if any(ord(character) < 32 or ord(character) == 127 for character in target):
        return "its target holds a control character"
    place = path.split("/")[:-1]
    for part in target.split("/"):
        if part == ".." and not place:
            return "it leads out of the release"
        if part == "..":
            place.pop()
        elif part not in ("", "."):
            place.append(part)
            if "/".join(place) in links:
                return f"it leads through another symbolic link, {'/'.join(place)!r}"
    return None


def _tar(opened: Callable[[BinaryIO, int], forward.Forward]) -> Callable[[BinaryIO, int, Limits], Members]:
    def read(stream: BinaryIO, size: int, limits: Limits) -> Members:
        from ansible_collections.convoy.rollout.plugins.module_utils import tar_reader

        return tar_reader.read(opened(stream, limits.ceiling(size)))

    return read


def _zip(stream: BinaryIO, size: int, limits: Limits) -> Members:
    from ansible_collections.convoy.rollout.plugins.module_utils import zip_reader

    return zip_reader.read(stream, limits.ceiling(size), limits)


_READERS: dict[str, Callable[[BinaryIO, int, Limits], Members]] = {
    "tar": _tar(forward.plain),
    "tar.gz": _tar(forward.gz),
    "tar.bz2": _tar(forward.bz2),
    "tar.xz": _tar(forward.xz),
    "tar.zst": _tar(forward.zst),
    "zip": _zip,
}
