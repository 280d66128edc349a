# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of the decisions that a wrong one of would cost a rollback: last good, way back, pruning."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils.journal import EVENTS, Entry, History
from ansible_collections.convoy.rollout.plugins.module_utils.pruning import prunable

RELEASES = ("A", "B", "C", "D", "E")
releases = st.sampled_from(RELEASES)
maybe_release = st.one_of(st.none(), releases)


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Any journal at all, also one that no Convoy would write."""
    events = draw(
        st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), releases, maybe_release, maybe_release), max_size=25)
    )
    return [
        Entry(float(at), event, release, f"r-{at % 3}", came_from=origin, went_to=target)
        for at, (event, release, origin, target) in enumerate(events)
    ]


class Model:
    """Deployments as they really go; what is good is kept in the plainest way."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.active: str | None = None
        self.good: list[str] = []
        self.present: set[str] = set()

    def note(self, event: str, release: str, origin: str | None = None, target: str | None = None) -> None:
        self.entries.append(Entry(float(len(self.entries)), event, release, came_from=origin, went_to=target))

    def deploy(self, release: str, outcome: str) -> None:
        if release == self.active:
            return
        self.present.add(release)
        self.note("staged", release)
        self.note("activating", release, origin=self.active)
        if outcome == "killed":
            self.note("interrupted", release, origin=self.active)
            return
        if outcome == "bad":
            self.note("reverting", release, target=self.active)
            self.note("bad", release, target=self.active)
            self.drop(release)
            return
        self.note("good", release)
        self.drop(release)
        self.good.append(release)
        self.active = release

    def roll_back(self, target: str | None) -> None:
        if target is None or self.active is None:
            return
        self.note("reverting", self.active, target=target)
        self.note("reverted", self.active, target=target)
        self.note("good", target)
        self.drop(self.active)
        self.drop(target)
        self.good.append(target)
        self.active = target

    def drop(self, release: str) -> None:
        if release in self.good:
            self.good.remove(release)


steps = st.lists(
    st.one_of(st.tuples(releases, st.sampled_from(["good", "bad", "killed"])), st.just("back")), max_size=15
)


def play(moves: list[object]) -> Model:
    model = Model()
    for move in moves:
        if isinstance(move, tuple):
            model.deploy(*move)
        else:
            model.roll_back(History.of(model.entries).last_good(model.present, besides=model.active))
    return model


@given(steps)
def test_good_is_what_was_good_last_and_not_left(moves: list[object]) -> None:
    model = play(moves)
    assert History.of(model.entries).good(model.present) == model.good[::-1]


@given(steps)
def test_a_rollback_never_goes_to_a_release_that_failed_or_was_left(moves: list[object]) -> None:
    model = play(moves)
    target = History.of(model.entries).last_good(model.present, besides=model.active)
    assert target is None or (target in model.good and target != model.active)


@given(histories(), maybe_release, releases, st.frozensets(releases))
def test_the_way_back_leads_to_what_is_there_and_never_to_what_just_failed(
    entries: list[Entry], current: str | None, target: str, present: frozenset[str]
) -> None:
    way = History.of(entries).way_back(current, target, present)
    assert way.release != target
    assert way.release is None or way.release in present
    assert not (way.stay and way.release)


@given(histories(), maybe_release, st.frozensets(releases))
def test_nothing_is_taken_out_of_service_for_nothing_by_another_rollout(
    entries: list[Entry], active: str | None, present: frozenset[str]
) -> None:
    history = History.of(entries)
    way = history.rollback_target(active, present, rollout="r-of-nobody")
    was_interrupted = history.last_move_back is not None and history.last_move_back.event == "interrupted"
    if active is not None and not was_interrupted:
        assert way.stay or way.release is not None


@given(histories(), st.frozensets(releases), maybe_release, st.frozensets(releases), st.integers(1, 6))
def test_prune_never_takes_what_is_needed(
    entries: list[Entry], present: frozenset[str], active: str | None, in_use: frozenset[str], keep: int
) -> None:
    history = History.of(entries)
    doomed = prunable(history, present, active, in_use, keep)
    assert len(set(doomed)) == len(doomed)
    left = present - set(doomed)
    assert set(doomed) <= present
    assert active not in doomed
    assert history.last_good(present, besides=active) not in doomed
    assert not in_use & set(doomed)
    assert set(doomed) <= set(history.standings)
    assert set(history.good(present)[:keep]) <= left
    assert history.last_good(left, besides=active) == history.last_good(present, besides=active)


@given(histories(), st.frozensets(releases), maybe_release, st.integers(1, 6))
def test_prune_leaves_little_and_nothing_more_the_second_time(
    entries: list[Entry], present: frozenset[str], active: str | None, keep: int
) -> None:
    history = History.of(entries)
    left = present - set(prunable(history, present, active, frozenset(), keep))
    known = {release for release in left if release in history.standings}
    # The active one, the last good one, a failed one, one that was staged, and the good ones to keep.
    assert len(known - set(history.good(present)[:keep])) <= 4
    assert prunable(history, left, active, frozenset(), keep) == []


@given(histories(), st.frozensets(releases), maybe_release, st.integers(1, 6))
def test_failed_releases_never_push_a_good_one_out(
    entries: list[Entry], present: frozenset[str], active: str | None, keep: int
) -> None:
    history = History.of(entries)
    good = set(history.good(present))
    only_good = list(prunable(history, frozenset(good), active, frozenset(), keep))
    assert [
        release for release in prunable(history, present, active, frozenset(), keep) if release in good
    ] == only_good
