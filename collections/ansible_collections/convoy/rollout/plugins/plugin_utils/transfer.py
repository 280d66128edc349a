# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a release gets to a host: what is sent, what the host has already, what it fetches itself. Pure.

What is decided here saves bytes and nothing else. Whether a release is whole and the right one the host sees by the
signed manifest, wherever its files came from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry

MOST = 0.8  # of a release's bytes: where more than that is missing, the artifact goes whole
_USABLE = ("good", "active")


class Transfer(StrEnum):
    """What ``component_transfer`` may be."""

    PUSH = "push"
    DELTA = "delta"
    PULL = "pull"


class Way(StrEnum):
    """What the next call to a host does."""

    ASK = "ask"  # whether it has the release, and what it could make it of
    WHOLE = "whole"  # brings the artifact
    DELTA = "delta"  # brings what the release ``base`` lacks
    PULL = "pull"  # lets the host fetch the artifact, where it needs it


@dataclass(frozen=True)
class Held:
    """A release that a host has, as ``release_info`` tells it."""

    id: str
    version: str
    state: str
    artifact: str | None = None


@dataclass(frozen=True)
class Next:
    """The next call. ``missing`` are the paths of the files that the base lacks."""

    way: Way
    base: str = ""
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """The release that is to come: the digest of its artifact, its files, and the paths that configuration replaces."""

    artifact: str
    files: Sequence[FileEntry]
    config: Collection[str] = ()


FilesOf = Callable[[Held], Sequence[FileEntry] | None]


def decide(transfer: Transfer, wanted: Wanted, lacking: bool, held: Sequence[Held], files_of: FilesOf) -> Next:
    """How a host gets a release. ``lacking``: whether it is known that it does not have it.

    ``held`` is what it has, the newest first; ``files_of`` tells what the artifact of such a release holds, None where
    nobody knows. An artifact that a host has unpacked already is not sent again, whatever the transfer.
    """
    if lacking:
        for release in held:
            if release.artifact == wanted.artifact:
                return from_base(release.id, missing(wanted.files, wanted.files, wanted.config), wanted.files)
    if transfer is Transfer.PULL:
        return Next(Way.PULL)
    if not lacking:
        return Next(Way.ASK)
    if transfer is Transfer.DELTA:
        base = next((release for release in held if release.state in _USABLE and release.artifact), None)
        if base is None:
            return Next(Way.ASK if held else Way.WHOLE)
        there = files_of(base)
        if there is None:
            return Next(Way.ASK)
        return from_base(base.id, missing(wanted.files, there, wanted.config), wanted.files)
    return Next(Way.WHOLE)


def missing(files: Iterable[FileEntry], there: Iterable[FileEntry], config: Collection[str]) -> frozenset[str]:
    """The paths of the files whose content a release does not have whose artifact holds ``there``.

    What configuration replaces now it has most likely replaced there too; a host that finds it otherwise says so.
    """
    digests = {entry.sha256 for entry in there if entry.link is None and entry.path not in config}
    return frozenset(entry.path for entry in files if entry.link is None and entry.sha256 not in digests)


def from_base(base: str, lacks: Collection[str], files: Iterable[FileEntry]) -> Next:
    """Bring what the base lacks, or the artifact where that would hardly be less."""
    sizes = {entry.path: entry.size for entry in files}
    if sum(sizes.get(path, 0) for path in lacks) > MOST * sum(sizes.values()):
        return Next(Way.WHOLE)
    return Next(Way.DELTA, base, frozenset(lacks))


def held_of(releases: Iterable[Mapping[str, Any]]) -> list[Held]:
    """What ``release_info`` returned as ``releases``."""
    return [
        Held(str(known["id"]), str(known["version"]), str(known["state"]), known.get("artifact")) for known in releases
    ]
