# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action metric_gate: what goes in, and what comes out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.convoy.rollout.plugins.action import metric_gate
from ansible_collections.convoy.rollout.plugins.modules.metric_gate import DOCUMENTATION, EXAMPLES
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import (
    COMMON,
    JUDGES,
    MetricGate,
    parse_metrics,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.watch import GateOutcome
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

LATENCY = {
    "name": "latency",
    "prometheus": {"url": "http://prometheus:9090", "query": "p95"},
    "success": "< 0.3",
}


def perform(check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    action = metric_gate.ActionModule(SimpleNamespace(check_mode=check_mode), None, None, None, None, None)
    validated = ArgumentSpecValidator(dict(metric_gate.ActionModule.SPEC)).validate(arguments)
    assert validated.error_messages == []
    return action.perform(validated.validated_parameters, {})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[MetricGate]:
    """The gates that were run; each says what its first metric is called."""
    gates: list[MetricGate] = []

    def run(gate: MetricGate, clock: Any, fetch: Any) -> GateOutcome:
        gates.append(gate)
        return GateOutcome(Verdict(gate.metrics[0].name), "11 of 11 looks good", (), 600.0)

    monkeypatch.setattr(metric_gate, "run", run)
    return gates


def test_a_pass(seen: list[MetricGate]) -> None:
    result = perform(metrics=[{**LATENCY, "name": "pass"}])
    assert result == {
        "changed": False,
        "verdict": "pass",
        "message": "11 of 11 looks good",
        "metrics": [],
        "score": None,
        "elapsed": 600.0,
        "convoy": {"lines": ["metrics: pass: 11 of 11 looks good"]},
    }
    assert (seen[0].duration, seen[0].interval, seen[0].ends_early) == (600, 60, True)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "error"])
def test_anything_else_fails_the_task(seen: list[MetricGate], verdict: str) -> None:
    result = perform(metrics=[{**LATENCY, "name": verdict}])
    assert (result["failed"], result["msg"], result["verdict"]) == (True, "11 of 11 looks good", verdict)


def test_check_mode_looks_once(seen: list[MetricGate]) -> None:
    perform(check_mode=True, metrics=[{**LATENCY, "name": "pass"}], duration=3600)
    assert seen[0].duration == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": [{**LATENCY, "success": "fast"}]}, "metrics[0].success: 'fast' is no condition"),
        ({"metrics": [LATENCY], "timeout": 0}, "timeout: 0.0 is no time: write seconds, at least 0.1"),
    ],
)
def test_a_gate_that_is_written_wrong_is_an_error(arguments: dict[str, Any], message: str) -> None:
    result = perform(**arguments)
    assert result["failed"]
    assert result["verdict"] == "error"
    assert result["msg"].startswith(message)


def test_no_metrics_are_no_pass() -> None:
    assert perform(metrics=[])["verdict"] == "inconclusive"


# --- the documentation -----------------------------------------------------------------------------------------

METRIC: dict[str, Any] = yaml.safe_load(DOCUMENTATION)["options"]["metrics"]["suboptions"]
BALANCER = {"url": "http://lb1/stats;csv", "backend": "app"}


def test_every_option_of_a_metric_is_documented() -> None:
    assert set(METRIC) == {*COMMON, *(key for keys in JUDGES.values() for key in keys)}


@pytest.mark.parametrize("judge", sorted(JUDGES))
def test_the_documented_defaults_are_those_that_are_taken(judge: str) -> None:
    told = {key: METRIC[key]["default"] for key in (*COMMON, *JUDGES[judge]) if "default" in METRIC[key]}
    plain = {"name": "errors", "judge": judge, "haproxy": BALANCER}
    if judge == "threshold":
        plain["success"] = "< 0.01"
    assert parse_metrics([{**plain, **told}]) == parse_metrics([plain])


def test_the_choices_are_those_that_are_taken() -> None:
    for judge, keys in JUDGES.items():
        for key in keys:
            for choice in METRIC[key].get("choices", ()):
                parse_metrics([{"name": "a", "judge": judge, "haproxy": BALANCER, "success": None, key: choice}])


def test_the_examples_can_be_read() -> None:
    for task in yaml.safe_load(EXAMPLES):
        assert parse_metrics(task["convoy.rollout.metric_gate"]["metrics"])
