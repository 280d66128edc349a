# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback preload, in real runs."""

from __future__ import annotations

from typing import Any

import pytest

LOADED = """
import sys

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        names = ("ansible_collections.convoy.rollout.plugins.action.admission", "sqlalchemy.dialects.sqlite.pysqlite")
        return {"changed": False, "failed": True, "msg": f"loaded: {[name in sys.modules for name in names]}"}
"""


@pytest.mark.parametrize(
    ("callbacks", "loaded"),
    [
        ("convoy.rollout.preload, convoy.rollout.progress", "[True, True]"),
        ("convoy.rollout.progress", "[False, False]"),
    ],
)
def test_a_worker_finds_imported_what_the_callback_imports(project: Any, callbacks: str, loaded: str) -> None:
    (project.path / "action_plugins" / "look.py").write_text(LOADED, encoding="utf-8")
    project.settings(callbacks_enabled=callbacks, stdout_callback="convoy.rollout.terse")
    project.play("- name: Look\n  look: {}")
    assert f"loaded: {loaded}" in project.in_pipe("--limit", "app1").stdout
