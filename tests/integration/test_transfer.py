# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml with component_transfer: hosts get what they lack, or fetch it, and are left alone if they cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .environment import Ended, Environment
from .transfers import web_server

TELL = """---
- name: Tell how the release came
  ansible.builtin.debug:
    msg: "came: {{ component_staged.transfer | to_json }}"
"""


def deploy(environment: Environment, version: str, **variables: Any) -> Ended:
    """Deploy to few hosts, which tell what it took to bring them the release."""
    tell = environment.directory / "tell.yml"
    tell.write_text(TELL)
    hooks = {"rollout_hooks": {"after_stage": str(tell)}}
    return environment.deploy(version, **environment.few, **hooks, **variables)


def came(ended: Ended) -> list[dict[str, Any]]:
    """What the hosts told."""
    assert ended.rc == 0, ended.said
    return [json.loads(told.replace('\\"', '"')) for told in re.findall(r"came: (\{.*\})", ended.said)]


def test_a_delta_and_then_a_fetch(on_1_0_0: Environment) -> None:
    fleet, blobs = on_1_0_0.fleet, on_1_0_0.directory / "depot" / "blobs" / "sha256"
    told = came(deploy(on_1_0_0, "1.1.0", component_transfer="delta"))
    assert {(one["way"], one["calls"], one["fallback"]) for one in told} == {("delta", 1, None)}
    assert len(told) == len(on_1_0_0.hosts[:3])
    on_1_0_0.see("1.1.0", *on_1_0_0.hosts[:3])
    with web_server(fleet, Path(blobs), breaks_after=1000) as web:
        told = came(deploy(on_1_0_0, "1.6.0", component_transfer="pull", component_artifact_url=web.url))
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


def test_what_cannot_be_fetched_is_refused_before_a_host_is_asked(on_1_0_0: Environment) -> None:
    with on_1_0_0.untouched():
        for given, words in (
            ({}, "component_artifact_url is not set, and component_transfer is pull"),
            ({"component_artifact_url": "https://d/{sha265}"}, "did you mean 'sha256'?"),
            ({"component_artifact_url": "https://d/", "component_pull": {"timout": 1}}, "component_pull: timout"),
        ):
            ended = on_1_0_0.deploy("1.1.0", component_transfer="pull", **given)
            assert ended.rc != 0
            assert words in " ".join(ended.said.split())
        ended = on_1_0_0.deploy("1.1.0", component_transfer="dleta")
        assert "component_transfer: unknown value 'dleta': did you mean 'delta'?" in " ".join(ended.said.split())
