# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching from real servers that break off, lie, lead astray, or are only slow."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.server
import os
import random
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import fetch
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    FetchError,
    InputError,
    LockedError,
    SpaceError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.fetch import Answer, Source
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact
from ansible_collections.convoy.rollout.tests.unit.plugins.release_world import FakeClock

DATA = random.Random(7).getrandbits(8 * 600_000).to_bytes(600_000, "big")
SECRET = "Bearer s3cr3t"


class Request:
    """One request, as an answer of a test sees it."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        self.handler, self.number, self.path = handler, number, handler.path
        self.authorization = handler.headers.get("Authorization")
        asked = handler.headers.get("Range")
        self.begin = int(asked[6:-1]) if asked else 0

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """An answer. `length` is what its header claims; the connection ends with the body."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def serve(self, data: bytes = DATA, upto: int | None = None, ranges: bool = True) -> None:
        """What a good server does, if need be only so far."""
        if self.begin and ranges:
            named = f"bytes {self.begin}-{len(data) - 1}/{len(data)}"
            self.send(206, data[self.begin : upto], len(data) - self.begin, Content_Range=named)
        else:
            self.send(200, data[:upto], len(data))


class Web:
    """A server on this machine. `answer` is called with each request."""

    def __init__(self, answer: Callable[[Request], None], certificate: str = "") -> None:
        self.asked: list[Request] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                request = Request(self, len(web.asked) + 1)
                web.asked.append(request)
                answer(request)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is none of its business."""

        self.server = Server(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}/artifact"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Place:
    """Servers, and the file that is fetched into."""

    def __init__(self, root: Path) -> None:
        self.path = root / "fetched"
        self.path.touch()
        self.clock = FakeClock()
        self.webs: list[Web] = []

    def serve(self, answer: Callable[[Request], None], certificate: str = "") -> Web:
        self.webs.append(Web(answer, certificate))
        return self.webs[-1]

    def fetch(self, answer: Callable[[Request], None], **options: Any) -> int:
        """How many bytes came from a server that answers so."""
        return self.fetch_from(self.serve(answer).url, **options)

    def fetch_from(self, url: str, **options: Any) -> int:
        artifact = Artifact(hashlib.sha256(DATA).hexdigest(), len(DATA), "tar.gz")
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            return fetch.fetch(Source(url, **options), artifact, descriptor, self.clock, lambda: 0.5)
        finally:
            os.close(descriptor)

    @property
    def is_whole(self) -> bool:
        return self.path.read_bytes() == DATA

    @property
    def begins(self) -> list[int]:
        """From which byte on it was asked for, each time."""
        return [request.begin for web in self.webs for request in web.asked]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where to fetch to."""
    made = Place(tmp_path)
    yield made
    for web in made.webs:
        web.end()


