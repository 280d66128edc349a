# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a journal amounts to: tables of pasts, and the file that they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import journal
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.journal import Entry, History, WayBack


def past(text: str) -> History:
    """A history in short: 'staged A; activating A from B by r-1; bad A to B'. One second apart."""
    entries = []
    for at, step in enumerate(filter(None, (part.strip() for part in text.split(";"))), start=1):
        event, release, *rest = step.split()
        words = {rest[at]: rest[at + 1] for at in range(0, len(rest), 2)}
        entries.append(
            Entry(
                float(at),
                event,
                release,
                rollout=words.get("by", "r-0"),
                came_from=words.get("from"),
                went_to=words.get("to"),
            )
        )
    return History.of(entries)


A_THEN_B = "staged A; activating A; good A; staged B; activating B from A; good B;"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", ""),
        ("staged A", ""),
        ("activating A", ""),
        ("activating A; active A", ""),
        ("activating A; active A; good A", "A"),
        (A_THEN_B, "BA"),
        (A_THEN_B + "reverting B to A", "A"),
        (A_THEN_B + "reverting B to A; reverted B to A; good A", "A"),
        (A_THEN_B + "reverted B to A; good A; activating B from A; good B", "BA"),
        (A_THEN_B + "activating C from B; reverting C to B; bad C to B", "BA"),
        (A_THEN_B + "activating A from B; interrupted A from B", "BA"),
        (A_THEN_B + "removed A", "B"),
        (A_THEN_B + "removed A; staged A", "B"),
        (A_THEN_B + "staged A", "BA"),
        (A_THEN_B + "bad B", "A"),
    ],
)
def test_good_releases_the_newest_first(text: str, good: str) -> None:
    assert "".join(past(text).good({"A", "B", "C"})) == good


def test_what_is_not_on_the_host_is_no_target() -> None:
    assert past(A_THEN_B).last_good({"B"}, besides="B") is None
    assert past(A_THEN_B).last_good({"A", "B"}, besides="B") == "A"
    assert past(A_THEN_B).last_good({"A", "B"}, besides=None) == "B"


@pytest.mark.parametrize(
    ("text", "current", "target", "expected"),
    [
        ("staged A", None, "A", WayBack()),
        (A_THEN_B + "staged C", "B", "C", WayBack("B")),
        # A release of a Convoy whose journal was lost was in service, and that is enough.
        ("staged C", "B", "C", WayBack("B")),
        # One whose activation never ended is nothing to go back to; where it came from is.
        (A_THEN_B + "activating C from B; interrupted C from B", "C", "D", WayBack("B")),
        ("activating A; interrupted A", "A", "D", WayBack()),
        # The same activation again, after a kill.
        (A_THEN_B + "activating C from B; interrupted C from B", "C", "C", WayBack("B")),
        (A_THEN_B + "activating A from B; interrupted A from B", "A", "A", WayBack("B")),
        ("activating A; interrupted A", "A", "A", WayBack()),
        # Killed twice: the second announcement starts where the first did.
        (A_THEN_B + "activating C from B; interrupted C; activating C from B; interrupted C", "C", "C", WayBack("B")),
        # Killed on the way back: it leads where it did before.
        ("activating A; reverting A; interrupted A", "A", "A", WayBack()),
        (A_THEN_B + "activating C from B; reverting C to B; interrupted C to B", "C", "C", WayBack("B")),
        # Good, in service, and unhealthy now: nothing to go back to.
        (A_THEN_B, "B", "B", WayBack(stay=True)),
        (A_THEN_B + "activating B from B; interrupted B", "B", "B", WayBack(stay=True)),
        # Bad, and in service all the same.
        (A_THEN_B + "bad B", "B", "B", WayBack("A")),
        ("activating A; good A; bad A", "A", "A", WayBack(stay=True)),
        ("activating A; good A; bad A", "A", "B", WayBack("A")),
        # Not confirmed: the last good one, and only without one the unconfirmed one.
        (A_THEN_B + "activating C from B; active C", "C", "D", WayBack("B")),
        ("activating A; active A", "A", "D", WayBack("A")),
        (A_THEN_B + "activating C from B; active C", "C", "C", WayBack("B")),
        # Left on purpose before.
        (A_THEN_B + "reverting B to A; reverted B to A; good A", "A", "B", WayBack("A")),
        # A journal without the release that is in service and asked for.
        ("", "A", "A", WayBack(stay=True)),
    ],
)
def test_way_back(text: str, current: str | None, target: str, expected: WayBack) -> None:
    assert past(text).way_back(current, target, {"A", "B", "C", "D"}) == expected


