# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's own output, made quiet: failures, warnings and the recap; everything else from -v on."""

from __future__ import annotations

DOCUMENTATION = r"""
name: terse
type: stdout
short_description: Show failures, warnings and the recap, nothing else
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Leaves out banners and the results of tasks that did what they should, so that what M(convoy.rollout.rollout) has to
    say can be read. A failure is shown with its host, its task and its message.
  - From C(-v) on it is P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - Set with C(stdout_callback) in C(ansible.cfg).
"""

from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback.default import CallbackModule as DefaultCallback


class CallbackModule(DefaultCallback):
    """``convoy.rollout.terse``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "convoy.rollout.terse"

    def __init__(self) -> None:
        super().__init__()
        self._at_once: list[tuple[str, str]] = []  # what Ansible has no figures of for the recap

    @property
    def _quiet(self) -> bool:
        return bool(self._display.verbosity == 0)

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """No banner."""
        if not self._quiet:
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """No banner."""
        if not self._quiet:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        """No banner."""
        if not self._quiet:
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Nothing about files."""
        if not self._quiet:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """A play without hosts is normal: most rollouts turn nothing back."""
        if not self._quiet:
            super().v2_playbook_on_no_hosts_matched()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Only its warnings."""
        self._count(result, "ok", *(["changed"] if result.is_changed() else []))
        if self._quiet:
            self._handle_warnings(result.result)
        else:
            super().v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        """Only its warnings."""
        if self._quiet:
            self._handle_warnings(result.result)
        else:
            super().v2_runner_item_on_ok(result)

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        """Nothing."""
        if not self._quiet:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: CallbackTaskResult) -> None:
        """Nothing."""
        if not self._quiet:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Host, task and message."""
        self._count(result, "failures")
        if not self._quiet:
            super().v2_runner_on_failed(result, ignore_errors)
        elif not (result.task.loop and "results" in result.result):
            self._say("ignored" if ignore_errors else "failed", result)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        """The same of an item."""
        if self._quiet:
            self._say("failed", result)
        else:
            super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Host, task and message."""
        self._count(result, "dark")
        if self._quiet:
            self._say("unreachable", result)
        else:
            super().v2_runner_on_unreachable(result)

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        """Nothing: the last try will be told of."""
        if not self._quiet:
            super().v2_runner_retry(result)

    def v2_runner_on_async_poll(self, result: CallbackTaskResult) -> None:
        """Nothing."""
        if not self._quiet:
            super().v2_runner_on_async_poll(result)

    def v2_runner_on_async_ok(self, result: CallbackTaskResult) -> None:
        """Nothing."""
        if not self._quiet:
            super().v2_runner_on_async_ok(result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """The recap, with hosts that took a step at once with others."""
        for what, host in self._at_once:
            stats.increment(what, host)
        super().v2_playbook_on_stats(stats)

    def _count(self, result: CallbackTaskResult, *what: str) -> None:
        self._at_once += [(one, host) for host in [_at_once(result)] if host for one in what]

    def _say(self, what: str, result: CallbackTaskResult) -> None:
        self._handle_warnings(result.result)
        host = _at_once(result) or self.host_label(result)
        line = f"{what}: [{host}] {result.task.get_name()}: {_message(result.result)}"
        self._display.display(
            line,
            color=constants.COLOR_SKIP if what == "ignored" else constants.COLOR_ERROR,
            stderr=self.get_option("display_failed_stderr"),
        )


def _at_once(result: CallbackTaskResult) -> str:
    """The host that took a step at once with others; empty where the task was that of a host alone."""
    told = result.result.get("convoy")
    return str(told.get("host", "")) if isinstance(told, Mapping) else ""


def _message(result: Mapping[str, Any]) -> str:
    """What went wrong. Of a command, also the last that it said about it."""
    message = str(result.get("msg") or result.get("censored") or "").strip() or "no message"
    said = str(result.get("stderr") or "").strip().splitlines()
    return f"{message.rstrip('.')}: {said[-1]}" if said and said[-1] not in message else message
