# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment to real hosts costs, by Convoy and by others: bench/deployment runs this over a lab."""

from __future__ import annotations

import argparse
import heapq
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from bench import deployment_page, report
from bench.contestants import (
    BYTES,
    FILES,
    ContestError,
    Convoy,
    Playbook,
    Pyinfra,
    Release,
    Ssh,
    Step,
    serve,
)
from bench.measuring import Cost, adopt_orphans, measure
from tests.integration.environment import ALL_AT_ONCE
from tests.integration.fleet import TOP, Fleet

WINDOW = 5  # hosts at once, where they are slow to start
SLOWEST, QUICKEST = 6.0, 1.0  # seconds that such a host takes
SETTLE = 2.0  # seconds of rest between two measurements
SEED = 20260105
WIPE = """
for name in floor window pyinfra byhand; do
    systemctl disable --quiet --now $name.service 2>/dev/null || true
    rm -rf /srv/$name /etc/systemd/system/$name.service
done
"""


class Contest:
    """All contestants over the same hosts."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.convoy = Convoy(fleet, directory)
        self.fleet, self.hosts = fleet, self.convoy.environment.hosts
        self.floor = Ssh(fleet, self.hosts, at_once=len(self.hosts))
        self.window = Ssh(fleet, self.hosts, name="window", at_once=WINDOW)
        self.window.port = 8084
        self.playbook = Playbook(fleet, directory)
        self.pyinfra = self._pyinfra(directory)
        dice = random.Random(SEED)
        steps = len(self.hosts) - 1
        seconds = [QUICKEST + index * (SLOWEST - QUICKEST) / steps for index in range(steps + 1)]
        self.delays = dict(zip(self.hosts, (round(s, 1) for s in dice.sample(seconds, len(seconds))), strict=True))
        self._versions = (f"2.{minor}.0" for minor in count())
        self.measured: dict[str, list[Cost]] = {}
        self.beyond_start: list[float] = []  # seconds that a host was away for more than its service takes to start

    def _pyinfra(self, directory: Path) -> Pyinfra | None:
        try:
            return Pyinfra(self.fleet, self.hosts, directory)
        except ContestError as error:
            say(f"without pyinfra: {error}")
            return None

    def next_release(self) -> Release:
        """One that nobody has seen."""
        return self.convoy.make(next(self._versions))

    def run(self, rounds: int) -> None:
        """Bring everybody to a first release, then measure: in each round the other way round."""
        self.convoy.environment.wipe()
        self.convoy.environment.on_each(WIPE)
        first = self.next_release()
        for deployer in (self.floor, self.window, self.playbook, self.convoy):
            deployer.deploy(first)
        if self.pyinfra:
            self.pyinfra.deploy(first)
        for number, release in ((number, self.next_release()) for number in range(rounds)):
            blocks = [self.by_ssh(first, release), self.by_peers(release), self.by_convoy(first, release)]
            for block in blocks if number % 2 == 0 else reversed(blocks):
                self.take(block)
        self.convoy.wait_for([{**ALL_AT_ONCE[0], "max_unavailable": WINDOW}], self.delays)
        for number, release in ((number, self.next_release()) for number in range(rounds)):
            windows = [self.window_by_ssh(release), self.window_by_convoy(release)]
            for block in windows if number % 2 == 0 else reversed(windows):
                self.take(block)

    def take(self, block: Iterator[Step]) -> None:
        """Measure its steps; what a block does between them is not measured."""
        for name, act in block:
            time.sleep(SETTLE)
            cost = measure(act)
            self.measured.setdefault(name, []).append(cost)
            say(f"{name:<14} {cost.wall:7.2f} s, CPU {cost.cpu:6.2f} s, rest of the machine {cost.rest:6.2f} s")

    def by_ssh(self, first: Release, release: Release) -> Iterator[Step]:
        """The floor, and that of the way back."""
        yield "floor", lambda: self.floor.deploy(release)
        self.serve(self.floor.port, release.version)
        yield "back_floor", self.floor.back
        self.serve(self.floor.port, first.version)

    def by_peers(self, release: Release) -> Iterator[Step]:
        """The others."""
        for name, peer in (("pyinfra", self.pyinfra), ("playbook", self.playbook)):
            if peer:
                yield name, deploying(peer.deploy, release)
                self.serve(peer.port, release.version)

    def by_convoy(self, first: Release, release: Release) -> Iterator[Step]:
        """A deployment, the same once more, and the way back."""
        yield "convoy", lambda: self.convoy.deploy(release)
        self.serve(self.convoy.port, release.version)
        with self.convoy.unchanged(self.hosts):
            yield "convoy_again", lambda: self.convoy.deploy(release)
        yield "convoy_back", self.convoy.back
        self.serve(self.convoy.port, first.version)

    def window_by_ssh(self, release: Release) -> Iterator[Step]:
        """Hosts that are slow to start, so many at once."""
        yield "window_floor", lambda: self.window.deploy(release, self.delays)
        self.serve(self.window.port, release.version)

    def window_by_convoy(self, release: Release) -> Iterator[Step]:
        """The same, admitted by the coordinator."""
        yield "convoy_window", lambda: self.convoy.deploy(release)
        self.serve(self.convoy.port, release.version)
        self.beyond_start += [away - self.delays[host] for host, away in self.convoy.away().items()]

    def serve(self, port: int, told: str) -> None:
        """See that all hosts serve the version."""
        serve(self.fleet, self.hosts, port, told)

    def figures(self) -> dict[str, Any]:
        """Medians and rounds, by the name of the step."""
        return {name: {**medians(costs), "rounds": [asdict(c) for c in costs]} for name, costs in self.measured.items()}


def medians(costs: Sequence[Cost]) -> dict[str, float]:
    """Each figure's own."""
    return {name: round(statistics.median(asdict(cost)[name] for cost in costs), 2) for name in ("wall", "cpu", "rest")}


