# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probes of a gate look at: each function asks the world once, within a time limit, and judges nothing."""

from __future__ import annotations

import contextlib
import os
import time

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, GateError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from typing import Mapping, Sequence

BODY_LIMIT = 1024 * 1024
OUTPUT_LIMIT = 4096

_POLL = 0.02
_UNIT_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts")


class NoAnswerError(ConvoyTargetError):
    """Nothing usable came back; the text says what happened instead."""


class HttpAnswer(NamedTuple):
    """An answer over HTTP. `location` is where a redirect points, `body` at most BODY_LIMIT bytes as text.

    `headers` have names in small letters; `seconds` passed until the answer was there.
    """

    status: int
    body: str
    location: str
    headers: Mapping[str, str] = {}
    seconds: float = 0.0


class CommandEnd(NamedTuple):
    """How a command ended. `output` is the beginning of what it printed, both streams together."""

    rc: int
    output: str


class UnitState(NamedTuple):
    """A systemd unit in systemd's own words. `restarts` counts systemd's automatic restarts."""

    load: str
    active: str
    sub: str
    result: str
    restarts: int


def silence(timeout: float) -> str:
    """The words for an observation that took too long."""
    return f"gave no answer within {round(timeout, 2):g} s"


def fetch(url: str, headers: Mapping[str, str], timeout: float, follow: int = 0) -> HttpAnswer:
    """GET `url`, and what it points to, `follow` times at most. `timeout` covers all of it.

    `headers` go to the host of `url` only: they may hold credentials.
    """
    from urllib.parse import urljoin, urlsplit

    began = time.monotonic()
    answer = _fetch_once(url, headers, timeout)
    for _again in range(follow):
        if not answer.location or not 300 <= answer.status < 400:
            break
        following = urljoin(url, answer.location)
        if urlsplit(following)[:2] != urlsplit(url)[:2]:
            headers = {}
        url = following
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            raise NoAnswerError(silence(timeout))
        answer = _fetch_once(url, headers, left)
    return answer._replace(seconds=time.monotonic() - began)


def _fetch_once(url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
    """GET `url` without following redirects. `timeout` covers the whole attempt, however slowly the answer drips."""
    from urllib.parse import urlsplit

    from ansible_collections.convoy.rollout.plugins.module_utils import http_get

    ends = time.monotonic() + timeout
    try:
        answer = http_get.get(urlsplit(url), headers, ends, BODY_LIMIT)
        _still_in_time(ends, timeout)
    except (OSError, http_get.NotHttpError, ValueError) as error:
        _still_in_time(ends, timeout)
        raise NoAnswerError(_http_trouble(error)) from error
    location = answer.headers.get("location", "")
    return HttpAnswer(answer.status, answer.body.decode("utf-8", "replace"), location, answer.headers)


def _still_in_time(ends: float, timeout: float) -> None:
    if time.monotonic() >= ends:
        raise NoAnswerError(silence(timeout))


def _http_trouble(error: Exception) -> str:
    if isinstance(error, OSError):
        return connection_trouble(error)
    if isinstance(error, ValueError):
        return f"could not be reached ({error})"
    return f"answered no valid HTTP ({error})"


def connection_trouble(error: OSError) -> str:
    """Why a connection did not come about or broke, in the words of the operating system."""
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    return f"could not be reached ({error.strerror or error or type(error).__name__})"


def connect(host: str, port: int, timeout: float) -> None:
    """Open a TCP connection to `host` and `port`, and close it again."""
    import socket

    try:
        socket.create_connection((host, port), timeout).close()
    except socket.timeout as error:
        raise NoAnswerError(silence(timeout)) from error
    except OSError as error:
        raise NoAnswerError(connection_trouble(error)) from error


def run_command(argv: Sequence[str], timeout: float) -> CommandEnd:
    """Run `argv` without a shell, from `/`, in a session of its own that is killed as a whole when time is up."""
    import subprocess

    ends = time.monotonic() + timeout
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise GateError(_unrunnable(argv[0], error)) from error
    with process:
        try:
            output = _output_until_end(process, ends)
        finally:
            _kill_session(process)
    if output is None:
        raise NoAnswerError(f"did not end within {timeout:g} s")
    return CommandEnd(process.returncode, output)


def _unrunnable(program: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"command {program!r} was not found on this host: give the full path of a program that is there"
    return f"command {program!r} cannot be run on this host: {error.strerror}"


def _output_until_end(process: subprocess.Popen[bytes], ends: float) -> str | None:
    """What the process printed until it ended; None when it did not end in time."""
    if process.stdout is None:
        return None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    kept = bytearray()
    while not _has_ended(process):
        if time.monotonic() >= ends:
            return None
        _drain(pipe, kept)
    _drain(pipe, kept)
    return kept.decode("utf-8", "replace")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Ended, but not yet waited for: as long as that is so, its number cannot go to another process."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _drain(pipe: int, kept: bytearray) -> None:
    """Wait for output and read it; beyond the limit it is thrown away, so that a full pipe stops nobody."""
    import select

    select.select([pipe], [], [], _POLL)
    with contextlib.suppress(BlockingIOError):
        data = os.read(pipe, 65536)
        kept += data[: max(OUTPUT_LIMIT - len(kept), 0)]
        if not data:
            time.sleep(_POLL / 4)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command and of what it started: a probe leaves nothing running."""
    import signal

    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def unit_state(unit: str, timeout: float) -> UnitState:
    """Ask systemd about `unit` with one call of systemctl."""
    import subprocess

    command = ["systemctl", "show", "--property=" + ",".join(_UNIT_PROPERTIES), "--", unit]
    try:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(silence(timeout)) from error
    except OSError as error:
        raise GateError(f"systemctl cannot be run on this host ({error.strerror}): is it run by systemd?") from error
    if answer.returncode != 0:
        raise NoAnswerError("could not be asked about: " + answer.stderr.decode("utf-8", "replace").strip())
    return parse_unit(answer.stdout.decode("utf-8", "replace"))


def parse_unit(text: str) -> UnitState:
    """The answer of `systemctl show` as a UnitState."""
    found: dict[str, str] = dict(_pairs(text.splitlines()))
    load, active, sub, result, restarts = (found.get(name, "") for name in _UNIT_PROPERTIES)
    return UnitState(load, active, sub, result, int(restarts) if restarts.isdigit() else 0)


def _pairs(lines: list[str]) -> list[list[str]]:
    return [line.split("=", 1) for line in lines if "=" in line]
