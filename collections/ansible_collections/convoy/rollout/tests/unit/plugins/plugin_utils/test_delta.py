# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small artifacts: what is in them, and that they are made once."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import unpack
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, survey
from ansible_collections.convoy.rollout.plugins.module_utils.reuse import Base
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import examine
from ansible_collections.convoy.rollout.plugins.plugin_utils.delta import FORMAT, Delta, DeltaError, delta_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest, parse_time

NAMES = st.sampled_from(["a", "b/c", "b/d", "e/f/g", "ü", "-rf", " ", "x" * 120])
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=600), st.sampled_from([0o644, 0o755, 0o600])), min_size=1)


def release(directory: Path, files: dict[str, tuple[bytes, int]], kind: str = "tar.gz") -> tuple[Path, Manifest]:
    """An artifact with these files, an empty directory and a link, and its manifest."""
    directory.mkdir(parents=True)
    artifact = directory / f"artifact.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(artifact, "w") as packed:
            packed.writestr("empty/", b"")
            for name, (content, _mode) in files.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(artifact, "w:xz" if kind == "tar.xz" else "w:gz") as archive:
            for name, file_type in (("./", tarfile.DIRTYPE), ("empty", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)):
                header = tarfile.TarInfo(name)
                header.type, header.linkname, header.mode = file_type, "empty", 0o755
                archive.addfile(header)
            for name, (content, mode) in files.items():
                header = tarfile.TarInfo(f"./{name}")
                header.size, header.mode, header.uid = len(content), mode, 1000
                archive.addfile(header, io.BytesIO(content))
    contents = examine(artifact, kind, directory / "trial")
    return artifact, Manifest(
        "hello", "1.1.0", 1, parse_time("", "2026-01-01T00:00:00Z"), contents.artifact, contents.files
    )


def unpacked(
    place: Path, archive: Path, described: unpack.Artifact, manifest: Manifest, delta: unpack.Delta | None = None
) -> object:
    """All that is in the directory then."""
    with archive.open("rb") as stream:
        unpack.unpack(stream, described, manifest.files, str(place), Limits(), strict=False, delta=delta)
    directories = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_dir())
    modes = {str(path.relative_to(place)): path.lstat().st_mode for path in place.rglob("*")}
    return survey(str(place)), directories, modes


@given(data=st.data(), old=FILES, new=FILES)
def test_a_delta_and_the_old_release_make_the_new_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, old: dict[str, tuple[bytes, int]],
    new: dict[str, tuple[bytes, int]],
) -> None:  # fmt: skip
    """The same to the last bit and directory as from the whole artifact."""
    root = tmp_path_factory.mktemp("delta")
    _artifact, before = release(root / "old", old)
    new.update((name, old[name]) for name in data.draw(st.sets(st.sampled_from(sorted(old)))))
    artifact, manifest = release(root / "new", new)
    base = Base("1.0.0-abc", str(root / "old" / "trial"), before.files)
    delta = delta_of(artifact, manifest, base.lacks(manifest.files), root)
    whole = unpack.Artifact(*vars(manifest.artifact).values())
    sent = unpack.Delta(unpack.Artifact(delta.sha256, delta.size, FORMAT), base.copy)
    assert unpacked(root / "1", delta.path, whole, manifest, sent) == unpacked(root / "2", artifact, whole, manifest)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_of_every_format(tmp_path: Path, kind: str) -> None:
    artifact, manifest = release(tmp_path / "new", {"a": (b"a" * 5000, 0o644), "b": (b"b", 0o644)}, kind)
    delta = delta_of(artifact, manifest, {"b"}, tmp_path)
    with tarfile.open(delta.path) as made:
        assert [(member.name, member.isdir()) for member in made] == [("empty", True), ("b", False)]
    assert delta.for_host("x") == {"base": "x", "sha256": delta.sha256, "size": delta.size, "format": "tar.gz"}


def make(artifact: Path, manifest: Manifest, cache: Path, answers: multiprocessing.Queue[Delta]) -> None:
    """What a worker of a run does for its host."""
    answers.put(delta_of(artifact, manifest, {"b"}, cache))


def test_many_workers_make_it_once(tmp_path: Path) -> None:
    artifact, manifest = release(tmp_path / "new", {"a": (bytes(10**7), 0o644), "b": (b"b", 0o644)})
    fork = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[Delta] = fork.Queue()
    workers = [fork.Process(target=make, args=(artifact, manifest, tmp_path, answers)) for _worker in range(8)]
    for worker in workers:
        worker.start()
    made = {answers.get(timeout=60) for _worker in workers}
    for worker in workers:
        worker.join()
    (delta,) = made
    written = delta.path.stat().st_mtime_ns
    artifact.unlink()  # nobody needs it any more
    assert delta_of(artifact, manifest, ["b"], tmp_path) == delta
    assert delta.path.stat().st_mtime_ns == written
    with pytest.raises(DeltaError):
        delta_of(artifact, manifest, ["a"], tmp_path)


def test_an_artifact_that_is_not_what_its_manifest_says(tmp_path: Path) -> None:
    artifact, manifest = release(tmp_path / "new", {"a": (b"a", 0o644)})
    more = Manifest(**{**vars(manifest), "files": (*manifest.files, FileEntry("z", 1, 0o644, "0" * 64))})
    with pytest.raises(DeltaError, match="member 'z' of the manifest is not in it"):
        delta_of(artifact, more, {"z"}, tmp_path)
    artifact.write_bytes(artifact.read_bytes()[:40])
    with pytest.raises(DeltaError, match="ends too early"):
        delta_of(artifact, manifest, {"a"}, tmp_path)
    assert delta_of(*release(tmp_path / "again", {"a": (b"a", 0o644)}), {"a"}, tmp_path).size
