# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the module release stage archives, and compares the whole file system of the host before and after.

Runs on a host: `hostile_on_host.py PROGRAM DIRECTORY < arguments > findings`. PROGRAM is the zip of the modules; the
directory has the archives, and index.json that says what the module is told of each.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
import sys
from typing import Any

sys.path.insert(0, sys.argv[1])
patch_module_args = importlib.import_module("ansible.module_utils.testing").patch_module_args
release = importlib.import_module("ansible_collections.convoy.rollout.plugins.modules.release")

# What the kernel makes up, and what systemd, sshd and this program write while they live.
ELSEWHERE = ("/proc", "/sys", "/run/systemd", "/run/log", "/run/user", "/var/log/journal", "/dev/pts")
# The module's own, which it writes at every call.
OWN = ("lock", "token")
MOST_DIGESTED = 64 * 1024 * 1024


def snapshot(own: str) -> dict[str, tuple[Any, ...]]:
    """All that there is: type and mode, owner, links, size, time of change, and content or target."""
    found: dict[str, tuple[Any, ...]] = {}
    left = ["/"]
    while left:
        for entry in os.scandir(left.pop()):
            if entry.path in ELSEWHERE or entry.path in (os.path.join(own, name) for name in OWN):
                continue
            status = entry.stat(follow_symlinks=False)
            told: Any = ""
            if stat.S_ISDIR(status.st_mode):
                left.append(entry.path)
            elif stat.S_ISLNK(status.st_mode):
                told = os.readlink(entry.path)
            elif stat.S_ISREG(status.st_mode) and status.st_size <= MOST_DIGESTED:
                told = digest(entry.path)
            times = () if stat.S_ISCHR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            # Directories in which the module makes and removes its own have new times.
            times = () if entry.path.startswith(own) and stat.S_ISDIR(status.st_mode) else times
            found[entry.path] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, *times, told)
    return found


def digest(path: str) -> str:
    """The content of a file."""
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def stage(arguments: dict[str, Any], said: str) -> dict[str, Any]:
    """What the module says, run in a child; how it ended, the processor time that it took, and the most memory."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        with patch_module_args(arguments):
            try:
                release.main()
            finally:
                sys.stdout.flush()
                os._exit(0)
    _pid, status, used = os.wait4(child, 0)
    with open(said) as stream:
        lines = stream.read().splitlines()
    result = json.loads(lines[-1]) if lines else {"msg": "it said nothing"}
    told = {name: result.get(name) for name in ("failed", "msg", "exception", "active")}
    return {**told, "status": status, "seconds": used.ru_utime + used.ru_stime, "kilobytes": used.ru_maxrss}


def main() -> None:
    """Stage each archive; what differs afterwards, anywhere."""
    place = sys.argv[2]
    common = json.load(sys.stdin)
    said = os.path.join(place, "said")
    with open(os.path.join(place, "index.json")) as stream:
        index = json.load(stream)
    own = os.path.join(common["root"], ".convoy")
    stage({**common, **index[0]["arguments"]}, said)
    before = snapshot(own)
    told = {}
    for named in index:
        told[named["name"]] = stage({**common, **named["arguments"]}, said)
    after = snapshot(own)
    ignored = {said}
    changed = sorted(path for path in {*before, *after} - ignored if before.get(path) != after.get(path))
    differs = {path: [before.get(path), after.get(path)] for path in changed}
    json.dump({"told": told, "differs": differs, "seen": len(before)}, sys.stdout)


if __name__ == "__main__":
    main()
