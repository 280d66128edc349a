# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules nginx and nginx_info against a real nginx: what clients, servers and the file see of each call."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import nginx_process
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock

from .world import NGINX, World, checked, nginx

TOP = Path(__file__).parents[2]
CALL = """
import json, sys
from ansible_collections.convoy.rollout.plugins.module_utils.calls import nginx
print(json.dumps(nginx.run(json.load(sys.stdin), False)))
"""


def asked(world: World, times: int = 30) -> Counter[str]:
    return Counter(world.get() for _ in range(times))


# --- drained and ready -----------------------------------------------------------------------------------------


def test_drain_and_ready_and_both_again(world: World) -> None:
    first, second, third = world.servers
    drained = world.done("drained", first, min_up=2)
    assert (drained["changed"], drained["reloaded"], drained["forced"], drained["warnings"]) == (True, True, False, [])
    assert drained["diff"] == {"before": {first.name: "ready"}, "after": {first.name: "drain"}}
    assert f"\tserver {first.name} max_fails=0 down;  # the first\n" in world.config.read_text()
    assert set(asked(world)) == {second.name, third.name}
    again = world.done("drained", first, min_up=2)
    assert (again["changed"], again["reloaded"]) == (False, False)
    assert world.states() == ["drained", "up", "up"]
    ready = world.done("ready", first)
    assert (ready["changed"], ready["servers"][first.name]["state"]) == (True, "up")
    assert world.done("ready", *world.servers)["changed"] is False
    assert set(asked(world)) == set(world.names)
    assert world.config.read_bytes() == world.original


def test_a_server_as_the_module_returns_it(world: World) -> None:
    name = world.names[1]
    assert world.info(servers=[name]) == {
        name: {
            "state": "up",
            "admin": "ready",
            "healthy": True,
            "answer": "answered 200",
            "sessions": 0,
            "weight": 1,
            "backup": False,
        }
    }


def test_check_mode_predicts_and_changes_nothing(world: World) -> None:
    first = world.servers[0]
    assert world.done("drained", first, dry=True)["changed"] is True
    assert world.done("ready", first, dry=True)["changed"] is False
    assert world.done("switched", *world.servers[1:], away=[first.name], dry=True)["changed"] is True
    assert world.config.read_bytes() == world.original
    assert set(asked(world)) == set(world.names)


def test_a_drain_waits_for_an_open_request_which_is_answered(world: World) -> None:
    first = world.servers[0]
    with ThreadPoolExecutor() as pool:
        held = world.hold(pool, first)
        draining = pool.submit(world.call, "drained", first, timeout=60)
        world.until(lambda: world.states()[0] == "draining")
        assert world.info()[first.name]["sessions"] == 1
        before = len(first.requests)
        assert first.name not in asked(world)
        assert not draining.done()
        first.let_go.set()
        drained = draining.result()
        assert held.result() == first.name
    assert (drained["changed"], drained["forced"], drained["servers"][first.name]["state"]) == (True, False, "drained")
    assert len(first.requests) == before


def test_a_drain_that_takes_too_long_is_undone_unless_it_is_forced(world: World) -> None:
    first = world.servers[0]
    with ThreadPoolExecutor() as pool:
        held = world.hold(pool, first)
        failed = world.call("drained", first, timeout=0.5)
        assert world.config.read_bytes() == world.original
        assert first.name in asked(world)
        forced = world.done("drained", first, timeout=0.5, force=True)
        first.let_go.set()
        assert held.result() == first.name
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert failed["msg"].startswith(f"connections have not ended 0.5 s after the drain began: {first.name} (1 open); ")
    assert failed["servers"][first.name]["state"] == "up"
    assert (forced["changed"], forced["forced"], forced["servers"][first.name]["state"]) == (True, True, "draining")
    assert "went on with connections" in forced["warnings"][0]


def test_what_drains_already_is_waited_for_again(world: World) -> None:
    first = world.servers[0]
    with ThreadPoolExecutor() as pool:
        held = world.hold(pool, first)
        world.done("drained", first, timeout=0, force=True)
        draining = pool.submit(world.call, "drained", first, timeout=60)
        time.sleep(0.5)
        assert not draining.done()
        first.let_go.set()
        assert draining.result()["changed"] is False
        assert held.result() == first.name


