# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens in a run of the campaign: all of it follows from the seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What is broken in the middle of a rollout."""

    CONTROLLER_KILLED = "controller killed"
    WORKER_KILLED = "worker killed"
    RUN_STOPPED = "run stopped"  # SIGSTOP, past its leases; it wakes up when another run has taken over
    HOST_REBOOTED = "host rebooted"
    SSHD_STOPPED = "sshd stopped"
    BALANCER_STOPPED = "HAProxy stopped"
    DATABASE_STOPPED = "database stopped"
    DISK_FULL = "disk full"
    CLOCK_STEPPED = "clock stepped"


KINDS = tuple(Kind)
# What the fault itself keeps from being answered is no fault of a deployment.
MAY_DROP = frozenset({Kind.HOST_REBOOTED, Kind.BALANCER_STOPPED})
OF_A_HOST = frozenset({Kind.HOST_REBOOTED, Kind.SSHD_STOPPED, Kind.DISK_FULL})

SHAPES: tuple[list[dict[str, Any]], ...] = (
    [{"name": "canary", "size": 1, "bake": 1}, {"name": "fleet", "size": "100%", "max_unavailable": 3}],
    [{"name": "canary", "size": 2, "max_unavailable": 2}, {"name": "fleet", "size": "100%", "max_unavailable": 4}],
    [
        {"name": "canary", "size": 1, "bake": 1},
        {"name": "half", "size": "50%", "max_unavailable": 2, "bake": 1},
        {"name": "fleet", "size": "100%", "max_unavailable": 3},
    ],
    [{"name": "all", "size": "100%", "max_unavailable": 3}],
)
GATE = {"interval": 0.2, "timeout": 5, "successes": 2, "deadline": 20}  # the machine may be busy
TO_THE_END = 1000.0  # seconds: longer than any run lasts
EVERY = 4  # so many runs, one is followed by a deployment that succeeds; no multiple of the number of kinds


@dataclass(frozen=True)
class Scenario:
    """One run: a rollout with its rules, and the fault that meets it.

    The fault is caused ``delay`` seconds after ``admitted`` hosts were admitted (0: after the rollout was opened) and
    is undone ``lasts`` seconds later, or when the run has ended. ``ill`` is a host on which the release is unhealthy,
    ``bad`` a version that is so everywhere. ``step``: seconds by which the clock is set.
    """

    seed: int
    kind: Kind
    ledger: str
    phases: list[dict[str, Any]]
    budget: int
    way_back: int
    lease: int
    ill: str
    bad: bool
    admitted: int
    delay: float
    lasts: float
    victim: str
    abrupt: bool
    step: int

    @property
    def to_the_end(self) -> bool:
        """Whether the release is brought to all hosts afterwards, and then once more for nothing."""
        return self.seed % EVERY == 0

    @property
    def variables(self) -> dict[str, Any]:
        """What the rollout is started with. The greeting makes a release of its own of every run."""
        return {
            "rollout_phases": self.phases,
            "rollout_failure_budget": self.budget,
            "rollout_turn_back_max_unavailable": self.way_back,
            "rollout_lease": self.lease,
            "component_gate": GATE,
            "hello_greeting": f"Run {self.seed}: Hello",
        }


def scenario(seed: int, hosts: Sequence[str]) -> Scenario:
    """The run of this seed. Seeds that follow one another have all kinds of fault in turn."""
    rng = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    return Scenario(
        seed=seed,
        kind=kind,
        ledger="postgresql" if kind is Kind.DATABASE_STOPPED else rng.choice(("sqlite", "postgresql")),
        phases=rng.choice(SHAPES),
        budget=rng.choice((0, 0, 1)),
        way_back=rng.choice((1, 2, 4)),
        lease=40 if kind is Kind.RUN_STOPPED else 90,
        ill=rng.choice(hosts) if rng.random() < 0.25 else "",
        bad=rng.random() < 0.1,
        admitted=rng.randint(0, len(hosts) - 1),
        delay=round(rng.uniform(0, 3), 2),
        lasts=rng.choice((3.0, 8.0, TO_THE_END)),
        victim=rng.choice(hosts),
        abrupt=rng.random() < 0.5,
        step=rng.choice((3600, -3600)),
    )
