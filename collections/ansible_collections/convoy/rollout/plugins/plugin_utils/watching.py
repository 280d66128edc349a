# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watching hosts and metrics at the same time: one verdict, and whatever fails ends it for all.

How a host is asked, and how metrics are read, is passed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.watch import GRAVEST, GateOutcome
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.text import table

SLICE = 3.0  # seconds for which a host is asked in one call: so soon it sees that something else has failed


@dataclass(frozen=True)
class Said:
    """What a host, or the metrics, said: a verdict, why, and all that is known of it."""

    verdict: Verdict
    why: str
    details: Mapping[str, Any] = field(default_factory=dict)


Ask = Callable[[float], Said]  # watches a host for so many seconds
Judge = Callable[[Clock], GateOutcome]  # watches the metrics, by that clock


class _OverError(Exception):
    """Something else has failed, so that there is nothing left to wait for."""


class _SharedClock(Clock):
    """A clock on which nobody sleeps on once the watch is over."""

    def __init__(self, clock: Clock, over: threading.Event) -> None:
        self._clock = clock
        self._over = over

    def now(self) -> float:
        """As the clock has it."""
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        """Wait, in short naps. Raises _OverError once the watch is over."""
        ends = self.now() + seconds
        while not self._over.is_set():
            left = ends - self.now()
            if left <= 0:
                return
            self._clock.sleep(min(left, 0.2))
        raise _OverError


@dataclass(frozen=True)
class Outcome:
    """How a watch ended: one verdict over all hosts and metrics, and what each of them said."""

    verdict: Verdict
    why: str
    hosts: Mapping[str, Said]
    metrics: GateOutcome | None
    elapsed: float

    def as_dict(self) -> dict[str, Any]:
        """As an action returns it."""
        hosts = [
            {"host": host, "verdict": said.verdict.value, "message": said.why, **said.details}
            for host, said in self.hosts.items()
        ]
        return {
            "verdict": self.verdict.value,
            "message": self.why,
            "hosts": hosts,
            "metrics": self.metrics.as_dict()["metrics"] if self.metrics else [],
            "score": self.metrics.score if self.metrics else None,
            "elapsed": round(self.elapsed, 3),
        }

    def lines(self) -> list[str]:
        """How each host and metric is, for people; the verdict over all of them is the last line."""
        rows = [(host, said.verdict.value, said.why) for host, said in self.hosts.items()]
        for result in self.metrics.results if self.metrics else ():
            dry = " (dry run)" if result.metric.dry_run else ""
            rows.append((result.metric.name, f"{result.verdict}{dry}", result.judgement.why))
        return [*(table(rows) if rows else []), f"{self.verdict}: {self.why}"]


def watch(
    hosts: Mapping[str, Ask],
    judge: Judge | None,
    seconds: float,
    clock: Clock,
    wanted: Callable[[], bool] | None = None,
) -> Outcome:
    """Watch every host, and the metrics where there are any, for so many seconds; what fails ends it for all.

    It ends too, inconclusive, as soon as it is not ``wanted`` any more.
    """
    over = threading.Event()
    shared = _SharedClock(clock, over)
    began = clock.now()
    with ThreadPoolExecutor(max(1, len(hosts)) + 1) as pool:
        watched = {
            host: pool.submit(copy_context().run, _watch_host, ask, began + seconds, clock, over)
            for host, ask in hosts.items()
        }
        judged = pool.submit(copy_context().run, _watch_metrics, judge, shared, over) if judge else None
        still = wanted is None or _still_wanted(wanted, began + seconds, shared, over)
    metrics = judged.result() if judged else None
    said = {host: future.result() for host, future in watched.items()}
    if not still:
        return Outcome(Verdict.INCONCLUSIVE, "nobody waits for it any more", said, metrics, clock.now() - began)
    return _outcome(said, metrics, began, clock)


def _still_wanted(wanted: Callable[[], bool], ends: float, clock: Clock, over: threading.Event) -> bool:
    """Whether it was wanted until the time was over, or something had failed."""
    with suppress(_OverError):
        while clock.now() < ends:
            if not wanted():
                over.set()
                return False
            clock.sleep(min(SLICE, max(ends - clock.now(), 0.0)))
    return True


def _watch_host(ask: Ask, ends: float, clock: Clock, over: threading.Event) -> Said:
    """Ask slice by slice until the time is over, or the host says anything but pass."""
    while True:
        said = ask(min(SLICE, max(ends - clock.now(), 0.0)))
        if said.verdict is Verdict.FAIL:
            over.set()
        if said.verdict is not Verdict.PASS or over.is_set() or clock.now() >= ends:
            return said


def _watch_metrics(judge: Judge, clock: Clock, over: threading.Event) -> GateOutcome | None:
    """Their outcome; None where a host failed before they had one."""
    try:
        outcome = judge(clock)
    except _OverError:
        return None
    if outcome.verdict is Verdict.FAIL:
        over.set()
    return outcome


def _outcome(hosts: Mapping[str, Said], metrics: GateOutcome | None, began: float, clock: Clock) -> Outcome:
    elapsed = clock.now() - began
    told = [(said.verdict, f"{host}: {said.why}") for host, said in hosts.items()]
    if metrics:
        told.append((metrics.verdict, metrics.message))
    if not told:
        return Outcome(Verdict.INCONCLUSIVE, "there was nothing to ask", hosts, metrics, elapsed)
    verdict = min((each for each, _why in told), key=GRAVEST.index)
    if verdict is Verdict.PASS:
        why = _all_well(hosts, metrics, elapsed)
    else:
        why = "; ".join(why for each, why in told if each is verdict)
    return Outcome(verdict, "; ".join([why, *_dry(metrics)]), hosts, metrics, elapsed)


def _all_well(hosts: Mapping[str, Said], metrics: GateOutcome | None, elapsed: float) -> str:
    healthy = f"{len(hosts)} host{'' if len(hosts) == 1 else 's'} healthy for {elapsed:.0f} s"
    parts = [healthy] if hosts else []
    return "; ".join([*parts, metrics.message] if metrics else parts)


def _dry(metrics: GateOutcome | None) -> list[str]:
    """What metrics that decide nothing said: it is to be recorded all the same."""
    results = metrics.results if metrics else ()
    return [
        f"dry run of {result.metric.name}: {result.verdict}: {result.judgement.why}"
        for result in results
        if result.metric.dry_run
    ]
