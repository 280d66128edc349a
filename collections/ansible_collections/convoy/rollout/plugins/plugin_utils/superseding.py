# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deployment does when another one of the same component runs: be rejected, queue, cancel it, or hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import (
    WHEN_BUSY,
    Blocker,
    BusyError,
    Rollouts,
)

POLL = 1.0  # seconds between two looks at the rollout that is in the way
SAY_EVERY = 15.0  # seconds between two lines about what is waited for


class WhenBusy(StrEnum):
    """What to do with a rollout that is in the way."""

    REJECT = "reject"
    QUEUE = "queue"
    CANCEL_OLDER = "cancel_older"
    HOLD = "hold"  # queue, then begin paused


@dataclass(frozen=True)
class Patience:
    """How to wait: a monotonic clock and a sleep, both in seconds; ``say`` tells people; ``deadline``: seconds."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
    deadline: float


def make_way(
    rollouts: Rollouts, blocker: Callable[[], Blocker | None], policy: WhenBusy, patience: Patience, who: str
) -> str:
    """Return when nothing is in the way: for what was waited for, empty where the way was free.

    Raises BusyError where the policy is to reject, or the deadline passes.
    """
    first = blocker()
    if first is None:
        return ""
    if policy is WhenBusy.REJECT:
        raise BusyError(f"{rollouts.stream}: {first.told}. {WHEN_BUSY}")
    if policy is WhenBusy.CANCEL_OLDER:
        answer = rollouts.turn_back(first.rollout, None, f"cancelled by {who}, who deploys something newer")
        patience.say(f"{first.told}; it was told to turn back" if not isinstance(answer, Denied) else first.told)
    _wait(rollouts.stream, blocker, patience)
    return first.rollout


def _wait(stream: str, blocker: Callable[[], Blocker | None], patience: Patience) -> None:
    begun = say_at = patience.clock()
    while (still := blocker()) is not None:
        now = patience.clock()
        if now - begun >= patience.deadline:
            raise BusyError(
                f"{stream}: {still.told}, after {now - begun:.0f} s of waiting, which rollout_queue_deadline limits to "
                f"{patience.deadline:g} s. {WHEN_BUSY}"
            )
        if now >= say_at:
            patience.say(f"{stream} waits: {still.told}")
            say_at = now + SAY_EVERY
        patience.sleep(POLL)
