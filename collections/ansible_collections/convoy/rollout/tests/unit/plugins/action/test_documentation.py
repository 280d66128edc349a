# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-doc says of an action of the controller is what the action takes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction

PLUGINS = "ansible_collections.convoy.rollout.plugins"
SOURCES = (Path(__file__).parents[4] / "plugins" / "action").glob("*.py")
CONTROLLER_ACTIONS = sorted(source.stem for source in SOURCES if "(ControllerAction)" in source.read_text())


def documented(name: str) -> dict[str, Any]:
    """The options of a module's documentation, with those of its fragments."""
    documentation = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)
    options: dict[str, Any] = dict(documentation["options"])
    for fragment in documentation.get("extends_documentation_fragment", []):
        module = importlib.import_module(f"{PLUGINS}.doc_fragments.{fragment.rpartition('.')[2]}")
        options.update(yaml.safe_load(module.ModuleDocFragment.DOCUMENTATION)["options"])
    return options


def action(name: str) -> type[ControllerAction]:
    found: type[ControllerAction] = importlib.import_module(f"{PLUGINS}.action.{name}").ActionModule
    return found


def test_the_actions_of_the_controller_are_found() -> None:
    assert {"admission", "report", "rollout", "status", "verdict"} <= set(CONTROLLER_ACTIONS)


@pytest.mark.parametrize("name", CONTROLLER_ACTIONS)
def test_every_option_is_documented_as_it_is_taken(name: str) -> None:
    described = {
        option: {
            "type": text.get("type", "str"),
            "elements": text.get("elements"),
            "required": text.get("required", False),
            "default": text.get("default"),
            "choices": text.get("choices"),
        }
        for option, text in documented(name).items()
    }
    taken = {
        option: {
            "type": spec["type"],
            "elements": spec.get("elements"),
            "required": spec.get("required", False),
            "default": spec.get("default"),
            "choices": list(spec["choices"]) if "choices" in spec else None,
        }
        for option, spec in action(name).SPEC.items()
    }
    assert described == taken


@pytest.mark.parametrize("name", CONTROLLER_ACTIONS)
def test_what_is_required_for_a_state_is_said(name: str) -> None:
    options = documented(name)
    for field, value, required in action(name).REQUIRED_IF:
        for option in required:
            description = options[option]["description"]
            text = description if isinstance(description, str) else " ".join(description)
            assert f"O({field}={value})" in text, option


@pytest.mark.parametrize("name", CONTROLLER_ACTIONS)
def test_check_mode_is_documented_as_it_is(name: str) -> None:
    documentation = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)
    support = documentation["attributes"]["check_mode"]["support"]
    assert (support == "full") is action(name)._supports_check_mode
