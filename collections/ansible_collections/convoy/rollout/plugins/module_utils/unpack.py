# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking an artifact without believing anything it says.

An archive is opened once. Its size and digest are compared with the manifest, then its members are
read from the same descriptor. Only files, directories and symbolic links pass; every file must be
one that the manifest names, with that size, mode and digest, and in the end none may be missing.
Symbolic links are made last, so that nothing is ever written through one. Nothing of the standard
library's own extraction is used: what it lets through differs from one Python to the next.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Callable, Iterator, Mapping, NamedTuple, Protocol, Sequence

from ansible_collections.convoy.rollout.plugins.module_utils import durable, names
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, plain_mode

if TYPE_CHECKING:
    import lzma
    import tarfile
    import zipfile

_CHUNK = 1024 * 1024
_LONGEST_LINK = 4096
_DIRECTORY_MODE = 0o755
_XZ_MEMORY = 256 * 1024**2
# Below this an archive may be as dense as it likes.
_HARMLESS_BYTES = 16 * _CHUNK


@dataclass(frozen=True)
class Limits:
    """What an artifact may at most be. `ratio` is unpacked to packed size."""

    members: int = 100_000
    bytes: int = 16 * 1024**3
    depth: int = 64
    ratio: int = 200


class Artifact(NamedTuple):
    """What the manifest says of the archive as a whole."""

    sha256: str
    size: int
    format: str


class Member(NamedTuple):
    """A member of an archive. `kind` is file, directory or link; `mode` is None where the archive has none."""

    name: str
    kind: str
    size: int = 0
    mode: int | None = None
    link: str = ""
    is_foreign: bool = False


