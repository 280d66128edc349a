# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host goes in which phase and in which order, and how many may be out at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    Plan,
    Sighting,
    Switch,
    make_plan,
    make_switch_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    Quantity,
    RolloutSpec,
    SpecError,
    parse_failure_budget,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus

CANARY = {"name": "canary", "size": 1}
FLEET = {"name": "fleet", "size": "100%"}


def a_spec(*phases: dict[str, Any], window: Any = 1, budget: Any = 0, back: Any = "50%") -> RolloutSpec:
    return RolloutSpec(
        phases=parse_phases(list(phases), window),
        failure_budget=parse_failure_budget(budget),
        turn_back_max_unavailable=Quantity.parse("back", back),
        lease=60.0,
    )


def old(name: str, health: Health = Health.HEALTHY, **facts: Any) -> HostFacts:
    return HostFacts(name, "new", "old", health=health, **facts)


def done(name: str, **facts: Any) -> HostFacts:
    return HostFacts(name, "new", "new", health=Health.HEALTHY, **facts)


def apps(number: int) -> list[HostFacts]:
    return [old(f"app{index}") for index in range(1, number + 1)]


def by_phase(plan: Plan) -> list[list[str]]:
    return [[host.name for host in plan.hosts if host.phase == index] for index in range(len(plan.phases))]


def test_sizes_are_cumulative_and_round_up() -> None:
    plan = make_plan(a_spec(CANARY, {"name": "some", "size": "40%"}, FLEET), apps(6))
    assert [(phase.name, phase.hosts) for phase in plan.phases] == [("canary", 1), ("some", 2), ("fleet", 3)]
    assert by_phase(plan) == [["app1"], ["app2", "app3"], ["app4", "app5", "app6"]]
    assert [host.position for host in plan.hosts] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_phase_that_a_small_fleet_leaves_empty_is_no_phase(hosts: int) -> None:
    plan = make_plan(a_spec(CANARY, {"name": "some", "size": "10%"}, FLEET), apps(hosts))
    assert [phase.name for phase in plan.phases] == ["canary", "fleet"][:hosts]
    assert {host.phase for host in plan.hosts} == set(range(hosts))


def test_a_count_beyond_the_fleet_is_the_fleet() -> None:
    plan = make_plan(a_spec({"name": "all", "size": 100}), apps(3))
    assert [phase.hosts for phase in plan.phases] == [3]


@pytest.mark.parametrize(
    ("window", "hosts", "expected"),
    [(1, 6, 1), ("25%", 6, 1), ("25%", 8, 2), ("10%", 6, 1), ("1%", 3, 1), ("100%", 6, 6), (9, 6, 9)],
)
def test_a_window_is_of_the_fleet_rounded_down_and_at_least_one(window: Any, hosts: int, expected: int) -> None:
    plan = make_plan(a_spec(CANARY, FLEET, window=window, back=window), apps(hosts))
    assert {phase.window for phase in plan.phases} == {expected}
    assert plan.turn_back_window == expected


@pytest.mark.parametrize(("budget", "expected"), [(0, 0), (2, 2), ("20%", 1), ("10%", 0), ("100%", 6)])
def test_the_budget_rounds_down(budget: Any, expected: int) -> None:
    assert make_plan(a_spec(FLEET, budget=budget), apps(6)).failure_budget == expected


@pytest.mark.parametrize(("per_zone", "expected"), [(1, 1), ("50%", 2), ("10%", 1), (7, 7)])
def test_a_percentage_of_a_zone_is_of_the_smallest(per_zone: Any, expected: int) -> None:
    fleet = [old(f"a{n}", zone="a") for n in range(12)] + [old(f"b{n}", zone="b") for n in range(4)]
    plan = make_plan(a_spec(FLEET | {"max_unavailable_per_zone": per_zone}), fleet)
    assert plan.phases[0].zone_window == expected


def test_without_a_limit_for_zones_there_is_none() -> None:
    assert make_plan(a_spec(FLEET), apps(2)).phases[0].zone_window is None


def test_inside_a_phase_the_unhealthy_go_first_and_those_that_are_done_last() -> None:
    fleet = [
        done("done"),
        old("healthy"),
        old("unknown", Health.UNKNOWN),
        old("unhealthy", Health.UNHEALTHY),
        old("healthy too"),
    ]
    plan = make_plan(a_spec(FLEET), fleet)
    assert [host.name for host in plan.hosts] == ["unhealthy", "unknown", "healthy", "healthy too", "done"]
    assert [host.position for host in plan.hosts] == [0, 1, 2, 3, 4]


