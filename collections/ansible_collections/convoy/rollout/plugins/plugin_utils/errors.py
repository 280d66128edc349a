# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root of what the controller's library raises: raised deep, made a message once, at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class ConvoyError(Exception):
    """A refusal or a failure whose message says what, which value, which limit, what to do next.

    ``reason`` is a short word of its own for every subclass that callers tell apart; it goes
    into the ledger and into results, and does not change when the message is reworded.
    """

    reason: ClassVar[str] = "error"
    details: Mapping[str, Any] = MappingProxyType({})  # what else goes into a task's result
