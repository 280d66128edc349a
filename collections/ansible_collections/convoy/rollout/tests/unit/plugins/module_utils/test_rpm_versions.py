# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of rpm: how they are read, and which comes before which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import packages, rpm_versions
from ansible_collections.convoy.rollout.plugins.module_utils.rpm_versions import Evr, Nevra, compare

# Few characters, so that versions that differ little are drawn.
VERSIONS = st.text("01ab.~^_+", min_size=1, max_size=6)
EVRS = st.builds(Evr, st.integers(0, 2), VERSIONS, VERSIONS)
NAMES = st.from_regex(r"[a-zA-Z0-9][a-z0-9+._-]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.0~rc1", "1.0", -1),
        ("1.0~rc1", "1.0~rc2", -1),
        ("1.0~", "1.0", -1),
        ("1.0^git1", "1.0", 1),
        ("1.0^git1", "1.0.1", -1),
        ("1.0^", "1.0~", 1),
        ("1^~1", "1^", -1),
        ("2a", "2.0", -1),
        ("1.0a", "1.0.1", -1),
        ("1..0", "1.0", 0),
        ("1_", "1", 0),
        ("1+", "1", 0),
        ("1.010", "1.10", 0),
        ("1.9", "1.10", -1),
        ("5.5p1", "5.5p10", -1),
        ("fc4", "fc.4", 0),
        ("1.0.z", "1.0.1z", -1),
        ("1b", "1a", 1),
        ("1B", "1a", -1),
    ],
)
def test_versions_as_rpm_itself_sorts_them(one: str, other: str, expected: int) -> None:
    assert compare(Evr(0, one, "1"), Evr(0, other, "1")) == expected
    assert compare(Evr(0, other, "1"), Evr(0, one, "1")) == -expected
    assert compare(Evr(0, "1", one), Evr(0, "1", other)) == expected


def test_the_epoch_comes_first_and_the_release_last() -> None:
    assert rpm_versions.is_older("2.0-1", "1:1.0-1")
    assert rpm_versions.is_older("1:1.0-9", "1:1.1-1")
    assert rpm_versions.is_older("1.0-9", "1.0-10")
    assert not rpm_versions.is_older("0:1.0-1", "1.0-1")
    assert compare(Evr(0, "1.0", ""), Evr(0, "1.0", "7")) == 0


@given(EVRS, EVRS, EVRS)
def test_versions_are_sorted(one: Evr, two: Evr, three: Evr) -> None:
    assert compare(one, one) == 0
    assert compare(one, two) == -compare(two, one)
    if compare(one, two) <= 0 and compare(two, three) <= 0:
        assert compare(one, three) <= 0


@given(EVRS, st.sampled_from(["~x", "^x", ".1"]))
def test_a_longer_version_is_newer_unless_it_is_of_a_tilde(evr: Evr, more: str) -> None:
    longer = evr._replace(version=evr.version + more)
    assert compare(longer, evr) == (-1 if more[0] == "~" else 1)


@given(EVRS)
def test_a_version_that_is_written_is_read_again(evr: Evr) -> None:
    assert rpm_versions.parse_evr(str(evr)) == evr
    assert str(evr).startswith(f"{evr.epoch}:") == (evr.epoch > 0)


@given(NAMES, EVRS, st.sampled_from(["noarch", "x86_64", "*"]), st.booleans())
def test_a_package_that_is_written_is_read_again(name: str, evr: Evr, arch: str, with_epoch: bool) -> None:
    version = f"{evr.epoch}:{evr.version}-{evr.release}" if with_epoch else str(evr)
    assert rpm_versions.parse_nevra(f"{name}-{version}.{arch}") == Nevra(name, evr, arch)


@pytest.mark.parametrize("text", ["", "x:1", ":1", "1-2-3", "-1", "1:"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        rpm_versions.parse_evr(text)


@pytest.mark.parametrize("text", ["", "hello", "hello-1", "hello-1.noarch", "-1-1.noarch", "a-1-1."])
def test_what_is_no_package(text: str) -> None:
    with pytest.raises(ValueError, match="is not name-"):
        rpm_versions.parse_nevra(text)


@given(st.sampled_from(["<", "<=", "=", ">=", ">"]), EVRS, EVRS)
def test_relations(relation: str, evr: Evr, limit: Evr) -> None:
    compared = compare(evr, limit)
    said = {"<": compared < 0, "<=": compared <= 0, "=": compared == 0, ">=": compared >= 0, ">": compared > 0}
    assert rpm_versions.satisfies(evr, relation, limit) is said[relation]


@pytest.mark.parametrize(
    "version", ["1:1.22.1-9.module_el8.4.0+2353+c0ea15d5", "1.0~rc1-1.fc41", "1.0^20240101git1-2.el9_4.1"]
)
def test_versions_of_rpm_can_be_asked_for(version: str) -> None:
    assert packages.check_version(version) == str(rpm_versions.parse_evr(version))
