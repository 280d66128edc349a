# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read from the fleet, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import (
    SKEW_REFUSE,
    SKEW_WARN,
    FleetError,
    Reading,
    doubts,
    known_version,
    last_good,
    objections,
    readings_of,
    skewed,
    targets_of,
    unread,
    version_of,
)

OLD, NEW, NEWER = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb", "1.2.0-cccccccccccc"


def releases(*ids: str) -> list[dict[str, str]]:
    return [{"id": one, "version": one.partition("-")[0], "state": "good"} for one in ids]


def reading(name: str, active: str | None = NEW, last: str | None = OLD, **read: Any) -> Reading:
    """A healthy host that runs ``active`` and has ``last`` as its last good release."""
    known = [one for one in (active, last) if one]
    facts = {"active": active, "last_good": last, "good": known, "releases": releases(*known), **read}
    return Reading(name, facts)


def gone(name: str, msg: str = "Connection timed out") -> Reading:
    return Reading(name, {"unreachable": True, "msg": msg})


# what a reading says


@pytest.mark.parametrize(
    ("read", "reachable", "trouble"),
    [
        ({"active": None}, True, "it was not read"),
        ({}, False, "it was not read"),
        ({"unreachable": True, "msg": "Connection timed out\nand more"}, False, "Connection timed out"),
        ({"failed": True, "msg": " needs root"}, False, "needs root"),
        ({"failed": True}, False, "it was not read"),
        ({"failed": False, "failed_when_result": False, "msg": "needs root"}, False, "needs root"),
        ({"failed": True, "msg": "\n"}, False, "it was not read"),
    ],
)
def test_a_host_that_was_not_read_is_not_reachable(read: dict[str, Any], reachable: bool, trouble: str) -> None:
    assert (Reading("app1", read).reachable, Reading("app1", read).trouble) == (reachable, trouble)


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"verdict": "pass"}, Health.HEALTHY),
        ({"verdict": "fail"}, Health.UNHEALTHY),
        ({"verdict": "inconclusive"}, Health.UNKNOWN),
        ({"verdict": "error"}, Health.UNKNOWN),
        ({}, Health.UNKNOWN),
        (None, Health.UNKNOWN),
    ],
)
def test_only_a_pass_is_healthy(health: Any, expected: Health) -> None:
    assert reading("app1", health=health).health is expected


def test_a_reading_becomes_what_the_coordinator_plans_with() -> None:
    read = {"active": OLD, "health": {"verdict": "pass"}, "unconfirmed": {"release": OLD, "until": 5.0}}
    facts = Reading("app1", read, zone="a", in_service=False).facts(NEW)
    assert (facts.name, facts.target, facts.active, facts.zone) == ("app1", NEW, OLD, "a")
    assert (facts.health, facts.confirmed, facts.in_service, facts.reachable) == (Health.HEALTHY, False, False, True)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_release_whose_tasks_did_not_end_well_is_none_to_stay_with(is_known: bool) -> None:
    unsettled = {"release": OLD, "is_known": is_known}
    facts = Reading("app1", {"active": OLD, "health": {"verdict": "pass"}, "unsettled": unsettled}).facts(OLD)
    assert facts.confirmed is False


def test_hosts_in_doubt_are_named_with_what_to_do() -> None:
    sure = reading("app2", unsettled={"release": NEW, "is_known": True})
    (told,) = doubts([reading("app1", unsettled={"release": NEW, "is_known": False}), sure, reading("app3")])
    assert told.startswith(f"app1: the tasks that put {NEW} in place were begun, and it is not known whether they are")
    assert "-e component_in_doubt=done" in told
    assert "-e component_in_doubt=again" in told


@pytest.mark.parametrize(("in_service", "expected"), [(True, True), (None, True), (False, False)])
def test_a_host_that_no_load_balancer_knows_counts_as_in_service(in_service: bool | None, expected: bool) -> None:
    assert Reading("app1", {"active": OLD}, in_service=in_service).facts(NEW).in_service is expected


def test_readings_come_from_the_hosts_variables() -> None:
    hostvars: dict[str, dict[str, Any]] = {"app1": {"component_read": {"active": OLD}, "zone": 1}, "app2": {}}
    found = readings_of(["app2", "app1"], hostvars, {"app1": False})
    assert found == [Reading("app2", {}, "", None), Reading("app1", {"active": OLD}, "1", False)]


