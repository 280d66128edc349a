# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback preload, in real runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

PLUGINS = "ansible_collections.convoy.rollout.plugins"
# An action in place of the collection's own: it tells what its worker has found imported.
LOADED = """
import sys

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        loaded = [name in sys.modules for name in self._task.args["names"]]
        return {"changed": False, "failed": True, "msg": f"loaded: {loaded}"}
"""

ROAD = "- name: Road\n  convoy.rollout.road: {}\n  ignore_errors: true"


def found(project: Any, before: str, *names: str, **variables: str) -> str:
    """What a run says of these modules, in a worker of the first host, after a task that fails."""
    (project.path / "action_plugins" / "look.py").write_text(LOADED, encoding="utf-8")
    look = f"- name: Look\n  look:\n    names: {json.dumps(names)}"
    project.play(f"{before}\n{look}" if before else look)
    return str(project.in_pipe("--limit", "app1", "-e", json.dumps(variables)).stdout)


@pytest.mark.parametrize(
    ("callbacks", "loaded"),
    [
        ("convoy.rollout.preload, convoy.rollout.progress", "[True, False]"),
        ("convoy.rollout.progress", "[False, False]"),
    ],
)
def test_workers_find_imported_what_a_task_has_needed_and_no_more(project: Any, callbacks: str, loaded: str) -> None:
    project.settings(callbacks_enabled=callbacks, stdout_callback="convoy.rollout.terse")
    assert f"loaded: {loaded}" in found(project, ROAD, f"{PLUGINS}.action.release", f"{PLUGINS}.action.watch")


@pytest.mark.parametrize(("state", "loaded"), [("checked", "[True]"), ("closed", "[False]")])
def test_while_the_request_is_checked_there_is_time_for_what_the_next_task_needs(
    project: Any, state: str, loaded: str
) -> None:
    project.settings(callbacks_enabled="convoy.rollout.preload", stdout_callback="convoy.rollout.terse")
    check = f"- name: Check\n  convoy.rollout.rollout:\n    state: {state}\n  ignore_errors: true"
    assert f"loaded: {loaded}" in found(project, check, f"{PLUGINS}.action.release_info")


@pytest.mark.parametrize(
    ("url", "loaded"),
    [
        ("postgresql+psycopg://convoy@db.example/convoy", "[True, True]"),
        ("{{ 'somewhere' }}", "[True, True]"),
        ("sqlite:////var/lib/convoy/ledger.db", "[False, False]"),
    ],
)
def test_the_driver_of_a_server_is_imported_where_the_ledger_is_on_one(project: Any, url: str, loaded: str) -> None:
    project.settings(callbacks_enabled="convoy.rollout.preload", stdout_callback="convoy.rollout.terse")
    names = ("psycopg", "sqlalchemy.dialects.postgresql")
    assert f"loaded: {loaded}" in found(project, ROAD, *names, environment_ledger_url=url)


@pytest.mark.parametrize(
    ("adapter", "loaded"),
    [("none", "[False, False]"), ("nginx", "[False, True]"), ("{{ 'haproxy' }}", "[True, True]")],
)
def test_an_adapter_is_imported_where_it_may_be_used(project: Any, adapter: str, loaded: str) -> None:
    project.settings(callbacks_enabled="convoy.rollout.preload", stdout_callback="convoy.rollout.terse")
    names = (f"{PLUGINS}.action.haproxy", f"{PLUGINS}.action.nginx")
    assert f"loaded: {loaded}" in found(project, ROAD, *names, traffic_adapter=adapter)


@pytest.mark.parametrize(("step", "loaded"), [("read", "[True, False]"), ("stage", "[True, True]")])
def test_a_step_of_all_hosts_at_once_needs_what_each_of_them_needs(project: Any, step: str, loaded: str) -> None:
    project.settings(callbacks_enabled="convoy.rollout.preload", stdout_callback="convoy.rollout.terse")
    at_once = f"- name: At once\n  convoy.rollout.at_once:\n    step: {step}\n  ignore_errors: true"
    names = (f"{PLUGINS}.plugin_utils.courier", f"{PLUGINS}.action.release")
    assert f"loaded: {loaded}" in found(project, at_once, *names)
