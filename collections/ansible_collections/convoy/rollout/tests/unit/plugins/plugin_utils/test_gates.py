# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metric gates of a site: what may be written, and what is asked of whom."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import MetricGate
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import HAProxy, Page
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, parse_phases
from ansible_collections.convoy.rollout.plugins.plugin_utils.gates import (
    Balancers,
    asked_of,
    check_gates,
    left_out,
    metrics_of,
)

LBS = Balancers(("lb1", "lb2"), "app")
NONE = Balancers()
LATENCY = {"prometheus": {"url": "http://prometheus:9090", "query": "p95"}, "success": "< 0.3"}
FLEET = {"name": "fleet", "size": "100%"}


def canary(*gates: str, **more: Any) -> dict[str, Any]:
    return {"name": "canary", "size": 1, "bake": 60, "gates": list(gates), **more}


def check(gates: Any, *phases: dict[str, Any], options: Any = None, balancers: Balancers = LBS) -> None:
    check_gates(gates, options or {}, parse_phases(list(phases), 1), balancers)


def asked(**arguments: Any) -> MetricGate | None:
    given = {"gates": {}, "ask": None, "sides": {}, "names": {}, "options": {}, **arguments}
    return asked_of(given, 60.0, LBS)


def test_a_gate_without_a_source_reads_the_load_balancers() -> None:
    (metric,) = metrics_of({"errors": None}, LBS)
    assert metric.source == HAProxy(("haproxy://lb1", "haproxy://lb2"), "app")
    assert (metric.name, metric.judge) == ("errors", "sequential")


def test_a_gate_may_choose_columns_and_keep_the_load_balancers() -> None:
    (metric,) = metrics_of({"refused": {"haproxy": {"events": ["hrsp_4xx"]}}}, LBS)
    assert metric.source == HAProxy(("haproxy://lb1", "haproxy://lb2"), "app", events=("hrsp_4xx",))


def test_a_gate_may_read_the_page_of_a_load_balancer_instead() -> None:
    (metric,) = metrics_of({"errors": {"haproxy": {"url": "http://lb1:8404/;csv"}}}, LBS)
    assert metric.source == HAProxy(("http://lb1:8404/;csv",), "app")


def test_a_gate_may_have_another_source() -> None:
    (metric,) = metrics_of({"queue": {"page": {"url": "http://{host}/", "value": "q"}, "failure": "> 5"}}, LBS)
    assert isinstance(metric.source, Page)


@pytest.mark.parametrize(
    ("gates", "phases", "options", "complaint"),
    [
        ({}, [canary("errors"), FLEET], {}, "phase 'canary' asks the gate 'errors', which is not in rollout_gates"),
        ({"errors": {}}, [canary("eror"), FLEET], {}, "did you mean 'errors'?"),
        ({"errors": {}}, [canary("errors", bake=0), FLEET], {}, "phase 'canary' asks gates, but its bake time is 0"),
        ({"errors": {}}, [canary("errors", size="100%")], {}, "phase 'canary' is the last, and leaves no host on the"),
        ({"errors": 5}, [FLEET], {}, "rollout_gates.errors: 5 is no gate: write it as a mapping"),
        (["errors"], [FLEET], {}, "rollout_gates: ['errors'] is no mapping: write a gate below its name"),
        ({"errors": {"alpa": 0.1}}, [FLEET], {}, "rollout_gates.errors: unknown key 'alpa': did you mean 'alpha'?"),
        ({"errors": {}}, [FLEET], {"intervall": 1}, "rollout_gate_options: unknown key 'intervall'"),
        ({"errors": {}}, [FLEET], {"interval": 0}, "rollout_gate_options.interval: 0 is no time"),
    ],
)
def test_what_cannot_be_used_is_refused_with_field_value_and_rule(
    gates: Any, phases: list[dict[str, Any]], options: Any, complaint: str
) -> None:
    with pytest.raises(SpecError) as refused:
        check(gates, *phases, options=options)
    assert complaint in str(refused.value)


def test_without_load_balancers_a_gate_needs_a_source() -> None:
    with pytest.raises(SpecError, match="errors: none is given as a source"):
        check({"errors": {}}, canary("errors"), FLEET, balancers=NONE)


@pytest.mark.parametrize("gates", [["errors"], ["latency", "errors"]])
def test_phases_before_the_last_may_compare(gates: list[str]) -> None:
    check({"errors": {}, "latency": LATENCY}, canary(*gates), {**FLEET, "bake": 60, "gates": ["latency"]})


def test_both_sides_are_asked_for_the_whole_time() -> None:
    gate = asked(gates={"errors": {}, "latency": LATENCY}, ask=["errors"], sides={"canary": ["a"], "baseline": ["b"]})
    assert gate is not None
    assert [metric.name for metric in gate.metrics] == ["errors"]
    assert ([host.name for host in gate.canary], [host.name for host in gate.baseline]) == (["a"], ["b"])
    assert (gate.duration, gate.interval, gate.ends_early) == (60.0, 10.0, False)


@pytest.mark.parametrize(
    ("zones", "baseline"),
    [
        ({"a": "x", "b": "x", "c": "y"}, ["b"]),
        ({"a": "z", "b": "x", "c": "y"}, ["b", "c"]),  # nobody to compare with in the canary's zone
        ({}, ["b", "c"]),
    ],
)
def test_hosts_are_compared_within_their_zone_where_there_is_anybody(zones: dict[str, str], baseline: Any) -> None:
    gate = asked(gates={"errors": {}}, sides={"canary": ["a"], "baseline": ["b", "c"], "zones": zones})
    assert gate is not None
    assert [host.name for host in gate.baseline] == baseline


def test_a_gate_that_compares_is_left_out_only_where_nobody_chose_it() -> None:
    gates = {"errors": {}, "latency": LATENCY}
    gate = asked(gates=gates, sides={"canary": ["a"]})
    assert gate is not None
    assert [metric.name for metric in gate.metrics] == ["latency"]
    assert left_out({"gates": gates, "ask": None, "sides": {"canary": ["a"]}}, LBS) == ["errors"]
    with pytest.raises(SpecError, match="baseline: it is empty, but metric errors is compared with it"):
        asked(gates=gates, ask=["errors"], sides={"canary": ["a"]})


def test_nothing_is_asked_where_no_gate_is_named() -> None:
    assert asked(gates={"errors": {}}, ask=[]) is None
    assert asked() is None


def test_a_gate_that_has_gone_is_named() -> None:
    with pytest.raises(SpecError, match="the gate 'error', which is asked, is not there: did you mean 'errors'"):
        asked(gates={"errors": {}}, ask=["error"])
