# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What judges the runs of the campaign finds each kind of fault, and finds none where there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Decision, HostRecord
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Plan, PlannedHost, PlannedPhase
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, RolloutState, evolve
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from tests.chaos import campaign, invariants
from tests.chaos.outside import Moment, Seen
from tests.chaos.scenarios import KINDS, TO_THE_END, Kind, scenario

OLD, NEW = "1.0.0-aaa", "1.1.0-bbb"
HOSTS = ("app1", "app2", "app3")
ID = "20260105-091500-3fa2"


class Told:
    """A rollout over three hosts, one in the first phase and two in the second, told as the ledger tells it."""

    def __init__(self) -> None:
        hosts = tuple(
            PlannedHost(name, min(position, 1), "a", position, OLD, NEW) for position, name in enumerate(HOSTS)
        )
        phases = (PlannedPhase("canary", 1, 1, None), PlannedPhase("fleet", 2, 2, None))
        self.plan = Plan(phases, failure_budget=0, turn_back_window=1, lease=20, hosts=hosts, size=3)
        self.state = RolloutState()
        self.entries: list[Entry] = []
        self.record(decide.opening(self.plan, 0.0, "somebody", {}))

    def record(self, decision: Decision) -> Decision:
        for event in decision.events:
            self.state = evolve(self.state, event)
            data = json.dumps(dict(event.data))
            entry = Entry("test/hello", len(self.entries) + 1, ID, event.kind, event.host, event.at, "somebody", data)
            self.entries.append(entry)
        return decision

    def host(self, name: str, status: HostStatus) -> HostRecord:
        return HostRecord(name, min(HOSTS.index(name), 1), "a", status)

    def admit(self, name: str, at: float) -> None:
        decision = self.record(decide.admit(self.plan, self.state, self.host(name, HostStatus.PENDING), at))
        assert isinstance(decision.answer, Admitted)

    def report(self, name: str, at: float, outcome: HostStatus = HostStatus.SUCCEEDED) -> None:
        self.record(decide.report(self.plan, self.state, self.host(name, HostStatus.ADMITTED), outcome, at))

    def succeed(self) -> Sequence[Entry]:
        """The whole way: app1 from 10 to 20, then app2 and app3 from 30 to 40."""
        self.admit("app1", 10.0)
        self.report("app1", 20.0)
        for name in HOSTS[1:]:
            self.admit(name, 30.0)
        for name in HOSTS[1:]:
            self.report(name, 40.0)
        self.record(decide.close(self.plan, self.state, 50.0))
        return self.entries


def seen(active: str, *journal: dict[str, Any], running: str = "") -> Seen:
    return Seen(active, running or active, "1", 7, (), journal)


def switched(at: float, token: int = 7, event: str = "activating") -> dict[str, Any]:
    return {"at": at, "event": event, "release": NEW, "rollout": ID, "token": token}


def up(**others: str) -> dict[str, str]:
    return {**dict.fromkeys(HOSTS, "UP"), **others}


WELL = {
    "app1": seen(NEW, switched(12.0)),
    "app2": seen(NEW, switched(32.0)),
    "app3": seen(NEW, switched(33.0)),
}


def test_a_rollout_that_went_well_violates_nothing() -> None:
    entries = Told().succeed()
    told, rollouts = invariants.steps(entries)
    moments = [Moment(5.0, up()), Moment(15.0, up(app1="DRAIN")), Moment(35.0, up(app2="DRAIN", app3="DOWN"))]
    assert invariants.within_the_window(moments, told, set(), skewed=False) == []
    assert invariants.phases_in_order(entries, WELL, skewed=False) == []
    assert invariants.named_truly(rollouts, WELL, set()) == []


def test_a_host_too_many_is_out() -> None:
    told, _rollouts = invariants.steps(Told().succeed())
    moments = [Moment(15.0, up(app1="DRAIN", app2="MAINT")), Moment(15.2, up(app1="DRAIN"))]
    found = invariants.within_the_window(moments, told, set(), skewed=False)
    assert found == ["1 window: 2 hosts were out at 15.0, allowed were 1: app1 DRAIN, app2 MAINT"]
    assert invariants.within_the_window(moments, told, {"app2"}, skewed=False) == []


def test_a_host_that_the_rollout_did_not_take_out_is_not_its_doing_until_it_is_drained() -> None:
    told, _rollouts = invariants.steps(Told().succeed())
    assert invariants.within_the_window([Moment(25.0, up(app2="DOWN"))], told, set(), skewed=False) == []
    assert invariants.within_the_window(
        [Moment(60.0, up(app2="DRAIN", app3="DRAIN", app1="DRAIN"))], told, set(), False
    )


