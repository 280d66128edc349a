# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger says of releases: how low a deployment may go, and what hosts may still need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.releases import (
    LEAST_KEPT,
    Deployed,
    Move,
    held,
    serial_mark,
    version_of,
)

S = HostStatus


def deploy(version: str, serial: int | None = None) -> Deployed:
    return Deployed("deploy", version, serial)


def back(version: str) -> Deployed:
    return Deployed("rollback", version, None)


@pytest.mark.parametrize(
    ("oldest_first", "expected"),
    [
        ([], 0),
        ([deploy("1", 1)], 1),
        ([deploy("1", 1), deploy("3", 3), deploy("3", 3)], 3),
        ([deploy("1")], 0),
        ([deploy("2", 2), deploy("x")], 2),
        ([deploy("1", 1), deploy("3", 3), Deployed("catch_up", "3", 3)], 3),
        ([deploy("1", 1), deploy("3", 3), back("1")], 1),
        ([deploy("1", 1), deploy("3", 3), back("1"), deploy("2", 2)], 2),
        ([deploy("1", 1), deploy("2", 2), back("1"), deploy("3", 3), back("2")], 2),
        ([deploy("1"), deploy("3", 3), back("1")], 0),
        ([deploy("1", 1), deploy("1", 5), deploy("6", 6), back("1")], 5),
    ],
)
def test_how_low_a_deployment_may_go(oldest_first: list[Deployed], expected: int) -> None:
    assert serial_mark(reversed(oldest_first)) == expected


def move(to: str, was: str | None, status: HostStatus = S.SUCCEEDED, kind: str = "deploy", host: str = "a") -> Move:
    return Move(host, kind, was, to, status)


@pytest.mark.parametrize(
    ("oldest_first", "keep", "expected"),
    [
        ([], 5, ""),
        ([move("1", None)], 5, "1"),
        ([move("1", None), move("2", "1"), move("3", "2")], 2, "23"),
        ([move("1", None), move("2", "1"), move("3", "2")], 1, "23"),  # the last good one stays in any case
        ([move("1", None), move("2", "1"), move("3", "2")], 3, "123"),
        ([move("1", None), move("2", "1", S.REVERTED)], 2, "12"),  # may still lie on the host
        ([move("1", None), move("2", "1", S.REVERTED), move("3", "1"), move("4", "3")], 3, "134"),
        ([move("1", None), move("2", "1"), move("3", "2", S.LOST)], 2, "123"),
        ([move("1", None), move("2", "1"), move("3", "2", S.PENDING)], 2, "123"),
        # what was left on a way back is no goal of another one, and drives none out
        ([move("1", None), move("2", "1"), move("3", "2"), move("2", "3", kind="rollback")], 2, "123"),
        (
            [move("1", None), move("2", "1"), move("3", "2"), move("2", "3", kind="rollback"), move("4", "2")],
            3,
            "1234",
        ),
        ([move("1", None), move("2", "1"), move("1", None, host="b")], 2, "12"),
        ([move("1", None), move("5", None, S.STANDBY, host="b")], 2, "15"),
        ([move("2", "2", S.CURRENT)], 2, "2"),
    ],
)
def test_what_hosts_may_still_need(oldest_first: list[Move], keep: int, expected: str) -> None:
    assert held(reversed(oldest_first), keep) == set(expected)


FATES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["well", "badly", "back"]), st.integers(1, 9)), max_size=25
)


@given(FATES, st.integers(1, 4))
def test_whatever_happened_no_host_needs_what_is_not_held(fates: list[tuple[str, str, int]], keep: int) -> None:
    """Hosts as their journals have it: what they left, or failed to come to, is good only when it was good again."""
    good: dict[str, list[str]] = {}
    moves = []
    for host, fate, number in fates:
        had = good.setdefault(host, [])
        was = had[0] if had else None
        if fate == "back":
            if len(had) > 1:
                moves.append(move(had[1], was, kind="rollback", host=host))
                good[host] = had[1:]
        elif fate == "well":
            moves.append(move(str(number), was, host=host))
            good[host] = [str(number), *(one for one in had if one != str(number))][: max(keep, LEAST_KEPT)]
        elif str(number) != was:
            moves.append(move(str(number), was, S.REVERTED, host=host))
            good[host] = [one for one in had if one != str(number)]
    needed = {release for had in good.values() for release in had}
    assert needed <= held(reversed(moves), keep)


@pytest.mark.parametrize(
    ("release", "version"),
    [("1.0.0-0c5e77d1f2b8", "1.0.0"), ("1.0-rc-1-0c5e77d1f2b8", "1.0-rc-1"), ("odd", "odd")],
)
def test_the_version_of_a_release(release: str, version: str) -> None:
    assert version_of(release) == version
