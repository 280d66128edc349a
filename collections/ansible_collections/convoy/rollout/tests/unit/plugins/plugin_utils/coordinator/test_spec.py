# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users may write for phases, windows and budgets, and what they are told when it cannot be."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    OnFailure,
    PhaseSpec,
    Quantity,
    SpecError,
    nearest,
    parse_choice,
    parse_colours,
    parse_flag,
    parse_phases,
    parse_seconds,
)

FLEET = {"name": "fleet", "size": "100%"}


@pytest.mark.parametrize(
    ("value", "quantity"),
    [
        (5, Quantity(5)),
        (0, Quantity(0)),
        ("5", Quantity(5)),
        (" 25% ", Quantity(25, percent=True)),
        ("0%", Quantity(0, percent=True)),
        ("100%", Quantity(100, percent=True)),
    ],
)
def test_a_number_of_hosts_is_a_count_or_a_percentage(value: Any, quantity: Quantity) -> None:
    assert Quantity.parse("field", value) == quantity


@pytest.mark.parametrize(
    ("value", "least", "complaint"),
    [
        ("101%", 0, "'101%' is out of range: a percentage is at most 100%"),
        (0, 1, "0 is out of range: at least 1 is needed"),
        ("0%", 1, "'0%' is out of range: at least 1 is needed"),
        (-1, 0, "-1 is no number of hosts"),
        ("-5%", 0, "'-5%' is no number of hosts"),
        (True, 0, "True is no number of hosts"),
        (1.5, 0, "1.5 is no number of hosts"),
        ("12.5%", 0, "'12.5%' is no number of hosts"),
        ("five", 0, "'five' is no number of hosts"),
        ("5 %", 0, "'5 %' is no number of hosts"),
        ("%", 0, "'%' is no number of hosts"),
        ("", 0, "'' is no number of hosts"),
        (None, 0, "None is no number of hosts"),
        ([5], 0, "[5] is no number of hosts"),
        ("9" * 5000, 0, "is no number of hosts"),
    ],
)
def test_a_bad_number_of_hosts_names_field_value_and_rule(value: Any, least: int, complaint: str) -> None:
    with pytest.raises(SpecError) as refusal:
        Quantity.parse("rollout_max_unavailable", value, least)
    assert str(refusal.value).startswith("rollout_max_unavailable: ")
    assert complaint in str(refusal.value)
    assert refusal.value.reason == "spec"


@pytest.mark.parametrize(
    ("quantity", "total", "down", "up"),
    [
        (Quantity(25, percent=True), 6, 1, 2),
        (Quantity(25, percent=True), 8, 2, 2),
        (Quantity(10, percent=True), 6, 0, 1),
        (Quantity(100, percent=True), 7, 7, 7),
        (Quantity(29, percent=True), 100, 29, 29),
        (Quantity(0, percent=True), 7, 0, 0),
        (Quantity(3), 100, 3, 3),
        (Quantity(9), 6, 9, 9),
    ],
)
def test_what_limits_harm_rounds_down_and_phases_round_up(quantity: Quantity, total: int, down: int, up: int) -> None:
    assert (quantity.down(total), quantity.up(total)) == (down, up)


@given(percent=st.integers(0, 100), total=st.integers(0, 10_000))
def test_rounding_never_crosses_the_percentage(percent: int, total: int) -> None:
    quantity = Quantity(percent, percent=True)
    assert quantity.down(total) * 100 <= percent * total <= quantity.up(total) * 100
    assert quantity.up(total) - quantity.down(total) <= 1


def test_a_quantity_reads_as_it_was_written() -> None:
    assert [str(Quantity.parse("field", value)) for value in (5, "25%")] == ["5", "25%"]


def test_a_whole_phase() -> None:
    raw = {
        "name": "canary",
        "size": 1,
        "max_unavailable": "10%",
        "max_unavailable_per_zone": 1,
        "bake": "30",
        "approval": "yes",
    }
    canary, fleet = parse_phases([raw, FLEET], 3)
    assert canary == PhaseSpec("canary", Quantity(1), Quantity(10, percent=True), Quantity(1), 30.0, approval=True)
    assert fleet == PhaseSpec("fleet", Quantity(100, percent=True), Quantity(3))


