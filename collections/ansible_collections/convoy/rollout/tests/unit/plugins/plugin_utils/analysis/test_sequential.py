# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of counts: what it says, and how often it is wrong on data of which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement, Limits, Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import (
    Count,
    Sequential,
    Stratum,
    judge,
    rate_limits,
    weigh,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.tests.unit.plugins.plugin_utils.analysis import simulations

RULES = Sequential(acceptable=0)


def look(canary: tuple[float, float], baseline: tuple[float, float], at: float = 60.0) -> simulations.CountLook:
    return Look(at, [Stratum(Count(*canary), Count(*baseline))])


def by(rules: Sequential, before: Count | None = None) -> simulations.Judge[Sequence[Stratum]]:
    return lambda looks, ended: judge(looks, rules, ended, before)


# --- the evidence ----------------------------------------------------------------------------------------------


def test_the_evidence_is_that_of_a_beta_mixture_cut_at_the_hypothesis() -> None:
    """With equal traffic: twice the integral of p^9 (1-p)^2 over the upper half, by 0.5^11."""
    events, others, steps = 9, 2, 200_000
    points = (0.5 + (number + 0.5) / (2 * steps) for number in range(steps))
    integral = sum(p**events * (1 - p) ** others for p in points) / (2 * steps)
    evidence = weigh(look((events, 1000), (others, 1000)).sample or [], RULES)
    assert math.exp(evidence.worse) == pytest.approx(2 * integral / 0.5 ** (events + others), rel=1e-3)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_how_the_data_are_cut_into_looks_does_not_matter(a: int, b: int, c: int, d: int) -> None:
    one = weigh([Stratum(Count(a + b, 200), Count(c + d, 200))], RULES)
    two = weigh([Stratum(Count(a, 100), Count(c, 100)), Stratum(Count(b, 100), Count(d, 100))], RULES)
    assert vars(one) == pytest.approx(vars(two))


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 100))
def test_both_hypotheses_cannot_be_refuted_by_a_ratio_between_them(events: int, others: int, scale: float) -> None:
    evidence = weigh([Stratum(Count(events, 1000 * scale), Count(others, 1000 * scale))], RULES)
    if events <= others:
        assert evidence.worse <= 0.01
    if events >= 2 * others:
        assert evidence.alike <= 0.01


def test_a_look_without_traffic_on_one_side_compares_nothing() -> None:
    strata = [Stratum(Count(5, 1000), Count(5, 1000))]
    alone = [Stratum(Count(50, 1000), Count(0, 0)), Stratum(Count(0, 0), Count(0, 1000))]
    assert weigh([*strata, *alone], RULES) == weigh(strata, RULES)


def test_each_zone_is_held_against_its_own_share() -> None:
    """Zone b makes more errors on both sides, and the canary has most of its traffic there."""
    strata = [Stratum(Count(1, 100), Count(9, 900)), Stratum(Count(90, 900), Count(10, 100))]
    pooled = [Stratum(Count(91, 1000), Count(19, 1000))]
    assert weigh(strata, RULES).worse < 0
    assert weigh(pooled, RULES).worse > math.log(100)


@pytest.mark.parametrize(("events", "low", "high"), [(0, 0.0, 5.298), (1, 0.005, 7.430), (5, 1.078, 14.150)])
def test_the_limits_of_a_rate_are_near_the_exact_ones_and_never_inside(events: int, low: float, high: float) -> None:
    """Against the exact limits of a Poisson mean with 0.5 % on each side."""
    lowest, highest = rate_limits(Count(events, 1), 0.005, 0.005)
    assert lowest <= low + 1e-3
    assert highest >= high - 1e-3
    assert highest == pytest.approx(high, rel=0.01)


# --- the verdicts ----------------------------------------------------------------------------------------------


