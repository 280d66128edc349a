# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: its options, its decision, its run with a clock of its own, and one run with the real one."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import gate
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import silence
from ansible_collections.convoy.rollout.plugins.module_utils.probes import Outcome, Probe

PROBES = [{"kind": "tcp", "port": 80}, {"kind": "tcp", "port": 81, "name": "second"}]
FIRST, SECOND = "tcp 127.0.0.1:80", "second (tcp 127.0.0.1:81)"


class FakeClock(gate.Clock):
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Script:
    """Plays the rounds of a gate: each letter of the text is one (o healthy, x unhealthy), the last one repeats."""

    def __init__(self, rounds: str, clock: FakeClock, lasts: float = 0.0) -> None:
        self.rounds, self.clock, self.lasts = rounds, clock, lasts
        self.limits: list[float] = []

    def __call__(self, probes: Sequence[Probe], limit: float) -> list[Outcome]:
        healthy = self.rounds[min(len(self.limits), len(self.rounds) - 1)] == "o"
        self.limits.append(limit)
        self.clock.sleep(min(self.lasts, limit))
        *first, last = probes
        return [Outcome(probe.label, True, "fine") for probe in first] + [
            Outcome(last.label, healthy, "fine" if healthy else "answered 500 (expected 200)")
        ]


def run(rounds: str, lasts: float = 0.0, **options: Any) -> gate.GateResult:
    clock = FakeClock()
    return gate.run(gate.validate(PROBES, options), clock, Script(rounds, clock, lasts))


def test_defaults() -> None:
    assert gate.validate([], {})[1:] == (0.5, 2.0, 2, 0.0, 30.0)
    assert gate.validate(None, None) == gate.validate([], {"interval": None})


def test_a_probe_has_the_timeout_of_the_gate_unless_it_has_its_own() -> None:
    probes = [{"kind": "tcp", "port": 80}, {"kind": "tcp", "port": 80, "timeout": 5}]
    assert [probe.timeout for probe in gate.validate(probes, {"timeout": 1}).probes] == [1, 5]


REFUSED: list[tuple[Any, Any, str]] = [
    ({"kind": "tcp"}, {}, "probes is .*: must be a list of probes"),
    ([{"kind": "tcp", "port": 1}, {"kind": "tpc"}], {}, r"probes\[1\].kind is 'tpc'.*did you mean 'tcp'"),
    ([], [], "gate is .*: must be a mapping of deadline, interval"),
    ([], {"sucesses": 3}, r"gate has an unknown key 'sucesses', did you mean 'successes'\? \(a gate takes deadline"),
    ([], {"interval": 0}, "gate.interval is 0: must be a number of seconds above 0"),
    ([], {"timeout": "2"}, "gate.timeout is '2'"),
    ([], {"timeout": -1}, "gate.timeout is -1"),
    ([], {"successes": 0}, "gate.successes is 0: must be a count of at least 1"),
    ([], {"successes": 1.5}, "gate.successes is 1.5"),
    ([], {"min_healthy_time": -1}, "gate.min_healthy_time is -1"),
    ([], {"deadline": 0}, "gate.deadline is 0"),
    ([], {"deadline": float("inf")}, "gate.deadline is inf"),
    ([], {"min_healthy_time": 30}, r"min_healthy_time is 30: must be less than gate.deadline \(30\)"),
    ([], {"successes": 21, "deadline": 10}, r"successes is 21: with an interval of 0.5 s they take at least 10 s"),
]


@pytest.mark.parametrize(("probes", "options", "words"), REFUSED)
def test_what_is_wrong_is_named(probes: Any, options: Any, words: str) -> None:
    with pytest.raises(GateError, match=words):
        gate.validate(probes, options)


def test_it_passes_after_successes_in_a_row() -> None:
    result = run("oo")
    assert result.verdict == "pass"
    assert result.passed
    assert result.elapsed == 0.5
    assert [(attempt["at"], attempt["probe"], attempt["ok"]) for attempt in result.attempts] == [
        (0.0, FIRST, True),
        (0.0, SECOND, True),
        (0.5, FIRST, True),
        (0.5, SECOND, True),
    ]
    assert result.message == "all 2 probes were healthy in 2 rounds in a row, for 0.5 s, after 0.5 s"


def test_one_unhealthy_round_begins_the_count_anew() -> None:
    assert run("oxoxoo", successes=2).elapsed == 2.5


def test_healthy_long_enough_without_a_break() -> None:
    assert run("o", successes=1, min_healthy_time=3).elapsed == 3.0
    assert run("oooxo", successes=1, min_healthy_time=3).elapsed == 5.0


