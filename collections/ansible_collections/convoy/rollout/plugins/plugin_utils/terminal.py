# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A line at the bottom of a terminal that says how things stand, and gives way to whatever else is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

ERASE = "\r\x1b[K"


def width(text: str) -> int:
    """How many columns a terminal needs for `text`."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def fitted(text: str, columns: int) -> str:
    """The beginning of `text` that needs less than `columns`, so that the terminal does not begin another line."""
    while text and width(text) >= columns:
        text = text[:-1]
    return text


def printable(text: str) -> str:
    """`text` without what would move a cursor or change a colour."""
    return "".join(character if character.isprintable() else "?" for character in text)


class StatusLine:
    """Keeps one line up to date, as the last one, while anybody may write above it.

    It stands in front of sys.stdout and sys.stderr: before a text of somebody else is written the line is erased, and
    it is drawn again only where a new line has begun. What writes past Python's two streams is not seen, and would
    garble it: the caller must know that nobody does.
    """

    def __init__(self, text: Callable[[], str], interval: float = 1.0) -> None:
        """`text` says what the line is now; it is asked at every `draw` and, once drawn, every `interval` seconds."""
        self._text = text
        self._interval = interval
        # Never held while a stream is written: streams have locks of their own, which others hold when they come here.
        self._lock = threading.Lock()
        self._drawn = False
        self._writers = 0
        self._line_begun = True
        self._over = threading.Event()
        self._streams: tuple[TextIO, TextIO] | None = None

    def start(self) -> None:
        """Begin to keep the line."""
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout = cast(TextIO, _Yielding(sys.stdout, self))
        sys.stderr = cast(TextIO, _Yielding(sys.stderr, self))
        threading.Thread(target=self._tick, name="convoy-status-line", daemon=True).start()

    def stop(self) -> None:
        """Erase the line and give the streams back, unless somebody else has replaced them since."""
        self._over.set()
        with self._lock:
            self._erase()
            streams, self._streams = self._streams, None
        if streams and isinstance(sys.stdout, _Yielding):
            sys.stdout = streams[0]
        if streams and isinstance(sys.stderr, _Yielding):
            sys.stderr = streams[1]

    def draw(self) -> None:
        """Show the line as it is now, if a new line has begun and nobody is writing."""
        with self._lock:
            if not self._over.is_set() and self._line_begun and not self._writers:
                self._put(ERASE + fitted(printable(self._text()), shutil.get_terminal_size().columns))
                self._drawn = True

    def give_way(self) -> None:
        """Somebody is about to write in a way that is not seen, a prompt say: stay away until a text ends a line."""
        with self._lock:
            self._erase()
            self._line_begun = False

    @contextlib.contextmanager
    def giving_way_to(self, text: str) -> Iterator[None]:
        """While somebody else writes `text` where the line was."""
        with self._lock:
            self._erase()
            self._writers += 1
        try:
            yield
        finally:
            with self._lock:
                self._writers -= 1
                if text:
                    self._line_begun = text.endswith("\n")

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = False
            self._put(ERASE)

    def _put(self, text: str) -> None:
        """Past the stream and its lock; the stream has nothing left to write, as a terminal's is flushed by lines."""
        if self._streams is not None:
            # A terminal that is gone is no reason to fail.
            with contextlib.suppress(OSError):
                os.write(self._streams[0].fileno(), text.encode(self._streams[0].encoding, "replace"))

    def _tick(self) -> None:
        while not self._over.wait(self._interval):
            if self._drawn:
                self.draw()


class _Yielding:
    """A stream in front of which the status line gives way; in all else the stream itself."""

    def __init__(self, stream: TextIO, line: StatusLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        with self._line.giving_way_to(text):
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.write(text)

    @property
    def buffer(self) -> Any:
        # Whoever takes it writes bytes to it.
        self._line.give_way()
        return self._stream.buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
