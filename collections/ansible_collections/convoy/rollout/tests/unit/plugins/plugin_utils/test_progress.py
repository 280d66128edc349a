# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a rollout stands, from what tasks told."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.progress import Standing, duration, lines_of


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ({"lines": ["a", "b"]}, ["a", "b"]),
        ({"lines": ("a",)}, ["a"]),
        ({"lines": ["a\nb", ""]}, ["a", "b", ""]),
        ({"lines": ["a\x1b[2Jb\tc"]}, ["a?[2Jb?c"]),
        ({"lines": ["a", 1, None]}, ["a"]),
        ({"lines": "a text"}, []),
        ({"lines": None}, []),
        ({}, []),
    ],
)
def test_lines(told: dict[str, Any], lines: list[str]) -> None:
    assert lines_of(told, "lines") == lines


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90061, "25h01m")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_is_not_known_is_left_out() -> None:
    standing = Standing(100)
    assert not standing.known
    assert standing.text(165) == "1m05s"
    assert standing.take({"phase": "canary"})
    assert standing.text(165) == "phase canary | 1m05s"
    assert standing.take({"done": 1})
    assert standing.text(165) == "phase canary | 1 done | 1m05s"
    assert standing.take({"phase": 2, "done": 2, "total": 6, "in_flight": 3, "failed": 0})
    assert standing.text(165) == "phase 2 | 2 of 6 done | 3 in flight | 0 failed | 1m05s"
    assert standing.known


def test_only_what_differs_is_a_change() -> None:
    standing = Standing(0)
    assert standing.take({"done": 1, "total": 6})
    assert not standing.take({"done": 1})
    assert not standing.take({"lines": ["a"], "summary": ["b"]})
    assert standing.take({"done": 2})


def test_what_is_no_count_is_not_taken() -> None:
    standing = Standing(0)
    assert not standing.take({"done": "many", "total": None, "phase": ["a"]})
    assert not standing.known


def test_the_summary_grows() -> None:
    standing = Standing(0)
    standing.take({"summary": ["a"]})
    standing.take({"summary": ["b", "c"]})
    assert standing.summary == ["a", "b", "c"]
