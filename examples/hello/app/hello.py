#!/usr/bin/env python3
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small real HTTP service to roll out: ``hello.py CONFIG.json``.

It answers ``/``, ``/healthz``, ``/version`` and ``/metrics``. Settings come from
``defaults.json`` of the release (where the build puts a version's faults) and are
overridden by the file given as argument. On SIGTERM it answers every connection that
the kernel has accepted, then exits with 0.
"""

from __future__ import annotations

import difflib
import json
import os
import select
import selectors
import signal
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, NamedTuple

RELEASE = Path(__file__).resolve().parent.parent

DEFAULTS: dict[str, Any] = {
    "version": "0.0.0",  # of the release; the build sets it
    "address": "",  # to listen on; empty is all of the host's
    "port": 8080,
    "greeting": "Hello",
    "read_timeout": 10.0,  # seconds that a client may take to send its request
    "start_delay": 0.0,  # seconds before the port is opened
    "crash_after": 0.0,  # seconds after start; 0 is never
    "latency": 0.0,  # seconds added to every answer of /
    "error_rate": 0.0,  # part of the answers of / that are 500, evenly spread
    "health_status": 200,  # what /healthz answers
    "flapping": 0,  # /healthz: so many good answers, then as many 503, and again
    "redirect_login": False,  # everything that needs a login answers 302 to /login
    "error_page_200": False,  # /healthz: an error page with status 200
    "reported_version": "",  # what /version says instead of the truth
}

LOGIN = "/login"
ENDPOINTS = ("/", "/healthz", "/version", "/metrics", LOGIN)
ERROR_PAGE = "<html><body><h1>Something went wrong</h1></body></html>\n"
EXIT_BAD_CONFIG = 2
EXIT_CRASH = 70


class ConfigError(Exception):
    """A setting that the service cannot run with."""


class Answer(NamedTuple):
    """What a request gets: status, content type, body, and where a redirect points."""

    status: int
    kind: str
    body: str
    location: str | None = None


def text(status: int, body: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", body)


def load_config(*paths: Path) -> dict[str, Any]:
    """Settings of DEFAULTS overridden by each JSON file in turn."""
    config = dict(DEFAULTS)
    for path in paths:
        config.update(_read_settings(path))
    return config


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a JSON object of settings")
    for key, value in settings.items():
        _check_setting(path, key, value)
    return settings


def _check_setting(path: Path, key: str, value: Any) -> None:
    if key not in DEFAULTS:
        near = difflib.get_close_matches(key, DEFAULTS, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{path}: unknown setting '{key}'{hint}")
    expected = type(DEFAULTS[key])
    numeric = expected is float and type(value) is int
    if type(value) is not expected and not numeric:
        raise ConfigError(f"{path}: '{key}' must be of type {expected.__name__}, not {value!r}")
    if expected in (int, float) and value < 0:
        raise ConfigError(f"{path}: '{key}' must not be negative, not {value!r}")


class Metrics:
    """Counts of what was answered, printed in the Prometheus text format."""

    def __init__(self, version: str, started: float) -> None:
        self._version = version
        self._started = started
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds = 0.0

    def observe(self, path: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[path if path in ENDPOINTS else "other", status] += 1
            self._seconds += seconds

    def render(self) -> str:
        with self._lock:
            requests, seconds = sorted(self._requests.items()), self._seconds
        lines = ["# HELP hello_requests_total Requests answered.", "# TYPE hello_requests_total counter"]
        lines += [
            f'hello_requests_total{{endpoint="{path}",code="{status}"}} {count}' for (path, status), count in requests
        ]
        lines += [
            "# HELP hello_request_duration_seconds Time spent in answering.",
            "# TYPE hello_request_duration_seconds summary",
            f"hello_request_duration_seconds_sum {seconds:.6f}",
            f"hello_request_duration_seconds_count {sum(count for _key, count in requests)}",
            "# HELP process_start_time_seconds Start of the process, seconds since the epoch.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started:.3f}",
            "# HELP hello_build_info The version that runs.",
            "# TYPE hello_build_info gauge",
            f'hello_build_info{{version="{self._version}"}} 1',
        ]
        return "\n".join(lines) + "\n"


class Service:
    """What each endpoint answers under the given settings."""

    def __init__(self, config: dict[str, Any], metrics: Metrics) -> None:
        self._config = config
        self.metrics = metrics
        self._lock = threading.Lock()
        self._greetings = 0
        self._health_checks = 0
        self._endpoints: dict[str, Callable[[], Answer]] = {
            "/": self._greet,
            "/healthz": self._health,
            "/version": self._version,
            "/metrics": self._metrics,
            LOGIN: self._login,
        }

    def answer(self, path: str) -> Answer:
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            return text(404, "no such page\n")
        if self._config["redirect_login"] and path in ("/", "/healthz"):
            return Answer(302, "text/plain; charset=utf-8", "log in first\n", LOGIN)
        return endpoint()

    def _greet(self) -> Answer:
        with self._lock:
            self._greetings += 1
            number, rate = self._greetings, self._config["error_rate"]
        time.sleep(self._config["latency"])
        if int(number * rate) > int((number - 1) * rate):
            return text(500, "error\n")
        greeting, version = self._config["greeting"], self._config["version"]
        return text(200, f"{greeting} from {socket.gethostname()}, version {version}\n")

    def _health(self) -> Answer:
        with self._lock:
            check = self._health_checks
            self._health_checks += 1
        period = self._config["flapping"]
        if period and (check // period) % 2:
            return text(503, "flapping\n")
        if self._config["error_page_200"]:
            return Answer(200, "text/html; charset=utf-8", ERROR_PAGE)
        status = self._config["health_status"]
        return text(status, "ok\n" if status == 200 else "unhealthy\n")

    def _version(self) -> Answer:
        version = self._config["reported_version"] or self._config["version"]
        return Answer(200, "application/json", json.dumps({"version": version}) + "\n")

    def _metrics(self) -> Answer:
        return Answer(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())

    def _login(self) -> Answer:
        return text(200, "user and password, please\n")


class Handler(BaseHTTPRequestHandler):
    """One connection, one request (HTTP/1.0): nothing idle is left to wait for at the end."""

    server: Server
    wbufsize = -1  # head and body leave together: a health check may close after the first bytes

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.read_timeout)

    def do_GET(self) -> None:
        begin = time.monotonic()
        path = self.path.split("?", 1)[0]
        answer = self.server.service.answer(path)
        self.server.service.metrics.observe(path, answer.status, time.monotonic() - begin)
        self._send(answer)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode("utf-8")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        if answer.location:
            self.send_header("Location", answer.location)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "hello"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Answers are counted in /metrics, not logged one by one."""


class Server(ThreadingHTTPServer):
    """Listens until told to stop, then answers all that was accepted by then."""

    daemon_threads = False  # server_close() joins the threads of open requests
    allow_reuse_address = True
    request_queue_size = 128
    timeout = 0  # handle_request() does not wait: run() does

    def __init__(self, address: tuple[str, int], service: Service, read_timeout: float) -> None:
        self.service = service
        self.read_timeout = read_timeout
        self._backlog_empty = False
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """As HTTPServer does it, without its look-up of the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = "hello"
        self.server_port = int(self.socket.getsockname()[1])

    def run(self, stop: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(stop, selectors.EVENT_READ)
            selector.register(self, selectors.EVENT_READ)
            stopped = False
            while not stopped:
                for key, _events in selector.select():
                    if key.fileobj is stop:
                        stopped = True
                    else:
                        self.handle_request()
        self._answer_backlog()
        self.server_close()

    def _answer_backlog(self) -> None:
        self._backlog_empty = False
        while not self._backlog_empty:
            self.handle_request()

    def handle_timeout(self) -> None:
        self._backlog_empty = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        log(f"request of {client_address[0]} broke off: {error!r}")


def log(message: str) -> None:
    print(f"hello: {message}", file=sys.stderr, flush=True)


def crash() -> None:
    log("crashing, as crash_after says")
    os._exit(EXIT_CRASH)


def schedule_crash(seconds: float) -> None:
    if seconds:
        timer = threading.Timer(seconds, crash)
        timer.daemon = True
        timer.start()


def serve(config: dict[str, Any], stop: socket.socket) -> None:
    """Serve until ``stop`` is readable."""
    metrics = Metrics(config["version"], time.time())
    schedule_crash(config["crash_after"])
    if select.select([stop], [], [], config["start_delay"])[0]:
        return
    address = (config["address"], config["port"])
    server = Server(address, Service(config, metrics), config["read_timeout"])
    log(f"version {config['version']} listens on port {server.server_port}")
    server.run(stop)


def readable_when_signalled(*numbers: signal.Signals) -> socket.socket:
    """A socket to select on: a handler that took a lock could meet the code that holds it."""
    stop, signalled = socket.socketpair()
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.detach())
    for number in numbers:
        signal.signal(number, lambda *_args: None)
    return stop


def main() -> int:
    if len(sys.argv) != 2:
        log("usage: hello.py CONFIG.json")
        return EXIT_BAD_CONFIG
    try:
        config = load_config(RELEASE / "defaults.json", Path(sys.argv[1]))
    except ConfigError as error:
        log(str(error))
        return EXIT_BAD_CONFIG
    serve(config, readable_when_signalled(signal.SIGTERM, signal.SIGINT))
    log("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
