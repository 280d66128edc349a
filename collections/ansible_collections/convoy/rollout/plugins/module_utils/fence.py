# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may change a load balancer: the rollout with the highest token that its host has seen, one call at a time."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Iterator, Mapping


@contextlib.contextmanager
def held(params: Mapping[str, Any], clock: Clock, dry: bool) -> Iterator[None]:
    """Be the only one who changes `backend`, with a `token` that is not stale. Without a token there is no fence.

    Another call is waited for as long as its own `timeout` may take. `dry`: nothing is remembered.
    """
    if params["token"] is None or dry:
        yield
        return
    fenced = tree(os.path.join(params["fence"], params["backend"]))
    prepare(fenced)
    with fenced.lock(clock, params["timeout"] + 30, params["state"]):
        fenced.admit(params["token"], params["rollout"])
        yield


def tree(place: str) -> Tree:
    """What is remembered in a directory: a lock, and the highest token."""
    return Tree(place, os.path.basename(place))


def prepare(remembered: Tree) -> None:
    """Make what is missing of the directory. TrafficError where that cannot be."""
    try:
        os.makedirs(os.path.dirname(remembered.root), exist_ok=True)
        for path in (remembered.root, remembered.state):
            durable.make_directory(path, 0o700)
    except OSError as error:
        raise TrafficError(
            f"{error.filename}: {error.strerror}: the token of the rollout cannot be remembered there; run the task "
            "with become: true, or name another directory as fence"
        ) from error
