# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy, by what a real HAProxy 2.6 answered: parsing, the socket, and the waits with a clock of their own."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import haproxy
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError

with open(os.path.join(os.path.dirname(__file__), "fixtures", "haproxy_2_6.json"), encoding="utf-8") as _file:
    SNAPSHOTS: dict[str, str] = json.load(_file)["snapshots"]


class FakeClock(Clock):
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    @property
    def waited(self) -> float:
        return round(self.time - 1000, 3)


def servers(snapshot: str) -> dict[str, haproxy.Server]:
    states, stat = SNAPSHOTS[snapshot].split("\n\n")[:2]
    return haproxy.parse_servers(states, stat)


# --- parsing ---------------------------------------------------------------------------------------------------

SEEN = [
    ("up", "up", "ready", True, "UP (L7OK 200)"),
    ("draining", "draining", "drain", True, "DRAIN (L7OK 200)"),
    ("drained", "drained", "drain", True, "DRAIN (L7OK 200)"),
    ("drained_failing", "drained", "drain", False, "DOWN (L7STS 500 Internal Server Error)"),
    ("down", "down", "ready", False, "DOWN (L7STS 500 Internal Server Error)"),
    ("maint", "maint", "maint", False, "MAINT"),
    ("left_maint", "drained", "drain", False, "DRAIN 1/2 (L7OK 200)"),
    ("left_maint_checked", "drained", "drain", True, "DRAIN (L7OK 200)"),
    ("weight_0", "up", "ready", True, "UP (L7OK 200)"),
]


@pytest.mark.parametrize(("snapshot", "state", "admin", "healthy", "told"), SEEN)
def test_how_a_server_is_seen(snapshot: str, state: str, admin: str, healthy: bool, told: str) -> None:
    app1 = servers(snapshot)["app1"]
    assert (app1.state, app1.admin, app1.healthy, app1.told) == (state, admin, healthy, told)


def test_every_server_of_the_backend_is_seen() -> None:
    assert list(servers("up")) == ["app1", "app2", "app3", "spare", "bare"]


def test_open_sessions_and_counters_are_read() -> None:
    assert servers("draining")["app1"].sessions == 1
    assert not servers("draining")["app1"].idle
    assert servers("drained")["app1"].idle
    assert servers("drained")["app1"].requests == 1
    assert servers("up")["app1"].downs == 0
    assert servers("down")["app1"].downs == 1
    assert servers("up")["bare"].downs is None


def test_which_servers_new_requests_go_to() -> None:
    assert [name for name, server in servers("up").items() if server.serving] == ["app1", "app2", "app3", "bare"]
    assert not servers("weight_0")["app1"].serving
    assert not servers("drained")["app1"].serving
    assert not servers("down")["app1"].serving


def test_a_server_without_a_check() -> None:
    bare = servers("up")["bare"]
    assert (bare.state, bare.healthy, bare.checked, bare.told) == ("up", True, False, "no check")
    assert servers("up")["app1"].checked


def test_a_server_disabled_in_the_configuration_and_then_enabled_is_not_in_maintenance() -> None:
    states, stat = SNAPSHOTS["up"].split("\n\n")[:2]
    row = next(line for line in states.splitlines() if " app1 " in line)
    enabled, disabled = row.split(), row.split()
    enabled[6], disabled[6] = "4", "5"
    assert haproxy.parse_servers(states.replace(row, " ".join(enabled)), stat)["app1"].admin == "ready"
    assert haproxy.parse_servers(states.replace(row, " ".join(disabled)), stat)["app1"].admin == "maint"


def test_a_check_that_is_under_way_is_still_its_latest_result() -> None:
    states, stat = SNAPSHOTS["up"].split("\n\n")[:2]
    assert haproxy.parse_servers(states, stat.replace(",L7OK,", ",* L7OK,"))["app1"].check == "L7OK"


def test_a_server_as_a_module_returns_it() -> None:
    assert servers("drained_failing")["app1"].as_dict() == {
        "state": "drained",
        "status": "DOWN",
        "admin": "drain",
        "healthy": False,
        "check": "L7STS",
        "answer": "500 Internal Server Error",
        "sessions": 0,
        "queued": 0,
        "requests": 1,
        "errors_5xx": 0,
        "weight": 1,
    }


@pytest.mark.parametrize("text", ["", "2\n# be_id", "1\n", "1\n# be_id srv_name\n3 app1", "Unknown command.\n"])
def test_states_that_are_not_understood(text: str) -> None:
    with pytest.raises(TrafficError, match="show servers state"):
        haproxy.parse_servers(text, SNAPSHOTS["up"].split("\n\n")[1])


