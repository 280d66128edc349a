# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that do not know of each other, on one ledger: one wins, none goes beyond the window, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Recorded, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Event, RolloutState, evolve
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, StaleTokenError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger

from .scene import STREAM, assert_whole

Start = Callable[..., Any]


def opened(start: Start, url: str, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    process = start("open", url, **{"new_id": "r1", "hosts": 4, "window": 1, **arguments})
    process.go()
    return process, process.answer()


def go_at_once(runs: Sequence[Any]) -> None:
    """Let them all start before the first one goes."""
    for run in runs:
        run.wait_until_ready()
    for run in runs:
        run.go()


def states(ledger: Ledger, rollout: str) -> Iterator[RolloutState]:
    """Every state that the rollout has been in."""
    state = RolloutState()
    for entry in ledger.entries(STREAM, rollout):
        state = evolve(state, Event(entry.kind, entry.at, entry.host, json.loads(entry.data)))
        yield state


# One holder


@pytest.mark.parametrize("attempt", range(2))
def test_of_many_runs_that_start_at_once_on_a_new_ledger_one_wins(start: Start, url: str, attempt: int) -> None:
    runs = [start("open", url, new_id=f"r{index}", hosts=4, window=1) for index in range(8)]
    go_at_once(runs)
    answers = {run.pid: run.answer() for run in runs}
    (winner,) = [pid for pid, answer in answers.items() if "opened" in answer]
    losers = [answer for pid, answer in answers.items() if pid != winner]
    assert {answer["error"] for answer in losers} == {"busy"}
    assert all(f"(process {winner}) (it is running)" in answer["message"] for answer in losers)
    assert [entry.kind for entry in Ledger(url, "the test").entries(STREAM)] == ["opened"]


def test_a_run_that_was_killed_is_taken_over_and_its_token_is_stale(start: Start, url: str) -> None:
    dead, first = opened(start, url)
    dead.kill()
    _alive, second = opened(start, url, new_id="r2")
    assert (second["opened"], second["resumed"]) == ("r1", True)
    assert second["token"] > first["token"]
    rollouts = Rollouts(Ledger(url, "the dead run"), STREAM)
    with pytest.raises(StaleTokenError, match=rf"the token {first['token']} is stale"):
        rollouts.admit("r1", first["token"], "app00")


def test_a_run_that_is_stopped_lives_and_is_not_taken_over(start: Start, url: str) -> None:
    run, _answer = opened(start, url)
    run.stop()
    _late, answer = opened(start, url, new_id="r2")
    assert answer["error"] == "busy"


def test_of_many_runs_that_take_over_at_once_one_wins(start: Start, url: str) -> None:
    dead, first = opened(start, url)
    dead.kill()
    runs = [start("open", url, new_id=f"r{index}", hosts=4, window=1) for index in range(6)]
    go_at_once(runs)
    answers = [run.answer() for run in runs]
    (winner,) = [answer for answer in answers if "opened" in answer]
    assert (winner["opened"], winner["resumed"], winner["token"] > first["token"]) == ("r1", True, True)
    assert [answer["error"] for answer in answers if answer is not winner] == ["busy"] * 5


def test_of_two_runs_that_start_at_the_same_moment_one_wins_each_time(start: Start, url: str) -> None:
    Ledger(url, "the test").prepare()
    runs = [start("meet", url) for _run in range(2)]
    go_at_once(runs)
    for _time in range(200):
        moment = time.monotonic() + 0.002
        for run in runs:
            run.tell(str(moment))
        answers = {run: run.answer() for run in runs}
        (winner,) = [run for run, answer in answers.items() if "opened" in answer]
        (loser,) = [answer for run, answer in answers.items() if run is not winner]
        assert loser["error"] == "busy"
        assert f"rollout {answers[winner]['opened']} is held by" in loser["message"]
        assert f"(process {winner.pid}) (it is running)" in loser["message"]
        winner.tell("end")
        assert winner.answer() == {"ended": answers[winner]["opened"]}
    kinds = [entry.kind for entry in Ledger(url, "the test").entries(STREAM)]
    assert kinds == ["opened", "turned_back", "closed"] * 200


# One window


@pytest.mark.parametrize(("window", "zone_window"), [(1, None), (3, None), (4, 1)])
def test_several_processes_keep_to_one_window(
    start: Start, url: str, tmp_path: Path, window: int, zone_window: int | None
) -> None:
    _holder, answer = opened(start, url, hosts=20, window=window, zone_window=zone_window)
    out = tmp_path / "out"
    out.mkdir()
    roll = {"rollout": "r1", "token": answer["token"], "out": str(out), "work": 0.01 if window == 1 else 0.25}
    workers = [start("roll", url, **roll) for _worker in range(5)]
    go_at_once(workers)
    done = [worker.answer() for worker in workers]
    went = [name for one in done for name in one["went"]]
    assert sorted(went) == [f"app{index:02}" for index in range(20)]
    assert max(one["most"] for one in done) <= window

    ledger = Ledger(url, "the test")
    most = 0
    for state in states(ledger, "r1"):
        zones = [lease.zone for lease in state.leases.values()]
        most = max(most, len(zones))
        assert len(zones) <= window
        assert zone_window is None or all(zones.count(zone) <= zone_window for zone in zones)
        assert all(lease.phase == state.phase for lease in state.leases.values())
    assert most > 1 or window == 1, "the hosts went one by one: nothing was tested"
    assert_whole(ledger)
    assert Rollouts(ledger, STREAM).standing("r1").status == "rolled"


def test_slices_share_the_window_and_lose_no_more_than_the_host_of_one_that_is_killed(
    start: Start, url: str, tmp_path: Path
) -> None:
    _holder, answer = opened(start, url, hosts=24, window=3, budget=1, lease=12.0)
    ledger = Ledger(url, "the test")
    rollouts = Rollouts(ledger, STREAM)
    rollouts.share("r1", "anna")
    out = tmp_path / "out"
    out.mkdir()
    roll = {"rollout": "r1", "token": answer["token"], "out": str(out), "work": 0.2}
    lost = rollouts.standing("r1").to_go[18]  # one of the last phase
    slices = [start("roll", url, **roll, part=(number, 6), hangs=lost) for number in range(6)]
    victim = slices[18 % 6]
    go_at_once(slices)
    assert victim.answer() == {"in_hand": lost}
    victim.kill()
    again = start("roll", url, **roll)  # the others' hosts too, as far as they have not asked yet
    again.go()
    done = [run.answer() for run in (*slices, again) if run is not victim]
    while isinstance(answer_to_end := rollouts.close("r1", answer["token"]), Wait):
        time.sleep(0.1)
    assert answer_to_end == Recorded()

    assert max(one["most"] for one in done) <= 3
    assert all(len(state.unavailable) <= 3 for state in states(ledger, "r1"))
    view = rollouts.standing("r1")
    assert {row.name: row.status for row in view.hosts if row.status != "succeeded"} == {lost: "lost"}
    assert (view.status, os.listdir(out)) == ("succeeded", [lost])
    assert_whole(ledger)


def test_slices_share_the_failure_budget(start: Start, url: str, tmp_path: Path) -> None:
    _holder, answer = opened(start, url, hosts=18, window=3, budget=1)
    ledger = Ledger(url, "the test")
    Rollouts(ledger, STREAM).share("r1", "anna")
    out = tmp_path / "out"
    out.mkdir()
    roll = {"rollout": "r1", "token": answer["token"], "out": str(out), "work": 0.05}
    slices = [start("roll", url, **roll, part=(number, 3), fails=f"app{number + 6:02}") for number in range(3)]
    go_at_once(slices)
    done = [run.answer() for run in slices]
    view = Rollouts(ledger, STREAM).standing("r1")
    failed = {row.name for row in view.hosts if row.status == "failed"}
    assert view.status == "turning_back"
    assert view.state.reason == "2 failed, more than the failure budget of 1"
    assert failed < {"app06", "app07", "app08"} or failed == {"app06", "app07", "app08"}
    assert len([name for one in done for name in one["went"]]) < 18 - len(failed)
    assert set(os.listdir(out)) == failed
    assert_whole(ledger)


# Nothing is lost


@pytest.mark.parametrize("writers", [4])
def test_killing_writers_loses_nothing_that_was_acknowledged(start: Start, url: str, writers: int) -> None:
    opened(start, url)
    dice = random.Random(1)
    acknowledged = []
    for round_ in range(2):
        runs = [start("write", url, rollout="r1", writer=f"{round_}.{index}") for index in range(writers)]
        go_at_once(runs)
        said = [run.answer() for _time in range(dice.randint(1, 8)) for run in runs]
        said += [line for run in runs for line in run.kill()]
        acknowledged += [line["written"] for line in said]
    ledger = Ledger(url, "the test")
    written = [json.loads(entry.data)["reason"] for entry in ledger.entries(STREAM) if entry.kind == "paused"]
    assert len(acknowledged) >= 2 * writers
    assert set(acknowledged) <= set(written)
    assert len(written) == len(set(written))
    assert_whole(ledger)


def test_a_crash_of_the_server_loses_nothing_that_was_acknowledged(start: Start, cluster: Any) -> None:
    url = cluster.database()
    opened(start, url)
    acknowledged = []
    for round_ in range(2):
        runs = [start("write", url, rollout="r1", writer=f"{round_}.{index}") for index in range(4)]
        go_at_once(runs)
        said = [run.answer() for run in runs]
        cluster.crash()
        said += [line for run in runs for line in run.end()]
        cluster.start()
        failures = [line for line in said if "error" in line]
        assert [line["error"] for line in failures] == ["ledger"] * 4
        assert all(" cannot be used: " in line["message"] for line in failures)
        acknowledged += [line["written"] for line in said if "written" in line]
    ledger = Ledger(url, "the test")
    written = {json.loads(entry.data)["reason"] for entry in ledger.entries(STREAM) if entry.kind == "paused"}
    assert set(acknowledged) <= written
    assert_whole(ledger)


def test_who_verifies_while_others_write_sees_an_intact_ledger(start: Start, url: str) -> None:
    opened(start, url)
    reader = start("verify", url)
    writers = [start("write", url, rollout="r1", writer=str(index)) for index in range(3)]
    go_at_once((*writers, reader))
    time.sleep(1.5)
    (answer,) = reader.end()
    assert answer.get("verified", 0) > 3, answer
