# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many hosts a second the ledger admits, over many processes, and how long a free slot stays empty.

Each process takes hosts of one rollout forward as a play would, in a SQLite file and in a PostgreSQL server of the
measurement's own. *throughput*: the window has room for all, so that only the ledger limits them. *slots*: half of the
processes wait for the others, each of which works on its host for a while; from the times in the ledger follows how
long a slot stayed empty after it had become free.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from bench import report
from tests.ledger.cluster import Cluster

STREAM, ROLLOUT = "bench/hello", "r1"
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Load:
    """What is measured: ``hosts`` over ``processes``, ``window`` at once, each ``work`` seconds out of service."""

    database: str
    kind: str
    processes: int
    hosts: int
    window: int
    work: float


LOADS = (
    Load("sqlite", "throughput", 8, 1200, 1200, 0.0),
    Load("postgresql", "throughput", 16, 3000, 3000, 0.0),
    Load("sqlite", "slots", 8, 400, 4, 0.05),
    Load("postgresql", "slots", 16, 800, 8, 0.05),
)


def figures() -> list[dict[str, Any]]:
    """Measure each load on a ledger of its own."""
    found = []
    for load in LOADS:
        with new_ledger(load.database) as url:
            found.append(measure(load, url))
    return found


@contextmanager
def new_ledger(database: str) -> Iterator[str]:
    """The URL of an empty database that lives as long as its measurement."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        if database == "sqlite":
            yield f"sqlite:///{directory}/ledger.db"
            return
        cluster = Cluster()
        stack.callback(cluster.remove)
        cluster.create()
        yield cluster.database()


def measure(load: Load, url: str) -> dict[str, Any]:
    """Roll all hosts; what that took."""
    ledger = Ledger(url, "the measurement")
    ledger.prepare()
    names = [f"app{index:05}" for index in range(load.hosts)]
    token = open_rollout(ledger, load, names)
    barrier = SPAWN.Barrier(load.processes + 1)
    results = SPAWN.Queue()
    shares = [names[index :: load.processes] for index in range(load.processes)]
    workers = [SPAWN.Process(target=roll, args=(url, token, share, load.work, barrier, results)) for share in shares]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.perf_counter()
    done = [results.get() for _worker in workers]
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    ledger.verify(STREAM)
    empty = slot_waits(ledger.entries(STREAM), load.window) if load.kind == "slots" else []
    calls = sorted(call for times, _cpu in done for call in times)
    return {
        **asdict(load),
        "seconds": round(seconds, 2),
        "admissions_per_second": round(load.hosts / seconds, 1),
        "admit_p50_ms": milliseconds(calls, 0.5),
        "admit_p99_ms": milliseconds(calls, 0.99),
        "slot_empty_p50_ms": milliseconds(empty, 0.5),
        "slot_empty_p99_ms": milliseconds(empty, 0.99),
        "load": report.load(),
        "cpu_ms_per_host": round(1000 * sum(cpu for _times, cpu in done) / load.hosts, 2),
    }


def open_rollout(ledger: Ledger, load: Load, names: Sequence[str]) -> int:
    """One phase of all hosts; the token."""
    seen = {name: HostFacts(name, "new", "old", health=Health.HEALTHY) for name in names}
    phases = parse_phases([{"name": "fleet", "size": "100%"}], load.window)
    spec = RolloutSpec(phases, FailureBudget(Quantity(0)), Quantity(1), lease=600.0)
    facts = {"kind": "deploy", "version": "1"}
    run = Run("bench", os.getpid(), 0, "bench")
    plan = make_plan(spec, list(seen.values()))
    return Rollouts(ledger, STREAM).open(plan, seen, facts, run, lambda _run: True, ROLLOUT, 60.0).token


def roll(url: str, token: int, share: Sequence[str], work: float, barrier: Barrier, results: Any) -> None:
    """One process: its hosts, one after the other. Answers how long each admission took, and its CPU seconds."""
    ledger = Ledger(url, f"process {os.getpid()}")
    rollouts = Rollouts(ledger, STREAM)
    times = []
    ledger.head(STREAM)
    barrier.wait()
    began_cpu = time.process_time()
    for name in share:
        began = time.perf_counter()
        await_admission(rollouts, token, name)
        times.append(time.perf_counter() - began)
        time.sleep(work)
        rollouts.report(ROLLOUT, token, name, HostStatus.SUCCEEDED)
    results.put((times, time.process_time() - began_cpu))


def await_admission(rollouts: Rollouts, token: int, name: str) -> None:
    """As the action admission waits."""
    while True:
        answer = rollouts.admit(ROLLOUT, token, name)
        if isinstance(answer, Admitted):
            return
        if not isinstance(answer, Wait):
            raise TypeError(f"{name}: {answer}")
        rollouts.wait_for_change(timeout=15.0, poll=0.1, host=name)


def slot_waits(entries: Sequence[Entry], window: int) -> list[float]:
    """For each host that went after another: for how long the slot that it took had been empty, in seconds."""
    free: deque[float] = deque()
    waits, going = [], 0
    for entry in entries:
        now = json.loads(entry.data).get("now")
        if now == HostStatus.ADMITTED:
            going += 1
            if going > window:
                waits.append(entry.at - free.popleft())
        elif now == HostStatus.SUCCEEDED:
            free.append(entry.at)
    return sorted(waits)


def milliseconds(ordered: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of them are."""
    return round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 2) if ordered else None