def test_it_fails_as_soon_as_the_evidence_is_enough() -> None:
    found = judge([look((34, 1000), (5, 1000))], RULES, ended=False)
    assert found.verdict is Verdict.FAIL
    assert found.why.startswith(
        "canary hosts 34 errors in 1000 requests (3.4 %), baseline hosts 5 errors in 1000 requests (0.5 %), "
        "6.8 times as many: "
    )
    assert found.why.endswith("to 1 against as good a release, where 100 are enough")
    assert found.numbers["canary"] == {"events": 34, "exposure": 1000}
    assert found.numbers["evidence"]["worse"] > 100


def test_it_passes_as_soon_as_the_minimum_effect_is_refuted() -> None:
    found = judge([look((100, 9000), (100, 9000))], RULES, ended=False)
    assert found.verdict is Verdict.PASS
    assert found.why.endswith("1 times as many: less than 2 times as many are certain")


def test_a_difference_that_is_too_small_to_matter_is_no_failure() -> None:
    found = judge([look((12000, 1e6), (10000, 1e6))], RULES, ended=False)
    assert found.numbers["evidence"]["worse"] > 1e6
    assert found.verdict is Verdict.PASS


def test_a_rate_that_is_good_enough_in_itself_passes_without_any_errors_to_compare() -> None:
    found = judge([look((0, 20000), (0, 20000))], Sequential(), ended=False)
    assert found.verdict is Verdict.PASS
    assert "0 errors in 20000 requests (0 %)" in found.why
    assert found.why.endswith("less than the acceptable 0.1 % is certain")
    assert judge([look((0, 500), (0, 500))], Sequential(), ended=False).verdict is None


def test_too_little_is_no_verdict_and_at_the_end_no_pass() -> None:
    looks = [look((1, 100), (1, 100))]
    assert judge(looks, RULES, ended=False).verdict is None
    assert judge(looks, RULES, ended=True).verdict is Verdict.INCONCLUSIVE
    assert judge(looks, RULES, ended=True).why.endswith("too little to tell in the time that was given")


def test_what_is_undecided_at_the_end_passes_where_that_is_asked_for() -> None:
    rules = replace(RULES, undecided=Verdict.PASS)
    assert judge([look((1, 100), (1, 100))], rules, ended=True).verdict is Verdict.PASS


