# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the deployment of 1.2.0, whose health check answers 500, has failed: as if nothing had been."""

from __future__ import annotations

from fleet import Component, FleetRuns

testinfra_hosts = ["ansible://app"]


class TestFleet(FleetRuns):
    version = "1.1.0"


def test_only_the_canary_took_the_bad_release(component: Component) -> None:
    tried = ["staged", "activating", "reverting", "bad"]
    assert component.events("1.2.0") == (tried if component.name == "app1" else ["staged"])


def test_the_canary_knows_why(component: Component) -> None:
    reasons = [entry["reason"] for entry in component.journal if entry["event"] == "bad"]
    if component.name == "app1":
        assert "answered 500 (expected 200)" in reasons[-1]
    else:
        assert reasons == []
