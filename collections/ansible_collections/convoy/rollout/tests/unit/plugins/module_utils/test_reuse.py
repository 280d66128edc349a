# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files taken from another release: the right ones, as files of their own, and none where they are not there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import record, reuse
from ansible_collections.convoy.rollout.plugins.module_utils.errors import NotIntactError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry


class Release:
    """A release in a directory, and where files of another one are made."""

    def __init__(self, root: Path) -> None:
        self.directory, self.new = root / "old", root / "new"
        self.directory.mkdir()
        (self.directory / "sub").mkdir()
        (self.directory / "sub" / "file").write_bytes(b"content" * 100_000)
        (self.directory / "link").symlink_to("sub/file")
        self.files = record.survey(str(self.directory))

    @property
    def entry(self) -> FileEntry:
        """Its one file, with another name and mode."""
        (found,) = (entry for entry in self.files if entry.link is None)
        return FileEntry("other", found.size, 0o750, found.sha256)

    @property
    def base(self) -> reuse.Base:
        return reuse.Base("1.0.0-abc", str(self.directory), self.files)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """One with a file and a link."""
    return Release(tmp_path)


def test_a_copy_is_a_file_of_its_own(release: Release) -> None:
    base = release.base
    base.copy(release.entry, str(release.new))
    status, old = release.new.stat(), release.directory / "sub" / "file"
    assert release.new.read_bytes() == old.read_bytes()
    assert (status.st_mode & 0o7777, status.st_nlink) == (0o750, 1)
    assert status.st_ino != old.stat().st_ino
    assert base.taken == release.entry.size
    old.write_bytes(b"changed")
    assert record.digest_of(str(release.new)) == release.entry.sha256


def test_bytes_are_shared_where_the_file_system_can(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """As btrfs and XFS do it; the kernel's call is played."""
    asked = []

    def share(destination: int, request: int, source: int) -> int:
        asked.append(request)
        os.sendfile(destination, source, 0, release.entry.size)
        os.lseek(destination, 0, os.SEEK_SET)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", share)
    release.base.copy(release.entry, str(release.new))
    assert asked == [0x40049409]
    assert record.digest_of(str(release.new)) == release.entry.sha256


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM])
def test_one_that_cannot_is_asked_once(release: Release, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    asked = []

    def refuse(destination: int, request: int, source: int) -> int:
        asked.append(request)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    base = release.base
    for name in ("one", "two"):
        base.copy(release.entry, str(release.new) + name)
        assert record.digest_of(str(release.new) + name) == release.entry.sha256
    assert len(asked) == 1


def test_a_full_disk_is_told(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(destination: int, request: int, source: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(OSError, match="No space left"):
        release.base.copy(release.entry, str(release.new))


def damages() -> dict[str, Any]:
    """What may have become of a file since it was recorded."""
    return {
        "other": lambda path: path.write_bytes(b"CONTENT" * 100_000),
        "longer": lambda path: path.write_bytes(b"content" * 100_001),
        "gone": Path.unlink,
        "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
        "directory": lambda path: (path.unlink(), path.mkdir()),
        "link": lambda path: (path.rename(path.with_name("aside")), path.symlink_to("aside")),
    }


@pytest.mark.parametrize("what", sorted(damages()))
def test_a_file_that_is_another_one_now(release: Release, what: str) -> None:
    base = release.base
    damages()[what](release.directory / "sub" / "file")
    with pytest.raises(NotIntactError, match=r"release 1.0.0-abc is not intact on this host: sub/file: "):
        base.copy(release.entry, str(release.new))


def test_what_it_lacks(release: Release) -> None:
    wanted = (release.entry, FileEntry("new", 1, 0o644, "0" * 64), FileEntry("link", link="x"))
    assert release.base.lacks(wanted) == ["new"]
    with pytest.raises(NotIntactError, match="has no file with the content of 'new'"):
        release.base.copy(wanted[1], str(release.new))
