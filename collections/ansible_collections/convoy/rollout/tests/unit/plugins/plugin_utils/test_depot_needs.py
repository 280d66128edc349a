# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts still need, out of real ledgers; where one cannot be believed nothing is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    SpecError,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_needs import versions_needed
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError


def deploy(path: Path, stream: str, version: str, was: str | None, serial: int = 1, kind: str = "deploy") -> Rollouts:
    """A rollout that succeeded, in the ledger."""
    ledger = Ledger(f"sqlite:///{path}", "test")
    ledger.prepare()
    rollouts = Rollouts(ledger, stream)
    spec = RolloutSpec(parse_phases("all_at_once", 1), FailureBudget(Quantity(0)), Quantity(1), 600)
    host = HostFacts("app1", f"{version}-bbbbbbbbbbbb", f"{was}-bbbbbbbbbbbb" if was else None)
    facts = {"kind": kind, "version": version, "serial": serial}
    rollout = f"{stream}-{rollouts.head()}"
    plan = make_plan(spec, [host])
    token = rollouts.open(plan, {"app1": host}, facts, Run("far", 1, 1, "ann"), lambda _run: True, rollout, 1.0).token
    rollouts.admit(rollout, token, "app1")
    rollouts.report(rollout, token, "app1", HostStatus.SUCCEEDED)
    rollouts.close(rollout, token)
    return rollouts


def test_what_hosts_need_is_told_by_environment_and_component(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for version, was in (("1.0", None), ("2.0", "1.0"), ("3.0-rc", "2.0")):
        rollouts = deploy(path, "staging/hello", version, was)
    deploy(path, "staging/other", "7", None)
    deploy(path, "staging-2/hello", "1.0", None)
    assert rollouts.in_the_way(Run("far", 1, 1, "ann"), lambda _run: True, 1.0) is None
    Rollouts(Ledger(f"sqlite:///{path}", "test"), "staging/never").in_the_way(
        Run("far", 1, 1, "ann"), lambda _run: True, 1.0
    )
    needed = versions_needed({"staging": f"sqlite:///{path}", "staging-2": f"sqlite:///{path}"}, 2, "test")
    assert needed == {
        "staging": {"hello": {"2.0", "3.0-rc"}, "other": {"7"}},
        "staging-2": {"hello": {"1.0"}},
    }


def test_the_highest_serial_is_that_of_what_succeeded(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert deploy(path, "staging/hello", "1.0", None, 1).serial_mark() == 1
    assert deploy(path, "staging/hello", "2.0", "1.0", 2).serial_mark() == 2
    assert deploy(path, "other/hello", "9.0", None, 9).serial_mark() == 9
    assert deploy(path, "staging/hello", "1.0", "2.0", 0, "rollback").serial_mark() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE convoy_events SET actor = 'nobody' WHERE seq = 2",
        "UPDATE convoy_hosts SET status = 'pending'",
        "DELETE FROM convoy_hosts",
        "DROP TABLE convoy_hosts",
    ],
)
def test_a_ledger_that_was_changed_tells_nothing(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.db"
    deploy(path, "staging/hello", "1.0", None)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(LedgerError, match=r"what the hosts of staging run .* so nothing was collected"):
        versions_needed({"staging": f"sqlite:///{path}"}, 5, "test")


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        versions_needed({"staging": f"sqlite:///{tmp_path}/ledger.db"}, 5, "test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ledgers", "keep", "said"),
    [({"staging": 3}, 5, r"depot_ledgers\.staging: this is no URL"), ({}, 0, "component_keep: 0 is out of range")],
)
def test_what_makes_no_sense_is_refused(ledgers: dict[str, object], keep: int, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        versions_needed(ledgers, keep, "test")
