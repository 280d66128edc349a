# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit of a container, and what component_container may say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import names
from ansible_collections.convoy.rollout.plugins.plugin_utils.container_unit import parse, unit
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError

ROOT = "/srv/hello"


def line(key: str, asked: dict[str, Any]) -> str:
    """A line of the unit."""
    content = unit("hello", ROOT, asked)["content"]
    return next(one.partition("=")[2] for one in content.splitlines() if one.startswith(key + "="))


def test_all_that_can_be_said() -> None:
    asked = {
        "ports": ["127.0.0.1:8080:80"],
        "volumes": ["./etc/hello.json:/etc/hello.json:ro", "/srv/hello/shared:/data", "named:/cache"],
        "environment": {"B": 2, "A": "two words"},
        "environment_files": ["./etc/secret.env"],
        "user": "1000:1000",
        "network": "host",
        "command": ["serve", "--fast", "100%", "$HOME", 'say "hi"'],
        "args": ["--memory=1g", "--read-only"],
        "ready": "notify",
        "stop_timeout": 30,
    }
    made = unit("hello", ROOT, asked)
    assert names.unit(made["name"]) == "hello.service"
    assert line("ExecStart", asked) == (
        "/usr/bin/podman run --rm --replace --detach --pull=never --name=hello --label=io.convoy.component=hello "
        "--cgroups=no-conmon --sdnotify=container --log-driver=passthrough --stop-timeout=30 "
        "--publish=127.0.0.1:8080:80 --volume=/srv/hello/current/etc/hello.json:/etc/hello.json:ro "
        "--volume=/srv/hello/shared:/data --volume=named:/cache --env-file=/srv/hello/current/etc/secret.env "
        '"--env=A=two words" --env=B=2 --user=1000:1000 --network=host --memory=1g --read-only ${CONVOY_IMAGE} '
        'serve --fast 100%% "$$HOME" "say \\"hi\\""'
    )
    assert line("ExecStop", asked) == "/usr/bin/podman stop --ignore --time 30 hello"
    assert line("TimeoutStopSec", asked) == "90"
    assert line("RequiresMountsFor", asked) == '"/srv/hello" /var/lib/containers'
    assert line("EnvironmentFile", asked) == "/srv/hello/current/convoy-image.env"


def test_nothing_need_be_said() -> None:
    assert line("ExecStart", {}).endswith("--log-driver=passthrough --stop-timeout=10 ${CONVOY_IMAGE}")
    assert "--sdnotify=conmon" in line("ExecStart", {})


def test_the_same_is_the_same_text() -> None:
    assert unit("hello", ROOT, {"environment": {"A": "1", "B": "2"}}) == unit(
        "hello", f"{ROOT}/", {"environment": {"B": "2", "A": "1"}}
    )


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("podman", "component_container: 'podman' is no mapping"),
        ({"port": []}, "component_container: unknown key 'port': did you mean 'ports'?"),
        ({"ports": "80:80"}, "component_container.ports: '80:80' is no list"),
        ({"ports": [True]}, "component_container.ports: True is no string: write it in quotes"),
        ({"ports": [1.5]}, "component_container.ports: 1.5 is no string: write it in quotes"),
        ({"volumes": ["/data"]}, "component_container.volumes: '/data' is not of the form SOURCE:/PATH"),
        ({"volumes": ["/data:data"]}, "component_container.volumes: '/data:data' is not of the form"),
        ({"environment": ["A=1"]}, "component_container.environment: ['A=1'] is no mapping"),
        ({"environment": {"A B": "1"}}, "component_container.environment: 'A B' is not the name of a variable"),
        ({"environment": {"A": "1\n2"}}, "component_container.environment.A: '1\\n2' holds a control character"),
        ({"environment": {"A": False}}, "component_container.environment.A: False is no string"),
        ({"user": None}, "component_container.user: None is no string"),
        ({"args": ["alpine"]}, "component_container.args: 'alpine' is not an option of podman run in one word"),
        ({"args": ["--name=x"]}, "component_container.args: '--name=x' is set by Convoy itself"),
        ({"args": ["--rm"]}, "component_container.args: '--rm' is set by Convoy itself"),
        ({"ready": "notfy"}, "component_container.ready: unknown value 'notfy': did you mean 'notify'?"),
        ({"stop_timeout": "10"}, "component_container.stop_timeout: '10' is not a number of seconds"),
        ({"stop_timeout": -1}, "component_container.stop_timeout: -1 is not a number of seconds"),
        ({"stop_timeout": True}, "component_container.stop_timeout: True is not a number of seconds"),
    ],
)
def test_what_cannot_be_is_refused(asked: Any, complaint: str) -> None:
    with pytest.raises(SpecError, match=re.escape(complaint)):
        parse(asked)


def test_a_root_that_would_break_the_unit_is_refused() -> None:
    with pytest.raises(SpecError, match="holds a control character"):
        unit("hello", "/srv/x\nExecStartPre=/bin/sh", {})
