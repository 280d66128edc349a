# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data of which the truth is known, and how judges do on it. For the tests, and for bench/judges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement, Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import Pair
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import Count, Stratum
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

MINUTES = 60
REQUESTS = 1000  # a minute and side

Sample = TypeVar("Sample")
CountLook = Look[Sequence[Stratum]]


def poisson(random: Random, mean: float) -> int:
    """A Poisson number (Knuth's way, good for small means)."""
    limit, product, number = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        number += 1
    return number


def counts(random: Random, baseline: float, canary: float, minutes: int = MINUTES) -> list[CountLook]:
    """Errors of both sides, each minute, by their rates a minute."""
    return [
        Look(
            60.0 * minute,
            [Stratum(Count(poisson(random, canary), REQUESTS), Count(poisson(random, baseline), REQUESTS))],
        )
        for minute in range(1, minutes + 1)
    ]


def ramp(random: Random, ratio: float, minutes: int = MINUTES) -> list[CountLook]:
    """The canary's share of the requests grows from 2 % to a half, while the rate of errors swings tenfold."""
    looks = []
    for minute in range(1, minutes + 1):
        share = 0.02 + 0.48 * minute / minutes
        errors = 5.5 + 4.5 * math.sin(minute / 5)
        canary = Count(poisson(random, errors * ratio * share), 2 * REQUESTS * share)
        baseline = Count(poisson(random, errors * (1 - share)), 2 * REQUESTS * (1 - share))
        looks.append(Look(60.0 * minute, [Stratum(canary, baseline)]))
    return looks


def autocorrelated(random: Random, mean: float, rho: float, count: int, deviation: float = 10.0) -> Iterator[float]:
    """Values of one host, each of which takes after the one before it."""
    value = random.gauss(0, deviation)
    for _number in range(count):
        value = rho * value + random.gauss(0, deviation * math.sqrt(1 - rho**2))
        yield mean + value


def latencies(random: Random, baseline: float, canary: float, hosts: int, rho: float = 0.8) -> list[Look[Pair]]:
    """Latencies of each host of both sides, each minute."""
    sides = {
        "canary": [list(autocorrelated(random, canary, rho, MINUTES)) for _host in range(hosts)],
        "baseline": [list(autocorrelated(random, baseline, rho, MINUTES)) for _host in range(hosts)],
    }
    return [
        Look(
            60.0 * (minute + 1),
            Pair(
                *(
                    {f"{side}{host}": [values[minute]] for host, values in enumerate(rows)}
                    for side, rows in sides.items()
                )
            ),
        )
        for minute in range(MINUTES)
    ]


Judge = Callable[[Sequence[Look[Sample]], bool], Judgement]


def watched(looks: Sequence[Look[Sample]], judge: Judge[Sample], stop_at_pass: bool = True) -> tuple[Verdict, int]:
    """The verdict of somebody who looks each minute, and the minute in which it fell."""
    passed = 0
    for minute in range(1, len(looks) + 1):
        verdict = judge(looks[:minute], minute == len(looks)).verdict
        if verdict is Verdict.PASS and not stop_at_pass and minute < len(looks):
            passed = passed or minute
        elif verdict is not None:
            return (Verdict.PASS, passed) if passed and verdict is not Verdict.FAIL else (verdict, minute)
    return Verdict.INCONCLUSIVE, len(looks)


def verdicts(
    make: Callable[[Random], Sequence[Look[Sample]]],
    judge: Judge[Sample],
    runs: int,
    seed: int = 1,
    stop_at_pass: bool = True,
) -> list[tuple[Verdict, int]]:
    """What a judge says in many runs. The same seed makes the same data for every judge."""
    return [watched(make(Random(f"{seed}/{run}")), judge, stop_at_pass) for run in range(runs)]


def share(found: Sequence[tuple[Verdict, int]], verdict: Verdict) -> float:
    """The share of the runs that ended with that verdict."""
    return sum(each is verdict for each, _minute in found) / len(found)


def median_minute(found: Sequence[tuple[Verdict, int]], verdict: Verdict) -> int | None:
    """In which minute half of those runs had it."""
    minutes = sorted(minute for each, minute in found if each is verdict)
    return minutes[len(minutes) // 2] if minutes else None