def test_readings_of_hosts_that_were_read_at_once_are_with_every_host() -> None:
    read = {"rollout_reads": {"results": {"app1": {"active": OLD}, "app2": {"active": NEW}}, "left": ["app3"]}}
    hostvars: dict[str, dict[str, Any]] = {
        "app1": {},
        "app2": read,
        "app3": {**read, "component_read": {"active": OLD}},
    }
    assert [one.active for one in readings_of(["app1", "app2", "app3"], hostvars, {})] == [OLD, NEW, OLD]


# where hosts go


def test_a_host_that_cannot_be_read_is_to_run_what_most_others_run() -> None:
    readings = [reading("app1"), gone("app2"), reading("app3"), reading("app4", active=OLD)]
    seen = targets_of(readings, lambda one: NEWER if one.active == NEW else NEW)
    assert [(name, facts.target, facts.reachable) for name, facts in seen.items()] == [
        ("app1", NEWER, True), ("app2", NEWER, False), ("app3", NEWER, True), ("app4", NEW, True),
    ]  # fmt: skip


def test_a_fleet_of_which_no_host_can_be_read_is_refused_with_each_reason() -> None:
    with pytest.raises(FleetError, match="no host could be reached: app1: no route; app2: Connection timed out"):
        targets_of([gone("app1", "no route"), gone("app2")], lambda _: NEW)


def test_the_list_of_reasons_stays_readable() -> None:
    with pytest.raises(FleetError) as refused:
        targets_of([gone(f"app{n}") for n in range(40)], lambda _: NEW)
    assert str(refused.value).endswith("app4: Connection timed out; and 35 more")


def test_everyone_goes_back_to_the_last_good_release_of_what_most_run() -> None:
    readings = [reading("app1"), reading("app2"), reading("app3", active=NEWER, last=NEW), gone("app4")]
    readings[2] = reading("app3", active=NEWER, last=NEW, releases=releases(NEWER, NEW, OLD), good=[NEWER, NEW, OLD])
    target = last_good(readings)
    assert [target(one) for one in readings[:3]] == [OLD, OLD, OLD]


def test_a_host_that_is_back_already_stays() -> None:
    readings = [reading("app1"), reading("app2"), reading("app3", active=OLD, last=None)]
    assert last_good(readings)(readings[2]) == OLD


@pytest.mark.parametrize(
    "readings",
    [
        [reading("app1", last=None), reading("app2", last=None)],
        [reading("app1", active=None, last=None)],
        [gone("app1")],
        [],
    ],
)
def test_nothing_to_go_back_to_is_said(readings: list[Reading]) -> None:
    with pytest.raises(FleetError, match=r"no good release to roll back to.*-e component_version="):
        last_good(readings)


def test_the_newest_good_release_of_a_version_is_taken() -> None:
    older = "1.0.0-dddddddddddd"
    one = reading("app1", active=NEW, releases=releases(older, OLD, NEW), good=[NEW, OLD, older])
    assert known_version("1.0.0")(one) == OLD
    assert known_version("1.1.0")(one) == NEW


def test_a_release_that_turned_out_bad_is_not_gone_back_to() -> None:
    one = reading("app1", active=OLD, releases=releases(OLD, NEW), good=[OLD])
    with pytest.raises(FleetError, match=r"app1 has no good release of version 1\.1\.0: it has 1\.0\.0; 1\.1\.0"):
        known_version("1.1.0")(one)


def test_a_host_without_the_version_is_named_with_what_it_has() -> None:
    with pytest.raises(FleetError, match=r"app1 has no good release of version 9: it has 1\.0\.0; 1\.1\.0\. Deploy 9"):
        known_version("9")(reading("app1"))


def test_the_version_of_a_rollback_is_that_of_most_hosts() -> None:
    readings = [reading("app1"), reading("app2"), reading("app3")]
    seen = targets_of(readings, lambda one: NEW if one.name == "app1" else OLD)
    assert version_of(readings, seen) == "1.0.0"


