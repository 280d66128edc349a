# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One GET, against sockets that answer byte for byte what a test wants, and against Python's own client."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import http_get
from ansible_collections.convoy.rollout.plugins.module_utils.http_get import NotHttpError

PATIENCE = 10.0
if TYPE_CHECKING:
    Answer = Callable[..., int]


@pytest.fixture
def server() -> Iterator[tuple[Answer, list[bytes]]]:
    """Something that answers every request with the same pieces; gives its port. What it was asked is kept."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def start(*pieces: bytes) -> int:
        def serve() -> None:
            while True:
                try:
                    client, _address = listener.accept()
                except OSError:
                    return
                with client:
                    asked.append(client.recv(65536))
                    for piece in pieces:
                        client.sendall(piece)
                        time.sleep(0.005)

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start, asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def get(
    port: int, path: str = "/", headers: dict[str, str] | None = None, most: int = 100_000, within: float = PATIENCE
) -> http_get.Response:
    url = urlsplit(f"http://127.0.0.1:{port}{path}")
    return http_get.get(url, headers or {}, time.monotonic() + within, most)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status", "headers", "body"),
    [
        ((OK + b"Content-Length: 2\r\n\r\nokay",), 200, {"content-length": "2"}, b"ok"),
        ((b"H", b"TTP/1.1 200", b" OK\r", b"\nX: y\r\n", b"\r", b"\nab", b"c"), 200, {"x": "y"}, b"abc"),
        ((b"HTTP/1.0 404\r\n\r\nno",), 404, {}, b"no"),
        ((b"HTTP/1.1 200 OK\nA: b\n\nbody",), 200, {"a": "b"}, b"body"),
        ((b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK + b"\r\nbody",), 200, {}, b"body"),
        ((b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",), 204, {"content-length": "3"}, b""),
        ((OK + b"A: b\r\n c\r\n\td\r\nE:f\r\n\r\n",), 200, {"a": "b c d", "e": "f"}, b""),
        ((OK + b"A: 1\r\nA: 2\r\n\r\n",), 200, {"a": "2"}, b""),
        ((OK + b"A: caf\xe9\r\n\r\ncaf\xe9",), 200, {"a": "caf\xe9"}, b"caf\xe9"),
        ((CHUNKED + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n",), 200, None, b"abcdefg"),
        ((CHUNKED, b"A\r", b"\n01234", b"56789\r\n", b"0\r\n\r\n"), 200, None, b"0123456789"),
    ],
)
def test_an_answer(
    server: tuple[Answer, list[bytes]],
    pieces: tuple[bytes, ...],
    status: int,
    headers: dict[str, str] | None,
    body: bytes,
) -> None:
    port = server[0](*pieces)
    found = get(port)
    assert (found.status, found.body) == (status, body)
    assert headers is None or found.headers == headers


@pytest.mark.parametrize("answer", [OK + b"\r\nhello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
def test_python_s_own_client_sees_the_same(server: tuple[Answer, list[bytes]], answer: bytes) -> None:
    port = server[0](answer)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/a?b=c", headers={"Connection": "close", "X-Key": "v"})
    theirs = connection.getresponse()
    found = get(port, "/a?b=c", {"X-Key": "v"})
    assert (found.status, found.body) == (theirs.status, theirs.read())
    assert dict(found.headers) == {name.lower(): value for name, value in theirs.getheaders()}
    connection.close()
    first, second = (sorted(request.split(b"\r\n")) for request in server[1])
    assert first == second


def test_a_header_that_is_given_takes_the_place_of_ours(server: tuple[Answer, list[bytes]]) -> None:
    get(server[0](OK + b"\r\n"), headers={"host": "shop.example", "Authorization": "Bearer x"})
    lines = server[1][0].split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"host:")] == [b"host: shop.example"]
    assert b"Authorization: Bearer x" in lines


@pytest.mark.parametrize("length", [b"Content-Length: 5000\r\n\r\n", b"\r\n"])
def test_no_more_of_a_body_is_read_than_is_wanted(server: tuple[Answer, list[bytes]], length: bytes) -> None:
    assert get(server[0](OK + length + b"x" * 5000), most=3000).body == b"x" * 3000


def test_no_more_of_chunks_is_read_than_is_wanted(server: tuple[Answer, list[bytes]]) -> None:
    assert get(server[0](CHUNKED + b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n"), most=3000).body == b"x" * 3000


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", r"it begins with 'SSH-2\.0-OpenSSH_9\.2'"),
        (b"HTTP/2 200\r\n\r\n", "it begins with"),
        (b"HTTP/1.1 20\r\n\r\n", "it begins with"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "it begins with"),
        (b"\r\n", "closed without an answer"),
        (b"", "closed without an answer"),
        (OK + b"Content-Length: 9\r\n\r\nx", "it ends 8 bytes too early"),
        (CHUNKED + b"9\r\nx", "it ends 8 bytes too early"),
        (CHUNKED + b"1\r\nx\r\n", "a chunk of it has the length b''"),
        (CHUNKED + b"-1\r\nx\r\n", "a chunk of it has the length b'-1'"),
        (CHUNKED + b"1\r\nxyz\r\n", "a chunk of it is longer than it says"),
        (OK + b"A: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
        (OK + b"A" * 100_000, "a line of it has more than 65536 bytes"),
    ],
)
def test_what_is_not_http(server: tuple[Answer, list[bytes]], answer: bytes, why: str) -> None:
    with pytest.raises((NotHttpError, ConnectionResetError), match=why):
        get(server[0](answer))


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/\x7f"])
def test_a_path_that_would_be_another_request(path: str) -> None:
    parts = urlsplit("http://127.0.0.1:1/")._replace(path=path)
    with pytest.raises(ValueError, match="holds a blank or a control character"):
        http_get.get(parts, {}, time.monotonic() + PATIENCE, 10)


def test_a_header_that_would_be_two() -> None:
    with pytest.raises(ValueError, match="line break"):
        get(1, headers={"A": "b\r\nC: d"})


def test_what_never_ends_is_left_in_time(server: tuple[Answer, list[bytes]]) -> None:
    port = server[0](OK + b"\r\n", *[b"x"] * 1000)
    began = time.monotonic()
    with pytest.raises(socket.timeout):
        get(port, within=0.2)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://shop.example/", "shop.example"),
        ("http://shop.example:80/", "shop.example"),
        ("https://shop.example:443/", "shop.example"),
        ("http://shop.example:443/", "shop.example:443"),
        ("http://[::1]:8080/", "[::1]:8080"),
        ("http://b\xfccher.example/", "xn--bcher-kva.example"),
    ],
)
def test_the_host_that_is_asked_for(url: str, host: str) -> None:
    assert f"\r\nHost: {host}\r\n".encode() in http_get._request(urlsplit(url), {})


def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, shown = tmp_path / "key", tmp_path / "crt"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(shown)]
    subprocess.run([*request, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _client in range(2):
                try:
                    with context.wrap_socket(listener.accept()[0], server_side=True) as client:
                        client.recv(4096)
                        client.sendall(OK + b"Content-Length: 4\r\n\r\nsafe")
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        parts = urlsplit(f"https://localhost:{port}/")
        with pytest.raises(ssl.SSLCertVerificationError):
            http_get.get(parts, {}, time.monotonic() + PATIENCE, 100)
        monkeypatch.setenv("SSL_CERT_FILE", str(shown))
        assert http_get.get(parts, {}, time.monotonic() + PATIENCE, 100).body == b"safe"
        thread.join(PATIENCE)
