# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, modes and records: what may become a path, and what a release is compared with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import names, record
from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, Record, Unit


@pytest.mark.parametrize("value", ["1.0.0-0123456789ab", "a", "+1", "_x", "1.0.0+build.7", "x" * 128])
def test_good_release_ids(value: str) -> None:
    assert names.release(value) == value


@pytest.mark.parametrize("value", ["", ".", "..", ".hidden", "-rf", "a/b", "a b", "a\n", "ä", "x" * 129, "a\0"])
def test_bad_release_ids(value: str) -> None:
    with pytest.raises(InputError, match="is not an id"):
        names.release(value)


@pytest.mark.parametrize("value", ["", "-a", ".a", "a/b", "a b", "x" * 65, "a\n"])
def test_bad_components(value: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        names.component(value)


@pytest.mark.parametrize("value", ["hello.service", "hello@1.service", "a-b_c:d.timer", "x.socket"])
def test_good_units(value: str) -> None:
    assert names.unit(value) == value


@pytest.mark.parametrize(
    "value", ["hello", "../hello.service", "a b.service", ".service", "-a.service", "hello.conf", "a/b.service"]
)
def test_bad_units(value: str) -> None:
    with pytest.raises(InputError, match="is not the name of a systemd unit"):
        names.unit(value)


@pytest.mark.parametrize("value", ["/", "/srv", "srv/hello", "", "/srv/..", "//srv"])
def test_bad_roots(value: str) -> None:
    with pytest.raises(InputError, match="must be an absolute path"):
        names.root(value)


def test_root_is_put_in_plain_form() -> None:
    assert names.root("/srv//hello/") == "/srv/hello"


@pytest.mark.parametrize("value", ["r 1", "r\n", "r" * 129, "ü"])
def test_bad_rollouts(value: str) -> None:
    with pytest.raises(InputError, match="is not an id"):
        names.rollout(value)


@pytest.mark.parametrize(
    ("given", "mode"), [("0644", 0o644), ("755", 0o755), (0o640, 0o640), (420, 0o644), ("0o600", 0o600)]
)
def test_modes(given: object, mode: int) -> None:
    assert record.octal(given, "file") == mode


@pytest.mark.parametrize("given", ["u=rw", "999", "", None, -1, 0o10000, "10000", "-1", 6.5])
def test_bad_modes(given: object) -> None:
    with pytest.raises(InputError, match=r'file .file.: mode .* is not a mode such as "0644"'):
        record.octal(given, "file")


@pytest.mark.parametrize(
    ("raw", "plain"), [(0o644, 0o644), (0o4755, 0o755), (0o777, 0o755), (0o2775, 0o755), (0o1777, 0o755), (0, 0o400)]
)
def test_plain_modes(raw: int, plain: int) -> None:
    assert record.plain_mode(raw) == plain


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no path"),
        ({"path": 7}, "has no path"),
        ({"path": "../x"}, r"'\.\./x' of the manifest: the path leads upwards"),
        ({"path": "x", "size": -1, "mode": "0644", "sha256": "0" * 64}, "size -1 is not a number of bytes"),
        ({"path": "x", "size": "1", "mode": "0644", "sha256": "0" * 64}, "size '1'"),
        ({"path": "x", "size": 1, "mode": "0644", "sha256": "0" * 63}, "is not 64 lower-case"),
        ({"path": "x", "size": 1, "mode": "0644", "sha256": "A" * 64}, "is not 64 lower-case"),
        ({"path": "x", "size": 1, "mode": "rw", "sha256": "0" * 64}, "mode 'rw'"),
    ],
)
def test_files_that_no_manifest_may_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        record.file_entry(fields)


# --- records -----------------------------------------------------------------------------------------------------

KEPT = Record(
    "1.0.0-abc",
    "1.0.0",
    {"sha256": "0" * 64, "size": 7, "format": "tar.gz"},
    (FileEntry("a", 1, 0o600, "1" * 64), FileEntry("l", mode=0o777, link="a")),
    (Unit("hello.service", "ünit", "reload"),),
    ({"kind": "tcp", "port": 1},),
    {"deadline": 3.0},
    12.5,
)


def test_record_comes_back() -> None:
    assert record.from_json(KEPT.as_json(), "there") == KEPT


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", KEPT.as_json()[:-20], KEPT.as_json().replace(b'"schema": 1', b'"schema": 2')],
)
def test_what_is_no_record_is_named(data: bytes) -> None:
    with pytest.raises(TreeError, match=r"/there is not the record of a release .*stage the release again"):
        record.from_json(data, "/there")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of three files."""
    made = tmp_path / "release"
    (made / "sub").mkdir(parents=True)
    (made / "plain").write_text("plain")
    (made / "sub" / "deep").write_text("deep")
    (made / "link").symlink_to("plain")
    return made


def test_survey_and_compare_agree(release: Path) -> None:
    kept = Record("r", "1", {}, record.survey(str(release)))
    assert [entry.path for entry in kept.files] == ["link", "plain", "sub/deep"]
    assert record.compare(kept, str(release)) == record.Comparison((), ())


def shrink(release: Path) -> None:
    (release / "plain").write_text("x")


def swap(release: Path) -> None:
    (release / "plain").write_text("PLAIN")


def remove(release: Path) -> None:
    (release / "plain").unlink()


def open_up(release: Path) -> None:
    (release / "plain").chmod(0o666)


def link_instead(release: Path) -> None:
    (release / "plain").unlink()
    (release / "plain").symlink_to("sub/deep")


def turn_link(release: Path) -> None:
    (release / "link").unlink()
    (release / "link").symlink_to("sub/deep")


def file_instead_of_link(release: Path) -> None:
    (release / "link").unlink()
    (release / "link").write_text("plain")


def link_instead_of_directory(release: Path) -> None:
    (release / "sub").rename(release.parent / "outside")
    (release / "sub").symlink_to("../outside")


def pipe_instead(release: Path) -> None:
    (release / "plain").unlink()
    os.mkfifo(release / "plain")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (shrink, "plain: 1 bytes, expected 5"),
        (swap, "plain: other content than recorded"),
        (remove, "plain: missing"),
        (open_up, "plain: mode 0666, expected 0644"),
        (link_instead, "plain: not a regular file"),
        (turn_link, "link: not the symbolic link to plain"),
        (file_instead_of_link, "link: not the symbolic link to plain"),
        (link_instead_of_directory, "sub/deep: missing"),
        (pipe_instead, "plain: not a regular file"),
    ],
)
def test_every_difference_is_found(release: Path, change: Any, fault: str) -> None:
    for path in ("plain", "sub/deep"):
        (release / path).chmod(0o644)
    kept = Record("r", "1", {}, record.survey(str(release)))
    change(release)
    assert record.compare(kept, str(release)).faults == (fault,)
    assert record.compare(kept, str(release), digests=False).faults == (() if change is swap else (fault,))


def test_what_is_there_beside_is_told_but_is_no_fault(release: Path) -> None:
    kept = Record("r", "1", {}, record.survey(str(release)))
    (release / "__pycache__").mkdir()
    (release / "__pycache__" / "x.pyc").touch()
    assert record.compare(kept, str(release)) == record.Comparison((), ("__pycache__/x.pyc",))


def test_only_the_first_few_differences_are_named(tmp_path: Path) -> None:
    kept = Record("r", "1", {}, tuple(FileEntry(f"f{number}") for number in range(50)))
    assert len(record.compare(kept, str(tmp_path)).faults) == 5
