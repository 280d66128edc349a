# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a judge of metrics takes and says.

Every judge is a pure function of its looks, its rules, and whether the time is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Generic, TypeVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Verdict

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Look(Generic[Sample]):
    """One look at a metric, ``at`` seconds after the gate began.

    Without a sample, ``nothing`` says what was not there, or ``error`` why the source could not be read. A look with
    none of the three only took the counters from which the next look counts.
    """

    at: float
    sample: Sample | None = None
    nothing: str = ""
    error: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a metric says, in one sentence with the numbers. Without a verdict it is undecided: go on looking."""

    verdict: Verdict | None
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How much may be missing. ``inconclusive`` counts looks over the whole time, ``errors`` looks in a row."""

    inconclusive: int = 3
    errors: int = 4


LIMITS = Limits()


def troubled(looks: Sequence[Look[Sample]], limits: Limits, unclear: int = 0) -> Judgement | None:
    """The verdict for want of data, once more is missing than the limits allow.

    ``unclear`` counts looks that had a sample, which said neither yes nor no.
    """
    errors = len(list(takewhile(lambda look: look.error, reversed(looks))))
    if errors > limits.errors:
        return Judgement(Verdict.ERROR, f"{looks[-1].error} ({errors} looks in a row, {limits.errors} are allowed)")
    empty = [look.nothing for look in looks if look.nothing]
    missing = len(empty) + unclear
    if missing > limits.inconclusive:
        what = empty[-1] if empty else "the values say neither yes nor no"
        return Judgement(
            Verdict.INCONCLUSIVE, f"{what} ({missing} of {len(looks)} looks, {limits.inconclusive} are allowed)"
        )
    return None


def unheard(looks: Sequence[Look[Sample]], ended: bool) -> Judgement:
    """What to say where no look has had a sample: once the time is over, that is never a pass."""
    error = next((look.error for look in reversed(looks) if look.error), "")
    why = error or next((look.nothing for look in reversed(looks) if look.nothing), "")
    if not ended:
        return Judgement(None, why or "nothing has been counted yet")
    if error:
        return Judgement(Verdict.ERROR, error)
    return Judgement(Verdict.INCONCLUSIVE, why or f"{times(len(looks), 'look')} gave nothing to count: look for longer")


def samples(looks: Sequence[Look[Sample]]) -> list[Sample]:
    """What the looks found, without those that found nothing."""
    return [look.sample for look in looks if look.sample is not None]


def times(count: float, what: str) -> str:
    """A count with its noun: 1 look, 2 looks."""
    return f"{count:g} {what}" if count == 1 else f"{count:.10g} {what}s"
