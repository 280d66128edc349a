# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate's decision keeps for every gate and every course of health."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import gate

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")


class Course(gate.Clock):
    """A clock and the rounds of a gate at once: each round takes its time and is healthy or not."""

    def __init__(self, rounds):
        self.rounds, self.time, self.seen = rounds, 0.0, []

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds >= 0
        self.time += seconds

    def look(self, probes, limit):
        healthy, lasts = self.rounds[len(self.seen) % len(self.rounds)]
        self.time += min(lasts, limit)
        self.seen.append((self.time, healthy))
        return [gate.Outcome(probe.label, healthy, "seen") for probe in probes]

    def streak(self):
        """When each of the rounds was seen that were healthy in a row up to now."""
        times = []
        for at, healthy in reversed(self.seen):
            if not healthy:
                break
            times.append(at)
        return times[::-1]


@st.composite
def gates(draw):
    deadline = draw(st.floats(0.5, 60))
    interval = draw(st.floats(0.05, 10))
    most = max(int(deadline / interval), 1)
    options = {
        "deadline": deadline,
        "interval": interval,
        "timeout": draw(st.floats(0.01, 10)),
        "successes": draw(st.integers(1, min(most, 20))),
        "min_healthy_time": draw(st.floats(0, deadline * 0.99)),
    }
    hypothesis.assume((options["successes"] - 1) * interval < deadline)
    return gate.validate([{"kind": "tcp", "port": 80}], options)


rounds = st.lists(st.tuples(st.booleans(), st.floats(0, 5)), min_size=1, max_size=12)
mostly_healthy = st.lists(st.tuples(st.sampled_from([True] * 9 + [False]), st.floats(0, 0.1)), min_size=1, max_size=30)


def ended(one, course):
    return gate.run(one, course, course.look)


@hypothesis.given(gates(), rounds | mostly_healthy)
def test_never_a_pass_with_fewer_successes_in_a_row(one, course):
    course = Course(course)
    if ended(one, course).verdict == "pass":
        assert len(course.streak()) >= one.successes


@hypothesis.given(gates(), rounds | mostly_healthy)
def test_never_a_pass_before_the_minimum_healthy_time(one, course):
    course = Course(course)
    if ended(one, course).verdict == "pass":
        streak = course.streak()
        assert streak[-1] - streak[0] >= one.min_healthy_time
        assert course.time >= one.min_healthy_time


@hypothesis.given(gates(), rounds | mostly_healthy)
def test_always_an_end_by_the_deadline(one, course):
    course = Course(course)
    result = ended(one, course)
    assert result.verdict in ("pass", "fail")
    assert course.time <= one.deadline + 1e-6


@hypothesis.given(gates(), st.floats(0, 0.001))
def test_a_healthy_service_passes_as_soon_as_the_rules_allow(one, lasts):
    course = Course([(True, lasts)])
    result = ended(one, course)
    earliest = max((one.successes - 1) * one.interval, one.min_healthy_time)
    if earliest + one.interval + 1 < one.deadline:
        assert result.verdict == "pass"
        assert course.time <= earliest + one.interval + 0.2


@hypothesis.given(gates(), rounds | mostly_healthy)
def test_it_gives_up_only_when_even_perfect_health_would_come_too_late(one, course):
    course = Course(course)
    if ended(one, course).verdict == "fail":
        streak = course.streak()
        next_at = max(course.time, 0.0)
        missing = max(one.successes - len(streak), 1)
        last_start = next_at + (missing - 1) * one.interval
        healthy_since = streak[0] if streak else next_at
        slack = one.interval + 1e-6
        assert last_start + slack >= one.deadline or healthy_since + one.min_healthy_time + slack >= one.deadline


@hypothesis.given(st.floats(0.5, 60), rounds)
def test_no_probes_never_pass(deadline, course):
    course = Course(course)
    result = ended(gate.validate([], {"deadline": deadline, "interval": 0.1, "successes": 1}), course)
    assert result.verdict == "inconclusive"
    assert not course.seen


@hypothesis.given(gates(), st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=30))
def test_progress_counts_what_was_seen(one, seen):
    progress, now = gate.Progress(), 0.0
    for healthy, later in seen:
        now += later
        progress = gate.advance(progress, healthy, now)
    assert progress.rounds == len(seen)
    assert progress.failed == sum(not healthy for healthy, _later in seen)
    tail = "".join("o" if healthy else "x" for healthy, _later in seen).rsplit("x", 1)[-1]
    assert progress.streak == len(tail)
