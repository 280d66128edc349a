# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observers, against real servers, commands and sockets."""

from __future__ import annotations

import http.server
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import observers
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import NoAnswerError

LONG = 30  # seconds; who answers does so at once, unless the machine is busy


class Pages(http.server.BaseHTTPRequestHandler):
    """A small site: every page is a method of an answer."""

    def do_GET(self) -> None:
        away = f"http://localhost:{self.server.server_address[1]}/echo"
        pages = {"/login": "/welcome", "/round": "/round", "/home": "/echo", "/away": away}
        if self.path in pages:
            self.send_response(302)
            self.send_header("Location", pages[self.path])
            self.end_headers()
            return
        body = {"/big": b"x" * 3_000_000, "/latin": b"caf\xe9"}.get(self.path, b"path " + self.path.encode())
        if self.path == "/echo":
            body = (self.headers["Authorization"] or "none").encode()
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def talker() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Start a server that talks to its one client as it is told; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def start(talk: Callable[[socket.socket], None]) -> int:
        def serve() -> None:
            client, _address = listener.accept()
            with client:
                talk(client)

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    listener.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_an_answer_over_http(site: str) -> None:
    answer = observers.fetch(site + "/a?b=c", {}, LONG)
    assert answer[:3] == (200, "path /a?b=c", "")
    assert answer.headers["content-length"] == "11"
    assert 0 < answer.seconds < 2


def test_a_url_without_a_path_asks_for_the_root(site: str) -> None:
    assert observers.fetch(site, {}, LONG).body == "path /"


def test_headers_are_sent(site: str) -> None:
    assert observers.fetch(site + "/echo", {"Authorization": "Bearer x"}, LONG).body == "Bearer x"


def test_redirects_are_not_followed(site: str) -> None:
    assert observers.fetch(site + "/login", {}, LONG)[:3] == (302, "", "/welcome")


def test_redirects_are_followed_as_often_as_is_asked(site: str) -> None:
    assert observers.fetch(site + "/login", {}, LONG, follow=1)[:2] == (200, "path /welcome")
    assert observers.fetch(site + "/round", {}, LONG, follow=3).status == 302


def test_headers_do_not_follow_to_another_host(site: str) -> None:
    assert observers.fetch(site + "/away", {"Authorization": "Bearer x"}, LONG, follow=1).body == "none"
    assert observers.fetch(site + "/home", {"Authorization": "Bearer x"}, LONG, follow=1).body == "Bearer x"


def test_a_status_of_trouble_is_an_answer(site: str) -> None:
    assert observers.fetch(site + "/broken", {}, LONG).status == 500


def test_a_body_is_bounded_and_any_bytes_are_text(site: str) -> None:
    assert len(observers.fetch(site + "/big", {}, LONG).body) == observers.BODY_LIMIT
    assert observers.fetch(site + "/latin", {}, LONG).body == "caf\ufffd"


def test_nobody_listens() -> None:
    with pytest.raises(NoAnswerError, match="refused the connection"):
        observers.fetch(f"http://127.0.0.1:{free_port()}/", {}, LONG)


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(NoAnswerError, match="could not be reached"):
        observers.fetch("http://" + "a" * 70 + ".invalid/", {}, LONG)


def test_silence_after_the_connection(talker: Callable[[Callable[[socket.socket], None]], int]) -> None:
    def listen(client: socket.socket) -> None:
        while client.recv(4096):
            pass

    port = talker(listen)
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"gave no answer within 0\.2 s"):
        observers.fetch(f"http://127.0.0.1:{port}/", {}, 0.2)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("opening", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_a_dripping_answer_is_cut_at_the_time_limit(
    talker: Callable[[Callable[[socket.socket], None]], int], opening: bytes
) -> None:
    gone = threading.Event()

    def drip(client: socket.socket) -> None:
        client.settimeout(0.02)
        try:
            client.sendall(opening)
            for _unused in range(500):
                client.sendall(b"x")
                gone.wait(0.02)
        except OSError:
            gone.set()

    port = talker(drip)
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"gave no answer within 0\.3 s"):
        observers.fetch(f"http://127.0.0.1:{port}/", {}, 0.3)
    assert time.monotonic() - began < 1
    assert gone.wait(3), "the connection was left open"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
