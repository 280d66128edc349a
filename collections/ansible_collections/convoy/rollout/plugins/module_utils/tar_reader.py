# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading tar, as ustar, pax, GNU tar and the seventh Unix wrote it.

Python's own reader is not asked. It differs from one Python to the next in what it takes and what it
overlooks, and many a Python takes seconds for a header of 60,000 digits, and with their square more for
a longer one (8 s in 3.11.7, 13 s in 3.8.18). This one reads forwards, once, in time and memory that
the size of the archive bounds, and refuses what has two meanings.
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.forward import Forward
from ansible_collections.convoy.rollout.plugins.module_utils.member import Member, refusal, unreadable
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Mapping

    from ansible_collections.convoy.rollout.plugins.module_utils.member import Members

_BLOCK = 512
# Names have 4,095 bytes; the rest is for attributes that mean nothing here.
_LONGEST_HEADER = 64 * 1024
_KINDS = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "link"}
_REFUSED = {b"1": "a hard link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
_LONG = {b"L": "path", b"K": "linkpath"}
_PAX = (b"x", b"g")
# What a header for all members to come may not say: it would be said of each of them.
_OF_ONE_MEMBER = ("path", "linkpath", "size")


def read(forward: Forward) -> Members:
    """The members of a tar in their order, each with its bytes."""
    common: dict[str, str] = {}
    said: dict[str, str] = {}
    while True:
        block = forward.read(_BLOCK)
        if not block.strip(b"\0"):
            break
        if len(block) < _BLOCK:
            raise unreadable("tar", "it ends too early, in a header")
        kind, size = _type_of(block), _number(block[124:136], "size")
        if kind in _LONG or kind in _PAX:
            more = _extension(kind, _read_extension(forward, size))
            _remember(common if kind == b"g" else said, more, kind)
            continue
        member = _member(block, kind, size, {**common, **said})
        said = {}
        begin = forward.tell()
        yield member, forward
        forward.skip_to(begin + -(-member.size // _BLOCK) * _BLOCK)
    if said:
        raise unreadable("tar", "it ends where the header of a member says that the member follows")
    _read_end(forward)


def _read_end(forward: Forward) -> None:
    """Nothing but zeros may follow the block of zeros that ends the archive: others would read on."""
    while True:
        block = forward.read(_LONGEST_HEADER)
        if not block:
            return
        if block.strip(b"\0"):
            raise ArchiveError("the artifact is refused: more bytes follow where the tar in it ends")


def _type_of(block: bytes) -> bytes:
    """The type of a header whose checksum is right; the seventh Unix knew directories by a slash."""
    claimed = _number(block[148:156], "checksum")
    rest = block[:148] + b" " * 8 + block[156:]
    # Some have summed up signed bytes.
    if claimed != sum(rest) and claimed != sum(byte - 256 if byte > 127 else byte for byte in rest):
        raise unreadable("tar", "the checksum of a header is wrong")
    kind = block[156:157]
    return b"5" if kind == b"\0" and _text(block[:100]).endswith("/") else kind


def _number(field: bytes, what: str) -> int:
    """A number of a header: octal digits, or binary where the first bit says so."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True) if field[0] & 0x40 else _binary(field)
        if not 0 <= value < 2**63:
            raise ArchiveError(f"the artifact is refused: a header of it claims {value} as its {what}")
        return value
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise unreadable("tar", f"the {what} in a header is {digits!r}, which is no octal number")
    return int(digits or b"0", 8)


def _binary(field: bytes) -> int:
    return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")


def _text(field: bytes) -> str:
    """What a field holds up to its first NUL; bytes that are not UTF-8 are kept apart."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _read_extension(forward: Forward, size: int) -> bytes:
    if size > _LONGEST_HEADER:
        raise ArchiveError(
            f"the artifact is refused: a header of it claims {size} bytes, more than the limit of {_LONGEST_HEADER}"
        )
    data = forward.read(-(-size // _BLOCK) * _BLOCK)
    if len(data) < size:
        raise unreadable("tar", "it ends too early, in a header")
    return data[:size]


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What a header says of the member after it."""
    if kind in _LONG:
        # A NUL ends the name. Whatever were behind it, others would read.
        return {_LONG[kind]: data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records: dict[str, str] = {}
    place = 0
    while place < len(data):
        key, value, place = _record(data, place)
        if key in records:
            raise unreadable("tar", f"a header says twice what the {key[:100]!r} of a member is")
        records[key] = value
    return records


def _record(data: bytes, place: int) -> tuple[str, str, int]:
    """A record of a pax header, `LENGTH KEY=VALUE` and a newline, and where the next one begins."""
    length, blank, _rest = data[place : place + 8].partition(b" ")
    end = place + int(length) if length.isdigit() else 0
    key, equals, value = data[place + len(length) + 1 : end].partition(b"=")
    if not (blank and place < end <= len(data) and key and equals and value.endswith(b"\n")):
        raise unreadable("tar", "a pax header is not well formed")
    return key.decode("utf-8", "surrogateescape"), value[:-1].decode("utf-8", "surrogateescape"), end


def _remember(said: dict[str, str], more: Mapping[str, str], kind: bytes) -> None:
    for key in more:
        if kind == b"g" and (key in _OF_ONE_MEMBER or key.startswith("GNU.sparse.")):
            raise unreadable("tar", f"a header gives all members the same {key[:100]!r}")
        if kind != b"g" and key in said:
            raise unreadable("tar", f"two headers say what the {key[:100]!r} of a member is")
    said.update(more)


def _member(block: bytes, kind: bytes, size: int, said: Mapping[str, str]) -> Member:
    """A member, from its header and what was said of it before."""
    name = said["path"] if "path" in said else _name(block)
    is_sparse = any(key.startswith("GNU.sparse.") for key in said)
    if kind not in _KINDS or is_sparse:
        raise refusal(name, f"it is {_REFUSED.get(kind, 'of a kind that a release does not need')}")
    size = _decimal(said["size"], "size") if "size" in said else size
    if size and _KINDS[kind] != "file":
        raise refusal(name, f"it is a {_KINDS[kind]}, and claims {size} bytes")
    owners = (("uid", block[108:116]), ("gid", block[116:124]))
    return Member(
        name,
        _KINDS[kind],
        size,
        _number(block[100:108], "mode") & 0o7777,
        said["linkpath"] if "linkpath" in said else _text(block[157:257]),
        any((_decimal(said[key], key) if key in said else _number(field, key)) != 0 for key, field in owners),
    )


def _name(block: bytes) -> str:
    """The name in a header. Where POSIX has a prefix of it, GNU tar has times."""
    name, prefix = _text(block[:100]), _text(block[345:500])
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _decimal(value: str, what: str) -> int:
    """A number of a pax header."""
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise ArchiveError(f"the artifact is refused: a header of it claims {value[:100]!r} as its {what}")
    return int(value)