def deploying(deploy: Callable[[Release], None], release: Release) -> Callable[[], None]:
    """The deployment as something to be done later."""
    return lambda: deploy(release)


def shortest(delays: Sequence[float], window: int) -> float:
    """How long the delays alone take, so many at once, first in, first out."""
    busy = [0.0] * window
    for delay in delays:
        heapq.heapreplace(busy, busy[0] + delay)
    return max(busy)


def say(message: str) -> None:
    """To whoever watches."""
    print(message, file=sys.stderr, flush=True)


def printed(*command: str) -> str:
    """What a program prints, or nothing where it fails."""
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def inventory() -> Path:
    """That of the lab named by CONVOY_LAB."""
    lab = os.environ.get("CONVOY_LAB", "bench")
    path = Path(f"/var/lib/convoy-lab/labs/{lab}/hosts")
    if not path.is_file():
        sys.exit(f"bench: the inventory {path} is not there; bench/deployment brings the lab up and runs this")
    return path


def surroundings(pyinfra: Pyinfra | None) -> Mapping[str, Any]:
    """What the figures depend on."""
    return {
        "on": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": printed("git", "rev-parse", "--short", "HEAD"),
        "machine": report.machine(),
        "versions": {
            "ansible-core": version("ansible-core"),
            "OpenSSH": printed("ssh", "-V").partition(",")[0].removeprefix("OpenSSH_"),
            "pyinfra": pyinfra.version if pyinfra else None,
        },
        "niceness": os.nice(0),
    }


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description="Measure whole deployments over the lab named by CONVOY_LAB.")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; default: %(default)s")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    adopt_orphans()
    load = report.load()
    with tempfile.TemporaryDirectory(prefix="convoy-") as directory:
        contest = Contest(Fleet(inventory()), Path(directory))
        try:
            contest.run(options.rounds)
        except ContestError as error:
            sys.exit(f"bench: {error}")
        record = {
            **surroundings(contest.pyinfra),
            "load_before": load,
            "load_after": report.load(),
            "hosts": len(contest.hosts),
            "files": FILES,
            "bytes": BYTES,
            "rounds": options.rounds,
            "window": WINDOW,
            "delays_alone": round(shortest(list(contest.delays.values()), WINDOW), 1),
            "beyond_start": round(statistics.median(contest.beyond_start), 2),
            "figures": contest.figures(),
        }
    deployment_page.write(record)


if __name__ == "__main__":
    main()
