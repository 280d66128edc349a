# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives at their publication: listed when hosts can unpack them, refused by the member's name when not."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import (
    Contents,
    UnsafeArtifactError,
    examine,
    format_of,
)

HELLO = b"print('hello')\n"
HELLO_SHA256 = hashlib.sha256(HELLO).hexdigest()


def file(name: str, mode: int = 0o644, content: bytes = HELLO) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def other(name: str, kind: bytes, target: str = "", mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info, b""


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return other(name, tarfile.SYMTYPE, target)


@pytest.fixture
def examined(tmp_path: Path) -> Callable[..., Contents]:
    def pack_and_examine(*members: tuple[tarfile.TarInfo, bytes]) -> Contents:
        path = tmp_path / "artifact.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        return examine(path, format_of(path), tmp_path / "scratch")

    return pack_and_examine


def test_every_file_is_listed_by_path(examined: Callable[..., Contents], tmp_path: Path) -> None:
    contents = examined(
        other("./", tarfile.DIRTYPE),
        file("./b/-rf"),
        file("./a süß.py", mode=0o755),
        link("./b/latest", "../a süß.py"),
        other("./empty", tarfile.DIRTYPE),
    )
    assert contents.files == (
        FileEntry("a süß.py", len(HELLO), 0o755, HELLO_SHA256),
        FileEntry("b/-rf", len(HELLO), 0o644, HELLO_SHA256),
        FileEntry("b/latest", mode=0o777, link="../a süß.py"),
    )
    archive = (tmp_path / "artifact.tar.gz").read_bytes()
    assert contents.artifact.sha256 == hashlib.sha256(archive).hexdigest()
    assert (contents.artifact.size, contents.artifact.format) == (len(archive), "tar.gz")


@pytest.mark.parametrize(("given", "kept"), [(0o4755, 0o755), (0o777, 0o755), (0o666, 0o644), (0o000, 0o400)])
def test_a_mode_is_listed_as_hosts_will_have_it(examined: Callable[..., Contents], given: int, kept: int) -> None:
    assert examined(file("app", mode=given)).files[0].mode == kept


def test_a_zip_is_listed_too(tmp_path: Path) -> None:
    path = tmp_path / "artifact.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("app.py", HELLO)
    contents = examine(path, format_of(path), tmp_path / "scratch")
    assert [(entry.path, entry.sha256) for entry in contents.files] == [("app.py", HELLO_SHA256)]
    assert contents.artifact.format == "zip"


@pytest.mark.parametrize(
    ("members", "named"),
    [
        pytest.param([file("../evil")], "'../evil'", id="upwards"),
        pytest.param([file("a/../../evil")], "'a/../../evil'", id="upwards later"),
        pytest.param([file("/etc/evil")], "'/etc/evil'", id="absolute"),
        pytest.param([file("a\nb")], r"'a\nb'", id="newline"),
        pytest.param([file("a\x1b[2J")], r"'a\x1b[2J'", id="escape sequence"),
        pytest.param([file("a"), file("a")], "'a'", id="twice"),
        pytest.param([file("a"), file("./a")], "'a'", id="twice in two forms"),
        pytest.param([file("a"), file("a/b")], "'a/b'", id="file as directory"),
        pytest.param([file("a/b"), file("a")], "'a'", id="directory as file"),
        pytest.param([link("a", "/etc"), file("b")], "'a'", id="link to absolute"),
        pytest.param([link("a", "../etc")], "'a'", id="link outwards"),
        pytest.param([link("a/b", "../../etc")], "'a/b'", id="link outwards from below"),
        pytest.param([file("d/f"), link("l", "d"), link("d/e", "../l/../..")], "'d/e'", id="link through link"),
        pytest.param([link("a", "b"), file("a/evil")], "'a/evil'", id="file through link"),
        pytest.param([file("a"), other("b", tarfile.LNKTYPE, "a")], "'b'", id="hard link"),
        pytest.param([other("a", tarfile.CHRTYPE)], "'a'", id="character device"),
        pytest.param([other("a", tarfile.BLKTYPE)], "'a'", id="block device"),
        pytest.param([other("a", tarfile.FIFOTYPE)], "'a'", id="pipe"),
        pytest.param([file("/".join(["d"] * 100))], "'d/d/", id="too deep"),
    ],
)  # fmt: skip
def test_a_hostile_member_is_refused_by_name(
    examined: Callable[..., Contents],
    members: list[tuple[tarfile.TarInfo, bytes]],
    named: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(UnsafeArtifactError) as refused:
        examined(*members)
    assert f"member {named}" in str(refused.value)
    assert not list(tmp_path.parent.glob("evil"))


def test_a_bomb_is_refused(examined: Callable[..., Contents]) -> None:
    with pytest.raises(UnsafeArtifactError, match="limit"):
        examined(file("zeros", content=bytes(48 * 1024**2)))


def test_an_archive_without_files_is_refused(examined: Callable[..., Contents]) -> None:
    with pytest.raises(UnsafeArtifactError, match="holds no file"):
        examined(other("empty", tarfile.DIRTYPE))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_archive_is_refused(examined: Callable[..., Contents], tmp_path: Path, part: float) -> None:
    examined(*(file(f"{number}", content=bytes(range(256)) * number) for number in range(64)))
    whole = (tmp_path / "artifact.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UnsafeArtifactError):
        examine(cut, "tar.gz", tmp_path / "again")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "artifact.tar.gz"
    path.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(UnsafeArtifactError, match=r"cannot be read as tar\.gz"):
        examine(path, "tar.gz", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tar.gz", "tar.gz"), ("a.tgz", "tar.gz"), ("a.tar", "tar"), ("a-1.0.tar.xz", "tar.xz"), ("a.zip", "zip")],
)
def test_the_name_tells_the_format(tmp_path: Path, name: str, expected: str) -> None:
    path = tmp_path / name
    path.touch()
    assert format_of(path) == expected


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.touch()
    with pytest.raises(UnsafeArtifactError, match=r"a\.deb ends in none of \.tar, \.tar\.gz"):
        format_of(path)


@pytest.mark.parametrize("name", ["nothing.tar.gz", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeArtifactError, match="is no file"):
        format_of(tmp_path / name)


def test_a_wheel_is_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "hello-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in ("hello/__init__.py", "hello-1.0.0.dist-info/METADATA", "hello-1.0.0.dist-info/RECORD"):
            wheel.writestr(name, HELLO)
    contents = examine(path, format_of(path), tmp_path / "scratch")
    assert contents.artifact.format == "zip"
    assert [entry.path for entry in contents.files] == sorted(
        ["hello/__init__.py", "hello-1.0.0.dist-info/METADATA", "hello-1.0.0.dist-info/RECORD"]
    )