def test_a_phase_that_began_too_early() -> None:
    entries = list(Told().succeed())
    early = [entry for entry in entries if entry.kind != "phase_passed"]
    assert len(invariants.phases_in_order(early, {}, skewed=False)) == 2
    switched_early = {**WELL, "app2": seen(NEW, switched(19.0))}
    assert "app2 of phase 1 was switched at 19.0" in invariants.phases_in_order(entries, switched_early, False)[0]
    assert invariants.phases_in_order(entries, switched_early, skewed=True) == []


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (seen(OLD), "app2 is succeeded in the ledger, but has 1.0.0-aaa"),
        (seen(NEW, running=OLD), "but runs 1.0.0-aaa"),
        (Seen(NEW, "", "", 7, (), ()), "but runs nothing"),
    ],
)
def test_a_host_that_is_not_what_the_ledger_says(look: Seen, words: str) -> None:
    _told, rollouts = invariants.steps(Told().succeed())
    found = invariants.named_truly(rollouts, {**WELL, "app2": look}, set())
    assert len(found) == 1
    assert words in found[0]


def test_a_host_that_failed_may_have_either_release_but_no_third_one() -> None:
    story = Told()
    story.admit("app1", 10.0)
    story.report("app1", 20.0, HostStatus.FAILED)
    story.record(Decision(decide.Recorded(), (decide.ended(decide.Status.FAILED, "enough", 30.0),)))
    _told, rollouts = invariants.steps(story.entries)
    others = {"app2": seen(OLD), "app3": seen(OLD)}
    for release in (OLD, NEW):
        assert invariants.named_truly(rollouts, {**others, "app1": seen(release)}, set()) == []
    assert "neither" in invariants.named_truly(rollouts, {**others, "app1": seen("2.0.0-ccc")}, set())[0]


def test_a_release_that_nobody_wanted() -> None:
    known = {"app1": {OLD, NEW}}
    assert invariants.old_or_new({"app1": [(1.0, OLD, OLD), (2.0, NEW, OLD)]}, known) == []
    assert invariants.old_or_new({"app1": [(1.0, "", "")]}, known) == ["5 whole: app1 had nothing active at 1.0"]


def test_a_stale_token_that_changed_something() -> None:
    taken_over = seen(NEW, switched(1.0, 7), switched(2.0, 8), switched(3.0, 7, "reverting"))
    found = invariants.stale_did_nothing({"app1": taken_over, "app2": seen(NEW, switched(9.0, 7))}, 7)
    assert found == [f"7 token: app1 did 'reverting' of {NEW} for the stale token 7"]


def test_what_is_left() -> None:
    clean: dict[str, Seen | None] = {"app1": seen(NEW)}
    assert invariants.nothing_left(up(), clean, (), None) == []
    dirty = replace(seen(NEW), incoming=("half",))
    found = invariants.nothing_left(up(app1="DRAIN"), {"app1": dirty, "app2": None}, ["app3"], "somebody")
    assert [violation.split(": ")[1] for violation in found] == [
        "app1 is DRAIN in HAProxy",
        "app1 keeps ['half']",
        "the tree of app3 is locked",
        "app2 does not run",
        "the token is held by somebody",
    ]


def test_a_second_run_that_changed_something() -> None:
    before: dict[str, Seen | None] = {"app1": seen(NEW), "app2": None}
    assert invariants.same(before, before, (5, 5)) == []
    after: dict[str, Seen | None] = {"app1": replace(seen(NEW), started="2"), "app2": None}
    assert len(invariants.same(before, after, (5, 6))) == 2


def test_a_seed_is_the_same_run_every_time_and_all_kinds_come_in_turn() -> None:
    assert scenario(17, HOSTS) == scenario(17, HOSTS)
    plays = [scenario(seed, HOSTS) for seed in range(100)]
    assert {play.kind for play in plays[:9]} == set(KINDS)
    assert {play.ledger for play in plays if play.kind is Kind.DATABASE_STOPPED} == {"postgresql"}
    for rule in ("ledger", "budget", "victim", "abrupt", "bad", "step", "lasts"):
        assert len({getattr(play, rule) for play in plays}) > 1, rule
    assert max(play.lasts for play in plays) == TO_THE_END > campaign.DEADLINE


def test_the_figures_go_between_their_marks(tmp_path: Path) -> None:
    record = campaign.Record(3, Kind.SSHD_STOPPED, {}, "1.1.0", "2026-01-05T09:15:00Z", 40.0, True, "succeeded")
    page = tmp_path / "chaos.md"
    page.write_text(f"before\n{campaign.BEGIN}\nold\n{campaign.END}\nafter\n")
    campaign.write_docs([record, replace(record, seed=4, violations=["1 window"])], page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "2 runs, seeds 3 to 4, 2026-01-05:" in text
    assert "| sshd stopped | 2 | 2 | 2 | 0 | 0 | 0 | 40 (40) | 0 | 1 |" in text
