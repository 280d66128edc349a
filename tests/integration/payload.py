# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of a release as one program, which runs on a host as they do when Ansible sends them."""

from __future__ import annotations

import io
import itertools
import zipfile
from pathlib import Path

import ansible

PACKAGE = "ansible_collections/convoy/rollout/plugins"
PLUGINS = Path(__file__).parents[2] / "collections" / PACKAGE

CALL = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args

module = importlib.import_module("ansible_collections.convoy.rollout.plugins.modules." + sys.argv[1])
with patch_module_args(json.load(sys.stdin)):
    module.main()
"""


def modules() -> bytes:
    """The modules and all that they import, as one program: `MODULE < arguments > result`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for top, package in ((Path(ansible.__file__).parent, "ansible"), (PLUGINS, PACKAGE)):
            for source in (
                *top.glob("release.py"),
                *top.glob("module_utils/**/*.py"),
                *top.glob("modules/release*.py"),
                *top.glob("modules/drift_info.py"),
            ):
                archive.write(source, f"{package}/{source.relative_to(top)}")
        for package in ("ansible", *itertools.accumulate(PACKAGE.split("/"), "{}/{}".format)):
            archive.writestr(f"{package}/__init__.py", "")
        for package in ("modules", "module_utils"):
            archive.writestr(f"{PACKAGE}/{package}/__init__.py", "")
        archive.writestr("__main__.py", CALL)
    return packed.getvalue()
