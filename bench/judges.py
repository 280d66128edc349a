# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page docs/judges.md, on standard output; bench/judges runs this."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis import mann_whitney, sequential, threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement, Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import Label, MannWhitney, Pair
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import Count, Sequential
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.threshold import Condition, Threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.tests.unit.plugins.plugin_utils.analysis import simulations

LEAST_MINUTES = 5  # before the values of minutes are compared at all
HOSTS = 6  # a side, where hosts are compared

Make = Callable[[Random], Sequence[Look[Any]]]


@dataclass(frozen=True)
class Contender:
    """A judge with its rules; ``cost`` divides the runs, for those that take long."""

    name: str
    judge: Callable[[float], simulations.Judge[Any]]  # by the usual rate or latency
    cost: int = 1
    stop_at_pass: bool = True


@dataclass(frozen=True)
class Case:
    """What is simulated: what is usual, and what the canary has."""

    usual: float
    canary: float
    make: Make

    @property
    def name(self) -> str:
        """As a column's head."""
        return f"{self.usual:g} → {self.canary:g}"

    @property
    def good(self) -> bool:
        """Whether the canary is as the others."""
        return self.usual == self.canary


# --- the judges ------------------------------------------------------------------------------------------------


def sequential_judge(_usual: float) -> simulations.Judge[Any]:
    """With its defaults, but without a rate that is good enough in itself."""
    rules = Sequential(acceptable=0)
    return lambda looks, ended: sequential.judge(looks, rules, ended)


def threshold_of_rates(factor: float, failures: int) -> Callable[[float], simulations.Judge[Any]]:
    """More errors of the canary in a minute than so many times what is usual."""

    def judge_by(usual: float) -> simulations.Judge[Any]:
        rules = _threshold(factor * usual, failures)

        def judge(looks: Sequence[Look[Any]], ended: bool) -> Judgement:
            values = [replace(look, sample={"": look.sample[0].canary.events}) for look in looks if look.sample]
            return threshold.judge(values, rules, ended)

        return judge

    return judge_by


def threshold_of_latencies(factor: float, failures: int) -> Callable[[float], simulations.Judge[Any]]:
    """A mean of the canary hosts above so many times what is usual."""

    def judge_by(usual: float) -> simulations.Judge[Any]:
        rules = _threshold(factor * usual, failures)

        def judge(looks: Sequence[Look[Any]], ended: bool) -> Judgement:
            values = [
                replace(look, sample={"": fmean(value for values in look.sample.canary.values() for value in values)})
                for look in looks
                if look.sample
            ]
            return threshold.judge(values, rules, ended)

        return judge

    return judge_by


def _threshold(limit: float, failures: int) -> Threshold:
    return Threshold(failure=(Condition(">", limit),), failures=failures, consecutive=True)


def rates(looks: Sequence[Look[Any]]) -> Pair:
    """The errors of each minute, as Kayenta would take them."""

    def events(counts: Iterator[Count]) -> list[float]:
        return [count.events for count in counts]

    strata = [look.sample[0] for look in looks if look.sample]
    return Pair(
        {"canary": events(stratum.canary for stratum in strata)},
        {"baseline": events(stratum.baseline for stratum in strata)},
    )


def values(looks: Sequence[Look[Any]]) -> Pair:
    """The latencies of each minute."""
    pairs = [look.sample for look in looks if look.sample]
    return Pair(
        {"canary": [value for pair in pairs for each in pair.canary.values() for value in each]},
        {"baseline": [value for pair in pairs for each in pair.baseline.values() for value in each]},
    )


def kayenta(
    take: Callable[[Sequence[Look[Any]]], Pair], each_minute: bool
) -> Callable[[float], simulations.Judge[Any]]:
    """Kayenta's classification of the values of minutes, each minute or once at the end."""
    rules = MannWhitney(direction="increase", by_host=False)

    def judge(looks: Sequence[Look[Any]], ended: bool) -> Judgement:
        if len(looks) < LEAST_MINUTES or not (ended or each_minute):
            return Judgement(None, "")
        pair = take(looks)
        found = mann_whitney.classify(pair.canary["canary"], pair.baseline["baseline"], rules)
        if found.label is Label.HIGH:
            return Judgement(Verdict.FAIL, "")
        return Judgement(Verdict.PASS if ended else None, "")

    return lambda _usual: judge


def by_host(_usual: float) -> simulations.Judge[Any]:
    """The judge mann_whitney as it is."""
    rules = MannWhitney(direction="increase")
    return lambda looks, ended: mann_whitney.judge(looks, rules, ended)


COUNT_JUDGES = (
    Contender("`sequential`", sequential_judge),
    Contender("`sequential`, watching for the whole hour", sequential_judge, stop_at_pass=False),
    Contender("`threshold`: a minute above 2 times the usual", threshold_of_rates(2, 0)),
    Contender("`threshold`: 3 minutes in a row above 2 times the usual", threshold_of_rates(2, 2)),
    Contender("`mann_whitney` over minutes, asked each minute", kayenta(rates, each_minute=True), cost=10),
    Contender("`mann_whitney` over minutes, asked once", kayenta(rates, each_minute=False), cost=2),
)
ONE_HOST = (
    Contender("`mann_whitney` over minutes, asked each minute", kayenta(values, each_minute=True), cost=10),
    Contender("`mann_whitney` over minutes, asked once", kayenta(values, each_minute=False), cost=4),
    Contender("`threshold`: a minute above 1.15 times the usual", threshold_of_latencies(1.15, 0), cost=2),
    Contender("`threshold`: 3 minutes in a row above 1.15 times the usual", threshold_of_latencies(1.15, 2), cost=2),
)
MANY_HOSTS = (
    Contender("`mann_whitney` over hosts (the default)", by_host, cost=2),
    Contender("`threshold`: a minute above 1.15 times the usual", threshold_of_latencies(1.15, 0), cost=2),
    Contender("`threshold`: 3 minutes in a row above 1.15 times the usual", threshold_of_latencies(1.15, 2), cost=2),
)


