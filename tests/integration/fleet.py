# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the lab, reached as a person reaches them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Fleet:
    """The hosts of an inventory. Modules are called by Ansible, all around them by plain ssh, which is faster."""

    def __init__(self, inventory: Path) -> None:
        self.inventory = inventory
        self._sockets = tempfile.TemporaryDirectory(prefix="convoy-")
        command = [str(BIN / "ansible-inventory"), "-i", str(inventory), "--list"]
        listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
        self.variables: dict[str, dict[str, str]] = json.loads(listed.stdout)["_meta"]["hostvars"]

    def address(self, host: str) -> str:
        """Where a host is reached from here."""
        return self.variables[host]["ansible_host"]

    def module(self, host: str, name: str, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
        """The result of a module on one host, called with the project's own settings; `warned` is what Ansible said."""
        command = [str(BIN / "ansible"), "-i", str(self.inventory), host, "-m", name, "-a", json.dumps(arguments)]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        called = subprocess.run(
            [*command, *options], cwd=TOP, env=environment, capture_output=True, text=True, check=False
        )
        found = re.search(r"^\S+ \| (\S+) => (\{.*)", called.stdout, re.MULTILINE | re.DOTALL)
        if not found:
            raise AssertionError(f"{name} on {host} gave no result:\n{called.stdout}\n{called.stderr}")
        warned = " ".join(called.stderr.split())
        return {"failed": found[1] == "FAILED!", "warned": warned, **json.loads(found[2])}

    def shell(self, host: str, script: str, given: str = "", port: int = 22) -> str:
        """What a shell script prints on a host; `given` is its input. Fails when the script does."""
        known = self.variables[host]
        shared = ["ControlMaster=auto", "ControlPersist=60", f"ControlPath={self._sockets.name}/%C"]
        named = [f"HostKeyAlias={known['ansible_host']}", *shared]
        options = ["-i", known["ansible_ssh_private_key_file"], *shlex.split(known["ansible_ssh_common_args"])]
        options += [part for option in named for part in ("-o", option)]
        login = f"{known['ansible_user']}@{known['ansible_host']}"
        called = subprocess.run(
            ["ssh", "-p", str(port), *options, login, script], input=given, capture_output=True, text=True, check=False
        )
        if called.returncode:
            raise AssertionError(f"on {host}: {script}\n{called.stdout}\n{called.stderr}")
        return called.stdout
