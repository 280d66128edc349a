# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user asked for: phases, windows and budgets, validated before anything is touched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError


class SpecError(ConvoyError):
    """A field of the specification breaks a rule; the message names field, value and rule."""

    reason: ClassVar[str] = "spec"


MOST_DIGITS = 9


@dataclass(frozen=True)
class Quantity:
    """A number of hosts: a count, or a percentage of a group whose size is known later."""

    amount: int
    percent: bool = False

    @classmethod
    def parse(cls, field: str, value: Any, least: int = 0) -> Quantity:
        """Read ``5``, ``"5"`` or ``"25%"``; anything else raises SpecError naming ``field``."""
        text = str(value).strip()
        number = text.removesuffix("%")
        if isinstance(value, bool) or not number.isdecimal() or len(number) > MOST_DIGITS:
            raise SpecError(
                f"{field}: {value!r} is no number of hosts: write a count such as 5, or a percentage such as '25%'"
            )
        quantity = cls(int(number), text.endswith("%"))
        if quantity.percent and quantity.amount > 100:
            raise SpecError(f"{field}: {value!r} is out of range: a percentage is at most 100%")
        if quantity.amount < least:
            raise SpecError(f"{field}: {value!r} is out of range: at least {least} is needed")
        return quantity

    def down(self, total: int) -> int:
        """As a count of ``total`` hosts, rounded down: for what limits harm (windows, budgets)."""
        return total * self.amount // 100 if self.percent else self.amount

    def up(self, total: int) -> int:
        """As a count of ``total`` hosts, rounded up: for the size of a phase."""
        return -(-total * self.amount // 100) if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount}%" if self.percent else str(self.amount)


class OnFailure(StrEnum):
    """What a rollout does when more hosts have failed than its budget allows."""

    TURN_BACK = "turn_back"
    HOLD = "hold"  # a person decides
    CONTINUE = "continue"  # the rollout goes on, and has failed in the end


class Scope(StrEnum):
    """Which hosts a rollout that turns back takes back."""

    ALL = "all"
    PHASE = "phase"  # those of the phase that is open; the phases before it keep the release
    HOST = "host"  # only those that failed
    NONE = "none"  # it stops where it is


class ZoneOrder(StrEnum):
    """How zones share a phase."""

    INVENTORY = "inventory"  # they do not matter
    SPREAD = "spread"  # each phase takes hosts of all zones in turn
    ONE_AT_A_TIME = "one_at_a_time"  # a phase is one phase for each zone, with its gate


class Unreachable(StrEnum):
    """What a host counts as that cannot be reached before it is touched."""

    FAIL = "fail"
    DEFER = "defer"  # it is brought up later


class OnIrreversible(StrEnum):
    """What a rollout does that would turn back by itself, when a migration has run that cannot be reversed."""

    GO_BACK = "go_back"
    HOLD = "hold"  # a person decides


@dataclass(frozen=True)
class MigrationSpec:
    """A step of the site's own that runs once, before or ``after`` a phase. ``timeout`` is in seconds."""

    name: str
    phase: str
    after: bool
    run_on: str
    timeout: float
    reversible: bool
    idempotent: bool = False
    on_irreversible: OnIrreversible | None = None


@dataclass(frozen=True)
class PhaseSpec:
    """One phase. ``size`` is cumulative: the part of the fleet that runs the release when the phase closes.

    ``hooked``: the site has something to do when the phase has closed, before the next one opens. ``gates`` are the
    names of those that are asked while it bakes.
    """

    name: str
    size: Quantity
    max_unavailable: Quantity
    max_unavailable_per_zone: Quantity | None = None
    bake: float = 0.0
    approval: bool = False
    on_failure: OnFailure = OnFailure.TURN_BACK
    hooked: bool = False
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class FailureBudget:
    """How many hosts may fail over the whole rollout: in all, one after the other, and of one zone."""

    hosts: Quantity
    consecutive: int | None = None
    per_zone: Quantity | None = None


@dataclass(frozen=True)
class RolloutSpec:
    """How a rollout may proceed. ``lease``, ``bake`` and ``progress_deadline`` (0: none) are seconds.

    ``min_available`` hosts serve at any time, whatever the windows are.
    """

    phases: tuple[PhaseSpec, ...]
    failure_budget: FailureBudget
    turn_back_max_unavailable: Quantity
    lease: float
    min_available: Quantity = Quantity(0)
    turn_back_scope: Scope = Scope.ALL
    zone_order: ZoneOrder = ZoneOrder.INVENTORY
    unreachable: Unreachable = Unreachable.FAIL
    progress_deadline: float = 0.0
    migrations: tuple[MigrationSpec, ...] = ()


PRESETS: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType(
    {
        "all_at_once": [{"name": "all", "size": "100%", "max_unavailable": "100%"}],
        "one_by_one": [{"name": "all", "size": "100%", "max_unavailable": 1}],
        "canary": [
            {"name": "canary", "size": 1, "bake": 60},
            {"name": "early", "size": "10%", "bake": 60},
            {"name": "fleet", "size": "100%"},
        ],
        "blue_green": [{"name": "idle", "max_unavailable": "100%"}, {"name": "live", "bake": 60}],
    }
)
PHASE_KEYS = ("name", "size", "max_unavailable", "max_unavailable_per_zone", "bake", "approval", "on_failure", "gates")
BUDGET_KEYS = ("hosts", "consecutive", "per_zone")


COLOURS = ("blue", "green")


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names the known word nearest to ``word``, or all of them."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def parse_phases(
    raw: Any,
    default_window: Any,
    hooked: bool = False,
    on_failure: OnFailure = OnFailure.TURN_BACK,
    coloured: bool = False,
) -> tuple[PhaseSpec, ...]:
    """Read ``rollout_phases``: a list, or the name of a preset.

    ``default_window`` is ``rollout_max_unavailable``, ``on_failure`` what phases do that do not say it themselves,
    ``coloured`` whether the hosts are of two colours: then there are two phases, before the switch and after it.
    """
    if raw == "blue_green" and not coloured:
        raise SpecError(
            "rollout_colours: it is not set, and the preset 'blue_green' needs it: name the groups of both colours, "
            "as in {blue: app_blue, green: app_green}"
        )
    if isinstance(raw, str):
        if raw not in PRESETS:
            raise SpecError(
                f"rollout_phases: unknown preset {raw!r}: {nearest(raw, PRESETS)}; or give a list of phases"
            )
        raw = PRESETS[raw]
    if not isinstance(raw, Sequence) or not raw:
        raise SpecError(f"rollout_phases: {raw!r} is no list of phases: give at least one, with name and size")
    if coloured:
        return _parse_coloured(raw, on_failure, hooked)
    phases = tuple(
        _parse_phase(f"rollout_phases[{index}]", item, default_window, hooked, on_failure)
        for index, item in enumerate(raw)
    )
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"rollout_phases: the name {name!r} is used twice: phases are told apart by their names")
    for earlier, later in pairwise(phases):
        if earlier.size.percent == later.size.percent and earlier.size.amount >= later.size.amount:
            raise SpecError(
                f"rollout_phases: phase {later.name!r} reaches {later.size} of the fleet, {earlier.name!r} before it "
                f"{earlier.size}: sizes are cumulative, so that each has to be larger than the one before"
            )
    last = phases[-1]
    if last.size.percent and last.size.amount < 100:
        raise SpecError(
            f"rollout_phases: the last phase {last.name!r} reaches {last.size} of the fleet: sizes are cumulative, "
            "so that it must reach '100%'"
        )
    return phases


