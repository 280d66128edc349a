# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml with component_transfer: hosts get what they lack, or fetch it, and are left alone if they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .environment import Environment
from .transfers import web_server

TELL = """---
- name: Keep how the release came
  ansible.builtin.copy:
    content: "{{ component_staged.transfer | to_json }}"
    dest: "{{ rollout_hooks.after_stage | dirname }}/{{ inventory_hostname }}.json"
    mode: "0600"
  delegate_to: localhost
"""


def deploy(environment: Environment, version: str, **variables: Any) -> list[dict[str, Any]]:
    """Deploy to few hosts; what it took to bring each of them the release."""
    tell = environment.directory / version / "tell.yml"
    tell.parent.mkdir()
    tell.write_text(TELL)
    hooks = {"rollout_hooks": {"after_stage": str(tell)}}
    ended = environment.deploy(version, **environment.few, **hooks, **variables)
    assert ended.rc == 0, ended.said
    return [json.loads(told.read_text()) for told in tell.parent.glob("*.json")]


def test_a_delta_and_then_a_fetch(on_1_0_0: Environment) -> None:
    fleet, blobs = on_1_0_0.fleet, on_1_0_0.directory / "depot" / "blobs" / "sha256"
    told = deploy(on_1_0_0, "1.1.0", component_transfer="delta")
    assert {(one["way"], one["calls"], one["fallback"]) for one in told} == {("delta", 1, None)}
    assert len(told) == len(on_1_0_0.hosts[:3])
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
    with web_server(fleet, Path(blobs), breaks_after=1000) as web:
        told = deploy(on_1_0_0, "1.6.0", component_transfer="pull", component_artifact_url=web.url)
    assert {(one["way"], one["calls"]) for one in told} == {("pull", 1)}
    looks = on_1_0_0.see("1.6.0", *on_1_0_0.hosts[:3])
    assert all(len(look.releases) == 3 for look in looks.values())


def test_an_artifact_that_nobody_serves(on_1_0_0: Environment) -> None:
    """Nothing of a host is touched that could not fetch its release."""
    url = f"http://{on_1_0_0.fleet.address('app1')}:1/{{sha256}}"
    with on_1_0_0.untouched(*on_1_0_0.hosts):
        ended = on_1_0_0.deploy(
            "1.1.0", component_transfer="pull", component_artifact_url=url, component_pull={"retries": 0}
        )
    assert ended.rc != 0
    assert "the artifact cannot be fetched from http://" in ended.said
    assert "no byte came in 1 tries, which is the limit (retries)" in ended.said
