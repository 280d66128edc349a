# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A depot behind a web server that can be made to fail: for tests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Faults:
    """What goes wrong, and what was asked: each request for an artifact as the first byte that was asked for.

    ``cuts``: so many answers with artifacts break off half way, ``die_after``: all after so many; ``errors``: so many
    answers are ``status``.
    """

    cuts: int = 0
    die_after: int | None = None
    errors: int = 0
    status: int = 503
    ranges: bool = True
    listing: bool = True
    asked: list[int] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    faults: Faults

    def do_GET(self) -> None:
        if self.faults.errors:
            self.faults.errors -= 1
            self.send_error(self.faults.status)
        elif "/blobs/" in self.path:
            self._send_artifact(Path(self.translate_path(self.path)))
        else:
            super().do_GET()

    def list_directory(self, path: Any) -> Any:
        if not self.faults.listing:
            self.send_error(404)
            return None
        return super().list_directory(path)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send_artifact(self, path: Path) -> None:
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if self.faults.ranges else None
        start, end = (int(asked.group(1)), int(asked.group(2)) + 1) if asked else (0, len(content))
        self.faults.asked.append(start)
        part = content[start:end]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        dead = self.faults.die_after is not None and len(self.faults.asked) > self.faults.die_after
        if self.faults.cuts or dead:
            self.faults.cuts -= not dead
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        else:
            self.wfile.write(part)


@contextmanager
def serving(directory: Path, faults: Faults) -> Iterator[str]:
    """The URL of a server of this directory."""
    handler = type("Handler", (_Handler,), {"faults": faults})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
