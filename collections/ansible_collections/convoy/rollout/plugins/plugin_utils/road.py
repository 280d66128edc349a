# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's road through its steps: which there are, and what became of the host at its end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import ROLES

HOOKS = (
    "before_stage", "after_stage", "before_phase", "before_drain", "after_drain", "before_activate", "after_activate",
    "before_undrain", "after_undrain", "after_phase",
)  # fmt: skip
TRAFFIC_STEPS = ("drain", "undrain")
_BY_TASKS = ("stage", "activate", "revert")
BALANCERS = ("haproxy", "nginx")  # those that the collection has task files for
ADAPTERS = (*BALANCERS, "tasks", "none")

NOTHING: Mapping[str, str] = MappingProxyType({})

Results = Mapping[str, Mapping[str, Any]]
Take = Callable[[str], Mapping[str, Any]]


def steps(
    road: Sequence[str],
    hooks: Mapping[str, str] = NOTHING,
    adapter: str = "none",
    site_tasks: Mapping[str, str] = NOTHING,
    first: bool = False,
    tasks: Mapping[str, Any] = NOTHING,
) -> list[str]:
    """The task files of a road: hooks that the site has, the adapter's traffic steps, and the steps in between.

    ``first``: the host begins its phase, so that the hook before it belongs to its road. ``tasks`` are what puts a
    release in place and takes it back, where that is the site's.
    Raises SpecError for an unknown hook or adapter, or an adapter of the site's own that lacks a task file.
    """
    for hook in hooks:
        if hook not in HOOKS:
            raise SpecError(f"rollout_hooks: unknown hook {hook!r}: {nearest(hook, HOOKS)}")
    if adapter not in ADAPTERS:
        raise SpecError(f"traffic_adapter: unknown adapter {adapter!r}: {nearest(adapter, ADAPTERS)}")
    for step in site_tasks:
        if step not in TRAFFIC_STEPS:
            raise SpecError(f"traffic_tasks: unknown step {step!r}: {nearest(step, TRAFFIC_STEPS)}")
    if tasks.get("irreversible") and "revert" in road:  # a host that cannot go back is not taken out of service for it
        return [str(ROLES / "component" / "tasks" / "revert_irreversible.yml")]
    files = []
    for step in road:
        if step in HOOKS:
            files += [hooks[step]] if step in hooks and (first or step != "before_phase") else []
        elif tasks and step in _BY_TASKS:
            files += [str(ROLES / "component" / "tasks" / f"{name}.yml") for name in _by_tasks(step, tasks)]
        elif step not in TRAFFIC_STEPS:
            files.append(str(ROLES / "component" / "tasks" / f"{step}.yml"))
        elif adapter in BALANCERS:
            files.append(str(ROLES / "traffic" / "tasks" / adapter / f"{step}.yml"))
        elif adapter == "tasks":
            if step not in site_tasks:
                raise SpecError(f"traffic_tasks: {step!r} is missing: the adapter 'tasks' needs a task file for it")
            files.append(site_tasks[step])
    return files


def _by_tasks(step: str, tasks: Mapping[str, Any]) -> list[str]:
    """The files of a step of a release that the site's tasks put in place."""
    if step == "stage":
        return ["stage", *(["stage_by_tasks"] if "stage" in tasks else [])]
    return [f"{step}_by_tasks"]


def tasks_file(tasks: Mapping[str, Any], begun: Mapping[str, Any], back: bool = False) -> str:
    """The task file of the site to run where ``begun`` is what a host said that begins; empty where none is to.

    The way back is the way to the former release, unless the site has another one. Where there was none before, only
    the site can know what takes away what its tasks brought.
    """
    if not begun.get("run"):
        return ""
    if not back:
        return str(tasks["activate"])
    return str(tasks.get("revert", tasks["activate"] if begun.get("release") else ""))


def is_ours(
    road: Sequence[str],
    hooks: Mapping[str, str] = NOTHING,
    adapter: str = "none",
    tasks: Mapping[str, Any] = NOTHING,
) -> bool:
    """Whether nothing of the site's own lies on a road."""
    own = {"activate", "revert", *({"stage"} & set(tasks))} if tasks else set()
    return adapter != "tasks" and not any(step in hooks or step in own for step in road)


def site_files(hooks: Mapping[str, str], adapter: str, site_tasks: Mapping[str, str]) -> dict[str, str]:
    """The task files that the site has to have, by the variables that name them. Raises SpecError as steps() does."""
    steps((*HOOKS, *TRAFFIC_STEPS), hooks, adapter, site_tasks)
    files = {f"rollout_hooks.{hook}": path for hook, path in hooks.items()}
    if adapter == "tasks":
        files |= {f"traffic_tasks.{step}": path for step, path in site_tasks.items()}
    return files