@pytest.fixture(scope="module")
def certificate() -> Iterator[str]:
    """A certificate for this machine, with its key, that nobody trusts who is not told to."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "both.pem")
        names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
        kind = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command = ["openssl", "req", "-x509", *kind, *names, "-keyout", path + ".key", "-out", path + ".crt"]
        subprocess.run(command, check=True, capture_output=True)
        with open(path, "w") as both:
            for part in (path + ".key", path + ".crt"):
                with open(part) as stream:
                    both.write(stream.read())
        yield path


# --- what goes well ----------------------------------------------------------------------------------------------


def test_from_a_good_server(place: Place) -> None:
    assert place.fetch(Request.serve) == len(DATA)
    assert place.is_whole
    assert place.fetch_from(place.webs[0].url) == 0
    assert place.begins == [0]


def test_a_server_that_cuts_connections(place: Place) -> None:
    steps = [100_000 * n for n in range(1, 6)]
    assert place.fetch(lambda request: request.serve(upto=request.begin + 100_000)) == len(DATA)
    assert place.is_whole
    assert place.begins == [0, *steps]


def test_the_next_call_goes_on_where_one_was_broken_off(place: Place) -> None:
    place.path.write_bytes(DATA[:250_000])
    assert place.fetch(Request.serve) == 350_000
    assert place.is_whole
    assert place.begins == [250_000]


@pytest.mark.parametrize("there", [DATA[:1000][::-1], DATA + b"more", b"x" * len(DATA)])
def test_what_is_there_and_of_something_else(place: Place, there: bytes) -> None:
    place.path.write_bytes(there)
    place.fetch(Request.serve)
    assert place.is_whole


def test_a_server_that_knows_no_ranges(place: Place) -> None:
    place.path.write_bytes(DATA[:250_000])
    assert place.fetch(lambda request: request.serve(ranges=False)) == len(DATA)
    assert place.is_whole


@pytest.mark.parametrize(
    "ranged", ["bytes 5-599999/600000", "bytes 250000-599999/700000", "bytes */600000", "", "250000-", "bytes ²-3/4"]
)
def test_a_range_that_was_not_asked_for(place: Place, ranged: str) -> None:
    place.path.write_bytes(DATA[:250_000])

    def answer(request: Request) -> None:
        if request.begin:
            request.send(206, DATA[5:], Content_Range=ranged)
        else:
            request.serve()

    place.fetch(answer)
    assert place.is_whole
    assert place.begins == [250_000, 0]


def test_a_server_that_has_less_than_there_is(place: Place) -> None:
    place.path.write_bytes(DATA[:250_000])
    place.fetch(lambda request: request.send(416) if request.begin else request.serve())
    assert place.is_whole


def test_a_length_that_nobody_says(place: Place) -> None:
    assert place.fetch(lambda request: request.send(200, DATA, length=-1)) == len(DATA)
    assert place.is_whole


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(place: Place, status: int) -> None:
    before = place.clock.time
    place.fetch(lambda request: request.serve() if request.number == 3 else request.send(status, Retry_After="20"))
    assert place.is_whole
    assert 40 <= place.clock.time - before < 41


def test_redirects_are_followed_and_each_try_begins_at_the_first(place: Place) -> None:
    def answer(request: Request) -> None:
        if request.path == "/artifact":
            request.send(302, Location="/elsewhere?signed=1")
        else:
            request.serve(upto=request.begin + 400_000)

    place.fetch(answer)
    assert place.is_whole
    paths = ["/artifact", "/elsewhere?signed=1"] * 2
    assert [request.path for request in place.webs[0].asked] == paths


def test_a_stretch_that_was_mixed_up_is_fetched_anew(place: Place) -> None:
    """Another content lies behind the first half than in front of it."""

    def answer(request: Request) -> None:
        request.serve(bytes(len(DATA)) if request.number == 1 else DATA, upto=300_000 if request.number == 1 else None)

    assert place.fetch(answer) == 300_000 + 300_000 + len(DATA)
    assert place.is_whole


def test_another_artifact_in_pieces_is_fetched_twice_at_most(place: Place) -> None:
    with pytest.raises(FetchError, match="what lies there has SHA-256 "):
        place.fetch(lambda request: request.serve(bytes(len(DATA)), upto=request.begin + 400_000))
    assert place.begins == [0, 400_000] * 2
    assert place.path.stat().st_size == 0


# --- what does not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda request: request.send(404), "the server answered 404, at http://127.0.0.1:"),
        (lambda request: request.send(401), "answered 401"),
        (lambda request: request.send(204), "answered 204"),
        (lambda request: request.send(416), "answered 416"),
        (lambda request: request.send(206, DATA, Content_Range="bytes 0-599999/600000"), "when asked for bytes from 0"),
        (lambda request: request.send(200, DATA[:-1]), "the server has 599999 bytes, the manifest says 600000"),
        (lambda request: request.send(200, DATA, 10**12), "the server has 1000000000000 bytes"),
        (lambda request: request.send(200, DATA + b"x", -1), "sends more than the 600000 bytes of the manifest"),
        (lambda request: request.send(200, bytes(len(DATA))), "the manifest says " + hashlib.sha256(DATA).hexdigest()),
        (lambda request: request.send(302, Location="/artifact"), "more than 5 redirects, the last one to http://127"),
        (lambda request: request.send(302), "is no place to fetch an artifact from"),
        (lambda request: request.send(302, Location="file:///etc/passwd"), "is no place to fetch an artifact from"),
        (lambda request: request.send(302, Location="ftp://127.0.0.1/a"), "is no place to fetch an artifact from"),
        (lambda request: request.send(302, Location="http://a:b@127.0.0.1/"), "redirects to 'http://127.0.0.1/'"),
        (lambda request: request.send(302, Location="http://127.0.0.1:x/"), "'a URL that cannot be read'"),
        (lambda request: request.send(302, Location="/a b"), "this cannot be asked for (InvalidURL)"),
        (lambda request: request.send(503), "the server answered 503; no byte came in 6 tries"),
        (lambda request: request.handler.wfile.write(b"220 smtp ready\r\n"), "no byte came in 6 tries"),
        (lambda request: request.handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200), "got more than 100"),
        (lambda request: request.send(200, length=len(DATA)), "the connection ended too early; no byte came in 6"),
    ],
)
def test_what_is_given_up(place: Place, answer: Callable[[Request], None], words: str) -> None:
    with pytest.raises(FetchError) as caught:
        place.fetch(answer)
    assert words in caught.value.message
    assert caught.value.message.startswith(("the artifact cannot be fetched from http://127.0.0.1", "http://127.0.0.1"))
    assert place.path.stat().st_size == 0


def test_nobody_listens(place: Place) -> None:
    web = place.serve(Request.serve)
    web.end()
    place.webs.clear()
    before = place.clock.time
    with pytest.raises(FetchError, match="refused; no byte came in 3 tries, which is the limit"):
        place.fetch_from(web.url, retries=2)
    assert place.clock.time - before == pytest.approx(0.75 + 1.5, abs=0.1)


def test_what_has_come_stays(place: Place) -> None:
    answer = [lambda request: request.serve(upto=200_000), lambda request: request.send(404)]
    with pytest.raises(FetchError, match=r"answered 404.*; 200000 of 600000 bytes are here"):
        place.fetch(lambda request: answer[request.number - 1](request))
    assert place.path.read_bytes() == DATA[:200_000]


def test_a_silent_server_is_left(place: Place) -> None:
    gone = threading.Event()

    def answer(request: Request) -> None:
        request.serve(upto=100_000)
        request.handler.wfile.flush()
        gone.wait(10)

    began = time.monotonic()
    with pytest.raises(FetchError, match="timed out"):
        place.fetch(lambda request: answer(request) if request.number == 1 else gone.wait(10), timeout=0.2, retries=1)
    gone.set()
    assert time.monotonic() - began < 5
    assert place.path.read_bytes() == DATA[:100_000]


def test_a_slow_server_has_until_the_deadline(place: Place) -> None:
    """It says something all the time, so that it is never silent."""

    def answer(request: Request) -> None:
        request.send(200, b"", len(DATA))
        for place_ in range(0, 600_000, 1000):
            place.clock.sleep(1)
            request.handler.wfile.write(DATA[place_ : place_ + 1000])

    with pytest.raises(FetchError, match=r"not done after 60 s, which is the limit .deadline.; the server is slow"):
        place.fetch(answer, deadline=60)
    assert place.path.stat().st_size > 0


def test_waiting_ends_at_the_deadline(place: Place) -> None:
    with pytest.raises(FetchError, match=r"not done after 50 s.*the server answered 503"):
        place.fetch(lambda request: request.send(503, Retry_After="3600"), deadline=50, retries=100)
    assert len(place.begins) == 2


def test_a_full_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetch.durable, "write_all", full)
    with pytest.raises(SpaceError, match="ran out of room"):
        place.fetch(Request.serve)
    assert place.path.stat().st_size == 0


# --- TLS, credentials, proxies -----------------------------------------------------------------------------------


def test_tls_with_a_certificate_of_the_site(place: Place, certificate: str) -> None:
    web = place.serve(Request.serve, certificate)
    place.fetch_from(web.url, ca_file=certificate, authorization=SECRET)
    assert place.is_whole
    assert web.asked[0].authorization == SECRET


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_that_is_not_trusted(place: Place, certificate: str, host: str) -> None:
    """Because nobody vouches for it, or because it is another server's."""
    web = place.serve(Request.serve, certificate)
    trusted = {"ca_file": certificate} if host == "localhost" else {}
    with pytest.raises(FetchError, match="its certificate is not trusted: "):
        place.fetch_from(web.url.replace("127.0.0.1", host), **trusted)
    assert web.asked == []