def test_the_canary_is_the_same_host_whatever_its_health() -> None:
    for health in Health:
        plan = make_plan(a_spec(CANARY, FLEET), [old("app1", health), old("app2", Health.UNHEALTHY), old("app3")])
        assert by_phase(plan)[0] == ["app1"]


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (old("app1"), HostStatus.PENDING),
        (done("app1"), HostStatus.CURRENT),
        (done("app1", in_service=False), HostStatus.PENDING),
        (done("app1", confirmed=False), HostStatus.PENDING),
        (replace(done("app1"), health=Health.UNHEALTHY), HostStatus.PENDING),
        (replace(done("app1"), health=Health.UNKNOWN), HostStatus.PENDING),
        (HostFacts("app1", "new"), HostStatus.PENDING),
        (done("app1", reachable=False), HostStatus.UNREACHABLE),
        (old("app1", reachable=False), HostStatus.UNREACHABLE),
    ],
)
def test_only_a_host_that_serves_the_release_for_good_is_left_alone(facts: HostFacts, status: HostStatus) -> None:
    plan = make_plan(a_spec(FLEET), [facts, old("app2")])
    assert {host.name: host.status for host in plan.hosts}["app1"] is status
    assert ("app1" in [host.name for host in plan.pending]) is (status is HostStatus.PENDING)


@pytest.mark.parametrize(
    ("facts", "wanted", "sighting"),
    [
        (done("app1"), "new", Sighting.SETTLED),
        (old("app1"), "new", Sighting.ELSEWHERE),
        (done("app1", confirmed=False), "new", Sighting.BROKEN),
        (done("app1", in_service=False), "new", Sighting.BROKEN),
        (old("app1", Health.UNKNOWN), "new", Sighting.BROKEN),
        (HostFacts("app1", "new"), "new", Sighting.BROKEN),
        (HostFacts("app1", "new"), None, Sighting.SETTLED),
        (done("app1"), None, Sighting.ELSEWHERE),
        (HostFacts("app1", "new", reachable=False), None, Sighting.UNREACHABLE),
        (done("app1", reachable=False), "new", Sighting.UNREACHABLE),
    ],
)
def test_what_is_seen_of_a_host(facts: HostFacts, wanted: str | None, sighting: Sighting) -> None:
    assert facts.sighting(wanted) is sighting
    assert facts.settled_on(wanted) is (sighting is Sighting.SETTLED)


