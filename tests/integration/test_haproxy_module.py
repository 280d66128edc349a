# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules haproxy and haproxy_info against a real HAProxy and real servers.

They use a HAProxy of their own on lb1 and a small server of their own on the application hosts, beside those of the
lab, so that what else is deployed there neither matters nor suffers.
"""

from __future__ import annotations

import csv
import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

HOSTS = ("app1", "app2", "app3")
PORT = 18080
SOCKET = "/run/convoy-test/admin.sock"

# Healthy unless the file 'sick' is there; /held is answered when the file 'go' is there. Ends what it began.
SERVER = """
import http.server, os, signal, sys, threading, time

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while self.path == "/held" and not os.path.exists("/run/convoy-test/go"):
            time.sleep(0.05)
        sick = self.path == "/healthz" and os.path.exists("/run/convoy-test/sick")
        body = b"sick" if sick else b"ok"
        self.send_response(500 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("", 18080), Pages)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
"""

HAPROXY = """
global
    maxconn 200
    stats socket /run/convoy-test/admin.sock mode 600 level admin
    stats socket /run/convoy-test/operator.sock mode 600 level operator
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout check 5s
    retries 2
    option redispatch 1
    option http-server-close
    http-reuse never
frontend www
    bind :18000
    default_backend app
backend app
    balance roundrobin
    option httpchk GET /healthz
    http-check expect status 200
    default-server check inter 300ms fastinter 100ms downinter 300ms fall 2 rise 2
    server app1 {app1}:18080
    server app2 {app2}:18080
    server app3 {app3}:18080
"""

START_SERVER = (
    "systemctl reset-failed convoy-test-web 2>/dev/null;"
    "rm -f /run/convoy-test/sick /run/convoy-test/go;"
    "systemd-run --quiet --unit=convoy-test-web python3 /run/convoy-test/server.py"
)
START_HAPROXY = (
    "systemctl reset-failed convoy-test-haproxy 2>/dev/null;"
    "systemd-run --quiet --unit=convoy-test-haproxy haproxy -db -f /run/convoy-test/haproxy.cfg;"
    f"for _ in $(seq 100); do test -S {SOCKET} && break; sleep 0.1; done"
)


class Balancer:
    """The HAProxy of these tests."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.address = fleet.address("lb1")

    def call(self, *options: str, **arguments: Any) -> dict[str, Any]:
        """The module haproxy on the load balancer."""
        wanted = {"socket": SOCKET, "backend": "app", **arguments}
        result: dict[str, Any] = self.fleet.module("lb1", "convoy.rollout.haproxy", wanted, *options)
        return result

    def states(self) -> dict[str, str]:
        """The states of all servers, by the module haproxy_info."""
        wanted = {"socket": SOCKET, "backend": "app"}
        result = self.fleet.module("lb1", "convoy.rollout.haproxy_info", wanted)
        return {name: server["state"] for name, server in result["servers"].items()}

    def tell(self, commands: str) -> str:
        """What HAProxy answers to a person at the runtime socket."""
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); "
            f"s.connect('{SOCKET}'); s.sendall(sys.stdin.buffer.read()); "
            "print(b''.join(iter(lambda: s.recv(9999), b'')).decode())"
        )
        return str(self.fleet.shell("lb1", f'python3 -c "{code}"', commands + "\n"))

    def await_row(self, host: str, column: str, value: str) -> None:
        """Wait until HAProxy says that of a server in its statistics."""
        ends = time.monotonic() + 60
        while True:
            rows = csv.DictReader(self.tell("show stat app 4 -1")[2:].splitlines())
            row = next(row for row in rows if row["svname"] == host)
            if row[column] == value:
                return
            assert time.monotonic() < ends, row

    def get(self, path: str = "/") -> int:
        """The status that a client is answered over a new connection."""
        connection = http.client.HTTPConnection(self.address, 18000, timeout=300)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def hold(self, pool: ThreadPoolExecutor, host: str) -> Future[int]:
        """A request that this server has begun and does not end before `let_go`."""
        others = [other for other in HOSTS if other != host]
        self.tell(";".join(f"set server app/{other} state drain" for other in others))
        held = pool.submit(self.get, "/held")
        self.await_row(host, "scur", "1")
        self.tell(";".join(f"set server app/{other} state ready" for other in others))
        return held

    def let_go(self, host: str) -> None:
        """Let its requests end."""
        self.fleet.shell(host, "touch /run/convoy-test/go")

    def settle(self) -> None:
        """Every server healthy and in service, and no request held."""
        for host in HOSTS:
            self.fleet.shell(host, "rm -f /run/convoy-test/sick /run/convoy-test/go")
        self.tell(";".join(f"set server app/{host} state ready" for host in HOSTS))
        result = self.call(servers=list(HOSTS), state="ready")
        assert {server["state"] for server in result["servers"].values()} == {"up"}, result


