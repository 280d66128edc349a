# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module drift_info: what of a release is not as it was deployed."""

from __future__ import annotations

import os

from ansible_collections.convoy.rollout.plugins.module_utils import drift, names
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ConvoyTargetError,
    InputError,
    PrivilegeError,
    failure,
)
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import Systemd
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    return {
        "component": {"type": "str", "required": True},
        "root": {"type": "path"},
        "release": {"type": "str"},
        "digests": {"type": "bool", "default": True},
        "seconds": {"type": "float", "default": 300.0},
        "ignored": {"type": "list", "elements": "str", "default": []},
    }


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Everything that is returned."""
    if os.geteuid() != 0:
        raise PrivilegeError("convoy.rollout.drift_info needs root on the host: run it with become: true")
    if params["seconds"] <= 0:
        raise InputError(f"seconds is {params['seconds']:g}: must be more than 0")
    component = names.component(params["component"])
    if params["release"] is not None:
        names.release(params["release"])
    host = Host(Tree(names.root(params["root"] or f"/srv/{component}"), component), Systemd(), Clock())
    asked = drift.Request(params["release"], params["digests"], params["seconds"], params["ignored"])
    return dict(drift.look(host, asked), busy=host.tree.holder())


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Look, and tell."""
    try:
        return dict(look(params), changed=False)
    except (ConvoyTargetError, OSError) as error:
        return failure(error)
