# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge ``sequential``: does the new release make more errors? It may be asked after every look.

The events (errors, say) of the canary hosts are held against those of the baseline. Given how many events a look saw on
both sides, as many of them should be the canary's as its share of the requests says, if the releases are alike. The
evidence for another ratio of the rates is a likelihood ratio, averaged over a Beta(1, 1) prior of the canary's share of
the events at equal traffic. As long as the hypothesis is true, such an average is a nonnegative martingale that begins
at 1 (a supermartingale for a one-sided hypothesis), so that the probability of it ever reaching 1/alpha is at most
alpha, however often somebody looks (Ville 1939; Robbins 1970, 'Statistical methods related to the law of the iterated
logarithm'). Where the shares differ from look to look or from zone to zone, each is held against its own share.

Two such tests run side by side. One refutes 'the rate is no higher' and lets the gate fail; the other refutes 'the rate
is higher by the minimum effect' and lets it pass. The latter's prior keeps to ratios of about 1, where good releases
are: that finds them sooner. A third test lets pass a rate that is good enough in itself.

Against a baseline from before the deployment, the shares are of no use, since all of the canary's events come later.
There the canary's rate is held against a confidence limit of the earlier rate (Byar's approximation of the exact
Poisson limit) that takes up one half of alpha, the test the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

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

POINTS = 64  # of the prior, which is averaged over by the midpoint rule
ALIKE = (2 / 3, 1.0)  # the ratios that are averaged over where a release is as good as the one before it


@dataclass(frozen=True)
class Count:
    """Events, and what they are out of: requests, or seconds of hosts where requests are not counted."""

    events: float = 0.0
    exposure: float = 0.0

    @classmethod
    def sum(cls, counts: Iterable[Count]) -> Count:
        """All of them together."""
        counts = list(counts)
        return cls(sum(count.events for count in counts), sum(count.exposure for count in counts))


@dataclass(frozen=True)
class Stratum:
    """What one look saw of one zone; ``baseline`` is None where the baseline is from before."""

    canary: Count
    baseline: Count | None = None


Strata = Sequence[Stratum]


@dataclass(frozen=True)
class Sequential:
    """The rules. Over all looks together, ``alpha`` bounds the probability of a false alarm, ``beta`` of a wrong pass.

    ``minimum_effect`` is the smallest ratio of the rates that matters: 2 is twice as many. Below ``acceptable`` events
    a request the baseline does not matter; 0 switches that off. ``undecided`` is what to say when the time is over and
    the data proved neither. ``of`` names the events for messages.
    """

    alpha: float = 0.01
    beta: float = 0.01
    minimum_effect: float = 2.0
    acceptable: float = 0.001
    undecided: Verdict = Verdict.INCONCLUSIVE
    requests: bool = True
    of: str = "errors"
    limits: Limits = LIMITS


@dataclass(frozen=True)
class Evidence:
    """How many times more likely the data are than under each hypothesis: logarithms of what a test may reach."""

    worse: float  # against 'the rate is no higher'
    alike: float  # against 'the rate is higher by the minimum effect'
    acceptable: float  # against 'the rate is higher than what is acceptable'


def judge(looks: Sequence[Look[Strata]], rules: Sequential, ended: bool, before: Count | None = None) -> Judgement:
    """The judgement over the looks so far, against concurrent hosts or, where it is given, against ``before``."""
    trouble = troubled(looks, rules.limits)
    seen = [stratum for strata in samples(looks) for stratum in strata]
    if trouble or not seen:
        return trouble or unheard(looks, ended)
    canary = Count.sum(stratum.canary for stratum in seen)
    baseline = before or Count.sum(stratum.baseline for stratum in seen if stratum.baseline)
    evidence = weigh(seen, rules, before)
    told = _told(canary, baseline, rules, before is not None)
    numbers = {
        "canary": {"events": canary.events, "exposure": canary.exposure},
        "baseline": {"events": baseline.events, "exposure": baseline.exposure},
        "evidence": {name: _odds(value) for name, value in vars(evidence).items()},
    }
    for side, count in (("canary", canary), ("baseline", baseline)):
        if not count.exposure:
            no_traffic = f"the {side} hosts had no traffic in {times(len(looks), 'look')}: {told}"
            return Judgement(Verdict.INCONCLUSIVE if ended else None, no_traffic, numbers)
    return _decide(evidence, rules, ended, told, numbers)


def weigh(strata: Strata, rules: Sequential, before: Count | None = None) -> Evidence:
    """The evidence in the data so far."""
    canary = Count.sum(stratum.canary for stratum in strata)
    acceptable = _acceptable(canary, rules.acceptable) if rules.requests and rules.acceptable else -math.inf
    if before is None:
        return Evidence(*_against_hosts(strata, rules.minimum_effect), acceptable)
    return Evidence(*_against_before(canary, before, rules), acceptable)


def _decide(evidence: Evidence, rules: Sequential, ended: bool, told: str, numbers: Mapping[str, object]) -> Judgement:
    """A difference that is proven to be too small to matter is no failure, even where it is proven to be there."""
    enough, too_much = -math.log(rules.beta), -math.log(rules.alpha)
    if evidence.alike >= enough:
        return Judgement(Verdict.PASS, f"{told}: less than {rules.minimum_effect:g} times as many are certain", numbers)
    if evidence.acceptable >= enough:
        return Judgement(
            Verdict.PASS, f"{told}: less than the acceptable {_percent(rules.acceptable)} is certain", numbers
        )
    if evidence.worse >= too_much:
        odds = f"{_odds(evidence.worse):.3g} to 1 against as good a release, where {1 / rules.alpha:.3g} are enough"
        return Judgement(Verdict.FAIL, f"{told}: {odds}", numbers)
    if not ended:
        return Judgement(None, f"{told}: undecided", numbers)
    return Judgement(rules.undecided, f"{told}: too little to tell in the time that was given", numbers)