@pytest.mark.parametrize(
    ("text", "active", "rollout", "expected"),
    [
        (A_THEN_B, "B", "r-9", WayBack("A")),
        ("activating A by r-1; good A by r-1", "A", "r-9", WayBack(stay=True)),
        ("activating A by r-1; good A by r-1", "A", "r-1", WayBack()),
        ("activating A; good A", "A", "", WayBack(stay=True)),
        ("staged A", None, "r-1", WayBack()),
        # Once within a rollout, however it came about.
        (A_THEN_B + "reverting B to A by r-9; reverted B to A by r-9; good A by r-9", "A", "r-9", WayBack("A")),
        (A_THEN_B + "activating C from B by r-9; reverting C to B by r-9; bad C to B by r-9", "B", "r-9", WayBack("B")),
        (A_THEN_B + "activating C from B by r-9; reverting C to B by r-9; bad C to B by r-9", "B", "r-8", WayBack("A")),
        # Killed half-way: completed, whoever asks, and wherever `current` is.
        (A_THEN_B + "reverting B to A; interrupted B to A", "B", "r-9", WayBack("A")),
        (A_THEN_B + "reverting B to A; interrupted B to A", "A", "r-9", WayBack("A")),
        ("activating A by r-1; good A by r-1; reverting A; interrupted A", "A", "r-9", WayBack()),
        # A move forward makes all that history.
        (A_THEN_B + "reverting B to A; interrupted B to A; activating C from A; good C", "C", "r-9", WayBack("A")),
        # A restart of what is in service is not how it came there.
        ("activating A by r-1; good A by r-1; activating A from A by r-2; good A", "A", "r-2", WayBack(stay=True)),
    ],
)
def test_rollback_target(text: str, active: str | None, rollout: str, expected: WayBack) -> None:
    assert past(text).rollback_target(active, {"A", "B", "C"}, rollout) == expected


@pytest.mark.parametrize(
    ("text", "release", "since"),
    [
        ("activating A; good A", "A", 2.0),
        ("activating A; active A; good A", "A", 2.0),
        ("activating A; good A; activating B from A; good B; reverting B to A; reverted B to A; good A", "A", 6.0),
        ("activating A; good A; activating B from A; reverting B to A; bad B to A", "A", 5.0),
        ("activating A; good A; activating B from A; reverting B to A; bad B to A", "B", None),
    ],
)
def test_active_since(text: str, release: str, since: float | None) -> None:
    assert past(text).standings[release].since == since


@pytest.mark.parametrize(
    ("text", "pending"),
    [
        ("staged A", None),
        ("activating A", "A"),
        ("activating A; staged B", "A"),
        ("activating A; good A", None),
        ("activating A; active A", None),
        ("activating A; bad A", None),
        (A_THEN_B + "reverting B to A", "B"),
        (A_THEN_B + "reverting B to A; reverted B to A", None),
        ("activating A; interrupted A", None),
    ],
)
def test_announcement_without_an_outcome(text: str, pending: str | None) -> None:
    found = past(text).pending
    assert (found.release if found else None) == pending


# --- the file ----------------------------------------------------------------------------------------------------


def test_entries_come_back(tmp_path: Path) -> None:
    kept = journal.Journal(str(tmp_path / "journal.jsonl"))
    entries = (
        Entry(1.5, "staged", "A"),
        Entry(2.0, "reverting", "B", "r-1", 7, went_to="A", reason="é said\n500"),
        Entry(3.0, "active", "C", "r-2", 8, came_from="B", until=60.125),
    )
    for entry in entries:
        kept.append(entry)
    assert kept.read() == journal.Reading(entries, (), torn=False)


def test_line_is_short_whatever_the_reason(tmp_path: Path) -> None:
    line = Entry(1e10, "bad", "R" * 128, "r" * 128, 2**63, "F" * 128, "T" * 128, 1e10, "ü" * 5000).line()
    assert len(line) < 3000
    assert journal.parse(line).reason == "ü" * 300


def test_line_that_a_power_cut_tore_is_left_out_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    kept = journal.Journal(str(path))
    kept.append(Entry(1.0, "staged", "A"))
    whole = path.read_bytes()
    path.write_bytes(whole + Entry(2.0, "good", "A").line()[:-5])
    assert kept.read() == journal.Reading((Entry(1.0, "staged", "A"),), (), torn=True)
    kept.append(Entry(3.0, "staged", "B"))
    assert path.read_bytes() == whole + Entry(3.0, "staged", "B").line()


@pytest.mark.parametrize("line", [b"{}", b"[]", b"\xff", b'{"at": 1, "event": "danced", "release": "A"}', b'{"at":1}'])
def test_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(Entry(1.0, "staged", "A").line() + line + b"\n" + Entry(2.0, "staged", "B").line())
    kept = journal.Journal(str(path))
    assert kept.read().damaged == (2,)
    with pytest.raises(TreeError, match=r"line 2 of .*journal\.jsonl cannot be read"):
        kept.history()


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert journal.Journal(str(tmp_path / "none")).read() == journal.Reading((), (), torn=False)


def test_what_was_read_before_is_remembered_only_as_long_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    kept = journal.Journal(str(file))
    lines = [Entry(float(at), event, "r1").line() for at, event in enumerate(("staged", "activating", "good"))]
    texts = [lines[:1], lines[:2], [*lines, lines[0][:9]], lines, [*lines, b"{}\n"], [lines[0], b"x\n", *lines[1:]], []]
    for text in (b"".join(some) for some in texts):
        file.write_bytes(text)
        fresh = journal.Journal(str(file))
        assert kept.read() == fresh.read()
        if not fresh.read().damaged:
            assert kept.history() == fresh.history() == History.of(fresh.read().entries)
    file.unlink()
    assert kept.read() == journal.Reading((), (), False)
    assert kept.history() == History({})
