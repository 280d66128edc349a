# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollback goes that names no version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import spec_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import ended
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Status
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.opening import open_rollout

OLDEST, OLD, NEW = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb", "1.2.0-cccccccccccc"
GOOD = {OLDEST: [OLDEST], OLD: [OLD, OLDEST], NEW: [NEW, OLD, OLDEST]}
ROLLBACK: dict[str, Any] = {
    "kind": "rollback",
    "component": "hello",
    "environment": "staging",
    "version": None,
    "phases": [{"name": "all", "size": "100%"}],
    "max_unavailable": 1,
    "failure_budget": 0,
    "turn_back_max_unavailable": "50%",
    "lease": 600,
    "turn_back_scope": "all",
    "min_available": 0,
    "zone_order": "inventory",
    "on_failure": "turn_back",
    "when_unreachable": "fail",
    "when_unhealthy": "go_first",
    "min_up": 0,
    "progress_deadline": 0,
    "hooks": {},
    "keep": 5,
}
ANOTHER_RUN = Run("elsewhere/boot", 7, 7, "somebody")


def reading(name: str, active: str | None) -> Reading:
    """A healthy host; every release before the active one was good."""
    good = GOOD[active] if active else []
    known = [{"id": one, "version": one.partition("-")[0]} for one in good]
    last = good[1] if len(good) > 1 else None
    read = {"active": active, "good": good, "last_good": last, "releases": known, "health": {"verdict": "pass"}}
    return Reading(name, read)


def rollouts(tmp_path: Path, kind: str, moves: dict[str, tuple[str | None, str]], status: Status | None) -> Rollouts:
    """A ledger in which a rollout of that kind was opened, and ended with that status (None: it is still open)."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "test")
    ledger.prepare()
    found = Rollouts(ledger, "staging/hello")
    seen = {name: HostFacts(name, target, active, health=Health.HEALTHY) for name, (active, target) in moves.items()}
    plan = make_plan(spec_of(ROLLBACK), list(seen.values()))
    found.open(plan, seen, {"kind": kind}, ANOTHER_RUN, lambda _run: True, "the-last-one", 60)
    if status is not None:
        with ledger.transaction(found.stream) as tx:
            tx.append("the-last-one", [ended(status, "", tx.now)])
            tx.write(text(f"UPDATE {schema.rollouts.name} SET status = :status"), {"status": status})
            tx.finish(rollout=None, holder=None)
    return found


def goals(found: Rollouts, *readings: Reading) -> dict[str, str]:
    """What the plan says that each host is to run."""
    summary = open_rollout(found, ROLLBACK, readings, "", dry=True)["convoy"]["summary"]
    moves = (line.split() for line in summary if line.startswith("  "))
    return {words[0]: next(word.rstrip(",") for word in reversed(words) if word.rstrip(",") in GOOD) for words in moves}


@pytest.mark.parametrize(
    ("kind", "status", "left", "right", "wanted"),
    [
        ("deploy", Status.SUCCEEDED, NEW, NEW, OLD),
        ("deploy", Status.REVERTED, OLD, OLD, OLDEST),
        ("deploy", None, NEW, OLD, OLD),
        ("deploy", None, OLD, NEW, OLD),
        ("deploy", None, OLD, OLD, OLD),
        ("deploy", Status.FAILED, NEW, OLD, OLD),
        ("deploy", Status.FAILED, OLD, OLD, OLDEST),
    ],
    ids=[
        "after a success: one further",
        "after all went back: one further",
        "open, one has gone: it comes back",
        "open, another has gone: it comes back",
        "open, none has gone: all stay",
        "failed, one has stayed: it comes back",
        "failed, all are back: one further",
    ],
)
def test_a_rollback_after_a_deployment(
    tmp_path: Path, kind: str, status: Status | None, left: str, right: str, wanted: str
) -> None:
    found = rollouts(tmp_path, kind, {"app1": (OLD, NEW), "app2": (OLD, NEW), "app3": (OLD, NEW)}, status)
    planned = goals(
        found, reading("app1", left), reading("app2", right), reading("app3", OLD if left != right else left)
    )
    assert planned == dict.fromkeys(("app1", "app2", "app3"), wanted)


@pytest.mark.parametrize("status", [None, Status.FAILED])
def test_a_rollback_that_stopped_goes_on_to_the_same_goal(tmp_path: Path, status: Status | None) -> None:
    found = rollouts(tmp_path, "rollback", {"app1": (NEW, OLD), "app2": (NEW, OLD), "app3": (NEW, OLD)}, status)
    planned = goals(found, reading("app1", OLD), reading("app2", OLD), reading("app3", NEW))
    assert planned == dict.fromkeys(("app1", "app2", "app3"), OLD)


def test_a_host_that_the_rollout_did_not_have_goes_to_its_last_good_release(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, NEW)}, None)
    assert goals(found, reading("app1", NEW), reading("app2", NEW)) == {"app1": OLD, "app2": OLD}


def test_a_first_deployment_that_stopped_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    found = rollouts(tmp_path, "deploy", {"app1": (None, OLDEST), "app2": (None, OLDEST)}, None)
    with pytest.raises(FleetError, match="there is no good release to roll back to"):
        goals(found, reading("app1", OLDEST), reading("app2", None))


def test_a_rollback_of_a_change_of_configuration_takes_back_that_change(tmp_path: Path) -> None:
    configured = "1.1.0-dddddddddddd"
    good = [configured, OLD, OLDEST]
    known = [{"id": one, "version": one.partition("-")[0]} for one in good]
    read = {"active": configured, "good": good, "last_good": OLD, "releases": known, "health": {"verdict": "pass"}}
    found = rollouts(tmp_path, "deploy", {"app1": (OLD, configured)}, Status.SUCCEEDED)
    assert goals(found, Reading("app1", read), Reading("app2", read)) == {"app1": OLD, "app2": OLD}
