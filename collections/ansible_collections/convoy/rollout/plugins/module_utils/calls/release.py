# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module release: stage, activate, confirm, revert or remove a release."""

from __future__ import annotations

import os
import signal

from ansible_collections.convoy.rollout.plugins.module_utils import names, staging
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ArchiveError,
    ConvoyTargetError,
    InputError,
    PrivilegeError,
    TreeError,
    failure,
)
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.record import Unit
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import Systemd
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact, Delta

if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.convoy.rollout.plugins.module_utils.activation import Order

_STATES = ("staged", "active", "confirmed", "reverted", "absent")
_BY_TASKS = ("begun", "settled")
REQUIRED_IF = tuple(("state", state, ("release",)) for state in ("staged", "active", "confirmed", "absent"))
_SHOWN = ("component", "root", "state", "release", "version", "rollout", "token", "keep", "confirm_within")


def arguments() -> dict[str, Any]:
    """The argument spec."""
    from ansible_collections.convoy.rollout.plugins.module_utils import gate

    config = {
        "dest": {"type": "str", "required": True},
        "content": {"type": "str", "required": True, "no_log": True},
        "mode": {"type": "str", "default": "0644"},
    }
    unit = {
        "name": {"type": "str", "required": True},
        "content": {"type": "str"},
        "action": {"type": "str", "choices": ["restart", "reload"], "default": "restart"},
    }
    package = {
        "name": {"type": "str", "required": True},
        "lock_timeout": {"type": "int"},
        "manager": {"type": "str", "choices": ["auto", "apt", "dnf"], "default": "auto"},
    }
    tasks = {
        "back": {"type": "bool", "default": False},
        "in_doubt": {"type": "str", "choices": ["hold", "again", "done"], "default": "again"},
        "failure": {"type": "str", "default": ""},
        "written": {"type": "list", "elements": "str", "default": []},
        "verifies": {"type": "bool", "default": False},
    }
    limits = {key: {"type": "int", "default": value} for key, value in Limits()._asdict().items()}
    delta = {
        "base": {"type": "str", "required": True},
        "sha256": {"type": "str", "required": True},
        "size": {"type": "int", "required": True},
        "format": {"type": "str", "required": True},
    }
    pull = {
        "authorization": {"type": "str", "default": "", "no_log": True},
        "ca_file": {"type": "str", "default": ""},
        "timeout": {"type": "float", "default": 30.0},
        "deadline": {"type": "float", "default": 1800.0},
        "retries": {"type": "int", "default": 5},
        "proxy": {"type": "bool", "default": False},
    }
    own = {
        "component": {"type": "str", "required": True},
        "root": {"type": "path"},
        "state": {"type": "str", "required": True, "choices": [*_STATES, *_BY_TASKS]},
        "release": {"type": "str"},
        "version": {"type": "str"},
        "rollout": {"type": "str", "default": ""},
        "token": {"type": "int", "required": True, "no_log": False},
        "artifact": {"type": "path"},
        "lacking": {"type": "bool", "default": False},
        "manifest": {"type": "dict"},
        "package": {"type": "dict", "options": package},
        "tasks": {"type": "dict", "options": tasks},
        "container": {"type": "dict"},
        "transfer": {"type": "str", "choices": ["push", "delta", "pull"], "default": "push"},
        "releases": {"type": "list", "elements": "dict", "default": []},
        "delta": {"type": "dict", "options": delta},
        "url": {"type": "str"},
        "pull": {"type": "dict", "options": pull},
        "verify_only": {"type": "bool", "default": False},
        "config": {"type": "list", "elements": "dict", "default": [], "options": config},
        "units": {"type": "list", "elements": "dict", "default": [], "options": unit},
        "keep": {"type": "int", "default": 5},
        "confirm_within": {"type": "int", "default": 0},
        "strict": {"type": "bool", "default": False},
        "mend": {"type": "bool", "default": False},
        "limits": {"type": "dict", "options": limits},
        "lock_timeout": {"type": "int", "default": 30},
    }
    return dict(gate.arguments(), **own)


