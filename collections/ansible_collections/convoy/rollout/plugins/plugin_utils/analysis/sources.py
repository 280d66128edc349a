# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where metrics are read: Prometheus, the hosts' own pages, HAProxy's statistics.

A source says what it wants fetched, and reads what was answered; fetching itself is not done here. What matches nothing
is told apart from what cannot be reached.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt, mask
from ansible_collections.convoy.rollout.plugins.module_utils.haproxy import stat_rows
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.counters import Series, hosts_of, increments
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.exposition import (
    ExpositionError,
    Point,
    Selector,
    parse_page,
    series_name,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError


class SourceError(ConvoyError):
    """A source could not be reached, or its answer was not understood."""

    reason = "metrics_source"


class NothingError(ConvoyError):
    """The source answered, but nothing there matches."""

    reason = "metrics_nothing"


@dataclass(frozen=True)
class Request:
    """What to fetch."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came back: a text, or why there is none."""

    text: str = ""
    error: str = ""


Answers = Mapping[Request, Answer]


@dataclass(frozen=True)
class Host:
    """A host, and what the source calls it."""

    name: str
    alias: str


@dataclass(frozen=True)
class Reading:
    """What a source said at one time: values by name, or counters by host.

    ``present`` are the hosts that the source knows; only of them it can be said that nothing happened. ``failed`` says
    of hosts why they could not be read, where each has a page of its own.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    events: Mapping[Series, float] = field(default_factory=dict)
    totals: Mapping[Series, float] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """A time that is over: from ``begin`` to ``end`` (epoch seconds), read each ``step`` seconds."""

    begin: float
    end: float
    step: float = 60.0


class Source(Protocol):
    """What every source can do."""

    counts: bool  # whether it reads counters, not values

    def requests(self, hosts: Sequence[Host]) -> list[Request]:
        """What has to be fetched for one look."""

    def read(self, answers: Answers, hosts: Sequence[Host]) -> Reading:
        """What one look found. Raises SourceError and NothingError."""


def text_of(answers: Answers, request: Request) -> str:
    """The text of an answer. Raises SourceError where there is none."""
    answer = answers[request]
    if answer.error:
        raise SourceError(f"{mask(request.url.partition('?')[0])} {answer.error}")
    return answer.text


# --- HAProxy ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HAProxy:
    """The counters that HAProxy keeps of each server, from the CSV of its statistics page; of several, their sum.

    ``events`` and ``total`` are columns. ``eresp`` and ``econ`` count the answers that never came.
    """

    urls: tuple[str, ...]
    backend: str
    events: tuple[str, ...] = ("hrsp_5xx", "eresp", "econ")
    total: str = "stot"
    headers: tuple[tuple[str, str], ...] = ()
    counts: bool = True

    def requests(self, hosts: Sequence[Host]) -> list[Request]:
        """One page of each load balancer."""
        return [Request(url, self.headers) for url in self.urls]

    def read(self, answers: Answers, hosts: Sequence[Host]) -> Reading:
        """The counters of the servers that are ours."""
        names = {host.alias: host.name for host in hosts}
        events: dict[Series, float] = {}
        totals: dict[Series, float] = {}
        for request in self.requests(hosts):
            for server, row in self._servers(text_of(answers, request), request.url).items():
                if server in names:
                    series = (names[server], f"{request.url} {server}")
                    events[series] = sum(_cell(row, column, request.url) for column in self.events)
                    totals[series] = _cell(row, self.total, request.url)
        return Reading(events=events, totals=totals, present=frozenset(hosts_of(totals)))

    def _servers(self, text: str, url: str) -> dict[str, Mapping[str, str]]:
        try:
            rows = stat_rows(text)
        except TrafficError as error:
            raise SourceError(f"{mask(url)}: {excerpt(error.message)}") from None
        backends = {row["pxname"] for row in rows}
        if self.backend not in backends:
            raise NothingError(f"{mask(url)} has no backend {self.backend!r}{did_you_mean(self.backend, backends)}")
        whole = ("FRONTEND", "BACKEND")
        return {row["svname"]: row for row in rows if row["pxname"] == self.backend and row["svname"] not in whole}


def _cell(row: Mapping[str, str], column: str, url: str) -> float:
    """A counter; HAProxy leaves those empty that do not concern a server."""
    if column not in row:
        raise SourceError(f"{mask(url)} has no column {column!r}{did_you_mean(column, row)}")
    try:
        return float(row[column] or 0)
    except ValueError:
        raise SourceError(f"{mask(url)}: column {column} holds {row[column][:40]!r}, which is no number") from None


# --- the hosts' own pages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """Each host's own page of metrics; ``{host}`` in the URL stands for its name or alias.

    Either ``value`` selects one gauge of each host, or ``events`` and ``total`` select counters.
    """

    url: str
    value: Selector | None = None
    events: Selector | None = None
    total: Selector | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it reads counters."""
        return self.events is not None

    def request(self, host: Host) -> Request:
        """That host's page."""
        return Request(self.url.replace("{host}", host.alias), self.headers)

    def requests(self, hosts: Sequence[Host]) -> list[Request]:
        """A page of each host."""
        return [self.request(host) for host in hosts]

    def read(self, answers: Answers, hosts: Sequence[Host]) -> Reading:
        """What the pages say; a host whose page cannot be read does not hide the others."""
        values: dict[str, float] = {}
        events: dict[Series, float] = {}
        totals: dict[Series, float] = {}
        failed: dict[str, str] = {}
        for host in hosts:
            try:
                points = self._points(answers, self.request(host))
                values.update((host.name, point.value) for point in self._one(points, self.request(host)))
            except SourceError as error:
                failed[host.name] = str(error)
                continue
            events |= {(host.name, point.key): point.value for point in _selected(points, self.events)}
            totals |= {(host.name, point.key): point.value for point in _selected(points, self.total)}
        present = hosts_of(totals) if self.total else hosts_of(events)
        return Reading(values, events, totals, frozenset(present | values.keys()), failed)

    def _points(self, answers: Answers, request: Request) -> list[Point]:
        try:
            return parse_page(text_of(answers, request))
        except ExpositionError as error:
            raise SourceError(f"{mask(request.url)}: {error}") from None

    def _one(self, points: Sequence[Point], request: Request) -> list[Point]:
        """The series that ``value`` selects, or none."""
        found = _selected(points, self.value)
        if len(found) > 1:
            matches = f"the selector of the value matches {len(found)} series"
            raise SourceError(f"{mask(request.url)}: {matches}, of which {found[0].key} is one: name one of them")
        return found


def _selected(points: Sequence[Point], selector: Selector | None) -> list[Point]:
    return [point for point in points if selector and selector.selects(point)]


# --- Prometheus ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prometheus:
    """Queries to a Prometheus server. ``label`` is the one that names the host, with or without a port.

    Either ``query`` gives values, or ``events`` and ``total`` give counters: as they are, neither summed nor as rates,
    so that each restart is seen.
    """

    url: str
    query: str = ""
    events: str = ""
    total: str = ""
    label: str = "instance"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it reads counters."""
        return bool(self.events)

    def requests(self, hosts: Sequence[Host]) -> list[Request]:
        """Instant queries."""
        return [self._instant(query) for query in (self.query, self.events, self.total) if query]

    def read(self, answers: Answers, hosts: Sequence[Host]) -> Reading:
        """The answers to the instant queries."""
        if self.query:
            found = parse_instant(text_of(answers, self._instant(self.query)), self.url)
            if not found:
                raise NothingError(f"{mask(self.url)}: the query {self.query!r} matches nothing")
            return Reading(values={series_name("", labels): value for labels, value in found})
        events = self._by_host(parse_instant(text_of(answers, self._instant(self.events)), self.url), hosts)
        if not self.total:
            return Reading(events=events, present=frozenset(hosts_of(events)))
        totals = self._by_host(parse_instant(text_of(answers, self._instant(self.total)), self.url), hosts)
        return Reading(events=events, totals=totals, present=frozenset(hosts_of(totals)))

    def values_by_host(self, answers: Answers, hosts: Sequence[Host]) -> Reading:
        """The answer to the query as one value of each host."""
        found = self._by_host(parse_instant(text_of(answers, self._instant(self.query)), self.url), hosts)
        values: dict[str, float] = {}
        for (host, key), value in found.items():
            if host in values:
                raise SourceError(
                    f"{mask(self.url)}: the query {self.query!r} gives several series of {host} ({key} is one): "
                    f"take them together by {self.label}"
                )
            values[host] = value
        return Reading(values=values, present=frozenset(values))

    def range_requests(self, window: Window) -> list[Request]:
        """Range queries over a time that is over."""
        return [self._range(query, window) for query in (self.query, self.events, self.total) if query]

    def read_values(self, answers: Answers, hosts: Sequence[Host], window: Window) -> dict[str, list[float]]:
        """Each host's values over that time."""
        found = parse_range(text_of(answers, self._range(self.query, window)), self.url)
        names = self._names(hosts)
        values: dict[str, list[float]] = {}
        for labels, points in found:
            host = _host_of(labels, self.label, names)
            if host:
                values.setdefault(host, []).extend(value for _at, value in points)
        if not values:
            raise NothingError(f"{mask(self.url)}: {self.query!r} matched nothing of these hosts before the deployment")
        return values

    def read_counts(self, answers: Answers, hosts: Sequence[Host], window: Window) -> tuple[float, float]:
        """How many events there were over that time, out of how many (of seconds of hosts, without a total)."""
        events = self._over_time(answers, self.events, hosts, window)
        totals = self._over_time(answers, self.total, hosts, window) if self.total else events
        known = hosts_of(totals[min(totals)]) if totals else set()
        exposure = grown(totals, known) if self.total else (window.end - window.begin) * len(known)
        if not exposure:
            what = self.total or self.events
            raise NothingError(f"{mask(self.url)}: {what!r} counted nothing on these hosts before the deployment")
        return grown(events, known), exposure

    def _over_time(
        self, answers: Answers, query: str, hosts: Sequence[Host], window: Window
    ) -> dict[float, dict[Series, float]]:
        names = self._names(hosts)
        snapshots: dict[float, dict[Series, float]] = {}
        for labels, points in parse_range(text_of(answers, self._range(query, window)), self.url):
            host = _host_of(labels, self.label, names)
            for at, value in points if host else ():
                snapshots.setdefault(at, {})[(host, series_name("", labels))] = value
        return snapshots

    def _by_host(self, found: Iterable[tuple[dict[str, str], float]], hosts: Sequence[Host]) -> dict[Series, float]:
        names = self._names(hosts)
        hosted = ((_host_of(labels, self.label, names), labels, value) for labels, value in found)
        return {(host, series_name("", labels)): value for host, labels, value in hosted if host}

    def _names(self, hosts: Sequence[Host]) -> dict[str, str]:
        return {host.alias: host.name for host in hosts}

    def _instant(self, query: str) -> Request:
        return self._request("query", {"query": query})

    def _range(self, query: str, window: Window) -> Request:
        span = {"start": f"{window.begin:.3f}", "end": f"{window.end:.3f}", "step": f"{window.step:g}"}
        return self._request("query_range", {"query": query, **span})

    def _request(self, what: str, parameters: Mapping[str, str]) -> Request:
        return Request(f"{self.url.rstrip('/')}/api/v1/{what}?{urlencode(parameters)}", self.headers)


def grown(snapshots: Mapping[float, Mapping[Series, float]], known: Iterable[str]) -> float:
    """How much counters grew over all snapshots.

    ``known`` are the hosts that were there from the first one on: what is new on them afterwards has begun at 0.
    """
    hosts = set(known)
    last: dict[Series, float] = {}
    total = 0.0
    for at in sorted(snapshots):
        total += sum(increments(last, snapshots[at], hosts if last else ()).values())
        last.update(snapshots[at])
    return total


def _host_of(labels: Mapping[str, str], label: str, names: Mapping[str, str]) -> str:
    value = labels.get(label, "")
    return names.get(value) or names.get(value.rpartition(":")[0], "")


def parse_instant(text: str, url: str) -> list[tuple[dict[str, str], float]]:
    """The series of an instant query, each with its labels and its value. Raises SourceError."""
    data = _data(text, url)
    if data["resultType"] == "scalar":
        return [({}, _number(data["result"][1], url))]
    if data["resultType"] != "vector":
        raise SourceError(f"{mask(url)} answered a {data['resultType']}: ask for a number or an instant vector")
    return [(dict(item["metric"]), _number(item["value"][1], url)) for item in data["result"]]


def parse_range(text: str, url: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """The series of a range query, each with its labels and its values by time. Raises SourceError."""
    data = _data(text, url)
    if data["resultType"] != "matrix":
        raise SourceError(f"{mask(url)} answered a {data['resultType']} to a range query")
    return [
        (dict(item["metric"]), [(float(at), _number(value, url)) for at, value in item["values"]])
        for item in data["result"]
    ]


def _data(text: str, url: str) -> dict[str, Any]:
    """What Prometheus answers with; its own errors are told in its words."""
    try:
        answer = json.loads(text)
    except ValueError:
        raise SourceError(f"{mask(url)} did not answer as Prometheus does: {excerpt(text)}") from None
    status = answer.get("status") if isinstance(answer, dict) else None
    if status == "error":
        raise SourceError(f"{mask(url)} says {answer.get('errorType', 'error')}: {excerpt(str(answer.get('error')))}")
    data = answer.get("data") if status == "success" else None
    if not isinstance(data, dict) or "resultType" not in data or not _is_result(data):
        raise SourceError(f"{mask(url)} did not answer as Prometheus does: {excerpt(text)}")
    return data


def _is_result(data: Mapping[str, Any]) -> bool:
    """Whether the result has the shape that its type says."""
    result, kind = data.get("result"), data["resultType"]
    if not isinstance(result, list):
        return False
    if kind in ("scalar", "string"):
        return len(result) == 2
    return all(isinstance(item, dict) and isinstance(item.get("metric"), dict) for item in result) and all(
        isinstance(point, list) and len(point) == 2 for item in result for point in _points(item, kind)
    )


def _points(item: Mapping[str, Any], kind: str) -> list[Any]:
    """The pairs of time and value of a series; one that is no pair where there are none."""
    points = item.get("values") if kind == "matrix" else [item.get("value")]
    return points if isinstance(points, list) else [None]


def _number(text: Any, url: str) -> float:
    """Prometheus writes numbers as text: NaN, +Inf and -Inf are among them."""
    try:
        return float(text)
    except (TypeError, ValueError):
        raise SourceError(f"{mask(url)}: {str(text)[:40]!r} is no number") from None
