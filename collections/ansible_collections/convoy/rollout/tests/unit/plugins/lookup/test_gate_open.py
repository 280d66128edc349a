# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup gate_open, as a template calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError

from ansible_collections.convoy.rollout.plugins.lookup.gate_open import LookupModule
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger


def ask(url: str, rollout: str = "r1") -> list[bool]:
    answers: list[bool] = LookupModule().run([rollout], {}, ledger_url=url, stream="staging/hello")
    return answers


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A rollout whose only phase has closed, and bakes."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(url, "test")
    ledger.prepare()
    rollouts = Rollouts(ledger, "staging/hello")
    phases = parse_phases([{"name": "all", "size": "100%", "bake": 60}], 1)
    spec = RolloutSpec(phases, FailureBudget(Quantity(0)), Quantity(1), 60)
    seen = {"app1": HostFacts("app1", "new", "old")}
    facts = {"kind": "deploy", "environment": "staging", "component": "hello", "version": "1"}
    run = Run("here", 1, 1, "ann")
    token = rollouts.open(make_plan(spec, list(seen.values())), seen, facts, run, lambda _run: False, "r1", 60).token
    assert ask(url) == [False]
    assert isinstance(rollouts.admit("r1", token, "app1"), Admitted)
    rollouts.report("r1", token, "app1", HostStatus.SUCCEEDED)
    return url


def test_a_gate_is_open_until_somebody_aborts(url: str) -> None:
    assert ask(url) == [True]
    Rollouts(Ledger(url, "test"), "staging/hello").turn_back("r1", None, "abort")
    assert ask(url) == [False]


def test_a_ledger_that_cannot_be_read_ends_no_watch(url: str) -> None:
    assert ask(url, "r2") == [True]
    assert ask("sqlite:////nowhere/ledger.db") == [True]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(AnsibleLookupError, match="gate_open: stream is not given"):
        LookupModule().run(["r1"], {}, ledger_url="sqlite://")
