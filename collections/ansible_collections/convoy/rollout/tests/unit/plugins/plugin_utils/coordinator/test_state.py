# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollout stands, as a fold over its events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    Event,
    Gate,
    HostStatus,
    Lease,
    RolloutState,
    Status,
    evolve,
    replay,
)

OPENED = Event("opened", 1.0, data={"counts": [{"pending": 1}, {"pending": 2, "current": 1}]})
WHOLE = RolloutState(
    status=Status.GATING,
    phase=1,
    counts=({HostStatus.SUCCEEDED: 1}, {HostStatus.PENDING: 2, HostStatus.LOST: 1}),
    leases={"app2": Lease(60.0, 1, "a"), "app3": Lease(61.0, 1, "b", back=True)},
    out={"app4": "a"},
    down={"app5": "b"},
    gate=Gate("app1", 30.0, 150.0, held="no data"),
    approved=frozenset({1, 0}),
    paused="lunch",
    reason="because",
)


def moved(host: str, was: str, now: str, phase: int = 1, **data: Any) -> Event:
    return Event("moved", 2.0, host, {"was": was, "now": now, "phase": phase, "zone": "a", **data})


def test_the_state_survives_json() -> None:
    assert RolloutState.from_json(json.loads(json.dumps(WHOLE.to_json()))) == WHOLE
    assert RolloutState.from_json(json.loads(json.dumps(RolloutState().to_json()))) == RolloutState()


@pytest.mark.parametrize("status", list(Status))
def test_three_verdicts_end_a_rollout(status: Status) -> None:
    assert status.ended is (status.value in ("succeeded", "reverted", "failed"))


def test_opening() -> None:
    state = evolve(RolloutState(), OPENED)
    assert state.counts == ({HostStatus.PENDING: 1}, {HostStatus.PENDING: 2, HostStatus.CURRENT: 1})
    assert (state.status, state.phase) == (Status.ROLLING, 0)
    assert state.count({HostStatus.PENDING}) == 3
    assert state.count({HostStatus.PENDING, HostStatus.CURRENT}, phase=1) == 3
    assert state.count({HostStatus.FAILED}) == 0


def test_a_host_on_its_way_has_a_lease() -> None:
    state = replay([OPENED, moved("app2", "pending", "admitted", until=60.0)])
    assert state.leases == {"app2": Lease(60.0, 1, "a")}
    assert state.counts[1] == {HostStatus.PENDING: 1, HostStatus.CURRENT: 1, HostStatus.ADMITTED: 1}


def test_a_host_on_its_way_back_has_one_too() -> None:
    state = replay([OPENED, moved("app2", "pending", "returning", until=60.0)])
    assert state.leases == {"app2": Lease(60.0, 1, "a", back=True)}


@pytest.mark.parametrize(
    ("status", "out"),
    [
        ("succeeded", {}),
        ("reverted", {}),
        ("failed", {"app2": "a"}),
        ("lost", {"app2": "a"}),
        ("stuck", {"app2": "a"}),
        ("returned", {}),
        ("pending", {}),
    ],
)
def test_what_becomes_of_it_ends_the_lease(status: str, out: dict[str, str]) -> None:
    admitted = [OPENED, moved("app2", "pending", "admitted", until=60.0)]
    state = replay([*admitted, moved("app2", "admitted", status)])
    assert (state.leases, state.out, state.down) == ({}, out, {})
    assert state.counts[1][HostStatus.ADMITTED] == 0
    assert sum(state.counts[1].values()) == 3


def test_a_host_that_was_out_may_come_back() -> None:
    state = replay([OPENED, moved("app2", "pending", "lost"), moved("app2", "lost", "succeeded")])
    assert state.out == {}


def test_a_host_that_is_down_is_counted_until_it_goes() -> None:
    down = replay([OPENED, moved("app2", "pending", "pending", down=True)])
    assert down.down == {"app2": "a"}
    assert down.counts[1] == {HostStatus.PENDING: 2, HostStatus.CURRENT: 1}
    going = evolve(down, moved("app2", "pending", "admitted", until=60.0))
    assert (going.down, list(going.leases)) == ({}, ["app2"])


def test_phases_close_and_pass() -> None:
    closed = evolve(
        replace(WHOLE, phase=0, gate=None),
        Event("phase_closed", 5.0, data={"holder": "app1", "bake_until": 35.0, "until": 155.0}),
    )
    assert (closed.status, closed.gate) == (Status.GATING, Gate("app1", 35.0, 155.0))
    passed = evolve(closed, Event("phase_passed", 40.0, data={"phase": 0, "why": ""}))
    assert (passed.status, passed.phase, passed.gate) == (Status.ROLLING, 1, None)
    assert evolve(passed, Event("phase_passed", 41.0, data={"phase": 1, "why": ""})).status is Status.ROLLED


def test_a_gate_may_be_held_for_a_person() -> None:
    held = evolve(WHOLE, Event("gate_held", 9.0, data={"reason": "no traffic"}))
    assert held.gate == Gate("app1", 30.0, 150.0, held="no traffic")
    assert evolve(RolloutState(), Event("gate_held", 9.0, data={"reason": "late"})) == RolloutState(changed_at=9.0)


def test_people_pause_and_approve() -> None:
    paused = evolve(RolloutState(), Event("paused", 1.0, data={"reason": "lunch"}))
    assert paused.paused == "lunch"
    assert evolve(paused, Event("unpaused", 2.0)).paused == ""
    assert evolve(paused, Event("approved", 2.0, data={"phase": 1, "why": "fine"})).approved == {1}


def test_turning_back_ends_pauses_and_gates_but_not_the_leases() -> None:
    state = evolve(WHOLE, Event("turned_back", 9.0, data={"reason": "broken"}))
    assert (state.status, state.gate, state.paused, state.reason) == (Status.TURNING_BACK, None, "", "broken")
    assert (state.leases, state.out, state.down) == (WHOLE.leases, WHOLE.out, WHOLE.down)


@pytest.mark.parametrize(
    ("was", "then"),
    [
        (Status.ROLLING, Status.ROLLING),
        (Status.GATING, Status.ROLLING),
        (Status.ROLLED, Status.ROLLING),
        (Status.TURNING_BACK, Status.TURNING_BACK),
    ],
)
def test_who_resumes_asks_the_gate_anew_and_stays_paused(was: Status, then: Status) -> None:
    state = evolve(replace(WHOLE, status=was), Event("resumed", 9.0, data={"by": "root"}))
    assert (state.status, state.gate, state.phase) == (then, None, 1)
    assert (state.paused, state.approved) == ("lunch", WHOLE.approved)


@pytest.mark.parametrize("verdict", ["succeeded", "reverted", "failed"])
def test_closing(verdict: str) -> None:
    state = evolve(WHOLE, Event("closed", 9.0, data={"verdict": verdict, "reason": "so it ended"}))
    assert (state.status, state.leases, state.gate, state.paused) == (Status(verdict), {}, None, "")
    assert state.reason == "so it ended"


def test_an_unknown_kind_of_event_is_not_ignored() -> None:
    with pytest.raises(KeyError):
        evolve(RolloutState(), Event("invented", 1.0))
