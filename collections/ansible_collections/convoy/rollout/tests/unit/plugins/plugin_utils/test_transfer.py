# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a host: never less than it lacks, and as little more as may be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.transfer import (
    MOST,
    Held,
    Next,
    Transfer,
    Wanted,
    Way,
    decide,
    from_base,
    held_of,
    missing,
)

PATHS = st.sampled_from([f"{directory}/{name}" for directory in "abc" for name in "defgh"])
CONTENTS = st.dictionaries(PATHS, st.sampled_from([bytes([n]) * (n * 10) for n in range(12)]), min_size=1)
CONFIG = st.frozensets(PATHS, max_size=3)
NEW, OLD = "n" * 64, "o" * 64
RELEASES = st.builds(
    Held,
    st.sampled_from(["1.0.0-abc", "1.1.0-abc", "1.2.0-abc"]),
    st.sampled_from(["1.0.0", "1.1.0"]),
    st.sampled_from(["staged", "active", "good", "bad", "reverted", "unknown"]),
    st.sampled_from([NEW, OLD, None]),
)
TRANSFERS = st.sampled_from(Transfer)


def files_of(contents: Mapping[str, bytes], links: tuple[str, ...] = ()) -> tuple[FileEntry, ...]:
    """As a manifest names them."""
    files = [FileEntry(p, len(c), 0o644, hashlib.sha256(c).hexdigest()) for p, c in sorted(contents.items())]
    return (*files, *(FileEntry(path, link="d") for path in links))


@given(CONTENTS, CONTENTS, CONFIG)
def test_what_is_missing_and_what_is_there_make_the_release(
    new: dict[str, bytes], old: dict[str, bytes], config: frozenset[str]
) -> None:
    """A host that has the old release with its configuration makes the new one of it and of what is sent."""
    sent = missing(files_of(new, ("l/l",)), files_of(old, ("l/l",)), config)
    there = {content for path, content in old.items() if path not in config}
    assert all(path in sent or content in there for path, content in new.items())
    assert all(new[path] not in there for path in sent)
    assert missing(files_of(new), files_of(new), ()) == frozenset()


@given(TRANSFERS, CONTENTS, CONTENTS, CONFIG, st.booleans(), st.lists(RELEASES, max_size=4), st.booleans())
def test_decisions(
    transfer: Transfer,
    new: dict[str, bytes],
    old: dict[str, bytes],
    config: frozenset[str],
    lacking: bool,
    held: list[Held],
    is_published: bool,
) -> None:
    wanted = Wanted(NEW, files_of(new), config)
    step = decide(transfer, wanted, lacking, held, lambda _release: files_of(old) if is_published else None)
    same = [release for release in held if release.artifact == NEW]
    if not lacking:
        assert step == Next(Way.PULL if transfer is Transfer.PULL else Way.ASK)
    elif same and not config & new.keys():
        assert step == Next(Way.DELTA, same[0].id)
    elif not same:
        usual = {Transfer.PUSH: {Way.WHOLE}, Transfer.PULL: {Way.PULL}}
        assert step.way in usual.get(transfer, {Way.DELTA, Way.ASK, Way.WHOLE})
    if step.way is Way.DELTA:
        assert {step.base} <= {release.id for release in held}
        assert step.missing <= new.keys()
        assert sum(len(new[path]) for path in step.missing) <= MOST * sum(map(len, new.values()))
    else:
        assert (step.base, step.missing) == ("", frozenset())
    if step.way is Way.ASK:
        assert not lacking or (transfer is Transfer.DELTA and held)


def test_a_first_release_costs_no_question() -> None:
    wanted = Wanted(NEW, files_of({"a": b"a"}))
    assert decide(Transfer.DELTA, wanted, True, [], lambda _release: None) == Next(Way.WHOLE)


def test_bad_releases_are_no_base() -> None:
    held = [Held("3", "3", "bad", OLD), Held("2", "2", "staged", OLD), Held("1", "1", "good", OLD)]
    wanted = Wanted(NEW, files_of({"a": b"a" * 9, "b": b"b"}))
    there = files_of({"a": b"a" * 9})
    assert decide(Transfer.DELTA, wanted, True, held, lambda _r: there) == Next(Way.DELTA, "1", frozenset("b"))


def test_much_that_is_missing_goes_whole() -> None:
    files = files_of({"a": b"a" * 81, "b": b"b" * 19})
    assert from_base("1", ["a"], files) == Next(Way.WHOLE)
    assert from_base("1", ["b", "unknown"], files).way is Way.DELTA


def test_what_release_info_tells() -> None:
    told = [
        {"id": "1-a", "version": "1", "state": "good", "artifact": OLD},
        {"id": "0", "version": "0", "state": "good"},
    ]
    assert held_of(told) == [Held("1-a", "1", "good", OLD), Held("0", "0", "good", None)]
