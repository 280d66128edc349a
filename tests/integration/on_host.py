# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A component of one real host, whose modules are called there, and killed where that is asked for."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath
from typing import Any

from .payload import CALL

# Lets a module be killed when it has done the step that follows its name.
KILLED = """
import importlib, os, signal, sys
sys.path.insert(0, "/run/convoy-test-modules.zip")
host = importlib.import_module("ansible_collections.convoy.rollout.plugins.module_utils.host").Host
done = host.done

def killed(self, step):
    done(self, step)
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

host.done = killed
"""


class OnHost:
    """Where it is, and calls of the modules for it. `killed_at`: the step at which the next calls are killed."""

    def __init__(self, fleet: Any, host: str, root: str, port: int) -> None:
        self.fleet, self.host, self.root, self.port = fleet, host, root, port
        self.killed_at = ""

    def shell(self, script: str, given: str = "") -> str:
        """What a script prints on the host."""
        printed: str = self.fleet.shell(self.host, script, given)
        return printed.strip()

    def run(self, module: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a module; nothing said: it was killed."""
        known = {"component": PurePosixPath(self.root).name, "root": self.root, **arguments}
        program = f"-c {shlex.quote(KILLED + CALL)}" if self.killed_at else "/run/convoy-test-modules.zip"
        said = self.shell(f"python3 {program} {module} {self.killed_at} || true", json.dumps(known))
        return {"failed": not said, **json.loads(said or "{}")}

    def call(self, state: str, **arguments: Any) -> dict[str, Any]:
        """Call the module release."""
        known: dict[str, Any] = {"rollout": "r-1", "token": 1}
        if state in ("active", "reverted"):
            known["probes"] = [
                {"kind": "http", "url": f"http://127.0.0.1:{self.port}/healthz"},
                {"kind": "version", "url": f"http://127.0.0.1:{self.port}/"},
            ]
            known["gate"] = {"interval": 0.2, "deadline": 4, "timeout": 2}
        return self.run("release", {**known, "state": state, **arguments})