class Source(Protocol):
    """Where the bytes of a file come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


def unpack(
    stream: BinaryIO, artifact: Artifact, files: Sequence[FileEntry], destination: str, limits: Limits, strict: bool
) -> None:
    """Verify the archive in `stream` and unpack it into the new directory `destination`.

    Raises ArchiveError, which names the member; what was written until then is the caller's to remove.
    """
    check_manifest(artifact, files, limits)
    check_artifact(stream, artifact)
    _make_directory(destination)
    unpacking = _Unpacking(destination, files, limits, strict)
    for member, source in members(stream, artifact, limits):
        unpacking.add(member, source)
    unpacking.finish()


def check_manifest(artifact: Artifact, files: Sequence[FileEntry], limits: Limits) -> None:
    """Hold the manifest itself against the limits, before a byte is read."""
    total = sum(entry.size for entry in files)
    if artifact.format not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise ArchiveError(f"artifact format {artifact.format!r} is not one that can be unpacked: {known}")
    if len(files) > limits.members:
        raise ArchiveError(f"the artifact has {len(files)} files, more than the limit of {limits.members} members")
    if total > limits.bytes:
        raise ArchiveError(f"the artifact unpacks to {total} bytes, more than the limit of {limits.bytes}")
    if total > max(_HARMLESS_BYTES, limits.ratio * artifact.size):
        raise ArchiveError(f"the artifact unpacks to more than {limits.ratio} times its size of {artifact.size} bytes")
    for entry in files:
        if entry.path.count("/") >= limits.depth:
            raise ArchiveError(f"member {entry.path[:200]!r} lies deeper than the limit of {limits.depth} directories")


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


def members(stream: BinaryIO, artifact: Artifact, limits: Limits) -> Iterator[tuple[Member, Source]]:
    """The members of an archive in their order, each with its bytes. ArchiveError when it cannot be read."""
    ceiling = min(limits.bytes, max(_HARMLESS_BYTES, limits.ratio * artifact.size))
    try:
        for number, found in enumerate(_READERS[artifact.format](stream, ceiling, limits), start=1):
            if number > limits.members:
                raise ArchiveError(f"the artifact has more than {limits.members} members, which is the limit")
            yield found
    except (ValueError, LookupError, RuntimeError) as error:
        raise _unreadable(artifact.format, error) from error


def _unreadable(format_name: str, why: object) -> ArchiveError:
    return ArchiveError(f"the artifact cannot be read as {format_name}: {why}")


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
            raise ArchiveError(f"member {member.name[:200]!r} is refused: {fault}")
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
    if not target or len(target) > _LONGEST_LINK:
        return f"a target has 1 to {_LONGEST_LINK} characters"
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


class _Forward(io.RawIOBase):
    """A stream that is read once, forwards, in small pieces, up to a ceiling.

    tarfile believes sizes in headers: a name of 5 GB would be read into memory, a negative size
    would send it round in circles.
    """

    def __init__(self, inner: Source, format_name: str, ceiling: int, *damage: type[Exception]) -> None:
        super().__init__()
        self._inner = inner
        self._format = format_name
        self._ceiling = ceiling
        self._damage: tuple[type[Exception], ...] = (EOFError, *damage)
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if not 0 <= size <= _CHUNK:
            raise ArchiveError(f"the artifact is refused: a header of it claims {size} bytes")
        parts = []
        while size:
            part = self._read_some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self._place += len(part)
        if self._place > self._ceiling:
            raise ArchiveError(f"the artifact unpacks to more than {self._ceiling} bytes, which is the limit for it")
        return b"".join(parts)

    def _read_some(self, size: int) -> bytes:
        """Damage shows while reading, wherever that is done. An OSError without a number is not one of the disk."""
        try:
            return self._inner.read(size)
        except self._damage as error:
            raise _unreadable(self._format, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _unreadable(self._format, error) from error

    def tell(self) -> int:
        """How many bytes were read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Skip forwards."""
        if whence != io.SEEK_SET or offset < self._place:
            raise ArchiveError("the artifact is refused: a header of it leads backwards")
        while self._place < offset:
            if not self.read(min(_CHUNK, offset - self._place)):
                raise _unreadable(self._format, "it ends too early")
        return self._place


class _Xz:
    """Reads xz; the decompressor has a limit to the memory that a header may ask for."""

    def __init__(self, stream: BinaryIO, new: Callable[[], lzma.LZMADecompressor]) -> None:
        self._stream = stream
        self._new = new
        self._decompressor = new()

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        while True:
            if self._decompressor.eof:
                rest = self._decompressor.unused_data or self._stream.read(_CHUNK)
                if not rest.strip(b"\0"):
                    return b""
                self._decompressor = self._new()
            else:
                rest = self._stream.read(_CHUNK) if self._decompressor.needs_input else b""
                if self._decompressor.needs_input and not rest:
                    raise EOFError("it ends too early")
            data = self._decompressor.decompress(rest, size)
            if data:
                return data


def _read_tar(forward: _Forward) -> Iterator[tuple[Member, Source]]:
    import tarfile

    try:
        with tarfile.open(fileobj=forward, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while True:
                info = archive.next()
                if info is None:
                    return
                member = _tar_member(info)
                if member.kind == "file":
                    forward.seek(info.offset_data)
                yield member, forward
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def _tar_member(info: tarfile.TarInfo) -> Member:
    kinds = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}
    refused = {b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
    kind = kinds.get(info.type)
    if kind is None or info.issparse():
        what = refused.get(info.type, "of a kind that a release does not need")
        raise ArchiveError(f"member {info.name[:200]!r} is refused: it is {what}")
    is_foreign = info.uid != 0 or info.gid != 0
    return Member(info.name, kind, info.size, info.mode & 0o7777, info.linkname, is_foreign)


def _plain(stream: BinaryIO, ceiling: int, limits: Limits) -> Iterator[tuple[Member, Source]]:
    return _read_tar(_Forward(stream, "tar", ceiling))


def _gz(stream: BinaryIO, ceiling: int, limits: Limits) -> Iterator[tuple[Member, Source]]:
    import gzip
    import zlib

    return _read_tar(_Forward(gzip.GzipFile(fileobj=stream, mode="rb"), "tar.gz", ceiling, zlib.error))


def _bz2(stream: BinaryIO, ceiling: int, limits: Limits) -> Iterator[tuple[Member, Source]]:
    import bz2

    return _read_tar(_Forward(bz2.BZ2File(stream, mode="rb"), "tar.bz2", ceiling))


def _xz(stream: BinaryIO, ceiling: int, limits: Limits) -> Iterator[tuple[Member, Source]]:
    import lzma

    source = _Xz(stream, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY))
    return _read_tar(_Forward(source, "tar.xz", ceiling, lzma.LZMAError))


def _zip(stream: BinaryIO, ceiling: int, limits: Limits) -> Iterator[tuple[Member, Source]]:
    import zipfile

    try:
        with zipfile.ZipFile(stream) as archive:
            if len(archive.infolist()) > limits.members:
                raise ArchiveError(f"the artifact has more than {limits.members} members, which is the limit")
            for info in archive.infolist():
                yield from _zip_member(archive, info, ceiling)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, ceiling: int) -> Iterator[tuple[Member, Source]]:
    import lzma
    import zipfile
    import zlib

    if info.flag_bits & 1:
        raise ArchiveError(f"member {info.filename[:200]!r} is refused: it is encrypted")
    unix = info.external_attr >> 16 if info.create_system == 3 else 0
    mode = stat.S_IMODE(unix) if unix else None
    name = info.orig_filename
    kind = _zip_kind(name, stat.S_IFMT(unix))
    with archive.open(info) as opened:
        source = _Forward(opened, "zip", ceiling, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
        if kind == "link":
            target = source.read(_LONGEST_LINK + 1).decode("utf-8", "surrogateescape")
            yield Member(name, kind, 0, mode, target), source
        else:
            yield Member(name, kind, info.file_size, mode), source


def _zip_kind(name: str, file_type: int) -> str:
    if name.endswith("/") and file_type in (0, stat.S_IFDIR):
        return "directory"
    kind = {0: "file", stat.S_IFREG: "file", stat.S_IFLNK: "link"}.get(file_type)
    if kind is None:
        raise ArchiveError(f"member {name[:200]!r} is refused: it is of a kind that a release does not need")
    return kind


_READERS = {"tar": _plain, "tar.gz": _gz, "tar.bz2": _bz2, "tar.xz": _xz, "zip": _zip}
