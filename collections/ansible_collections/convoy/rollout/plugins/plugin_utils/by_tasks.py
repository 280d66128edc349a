# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases that the site's own tasks put in place: whether ``component_tasks`` is in order, and which file runs. Pure.

Whether the files are there is asked where those of hooks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    OnFailure,
    PhaseSpec,
    SpecError,
    nearest,
)

FILES = ("stage", "activate", "verify", "revert", "prune")
KEYS = (*FILES, "idempotent", "irreversible")
ANSWERS = ("again", "done")


def check_tasks(tasks: Mapping[str, Any], in_doubt: str, confirm_within: Any, kind: str) -> None:
    """Raise SpecError for ``component_tasks`` that say nothing, too little, or what cannot be.

    ``in_doubt`` is ``component_in_doubt``; ``kind`` is that of the rollout.
    """
    for key in tasks:
        if key not in KEYS:
            raise SpecError(f"component_tasks: unknown key {key!r}: {nearest(str(key), KEYS)}")
    for key in FILES:
        path = tasks.get(key, "")
        if not isinstance(path, str) or (key in tasks and not path):
            raise SpecError(f"component_tasks.{key}: {path!r} is not the path of a task file on the controller")
    for key in ("idempotent", "irreversible"):
        if not isinstance(tasks.get(key, False), bool):
            raise SpecError(f"component_tasks.{key}: {tasks[key]!r} is neither true nor false")
    if "activate" not in tasks:
        raise SpecError("component_tasks.activate is missing: give the task file that puts a release in place")
    if in_doubt and in_doubt not in ANSWERS:
        raise SpecError(f"component_in_doubt: unknown answer {in_doubt!r}: {nearest(in_doubt, ANSWERS)}")
    if str(confirm_within) not in ("0", ""):
        raise SpecError(
            f"component_confirm_within: {confirm_within} does not go with component_kind: tasks: a host cannot take "
            "back by itself what tasks of the controller put in place. Leave it away"
        )
    _check_way_back(tasks, kind)


def _check_way_back(tasks: Mapping[str, Any], kind: str) -> None:
    if not tasks.get("irreversible"):
        return
    if "revert" in tasks:
        raise SpecError("component_tasks: revert and irreversible: true exclude each other: leave one of them away")
    if kind == "rollback":
        raise SpecError(
            "component_tasks.irreversible: a rollback is what it rules out: give component_tasks.revert, or deploy "
            "the version to go to"
        )


def refuse_turning_back(tasks: Mapping[str, Any], phases: Iterable[PhaseSpec]) -> None:
    """Raise SpecError where a rollout would turn back by itself, and nothing takes a host back."""
    if not tasks.get("irreversible"):
        return
    turning = [phase.name for phase in phases if phase.on_failure is OnFailure.TURN_BACK]
    if turning:
        raise SpecError(
            f"component_tasks.irreversible: phase {', '.join(turning)} turns back on a failure, and nothing takes a "
            "host back: give component_tasks.revert, or set rollout_on_failure: hold (or continue)"
        )


def task_files(tasks: Mapping[str, Any]) -> dict[str, str]:
    """The task files, by where they are named."""
    return {f"component_tasks.{key}": str(tasks[key]) for key in FILES if key in tasks}


def may_run_again(tasks: Mapping[str, Any]) -> bool:
    """Whether tasks may be run again where nobody knows how they ended. As everywhere in Ansible, unless said."""
    return bool(tasks.get("idempotent", True))


def in_doubt(tasks: Mapping[str, Any], answer: str) -> str:
    """What a host is to do where tasks were begun, and nobody knows whether they are done."""
    return answer or ("again" if may_run_again(tasks) else "hold")
