# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading zip, and wheels, which are zips.

A zip says everything twice: at its members, and in a directory at its end. Readers differ in which
they believe, so both must say the same, no two members may share bytes, and nothing may lie between them.
Python's own reader does the rest, once the directory is known to be one that it can take into memory.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.forward import MOST_MEMORY, Forward
from ansible_collections.convoy.rollout.plugins.module_utils.member import (
    LONGEST_LINK,
    Limits,
    Member,
    refusal,
    unreadable,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import BinaryIO, Sequence

    from ansible_collections.convoy.rollout.plugins.module_utils.member import Members

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 65535
_MOST_DIRECTORY_BYTES = 64 * 1024**2
# What may follow the bytes of a member whose size was not known beforehand.
_LONGEST_DESCRIPTOR = 24
_HAS_DESCRIPTOR = 0x8
_ENCRYPTED = 0x2041
_IN_64_BITS = 0xFFFFFFFF
_LZMA = 14


class _Directory(NamedTuple):
    """Where the directory is, and how many members it claims to name."""

    offset: int
    size: int
    members: int


def read(stream: BinaryIO, ceiling: int, limits: Limits) -> Members:
    """The members of a zip in the order of its directory, each with its bytes."""
    directory = _find_directory(stream)
    _check_directory(stream, directory, limits)
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            _check_places(stream, archive.infolist(), directory)
            for info in archive.infolist():
                with archive.open(info) as opened:
                    source = Forward(opened, "zip", ceiling, *_damage())
                    yield _member(info, source), source
                ceiling -= source.tell()
    except (zipfile.BadZipFile, struct.error) as error:
        raise unreadable("zip", error) from error


def _damage() -> tuple[type[Exception], ...]:
    import lzma
    import zlib

    return (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def _find_directory(stream: BinaryIO) -> _Directory:
    """The directory that the very end of the file points to."""
    size = stream.seek(0, os.SEEK_END)
    start = max(0, size - _END.size - _LONGEST_COMMENT)
    stream.seek(start)
    tail = stream.read(_END.size + _LONGEST_COMMENT)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        raise unreadable("zip", "it has no directory, so it was cut off or is something else")
    _magic, disk, start_disk, _here, count, length, offset, comment = _END.unpack_from(tail, place)
    if disk or start_disk:
        raise unreadable("zip", "it is a part of an archive in several")
    if place + _END.size + comment != len(tail):
        raise ArchiveError("the artifact is refused: more bytes follow where the zip in it ends")
    end = start + place
    if _IN_64_BITS in (length, offset) or count == 0xFFFF:
        end, count, length, offset = _find_directory_64(stream, end, (count, length, offset))
    if offset + length != end:
        raise ArchiveError("the artifact is refused: the zip in it has bytes before it, or between directory and end")
    return _Directory(offset, length, count)


def _find_directory_64(stream: BinaryIO, end: int, small: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The same from the larger fields, if there are any; what the small ones say without a need must be the same."""
    place = end - _LOCATOR_64.size - _END_64.size
    stream.seek(max(0, place))
    data = stream.read(_END_64.size + _LOCATOR_64.size)
    locator = _LOCATOR_64.unpack_from(data, _END_64.size) if len(data) == _END_64.size + _LOCATOR_64.size else (b"",)
    if locator[0] != b"PK\6\7":
        return (end, *small)
    fields = _END_64.unpack_from(data)
    count, length, offset = fields[7:]
    agrees = all(low in (high, most) for low, high, most in zip(small, fields[7:], (0xFFFF, _IN_64_BITS, _IN_64_BITS)))
    if place < 0 or fields[0] != b"PK\6\6" or locator[2] != place or not agrees:
        raise unreadable("zip", "its two ends contradict each other")
    return place, count, length, offset


def _check_directory(stream: BinaryIO, directory: _Directory, limits: Limits) -> None:
    """Count what the directory names, before it becomes objects in memory."""
    if directory.size > _MOST_DIRECTORY_BYTES:
        raise ArchiveError(
            f"the artifact is refused: the directory of the zip has {directory.size} bytes, more than the limit of "
            f"{_MOST_DIRECTORY_BYTES}"
        )
    stream.seek(directory.offset)
    data = stream.read(directory.size)
    place = count = 0
    while place < len(data):
        count += 1
        if count > limits.members:
            raise ArchiveError(f"the artifact has more than {limits.members} members, which is the limit")
        if len(data) - place < _ENTRY.size or data[place : place + 4] != b"PK\1\2":
            raise unreadable("zip", "its directory is damaged")
        place += _ENTRY.size + sum(struct.unpack_from("<3H", data, place + 28))
    if place != len(data) or count != directory.members:
        raise unreadable("zip", f"its end counts {directory.members} members, its directory names {count}")


def _check_places(stream: BinaryIO, entries: Sequence[zipfile.ZipInfo], directory: _Directory) -> None:
    """Members lie one behind the other from the beginning to the directory, and say what the directory says."""
    end, slack = 0, 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        name = info.orig_filename
        if info.flag_bits & _ENCRYPTED:
            raise refusal(name, "it is encrypted")
        if info.header_offset < end:
            raise refusal(name, "it shares bytes with another member")
        if info.header_offset > end + slack:
            raise refusal(name, f"{info.header_offset - end} bytes that belong to no member lie before it")
        end = _check_local(stream, info)
        slack = _LONGEST_DESCRIPTOR if info.flag_bits & _HAS_DESCRIPTOR else 0
    if not end <= directory.offset <= end + slack:
        raise ArchiveError("the artifact is refused: bytes of no member lie before the directory of the zip")


def _check_local(stream: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Compare what stands at a member with what the directory says of it; where its bytes end."""
    name = info.orig_filename
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise refusal(name, "it is not where the directory of the zip says")
    fields = _LOCAL.unpack(header)
    raw = stream.read(fields[9])
    if raw != name.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
        raise refusal(name, f"it is named {raw[:200].decode('utf-8', 'replace')!r} at its own place")
    says = (fields[3], *(() if info.flag_bits & _HAS_DESCRIPTOR else fields[6:9]))
    should = (info.compress_type, info.CRC, info.compress_size, info.file_size)
    if any(there not in (wanted, _IN_64_BITS) for there, wanted in zip(says, should)):
        raise refusal(name, "it says otherwise at its own place than in the directory of the zip")
    begin = info.header_offset + _LOCAL.size + fields[9] + fields[10]
    if info.compress_type == _LZMA:
        _check_lzma(stream, name, begin)
    return int(begin + info.compress_size)


def _check_lzma(stream: BinaryIO, name: str, begin: int) -> None:
    """The decompressor of LZMA in zip takes no limit to its memory."""
    stream.seek(begin + 5)
    size = int.from_bytes(stream.read(4), "little")
    if size > MOST_MEMORY:
        raise refusal(name, f"it asks for {size} bytes of memory, more than the limit of {MOST_MEMORY}")


def _member(info: zipfile.ZipInfo, source: Forward) -> Member:
    unix = info.external_attr >> 16 if info.create_system == 3 else 0
    mode = stat.S_IMODE(unix) if unix else None
    name = info.orig_filename
    kind = _kind(name, stat.S_IFMT(unix))
    if kind == "file":
        return Member(name, kind, info.file_size, mode)
    if kind == "directory":
        if info.file_size:
            raise refusal(name, f"it is a directory, and claims {info.file_size} bytes")
        return Member(name, kind, 0, mode)
    target = source.read(LONGEST_LINK + 1).decode("utf-8", "surrogateescape")
    return Member(name, kind, 0, mode, target)


def _kind(name: str, file_type: int) -> str:
    if name.endswith("/") and file_type in (0, stat.S_IFDIR):
        return "directory"
    kind = {0: "file", stat.S_IFREG: "file", stat.S_IFLNK: "link"}.get(file_type)
    if kind is None:
        raise refusal(name, "it is of a kind that a release does not need")
    return kind
