# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What molecule passes over in silence: a step `verify` that finds no tests, tests that no step runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "collections/ansible_collections/convoy/rollout"
SCENARIOS = sorted([*ROOT.glob("molecule/*/molecule.yml"), *ROLES.glob("extensions/molecule/*/molecule.yml")])


def steps(scenario: Path, action: str) -> set[Path]:
    """The files or directories that the steps of one kind are about."""
    sequence = yaml.safe_load(scenario.read_text())["scenario"]["test_sequence"]
    return {scenario.parent / step.partition(" ")[2] for step in sequence if step.partition(" ")[0] == action}


def test_there_is_a_scenario_for_the_main_road_and_one_for_each_role() -> None:
    roles = {path.name for path in (ROLES / "roles").iterdir()}
    assert {path.parent.name for path in SCENARIOS} == {"default"} | roles


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.parent.name)
def test_every_test_is_run_by_a_step(scenario: Path) -> None:
    assert steps(scenario, "verify") == {path.parent for path in scenario.parent.rglob("test_*.py")}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.parent.name)
def test_every_side_effect_is_there(scenario: Path) -> None:
    """Molecule does none of them unless the one that its configuration names is there."""
    named = scenario.parent / yaml.safe_load(scenario.read_text())["ansible"]["playbooks"]["side_effect"]
    effects = steps(scenario, "side_effect")
    assert named in effects
    assert all(path.is_file() for path in effects)
