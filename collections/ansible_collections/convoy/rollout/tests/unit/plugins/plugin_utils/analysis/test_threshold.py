# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge that holds each look against fixed limits."""

from __future__ import annotations

import math

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement, Limits, Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.threshold import (
    Condition,
    Threshold,
    Values,
    classify,
    judge,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
GOOD = (Condition("<", 0.01),)
BAD = (Condition(">", 0.05),)
NAN = math.nan


def looks(*values: float | str | None) -> list[Look[Values]]:
    """One look a minute; a text is an error, None is nothing."""
    made: list[Look[Values]] = []
    for minute, value in enumerate(values):
        if isinstance(value, str):
            made.append(Look(60.0 * minute, error=value))
        elif value is None:
            made.append(Look(60.0 * minute, nothing="the query 'up' matches nothing"))
        else:
            made.append(Look(60.0 * minute, {"": value}))
    return made


@pytest.mark.parametrize(
    ("success", "failure", "values", "verdict"),
    [
        (GOOD, (), [0.005], PASS),
        (GOOD, (), [0.01], FAIL),
        (GOOD, (), [0.005, 0.02], FAIL),
        ((), BAD, [0.05], PASS),
        ((), BAD, [0.06], FAIL),
        (GOOD, BAD, [0.005], PASS),
        (GOOD, BAD, [0.03], INCONCLUSIVE),
        (GOOD, BAD, [0.005, 0.03], INCONCLUSIVE),
        (GOOD, BAD, [0.005, 0.06], FAIL),
        (GOOD, BAD, [math.inf], FAIL),
        (GOOD, (), [NAN], INCONCLUSIVE),
        (GOOD, (), [0.005, NAN], INCONCLUSIVE),
        ((), BAD, [NAN], INCONCLUSIVE),
        ((), BAD, [0.06, NAN], FAIL),
        (GOOD, BAD, [], INCONCLUSIVE),
        ((Condition(">=", 1), Condition("<=", 2)), (), [1.5], PASS),
        ((Condition(">=", 1), Condition("<=", 2)), (), [2.5], FAIL),
        ((), (Condition("==", 0), Condition("!=", 1)), [1.0], PASS),
        ((), (Condition("==", 0), Condition("!=", 1)), [2.0], FAIL),
    ],
)
def test_what_one_look_says(
    success: tuple[Condition, ...], failure: tuple[Condition, ...], values: list[float], verdict: Verdict
) -> None:
    named = {f"app{number}": value for number, value in enumerate(values)}
    assert classify(named, Threshold(success, failure)) is verdict


@pytest.mark.parametrize(
    ("values", "rules", "ended", "verdict"),
    [
        ([0, 0], Threshold(GOOD), False, None),
        ([0, 0], Threshold(GOOD), True, PASS),
        ([0, 1], Threshold(GOOD), False, FAIL),
        ([0, 1, 0], Threshold(GOOD, failures=1), True, PASS),
        ([0, 1, 0, 1], Threshold(GOOD, failures=1), False, FAIL),
        ([0, 1, 0, 1], Threshold(GOOD, failures=1, consecutive=True), False, None),
        ([0, 1, 1, 0], Threshold(GOOD, failures=1, consecutive=True), False, FAIL),
        ([0, 0, 0], Threshold(GOOD, successes=3), False, PASS),
        ([0, 1, 0, 0], Threshold(GOOD, failures=9, successes=3), False, None),
        ([0, 1, 0, 0], Threshold(GOOD, failures=9, successes=3), True, INCONCLUSIVE),
        ([0.03] * 3, Threshold(GOOD, BAD), False, None),
        ([0.03] * 4, Threshold(GOOD, BAD), False, INCONCLUSIVE),
        ([0.03] * 3, Threshold(GOOD, BAD), True, INCONCLUSIVE),
        ([NAN] * 3, Threshold((), BAD), True, INCONCLUSIVE),
        ([None, None, 0.0], Threshold(GOOD), True, PASS),
        ([None] * 4, Threshold(GOOD), False, INCONCLUSIVE),
        ([None], Threshold(GOOD), True, INCONCLUSIVE),
        ([None, 0.03], Threshold(GOOD, BAD, limits=Limits(inconclusive=1)), False, INCONCLUSIVE),
        (["no answer"] * 4, Threshold(GOOD), False, None),
        (["no answer"] * 5, Threshold(GOOD), False, Verdict.ERROR),
        (["no answer"], Threshold(GOOD), True, Verdict.ERROR),
        ([1, *["no answer"] * 5], Threshold(GOOD), False, FAIL),
        ([], Threshold(GOOD), True, INCONCLUSIVE),
    ],
)
def test_what_the_looks_together_say(
    values: list[float | str | None], rules: Threshold, ended: bool, verdict: Verdict | None
) -> None:
    assert judge(looks(*values), rules, ended).verdict is verdict


@pytest.mark.parametrize(
    ("values", "rules", "why"),
    [
        ([0, 0.5], Threshold(GOOD, BAD), "0.5 (good is < 0.01; bad is > 0.05) (1 of 2 looks bad, 0 are allowed)"),
        (
            [0.5, 0.5],
            Threshold(GOOD, failures=1, consecutive=True),
            "0.5 (good is < 0.01) (2 of 2 looks bad, 1 in a row are allowed)",
        ),
        ([0, 0.004], Threshold(GOOD), "2 of 2 looks good, the last with 0.004 (good is < 0.01)"),
        (
            [None, NAN],
            Threshold(GOOD, limits=Limits(inconclusive=1)),
            "the query 'up' matches nothing (2 of 2 looks, 1 are allowed)",
        ),
        ([NAN], Threshold(GOOD, limits=Limits(0)), "the values say neither yes nor no (1 of 1 looks, 0 are allowed)"),
    ],
)
def test_it_says_why(values: list[float | str | None], rules: Threshold, why: str) -> None:
    assert judge(looks(*values), rules, ended=True).why == why


def test_the_worst_series_is_named() -> None:
    found = judge([Look(0.0, {"app1": 0.0, "app2": 0.7, "app3": 0.0})], Threshold(GOOD), ended=False)
    assert found.why.startswith("0.7 of app2 (good is < 0.01)")


def test_the_numbers_can_be_written_as_json() -> None:
    found = judge([Look(0.0, {"app1": 0.0, "app2": NAN, "app3": math.inf})], Threshold(GOOD), ended=False)
    assert found.numbers == {"good": 0, "bad": 1, "inconclusive": 0, "last": {"app1": 0.0, "app2": None, "app3": None}}


def test_nothing_seen_yet_is_undecided() -> None:
    assert judge([Look(0.0)], Threshold(GOOD), ended=False) == Judgement(None, "nothing has been counted yet")
