# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the coordinator whether the load balancers may be switched now, and tell it what became of that."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.utils.display import Display

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import (
    LEDGER_SPEC,
    ControllerAction,
    Result,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Denied,
    Recorded,
    SwitchReport,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.road import switch_outcome
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run

SAY_EVERY = 15.0  # seconds between two lines about what is waited for


class ActionModule(ControllerAction):
    """``convoy.rollout.switch``"""

    _supports_check_mode = False
    SPEC: ClassVar[Mapping[str, Any]] = {
        **LEDGER_SPEC,
        "state": {"type": "str", "required": True, "choices": ["admitted", "reported"]},
        "until": {"type": "float"},
        "checked": {"type": "dict", "default": {}},
        "switched": {"type": "dict", "default": {}},
        "poll": {"type": "float", "default": 0.25},
    }

    REQUIRED_IF: ClassVar[tuple[Any, ...]] = (("state", "reported", ("until",)),)

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Wait for the answer, or report."""
        rollouts = Rollouts(Ledger(arguments["ledger_url"], str(this_run())), arguments["stream"])
        if arguments["state"] == "admitted":
            return _admitted(rollouts, arguments)
        return _reported(rollouts, arguments)


def _admitted(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Result:
    answer = _await(rollouts, arguments)
    if isinstance(answer, Denied):
        return {"changed": False, "admitted": False, "reason": answer.reason}
    view = rollouts.standing(arguments["rollout"])
    plan, switching = view.plan, view.state.switching
    if plan.switch is None or switching is None:
        return {"changed": False, "admitted": False, "reason": "another run has switched meanwhile"}
    coming = [row.name for row in view.hosts if row.status is not HostStatus.STANDBY]
    leaving = [row.name for row in view.hosts if row.status is HostStatus.STANDBY]
    if switching.back:
        leaves, joins = coming, [host for host in leaving if host in plan.switch.serving]
        least = min(1, len(joins))
        lines = [f"the load balancers are switched back to {plan.switch.leaving}: {view.state.reason}"]
    else:
        least, joins, leaves = len(view.ready), view.ready, leaving
        lines = [f"the load balancers are switched from {plan.switch.leaving} to {plan.switch.coming}"]
    told = {
        "until": answer.until,
        "joins": joins,
        "leaves": [host for host in leaves if host not in joins],
        "least": least,
    }
    return {"changed": False, "admitted": True, "back": switching.back, **told, "convoy": {"lines": lines}}


def _await(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Admitted | Denied:
    """Ask again when something has happened, or when the time has come that the last answer named."""
    say_at = time.monotonic()
    while True:
        head = rollouts.head()
        answer = rollouts.admit_switch(arguments["rollout"], arguments["token"], str(this_run()))
        if not isinstance(answer, Wait):
            return answer
        if time.monotonic() >= say_at:
            say_at = time.monotonic() + SAY_EVERY
            Display().display(f"the switch waits: {answer.reason}")
        asked = time.monotonic()
        while rollouts.head() == head and not (answer.until and time.time() >= answer.until):
            time.sleep(arguments["poll"])
            if time.monotonic() >= asked + SAY_EVERY:  # asking again is also the run's sign of life
                break


def _reported(rollouts: Rollouts, arguments: Mapping[str, Any]) -> Result:
    outcome = switch_outcome(arguments["checked"], arguments["switched"])
    rollout = arguments["rollout"]
    report = SwitchReport(arguments["until"], **outcome)
    answer = rollouts.report_switch(rollout, arguments["token"], report, str(this_run()))
    if isinstance(answer, Denied):
        return {"changed": False, "gate": None, "convoy": {"lines": [f"the switch is not taken: {answer.reason}"]}}
    gate = rollouts.gate(rollout) if isinstance(answer, Recorded) and answer.gate_due else None
    lines = [] if outcome["went_well"] else [f"the switch failed: {outcome['why']}"]
    if gate:
        lines.append(f"phase {gate['phase']} has begun with traffic, and bakes for {gate['bake']:g} s")
    return {"changed": False, "gate": gate, "convoy": {"lines": lines}}
