# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hash chain: each entry's hash covers its predecessor's, so that none can be edited, removed or put between."""

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
    at = float(entry.at)
    fields = [previous, entry.stream, entry.seq, entry.rollout, entry.kind, entry.host, at, entry.actor, entry.data]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def broken_link(entries: Iterable[Entry], head: int, head_hash: str) -> str | None:
    """What is wrong with the first entry of a stream that does not fit; None if all fit and end in the head."""
    previous, expected = GENESIS, 1
    for entry in entries:
        if entry.seq != expected:
            return f"entry {expected} is missing: entry {entry.seq} follows entry {expected - 1}"
        if link(previous, entry) != entry.hash:
            return f"entry {entry.seq} ({entry.kind}, rollout {entry.rollout}) does not match its hash: it was edited"
        previous, expected = entry.hash, expected + 1
    if expected - 1 != head:
        return f"the head names entry {head}, but the last one is {expected - 1}: entries were cut off or added"
    return None if previous == head_hash else f"the head names another entry {head} than the one that is there"
