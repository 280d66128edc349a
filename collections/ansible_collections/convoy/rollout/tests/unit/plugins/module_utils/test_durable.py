# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must have reached the disk before a change counts, and in which order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import durable


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order; the calls themselves are made all the same."""
    seen: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        seen.append("sync directory" if os.path.isdir(path) else "sync file")
        fsync(descriptor)

    def watched_rename(source: str, destination: str) -> None:
        seen.append(f"rename to {os.path.basename(destination)}")
        rename(source, destination)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    return seen


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, order: list[str]) -> None:
    durable.write_file(str(tmp_path / "file"), b"content", 0o640)
    assert order == ["sync file", "rename to file", "sync directory"]
    assert (tmp_path / "file").read_bytes() == b"content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_link_is_durable_once_the_call_returns(tmp_path: Path, order: list[str]) -> None:
    durable.replace_symlink("releases/1", str(tmp_path / "current"))
    durable.replace_symlink("releases/2", str(tmp_path / "current"))
    assert order == ["rename to current", "sync directory"] * 2
    assert os.readlink(tmp_path / "current") == "releases/2"


def test_rename_syncs_both_directories(tmp_path: Path, order: list[str]) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "name").touch()
    durable.rename(str(tmp_path / "from" / "name"), str(tmp_path / "to" / "name"))
    assert order == ["rename to name", "sync directory", "sync directory"]


def test_removal_and_new_directories_are_synced(tmp_path: Path, order: list[str]) -> None:
    assert durable.make_directory(str(tmp_path / "new"), 0o700) is True
    assert durable.make_directory(str(tmp_path / "new"), 0o755) is False
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    assert durable.unlink(str(tmp_path / "file")) is True
    assert durable.unlink(str(tmp_path / "file")) is False
    assert order == ["sync directory", "sync directory"]


def test_leftover_of_a_killed_call_is_never_taken_for_the_new_link(tmp_path: Path) -> None:
    os.symlink("releases/old", tmp_path / ".current.0123456789ab.convoy-new")
    durable.replace_symlink("releases/new", str(tmp_path / "current"))
    assert os.readlink(tmp_path / "current") == "releases/new"


def test_directory_in_the_place_of_the_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(OSError, match="directory"):
        durable.replace_symlink("releases/new", str(tmp_path / "current"))
    assert os.listdir(tmp_path) == ["current"]


def test_file_that_cannot_be_synced_does_not_get_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        durable.write_file(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_everything_is_written_however_little_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[int, memoryview], int] = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    durable.write_file(str(tmp_path / "file"), b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_clearing_leaves_what_is_not_a_leftover(tmp_path: Path) -> None:
    kept = [".current", "current", ".current.convoy-new", ".current.zzzzzzzzzzzz.convoy-new", ".a.0123456789ab.convoy"]
    for name in (*kept, ".current.0123456789ab.convoy-new", ".other.0123456789ab.convoy-new"):
        (tmp_path / name).touch()
    durable.clear_temporaries(str(tmp_path), ("current",))
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".other.0123456789ab.convoy-new"])
    durable.clear_temporaries(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_whole_file_system_is_synced_or_the_error_is_raised(tmp_path: Path) -> None:
    durable.sync_file_system(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        durable.sync_file_system(str(tmp_path / "missing"))