def host_of(params: dict[str, Any]) -> Host:
    """The host in the hands of the rollout. InputError for values that cannot be right."""
    component = names.component(params["component"])
    root = names.root(params["root"] or f"/srv/{component}")
    for key, least in (("keep", 1), ("confirm_within", 0), ("lock_timeout", 0), ("token", 0)):
        if params[key] < least:
            raise InputError(f"{key} is {params[key]}: must be {least} or more")
    if params["release"] is not None:
        names.release(params["release"])
    return Host(Tree(root, component), Systemd(), Clock(), names.rollout(params["rollout"]), params["token"])


def wanted_of(params: dict[str, Any]) -> staging.Wanted:
    """The release to stage. InputError names what is wrong with its description."""
    if params["manifest"] is None or not params["version"]:
        raise InputError("state=staged needs manifest and version, or verify_only")
    artifact, files = staging.manifest(params["manifest"])
    is_by_tasks = params["tasks"] is not None
    for unit in params["units"]:
        if unit["content"] is None and not is_by_tasks:
            raise InputError(f"unit {unit['name']!r} has no content: only a package, or tasks, bring units")
    units = tuple(Unit(names.unit(unit["name"]), unit["content"] or "", unit["action"]) for unit in params["units"])
    config = tuple(staging.config_file(fields) for fields in params["config"])
    image = staging.image(params["manifest"])
    if image is not None:
        config += (staging.image_file(image),)
    return staging.Wanted(
        params["release"], params["version"], artifact, files, config, units, image=image, by_tasks=is_by_tasks
    )


def order_of(params: dict[str, Any]) -> Order:
    """What is asked of a release that is staged."""
    from ansible_collections.convoy.rollout.plugins.module_utils.activation import Order

    return Order(
        params["release"],
        tuple(_given(probe) for probe in params["probes"] or []),
        _given(params["gate"] or {}),
        params["keep"],
        params["confirm_within"],
        params["mend"],
    )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the options that were left out."""
    return {key: value for key, value in fields.items() if value is not None}


def stage(host: Host, params: dict[str, Any], is_check: bool) -> dict[str, Any]:
    """state=staged"""
    release = params["release"]
    if params["verify_only"]:
        host.tree.active()
        host.tree.verify(release)
        return dict(host.outcome(release, False), artifact_needed=False)
    if params["package"] is not None:
        from ansible_collections.convoy.rollout.plugins.module_utils.package_kind import PACKAGE

        return PACKAGE.stage(host, params, is_check)
    wanted = wanted_of(params)
    staging.check(host, wanted)
    if staging.is_staged(host, wanted):
        host.done("verified")
        changed = not is_check and any([staging.ensure_noted(host, release), staging.ensure_loaded(host, release)])
        if not is_check:
            staging.forget_mended(host, release)
        return dict(host.outcome(release, changed), artifact_needed=False)
    if not params["mend"]:
        staging.check_not_in_use(host, release)
    is_fetched = params["transfer"] == "pull" and params["artifact"] is None
    staging.check_space(host, wanted, fetched=wanted.artifact.size if is_fetched else 0)
    if params["artifact"] is None or is_check:
        needed = dict(host.outcome(release, is_check), artifact_needed=params["artifact"] is None)
        return dict(needed, **staging.offer(host, wanted)) if params["transfer"] == "delta" else needed
    limits = Limits(**(params["limits"] or {}))
    if params["delta"]:
        return add_to_base(host, wanted, params, limits)
    staging.stage(host, wanted, params["artifact"], limits, params["strict"])
    return dict(host.outcome(release, True), artifact_needed=False)


def add_to_base(host: Host, wanted: staging.Wanted, params: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Stage from what is sent and a release that is here; ask for the whole artifact where that does not add up."""
    given = params["delta"]
    sent = Artifact(given["sha256"], given["size"], given["format"])
    try:
        base = staging.base(host, given["base"])
        staging.stage(host, wanted, params["artifact"], limits, params["strict"], Delta(sent, base.copy))
    except (ArchiveError, TreeError) as error:
        return dict(host.outcome(wanted.release, False), artifact_needed=True, fallback=error.message)
    return dict(host.outcome(wanted.release, True), artifact_needed=False, reused=base.taken)


