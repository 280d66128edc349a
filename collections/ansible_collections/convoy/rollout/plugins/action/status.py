# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what the hosts are with what the ledger says, and tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import text
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import readings_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, this_run


class ActionModule(ControllerAction):
    """``convoy.rollout.status``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str", "required": True},
        "membership": {"type": "dict", "default": {}},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Read the ledger, and put it beside what was read from the hosts."""
        if not arguments["hosts"]:
            raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        ledger.prepare()
        view = Rollouts(ledger, f"{arguments['environment']}/{arguments['component']}").view()
        readings = readings_of(arguments["hosts"], task_vars["hostvars"], arguments["membership"])
        expected = {row.name: text.final_release(row) for row in view.hosts} if view else {}
        states = [
            {
                "host": reading.name,
                "reachable": reading.reachable,
                "release": reading.active,
                "health": reading.health.value,
                "in_service": reading.in_service,
                "differs": text.differences(reading, expected.get(reading.name)),
            }
            for reading in readings
        ]
        return {
            "changed": False,
            "hosts": states,
            "rollout": view.id if view else None,
            "status": view.status.value if view else None,
            "held_by": _holder(view),
            "left_out": [reading.name for reading in readings if reading.left_out],
            "convoy": {"summary": text.status_lines(readings, expected, view)},
        }


def _holder(view: RolloutView | None) -> str | None:
    """Who runs the rollout that is open, unless that process is known to be gone."""
    if view is None or view.status.ended or view.holder is None or dead(view.holder):
        return None
    return str(view.holder)
