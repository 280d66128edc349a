# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a task of a file within the worker that runs a task already.

Ansible forks a worker for each task of each host, and another one for each ``include_tasks``: that costs the controller
more than what the task does. Here Ansible's own executor runs the task, with its loop, its connection and its
delegation, and callbacks are told of it; only the fork is spared. The executor is no public interface, so that this is
the one place that knows it: ``possible()`` says whether it is the one that is known.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ansible.executor import task_result
from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.playbook.task import Task

Result = dict[str, Any]

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
        self._worker = worker.current_worker
        self._variables = dict(self._worker._task_vars)
        stop_reading(self._worker._final_q)

    def run(self, path: str) -> Result:
        """The result of the one task in the file, where something failed or was unreachable too."""
        here = self._worker
        (described,) = here._loader.load_from_file(path, trusted_as_template=True)
        outer = here._task
        task = Task.load(
            described,
            block=outer._parent,
            role=outer._role,
            variable_manager=here._variable_manager,
            loader=here._loader,
        )
        task._uuid = outer._uuid  # by which the main process knows whose result it is told
        result: Result = TaskExecutor(
            here._host,
            task,
            dict(self._variables),
            here._play_context,
            here._loader,
            here._shared_loader_obj,
            here._final_q,
            here._variable_manager,
        ).run()
        self.changed = self.changed or bool(result.get("changed"))
        if task.register:
            self._variables[task.register] = result
        with suppress(BrokenPipeError):  # the main process is gone: the host's way is not left half done for that
            here._final_q.send_callback(
                _event(result), _RawTaskResult(here._host, task, dict(result), task.dump_attrs())
            )
        return result


def stop_reading(queue: Any) -> None:
    """Close this worker's end of the pipe that only the main process reads.

    While one worker has it open, none of them notices that the main process is gone: they would wait for ever for
    somebody to read what they say.
    """
    queue._reader.close()


def _event(result: Result) -> str:
    """The callback that is told of a result."""
    if result.get("unreachable"):
        return "v2_runner_on_unreachable"
    return "v2_runner_on_failed" if result.get("failed") else "v2_runner_on_ok"
