# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user asked for of metrics, validated before anything is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.exposition import ExpositionError, Selector
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Limits
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import (
    DIRECTIONS,
    MannWhitney,
    Scoring,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import Sequential
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import (
    HAProxy,
    Host,
    Page,
    Prometheus,
    Window,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.threshold import OPERATORS, Condition, Threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    SpecError,
    nearest,
    parse_flag,
    parse_seconds,
)

Rules = Threshold | Sequential | MannWhitney
AnySource = HAProxy | Page | Prometheus

SOURCES = ("haproxy", "page", "prometheus")
COMMON = ("name", "judge", *SOURCES, "against", "dry_run", "inconclusive_limit", "error_limit")
JUDGES: Mapping[str, tuple[str, ...]] = {
    "threshold": ("success", "failure", "failure_limit", "consecutive", "successes"),
    "sequential": ("alpha", "beta", "minimum_effect", "acceptable", "undecided", "of"),
    "mann_whitney": (
        "direction", "confidence", "tolerance", "allowed_increase", "allowed_decrease", "nan", "outliers", "unit",
        "least_hosts", "group", "critical",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One metric of a gate: where it is read, and by which rules it is judged.

    ``before`` compares with the time before the deployment, not with baseline hosts. The verdict of one that is
    ``dry_run`` is recorded, but decides nothing. ``group`` and ``critical`` are for the score.
    """

    name: str
    source: AnySource
    rules: Rules
    before: bool = False
    dry_run: bool = False
    group: str = "metrics"
    critical: bool = False

    @property
    def judge(self) -> str:
        """The judge's name."""
        names = {Threshold: "threshold", Sequential: "sequential", MannWhitney: "mann_whitney"}
        return names[type(self.rules)]

    @property
    def compares(self) -> bool:
        """Whether the canary is held against something else, not against limits."""
        return not isinstance(self.rules, Threshold)


@dataclass(frozen=True)
class MetricGate:
    """A gate: which metrics are looked at of which hosts, how often (seconds) and for how long.

    ``zones`` maps hosts to zones. ``ends_early`` ends it as soon as every metric has its verdict; a failure always
    does.
    """

    metrics: tuple[Metric, ...]
    canary: tuple[Host, ...]
    baseline: tuple[Host, ...]
    zones: Mapping[str, str]
    duration: float
    interval: float
    ends_early: bool
    window: Window | None
    scoring: Scoring

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Both sides."""
        return self.canary + self.baseline


class Options:
    """A mapping that the user wrote. What is taken is checked; the messages name field, value and rule."""

    def __init__(self, field: str, raw: Any, what: str, known: Iterable[str]) -> None:
        if not isinstance(raw, Mapping):
            raise SpecError(f"{field}: {raw!r} is no {what}: write it as a mapping")
        known = list(known)
        for key in raw:
            if key not in known:
                raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), known)}")
        self.field = field
        self.raw = {key: value for key, value in raw.items() if value is not None}

    def has(self, key: str) -> bool:
        """Whether it was given."""
        return key in self.raw

    def path(self, key: str) -> str:
        """The field's name for messages."""
        return f"{self.field}.{key}"

    def number(self, key: str, default: float, least: float = -math.inf, most: float = math.inf) -> float:
        """A number from ``least`` to ``most``."""
        value = self.raw.get(key, default)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not least <= number <= most:
            raise SpecError(f"{self.path(key)}: {value!r} is out of range: write a number {_between(least, most)}")
        return number

    def share(self, key: str, default: float) -> float:
        """A number between 0 and 1, both excluded."""
        number = self.number(key, default)
        if not 0 < number < 1:
            raise SpecError(f"{self.path(key)}: {self.raw[key]!r} is out of range: write a number between 0 and 1")
        return number

    def count(self, key: str, default: int, least: int = 0) -> int:
        """A whole number of at least ``least``."""
        number = self.number(key, default, least)
        if number != int(number):
            raise SpecError(f"{self.path(key)}: {self.raw[key]!r} is no count: write a whole number, at least {least}")
        return int(number)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return parse_flag(self.path(key), self.raw.get(key, default))

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it has to be there."""
        value = self.raw.get(key, default)
        if value is None:
            raise SpecError(f"{self.field}: {key!r} is missing")
        if not isinstance(value, str) or not (value.strip() or value == default):
            raise SpecError(f"{self.path(key)}: {value!r} is no text")
        return value.strip()

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """One of a few words."""
        value = str(self.raw.get(key, default))
        if value not in choices:
            raise SpecError(f"{self.path(key)}: {value!r} is unknown: {nearest(value, choices)}")
        return value

    def texts(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """A list of texts, or one."""
        value = self.raw.get(key, default)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not items or not all(isinstance(item, str) and item for item in items):
            raise SpecError(f"{self.path(key)}: {value!r} is no list of texts: give at least one")
        return tuple(items)


def _between(least: float, most: float) -> str:
    if most == math.inf:
        return "" if least == -math.inf else f"of at least {least:g}"
    return f"from {least:g} to {most:g}"


def parse_gate(asked: Mapping[str, Any]) -> MetricGate:
    """The gate that the arguments of the action describe. Raises SpecError."""
    interval = parse_seconds("interval", asked["interval"])
    if not interval:
        raise SpecError(f"interval: {asked['interval']!r} is no time: write seconds, more than 0")
    names = _texts("names", asked["names"])
    zones = _texts("zones", asked["zones"])
    canary, baseline = asked["canary"], asked["baseline"]
    both = sorted(set(canary) & set(baseline))
    if both:
        raise SpecError(f"baseline: {', '.join(both)} is a canary host too: a host is on one side only")
    metrics = asked["metrics"]
    gate = MetricGate(
        metrics=metrics if isinstance(metrics, tuple) else parse_metrics(metrics),
        canary=tuple(Host(name, names.get(name, name)) for name in canary),
        baseline=tuple(Host(name, names.get(name, name)) for name in _in_zones(baseline, canary, zones)),
        zones=zones,
        duration=parse_seconds("duration", asked["duration"]),
        interval=interval,
        ends_early=bool(asked["ends_early"]),
        window=_parse_window(asked["before"]),
        scoring=_parse_scoring(asked["score"]),
    )
    for metric in gate.metrics:
        _check_hosts(metric, gate)
    return gate


def _texts(field: str, raw: Mapping[str, Any]) -> dict[str, str]:
    return {str(host): str(value) for host, value in raw.items() if value is not None and f"{value}"}


def _in_zones(baseline: Sequence[str], canary: Sequence[str], zones: Mapping[str, str]) -> list[str]:
    """The baseline hosts that stand in a zone of the canary's: others are not comparable."""
    wanted = {zones.get(host, "") for host in canary}
    found = [host for host in baseline if zones.get(host, "") in wanted]
    if baseline and canary and not found:
        raise SpecError(f"baseline: no host is in a zone of the canary ({', '.join(sorted(wanted))}): leave zones out")
    return found


def _check_hosts(metric: Metric, gate: MetricGate) -> None:
    """What is compared has to be there."""
    by_host = metric.compares or not isinstance(metric.source, Prometheus) or metric.source.counts
    if by_host and not gate.canary:
        raise SpecError(f"canary: it is empty, but metric {metric.name} is read of the canary hosts: name at least one")
    if metric.before and gate.window is None:
        raise SpecError(f"before: it is missing, but metric {metric.name} compares with it: say when it ended")
    if metric.compares and not metric.before and not gate.baseline:
        raise SpecError(
            f"baseline: it is empty, but metric {metric.name} is compared with it: name hosts with the old release, "
            "or compare with before"
        )


def _parse_window(raw: Mapping[str, Any] | None) -> Window | None:
    if not raw:
        return None
    options = Options("before", raw, "time before the deployment", ("until", "seconds", "step"))
    if not options.has("until"):
        raise SpecError("before: 'until' is missing: say when the deployment began, in seconds since the epoch")
    end = options.number("until", 0.0, least=0)
    step = options.number("step", 60.0, least=1)
    return Window(end - options.number("seconds", 3600.0, least=2 * step), end, step)


def _parse_scoring(raw: Mapping[str, Any] | None) -> Scoring:
    options = Options("score", raw or {}, "score", ("pass", "marginal", "weights"))
    passes = options.number("pass", 95.0, least=0, most=100)
    marginal = options.number("marginal", min(75.0, passes), least=0, most=passes)
    raw_weights = options.raw.get("weights", {})
    weights = Options("score.weights", raw_weights, "mapping of groups", raw_weights)
    shares = {str(group): weights.number(group, 0.0, least=0, most=100) for group in weights.raw}
    if sum(shares.values()) > 100:
        raise SpecError(f"score.weights: they are {sum(shares.values()):g} together: percents are at most 100")
    return Scoring(passes, marginal, shares)


def parse_metrics(raw: Any, default: HAProxy | None = None, fields: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Read the option ``metrics``. Raises SpecError.

    ``default`` is the source of metrics that name none; ``fields`` are the names of metrics in messages.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise SpecError(f"metrics: {raw!r} is no list of metrics")
    fields = fields or [f"metrics[{index}]" for index in range(len(raw))]
    metrics = tuple(_parse_metric(field, item, default) for field, item in zip(fields, raw, strict=True))
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"metrics: the name {name!r} is used twice: metrics are told apart by their names")
    return metrics


def _parse_metric(field: str, raw: Any, default: HAProxy | None) -> Metric:
    every = [*COMMON, *(key for keys in JUDGES.values() for key in keys)]
    options = Options(field, raw, "metric", every)
    name = options.text("name")
    source = _parse_source(options, default)
    judge = options.choice("judge", "sequential" if source.counts else "threshold", sorted(JUDGES))
    for key in options.raw:
        if key not in COMMON and key not in JUDGES[judge]:
            owner = next(owner for owner, keys in JUDGES.items() if key in keys)
            raise SpecError(f"{field}: {key!r} is of the judge {owner}, but this metric has {judge}")
    before = options.choice("against", "hosts", ("before", "hosts")) == "before"
    if before and (judge == "threshold" or not isinstance(source, Prometheus)):
        raise SpecError(
            f"{field}.against: 'before' needs prometheus and the judge sequential or mann_whitney: nothing else knows "
            "what was before (for a threshold, let the query compare, with offset)"
        )
    return Metric(
        name=name,
        source=source,
        rules=_PARSERS[judge](options, source),
        before=before,
        dry_run=options.flag("dry_run", False),
        group=options.text("group", "metrics"),
        critical=options.flag("critical", False),
    )


def _limits(options: Options) -> Limits:
    return Limits(options.count("inconclusive_limit", 3), options.count("error_limit", 4))


# --- the judges ------------------------------------------------------------------------------------------------


def _parse_threshold(options: Options, source: AnySource) -> Threshold:
    success, failure = _conditions(options, "success"), _conditions(options, "failure")
    if not success and not failure:
        raise SpecError(
            f"{options.field}: 'success' or 'failure' is missing: a threshold needs one of them, e.g. '< 0.01'"
        )
    return Threshold(
        success=success,
        failure=failure,
        failures=options.count("failure_limit", 0),
        consecutive=options.flag("consecutive", False),
        successes=options.count("successes", 0),
        limits=_limits(options),
    )


def _conditions(options: Options, key: str) -> tuple[Condition, ...]:
    if not options.has(key):
        return ()
    return tuple(_condition(options.path(key), text) for text in options.texts(key, ()))


def _condition(field: str, text: str) -> Condition:
    for sign in OPERATORS:  # the longer ones come first
        if text.strip().startswith(sign):
            try:
                limit = float(text.strip().removeprefix(sign))
            except ValueError:
                break
            if not math.isnan(limit):
                return Condition(sign, limit)
    raise SpecError(f"{field}: {text!r} is no condition: write a comparison with a number, such as '< 0.01'")


def _parse_sequential(options: Options, source: AnySource) -> Sequential:
    if not source.counts:
        raise SpecError(f"{options.field}: the judge sequential counts: give 'events' and 'total' instead of a value")
    effect = options.number("minimum_effect", 2.0)
    if not 1 < effect < math.inf:
        raise SpecError(
            f"{options.path('minimum_effect')}: {effect:g} is out of range: it is the ratio of the rates that matters, "
            "more than 1 (2 is twice as many)"
        )
    requests = bool(source.total)
    if options.has("acceptable") and not requests:
        raise SpecError(f"{options.path('acceptable')}: it is a share of the requests, but the source gives no 'total'")
    acceptable = options.number("acceptable", 0.001, least=0)
    if acceptable >= 1:
        raise SpecError(f"{options.path('acceptable')}: {acceptable:g} is out of range: a share of requests is below 1")
    return Sequential(
        alpha=options.share("alpha", 0.01),
        beta=options.share("beta", 0.01),
        minimum_effect=effect,
        acceptable=acceptable,
        undecided=Verdict(options.choice("undecided", "inconclusive", ("inconclusive", "pass"))),
        requests=requests,
        of=options.text("of", "errors"),
        limits=_limits(options),
    )


def _parse_mann_whitney(options: Options, source: AnySource) -> MannWhitney:
    return MannWhitney(
        direction=options.choice("direction", "either", DIRECTIONS),
        confidence=options.share("confidence", 0.98),
        tolerance=options.number("tolerance", 0.25, least=0),
        allowed_increase=options.number("allowed_increase", 1.0, least=1),
        allowed_decrease=options.number("allowed_decrease", 1.0, least=0, most=1),
        zero_for_nan=options.choice("nan", "remove", ("remove", "replace")) == "replace",
        without_outliers=options.choice("outliers", "keep", ("keep", "remove")) == "remove",
        by_host=options.choice("unit", "host", ("host", "sample")) == "host",
        least=options.count("least_hosts", 5, least=2),
        limits=_limits(options),
    )


_PARSERS: Mapping[str, Callable[[Options, AnySource], Rules]] = {
    "threshold": _parse_threshold,
    "sequential": _parse_sequential,
    "mann_whitney": _parse_mann_whitney,
}


# --- the sources -----------------------------------------------------------------------------------------------


def _parse_source(options: Options, default: HAProxy | None) -> AnySource:
    given = [kind for kind in SOURCES if options.has(kind)]
    if default and not given:
        return default
    if default and given == ["haproxy"]:
        return _parse_haproxy(options.path("haproxy"), options.raw["haproxy"], default)
    if len(given) != 1:
        said = " and ".join(given) or "none"
        raise SpecError(f"{options.field}: {said} is given as a source: give one of {', '.join(SOURCES)}")
    field = options.path(given[0])
    return _SOURCE_PARSERS[given[0]](field, options.raw[given[0]])


def _parse_haproxy(field: str, raw: Any, default: HAProxy | None = None) -> HAProxy:
    """``default`` has the load balancers and the backend for a source that names none."""
    options = Options(field, raw, "source", ("url", "backend", "events", "total", "headers"))
    urls = default.urls if default and not options.has("url") else None
    return HAProxy(
        urls=urls or tuple(_url(options.path("url"), url) for url in options.texts("url", ())),
        backend=options.text("backend", default.backend if default else None),
        events=options.texts("events", HAProxy.events),
        total=options.text("total", HAProxy.total),
        headers=_headers(options),
    )


def _parse_page(field: str, raw: Any) -> Page:
    options = Options(field, raw, "source", ("url", "value", "events", "total", "headers"))
    _check_values_or_counts(options, "value")
    return Page(
        url=_url(options.path("url"), options.text("url")),
        value=_selector(options, "value"),
        events=_selector(options, "events"),
        total=_selector(options, "total"),
        headers=_headers(options),
    )


def _parse_prometheus(field: str, raw: Any) -> Prometheus:
    options = Options(field, raw, "source", ("url", "query", "events", "total", "label", "headers"))
    _check_values_or_counts(options, "query")
    return Prometheus(
        url=_url(options.path("url"), options.text("url")),
        query=options.text("query", ""),
        events=options.text("events", ""),
        total=options.text("total", ""),
        label=options.text("label", "instance"),
        headers=_headers(options),
    )


_SOURCE_PARSERS: Mapping[str, Callable[[str, Any], AnySource]] = {
    "haproxy": _parse_haproxy,
    "page": _parse_page,
    "prometheus": _parse_prometheus,
}


def _check_values_or_counts(options: Options, value: str) -> None:
    if options.has(value) == options.has("events") or (options.has(value) and options.has("total")):
        raise SpecError(f"{options.field}: give either {value!r}, or 'events' with the 'total' that they are out of")


def _selector(options: Options, key: str) -> Selector | None:
    if not options.has(key):
        return None
    try:
        return Selector.parse(options.text(key))
    except ExpositionError as error:
        raise SpecError(f"{options.path(key)}: {error}") from None


def _url(field: str, text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise SpecError(f"{field}: {text!r} is no address: write one that begins with http:// or https://")
    return text


def _headers(options: Options) -> tuple[tuple[str, str], ...]:
    raw = options.raw.get("headers", {})
    if not isinstance(raw, Mapping):
        raise SpecError(f"{options.path('headers')}: they are no mapping of names to texts")
    return tuple((str(name), str(value)) for name, value in raw.items())
