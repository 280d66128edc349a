# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit files: whose they are, and what must be done to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import units
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.record import Unit
from ansible_collections.convoy.rollout.plugins.module_utils.units import UnitDirectory, UnitFile, UnitPlan

A, B = Unit("a.service", "[Service]\n"), Unit("b.service", "[Service]\nNice=1\n")
OURS_A = UnitFile("a.service", "hello", "[Service]\n")


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ([], [], UnitPlan()),
        ([A], [], UnitPlan(write=(A,))),
        ([A], [OURS_A], UnitPlan()),
        ([A], [UnitFile("a.service", "hello", "other\n")], UnitPlan(write=(A,))),
        ([], [OURS_A], UnitPlan(remove=("a.service",))),
        ([B], [OURS_A], UnitPlan(write=(B,), remove=("a.service",))),
        # Somebody else's: the same text is as good as ours, and never removed.
        ([A], [UnitFile("a.service", None, "[Service]\n")], UnitPlan()),
        ([], [UnitFile("a.service", None, "[Service]\n")], UnitPlan()),
        ([], [UnitFile("a.service", "other", "[Service]\n")], UnitPlan()),
    ],
)
def test_plan(wanted: list[Unit], found: list[UnitFile], expected: UnitPlan) -> None:
    made = units.plan("hello", wanted, {there.name: there for there in found})
    assert made == expected
    assert bool(made) == bool(expected.write or expected.remove)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (
            UnitFile("a.service", None, "mine\n"),
            "was not written by Convoy and differs.*# Managed by Convoy: hello none",
        ),
        (UnitFile("a.service", "other", "[Service]\n"), "belongs to component 'other' of Convoy"),
        (UnitFile("a.service", "other", "x\n"), "belongs to component 'other' of Convoy"),
    ],
)
def test_what_is_somebody_elses_is_refused(there: UnitFile, message: str) -> None:
    with pytest.raises(TreeError, match=rf"unit a\.service {message}"):
        units.plan("hello", [A], {there.name: there})


@pytest.fixture
def directory(tmp_path: Path) -> UnitDirectory:
    """A directory of unit files."""
    return UnitDirectory(str(tmp_path), "hello")


def test_what_was_written_is_found_again(directory: UnitDirectory) -> None:
    directory.write([A, B], "1.0.0-abc")
    Path(directory.path, "foreign.service").write_text("[Service]\n")
    Path(directory.path, "multi-user.target.wants").mkdir()
    text = Path(directory.path, "a.service").read_text()
    assert text == "# Managed by Convoy: hello 1.0.0-abc\n[Service]\n"
    assert Path(directory.path, "a.service").stat().st_mode & 0o777 == 0o644
    assert set(directory.find([])) == {"a.service", "b.service"}
    assert directory.plan([A, B]) == UnitPlan()
    assert directory.plan([A]) == UnitPlan(remove=("b.service",))
    directory.remove(["b.service", "b.service"])
    assert directory.plan([A]) == UnitPlan()


def test_handed_over_by_its_first_line(directory: UnitDirectory) -> None:
    Path(directory.path, "a.service").write_text("# Managed by Convoy: hello none\n[Service]\nUser=me\n")
    assert directory.plan([A]) == UnitPlan(write=(A,))


def test_last_line_without_its_end_is_no_difference(directory: UnitDirectory) -> None:
    directory.write([Unit("a.service", "[Service]")], "r")
    assert directory.plan([Unit("a.service", "[Service]\n")]) == UnitPlan()


@pytest.mark.parametrize("target", ["/dev/null", "elsewhere.service"])
def test_masked_or_linked_unit_is_refused(directory: UnitDirectory, target: str) -> None:
    os.symlink(target, os.path.join(directory.path, "a.service"))
    with pytest.raises(TreeError, match="was not written by Convoy"):
        directory.plan([A])


def test_a_file_that_goes_while_the_directory_is_read_is_not_there(
    directory: UnitDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host removes the timer of a confirmation by itself."""
    directory.write([A, B], "1.0")
    lstat = os.lstat

    def removed(path: str) -> os.stat_result:
        if path.endswith("/a.service"):
            os.unlink(path)
        return lstat(path)

    monkeypatch.setattr(units.os, "lstat", removed)
    assert list(directory.find([A, B])) == ["b.service"]


def test_file_that_is_no_text_is_somebody_elses(directory: UnitDirectory) -> None:
    Path(directory.path, "a.service").write_bytes(b"\xff\xfe\0")
    with pytest.raises(TreeError, match="was not written by Convoy"):
        directory.plan([A])


def test_leftovers_of_other_components_are_left_alone(directory: UnitDirectory) -> None:
    for name in (".a.service.0123456789ab.convoy-new", ".z.service.0123456789ab.convoy-new"):
        Path(directory.path, name).touch()
    directory.clear_leftovers([A])
    assert os.listdir(directory.path) == [".z.service.0123456789ab.convoy-new"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [("[Install]\nWantedBy=x\n", True), ("  [Install]  \n", True), ("#[Install]\n", False), ("[Service]\n", False)],
)
def test_installable(content: str, expected: bool) -> None:
    assert units.is_installable(Unit("a.service", content)) is expected


@pytest.mark.parametrize(("name", "expected"), [("a@.service", True), ("a@1.service", False), ("a.service", False)])
def test_template(name: str, expected: bool) -> None:
    assert units.is_template(name) is expected
