# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases are pruned, and that they are gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.journal import Entry, History
from ansible_collections.convoy.rollout.plugins.module_utils.pruning import prunable, prune


def good(*releases: str) -> list[Entry]:
    """Releases that were deployed one after the other."""
    return [
        Entry(float(at), event, release)
        for at, (release, event) in enumerate((r, e) for r in releases for e in ("staged", "activating", "good"))
    ]


@pytest.mark.parametrize(
    ("entries", "active", "in_use", "keep", "doomed"),
    [
        (good("A", "B", "C"), "C", "", 5, ""),
        (good("A", "B", "C"), "C", "", 2, "A"),
        (good("A", "B", "C"), "C", "", 1, "A"),
        (good("A", "B", "C", "D"), "D", "A", 2, "B"),
        # An old one was deployed again: the newest good ones are kept, and it.
        ([*good("A", "B", "C"), Entry(20, "activating", "A"), Entry(21, "good", "A")], "A", "", 1, "B"),
        # The failed ones: only the newest stays, and it pushes nobody out.
        ([*good("A", "B"), Entry(20, "bad", "X"), Entry(21, "bad", "Y")], "B", "", 2, "X"),
        # Staged, never activated: the newest stays, a rollout may be about to.
        ([*good("A", "B"), Entry(20, "staged", "X"), Entry(21, "staged", "Y")], "B", "", 2, "X"),
        ([*good("A"), Entry(20, "active", "X")], "X", "", 1, ""),
    ],
)
def test_prunable(entries: list[Entry], active: str, in_use: str, keep: int, doomed: str) -> None:
    history = History.of(entries)
    assert "".join(prunable(history, set(history.standings), active, set(in_use), keep)) == doomed


def test_what_the_journal_does_not_know_is_left_alone() -> None:
    assert prunable(History.of([]), {"A", "B"}, None, set(), 1) == []


def test_pruned_releases_are_gone_with_their_records(world: Any) -> None:
    for number in range(3):
        world.write_journal(Entry(float(number), "good", world.stage(f"1.{number}.0")))
    host = world.host()
    assert prune(host, host.tree.read_record("1.2.0-abc"), set(), keep=1) == ["1.0.0-abc"]
    assert host.tree.present() == {"1.1.0-abc", "1.2.0-abc"}
    assert sorted(path.name for path in (world.root / ".convoy" / "releases").iterdir()) == [
        "1.1.0-abc.json",
        "1.2.0-abc.json",
    ]
    assert list((world.root / ".convoy" / "incoming").iterdir()) == []
    assert world.events()[-1] == "removed 1.0.0"