def outcome(results: Results, failure: Mapping[str, Any]) -> dict[str, str]:
    """What became of a host on its way forward: ``outcome`` for the report, and ``why``.

    ``results`` has what the steps drain, activate, revert and undrain returned, as far as they ran; ``failure`` is
    the result that ended the road, empty where nothing did.
    """
    drain, activate, undrain = (_ran(results, step) for step in ("drain", "activate", "undrain"))
    if drain.get("unreachable") and not activate:
        if not _left_alone(drain):
            why = f"it was taken out of one load balancer, and another cannot be reached: {_why(drain)}"
            return {"outcome": "failed", "why": why}
        why = f"the load balancer cannot be reached, the host was left as it was: {_why(drain)}"
        return {"outcome": "reverted", "why": why}
    confirm = _ran(results, "confirm")
    gone = next((result for result in (activate, confirm) if result.get("unreachable")), None)
    if gone is not None:
        return {"outcome": "lost", "why": f"it cannot be reached any more: {_why(gone)}"}
    fault = failure or next((result for result in (drain, undrain) if result.get("unreachable")), {})
    if not fault:
        return {"outcome": "succeeded", "why": ""}
    in_service = not _away(undrain) or (not activate and _left_alone(drain))
    return {"outcome": "reverted" if serves_old(results) and in_service else "failed", "why": _why(fault)}


def go_forward(road: Sequence[str], take: Take) -> dict[str, str]:
    """Take a host forward by its steps, and where one fails what is left of the road back; see ``outcome``.

    ``take`` takes a step, and returns its result, or nothing where there is nothing to do.
    """
    results: dict[str, Mapping[str, Any]] = {}
    failure: Mapping[str, Any] = {}
    for step in road:
        if not may_go_on([_ran(results, "drain"), _ran(results, "activate"), _ran(results, "confirm")]):
            break
        results[step] = take(step)
        if results[step].get("failed"):
            failure = results[step]
            break
    if failure:
        for step in undo(results):
            results[step] = take(step)
        last = _ran(results, "revert") or _ran(results, "activate")
        if "undrain" in road and serves_old(results) and may_go_on([last]):
            results["undrain"] = take("undrain")
    return outcome(results, failure)


def go_back(road: Sequence[str], take: Take) -> dict[str, str]:
    """Take a host back by its steps; see ``way_back``, and ``go_forward`` for ``take``."""
    results: dict[str, Mapping[str, Any]] = {}
    failure = ""
    for step in road:
        if not may_go_on([_ran(results, "drain"), _ran(results, "revert")]):
            break
        results[step] = take(step)
        if results[step].get("failed"):
            failure = _why(results[step])
            break
    return way_back(results, failure)


def undo(results: Results) -> list[str]:
    """The steps that take back a release that is active; a host that serves again is taken out of service first.

    One that tasks put in place is active since they began.
    """
    activate = _ran(results, "activate")
    is_begun = bool(activate.get("failed") and (activate.get("tasks") or {}).get("begun"))
    if not _went_well(activate) and not is_begun:
        return []
    return ["drain", "revert"] if _went_well(_ran(results, "undrain")) else ["revert"]


def serves_old(results: Results) -> bool:
    """Whether a host whose road was ended runs the release that it came from, healthy."""
    activate, revert = _ran(results, "activate"), _ran(results, "revert")
    return not activate or bool(activate.get("reverted")) or _went_well(revert)


