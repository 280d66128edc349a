# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of a host: against its own files, real sockets, real certificates."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import host_observers as seen
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import NoAnswerError


def test_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    found = seen.space(str(tmp_path))
    assert 0 < found.free <= found.total
    with pytest.raises(GateError, match="/none cannot be looked at on this host: No such file"):
        seen.space(str(tmp_path / "none"))


def test_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  250 kB\n")
    assert seen.memory(str(meminfo)) == (256000, 1024000)
    available, total = seen.memory()
    assert 0 < available < total


# the time


@pytest.fixture
def time_server() -> Iterator[Callable[[Callable[[float], bytes]], int]]:
    """Start a server that answers one question as it is told; gives the port."""
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asked.bind(("127.0.0.1", 0))
    asked.settimeout(5)

    def start(answer: Callable[[float], bytes]) -> int:
        def serve() -> None:
            _question, client = asked.recvfrom(512)
            asked.sendto(answer(time.time()), client)

        threading.Thread(target=serve, daemon=True).start()
        port: int = asked.getsockname()[1]
        return port

    yield start
    asked.close()


def ntp(now: float, stratum: int = 2) -> bytes:
    stamp = struct.pack("!II", int(now) + 2208988800, int(now % 1 * 2**32))
    return bytes([0x24, stratum]) + 22 * b"\0" + 8 * b"\0" + stamp + stamp


@pytest.mark.parametrize("ahead", [0.0, 42.5, -400.0])
def test_the_offset_of_a_clock(time_server: Callable[[Callable[[float], bytes]], int], ahead: float) -> None:
    port = time_server(lambda now: ntp(now + ahead))
    assert seen.clock_offset("127.0.0.1", port, 5) == pytest.approx(ahead, abs=0.5)


def test_a_server_that_does_not_know_the_time(time_server: Callable[[Callable[[float], bytes]], int]) -> None:
    port = time_server(lambda now: ntp(now, stratum=0))
    with pytest.raises(NoAnswerError, match="does not know the time itself"):
        seen.clock_offset("127.0.0.1", port, 5)


def test_no_time_server() -> None:
    with pytest.raises(NoAnswerError, match="refused the connection"):
        seen.clock_offset("127.0.0.1", 1, 5)


# names


def test_names() -> None:
    assert "127.0.0.1" in seen.addresses("localhost")
    with pytest.raises(NoAnswerError, match="does not resolve"):
        seen.addresses("no-such-host.invalid")


# certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of `localhost`, valid for 20 days."""
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "20", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(made), "-out", str(made) + ".crt"]
    subprocess.run([*request, *extra], check=True, capture_output=True)
    made.write_text(made.read_text() + Path(f"{made}.crt").read_text())
    return made


@pytest.fixture
def https(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            client, _address = listener.accept()
            with client:
                try:
                    context.wrap_socket(client, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


def test_for_how_long_a_certificate_is_valid(https: int, certificate: Path) -> None:
    assert 19 < seen.certificate_days("127.0.0.1", https, "localhost", f"{certificate}.crt", 5) <= 20


@pytest.mark.parametrize(("name", "trusted"), [("other", True), ("localhost", False)])
def test_a_certificate_that_is_not_valid(https: int, certificate: Path, name: str, trusted: bool) -> None:
    with pytest.raises(NoAnswerError, match="shows a certificate that is not valid"):
        seen.certificate_days("127.0.0.1", https, name, f"{certificate}.crt" if trusted else None, 5)


# units, as a stand-in for systemctl and journalctl tells of them


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put programs first on PATH that print what they are told."""

    def say(rc: int = 0, **printed: str) -> None:
        for program, text in printed.items():
            script = tmp_path / program
            script.write_text(f"#!/bin/sh\necho \"$*\" > {tmp_path}/{program}.asked\ncat <<'E'\n{text}\nE\nexit {rc}\n")
            script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return say


def test_the_log_is_that_of_the_present_run(systemd: Callable[..., None], tmp_path: Path) -> None:
    systemd(systemctl="LoadState=loaded\nInvocationID=abc", journalctl="one\ntwo")
    assert seen.log_lines("hello.service", None, 5) == ["one", "two"]
    assert "_SYSTEMD_INVOCATION_ID=abc" in (tmp_path / "journalctl.asked").read_text()


def test_the_log_may_be_that_of_some_time(systemd: Callable[..., None], tmp_path: Path) -> None:
    systemd(journalctl="one")
    seen.log_lines("hello.service", 60, 5)
    asked = (tmp_path / "journalctl.asked").read_text()
    assert "--unit=hello.service" in asked
    since = int(asked.partition("--since=@")[2].split()[0])
    assert since == pytest.approx(time.time() - 60, abs=10)


def test_units_that_say_nothing(systemd: Callable[..., None]) -> None:
    systemd(systemctl="LoadState=loaded\nInvocationID=\nMainPID=0")
    with pytest.raises(NoAnswerError, match="does not run"):
        seen.log_lines("hello.service", None, 5)
    assert seen.running("hello.service", 5).pid == 0
    systemd(systemctl="LoadState=not-found")
    with pytest.raises(GateError, match=r"knows no unit 'hello\.service'"):
        seen.running("hello.service", 5)


def test_a_process_its_directory_and_its_ports(systemd: Callable[..., None], tmp_path: Path) -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    command = ["python3", "-c", f"{code}; time.sleep(60)"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        systemd(systemctl=f"LoadState=loaded\nMainPID={process.pid}\nControlGroup=/none")
        found = seen.running("hello.service", 5)
        process.kill()
    assert (found.pid, found.cwd, found.ports) == (process.pid, str(tmp_path), {port})
    assert 0 <= found.seconds < 60
