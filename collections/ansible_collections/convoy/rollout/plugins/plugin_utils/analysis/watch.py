# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch over metrics: one look each interval, until every metric has its verdict, one fails, or the time is over.

Clock and fetching are passed in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis import mann_whitney, sequential, threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import Metric, MetricGate
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.counters import Series, increments
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Judgement, Look
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import (
    Label,
    MannWhitney,
    Pair,
    Scored,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import Count, Sequential, Stratum
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import (
    Answers,
    Host,
    NothingError,
    Prometheus,
    Reading,
    Request,
    SourceError,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.threshold import Threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

Fetch = Callable[[Sequence[Request]], Answers]
GRAVEST = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.PASS)


@dataclass(frozen=True)
class MetricResult:
    """How one metric ended, after how many looks."""

    metric: Metric
    judgement: Judgement
    looks: int

    @property
    def verdict(self) -> Verdict:
        """What it says; one that is undecided when another fails is inconclusive."""
        return self.judgement.verdict or Verdict.INCONCLUSIVE

    def as_dict(self) -> dict[str, Any]:
        """As an action returns it."""
        return {
            "name": self.metric.name,
            "judge": self.metric.judge,
            "verdict": self.verdict.value,
            "message": self.judgement.why,
            "dry_run": self.metric.dry_run,
            "looks": self.looks,
            "numbers": dict(self.judgement.numbers),
        }


@dataclass(frozen=True)
class GateOutcome:
    """How the gate ended. ``score`` is Kayenta's, where a metric has the judge mann_whitney."""

    verdict: Verdict
    message: str
    results: tuple[MetricResult, ...]
    elapsed: float
    score: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As an action returns it."""
        return {
            "verdict": self.verdict.value,
            "message": self.message,
            "metrics": [result.as_dict() for result in self.results],
            "score": self.score,
            "elapsed": round(self.elapsed, 3),
        }


def run(gate: MetricGate, clock: Clock, fetch: Fetch) -> GateOutcome:
    """Look until the gate is decided; a failure ends it at once."""
    watches = [_watch_of(metric, gate) for metric in gate.metrics]
    if not watches:
        nothing = "no metrics are defined, so nothing was asked: define at least one"
        return GateOutcome(Verdict.INCONCLUSIVE, nothing, (), 0.0)
    began = clock.now()
    due = 0.0
    while True:
        looking = [watch for watch in watches if not watch.settled]
        answers = fetch([request for watch in looking for request in watch.requests()])
        elapsed = clock.now() - began
        for watch in looking:
            watch.look(answers, elapsed, ended=due >= gate.duration)
        if due >= gate.duration or any(map(_fails, watches)) or all(watch.settled for watch in watches):
            return _outcome(watches, gate, elapsed)
        due = min(max(due + gate.interval, elapsed), gate.duration)
        clock.sleep(began + due - clock.now())


# --- one metric ------------------------------------------------------------------------------------------------


class _Watch(ABC):
    """What has been seen of one metric, and what that says. Subclasses make samples of readings."""

    def __init__(self, metric: Metric, gate: MetricGate) -> None:
        self.metric = metric
        self.gate = gate
        self.judgement = Judgement(None, "nothing has been looked at yet")
        self.passed: Judgement | None = None  # where a pass came early, but a failure may still come
        self.looks = 0
        self._counters = _Counters()

    @property
    def settled(self) -> bool:
        """Whether further looks cannot change the verdict."""
        verdict = self.judgement.verdict
        return verdict is not None and (self.gate.ends_early or verdict is not Verdict.PASS)

    def requests(self) -> list[Request]:
        """What the next look needs."""
        return self.metric.source.requests(self.gate.hosts)

    def look(self, answers: Answers, at: float, ended: bool) -> None:
        """Take one more look, and judge."""
        self.looks += 1
        nothing = error = ""
        sample: Any = None
        try:
            sample = self.sample(answers, at)
        except SourceError as problem:
            error = str(problem)
        except NothingError as problem:
            nothing = str(problem)
        self.judgement = self.judge(Look(at, sample, nothing, error), ended)
        if self.judgement.verdict is Verdict.PASS:
            self.passed = self.passed or self.judgement
        elif ended and self.passed and self.judgement.verdict is not Verdict.FAIL:
            self.judgement = self.passed

    @abstractmethod
    def sample(self, answers: Answers, at: float) -> Any:
        """What this look found; None where it only took the counters. Raises SourceError and NothingError."""

    @abstractmethod
    def judge(self, look: Look[Any], ended: bool) -> Judgement:
        """The judgement over all looks."""

    def read(self, answers: Answers) -> Reading:
        """The reading. Raises NothingError where it knows nothing of a canary host or of all the baseline."""
        reading = self.metric.source.read(answers, self.gate.hosts)
        self._check(reading)
        return reading

    def _check(self, reading: Reading) -> None:
        canary = [host.name for host in self.gate.canary]
        baseline = [] if self._without_baseline else [host.name for host in self.gate.baseline]
        unreached = [host for host in canary if host in reading.failed] or _if_all(baseline, reading.failed)
        if unreached:
            raise SourceError(reading.failed[unreached[0]])
        missing = [host for host in canary if host not in reading.present]
        missing = missing or _if_all(baseline, set(baseline) - reading.present)
        if missing:
            aliases = {host.name: host.alias for host in self.gate.hosts}
            there = f"only {_names(reading.present)}" if reading.present else "and none of the other hosts"
            raise NothingError(f"it finds nothing of {_names(aliases[host] for host in missing)}, {there}")

    @property
    def _without_baseline(self) -> bool:
        return self.metric.before or isinstance(self.metric.rules, Threshold)


def _names(hosts: Iterable[str]) -> str:
    names = sorted(hosts)
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"


def _if_all(hosts: Sequence[str], troubled: Any) -> list[str]:
    """The hosts, if all of them are in trouble."""
    return list(hosts) if hosts and all(host in troubled for host in hosts) else []


class _Counters:
    """The counters of the last reading, from which the next one counts."""

    def __init__(self) -> None:
        self.events: dict[Series, float] = {}
        self.totals: dict[Series, float] = {}
        self.present: frozenset[str] = frozenset()
        self.at: float | None = None

    def advance(self, reading: Reading, at: float, with_total: bool) -> dict[str, Count] | None:
        """What each host did since; None at the first reading. Without a total, the exposure is the time."""
        seconds = None if self.at is None else at - self.at
        events = increments(self.events, reading.events, self.present)
        totals = increments(self.totals, reading.totals, self.present)
        known = self.present & reading.present
        self.events.update(reading.events)
        self.totals.update(reading.totals)
        self.present |= reading.present
        self.at = at
        if seconds is None:
            return None
        return {host: _count(events.get(host, 0.0), totals.get(host, 0.0) if with_total else seconds) for host in known}


def _count(events: float, exposure: float) -> Count:
    """An event is out of something, even where the source counts it nowhere else."""
    return Count(events, max(events, exposure))


class _ThresholdWatch(_Watch):
    """Values, or the rate of the canary's events since the last look."""

    def __init__(self, metric: Metric, gate: MetricGate, rules: Threshold) -> None:
        super().__init__(metric, gate)
        self._rules = rules
        self._looks: list[Look[threshold.Values]] = []

    def requests(self) -> list[Request]:
        """Of the canary hosts only."""
        return self.metric.source.requests(self.gate.canary)

    def sample(self, answers: Answers, at: float) -> threshold.Values | None:
        """One value, or one of each series."""
        source = self.metric.source
        reading = source.read(answers, self.gate.canary)
        if not source.counts:
            if not isinstance(source, Prometheus):
                self._check(reading)
            return reading.values
        self._check(reading)
        counts = self._counters.advance(reading, at, bool(source.total))
        if counts is None:
            return None
        total = Count.sum(counts.values())
        return {"": total.events / total.exposure if total.exposure else math.nan}

    def judge(self, look: Look[threshold.Values], ended: bool) -> Judgement:
        """By the judge threshold."""
        self._looks.append(look)
        return threshold.judge(self._looks, self._rules, ended)


class _SequentialWatch(_Watch):
    """Counts of both sides since the last look, by zone."""

    def __init__(self, metric: Metric, gate: MetricGate, rules: Sequential) -> None:
        super().__init__(metric, gate)
        self._rules = rules
        self._looks: list[Look[sequential.Strata]] = []
        self._before: Count | None = None

    def requests(self) -> list[Request]:
        """Those of a look, and once those of the time before."""
        if self._before is not None:
            return super().requests()
        return super().requests() + _range_requests(self.metric, self.gate)

    def sample(self, answers: Answers, at: float) -> list[Stratum] | None:
        """What came since the last look."""
        reading = self.read(answers)
        counts = self._counters.advance(reading, at, bool(self.metric.source.total))
        if self.metric.before and self._before is None:
            self._before = self._read_before(answers)
        if counts is None:
            return None
        return list(self._strata(counts))

    def _read_before(self, answers: Answers) -> Count:
        source, window = self.metric.source, self.gate.window
        if not isinstance(source, Prometheus) or window is None:
            raise SourceError(f"metric {self.metric.name} has no source that knows what was before")
        return _count(*source.read_counts(answers, self.gate.canary, window))

    def _strata(self, counts: Mapping[str, Count]) -> Sequence[Stratum]:
        zones = {host.name: self.gate.zones.get(host.name, "") for host in self.gate.hosts}
        strata = []
        for zone in sorted({zones[host.name] for host in self.gate.canary}):
            canary = _sum(counts, [host for host in self.gate.canary if zones[host.name] == zone])
            baseline = _sum(counts, [host for host in self.gate.baseline if zones[host.name] == zone])
            strata.append(Stratum(canary, None if self.metric.before else baseline))
        return strata

    def judge(self, look: Look[sequential.Strata], ended: bool) -> Judgement:
        """By the judge sequential."""
        self._looks.append(look)
        return sequential.judge(self._looks, self._rules, ended, self._before)


def _sum(counts: Mapping[str, Count], hosts: Sequence[Host]) -> Count:
    return Count.sum(counts.get(host.name, Count()) for host in hosts)


class _MannWhitneyWatch(_Watch):
    """Values of each host of both sides."""

    def __init__(self, metric: Metric, gate: MetricGate, rules: MannWhitney) -> None:
        super().__init__(metric, gate)
        self._rules = rules
        self._looks: list[Look[Pair]] = []
        self._before: Mapping[str, Sequence[float]] | None = None

    def requests(self) -> list[Request]:
        """Those of a look, and once those of the time before."""
        if self._before is not None:
            return super().requests()
        return super().requests() + _range_requests(self.metric, self.gate)

    def sample(self, answers: Answers, at: float) -> Pair | None:
        """The value of each host; of counters, the rate since the last look."""
        values = self._values(answers, at)
        fresh: Mapping[str, Sequence[float]] = {}
        if self.metric.before and self._before is None:
            fresh = self._before = self._read_before(answers)
        if values is None:
            return None
        baseline = {host.name: [values[host.name]] for host in self.gate.baseline if host.name in values}
        canary = {host.name: [values[host.name]] for host in self.gate.canary if host.name in values}
        return Pair(canary, fresh if self.metric.before else baseline)

    def _values(self, answers: Answers, at: float) -> dict[str, float] | None:
        source = self.metric.source
        if source.counts:
            counts = self._counters.advance(self.read(answers), at, bool(source.total))
            if counts is None:
                return None
            return {
                host: count.events / count.exposure if count.exposure else math.nan for host, count in counts.items()
            }
        if isinstance(source, Prometheus):
            reading = source.values_by_host(answers, self.gate.hosts)
            self._check(reading)
            return dict(reading.values)
        return dict(self.read(answers).values)

    def _read_before(self, answers: Answers) -> Mapping[str, Sequence[float]]:
        source, window = self.metric.source, self.gate.window
        if not isinstance(source, Prometheus) or window is None:
            raise SourceError(f"metric {self.metric.name} has no source that knows what was before")
        return source.read_values(answers, self.gate.canary, window)

    def judge(self, look: Look[Pair], ended: bool) -> Judgement:
        """By the judge mann_whitney."""
        self._looks.append(look)
        return mann_whitney.judge(self._looks, self._rules, ended)


def _range_requests(metric: Metric, gate: MetricGate) -> list[Request]:
    if metric.before and gate.window and isinstance(metric.source, Prometheus):
        return metric.source.range_requests(gate.window)
    return []


def _watch_of(metric: Metric, gate: MetricGate) -> _Watch:
    if isinstance(metric.rules, Threshold):
        return _ThresholdWatch(metric, gate, metric.rules)
    if isinstance(metric.rules, Sequential):
        return _SequentialWatch(metric, gate, metric.rules)
    return _MannWhitneyWatch(metric, gate, metric.rules)


# --- the end ---------------------------------------------------------------------------------------------------


def _fails(watch: _Watch) -> bool:
    """Whether it lets the gate fail at once; of those that are scored, only all together do."""
    scored = isinstance(watch.metric.rules, MannWhitney)
    return watch.judgement.verdict is Verdict.FAIL and not watch.metric.dry_run and not scored


def _outcome(watches: Sequence[_Watch], gate: MetricGate, elapsed: float) -> GateOutcome:
    results = tuple(MetricResult(watch.metric, watch.judgement, watch.looks) for watch in watches)
    deciding = [result for result in results if not result.metric.dry_run]
    told = [
        (result.verdict, f"{result.metric.name}: {result.judgement.why}") for result in deciding if _decides(result)
    ]
    points, scored = _score(deciding, gate)
    if scored and scored.verdict:
        told.append((scored.verdict, "; ".join([scored.why, *_why_scored(deciding)])))
    if not told:
        dry = "every metric is a dry run, so nothing was decided"
        return GateOutcome(Verdict.PASS, dry, results, elapsed)
    verdict = min((verdict for verdict, _why in told), key=GRAVEST.index)
    message = "; ".join(why for each, why in told if each is verdict)
    return GateOutcome(verdict, message, results, elapsed, points)


def _decides(result: MetricResult) -> bool:
    """What is scored decides by its score, unless its source could not be read."""
    return not isinstance(result.metric.rules, MannWhitney) or result.verdict is Verdict.ERROR


def _why_scored(results: Sequence[MetricResult]) -> list[str]:
    """What took from the score."""
    return [
        f"{result.metric.name}: {result.judgement.why}"
        for result in results
        if isinstance(result.metric.rules, MannWhitney) and result.verdict is not Verdict.PASS
    ]


def _score(results: Sequence[MetricResult], gate: MetricGate) -> tuple[float | None, Judgement | None]:
    scored = [
        Scored(
            Label(str(result.judgement.numbers.get("classification", Label.NODATA.value))),
            result.metric.group,
            result.metric.critical,
        )
        for result in results
        if isinstance(result.metric.rules, MannWhitney)
    ]
    return mann_whitney.score(scored, gate.scoring) if scored else (None, None)
