# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a release: what its records make of it, and what each state allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_states
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import Change, Standing, State, standing_of

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DIGEST = "0f" * 32
Q, V, P, R = State.QUARANTINED, State.VERIFIED, State.PROMOTED, State.RETIRED


def change(state: State, environment: str = "staging", why: str = "because") -> Change:
    return Change(state, NOW, "anna@deploy1", why, DIGEST, environment)


def standing(*states: State) -> Standing:
    return Standing(tuple(change(state) for state in states))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], Q),
        ([Q], Q),
        ([V], V),
        ([Q, V], V),
        ([V, P], P),
        ([V, P, R], R),
        ([Q, R], R),
        ([V, R, R], R),
    ],
)
def test_where_a_release_stands(states: list[State], expected: State) -> None:
    assert standing(*states).state is expected


def test_each_environment_is_promoted_for_by_itself() -> None:
    both = Standing((change(V, "test"), change(P, "staging"), change(P, "production"), change(P, "staging")))
    assert both.promoted == ("production", "staging")
    assert str(both) == "promoted: production, staging"
    assert both.environments == {"test", "staging", "production"}
    assert both.trusted_in("test")
    assert not both.trusted_in("other")


@given(
    st.builds(
        Change,
        st.sampled_from(State),
        st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)).map(lambda at: at.replace(microsecond=0)),
        st.text(),
        st.text(),
        st.text(),
        st.text(),
    )
)
def test_a_record_is_read_back_as_it_was_written(written: Change) -> None:
    assert depot_states.change_from_json(written.to_json(), "here") == written


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("why"),
        lambda record: record.update(state="good"),
        lambda record: record.update(schema=2),
        lambda record: record.update(at="yesterday"),
        lambda record: record.update(by=3),
        lambda record: record.update(more="x"),
    ],
)
def test_what_is_no_record_is_named(spoil: Callable[[dict[str, object]], object]) -> None:
    record = json.loads(change(V).to_json())
    spoil(record)
    with pytest.raises(depot_states.StateRecordError, match=r"^states/1 is no record"):
        depot_states.change_from_json(json.dumps(record).encode(), "states/1")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"{"])
def test_what_is_no_json_object_is_no_record(content: bytes) -> None:
    with pytest.raises(depot_states.StateRecordError):
        depot_states.change_from_json(content, "states/1")


def test_a_record_of_another_manifest_is_refused() -> None:
    with pytest.raises(depot_states.StateRecordError, match=r"hello 1: its record 2 \(promoted\) is of a manifest"):
        standing_of("hello 1", [change(V), Change(P, NOW, "x", "y", "1e" * 32)], DIGEST)
    assert standing_of("hello 1", [change(V)], DIGEST).verified


def test_what_is_retired_is_told_with_who_and_why() -> None:
    depot_states.refuse_retired("hello 1", standing(V, P), "deployed")
    with pytest.raises(depot_states.RetiredReleaseError) as refused:
        depot_states.refuse_retired("hello 1", Standing((change(V), change(R, why="it leaks"))), "deployed")
    assert "retired at 2026-06-01T12:00:00Z by anna@deploy1: it leaks. It is not deployed any more" in str(
        refused.value
    )
    assert refused.value.reason == "release-retired"


def test_what_is_in_quarantine_is_not_promoted() -> None:
    depot_states.refuse_unverified("hello 1", standing(Q, V))
    for unverified, why in ((standing(Q), "because"), (Standing(), "before states were kept")):
        with pytest.raises(depot_states.NotVerifiedError, match=why) as refused:
            depot_states.refuse_unverified("hello 1", unverified)
        assert refused.value.reason == "release-not-verified"


def test_what_is_promoted_for_another_environment_is_not_for_this_one() -> None:
    depot_states.refuse_unpromoted("hello 1", "1", standing(V, P), "staging")
    with pytest.raises(depot_states.NotPromotedError, match="production deploys only") as refused:
        depot_states.refuse_unpromoted("hello 1", "1", standing(V, P), "production")
    assert refused.value.reason == "release-not-promoted"