def test_an_old_worker_that_is_busy_elsewhere_delays_a_drain_and_does_not_fail_it(world: World) -> None:
    first, second, _third = world.servers
    with ThreadPoolExecutor() as pool:
        held = world.hold(pool, second)
        drained = world.done("drained", first, timeout=0.5)
        second.let_go.set()
        assert held.result() == second.name
    assert (drained["changed"], drained["forced"]) == (True, False)
    assert "they have no connection with these servers" in drained["warnings"][0]


def test_min_up_refuses_and_changes_nothing(world: World) -> None:
    first, second, third = world.servers
    refused = world.call("drained", first, min_up=3)
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert f"would leave 2 other servers up ({second.name}, {third.name}), fewer than min_up (3)" in refused["msg"]
    second.sick = True
    assert "would leave 1 other servers up" in world.call("drained", first, min_up=2, dry=True)["msg"]
    assert world.config.read_bytes() == world.original
    assert world.done("drained", second, min_up=2)["changed"] is True  # it takes nothing away


def test_an_unhealthy_server_is_not_put_back(world: World) -> None:
    first, second, _third = world.servers
    world.done("drained", first, second)
    first.sick = True
    failed = world.call("ready", first, second, timeout=0.5)
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert failed["msg"] == f"not healthy after 0.5 s: {first.name} answered 500 and stays out of service"
    assert world.states() == ["drained", "up", "up"]
    first.stop()
    assert "refused the connection" in world.call("ready", first, timeout=0.2)["msg"]
    first.start()
    first.sick = False
    assert world.done("ready", first)["changed"] is True


def test_a_server_that_becomes_healthy_in_time_is_waited_for(world: World) -> None:
    first = world.servers[0]
    world.done("drained", first)
    first.sick = True
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(world.call, "ready", first, timeout=60)
        time.sleep(0.5)
        assert not waiting.done()
        assert world.states()[0] == "drained"
        first.sick = False
        assert waiting.result()["servers"][first.name]["state"] == "up"


def test_a_server_that_is_ill_after_it_was_put_back_goes_out_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.servers[0]
    world.done("drained", first)
    reload = nginx_process.Nginx.reload

    def reload_and_fall_ill(process: nginx_process.Nginx) -> Any:
        first.sick = True
        return reload(process)

    monkeypatch.setattr(nginx_process.Nginx, "reload", reload_and_fall_ill)
    failed = world.call("ready", first, timeout=0.5)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert failed["msg"].endswith("answered 500 and stays out of service")
    assert world.states()[0] == "drained"
    assert first.name not in asked(world)


def test_without_a_probe_a_server_has_to_accept_connections(world: World) -> None:
    first = world.servers[0]
    world.done("drained", first)
    first.sick = True
    assert world.done("ready", first, probe="")["servers"][first.name]["answer"] == "accepted the connection"
    world.done("drained", first)
    first.stop()
    assert "refused the connection" in world.call("ready", first, probe="", timeout=0.2)["msg"]


# --- switched --------------------------------------------------------------------------------------------------


def test_colours_are_switched_at_once_and_no_request_fails(world: World) -> None:
    blue, *green = world.servers
    world.done("drained", *green)
    with world.under_load() as told:
        world.until(lambda: len(told) > 50)
        switched = world.done("switched", *green, away=[blue.name], min_up=2)
        after = len(blue.requests)
        begun = len(told)
        world.until(lambda: len(told) > begun + 50)
    assert set(told) <= set(world.names)
    assert (switched["changed"], world.states()) == (True, ["drained", "up", "up"])
    assert len(blue.requests) == after
    assert world.done("switched", *green, away=[blue.name], min_up=2)["changed"] is False


def test_too_few_healthy_servers_and_nothing_is_switched(world: World) -> None:
    blue, green, ill = world.servers
    world.done("drained", green, ill)
    ill.sick = True
    refused = world.call("switched", green, ill, away=[blue.name], min_up=2, timeout=0.3)
    assert refused["msg"] == (
        f"nothing was switched: 1 of 2 servers are healthy after 0.3 s, 2 have to be: {ill.name} answered 500"
    )
    assert (refused["changed"], world.states()) == (False, ["up", "drained", "drained"])
    switched = world.done("switched", green, ill, away=[blue.name], min_up=1, timeout=0.3)
    assert switched["warnings"] == [f"{ill.name} is not healthy and was not put in service"]
    assert world.states() == ["drained", "up", "drained"]