@pytest.fixture(scope="module")
def running(fleet: Any) -> Iterator[Balancer]:
    addresses = {host: fleet.address(host) for host in HOSTS}
    try:
        for host in HOSTS:
            fleet.shell(host, f"mkdir -p /run/convoy-test; cat > /run/convoy-test/server.py; {START_SERVER}", SERVER)
        settings = HAPROXY.format(**addresses)
        fleet.shell("lb1", f"mkdir -p /run/convoy-test; cat > /run/convoy-test/haproxy.cfg; {START_HAPROXY}", settings)
        yield Balancer(fleet)
    finally:
        for host in ("lb1", *HOSTS):
            fleet.shell(host, "systemctl stop convoy-test-web convoy-test-haproxy 2>&1; rm -rf /run/convoy-test")


@pytest.fixture
def balancer(running: Balancer) -> Balancer:
    running.settle()
    return running


def test_drain_and_ready_and_both_again(balancer: Balancer) -> None:
    drained = balancer.call(servers=["app1"], state="drained", min_up=2)
    assert (drained["changed"], drained["forced"], drained["servers"]["app1"]["state"]) == (True, False, "drained")
    assert balancer.call(servers=["app1"], state="drained", min_up=2)["changed"] is False
    assert balancer.states() == {"app1": "drained", "app2": "up", "app3": "up"}
    ready = balancer.call(servers=["app1"], state="ready")
    assert (ready["changed"], ready["held"], ready["servers"]["app1"]["state"]) == (True, [], "up")
    assert balancer.call(servers=["app1"], state="ready")["changed"] is False


def test_check_mode_predicts_and_changes_nothing(balancer: Balancer) -> None:
    assert balancer.call("--check", "--diff", servers=["app1"], state="drained")["changed"] is True
    assert balancer.states()["app1"] == "up"
    balancer.call(servers=["app1"], state="drained")
    assert balancer.call("--check", servers=["app1"], state="drained")["changed"] is False
    assert balancer.call("--check", servers=["app1"], state="ready")["changed"] is True
    assert balancer.states()["app1"] == "drained"


def test_a_drain_waits_for_an_open_request_which_is_answered(balancer: Balancer) -> None:
    with ThreadPoolExecutor() as pool:
        held = balancer.hold(pool, "app1")
        draining = pool.submit(balancer.call, servers=["app1"], state="drained", timeout=120)
        balancer.await_row("app1", "status", "DRAIN")
        assert not draining.done()
        assert not held.done()
        balancer.let_go("app1")
        drained = draining.result()
        assert held.result() == 200
    assert (drained["changed"], drained["forced"]) == (True, False)
    assert drained["servers"]["app1"]["sessions"] == 0


def test_a_drain_that_takes_too_long_is_undone_unless_it_is_forced(balancer: Balancer) -> None:
    with ThreadPoolExecutor() as pool:
        held = balancer.hold(pool, "app1")
        failed = balancer.call(servers=["app1"], state="drained", timeout=0.5)
        after_failure = balancer.states()["app1"]
        forced = balancer.call(servers=["app1"], state="drained", timeout=0.5, force=True)
        balancer.let_go("app1")
        assert held.result() == 200
    assert failed["failed"] is True
    assert failed["msg"].startswith("sessions have not ended 0.5 s after the drain began: app1 (1 open, 0 queued)")
    assert after_failure == "up"
    assert (forced["changed"], forced["forced"], forced["servers"]["app1"]["state"]) == (True, True, "draining")
    assert "went on with sessions" in forced["warned"]


def test_min_up_refuses_and_changes_nothing(balancer: Balancer) -> None:
    refused = balancer.call(servers=["app1"], state="drained", min_up=3)
    assert refused["failed"] is True
    assert "would leave 2 other servers up (app2, app3), fewer than min_up (3)" in refused["msg"]
    assert set(balancer.states().values()) == {"up"}


