# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging: what comes beside the running release, and what is left when it does not."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import durable, record, staging
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ArchiveError,
    InputError,
    NotIntactError,
    SpaceError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.journal import Entry
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact, Limits


def stage(world: Any, wanted: staging.Wanted, artifact: str) -> None:
    """Bring a release."""
    staging.stage(world.host(), wanted, artifact, Limits(), strict=False)


def check_untouched(world: Any) -> None:
    """Nothing of a release is there, half or whole."""
    tree = world.host().tree
    assert os.listdir(tree.releases) == []
    assert os.listdir(tree.incoming) == []
    assert tree.present() == set()
    assert world.events() == []


def test_release_is_there_with_its_config(world: Any) -> None:
    wanted, artifact = world.wanted("1.0.0", files={"etc/hello.ini": b"default"})
    config = [
        {"dest": "etc/hello.ini", "content": "port = 1\n", "mode": "0640"},
        {"dest": "new/deep/er.ini", "content": "ü", "mode": "0666"},
    ]
    wanted = staging.Wanted(**{**wanted._asdict(), "config": tuple(staging.config_file(item) for item in config)})
    stage(world, wanted, artifact)
    release = world.root / "releases" / "1.0.0-abc"
    assert (release / "etc" / "hello.ini").read_text() == "port = 1\n"
    assert (release / "etc" / "hello.ini").stat().st_mode & 0o777 == 0o640
    assert (release / "new" / "deep" / "er.ini").read_bytes() == "ü".encode()
    assert (release / "new" / "deep" / "er.ini").stat().st_mode & 0o777 == 0o644
    assert staging.is_staged(world.host(), wanted)
    assert world.events() == ["staged 1.0.0"]


@pytest.mark.parametrize(
    ("files", "dest", "message"),
    [
        ({"etc": b"file"}, "etc/hello.ini", "'etc' is not a directory in the artifact"),
        ({"etc/hello.ini/x": b""}, "etc/hello.ini", "the artifact has a directory there"),
    ],
)
def test_config_that_does_not_fit_the_artifact(world: Any, files: dict[str, bytes], dest: str, message: str) -> None:
    wanted, artifact = world.wanted("1.0.0", files=files)
    config = (staging.config_file({"dest": dest, "content": "", "mode": None}),)
    with pytest.raises(InputError, match=message):
        stage(world, staging.Wanted(**{**wanted._asdict(), "config": config}), artifact)
    check_untouched(world)


@pytest.mark.parametrize("dest", ["../evil", "/etc/passwd", "", "a//b", "a\nb", "."])
def test_config_outside_the_release(dest: str) -> None:
    with pytest.raises(InputError, match="config file"):
        staging.config_file({"dest": dest, "content": "", "mode": "0644"})


def test_truncated_artifact(world: Any) -> None:
    wanted, artifact = world.wanted("1.0.0", files={"big": os.urandom(100_000)})
    os.truncate(artifact, 50_000)
    with pytest.raises(ArchiveError, match="the artifact has 50000 bytes, the manifest says"):
        stage(world, wanted, artifact)
    check_untouched(world)


def test_artifact_that_was_swapped(world: Any) -> None:
    wanted, artifact = world.wanted("1.0.0")
    data = bytearray(Path(artifact).read_bytes())
    data[-1] ^= 1
    Path(artifact).write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged or swapped"):
        stage(world, wanted, artifact)
    check_untouched(world)


