# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules are called on a real host: through the library that is settled there, and Ansible's way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .fleet import Fleet

HOST = "app1"
LIBRARIES = "/var/lib/convoy/lib"
HOW = f"ls {LIBRARIES} 2>/dev/null || true"
INFO = "convoy.rollout.release_info"


@pytest.fixture
def unsettled(fleet: Fleet) -> Fleet:
    """A host that has no library yet."""
    fleet.shell(HOST, f"rm -rf {LIBRARIES}")
    return fleet


def facts(fleet: Fleet, *options: str, **arguments: Any) -> dict[str, Any]:
    """What release_info says, without what differs from one call to the next."""
    result = fleet.module(HOST, INFO, {"component": "convoy-test-none", **arguments}, *options)
    for changing in ("clock", "clock_skew", "free_bytes", "free_inodes", "invocation", "warned"):
        result.pop(changing, None)
    return result


def test_the_library_is_settled_once(unsettled: Fleet) -> None:
    first = facts(unsettled)
    (library,) = unsettled.shell(HOST, HOW).split()
    inode = unsettled.shell(HOST, f"stat -c %i {LIBRARIES}/{library}")
    assert facts(unsettled) == first
    assert unsettled.shell(HOST, f"stat -c %i {LIBRARIES}/{library}") == inode
    assert first["present"] is False


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("-e", '{"ansible_pipelining": false}'), "modules are copied without pipelining"),
        (("-e", '{"ansible_become": true, "ansible_become_user": "root", "ansible_become_method": "su"}'), "su"),
        (("-e", '{"ansible_python_interpreter": "auto_silent"}'), "the first Python that is found"),
    ],
)
def test_every_way_has_the_same_result(unsettled: Fleet, options: tuple[str, ...], why: str) -> None:
    other = facts(unsettled, *options)
    assert other == facts(unsettled), why


def test_a_library_that_finds_no_place_is_not_needed(unsettled: Fleet) -> None:
    unsettled.shell(HOST, f"touch {LIBRARIES}")
    try:
        assert facts(unsettled)["present"] is False
    finally:
        unsettled.shell(HOST, f"rm {LIBRARIES}")


def test_without_root_nothing_is_settled(unsettled: Fleet) -> None:
    unsettled.shell(HOST, "id convoy-nobody 2>/dev/null || useradd --create-home convoy-nobody")
    become = {"ansible_become": True, "ansible_become_user": "convoy-nobody", "ansible_become_method": "su"}
    result = unsettled.module(HOST, INFO, {"component": "hello"}, "-e", json.dumps(become))
    assert "release_info needs root on the host" in result["msg"]
    assert unsettled.shell(HOST, HOW) == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"root": "/srv/hello"}, "missing required arguments: component"),
        (
            {"component": "hello", "rooot": "/srv"},
            "Unsupported parameters for (convoy.rollout.release_info) module: rooot",
        ),
        ({"component": "../x"}, "component '../x' is not a name"),
        ({"component": "hello", "root": "~"}, "root '/root' must be an absolute path at least two levels deep"),
    ],
)
def test_what_cannot_be_right_is_refused_as_ansible_does(fleet: Fleet, arguments: Any, words: str) -> None:
    result = fleet.module(HOST, INFO, arguments)
    assert (result["failed"], words in result["msg"]) == (True, True), result["msg"]


def test_a_module_that_breaks_says_how(unsettled: Fleet) -> None:
    facts(unsettled)
    unsettled.shell(HOST, f"find {LIBRARIES} -name info.py -exec sh -c 'echo 1/0 > $0' {{}} \\;")
    result = unsettled.module(HOST, INFO, {"component": "hello"})
    assert "release_info ended without a result, exit code 1: ZeroDivisionError: division by zero" in result["msg"]
    assert "Traceback" in result["module_stderr"]
    unsettled.shell(HOST, f"rm -rf {LIBRARIES}")
