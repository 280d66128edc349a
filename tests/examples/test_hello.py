# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example service, run for real on a loopback port of the kernel's choice."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import EXAMPLES, HELLO, PATIENCE, Running, first_line, launch


def test_a_good_version_answers_on_every_endpoint(start: Callable[..., Running]) -> None:
    service = start(version="1.0.0", greeting="Good morning")
    assert service.get("/healthz")[::2] == (200, "ok\n")
    assert json.loads(service.get("/version")[2]) == {"version": "1.0.0"}
    greeting = f"Good morning from {socket.gethostname()}, version 1.0.0\n"
    assert service.get("/")[::2] == (200, greeting)
    assert service.get("/?who=me")[0] == 200
    assert service.get("/nothing")[0] == 404
    assert service.get("/", method="HEAD")[::2] == (200, "")


def test_an_answer_leaves_in_one_piece(start: Callable[..., Running]) -> None:
    """A health check that closes after the first bytes has got all of it, and causes no reset."""
    with start().connect() as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(65536).endswith(b"\r\n\r\nok\n")


def test_metrics_count_answers_by_status(start: Callable[..., Running]) -> None:
    before = time.time()
    service = start(version="1.0.0", error_rate=0.5)
    service.statuses("/", 4)
    status, headers, _body = service.get("/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    metrics = service.metrics()
    assert metrics['hello_requests_total{endpoint="/",code="200"}'] == 2
    assert metrics['hello_requests_total{endpoint="/",code="500"}'] == 2
    assert metrics['hello_requests_total{endpoint="/metrics",code="200"}'] == 1
    assert metrics["hello_request_duration_seconds_count"] == 5
    assert metrics['hello_build_info{version="1.0.0"}'] == 1
    assert before <= metrics["process_start_time_seconds"] + 0.001 <= time.time() + 1


def test_unknown_paths_share_one_series(start: Callable[..., Running]) -> None:
    service = start()
    for path in ("/a", "/b", "/c"):
        service.get(path)
    assert service.metrics()['hello_requests_total{endpoint="other",code="404"}'] == 3


@pytest.mark.parametrize(
    ("settings", "path", "statuses"),
    [
        pytest.param({"health_status": 500}, "/healthz", [500, 500], id="unhealthy"),
        pytest.param({"error_rate": 0.25}, "/", [200, 200, 200, 500], id="error-rate"),
        pytest.param({"error_rate": 1.0}, "/", [500, 500], id="only-errors"),
        pytest.param({"flapping": 2}, "/healthz", [200, 200, 503, 503, 200], id="flapping"),
        pytest.param({"redirect_login": True}, "/healthz", [302], id="redirect"),
        pytest.param({"redirect_login": True}, "/version", [200], id="redirect-not-version"),
    ],
)
def test_faults_show_in_the_status(
    start: Callable[..., Running], settings: dict[str, object], path: str, statuses: list[int]
) -> None:
    assert start(**settings).statuses(path, len(statuses)) == statuses


def test_a_redirect_points_to_the_login(start: Callable[..., Running]) -> None:
    service = start(redirect_login=True)
    assert service.get("/")[1]["Location"] == "/login"
    assert service.get("/login")[0] == 200


def test_an_error_page_can_come_with_status_200(start: Callable[..., Running]) -> None:
    status, _headers, body = start(error_page_200=True).get("/healthz")
    assert status == 200
    assert "went wrong" in body


def test_a_version_can_lie(start: Callable[..., Running]) -> None:
    service = start(version="1.5.0", reported_version="1.1.0")
    assert json.loads(service.get("/version")[2]) == {"version": "1.1.0"}
    assert "version 1.5.0" in service.get("/")[2]


def test_latency_is_added_and_measured(start: Callable[..., Running]) -> None:
    service = start(latency=0.2)
    begin = time.monotonic()
    service.get("/")
    assert time.monotonic() - begin >= 0.2
    assert service.metrics()["hello_request_duration_seconds_sum"] >= 0.2


def test_a_slow_start_opens_the_port_late(start: Callable[..., Running]) -> None:
    begin = time.monotonic()
    start(start_delay=0.5)
    assert time.monotonic() - begin >= 0.5


def test_it_crashes_when_told_to(start: Callable[..., Running]) -> None:
    service = start(crash_after=0.2)
    assert service.process.wait(timeout=PATIENCE) == 70
    assert "crashing" in service.said()


def test_sigterm_ends_an_idle_service_at_once(start: Callable[..., Running]) -> None:
    service = start()
    begin = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=PATIENCE) == 0
    assert time.monotonic() - begin < 2
    with pytest.raises(ConnectionRefusedError):
        service.connect()


def test_sigterm_ends_a_service_that_has_not_opened_its_port(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"start_delay": 3600}')
    process = launch(config)
    deadline = time.monotonic() + PATIENCE
    while not _handles(process.pid, signal.SIGTERM):
        assert time.monotonic() < deadline, "it never took SIGTERM over"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE) == 0
    process.communicate()


def _handles(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return bool(found and int(found.group(1), 16) >> (number - 1) & 1)


def test_sigterm_answers_what_is_in_flight(start: Callable[..., Running]) -> None:
    """Requests being worked on, and connections that nobody has accepted yet."""
    service = start(latency=0.3)
    working = [service.connect() for _client in range(20)]
    for client in working:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    waiting = service.connect()
    service.process.send_signal(signal.SIGTERM)
    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answers = [_read_all(client) for client in [*working, waiting]]
    assert [answer.split(b"\r\n", 1)[0] for answer in answers] == [b"HTTP/1.0 200 OK"] * 21
    assert service.process.wait(timeout=PATIENCE) == 0


def test_sigterm_is_not_held_up_by_a_client_that_says_nothing(start: Callable[..., Running]) -> None:
    service = start(read_timeout=0.2)
    with service.connect():
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=PATIENCE) == 0


def _read_all(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as stream:
        return stream.read()


def test_its_port_can_be_taken_again_at_once(start: Callable[..., Running]) -> None:
    first = start()
    first.get("/")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(timeout=PATIENCE) == 0
    second = start(port=first.port)
    assert second.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"prot": 1}', "unknown setting 'prot', did you mean 'port'?"),
        ('{"port": "8080"}', "'port' must be of type int, not '8080'"),
        ('{"port": true}', "'port' must be of type int, not True"),
        ('{"latency": -1}', "'latency' must not be negative, not -1"),
        ("[]", "must hold a JSON object"),
        ("{", "cannot read"),
        (None, "cannot read"),
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, content: str | None, complaint: str) -> None:
    config = tmp_path / "config.json"
    if content is not None:
        config.write_text(content)
    ended = subprocess.run(
        [sys.executable, "-B", str(HELLO), str(config)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr


def test_the_artifact_of_a_version_runs_with_its_faults(tmp_path: Path) -> None:
    """What the build packs, unpacked as a host has it: faults from inside, config from outside."""
    subprocess.run(
        [sys.executable, str(EXAMPLES / "build"), str(tmp_path), "1.2.0"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    release = tmp_path / "release"
    release.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "hello-1.2.0.tar.gz", "-C", release], check=True)
    (release / "etc").mkdir()
    (release / "etc" / "hello.json").write_text('{"address": "127.0.0.1", "port": 0}')
    process = subprocess.Popen(
        [sys.executable, "-B", "app/hello.py", "etc/hello.json"],
        cwd=release,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        line = first_line(process)
        service = Running(process, int(line.rsplit(" ", 1)[1]))
        assert "version 1.2.0" in line
        assert service.get("/healthz")[0] == 500
        assert service.get("/")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
