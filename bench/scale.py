# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller needs for many hosts: bench/scale runs this over a lab.

A host is a name of inventory, with a tree of its own on one of the lab's real hosts. It has no unit: a thousand of them
would be a load on the machine that is none of the controller's.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from bench import report
from bench.contestants import ContestError, make_release
from bench.measuring import adopt_orphans, measure
from tests.integration.environment import ALL_AT_ONCE, Environment
from tests.integration.fleet import TOP, Fleet

SIZES = (20, 200, 1000)
SIZE, FILES = 100_000, 20  # bytes and files of a release
LOOK_EVERY = 0.1  # seconds between two looks at the memory of a run
TREE = "/srv/scale"
POLICY = {
    "rollout_target": "scale",
    "rollout_phases": ALL_AT_ONCE,
    "traffic_adapter": "none",
    "component_root": f"{TREE}/{{{{ inventory_hostname }}}}",
    "component_keep": 2,
    "component_units": [],
    "component_config": [],
    "component_probes": [{"kind": "systemd", "name": "unit", "unit": "ssh.service"}],
    "component_gate": {"interval": 0.1, "timeout": 2.0, "successes": 1, "min_healthy_time": 0, "deadline": 60},
}
PAGE = TOP / "docs" / "speed.md"
RECORD = TOP / "docs" / "benchmarks" / "scale.json"
HEAD = "## Many hosts"
COLUMNS = {
    "hosts": "hosts",
    "run": "run",
    "wall": "wall, s",
    "cpu": "controller CPU, s",
    "cpu_of_host": "of each host, ms",
    "peak": "peak memory, MB",
    "opened": "until it was opened, s",
    "staged": "until the first host went, s",
    "closed": "until it was closed, s",
}
SECTION = (
    HEAD
    + """

`bench/scale` wrote this part on {on}, over a lab of its own, from [scale.json](benchmarks/scale.json). On {machine}.
Load before: {load_before}{busy}.

Hosts are names of inventory over {real} real hosts: each has a tree of its own, and none has a unit. A release has
100 kB in 20 files. {forks} forks, all at once. *Controller CPU* is that of ansible-playbook, its workers and ssh; *of
each host*: what a host more adds to the row of fewer hosts. *Peak memory* is the main process's. The last columns are
by the ledger, each from the one before it: checking, reading the hosts and planning; staging; and all that follows. The
hosts are on the same machine, and want its cores too.

{table}
"""
)


class Crowd:
    """So many names of inventory over the hosts of a lab."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.environment = Environment(fleet, directory)
        self.real = self.environment.hosts
        variables = self.environment.inventory / "group_vars" / "all" / "zz_scale.yml"
        variables.write_text(yaml.safe_dump(POLICY))
        self._versions = (f"2.{minor}.0" for minor in count())

    def publish(self) -> str:
        """A release that nobody has seen."""
        version = next(self._versions)
        make_release(version, self.environment.directory / "build", SIZE, FILES)
        self.environment.publish(version)
        return version

    def of_size(self, size: int) -> None:
        """Let there be so many, on which nothing is deployed."""
        names = {
            f"host{number:05}": {"ansible_host": self.fleet.address(self.real[number % len(self.real)])}
            for number in range(size)
        }
        (self.environment.inventory / "scale.yml").write_text(yaml.safe_dump({"scale": {"hosts": names}}))
        self.environment.on_each(f"rm -rf {TREE}")

    def deploy(self, version: str) -> dict[str, Any]:
        """Deploy, and what that took. ContestError where it ends badly."""
        peak, began = 0, time.time()

        def act() -> None:
            nonlocal peak
            run = self.environment.start("deploy.yml", version)
            memory = Memory(run.pid)
            ended = run.end()
            peak = memory.peak()
            if ended.rc:
                raise ContestError(f"deploy.yml ended with {ended.rc}:\n{ended.said[-3000:]}")

        cost = measure(act)
        return {"wall": cost.wall, "cpu": cost.cpu, "peak": peak, **self._times(began)}

    def _times(self, began: float) -> dict[str, float | None]:
        """When the rollout that was opened since then had come how far, by the ledger; what never happened is None."""
        ledger = sqlite3.connect(self.environment.directory / "ledger.db")
        kinds = {"opened": "kind = 'opened'", "staged": "kind = 'moved' and host <> ''", "closed": "kind = 'closed'"}
        with contextlib.closing(ledger):
            ats = {
                name: ledger.execute(f"select min(at) from convoy_events where at > ? and {kind}", (began,)).fetchone()[
                    0
                ]
                for name, kind in kinds.items()
            }
        found: dict[str, float | None] = {}
        for name, at in ats.items():
            found[name] = None if at is None else round(at - began, 2)
            began = began if at is None else at
        return found


class Memory:
    """The most memory that a process has had."""

    def __init__(self, pid: int) -> None:
        self._status, self._peak = Path(f"/proc/{pid}/status"), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while seen := self._seen():
            self._peak = seen
            time.sleep(LOOK_EVERY)

    def _seen(self) -> int:
        """In kB; 0 when it has ended."""
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)

    def peak(self) -> int:
        """In MB, when the process has ended."""
        self._thread.join(10)
        return round(self._peak / 1024)


def measured(crowd: Crowd, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """For each size a first deployment, another version, and the same once more."""
    for size in sizes:
        crowd.of_size(size)
        first, second = crowd.publish(), crowd.publish()
        for told, version in (("first", first), ("next version", second), ("again", second)):
            figure = {"hosts": size, "run": told, **crowd.deploy(version)}
            print(json.dumps(figure), file=sys.stderr, flush=True)
            yield figure


def with_marginal(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the CPU time of a host: what it adds to the same run with fewer hosts, in ms."""
    found, before = [], dict[str, dict[str, Any]]()
    for figure in figures:
        less = before.get(figure["run"])
        added = (figure["cpu"] - less["cpu"]) / (figure["hosts"] - less["hosts"]) * 1000 if less else None
        found.append({**figure, "cpu_of_host": None if added is None else round(added)})
        before[figure["run"]] = figure
    return found


def write(record: dict[str, Any]) -> None:
    """Keep the record, and put the section where the page has the one before."""
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    before = PAGE.read_text().partition(HEAD)[0].rstrip()
    busy = "" if record["load_before"] < 1 else " (**others kept it busy: these figures are too high**)"
    table = report.table(COLUMNS, record["figures"])
    PAGE.write_text(f"{before}\n\n{SECTION.format(**record, busy=busy, table=table)}")


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(prog="bench/scale", description="Measure the controller with many hosts.")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of hosts; default: %(default)s")
    try:
        sizes = sorted({int(size) for size in parser.parse_args().sizes.split(",")})
    except ValueError:
        parser.error("--sizes must be numbers with commas between them, such as 20,200")
    adopt_orphans()
    load = report.load()
    with tempfile.TemporaryDirectory(prefix="convoy-") as directory:
        crowd = Crowd(Fleet(Path(f"/var/lib/convoy-lab/labs/{os.environ['CONVOY_LAB']}/hosts")), Path(directory))
        try:
            figures = list(measured(crowd, sizes))
        except ContestError as error:
            sys.exit(f"bench: {error}")
    settings = configparser.ConfigParser()
    settings.read(TOP / "ansible.cfg")
    facts = {"on": time.strftime("%Y-%m-%d", time.gmtime()), "machine": report.machine(), "load_before": load}
    facts |= {"real": len(crowd.real), "forks": settings["defaults"]["forks"]}
    write({**facts, "figures": with_marginal(figures)})


if __name__ == "__main__":
    main()
