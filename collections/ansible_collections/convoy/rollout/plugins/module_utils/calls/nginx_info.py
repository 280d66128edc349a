# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module nginx_info: how the servers of an upstream block are."""

from __future__ import annotations

import contextlib
import re

from ansible_collections.convoy.rollout.plugins.module_utils import nginx
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, TrafficError, failure
from ansible_collections.convoy.rollout.plugins.module_utils.nginx_process import Nginx
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

SHARED = {
    "config": {"type": "path", "required": True},
    "upstream": {"type": "str", "required": True},
    "probe": {"type": "str", "default": ""},
    "executable": {"type": "path", "default": "/usr/sbin/nginx"},
    "main": {"type": "path", "default": "/etc/nginx/nginx.conf"},
    "pid_file": {"type": "path", "default": "/run/nginx.pid"},
    "fence": {"type": "path", "default": "/var/lib/convoy/nginx"},
}


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return {**SHARED, "servers": {"type": "list", "elements": "str"}}


def upstream(params: dict[str, Any], hold: nginx.Hold = contextlib.nullcontext) -> nginx.Upstream:
    """The upstream block that is asked for. TrafficError for values that would mean nothing."""
    name, probe = params["upstream"], params["probe"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise TrafficError(f"upstream is {name!r}: Convoy takes letters, digits and _ . - in a name, no sign first")
    if probe and not (probe.startswith(("http://", "https://")) and nginx.SERVER in probe):
        raise TrafficError(
            f"probe is {probe!r}: write a URL with {nginx.SERVER} where the server's address belongs, such as "
            f"http://{nginx.SERVER}/healthz"
        )
    process = Nginx(params["executable"], params["main"], params["pid_file"], Clock())
    return nginx.Upstream(process, params["config"], name, probe, params["fence"], hold)


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Tell, or fail with what stands in the way."""
    try:
        return {"changed": False, "servers": nginx.as_dicts(upstream(params).look(params["servers"]))}
    except ConvoyTargetError as error:
        return failure(error)
