# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback watchdog, in real runs."""

from __future__ import annotations

from typing import Any

DIE = """
import os
import signal
import time

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        if self._task.args.get("killed"):
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._task.args.get("sleep", 0))
        return {"changed": False}
"""
TASKS = """
- name: Work
  die:
    killed: "{{ inventory_hostname == 'app1' }}"
    sleep: 8
- name: Work on
  tell:
    convoy: {lines: ["{{ inventory_hostname }} is done"], resume: ansible-playbook again.yml}
"""


def test_a_run_ends_whose_worker_was_killed_when_the_other_hosts_have_ended(project: Any) -> None:
    (project.path / "action_plugins" / "die.py").write_text(DIE, encoding="utf-8")
    project.settings(
        callbacks_enabled="convoy.rollout.watchdog, convoy.rollout.progress",
        stdout_callback="convoy.rollout.terse",
        strategy="free",
    )
    project.play(TASKS)
    ended = project.in_pipe()
    assert ended.returncode == 99
    assert "app2 is done" in ended.stdout
    assert "app1 is done" not in ended.stdout
    assert "(signal 9) was killed, and Ansible would wait for its result for ever" in ended.stderr
    assert "the rollout is open, hosts that are out finish or are found again; next: ansible-playbook again.yml" in (
        ended.stderr
    )


def test_a_run_whose_workers_end_well_is_left_alone(project: Any) -> None:
    project.settings(
        callbacks_enabled="convoy.rollout.watchdog", stdout_callback="convoy.rollout.terse", strategy="free"
    )
    project.play("- name: Wait\n  ansible.builtin.wait_for:\n    timeout: 7")
    ended = project.in_pipe()
    assert (ended.returncode, "was killed" in ended.stderr) == (0, False)
