# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take many hosts through a step of the component within one worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import inline
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import ROLES

ROLE = "convoy.rollout.rollout"  # whose variables its steps have, with those of the roles that it depends on


class ActionModule(ControllerAction):
    """``convoy.rollout.at_once``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "step": {"type": "str", "required": True, "choices": ["read", "stage"]},
        "hosts": {"type": "list", "elements": "str", "required": True},
        "when": {"type": "str", "default": ""},
        "known": {"type": "dict", "default": {}},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Take all that can be taken so; the others are ``left``."""
        hosts = arguments["hosts"]
        if not inline.possible():
            return {"changed": False, "results": {}, "left": hosts}
        path = str(ROLES / "component" / "tasks" / f"{arguments['step']}.yml")
        reads = task_vars.get("rollout_reads", {}).get("results", {})

        def known(host: str) -> Result:
            """Variables of the host besides, which would else be found anew among those of all hosts."""
            return {**arguments["known"], **({"component_read": reads[host]} if host in reads else {})}

        results = dict(inline.on_hosts(path, ROLE, hosts, arguments["when"], known))
        done = {host: result for host, result in results.items() if result is not None}
        return {
            "changed": any(result.get("changed") for result in done.values()),
            "results": done,
            "left": [host for host, result in results.items() if result is None],
        }