def test_it_fails_at_the_deadline_and_says_what_was_answered() -> None:
    result = run("x", deadline=6, successes=1)
    assert result.verdict == "fail"
    assert not result.passed
    assert result.elapsed == 5.5
    assert result.message == (
        f"probe {SECOND} answered 500 (expected 200), 12 of 12 rounds failed within the deadline of 6 s"
    )


def test_it_gives_up_when_it_can_no_longer_pass_and_says_so() -> None:
    result = run("x", deadline=10, min_healthy_time=8)
    assert result.elapsed == 2.0
    assert result.message.endswith(
        "5 of 5 rounds failed in 2.0 s, too late to become healthy for long enough before the deadline of 10 s"
    )


def test_healthy_rounds_that_are_too_slow_do_not_pass() -> None:
    result = run("o", lasts=4, successes=4, deadline=12)
    assert (result.verdict, result.elapsed) == ("fail", 12.0)
    assert result.message == (
        "all 2 probes were healthy, but only in 3 of 4 rounds in a row within the deadline of 12 s"
    )


def test_healthy_for_too_short_a_time_does_not_pass() -> None:
    result = run("xo", lasts=3, successes=1, min_healthy_time=5, deadline=14)
    assert (result.verdict, result.elapsed) == ("pass", 12.0)
    result = run("xxo", lasts=3, successes=1, min_healthy_time=5, deadline=13.9)
    assert (result.verdict, result.elapsed) == ("fail", 9.0)


def test_a_round_that_ends_after_the_deadline_is_no_pass() -> None:
    class Late(Script):
        def __call__(self, probes: Sequence[Probe], limit: float) -> list[Outcome]:
            self.clock.sleep(limit + 0.1)
            return super().__call__(probes, limit)

    clock = FakeClock()
    assert gate.run(gate.validate(PROBES, {"successes": 1}), clock, Late("o", clock)).verdict == "fail"


def test_no_round_may_last_beyond_the_deadline() -> None:
    clock = FakeClock()
    script = Script("x", clock, lasts=0.25)
    gate.run(gate.validate(PROBES, {"deadline": 2, "successes": 1}), clock, script)
    assert script.limits == [2.0, 1.5, 1.0, 0.5]


class Slow(Script):
    """One that answers only when it is given two seconds."""

    def __call__(self, probes: Sequence[Probe], limit: float) -> list[Outcome]:
        outcomes = super().__call__(probes, limit)
        late = Outcome(outcomes[0].probe, False, silence(limit))
        return outcomes if limit >= 2 else [late, *outcomes[1:]]


def test_a_probe_that_the_deadline_cut_short_is_not_blamed_for_the_others() -> None:
    clock = FakeClock()
    failed = gate.run(gate.validate(PROBES, {"deadline": 4, "successes": 1}), clock, Slow("x", clock, lasts=0.25))
    assert failed.message.startswith(f"probe {SECOND} answered 500 (expected 200), 8 of 8 rounds failed")


def test_a_probe_that_the_deadline_cut_short_is_blamed_where_nothing_else_was_wrong() -> None:
    clock = FakeClock()
    failed = gate.run(gate.validate(PROBES, {"deadline": 1, "successes": 1}), clock, Slow("o", clock, lasts=0.25))
    assert failed.message.startswith(f"probe {FIRST} {silence(1)}, 2 of 2 rounds failed")


def test_no_probes_is_no_pass() -> None:
    for result in (gate.run(gate.validate([], {}), FakeClock()), gate.once(gate.validate([], {}), FakeClock())):
        assert (result.verdict, result.attempts) == ("inconclusive", [])
        assert "no probes are defined" in result.message


def test_a_probe_that_cannot_be_used_ends_the_gate_at_once_with_an_error() -> None:
    result = gate.run(
        gate.validate([*PROBES, {"kind": "command", "argv": ["/nowhere/check"]}], {"timeout": 1}), gate.Clock()
    )
    assert result.verdict == "error"
    assert result.message.startswith("probe command /nowhere/check cannot be used, so it says nothing about health")
    assert len(result.attempts) == 3


def test_the_attempts_are_bounded_at_both_ends() -> None:
    result = run("x", deadline=200, successes=1)
    assert len(result.attempts) == gate.KEPT_FIRST + gate.KEPT_LAST == 50
    assert result.dropped == 800 - 50
    assert [attempt["at"] for attempt in result.attempts[:5]] == [0.0, 0.0, 0.5, 0.5, 1.0]
    assert result.attempts[-1]["at"] == 199.5


