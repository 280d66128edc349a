# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Component kinds: what differs between them, and which one a release is of.

All kinds share the road of `activation`, the release tree, its journal, token, gate and deadlines. An `archive` needs
nothing besides. Every other kind has a file of its own, which is imported only where such a release is.
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Iterator, Tuple

# As drift.Finding has it: what kind of thing it is, which one, how it should be, how it is.
if TYPE_CHECKING:
    Difference = Tuple[str, str, str, str]


class Kind(Protocol):
    """What a kind does with a release on a host, besides what all of them do. How one comes there it says by itself."""

    def ready(self, host: Host, recorded: Record) -> None:
        """Raise ConvoyTargetError where activate() could not do its work; nothing was changed then."""

    def activate(self, host: Host, recorded: Record) -> None:
        """Put in place what the release brings; its units are restarted next. The way back is this, too."""

    def revert(self, host: Host, recorded: Record) -> None:
        """Take off the host what the release brought, where there was nothing before."""

    def sweep(self, host: Host) -> None:
        """Remove what is left of releases that are gone, outside of their directories."""

    def info(self, host: Host, recorded: Record, verify: bool) -> Iterator[str]:
        """How the host differs from the release, a sentence for each difference."""

    def drift(self, host: Host, recorded: Record, digests: bool) -> Iterator[Difference]:
        """The same for machines, and all of it; files are read with `digests` only."""

    def process_fault(self, host: Host, running: Process, recorded: Record, not_before: int) -> str | None:
        """Why a process is not a fresh one of the release; `not_before`: in ticks since boot."""
