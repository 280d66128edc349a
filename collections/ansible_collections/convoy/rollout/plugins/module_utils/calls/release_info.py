# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module release_info: how a host is."""

from __future__ import annotations

import os

from ansible_collections.convoy.rollout.plugins.module_utils import info, names
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, PrivilegeError, failure
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import Systemd
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def arguments() -> dict[str, Any]:
    """The argument spec."""
    from ansible_collections.convoy.rollout.plugins.module_utils import gate

    show = {
        "kind": {"type": "str", "required": True, "choices": ["config", "unit"]},
        "name": {"type": "str", "required": True},
        "secret": {"type": "bool", "default": False},
    }
    own = {
        "component": {"type": "str", "required": True},
        "root": {"type": "path"},
        "units": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"name": {"type": "str", "required": True}},
        },
        "verify": {"type": "bool", "default": False},
        "show": {"type": "list", "elements": "dict", "default": [], "options": show},
        "dependencies": gate.arguments()["probes"],
    }
    return dict(gate.arguments(), **own)


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Everything that is returned."""
    if os.geteuid() != 0:
        raise PrivilegeError("convoy.rollout.release_info needs root on the host: run it with become: true")
    component = names.component(params["component"])
    host = Host(Tree(names.root(params["root"] or f"/srv/{component}"), component), Systemd(), Clock())
    facts = info.look(host, [names.unit(unit["name"]) for unit in params["units"]], params["verify"])
    facts["health"] = info.health(host, facts["active"], params["probes"] or [], params["gate"] or {})
    facts["dependencies"] = info.dependencies(host, params["dependencies"] or [])
    if params["show"]:
        facts["shown"] = info.shown(host, facts["active"], params["show"])
    facts["token"] = host.tree.token().value
    facts["place"] = host.tree.place()
    facts["free_bytes"], facts["free_inodes"] = host.tree.free()
    facts["clock"] = host.clock.wall()
    return facts


def run(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """Look, and tell."""
    try:
        return dict(look(params), changed=False)
    except (ConvoyTargetError, OSError) as error:
        return failure(error)
