# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the deployment of 1.6.0, which two hosts took and the third refused."""

from __future__ import annotations

from fleet import Component, FleetRuns

testinfra_hosts = ["ansible://app"]


class TestFleet(FleetRuns):
    version = "1.1.0"


def test_every_host_had_it_and_left_it(component: Component) -> None:
    assert component.events("1.6.0") == ["staged", "activating", "good", "reverting", "reverted"]


def test_the_host_that_refused_it_never_served_with_it(component: Component) -> None:
    hooks = component.host.file("/var/log/hooks").content_string.splitlines()
    assert "1.6.0 after_activate" in hooks
    assert ("1.6.0 after_undrain" in hooks) == (component.name != "app3")
