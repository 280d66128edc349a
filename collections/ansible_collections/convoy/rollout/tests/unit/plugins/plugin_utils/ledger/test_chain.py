# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No entry of the ledger can be changed, removed, added or moved without the chain telling which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import GENESIS, Entry, broken_link, link


def chained(number: int) -> list[Entry]:
    entries: list[Entry] = []
    for seq in range(1, number + 1):
        entry = Entry("staging/hello", seq, "r1", "moved", f"app{seq}", 1000.5 + seq, "root", '{"now":"admitted"}')
        previous = entries[-1].hash if entries else GENESIS
        entries.append(replace(entry, hash=link(previous, entry)))
    return entries


def wrong(entries: list[Entry], head: Entry) -> str | None:
    return broken_link(entries, head.seq, head.hash)


CHAIN = chained(5)
HEAD = CHAIN[-1]
EDITS: list[dict[str, Any]] = [
    {"rollout": "r2"},
    {"kind": "closed"},
    {"host": "app9"},
    {"host": None},
    {"at": 1.0},
    {"actor": "somebody"},
    {"data": "{}"},
    {"hash": "0" * 64},
    {"stream": "production/hello"},
]


def test_an_intact_chain() -> None:
    assert wrong(CHAIN, HEAD) is None
    assert broken_link([], 0, GENESIS) is None


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("index", range(len(CHAIN)))
def test_an_edit_is_found_where_it_is(index: int, edit: dict[str, Any]) -> None:
    edited = [*CHAIN[:index], replace(CHAIN[index], **edit), *CHAIN[index + 1 :]]
    assert f"entry {index + 1} " in str(wrong(edited, HEAD))
    assert "does not match its hash: it was edited" in str(wrong(edited, HEAD))


@pytest.mark.parametrize("index", range(len(CHAIN) - 1))
def test_an_edit_with_a_new_hash_is_found_at_the_next_entry(index: int) -> None:
    previous = CHAIN[index - 1].hash if index else GENESIS
    edited = replace(CHAIN[index], actor="somebody")
    forged = replace(edited, hash=link(previous, edited))
    assert f"entry {index + 2} " in str(wrong([*CHAIN[:index], forged, *CHAIN[index + 1 :]], HEAD))


def test_an_edit_of_the_last_entry_with_a_new_hash_is_found_by_the_head() -> None:
    edited = replace(HEAD, actor="somebody")
    forged = replace(edited, hash=link(CHAIN[-2].hash, edited))
    assert wrong([*CHAIN[:-1], forged], HEAD) == "the head names another entry 5 than the one that is there"


@pytest.mark.parametrize("index", range(len(CHAIN) - 1))
def test_a_removed_entry_is_found(index: int) -> None:
    assert f"entry {index + 1} is missing" in str(wrong([*CHAIN[:index], *CHAIN[index + 1 :]], HEAD))


@pytest.mark.parametrize("kept", range(len(CHAIN)))
def test_a_chain_that_was_cut_off_is_found(kept: int) -> None:
    cut = f"the head names entry 5, but the last one is {kept}: entries were cut off or added"
    assert wrong(CHAIN[:kept], HEAD) == cut


def test_an_entry_beyond_the_head_is_found() -> None:
    added = replace(HEAD, seq=6)
    longer = [*CHAIN, replace(added, hash=link(HEAD.hash, added))]
    assert "the head names entry 5, but the last one is 6" in str(wrong(longer, HEAD))


def test_two_entries_that_changed_places_are_found() -> None:
    assert wrong([CHAIN[1], CHAIN[0], *CHAIN[2:]], HEAD) is not None


def test_a_time_is_a_number_however_a_database_gives_it_back() -> None:
    assert link(GENESIS, replace(HEAD, at=1000)) == link(GENESIS, replace(HEAD, at=1000.0))


@given(actor=st.text(), data=st.text(), host=st.none() | st.text())
def test_text_cannot_flow_from_one_field_into_another(actor: str, data: str, host: str | None) -> None:
    entry = replace(HEAD, actor=actor, data=data, host=host)
    moved = replace(entry, actor=actor + data[:1], data=data[1:])
    assert (link(GENESIS, entry) == link(GENESIS, moved)) is (entry == moved)
