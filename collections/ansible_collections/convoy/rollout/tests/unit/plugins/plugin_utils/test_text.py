# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said to people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils import text
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    Health,
    HostFacts,
    Plan,
    Switch,
    make_plan,
    make_switch_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    HostStatus,
    RolloutState,
    Status,
    Traffic,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HostRow, RolloutView

OLD, NEW = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb"
PHASES = [{"name": "canary", "size": 1, "bake": 30}, {"name": "fleet", "size": "100%", "approval": True}]
AT = 1767604500.0


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are told in the controller's zone; here it is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def plan(hosts: list[HostFacts], phases: Any = None) -> Plan:
    spec = RolloutSpec(
        parse_phases(PHASES if phases is None else phases, 2),
        FailureBudget(Quantity(1)),
        Quantity(50, percent=True),
        600,
    )
    return make_plan(spec, hosts)


def row(name: str, status: HostStatus, why: str = "", old: str | None = OLD) -> HostRow:
    return HostRow(
        name=name, position=0, phase=0, zone="", from_release=old, to_release=NEW, status=status, why=why, updated_at=AT
    )


def view(status: Status, *hosts: HostRow, reason: str = "") -> RolloutView:
    facts = {"kind": "deploy", "component": "hello", "version": "1.1.0", "environment": "staging"}
    return RolloutView(
        id="20260105-091500-3fa2",
        opened_at=AT,
        status=status,
        facts=facts,
        plan=plan([HostFacts("app1", NEW)]),
        state=RolloutState(status=status, reason=reason),
        hosts=hosts,
        head=(7, "hash"),
        token=7,
        holder=None,
    )


# tables


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert text.table([("host", "release", "differs"), ("app1", NEW, ""), ("app10", "?", "unreachable")]) == [
        "host   release             differs",
        "app1   1.1.0-bbbbbbbbbbbb",
        "app10  ?                   unreachable",
    ]


@given(st.lists(st.tuples(*[st.text("abc", max_size=6)] * 3), min_size=1, max_size=6))
def test_every_column_that_is_not_empty_begins_at_one_place(rows: list[tuple[str, str, str]]) -> None:
    lines = text.table(rows)
    start = 0
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        if width:
            assert [line[start : start + width].rstrip() for line in lines] == list(column)
            assert {line[start + width : start + width + 2].strip() for line in lines} == {""}
            start += width + 2


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=200))
def test_a_list_of_hosts_stays_short_and_counts_all_of_them(hosts: list[str]) -> None:
    told = text.names(hosts)
    listed, _separator, more = told.partition(" and ")
    named = listed.split(", ") if listed else []
    assert len(named) <= 12
    assert len(named) + int(more.removesuffix(" more") or 0) == len(hosts)


# the plan


def test_the_plan_says_for_each_phase_who_goes_from_where_to_where() -> None:
    hosts = [
        HostFacts("app1", NEW, OLD, "a"),
        HostFacts("app2", NEW, None, "b"),
        HostFacts("app3", NEW, OLD, "a", reachable=False),
    ]
    assert text.plan_lines(plan(hosts), {"app2": "12 MB to fetch"}) == [
        "phase canary: 1 host, at most 2 at once, then 30 s of baking",
        f"  app1  zone a  {OLD} -> {NEW}",
        "phase fleet: 2 hosts, at most 2 at once, after an approval",
        f"  app2  zone b  nothing -> {NEW}  12 MB to fetch",
        "  app3  zone a  unreachable",
        "failure budget: 1 of 3 hosts",
    ]


def test_the_plan_says_how_many_of_a_zone_may_go() -> None:
    phases = [{"name": "fleet", "size": "100%", "max_unavailable_per_zone": 1}]
    first = text.plan_lines(plan([HostFacts("app1", NEW)], phases), {})[0]
    assert first == "phase fleet: 1 host, at most 2 at once, 1 of a zone"


# the end of a rollout


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (HostStatus.SUCCEEDED, NEW),
        (HostStatus.CURRENT, NEW),
        (HostStatus.PENDING, OLD),
        (HostStatus.REVERTED, OLD),
        (HostStatus.RETURNED, OLD),
        (HostStatus.UNREACHABLE, OLD),
        (HostStatus.UNSTAGED, OLD),
        (HostStatus.FAILED, "unknown"),
        (HostStatus.LOST, "unknown"),
        (HostStatus.STUCK, "unknown"),
        (HostStatus.ADMITTED, "unknown"),
        (HostStatus.RETURNING, "unknown"),
    ],
)
def test_what_a_host_runs_at_the_end_is_said_only_where_it_is_known(status: HostStatus, expected: str) -> None:
    assert text.final_release(row("app1", status)) == expected


def test_every_status_of_a_host_has_its_final_release() -> None:
    assert {text.final_release(row("app1", status)) for status in HostStatus} == {OLD, NEW, "unknown"}


def test_a_success_ends_with_who_runs_what() -> None:
    done = view(Status.SUCCEEDED, row("app1", HostStatus.SUCCEEDED), row("app2", HostStatus.CURRENT))
    assert text.outcome_lines(done, "") == [
        "deploy of hello 1.1.0 in staging: succeeded (rollout 20260105-091500-3fa2)",
        f"{NEW}: app1, app2",
    ]


