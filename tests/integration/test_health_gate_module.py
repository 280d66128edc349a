# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module health_gate on a real host: a service under systemd that is healthy, slow, ill, or gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

UNIT = "convoy-test-gate"
URL = "http://127.0.0.1:18081"

# Ill as long as the file 'ill' is there.
SERVER = """
import http.server, json, os

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ill = os.path.exists("/run/convoy-test-gate/ill")
        body = json.dumps({"version": "1.10.0", "ill": ill, "db_password": "hunter2"}).encode()
        self.send_response(302 if self.path == "/login" else 500 if ill else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", 18081), Pages).serve_forever()
"""

START = f"systemctl reset-failed {UNIT} 2>/dev/null; systemd-run --quiet --unit={UNIT} python3 /run/{UNIT}/server.py"
PROBES: list[dict[str, Any]] = [
    {"kind": "http", "url": f"{URL}/healthz", "body": '"ill": false'},
    {"kind": "version", "url": f"{URL}/version", "expect": "1.10.0"},
    {"kind": "tcp", "port": 18081},
    {"kind": "systemd", "unit": f"{UNIT}.service", "restarts": 0},
    {"kind": "command", "argv": ["/usr/bin/systemctl", "is-active", f"{UNIT}.service"]},
]


@pytest.fixture(scope="module")
def host(fleet: Any) -> Iterator[Any]:
    fleet.shell("app1", f"mkdir -p /run/{UNIT}; cat > /run/{UNIT}/server.py", SERVER)
    try:
        yield fleet
    finally:
        fleet.shell("app1", f"systemctl stop {UNIT} 2>&1; rm -rf /run/{UNIT}")


@pytest.fixture
def service(host: Any) -> Any:
    host.shell("app1", f"systemctl stop {UNIT} 2>/dev/null; rm -f /run/{UNIT}/ill; {START}")
    return host


def gate(fleet: Any, probes: list[dict[str, Any]], *options: str, **wanted: Any) -> dict[str, Any]:
    result: dict[str, Any] = fleet.module(
        "app1", "convoy.rollout.health_gate", {"probes": probes, "gate": wanted}, *options
    )
    return result


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_healthy_service_passes_every_kind_of_probe(service: Any, options: tuple[str, ...]) -> None:
    result = gate(service, PROBES, *options, successes=3, interval=0.2, timeout=10)
    assert (result["verdict"], result["changed"]) == ("pass", False), result
    assert [attempt["detail"] for attempt in result["attempts"][-5:]] == [
        "answered 200",
        "says 1.10.0",
        "accepted the connection",
        "is active (running)",
        "ended with 0",
    ]


def test_what_a_host_says_of_itself(service: Any) -> None:
    unit = f"{UNIT}.service"
    probes = [
        {"kind": "process", "unit": unit, "cwd": "/", "port": 18081},
        {"kind": "log", "unit": unit, "pattern": "Traceback"},
        {"kind": "disk", "path": "/run", "free_percent": 0, "free_mb": 1},
        {"kind": "memory", "free_percent": 0, "free_mb": 1},
        {"kind": "dns", "host": "localhost"},
    ]
    result = gate(service, probes, successes=1, interval=0.2, timeout=10)
    assert result["verdict"] == "pass", result


@pytest.mark.parametrize(
    ("probe", "detail"),
    [
        ({"kind": "process", "cwd": "/srv"}, "works in / (expected /srv): an older process still runs"),
        ({"kind": "process", "port": 9}, "listens on 18081 (expected 9)"),
        ({"kind": "log", "pattern": "GET /seen"}, "has 1 line that match 'GET /seen': "),
    ],
    ids=["stale process", "other port", "log"],
)
def test_what_a_host_says_of_itself_when_it_is_ill(service: Any, probe: dict[str, Any], detail: str) -> None:
    assert gate(service, PROBES[2:3], successes=1, interval=0.2, timeout=10)["verdict"] == "pass"
    service.shell("app1", f"python3 -c 'import urllib.request as u; u.urlopen(\"{URL}/seen\")'")
    result = gate(service, [{**probe, "unit": f"{UNIT}.service"}], successes=1, interval=0.2, deadline=0.5, timeout=10)
    assert result["verdict"] == "fail"
    assert detail in result["msg"]


def test_a_service_that_starts_slowly_passes_once_it_is_there(service: Any) -> None:
    # Healthy from the third time it is asked, however fast or slow this machine is.
    script = f"echo >> /run/{UNIT}/asked; test $(wc -l < /run/{UNIT}/asked) -ge 3"
    service.shell("app1", f"rm -f /run/{UNIT}/asked")
    result = gate(service, [{"kind": "command", "argv": ["/bin/sh", "-c", script], "timeout": 20}], interval=0.1)
    assert result["verdict"] == "pass"
    assert [attempt["ok"] for attempt in result["attempts"]] == [False, False, True, True]


def test_an_ill_service_fails_with_what_it_answered(service: Any) -> None:
    service.shell("app1", f"touch /run/{UNIT}/ill")
    result = gate(service, PROBES[:1], deadline=3, successes=1)
    assert (result["failed"], result["verdict"]) == (True, "fail")
    assert result["msg"].startswith(f"probe http {URL}/healthz answered 500 (expected 200): ")
    assert result["msg"].endswith(" rounds failed within the deadline of 3 s")
    assert "hunter2" not in str(result)


def test_a_redirect_and_another_version_are_failures(service: Any) -> None:
    for probe, words in (
        ({"kind": "http", "url": f"{URL}/login"}, "answered 302 (expected 200)"),
        ({"kind": "version", "url": URL, "expect": "1.1.0"}, "says 1.10.0 (expected 1.1.0)"),
    ):
        result = gate(service, [probe], deadline=5, interval=10, successes=1)
        assert result["verdict"] == "fail"
        assert words in result["msg"]


def test_a_service_that_is_gone_fails(service: Any) -> None:
    service.shell("app1", f"systemctl kill --signal=KILL {UNIT}")
    result = gate(service, [PROBES[3]], deadline=5, interval=4)
    assert (result["failed"], result["verdict"]) == (True, "fail")
    assert "result signal" in result["msg"]


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ({"kind": "systemd", "unit": "convoy-test-gaet.service"}, "knows no unit 'convoy-test-gaet.service'"),
        ({"kind": "command", "argv": ["/usr/local/bin/nowhere"]}, "'/usr/local/bin/nowhere' was not found"),
        ({"kind": "http", "url": URL, "body": "("}, "probes[0].body is '(': must be a regular expression"),
    ],
)
def test_a_gate_that_cannot_be_used_is_an_error(service: Any, probe: dict[str, Any], words: str) -> None:
    result = gate(service, [probe])
    assert (result["failed"], result["verdict"]) == (True, "error")
    assert words in result["msg"]


def test_nothing_to_ask_is_no_pass(host: Any) -> None:
    result = gate(host, [])
    assert (result["failed"], result["verdict"]) == (True, "inconclusive")
