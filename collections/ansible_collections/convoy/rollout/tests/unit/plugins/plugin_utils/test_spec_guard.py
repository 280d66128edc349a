# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that only look like strings."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import InputError, require_string


class Tagged(str):
    """As ansible-core marks the origin of a string."""


@pytest.mark.parametrize("value", ["1.10", "1", "true", Tagged("1.10")])
def test_a_string_stays_as_it_is(value: str) -> None:
    assert require_string("component_version", value) == value


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (1.1, "component_version is the number 1.1, not a string"),
        (2024, "component_version is the number 2024, not a string"),
        (True, "component_version is True (bool), not a string"),
        (None, "component_version is None (NoneType), not a string"),
        (["1.0.0"], "component_version is ['1.0.0'] (list), not a string"),
        ("", "component_version is empty"),
    ],
)
def test_anything_else_is_refused_by_name_and_value(value: object, complaint: str) -> None:
    with pytest.raises(InputError) as refused:
        require_string("component_version", value)
    assert complaint in str(refused.value)


def test_a_number_is_answered_with_how_to_write_it() -> None:
    with pytest.raises(InputError) as refused:
        require_string("component_version", 1.1)
    message = str(refused.value)
    assert 'component_version: "1.10"' in message
    assert "-e component_version=1.10" in message
    assert '-e \'{"component_version": "1.10"}\'' in message
    assert "AWX" in message