def test_the_result_as_a_module_returns_it() -> None:
    assert sorted(run("oo").as_dict()) == ["attempts", "dropped", "elapsed", "message", "verdict"]


def test_one_round_only() -> None:
    clock = FakeClock()
    checked = gate.validate(PROBES, {"successes": 3, "min_healthy_time": 5})
    assert gate.once(checked, clock, Script("o", clock)).as_dict() == {
        "verdict": "pass",
        "message": "all 2 probes were healthy",
        "attempts": [
            {"at": 0.0, "probe": FIRST, "ok": True, "detail": "fine"},
            {"at": 0.0, "probe": SECOND, "ok": True, "detail": "fine"},
        ],
        "dropped": 0,
        "elapsed": 0.0,
    }
    failed = gate.once(checked, clock, Script("x", clock))
    assert (failed.verdict, failed.message) == ("fail", f"probe {SECOND} answered 500 (expected 200)")


def test_the_probes_of_a_round_are_asked_at_the_same_time() -> None:
    slow = {"kind": "command", "argv": ["python3", "-c", "import time; time.sleep(60)"]}
    gate_of_many = gate.validate([dict(slow, name=str(at)) for at in range(8)], {"timeout": 0.3})
    began = time.monotonic()
    result = gate.once(gate_of_many, gate.Clock())
    assert time.monotonic() - began < 1.5
    assert {attempt["detail"] for attempt in result.attempts} == {"did not end within 0.3 s"}


def test_an_attempt_that_never_comes_home_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    def hang(probe: Probe, limit: float) -> Outcome:
        if probe.label == SECOND:
            held.wait(30)
        return Outcome(probe.label, True, "fine")

    monkeypatch.setattr(gate, "check", hang)
    outcomes = gate.look_at(gate.validate(PROBES, {"timeout": 0.1}).probes, 5)
    held.set()
    assert outcomes == [(FIRST, True, "fine", True), (SECOND, False, "gave no answer within 0.1 s", True)]


class Flapping(http.server.BaseHTTPRequestHandler):
    """Answers 500 until it was asked three times."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        status = 500 if type(self).asked <= 3 else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"warming up" if status == 500 else b"ok")

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


def test_a_real_service_that_becomes_healthy() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Flapping) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        probes = [{"kind": "http", "url": url, "body": "^ok$"}]
        result = gate.run(gate.validate(probes, {"interval": 0.01, "successes": 2, "deadline": 10}), gate.Clock())
        server.shutdown()
        thread.join()
    assert result.verdict == "pass"
    assert [attempt["detail"] for attempt in result.attempts] == [
        *["answered 500 (expected 200): warming up"] * 3,
        *["answered 200"] * 2,
    ]


def test_the_arguments_of_a_module_cover_every_key_of_every_probe() -> None:
    options = gate.arguments()["probes"]["options"]
    known = {key for kind in gate.KINDS.values() for key in kind.fields} | {"kind", "name", "timeout"}
    assert set(options) == known
    assert set(gate.arguments()["gate"]["options"]) == set(gate.Gate._fields) - {"probes"}


def watch(rounds: str, seconds: float, lasts: float = 0.0, **options: Any) -> gate.GateResult:
    clock = FakeClock()
    return gate.watch(gate.validate(PROBES, options), seconds, clock, Script(rounds, clock, lasts))


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (0.4, 1), (1, 2), (1.1, 3), (10, 20)])
def test_a_watch_asks_for_its_whole_time(seconds: float, rounds: int) -> None:
    result = watch("o", seconds)
    assert (result.verdict, result.message) == ("pass", f"all 2 probes were healthy in {rounds} rounds")
    assert len(result.attempts) + result.dropped == 2 * rounds


def test_the_first_unhealthy_round_ends_a_watch() -> None:
    result = watch("ooxo", 60)
    assert (result.verdict, result.elapsed) == ("fail", 1.0)
    assert result.message == f"probe {SECOND} answered 500 (expected 200)"


def test_slow_rounds_do_not_make_a_watch_longer_than_one_of_them() -> None:
    assert watch("o", 5, lasts=2.0).elapsed == 6.0


def test_a_watch_that_cannot_be_used_is_no_pass() -> None:
    assert gate.watch(gate.validate([], {}), 5, FakeClock()).verdict == "inconclusive"
    nowhere = gate.validate([{"kind": "command", "argv": ["/nowhere/check"]}], {"timeout": 1})
    assert gate.watch(nowhere, 5, gate.Clock()).verdict == "error"
