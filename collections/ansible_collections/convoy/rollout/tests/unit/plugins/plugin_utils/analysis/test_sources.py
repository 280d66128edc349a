# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources: what they ask for, and how they read what was answered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.exposition import Selector
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import (
    Answer,
    Answers,
    HAProxy,
    Host,
    NothingError,
    Page,
    Prometheus,
    Request,
    SourceError,
    Window,
    grown,
    parse_instant,
    parse_range,
)

RECORDED = json.loads(
    (Path(__file__).parents[2] / "module_utils" / "fixtures" / "haproxy_2_6.json").read_text(encoding="utf-8")
)["snapshots"]
STATISTICS = RECORDED["drained"].split("\n\n")[1]
HOSTS = (Host("app1", "app1"), Host("web2", "app2"))
URL = "http://lb1:8404/stats;csv"
OTHER = "http://lb2:8404/stats;csv"


# --- HAProxy ---------------------------------------------------------------------------------------------------


def test_haproxy_is_read_by_server() -> None:
    source = HAProxy((URL,), "app", events=("hrsp_2xx",))
    assert source.requests(HOSTS) == [Request(URL)]
    found = source.read({Request(URL): Answer(STATISTICS)}, HOSTS)
    assert found.totals == {("app1", f"{URL} app1"): 1, ("web2", f"{URL} app2"): 0}
    assert found.events == {("app1", f"{URL} app1"): 1, ("web2", f"{URL} app2"): 0}
    assert found.present == {"app1", "web2"}


def statistics(*rows: str) -> str:
    return "# pxname,svname,stot,econ,eresp,hrsp_5xx,\n" + "".join(f"{row},\n" for row in rows)


def test_answers_that_never_came_are_events_and_totals_of_other_proxies_are_not() -> None:
    page = statistics(
        "front,FRONTEND,90,,,9", "app,app1,50,1,2,3", "app,app2,40,,,", "app,BACKEND,90,9,9,9", "other,app1,7,7,7,7"
    )
    found = HAProxy((URL, OTHER), "app").read({Request(URL): Answer(page), Request(OTHER): Answer(page)}, HOSTS)
    assert sum(value for (host, _key), value in found.events.items() if host == "app1") == 12
    assert sum(value for (host, _key), value in found.totals.items() if host == "app1") == 100
    assert sum(value for (host, _key), value in found.events.items() if host == "web2") == 0


