# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the ledger have in common: a rollout that is open, and what must hold of it at the end."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    PlannedMigration,
    make_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rebuild import rebuild
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger

STREAM = "staging/hello"


def open_hosts(ledger: Ledger, *names: str, window: int = 1, migrations: tuple[PlannedMigration, ...] = ()) -> int:
    """A rollout of one phase over these hosts, so many at a time; its token."""
    seen = {name: HostFacts(name, "new", "old", health=Health.HEALTHY) for name in names}
    phases = parse_phases([{"name": "all", "size": "100%"}], window)
    spec = RolloutSpec(phases, FailureBudget(Quantity(0)), Quantity(1), 60.0)
    plan = replace(make_plan(spec, list(seen.values())), migrations=migrations)
    run = Run("deploy1", 1, 1, "anna")
    return Rollouts(ledger, STREAM).open(plan, seen, {"version": "1"}, run, lambda _run: None, "r1", 60.0).token


def assert_whole(ledger: Ledger, rollout: str = "r1") -> None:
    """The chain is intact, and the tables say what the events say."""
    ledger.verify(STREAM)
    view = Rollouts(ledger, STREAM).standing(rollout)
    told = rebuild(ledger.entries(STREAM, rollout))
    assert (view.state, view.hosts) == (told.state, told.hosts)