@pytest.mark.parametrize("counts", [((0, 0), (3, 100)), ((3, 100), (0, 0)), ((0, 0), (0, 0))])
@pytest.mark.parametrize("undecided", [Verdict.PASS, Verdict.INCONCLUSIVE])
def test_no_traffic_is_never_a_pass(
    counts: tuple[tuple[float, float], tuple[float, float]], undecided: Verdict
) -> None:
    rules = Sequential(undecided=undecided)
    assert judge([look(*counts)], rules, ended=False).verdict is None
    found = judge([look(*counts)], rules, ended=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "had no traffic in 1 look" in found.why


def test_without_requests_the_exposure_is_time() -> None:
    rules = replace(RULES, requests=False)
    found = judge([look((40, 600), (5, 600))], rules, ended=False)
    assert found.verdict is Verdict.FAIL
    assert found.why.startswith("canary hosts 40 errors in 600 s of hosts, baseline hosts 5 errors in 600 s of hosts")


NOTHING: Look[Sequence[Stratum]] = Look(0.0, nothing="nothing there matches app1")
UNREACHED: Look[Sequence[Stratum]] = Look(0.0, error="http://lb1 gave no answer within 10 s")
FIRST: Look[Sequence[Stratum]] = Look(0.0)


@pytest.mark.parametrize(
    ("looks", "ended", "verdict", "why"),
    [
        ([FIRST], False, None, "nothing has been counted yet"),
        ([FIRST], True, Verdict.INCONCLUSIVE, "1 look gave nothing to count: look for longer"),
        ([], True, Verdict.INCONCLUSIVE, "0 looks gave nothing to count: look for longer"),
        ([NOTHING], False, None, "nothing there matches app1"),
        ([NOTHING], True, Verdict.INCONCLUSIVE, "nothing there matches app1"),
        ([NOTHING] * 4, False, Verdict.INCONCLUSIVE, "nothing there matches app1 (4 of 4 looks, 3 are allowed)"),
        ([UNREACHED] * 4, False, None, "http://lb1 gave no answer within 10 s"),
        ([UNREACHED], True, Verdict.ERROR, "http://lb1 gave no answer within 10 s"),
        (
            [NOTHING, *[UNREACHED] * 5],
            False,
            Verdict.ERROR,
            "http://lb1 gave no answer within 10 s (5 looks in a row, 4 are allowed)",
        ),
    ],
)
def test_missing_data(looks: list[simulations.CountLook], ended: bool, verdict: Verdict | None, why: str) -> None:
    assert judge(looks, RULES, ended) == Judgement(verdict, why)


def test_errors_count_in_a_row() -> None:
    looks = [*[UNREACHED] * 4, look((1, 100), (1, 100)), *[UNREACHED] * 4]
    assert judge(looks, RULES, ended=False).verdict is None
    assert judge(looks, replace(RULES, limits=Limits(errors=3)), ended=False).verdict is Verdict.ERROR


# --- how often it is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 5])
def test_false_alarms_stay_below_alpha_however_often_one_looks(rate: float) -> None:
    found = simulations.verdicts(lambda random: simulations.counts(random, rate, rate), by(RULES), 300)
    assert simulations.share(found, Verdict.FAIL) <= RULES.alpha


def test_false_alarms_stay_below_alpha_while_shares_and_rates_change() -> None:
    found = simulations.verdicts(lambda random: simulations.ramp(random, 1.0), by(RULES), 100)
    assert simulations.share(found, Verdict.FAIL) <= RULES.alpha


@pytest.mark.parametrize(("baseline", "canary", "power", "minute"), [(1, 2, 0.83, 31), (5, 10, 0.99, 8)])
def test_twice_as_many_errors_are_found(baseline: float, canary: float, power: float, minute: int) -> None:
    found = simulations.verdicts(lambda random: simulations.counts(random, baseline, canary), by(RULES), 200)
    assert simulations.share(found, Verdict.FAIL) >= power
    assert (simulations.median_minute(found, Verdict.FAIL) or 99) <= minute
    assert simulations.share(found, Verdict.PASS) <= RULES.beta


def test_who_watches_to_the_end_finds_all_of_five_to_ten() -> None:
    found = simulations.verdicts(lambda random: simulations.counts(random, 5, 10), by(RULES), 200, stop_at_pass=False)
    assert simulations.share(found, Verdict.FAIL) == 1


def test_a_good_release_passes_early() -> None:
    found = simulations.verdicts(lambda random: simulations.counts(random, 5, 5), by(RULES), 100)
    assert simulations.share(found, Verdict.PASS) >= 0.97
    assert (simulations.median_minute(found, Verdict.PASS) or 99) <= 15


@pytest.mark.parametrize(("rate", "verdict", "least"), [(5, Verdict.PASS, 0.95), (10, Verdict.FAIL, 0.99)])
def test_against_an_hour_before(rate: float, verdict: Verdict, least: float) -> None:
    """One host that had 5 errors a minute."""

    def verdict_of(random: Random) -> Verdict:
        before = Count(sum(simulations.poisson(random, 5) for _minute in range(60)), 60 * simulations.REQUESTS)
        looks = [
            Look(each.at, [Stratum((each.sample or [])[0].canary)]) for each in simulations.counts(random, 0, rate)
        ]
        return simulations.watched(looks, by(RULES, before))[0]

    found = [verdict_of(Random(f"{rate}/{run}")) for run in range(150)]
    assert found.count(verdict) >= least * len(found)
    assert found.count(Verdict.FAIL if verdict is Verdict.PASS else Verdict.PASS) <= 0.01 * len(found)