def may_go_on(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the next step may follow on ``results``: nothing was unreachable, and something is there to serve."""
    return not any(result.get("unreachable") or result.get("active", "") is None for result in results)


def way_back(results: Results, failure: str) -> dict[str, str]:
    """What became of a host that had to go back; ``failure`` says what ended its road, empty where nothing did."""
    for step in ("drain", "revert", "undrain"):
        result = _ran(results, step)
        if _away(result):
            return {"outcome": "stuck", "why": f"{step}: {_why(result)}"}
    if not failure and _ran(results, "await") and _ran(results, "revert").get("changed") is False:
        return {"outcome": "returned", "why": "when it could be reached again it had gone back by itself"}
    return {"outcome": "stuck" if failure else "returned", "why": failure}


def _ran(results: Results, step: str) -> Mapping[str, Any]:
    """What the step returned; empty where it was skipped or never came to pass."""
    result = results.get(step) or {}
    return {} if result.get("skipped") else result


def _went_well(result: Mapping[str, Any]) -> bool:
    return bool(result) and not _away(result)


def _away(result: Mapping[str, Any]) -> bool:
    return bool(result.get("failed") or result.get("unreachable"))


def _left_alone(drain: Mapping[str, Any]) -> bool:
    """Whether the drain failed before it had taken the host out of any load balancer."""
    return _away(drain) and not any(item.get("changed") for item in drain.get("results", [drain]))


def _why(result: Mapping[str, Any]) -> str:
    """The first line of the message; of a loop, that of the first item that went wrong."""
    for item in result.get("results", ()):
        if _away(item):
            return _why(item)
    return (str(result.get("msg") or "").strip() or "no message was given").splitlines()[0]


def sample(hosts: Sequence[str], most: int = 20) -> list[str]:
    """Whom to watch: all of the hosts, or so many of them, spread evenly."""
    if len(hosts) <= most:
        return list(hosts)
    return [hosts[n * len(hosts) // most] for n in range(most)]


def watch_verdict(results: Sequence[Mapping[str, Any]], failure: str = "") -> dict[str, str]:
    """The gate's verdict: the last result of the loop over the action ``watch`` has it.

    ``failure`` says what else of the phase went wrong, empty where nothing did.
    """
    if failure:
        return {"verdict": "fail", "why": failure}
    if not results:
        return {"verdict": "inconclusive", "why": "no host of the phase was asked"}
    last = results[-1]
    return {"verdict": str(last.get("verdict", "error")), "why": str(last.get("message") or _why(last))}


def members_up(answers: Sequence[Mapping[str, Any]]) -> int | None:
    """How many servers are up, at the load balancer that has the fewest; None without a load balancer."""
    counts = [sum(server["state"] == "up" for server in answer["servers"].values()) for answer in answers]
    return min(counts, default=None)


def rotation(
    answers: Sequence[Mapping[str, Any]], servers: Mapping[str, str], hosts: Sequence[str]
) -> dict[str, list[str]]:
    """What each load balancer that knows a host says of its state. ``servers`` is as for ``membership``."""
    names = {host: servers.get(host, host) for host in hosts}
    return {
        host: [answer["servers"][name]["state"] for answer in answers if name in answer["servers"]]
        for host, name in names.items()
    }


def switch_outcome(checked: Mapping[str, Any], switched: Mapping[str, Any]) -> dict[str, Any]:
    """What became of the switch: ``went_well``, ``why`` not, and whether a load balancer may have been ``touched``.

    ``checked`` is what the load balancers said when they were asked whether it can be done, empty where they were not;
    ``switched`` what they said when it was.
    """
    asked = {} if checked.get("skipped") else checked
    if _away(asked):
        return {"went_well": False, "touched": False, "why": _why(asked)}
    done = {} if switched.get("skipped") else switched
    if not done:
        return {"went_well": False, "touched": False, "why": "no load balancer was switched"}
    items = done.get("results", [done])
    if not any(_away(item) for item in items):
        return {"went_well": True, "touched": any(item.get("changed") for item in items), "why": ""}
    unsure = any(item.get("changed", True) or item.get("unreachable") for item in items)
    return {"went_well": False, "touched": unsure, "why": _why(done)}


def server_names(hosts: Sequence[str], servers: Mapping[str, str]) -> list[str]:
    """The names that hosts have as servers of the load balancers."""
    return [servers.get(host, host) for host in hosts]


def without_service(road: Sequence[str], switch: Mapping[str, Any] | None) -> list[str]:
    """The road of a host of the idle colour, where the load balancers are switched: it is not put into service."""
    return [step for step in road if not switch or step not in ("undrain", "after_undrain")]


def unless_confirming(road: Sequence[str], confirm_within: int) -> list[str]:
    """The road without what only a host needs that takes an unconfirmed release back by itself, where none does."""
    return [step for step in road if confirm_within or step not in ("confirm", "await")]


def membership(
    answers: Sequence[Mapping[str, Any]], servers: Mapping[str, str], hosts: Sequence[str]
) -> dict[str, bool]:
    """Which hosts serve: those that every load balancer has up. ``servers`` maps hosts to differing server names."""
    found: dict[str, bool] = {}
    for host in hosts:
        name = servers.get(host, host)
        known = [answer["servers"][name] for answer in answers if name in answer["servers"]]
        if known:
            found[host] = all(server["state"] == "up" for server in known)
    return found
