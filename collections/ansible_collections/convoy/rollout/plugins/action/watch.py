# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watch hosts and metrics at the same time.

Ansible makes one connection a task and item. So the task is a loop, delegated to each host in turn, in which an item
only enlists the connection that was made for it; the last one asks all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, ClassVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis import watch as metrics_watch
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import MetricGate
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.fetching import fetcher
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Answers, Request
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.courier import Courier
from ansible_collections.convoy.rollout.plugins.plugin_utils.gates import Balancers, asked_of, left_out
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.watching import Outcome, Said, watch


@dataclass(frozen=True)
class Enlisted:
    """A host that is ready to be asked, with what it is asked."""

    action: ActionModule
    arguments: Mapping[str, Any]
    task_vars: dict[str, Any]

    def call(self, module: str, arguments: Mapping[str, Any]) -> Result:
        """Run a module of the collection on it."""
        with CONTROLLER:
            return Courier(self.action, self.task_vars).call(module, arguments)

    def call_own(self, module: str, arguments: Mapping[str, Any]) -> Result:
        """Run a module of the site on it."""
        with CONTROLLER:
            result: Result = self.action._execute_module(
                module_name=module, module_args=dict(arguments), task_vars=self.task_vars
            )
        return result


ENLISTED: dict[str, Enlisted] = {}  # of the loop that is running: each has a process of its own
CONTROLLER = Lock()  # what Ansible does here is done by one thread at a time; it was not made for several


class ActionModule(ControllerAction):
    """``convoy.rollout.watch``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "host": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str", "required": True},
        "balancers": {"type": "list", "elements": "str", "default": []},
        "probes": {"type": "list", "elements": "dict", "default": []},
        "modules": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"module": {"type": "str", "required": True}, "args": {"type": "dict", "default": {}}},
        },
        "version": {"type": "str"},
        "gate": {"type": "dict", "default": {}},
        "seconds": {"type": "float"},
        "gates": {"type": "dict", "default": {}},
        "ask": {"type": "list", "elements": "str"},
        "sides": {"type": "dict", "default": {}},
        "names": {"type": "dict", "default": {}},
        "options": {"type": "dict", "default": {}},
        "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        "backend": {"type": "str", "default": ""},
        "summary": {"type": "bool", "default": False},
        "rollout": {
            "type": "dict",
            "options": {
                "id": {"type": "str", "required": True},
                "ledger_url": {"type": "str", "required": True, "no_log": True},
                "stream": {"type": "str", "required": True},
            },
        },
    }

    def _low_level_execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Let the other threads go on while this one waits for its host."""
        CONTROLLER.release()
        try:
            return super()._low_level_execute_command(*arguments, **options)
        finally:
            CONTROLLER.acquire()

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Enlist the host. The last one begins the watch; it fails unless the verdict is pass."""
        host, wanted = arguments["host"], [*arguments["hosts"], *arguments["balancers"]]
        if host not in wanted:
            raise SpecError(f"host: {host!r} is none of those that are to be watched: {', '.join(wanted) or 'none'}")
        if host == wanted[0]:
            ENLISTED.clear()
        ENLISTED[host] = Enlisted(self, arguments, task_vars)
        if host != wanted[-1]:
            return {"changed": False, "enlisted": True}
        outcome, warnings = _watch(arguments)
        failure = {} if outcome.verdict is Verdict.PASS else {"failed": True, "msg": outcome.why}
        told = {"convoy": {"summary": outcome.lines()}} if arguments["summary"] else {}
        return {"changed": False, "warnings": warnings, **outcome.as_dict(), **failure, **told}


def _watch(arguments: Mapping[str, Any]) -> tuple[Outcome, list[str]]:
    """The outcome, and what a person should know of it."""
    seconds = arguments["seconds"] or 0.0
    balancers = Balancers(tuple(arguments["balancers"]), arguments["backend"])
    try:
        gate = asked_of(arguments, seconds, balancers)
        without = left_out(arguments, balancers)
    except SpecError as error:
        return Outcome(Verdict.ERROR, str(error), {}, None, 0.0), []
    hosts = {host: partial(_ask, ENLISTED[host]) for host in arguments["hosts"]}
    judge = partial(_run, gate, arguments) if gate else None
    warnings = [f"the gate {name} compares hosts, and there is no baseline: it was left out" for name in without]
    wanted = partial(_wanted, arguments["rollout"]) if arguments["rollout"] else None
    return watch(hosts, judge, seconds, Clock(), wanted), warnings


def _wanted(rollout: Mapping[str, Any]) -> bool:
    """Whether the rollout still waits for its gate. A ledger that cannot be read ends no watch."""
    try:
        rollouts = Rollouts(Ledger(rollout["ledger_url"], str(this_run())), rollout["stream"])
        return rollouts.standing(rollout["id"]).state.gate is not None
    except LedgerError:
        return True


def _run(gate: MetricGate, arguments: Mapping[str, Any], clock: Clock) -> metrics_watch.GateOutcome:
    options = arguments["options"]
    over_http = fetcher(float(options.get("timeout", 10.0)), options.get("ca_path"))

    def fetch(requests: Sequence[Request]) -> Answers:
        own = {request: name for request in requests if (name := Balancers.named(request.url))}
        counters = {request: _statistics(ENLISTED[name], arguments) for request, name in own.items()}
        return {**counters, **over_http([request for request in requests if request not in own])}

    return metrics_watch.run(gate, clock, fetch)


def _ask(enlisted: Enlisted, seconds: float) -> Said:
    """Watch a host for so many seconds, then run the site's own modules there."""
    given = enlisted.arguments
    asked = {key: given[key] for key in ("probes", "version", "gate")}
    result = _called(partial(enlisted.call, "health_gate", {**asked, "watch": seconds}))
    if isinstance(result, Said):
        return result
    if "verdict" not in result:
        return Said(Verdict.ERROR, _first_line(result.get("msg")))
    said = Said(Verdict(result["verdict"]), result["message"], {"attempts": result["attempts"]})
    for own in given["modules"] if said.verdict is Verdict.PASS else ():
        result = _called(partial(enlisted.call_own, own["module"], own["args"]))
        if isinstance(result, Said):
            return result
        if result.get("failed"):
            return Said(Verdict.FAIL, f"{own['module']}: {excerpt(_first_line(result.get('msg')))}")
    return said


def _called(call: Callable[[], Result]) -> Result | Said:
    """The result of a module, or what it means that there is none."""
    try:
        result = call()
    except AnsibleConnectionFailure as error:
        return Said(Verdict.FAIL, f"it cannot be reached: {_first_line(error)}")
    except AnsibleError as error:
        return Said(Verdict.ERROR, _first_line(error))
    if result.get("unreachable"):
        return Said(Verdict.FAIL, f"it cannot be reached: {_first_line(result.get('msg'))}")
    return result


def _statistics(enlisted: Enlisted, arguments: Mapping[str, Any]) -> Answer:
    """The counters of a load balancer, through its runtime socket."""
    asked = {"socket": arguments["socket"], "backend": arguments["backend"], "statistics": True}
    result = _called(partial(enlisted.call, "haproxy_info", asked))
    if isinstance(result, Said):
        return Answer(error=f"cannot be asked: {result.why}")
    if result.get("failed"):
        return Answer(error=f"cannot be asked: {_first_line(result.get('msg'))}")
    return Answer(result["statistics"])


def _first_line(trouble: object) -> str:
    return (str(trouble or "").strip() or "no message was given").splitlines()[0]
