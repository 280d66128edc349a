# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs tasks of files within the worker that runs a task already: several for one host, or one for many hosts.

Ansible forks a worker for each task of each host, and another one for each ``include_tasks``: that costs the controller
more than what the task does. Here Ansible's own executor runs the task, with its loop, its connection and its
delegation, and callbacks are told of it; only the fork is spared. The executor is no public interface, so that this is
the one place that knows it: ``possible()`` says whether it is the one that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from threading import Lock
from typing import Any

from ansible.errors import AnsibleError
from ansible.executor import task_result
from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.playbook.role import Role
from ansible.playbook.role.include import RoleInclude
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible.vars.clean import strip_internal_keys

Result = dict[str, Any]

# Connections that several threads of a process can use at once, and what of them takes its time.
_OF_THREADS = ("ssh", "ansible.builtin.ssh", "smart", "local", "ansible.builtin.local")
_TAKES_TIME = ("exec_command", "put_file", "fetch_file", "reset")
_RawTaskResult: Any = getattr(task_result, "_RawTaskResult", None)  # of ansible-core 2.19 and 2.20


def possible() -> bool:
    """Whether tasks can be run so by the ansible-core that is installed, here in a worker."""
    return _RawTaskResult is not None and worker.current_worker is not None


class Inline:
    """Runs tasks for the host of the worker, one after the other. What they register is there for those that follow.

    ``changed``: whether one of them changed something.
    """

    def __init__(self) -> None:
        self.changed = False
        self._variables = dict(worker.current_worker._task_vars)
        stop_reading(worker.current_worker._final_q)

    def run(self, path: str) -> Result:
        """The result of the one task in the file, where something failed or was unreachable too."""
        here = worker.current_worker
        task = _load(path)
        result = _execute(here._host, task, dict(self._variables))
        self.changed = self.changed or bool(result.get("changed"))
        if task.register:
            self._variables[task.register] = result
        _tell(task, result)
        return result


class Turn:
    """That of a thread among others, which have the same lock."""

    def __init__(self, lock: Lock) -> None:
        self._lock, self._is_ours = lock, False

    def __enter__(self) -> None:
        self._lock.acquire()
        self._is_ours = True

    def __exit__(self, *error: object) -> None:
        self._is_ours = False
        self._lock.release()

    def given_away(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method that gives the turn away while it runs. It may call another one that does."""

        def called(*args: Any, **options: Any) -> Any:
            if not self._is_ours:
                return method(*args, **options)
            self.__exit__()
            try:
                return method(*args, **options)
            finally:
                self.__enter__()

        return called


def on_hosts(
    path: str, role: str, names: Sequence[str], when: str, known: Callable[[str], Mapping[str, Any]]
) -> Iterator[tuple[str, Result | None]]:
    """Run the one task in the file, as one of a role, on many hosts at once: their results, in the order of the hosts.

    Each has a thread, and one of them has its turn: nothing of Ansible has to know of threads. A thread gives its turn
    away while its host is busy.

    None for a host on which Ansible has to run it as usual: one for which ``when``, a condition as of a task, is
    false, and one that is connected to in a way that several threads cannot use. ``known``: variables that a host has
    besides.
    """
    here = worker.current_worker
    stop_reading(here._final_q)
    manager = here._variable_manager
    play = here._task.get_play()
    common = _load(path, _role(role, play))
    common.when = [*common.when, *([when] if when else [])]
    lock = Lock()

    def run(name: str) -> Result | None:
        turn = Turn(lock)
        with turn, suppress(AnsibleError):  # before the task itself runs: Ansible's usual way says better what is wrong
            return take(name, turn)
        return None

    def take(name: str, turn: Turn) -> Result | None:
        host = manager._inventory.get_host(name)
        variables = {**manager.get_vars(play=play, host=host, task=common), **known(name)}
        connection = variables.get("ansible_connection", common.connection)
        if Templar(here._loader, variables).template(connection) not in _OF_THREADS:
            return None
        task = common.copy(exclude_parent=True)
        task._parent = common._parent
        result = _execute(host, task, variables, turn)
        if result.get("skipped"):
            return None
        task.delegate_to = name
        _tell(task, {**result, "convoy": {**result.get("convoy", {}), "host": name}})
        return dict(strip_internal_keys(result))

    with ThreadPoolExecutor(here._cliargs["forks"]) as threads:
        results = threads.map(lambda name: copy_context().run(run, name), names)
        yield from zip(names, results, strict=True)


def stop_reading(queue: Any) -> None:
    """Close this worker's end of the pipe that only the main process reads.

    While one worker has it open, none of them notices that the main process is gone: they would wait for ever for
    somebody to read what they say.
    """
    queue._reader.close()


def _role(name: str, play: Any) -> Role:
    """A role, as an ``include_role`` would load it in the main process, which has it loaded by every play instead."""
    here = worker.current_worker
    included = RoleInclude.load(name, play=play, variable_manager=here._variable_manager, loader=here._loader)
    role: Role = Role.load(included, play, from_include=True, validate=False)
    return role


def _load(path: str, role: Role | None = None) -> Task:
    """The one task in a file, as a part of the task that the worker runs; of its role, or of another one."""
    here = worker.current_worker
    (described,) = here._loader.load_from_file(path, trusted_as_template=True)
    outer = here._task
    task = Task.load(
        described,
        block=outer._parent,
        role=role or outer._role,
        variable_manager=here._variable_manager,
        loader=here._loader,
    )
    task._uuid = outer._uuid  # by which the main process knows whose result it is told
    return task


class _InTurn(TaskExecutor):
    """Gives its turn away while its host is busy."""

    def in_turn(self, turn: Turn) -> Result:
        """The result."""
        self._turn = turn
        result: Result = self.run()
        return result

    def _get_connection(self, *args: Any) -> Any:
        connection = super()._get_connection(*args)
        for name in _TAKES_TIME:
            setattr(connection, name, self._turn.given_away(getattr(connection, name)))
        return connection


def _execute(host: Any, task: Task, variables: dict[str, Any], turn: Turn | None = None) -> Result:
    here = worker.current_worker
    executor = (_InTurn if turn else TaskExecutor)(
        host,
        task,
        variables,
        here._play_context,
        here._loader,
        here._shared_loader_obj,
        here._final_q,
        here._variable_manager,
    )
    result: Result = executor.in_turn(turn) if turn else executor.run()
    return result


def _tell(task: Task, result: Result) -> None:
    """Tell the callbacks; where the main process is gone a host's way is not left half done for that."""
    here = worker.current_worker
    with suppress(BrokenPipeError):
        here._final_q.send_callback(_event(result), _RawTaskResult(here._host, task, dict(result), task.dump_attrs()))


def _event(result: Result) -> str:
    """The callback that is told of a result."""
    if result.get("unreachable"):
        return "v2_runner_on_unreachable"
    return "v2_runner_on_failed" if result.get("failed") else "v2_runner_on_ok"