def pull(host: Host, params: dict[str, Any]) -> dict[str, Any]:
    """Fetch the artifact, while others may work on the tree, and stage it."""
    from ansible_collections.convoy.rollout.plugins.module_utils import fetch

    wanted = wanted_of(params)
    source = fetch.Source(params["url"] or "", **(params["pull"] or {})).checked()
    with fetch.place(host.tree, wanted.artifact.sha256, host.clock, params["lock_timeout"]) as descriptor:
        fetched = fetch.fetch(source, wanted.artifact, descriptor, host.clock)
        host.done("fetched")
        return dict(change(host, dict(params, artifact=f"/proc/self/fd/{descriptor}")), fetched=fetched)


def by_tasks(host: Host, params: dict[str, Any], is_check: bool = False) -> dict[str, Any]:
    """state=begun and state=settled"""
    from ansible_collections.convoy.rollout.plugins.module_utils import tasks_road

    order, asked = order_of(params), tasks_road.asked_of(params)
    if is_check:
        return tasks_road.foresee(host, params["state"], order, asked)
    return {"begun": tasks_road.begin, "settled": tasks_road.settle}[params["state"]](host, order, asked)


def leave_alone(host: Host, params: dict[str, Any]) -> dict[str, Any]:
    """What is asked of a host that Convoy never saw: nothing has to go, and nothing can be gone to."""
    if params["state"] == "absent" or (params["state"] == "reverted" and params["release"] is None):
        return host.outcome(params["release"], False)
    raise InputError(f"nothing was ever deployed to {host.tree.root} on this host")


def change(host: Host, params: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked, as the only one on this tree. What staging does not need is imported where it is."""
    if params["state"] in ("staged", "active", "begun"):
        host.tree.create()
    elif not host.tree.exists():
        return leave_alone(host, params)
    with host.tree.lock(host.clock, params["lock_timeout"], f"state={params['state']} of rollout {host.rollout}"):
        host.begin(goes_on=params["state"] == "settled")
        if params["state"] == "staged":
            return stage(host, params, is_check=False)
        if params["state"] == "absent":
            return host.outcome(params["release"], staging.remove(host, params["release"]))
        if params["state"] in _BY_TASKS:
            return by_tasks(host, params)
        from ansible_collections.convoy.rollout.plugins.module_utils import activation

        road = {"active": activation.activate, "confirmed": activation.confirm, "reverted": activation.revert}
        return road[params["state"]](host, order_of(params))


def foresee(host: Host, params: dict[str, Any]) -> dict[str, Any]:
    """What a call would do, without a change."""
    host.tree.admit(params["token"], params["rollout"], remember=False)
    if params["state"] == "staged":
        return stage(host, params, is_check=True)
    if params["state"] in _BY_TASKS:
        return by_tasks(host, params, is_check=True)
    from ansible_collections.convoy.rollout.plugins.module_utils import activation

    return activation.foresee(host, params["state"], order_of(params))


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what is asked, or say why not."""
    # What was begun is brought to its end, whatever becomes of the connection.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    shown = {"module_args": {key: params[key] for key in _SHOWN}}
    steps: list[dict[str, Any]] = []
    warnings: list[str] = []
    try:
        if os.geteuid() != 0:
            raise PrivilegeError("convoy.rollout.release needs root on the host: run it with become: true")
        host = host_of(params)
        steps, warnings = host.steps, host.warnings
        result = foresee(host, params) if check_mode else change(host, params)
        if params["transfer"] == "pull" and result.get("artifact_needed") and not check_mode:
            result = pull(host, params)
    except (ConvoyTargetError, OSError) as error:
        result = failure(error)
    told = {"warnings": warnings} if warnings else {}
    return dict(result, **told, steps=steps, invocation=shown)
