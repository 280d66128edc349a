# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that mean harm, or that two readers would read differently: how they are made, and why they are refused.

HOSTILE has them all by name. They are unpacked by unit tests, and as root on a real host.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry


def entry(path: str, content: bytes = b"content", mode: int = 0o644) -> FileEntry:
    """A file as a manifest names it."""
    return FileEntry(path, len(content), mode, hashlib.sha256(content).hexdigest())


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files, given as (name, content), and of whatever else."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for member in members:
            info, content = (
                (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
            )
            if not isinstance(member, tarfile.TarInfo):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def special(name: str, kind: bytes, link: str = "", **fields: Any) -> tarfile.TarInfo:
    """A member that is not a plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link."""
    return special(name, tarfile.SYMTYPE, target)


def directory(name: str) -> tarfile.TarInfo:
    """A directory."""
    return special(name, tarfile.DIRTYPE, mode=0o755)


def zip_of(
    *members: tuple[str, bytes] | tuple[zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for member, content in members:
            is_file = isinstance(member, str) and not member.endswith("/")
            archive.writestr(zip_member(str(member), 0o100644) if is_file else member, content, compression)
    return packed.getvalue()


def zip_member(name: str, mode: int, **fields: Any) -> zipfile.ZipInfo:
    """A member of a zip with a Unix mode and type."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


# --- members that may not be -----------------------------------------------------------------------------------------

# What the manifest names, beside nothing else, is what a signer let pass: a file `good` and the member itself.
HOSTILE_TARS: dict[str, tuple[Sequence[Any], str]] = {
    "leads upwards": ([("../evil", b"x")], r"'\.\./evil' is refused: the path leads upwards"),
    "leads upwards from within": ([("good/../../evil", b"x")], "the path leads upwards"),
    "absolute": ([("/tmp/evil", b"x")], "the path is absolute"),
    "doubly absolute": ([("//tmp/evil", b"x")], "the path is absolute"),
    "not in plain form": ([("a//b", b"x")], "not in its plain form"),
    "with a dot inside": ([("a/./b", b"x")], "not in its plain form"),
    "newline in a name": ([("a\nb", b"x")], r"'a\\nb' is refused: the name holds a control character"),
    "escape in a name": ([("a\x1b[2Jb", b"x")], "control character"),
    "delete in a name": ([("a\x7fb", b"x")], "control character"),
    "not UTF-8": ([("a\udcff", b"x")], "not valid UTF-8"),
    "name too long": ([("n" * 300, b"x")], "longer than"),
    "path too long": ([("/".join(["n" * 200] * 20), b"x")], "longer than"),
    "too deep": ([("d/" * 100 + "f", b"x")], "deeper than the limit of 64"),
    "3,000 levels": ([directory("d/" * 1400)], "deeper|longer"),
    "hard link": (
        [("good", b"content"), special("hard", tarfile.LNKTYPE, "good")],
        "'hard' is refused: it is a hard link",
    ),
    "hard link outwards": ([special("hard", tarfile.LNKTYPE, "../../precious")], "a hard link"),
    "hard link to a symbolic link": (
        [link("l", "../../../precious"), special("h", tarfile.LNKTYPE, "l")],
        "a hard link|names",
    ),
    "character device": (
        [special("null", tarfile.CHRTYPE, devmajor=1, devminor=3)],
        "'null' is refused: it is a device",
    ),
    "block device": ([special("disk", tarfile.BLKTYPE, devmajor=8)], "a device"),
    "FIFO": ([special("pipe", tarfile.FIFOTYPE)], "'pipe' is refused: it is a FIFO"),
    "contiguous file": ([special("odd", tarfile.CONTTYPE)], "of a kind"),
    "unknown type": ([special("odd", b"Z")], "of a kind"),
    "socket of Solaris": ([special("odd", b"D")], "of a kind"),
    "sparse file of GNU": ([special("sparse", tarfile.GNUTYPE_SPARSE)], "of a kind"),
    "sparse file": (
        [special("sparse", tarfile.REGTYPE, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})],
        "of a kind",
    ),
    "file twice": ([("good", b"content"), ("good", b"content")], "'good' is refused: it is in the artifact twice"),
    "file twice, once with a dot": ([("good", b"content"), ("./good", b"content")], "in the artifact twice"),
    "directory twice": ([directory("d"), directory("d/")], "in the artifact twice"),
    "file, then a directory of its name": ([("good", b"content"), directory("good")], "in the artifact twice"),
    "file under a file": ([("good", b"content"), ("good/below", b"x")], "'good' is not a directory"),
    "file where others lie below": ([("a/b", b"content"), ("a", b"x")], "'a' is refused|does not name"),
    "file under a link": ([link("here", "."), ("here/evil", b"x")], "does not name|not a directory"),
    "link out of the release": ([link("out", "../../../precious")], "'out' is a symbolic link .*: it leads out"),
    "link to an absolute path": ([link("out", "/etc/shadow")], "it leads to an absolute path"),
    "link to nothing": ([special("out", tarfile.SYMTYPE, "")], "1 to 4095 bytes"),
    "link with a control character": ([link("out", "a\tb")], "control character"),
    "chain of links": ([link("one", "."), link("two", "one/../..")], "through another symbolic link|leads out"),
    "link through a link": (
        [link("one", "sub"), link("two", "one/x"), ("sub/x", b"content")],
        "through another symbolic link, 'one'",
    ),
    "link to a link": (
        [link("one", "sub/x"), link("two", "one"), ("sub/x", b"content")],
        "through another symbolic link",
    ),
    "link to itself": ([link("one", "one")], "through another symbolic link"),
    "file that nobody named": (
        [("good", b"content"), ("stranger", b"x")],
        "'stranger' is refused: the manifest does not name it",
    ),
    "other content of the same size": ([("good", b"CONTENT")], "'good' is refused: its content is not the one"),
    "other size": ([("good", b"content and more")], "'good' is refused: 16 bytes, the manifest says 7"),
    "other mode": ([special("good", tarfile.REGTYPE, mode=0o755)], "mode 0755|bytes"),
    "link where a file should be": ([link("good", "other")], "'good' is refused: it is a link"),
    "nothing at all": ([], "'good' of the manifest is not in the artifact|leads backwards"),
}


def files_named_by(members: Sequence[Any]) -> list[FileEntry]:
    """A manifest that names the links of an archive, so that nothing is refused for a lesser reason."""
    links = [member for member in members if isinstance(member, tarfile.TarInfo) and member.type == tarfile.SYMTYPE]
    named = [FileEntry(member.name, link=member.linkname) for member in links if member.name != "good"]
    return [entry("good"), *named, *(entry(path) for path in ("sub/x", "a/b") if (path, b"content") in members)]


# These say all there is to say about `good`; in all others it comes first, and is as it should be.
ABOUT_GOOD = ("nothing at all", "other mode", "link where a file should be")


def names_good(members: Sequence[Any]) -> bool:
    """Whether a file `good` is among the members."""
    return any(isinstance(member, tuple) and member[0] == "good" for member in members)


HOSTILE_ZIPS: dict[str, tuple[Sequence[Any], str]] = {
    "leads upwards": ([("../evil", b"x")], "the path leads upwards"),
    "absolute": ([("/tmp/evil", b"x")], "the path is absolute"),
    "upwards from within": ([("a/../../evil", b"x")], "the path leads upwards"),
    "newline in a name": ([("a\nb", b"x")], "control character"),
    "too deep": ([("d/" * 100 + "f", b"x")], "deeper than"),
    "twice": ([("good", b"content"), ("good", b"content")], "in the artifact twice"),
    "device": ([(zip_member("null", stat.S_IFCHR | 0o644), b"")], "of a kind"),
    "block device": ([(zip_member("disk", stat.S_IFBLK | 0o644), b"")], "of a kind"),
    "FIFO": ([(zip_member("pipe", stat.S_IFIFO | 0o644), b"")], "of a kind"),
    "socket": ([(zip_member("socket", stat.S_IFSOCK | 0o644), b"")], "of a kind"),
    "directory without its slash": ([(zip_member("d", stat.S_IFDIR | 0o755), b"")], "of a kind"),
    "file that nobody named": ([("stranger", b"x")], "does not name"),
    "other size": ([("big", b"x" * 99)], "does not name|bytes"),
    "file under a file": ([("good", b"content"), ("good/below", b"x")], "not a directory"),
}


# --- two meanings: tar -----------------------------------------------------------------------------------------------


def block_of(name: str = "good", kind: bytes = b"0", size: int = 0, raw_size: bytes | None = None) -> bytes:
    """A header with a right checksum; `raw_size` is what stands in the field for the size."""
    header = bytearray(special(name, kind, size=size, mode=0o644).tobuf(tarfile.USTAR_FORMAT)[:512])
    if raw_size is not None:
        header[124:136] = raw_size.ljust(12, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def extended(kind: bytes, data: bytes) -> bytes:
    """A header for members to come, with what it says."""
    return block_of("x", kind, len(data)) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    """What a pax header says."""
    said = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(rest) + len(str(len(rest)))
        said += str(length if len(str(length)) + len(rest) == length else length + 1).encode() + rest
    return said


GOOD = block_of("good", b"0", 7) + b"content".ljust(512, b"\0")
END = bytes(1024)

TWO_MEANINGS: dict[str, tuple[bytes, str]] = {
    "bytes behind the end": (GOOD + END + GOOD + END, "more bytes follow where the tar in it ends"),
    "bytes behind one block of zeros": (GOOD + bytes(512) + GOOD, "more bytes follow"),
    "end in a header": (GOOD + GOOD[:100], "ends too early, in a header"),
    "end behind a header for the next member": (extended(b"x", pax(("path", "evil"))), "the member follows"),
    "end in a long name": (block_of("x", b"L", 2000) + b"x" * 512, "ends too early, in a header"),
    "wrong checksum": (GOOD[:100] + b"0000755\0" + GOOD[108:] + END, "checksum of a header is wrong"),
    "size that is no number": (block_of(raw_size=b"0x7") + END, "no octal number"),
    "negative size in octal": (block_of(raw_size=b"-0000000007") + END, "no octal number"),
    "negative size in binary": (block_of(raw_size=b"\xff" * 12) + END, "claims -1 as its size"),
    "enormous size in binary": (block_of(raw_size=b"\x80" + b"\x7f" * 11) + END, "claims .* as its size"),
    "enormous size in pax": (extended(b"x", pax(("size", "9" * 40))) + GOOD, "as its size"),
    "negative size in pax": (extended(b"x", pax(("size", "-7"))) + GOOD, "claims '-7' as its size"),
    "size in other digits": (extended(b"x", pax(("size", "\u0667"))) + GOOD, "as its size"),
    "size in pax that is another": (extended(b"x", pax(("size", "6"))) + GOOD + END, "6 bytes, the manifest says 7"),
    "name in pax upwards": (extended(b"x", pax(("path", "../evil"))) + GOOD + END, "'../evil' is refused"),
    "NUL in a name of pax": (extended(b"x", pax(("path", "good\0evil"))) + GOOD + END, "control character"),
    "NUL in a long name": (extended(b"L", b"good\0evil\0") + GOOD + END, "control character"),
    "two names in pax": (extended(b"x", pax(("path", "good"), ("path", "evil"))) + GOOD, "says twice what the 'path'"),
    "two headers with names": (
        extended(b"L", b"evil\0") + extended(b"x", pax(("path", "good"))) + GOOD,
        "two headers say what the 'path'",
    ),
    "two long names": (extended(b"L", b"evil\0") + extended(b"L", b"good\0") + GOOD, "two headers say"),
    "name for all members": (extended(b"g", pax(("path", "good"))) + GOOD, "gives all members the same 'path'"),
    "size for all members": (extended(b"g", pax(("size", "7"))) + GOOD, "gives all members the same 'size'"),
    "sparse by pax 1.0": (
        extended(b"x", pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "good"))) + GOOD,
        "of a kind that a release does not need",
    ),
    "pax that is not well formed": (extended(b"x", b"99 path=good\n") + GOOD, "not well formed"),
    "pax of no length": (extended(b"x", b"0 path=good\n") + GOOD, "not well formed"),
    "pax without its newline": (extended(b"x", b"12 path=good") + GOOD, "not well formed"),
    "directory with bytes": (
        block_of("d", b"5", 7) + b"content".ljust(512, b"\0") + END,
        "'d/' is refused: it is a directory",
    ),
    "other normal form": (block_of("u\u0308", b"0") + END, "does not name"),
    "other case": (block_of("GOOD", b"0") + END, "'GOOD' is refused: the manifest does not name it"),
    "backslashes upwards": (block_of("..\\..\\evil", b"0") + END, "does not name"),
    "drive": (block_of("C:\\evil", b"0") + END, "does not name"),
}


# --- two meanings: zip -----------------------------------------------------------------------------------------------


def changed(data: bytes, signature: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip with one number of its last record with that signature replaced."""
    place = data.rindex(signature) + offset
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


def overlapping() -> bytes:
    """Two names for the bytes of one member."""
    data = zip_of(("good", b"content"), compression=zipfile.ZIP_STORED)
    local, directory_entry = data[: data.index(b"PK\1\2")], data[data.index(b"PK\1\2") : data.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(directory_entry), len(local), 0)
    return local + directory_entry + directory_entry.replace(b"good", b"evil") + end


PLAIN_ZIP = zip_of(("good", b"content"), compression=zipfile.ZIP_STORED)

ODD_ZIPS: dict[str, tuple[bytes, str]] = {
    "bytes before it": (b"#!/bin/sh\n" + PLAIN_ZIP, "bytes before it"),
    "bytes behind it": (PLAIN_ZIP + b"x", "more bytes follow"),
    "two directories": (zip_of(("evil", b"x")) + PLAIN_ZIP, "bytes before it"),
    "cut off": (PLAIN_ZIP[:-1], "no directory"),
    "no bytes": (b"", "no directory"),
    "members that share bytes": (overlapping(), "'evil' is refused: it shares bytes with another|shares bytes"),
    "bytes between member and directory": (
        changed(PLAIN_ZIP, b"PK\5\6", 16, "<L", PLAIN_ZIP.index(b"PK\1\2") + 3).replace(b"PK\1\2", b"abcPK\1\2"),
        "bytes of no member",
    ),
    "more members than it counts": (changed(PLAIN_ZIP, b"PK\5\6", 10, "<H", 0), "counts 0 members"),
    "fewer members than it counts": (changed(PLAIN_ZIP, b"PK\5\6", 10, "<H", 9), "counts 9 members"),
    "one of several disks": (changed(PLAIN_ZIP, b"PK\5\6", 4, "<H", 1), "in several"),
    "directory elsewhere": (changed(PLAIN_ZIP, b"PK\5\6", 16, "<L", 0), "bytes before it"),
    "directory beyond the end": (changed(PLAIN_ZIP, b"PK\5\6", 16, "<L", 2**31), "bytes before it"),
    "damaged directory": (PLAIN_ZIP.replace(b"PK\1\2", b"PK\1\3"), "directory is damaged"),
    "member elsewhere": (changed(PLAIN_ZIP, b"PK\1\2", 42, "<L", 3), "belong to no member"),
    "other size at the member": (changed(PLAIN_ZIP, b"PK\3\4", 22, "<L", 8), "says otherwise at its own place"),
    "other checksum at the member": (changed(PLAIN_ZIP, b"PK\3\4", 14, "<L", 8), "says otherwise"),
    "other method at the member": (changed(PLAIN_ZIP, b"PK\3\4", 8, "<H", 8), "says otherwise"),
    "unknown method": (
        changed(changed(PLAIN_ZIP, b"PK\3\4", 8, "<H", 99), b"PK\1\2", 10, "<H", 99),
        "cannot be read as zip",
    ),
    "strongly encrypted": (changed(PLAIN_ZIP, b"PK\1\2", 8, "<H", 0x41), "'good' is refused: it is encrypted"),
    "zip64 that is not there": (changed(PLAIN_ZIP, b"PK\5\6", 16, "<L", 0xFFFFFFFF), "bytes before it"),
    "directory with bytes": (
        zip_of((zip_member("d/", 0o040755), b"content"), compression=zipfile.ZIP_STORED),
        "'d/' is refused: it is a directory",
    ),
}


# --- bombs -------------------------------------------------------------------------------------------------------

GOOD_TAR = tar_of(("good", b"content"))
MANY = 120_000
DEEP = 3_000


def zeros(count: int) -> Iterator[bytes]:
    """So many megabytes of them."""
    for _number in range(count):
        yield bytes(1_000_000)


def packed(format_name: str, parts: Iterator[bytes], before: bytes = b"") -> bytes:
    """A stream that was never whole in memory."""
    makers: dict[str, Callable[[], Any]] = {
        "tar.gz": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
        "tar.bz2": bz2.BZ2Compressor,
        "tar.xz": lzma.LZMACompressor,
    }
    maker = makers[format_name]()
    made = [maker.compress(before)]
    made += [maker.compress(part) for part in parts]
    return b"".join(made) + bytes(maker.flush())


def many_directories(form: str) -> bytes:
    """A tar of more directories than any release may have."""
    header = block_of("x", b"5")
    others = int(header[148:154], 8) - sum(b"x/")
    parts = []
    for number in range(MANY):
        name = (form % number).encode()
        parts.append(name + header[len(name) : 148] + b"%06o" % (others + sum(name)) + header[154:])
    return b"".join(parts) + END


def levels(name: str) -> bytes:
    """A tar of directories each in the one before, with their long names as pax and as GNU tar have them."""
    data = b""
    for depth in range(1, DEEP, 100):
        path = "/".join([name] * depth) + "/"
        said = extended(b"x", pax(("path", path))) if depth % 200 == 1 else extended(b"L", path.encode() + b"\0")
        data += said + block_of("x", b"5")
    return data + END


def many_in_a_zip(count: int, share: bool) -> bytes:
    """A zip of so many members; with `share` they all have the bytes of the first one."""
    local = _local("0000000", b"", zlib.crc32(b""))
    data = local if share else b"".join(_local(f"{number:07}", b"", 0) for number in range(count))
    directory_bytes = b"".join(
        _central(f"{number:07}", 0, 0, 0, 0 if share else number * len(local)) for number in range(count)
    )
    return data + directory_bytes + _end(count, len(directory_bytes), len(data))


def quoted_overlap(count: int, size: int) -> bytes:
    """A bomb of one layer: each member quotes the headers of those behind it, and all end in the same bytes."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = bytes(size)
    stream = deflate.compress(plain) + deflate.flush()
    data = b""
    entries = []
    for number in range(count - 1, -1, -1):
        name = f"{number:07}"
        checksum = zlib.crc32(plain)
        data = _local(name, stream, checksum, len(plain), 8) + stream
        entries.append((name, checksum, len(stream), len(plain), len(data)))
        # The next member's stream begins with this one's header, stored, and goes on as this one's stream.
        header = data[: len(data) - len(stream)]
        stream = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + data
        plain = header + plain
    directory_bytes = b"".join(
        _central(name, checksum, small, big, len(data) - behind, 8) for name, checksum, small, big, behind in entries
    )
    return data + directory_bytes + _end(count, len(directory_bytes), len(data))


def _local(name: str, data: bytes, checksum: int, size: int = 0, method: int = 0) -> bytes:
    fields = (b"PK\3\4", 20, 0, method, 0, 0x21, checksum, len(data), size, len(name), 0)
    return struct.pack("<4s5H3L2H", *fields) + name.encode()


def _central(name: str, checksum: int, small: int, big: int, offset: int, method: int = 0) -> bytes:
    fields = (b"PK\1\2", 0x314, 20, 0, method, 0, 0x21, checksum, small, big, len(name), 0, 0, 0, 0)
    return struct.pack("<4s6H3L5H2L", *fields, 0o100644 << 16, offset) + name.encode()


def _end(count: int, size: int, offset: int, lies: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """The end of a zip, in 64 bits where it has to be, or where `lies` are told in them."""
    if count < 0xFFFF and not lies:
        return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
    said = {"count": count, "size": size, "offset": offset, "place": offset + size, **lies}
    big = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, said["count"], said["count"], said["size"], said["offset"]
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, said["place"], 1)
    low = (said.get("low", 0xFFFF), said.get("low", 0xFFFF), 0xFFFFFFFF, 0xFFFFFFFF)
    return big + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *low, 0)


def zip64(**lies: int) -> bytes:
    """A zip of one member, whose end in 64 bits says what is not so."""
    at = PLAIN_ZIP.index(b"PK\1\2")
    size = PLAIN_ZIP.index(b"PK\5\6") - at
    return PLAIN_ZIP[: at + size] + _end(1, size, at, lies)


def nested(levels_of_it: int) -> bytes:
    """A zip in a zip in a zip, each with copies of the one inside."""
    data = zip_of(("zeros", bytes(1_000_000)))
    for _number in range(levels_of_it):
        data = zip_of(*((f"{number}.zip", data) for number in range(8)))
    return data


def lzma_that_asks() -> bytes:
    """A member of a zip that asks for 4 GB of memory."""
    data = bytearray(zip_of((zip_member("good", 0o100644), b"content"), compression=zipfile.ZIP_LZMA))
    data[34 + 5 : 34 + 9] = b"\xff" * 4
    return bytes(data)


def xz_that_asks() -> bytes:
    """The size of the dictionary is one byte in the header of the first block, which ends in a checksum."""
    data = bytearray(lzma.compress(GOOD_TAR))
    data[data.index(bytes([lzma.FILTER_LZMA2, 1]), 12) + 2] = 38
    end = 12 + (data[12] + 1) * 4
    data[end - 4 : end] = zlib.crc32(bytes(data[12 : end - 4])).to_bytes(4, "little")
    return bytes(data)


def encrypted() -> bytes:
    """A member that nobody can read."""
    data = bytearray(zip_of(("good", b"content")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def backwards() -> bytes:
    """A negative size, as GNU tar writes it, has sent readers round in circles."""
    return block_of("good", raw_size=b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)) + bytes(1024)


# What is made, of which format, and why it is refused.
BOMBS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "zeros behind the end, gz": (lambda: packed("tar.gz", zeros(64), GOOD_TAR), "tar.gz", "unpacks to more than"),
    "zeros behind the end, bz2": (lambda: packed("tar.bz2", zeros(64), GOOD_TAR), "tar.bz2", "unpacks to more than"),
    "zeros behind the end, xz": (lambda: packed("tar.xz", zeros(64), GOOD_TAR), "tar.xz", "unpacks to more than"),
    "member of zeros that nobody named": (
        lambda: packed("tar.gz", zeros(64), GOOD + block_of("zeros", size=64_000_000)),
        "tar.gz",
        "does not name it",
    ),
    "header of zeros": (
        lambda: packed("tar.gz", zeros(64), GOOD + block_of("x", b"x", 64_000_000)),
        "tar.gz",
        "claims 64000000 bytes",
    ),
    "many small streams": (lambda: packed("tar.gz", zeros(8), GOOD_TAR) * 40, "tar.gz", "more than|more bytes follow"),
    "gz in gz": (lambda: gzip.compress(packed("tar.gz", zeros(64), GOOD_TAR)), "tar.gz", "cannot be read as tar"),
    "zips in zips": (lambda: nested(4), "zip", "does not name it"),
    "zip as a tar": (lambda: nested(1), "tar", "cannot be read as tar"),
    "quoted overlap": (lambda: quoted_overlap(250, 1_000_000), "zip", "shares bytes|belong to no member"),
    "overlap of 60,000": (lambda: many_in_a_zip(60_000, True), "zip", "shares bytes"),
    "120,000 names in a zip": (lambda: many_in_a_zip(MANY, False), "zip", "more than 100000 members"),
    "120,000 names of the same bytes": (lambda: many_in_a_zip(MANY, True), "zip", "more than 100000 members"),
    "120,000 directories": (
        lambda: gzip.compress(many_directories("d%d/"), 1),
        "tar.gz",
        "more than 100000|more than the limit",
    ),
    "120,000 times the same directory": (lambda: gzip.compress(many_directories("d%.0s/"), 1), "tar.gz", "twice"),
    "3,000 levels one by one": (lambda: levels("d"), "tar", "deeper than the limit of 64"),
    "3,000 levels at once": (
        lambda: extended(b"L", b"d/" * DEEP + b"\0") + block_of("x", b"5") + END,
        "tar",
        "deeper|longer",
    ),
    "3,000 levels in a zip": (lambda: zip_of(("good", b"content"), ("d/" * DEEP, b"")), "zip", "deeper|longer"),
    "count in 64 bits that lies": (lambda: zip64(count=9), "zip", "counts 9 members"),
    "huge count in 64 bits": (lambda: zip64(count=2**63), "zip", "counts 9223372036854775808 members"),
    "size in 64 bits that lies": (lambda: zip64(size=2**40), "zip", "bytes before it"),
    "offset in 64 bits that lies": (lambda: zip64(offset=2**62), "zip", "bytes before it"),
    "end in 64 bits elsewhere": (lambda: zip64(place=3), "zip", "two ends contradict"),
    "two ends that contradict": (lambda: zip64(low=2), "zip", "two ends contradict"),
    "LZMA in a zip that asks for memory": (lzma_that_asks, "zip", "asks for 4294967295 bytes of memory"),
    "xz that asks for memory": (xz_that_asks, "tar.xz", "(?i)memory"),
    "encrypted": (encrypted, "zip", "'good' is refused: it is encrypted"),
    "other name at its place": (
        lambda: zip_of(("good", b"content")).replace(b"good", b"evil", 1),
        "zip",
        "is named 'evil' at its own place",
    ),
    "size that leads backwards": (backwards, "tar", "claims|backwards"),
    "header of 60,000 digits": (lambda: extended(b"x", b"1" * 60_000) + GOOD, "tar", "not well formed"),
    "cut off at a member": (lambda: block_of("d", b"5") + END, "tar", "'good' of the manifest is not in the artifact"),
    "cut off": (lambda: gzip.compress(GOOD_TAR)[:-9], "tar.gz", "cannot be read"),
    "flipped bit": (lambda: _flipped(gzip.compress(GOOD_TAR)), "tar.gz", "cannot be read|refused"),
    "bytes behind a stream": (lambda: gzip.compress(GOOD_TAR) + b"rubbish", "tar.gz", "cannot be read|more bytes"),
}
# Refused under the strict policy alone.
STRICT: dict[str, tuple[dict[str, int], str]] = {
    "setuid": ({"mode": 0o4755}, "grants more than 0755"),
    "writable for all": ({"mode": 0o777}, "grants more than 0755"),
    "user": ({"uid": 1000}, "does not belong to root"),
    "group": ({"gid": 1000}, "does not belong to root"),
}
LINKS_IN_A_ZIP = {
    "link upwards": "../../../precious",
    "link to an absolute path": "/etc/shadow",
    "link to nothing": "",
    "link with a newline": "a\nb",
    "link too long": "x" * 5000,
}


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# --- all of them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hostile:
    """An archive, what a signer who looked away has let the manifest say of it, and why it is refused."""

    make: Callable[[], bytes]
    reason: str
    format: str = "tar"
    files: Sequence[FileEntry] = (entry("good"),)
    strict: bool = False


def _tar_with_good(name: str, members: Sequence[Any]) -> bytes:
    first = [] if names_good(members) or name in ABOUT_GOOD else [("good", b"content")]
    return tar_of(*first, *members)


def _zip_with_good(members: Sequence[Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice
        return zip_of(*([] if names_good(members) else [("good", b"content")]), *members)


def _hostile() -> Iterator[tuple[str, Hostile]]:
    for name, (members, reason) in HOSTILE_TARS.items():
        yield (
            f"tar: {name}",
            Hostile(lambda n=name, m=members: _tar_with_good(n, m), reason, files=files_named_by(members)),
        )
    for name, (data, reason) in TWO_MEANINGS.items():
        yield f"tar: {name}", Hostile(lambda d=data: d, reason)
    for name, (members, reason) in HOSTILE_ZIPS.items():
        yield f"zip: {name}", Hostile(lambda m=members: _zip_with_good(m), reason, "zip")
    for name, (data, reason) in ODD_ZIPS.items():
        yield f"zip: odd, {name}", Hostile(lambda d=data: d, reason, "zip")
    for name, target in LINKS_IN_A_ZIP.items():
        yield (
            f"zip: {name}",
            Hostile(
                lambda t=target: zip_of((zip_member("out", 0o120777), t.encode())),
                "'out'",
                "zip",
                [FileEntry("out", link=target)],
            ),
        )
    for name, (make, format_name, reason) in BOMBS.items():
        yield f"{format_name}: {name}", Hostile(make, reason, format_name)
    for name, (fields, reason) in STRICT.items():
        said = {"mode": 0o644, **fields}
        yield (
            f"strict: {name}",
            Hostile(
                lambda s=said: tar_of(special("good", tarfile.REGTYPE, **s)),
                f"strict policy.*{reason}",
                files=[entry("good", b"", said["mode"] & 0o755)],
                strict=True,
            ),
        )


HOSTILE: Mapping[str, Hostile] = dict(_hostile())
