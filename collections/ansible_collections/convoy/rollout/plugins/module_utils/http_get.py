# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One GET over HTTP/1.1 (RFC 9112), as much of it as a probe needs.

Python's own client is not asked: it imports the packages `email` and `ssl`, which costs more than all the rest of a
call that asks a gate. What it refuses is refused here, and all of it ends at one moment, however slowly it drips.
"""

from __future__ import annotations

import socket
import time

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Mapping
    from urllib.parse import SplitResult

_PIECE = 64 * 1024
_LONGEST_LINE = 64 * 1024
_MOST_HEADERS = 100
_PORTS = {"http": 80, "https": 443}
_WITHOUT_BODY = (204, 304)


class NotHttpError(Exception):
    """What came back is no valid HTTP; the text says what is wrong with it."""


class Response(NamedTuple):
    """What was answered. `headers` have names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(parts: SplitResult, headers: Mapping[str, str], ends: float, most: int) -> Response:
    """Ask for a URL, until `ends` on the monotonic clock. Of the body `most` bytes are read.

    OSError, in time also socket.timeout, where the connection does not come about or breaks; ValueError for what cannot
    be asked for.
    """
    request = _request(parts, headers)
    with _dialled(parts, ends) as plain, _secured(plain, parts, ends) as connected:
        connected.settimeout(_left(ends))
        connected.sendall(request)
        return _response(_Reader(connected, ends), most)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left


def _request(parts: SplitResult, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(character <= " " or character == "\x7f" for character in target):
        raise ValueError(f"{target!r} holds a blank or a control character")
    given = {name.lower() for name in headers}
    ours = {"Host": _host(parts), "Accept-Encoding": "identity", "Connection": "close"}
    sent = {**{name: value for name, value in ours.items() if name.lower() not in given}, **headers}
    if any(sign in text for pair in sent.items() for text in pair for sign in "\r\n"):
        raise ValueError("a header of the request holds a line break")
    lines = (f"{name}: {value}\r\n".encode("latin-1") for name, value in sent.items())
    return b"".join([f"GET {target} HTTP/1.1\r\n".encode("ascii"), *lines, b"\r\n"])


def _name(parts: SplitResult) -> bytes:
    """The host's name as it is looked up. What is ASCII needs no codec, whose tables are large."""
    host = parts.hostname or ""
    return host.encode("ascii" if host.isascii() else "idna")


def _host(parts: SplitResult) -> str:
    host = _name(parts).decode("ascii")
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in (None, _PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _dialled(parts: SplitResult, ends: float) -> socket.socket:
    """A connection to the first address of the host that takes it."""
    port = _PORTS.get(parts.scheme, 80) if parts.port is None else parts.port
    trouble = OSError("its name has no address")
    for family, kind, protocol, _canonical, address in socket.getaddrinfo(_name(parts), port, 0, socket.SOCK_STREAM):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_left(ends))
            connected.connect(address)
            return connected
        except OSError as error:
            connected.close()
            trouble = error
    raise trouble


def _secured(plain: socket.socket, parts: SplitResult, ends: float) -> socket.socket:
    """The connection with TLS, where the URL asks for it."""
    if parts.scheme != "https":
        return plain
    import ssl

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    plain.settimeout(_left(ends))
    return context.wrap_socket(plain, server_hostname=parts.hostname)


class _Reader:
    """What comes in, by lines and by bytes. A socket's own timeout begins anew with every byte; this one does not."""

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._connected = connected
        self._ends = ends
        self._held = bytearray()

    def line(self) -> bytes:
        """A line without its end. At the end of the stream: what is left."""
        searched = 0
        while True:
            end = self._held.find(b"\n", searched, _LONGEST_LINE)
            if end >= 0:
                return self._take(end + 1).rstrip(b"\r\n")
            if len(self._held) >= _LONGEST_LINE:
                raise NotHttpError(f"a line of it has more than {_LONGEST_LINE} bytes")
            searched = len(self._held)
            if not self._receive():
                return self._take(searched)

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end of the stream."""
        while len(self._held) < size and self._receive():
            pass
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def _receive(self) -> bool:
        self._connected.settimeout(_left(self._ends))
        piece = self._connected.recv(_PIECE)
        self._held += piece
        return bool(piece)


def _response(reader: _Reader, most: int) -> Response:
    while True:
        status, headers = _status(reader.line()), _headers(reader)
        # Others of these announce the answer that follows.
        if not 100 <= status < 200 or status == 101:
            return Response(status, headers, _body(reader, status, headers, most))


def _status(line: bytes) -> int:
    if not line:
        raise ConnectionResetError("the connection was closed without an answer")
    version, _blank, rest = line.partition(b" ")
    status = (*rest.split(maxsplit=1), b"")[0]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(status) != 3 or not status.isdigit() or status < b"100":
        raise NotHttpError(f"it begins with {line[:100].decode('utf-8', 'replace')!r}")
    return int(status)


def _headers(reader: _Reader) -> dict[str, str]:
    """The headers. Of one that comes twice the last counts."""
    headers: dict[str, str] = {}
    name = ""
    for _number in range(_MOST_HEADERS + 1):
        line = reader.line().decode("latin-1")
        if not line:
            return headers
        if line[0] in " \t":
            headers[name] = f"{headers.get(name, '')} {line.strip()}"
            continue
        name, _colon, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = value.strip()
    raise NotHttpError(f"it has more than {_MOST_HEADERS} headers")


def _body(reader: _Reader, status: int, headers: Mapping[str, str], most: int) -> bytes:
    if status in _WITHOUT_BODY:
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(reader, most)
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return reader.read(most)
    return _exactly(reader, min(int(length), most))


def _exactly(reader: _Reader, size: int) -> bytes:
    found = reader.read(size)
    if len(found) < size:
        raise NotHttpError(f"it ends {size - len(found)} bytes too early")
    return found


def _chunks(reader: _Reader, most: int) -> bytes:
    body = b""
    while len(body) < most:
        digits = reader.line().split(b";", 1)[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise NotHttpError(f"a chunk of it has the length {digits[:20]!r}")
        size = int(digits, 16)
        if size == 0:
            break
        body += _exactly(reader, min(size, most - len(body)))
        if len(body) < most and reader.line():
            raise NotHttpError("a chunk of it is longer than it says")
    return body