def test_an_unhealthy_server_is_not_put_back(balancer: Balancer) -> None:
    balancer.call(servers=["app1"], state="drained")
    balancer.fleet.shell("app1", "touch /run/convoy-test/sick")
    balancer.await_row("app1", "status", "DOWN")
    failed = balancer.call(servers=["app1"], state="ready", timeout=1)
    assert failed["failed"] is True
    assert "app1 is DOWN (L7STS 500 Internal Server Error) and stays in drain" in failed["msg"]
    assert failed["servers"]["app1"]["state"] == "drained"
    balancer.fleet.shell("app1", "rm /run/convoy-test/sick")
    assert balancer.call(servers=["app1"], state="ready")["servers"]["app1"]["state"] == "up"


def test_drained_down_and_maintenance_are_told_apart(balancer: Balancer) -> None:
    balancer.call(servers=["app1"], state="drained")
    balancer.tell("set server app/app2 state maint")
    balancer.fleet.shell("app3", "touch /run/convoy-test/sick")
    balancer.await_row("app3", "status", "DOWN")
    assert balancer.states() == {"app1": "drained", "app2": "maint", "app3": "down"}


def test_maintenance_of_somebody_else_is_held_unless_forced(balancer: Balancer) -> None:
    balancer.tell("set server app/app1 state maint")
    assert balancer.call(servers=["app1"], state="drained")["changed"] is False
    held = balancer.call(servers=["app1"], state="ready")
    assert (held["changed"], held["held"], held["servers"]["app1"]["state"]) == (False, ["app1"], "maint")
    assert "is in maintenance" in held["warned"]
    ended = balancer.call(servers=["app1"], state="ready", force=True)
    assert (ended["changed"], ended["servers"]["app1"]["state"]) == (True, "up")


def test_watching_sees_a_server_leave(balancer: Balancer) -> None:
    watched = balancer.call(servers=list(HOSTS), state="watched", duration=1)
    assert (watched["changed"], watched["elapsed"] >= 1) == (False, True)
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        watching = pool.submit(balancer.call, servers=list(HOSTS), state="watched", duration=600)
        balancer.fleet.shell("app3", "touch /run/convoy-test/sick")
        left = watching.result()
    assert left["failed"] is True
    assert left["msg"].startswith("app3 is not up for HAProxy but DOWN (L7STS 500 Internal Server Error)")
    assert time.monotonic() - began < 300


def test_no_request_fails_while_a_server_is_drained_restarted_and_put_back(balancer: Balancer) -> None:
    over = threading.Event()
    statuses: list[object] = []

    def ask() -> None:
        while not over.is_set():
            try:
                statuses.append(balancer.get())
            except (OSError, http.client.HTTPException) as error:
                statuses.append(repr(error))
            over.wait(0.02)

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        for host in HOSTS[:2]:
            balancer.call(servers=[host], state="drained", min_up=2)
            balancer.fleet.shell(host, "systemctl stop convoy-test-web; " + START_SERVER)
            balancer.call(servers=[host], state="ready")
        over.set()
        for client in clients:
            client.result()
    assert len(statuses) > 100
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"servers": ["app11"]}, "HAProxy's backend 'app' has no server 'app11', did you mean 'app1'?"),
        ({"backend": "apps"}, "HAProxy has no backend 'apps', did you mean 'app'?"),
        ({"socket": "/run/convoy-test/operator.sock"}, "add 'level admin' to its 'stats socket' line"),
        ({"socket": "/run/convoy-test/nowhere.sock"}, "is not there: is HAProxy running"),
    ],
)
def test_what_is_wrong_is_named(balancer: Balancer, arguments: dict[str, Any], words: str) -> None:
    refused = balancer.call(**{"servers": ["app1"], "state": "drained", **arguments})
    assert refused["failed"] is True
    assert words in refused["msg"]
    assert balancer.states()["app1"] == "up"


def test_haproxy_that_is_away(running: Balancer) -> None:
    running.fleet.shell("lb1", "systemctl stop convoy-test-haproxy")
    try:
        failed = running.call(servers=["app1"], state="drained")
    finally:
        running.fleet.shell("lb1", START_HAPROXY)
    assert failed["failed"] is True
    assert failed["msg"].startswith(f"HAProxy's runtime socket {SOCKET} is ")
    assert "HAProxy" in failed["msg"].split("socket", 1)[1]
