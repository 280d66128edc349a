# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the readers of archives hand on, and what they are held to."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Iterator, Tuple

LONGEST_LINK = 4095  # bytes: what Linux takes
HARMLESS_BYTES = 16 * 1024 * 1024  # below this an archive may be as dense as it likes


class Limits(NamedTuple):
    """What an artifact may at most be. `ratio` is unpacked to packed size."""

    members: int = 100_000
    bytes: int = 16 * 1024**3
    depth: int = 64
    ratio: int = 200

    def ceiling(self, size: int) -> int:
        """What an artifact of `size` bytes may unpack to."""
        return min(self.bytes, max(HARMLESS_BYTES, self.ratio * size))


class Member(NamedTuple):
    """A member of an archive. `kind` is file, directory or link; `mode` is None where the archive has none."""

    name: str
    kind: str
    size: int = 0
    mode: int | None = None
    link: str = ""
    is_foreign: bool = False


class Source(Protocol):
    """Where the bytes of a file come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


if TYPE_CHECKING:
    Members = Iterator[Tuple[Member, Source]]


def refusal(name: str, why: str) -> ArchiveError:
    """The error for a member that may not be."""
    return ArchiveError(f"member {name[:200]!r} is refused: {why}")


def unreadable(format_name: str, why: object) -> ArchiveError:
    """The error for an artifact that is damaged, or not what it is called."""
    return ArchiveError(f"the artifact cannot be read as {format_name}: {why}")
