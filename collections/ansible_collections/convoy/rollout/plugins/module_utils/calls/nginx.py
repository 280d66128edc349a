# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module nginx: drain servers, put them back, switch colours."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import fence, nginx, servers
from ansible_collections.convoy.rollout.plugins.module_utils.calls import nginx_info
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, failure
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return {
        **nginx_info.SHARED,
        "servers": {"type": "list", "elements": "str", "required": True},
        "state": {"type": "str", "choices": ["drained", "ready", "switched"], "required": True},
        "away": {"type": "list", "elements": "str", "default": []},
        "timeout": {"type": "float", "default": 30},
        "min_up": {"type": "int", "default": 1},
        "force": {"type": "bool", "default": False},
        "token": {"type": "int", "no_log": False},
        "rollout": {"type": "str", "default": ""},
    }


def reach(upstream: nginx.Upstream, params: dict[str, Any], dry: bool) -> nginx.Outcome:
    """Bring the servers to the state that is asked for."""
    names, timeout, min_up = params["servers"], params["timeout"], params["min_up"]
    with upstream.hold():
        pass  # one that was overtaken need not wait to be told
    if params["state"] == "drained":
        return nginx.drain(upstream, names, timeout, min_up, params["force"], dry)
    if params["state"] == "ready":
        return nginx.ready(upstream, names, timeout, dry)
    return nginx.switch(upstream, names, params["away"], timeout, min_up, dry)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Reach the state, or fail with what stands in its way."""
    upstream = None
    try:
        servers.check(params, ("timeout", "min_up"), "upstream block")
        fenced = {**params, "backend": params["upstream"]}
        upstream = nginx_info.upstream(params, lambda: fence.held(fenced, Clock(), check_mode))
        outcome = reach(upstream, params, check_mode)
    except ConvoyTargetError as error:
        return {"changed": upstream is not None and upstream.touched, **failure(error)}
    return dict(outcome.as_dict(), warnings=list(outcome.warnings))
