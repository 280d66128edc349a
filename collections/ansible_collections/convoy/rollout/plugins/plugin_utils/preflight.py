# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be so before the first host is touched, besides room and time. Pure.

It concerns going forward only: nothing here may keep a rollback or a rollout that is open already from its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading


class Unhealthy(StrEnum):
    """What becomes of a host that is not healthy before it is touched."""

    GO_FIRST = "go_first"  # a new release may be what mends it
    SKIP = "skip"  # it is left out of the rollout
    FAIL = "fail"  # nothing is deployed


def admit(
    readings: Sequence[Reading], policy: Unhealthy, min_up: int, members_up: int | None
) -> tuple[list[Reading], list[str]]:
    """The hosts that take part, and what to say of the others. Raises FleetError where nothing may be touched.

    ``min_up`` other servers have to be up for a host to be drained; ``members_up`` are (None: no load balancer).
    """
    ill = [reading for reading in readings if _is_ill(reading)]
    problems = [*dependencies(readings), *_too_few(readings, min_up, members_up)]
    if policy is Unhealthy.FAIL:
        problems += [f"{reading.name} is not healthy: {_why(reading)}" for reading in ill]
    if problems:
        raise FleetError("nothing was touched: " + "; ".join(problems))
    if policy is not Unhealthy.SKIP:
        return list(readings), []
    well = [reading for reading in readings if reading not in ill]
    if not well:
        raise FleetError(
            "nothing was touched: no host is healthy, and rollout_unhealthy is skip: mend them, or deploy with "
            "-e rollout_unhealthy=go_first"
        )
    return well, [f"{reading.name} is left out, since it is not healthy: {_why(reading)}" for reading in ill]


def dependencies(readings: Sequence[Reading]) -> list[str]:
    """What hosts need and do not find."""
    found = ((reading.name, reading.read.get("dependencies")) for reading in readings if reading.reachable)
    return [f"{name}: {asked['message']}" for name, asked in found if asked and asked["verdict"] != "pass"]


def _is_ill(reading: Reading) -> bool:
    """Whether a release runs there, and its probes say that it is not well."""
    return reading.reachable and reading.active is not None and reading.health is Health.UNHEALTHY


def _why(reading: Reading) -> str:
    asked: Mapping[str, Any] = reading.read.get("health") or {}
    return str(asked.get("message") or "its probes failed")


def _too_few(readings: Sequence[Reading], min_up: int, members_up: int | None) -> list[str]:
    """Whether no host could be drained. One that is out already may go, and be a further one that is up then."""
    anybody_out = any(reading.in_service is False for reading in readings)
    if not min_up or not members_up or anybody_out or members_up > min_up:
        return []
    return [
        f"the load balancer has {members_up} servers up, and traffic_haproxy_min_up or traffic_nginx_min_up keeps "
        f"{min_up} of them besides the one that is taken out: add servers, or lower it"
    ]
