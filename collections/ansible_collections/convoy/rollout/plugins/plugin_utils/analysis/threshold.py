# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge ``threshold``: each look is held against fixed limits."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.judgement import (
    LIMITS,
    Judgement,
    Limits,
    Look,
    samples,
    times,
    troubled,
    unheard,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}

Values = Mapping[str, float]  # what a look found, by the name of the series


@dataclass(frozen=True)
class Condition:
    """A comparison with a number, such as ``< 0.01``."""

    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether it is true of ``value``."""
        return OPERATORS[self.sign](value, self.limit)

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}"


@dataclass(frozen=True)
class Threshold:
    """The rules. A value is good when it meets all of ``success``, bad when it meets one of ``failure``.

    Where only one of them is given, what is not good is bad, and what is not bad is good. Where both are given, what is
    neither is inconclusive. More than ``failures`` bad looks fail, counted over the whole time or, with
    ``consecutive``, in a row. ``successes`` good looks in a row pass before the time is over; 0 looks to the end.
    """

    success: tuple[Condition, ...] = ()
    failure: tuple[Condition, ...] = ()
    failures: int = 0
    consecutive: bool = False
    successes: int = 0
    limits: Limits = LIMITS


def judge(looks: Sequence[Look[Values]], rules: Threshold, ended: bool) -> Judgement:
    """The judgement over the looks so far. Bad looks decide before missing ones."""
    seen = samples(looks)
    verdicts = [classify(values, rules) for values in seen]
    bad, good = verdicts.count(Verdict.FAIL), verdicts.count(Verdict.PASS)
    unclear = verdicts.count(Verdict.INCONCLUSIVE)
    numbers = {"good": good, "bad": bad, "inconclusive": unclear, "last": _finite(seen[-1]) if seen else {}}
    if _bad_looks(verdicts, rules) > rules.failures:
        at_worst = seen[max(index for index, verdict in enumerate(verdicts) if verdict is Verdict.FAIL)]
        limit = f"{bad} of {times(len(seen), 'look')} bad, {rules.failures}{_in_a_row(rules)} are allowed"
        return Judgement(Verdict.FAIL, f"{_told(at_worst, rules)} ({limit})", numbers)
    trouble = troubled(looks, rules.limits, unclear)
    if trouble or not seen:
        return trouble or unheard(looks, ended)
    streak = _streak(verdicts, Verdict.PASS)
    why = f"{good} of {times(len(seen), 'look')} good, the last with {_told(seen[-1], rules)}"
    if rules.successes and streak >= rules.successes:
        return Judgement(Verdict.PASS, f"{why}, {streak} in a row", numbers)
    if not ended:
        return Judgement(None, why, numbers)
    if rules.successes:
        return Judgement(Verdict.INCONCLUSIVE, f"{why}, never {rules.successes} good ones in a row", numbers)
    return Judgement(Verdict.PASS if good else Verdict.INCONCLUSIVE, why, numbers)


def classify(values: Values, rules: Threshold) -> Verdict:
    """What one look says: pass, fail, or inconclusive. A value that is no number (no traffic, often) says nothing."""
    numbers = [value for value in values.values() if not math.isnan(value)]
    if any(_is_bad(value, rules) for value in numbers):
        return Verdict.FAIL
    if len(numbers) < len(values) or not numbers:
        return Verdict.INCONCLUSIVE
    return Verdict.PASS if all(_is_good(value, rules) for value in numbers) else Verdict.INCONCLUSIVE


def _is_bad(value: float, rules: Threshold) -> bool:
    if rules.failure:
        return any(condition.holds(value) for condition in rules.failure)
    return not _is_good(value, rules)


def _is_good(value: float, rules: Threshold) -> bool:
    return all(condition.holds(value) for condition in rules.success)


def _finite(values: Values) -> dict[str, float | None]:
    """As JSON can hold it."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _bad_looks(verdicts: Sequence[Verdict], rules: Threshold) -> int:
    return _streak(verdicts, Verdict.FAIL) if rules.consecutive else verdicts.count(Verdict.FAIL)


def _streak(verdicts: Sequence[Verdict], wanted: Verdict) -> int:
    """How many looks in a row said that, at most."""
    return max((len(list(run)) for verdict, run in groupby(verdicts) if verdict is wanted), default=0)


def _in_a_row(rules: Threshold) -> str:
    return " in a row" if rules.consecutive else ""


def _told(values: Values, rules: Threshold) -> str:
    """The value that says most of a look: a bad one, one that is no number, or the first; and what was asked of it."""
    name, value = max(values.items(), key=lambda item: (_is_bad(item[1], rules), math.isnan(item[1])))
    of = f" of {name}" if name else ""
    return f"{value:.4g}{of} ({'; '.join(_asked(rules))})"


def _asked(rules: Threshold) -> Iterator[str]:
    if rules.success:
        yield f"good is {' and '.join(map(str, rules.success))}"
    if rules.failure:
        yield f"bad is {' or '.join(map(str, rules.failure))}"
