# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be so before the first host is touched, and what is said when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import preflight
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading
from ansible_collections.convoy.rollout.plugins.plugin_utils.preflight import Unhealthy

WELL = {"active": "1-a", "health": {"verdict": "pass"}}
ILL = {"active": "1-a", "health": {"verdict": "fail", "message": "probe health answered 500"}}
EMPTY: dict[str, Any] = {"active": None, "health": None}
GONE = {"msg": "no route"}
UNSURE = {"active": "1-a", "health": {"verdict": "error", "message": "no such program"}}


def host(name: str, read: dict[str, Any], in_service: bool | None = None, **more: Any) -> Reading:
    return Reading(name, {**read, **more}, in_service=in_service)


def admit(
    *readings: Reading, policy: Unhealthy = Unhealthy.GO_FIRST, min_up: int = 0, members_up: int | None = None
) -> tuple[list[str], list[str]]:
    kept, said = preflight.admit(readings, policy, min_up, members_up)
    return [reading.name for reading in kept], said


def refusal(*readings: Reading, **rules: Any) -> str:
    with pytest.raises(FleetError) as refused:
        admit(*readings, **rules)
    return str(refused.value)


ALL = (host("a", WELL), host("b", ILL), host("c", EMPTY), host("d", GONE), host("e", UNSURE))


def test_who_is_ill_goes_with_the_others_by_default() -> None:
    assert admit(*ALL) == (["a", "b", "c", "d", "e"], [])


def test_who_is_ill_may_be_left_out_and_nobody_else() -> None:
    kept, said = admit(*ALL, policy=Unhealthy.SKIP)
    assert kept == ["a", "c", "d", "e"]
    assert said == ["b is left out, since it is not healthy: probe health answered 500"]


def test_who_is_ill_may_bar_the_deployment() -> None:
    assert refusal(*ALL, policy=Unhealthy.FAIL) == ("nothing was touched: b is not healthy: probe health answered 500")
    assert admit(host("a", WELL), host("c", EMPTY), policy=Unhealthy.FAIL)[0] == ["a", "c"]


def test_a_fleet_of_which_nobody_is_well_is_not_deployed_to_nobody() -> None:
    assert "no host is healthy, and rollout_unhealthy is skip" in refusal(host("b", ILL), policy=Unhealthy.SKIP)


@pytest.mark.parametrize("policy", list(Unhealthy))
def test_a_dependency_that_is_not_there_bars_the_deployment(policy: Unhealthy) -> None:
    asked = {"verdict": "fail", "message": "probe tcp db:5432 refused the connection"}
    fine = {"verdict": "pass", "message": "1 probe was healthy"}
    readings = [host("a", WELL, dependencies=fine), host("b", WELL, dependencies=asked), host("c", WELL)]
    assert refusal(*readings, policy=policy) == f"nothing was touched: b: {asked['message']}"


@pytest.mark.parametrize(
    ("min_up", "members_up", "others", "admitted"),
    [
        (2, 3, True, True),
        (2, 2, True, False),
        (2, 1, True, False),
        (2, 2, False, True),  # one that is out may go first
        (2, 0, True, True),  # the first deployment
        (2, None, None, True),
        (0, 1, True, True),
    ],
)
def test_the_load_balancer_must_be_able_to_spare_one(
    min_up: int, members_up: int | None, others: bool | None, admitted: bool
) -> None:
    readings = [host("a", WELL, True), host("b", WELL, others)]
    if admitted:
        assert admit(*readings, min_up=min_up, members_up=members_up)[0] == ["a", "b"]
    else:
        said = refusal(*readings, min_up=min_up, members_up=members_up)
        assert f"the load balancer has {members_up} servers up" in said
        assert f"traffic_haproxy_min_up or traffic_nginx_min_up keeps {min_up}" in said