@pytest.mark.parametrize("artifact", ["missing", ""])
def test_artifact_that_is_not_there(world: Any, artifact: str) -> None:
    wanted, _artifact = world.wanted("1.0.0")
    with pytest.raises(ArchiveError, match="is not a file on this host"):
        stage(world, wanted, str(world.place / artifact))
    check_untouched(world)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing(world: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    wanted, artifact = world.wanted("1.0.0", files={"big": bytes(100_000)})

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(SpaceError, match=r"ran out of room while 1\.0\.0-abc was staged"):
        stage(world, wanted, artifact)
    monkeypatch.undo()
    check_untouched(world)


def test_other_errors_of_the_disk_are_not_hidden(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, artifact = world.wanted("1.0.0")

    def broken(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(durable, "sync_file_system", broken)
    with pytest.raises(OSError, match="Input/output"):
        stage(world, wanted, artifact)
    monkeypatch.undo()
    assert world.host().tree.present() == set()


@pytest.mark.parametrize(
    ("free", "message"),
    [((10, 10**6), "bytes free"), ((10**9, 3), "inodes free"), ((10**9, None), None), ((10**9, 10**6), None)],
)
def test_room_is_looked_for_before(
    world: Any, monkeypatch: pytest.MonkeyPatch, free: tuple[int, int | None], message: str | None
) -> None:
    host = world.host()
    monkeypatch.setattr(type(host.tree), "free", lambda tree: free)
    wanted, _artifact = world.wanted("1.0.0", files={"big": bytes(1000)})
    if message is None:
        staging.check_space(host, wanted)
    else:
        with pytest.raises(SpaceError, match=message):
            staging.check_space(host, wanted)


def test_damaged_release_is_brought_anew(world: Any) -> None:
    release = world.stage("1.0.0")
    (world.root / "releases" / release / "version").write_text("9.9.9")
    wanted, artifact = world.wanted("1.0.0")
    assert staging.is_staged(world.host(), wanted) is False
    staging.check_not_in_use(world.host(), release)
    stage(world, wanted, artifact)
    assert staging.is_staged(world.host(), wanted) is True
    assert os.listdir(world.root / "releases") == [release]


def test_damaged_release_that_serves_is_not_touched(world: Any) -> None:
    release = world.stage("1.0.0")
    (world.root / "current").symlink_to(f"releases/{release}")
    (world.root / "releases" / release / "version").write_text("9.9.9")
    with pytest.raises(NotIntactError, match=r"is active here, and .*version: other content.*Nothing was changed"):
        staging.check_not_in_use(world.host(), release)


def test_id_that_stands_for_another_content(world: Any) -> None:
    world.stage("1.0.0")
    wanted, _artifact = world.wanted("1.0.0", files={"more": b"x"})
    with pytest.raises(InputError, match=r"with another content .*make a new version"):
        staging.is_staged(world.host(), wanted)
    wanted, _artifact = world.wanted("1.0.0", units=[])
    with pytest.raises(InputError, match="with another content"):
        staging.is_staged(world.host(), wanted)


def test_staging_that_died_before_its_line_gets_it(world: Any) -> None:
    release = world.stage("1.0.0")
    (world.root / ".convoy" / "journal.jsonl").unlink()
    assert staging.ensure_noted(world.host(), release) is True
    assert staging.ensure_noted(world.host(), release) is False
    assert world.events() == ["staged 1.0.0"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "must have a mapping 'artifact' and a list 'files'"),
        ({"artifact": {}, "files": []}, "must have sha256, size and format"),
        ({"artifact": {"sha256": "0" * 64, "size": "7", "format": "tar"}, "files": []}, "must have sha256, size"),
        ({"artifact": {"sha256": "0" * 64, "size": 7, "format": "tar"}, "files": {}}, "a list 'files'"),
        (
            {
                "artifact": {"sha256": "0" * 64, "size": 7, "format": "tar"},
                "files": [{"path": "x", "link": "y"}, {"path": "x", "link": "z"}],
            },
            "names file 'x' twice",
        ),
    ],
)
def test_manifests_that_cannot_be(manifest: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        staging.manifest(manifest)


def test_manifest_as_it_is_published() -> None:
    digest = "0" * 64
    artifact, files = staging.manifest(
        {
            "artifact": {"sha256": digest, "size": 7, "format": "tar.gz"},
            "files": [{"path": "a", "size": 1, "mode": "0755", "sha256": digest}, {"path": "l", "link": "a"}],
        }
    )
    assert artifact == Artifact(digest, 7, "tar.gz")
    assert files == (record.FileEntry("a", 1, 0o755, digest), record.FileEntry("l", mode=0o777, link="a"))


# --- absent ------------------------------------------------------------------------------------------------------


def test_only_what_nobody_needs_is_removed(world: Any) -> None:
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        world.write_journal(Entry(float(number), "good", world.stage(version)))
    (world.root / "current").symlink_to("releases/1.2.0-abc")
    host = world.host()
    with pytest.raises(TreeError, match=r"1\.2\.0-abc is active and cannot be removed"):
        staging.remove(host, "1.2.0-abc")
    with pytest.raises(TreeError, match=r"1\.1\.0-abc is the last good one"):
        staging.remove(host, "1.1.0-abc")
    assert staging.remove(host, "1.0.0-abc") is True
    assert staging.remove(host, "1.0.0-abc") is False
    assert host.tree.present() == {"1.1.0-abc", "1.2.0-abc"}
    assert world.events()[-1] == "removed 1.0.0"


def damaged(world: Any) -> tuple[Any, str, str]:
    """A release in service whose files somebody changed; how it is wanted, its artifact, and its directory."""
    wanted, artifact = world.wanted("1.0.0", {"bin/run": b"run", "etc/deep/a": b"a"})
    world.stage("1.0.0", files={"bin/run": b"run", "etc/deep/a": b"a"})
    os.symlink(f"releases/{wanted.release}", world.root / "current")
    place = world.root / "releases" / wanted.release
    (place / "version").write_text("9.9.9")
    (place / "bin" / "run").unlink()
    shutil.rmtree(place / "etc")
    os.symlink("/tmp", place / "etc")
    return wanted, artifact, str(place)


def test_damaged_release_that_serves_is_mended_from_a_copy_beside_it(world: Any) -> None:
    wanted, artifact, place = damaged(world)
    host = world.host()
    staging.stage(host, wanted, artifact, Limits(), strict=False)
    assert Path(place, "version").read_text() == "9.9.9"  # nothing live is touched yet
    Path(place, "more").touch()
    staging.mend(host, wanted.release)
    assert record.compare(host.tree.read_record(wanted.release), place) == record.Comparison((), ("more",))
    assert not os.path.exists(host.tree.mended(wanted.release))
    assert staging.is_staged(host, wanted)


def test_mending_that_was_killed_is_done_again(world: Any) -> None:
    wanted, artifact, place = damaged(world)
    host = world.host()
    staging.stage(host, wanted, artifact, Limits(), strict=False)
    os.rename(os.path.join(host.tree.mended(wanted.release), "version"), os.path.join(place, "version"))
    host.begin()
    assert not staging.is_staged(host, wanted)
    staging.stage(host, wanted, artifact, Limits(), strict=False)
    staging.mend(host, wanted.release)
    assert staging.is_staged(host, wanted)


def test_a_directory_in_the_place_of_a_file_is_left(world: Any) -> None:
    wanted, artifact, place = damaged(world)
    os.unlink(os.path.join(place, "version"))
    os.mkdir(os.path.join(place, "version"))
    host = world.host()
    staging.stage(host, wanted, artifact, Limits(), strict=False)
    with pytest.raises(TreeError, match="version is a directory, and a file of the release belongs there: move it"):
        staging.mend(host, wanted.release)


def test_nothing_is_mended_without_a_copy(world: Any) -> None:
    wanted, _artifact, place = damaged(world)
    staging.mend(world.host(), wanted.release)
    assert Path(place, "version").read_text() == "9.9.9"


def test_release_whose_record_cannot_be_read_is_brought_anew(world: Any) -> None:
    wanted, _artifact = world.wanted("1.0.0")
    world.stage("1.0.0")
    host = world.host()
    Path(host.tree.record_path(wanted.release)).write_text("garbled")
    assert not staging.is_staged(host, wanted)
    world.stage("1.0.0")
    assert staging.is_staged(host, wanted)
