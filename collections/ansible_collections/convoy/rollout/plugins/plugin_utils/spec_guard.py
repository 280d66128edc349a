# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of values before an argument spec sees them: it would turn 1.1 into "1.1" in silence."""

from __future__ import annotations

from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError


class InputError(ConvoyError):
    """A value that a user gave cannot be what they meant."""

    reason: ClassVar[str] = "bad-input"


def require_string(name: str, value: object) -> str:
    """The value, which must be a string and not empty; raises InputError telling how to write it.

    YAML, and AWX in extra variables and surveys, read ``1.10`` as the number 1.1. What was
    written is lost by then, so that a number is refused rather than turned back.
    """
    if isinstance(value, str):
        if not value:
            raise InputError(f"{name} is empty: give it a value")
        return str(value)
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        raise InputError(
            f"{name} is the number {value!r}, not a string, and may not be what was written: YAML reads "
            f'1.10 as 1.1. Write it in quotes in a file ({name}: "1.10"), as -e {name}=1.10 on the command '
            f'line, or as -e \'{{"{name}": "1.10"}}\'; in AWX use a version that is no number, such as 1.10.0'
        )
    raise InputError(f"{name} is {value!r} ({type(value).__name__}), not a string: write it in quotes")
