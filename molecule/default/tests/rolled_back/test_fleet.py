# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a rollback from 1.1.0: to the last good release, which is not the one that was tried last."""

from __future__ import annotations

from fleet import Component, FleetRuns

testinfra_hosts = ["ansible://app"]


class TestFleet(FleetRuns):
    version = "1.0.0"


def test_what_was_left_is_no_target_of_a_rollback(component: Component) -> None:
    assert component.events("1.1.0")[-1] == "reverted"