def test_a_name_may_be_a_number() -> None:
    (phase,) = parse_phases([{"name": 1, "size": "100%"}], 1)
    assert phase.name == "1"


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (None, "rollout_phases: None is no list of phases"),
        ([], "rollout_phases: [] is no list of phases"),
        ("canari", "rollout_phases: unknown preset 'canari': did you mean 'canary'?"),
        ({"name": "canary"}, "is no list of phases"),
        (["canary"], "rollout_phases[0]: 'canary' is no phase: write it as a mapping with name and size"),
        ([{"size": 1}], "rollout_phases[0]: 'name' is missing"),
        ([{"name": "canary"}], "rollout_phases[0]: 'size' is missing"),
        ([FLEET | {"sise": 1}], "rollout_phases[0]: unknown key 'sise': did you mean 'size'?"),
        ([FLEET | {"max_unavailible": 1}], "unknown key 'max_unavailible': did you mean 'max_unavailable'?"),
        ([FLEET | {"x": 1}], "unknown key 'x': known are approval, bake, gates, max_unavailable, max_unava"),
        ([FLEET | {1: 1}], "unknown key 1: known are"),
        ([FLEET | {"gates": "errors"}], "rollout_phases[0].gates: 'errors' is no list of gates"),
        ([FLEET | {"gates": ["errors", "errors"]}], "rollout_phases[0].gates: errors, errors: a gate is named twice"),
        ([FLEET | {"gates": [None]}], "rollout_phases[0].gates[0]: None is no name"),
        ([FLEET | {"name": ""}], "rollout_phases[0].name: '' is no name"),
        ([FLEET | {"name": None}], "rollout_phases[0].name: None is no name"),
        ([FLEET | {"name": True}], "rollout_phases[0].name: True is no name"),
        ([FLEET | {"name": ["a"]}], "rollout_phases[0].name: ['a'] is no name"),
        ([FLEET | {"size": 0}], "rollout_phases[0].size: 0 is out of range: at least 1 is needed"),
        ([FLEET | {"size": "101%"}], "rollout_phases[0].size: '101%' is out of range"),
        ([FLEET | {"max_unavailable": 0}], "rollout_phases[0].max_unavailable: 0 is out of range"),
        (
            [FLEET | {"max_unavailable_per_zone": "0%"}],
            "rollout_phases[0].max_unavailable_per_zone: '0%' is out of range",
        ),
        ([FLEET | {"bake": -1}], "rollout_phases[0].bake: -1 is no time: write seconds, at least 0"),
        ([FLEET | {"bake": "soon"}], "rollout_phases[0].bake: 'soon' is no time"),
        ([FLEET | {"approval": "maybe"}], "rollout_phases[0].approval: 'maybe' is neither true nor false"),
        ([FLEET | {"approval": None}], "rollout_phases[0].approval: None is neither true nor false"),
        ([{"name": "a", "size": 1}, {"name": "a", "size": "100%"}], "the name 'a' is used twice"),
        ([{"name": "half", "size": "50%"}], "the last phase 'half' reaches 50% of the fleet"),
        (
            [{"name": "a", "size": "25%"}, {"name": "b", "size": "25%"}, FLEET],
            "phase 'b' reaches 25% of the fleet, 'a' before it 25%: sizes are cumulative",
        ),
        (
            [{"name": "a", "size": 5}, {"name": "b", "size": 2}, FLEET],
            "phase 'b' reaches 2 of the fleet, 'a' before it 5",
        ),
    ],
)
def test_bad_phases_are_refused(raw: Any, complaint: str) -> None:
    with pytest.raises(SpecError) as refusal:
        parse_phases(raw, 1)
    assert complaint in str(refusal.value)


def test_a_bad_default_window_is_refused() -> None:
    with pytest.raises(SpecError, match=r"rollout_phases\[0\]\.max_unavailable: '200%' is out of range"):
        parse_phases([FLEET], "200%")


@pytest.mark.parametrize(("value", "seconds"), [(0, 0.0), (1.5, 1.5), ("30", 30.0), ("1e2", 100.0)])
def test_seconds(value: Any, seconds: float) -> None:
    assert parse_seconds("field", value) == seconds


@pytest.mark.parametrize("value", [True, None, "", "10s", "nan", "inf", float("nan"), float("inf"), -1, [], {}])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^rollout_lease: .* is no time: write seconds, at least 0$"):
        parse_seconds("rollout_lease", value)


def test_a_time_that_is_too_short_is_refused() -> None:
    with pytest.raises(SpecError, match="0 is no time: write seconds, at least 1"):
        parse_seconds("rollout_lease", 0, least=1)


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), ("true", True), ("Yes", True), (1, True), (False, False), ("no", False), ("0", False), (0, False)],
)
def test_flags_as_yaml_and_surveys_write_them(value: Any, flag: bool) -> None:
    assert parse_flag("field", value) is flag


