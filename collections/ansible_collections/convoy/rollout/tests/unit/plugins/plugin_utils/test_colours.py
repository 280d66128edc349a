# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which colour is live, by the load balancers, which way they are switched, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import colours
from ansible_collections.convoy.rollout.plugins.plugin_utils.checking import check
from ansible_collections.convoy.rollout.plugins.plugin_utils.colours import ColourError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Recorded,
    SwitchReport,
    Verdict,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Switch
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus, Status, Traffic
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.opening import open_rollout

OLD, NEW = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb"
COLOURS = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
UP, DOWN, OUT = ["up", "up"], ["down", "down"], ["drained", "drained"]
BLUE = {"b1": UP, "b2": UP, "g1": OUT, "g2": OUT}
GREEN = {"b1": OUT, "b2": OUT, "g1": UP, "g2": UP}
HALF = {"b1": UP, "b2": OUT, "g1": UP, "g2": UP}
ONE_OF_TWO = {host: ["up", "drained"] if host in COLOURS["blue"] else ["drained", "up"] for host in BLUE}
NOBODY = dict.fromkeys(BLUE, OUT)
ROLLBACK: dict[str, Any] = {
    "kind": "rollback",
    "component_kind": "archive",
    "component": "hello",
    "environment": "staging",
    "stream": "staging/hello",
    "version": None,
    "phases": "blue_green",
    "max_unavailable": 1,
    "failure_budget": 0,
    "turn_back_max_unavailable": "50%",
    "lease": 600,
    "turn_back_scope": "all",
    "min_available": 0,
    "zone_order": "inventory",
    "on_failure": "turn_back",
    "when_unreachable": "fail",
    "progress_deadline": 0,
    "hooks": {},
    "keep": 5,
    "colours": COLOURS,
    "override": "",
}


def reading(name: str, active: str | None, healthy: bool = True, in_service: bool = True) -> Reading:
    known = [{"id": one, "version": one.partition("-")[0]} for one in (OLD, NEW)]
    good = [active] if active else []
    health = {"verdict": "pass" if healthy else "fail"}
    return Reading(name, {"active": active, "good": good, "releases": known, "health": health}, in_service=in_service)


def fleet(blue: str | None, green: str | None) -> list[Reading]:
    return [reading(name, blue if name in COLOURS["blue"] else green) for name in BLUE]


@pytest.mark.parametrize(
    ("rotation", "live"),
    [
        (BLUE, "blue"),
        (GREEN, "green"),
        (HALF, None),
        (ONE_OF_TWO, None),
        (NOBODY, None),
        ({**BLUE, "b2": OUT}, "blue"),
        ({**BLUE, "b1": DOWN, "b2": DOWN}, "blue"),
        (dict.fromkeys(BLUE, DOWN), None),
        ({**BLUE, "g1": DOWN}, "blue"),
    ],
)
def test_which_colour_is_live(rotation: Mapping[str, list[str]], live: str | None) -> None:
    assert colours.live_colour(COLOURS, rotation) == live


@pytest.mark.parametrize(
    ("rotation", "traffic"),
    [
        (BLUE, Traffic.OLD),
        (NOBODY, Traffic.OLD),
        (GREEN, Traffic.NEW),
        (HALF, Traffic.BETWEEN),
        (ONE_OF_TWO, Traffic.BETWEEN),
        ({**GREEN, "g1": OUT}, Traffic.NEW),
        ({**GREEN, "b1": DOWN}, Traffic.BETWEEN),
        ({**GREEN, "g1": ["up", "drained"]}, Traffic.BETWEEN),
    ],
)
def test_where_the_load_balancers_stand(rotation: Mapping[str, list[str]], traffic: Traffic) -> None:
    assert colours.stand(Switch("green", "blue"), COLOURS, rotation) is traffic


def direction(rotation: Mapping[str, list[str]], readings: list[Reading]) -> Switch:
    return colours.direction(COLOURS, rotation, readings, "deploy", "1.1.0", None)


def test_the_colour_that_is_not_live_is_switched_to() -> None:
    assert direction(BLUE, fleet(OLD, OLD)) == Switch("green", "blue", ("b1", "b2"))
    assert direction(GREEN, fleet(OLD, OLD)) == Switch("blue", "green", ("g1", "g2"))


