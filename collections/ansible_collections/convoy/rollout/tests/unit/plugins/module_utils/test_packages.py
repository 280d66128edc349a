# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which archives of packages are installed, and how a host differs from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import names, packages
from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError, PackageError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.packages import Change, Installed, Kept, Pinned

LIBRARIES = ("lib-a", "lib-b", "lib-c")
VERSIONS = st.sampled_from(["1", "2", "3"])


def older(one: str, other: str) -> bool:
    return int(one) < int(other)


def kept(name: str, version: str) -> Kept:
    return Kept(f"/somewhere/{name}_{version}.deb", name, version)


@st.composite
def pins(draw: st.DrawFn, beside: st.SearchStrategy[str | None]) -> Pinned:
    """A release of the package `hello`, with any libraries."""
    version = draw(VERSIONS)
    libraries = draw(st.dictionaries(st.sampled_from(LIBRARIES), VERSIONS))
    replaced = draw(st.dictionaries(st.sampled_from(LIBRARIES), VERSIONS))
    return Pinned(
        manager="apt",
        name="hello",
        version=version,
        archives=(kept("hello", version), *(kept(*library) for library in libraries.items())),
        before=tuple(kept(*library) for library in replaced.items()),
        beside=draw(beside),
    )


TARGETS = pins(st.none())
OTHERS = st.lists(pins(st.sampled_from(["1-abc", "2-abc", None])), max_size=3)
ON_HOST = st.dictionaries(st.sampled_from(["hello", *LIBRARIES]), VERSIONS)


@given(TARGETS, OTHERS, ON_HOST)
def test_the_package_is_always_the_version_of_the_release(
    target: Pinned, others: list[Pinned], installed: dict[str, str]
) -> None:
    for chosen in packages.choices(target, others, "1-abc", installed, older):
        assert [one.version for one in chosen if one.name == "hello"] == [target.version]
        assert len({one.name for one in chosen}) == len(chosen)


@given(TARGETS, OTHERS, ON_HOST)
def test_what_it_stands_on_goes_back_only_where_it_cannot_be_otherwise(
    target: Pinned, others: list[Pinned], installed: dict[str, str]
) -> None:
    least, *most = packages.choices(target, others, "1-abc", installed, older)
    for one in least:
        assert one.name == "hello" or one.name not in installed or older(installed[one.name], one.version)
    assert len(most) <= 1
    replaced = {one.name for other in others if other.beside == "1-abc" for one in other.before}
    for chosen in most:
        assert {one.name for one in chosen} == {one.name for one in target.archives} | replaced


@given(TARGETS)
def test_a_record_is_read_back(pinned: Pinned) -> None:
    assert packages.pinned_of(pinned.fields()) == pinned


@pytest.mark.parametrize("fields", [None, {}, {"manager": "apt"}, {"archives": 1, "before": []}])
def test_a_record_of_something_else_is_an_error(fields: dict[str, Any] | None) -> None:
    with pytest.raises(TreeError, match="stage the release again"):
        packages.pinned_of(fields)


PINNED = Pinned("apt", "hello", "2", (kept("hello", "2"),))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Installed("2", is_held=True, is_whole=True, at=0), []),
        (None, ["package hello is not installed, the active release has 2"]),
        (Installed("3", True, True, 0), ["package hello is 3 here, the active release has 2"]),
        (Installed("2", True, False, 0), ["the installation of package hello 2 did not end: run the deployment again"]),
        (Installed("2", False, True, 0), ["package hello is not held any more: an upgrade would replace 2"]),
    ],
)
def test_drift_is_named(found: Installed | None, said: list[str]) -> None:
    assert packages.problems(PINNED, found) == said


@given(
    st.booleans(),
    st.one_of(st.none(), st.builds(Installed, VERSIONS, st.booleans(), st.booleans(), st.just(0.0))),
)
def test_what_differs_is_what_is_a_problem(is_held: bool, found: Installed | None) -> None:
    pinned = Pinned("apt", "hello", "2", (), is_held=is_held)
    differs = packages.difference(pinned, found)
    assert bool(differs) is bool(packages.problems(pinned, found))
    assert differs is None or differs[0] != differs[1]


def test_what_differs_is_said_as_it_is_and_as_it_should_be() -> None:
    held = Pinned("apt", "hello", "2", ())
    assert packages.difference(held, Installed("1", True, True, 0.0)) == ("2, held", "1, held")
    assert packages.difference(held, Installed("2", False, False, 0.0)) == (
        "2, held",
        "2, not installed to the end, not held",
    )
    assert packages.difference(held._replace(is_held=False), None) == ("2", "not installed")


def test_an_installation_that_takes_others_away_is_refused() -> None:
    packages.check_plan("hello", "2", [Change("hello", "1", "2"), Change("lib-a", None, "1")])
    with pytest.raises(PackageError, match=r"would remove lib-b\. Convoy removes no package that it did not bring"):
        packages.check_plan("hello", "2", [Change("hello", "1", "2"), Change("lib-b", "1", None)])


def test_versions_that_are_there_are_named() -> None:
    error = packages.unknown_version("hello", "9", [str(number) for number in range(10)])
    assert "no repository of this host has version '9' of hello; there is 0, 1, 2, 3, 4, 5, 6, 7 and 2 more" in str(
        error
    )
    assert "has a package 'hello'" in str(packages.unknown_version("hello", "9", []))


@pytest.mark.parametrize("version", ["1", "1:2.3~rc1-4+deb12u1", "2024.01.01", "1.2^git5", "0~"])
def test_good_versions(version: str) -> None:
    assert packages.check_version(version) == version
    assert names.release(packages.in_release_id(version) + "-0123456789ab")


@pytest.mark.parametrize("version", ["", "v1", "-1", "1 2", "1;reboot", "1=2", "latest", "1/2", "1\n", "9" * 101])
def test_bad_versions(version: str) -> None:
    with pytest.raises(InputError, match="is not the version of a package"):
        packages.check_version(version)


@pytest.mark.parametrize(
    "name", ["", "a", "-oops", "hello world", "hello=1", "hello/stable", "../x", "hello:", "a" * 129]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError, match="is not the name of a package"):
        packages.check_name(name)
