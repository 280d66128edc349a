# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action metric_gate in a playbook, against a server that answers as HAProxy and Prometheus do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Ended, Site

RATES = {"app1": 0.2, "app2": 0.01, "app3": 0.01}
A_SECOND = 2000  # requests of each server


@pytest.fixture
def url() -> Iterator[str]:
    began = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = prometheus() if "/api/v1/" in self.path else statistics(time.monotonic() - began)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def statistics(seconds: float) -> str:
    total = seconds * A_SECOND
    rows = [f"app,{server},{total:.0f},0,0,{total * rate:.0f}," for server, rate in RATES.items()]
    return "\n".join(["# pxname,svname,stot,econ,eresp,hrsp_5xx,", *rows, ""])


def prometheus() -> str:
    series = [{"metric": {}, "value": [time.time(), "0.12"]}]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}})


def gated(site: Site, where: Path, *arguments: str, **options: Any) -> tuple[Ended, dict[str, Any]]:
    """Run a play with nothing but a gate; what it ended with, and what the gate returned."""
    kept = where / "kept.json"
    tasks = [
        {"convoy.rollout.metric_gate": {"interval": 0.2, "duration": 20, **options}, "register": "gate"},
    ]
    keep = {"ansible.builtin.copy": {"content": "{{ gate | to_json }}", "dest": str(kept)}, "check_mode": False}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"block": tasks, "always": [keep]}]}
    playbook = where / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    ended = site.run(str(playbook), *arguments)
    return ended, json.loads(kept.read_text())


def errors(url: str) -> dict[str, Any]:
    return {"name": "errors", "haproxy": {"url": f"{url}/stats;csv", "backend": "app"}}


def latency(url: str) -> dict[str, Any]:
    return {"name": "latency", "prometheus": {"url": url, "query": "p95"}, "success": "< 0.3", "successes": 2}


def test_a_bad_canary_is_found_by_haproxy_counters_alone(site: Site, tmp_path: Path, url: str) -> None:
    ended, gate = gated(site, tmp_path, canary=["app1"], baseline=["app2", "app3"], metrics=[errors(url)])
    assert ended.rc == 2
    assert gate["verdict"] == "fail"
    assert gate["elapsed"] < 10
    assert gate["message"].startswith("errors: canary hosts ")
    assert "times as many" in ended.said


def test_a_good_canary_passes(site: Site, tmp_path: Path, url: str) -> None:
    ended, gate = gated(
        site, tmp_path, canary=["app2"], baseline=["app3"], metrics=[errors(url), latency(url)], duration=60
    )
    assert ended.rc == 0
    assert [metric["verdict"] for metric in gate["metrics"]] == ["pass", "pass"]


def test_check_mode_looks_once(site: Site, tmp_path: Path, url: str) -> None:
    ended, gate = gated(site, tmp_path, "--check", metrics=[{**latency(url), "successes": 0}])
    assert ended.rc == 0
    assert (gate["verdict"], gate["metrics"][0]["looks"]) == ("pass", 1)


def test_a_source_that_is_down_is_an_error(site: Site, tmp_path: Path, url: str) -> None:
    metric = {**latency("http://127.0.0.1:1"), "error_limit": 0}
    ended, gate = gated(site, tmp_path, metrics=[metric])
    assert ended.rc == 2
    assert gate["verdict"] == "error"
    assert "http://127.0.0.1:1/api/v1/query cannot be reached" in gate["message"]