def test_statistics_that_are_not_understood() -> None:
    with pytest.raises(TrafficError, match=r"'show stat' in a way that is not understood: 'No such proxy\.'"):
        haproxy.parse_servers(SNAPSHOTS["up"].split("\n\n")[0], "No such proxy.")


# --- the socket ------------------------------------------------------------------------------------------------


def backend(replay: Any, name: str = "app") -> haproxy.Backend:
    return haproxy.Backend(haproxy.Runtime(replay.path), name)


def test_a_look_is_one_connection(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    assert list(backend(replay).look()) == ["app1", "app2", "app3", "spare", "bare"]
    assert replay.asked == ["show servers state app;show stat app 4 -1"]


def test_several_servers_are_set_in_one_connection(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    backend(replay).put(["app1", "app2"], "drain")
    backend(replay).put([], "drain")
    assert replay.asked == ["set server app/app1 state drain;set server app/app2 state drain"]


def test_an_unknown_backend_names_the_nearest(haproxy_replay: Callable[..., Any]) -> None:
    with pytest.raises(TrafficError, match=r"HAProxy has no backend 'ap', did you mean 'app'\?"):
        backend(haproxy_replay("up"), "ap").look()


def test_an_unknown_server_names_the_nearest(haproxy_replay: Callable[..., Any]) -> None:
    with pytest.raises(
        TrafficError,
        match=r"no server 'app11', did you mean 'app1'\? \(it has app1, app2, app3, bare, spare\)",
    ):
        backend(haproxy_replay("up")).pick(["app2", "app11"])


@pytest.mark.parametrize("name", ["", "app;set server app/app1 state maint", "app\nshow info", "a b"])
def test_a_name_cannot_carry_a_command(name: str) -> None:
    with pytest.raises(TrafficError, match="HAProxy allows letters"):
        haproxy.Backend(haproxy.Runtime("/nowhere"), name)


def test_a_socket_that_may_not_change_anything(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", set_answer="Permission denied\n\n")
    with pytest.raises(TrafficError, match="add 'level admin' to its 'stats socket' line"):
        backend(replay).put(["app1"], "drain")


def test_a_change_that_is_refused(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", set_answer="No such server.\n\n")
    with pytest.raises(TrafficError, match="refused 'set server app/app1 state drain' with: No such server"):
        backend(replay).put(["app1"], "drain")


def test_no_socket() -> None:
    with pytest.raises(TrafficError, match=r"socket /nowhere/s is not there: is HAProxy running"):
        haproxy.Runtime("/nowhere/s").ask("show info")


def test_a_socket_that_nobody_listens_to(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    dead = replay.path + "-dead"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(dead)
    with pytest.raises(TrafficError, match="nobody listens: HAProxy is not running"):
        haproxy.Runtime(dead).ask("show info")


def test_a_path_that_cannot_be_one() -> None:
    with pytest.raises(TrafficError, match="cannot be used: AF_UNIX path too long"):
        haproxy.Runtime("/tmp/" + "s" * 200).ask("show info")


def test_a_socket_that_is_silent(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    silent = replay.path + "-silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(silent)
        listener.listen(1)
        with pytest.raises(TrafficError, match=r"gave no answer within 0\.05 s"):
            haproxy.Runtime(silent, timeout=0.05).ask("show info")


# --- drain -----------------------------------------------------------------------------------------------------


def drain(
    replay: Any, names: list[str], timeout: float = 10, min_up: int = 1, force: bool = False, dry: bool = False
) -> tuple[dict[str, Any], float]:
    clock = FakeClock()
    outcome = haproxy.drain(backend(replay), clock, names, timeout, min_up, force, dry)
    return {**outcome.as_dict(), "warnings": outcome.warnings}, clock.waited


def test_drain_waits_until_sessions_have_ended(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", "draining", "draining", "draining", "drained")
    result, waited = drain(replay, ["app1"])
    assert (result["changed"], result["forced"], result["servers"]["app1"]["state"]) == (True, False, "drained")
    assert result["diff"] == {"before": {"app1": "ready"}, "after": {"app1": "drain"}}
    assert waited == pytest.approx(3 * haproxy.POLL)
    assert replay.set == ["app/app1 state drain"]


def test_a_drained_server_stays_drained(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained")
    result, waited = drain(replay, ["app1"])
    assert (result["changed"], waited, replay.set) == (False, 0, [])
    assert "diff" not in result


def test_a_server_that_still_drains_is_waited_for_but_not_set(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("draining", "draining", "drained")
    result, waited = drain(replay, ["app1"])
    assert (result["changed"], waited, replay.set) == (False, haproxy.POLL, [])


def test_a_server_in_maintenance_is_out_of_service_already(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("maint")
    result, _waited = drain(replay, ["app1"])
    assert (result["changed"], result["servers"]["app1"]["state"], replay.set) == (False, "maint", [])


def test_a_drain_that_fails_leaves_nothing_drained(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", *["draining"] * 4, "up")
    with pytest.raises(TrafficError, match=r"not ended 0\.1 s .*app1 \(1 open, 0 queued\); app1 is back") as error:
        drain(replay, ["app1"], timeout=0.1)
    assert replay.set == ["app/app1 state drain", "app/app1 state ready"]
    assert error.value.details["servers"]["app1"]["state"] in ("draining", "up")


def test_what_was_drained_before_stays_drained_when_a_drain_fails(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("draining")
    with pytest.raises(TrafficError, match="what was drained before stays drained"):
        drain(replay, ["app1"], timeout=0.1)
    assert replay.set == []


def test_force_goes_on_with_open_sessions_and_says_so(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", "draining")
    result, waited = drain(replay, ["app1"], timeout=1, force=True)
    assert (result["changed"], result["forced"], replay.set) == (True, True, ["app/app1 state drain"])
    assert result["warnings"] == ("went on with sessions that had not ended after 1 s: app1 (1 open, 0 queued)",)
    assert 1 <= waited < 1.1


def test_somebody_else_who_puts_it_back_is_noticed(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", "draining", "up")
    with pytest.raises(TrafficError, match="app1 was put back in service by somebody else"):
        drain(replay, ["app1"])


def test_check_mode_drains_nothing(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    result, _waited = drain(replay, ["app1"], dry=True)
    assert (result["changed"], replay.set) == (True, [])
    assert result["servers"]["app1"]["state"] == "up"
    assert drain(haproxy_replay("drained"), ["app1"], dry=True)[0]["changed"] is False


MIN_UP = [
    ("up", ["app1"], 3, True),
    ("up", ["app1"], 4, False),
    ("up", ["app1", "app2"], 2, True),
    ("up", ["app1", "app2"], 3, False),
    ("up", ["app1", "app2", "app3", "bare"], 0, True),
    ("up", ["app1", "app2", "app3", "bare"], 1, False),
    # Another one is down: one less remains.
    ("down", ["app2"], 2, True),
    ("down", ["app2"], 3, False),
    # Nothing is taken away by draining what does not serve.
    ("down", ["app1"], 9, True),
    ("drained", ["app1"], 9, True),
    ("maint", ["app1"], 9, True),
    ("weight_0", ["app1"], 9, True),
    ("up", ["spare"], 9, True),
]


@pytest.mark.parametrize(("snapshot", "names", "min_up", "allowed"), MIN_UP)
def test_min_up(snapshot: str, names: list[str], min_up: int, allowed: bool) -> None:
    everyone = servers(snapshot)
    leaving = haproxy.to_drain({name: everyone[name] for name in names})
    if allowed:
        haproxy.check_min_up(everyone, leaving, min_up)
    else:
        with pytest.raises(TrafficError, match=rf"fewer than min_up \({min_up}\)"):
            haproxy.check_min_up(everyone, leaving, min_up)


@pytest.mark.parametrize("dry", [False, True])
def test_too_few_others_up_changes_nothing(haproxy_replay: Callable[..., Any], dry: bool) -> None:
    replay = haproxy_replay("up")
    with pytest.raises(
        TrafficError,
        match=r"app1, app2 would leave 2 other servers up \(app3, bare\), fewer than min_up \(3\)",
    ):
        drain(replay, ["app1", "app2"], min_up=3, dry=dry)
    assert replay.set == []


# --- ready -----------------------------------------------------------------------------------------------------


def ready(
    replay: Any, names: list[str], timeout: float = 10, force: bool = False, dry: bool = False
) -> tuple[dict[str, Any], float]:
    clock = FakeClock()
    outcome = haproxy.ready(backend(replay), clock, names, timeout, force, dry)
    return {**outcome.as_dict(), "warnings": outcome.warnings}, clock.waited


def test_ready_puts_a_healthy_server_back_at_once(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained", "drained", "up")
    result, waited = ready(replay, ["app1"])
    assert (result["changed"], result["servers"]["app1"]["state"], waited) == (True, "up", 0)
    assert result["diff"] == {"before": {"app1": "drain"}, "after": {"app1": "ready"}}
    assert replay.set == ["app/app1 state ready"]


def test_ready_waits_in_drain_until_the_check_passes(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained_failing", "drained_failing", "drained_failing", "drained", "up")
    result, waited = ready(replay, ["app1"])
    assert (result["changed"], waited) == (True, 2 * haproxy.POLL)
    assert replay.asked.index("set server app/app1 state ready") == 4


def test_a_server_that_is_up_is_left_alone(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    result, waited = ready(replay, ["app1", "app2"])
    assert (result["changed"], waited, replay.set) == (False, 0, [])


def test_a_server_that_is_ready_but_down_is_waited_for(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("down", "down", "down", "up")
    result, waited = ready(replay, ["app1"])
    assert (result["changed"], waited, replay.set) == (False, 2 * haproxy.POLL, [])


def test_an_unhealthy_server_is_never_put_back(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained_failing")
    with pytest.raises(
        TrafficError,
        match=r"not healthy for HAProxy after 1 s: app1 is DOWN \(L7STS 500 Internal Server Error\) and stays in drain",
    ) as error:
        ready(replay, ["app1"], timeout=1)
    assert replay.set == []
    assert error.value.details["changed"] is False
    assert error.value.details["servers"]["app1"]["state"] == "drained"


def test_a_server_that_falls_ill_when_put_back_is_taken_out_again(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained", "drained", *["down"] * 3, "drained_failing")
    with pytest.raises(TrafficError, match=r"app1 is DOWN .* and stays in drain") as error:
        ready(replay, ["app1"], timeout=0.1)
    assert replay.set == ["app/app1 state ready", "app/app1 state drain"]
    assert error.value.details["changed"] is False


def test_a_server_that_is_ready_but_stays_down_is_left_as_it_was(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("down")
    with pytest.raises(TrafficError, match=r"app1 is DOWN .* and set to ready"):
        ready(replay, ["app1"], timeout=0.1)
    assert replay.set == []


def test_maintenance_is_held(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("maint")
    result, _waited = ready(replay, ["app1", "app2"])
    assert (result["changed"], result["held"], replay.set) == (False, ["app1"], [])
    assert result["warnings"][0].startswith("app1 is in maintenance, which Convoy never sets")


def test_force_ends_maintenance_by_way_of_drain(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("maint", "left_maint", "left_maint", "left_maint_checked", "up")
    result, waited = ready(replay, ["app1"], force=True)
    assert (result["changed"], result["held"], waited) == (True, [], 2 * haproxy.POLL)
    assert replay.set == ["app/app1 state drain", "app/app1 state ready"]


def test_check_mode_puts_nothing_back(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained")
    result, _waited = ready(replay, ["app1"], dry=True)
    assert (result["changed"], replay.set) == (True, [])
    assert ready(haproxy_replay("up"), ["app1"], dry=True)[0]["changed"] is False


def test_a_server_without_a_check_is_put_back_with_a_warning(haproxy_replay: Callable[..., Any]) -> None:
    result, _waited = ready(haproxy_replay("up"), ["bare"])
    assert result["warnings"] == (
        "HAProxy has no health check for bare: it sends requests there whatever their health",
    )


# --- switch ----------------------------------------------------------------------------------------------------


def switch(
    replay: Any, names: list[str], away: list[str], timeout: float = 10, min_up: int = 1, dry: bool = False
) -> tuple[dict[str, Any], float]:
    clock = FakeClock()
    outcome = haproxy.switch(backend(replay), clock, names, away, timeout, min_up, dry)
    return {**outcome.as_dict(), "warnings": outcome.warnings}, clock.waited


def test_a_switch_is_one_connection_and_puts_in_before_it_takes_out(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained", "up")
    with pytest.raises(TrafficError, match="app2 was put back in service by somebody else"):
        switch(replay, ["app1"], ["app2"])  # the recording has app2 up for ever
    first, back = (asked.split(";") for asked in replay.asked if "set server" in asked)
    assert first == ["set server app/app1 state ready", "set server app/app2 state drain"]
    assert back == ["set server app/app2 state ready", "set server app/app1 state drain"]


def test_what_is_switched_already_is_left_alone(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained")
    result, waited = switch(replay, ["app2"], ["app1"])
    assert (result["changed"], result["held"], waited, replay.set) == (False, [], 0, [])


def test_servers_that_become_healthy_in_time_are_waited_for(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained_failing", "drained_failing", "drained", "up")
    result, waited = switch(replay, ["app1"], [])
    assert (result["changed"], waited) == (True, 2 * haproxy.POLL)
    assert result["diff"] == {"before": {"app1": "drain"}, "after": {"app1": "ready"}}


@pytest.mark.parametrize(("snapshot", "min_up"), [("drained_failing", 2), ("maint", 2)])
def test_too_few_healthy_servers_and_nothing_is_switched(
    haproxy_replay: Callable[..., Any], snapshot: str, min_up: int
) -> None:
    replay = haproxy_replay(snapshot)
    with pytest.raises(TrafficError, match="nothing was switched: 1 of 2 servers are healthy for HAProxy after 1 s"):
        switch(replay, ["app1", "app2"], ["app3"], timeout=1, min_up=min_up)
    assert replay.set == []


def test_a_server_that_falls_ill_when_it_is_switched_to_is_switched_away_from(
    haproxy_replay: Callable[..., Any],
) -> None:
    replay = haproxy_replay("drained", "down")
    with pytest.raises(TrafficError, match="0 of 1 servers are up after the switch, 1 have to be"):
        switch(replay, ["app1"], [])
    assert replay.set == ["app/app1 state ready", "app/app1 state drain"]


def test_maintenance_is_held_in_a_switch(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("maint")
    result, _waited = switch(replay, ["app1", "app2"], [])
    assert (result["held"], replay.set) == (["app1"], [])


def test_check_mode_switches_nothing(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("drained")
    result, _waited = switch(replay, ["app1"], ["app2"], dry=True)
    assert (result["changed"], replay.set) == (True, [])
    assert result["diff"]["after"] == {"app1": "ready", "app2": "drain"}


def test_many_servers_take_no_more_than_the_buffer_holds(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    names = [f"a-server-with-a-long-name-{number}" for number in range(500)]
    backend(replay).swap(names, [])
    assert len(replay.set) == 500
    assert max(map(len, replay.asked)) <= haproxy.LONGEST_LINE


# --- watch -----------------------------------------------------------------------------------------------------


def watch(replay: Any, names: list[str], duration: float = 1, dry: bool = False) -> tuple[dict[str, Any], float]:
    clock = FakeClock()
    return haproxy.watch(backend(replay), clock, names, duration, dry).as_dict(), clock.waited


def test_watching_looks_all_the_time_and_changes_nothing(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    result, waited = watch(replay, ["app1", "app2"], duration=1.1)
    assert (result["changed"], result["elapsed"], waited) == (False, 1.1, 1.1)
    assert len(replay.asked) == 6


def test_watching_ends_when_a_server_leaves(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up", "up", "down")
    with pytest.raises(
        TrafficError,
        match=r"app1 is not up for HAProxy but DOWN \(L7STS 500 Internal Server Error\) after 0\.5 s of watching",
    ) as error:
        watch(replay, ["app2", "app1"], duration=60)
    assert error.value.details["servers"]["app1"]["state"] == "down"


@pytest.mark.parametrize("snapshot", ["draining", "drained", "maint", "down"])
def test_what_is_not_up_from_the_beginning_fails_at_once(haproxy_replay: Callable[..., Any], snapshot: str) -> None:
    with pytest.raises(TrafficError, match=r"app1 is not up for HAProxy but .* after 0\.0 s"):
        watch(haproxy_replay(snapshot), ["app1"])


def test_a_server_that_was_down_between_two_looks_is_noticed(haproxy_replay: Callable[..., Any]) -> None:
    with pytest.raises(TrafficError, match=r"app1 was down for HAProxy for a moment \(1 times\)"):
        watch(haproxy_replay("up", "up_after_down"), ["app1"])


def test_others_may_leave(haproxy_replay: Callable[..., Any]) -> None:
    assert watch(haproxy_replay("up", "down"), ["app2"])[0]["changed"] is False


def test_check_mode_watches_once(haproxy_replay: Callable[..., Any]) -> None:
    replay = haproxy_replay("up")
    _result, waited = watch(replay, ["app1"], duration=60, dry=True)
    assert (len(replay.asked), waited) == (1, 0)


def test_an_absent_haproxy_is_no_reason_to_wait() -> None:
    clock = FakeClock()
    with pytest.raises(TrafficError, match="is not there"):
        haproxy.watch(haproxy.Backend(haproxy.Runtime("/nowhere/s"), "app"), clock, ["app1"], 60, False)
    assert clock.waited == 0