# --- against concurrent hosts ----------------------------------------------------------------------------------


def _against_hosts(strata: Strata, minimum_effect: float) -> tuple[float, float]:
    events = 0.0
    at_share: dict[float, float] = {}  # how many events of both sides were seen at which ratio of the exposures
    for canary, baseline in _comparable(strata):
        events += canary.events
        share = canary.exposure / baseline.exposure
        at_share[share] = at_share.get(share, 0.0) + canary.events + baseline.events

    def likelihood(ratio: float) -> float:
        return events * math.log(ratio) - sum(count * math.log1p(ratio * share) for share, count in at_share.items())

    return _averages(likelihood, minimum_effect)


def _comparable(strata: Strata) -> Iterable[tuple[Count, Count]]:
    """The strata in which both sides had traffic; the others compare nothing."""
    for stratum in strata:
        if stratum.baseline and stratum.canary.exposure and stratum.baseline.exposure:
            yield stratum.canary, stratum.baseline


def _averages(likelihood: Callable[[float], float], minimum_effect: float) -> tuple[float, float]:
    """The evidence against a ratio of at most 1, and against one of at least the minimum effect."""
    worse = _mean_of_exponentials([likelihood(ratio) for ratio in _prior(1.0, None)]) - likelihood(1.0)
    alike = _mean_of_exponentials([likelihood(ratio) for ratio in _prior(*ALIKE)])
    return worse, alike - likelihood(minimum_effect)


@cache
def _prior(least: float, most: float | None) -> tuple[float, ...]:
    """Ratios of rates whose share ratio / (1 + ratio) is spread evenly between those of ``least`` and ``most``."""
    begin = least / (1 + least)
    end = 1.0 if most is None else most / (1 + most)
    shares = (begin + (end - begin) * (point + 0.5) / POINTS for point in range(POINTS))
    return tuple(share / (1 - share) for share in shares)


# --- against before --------------------------------------------------------------------------------------------


def _against_before(canary: Count, before: Count, rules: Sequential) -> tuple[float, float]:
    """A Poisson rate against the limits of the earlier one. Each half of alpha and beta costs a factor of 2."""
    if not before.exposure:
        return -math.inf, -math.inf
    lowest, highest = rate_limits(before, rules.alpha / 2, rules.beta / 2)
    worse, _unused = _averages(_poisson(canary, highest), rules.minimum_effect)
    _unused, alike = _averages(_poisson(canary, lowest), rules.minimum_effect)
    return worse - math.log(2), (alike - math.log(2) if lowest else -math.inf)


def _poisson(canary: Count, rate: float) -> Callable[[float], float]:
    return lambda ratio: canary.events * math.log(ratio) - ratio * rate * canary.exposure


def rate_limits(count: Count, alpha: float, beta: float) -> tuple[float, float]:
    """The rate that is exceeded with a confidence of 1 - beta, and the one that is not with 1 - alpha."""
    z = NormalDist().inv_cdf
    below, above = count.events, count.events + 1
    lowest = below * (1 - 1 / (9 * below) + z(beta) / (3 * math.sqrt(below))) ** 3 if below else 0.0
    highest = above * (1 - 1 / (9 * above) + z(1 - alpha) / (3 * math.sqrt(above))) ** 3
    return max(lowest, 0.0) / count.exposure, highest / count.exposure


# --- good enough in itself -------------------------------------------------------------------------------------


def _acceptable(canary: Count, most: float) -> float:
    """The evidence against an error rate of at least ``most``, each request being an event or none."""
    events = min(canary.events, canary.exposure)
    good = canary.exposure - events

    def likelihood(rate: float) -> float:
        return events * math.log(rate) + good * math.log1p(-rate)

    rates = (most * (point + 0.5) / POINTS for point in range(POINTS))
    return _mean_of_exponentials([likelihood(rate) for rate in rates]) - likelihood(most)


def _mean_of_exponentials(logarithms: Sequence[float]) -> float:
    """The logarithm of the mean of what these are the logarithms of."""
    largest = max(logarithms)
    return largest + math.log(sum(math.exp(value - largest) for value in logarithms) / len(logarithms))


# --- the words -------------------------------------------------------------------------------------------------


def _told(canary: Count, baseline: Count, rules: Sequential, before: bool) -> str:
    whose = "before the deployment" if before else "baseline hosts"
    told = f"canary hosts {_rate(canary, rules)}, {whose} {_rate(baseline, rules)}"
    if not (canary.exposure and baseline.exposure and baseline.events):
        return told
    ratio = canary.events * baseline.exposure / (canary.exposure * baseline.events)
    return f"{told}, {ratio:.3g} times as many"


def _rate(count: Count, rules: Sequential) -> str:
    if not rules.requests:
        return f"{count.events:.10g} {rules.of} in {count.exposure:.10g} s of hosts"
    share = f" ({_percent(count.events / count.exposure)})" if count.exposure else ""
    return f"{count.events:.10g} {rules.of} in {count.exposure:.10g} requests{share}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _odds(logarithm: float) -> float:
    """As a number that JSON can hold."""
    return float(f"{math.exp(min(logarithm, 200.0)):.3g}")
