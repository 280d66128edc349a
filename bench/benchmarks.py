# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page docs/benchmarks.md, on standard output; bench/benchmarks runs this."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HEARD
from bench import ledger, report, simulate
from tests.ledger.cluster import binaries

PAGE = """# Benchmarks

`make bench` (`bench/benchmarks`) wrote this page. Let the machine do nothing else meanwhile: a decision is a few
wake-ups one after the other, and each of them waits for a busy CPU.

On {machine}, {postgresql}. Load before the measurement: {load_before},
niceness {niceness}{busy}.

## The ledger

Processes take the hosts of one rollout forward (`bench/ledger.py`), each admission and each report a decision of its
own, on the disk before it is told. *throughput*: the window has room for all hosts, so that only the ledger limits
them. *slots*: half of the processes wait for the other half, which are busy with their hosts for {work:g} ms; *slot
empty* is how long a slot that had become free stayed empty, by the ledger's own times. The CPU time of a host is that
of its admission and its report together, in the processes that ask; the server's comes on top.

Aims, on two cores that do nothing else: 500 admissions a second over 16 processes in PostgreSQL, 200 over 8 in
SQLite, and a slot empty for less than 250 ms in 99 of 100 cases.

{ledger}

What a decision costs:

* One connection that the process keeps, never over a fork. In PostgreSQL two journeys: ask, lock and read; write,
  commit, and tell those who wait. A third one where the plan's order decides between hosts that wait. Each statement
  is planned once.
* In PostgreSQL whoever gets the lock answers all who wait for it in one transaction, so that under load a journey, a
  commit and a look at the rollout serve ten decisions and more.
* A plain commit, inside the lock: the next decision waits until this one is on the disk. In SQLite, where each is a
  transaction of its own, a disk that takes 5 ms for that admits 100 hosts a second at most (two decisions each).
* Who waits in PostgreSQL is told when its turn has come, and asks only then, but for a look every few seconds. In
  SQLite who waits looks at a counter of the file, ten times a second.
* An answer that changes nothing writes nothing, but for a sign of life every {heard:g} s.

Every opening verifies the whole chain, some 17 µs an event: 1.7 s for the 100,000 events of 50 deployments to 1,000
hosts. That is not cut short by remembering how far somebody verified before: such a mark would lie in the same
database, whoever edits an old event could move it too, and what was edited before it would be found by nobody who
deploys.

## The coordinator

The coordinator itself with a simulated clock, no database and no hosts (`bench/simulate.py`). Controllers with
{forks} forks each take their slices of the fleet through three phases (1 %, 10 %, all). A host is out of service for
55 s in the middle, log-normally distributed; {reverted:.1%} go back, {failed:.2%} stay failed. *makespan* is how long
the last phase took, over what no schedule can beat: its work divided by the window, or its longest host. The aim is
1.05. Of a small fleet the last hosts weigh more: no schedule that does not know how long each will take comes closer
to its bound. Admissions and questions are those of a second of CPU time.

{simulate}

What a decision costs depends on the window (the state holds the hosts that are out), not on the fleet.
"""
LEDGER = {
    "database": "database",
    "kind": "kind",
    "processes": "processes",
    "hosts": "hosts",
    "window": "window",
    "admissions_per_second": "admissions a second",
    "admit_p50_ms": "admission p50, ms",
    "admit_p99_ms": "admission p99, ms",
    "slot_empty_p50_ms": "slot empty p50, ms",
    "slot_empty_p99_ms": "slot empty p99, ms",
    "cpu_ms_per_host": "CPU of a host, ms",
    "load": "load after",
}
SIMULATE = {
    "hosts": "hosts",
    "controllers": "controllers",
    "zones": "zones",
    "window": "window",
    "verdict": "verdict",
    "admissions_per_second": "admissions a second",
    "questions_per_second": "questions a second",
    "makespan": "makespan",
    "state_kb": "state, kB",
    "peak_memory_mb": "memory, MB",
}


def main() -> None:
    """Measure, print."""
    load = report.load()
    fleet = simulate.FLEETS[0]
    print(
        PAGE.format(
            machine=report.machine(),
            postgresql=subprocess.run(
                [binaries() / "postgres", "--version"], check=True, capture_output=True, text=True
            ).stdout.strip(),
            load_before=load,
            niceness=os.nice(0),
            busy="" if load < 1 else " (**others kept it busy: these figures are too low**)",
            work=1000 * max(load.work for load in ledger.LOADS),
            heard=HEARD,
            ledger=report.table(LEDGER, ledger.figures()),
            forks=fleet.forks,
            reverted=fleet.reverted,
            failed=fleet.failed,
            simulate=report.table(SIMULATE, simulate.figures()),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
