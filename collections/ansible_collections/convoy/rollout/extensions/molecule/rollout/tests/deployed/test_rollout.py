# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After 1.1.0 was rolled out in three phases of one host."""

from __future__ import annotations

from fleet import Component, FleetRuns

testinfra_hosts = ["ansible://app"]


class TestFleet(FleetRuns):
    version = "1.1.0"


def test_every_hook_ran_in_its_place(component: Component) -> None:
    lines = component.host.file("/var/log/hooks").content_string.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("1.1.0 ")] == [
        "after_stage",
        "before_phase",
        "after_drain",
        "after_activate",
        "after_undrain",
        "after_phase",
    ]
