# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a rollout stands, gathered from what its tasks tell in their results under ``convoy``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.terminal import printable

_COUNTS = ("done", "total", "in_flight", "failed")


def lines_of(told: Mapping[str, Any], key: str) -> list[str]:
    """The texts under `key` line by line, fit to be printed; nothing when they are not a list of texts."""
    texts = told.get(key)
    if not isinstance(texts, list | tuple):
        return []
    return [printable(line) for text in texts if isinstance(text, str) for line in text.splitlines() or [""]]


def duration(seconds: float) -> str:
    """A time as a person says it: 9s, 1m05s, 2h03m."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


class Standing:
    """Phase and counts as they were told last, and the summary as it grew."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._phase = ""
        self._counts: dict[str, int] = {}
        self.summary: list[str] = []

    @property
    def known(self) -> bool:
        """Something about phase or counts has been told."""
        return bool(self._phase or self._counts)

    def take(self, told: Mapping[str, Any]) -> bool:
        """Take in what a task told. True when phase or counts are others now."""
        before = (self._phase, dict(self._counts))
        phase = told.get("phase")
        if isinstance(phase, str | int):
            self._phase = str(phase)
        for name in _COUNTS:
            count = told.get(name)
            if isinstance(count, int):
                self._counts[name] = count
        self.summary += lines_of(told, "summary")
        return before != (self._phase, self._counts)

    def text(self, now: float) -> str:
        """All of it on one line, as far as it is known."""
        parts = [
            f"phase {self._phase}" if self._phase else "",
            self._done(),
            f"{self._counts['in_flight']} in flight" if "in_flight" in self._counts else "",
            f"{self._counts['failed']} failed" if "failed" in self._counts else "",
            duration(now - self._began),
        ]
        return " | ".join(part for part in parts if part)

    def _done(self) -> str:
        done, total = self._counts.get("done"), self._counts.get("total")
        if done is None:
            return ""
        return f"{done} of {total} done" if total is not None else f"{done} done"
