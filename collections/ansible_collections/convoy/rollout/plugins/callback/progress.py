# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One clear line for each thing that happens in a rollout; its summary as the last lines of the run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: Tell what happens in a rollout, a line at a time
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Prints the lines that tasks return in their result under C(convoy.lines), with the time of day, as they arrive.
  - In a terminal it also keeps a last line that says how the rollout stands, from what tasks return under C(convoy) as
    C(phase), C(done), C(total), C(in_flight) and C(failed). Everything else that is printed appears above it. There is
    no such line in a pipe, in CI and under AWX.
  - Where another callback plugin is enabled that may write to the terminal by itself, the line is printed as ordinary
    lines instead, one whenever a number changed.
  - Prints what tasks return under C(convoy.summary) after the recap, so that the last lines of a run say how it ended.
    Callback plugins that stand after this one in C(callbacks_enabled) print after it.
  - Works beside any stdout callback, and so under AWX and ansible-runner too. A task with C(no_log) tells nothing.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg), as the last one.
options:
  status_line:
    description: Whether to keep a status line in a terminal.
    type: bool
    default: true
    env:
      - name: CONVOY_STATUS_LINE
    ini:
      - section: callback_convoy_progress
        key: status_line
"""

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from ansible import constants
from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook import Playbook
from ansible.plugins.callback import CallbackBase

from ansible_collections.convoy.rollout.plugins.plugin_utils.progress import Standing, lines_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.terminal import StatusLine

# Known to print through Ansible's own display, and so through Python's streams, only.
_KNOWN_STDOUT = ("default", "minimal", "oneline", "ansible.builtin.", "convoy.rollout.")
_KNOWN_OTHERS = ("ansible.builtin.", "ansible.posix.", "convoy.rollout.")


class CallbackModule(CallbackBase):
    """``convoy.rollout.progress``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "convoy.rollout.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._standing = Standing(time.monotonic())
        self._line: StatusLine | None = None
        self._ordinary_lines = False
        self._interruption = Interruption()

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """See what kind of place this is printed to."""
        self._interruption.watch()
        if not self.get_option("status_line") or not in_terminal():
            return
        if alone():
            self._line = StatusLine(lambda: self._standing.text(time.monotonic()))
            self._line.start()
            atexit.register(self._line.stop)
        else:
            self._ordinary_lines = True

    def v2_playbook_on_vars_prompt(self, varname: str, *details: Any, **more: Any) -> None:
        """A person is asked something."""
        if self._line:
            self._line.give_way()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Tell what the task has to tell."""
        self._tell(result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """The same of a task that failed."""
        self._tell(result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """The same of a task that reached nothing."""
        self._tell(result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        """The same of one item of a loop."""
        self._tell(result)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        """The same of one item that failed."""
        self._tell(result)

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        """The same of a task that will be tried again."""
        self._tell(result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """The last lines of the run."""
        self._interruption.resume = ""
        if self._line:
            self._line.stop()
        for line in ("", *self._standing.summary) if self._standing.summary else ():
            self._display.display(line)

    def _tell(self, result: CallbackTaskResult) -> None:
        told = result.result.get("convoy")
        if not isinstance(told, Mapping):
            return
        self._interruption.resume = str(told.get("resume", self._interruption.resume))
        now = time.strftime("%H:%M:%S")
        for line in lines_of(told, "lines"):
            self._display.display(f"{now}  {line}")
        if self._standing.take(told) and self._ordinary_lines:
            self._display.display(f"{now}  {self._standing.text(time.monotonic())}")
        if self._line and self._standing.known:
            self._line.draw()


class Interruption:
    """Says how to go on when the run is interrupted. ``resume``: the command; empty while no rollout is open."""

    def __init__(self) -> None:
        self.resume = ""
        self._pid = 0
        self._usual: Any = None

    def watch(self) -> None:
        """Ctrl-C ends ansible-playbook in good order, SIGTERM at once: it is said before Ansible's own handler acts."""
        self._pid = os.getpid()
        atexit.register(self._say)
        self._usual = signal.getsignal(signal.SIGTERM)
        if callable(self._usual):
            signal.signal(signal.SIGTERM, self._terminated)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._say()
        self._usual(number, frame)

    def _say(self) -> None:
        if not self.resume or os.getpid() != self._pid:
            return
        told = (
            f"\ninterrupted: the rollout is open, hosts that are out finish or are found again; next: {self.resume}\n"
        )
        self.resume = ""
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), told.encode())


def in_terminal() -> bool:
    """A person looks on, and the terminal can erase a line. ansible-runner has a terminal too, but nobody looks."""
    return (
        sys.stdout.isatty()
        and sys.stderr.isatty()
        and os.environ.get("TERM", "dumb") != "dumb"
        and not os.environ.get("CI")
        and not constants.DEFAULT_STDOUT_CALLBACK.endswith("awx_display")
    )


def alone() -> bool:
    """Nobody else is here who might write past Python's streams."""
    return constants.DEFAULT_STDOUT_CALLBACK.startswith(_KNOWN_STDOUT) and all(
        name.startswith(_KNOWN_OTHERS) for name in constants.CALLBACKS_ENABLED or ()
    )
