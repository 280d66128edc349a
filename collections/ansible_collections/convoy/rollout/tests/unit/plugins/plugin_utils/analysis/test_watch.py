# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch over metrics, with a clock and answers of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import parse_gate
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Answers, Request
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.watch import GateOutcome, run
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

World = Callable[[str, float], str | Answer]  # what an address answers at a time


class FakeClock(Clock):
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 5000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)


class Fleet:
    """Fetches from a world that lives on the same clock; ``takes`` is what each fetch costs in seconds."""

    def __init__(self, world: World, clock: FakeClock, takes: float = 0.0) -> None:
        self.world = world
        self.clock = clock
        self.takes = takes
        self.fetched: list[tuple[float, str]] = []

    def __call__(self, requests: Sequence[Request]) -> Answers:
        now = self.clock.time - 5000
        self.clock.time += self.takes
        self.fetched += [(now, request.url) for request in requests]
        return {request: self._answer(request.url, now) for request in requests}

    def _answer(self, url: str, now: float) -> Answer:
        said = self.world(url, now)
        return said if isinstance(said, Answer) else Answer(said)


def watch(world: World, takes: float = 0.0, **asked: Any) -> tuple[GateOutcome, Fleet]:
    plain = {
        "canary": ["new1"], "baseline": ["old1", "old2"], "zones": {}, "names": {}, "before": None,
        "duration": 600.0, "interval": 60.0, "ends_early": True, "score": None,
    }  # fmt: skip
    clock = FakeClock()
    fleet = Fleet(world, clock, takes)
    return run(parse_gate({**plain, **asked}), clock, fleet), fleet


# --- HAProxy ---------------------------------------------------------------------------------------------------

URL = "http://lb1:8404/stats;csv"
ERRORS = {"name": "errors", "haproxy": {"url": URL, "backend": "app"}}


def balancer(rates: Mapping[str, float], requests: float = 10.0) -> World:
    """Servers with so many requests a second, and such shares of them failing."""

    def page(url: str, now: float) -> str:
        total = int(requests * now) + 500
        rows = [f"app,{server},{total},0,0,{int(rate * requests * now) + 7}" for server, rate in rates.items()]
        return "\n".join(["# pxname,svname,stot,econ,eresp,hrsp_5xx", *rows, ""])

    return page


def test_a_canary_with_more_errors_than_the_others_fails_at_once() -> None:
    outcome, fleet = watch(balancer({"new1": 0.03, "old1": 0.005, "old2": 0.005}), metrics=[ERRORS])
    assert outcome.verdict is Verdict.FAIL
    assert outcome.elapsed < 300
    assert outcome.message.startswith("errors: canary hosts ")
    assert "6 times as many" in outcome.message
    (result,) = outcome.as_dict()["metrics"]
    assert (result["name"], result["judge"], result["verdict"]) == ("errors", "sequential", "fail")
    assert result["looks"] == len(fleet.fetched)
    assert [at for at, _url in fleet.fetched] == [60.0 * look for look in range(result["looks"])]


def test_a_canary_like_the_others_passes_early() -> None:
    outcome, _fleet = watch(balancer({"new1": 0.005, "old1": 0.005, "old2": 0.005}, 100.0), metrics=[ERRORS])
    assert outcome.verdict is Verdict.PASS
    assert outcome.elapsed < 600


def test_a_gate_that_may_not_end_early_watches_for_its_whole_time() -> None:
    healthy = balancer({"new1": 0.005, "old1": 0.005, "old2": 0.005}, 100.0)
    outcome, fleet = watch(healthy, metrics=[ERRORS], ends_early=False)
    assert (outcome.verdict, outcome.elapsed, len(fleet.fetched)) == (Verdict.PASS, 600, 11)


def test_a_failure_after_an_early_pass_is_a_failure() -> None:
    healthy = balancer({"new1": 0.005, "old1": 0.005, "old2": 0.005}, 100.0)
    broken = balancer({"new1": 0.2, "old1": 0.005, "old2": 0.005}, 100.0)
    outcome, _fleet = watch(
        lambda url, now: (healthy if now <= 300 else broken)(url, now), metrics=[ERRORS], ends_early=False
    )
    assert outcome.verdict is Verdict.FAIL
    assert 300 < outcome.elapsed < 600


def test_no_traffic_is_no_pass() -> None:
    outcome, _fleet = watch(balancer({"new1": 0, "old1": 0, "old2": 0}, 0.0), metrics=[ERRORS])
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "the canary hosts had no traffic in 11 looks" in outcome.message


