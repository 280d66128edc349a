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
  - Prints the lines that tasks of this collection return under C(convoy.lines), with the time of day, as they arrive.
  - Prints the summary of the rollout after everything else, so that the last lines of a run say how it ended.
  - Works beside any stdout callback, and so under AWX and ansible-runner too.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
"""

import time
from collections.abc import Mapping
from typing import Any

from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """``convoy.rollout.progress``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "convoy.rollout.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._summary: list[str] = []

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Tell what the task has to tell."""
        self._tell(result.result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """The same of a task that failed."""
        self._tell(result.result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """The last lines of the run."""
        for line in ("", *self._summary) if self._summary else ():
            self._display.display(line)

    def _tell(self, result: Mapping[str, Any]) -> None:
        told = result.get("convoy")
        if not isinstance(told, Mapping):
            return
        now = time.strftime("%H:%M:%S")
        for line in told.get("lines", ()):
            self._display.display(f"{now}  {line}")
        self._summary += told.get("summary", ())
