# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the rendered configuration and units differ from those of the release that a host runs, secrets left out. Pure.

A file is secret when it is marked so, or holds a vaulted value: of such a file it is only told that it changed. It is
secret as a whole, because the line that is removed may hold the secret of yesterday, which nobody knows any more.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils import units
from ansible_collections.convoy.rollout.plugins.module_utils.record import Unit
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import Rendered
from ansible_collections.convoy.rollout.plugins.plugin_utils.text import names

CONFIG, UNIT = "config", "unit"
LEAST_SECRET = 4  # characters; what is shorter is found everywhere
MOST_LINES = 200  # of one file


@dataclass(frozen=True)
class Change:
    """A file that would change, and how, as lines for people."""

    kind: str
    name: str
    lines: tuple[str, ...]


def wanted(rendered: Rendered, vaulted: Sequence[str]) -> list[dict[str, Any]]:
    """What the host is asked to show: ``kind``, ``name``, and whether it is ``secret``, so that it shows a digest."""
    return [
        {"kind": kind, "name": item[key], "secret": item[key] in rendered.secrets or _holds(item["content"], vaulted)}
        for kind, key, items in ((CONFIG, "dest", rendered.config), (UNIT, "name", _own(rendered)))
        for item in items
    ]


def _own(rendered: Rendered) -> list[Mapping[str, str]]:
    """The units that the release writes; others may be only named."""
    return [unit for unit in rendered.units if "content" in unit]


def changes(
    rendered: Rendered, asked: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]], vaulted: Sequence[str]
) -> list[Change]:
    """What would change. ``shown`` is what the host said of each file that was ``asked`` about, units it loses last.

    Of each file it says ``sha256`` (None: it is not there) and ``text`` (None: it is secret, too long, or no text).
    """
    contents = [str(item["content"]) for item in (*rendered.config, *_own(rendered))]
    found = []
    for one, content, there in zip(asked, contents, shown, strict=False):
        after = units.body(Unit(one["name"], content)) if one["kind"] == UNIT else content
        if there["sha256"] != hashlib.sha256(after.encode()).hexdigest():
            found.append(Change(one["kind"], one["name"], tuple(_lines(one, after, there, vaulted))))
    lost = shown[len(asked) :]
    return found + [Change(UNIT, str(one["name"]), ("removed",)) for one in lost]


def _lines(asked: Mapping[str, Any], after: str, there: Mapping[str, Any], vaulted: Sequence[str]) -> list[str]:
    before = there["text"] if there["sha256"] is not None else ""
    what = "new" if there["sha256"] is None else "changed"
    if asked["secret"] or (before is not None and _holds(before, vaulted)):
        return [f"{what} (secret)"]
    if before is None:
        return [f"{what} (no text, or too long to show)"]
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm=""))[2:]
    if not lines:
        return [f"{what} at the ends of its lines"]
    left_out = len(lines) - MOST_LINES
    return [what, *lines[:MOST_LINES], *([f"and {left_out} lines more"] if left_out > 0 else [])]


def _holds(text: str, vaulted: Sequence[str]) -> bool:
    return any(secret in text for secret in vaulted)


def told(by_host: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Each change once, with the hosts that it concerns."""
    hosts: dict[Change, list[str]] = {}
    for host, its in by_host.items():
        for one in its:
            change = Change(one["kind"], one["name"], tuple(one["lines"]))
            hosts.setdefault(change, []).append(host)
    found = []
    for change, those in hosts.items():
        first, *rest = change.lines
        found += [f"{change.kind} {change.name} {first}: {names(those)}", *(f"  {line}" for line in rest)]
    return found
