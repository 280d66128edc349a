# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a rollout: which hosts go back, the verdict, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils import text
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.superseding import POLL, SAY_EVERY, Patience


class RolloutFailedError(ConvoyError):
    """The rollout did not succeed; ``summary`` says in a few lines how it ended."""

    reason = "rollout"

    def __init__(self, message: str, summary: list[str]) -> None:
        super().__init__(message)
        self.details = {"convoy": {"summary": summary}}


def decide_return(rollouts: Rollouts, opened: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
    """Which hosts have to go back, in their order; normally none.

    Where several runs share the rollout this one answers for its own hosts, and waits until the others are through.
    """
    view = rollouts.standing(opened["rollout"])
    here = opened.get("here")
    if here is not None:
        view = _await_others(rollouts, view, patience)
    if view.status is not Status.TURNING_BACK:
        return {"changed": False, "to_return": []}
    back = [host for host in view.to_return if here is None or host in here]
    lines = [f"the rollout turns back: {view.state.reason}"]
    if back:
        lines.append(f"going back: {text.names(back)}")
    return {"changed": False, "to_return": back, "convoy": {"lines": lines}}


def _await_others(rollouts: Rollouts, view: RolloutView, patience: Patience) -> RolloutView:
    """The rollout when it is decided; as it stands where nothing has happened in it for ``patience.deadline``."""
    seen, since = view.head, patience.clock()
    say_at = since + SAY_EVERY
    while view.status in (Status.ROLLING, Status.GATING):
        now = patience.clock()
        awaits_person = view.state.paused or view.state.held or (view.state.gate is not None and view.state.gate.held)
        if now - since >= patience.deadline and not awaits_person:
            break
        if now >= say_at:
            say_at = now + SAY_EVERY
            patience.say(f"waits for the other runs of rollout {view.id}: it is {view.status}")
        patience.sleep(POLL)
        view = rollouts.standing(view.id)
        if view.head != seen:
            seen, since = view.head, patience.clock()
    return view


def close(rollouts: Rollouts, opened: Mapping[str, Any], status_command: str, catch_up: str) -> dict[str, Any]:
    """Record the verdict and give the token back. Raises RolloutFailedError for anything but success.

    ``status_command`` and ``catch_up`` are commands that are named as the next one, where they are.
    """
    answer = rollouts.close(opened["rollout"], opened["token"])
    view = rollouts.standing(opened["rollout"])
    if view.status is Status.SUCCEEDED:
        deferred = any(row.status is HostStatus.DEFERRED for row in view.hosts)
        summary = text.outcome_lines(view, f"{catch_up}    (when they can be reached again)" if deferred else "")
        return {"changed": False, "status": view.status.value, "convoy": {"summary": summary}}
    summary = text.outcome_lines(view, _next_step(view, opened["retry"], status_command))
    if isinstance(answer, (Denied, Wait)):
        raise RolloutFailedError(f"the rollout has not ended: {answer.reason}", summary)
    raise RolloutFailedError(f"the rollout has {view.status}: {view.state.reason}", summary)


def _next_step(view: RolloutView, retry: str, status_command: str) -> str:
    if not view.status.ended:
        return f"{retry}    (goes on where it stopped)"
    if view.status is Status.REVERTED:
        return f"{status_command}    (what runs now; then publish a mended version and deploy it)"
    return f"{status_command}    (what runs now; then {retry})"