def test_a_host_that_was_out_of_service_stays_out_when_it_is_switched_back() -> None:
    assert direction({**BLUE, "b2": OUT}, fleet(OLD, OLD)).serving == ("b1",)


def test_the_first_deployment_goes_to_blue_and_nobody_is_switched_back_to() -> None:
    assert direction(dict.fromkeys(BLUE, DOWN), fleet(None, None)) == Switch("blue", "green", ())


@pytest.mark.parametrize(
    ("rotation", "told"),
    [
        (NOBODY, "neither colour is in service, though releases are deployed"),
        (HALF, r"both colours are in service \(blue: b1; green: g1, g2\).* take the one out"),
        ({"b1": UP, "b2": UP, "g1": UP}, "no load balancer knows g2 of green"),
    ],
)
def test_what_cannot_be_told_is_refused(rotation: Mapping[str, list[str]], told: str) -> None:
    with pytest.raises(ColourError, match=told):
        direction(rotation, fleet(OLD, OLD))


# With a ledger


@pytest.fixture
def rollouts(tmp_path: Path) -> Rollouts:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "test")
    ledger.prepare()
    return Rollouts(ledger, "staging/hello")


def opened(
    rollouts: Rollouts, rotation: Mapping[str, list[str]], readings: list[Reading], **asked: Any
) -> dict[str, Any]:
    return open_rollout(rollouts, {**ROLLBACK, "rotation": rotation, **asked}, readings, "the command", dry=False)


def test_a_rollback_is_a_switch_to_what_the_standby_runs(rollouts: Rollouts) -> None:
    told = opened(rollouts, GREEN, fleet(OLD, NEW))
    assert told["switch"] == {"coming": "blue", "leaving": "green", "serving": ("g1", "g2")}
    assert told["order"] == []
    view = rollouts.standing(told["rollout"])
    assert [row.status for row in view.hosts] == [HostStatus.CURRENT] * 2 + [HostStatus.STANDBY] * 2
    assert (view.facts["version"], view.state.phase, view.state.traffic) == ("1.0.0", 1, Traffic.OLD)


def test_a_standby_that_is_ill_is_mended_on_the_way(rollouts: Rollouts) -> None:
    readings = [reading("b1", OLD, healthy=False), *fleet(OLD, NEW)[1:]]
    assert opened(rollouts, GREEN, readings)["order"] == ["b1"]


def test_a_rollback_after_a_rollback_does_not_go_forward_by_itself(rollouts: Rollouts) -> None:
    end(rollouts, opened(rollouts, GREEN, fleet(OLD, NEW)))
    with pytest.raises(FleetError, match="was a rollback already: green is what it went back from"):
        opened(rollouts, BLUE, fleet(OLD, NEW))
    assert opened(rollouts, BLUE, fleet(OLD, NEW), version="1.1.0")["switch"]["coming"] == "green"


@pytest.mark.parametrize(
    ("blue", "told"),
    [
        ((None, None), "there is no release to switch back to: b1, b2 of blue"),
        ((OLD, NEW), r"blue runs several versions \(b1 1.0.0, b2 1.1.0\)"),
    ],
)
def test_a_standby_that_cannot_be_switched_back_to(
    rollouts: Rollouts, blue: tuple[str | None, str | None], told: str
) -> None:
    readings = [reading("b1", blue[0]), reading("b2", blue[1]), *fleet(OLD, NEW)[2:]]
    with pytest.raises(FleetError, match=told):
        opened(rollouts, GREEN, readings)


def test_what_is_live_already_is_not_rolled_back_to(rollouts: Rollouts) -> None:
    told = opened(rollouts, GREEN, fleet(OLD, NEW), version="1.1.0")
    assert (told["idle"], told["changed"]) == (True, False)
    assert told["convoy"]["summary"] == [
        "nothing to do for hello in staging",
        f"{OLD}: b1, b2",
        f"{NEW}: g1, g2",
        "live: green (2 of 2 hosts in service); blue is on standby",
    ]


