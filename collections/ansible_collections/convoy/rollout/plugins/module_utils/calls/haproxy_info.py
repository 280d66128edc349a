# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module haproxy_info: how the servers of a backend are."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import haproxy
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, failure
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return {
        "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        "backend": {"type": "str", "required": True},
        "servers": {"type": "list", "elements": "str"},
        "statistics": {"type": "bool", "default": False},
    }


def look(params: dict[str, Any]) -> haproxy.Outcome:
    """See how the servers are."""
    backend = haproxy.Backend(haproxy.Runtime(params["socket"]), params["backend"])
    servers = backend.look() if params["servers"] is None else backend.pick(params["servers"])
    extra = {"statistics": backend.statistics} if params["statistics"] else {}
    return haproxy.unchanged(servers, **extra)


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Tell, or fail with what HAProxy says."""
    try:
        return look(params).as_dict()
    except ConvoyTargetError as error:
        return failure(error)
