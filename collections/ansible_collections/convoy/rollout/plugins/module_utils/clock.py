# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time of a host, passed in so that what waits can be tested without waiting."""

from __future__ import annotations

import time

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Clock:
    """The clock of the machine. Tests pass an object with the same three methods."""

    def now(self) -> float:
        """Seconds on a clock that never jumps; only differences mean something."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; zero and less return at once."""
        if seconds > 0:
            time.sleep(seconds)


def boot_id() -> str:
    """Which boot of this machine it is: what was counted from another one says nothing any more."""
    with open(_BOOT_ID, "rb") as stream:
        return stream.read().decode("ascii").strip()
