# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback progress, in real runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

TASKS = """
- name: Tell
  tell:
    convoy:
      lines: ["{{ inventory_hostname }}: admitted", "two\\nlines"]
      summary: ["the fleet runs 1.1.0"]
      phase: canary
      done: 1
      total: 6
  when: inventory_hostname == 'app1'

- name: Loop
  tell:
    convoy: {lines: ["item {{ item }}"], done: 2, in_flight: 3, failed: 0}
  loop: [a, b]
  when: inventory_hostname == 'app1'

- name: Fail
  tell:
    fail: "{{ inventory_hostname == 'app2' }}"
    msg: no room
    convoy: {lines: ["app2: failed"], summary: ["next: make room"]}
  when: inventory_hostname == 'app2'

- name: Say nothing
  tell:
    convoy: {lines: ["a secret"], summary: ["a secret"]}
  no_log: true

- name: Tell what is none
  tell:
    convoy: "{{ item }}"
  loop: ["a text", {lines: "a text"}, {lines: [1]}, {summary: 7}, [1]]
"""
TIME = re.compile(r"^\d\d:\d\d:\d\d  ")


def told(lines: list[str]) -> list[str]:
    return [TIME.sub("", line) for line in lines if TIME.match(line)]


EXPECTED = ["app1: admitted", "two", "lines", "item a", "item b", "app2: failed"]


def test_lines_as_they_come_and_the_summary_last(project: Any) -> None:
    project.play(TASKS)
    ran = project.in_pipe()
    lines = ran.stdout.splitlines()
    assert ran.returncode == 2
    assert told(lines) == EXPECTED
    assert lines[-3:] == ["", "the fleet runs 1.1.0", "next: make room"]
    assert any("failed=1" in line for line in lines[:-3]), "the recap comes before the summary"
    assert "secret" not in ran.stdout + ran.stderr
    assert "\x1b" not in ran.stdout
    assert "Callback dispatch" not in ran.stderr


def test_beside_the_default_output(project: Any) -> None:
    project.settings(callbacks_enabled="convoy.rollout.progress", stdout_callback="default")
    project.play(TASKS)
    lines = project.in_pipe().stdout.splitlines()
    assert told(lines) == EXPECTED
    assert lines[-2:] == ["the fleet runs 1.1.0", "next: make room"]
    assert any(line.startswith("TASK [Tell]") for line in lines)


def test_a_run_that_tells_nothing_gets_no_summary(project: Any) -> None:
    project.play("- ansible.builtin.command: 'true'")
    assert "failed=0" in project.in_pipe().stdout.strip().splitlines()[-1]


def test_a_status_line_in_a_terminal_that_leaves_no_trace(project: Any, screen: Callable[[str], list[str]]) -> None:
    project.play(TASKS)
    piped = project.in_pipe().stdout.splitlines()
    sent = project.in_terminal()
    assert "phase canary | 1 of 6 done | " in sent
    assert "phase canary | 2 of 6 done | 3 in flight | 0 failed | " in sent
    shown = screen(sent)
    assert not any("phase canary" in line for line in shown)
    assert [TIME.sub("", line).rstrip() for line in shown] == [*(TIME.sub("", line).rstrip() for line in piped), ""]


def test_whatever_else_is_printed_stays_whole(project: Any, screen: Callable[[str], list[str]]) -> None:
    project.settings(callbacks_enabled="convoy.rollout.progress", stdout_callback="default", forks="8")
    tasks = ["- tell: {convoy: {phase: one, done: 0, total: 9, lines: [begun]}}"]
    tasks += [f"- tell: {{convoy: {{done: {at}}}, msg: 'message {at}', warnings: ['warning {at}']}}" for at in range(9)]
    tasks += ["- ansible.builtin.pause: {seconds: 1, prompt: 'a prompt'}", "- ansible.builtin.debug: {msg: after}"]
    project.play("\n".join(tasks))
    sent = project.in_terminal("-v")
    shown = screen(sent)
    assert sent.count("of 9 done") >= 9
    assert not any("of 9 done" in line for line in shown)
    for at in range(9):
        assert (
            sum(
                f'ok: [app1] => {{"changed": false, "convoy": {{"done": {at}}}, "msg": "message {at}"' in line
                for line in shown
            )
            == 1
        )
        assert any(line == f"[WARNING]: warning {at}" for line in shown)
    assert "a prompt:" in shown
    assert any("after" in line for line in shown)


@pytest.mark.parametrize(
    "environment",
    [{"CI": "true"}, {"TERM": "dumb"}, {"CONVOY_STATUS_LINE": "false"}],
    ids=lambda given: next(iter(given)),
)
def test_no_status_line_where_nobody_could_read_it(project: Any, environment: dict[str, str]) -> None:
    project.play(TASKS)
    sent = project.in_terminal(**environment)
    assert "phase canary" not in sent
    assert "\x1b[K" not in sent
    assert told(sent.splitlines()) == EXPECTED


def test_ordinary_lines_beside_a_plugin_that_nobody_knows(project: Any) -> None:
    (project.path / "callback_plugins").mkdir()
    (project.path / "callback_plugins" / "loud.py").write_text(
        "import os\n"
        "from ansible.plugins.callback import CallbackBase\n\n"
        "DOCUMENTATION = 'name: loud\\ntype: aggregate\\nshort_description: loud\\ndescription: [loud]\\n'\n\n\n"
        "class CallbackModule(CallbackBase):\n"
        "    CALLBACK_VERSION = 2.0\n    CALLBACK_TYPE = 'aggregate'\n    CALLBACK_NAME = 'loud'\n"
        "    CALLBACK_NEEDS_ENABLED = True\n\n"
        "    def v2_runner_on_ok(self, result):\n        os.write(1, b'loud\\n')\n",
        encoding="utf-8",
    )
    project.settings(callbacks_enabled="loud, convoy.rollout.progress", stdout_callback="convoy.rollout.terse")
    project.play(TASKS)
    sent = project.in_terminal()
    assert "loud" in sent
    assert "\x1b[K" not in sent
    told_now = [re.sub(r"\d+s$", "Ns", line) for line in told(sent.splitlines())]
    assert "phase canary | 1 of 6 done | Ns" in told_now
    assert "phase canary | 2 of 6 done | 3 in flight | 0 failed | Ns" in told_now


def test_under_ansible_runner_as_awx_runs_it(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = pytest.importorskip("ansible_runner")
    project.play(TASKS)
    environment = project.environment()
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (project.path / "data").mkdir()
    monkeypatch.setenv("PATH", f"{sys.exec_prefix}/bin", prepend=":")
    ran = runner.run(
        private_data_dir=str(project.path / "data"),
        project_dir=str(project.path),
        playbook="play.yml",
        inventory={"all": {"hosts": {"app1": {}, "app2": {}}}},
        quiet=True,
    )
    lines = [line for event in ran.events for line in event["stdout"].splitlines()]
    assert ran.rc == 2
    assert told(lines) == EXPECTED
    assert lines[-2:] == ["the fleet runs 1.1.0", "next: make room"]
    assert not any("phase canary |" in line or "\x1b[K" in line for line in lines)
