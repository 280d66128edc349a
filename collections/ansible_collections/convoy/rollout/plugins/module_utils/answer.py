# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers a call to this library where it is settled: ``python3 answer.py`` with the call as JSON on standard input.

Takes a line ``{"call", "params", "check_mode", "attached"}``: the name of a module below ``calls``, and what its
``run`` takes. ``attached`` is null, or the parameter that is to name a file: the file's content follows the line. The
last line of what it says is the result, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module

# As in `typed`, which can be imported only once this has begun.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import BinaryIO

PACKAGE = "ansible_collections.convoy.rollout.plugins.module_utils"
_PIECE = 64 * 1024  # what a pipe holds


def answer(request: bytes, rest: BinaryIO) -> str:
    """The result of a call."""
    asked = json.loads(request)
    params = asked["params"]
    if asked["attached"]:
        params[asked["attached"]] = _in_memory(rest)
    called = import_module(f"{PACKAGE}.calls.{asked['call']}")
    # What was imported stays to the end, and need not be looked through for garbage.
    gc.freeze()
    gc.enable()
    return json.dumps(called.run(params, asked["check_mode"]))


def _in_memory(content: BinaryIO) -> str:
    """The path of a file with that content, which is gone when this process is."""
    descriptor = os.memfd_create("attached")
    with os.fdopen(descriptor, "wb", buffering=0, closefd=False) as stream:
        for piece in iter(lambda: content.read(_PIECE), b""):
            stream.write(piece)
    return f"/proc/self/fd/{descriptor}"


if __name__ == "__main__":
    gc.disable()
    sys.path.insert(0, os.path.abspath(__file__)[: -len("/answer.py") - len(PACKAGE) - 1])
    incoming = sys.stdin.buffer
    sys.stdout.write(f"\n{answer(incoming.readline(), incoming)}\n")
    sys.stdout.flush()
    # Taking down what was imported, piece by piece, would cost as much as starting Python.
    os._exit(0)