def _parse_coloured(raw: Sequence[Any], on_failure: OnFailure, hooked: bool) -> tuple[PhaseSpec, ...]:
    """The phase of the idle colour, without traffic, and the one that begins with the switch. Each is of all hosts."""
    if len(raw) != len(COLOURS):
        raise SpecError(
            f"rollout_phases: {len(raw)} phases do not go with rollout_colours: write blue_green, or a list of two "
            "phases, the first before the load balancers are switched and the second after it"
        )
    sized = [{"size": "100%", **item} if isinstance(item, Mapping) else item for item in raw]
    phases = [
        _parse_phase(f"rollout_phases[{index}]", item, "100%", hooked, on_failure) for index, item in enumerate(sized)
    ]
    for phase in phases:
        if phase.size != Quantity(100, percent=True):
            raise SpecError(
                f"rollout_phases: phase {phase.name!r} has size {phase.size}: with rollout_colours a phase is of a "
                "whole colour; leave size away"
            )
    if phases[0].name == phases[1].name:
        raise SpecError(f"rollout_phases: the name {phases[0].name!r} is used twice: phases are told apart by it")
    return tuple(phases)


def parse_colours(raw: Any, groups: Mapping[str, Sequence[str]], hosts: Sequence[str]) -> dict[str, list[str]]:
    """Read ``rollout_colours``: which of ``hosts`` (the targets) are of which colour; empty where it is not set."""
    field = "rollout_colours"
    if raw is None or raw == {}:
        return {}
    if not isinstance(raw, Mapping):
        raise SpecError(f"{field}: {raw!r} is no mapping: name two groups, as in {{blue: app_blue, green: app_green}}")
    for key in raw:
        if key not in COLOURS:
            raise SpecError(f"{field}: unknown colour {key!r}: {nearest(str(key), COLOURS)}")
    found = {colour: _members(field, colour, raw, groups) for colour in COLOURS}
    both = [host for host in found["blue"] if host in set(found["green"])]
    if both:
        raise SpecError(f"{field}: {', '.join(both[:5])} in both groups: each host has one colour")
    coloured = {host for members in found.values() for host in members}
    without = [host for host in hosts if host not in coloured]
    if without:
        raise SpecError(
            f"{field}: {', '.join(without[:5])} in rollout_target, but in neither group: both colours together have "
            "to be all the targets"
        )
    beyond = sorted(coloured - set(hosts))
    if beyond:
        raise SpecError(
            f"{field}: {', '.join(beyond[:5])} in a group, but not in rollout_target: both colours together have to "
            "be all the targets"
        )
    return {colour: [host for host in hosts if host in set(members)] for colour, members in found.items()}


