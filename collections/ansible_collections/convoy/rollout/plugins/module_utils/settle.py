# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settles this library on a host: ``python3 -c SOURCE DIRECTORY`` with a zip of it on standard input.

Ansible sends all of a module with every call and has the host compile it anew. What lies here, compiled, is started by
its path; the directory is named after the digest of what is in it, and is there whole or not at all.
"""

from __future__ import annotations

import compileall
import io
import os
import shutil
import sys
import tempfile
import time
import zipfile

KEPT = 30 * 86400.0  # seconds for which libraries of other versions stay


def settle(packed: bytes, directory: str, now: float) -> None:
    """Put what is packed into the directory, and remove what has been there beside it for long."""
    place = os.path.dirname(directory)
    os.makedirs(place, mode=0o755, exist_ok=True)
    fresh = tempfile.mkdtemp(prefix=".", dir=place)
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(fresh)
        compileall.compile_dir(fresh, quiet=2)
        os.sync()
        if not os.path.isdir(directory):
            os.rename(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    for other in os.scandir(place):
        if other.path != directory and now - other.stat(follow_symlinks=False).st_mtime > KEPT:
            shutil.rmtree(other.path, ignore_errors=True)


if __name__ == "__main__":
    settle(sys.stdin.buffer.read(), sys.argv[1], time.time())
