# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what the hosts are with what the ledger says, and tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import colours, text
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, parse_colours
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import readings_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView, stream_of
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
        "colours": {"type": "raw", "default": {}},
        "rotation": {"type": "dict", "default": {}},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Read the ledger, and put it beside what was read from the hosts."""
        if not arguments["hosts"]:
            raise SpecError("rollout_target: no host matches: check the group's name and the inventory given with -i")
        of_colours, rotation = _colours(arguments["colours"], task_vars.get("groups", {})), arguments["rotation"]
        ledger = Ledger(arguments["ledger_url"], str(this_run()))
        ledger.prepare()
        rollouts = Rollouts(ledger, stream_of(arguments))
        view, rows = rollouts.view(), rollouts.newest_rows(arguments["hosts"])
        readings = readings_of(arguments["hosts"], task_vars["hostvars"], arguments["membership"])
        expected = {name: text.final_release(newest.row) for name, newest in rows.items()}
        left_out = colours.left_out(readings, of_colours, rotation)
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
        lit = colours.status_lines(of_colours, rotation)
        return {
            "changed": False,
            "hosts": states,
            "live": colours.live_colour(of_colours, rotation) if of_colours else None,
            "rollout": view.id if view else None,
            "status": view.status.value if view else None,
            "held_by": _holder(view),
            "left_out": left_out,
            "convoy": {"summary": text.status_lines(readings, expected, view, left_out, lit)},
        }


def _colours(raw: Any, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The hosts of both colours, whichever of them are asked about."""
    named = raw.values() if isinstance(raw, Mapping) else ()
    members = [host for group in named for host in groups.get(str(group), ())]
    return parse_colours(raw, groups, list(dict.fromkeys(members)))


def _holder(view: RolloutView | None) -> str | None:
    """Who runs the rollout that is open, unless that process is known to be gone."""
    if view is None or view.status.ended or view.holder is None or dead(view.holder):
        return None
    return str(view.holder)
