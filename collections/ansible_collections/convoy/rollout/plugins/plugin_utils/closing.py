# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a rollout: which hosts go back, the verdict, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils import text
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Denied, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView


class RolloutFailedError(ConvoyError):
    """The rollout did not succeed; ``summary`` says in a few lines how it ended."""

    reason = "rollout"

    def __init__(self, message: str, summary: list[str]) -> None:
        super().__init__(message)
        self.details = {"convoy": {"summary": summary}}


def decide_return(rollouts: Rollouts, opened: Mapping[str, Any]) -> dict[str, Any]:
    """Which hosts have to go back, in their order; normally none."""
    view = rollouts.standing(opened["rollout"])
    if view.status is not Status.TURNING_BACK:
        return {"changed": False, "to_return": []}
    lines = [f"the rollout turns back: {view.state.reason}"]
    if view.to_return:
        lines.append(f"going back: {text.names(view.to_return)}")
    return {"changed": False, "to_return": view.to_return, "convoy": {"lines": lines}}


def close(rollouts: Rollouts, opened: Mapping[str, Any], status_command: str) -> dict[str, Any]:
    """Record the verdict and give the token back. Raises RolloutFailedError for anything but success."""
    answer = rollouts.close(opened["rollout"], opened["token"])
    view = rollouts.standing(opened["rollout"])
    if view.status is Status.SUCCEEDED:
        return {"changed": False, "status": view.status.value, "convoy": {"summary": text.outcome_lines(view, "")}}
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
