# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The moments of a call at which a test may stop it. The code that is tested knows nothing of them.

Which there are is taken from the code: the steps that it notes, the entries of its journal, each function that makes
a change durable, each thing that is asked of systemd, each member that is unpacked. A step that is added is a moment
without anybody's doing. Runs on hosts too: the standard library only, and Python 3.8.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

PACKAGE = "ansible_collections.convoy.rollout.plugins.module_utils."
# What the code itself gives a name: these are the steps of a release.
NAMED = ("step ", "before journal ", "after journal ")
# What only asks is nothing to be killed in.
_ASKS = ("show", "last_words", "temporary_name", "write_all", "fsync_directory", "clear_temporaries")


def named_in(source: str) -> set[str]:
    """Every step and every entry of the journal that the text of a program names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            named = {"done": {"step " + first.value}, "note": {"before journal " + first.value}}
            found |= named.get(node.func.attr, set())
    return found


def watch(tell: Callable[[str], None], supervisor: type | None = None) -> None:
    """From now on call `tell` with the name of each moment that comes, in this process."""
    durable, host, systemd, tree, guard, unpack = (
        importlib.import_module(PACKAGE + name) for name in ("durable", "host", "systemd", "tree", "guard", "unpack")
    )
    _after(host.Host, "done", lambda step: "step " + step, tell)
    _around(host.Host, "note", lambda event, *_: "journal " + event, tell)
    _around(unpack._Unpacking, "add", lambda *_: "member unpacked", tell)
    for function in ("discard", "clear_leftovers"):
        _around(tree.Tree, function, _named("tree." + function), tell)
    for function in ("arm", "disarm", "stand_by", "stand_down"):
        _around(guard, function, _named("guard." + function), tell)
    for owner, prefix in ((durable, "durable."), (supervisor or systemd.Systemd, "systemd.")):
        for function, value in sorted(vars(owner).items()):
            if inspect.isfunction(value) and not function.startswith("_") and function not in _ASKS:
                _around(owner, function, _named(prefix + function), tell)


def _named(name: str) -> Callable[..., str]:
    return lambda *_arguments: name


def _after(owner: Any, function: str, label: Callable[..., str], tell: Callable[[str], None]) -> None:
    inner = getattr(owner, function)

    @functools.wraps(inner)
    def outer(self: Any, *arguments: Any, **options: Any) -> Any:
        inner(self, *arguments, **options)
        tell(label(*arguments))

    setattr(owner, function, outer)


def _around(owner: Any, function: str, label: Callable[..., str], tell: Callable[[str], None]) -> None:
    inner = getattr(owner, function)
    is_method = inspect.isclass(owner)

    @functools.wraps(inner)
    def outer(*arguments: Any, **options: Any) -> Any:
        name = label(*arguments[is_method:])
        tell("before " + name)
        result = inner(*arguments, **options)
        tell("after " + name)
        return result

    setattr(owner, function, outer)
