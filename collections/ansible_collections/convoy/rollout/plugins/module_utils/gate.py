# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health gate: asks a set of probes again and again until they are healthy for long enough, or time is up.

A round asks every probe once, all at the same time. The gate passes when `successes` rounds in a row were healthy
and the first of them lies at least `min_healthy_time` back; one unhealthy round begins both anew. It fails as soon
as that can no longer happen before `deadline`. A gate that cannot be used gives the verdict error, one that has
nothing to ask gives inconclusive: neither is ever a pass.
"""

from __future__ import annotations

import threading
import time

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import silence
from ansible_collections.convoy.rollout.plugins.module_utils.probe_rules import (
    Field,
    is_count,
    is_number,
    is_positive,
)
from ansible_collections.convoy.rollout.plugins.module_utils.probes import (
    KINDS,
    Outcome,
    Probe,
    check,
    check_keys,
    check_values,
    parse,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Sequence

# What a caller needs, wherever it is defined.
__all__ = [
    "KEPT_FIRST",
    "KEPT_LAST",
    "KINDS",
    "Clock",
    "Gate",
    "GateError",
    "GateResult",
    "Look",
    "Outcome",
    "Probe",
    "Progress",
    "advance",
    "arguments",
    "decide",
    "expecting",
    "look_at",
    "once",
    "run",
    "validate",
    "watch",
]

KEPT_FIRST = 5
KEPT_LAST = 45

# For how long an attempt may clean up after itself (kill its command, close its socket) before it is left alone.
_GRACE = 0.25


class Gate(NamedTuple):
    """A validated gate; times in seconds. `successes` counts rounds in a row in which every probe is healthy."""

    probes: tuple[Probe, ...]
    interval: float
    timeout: float
    successes: int
    min_healthy_time: float
    deadline: float


class GateResult(NamedTuple):
    """How a gate ended. `dropped` counts the attempts that were left out of the middle of `attempts`."""

    verdict: str
    message: str
    attempts: list[dict[str, Any]]
    dropped: int
    elapsed: float

    @property
    def passed(self) -> bool:
        """Only the verdict `pass` is one."""
        return self.verdict == "pass"

    def as_dict(self) -> dict[str, Any]:
        """As a module returns it: verdict, message, attempts, dropped, elapsed."""
        return dict(self._asdict())


# --- validation ------------------------------------------------------------------------------------------------


_OPTIONS: Mapping[str, Field] = {
    "interval": Field("a number of seconds above 0", is_positive, default=0.5),
    "timeout": Field("a number of seconds above 0", is_positive, default=2.0),
    "successes": Field("a count of at least 1", lambda value: is_count(value) and value >= 1, default=2),
    "min_healthy_time": Field(
        "a number of seconds, 0 or more", lambda value: is_number(value) and value >= 0, default=0.0
    ),
    "deadline": Field("a number of seconds above 0", is_positive, default=30.0),
}


def expecting(probes: Sequence[Any] | None, version: str | None) -> list[Any]:
    """`probes`, where a probe of kind version that names no version expects `version`: that of the release at hand."""
    return [
        dict(probe, expect=version)
        if version and isinstance(probe, dict) and probe.get("kind") == "version" and probe.get("expect") is None
        else probe
        for probe in probes or []
    ]


def validate(probes: Sequence[Any] | None, options: Mapping[str, Any] | None) -> Gate:
    """The gate that `probes` and `options` describe; keys whose value is None count as not given.

    Raises GateError that names the field, its value, the rule and, for an unknown key, the nearest known one.
    """
    if not isinstance(probes if probes is not None else [], list):
        raise GateError(f"probes is {probes!r}: must be a list of probes")
    if not isinstance(options if options is not None else {}, dict):
        raise GateError(f"gate is {options!r}: must be a mapping of {', '.join(sorted(_OPTIONS))}")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    check_keys("gate", given, _OPTIONS, "a gate")
    check_values("gate", given, _OPTIONS)
    values = {key: given.get(key, field.default) for key, field in _OPTIONS.items()}
    parsed = tuple(parse(f"probes[{at}]", probe, values["timeout"]) for at, probe in enumerate(probes or []))
    gate = Gate(probes=parsed, **values)
    _check_reachable(gate)
    return gate


def _check_reachable(gate: Gate) -> None:
    """A gate that can never pass is a mistake, found before anything is touched."""
    if gate.min_healthy_time >= gate.deadline:
        raise GateError(
            f"gate.min_healthy_time is {gate.min_healthy_time:g}: must be less than gate.deadline ({gate.deadline:g})"
        )
    shortest = (gate.successes - 1) * gate.interval
    if shortest >= gate.deadline:
        raise GateError(
            f"gate.successes is {gate.successes}: with an interval of {gate.interval:g} s they take at least "
            f"{shortest:g} s, which must be less than gate.deadline ({gate.deadline:g})"
        )


# --- the decision ----------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """What the rounds so far amount to. `since` is when the first round of the present streak was seen healthy."""

    rounds: int = 0
    failed: int = 0
    streak: int = 0
    since: float = 0.0

    def healthy_for(self, now: float) -> float:
        """Seconds since the streak began; 0 without one."""
        return now - self.since if self.streak else 0.0


def advance(progress: Progress, healthy: bool, now: float) -> Progress:
    """The progress after one more round that was seen at `now`, in seconds since the gate began."""
    if not healthy:
        return Progress(progress.rounds + 1, progress.failed + 1)
    since = progress.since if progress.streak else now
    return Progress(progress.rounds + 1, progress.failed, progress.streak + 1, since)


def decide(gate: Gate, progress: Progress, now: float, next_at: float) -> str | None:
    """`pass`, `fail`, or None to go on with a round at `next_at`; both times in seconds since the gate began.

    The rules are those of a Nomad deployment: healthy without a break for the minimum time, all before the deadline.
    """
    done = progress.streak >= gate.successes and progress.healthy_for(now) >= gate.min_healthy_time
    if done and now <= gate.deadline:
        return "pass"
    return None if _can_still_pass(gate, progress, next_at) else "fail"


def _can_still_pass(gate: Gate, progress: Progress, next_at: float) -> bool:
    missing = max(gate.successes - progress.streak, 1)
    last_round_at = next_at + (missing - 1) * gate.interval
    healthy_since = progress.since if progress.streak else next_at
    return last_round_at < gate.deadline and healthy_since + gate.min_healthy_time <= gate.deadline


# --- the run ---------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    Look = Callable[[Sequence[Probe], float], Sequence[Outcome]]


def look_at(probes: Sequence[Probe], limit: float) -> list[Outcome]:
    """One round: every probe at the same time, each for its own timeout but never longer than `limit` seconds."""
    limits = [min(probe.timeout, limit) for probe in probes]
    outcomes = [Outcome(probe.label, False, silence(limit)) for probe, limit in zip(probes, limits)]
    threads = [
        threading.Thread(target=_answer, args=(outcomes, at, probe, limits[at]), daemon=True)
        for at, probe in enumerate(probes)
    ]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + max(limits, default=0.0) + _GRACE
    for thread in threads:
        thread.join(max(ends - time.monotonic(), 0.0))
    # An attempt that does not come home in time is left alone, as silent.
    return list(outcomes)


def _answer(outcomes: list[Outcome], at: int, probe: Probe, limit: float) -> None:
    outcomes[at] = check(probe, limit)


class _Record:
    """The attempts, bounded: the first ones tell how it began, the last ones how it ended."""

    def __init__(self) -> None:
        self.first: list[dict[str, Any]] = []
        self.last: list[dict[str, Any]] = []
        self.dropped = 0
        self.failure: Outcome | None = None

    def add_round(self, at: float, outcomes: Sequence[Outcome], cut: frozenset[str] = frozenset()) -> None:
        """Keep the outcomes of a round that began at `at`. What is blamed is the first probe that was unhealthy.

        `cut` are the probes that the deadline cut short. They are blamed only if nothing else ever was.
        """
        for outcome in outcomes:
            self._keep({"at": round(at, 3), "probe": outcome.probe, "ok": outcome.ok, "detail": outcome.detail})
        unhealthy = [outcome for outcome in outcomes if not outcome.ok]
        blamed = [outcome for outcome in unhealthy if outcome.probe not in cut]
        if blamed or self.failure is None:
            self.failure = next(iter(blamed or unhealthy), None)

    def _keep(self, attempt: dict[str, Any]) -> None:
        if len(self.first) < KEPT_FIRST:
            self.first.append(attempt)
            return
        self.last.append(attempt)
        if len(self.last) > KEPT_LAST:
            del self.last[0]
            self.dropped += 1

    def result(self, verdict: str, message: str, elapsed: float) -> GateResult:
        """The end of the gate."""
        return GateResult(verdict, message, self.first + self.last, self.dropped, round(elapsed, 3))


def run(gate: Gate, clock: Clock, look: Look = look_at) -> GateResult:
    """Ask until the gate passes, fails or shows itself unusable; at the latest at the deadline.

    `look` asks one round; tests pass their own.
    """
    record = _Record()
    if not gate.probes:
        return record.result("inconclusive", _NOTHING_ASKED, 0.0)
    began = clock.now()
    progress = Progress()
    while True:
        started = clock.now() - began
        left = gate.deadline - started
        outcomes = look(gate.probes, left)
        now = clock.now() - began
        record.add_round(started, outcomes, _cut_short(gate.probes, outcomes, left))
        if not all(outcome.usable for outcome in outcomes):
            return record.result("error", _unusable(outcomes), now)
        progress = advance(progress, all(outcome.ok for outcome in outcomes), now)
        next_at = max(started + gate.interval, now)
        verdict = decide(gate, progress, now, next_at)
        if verdict is not None:
            return record.result(verdict, _message(gate, progress, record, verdict, now), now)
        clock.sleep(next_at - now)


def _cut_short(probes: Sequence[Probe], outcomes: Sequence[Outcome], left: float) -> frozenset[str]:
    """The labels of probes whose silence says little, since their own timeout was longer than what was left."""
    pairs = zip(probes, outcomes)
    return frozenset(o.probe for probe, o in pairs if left < probe.timeout and o.detail == silence(left))


def once(gate: Gate, clock: Clock, look: Look = look_at) -> GateResult:
    """Ask one round only: pass when every probe is healthy now."""
    record = _Record()
    if not gate.probes:
        return record.result("inconclusive", _NOTHING_ASKED, 0.0)
    began = clock.now()
    outcomes = look(gate.probes, max(probe.timeout for probe in gate.probes))
    record.add_round(0.0, outcomes)
    elapsed = clock.now() - began
    if not all(outcome.usable for outcome in outcomes):
        return record.result("error", _unusable(outcomes), elapsed)
    if record.failure is not None:
        return record.result("fail", f"probe {record.failure.probe} {record.failure.detail}", elapsed)
    return record.result("pass", f"{_all(gate)} healthy", elapsed)


def watch(gate: Gate, seconds: float, clock: Clock, look: Look = look_at) -> GateResult:
    """Ask again and again for `seconds`, at least once: pass when no round was unhealthy. The first one ends it."""
    record = _Record()
    if not gate.probes:
        return record.result("inconclusive", _NOTHING_ASKED, 0.0)
    began = clock.now()
    longest = max(probe.timeout for probe in gate.probes)
    rounds = 0
    while True:
        started = clock.now() - began
        outcomes = look(gate.probes, longest)
        record.add_round(started, outcomes)
        rounds += 1
        now = clock.now() - began
        if not all(outcome.usable for outcome in outcomes):
            return record.result("error", _unusable(outcomes), now)
        if record.failure is not None:
            return record.result("fail", f"probe {record.failure.probe} {record.failure.detail}", now)
        next_at = max(started + gate.interval, now)
        if next_at >= seconds:
            return record.result("pass", f"{_all(gate)} healthy in {rounds} rounds", now)
        clock.sleep(next_at - now)


# --- the words -------------------------------------------------------------------------------------------------


_NOTHING_ASKED = "no probes are defined, so nothing was asked: define at least one"


def _unusable(outcomes: Sequence[Outcome]) -> str:
    outcome = next(outcome for outcome in outcomes if not outcome.usable)
    return f"probe {outcome.probe} cannot be used, so it says nothing about health: {outcome.detail}"


def _message(gate: Gate, progress: Progress, record: _Record, verdict: str, now: float) -> str:
    if verdict == "pass":
        return (
            f"{_all(gate)} healthy in {progress.streak} rounds in a row, for {progress.healthy_for(now):.1f} s, "
            f"after {now:.1f} s"
        )
    if record.failure is not None:
        return (
            f"probe {record.failure.probe} {record.failure.detail}, "
            f"{progress.failed} of {progress.rounds} rounds failed {_within(gate, now)}"
        )
    return f"{_all(gate)} healthy, but only {_reached(gate, progress, now)} {_within(gate, now)}"


def _reached(gate: Gate, progress: Progress, now: float) -> str:
    if progress.streak < gate.successes:
        return f"in {progress.streak} of {gate.successes} rounds in a row"
    return f"for {progress.healthy_for(now):.1f} of {gate.min_healthy_time:g} s"


def _within(gate: Gate, now: float) -> str:
    """A gate that gives up early says why."""
    if now + gate.interval >= gate.deadline:
        return f"within the deadline of {gate.deadline:g} s"
    return f"in {now:.1f} s, too late to become healthy for long enough before the deadline of {gate.deadline:g} s"


def _all(gate: Gate) -> str:
    return "1 probe was" if len(gate.probes) == 1 else f"all {len(gate.probes)} probes were"


# --- the arguments of a module ---------------------------------------------------------------------------------


def arguments() -> dict[str, Any]:
    """The options `probes` and `gate` of a module's argument spec, documented by the fragment convoy.rollout.gate."""
    number = {"type": "float"}
    return {
        "probes": {
            "type": "list",
            "elements": "dict",
            "options": {
                "kind": {"type": "str", "required": True, "choices": sorted(KINDS)},
                "name": {"type": "str"},
                "timeout": number,
                "url": {"type": "str"},
                "status": {"type": "list", "elements": "int"},
                "body": {"type": "str"},
                "headers": {"type": "dict", "no_log": True},
                "host": {"type": "str"},
                "port": {"type": "int"},
                "argv": {"type": "list", "elements": "str"},
                "rc": {"type": "int"},
                "unit": {"type": "str"},
                "restarts": {"type": "int"},
                "key": {"type": "str", "no_log": False},
                "expect": {"type": "str"},
                "json": {"type": "dict"},
                "answer_headers": {"type": "dict"},
                "within": number,
                "follow": {"type": "int"},
                "path": {"type": "str"},
                "free_mb": number,
                "free_percent": number,
                "most": number,
                "addresses": {"type": "list", "elements": "str"},
                "server_name": {"type": "str"},
                "days": number,
                "ca_path": {"type": "str"},
                "pattern": {"type": "str"},
                "since": number,
                "cwd": {"type": "str"},
                "running_for": number,
                "backend": {"type": "str"},
                "server": {"type": "str"},
            },
        },
        "gate": {
            "type": "dict",
            "options": {
                "interval": number,
                "timeout": number,
                "successes": {"type": "int"},
                "min_healthy_time": number,
                "deadline": number,
            },
        },
    }