def test_what_is_not_http(talker: Callable[[Callable[[socket.socket], None]], int], answer: bytes) -> None:
    def talk(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(answer)

    with pytest.raises(NoAnswerError, match=r"answered no valid HTTP|could not be reached"):
        observers.fetch(f"http://127.0.0.1:{talker(talk)}/", {}, LONG)


def test_https_to_a_server_without_tls(site: str) -> None:
    with pytest.raises(NoAnswerError, match="could not be reached"):
        observers.fetch(site.replace("http:", "https:"), {}, LONG)


def test_a_port_that_accepts_and_one_that_refuses(site: str) -> None:
    observers.connect("127.0.0.1", int(site.rsplit(":", 1)[1]), 2)
    with pytest.raises(NoAnswerError, match="refused the connection"):
        observers.connect("127.0.0.1", free_port(), 2)


def test_a_port_whose_queue_is_full_is_silent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _unused in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        with pytest.raises(NoAnswerError, match=r"gave no answer within 0\.1 s"):
            observers.connect("127.0.0.1", port, 0.1)
        for client in waiting:
            client.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_how_a_command_ends() -> None:
    code = "import os,sys; print(os.getcwd(), flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert observers.run_command(python(code), 10) == (3, "/\nerr\n")


def test_a_command_reads_nothing_and_sees_no_shell() -> None:
    end = observers.run_command([*python("import sys; print(sys.stdin.read(), sys.argv[1:])"), "$HOME; *"], 10)
    assert end == (0, " ['$HOME; *']\n")


def test_a_signal_is_a_negative_end() -> None:
    assert observers.run_command(python("import os; os.kill(os.getpid(), 9)"), 10).rc == -9


def test_output_is_bounded_and_holds_nobody_up() -> None:
    end = observers.run_command(python("print('x' * 5_000_000)"), 10)
    assert (end.rc, len(end.output)) == (0, observers.OUTPUT_LIMIT)


def test_a_command_that_shouts_for_ever_is_stopped() -> None:
    with pytest.raises(NoAnswerError, match=r"did not end within 0\.3 s"):
        observers.run_command(["yes"], 0.3)


def child_that_waits(after: str) -> list[str]:
    return ["sh", "-c", f"sleep 600 & echo $!; {after}"]


def gone(pid: int) -> bool:
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        os.sched_yield()
    return False


def test_a_command_leaves_nothing_running_when_it_ends() -> None:
    end = observers.run_command(child_that_waits("exit 0"), 10)
    assert end.rc == 0
    assert gone(int(end.output))


def test_a_command_leaves_nothing_running_when_it_is_stopped(tmp_path: object) -> None:
    note = os.path.join(str(tmp_path), "pid")
    with pytest.raises(NoAnswerError, match="did not end"):
        observers.run_command(["sh", "-c", f"sleep 600 & echo $! > {note}; wait"], 0.5)
    with open(note, encoding="utf-8") as noted:
        assert gone(int(noted.read()))


@pytest.mark.parametrize(("program", "words"), [("/nowhere/check", "was not found"), ("/etc/passwd", "cannot be run")])
def test_a_command_that_cannot_be_run_is_an_error_of_the_gate(program: str, words: str) -> None:
    with pytest.raises(GateError, match=words):
        observers.run_command([program], 1)


UNIT = "Result=exit-code\nNRestarts=4\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\n"


def test_the_answer_of_systemctl() -> None:
    assert observers.parse_unit(UNIT) == ("loaded", "activating", "auto-restart", "exit-code", 4)


def test_an_answer_of_systemctl_without_restarts() -> None:
    assert observers.parse_unit("LoadState=not-found\nActiveState=inactive\nNRestarts=[not set]\n").restarts == 0


def systemctl(path: object, script: str) -> None:
    program = os.path.join(str(path), "systemctl")
    with open(program, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n" + script)
    os.chmod(program, 0o755)


def test_systemd_is_asked_once(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(tmp_path, f'echo "$@" >> {tmp_path}/asked\nprintf "LoadState=loaded\nActiveState=active\n"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert observers.unit_state("hello.service", 5).active == "active"
    with open(f"{tmp_path}/asked", encoding="utf-8") as asked:
        assert asked.read().splitlines() == [
            "show --property=LoadState,ActiveState,SubState,Result,NRestarts -- hello.service"
        ]


def test_systemd_that_is_silent(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(tmp_path, "exec sleep 600")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NoAnswerError, match=r"gave no answer within 0\.2 s"):
        observers.unit_state("hello.service", 0.2)


def test_systemd_that_refuses(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(tmp_path, "echo 'Failed to connect to bus' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NoAnswerError, match="Failed to connect to bus"):
        observers.unit_state("hello.service", 5)


def test_a_host_without_systemd(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GateError, match="is it run by systemd"):
        observers.unit_state("hello.service", 5)