@pytest.mark.parametrize(
    ("page", "error", "message"),
    [
        (Answer("<html>"), SourceError, "not understood: '<html>'"),
        (Answer(statistics("app,app1,many,,,")), SourceError, "column stot holds 'many', which is no number"),
        (Answer(error="gave no answer within 10 s"), SourceError, "http://lb1:8404/stats;csv gave no answer within"),
        (Answer(statistics("ap,app1,1,,,")), NothingError, "has no backend 'app', did you mean 'ap'?"),
    ],
)
def test_a_page_of_haproxy_that_cannot_be_used(page: Answer, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        HAProxy((URL,), "app").read({Request(URL): page}, HOSTS)
    assert message in str(caught.value)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(SourceError, match=r"no column 'hrsp_6xx', did you mean 'hrsp_5xx'\?"):
        HAProxy((URL,), "app", events=("hrsp_6xx",)).read({Request(URL): Answer(STATISTICS)}, HOSTS)


def test_credentials_of_an_address_are_masked() -> None:
    url = "http://admin:hunter2@lb1/stats;csv"
    with pytest.raises(SourceError) as caught:
        HAProxy((url,), "app").read({Request(url): Answer(error="answered 500")}, HOSTS)
    assert "hunter2" not in str(caught.value)


# --- pages of hosts --------------------------------------------------------------------------------------------

METRICS = 'requests_total{code="200"} 90\nrequests_total{code="500"} 4\nrequests_total{code="502"} 1\nqueue 3\n'
PAGE = "http://{host}:8080/metrics"


def pages(one: Answer, other: Answer) -> Answers:
    return {Request("http://app1:8080/metrics"): one, Request("http://app2:8080/metrics"): other}


def test_counters_of_a_page_are_kept_by_series() -> None:
    source = Page(PAGE, events=Selector.parse('requests_total{code=~"5.."}'), total=Selector.parse("requests_total"))
    assert source.counts
    assert [request.url for request in source.requests(HOSTS)] == [
        "http://app1:8080/metrics", "http://app2:8080/metrics",
    ]  # fmt: skip
    found = source.read(pages(Answer(METRICS), Answer("requests_total 7\n")), HOSTS)
    assert found.events == {("app1", 'requests_total{code="500"}'): 4, ("app1", 'requests_total{code="502"}'): 1}
    assert sum(found.totals.values()) == 102
    assert found.present == {"app1", "web2"}


def test_a_value_of_a_page() -> None:
    source = Page(PAGE, value=Selector.parse("queue"))
    assert not source.counts
    found = source.read(pages(Answer(METRICS), Answer("other 1\n")), HOSTS)
    assert found.values == {"app1": 3}
    assert found.present == {"app1"}


def test_a_page_that_cannot_be_read_does_not_hide_the_others() -> None:
    source = Page(PAGE, value=Selector.parse("requests_total"))
    found = source.read(pages(Answer(METRICS), Answer(error="cannot be reached: no route")), HOSTS)
    assert found.failed == {
        "app1": "http://app1:8080/metrics: the selector of the value matches 3 series, of which "
        'requests_total{code="200"} is one: name one of them',
        "web2": "http://app2:8080/metrics cannot be reached: no route",
    }
    found = source.read(pages(Answer("<html>"), Answer("requests_total 7\n")), HOSTS)
    assert "line 1 is not in Prometheus's text format" in found.failed["app1"]
    assert found.values == {"web2": 7}


# --- Prometheus ------------------------------------------------------------------------------------------------

PROMETHEUS = "http://prometheus:9090"


def vector(*series: tuple[dict[str, str], str]) -> str:
    result = [{"metric": labels, "value": [1767600000.1, value]} for labels, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def matrix(*series: tuple[dict[str, str], list[tuple[float, float]]]) -> str:
    result = [{"metric": labels, "values": [[at, str(value)] for at, value in points]} for labels, points in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def test_an_instant_query() -> None:
    source = Prometheus(PROMETHEUS + "/", query="sum(up) > 0")
    (request,) = source.requests(HOSTS)
    assert urlsplit(request.url).path == "/api/v1/query"
    assert parse_qs(urlsplit(request.url).query) == {"query": ["sum(up) > 0"]}
    found = source.read({request: Answer(vector(({}, "0.25"), ({"zone": "a"}, "NaN")))}, HOSTS)
    assert found.values[""] == 0.25
    assert math.isnan(found.values['{zone="a"}'])


def test_a_query_that_matches_nothing_says_so() -> None:
    source = Prometheus(PROMETHEUS, query="sum(upp)")
    (request,) = source.requests(HOSTS)
    with pytest.raises(NothingError, match=r"http://prometheus:9090: the query 'sum\(upp\)' matches nothing"):
        source.read({request: Answer(vector())}, HOSTS)


def test_counters_of_prometheus_by_host_with_or_without_a_port() -> None:
    source = Prometheus(PROMETHEUS, events='requests{code=~"5.."}', total="requests")
    events, totals = source.requests(HOSTS)
    found = source.read(
        {
            events: Answer(vector(({"instance": "app1:9100", "code": "500"}, "3"))),
            totals: Answer(
                vector(
                    ({"instance": "app1:9100", "code": "200"}, "90"),
                    ({"instance": "app1:9100", "code": "500"}, "3"),
                    ({"instance": "app2", "code": "200"}, "80"),
                    ({"instance": "app3", "code": "200"}, "70"),
                )
            ),
        },
        HOSTS,
    )
    assert found.events == {("app1", '{code="500",instance="app1:9100"}'): 3}
    assert sum(found.totals.values()) == 173
    assert found.present == {"app1", "web2"}


def test_one_value_of_each_host() -> None:
    source = Prometheus(PROMETHEUS, query="latency", label="node")
    (request,) = source.requests(HOSTS)
    found = source.values_by_host({request: Answer(vector(({"node": "app1"}, "1"), ({"node": "app2"}, "2")))}, HOSTS)
    assert found.values == {"app1": 1, "web2": 2}
    twice = vector(({"node": "app1", "path": "/"}, "1"), ({"node": "app1", "path": "/a"}, "2"))
    with pytest.raises(SourceError, match="gives several series of app1"):
        source.values_by_host({request: Answer(twice)}, HOSTS)


def test_a_scalar() -> None:
    text = json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1767600000, "1.5"]}})
    assert parse_instant(text, PROMETHEUS) == [({}, 1.5)]


