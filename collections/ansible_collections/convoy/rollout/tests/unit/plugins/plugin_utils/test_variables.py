# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which variables exist."""

from __future__ import annotations

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.role import Role

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import (
    PREFIXES,
    ROLES,
    known_variables,
    refuse_unknown,
)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("component_versoin", "component_version"),
        ("rollout_phase", "rollout_phases"),
        ("traffic_adaptor", "traffic_adapter"),
        ("environment_ledger", "environment_ledger_url"),
        ("depot_paht", "depot_path"),
    ],
)
def test_a_misspelt_variable_is_answered_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(SpecError) as refused:
        refuse_unknown([name])
    assert str(refused.value) == f"unknown variable {name}: did you mean {nearest!r}?"


def test_a_variable_like_none_is_answered_with_those_of_its_prefix() -> None:
    with pytest.raises(SpecError, match=r"known are .*rollout_failure_budget, .*rollout_phases") as refused:
        refuse_unknown(["rollout_qqqqqqqqqqqqqqqqqqqq"])
    assert "component_" not in str(refused.value)


@pytest.mark.parametrize("name", ["hello_port", "convoy_checked", "ansible_user", "my_component_thing", "zone"])
def test_variables_of_others_are_left_alone(name: str) -> None:
    refuse_unknown([name])


def test_every_variable_that_a_role_has_is_known() -> None:
    """Defaults and vars of the roles are in every play that uses them."""
    for file in [*ROLES.glob("*/defaults/main.yml"), *ROLES.glob("*/vars/main.yml")]:
        refuse_unknown(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("role", ["component", "rollout", "traffic"])
def test_every_default_is_documented_as_it_is(role: str) -> None:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    options = {name: option for spec in specs.values() for name, option in spec["options"].items()}
    of_the_role = {name: option for name, option in options.items() if name.startswith(f"{role}_")}
    documented = {name: option["default"] for name, option in of_the_role.items() if "default" in option}
    assert yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()) == documented


@pytest.mark.parametrize("role", ["component", "rollout", "traffic"])
def test_ansible_reads_no_specification_where_it_has_nothing_to_check(role: str) -> None:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    assert not specs.keys() & {file.stem for file in (ROLES / role / "tasks").rglob("*.yml")}
    imported = Role()
    imported._role_path, imported._loader = str(ROLES / role), DataLoader()
    assert imported._get_role_argspecs() == {}


def test_variables_are_told_apart_by_these_prefixes() -> None:
    assert {name.partition("_")[0] + "_" for name in known_variables()} <= set(PREFIXES)
