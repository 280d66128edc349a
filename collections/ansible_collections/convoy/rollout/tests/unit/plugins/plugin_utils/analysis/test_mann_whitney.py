# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge that compares values as Kayenta does: the test against R's, classes, scores, and how often it is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import (
    Label,
    MannWhitney,
    Pair,
    Scored,
    Scoring,
    classify,
    judge,
    observations,
    score,
    shift_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.tests.unit.plugins.plugin_utils.analysis import simulations

RULES = MannWhitney()
PLAIN = MannWhitney(by_host=False)
NAN = math.nan


# --- the test --------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_r() -> None:
    """wilcox.test(c(10,20,30,40), c(1,2,3,4), conf.int=TRUE, exact=FALSE): 6, 39 and 22.5."""
    found = shift_of([10, 20, 30, 40], [1, 2, 3, 4], 0.95)
    assert (found.low, found.high, found.estimate) == pytest.approx((6, 39, 22.5), abs=1e-4)


def test_where_there_is_no_root_the_interval_is_the_whole_range() -> None:
    found = shift_of([5.0], [1.0, 2.0, 3.0], 0.98)
    assert (found.low, found.high) == (2, 4)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=20), st.lists(st.integers(0, 9), min_size=2, max_size=20))
def test_every_pair_of_sides_has_an_interval(canary: list[int], baseline: list[int]) -> None:
    """Ties and all: the search ends, and the ends are in order."""
    found = shift_of(canary, baseline, 0.98)
    assert found.low - 1e-3 <= found.estimate <= found.high + 1e-3


FLOATS = st.lists(st.floats(-1e18, 1e18), min_size=1, max_size=12)


@given(FLOATS, FLOATS, st.sampled_from([1e-30, 1e-9, 1.0]))
def test_the_search_ends_for_values_of_any_size(canary: list[float], baseline: list[float], scale: float) -> None:
    found = shift_of([scale * value for value in canary], [scale * value for value in baseline], 0.98)
    assert found.low <= found.high or found.low == pytest.approx(found.high, rel=1e-3, abs=1e-3)


def test_the_estimate_is_near_the_median_of_the_differences() -> None:
    random = Random(1)
    canary = [random.gauss(12, 2) for _value in range(40)]
    baseline = [random.gauss(10, 2) for _value in range(40)]
    differences = median(one - other for one in canary for other in baseline)
    assert shift_of(canary, baseline, 0.98).estimate == pytest.approx(differences, abs=0.01)


# --- classes ---------------------------------------------------------------------------------------------------

LOW, MIDDLE, HIGH = [1.0, 1.1, 1.2, 1.3, 1.4], [1.05, 1.15, 1.25, 1.35, 1.45], [9.0, 9.1, 9.2, 9.3, 9.4]


@pytest.mark.parametrize(
    ("canary", "baseline", "rules", "label"),
    [
        (HIGH, LOW, PLAIN, Label.HIGH),
        (LOW, HIGH, PLAIN, Label.LOW),
        (MIDDLE, LOW, PLAIN, Label.PASS),
        (HIGH, LOW, replace(PLAIN, direction="decrease"), Label.PASS),
        (LOW, HIGH, replace(PLAIN, direction="increase"), Label.PASS),
        (HIGH, LOW, replace(PLAIN, direction="increase"), Label.HIGH),
        (HIGH, LOW, replace(PLAIN, allowed_increase=20), Label.PASS),
        (LOW, HIGH, replace(PLAIN, allowed_decrease=0.1), Label.PASS),
        (HIGH, [0.0] * 5, PLAIN, Label.HIGH),
        ([], LOW, PLAIN, Label.NODATA),
        (LOW, [NAN, NAN], PLAIN, Label.NODATA),
        (HIGH, [NAN] * 5, replace(PLAIN, zero_for_nan=True), Label.HIGH),
        (LOW, list(reversed(LOW)), PLAIN, Label.PASS),
        ([3.0, 3.0], [3.0], PLAIN, Label.PASS),
        ([*HIGH, math.inf], LOW, PLAIN, Label.HIGH),
        ([math.inf] * 5, LOW, PLAIN, Label.NODATA),
        ([4.0] * 5, [3.0] * 5, PLAIN, Label.HIGH),
    ],
)
def test_how_a_metric_is_classified(
    canary: list[float], baseline: list[float], rules: MannWhitney, label: Label
) -> None:
    assert classify(canary, baseline, rules).label is label


def test_the_ratio_is_that_of_the_means() -> None:
    assert classify(HIGH, LOW, PLAIN).ratio == pytest.approx(9.2 / 1.2)


def test_outliers_can_be_removed() -> None:
    """Of 200 values the 1st and 99th percentile lie inside, so that one far off is outside the fences."""
    values = [10 + (number % 10) / 10 for number in range(200)]
    spoilt = [*values, 1e9]
    kept = classify(spoilt, values, PLAIN).ratio
    removed = classify(spoilt, values, replace(PLAIN, without_outliers=True)).ratio
    assert kept > 1e5
    assert removed == pytest.approx(1, rel=0.01)


