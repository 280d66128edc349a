# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts and metrics, watched at the same time: one verdict, and whatever fails ends it for all."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import parse_metrics
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.watch import GateOutcome, MetricResult
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.watching import Said, watch

ONCE = 0.0


class HandClock(Clock):
    """Time that passes when somebody sleeps or asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 100.0

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


def healthy(clock: HandClock, asked: list[float] | None = None) -> Callable[[float], Said]:
    def ask(seconds: float) -> Said:
        if asked is not None:
            asked.append(seconds)
        clock.sleep(seconds)
        return Said(Verdict.PASS, "well")

    return ask


def says(verdict: Verdict, why: str) -> Callable[[float], Said]:
    return lambda _seconds: Said(verdict, why)


def metrics(verdict: Verdict, why: str, *dry: tuple[Verdict, str]) -> Callable[[Clock], GateOutcome]:
    def result(number: int, one: Verdict, told: str) -> MetricResult:
        page = {"url": "http://{host}/", "value": "v"}
        (metric,) = parse_metrics([{"name": f"m{number}", "page": page, "success": "< 1", "dry_run": True}])
        return MetricResult(metric, Judgement(one, told), 1)

    results = tuple(result(number, *each) for number, each in enumerate(dry))
    return lambda _clock: GateOutcome(verdict, why, results, 1.0)


def test_hosts_are_asked_slice_by_slice_until_the_time_is_over() -> None:
    clock, asked = HandClock(), list[float]()
    outcome = watch({"app1": healthy(clock, asked)}, None, 7.0, clock)
    assert asked == [3.0, 3.0, 1.0]
    assert (outcome.verdict, outcome.why) == (Verdict.PASS, "1 host healthy for 7 s")


def test_without_a_time_every_host_is_asked_once() -> None:
    clock, asked = HandClock(), list[float]()
    watch({"app1": healthy(clock, asked)}, None, ONCE, clock)
    assert asked == [0.0]


def test_a_watch_that_nobody_waits_for_any_more_ends() -> None:
    clock, answers = HandClock(), iter([True, True, False])
    outcome = watch({"app1": healthy(clock)}, None, 1e9, clock, lambda: next(answers))
    assert (outcome.verdict, outcome.why) == (Verdict.INCONCLUSIVE, "nobody waits for it any more")


def test_a_failure_is_told_whether_somebody_waits_or_not() -> None:
    outcome = watch({"app1": says(Verdict.FAIL, "500")}, None, 1e9, HandClock(), lambda: True)
    assert (outcome.verdict, outcome.why) == (Verdict.FAIL, "app1: 500")


def test_a_host_that_fails_ends_the_metrics_too() -> None:
    def waits_for_ever(clock: Clock) -> GateOutcome:
        while True:
            clock.sleep(3600)

    outcome = watch({"app1": says(Verdict.FAIL, "it answered 500")}, waits_for_ever, 1e9, HandClock())
    assert (outcome.verdict, outcome.why) == (Verdict.FAIL, "app1: it answered 500")
    assert outcome.as_dict()["metrics"] == []


def test_metrics_that_fail_end_the_hosts_too() -> None:
    asked: list[float] = []
    clock = HandClock()
    outcome = watch({"app1": healthy(clock, asked)}, metrics(Verdict.FAIL, "errors: many"), 1e9, clock)
    assert (outcome.verdict, outcome.why) == (Verdict.FAIL, "errors: many")
    assert {said.verdict for said in outcome.hosts.values()} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("host", "judged", "verdict"),
    [
        (Verdict.PASS, Verdict.PASS, Verdict.PASS),
        (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        (Verdict.PASS, Verdict.ERROR, Verdict.ERROR),
        (Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.ERROR),
        (Verdict.ERROR, Verdict.FAIL, Verdict.FAIL),
        (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.FAIL),
    ],
)
def test_the_gravest_verdict_decides(host: Verdict, judged: Verdict, verdict: Verdict) -> None:
    outcome = watch({"app1": says(host, "h")}, metrics(judged, "m"), ONCE, HandClock())
    assert outcome.verdict is verdict


def test_nothing_to_ask_is_no_pass() -> None:
    assert watch({}, None, ONCE, HandClock()).verdict is Verdict.INCONCLUSIVE


def test_a_dry_run_is_told_but_decides_nothing() -> None:
    judge = metrics(Verdict.PASS, "errors: few", (Verdict.FAIL, "much too slow"))
    outcome = watch({"app1": says(Verdict.PASS, "well")}, judge, ONCE, HandClock())
    assert outcome.verdict is Verdict.PASS
    assert outcome.why == "1 host healthy for 0 s; errors: few; dry run of m0: fail: much too slow"


def test_the_lines_tell_every_host_and_metric() -> None:
    judge = metrics(Verdict.PASS, "errors: few", (Verdict.FAIL, "too slow"))
    lines = watch({"app1": says(Verdict.FAIL, "it answered 500")}, judge, ONCE, HandClock()).lines()
    assert [line.split()[0] for line in lines] == ["app1", "m0", "fail:"]
    assert "fail (dry run)" in lines[1]
