# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking: good archives of every format, and hostile ones, which leave nothing outside and are named."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import shutil
import stat
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact, Limits, link_fault, unpack
from ansible_collections.convoy.rollout.tests.unit.plugins.hostile import (
    END,
    FORMATS,
    GOOD,
    HOSTILE,
    block_of,
    directory,
    entry,
    extended,
    link,
    pax,
    quoted_overlap,
    special,
    tar_of,
    zip_member,
    zip_of,
)

MOST_MEMORY = 300_000_000
MOST_SECONDS = 20


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


def test_there_are_many_kinds() -> None:
    assert len(HOSTILE) > 120


@contextmanager
def little_memory() -> Iterator[None]:
    """Whoever takes more gets a MemoryError, which is no refusal."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile(place: Place, name: str) -> None:
    """Refused for its own reason, in little time and memory, and with nothing outside."""
    hostile = HOSTILE[name]
    data = hostile.make()
    began = time.process_time()
    with little_memory(), pytest.raises(ArchiveError, match=hostile.reason):
        place.unpack(data, hostile.files, hostile.format, hostile.strict)
    assert time.process_time() - began < MOST_SECONDS
    place.check_outside()


def test_the_quoted_overlap_is_a_bomb() -> None:
    """Each of its members unpacks, to far more than its bytes."""
    bomb = quoted_overlap(250, 1_000_000)
    at, total = bomb.index(b"PK\1\2"), 0
    for _number in range(250):
        (checksum, small, big), (offset,) = (
            struct.unpack_from(form, bomb, at + place) for form, place in (("<3L", 16), ("<L", 42))
        )
        plain = zlib.decompressobj(-15).decompress(bomb[offset + 37 : offset + 37 + small])
        assert (len(plain), zlib.crc32(plain)) == (big, checksum)
        total += big
        at += 53
    assert total > 2_000 * len(bomb)


# --- odd ones that are fine, and limits ---------------------------------------------------------------------------


def test_headers_that_every_tar_may_have(place: Place) -> None:
    """What git writes ahead, names by pax and by GNU tar, a directory of the seventh Unix, a binary size."""
    data = extended(b"g", pax(("comment", "0" * 40))) + extended(b"x", pax(("path", "a/1"), ("mtime", "1.5"))) + GOOD
    data += extended(b"L", b"a/2\0") + GOOD + block_of("v7/", b"\0")
    data += block_of("a/3", b"0", raw_size=b"\x80" + bytes(10) + b"\7") + GOOD[512:]
    place.unpack(data + END + bytes(8192), [entry(f"a/{number}") for number in (1, 2, 3)])
    assert sorted(os.listdir(place.destination / "a")) == ["1", "2", "3"]
    assert (place.destination / "v7").is_dir()


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


# --- bombs and damage --------------------------------------------------------------------------------------------


def test_bomb_is_refused_before_it_is_opened(place: Place) -> None:
    bomb = gzip.compress(tar_of(("zeros", bytes(64_000_000))))
    with pytest.raises(ArchiveError, match="more than 200 times its size"):
        place.unpack(
            bomb, [FileEntry("zeros", 64_000_000, 0o644, hashlib.sha256(bytes(64_000_000)).hexdigest())], "tar.gz"
        )
    assert not place.destination.exists()


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


def test_too_many_members(place: Place) -> None:
    members = [directory(f"d{number}") for number in range(50)]
    with pytest.raises(ArchiveError, match="more than 40 members"):
        place.unpack(tar_of(*members), [entry("good")], members=40)
    with pytest.raises(ArchiveError, match="more than the limit of 40 members"):
        place.unpack(tar_of(), [entry(f"f{number}") for number in range(50)], members=40)


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
