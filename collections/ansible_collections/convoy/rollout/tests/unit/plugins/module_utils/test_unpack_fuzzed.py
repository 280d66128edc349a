# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that were good, with bits flipped, parts cut out, repeated and exchanged: exactly the tree, or a refusal.

The manifest's digest is that of what became of the archive, as if a signer had signed just that: all that is left to
hold it against is the list of files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact, Limits, unpack
from ansible_collections.convoy.rollout.tests.unit.plugins.hostile import (
    FORMATS,
    HOSTILE,
    block_of,
    directory,
    entry,
    extended,
    link,
    pax,
    tar_of,
    zip_member,
    zip_of,
)

LONG = "long/" + "n" * 120
CONTENTS: dict[str, bytes] = {"bin/run": b"#!/bin/sh\n", "data/big": bytes(range(256)) * 8, "empty": b"", LONG: b"x"}
FILES = [*(entry(path, content) for path, content in CONTENTS.items()), FileEntry("latest", link="data/big")]
PLAIN_TAR = tar_of(directory("bin"), *CONTENTS.items(), link("latest", "data/big"))
PLAIN = {
    "tar": PLAIN_TAR,
    **{name: pack(PLAIN_TAR) for name, pack in FORMATS.items()},
    "zip": zip_of(
        *((zip_member(path, 0o100644), content) for path, content in CONTENTS.items()),
        (zip_member("latest", 0o120777), b"data/big"),
    ),
}
# What is put into others: headers that say much, and beginnings of hostile archives.
PARTS = [
    extended(b"x", pax(("path", "../evil"))),
    extended(b"x", pax(("size", "99999999"))),
    extended(b"L", b"../" * 40 + b"evil\0"),
    block_of("data/big", b"2"),
    block_of("data/big", b"1"),
    block_of("evil", b"0", 2**33 - 1),
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    *(HOSTILE[name].make()[:2048] for name in ("tar: hard link", "tar: chain of links", "zip: leads upwards")),
]
MOST_SECONDS = 10


def flip(data: bytes, place: int, bit: int) -> bytes:
    """One bit."""
    at = place % max(1, len(data))
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :] if data else data


def set_byte(data: bytes, place: int, value: int) -> bytes:
    """One byte, often one that means something."""
    at = place % max(1, len(data))
    return data[:at] + bytes([value]) + data[at + 1 :]


def cut_out(data: bytes, place: int, length: int) -> bytes:
    """A part is missing."""
    at = place % max(1, len(data))
    return data[:at] + data[at + length :]


def repeat(data: bytes, place: int, length: int) -> bytes:
    """A part comes twice."""
    at = place % max(1, len(data))
    return data[: at + length] + data[at:]


def splice(data: bytes, place: int, part: int) -> bytes:
    """Something of another archive, at the beginning of a block or anywhere."""
    at = place % max(1, len(data))
    at = at // 512 * 512 if part % 2 else at
    return data[:at] + PARTS[part % len(PARTS)] + data[at:]


def overwrite(data: bytes, place: int, part: int) -> bytes:
    """The same, in the place of what was there."""
    at = place % max(1, len(data)) // 512 * 512
    put = PARTS[part % len(PARTS)]
    return data[:at] + put + data[at + len(put) :]


def sound(data: bytes) -> bytes:
    """Checksums of the headers of a tar put right, so that what was changed in them counts."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(_sound(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks)


def _sound(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32) + block[156:]


PLACES = st.integers(0, 20_000)
MUTATIONS = st.one_of(
    st.tuples(st.just(flip), PLACES, st.integers(0, 7)),
    st.tuples(st.just(set_byte), PLACES, st.sampled_from([0, 1, 0x2E, 0x2F, 0x30, 0x37, 0x78, 0x80, 0xFF])),
    st.tuples(st.just(cut_out), PLACES, st.sampled_from([1, 4, 512, 1024, 100_000])),
    st.tuples(st.just(repeat), PLACES, st.sampled_from([1, 4, 512, 1024, 100_000])),
    st.tuples(st.just(splice), PLACES, st.integers(0, 40)),
    st.tuples(st.just(overwrite), PLACES, st.integers(0, 40)),
)


def mutated(data: bytes, mutations: list[tuple[Any, int, int]]) -> bytes:
    """One after the other."""
    for change, place, value in mutations:
        data = change(data, place, value)
    return data


def check(data: bytes, format_name: str) -> bool:
    """Whether it was unpacked: to exactly the tree. Nothing but a refusal else, and nothing outside."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        path, release = Path(place, "artifact"), Path(place, "a", "b", "release")
        path.write_bytes(data)
        release.parent.mkdir(parents=True)
        artifact = Artifact(hashlib.sha256(data).hexdigest(), len(data), format_name)
        began = time.process_time()
        try:
            with path.open("rb") as stream:
                unpack(stream, artifact, FILES, str(release), Limits(), False)
            refused = False
        except ArchiveError:
            refused = True
        assert time.process_time() - began < MOST_SECONDS
        assert [sorted(os.listdir(Path(place, *parts))) for parts in ((), ("a",))] == [["a", "artifact"], ["b"]]
        assert set(os.listdir(release.parent)) <= {"release"}
        if not refused:
            assert tree(release) == {**CONTENTS, "latest": "data/big"}
        return not refused


def tree(top: Path) -> dict[str, object]:
    """All files and links."""
    found: dict[str, object] = {}
    for parent, directories, names in os.walk(top):
        for name in (*names, *(name for name in directories if os.path.islink(os.path.join(parent, name)))):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            assert is_link or (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o644, 1)
            found[os.path.relpath(path, top)] = os.readlink(path) if is_link else Path(path).read_bytes()
    return found


@pytest.mark.parametrize("format_name", sorted(PLAIN))
def test_what_is_changed_is_good_itself(format_name: str) -> None:
    assert check(PLAIN[format_name], format_name)


@pytest.mark.parametrize("format_name", sorted(PLAIN))
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_changed_as_it_lies_on_the_disk(format_name: str, mutations: list[tuple[Any, int, int]]) -> None:
    check(mutated(PLAIN[format_name], mutations), format_name)


@pytest.mark.parametrize("format_name", sorted(FORMATS))
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_changed_before_it_was_packed(format_name: str, mutations: list[tuple[Any, int, int]]) -> None:
    """The checksums of headers and streams are right, and tell nothing."""
    check(FORMATS[format_name](sound(mutated(PLAIN_TAR, mutations))), format_name)


HEADERS = st.tuples(st.sampled_from([0, 512, 1536, 6 * 512]), st.integers(0, 500), st.binary(min_size=1, max_size=12))


@given(headers=st.lists(HEADERS, min_size=1, max_size=3))
def test_headers_that_say_anything(headers: list[tuple[int, int, bytes]]) -> None:
    data = PLAIN_TAR
    for block, offset, value in headers:
        at = block + offset
        data = data[:at] + value + data[at + len(value) :]
    check(sound(data), "tar")


@given(st.binary(max_size=3000), st.sampled_from(sorted(PLAIN)))
def test_anything_at_all(data: bytes, format_name: str) -> None:
    assert not check(data, format_name)
