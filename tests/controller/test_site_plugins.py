# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of what a site adds, run for real: a module and task files for hooks and for a load balancer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from .conftest import ROOT, Ended, Site

TASKS = ROOT / "plugins" / "tasks"
CURRENT = {"component": "hello", "version": "1.1.0", "environment": "staging", "rollout": "20260105-091500-3fa2"}
Answer = tuple[int, dict[str, Any]]


@dataclass
class Service:
    """Something that is asked over HTTP; ``answer`` makes the answer to a request and its number."""

    url: str = ""
    answer: Callable[[str, int], Answer] = lambda method, number: (200, {})
    requests: list[tuple[str, str, Any]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service.requests.append((self.command, self.path, json.loads(content or "null")))
            status, body = service.answer(self.command, len(service.requests))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *arguments: Any) -> None:
            """The tests look at the requests."""

    for method in ("GET", "PUT", "POST"):
        setattr(Handler, f"do_{method}", Handler.do)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


def run(site: Site, tasks: str, **variables: Any) -> Ended:
    """Run a task file on app1, as Convoy includes it."""
    play = {
        "hosts": "app1",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_tasks": str(TASKS / tasks)}],
    }
    playbook = site.directory / "play.yml"
    playbook.write_text(json.dumps([play]))
    return site.run(str(playbook), "-e", json.dumps(variables))


# warming up


def test_a_service_that_is_warm_passes_at_once(site: Site, service: Service) -> None:
    ended = run(site, "warm_up.yml", site_warm_up_urls=[f"{service.url}/a", f"{service.url}/b"], site_warm_up_within=5)
    assert ended.rc == 0
    assert [path for _, path, _ in service.requests] == ["/a", "/b"]


def test_a_service_gets_warm(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (200 if number >= 3 else 503, {})
    assert run(site, "warm_up.yml", site_warm_up_urls=[service.url], site_warm_up_within=5).rc == 0
    assert len(service.requests) == 3


def test_a_service_that_stays_cold_fails(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (503, {})
    ended = run(site, "warm_up.yml", site_warm_up_urls=[service.url], site_warm_up_patience=0.3)
    assert ended.rc == 2
    assert "not warm after 0.3 s" in ended.said
    assert f"{service.url} answered 503" in ended.said


# announcing


GATE = {"phase": "canary", "hosts": ["app1", "app2"], "bake": 30.0, "bake_left": 0.0}


def test_a_phase_is_announced(site: Site, service: Service) -> None:
    ended = run(site, "announce.yml", site_webhook=f"{service.url}/hook", rollout_current=CURRENT, rollout_gate=GATE)
    assert ended.rc == 0
    text = "hello 1.1.0 runs in staging on app1, app2: phase canary has passed"
    assert service.requests == [("POST", "/hook", {"text": text, "rollout": CURRENT["rollout"]})]


def test_a_webhook_that_is_away_turns_nothing_back(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (500, {})
    assert run(site, "announce.yml", site_webhook=service.url, rollout_current=CURRENT, rollout_gate=GATE).rc == 0
    assert len(service.requests) == 1


# a load balancer of the site's own


def test_a_host_is_drained_when_its_last_session_has_ended(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (200, {"sessions": max(0, 3 - number)})
    assert run(site, "drain.yml", site_balancer=service.url).rc == 0
    asked = [("GET", "/servers/app1", None)] * 2
    assert service.requests == [("PUT", "/servers/app1", {"state": "drain"}), *asked]


def test_a_host_with_sessions_is_not_drained(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (200, {"sessions": 1})
    assert run(site, "drain.yml", site_balancer=service.url, site_balancer_patience=1).rc == 2


def test_a_load_balancer_that_is_away_drains_nothing(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (500, {})
    assert run(site, "drain.yml", site_balancer=service.url, site_balancer_patience=1).rc == 2
    assert len(service.requests) == 1


def test_a_host_is_back_when_the_load_balancer_finds_it_healthy(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (200, {"health": "up" if number >= 3 else "down"})
    assert run(site, "undrain.yml", site_balancer=service.url).rc == 0
    asked = [("GET", "/servers/app1", None)] * 2
    assert service.requests == [("PUT", "/servers/app1", {"state": "ready"}), *asked]


def test_a_host_that_stays_down_is_not_back(site: Site, service: Service) -> None:
    service.answer = lambda method, number: (200, {"health": "down"})
    assert run(site, "undrain.yml", site_balancer=service.url, site_balancer_patience=1).rc == 2