def test_never_out_of_tls(place: Place, certificate: str) -> None:
    plain = place.serve(Request.serve)
    web = place.serve(lambda request: request.send(302, Location=plain.url), certificate)
    with pytest.raises(FetchError, match="out of TLS"):
        place.fetch_from(web.url, ca_file=certificate)
    assert plain.asked == []


def test_credentials_are_for_one_server_alone(place: Place, certificate: str) -> None:
    other = place.serve(Request.serve, certificate)

    def answer(request: Request) -> None:
        request.send(302, Location="/signed" if request.number == 1 else other.url + "?token=t0p")

    web = place.serve(answer, certificate)
    place.fetch_from(web.url, ca_file=certificate, authorization=SECRET)
    assert [request.authorization for request in web.asked] == [SECRET, SECRET]
    assert [request.authorization for request in other.asked] == [None]


def test_errors_show_no_secrets(place: Place, certificate: str) -> None:
    web = place.serve(lambda request: request.send(403 if "t0p" in request.path else 302, Location="/b?token=t0p"))
    with pytest.raises(FetchError) as caught:
        place.fetch_from(web.url + "?key=s3cr3t")
    assert "answered 403" in caught.value.message
    assert not {"s3cr3t", "t0p"} & set(caught.value.message.replace("?", "=").split("="))


