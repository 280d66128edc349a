# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases have had their day. Pure, but for the last two functions."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import History
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record, kind_of
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import AbstractSet


def prunable(
    history: History, present: AbstractSet[str], active: str | None, in_use: AbstractSet[str], keep: int
) -> list[str]:
    """The releases to remove, the oldest first.

    The newest `keep` good ones stay, and always the active one, the last good one (the target of a
    rollback), whatever a process still runs from, and what the journal does not know. Of those that
    are not good, the newest failed one stays to be looked into, and the newest that was staged and
    never activated, because a rollout may be about to. They never push a good one out.
    """
    good = history.good(present)
    spared = {active, history.last_good(present, besides=active), *good[:keep], *in_use}
    others = [release for release in _newest_first(history, present) if release not in good]
    spared.update([release for release in others if history.state(release) != "staged"][:1])
    spared.update([release for release in others if history.state(release) == "staged"][:1])
    return [release for release in reversed(_newest_first(history, present)) if release not in spared]


def _newest_first(history: History, present: AbstractSet[str]) -> list[str]:
    known = [release for release in history.standings if release in present]
    return sorted(known, key=lambda release: (history.standings[release].at, release), reverse=True)


def prune(host: Host, active: Record, in_use: AbstractSet[str], keep: int) -> list[str]:
    """Remove what has had its day; what was removed."""
    doomed = prunable(host.history(), host.tree.present(), active.release, in_use, keep)
    for release in doomed:
        host.tree.discard(release)
        host.note("removed", release)
    sweep(host, active)
    return doomed


def sweep(host: Host, recorded: Record) -> None:
    """Remove what releases of a kind have left elsewhere. That it could not be is no fault of the one in service."""
    kind = kind_of(recorded)
    if kind is None:
        return
    try:
        kind.sweep(host)
    except ConvoyTargetError as error:
        host.warnings.append(f"not everything of releases that are gone could be removed: {error.message}")