def end(rollouts: Rollouts, told: dict[str, Any]) -> None:
    """The rollout goes its way to its end: switched, gate passed, closed."""
    rollout, token = told["rollout"], told["token"]
    answer = rollouts.admit_switch(rollout, token, "root")
    assert isinstance(answer, Admitted)
    assert rollouts.report_switch(rollout, token, SwitchReport(answer.until, True), "root") == Recorded(gate_due=True)
    gate = rollouts.gate(rollout)
    assert gate is not None
    assert gate["hosts"] == rollouts.standing(rollout).ready
    rollouts.judge(rollout, token, Verdict.INCONCLUSIVE, "")
    rollouts.approve(rollout, "yes")
    assert rollouts.close(rollout, token) == Recorded()
    assert rollouts.standing(rollout).status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("rotation", "told"),
    [
        (HALF, "the load balancers are half switched from green to blue: the switch is finished"),
        (BLUE, "the load balancers are switched from green to blue: the gate is asked again"),
    ],
)
def test_a_run_that_died_goes_on_the_way_that_it_went(
    rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch, rotation: Mapping[str, list[str]], told: str
) -> None:
    first = opened(rollouts, GREEN, fleet(OLD, NEW))
    rollouts.admit_switch(first["rollout"], first["token"], "root")
    again = opened(rollouts, rotation, fleet(OLD, NEW))
    assert again["rollout"] == first["rollout"]
    assert told in again["convoy"]["lines"]
    assert (again["gate"] is not None) is (rotation is BLUE)


def test_another_version_is_refused_while_the_load_balancers_are_half_switched(rollouts: Rollouts) -> None:
    opened(rollouts, GREEN, fleet(OLD, NEW))
    with pytest.raises(ColourError, match=r"run the interrupted command again, which finishes its switch, or rollback"):
        opened(rollouts, HALF, fleet(OLD, NEW), kind="deploy", version="1.2.0", artifact_sha256="0" * 64)


# What ought to serve


@pytest.mark.parametrize(
    ("rotation", "asked", "expected"),
    [
        (GREEN, ["b1", "b2", "g1", "g2"], []),
        ({**GREEN, "g1": OUT}, ["b1", "b2", "g1", "g2"], ["g1"]),
        (NOBODY, ["b1", "b2", "g1", "g2"], []),
        (NOBODY, ["b1", "b2"], ["b1", "b2"]),
        (GREEN, ["b1", "b2"], []),
    ],
)
def test_the_hosts_that_ought_to_serve(
    rotation: Mapping[str, list[str]], asked: list[str], expected: list[str]
) -> None:
    readings = [reading(name, OLD, in_service="up" in rotation[name]) for name in asked]
    assert colours.left_out(readings, COLOURS, rotation) == expected


def test_without_colours_every_healthy_host_ought_to_serve() -> None:
    assert colours.left_out([reading("b1", OLD, in_service=False)], {}, {}) == ["b1"]
    assert colours.status_lines({}, {}) == []


def test_a_colour_that_cannot_be_told_is_said_to_be_so() -> None:
    assert colours.status_lines(COLOURS, HALF) == [
        "live: it cannot be told, since both colours or neither are in service"
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"traffic_adapter": "tasks"},
            "rollout_colours: they need traffic_adapter: haproxy or nginx, and it is 'tasks'",
        ),
        ({"traffic_adapter": "none"}, "rollout_colours: they need traffic_adapter: haproxy or nginx, and it is 'none'"),
        ({"when_unreachable": "defer"}, "rollout_unreachable: 'defer' does not go with rollout_colours"),
        ({"hooks": {"after_undrain": __file__}}, "rollout_hooks.after_undrain: it never runs with rollout_colours"),
    ],
)
def test_what_does_not_go_with_colours_is_refused(asked: dict[str, Any], told: str) -> None:
    tasks = {"drain": __file__, "undrain": __file__}
    usual = {
        "ledger_url": "sqlite://",
        "gate": {},
        "hosts": list(BLUE),
        "traffic_adapter": "haproxy",
        "package": {},
        "container": {},
    }
    with pytest.raises(SpecError, match=told):
        check({**ROLLBACK, **usual, "traffic_tasks": tasks, **asked}, 5, 0.0)
