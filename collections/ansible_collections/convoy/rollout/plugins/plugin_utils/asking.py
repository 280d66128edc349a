# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host asks of the coordinator through the ledger: whether it may go, and what follows from how it went.

``asker`` has the options that such actions have: ``rollout``, ``token`` and ``host``, and ``poll`` for one that waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.utils.display import Display

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Answer,
    Denied,
    Migrate,
    Recorded,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts

SAY_EVERY = 15.0  # seconds between two lines about what a host waits for
SOON = 0.05  # seconds between two questions, at least, when the time has come


def await_admission(rollouts: Rollouts, asker: Mapping[str, Any]) -> Answer:
    """Whether the host may go, will never, or has to run a migration first."""
    host = asker["host"]
    return await_answer(rollouts, lambda: rollouts.admit(asker["rollout"], asker["token"], host), host, asker["poll"])


def await_answer(rollouts: Rollouts, ask: Callable[[], Answer], who: str, poll: float) -> Answer:
    """Ask again when something has happened, or when the time has come that the last answer named."""
    say_at = time.monotonic() + SAY_EVERY
    while True:
        answer = ask()
        if not isinstance(answer, Wait):
            return answer
        due = math.inf if answer.until is None else max(SOON, answer.until - time.time())
        left = max(SOON, say_at - time.monotonic())
        if not rollouts.wait_for_change(min(due, left), poll, who) and left < due:
            say_at += SAY_EVERY  # asking again is also the run's sign of life
            Display().display(f"{who} waits: {answer.reason}{_until(answer)}")


def told(answer: Migrate) -> dict[str, Any]:
    """A migration that has to be run, as JSON types."""
    one = answer.migration
    return {"name": one.name, "back": one.back, "run_on": one.run_on, "until": answer.until, "release": one.release}


def _until(wait: Wait) -> str:
    return "" if wait.until is None else time.strftime(", until %H:%M:%S at the latest", time.localtime(wait.until))


def report(rollouts: Rollouts, asker: Mapping[str, Any], outcome: HostStatus, why: str) -> dict[str, Any]:
    """Record the outcome: ``gate``, the one that this host has to run, or None, and ``convoy`` with what is told."""
    rollout, host = asker["rollout"], asker["host"]
    answer = rollouts.report(rollout, asker["token"], host, outcome, why)
    gate = None
    if isinstance(answer, Recorded) and answer.gate_due:
        gate = rollouts.gate(rollout)
    because = f": {why}" if why else ""
    lines = [f"{host} {outcome}{because}"]
    if isinstance(answer, Denied):
        lines = [f"{host} says {outcome}{because}, which is not taken: {answer.reason}"]
    if gate:
        bakes = f" and bakes for {gate['bake']:g} s" if gate["bake"] else ""
        lines.append(f"phase {gate['phase']} has closed{bakes}")
    return {"gate": gate, "convoy": {"lines": lines, **rollouts.tally(rollout)}}