# --- the judge -------------------------------------------------------------------------------------------------


def side(name: str, values: Sequence[float]) -> dict[str, list[float]]:
    return {f"{name}{number}": [value] for number, value in enumerate(values)}


def pair(canary: Sequence[float], baseline: Sequence[float]) -> Look[Pair]:
    return Look(0.0, Pair(side("new", canary), side("old", baseline)))


def test_it_says_nothing_before_the_time_is_over() -> None:
    found = judge([pair(HIGH, LOW)], RULES, ended=False)
    assert found.verdict is None
    assert found.why == "1 look of 5 canary hosts and 5 of the baseline: the test is made when the time is over"


def test_at_the_end_it_says_what_was_found_with_the_numbers() -> None:
    found = judge([pair(HIGH, LOW)] * 3, RULES, ended=True)
    assert found.verdict is Verdict.FAIL
    assert found.why.startswith("High: 5 canary hosts with a mean of 9.2, 5 of the baseline with 1.2; the shift is 8,")
    assert "with 98 % confidence" in found.why
    assert found.numbers["classification"] == "High"
    assert judge([pair(MIDDLE, LOW)], RULES, ended=True).verdict is Verdict.PASS


def test_the_host_is_the_unit() -> None:
    looks = [{"a": [1.0], "b": [3.0]}, {"a": [2.0], "b": [5.0], "c": [NAN]}]
    assert observations(looks, RULES) == [1.5, 4.0]
    assert observations(looks, PLAIN) == [1.0, 2.0, 3.0, 5.0]


def test_fewer_than_five_hosts_a_side_tell_nothing() -> None:
    found = judge([pair(HIGH[:4], LOW)] * 60, RULES, ended=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.why == "4 hosts of the canary and 5 of the baseline: each side needs 5"
    assert judge([pair(HIGH[:4], LOW)] * 60, PLAIN, ended=True).verdict is Verdict.FAIL


def test_missing_data_is_no_pass() -> None:
    nothing: Look[Pair] = Look(0.0, nothing="the query 'latency' matches nothing")
    assert judge([nothing], RULES, ended=True).verdict is Verdict.INCONCLUSIVE
    assert judge([nothing] * 4, RULES, ended=False).verdict is Verdict.INCONCLUSIVE
    assert judge([Look(0.0, error="no answer")] * 5, RULES, ended=False).verdict is Verdict.ERROR


# --- the score -------------------------------------------------------------------------------------------------

OK, UP, NONE = Label.PASS, Label.HIGH, Label.NODATA


@pytest.mark.parametrize(
    ("results", "points", "verdict"),
    [
        ([Scored(OK)] * 3, 100, Verdict.PASS),
        ([Scored(OK)] * 3 + [Scored(UP)], 75, Verdict.INCONCLUSIVE),
        ([Scored(OK)] * 2 + [Scored(UP)], 100 * 2 / 3, Verdict.FAIL),
        ([Scored(OK)] * 19 + [Scored(UP)], 95, Verdict.PASS),
        ([Scored(OK)] * 19 + [Scored(UP, critical=True)], 0, Verdict.FAIL),
        ([Scored(OK)] * 19 + [Scored(NONE, critical=True)], 0, Verdict.INCONCLUSIVE),
        ([Scored(OK)] * 3 + [Scored(NONE)], 100, Verdict.PASS),
        ([Scored(OK), Scored(NONE)], 0, Verdict.INCONCLUSIVE),
        ([Scored(NONE)], 0, Verdict.INCONCLUSIVE),
        ([Scored(OK, "errors"), Scored(UP, "latency")], 50, Verdict.FAIL),
    ],
)
def test_the_score(results: list[Scored], points: float, verdict: Verdict) -> None:
    total, found = score(results, Scoring())
    assert total == pytest.approx(points)
    assert found.verdict is verdict


def test_groups_have_weights_and_the_others_share_the_rest() -> None:
    results = [Scored(OK, "errors"), Scored(UP, "latency"), Scored(OK, "load")]
    assert score(results, Scoring(weights={"errors": 60}))[0] == pytest.approx(80)
    assert score(results, Scoring(weights={"errors": 20, "latency": 80}))[0] == pytest.approx(20)


# --- how often it is wrong -------------------------------------------------------------------------------------


def false_verdicts(rules: MannWhitney, hosts: int, runs: int) -> float:
    made = (simulations.latencies(Random(f"{hosts}/{run}"), 100, 100, hosts) for run in range(runs))
    return sum(judge(looks, rules, ended=True).verdict is Verdict.FAIL for looks in made) / runs


def test_samples_of_a_host_are_not_independent_so_that_hosts_are_the_unit() -> None:
    """What Kayenta's way does to latencies that take after the minute before, and what this one does."""
    assert false_verdicts(PLAIN, 1, 60) > 0.2
    assert false_verdicts(RULES, 6, 150) <= 0.03


def test_a_fifth_more_latency_is_found() -> None:
    made = [simulations.latencies(Random(run), 100, 120, 6) for run in range(30)]
    assert sum(judge(looks, RULES, ended=True).verdict is Verdict.FAIL for looks in made) >= 29
