# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real runs of ansible-playbook on tiny playbooks, in a pipe and in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

# Returns its arguments as its result: what a task of Convoy tells is what the test wrote.
TELL = """
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        failed = arguments.pop("fail", False)
        return {"changed": False, "failed": failed, "msg": arguments.pop("msg", "told"), **arguments}
"""

COLLECTIONS = Path(__file__).parents[7]
COMMAND = [sys.executable, "-m", "ansible.cli.playbook", "-i", "app1,app2,", "play.yml"]


class Project:
    """A directory with a playbook, its own settings and an action that tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "action_plugins").mkdir()
        (path / "action_plugins" / "tell.py").write_text(TELL, encoding="utf-8")
        self.settings(callbacks_enabled="convoy.rollout.progress", stdout_callback="convoy.rollout.terse")

    def settings(self, **settings: str) -> None:
        """Its ansible.cfg."""
        lines = ["[defaults]", f"collections_path = {COLLECTIONS}", "host_key_checking = true"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        (self.path / "ansible.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def play(self, tasks: str) -> None:
        """Its playbook: one play with these tasks."""
        indented = "".join(f"    {line}\n" if line else "\n" for line in tasks.strip("\n").splitlines())
        head = "- name: A play\n  hosts: all\n  connection: local\n  gather_facts: false\n  tasks:\n"
        (self.path / "play.yml").write_text(head + indented, encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        """A person's, without what this test run has of its own."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "CONVOY_"))}
        own.pop("CI", None)
        interpreter = {
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(self.path),
        }
        return {**own, **interpreter, "TERM": "xterm", "COLUMNS": "80", **more}

    def in_pipe(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it as a job would."""
        return subprocess.run(
            [*COMMAND, *options],
            cwd=self.path,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def in_terminal(self, *options: str, **environment: str) -> str:
        """Run it as a person would; everything that the terminal is sent."""
        near, far = pty.openpty()
        with subprocess.Popen(
            [*COMMAND, *options],
            cwd=self.path,
            env=self.environment(**environment),
            stdin=far,
            stdout=far,
            stderr=far,
            # Without a controlling terminal ansible-core asks nobody anything.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ):
            os.close(far)
            sent = b""
            try:
                while data := os.read(near, 65536):
                    sent += data
            except OSError:
                # The way a terminal says that nobody writes to it any more.
                pass
        os.close(near)
        return sent.decode()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


def screen(sent: str) -> list[str]:
    """What a terminal shows in the end of what it was sent, line by line."""
    lines, column = [""], 0
    at = 0
    while at < len(sent):
        if sent.startswith("\x1b[K", at):
            lines[-1] = lines[-1][:column]
            at += 3
            continue
        if sent[at] == "\r":
            column = 0
        elif sent[at] == "\n":
            lines.append("")
            column = 0
        else:
            lines[-1] = lines[-1][:column] + sent[at] + lines[-1][column + 1 :]
            column += 1
        at += 1
    return lines


@pytest.fixture(name="screen")
def _screen() -> object:
    return screen
