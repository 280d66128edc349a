# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback terse, in real runs."""

from __future__ import annotations

from typing import Any

TASKS = """
- name: Change something
  ansible.builtin.command: "true"

- name: Loop
  tell: {msg: "{{ item }}", warnings: ["mind {{ item }}"]}
  loop: [a]

- name: Skip
  ansible.builtin.command: "true"
  when: false

- name: Warn
  tell: {warnings: [mind the gap]}

- name: Fail and go on
  tell: {fail: true, msg: not so bad}
  ignore_errors: true

- name: Try
  ansible.builtin.command: "false"
  register: tried
  until: tried.rc == 0
  retries: 1
  delay: 0
  ignore_errors: true

- name: Fail in a loop
  tell: {fail: true, msg: "bad {{ item }}"}
  loop: [x]
  ignore_errors: true

- name: Run what fails
  ansible.builtin.shell: "echo first >&2; echo why >&2; exit 3"
  ignore_errors: true

- name: Keep a secret
  tell: {fail: true, msg: hunter2}
  no_log: true
  ignore_errors: true

- name: Fail
  tell: {fail: true, msg: "no room on {{ inventory_hostname }}"}
  when: inventory_hostname == 'app2'
"""


def test_failures_warnings_and_the_recap_stay(project: Any) -> None:
    project.play(TASKS)
    ran = project.in_pipe("--limit", "app2")
    lines = ran.stdout.splitlines()
    assert ran.returncode == 2
    assert lines[0] == "ignored: [app2] Fail and go on: not so bad"
    assert lines[1].startswith("ignored: [app2] Try: ")
    assert lines[2] == "failed: [app2] Fail in a loop: bad x"
    assert lines[3].startswith("ignored: [app2] Run what fails: ")
    assert lines[3].endswith("non-zero return code: why")
    assert lines[4].startswith("ignored: [app2] Keep a secret: the output has been hidden")
    assert lines[5:7] == ["failed: [app2] Fail: no room on app2", ""]
    assert lines[7].startswith("PLAY RECAP ***")
    assert "failed=1" in lines[8]
    assert [line for line in lines[9:] if line] == []
    assert "[WARNING]: mind the gap" in ran.stderr
    assert "[WARNING]: mind a" in ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr


def test_a_run_without_trouble_is_its_recap(project: Any) -> None:
    project.play("- ansible.builtin.command: 'true'\n- ansible.builtin.debug: {msg: hello}")
    lines = [line for line in project.in_pipe().stdout.splitlines() if line]
    assert lines[0].startswith("PLAY RECAP")
    assert [line.split()[0] for line in lines[1:]] == ["app1", "app2"]


def test_a_host_that_cannot_be_reached_is_named(project: Any) -> None:
    project.play("- name: Knock\n  ansible.builtin.ping:")
    settings = (project.path / "play.yml").read_text(encoding="utf-8").replace("connection: local", "connection: ssh")
    (project.path / "play.yml").write_text(settings, encoding="utf-8")
    ran = project.in_pipe("--limit", "app1", "-e", "ansible_host=127.0.0.1 ansible_port=9")
    assert ran.returncode == 4
    assert ran.stdout.startswith("unreachable: [app1] Knock: ")
    assert "Connection refused" in ran.stdout.splitlines()[0]


def test_everything_from_one_v_on(project: Any) -> None:
    project.play(TASKS)
    printed = project.in_pipe("-v").stdout
    for words in (
        "PLAY [A play]",
        "TASK [Change something]",
        "changed: [app1]",
        "skipping: [app1]",
        "FAILED - RETRYING",
    ):
        assert words in printed
