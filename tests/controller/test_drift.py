# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""drift.yml tells drift from what cannot be told by its exit code, and makes nothing that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run

from .conftest import AWAY, Site

DRIFTED, CANNOT_TELL = 2, 4
RELEASE = "1.0.0-aaaaaaaaaaaa"


def open_deployment(site: Site, release: str) -> None:
    """A run elsewhere opened a deployment."""
    rollouts = site.rollouts()
    phases = parse_phases([{"name": "all", "size": "100%"}], 1)
    spec = RolloutSpec(phases, FailureBudget(Quantity(0)), Quantity(1), lease=60.0)
    seen = {name: HostFacts(name, release) for name in site.hosts}
    facts = {"kind": "deploy", "component": "hello", "version": "1.0.0", "environment": "tiny"}
    run = Run("elsewhere/boot", 1, 1, "anna")
    rollouts.open(make_plan(spec, list(seen.values())), seen, facts, run, lambda _run: True, "r1", 60)


def test_without_a_ledger_nothing_can_be_told(site: Site) -> None:
    told = site.run("drift.yml")
    assert told.rc == CANNOT_TELL, told.said
    assert "there is no ledger" in told.said
    assert not (site.directory / "ledger.db").exists()


def test_hosts_that_nothing_was_deployed_to(site: Site) -> None:
    site.ledger()
    path = site.directory / "drift.json"
    told = site.run("drift.yml", "-e", f"drift_json={path}")
    assert told.rc == 0, told.said
    assert "drift: 0 of 2 hosts drifted, 2 clean" in told.said
    found = json.loads(path.read_text())
    assert (found["schema"], found["verdict"], len(found["hosts"])) == (1, "clean", 2)
    path.unlink()
    assert "would be written" in site.run("drift.yml", "--check", "-e", f"drift_json={path}").said
    assert not path.exists()


def test_a_host_that_has_what_the_ledger_does_not_know_of(site: Site) -> None:
    site.ledger()
    (site.component / "releases" / RELEASE).mkdir(parents=True)
    (site.component / "current").symlink_to(f"releases/{RELEASE}")
    told = site.run("drift.yml")
    assert told.rc == DRIFTED, told.said
    assert f"app1 release current nothing, by the ledger releases/{RELEASE}" in told.said


def test_a_host_out_of_reach_is_no_drift(site: Site) -> None:
    site.ledger()
    site.hosts["app2"] = AWAY
    told = site.run("drift.yml")
    assert told.rc == CANNOT_TELL, told.said
    assert "unknown: app2: " in told.said
    assert "0 of 2 hosts drifted, 1 unknown, 1 clean" in told.said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("drift_ignore=x", "unknown variable drift_ignore: "),
        ("drift_json=/nowhere/drift.json", "drift_json: /nowhere/drift.json cannot be written: No such file"),
        ("drift_seconds=0", "unknown: app1, app2: seconds is 0: must be more than 0"),
        ("rollout_target=nobody", "rollout_target: no host matches"),
    ],
)
def test_bad_input_is_no_drift(site: Site, given: str, message: str) -> None:
    site.ledger()
    told = site.run("drift.yml", "-e", given)
    assert told.rc == CANNOT_TELL, told.said
    assert message in told.said


def test_nothing_is_repaired_while_a_deployment_is_open(site: Site, tmp_path: Path) -> None:
    open_deployment(site, RELEASE)
    refused = site.run("repair.yml")
    assert refused.rc == DRIFTED, refused.said
    assert "rollout r1, a deploy of 1.0.0, is open: let it end" in refused.said
    assert not site.component.exists()