def test_a_failure_names_the_host_and_the_reason_and_what_to_do_next() -> None:
    probe = "probe http http://127.0.0.1:8080/healthz answered 500 (expected 200)"
    ended = view(
        Status.REVERTED,
        row("app1", HostStatus.REVERTED, probe),
        row("app2", HostStatus.PENDING),
        row("app3", HostStatus.PENDING, old=None),
        row("app4", HostStatus.LOST),
        reason="1 failed, more than the failure budget of 0",
    )
    assert text.outcome_lines(ended, "ansible-playbook status.yml -i staging") == [
        "deploy of hello 1.1.0 in staging: reverted (rollout 20260105-091500-3fa2)",
        "why: 1 failed, more than the failure budget of 0",
        f"  app1 reverted: {probe}",
        "  app4 lost: no reason was reported",
        f"{OLD}: app1, app2",
        "nothing: app3",
        "unknown: app4",
        "next: ansible-playbook status.yml -i staging",
    ]


# the status of a fleet


def reading(name: str, in_service: bool | None = True, **read: Any) -> Reading:
    return Reading(name, {"active": NEW, "health": {"verdict": "pass"}, **read}, in_service=in_service)


@pytest.mark.usefixtures("utc")
def test_the_status_tells_each_host_and_the_newest_rollout() -> None:
    readings = [
        reading("app1", active_since=AT),
        reading("app2", in_service=False, active=OLD, health={"verdict": "fail"}),
        reading("app3", in_service=None, active=None, health=None),
        Reading("app4", {"unreachable": True, "msg": "no route"}),
    ]
    done = view(Status.SUCCEEDED, row("app1", HostStatus.SUCCEEDED))
    assert text.status_lines(readings, {"app1": NEW, "app2": NEW}, done) == [
        "host  release             since                health       traffic  differs",
        f"app1  {NEW}  2026-01-05 09:15:00  pass         in",
        f"app2  {OLD}                       fail         out      the ledger says {NEW}",
        "app3  nothing                                  not asked    -",
        "app4  ?                                        unreachable           no route",
        "last rollout: 20260105-091500-3fa2, deploy of 1.1.0, 2026-01-05 09:15:00: succeeded",
    ]


@pytest.mark.usefixtures("utc")
def test_the_status_says_that_a_rollout_is_open() -> None:
    assert text.status_lines([reading("app1")], {}, view(Status.ROLLING))[-1].endswith("09:15:00: rolling, open")


def test_the_status_says_that_nothing_was_recorded() -> None:
    assert text.status_lines([reading("app1")], {}, None)[-1] == "no rollout has been recorded yet"


@pytest.mark.parametrize(
    ("read", "expected", "differs"),
    [
        ({}, None, []),
        ({}, NEW, []),
        ({}, "unknown", []),
        ({}, OLD, [f"the ledger says {OLD}"]),
        ({"active": None}, OLD, [f"the ledger says {OLD}"]),
        ({"problems": ["hello.service: it is failed"]}, NEW, ["hello.service: it is failed"]),
        ({"unconfirmed": {"release": NEW, "until": AT}}, NEW, ["not confirmed yet"]),
    ],
)
def test_what_differs_from_the_ledger_and_the_journal(read: Any, expected: str | None, differs: list[str]) -> None:
    assert text.differences(reading("app1", **read), expected) == differs


# two colours


def coloured() -> Plan:
    phases = parse_phases([{"name": "idle"}, {"name": "live", "bake": 60, "approval": True}], 1, coloured=True)
    spec = RolloutSpec(phases, FailureBudget(Quantity(0)), Quantity(1), 600, min_available=Quantity(1))
    blue = [HostFacts("b1", OLD, OLD, health=Health.HEALTHY)]
    return make_switch_plan(spec, [HostFacts("g1", NEW, OLD)], blue, Switch("green", "blue", ("b1",)))


def test_a_plan_with_two_colours_says_what_is_switched() -> None:
    assert text.plan_lines(coloured(), {}) == [
        "phase idle: 1 host, at most 1 at once",
        f"  g1  {OLD} -> {NEW}",
        "phase live: after an approval the load balancers are switched to green at once, then 60 s of baking with "
        "traffic; blue stays as it is, on standby",
        "failure budget: 0 of 1 hosts",
        "at least 1 hosts serve at any time",
    ]


@pytest.mark.parametrize(
    ("traffic", "told"),
    [
        (Traffic.NEW, "live: green; blue is on standby"),
        (Traffic.OLD, "live: blue; green is on standby"),
        (Traffic.BETWEEN, "the load balancers stand between blue and green: see status.yml"),
    ],
)
def test_the_end_says_which_colour_is_live(traffic: Traffic, told: str) -> None:
    rows = (row("g1", HostStatus.SUCCEEDED), replace(row("b1", HostStatus.STANDBY), phase=1, to_release=OLD))
    ended = view(Status.FAILED, *rows)
    ended = replace(ended, plan=coloured(), state=replace(ended.state, traffic=traffic))
    assert text.outcome_lines(ended, "")[1:] == [f"{NEW}: g1", f"{OLD}: b1", told]