@pytest.mark.parametrize(
    ("phases", "hosts", "complaint"),
    [
        ([FLEET], [], "rollout_target: no host matches: check the group's name and the inventory given with -i"),
        ([FLEET], [old("a"), old("b"), old("a")], "rollout_target: named twice: a"),
        ([{"name": "some", "size": 2}], apps(3), "the last phase 'some' reaches 2 of 3 hosts"),
        ([CANARY, {"name": "some", "size": 2}], apps(6), "the last phase 'some' reaches 2 of 6 hosts"),
        ([{"name": "half", "size": "50%"}, {"name": "two", "size": 2}], apps(6), "'two' reaches 3 of 6 hosts"),
    ],
)
def test_a_fleet_that_cannot_be_planned_is_refused(
    phases: list[dict[str, Any]], hosts: list[HostFacts], complaint: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        make_plan(a_spec(*phases), hosts)
    assert complaint in str(refusal.value)


def test_the_rules_survive_json() -> None:
    plan = make_plan(a_spec(CANARY | {"bake": 5, "approval": True}, FLEET | {"max_unavailable_per_zone": 1}), apps(4))
    assert Plan.from_rules(json.loads(json.dumps(plan.rules()))) == replace(plan, hosts=())


def test_the_digest_is_of_what_will_be_done_not_of_what_runs_now() -> None:
    plan = make_plan(a_spec(CANARY, FLEET), apps(3))
    half_done = make_plan(a_spec(CANARY, FLEET), [done("app1"), old("app2", Health.UNHEALTHY), old("app3")])
    assert plan.digest() == half_done.digest()


@pytest.mark.parametrize(
    "other",
    [
        make_plan(a_spec(CANARY, FLEET, window=2), apps(3)),
        make_plan(a_spec(CANARY, FLEET, budget=1), apps(3)),
        make_plan(a_spec(CANARY, FLEET | {"bake": 1}), apps(3)),
        make_plan(a_spec(FLEET), apps(3)),
        make_plan(a_spec(CANARY, FLEET), apps(4)),
        make_plan(a_spec(CANARY, FLEET), [old("app1"), old("app2"), old("app3", zone="b")]),
        make_plan(a_spec(CANARY, FLEET), [old("app2"), old("app1"), old("app3")]),
        make_plan(a_spec(CANARY, FLEET), [replace(app, target="newer") for app in apps(3)]),
    ],
)
def test_another_plan_has_another_digest(other: Plan) -> None:
    assert make_plan(a_spec(CANARY, FLEET), apps(3)).digest() != other.digest()


@given(
    sizes=st.lists(st.integers(1, 60) | st.integers(1, 99).map("{}%".format), max_size=4),
    health=st.lists(st.sampled_from(list(Health)), min_size=1, max_size=50),
)
def test_every_host_has_one_place_and_no_phase_is_empty(sizes: list[int | str], health: list[Health]) -> None:
    phases = [{"name": f"phase{index}", "size": size} for index, size in enumerate(sizes)]
    try:
        spec = a_spec(*phases, FLEET)
    except SpecError:
        return
    plan = make_plan(spec, [old(f"app{index}", state) for index, state in enumerate(health)])
    assert sorted(host.name for host in plan.hosts) == sorted(f"app{index}" for index in range(len(health)))
    assert [host.position for host in plan.hosts] == list(range(len(health)))
    assert [host.phase for host in plan.hosts] == sorted(host.phase for host in plan.hosts)
    assert [phase.hosts for phase in plan.phases] == [len(names) for names in by_phase(plan)]
    assert all(phase.hosts > 0 for phase in plan.phases)
    before = 0
    for phase in plan.phases:
        names = {f"app{index}" for index in range(before, before + phase.hosts)}
        assert {host.name for host in plan.hosts[before : before + phase.hosts]} == names
        before += phase.hosts


# Two colours

TO_GREEN = Switch("green", "blue", ("b1",))


def coloured(min_available: Any = 0, **of_the_idle_phase: Any) -> RolloutSpec:
    phases = [{"name": "idle", **of_the_idle_phase}, {"name": "live", "bake": 60}]
    parsed = parse_phases(phases, 1, coloured=True)
    return replace(a_spec(FLEET), phases=parsed, min_available=Quantity.parse("min", min_available))


def test_the_idle_colour_moves_and_the_other_one_stands_by() -> None:
    plan = make_switch_plan(coloured(max_unavailable="50%"), apps(4), [old("b1"), old("b2")], TO_GREEN)
    assert by_phase(plan) == [["app1", "app2", "app3", "app4"], ["b1", "b2"]]
    assert (plan.phases[0].window, plan.phases[1].bake, plan.size) == (2, 60, 6)
    assert [host.status for host in plan.hosts if host.phase] == [HostStatus.STANDBY] * 2
    assert {host.to_release for host in plan.hosts if host.phase} == {"old"}
    assert plan.pending == plan.hosts[:4]


def test_a_plan_with_a_switch_survives_the_ledger() -> None:
    plan = make_switch_plan(coloured(), apps(2), [old("b1")], TO_GREEN)
    again = Plan.from_rules(json.loads(json.dumps(plan.rules())))
    assert replace(again, hosts=plan.hosts) == plan


def test_a_colour_has_to_be_able_to_serve_alone() -> None:
    assert make_switch_plan(coloured(2), apps(2), [old("b1"), old("b2")], TO_GREEN).min_available == 2
    assert make_switch_plan(coloured("50%"), apps(1), [old("b1"), old("b2")], TO_GREEN).min_available == 1
    with pytest.raises(SpecError, match="rollout_min_available: 2 is more than the 1 hosts of a colour"):
        make_switch_plan(coloured(2), apps(1), [old("b1"), old("b2")], TO_GREEN)


def test_a_host_of_both_colours_is_refused() -> None:
    with pytest.raises(SpecError, match="named twice: app1"):
        make_switch_plan(coloured(), apps(1), [old("app1")], TO_GREEN)