def data(kind: Any, result: Any) -> str:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>Log in</html>", "did not answer as Prometheus does: <html>Log in</html>"),
        ("[]", "did not answer as Prometheus does"),
        ('{"status":"success"}', "did not answer as Prometheus does"),
        (
            '{"status":"error","errorType":"bad_data","error":"1:5: parse error: unclosed left parenthesis"}',
            "says bad_data: 1:5: parse error: unclosed left parenthesis",
        ),
        (matrix(), "answered a matrix: ask for a number or an instant vector"),
        (data("vector", {}), "did not answer as Prometheus does"),
        (data("vector", [{"metric": {}}]), "did not answer as Prometheus does"),
        (data("vector", [{"metric": {}, "value": [1]}]), "did not answer as Prometheus does"),
        (data("vector", [{"metric": {}, "values": [[1, "2"]]}]), "did not answer as Prometheus does"),
        (data("vector", [{"metric": {}, "value": [1, "many"]}]), "'many' is no number"),
        (data("scalar", []), "did not answer as Prometheus does"),
        (data(None, []), "answered a None"),
    ],
)
def test_what_prometheus_does_not_say(text: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_instant(text, PROMETHEUS)
    assert str(caught.value).startswith(f"{PROMETHEUS}")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [vector(), data("matrix", [{"metric": {}, "value": [1, "2"]}])])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(SourceError):
        parse_range(text, PROMETHEUS)


WINDOW = Window(1000, 1180)


def test_a_range_query() -> None:
    source = Prometheus(PROMETHEUS, query="latency")
    (request,) = source.range_requests(WINDOW)
    assert urlsplit(request.url).path == "/api/v1/query_range"
    assert parse_qs(urlsplit(request.url).query) == {
        "query": ["latency"], "start": ["1000.000"], "end": ["1180.000"], "step": ["60"],
    }  # fmt: skip
    series = matrix(({"instance": "app2:80"}, [(1000, 1), (1060, 2)]), ({"instance": "app9:80"}, [(1000, 9)]))
    assert source.read_values({request: Answer(series)}, HOSTS, WINDOW) == {"web2": [1, 2]}
    with pytest.raises(NothingError, match="'latency' matched nothing of these hosts before the deployment"):
        source.read_values({request: Answer(matrix())}, HOSTS, WINDOW)


def test_counts_before_the_deployment_see_restarts_and_new_series() -> None:
    source = Prometheus(PROMETHEUS, events="errors", total="requests")
    events, totals = source.range_requests(WINDOW)
    answers = {
        events: Answer(
            matrix(
                ({"instance": "app1", "code": "500"}, [(1000, 5), (1060, 6), (1120, 1), (1180, 3)]),
                ({"instance": "app1", "code": "502"}, [(1120, 2), (1180, 2)]),
            )
        ),
        totals: Answer(
            matrix(
                ({"instance": "app1"}, [(1000, 500), (1060, 600), (1120, 90), (1180, 190)]),
                ({"instance": "app2"}, [(1120, 5000), (1180, 5010)]),
            )
        ),
    }
    assert source.read_counts(answers, HOSTS, WINDOW) == (1 + 1 + 2 + 2, 100 + 90 + 100 + 10)
    with pytest.raises(NothingError, match="'requests' counted nothing on these hosts"):
        source.read_counts({**answers, totals: Answer(matrix())}, HOSTS, WINDOW)


def test_counts_without_a_total_are_out_of_seconds() -> None:
    source = Prometheus(PROMETHEUS, events="errors")
    (events,) = source.range_requests(WINDOW)
    answer = Answer(matrix(({"instance": "app1"}, [(1000, 5), (1180, 8)]), ({"instance": "app2"}, [(1000, 0)])))
    assert source.read_counts({events: answer}, HOSTS, WINDOW) == (3, 360)


def test_no_snapshots_have_grown_by_nothing() -> None:
    assert grown({}, ["app1"]) == 0