# what stands in the way


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (
            {"obstacle": "/srv/hello/current is not a symbolic link: mv it"},
            "app1: /srv/hello/current is not a symbolic",
        ),
        ({"free_bytes": 1_000_000}, "app1: 1 MB are free, 3 MB are needed"),
        ({"clock_skew": 301.0}, "app1: its clock is +301 s off, 300 s are the limit"),
        ({"clock_skew": -301.0}, "app1: its clock is -301 s off"),
    ],
)
def test_a_host_that_cannot_take_the_release_is_named_with_the_reason(read: dict[str, Any], complaint: str) -> None:
    found = objections([reading("app1", **read), reading("app2")], need_bytes=3_000_000)
    assert [one[: len(complaint)] for one in found] == [complaint]


@pytest.mark.parametrize(
    "read",
    [
        {},
        {"obstacle": None, "free_bytes": 3_000_000, "clock_skew": SKEW_REFUSE},
        {"problems": ["hello.service: it is failed", "the activation of 1.1.0 did not end"]},
        {"health": {"verdict": "fail"}},
    ],
)
def test_what_a_release_mends_does_not_bar_it(read: dict[str, Any]) -> None:
    assert objections([reading("app1", **read)], need_bytes=3_000_000) == []


def test_a_host_that_runs_another_kind_is_named() -> None:
    runs = [reading("app1", kind="package"), reading("app2", kind="archive"), reading("app3", kind=None)]
    assert objections(runs, 0, kind="archive") == [
        "app1: it runs the component as package, component_kind is archive: give the new one another component_name, "
        "and take the old one away yourself"
    ]
    assert objections(runs, 0) == []


def test_a_host_that_has_two_names_bars_the_rollout() -> None:
    readings = [reading("app1", place="b:1:2:."), reading("app2", place="b:1:3:."), reading("web1", place="b:1:2:.")]
    assert objections(readings, need_bytes=0) == [
        "app1 and web1 are the same host: keep one of the names in the inventory"
    ]


def test_a_host_that_limit_leaves_out_bars_the_rollout() -> None:
    found = objections([reading("app1"), Reading("app2", {})], need_bytes=0)
    assert [one.partition(":")[0] for one in found] == ["app2"]
    assert "If --limit leaves it out, choose hosts with -e rollout_target=..." in found[0]


def test_a_host_that_could_not_be_read_is_told_with_the_reason() -> None:
    readings = [reading("app1"), gone("app2"), Reading("app3", {"failed": True, "msg": "needs root"})]
    assert unread(readings) == ["app2 cannot be read: Connection timed out", "app3 cannot be read: needs root"]
    assert objections(readings, need_bytes=0) == []


def test_of_an_unreachable_host_nothing_is_known() -> None:
    unreachable = Reading("app1", {"unreachable": True, "clock_skew": 900.0, "free_bytes": 0})
    assert objections([unreachable], need_bytes=1) == []
    assert skewed([unreachable]) == []


@pytest.mark.parametrize(("skew", "said"), [(0.0, False), (SKEW_WARN, False), (31.0, True), (-31.0, True)])
def test_a_clock_that_is_off_is_said(skew: float, said: bool) -> None:
    assert skewed([reading("app1", clock_skew=skew)]) == ([f"app1: its clock is {skew:+.0f} s off"] if said else [])


# what always holds

HOSTS = st.lists(
    st.tuples(st.sampled_from([OLD, NEW, NEWER, None]), st.sampled_from([OLD, NEW, None]), st.booleans()),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        reading(f"app{n}", active, last) if reachable else gone(f"app{n}")
        for n, (active, last, reachable) in enumerate(rows)
    ]
)


@given(HOSTS)
def test_every_host_has_a_target_or_the_fleet_is_refused(readings: list[Reading]) -> None:
    try:
        seen = targets_of(readings, last_good(readings))
    except FleetError:
        return
    assert list(seen) == [one.name for one in readings]
    assert len({facts.target.partition("-")[0] for facts in seen.values()}) == 1


@given(HOSTS)
def test_a_rollback_goes_only_where_a_host_was_good(readings: list[Reading]) -> None:
    try:
        seen = targets_of(readings, last_good(readings))
    except FleetError:
        return
    for one in readings:
        if one.reachable:
            assert seen[one.name].target in one.read["good"]