def test_a_switch_to_servers_that_fall_ill_is_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    blue, green, _third = world.servers
    world.done("drained", green)
    before = world.config.read_bytes()
    reload = nginx_process.Nginx.reload

    def reload_and_fall_ill(process: nginx_process.Nginx) -> Any:
        green.sick = True
        return reload(process)

    monkeypatch.setattr(nginx_process.Nginx, "reload", reload_and_fall_ill)
    failed = world.call("switched", green, away=[blue.name], min_up=1)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert failed["msg"] == "0 of 1 servers are up after the switch, 1 have to be; it was undone"
    assert world.config.read_bytes() == before
    assert green.name not in asked(world)


# --- several at once, and a rollout that was overtaken ---------------------------------------------------------


def test_several_calls_at_once_lose_no_change(world: World) -> None:
    with ThreadPoolExecutor() as pool:
        for state, wanted in (("drained", "drained"), ("ready", "up")):
            results = list(pool.map(lambda server, to=state: world.call(to, server, timeout=60), world.servers))
            assert [result.get("msg") for result in results] == [None] * 3
            assert [result["changed"] for result in results] == [True] * 3
            assert world.states() == [wanted] * 3
    assert world.config.read_bytes() == world.original


def test_of_several_drains_at_once_no_more_go_through_than_min_up_allows(world: World) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda server: world.call("drained", server, min_up=2, timeout=60), world.servers))
    assert sorted("failed" in result for result in results) == [False, True, True]
    assert sorted(world.states()) == ["drained", "up", "up"]


@pytest.mark.parametrize("state", ["drained", "ready", "switched"])
def test_a_rollout_that_was_overtaken_changes_nothing(world: World, state: str) -> None:
    first = world.servers[0]
    world.done("ready", first, token=7, rollout="r7")
    refused = world.call(state, first, token=6, rollout="r6")
    assert (refused["failed"], refused["stale_token"], refused["changed"]) == (True, True, False)
    assert "rollout r7 came here with token 7" in refused["msg"]
    assert world.config.read_bytes() == world.original


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_a_drain_outlives_a_reload_and_a_restart(world: World) -> None:
    first = world.servers[0]
    world.done("drained", first)
    nginx_process.Nginx(*(world.params[name] for name in ("executable", "main", "pid_file")), Clock()).reload()
    assert first.name not in asked(world)
    world.stop()
    world.start()
    assert first.name not in asked(world)
    assert world.states() == ["drained", "up", "up"]


def test_a_broken_configuration_is_found_before_anything_is_changed(world: World) -> None:
    (world.config.parent / "other.conf").write_text("no such directive;\n")
    for dry in (True, False):
        refused = world.call("drained", world.servers[0], dry=dry)
        assert (refused["failed"], refused["changed"]) == (True, False)
        assert 'unknown directive "no"' in refused["msg"]
    assert world.config.read_bytes() == world.original
    assert set(asked(world)) == set(world.names)


def test_a_change_that_nginx_refuses_is_taken_back(world: World, tmp_path: Path) -> None:
    wrapper = tmp_path / "nginx-that-refuses"
    wrapper.write_text(
        f"#!/bin/sh\ngrep -q 'down;' {world.config} && {{ echo refused >&2; exit 1; }}\nexec {NGINX} \"$@\"\n"
    )
    wrapper.chmod(0o755)
    refused = world.call("drained", world.servers[0], executable=str(wrapper))
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert refused["msg"] == f"nginx refuses its configuration: refused; {world.config} is again as it was"
    assert world.config.read_bytes() == world.original
    assert world.states() == ["up"] * 3


def test_a_reload_that_nginx_does_not_do_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx_process, "RELOAD_SECONDS", 4.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        # Its own test lets a port pass that somebody else has.
        other = world.config.parent / "other.conf"
        other.write_text(f"server {{ listen 127.0.0.1:{taken.getsockname()[1]}; }}\n")
        refused = world.call("drained", world.servers[0])
        other.unlink()
    assert (refused["failed"], refused["changed"]) == (True, True)
    assert "has no new workers 4 s after it was told to read its configuration again" in refused["msg"]
    assert world.config.read_bytes() == world.original
    assert set(asked(world)) == set(world.names)
    assert world.states() == ["unloaded", "up", "up"]
    assert world.done("ready", world.servers[0])["reloaded"] is True
    assert world.states() == ["up"] * 3


