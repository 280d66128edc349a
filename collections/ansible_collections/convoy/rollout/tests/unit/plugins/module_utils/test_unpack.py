# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking: good archives of every format, and hostile ones, which leave nothing outside and are named."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact, Limits, link_fault, unpack


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


class Place:
    """Unpacks archives into a directory of its own, and sees that nothing came to lie outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.destination = root / "a" / "b" / "release"
        self.destination.parent.mkdir(parents=True)
        (root / "precious").write_text("precious")

    def unpack(
        self, data: bytes, files: Sequence[FileEntry], format: str = "tar", strict: bool = False, **limits: int
    ) -> None:
        path = self.root / "artifact"
        path.write_bytes(data)
        artifact = Artifact(hashlib.sha256(data).hexdigest(), len(data), format)
        with path.open("rb") as stream:
            unpack(stream, artifact, files, str(self.destination), Limits(**limits), strict)

    def check_outside(self) -> None:
        """Nothing outside was made or changed."""
        assert sorted(os.listdir(self.root)) == ["a", "artifact", "precious"]
        assert os.listdir(self.root / "a") == ["b"]
        assert set(os.listdir(self.root / "a" / "b")) <= {"release"}
        assert (self.root / "precious").read_text() == "precious"
        for parent, _directories, names in os.walk(self.destination):
            for name in names:
                assert not stat.S_IMODE(os.lstat(os.path.join(parent, name)).st_mode) & 0o7000
                assert os.lstat(os.path.join(parent, name)).st_nlink == 1


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where to unpack."""
    return Place(tmp_path)


# --- good ones ---------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_tar_of_every_packing(place: Place, name: str) -> None:
    files = {"bin/run": b"#!/bin/sh\n", "data/big": os.urandom(3_000_000), "empty": b""}
    data = FORMATS[name](tar_of(directory("./"), directory("bin"), *files.items(), link("latest", "data/big")))
    place.unpack(
        data, [*(entry(path, content) for path, content in files.items()), FileEntry("latest", link="data/big")], name
    )
    assert {path: (place.destination / path).read_bytes() for path in files} == files
    assert os.readlink(place.destination / "latest") == "data/big"
    place.check_outside()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_every_packing(place: Place, compression: int) -> None:
    files = {"bin/run": b"#!/bin/sh\n", "data/big": os.urandom(3_000_000), "empty": b""}
    members = [(zip_member(path, 0o100644, compress_type=compression), content) for path, content in files.items()]
    target = zip_member("latest", 0o120777, compress_type=compression)
    data = zip_of(("bin/", b""), *members, (target, b"data/big"))
    place.unpack(
        data, [*(entry(path, content) for path, content in files.items()), FileEntry("latest", link="data/big")], "zip"
    )
    assert {path: (place.destination / path).read_bytes() for path in files} == files
    assert os.readlink(place.destination / "latest") == "data/big"
    place.check_outside()


@pytest.mark.parametrize(
    "name",
    [
        "with blanks",
        "ünïcödé/日本語",
        "-rf",
        "a" * 200 + "/" + "b" * 200,
        "quote'\"$(x)",
        "*",
        "~",
        "..\\..\\x",
        "C:\\x",
    ],
)
@pytest.mark.parametrize("kind", ["tar", "gnu", "zip"])
def test_odd_names_work(place: Place, name: str, kind: str) -> None:
    pack = {
        "tar": lambda: tar_of((name, b"content")),
        "gnu": lambda: tar_of((name, b"content"), format=tarfile.GNU_FORMAT),
        "zip": lambda: zip_of((name, b"content")),
    }[kind]
    place.unpack(pack(), [entry(name)], "zip" if kind == "zip" else "tar")
    assert (place.destination / name).read_bytes() == b"content"


def test_modes_are_put_right(place: Place) -> None:
    modes = {"setuid": (0o4755, 0o755), "open": (0o777, 0o755), "closed": (0o000, 0o400), "plain": (0o640, 0o640)}
    members = [special(name, tarfile.REGTYPE, mode=raw) for name, (raw, _mode) in modes.items()]
    place.unpack(tar_of(*members), [entry(name, b"", mode) for name, (_raw, mode) in modes.items()])
    found = {name: stat.S_IMODE((place.destination / name).stat().st_mode) for name in modes}
    assert found == {name: mode for name, (_raw, mode) in modes.items()}


def test_owners_of_the_archive_mean_nothing(place: Place) -> None:
    place.unpack(tar_of(special("file", tarfile.REGTYPE, mode=0o644, uid=12345, gid=12345)), [entry("file", b"")])
    assert (place.destination / "file").stat().st_uid == os.geteuid()


