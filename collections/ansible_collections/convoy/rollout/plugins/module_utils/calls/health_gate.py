# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module health_gate: ask or watch the probes of a component."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import gate
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return dict(gate.arguments(), version={"type": "str"}, watch={"type": "float"})


def ask(probes: list[Any] | None, options: dict[str, Any] | None, seconds: float | None = None) -> gate.GateResult:
    """Run the gate, or watch for `seconds`; a gate that is written wrong has the verdict error and no attempts."""
    try:
        asked = gate.validate(probes, options)
        return gate.run(asked, gate.Clock()) if seconds is None else gate.watch(asked, seconds, gate.Clock())
    except GateError as error:
        return gate.GateResult("error", error.message, [], 0, 0.0)


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Ask, and let pass only what passed."""
    result = ask(gate.expecting(params["probes"], params["version"]), params["gate"], params["watch"])
    told = dict(result.as_dict(), changed=False)
    return told if result.passed else dict(told, failed=True, msg=result.message)
