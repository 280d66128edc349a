# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters, and what begins them anew."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.counters import Series, hosts_of, increments

A, B = ("app1", "code=500"), ("app1", "code=502")
C = ("app2", "code=500")


@pytest.mark.parametrize(
    ("before", "now", "known", "grown"),
    [
        ({}, {A: 7}, set(), {}),
        ({A: 7}, {A: 7}, {"app1"}, {"app1": 0}),
        ({A: 7}, {A: 9}, {"app1"}, {"app1": 2}),
        ({A: 7}, {A: 3}, {"app1"}, {"app1": 3}),
        ({A: 7}, {A: 0}, {"app1"}, {"app1": 0}),
        ({A: 7, B: 5}, {A: 8, B: 1}, {"app1"}, {"app1": 2}),
        ({A: 7}, {A: 7, B: 4}, {"app1"}, {"app1": 4}),
        ({}, {B: 4}, {"app1"}, {"app1": 4}),
        ({A: 7}, {A: 8, C: 900}, {"app1"}, {"app1": 1}),
        ({A: 7}, {}, {"app1"}, {}),
    ],
    ids=[
        "the first reading", "no growth", "growth", "a restart", "a restart just now", "one of two restarts",
        "a new series of a known host", "the first event of a known host", "a new host", "gone",
    ],
)  # fmt: skip
def test_how_much_counters_grew(
    before: dict[Series, float], now: dict[Series, float], known: set[str], grown: dict[str, float]
) -> None:
    assert increments(before, now, known) == grown


def test_the_hosts_of_series() -> None:
    assert hosts_of([A, B, C]) == {"app1", "app2"}