def test_umask_does_not_matter(place: Place) -> None:
    before = os.umask(0o077)
    try:
        place.unpack(tar_of(("directory/file", b"content")), [entry("directory/file")])
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.destination / "directory").stat().st_mode) == 0o755
    assert stat.S_IMODE((place.destination / "directory" / "file").stat().st_mode) == 0o644


# --- hostile ones ------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", sorted(HOSTILE_TARS))
def test_hostile_tar(place: Place, name: str) -> None:
    members, reason = HOSTILE_TARS[name]
    first = [] if names_good(members) or name in ABOUT_GOOD else [("good", b"content")]
    with pytest.raises(ArchiveError, match=reason):
        place.unpack(tar_of(*first, *members), files_named_by(members))
    place.check_outside()


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


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", sorted(HOSTILE_ZIPS))
def test_hostile_zip(place: Place, name: str) -> None:
    members, reason = HOSTILE_ZIPS[name]
    first = [] if names_good(members) else [("good", b"content")]
    with pytest.raises(ArchiveError, match=reason):
        place.unpack(zip_of(*first, *members), [entry("good")], "zip")
    place.check_outside()


@pytest.mark.parametrize("target", ["../../../precious", "/etc/shadow", "", "a\nb", "x" * 5000])
def test_hostile_link_in_a_zip(place: Place, target: str) -> None:
    data = zip_of((zip_member("out", 0o120777), target.encode()))
    with pytest.raises(ArchiveError, match="'out'"):
        place.unpack(data, [FileEntry("out", link=target)], "zip")
    place.check_outside()