def test_proxies_are_asked_only_when_told_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = place.serve(Request.serve)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url.replace("/artifact", ""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    web = place.serve(Request.serve)
    place.fetch_from(web.url)
    assert (len(web.asked), len(proxy.asked)) == (1, 0)
    place.path.write_bytes(b"")
    place.fetch_from("http://depot.invalid/artifact", proxy=True)
    assert (len(web.asked), len(proxy.asked)) == (1, 1)
    assert proxy.asked[0].path == "http://depot.invalid/artifact"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": ""}, "is not one of http or https"),
        ({"url": "ftp://depot.example/a"}, "is not one of http or https"),
        ({"url": "https:///a"}, "is not one of http or https"),
        ({"url": "/etc/passwd"}, "is not one of http or https"),
        ({"url": "https://me:s3cr3t@depot.example/a"}, "holds a user or a password"),
        ({"url": "http://depot.example/a", "authorization": "Bearer s3cr3t"}, "is not https"),
        ({"url": "https://depot.example/a", "authorization": "Bearer\r\nX: s3cr3t"}, "holds a line break"),
        ({"url": "https://depot.example/a", "timeout": 0}, "timeout is 0: must be 0.1 or more"),
        ({"url": "https://depot.example/a", "deadline": 0.5}, "deadline is 0.5: must be 1 or more"),
        ({"url": "https://depot.example/a", "retries": -1}, "retries is -1: must be 0 or more"),
        ({"url": "https://depot.example/a", "ca_file": "ca.pem"}, "is not an absolute path"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Source(**options).checked()
    assert words in caught.value.message
    assert "s3cr3t" not in caught.value.message


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none(place: Place, content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="no certificates can be read from it"):
        place.fetch_from("https://127.0.0.1:1/", ca_file=str(path))


# --- the file, and what decides ----------------------------------------------------------------------------------


def test_the_place_is_for_one_call_at_a_time(world: Any) -> None:
    tree, clock = world.host().tree, FakeClock()
    Path(tree.fetch_path("b" * 64)).write_bytes(b"of another artifact")
    with fetch.place(tree, "a" * 64, clock, 1) as descriptor:
        assert os.listdir(tree.incoming) == ["fetch." + "a" * 64]
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        with pytest.raises(LockedError, match="is being fetched by another call"):
            fetch.place(tree, "a" * 64, clock, 3).__enter__()
    with fetch.place(tree, "a" * 64, clock, 0) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


SIZES = st.integers(0, 50)
ANSWERS = st.builds(
    Answer,
    st.sampled_from([200, 204, 206, 302, 404, 416, 503]),
    st.none() | SIZES,
    st.builds("bytes {}-{}/{}".format, SIZES, SIZES, SIZES | st.just("*")) | st.text(max_size=12),
)


@given(ANSWERS, SIZES, SIZES)
def test_only_bytes_that_belong_there_are_taken(answer: Answer, have: int, size: int) -> None:
    verdict = fetch.judge(answer, have, size)
    if verdict.does == "take":
        assert verdict.at in (0, have)
        assert answer.length is None or verdict.at + answer.length <= size
        assert answer.status == (206 if verdict.at else 200)
    if verdict.does == "restart":
        assert have
    assert verdict.why or verdict.does in ("take", "redirect")


@given(st.integers(0, 10_000), st.floats(-1e9, 1e9), st.floats(0, 1))
def test_pauses_grow_to_a_limit(tries: int, asked: float, chance: float) -> None:
    seconds = fetch.pause(tries, asked, chance)
    assert 0.25 <= seconds <= 30
    assert fetch.pause(tries + 1, asked, chance) >= seconds
    assert seconds >= min(asked, 30)


@given(st.text(), st.text())
def test_redirects_stay_in_http(first: str, location: str) -> None:
    for scheme in ("http", "https"):
        try:
            target = fetch.redirected(f"{scheme}://depot.example/{first}", location)
        except FetchError:
            continue
        assert target.startswith("https://" if scheme == "https" else ("http://", "https://"))
