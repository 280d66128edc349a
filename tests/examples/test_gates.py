# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of the example service, each caught by the probe that is meant for it and by no other."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import gate

from .conftest import Running, launch

Start = Callable[..., Running]
WHOLE_ROUND = {"interval": 0.05, "timeout": 10}
TIMES = 200


def probes(port: int, within: float = 5.0) -> list[dict[str, Any]]:
    """What a site would ask of the service."""
    url = f"http://127.0.0.1:{port}"
    return [
        {"kind": "tcp", "name": "port", "port": port},
        {"kind": "http", "name": "health", "url": f"{url}/healthz", "body": "^ok$"},
        {"kind": "http", "name": "page", "url": f"{url}/", "within": within},
        {"kind": "version", "name": "version", "url": f"{url}/version", "expect": "1.0.0"},
    ]


def failing(result: gate.GateResult) -> dict[str, str]:
    """The probes that failed in the last round, with what they saw."""
    last = result.attempts[-4:]
    return {attempt["probe"].partition(" ")[0]: attempt["detail"] for attempt in last if not attempt["ok"]}


def started(start: Start, **faults: Any) -> Running:
    return start(version="1.0.0", **faults)


@pytest.mark.parametrize(
    ("faults", "caught"),
    [
        ({"health_status": 500}, {"health": "answered 500 (expected 200): unhealthy"}),
        ({"error_rate": 1.0}, {"page": "answered 500 (expected 200): error"}),
        ({"latency": 1.5}, {"page": "answered 200 after 1."}),
        (
            {"redirect_login": True},
            dict.fromkeys(
                ("health", "page"), "answered 302 and pointed to /login, which is not followed (expected 200)"
            ),
        ),
        ({"error_page_200": True}, {"health": "answered 200, but its body does not match '^ok$': <html><body><h1>"}),
        ({"reported_version": "0.9.0"}, {"version": "says 0.9.0 (expected 1.0.0)"}),
    ],
    ids=["500 of the health page", "500 of the page", "latency", "login", "error page with 200", "wrong version"],
)
def test_a_fault_is_caught_by_the_probe_that_is_meant_for_it(start: Start, faults: Any, caught: dict[str, str]) -> None:
    running = started(start, **faults)
    within = 1.0 if "latency" in faults else 5.0
    result = gate.once(gate.validate(probes(running.port, within), WHOLE_ROUND), gate.Clock())
    assert result.verdict == "fail"
    seen = failing(result)
    assert seen.keys() == caught.keys()
    assert all(seen[probe].startswith(words) for probe, words in caught.items()), seen


def test_flapping_is_caught_by_rounds_in_a_row_and_by_the_watch(start: Start) -> None:
    running = started(start, flapping=3)
    asked = probes(running.port)
    patient = gate.run(gate.validate(asked, {**WHOLE_ROUND, "successes": 4, "deadline": 3}), gate.Clock())
    assert (patient.verdict, "health (http" in patient.message) == ("fail", True)
    watched = gate.watch(gate.validate(asked, WHOLE_ROUND), 60, gate.Clock())
    assert (watched.verdict, failing(watched)) == ("fail", {"health": "answered 503 (expected 200): flapping"})


def test_a_crash_after_the_gate_has_passed_is_caught_by_the_watch(start: Start) -> None:
    running = started(start, crash_after=5.0)
    checked = gate.validate(probes(running.port), {**WHOLE_ROUND, "successes": 2})
    assert gate.run(checked, gate.Clock()).verdict == "pass"
    watched = gate.watch(checked, 120, gate.Clock())
    assert watched.verdict == "fail"
    assert "port" in failing(watched) or "health" in failing(watched)
    assert watched.elapsed < 60
    assert running.process.wait(30) == 70


@pytest.mark.parametrize(("deadline", "verdict"), [(1.0, "fail"), (60.0, "pass")])
def test_a_slow_start_is_a_matter_of_the_deadline(tmp_path: Path, deadline: float, verdict: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"address": "127.0.0.1", "port": port, "version": "1.0.0", "start_delay": 4.0}))
    process = launch(config)
    try:
        result = gate.run(gate.validate(probes(port), {**WHOLE_ROUND, "deadline": deadline}), gate.Clock())
    finally:
        process.kill()
        process.communicate()
    assert result.verdict == verdict
    assert "refused the connection" in result.attempts[0]["detail"]


def test_a_healthy_service_passes_each_time_under_load(start: Start) -> None:
    running = started(start)
    checked = gate.validate(probes(running.port), {"timeout": 30})
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            assert running.get("/")[0] == 200

    clients = [threading.Thread(target=ask_on) for _client in range(4)]
    for client in clients:
        client.start()
    try:
        results = [gate.once(checked, gate.Clock()) for _time in range(TIMES)]
    finally:
        over.set()
        for client in clients:
            client.join()
    assert [result.message for result in results if not result.passed] == []
    assert running.metrics()['hello_requests_total{endpoint="/",code="200"}'] > TIMES
