# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge ``mann_whitney``: do the values of the canary hosts lie elsewhere than those of the baseline?

Classifies and scores as Kayenta's judge does: the interval of the shift by inverting the two-sided Mann-Whitney test,
with the normal approximation, corrected for ties and for continuity (as R's wilcox.test does with exact=FALSE), and the
Hodges-Lehmann estimate by the same way.

Unlike Kayenta's, it takes the mean of a host as one observation, unless told otherwise: the samples of one host follow
each other, and tests that take them for independent cry wolf. And it speaks at the end only, since its error rate holds
for one look, not for one each minute.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist, fmean, quantiles

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import (
    LIMITS,
    Judgement,
    Limits,
    Look,
    samples,
    times,
    troubled,
    unheard,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

TOLERANCE = 1e-4  # of a root, in the unit of the metric
DIRECTIONS = ("increase", "decrease", "either")

HostValues = Mapping[str, Sequence[float]]


class Label(StrEnum):
    """How Kayenta calls what it found of a metric."""

    PASS = "Pass"
    HIGH = "High"
    LOW = "Low"
    NODATA = "Nodata"


@dataclass(frozen=True)
class Pair:
    """What one look found, by host. A baseline from before is in the first look."""

    canary: HostValues
    baseline: HostValues


@dataclass(frozen=True)
class MannWhitney:
    """The rules. ``direction`` is the one that is bad: increase, decrease or either.

    A shift counts when its interval, at this ``confidence``, lies beyond ``tolerance`` times its estimate, and the
    means differ by the allowed factor: 1.1 for ``allowed_increase`` lets the canary's mean be up to 10 % higher.
    ``by_host`` takes the mean of each host as one observation, of which each side needs ``least``.
    """

    direction: str = "either"
    confidence: float = 0.98
    tolerance: float = 0.25
    allowed_increase: float = 1.0
    allowed_decrease: float = 1.0
    zero_for_nan: bool = False
    without_outliers: bool = False
    by_host: bool = True
    least: int = 5
    limits: Limits = LIMITS


@dataclass(frozen=True)
class Shift:
    """How much higher the canary's values are: the interval, and the Hodges-Lehmann estimate."""

    low: float
    high: float
    estimate: float


@dataclass(frozen=True)
class Classification:
    """What was found, the ratio of the means (canary by baseline), and the shift where one was computed."""

    label: Label
    ratio: float
    shift: Shift | None = None


def judge(looks: Sequence[Look[Pair]], rules: MannWhitney, ended: bool) -> Judgement:
    """The judgement over the looks so far; undecided until the time is over."""
    trouble = troubled(looks, rules.limits)
    seen = samples(looks)
    if trouble or not seen:
        return trouble or unheard(looks, ended)
    if not ended:
        return Judgement(None, f"{times(len(seen), 'look')} of {_hosts(seen)}: the test is made when the time is over")
    canary = observations([pair.canary for pair in seen], rules)
    baseline = observations([pair.baseline for pair in seen], rules)
    least = rules.least if rules.by_host else 1
    if min(len(canary), len(baseline)) < least:
        unit = "host" if rules.by_host else "value"
        why = f"{times(len(canary), unit)} of the canary and {len(baseline)} of the baseline: each side needs {least}"
        return Judgement(Verdict.INCONCLUSIVE, why, {"classification": Label.NODATA.value})
    found = classify(canary, baseline, rules)
    return Judgement(_VERDICTS[found.label], _told(canary, baseline, found, rules), _numbers(canary, baseline, found))


_VERDICTS = {
    Label.PASS: Verdict.PASS,
    Label.HIGH: Verdict.FAIL,
    Label.LOW: Verdict.FAIL,
    Label.NODATA: Verdict.INCONCLUSIVE,
}


def observations(looks: Iterable[HostValues], rules: MannWhitney) -> list[float]:
    """One side's values as the test takes them: one for each host, or all."""
    by_host: dict[str, list[float]] = {}
    for values in looks:
        for host, found in values.items():
            by_host.setdefault(host, []).extend(_numbers_only(found, rules))
    if rules.by_host:
        return [fmean(values) for values in by_host.values() if values]
    return [value for values in by_host.values() for value in values]


def classify(canary: Sequence[float], baseline: Sequence[float], rules: MannWhitney) -> Classification:
    """Kayenta's classification of one metric."""
    canary, baseline = _prepared(canary, rules), _prepared(baseline, rules)
    if not canary or not baseline:
        return Classification(Label.NODATA, 0.0)
    if sorted(canary) == sorted(baseline) or len({*canary, *baseline}) == 1:
        return Classification(Label.PASS, 1.0)
    shift = shift_of(canary, baseline, rules.confidence)
    ratio = _ratio(fmean(canary), fmean(baseline))
    bound = rules.tolerance * abs(shift.estimate)
    if rules.direction != "decrease" and shift.low > bound and ratio >= rules.allowed_increase:
        return Classification(Label.HIGH, ratio, shift)
    if rules.direction != "increase" and shift.high < -bound and ratio <= rules.allowed_decrease:
        return Classification(Label.LOW, ratio, shift)
    return Classification(Label.PASS, ratio, shift)


def _prepared(values: Sequence[float], rules: MannWhitney) -> list[float]:
    numbers = _numbers_only(values, rules)
    return _without_outliers(numbers) if rules.without_outliers and len(numbers) > 1 else numbers


def _numbers_only(values: Iterable[float], rules: MannWhitney) -> list[float]:
    """Infinite values are left out like those that are no numbers: no shift can be told from them."""
    if rules.zero_for_nan:
        return [value if math.isfinite(value) else 0.0 for value in values]
    return [value for value in values if math.isfinite(value)]


def _without_outliers(values: Sequence[float]) -> list[float]:
    """Kayenta's fences: three interquartile ranges off the quartiles, but never inside the 1st and 99th percentile."""
    percentiles = quantiles(values, n=100, method="inclusive")
    lower, upper = percentiles[24], percentiles[74]
    low = min(lower - 3 * (upper - lower), percentiles[0])
    high = max(upper + 3 * (upper - lower), percentiles[98])
    return [value for value in values if low <= value <= high]


def _ratio(canary: float, baseline: float) -> float:
    if baseline:
        return canary / baseline
    return math.copysign(math.inf, canary) if canary else 1.0


# --- the test --------------------------------------------------------------------------------------------------


def shift_of(canary: Sequence[float], baseline: Sequence[float], confidence: float) -> Shift:
    """The shift of the canary's values. Raises nothing as long as not all values are the same."""
    least, most = min(canary) - max(baseline), max(canary) - min(baseline)

    def root(quantile: float) -> float:
        def excess(shift: float) -> float:
            return _standardized(canary, baseline, shift) - quantile

        if excess(least) <= 0:
            return least
        if excess(most) >= 0:
            return most
        return _brent(excess, least, most)

    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    return Shift(root(quantile), root(-quantile), root(0.0))


def _standardized(canary: Sequence[float], baseline: Sequence[float], shift: float) -> float:
    """How many standard deviations the canary's rank sum, with this shift taken off, is above what chance gives."""
    moved = [value - shift for value in canary]
    counts = Counter([*moved, *baseline])
    ranks, below = {}, 0
    for value in sorted(counts):
        ranks[value] = below + (counts[value] + 1) / 2
        below += counts[value]
    some, others = len(canary), len(baseline)
    excess = sum(ranks[value] for value in moved) - some * (some + others + 1) / 2
    ties = sum(count**3 - count for count in counts.values())
    variance = some * others / 12 * (below + 1 - ties / (below * (below - 1)))
    if variance <= 0:  # all are tied: no shift can be told from this one
        return 0.0
    continuity = 0.5 if excess > 0 else -0.5 if excess < 0 else 0.0
    return (excess - continuity) / math.sqrt(variance)


def _brent(function: Callable[[float], float], begin: float, end: float) -> float:
    """A root between two places where the signs differ (Brent 1973, chapter 4), which begins in the middle."""
    middle = (begin + end) / 2
    at_middle = function(middle)
    if not at_middle:
        return middle
    older, at_older = begin, function(begin)
    if (at_older > 0) == (at_middle > 0):
        older, at_older = end, function(end)
    best, at_best = middle, at_middle
    other, at_other = older, at_older  # the last place where the sign was the other one
    step = before_last = best - older
    while True:
        if abs(at_other) < abs(at_best):
            older, best, other = best, other, best
            at_older, at_best, at_other = at_best, at_other, at_best
        half = (other - best) / 2
        tolerance = TOLERANCE + 4 * sys.float_info.epsilon * abs(best)
        if not at_best or abs(half) <= tolerance:
            return best
        proposed = _interpolated((older, at_older), (best, at_best), (other, at_other))
        if abs(before_last) < tolerance or abs(at_older) <= abs(at_best) or not _is_better(proposed, half, before_last):
            step = before_last = half
        else:
            before_last, step = step, proposed
        older, at_older = best, at_best
        best += step if abs(step) > tolerance else math.copysign(tolerance, half)
        at_best = function(best)
        if (at_best > 0) == (at_other > 0):
            other, at_other = older, at_older
            step = before_last = best - older


def _interpolated(older: tuple[float, float], best: tuple[float, float], other: tuple[float, float]) -> float:
    """The step from ``best`` by a secant, or by inverse quadratic interpolation where there are three places."""
    (older_at, older_value), (best_at, best_value), (other_at, other_value) = older, best, other
    if best_value in (older_value, other_value):
        return math.inf
    if older_at == other_at or older_value == other_value:
        return best_value * (other_at - best_at) / (best_value - other_value)
    slope = (older_at - best_at) / (older_value - best_value)
    bend = (slope - (other_at - best_at) / (other_value - best_value)) / (older_value - other_value)
    return -best_value * slope + bend * best_value * older_value


def _is_better(step: float, half: float, before_last: float) -> bool:
    """Whether a step stays within three quarters of the bracket, and at least halves the one before the last."""
    return 0 < step / half < 1.5 and abs(step) < abs(before_last) / 2


# --- the score -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """One metric's part in the score."""

    label: Label
    group: str = "metrics"
    critical: bool = False


@dataclass(frozen=True)
class Scoring:
    """From which score on a canary passes or is marginal. ``weights`` of groups are percent; others share the rest."""

    passes: float = 95.0
    marginal: float = 75.0
    weights: Mapping[str, float] | None = None


def score(results: Sequence[Scored], scoring: Scoring) -> tuple[float, Judgement]:
    """Kayenta's score of 0 to 100 over all its metrics, and the verdict: what is marginal is inconclusive here.

    Where the score is 0 for want of data, as in Kayenta, the verdict is inconclusive.
    """
    empty = sum(result.label is Label.NODATA for result in results)
    if 2 * empty >= len(results):
        return 0.0, Judgement(Verdict.INCONCLUSIVE, f"score 0: {empty} of {times(len(results), 'metric')} had no data")
    critical = {result.label for result in results if result.critical} - {Label.PASS}
    if critical:
        verdict = Verdict.INCONCLUSIVE if critical == {Label.NODATA} else Verdict.FAIL
        return 0.0, Judgement(verdict, "score 0: a critical metric did not pass")
    total = _weighted(results, scoring.weights or {})
    told = f"score {total:.4g} (passes from {scoring.passes:g} on, marginal from {scoring.marginal:g} on)"
    if total >= scoring.passes:
        return total, Judgement(Verdict.PASS, told)
    return total, Judgement(Verdict.INCONCLUSIVE if total >= scoring.marginal else Verdict.FAIL, told)


def _weighted(results: Sequence[Scored], weights: Mapping[str, float]) -> float:
    groups: dict[str, list[Label]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result.label)
    unweighted = [name for name in groups if name not in weights]
    rest = (100 - sum(weights.values())) / len(unweighted) if unweighted else 0.0
    total = 0.0
    for name, labels in groups.items():
        told = [label for label in labels if label is not Label.NODATA]
        if told:
            total += weights.get(name, rest) * told.count(Label.PASS) / len(told)
    return total


# --- the words -------------------------------------------------------------------------------------------------


def _hosts(seen: Sequence[Pair]) -> str:
    canary = {host for pair in seen for host in pair.canary}
    baseline = {host for pair in seen for host in pair.baseline}
    return f"{times(len(canary), 'canary host')} and {len(baseline)} of the baseline"


def _told(canary: Sequence[float], baseline: Sequence[float], found: Classification, rules: MannWhitney) -> str:
    unit = "hosts" if rules.by_host else "values"
    means = f"{len(canary)} canary {unit} with a mean of {fmean(canary):.4g}, {len(baseline)} of the baseline with"
    told = f"{found.label}: {means} {fmean(baseline):.4g}"
    if not found.shift:
        return told
    shift = found.shift
    interval = f"{shift.low:.4g} to {shift.high:.4g}"
    return f"{told}; the shift is {shift.estimate:.4g}, with {100 * rules.confidence:g} % confidence {interval}"


def _numbers(canary: Sequence[float], baseline: Sequence[float], found: Classification) -> dict[str, object]:
    shift = [found.shift.low, found.shift.high] if found.shift else None
    return {
        "classification": found.label.value,
        "canary": {"count": len(canary), "mean": fmean(canary)},
        "baseline": {"count": len(baseline), "mean": fmean(baseline)},
        "ratio": found.ratio if math.isfinite(found.ratio) else None,
        "interval": shift,
        "estimate": found.shift.estimate if found.shift else None,
    }
