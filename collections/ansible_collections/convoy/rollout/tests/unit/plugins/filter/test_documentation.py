# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-doc says of a filter is what the filter takes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.convoy.rollout.plugins.filter.road import FilterModule
from ansible_collections.convoy.rollout.plugins.plugin_utils import road

FILTERS = sorted(FilterModule().filters())
DIRECTORY = Path(__file__).parents[4] / "plugins" / "filter"


def test_every_file_of_documentation_belongs_to_a_filter() -> None:
    assert sorted(path.stem for path in DIRECTORY.glob("*.yml")) == FILTERS


@pytest.mark.parametrize("name", FILTERS)
def test_every_option_is_documented_as_it_is_taken(name: str) -> None:
    documentation = yaml.safe_load((DIRECTORY / f"{name}.yml").read_text())["DOCUMENTATION"]
    described = {
        option: text.get("default", inspect.Parameter.empty) for option, text in documentation["options"].items()
    }
    parameters = list(inspect.signature(getattr(road, name)).parameters.values())
    taken: dict[str, Any] = {"_input": inspect.Parameter.empty}
    taken |= {parameter.name: parameter.default for parameter in parameters[1:]}
    assert described == taken
    assert documentation["name"] == name
    assert documentation.get("positional", "_input").split(", ") == list(taken)
    for option, text in documentation["options"].items():
        assert text.get("required", False) is (taken[option] is inspect.Parameter.empty)
