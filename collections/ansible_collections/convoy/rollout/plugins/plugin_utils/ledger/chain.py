# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hash chain: each entry's hash covers its predecessor's, so that no entry can be edited, removed or put between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

GENESIS = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One row of the ledger. ``at``: epoch seconds; ``data``: canonical JSON text; ``hash``: SHA-256, hexadecimal."""

    stream: str
    seq: int
    rollout: str
    kind: str
    host: str | None
    at: float
    actor: str
    data: str
    hash: str = ""


def link(previous: str, entry: Entry) -> str:
    """The hash of ``entry`` when it follows the entry with the hash ``previous``."""
    fields = [previous, entry.stream, entry.seq, entry.rollout, entry.kind, entry.host, repr(entry.at), entry.actor]
    return hashlib.sha256(json.dumps([*fields, entry.data]).encode()).hexdigest()


def broken_link(entries: Iterable[Entry]) -> str | None:
    """What is wrong with the first entry (of one stream, from its beginning) that does not fit; None if all fit."""
    previous, expected = GENESIS, 1
    for entry in entries:
        if entry.seq != expected:
            return f"entry {expected} is missing: entry {entry.seq} follows entry {expected - 1}"
        if link(previous, entry) != entry.hash:
            return f"entry {entry.seq} ({entry.kind}, rollout {entry.rollout}) does not match its hash: it was edited"
        previous, expected = entry.hash, expected + 1
    return None