def test_encrypted_zip(place: Place) -> None:
    data = bytearray(zip_of(("good", b"content")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(ArchiveError, match="'good' is refused: it is encrypted"):
        place.unpack(bytes(data), [entry("good")], "zip")


def test_zip_whose_header_says_another_name_than_its_directory(place: Place) -> None:
    data = zip_of(("good", b"content"))
    with pytest.raises(ArchiveError, match="is named 'evil' at its own place"):
        place.unpack(data.replace(b"good", b"evil", 1), [entry("good")], "zip")


# --- two meanings ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", sorted(TWO_MEANINGS))
def test_tar_that_others_may_read_otherwise(place: Place, name: str) -> None:
    data, reason = TWO_MEANINGS[name]
    with pytest.raises(ArchiveError, match=reason):
        place.unpack(data, [entry("good")])
    place.check_outside()


def test_headers_that_every_tar_may_have(place: Place) -> None:
    """What git writes ahead, names by pax and by GNU tar, a directory of the seventh Unix, a binary size."""
    data = extended(b"g", pax(("comment", "0" * 40))) + extended(b"x", pax(("path", "a/1"), ("mtime", "1.5"))) + GOOD
    data += extended(b"L", b"a/2\0") + GOOD + block_of("v7/", b"\0")
    data += block_of("a/3", b"0", raw_size=b"\x80" + bytes(10) + b"\7") + GOOD[512:]
    place.unpack(data + END + bytes(8192), [entry(f"a/{number}") for number in (1, 2, 3)])
    assert sorted(os.listdir(place.destination / "a")) == ["1", "2", "3"]
    assert (place.destination / "v7").is_dir()


def test_header_of_digits_takes_no_time(place: Place) -> None:
    """Python's own reader goes over it once for every digit."""
    before = time.monotonic()
    with pytest.raises(ArchiveError, match="not well formed"):
        place.unpack(extended(b"x", b"1" * 60_000) + GOOD, [entry("good")])
    assert time.monotonic() - before < 2


def test_thousands_of_headers_for_one_member(place: Place) -> None:
    """A reader that calls itself for each would end for want of stack."""
    data = b"".join(extended(b"x", pax((f"comment{number}", "x"))) for number in range(3_000))
    place.unpack(data + GOOD + END, [entry("good")])


def test_directories_count_as_members(place: Place) -> None:
    paths = [f"{number}/b/c/d/e/f" for number in range(20)]
    with pytest.raises(ArchiveError, match="makes 120 files and directories, more than the limit of 100"):
        place.unpack(tar_of(*((path, b"content") for path in paths)), [entry(path) for path in paths], members=100)
    assert not place.destination.exists()
    with pytest.raises(ArchiveError, match="more than 40 files and directories"):
        place.unpack(tar_of(directory("a/" * 50)), [entry("good")], members=40)


@pytest.mark.parametrize("name", ["tar.gz", "tar.bz2", "tar.xz"])
def test_packed_streams_one_after_the_other(place: Place, name: str) -> None:
    """One tar in two streams is read as one; bytes that are no stream are refused, zeros are not."""
    whole, pack = tar_of(("good", b"content")), FORMATS[name]
    place.unpack(pack(whole[:600]) + pack(whole[600:]) + bytes(300_000), [entry("good")], name)
    for more in (pack(whole), b"rubbish", bytes(300_000) + b"rubbish"):
        shutil.rmtree(place.destination)
        with pytest.raises(ArchiveError, match=r"cannot be read as|more bytes follow"):
            place.unpack(pack(whole) + more, [entry("good")], name)
    place.check_outside()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python can unpack it")
def test_zst_is_refused_where_python_does_not_know_it(place: Place) -> None:
    with pytest.raises(ArchiveError, match=r"from 3\.14 on, and this is Python 3\..*publish the release as tar\.xz"):
        place.unpack(b"\x28\xb5\x2f\xfd", [entry("good")], "tar.zst")
    assert not place.destination.exists()


# --- zips that contradict themselves -----------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", sorted(ODD_ZIPS))
def test_zip_that_contradicts_itself(place: Place, name: str) -> None:
    data, reason = ODD_ZIPS[name]
    with pytest.raises(ArchiveError, match=reason):
        place.unpack(data, [entry("good")], "zip")
    place.check_outside()


def test_zip_written_to_a_pipe_and_zip64(place: Place) -> None:
    """Sizes that follow a member, and sizes in 64 bits without a need."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, offset: int, whence: int = 0) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b"):
            with archive.open(zip_member(name, 0o100644), "w", force_zip64=name == "b") as member:
                member.write(b"content")
    place.unpack(pipe.getvalue(), [entry("a"), entry("b")], "zip")
    assert (place.destination / "b").read_bytes() == b"content"


def test_lzma_in_a_zip_that_asks_for_too_much_memory(place: Place) -> None:
    data = bytearray(zip_of((zip_member("good", 0o100644), b"content"), compression=zipfile.ZIP_LZMA))
    data[34 + 5 : 34 + 9] = b"\xff" * 4
    with pytest.raises(ArchiveError, match="'good' is refused: it asks for 4294967295 bytes of memory"):
        place.unpack(bytes(data), [entry("good")], "zip")


# --- strict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": 0o4755}, "grants more"),
        ({"mode": 0o777}, "grants more"),
        ({"uid": 1000}, "root"),
        ({"gid": 1000}, "root"),
    ],
)
def test_strict_policy_refuses_what_is_put_right_otherwise(place: Place, fields: dict[str, int], reason: str) -> None:
    mode = 0o755 if "mode" in fields else 0o644
    data = tar_of(special("file", tarfile.REGTYPE, **{"mode": 0o644, **fields}))
    with pytest.raises(ArchiveError, match=f"'file' is refused by the strict policy: .*{reason}"):
        place.unpack(data, [entry("file", b"", mode)], strict=True)
    assert os.listdir(place.destination) == []


# --- bombs and damage --------------------------------------------------------------------------------------------


def test_bomb_is_refused_before_it_is_opened(place: Place) -> None:
    bomb = gzip.compress(tar_of(("zeros", bytes(64_000_000))))
    with pytest.raises(ArchiveError, match="more than 200 times its size"):
        place.unpack(
            bomb, [FileEntry("zeros", 64_000_000, 0o644, hashlib.sha256(bytes(64_000_000)).hexdigest())], "tar.gz"
        )
    assert not place.destination.exists()


def test_bomb_behind_an_innocent_manifest(place: Place) -> None:
    """The padding of an archive unpacks too: what the manifest says is not what counts."""
    bomb = gzip.compress(
        tar_of(("good", b"content"))[:1024] + special("x", b"x", size=60_000_000).tobuf() + bytes(60_000_000)
    )
    before = time.monotonic()
    with pytest.raises(ArchiveError):
        place.unpack(bomb, [entry("good")], "tar.gz")
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [5_000_000_000, 2_000_000])
def test_header_that_claims_a_huge_name_takes_no_memory(place: Place, kind: bytes, size: int) -> None:
    data = special("x", kind, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(2_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"claims \d+ bytes"):
            place.unpack(data, [entry("good")])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_header_that_leads_backwards(place: Place) -> None:
    """A negative size has sent the standard library round in circles."""
    header = bytearray(special("good", tarfile.REGTYPE).tobuf(tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ArchiveError):
        place.unpack(bytes(header) + bytes(1024), [entry("good")])


def test_too_many_members(place: Place) -> None:
    members = [directory(f"d{number}") for number in range(50)]
    with pytest.raises(ArchiveError, match="more than 40 members"):
        place.unpack(tar_of(*members), [entry("good")], members=40)
    with pytest.raises(ArchiveError, match="more than the limit of 40 members"):
        place.unpack(tar_of(), [entry(f"f{number}") for number in range(50)], members=40)


def test_120000_members_in_bounded_time_and_before_writing(place: Place) -> None:
    one = directory("d").tobuf(tarfile.USTAR_FORMAT)
    data = gzip.compress(one * 120_000, 1)
    before = time.monotonic()
    with pytest.raises(ArchiveError, match="twice"):
        place.unpack(data, [entry("good")], "tar.gz")
    names = b"".join(directory(f"d{number}").tobuf(tarfile.USTAR_FORMAT) for number in range(2_000))
    place.destination.rmdir()
    with pytest.raises(ArchiveError, match="members"):
        place.unpack(names, [entry("good")], members=1_000)
    assert time.monotonic() - before < 20
    assert os.listdir(place.destination) == []


def test_too_many_members_of_a_zip(place: Place) -> None:
    data = zip_of(*((f"d{number}/", b"") for number in range(50)))
    with pytest.raises(ArchiveError, match="more than 40 members"):
        place.unpack(data, [entry("good")], "zip", members=40)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_cut_off(place: Place, name: str, keep: float) -> None:
    whole = FORMATS[name](tar_of(("good", b"content"), ("big", os.urandom(200_000))))
    data = whole[: int(len(whole) * keep)]
    if name == "tar" and keep > 0.95:
        data = whole[:-11_000]
    with pytest.raises(ArchiveError):
        place.unpack(data, [entry("good"), FileEntry("big", 200_000, 0o644, "0" * 64)], name)
    place.check_outside()


def test_cut_off_at_a_member_boundary(place: Place) -> None:
    """tar, and every library for it, finds nothing wrong with this one."""
    whole = tar_of(("good", b"content"), ("last", b"content"))
    with pytest.raises(ArchiveError, match="'last' of the manifest is not in the artifact"):
        place.unpack(whole[:1024], [entry("good"), entry("last")])


@pytest.mark.parametrize("name", [*sorted(FORMATS), "zip"])
def test_rubbish(place: Place, name: str) -> None:
    with pytest.raises(ArchiveError):
        place.unpack(os.urandom(50_000), [entry("good")], name)


@pytest.mark.parametrize("name", ["tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bit(place: Place, name: str) -> None:
    data = bytearray(FORMATS[name](tar_of(("big", os.urandom(200_000)))))
    data[len(data) // 2] ^= 1
    with pytest.raises(ArchiveError):
        place.unpack(bytes(data), [FileEntry("big", 200_000, 0o644, "0" * 64)], name)


def test_xz_that_asks_for_too_much_memory(place: Place) -> None:
    data = bytearray(lzma.compress(tar_of(("good", b"content"))))
    # The size of the dictionary is one byte in the header of the first block, which ends in a checksum.
    data[data.index(bytes([lzma.FILTER_LZMA2, 1]), 12) + 2] = 38
    end = 12 + (data[12] + 1) * 4
    data[end - 4 : end] = zlib.crc32(bytes(data[12 : end - 4])).to_bytes(4, "little")
    with pytest.raises(ArchiveError, match=r"(?i)memory"):
        place.unpack(bytes(data), [entry("good")], "tar.xz")


def test_other_digest(place: Place) -> None:
    data = tar_of(("good", b"content"))
    path = place.root / "artifact"
    path.write_bytes(data)
    for artifact, reason in (
        (Artifact("0" * 64, len(data), "tar"), "the manifest says 000.*Bring it again"),
        (Artifact(hashlib.sha256(data).hexdigest(), len(data) + 1, "tar"), "it was cut off or is another one"),
        (Artifact(hashlib.sha256(data).hexdigest(), len(data), "rar"), "'rar' is not one that can be unpacked"),
    ):
        with path.open("rb") as stream, pytest.raises(ArchiveError, match=reason):
            unpack(stream, artifact, [entry("good")], str(place.destination), Limits(), False)
    assert not place.destination.exists()


@pytest.mark.parametrize(
    ("path", "target", "fault"),
    [
        ("a", "b", None),
        ("a/b", "../c", None),
        ("a/b", "../../c", "out of the release"),
        ("a", "b/../../c", "out of the release"),
        ("a", "./b/./c", None),
        ("a", ".", None),
        ("a/b/c", "../../d", None),
        ("a", "l/x", "through another"),
        ("m/x", "../l", "through another"),
        ("a", "b\udcff", "not valid UTF-8"),
        ("a", "ü" * 2048, "1 to 4095 bytes"),
    ],
)
def test_links(path: str, target: str, fault: str | None) -> None:
    found = link_fault(path, target, {"l": "somewhere"})
    assert (fault is None) == (found is None)
    assert fault is None or fault in str(found)
