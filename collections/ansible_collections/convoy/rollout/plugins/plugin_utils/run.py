# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is running: identity of a controller process, whether another one still lives, and how one is begun."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run


def this_run() -> Run:
    """The ansible-playbook process. Actions run in workers that it forked, so it is their parent."""
    pid = os.getppid()
    return Run(machine(), pid, started(pid) or 0, user())


def user() -> str:
    """Who runs this, for the record: AWX's user where there is one, else the login name."""
    return os.environ.get("AWX_USER_NAME") or os.environ.get("SUDO_USER") or getpass.getuser()


def machine() -> str:
    """This machine's name, with its boot: after a reboot no process of the old boot lives."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip()[:8]}" if boot.exists() else socket.gethostname()


def started(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def dead(run: Run) -> bool | None:
    """Whether the process of ``run`` is gone; None where it ran on another machine and cannot be seen from here."""
    name, _separator, boot = run.machine.partition("/")
    here, _separator, this_boot = machine().partition("/")
    if name != here:
        return None
    return boot != this_boot or started(run.pid) != run.started


def command(playbook: str, task_vars: Mapping[str, Any]) -> str:
    """The command that runs a playbook with the inventories of this run."""
    sources = task_vars.get("ansible_inventory_sources") or ["?"]
    shown = (os.path.relpath(source) if os.path.exists(source) else str(source) for source in sources)
    return f"ansible-playbook {playbook} " + " ".join(f"-i {source}" for source in shown)
