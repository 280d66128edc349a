# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action verdict: how it waits for the end of the bake time."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.action.verdict import ASK_EVERY, tell
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Answer, Denied, Recorded, Wait


@pytest.mark.parametrize("ahead", [-3600.0, -5.0, 0.0, 5.0, 3600.0])
def test_a_ledger_with_another_clock_is_not_waited_for_by_this_one(ahead: float) -> None:
    """The bake time is over 2.5 s from now by the ledger's clock, which is ``ahead`` of this one."""
    now, asked = 1000.0, 0

    def judge() -> Answer:
        nonlocal asked
        asked += 1
        return Wait("it bakes", 1002.5 + ahead) if now < 1002.5 else Recorded()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert tell(judge, lambda: now, sleep) == Recorded()
    assert 1002.5 <= now <= 1002.5 + ASK_EVERY
    assert asked <= 60


@pytest.mark.parametrize("answer", [Denied("it has reverted"), Wait("paused")])
def test_what_is_no_matter_of_time_is_not_waited_for(answer: Answer) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"it slept for {seconds} s")

    assert tell(lambda: answer, lambda: 0.0, sleep) == answer
