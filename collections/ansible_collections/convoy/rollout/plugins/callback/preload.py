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
    process has imported before costs the workers nothing. The same goes for the templates of the collection's roles.
  - It prints nothing and changes nothing. Without it, a rollout is slower.
requirements:
  - Enabled with C(callbacks_enabled) in C(ansible.cfg).
"""

import contextlib
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from ansible.plugins.callback import CallbackBase

_PLUGINS = "ansible_collections.convoy.rollout.plugins"
# Those that run once a host; what runs once a rollout needs nothing more.
_ACTIONS = (
    "admission", "haproxy", "haproxy_info", "nginx", "release", "release_info", "report", "road", "rollout", "verdict",
    "watch",
)  # fmt: skip
_CALLS = ("haproxy", "haproxy_info", "health_gate", "nginx", "release", "release_info")
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
        # What Ansible makes stays, or is gone at once: looking for garbage among it takes a tenth of its time.
        gc.set_threshold(100_000, 50, 50)
        sys.meta_path.insert(0, Compiled(Path(__file__).parents[1]))
        actions = [f"{_PLUGINS}.action.{name}" for name in _ACTIONS]
        calls = [f"{_PLUGINS}.module_utils.calls.{name}" for name in _CALLS]
        for name in (*_LIBRARIES, *actions, *calls):
            with contextlib.suppress(ImportError):  # whoever needs it says better what is missing
                import_module(name)
        with contextlib.suppress(ImportError):
            import_module(f"{_PLUGINS}.plugin_utils.courier").digest()  # packs what hosts are sent
        with contextlib.suppress(ImportError, AttributeError):  # without Ansible's inner parts it is slower, no more
            import_module(f"{_PLUGINS}.plugin_utils.compiled").remember_templates()


class Compiled(MetaPathFinder):
    """Finds this collection's modules for Python's usual loader, which keeps what it compiled: Ansible's does not."""

    def __init__(self, plugins: Path) -> None:
        self._plugins = plugins

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module lies; None for packages, and for all that is not of this collection."""
        if not fullname.startswith(f"{_PLUGINS}."):
            return None
        source = self._plugins.joinpath(*fullname[len(_PLUGINS) + 1 :].split(".")).with_suffix(".py")
        return spec_from_file_location(fullname, source) if source.is_file() else None