def _members(field: str, colour: str, raw: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if colour not in raw:
        raise SpecError(f"{field}: {colour!r} is missing: name the inventory group of each colour")
    group = raw[colour]
    if not isinstance(group, str) or group not in groups:
        raise SpecError(f"{field}.{colour}: there is no group {group!r}: {nearest(str(group), groups)}")
    if not groups[group]:
        raise SpecError(f"{field}.{colour}: the group {group!r} has no host: a colour needs at least one")
    return groups[group]


def _parse_phase(field: str, raw: Any, default_window: Any, hooked: bool, on_failure: OnFailure) -> PhaseSpec:
    if not isinstance(raw, Mapping):
        raise SpecError(f"{field}: {raw!r} is no phase: write it as a mapping with name and size")
    for key in raw:
        if key not in PHASE_KEYS:
            raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), PHASE_KEYS)}")
    for key in ("name", "size"):
        if key not in raw:
            raise SpecError(f"{field}: {key!r} is missing")
    per_zone = raw.get("max_unavailable_per_zone")
    return PhaseSpec(
        name=_parse_name(f"{field}.name", raw["name"]),
        size=Quantity.parse(f"{field}.size", raw["size"], least=1),
        max_unavailable=Quantity.parse(f"{field}.max_unavailable", raw.get("max_unavailable", default_window), least=1),
        max_unavailable_per_zone=None
        if per_zone is None
        else Quantity.parse(f"{field}.max_unavailable_per_zone", per_zone, least=1),
        bake=parse_seconds(f"{field}.bake", raw.get("bake", 0)),
        approval=parse_flag(f"{field}.approval", raw.get("approval", False)),
        on_failure=parse_choice(f"{field}.on_failure", raw.get("on_failure", on_failure), OnFailure),
        hooked=hooked,
        gates=_parse_gates(f"{field}.gates", raw.get("gates", ())),
    )


def _parse_gates(field: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SpecError(f"{field}: {value!r} is no list of gates: write names of rollout_gates, such as [errors]")
    names = tuple(_parse_name(f"{field}[{index}]", name) for index, name in enumerate(value))
    if len(set(names)) < len(names):
        raise SpecError(f"{field}: {', '.join(names)}: a gate is named twice")
    return names


def parse_failure_budget(raw: Any) -> FailureBudget:
    """Read ``rollout_failure_budget``: a number of hosts, or a mapping with hosts, consecutive, per_zone."""
    field = "rollout_failure_budget"
    if not isinstance(raw, Mapping):
        return FailureBudget(Quantity.parse(field, raw))
    for key in raw:
        if key not in BUDGET_KEYS:
            raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), BUDGET_KEYS)}")
    if "hosts" not in raw:
        raise SpecError(f"{field}: 'hosts' is missing: how many hosts may fail over the whole rollout")
    consecutive, per_zone = raw.get("consecutive"), raw.get("per_zone")
    if consecutive is not None:
        in_a_row = Quantity.parse(f"{field}.consecutive", consecutive)
        if in_a_row.percent:
            raise SpecError(f"{field}.consecutive: {consecutive!r} is a percentage: write a count such as 2")
        consecutive = in_a_row.amount
    return FailureBudget(
        hosts=Quantity.parse(f"{field}.hosts", raw["hosts"]),
        consecutive=consecutive,
        per_zone=None if per_zone is None else Quantity.parse(f"{field}.per_zone", per_zone),
    )


def refuse_disordered(deadlines: Sequence[tuple[str, float]]) -> None:
    """Raise SpecError unless each time (name, seconds) is shorter than the next; 0 is a deadline that is not set."""
    for (shorter, time), (longer, limit) in pairwise([pair for pair in deadlines if pair[1]]):
        if time >= limit:
            raise SpecError(
                f"{longer}: {limit:g} s is not longer than {shorter}, which takes {time:g} s: a deadline has to leave "
                f"time for what it waits for; raise {longer} or lower {shorter}"
            )


Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(field: str, value: Any, choices: type[Choice]) -> Choice:
    """Read one of the words of an enumeration."""
    try:
        return choices(str(value))
    except ValueError:
        raise SpecError(
            f"{field}: unknown value {value!r}: {nearest(str(value), [choice.value for choice in choices])}"
        ) from None


def _parse_name(field: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise SpecError(f"{field}: {value!r} is no name: write a word such as canary")
    return str(value).strip()


def parse_seconds(field: str, value: Any, least: float = 0.0) -> float:
    """Read a number of seconds of at least ``least``."""
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < least:
        raise SpecError(f"{field}: {value!r} is no time: write seconds, at least {least:g}")
    return seconds


def parse_flag(field: str, value: Any) -> bool:
    """Read a boolean as YAML, ``-e key=value`` and AWX surveys write it."""
    text = str(value).strip().lower()
    if text not in ("true", "false", "yes", "no", "1", "0"):
        raise SpecError(f"{field}: {value!r} is neither true nor false")
    return text in ("true", "yes", "1")