def test_a_server_that_is_not_there_is_named() -> None:
    outcome, _fleet = watch(balancer({"old1": 0, "old2": 0}), metrics=[ERRORS])
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.message == "errors: it finds nothing of new1, only old1, old2 (4 of 4 looks, 3 are allowed)"


def test_many_hosts_are_not_all_named() -> None:
    outcome, _fleet = watch(balancer(dict.fromkeys(OLD, 0.0)), metrics=[ERRORS], canary=NEW, baseline=OLD)
    assert "nothing of new0, new1, new2, new3 and 2 more, only old0, old1, old2, old3 and 2 more" in outcome.message


def test_servers_may_have_other_names() -> None:
    outcome, _fleet = watch(
        balancer({"srv-1": 0.5, "srv-2": 0, "srv-3": 0}),
        metrics=[ERRORS],
        names={"new1": "srv-1", "old1": "srv-2", "old2": "srv-3"},
    )
    assert outcome.verdict is Verdict.FAIL


def test_zones_are_compared_each_on_their_own() -> None:
    """Zone b is bad on both sides, and the canary has two of its three hosts there."""
    world = balancer({"new1": 0.1, "new2": 0.1, "new3": 0.005, "old1": 0.005, "old2": 0.1, "old3": 0.005})
    zones = {"new1": "b", "new2": "b", "new3": "a", "old1": "a", "old2": "b", "old3": "a"}
    sides = {"canary": ["new1", "new2", "new3"], "baseline": ["old1", "old2", "old3"]}
    assert watch(world, metrics=[ERRORS], zones=zones, **sides)[0].verdict is Verdict.PASS
    assert watch(world, metrics=[ERRORS], **sides)[0].verdict is Verdict.FAIL


def test_a_load_balancer_that_is_silent_is_an_error_and_not_a_failure() -> None:
    outcome, fleet = watch(lambda url, now: Answer(error="gave no answer within 10 s"), metrics=[ERRORS])
    assert outcome.verdict is Verdict.ERROR
    assert outcome.message == f"errors: {URL} gave no answer within 10 s (5 looks in a row, 4 are allowed)"
    assert len(fleet.fetched) == 5


def test_what_was_counted_while_nobody_could_look_is_not_lost() -> None:
    bad = balancer({"new1": 0.05, "old1": 0, "old2": 0})
    outcome, _fleet = watch(
        lambda url, now: Answer(error="no answer") if 0 < now < 240 else bad(url, now), metrics=[ERRORS]
    )
    assert (outcome.verdict, outcome.elapsed) == (Verdict.FAIL, 240)
    assert outcome.results[0].judgement.numbers["canary"] == {"events": 120, "exposure": 2400}


def test_a_load_balancer_that_starts_again_makes_no_negative_rate() -> None:
    bad = balancer({"new1": 0.05, "old1": 0.05, "old2": 0.05})
    outcome, _fleet = watch(lambda url, now: bad(url, now if now < 90 else now - 90), metrics=[ERRORS], duration=180.0)
    counts = outcome.results[0].judgement.numbers["canary"]
    assert counts["exposure"] >= 600
    assert 0 <= counts["events"] <= counts["exposure"]


def test_one_look_only() -> None:
    outcome, fleet = watch(balancer({"new1": 0, "old1": 0, "old2": 0}), metrics=[ERRORS], duration=0.0)
    assert (outcome.verdict, len(fleet.fetched)) == (Verdict.INCONCLUSIVE, 1)
    assert outcome.message == "errors: 1 look gave nothing to count: look for longer"


def test_slow_answers_do_not_pile_up_looks() -> None:
    _outcome, fleet = watch(
        balancer({"new1": 0.005, "old1": 0.005, "old2": 0.005}), takes=100.0, metrics=[ERRORS], duration=250.0
    )
    assert [at for at, _url in fleet.fetched] == [0, 100, 200, 300]


def test_a_threshold_on_the_rate_of_the_canary_alone() -> None:
    metric = {**ERRORS, "judge": "threshold", "failure": "> 0.02"}
    outcome, _fleet = watch(balancer({"new1": 0.03}), metrics=[metric], baseline=[])
    assert (outcome.verdict, outcome.elapsed) == (Verdict.FAIL, 60)
    assert outcome.message == "errors: 0.03 (bad is > 0.02) (1 of 1 look bad, 0 are allowed)"
    silent, _fleet = watch(balancer({"new1": 0.0}, 0.0), metrics=[metric], baseline=[])
    assert silent.verdict is Verdict.INCONCLUSIVE


# --- several metrics -------------------------------------------------------------------------------------------

PROMETHEUS = "http://prometheus:9090"
LATENCY = {"name": "latency", "prometheus": {"url": PROMETHEUS, "query": "p95"}, "success": "< 0.3"}


