# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Import what every worker of a rollout needs before Ansible forks the first of them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Import once what every worker of a rollout needs
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Ansible forks a worker for every task of every host, and each imports what its action plugin needs. What the main
    process has imported before costs the workers nothing.
  - It prints nothing and changes nothing. Without it, a rollout is slower.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
"""

import contextlib
from importlib import import_module

from ansible.plugins.callback import CallbackBase

# Those that run once a host; what runs once a rollout needs nothing more.
_ACTIONS = ("admission", "haproxy", "haproxy_info", "release", "release_info", "report", "rollout", "verdict", "watch")
_LIBRARIES = (
    "ansible.module_utils.common.arg_spec",
    "ansible.plugins.action.normal",
    "ansible.plugins.connection.ssh",
    "ansible.plugins.lookup.template",
    "ansible.plugins.shell.sh",
    "sqlalchemy.dialects.sqlite",
)


class CallbackModule(CallbackBase):
    """``convoy.rollout.preload``"""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "convoy.rollout.preload"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        for name in (*_LIBRARIES, *(f"ansible_collections.convoy.rollout.plugins.action.{name}" for name in _ACTIONS)):
            with contextlib.suppress(ImportError):  # whoever needs it says better what is missing
                import_module(name)
