# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module haproxy: drain servers, put them back, switch colours."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import fence, haproxy, servers
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, failure
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return {
        "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        "backend": {"type": "str", "required": True},
        "servers": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["drained", "ready", "switched", "watched"], "required": True},
        "away": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "float", "default": 30},
        "min_up": {"type": "int", "default": 1},
        "force": {"type": "bool", "default": False},
        "duration": {"type": "float", "default": 10},
        "token": {"type": "int", "no_log": False},
        "rollout": {"type": "str", "default": ""},
        "fence": {"type": "path", "default": "/var/lib/convoy/haproxy"},
    }


def reach(backend: haproxy.Backend, params: dict[str, Any], dry: bool) -> haproxy.Outcome:
    """Bring the servers to the state that is asked for."""
    names, clock = params["servers"], Clock()
    if params["state"] in ("drained", "ready"):
        with fence.held(params, clock, dry):
            pass  # others need not wait until sessions have ended, or a server is healthy
    if params["state"] == "drained":
        return haproxy.drain(backend, clock, names, params["timeout"], params["min_up"], params["force"], dry)
    if params["state"] == "ready":
        return haproxy.ready(backend, clock, names, params["timeout"], params["force"], dry)
    if params["state"] == "switched":
        with fence.held(params, clock, dry):
            return haproxy.switch(backend, clock, names, params["away"], params["timeout"], params["min_up"], dry)
    return haproxy.watch(backend, clock, names, params["duration"], dry)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Reach the state, or fail with what HAProxy says."""
    backend = None
    try:
        servers.check(params, ("timeout", "min_up", "duration"), "backend")
        backend = haproxy.Backend(haproxy.Runtime(params["socket"]), params["backend"])
        outcome = reach(backend, params, check_mode)
    except ConvoyTargetError as error:
        return {"changed": backend is not None and backend.touched, **failure(error)}
    return dict(outcome.as_dict(), warnings=list(outcome.warnings))