def answer(kind: str, result: Any) -> str:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


def prometheus(value: float) -> World:
    return lambda url, now: answer("vector", [{"metric": {}, "value": [now, str(value)]}])


def both(haproxy: World, prom: World) -> World:
    return lambda url, now: (prom if url.startswith(PROMETHEUS) else haproxy)(url, now)


HEALTHY = balancer({"new1": 0.005, "old1": 0.005, "old2": 0.005}, 100.0)
BAD = balancer({"new1": 0.5, "old1": 0.005, "old2": 0.005}, 100.0)


def silent(url: str, now: float) -> Answer:
    return Answer(error="cannot be reached: no route")


@pytest.mark.parametrize(
    ("haproxy", "prom", "verdict"),
    [
        (HEALTHY, prometheus(0.1), Verdict.PASS),
        (HEALTHY, prometheus(0.5), Verdict.FAIL),
        (BAD, prometheus(0.1), Verdict.FAIL),
        (HEALTHY, silent, Verdict.ERROR),
        (BAD, silent, Verdict.FAIL),
        (silent, prometheus(0.5), Verdict.FAIL),
        (HEALTHY, lambda url, now: answer("vector", []), Verdict.INCONCLUSIVE),
        (silent, lambda url, now: answer("vector", []), Verdict.ERROR),
    ],
)
def test_the_gravest_verdict_decides(haproxy: World, prom: World, verdict: Verdict) -> None:
    outcome, _fleet = watch(both(haproxy, prom), metrics=[ERRORS, LATENCY])
    assert outcome.verdict is verdict


def test_a_dry_run_is_recorded_and_does_not_decide() -> None:
    outcome, _fleet = watch(both(BAD, prometheus(0.1)), metrics=[{**ERRORS, "dry_run": True}, LATENCY])
    assert outcome.verdict is Verdict.PASS
    recorded = outcome.as_dict()["metrics"][0]
    assert (recorded["verdict"], recorded["dry_run"]) == ("fail", True)
    assert outcome.message.startswith("latency: 11 of 11 looks good")


def test_dry_runs_alone_decide_nothing_and_hold_nobody_up() -> None:
    outcome, _fleet = watch(BAD, metrics=[{**ERRORS, "dry_run": True}])
    assert outcome.verdict is Verdict.PASS
    assert outcome.message == "every metric is a dry run, so nothing was decided"


def test_no_metrics_are_no_pass() -> None:
    outcome, _fleet = watch(HEALTHY, metrics=[])
    assert outcome.verdict is Verdict.INCONCLUSIVE


def test_a_metric_that_has_its_verdict_is_not_read_any_more() -> None:
    _outcome, fleet = watch(both(HEALTHY, prometheus(0.1)), metrics=[ERRORS, LATENCY])
    assert sum(url == URL for _at, url in fleet.fetched) < sum(url != URL for _at, url in fleet.fetched) == 11


# --- Prometheus ------------------------------------------------------------------------------------------------


def test_a_query_that_matches_nothing_for_long_holds() -> None:
    outcome, _fleet = watch(lambda url, now: answer("vector", []), metrics=[LATENCY], canary=[], baseline=[])
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.message == (
        "latency: http://prometheus:9090: the query 'p95' matches nothing (4 of 4 looks, 3 are allowed)"
    )


def test_a_wrong_query_is_an_error() -> None:
    wrong = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error"})
    outcome, _fleet = watch(lambda url, now: wrong, metrics=[LATENCY], canary=[], baseline=[])
    assert outcome.verdict is Verdict.ERROR


COUNTED = {"name": "errors", "prometheus": {"url": PROMETHEUS, "events": "errors", "total": "requests"}}


def history(rate: float, now_rate: float) -> World:
    """A host whose share of errors was ``rate`` in the hour before, and is ``now_rate``; 10 requests a second."""

    def said(url: str, now: float) -> str:
        asked = parse_qs(urlsplit(url).query)
        factor = 10.0 if asked["query"] == ["requests"] else 10.0 * (rate if "start" in asked else now_rate)
        labels = {"instance": "new1:9100"}
        if "start" not in asked:
            return answer("vector", [{"metric": labels, "value": [now, str(factor * now)]}])
        return answer("matrix", [{"metric": labels, "values": [[at, str(factor * at)] for at in range(0, 3660, 60)]}])

    return said


@pytest.mark.parametrize(("now_rate", "verdict"), [(0.01, Verdict.PASS), (0.03, Verdict.FAIL)])
def test_against_before(now_rate: float, verdict: Verdict) -> None:
    metric = {**COUNTED, "against": "before"}
    before = {"until": 3600}
    outcome, fleet = watch(history(0.01, now_rate), metrics=[metric], baseline=[], before=before, duration=3600.0)
    assert outcome.verdict is verdict
    assert "before the deployment 360 errors in 36000 requests (1 %)" in outcome.message
    assert sum("query_range" in url for _at, url in fleet.fetched) == 2


