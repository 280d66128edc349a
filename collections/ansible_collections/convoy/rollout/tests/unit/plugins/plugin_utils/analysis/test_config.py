# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users may write of metrics, and what they are told when it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import (
    MetricGate,
    parse_gate,
    parse_metrics,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import Limits
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.mann_whitney import MannWhitney, Scoring
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sequential import Sequential
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import (
    HAProxy,
    Host,
    Page,
    Prometheus,
    Window,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.threshold import Condition, Threshold
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError

BALANCER = {"url": "http://lb1:8404/stats;csv", "backend": "app"}
QUERY = {"url": "http://prometheus:9090", "query": "latency"}
COUNTED = {"url": "http://prometheus:9090", "events": "errors", "total": "requests"}
PAGE = {"url": "http://{host}:8080/metrics", "value": "queue"}
ERRORS = {"name": "errors", "haproxy": BALANCER}
LATENCY = {"name": "latency", "prometheus": QUERY, "success": "< 0.3"}


def asked(**changes: Any) -> dict[str, Any]:
    plain = {
        "metrics": [ERRORS],
        "canary": ["app1"],
        "baseline": ["app2", "app3"],
        "zones": {},
        "names": {},
        "before": None,
        "duration": 600.0,
        "interval": 60.0,
        "ends_early": True,
        "score": None,
    }
    return {**plain, **changes}


def gate(**changes: Any) -> MetricGate:
    return parse_gate(asked(**changes))


def test_counts_are_judged_sequentially_and_values_by_threshold() -> None:
    errors, latency = parse_metrics([ERRORS, LATENCY])
    assert errors.rules == Sequential()
    assert errors.judge == "sequential"
    assert errors.source == HAProxy(("http://lb1:8404/stats;csv",), "app")
    assert latency.rules == Threshold((Condition("<", 0.3),))
    assert latency.judge == "threshold"
    assert latency.source == Prometheus("http://prometheus:9090", "latency")


def test_everything_that_can_be_said_of_a_sequential_test() -> None:
    (metric,) = parse_metrics(
        [
            {
                "name": "errors", "prometheus": {**COUNTED, "label": "node", "headers": {"Authorization": "Bearer x"}},
                "judge": "sequential", "alpha": "0.05", "beta": 0.1, "minimum_effect": 1.5, "acceptable": 0,
                "undecided": "pass", "of": "timeouts", "against": "before", "dry_run": "yes",
                "inconclusive_limit": 0, "error_limit": 9,
            }
        ]
    )  # fmt: skip
    assert metric.rules == Sequential(0.05, 0.1, 1.5, 0.0, Verdict.PASS, True, "timeouts", Limits(0, 9))
    assert metric.source == Prometheus(
        "http://prometheus:9090", "", "errors", "requests", "node", (("Authorization", "Bearer x"),)
    )
    assert metric.before
    assert metric.dry_run


def test_everything_that_can_be_said_of_a_threshold() -> None:
    (metric,) = parse_metrics(
        [
            {
                "name": "queue", "page": PAGE, "judge": "threshold", "success": [">= 1", "<=5"], "failure": "> 1e3",
                "failure_limit": 2, "consecutive": True, "successes": 3,
            }
        ]
    )  # fmt: skip
    assert metric.rules == Threshold(
        (Condition(">=", 1), Condition("<=", 5)), (Condition(">", 1000),), failures=2, consecutive=True, successes=3
    )
    assert isinstance(metric.source, Page)


def test_everything_that_can_be_said_of_mann_whitney() -> None:
    (metric,) = parse_metrics(
        [
            {
                "name": "latency", "prometheus": QUERY, "judge": "mann_whitney", "direction": "increase",
                "confidence": 0.95, "tolerance": 0.1, "allowed_increase": 1.1, "allowed_decrease": 0.9,
                "nan": "replace", "outliers": "remove", "unit": "sample", "least_hosts": 3, "group": "speed",
                "critical": True,
            }
        ]
    )  # fmt: skip
    assert metric.rules == MannWhitney("increase", 0.95, 0.1, 1.1, 0.9, True, True, False, 3)
    assert (metric.group, metric.critical, metric.judge) == ("speed", True, "mann_whitney")


def test_several_load_balancers_and_columns() -> None:
    source = {"url": ["http://lb1/;csv", "https://lb2/;csv"], "backend": "app", "events": "hrsp_4xx", "total": "lbtot"}
    (metric,) = parse_metrics([{"name": "errors", "haproxy": source}])
    assert metric.source == HAProxy(("http://lb1/;csv", "https://lb2/;csv"), "app", ("hrsp_4xx",), "lbtot")


def test_a_gate() -> None:
    found = gate(
        zones={"app1": "a", "app2": "a", "app3": "b"}, names={"app2": "web2"}, before={"until": "7200", "seconds": 600}
    )
    assert found.canary == (Host("app1", "app1"),)
    assert found.baseline == (Host("app2", "web2"),)
    assert found.window == Window(6600, 7200)
    assert found.scoring == Scoring(95, 75, {})
    assert gate(score={"pass": 60}).scoring == Scoring(60, 60, {})


def errors(**changes: Any) -> list[dict[str, Any]]:
    return [{**ERRORS, **changes}]


def latency(**changes: Any) -> list[dict[str, Any]]:
    return [{**LATENCY, **changes}]


WRONG = [
    ({"metrics": "errors"}, "metrics: 'errors' is no list of metrics"),
    ({"metrics": ["errors"]}, "metrics[0]: 'errors' is no metric: write it as a mapping"),
    ({"metrics": [{"haproxy": BALANCER}]}, "metrics[0]: 'name' is missing"),
    ({"metrics": errors(name=" ")}, "metrics[0].name: ' ' is no text"),
    ({"metrics": [ERRORS, ERRORS]}, "metrics: the name 'errors' is used twice"),
    ({"metrics": errors(alhpa=0.1)}, "metrics[0]: unknown key 'alhpa': did you mean 'alpha'?"),
    ({"metrics": [{"name": "a"}]}, "metrics[0]: none is given as a source: give one of haproxy, page, prometheus"),
    ({"metrics": errors(page=PAGE)}, "metrics[0]: haproxy and page is given as a source"),
    ({"metrics": errors(judge="seqential")}, "metrics[0].judge: 'seqential' is unknown: did you mean 'sequential'?"),
    ({"metrics": errors(success="< 1")}, "metrics[0]: 'success' is of the judge threshold, but this metric has seq"),
    ({"metrics": errors(alpha=1)}, "metrics[0].alpha: 1 is out of range: write a number between 0 and 1"),
    ({"metrics": errors(alpha="little")}, "metrics[0].alpha: 'little' is out of range"),
    ({"metrics": errors(beta=True)}, "metrics[0].beta: True is out of range"),
    ({"metrics": errors(minimum_effect=1)}, "metrics[0].minimum_effect: 1 is out of range: it is the ratio"),
    ({"metrics": errors(acceptable=5)}, "metrics[0].acceptable: 5 is out of range: a share of requests is below 1"),
    ({"metrics": errors(acceptable=-1)}, "metrics[0].acceptable: -1 is out of range: write a number of at least 0"),
    ({"metrics": errors(undecided="fail")}, "metrics[0].undecided: 'fail' is unknown"),
    ({"metrics": errors(error_limit=1.5)}, "metrics[0].error_limit: 1.5 is no count"),
    ({"metrics": errors(dry_run="maybe")}, "metrics[0].dry_run: 'maybe' is neither true nor false"),
    ({"metrics": errors(against="before")}, "metrics[0].against: 'before' needs prometheus"),
    ({"metrics": latency(against="before")}, "metrics[0].against: 'before' needs prometheus and the judge"),
    ({"metrics": latency(success=None)}, "metrics[0]: 'success' or 'failure' is missing"),
    ({"metrics": latency(success="0.3")}, "metrics[0].success: '0.3' is no condition: write a comparison"),
    ({"metrics": latency(success="< fast")}, "metrics[0].success: '< fast' is no condition"),
    ({"metrics": latency(success="< nan")}, "metrics[0].success: '< nan' is no condition"),
    ({"metrics": latency(failure=[])}, "metrics[0].failure: [] is no list of texts: give at least one"),
    ({"metrics": latency(success=None, judge="sequential")}, "metrics[0]: the judge sequential counts: give 'events'"),
    (
        {"metrics": [{"name": "a", "prometheus": {"url": "http://p", "events": "e"}, "acceptable": 0.1}]},
        "metrics[0].acceptable: it is a share of the requests, but the source gives no 'total'",
    ),
    ({"metrics": errors(haproxy="lb1")}, "metrics[0].haproxy: 'lb1' is no source: write it as a mapping"),
    ({"metrics": errors(haproxy={"url": "http://lb1"})}, "metrics[0].haproxy: 'backend' is missing"),
    ({"metrics": errors(haproxy={**BALANCER, "url": "lb1"})}, "metrics[0].haproxy.url: 'lb1' is no address"),
    ({"metrics": errors(haproxy={**BALANCER, "url": "file:///etc"})}, "is no address: write one that begins with"),
    ({"metrics": errors(haproxy={"backend": "app"})}, "metrics[0].haproxy.url: () is no list of texts"),
    ({"metrics": errors(haproxy={**BALANCER, "headers": "x"})}, "metrics[0].haproxy.headers: they are no mapping"),
    (
        {"metrics": latency(prometheus={**QUERY, "events": "errors"})},
        "metrics[0].prometheus: give either 'query', or 'events' with the 'total'",
    ),
    ({"metrics": latency(prometheus={"url": "http://p"})}, "metrics[0].prometheus: give either 'query', or 'events'"),
    (
        {"metrics": [{"name": "q", "page": {**PAGE, "value": "a b"}, "success": "< 1"}]},
        "metrics[0].page.value: 'a b' is no selector of series",
    ),
    ({"interval": 0}, "interval: 0 is no time: write seconds, more than 0"),
    ({"duration": -1}, "duration: -1 is no time"),
    ({"canary": []}, "canary: it is empty, but metric errors is read of the canary hosts"),
    ({"baseline": []}, "baseline: it is empty, but metric errors is compared with it"),
    ({"baseline": ["app1", "app2"]}, "baseline: app1 is a canary host too"),
    (
        {"zones": {"app1": "a", "app2": "b", "app3": "b"}},
        "baseline: no host is in a zone of the canary (a): leave zones out",
    ),
    (
        {"metrics": [{"name": "a", "prometheus": COUNTED, "against": "before"}]},
        "before: it is missing, but metric a compares with it",
    ),
    ({"before": {"seconds": 60}}, "before: 'until' is missing"),
    ({"before": {"until": 100, "seconds": 60}}, "before.seconds: 60 is out of range: write a number of at least 120"),
    ({"before": {"untill": 1}}, "before: unknown key 'untill': did you mean 'until'?"),
    ({"score": {"pass": 101}}, "score.pass: 101 is out of range: write a number from 0 to 100"),
    ({"score": {"pass": 50, "marginal": 60}}, "score.marginal: 60 is out of range: write a number from 0 to 50"),
    ({"score": {"weights": {"a": 60, "b": 50}}}, "score.weights: they are 110 together"),
    ({"score": {"weights": ["a"]}}, "score.weights: ['a'] is no mapping of groups"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _changes, message in WRONG])
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        gate(**changes)
    assert message in str(caught.value)


def test_a_threshold_on_a_query_needs_no_hosts() -> None:
    assert gate(metrics=[LATENCY], canary=[], baseline=[]).hosts == ()


def test_nothing_to_compare_with_is_needed_against_before() -> None:
    metric = {"name": "errors", "prometheus": COUNTED, "against": "before"}
    assert gate(metrics=[metric], baseline=[], before={"until": 7200}).window == Window(3600, 7200)


def test_secrets_of_headers_are_not_told() -> None:
    with pytest.raises(SpecError) as caught:
        gate(metrics=errors(haproxy={**BALANCER, "headers": "Bearer hunter2"}))
    assert "hunter2" not in str(caught.value)
