# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status line on a real terminal (a pty), read back by a small one of our own."""

from __future__ import annotations

import os
import pty
import sys
import threading
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.terminal import StatusLine, fitted, printable, width


class Screen:
    """What a terminal shows of a text with carriage returns and erasures."""

    def __init__(self) -> None:
        self.lines = [""]
        self.column = 0

    def show(self, text: str) -> None:
        """Take in a text that does not end in the middle of a sequence."""
        at = 0
        while at < len(text):
            if text.startswith("\x1b[K", at):
                self.lines[-1] = self.lines[-1][: self.column]
                at += 3
                continue
            if text[at] == "\r":
                self.column = 0
            elif text[at] == "\n":
                self.lines.append("")
                self.column = 0
            else:
                line = self.lines[-1]
                self.lines[-1] = line[: self.column] + text[at] + line[self.column + 1 :]
                self.column += 1
            at += 1


class Terminal:
    """A pty whose far end is read all the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.near, self.far = pty.openpty()
        self.out = os.fdopen(os.dup(self.far), "w", buffering=1, encoding="utf-8")
        self.err = os.fdopen(os.dup(self.far), "w", buffering=1, encoding="utf-8")
        self.read = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.read += os.read(self.near, 65536)
            except OSError:
                return

    def keep(self, text: str, interval: float = 600) -> StatusLine:
        """Begin to keep a line at its bottom."""
        # Here and not in a fixture: pytest puts streams of its own in place before each test.
        self.monkeypatch.setattr(sys, "stdout", self.out)
        self.monkeypatch.setattr(sys, "stderr", self.err)
        line = StatusLine(lambda: text, interval)
        line.start()
        return line

    def lines(self) -> list[str]:
        """The screen, after everything has arrived."""
        for stream in (self.out, self.err):
            stream.close()
        os.close(self.far)
        self.reader.join(10)
        os.close(self.near)
        screen = Screen()
        screen.show(self.read.decode())
        return screen.lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal(monkeypatch)


def test_width_and_what_fits() -> None:
    assert (width("abc"), width("日本"), width("e\u0301")) == (3, 4, 1)
    assert fitted("abcdef", 4) == "abc"
    assert fitted("日本語", 6) == "日本"
    assert fitted("abc", 4) == "abc"


def test_printable() -> None:
    assert printable("a\x1b[31mb\r\n") == "a?[31mb??"


def test_the_line_stays_below_what_others_write(terminal: Terminal) -> None:
    line = terminal.keep("1 of 6 done")
    line.draw()
    print("one")
    line.draw()
    print("two", file=sys.stderr)
    line.draw()
    line.draw()
    line.stop()
    print("three")
    read = terminal.lines()
    assert read == ["one", "two", "three", ""]
    assert terminal.read.count(b"1 of 6 done") == 4


def test_the_line_is_there_between(terminal: Terminal) -> None:
    line = terminal.keep("1 of 6 done")
    print("one")
    line.draw()
    assert sys.stdout is not terminal.out
    # Never stopped, as when the process is killed.
    sys.stdout, sys.stderr = terminal.out, terminal.err
    assert terminal.lines() == ["one", "1 of 6 done"]


def test_a_line_that_is_too_long_is_cut(terminal: Terminal) -> None:
    line = terminal.keep("x" * 100 + "\x1b[2J")
    line.draw()
    sys.stdout, sys.stderr = terminal.out, terminal.err
    assert terminal.lines() == ["x" * 39]


def test_an_unfinished_line_of_others_is_left_alone(terminal: Terminal) -> None:
    line = terminal.keep("status")
    line.draw()
    sys.stdout.write("Password: ")
    line.draw()
    sys.stdout.write("ok\n")
    line.draw()
    line.stop()
    assert terminal.lines() == ["Password: ok", ""]


def test_bytes_and_prompts_that_are_not_seen_are_given_way_to(terminal: Terminal) -> None:
    line = terminal.keep("status")
    line.draw()
    sys.stdout.buffer.write(b"Press enter: ")
    sys.stdout.flush()
    line.draw()
    line.give_way()
    line.draw()
    print()
    line.draw()
    line.stop()
    assert terminal.lines() == ["Press enter: ", ""]


def test_the_streams_are_given_back(terminal: Terminal) -> None:
    line = terminal.keep("status")
    assert sys.stdout.isatty()
    assert sys.stdout.fileno() == terminal.out.fileno()
    line.stop()
    line.stop()
    assert (sys.stdout, sys.stderr) == (terminal.out, terminal.err)
    line.draw()
    assert terminal.lines() == [""]


def test_a_stream_that_somebody_else_put_in_place_since_is_left_there(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = terminal.keep("status")
    other: Any = object()
    monkeypatch.setattr(sys, "stdout", other)
    line.stop()
    assert sys.stdout is other
    assert sys.stderr is terminal.err


def test_a_terminal_that_is_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = pty.openpty()
    os.close(near)
    with os.fdopen(far, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        line = StatusLine(lambda: "status", interval=600)
        line.start()
        line.draw()
        line.stop()
        assert sys.stdout is out
        monkeypatch.undo()


def test_many_writers_with_locks_of_their_own_neither_garble_nor_wait_for_each_other_for_ever(
    terminal: Terminal,
) -> None:
    # As ansible-core has it: its display writes with a lock held, and others write without.
    display = threading.RLock()
    line = terminal.keep("#" * 30, interval=0.0005)

    def displayed(name: str) -> None:
        for at in range(200):
            with display:
                (sys.stdout if at % 2 else sys.stderr).write(f"{name} {at}\n")
            line.draw()

    def printed(name: str) -> None:
        for at in range(200):
            sys.stdout.write(f"{name} {at}\n")

    threads = [threading.Thread(target=displayed, args=(name,), daemon=True) for name in ("a", "b")]
    threads.append(threading.Thread(target=printed, args=("c",), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "the writers wait for each other"
    line.stop()
    shown = terminal.lines()
    assert sorted(shown[:-1]) == sorted(f"{name} {at}" for name in "abc" for at in range(200))
    assert shown[-1] == ""