def test_before_is_asked_for_again_where_it_was_not_answered() -> None:
    world = history(0.01, 0.03)
    outcome, _fleet = watch(
        lambda url, now: Answer(error="no answer") if now < 100 and "query_range" in url else world(url, now),
        metrics=[{**COUNTED, "against": "before"}], baseline=[], before={"until": 3600}, duration=3600.0,
    )  # fmt: skip
    assert outcome.verdict is Verdict.FAIL


# --- Mann-Whitney ----------------------------------------------------------------------------------------------

NEW, OLD = [f"new{number}" for number in range(6)], [f"old{number}" for number in range(6)]


def queues(new: float, old: float) -> World:
    """Pages of hosts; each host differs a little from the next."""

    def page(url: str, now: float) -> str:
        host = str(urlsplit(url).hostname)
        return f"queue {(new if host.startswith('new') else old) + int(host[3:]) / 10}\n"

    return page


def queue(**changes: Any) -> dict[str, Any]:
    page = {"url": "http://{host}:8080/metrics", "value": "queue"}
    return {"name": "queue", "page": page, "judge": "mann_whitney", **changes}


def test_hosts_are_compared_at_the_end() -> None:
    outcome, fleet = watch(queues(9, 5), metrics=[queue()], canary=NEW, baseline=OLD)
    assert (outcome.verdict, outcome.elapsed, outcome.score) == (Verdict.FAIL, 600, 0)
    assert outcome.message.startswith("score 0 (passes from 95 on, marginal from 75 on); queue: High: 6 canary hosts")
    assert outcome.results[0].judgement.why.startswith("High: 6 canary hosts with a mean of 9.25, 6 of the baseline")
    assert len(fleet.fetched) == 11 * 12
    assert watch(queues(5, 5), metrics=[queue()], canary=NEW, baseline=OLD)[0].score == 100


def test_the_score_decides_over_all_that_are_compared() -> None:
    good = [queue(name=f"good{number}", direction="decrease") for number in range(3)]
    outcome, _fleet = watch(queues(9, 5), metrics=[*good, queue()], canary=NEW, baseline=OLD)
    assert (outcome.verdict, outcome.score) == (Verdict.INCONCLUSIVE, 75)
    outcome, _fleet = watch(
        queues(9, 5), metrics=[*good, queue(critical=True)], canary=NEW, baseline=OLD, score={"pass": 60}
    )
    assert (outcome.verdict, outcome.score) == (Verdict.FAIL, 0)


def test_a_baseline_host_that_cannot_be_read_is_left_out_but_not_a_canary_host() -> None:
    world = queues(5, 5)

    def without(host: str) -> World:
        return lambda url, now: Answer(error="cannot be reached") if f"/{host}:" in url else world(url, now)

    assert watch(without("old0"), metrics=[queue()], canary=NEW, baseline=OLD)[0].verdict is Verdict.PASS
    outcome, _fleet = watch(without("new0"), metrics=[queue()], canary=NEW, baseline=OLD)
    assert outcome.verdict is Verdict.ERROR
    assert "http://new0:8080/metrics cannot be reached" in outcome.message


def test_rates_of_hosts_can_be_compared_too() -> None:
    rates = {**dict.fromkeys(NEW, 0.05), **dict.fromkeys(OLD, 0.01)}
    world = balancer({host: rate + int(host[3:]) / 1000 for host, rate in rates.items()})
    outcome, _fleet = watch(world, metrics=[{**ERRORS, "judge": "mann_whitney"}], canary=NEW, baseline=OLD)
    assert outcome.verdict is Verdict.FAIL


def test_values_of_prometheus_by_host_against_before() -> None:
    def said(url: str, now: float) -> str:
        hosts = [{"instance": f"{host}:9100"} for host in NEW]
        if "query_range" in url:
            return answer(
                "matrix", [{"metric": host, "values": [[0, str(5 + index / 10)]]} for index, host in enumerate(hosts)]
            )
        return answer(
            "vector", [{"metric": host, "value": [now, str(9 + index / 10)]} for index, host in enumerate(hosts)]
        )

    metric = {"name": "p95", "prometheus": {"url": PROMETHEUS, "query": "p95"}, "judge": "mann_whitney"}
    outcome, _fleet = watch(
        said, metrics=[{**metric, "against": "before"}], canary=NEW, baseline=[], before={"until": 3600}
    )
    assert outcome.verdict is Verdict.FAIL