@pytest.mark.parametrize("value", [None, "", "maybe", 2, 1.0, []])
def test_what_is_no_flag_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="is neither true nor false"):
        parse_flag("field", value)


def test_the_nearest_word_or_all_of_them() -> None:
    assert nearest("nmae", ["size", "name"]) == "did you mean 'name'?"
    assert nearest("zzz", ["size", "name"]) == "known are name, size"


# Two colours

HOSTS = ["a1", "a2", "b1", "b2"]
GROUPS = {"all": HOSTS, "app_blue": ["a1", "a2"], "app_green": ["b2", "b1"], "half": ["a2", "b1"], "none": []}


def test_colours_are_in_the_order_of_the_targets() -> None:
    found = parse_colours({"blue": "app_blue", "green": "app_green"}, GROUPS, HOSTS)
    assert found == {"blue": ["a1", "a2"], "green": ["b1", "b2"]}


@pytest.mark.parametrize("raw", [None, {}])
def test_no_colours(raw: Any) -> None:
    assert parse_colours(raw, GROUPS, HOSTS) == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("app_blue", "rollout_colours: 'app_blue' is no mapping: name two groups"),
        ({"blue": "app_blue"}, "rollout_colours: 'green' is missing: name the inventory group of each colour"),
        ({"blue": "app_blue", "gren": "x"}, "rollout_colours: unknown colour 'gren': did you mean 'green'?"),
        (
            {"blue": "app_bleu", "green": "app_green"},
            "rollout_colours.blue: there is no group 'app_bleu': did you mean",
        ),
        ({"blue": "app_blue", "green": ["b1"]}, "rollout_colours.green: there is no group"),
        ({"blue": "app_blue", "green": "none"}, "rollout_colours.green: the group 'none' has no host"),
        ({"blue": "app_blue", "green": "half"}, "rollout_colours: a2 in both groups: each host has one colour"),
        ({"blue": "app_blue", "green": "app_blue"}, "rollout_colours: a1, a2 in both groups"),
    ],
)
def test_colours_that_are_refused(raw: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_colours(raw, GROUPS, HOSTS)


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (["a1", "a2", "b1", "b2", "c"], "c in rollout_target, but in neither group"),
        (["a1", "a2", "b1"], "b2 in a group, but not in rollout_target"),
    ],
)
def test_both_colours_are_all_the_targets(hosts: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_colours({"blue": "app_blue", "green": "app_green"}, GROUPS, hosts)


def test_the_phases_of_two_colours() -> None:
    idle, live = parse_phases("blue_green", "25%", coloured=True)
    assert (idle.name, idle.size, idle.max_unavailable) == ("idle", Quantity(100, True), Quantity(100, True))
    assert (live.name, live.bake) == ("live", 60)
    own = [{"name": "warm", "max_unavailable": 1, "bake": 5}, {"name": "serve", "approval": True}]
    warm, serve = parse_phases(own, "25%", coloured=True)
    assert (warm.max_unavailable, warm.bake, serve.approval) == (Quantity(1), 5, True)


@pytest.mark.parametrize(
    ("raw", "coloured", "message"),
    [
        ("blue_green", False, "rollout_colours: it is not set, and the preset 'blue_green' needs it"),
        ("canary", True, "rollout_phases: 3 phases do not go with rollout_colours: write blue_green, or a list of two"),
        ([{"name": "a"}, {"name": "a"}], True, "the name 'a' is used twice"),
        ([{"name": "a", "size": 1}, {"name": "b"}], True, "phase 'a' has size 1: with rollout_colours a phase is of a"),
        ([{"name": "a"}, "b"], True, "rollout_phases[1]: 'b' is no phase"),
    ],
)
def test_phases_of_two_colours_that_are_refused(raw: Any, coloured: bool, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_phases(raw, 1, coloured=coloured)


def test_the_gates_of_a_phase_keep_their_order() -> None:
    phases = parse_phases([{"name": "canary", "size": 1, "gates": ["latency", "errors"]}, FLEET], 1)
    assert [phase.gates for phase in phases] == [("latency", "errors"), ()]


def test_a_word_that_is_none_of_the_known_ones_is_told_the_nearest() -> None:
    with pytest.raises(SpecError) as refused:
        parse_choice("rollout_on_failure", "turnback", OnFailure)
    assert str(refused.value) == "rollout_on_failure: unknown value 'turnback': did you mean 'turn_back'?"
