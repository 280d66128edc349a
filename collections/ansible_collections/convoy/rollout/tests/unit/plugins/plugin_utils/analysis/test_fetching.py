# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching from a server of our own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis import fetching
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Request


class Server(ThreadingHTTPServer):
    """One that can be kept waiting."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        answers = {
            "/metrics": (200, "up 1\n"),
            "/login": (302, ""),
            "/wrong": (400, '{"status":"error","errorType":"bad_data","error":"parse error"}'),
            "/secret": (401, "token=hunter2 is wrong"),
            "/headers": (200, str(self.headers.get("Authorization"))),
            "/long": (200, "x" * 5000),
        }
        if self.path == "/silent":
            assert isinstance(self.server, Server)
            self.server.released.wait(10)
        code, body = answers.get(self.path, (404, ""))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/metrics")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(address: str, timeout: float = 5.0, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    request = Request(address, headers)
    return fetching.fetcher(timeout)([request])[request]


def test_pages_are_fetched_once_each(url: str) -> None:
    metrics, missing = Request(f"{url}/metrics"), Request(f"{url}/nowhere")
    answers = fetching.fetcher(5.0)([metrics, missing, metrics])
    assert answers == {metrics: Answer("up 1\n"), missing: Answer(error="answered 404")}


def test_redirects_are_not_followed(url: str) -> None:
    assert fetched(f"{url}/login") == Answer(error="answered 302, but redirects are not followed")


def test_what_prometheus_says_of_a_wrong_query_is_an_answer(url: str) -> None:
    assert fetched(f"{url}/wrong").text.startswith('{"status":"error"')


def test_secrets_of_a_refusal_are_masked(url: str) -> None:
    assert fetched(f"{url}/secret") == Answer(error="answered 401: token=*** is wrong")


def test_headers_are_sent(url: str) -> None:
    assert fetched(f"{url}/headers", headers=(("Authorization", "Bearer x"),)) == Answer("Bearer x")


def test_silence_has_a_limit(url: str) -> None:
    assert fetched(f"{url}/silent", timeout=0.1) == Answer(error="gave no answer within 0.1 s")


def test_an_endless_answer_is_not_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", 4000)
    assert fetched(f"{url}/long") == Answer(error="answered more than 4000 bytes")


class Trickle:
    """An answer that never ends."""

    def read1(self, size: int) -> bytes:
        return b"x"


def test_an_answer_that_trickles_is_not_read_to_its_end() -> None:
    found = fetching._read(Trickle(), time.monotonic() + 0.01, 5.0)
    assert found == Answer(error="gave no whole answer within 5 s")


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        assert fetched(address).error.startswith("cannot be reached: ")


def test_what_is_no_http() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def answer() -> None:
            client, _address = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = fetched(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert found.error.startswith("cannot be read")