@pytest.mark.parametrize("next_state", ["drained", "ready"])
def test_a_call_that_was_killed_before_the_reload_is_seen_and_made_good(
    world: World, tmp_path: Path, next_state: str
) -> None:
    first = world.servers[0]
    reached = tmp_path / "reached"
    wrapper = tmp_path / "nginx-that-waits"
    wrapper.write_text(
        f"#!/bin/sh\ngrep -q 'down;' {world.config} && {{ touch {reached}; exec sleep 60; }}\nexec {NGINX} \"$@\"\n"
    )
    wrapper.chmod(0o755)
    params = {**world.params, "state": "drained", "servers": [first.name], "min_up": 0, "executable": str(wrapper)}
    killed = subprocess.Popen(
        [sys.executable, "-c", CALL],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TOP / "collections")},
        start_new_session=True,
    )
    assert killed.stdin is not None
    killed.stdin.write(json.dumps(checked(nginx, params)).encode())
    killed.stdin.close()
    world.until(reached.exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert first.name in asked(world)  # nginx has not read the file
    assert world.states() == ["unloaded", "up", "up"]
    after = world.done(next_state, first)
    assert (after["changed"], after["reloaded"]) == (True, True)
    assert (first.name in asked(world)) is (next_state == "ready")
    assert world.done(next_state, first)["changed"] is False


def test_the_file_keeps_its_mode_its_owner_and_the_link_to_it(world: World) -> None:
    real = world.directory / "app.conf"
    world.config.rename(real)
    world.config.symlink_to(real)
    real.chmod(0o640)
    os.chown(real, 12, 34)
    world.done("drained", world.servers[0])
    status = real.stat()
    assert world.config.is_symlink()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 12, 34)
    assert os.listdir(world.config.parent) == ["app.conf"]


def test_nginx_that_does_not_run(world: World) -> None:
    world.stop()
    refused = world.call("drained", world.servers[0])
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert "nginx does not run" in refused["msg"]
    assert world.config.read_bytes() == world.original


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"servers": ["127.0.0.1:1"]}, "has no server '127.0.0.1:1'"),
        ({"upstream": "ap"}, "has no upstream block 'ap', did you mean 'app'? (it has app)"),
        ({"upstream": "../app"}, "upstream is '../app': Convoy takes letters"),
        ({"config": "/nowhere/app.conf"}, "/nowhere/app.conf cannot be read: No such file or directory"),
        ({"pid_file": "/nowhere/nginx.pid"}, "/nowhere/nginx.pid is not there: nginx does not run"),
        ({"pid_file": "/dev/null"}, "/dev/null cannot be read as the number of a process"),
        ({"executable": "/nowhere/nginx"}, "/nowhere/nginx cannot be run: No such file or directory"),
        ({"probe": "/healthz"}, "probe is '/healthz': write a URL with {server}"),
        ({"timeout": -1}, "timeout is -1.0: must be 0 or more"),
        ({"servers": []}, "servers is empty: name at least one server of the upstream block"),
    ],
)
def test_what_is_wrong_is_named(world: World, arguments: dict[str, Any], words: str) -> None:
    refused = world.call("drained", **{"servers": [world.names[0]], **arguments})
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert words in refused["msg"]
    assert world.config.read_bytes() == world.original


def test_a_file_that_nginx_does_not_read_and_a_process_that_is_no_nginx(world: World, tmp_path: Path) -> None:
    stray = tmp_path / "stray.conf"
    stray.write_bytes(world.original)
    assert (
        f"{stray} is no part of nginx's configuration"
        in world.call("drained", world.servers[0], config=str(stray))["msg"]
    )
    wrong = tmp_path / "wrong.pid"
    wrong.write_text(f"{os.getpid()}\n")
    assert "nginx does not run" in world.call("drained", world.servers[0], pid_file=str(wrong))["msg"]


# --- what it is all for ----------------------------------------------------------------------------------------


def test_no_request_fails_while_servers_are_drained_restarted_and_put_back(world: World) -> None:
    with world.under_load() as told:
        for server in world.servers:
            world.done("drained", server, min_up=2, timeout=60)
            server.stop()
            begun = len(told)
            world.until(lambda so_many=begun: len(told) > so_many + 20)
            server.start()
            world.done("ready", server)
        begun = len(told)
        world.until(lambda: len(told) > begun + 50)
    assert set(told) == set(world.names)
    assert world.config.read_bytes() == world.original
