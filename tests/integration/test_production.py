# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Production's policy, with its zones, over the hosts of the lab: only the bakes are shorter."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .environment import TOP, Environment


@pytest.fixture
def phases() -> list[dict[str, Any]]:
    """Production's own phases."""
    policy = yaml.safe_load((TOP / "inventories/production/group_vars/all/environment.yml").read_text())
    return [{**phase, "bake": 1} if "bake" in phase else phase for phase in policy["rollout_phases"]]


def test_zones_are_kept_apart(on_1_0_0: Environment, phases: list[dict[str, Any]]) -> None:
    assert phases[-1]["max_unavailable_per_zone"] == 1
    with on_1_0_0.watched() as watched:
        ended = on_1_0_0.deploy("1.1.0", rollout_phases=phases)
    assert ended.rc == 0, ended.said
    on_1_0_0.see("1.1.0")
    assert watched.broken == []
    zones = {str(known["zone"]) for host, known in on_1_0_0.fleet.variables.items() if host in on_1_0_0.hosts}
    assert len(zones) == 3
    for zone in zones:
        members = {host for host in on_1_0_0.hosts if on_1_0_0.fleet.variables[host]["zone"] == zone}
        assert watched.most_out(members) == 1
    assert 2 <= watched.most_out() <= phases[-1]["max_unavailable"]
