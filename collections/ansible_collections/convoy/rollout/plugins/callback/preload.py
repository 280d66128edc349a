# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Import what every worker of a rollout needs before Ansible forks the first of them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Import once what every worker of a rollout needs
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Ansible forks a worker for every task of every host, and each imports what its action plugin needs. What the main
    process has imported before costs the workers nothing. The same goes for the templates of the collection's roles,
    and for the site's.
    What a task needs is imported when it begins; what the first task of the hosts needs, while the request is checked.
  - It prints nothing and changes nothing. Without it, a rollout is slower.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
"""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ansible.inventory.host import Host
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

_COLLECTION = "convoy.rollout."
_PLUGINS = f"ansible_collections.{_COLLECTION}plugins"


class Need(NamedTuple):
    """What the workers of a task need beside the action and the call that have its name.

    What no task of a run needs is not imported: where nothing is to change, nothing is staged, and no host goes a road.
    """

    plugins: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # of the roles, with the templates


_NEEDS = {
    "rollout": Need(others=("sqlalchemy.dialects.sqlite",)),
    "release_info": Need(
        others=(
            "ansible.module_utils.common.arg_spec",
            "ansible.plugins.action.normal",
            "ansible.plugins.connection.ssh",
            "ansible_collections.ansible.builtin.plugins.lookup.template",
            "ansible.plugins.shell.sh",
        ),
        files=("*/defaults/main.yml", "*/vars/main.yml", "component/tasks/read.yml"),
    ),
    "release": Need(others=("_strptime",), files=("component/tasks/stage.yml", "rollout/tasks/stage.yml")),
    # The road is one task, which runs others in its worker.
    "road": Need(
        plugins=("action.admission", "action.release", "action.report", "module_utils.calls.release"),
        files=(
            "component/tasks/activate.yml", "component/tasks/confirm.yml", "component/tasks/revert.yml",
            "component/tasks/await.yml", "rollout/tasks/roll.yml", "rollout/tasks/turn_back.yml",
        ),
    ),
    "haproxy": Need(files=("traffic/tasks/haproxy/*drain.yml",)),
    "nginx": Need(files=("traffic/tasks/nginx/*drain.yml",)),
    "by_tasks": Need(files=("component/tasks/*_by_tasks.yml",)),
    "server": Need(others=("psycopg", "sqlalchemy.dialects.postgresql.psycopg")),
}  # fmt: skip
_AT_ONCE = {"read": "release_info", "stage": "release"}  # what runs in the one worker of such a step, for each host


class CallbackModule(CallbackBase):
    """``convoy.rollout.preload``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "convoy.rollout.preload"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        # What Ansible makes stays, or is gone at once: looking for garbage among it takes a tenth of its time.
        gc.set_threshold(100_000, 50, 50)
        sys.meta_path.insert(0, Compiled(Path(__file__).parents[1]))
        self._play: Play | None = None
        self._ready: set[str] = set()
        self._next: Callable[[], None] = _nothing
        self._templates = None
        with contextlib.suppress(ImportError, AttributeError):  # without Ansible's inner parts it is slower, no more
            self._templates = import_module(f"{_PLUGINS}.plugin_utils.compiled").Compiled()
        os.register_at_fork(after_in_parent=self._look_ahead, after_in_child=self._forget)

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """The play whose variables say where the ledger is."""
        self._play = play

    def v2_runner_on_start(self, host: Host, task: Task) -> None:
        """Before a worker is forked."""
        name = task.action.removeprefix(_COLLECTION)
        if name == "at_once":
            name = _AT_ONCE.get(task.args.get("step"), name)
        if name == task.action or name in self._ready:
            return
        known = task.get_variable_manager().get_vars(play=self._play, host=host, task=task, include_hostvars=False)
        for need in (name, *_more(name, known)):
            self._prepare(need, known)
        if name == "rollout" and task.args.get("state") == "checked":
            self._next = partial(self._prepare, "release_info", known)

    def _look_ahead(self) -> None:
        """The one worker that checks the request was forked: there is nothing to do until it is through."""
        prepare, self._next = self._next, _nothing
        prepare()

    def _forget(self) -> None:
        """A worker has nobody to prepare."""
        self._next = _nothing

    def _prepare(self, name: str, known: Mapping[str, Any]) -> None:
        if name in self._ready:
            return
        self._ready.add(name)
        need = _NEEDS.get(name, Need())
        plugins = (f"action.{name}", f"module_utils.calls.{name}", *need.plugins)
        _import(*need.others, *(f"{_PLUGINS}.{plugin}" for plugin in plugins))
        if courier := sys.modules.get(f"{_PLUGINS}.plugin_utils.courier"):
            courier.digest()  # packs what hosts are sent
        if self._templates:
            self._templates.remember(*need.files)
            if name == "release_info":
                self._templates.remember_site(known)


def _nothing() -> None:
    """What is to be prepared, mostly."""


def _more(name: str, known: Mapping[str, Any]) -> Iterator[str]:
    """What else a task needs, by variables, which may be templates yet."""
    if not str(known.get("environment_ledger_url", "sqlite:")).startswith("sqlite:"):
        yield "server"
    if name == "road":
        adapter = str(known.get("traffic_adapter", ""))
        yield from (one for one in ("haproxy", "nginx") if one == adapter or "{{" in adapter)
    if name in ("road", "release") and known.get("component_tasks"):
        yield "by_tasks"


def _import(*modules: str) -> None:
    for module in modules:
        with contextlib.suppress(ImportError):  # whoever needs it says better what is missing
            import_module(module)


class Compiled(MetaPathFinder):
    """Finds this collection's modules for Python's usual loader, which keeps what it compiled: Ansible's does not."""

    def __init__(self, plugins: Path) -> None:
        self._plugins = plugins

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module lies; None for packages, and for all that is not of this collection."""
        if not fullname.startswith(f"{_PLUGINS}."):
            return None
        source = self._plugins.joinpath(*fullname[len(_PLUGINS) + 1 :].split(".")).with_suffix(".py")
        return spec_from_file_location(fullname, source) if source.is_file() else None
