# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx's servers and workers are taken for. What becomes of them is tested with a real nginx."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import nginx, nginx_process
from ansible_collections.convoy.rollout.plugins.module_utils.process import Child

UP = nginx.Server("a", "ready", True, True, "answered 200", 3, False, 1, False)
STATES = [
    (UP, "up"),
    (UP._replace(healthy=False), "down"),
    (UP._replace(admin="drain", held=True), "draining"),
    (UP._replace(admin="drain"), "drained"),
    (UP._replace(admin="drain", healthy=False), "drained"),
    (UP._replace(loaded=False), "unloaded"),
    (UP._replace(loaded=False, admin="drain"), "unloaded"),
]


@pytest.mark.parametrize(("server", "state"), STATES)
def test_the_state_of_a_server(server: nginx.Server, state: str) -> None:
    assert server.state == state


ADDRESSES = [
    ("10.0.0.1:8080", ("10.0.0.1", 8080)),
    ("app1", ("app1", 80)),
    ("app1.example:81", ("app1.example", 81)),
    ("[2001:db8::1]:8080", ("2001:db8::1", 8080)),
    ("[2001:db8::1]", ("2001:db8::1", 80)),
]


@pytest.mark.parametrize(("name", "address"), ADDRESSES)
def test_the_address_of_a_server(name: str, address: tuple[str, int]) -> None:
    assert nginx.split_address(name) == address


def workers(*told: tuple[int, str]) -> nginx_process.Workers:
    return {(pid, 100): Child(pid, 100, f"nginx: worker process{title}") for pid, title in told}


BEFORE = workers((1, ""), (2, " is shutting down"))
TAKEN = [
    (BEFORE, False),
    (workers((1, ""), (2, ""), (3, "")), False),
    (workers((1, " is shutting down"), (3, "")), True),
    (workers((3, ""), (4, "")), True),
    (workers((1, " is shutting down")), False),
    (workers(), False),
]


@pytest.mark.parametrize(("now", "taken"), TAKEN)
def test_when_a_reload_has_been_done(now: nginx_process.Workers, taken: bool) -> None:
    assert nginx_process.is_taken(BEFORE, now) is taken


def test_a_worker_with_the_number_of_an_old_one_is_new() -> None:
    assert nginx_process.is_taken(BEFORE, {(1, 200): Child(1, 200, "nginx: worker process")})