def count_cases() -> list[Case]:
    """Errors a minute."""

    def case(usual: float, canary: float) -> Case:
        return Case(usual, canary, lambda random: simulations.counts(random, usual, canary))

    return [case(1, 1), case(5, 5), case(1, 2), case(1, 5), case(5, 10)]


def latency_cases(hosts: int) -> list[Case]:
    """Milliseconds."""

    def case(usual: float, canary: float) -> Case:
        return Case(usual, canary, lambda random: simulations.latencies(random, usual, canary, hosts))

    return [case(100, 100), case(100, 110), case(100, 120)]


# --- the page --------------------------------------------------------------------------------------------------


def table(cases: Sequence[Case], contenders: Sequence[Contender], runs: int) -> Iterator[str]:
    """The verdicts of each contender on the same data."""
    words = {True: "false alarms, passed", False: "found (by minute), passed"}
    heads = [f"{case.name}: {words[case.good]}" for case in cases]
    yield f"| judge | runs | {' | '.join(heads)} |"
    yield "|---|---|" + "---|" * len(cases)
    for contender in contenders:
        some = max(1, runs // contender.cost)
        cells = [cell(case, contender, some) for case in cases]
        yield f"| {contender.name} | {some} | {' | '.join(cells)} |"


def cell(case: Case, contender: Contender, runs: int) -> str:
    """The share of runs that failed, with the minute by which half of them had; and the share that passed."""
    found = simulations.verdicts(case.make, contender.judge(case.usual), runs, stop_at_pass=contender.stop_at_pass)
    failed = percent(simulations.share(found, Verdict.FAIL))
    passed = percent(simulations.share(found, Verdict.PASS))
    minute = simulations.median_minute(found, Verdict.FAIL)
    return f"{failed}, {passed}" if case.good or not minute else f"{failed} ({minute}), {passed}"


def percent(share: float) -> str:
    """With the digits that so many runs can tell."""
    return f"{100 * share:.1f} %"


INTRODUCTION = """\
# How often the judges are wrong

`bench/judges` wrote this page. It makes data of which the truth is known, lets somebody look at them once a minute
for an hour, and counts what the judges of [metric gates](gates.md) said. The data are the same for every judge, and
the same every time; where a judge takes long, it saw the first of them only.

A false alarm turns a good release back. A bad release has to be found; behind it stands the minute by which half of
those that were found had been. What is neither found nor passed was too little to tell: the rollout holds."""

COUNTS = """\
## Errors

Errors a minute of the baseline → of the canary, independent of each other, with as many requests on both sides.
`sequential` has its defaults (alpha and beta 1 %, a minimum effect of 2), but no error rate that is acceptable in
itself."""

AFTER_COUNTS = """\
`sequential` was made for this: its false alarms stay below alpha and what it passes wrongly below beta, however often
somebody looks, and it ends as soon as it knows. Who watches on after a pass finds what shows itself later. Where
errors are rare, an hour may not be enough to tell; give it longer, or say which rate is acceptable. A threshold has
to be set for each service, and cries wolf where errors are rare. Kayenta's comparison of minutes finds a doubling of
one error a minute in a third of the hours only."""

LATENCIES = """\
## Latencies of one host a side

Milliseconds, with a standard deviation of 10; each minute takes after the one before it (autocorrelation 0.8), as
latencies do. `sequential` judges counts only."""

HOSTS_TEXT = f"""\
## Latencies of {HOSTS} hosts a side

The same, with {HOSTS} hosts on each side."""

AFTER_HOSTS = """\
Samples of one host that follow each other are not independent, but a test that is given them takes them to be. That
is why `mann_whitney` takes each host as one observation, asks for five of them a side, and speaks at the end only."""


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many hours are simulated for each number")
    runs = parser.parse_args().runs
    errors, one_host, many_hosts = count_cases(), latency_cases(1), latency_cases(HOSTS)
    print(*paragraphs(INTRODUCTION), *paragraphs(COUNTS), *table(errors, COUNT_JUDGES, runs), "", sep="\n")
    print(*paragraphs(AFTER_COUNTS), *paragraphs(LATENCIES), *table(one_host, ONE_HOST, runs), "", sep="\n")
    print(*paragraphs(HOSTS_TEXT), *table(many_hosts, MANY_HOSTS, runs), "", sep="\n")
    print(AFTER_HOSTS.replace("\n", " "))


def paragraphs(text: str) -> Iterator[str]:
    """Each on one line, as the other pages have them, with an empty line after it."""
    for paragraph in text.split("\n\n"):
        yield paragraph.replace("\n", " ")
        yield ""


if __name__ == "__main__":
    main()
