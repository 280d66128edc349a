# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to bring a release to a host that has the one before: bench/transfer runs this over a lab."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import report
from bench.contestants import ContestError, ssh
from tests.integration.fleet import BIN, TOP, Fleet
from tests.integration.transfers import (
    CLEAN,
    FILES,
    HOST,
    RECEIVED,
    ROOT,
    Depot,
    Published,
    Web,
    contents_of,
    sha256_of,
    web_server,
)

SIZES = (5_000_000, 100_000_000)
WAYS = ("push", "delta", "pull")
CHANGED = FILES // 20
PAGE = TOP / "docs" / "transfer.md"
RECORD = TOP / "docs" / "benchmarks" / "transfer.json"
HEAD = "## What it saves"
COLUMNS = {
    "release": "release",
    "way": "`component_transfer`",
    "received": "bytes that the host received",
    "share": "of the artifact",
    "wall": "wall, s",
    "rounds": "wall of each round, s",
}
SECTION = (
    HEAD
    + """

`bench/transfer` wrote this part, in one alternating run over a lab of its own, from
[transfer.json](benchmarks/transfer.json). On {machine}. Load before: {load_before}, after: {load_after}{busy}.

A host that runs a release gets the next one, of which {changed} of {files} files differ; they do not compress. Received
is what its network card counts, with SSH, the manifest and the acknowledgements of what it sends. The wall time is that
of one call of the module by `ansible`, start and all. Host, controller and web server are one machine, with no network
between them that could be slow: there, what is not sent takes no time either way. Medians of {count} rounds.

{table}

To {hosts} hosts at once, {large} to hosts that have none of it, each until it is verified, unpacked and on the disk:
how long it took, and in how many times what the quicker one of plain ssh's ways needs. Plain ssh sends the artifact
into a shell, or has Python fetch it there; then `sha256sum`, `tar` and `sync`.

{at_once}
"""
)
AT_ONCE_COLUMNS = {"way": "way", "wall": "wall, s", "ratio": "of plain ssh", "rounds": "wall of each round, s"}
BARE = "/srv/bare"
SCRIPT = """
set -e
rm -rf {place}; mkdir {place}; cd {place}
{get}
echo '{sha256}  a.tar.gz' | sha256sum --check --quiet
tar -xzf a.tar.gz --no-same-owner
rm a.tar.gz
sync --file-system .
"""
FETCH = "import shutil, sys, urllib.request as r; shutil.copyfileobj(r.urlopen(sys.argv[1]), open('a.tar.gz', 'wb'))"


class Contest:
    """The three ways, over one host."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.depot = Depot(fleet, directory)
        self.blobs = directory / "blobs"
        self.blobs.mkdir()
        self.measured: dict[tuple[int, str], list[tuple[int, int, float]]] = {}

    def run(self, rounds: int) -> None:
        """Measure each way in each round, beginning with another one."""
        with web_server(self.depot.fleet, self.blobs, breaks_after=2**40) as web:
            for total in SIZES:
                self.depot.fleet.shell(HOST, CLEAN)
                first = self.depot.publish(f"{total}.0", contents_of(total=total))
                self.depot.stage(first, lacking=True)
                self.depot.activate(first)
                for number in range(rounds):
                    for index in range(len(WAYS)):
                        self.take(total, WAYS[(number + index) % len(WAYS)], f"{total}.{number}{index}", web)

    def take(self, total: int, way: str, version: str, web: Web) -> None:
        """Bring a version that nobody has seen, and remove it again."""
        published = self.depot.publish(version, contents_of(CHANGED, version, total))
        sha256 = json.loads(Path(published.arguments["manifest"]["path"]).read_bytes())["artifact"]["sha256"]
        shutil.copy(published.artifact, self.blobs / sha256)
        known = self.depot.known()
        arguments = {**published.arguments, **known, "transfer": way, "url": web.url}
        before, began = int(self.depot.fleet.shell(HOST, RECEIVED)), time.perf_counter()
        result = self.depot.fleet.module(HOST, "convoy.rollout.release", arguments)
        wall = time.perf_counter() - began
        received = int(self.depot.fleet.shell(HOST, RECEIVED)) - before
        if result["transfer"]["way"] != {"push": "whole"}.get(way, way):
            raise ContestError(f"{way} was not measured: {result}")
        self.measured.setdefault((total, way), []).append((received, published.size, round(wall, 2)))
        self.depot.fleet.shell(HOST, f"rm -rf {ROOT}/releases/{published.arguments['release']}")
        print(f"{total:>11,} {way:<6} {received:>12,} bytes {wall:6.2f} s", flush=True)
        for path in (published.artifact, self.blobs / sha256):
            path.unlink()

    def figures(self) -> list[dict[str, Any]]:
        """A row each."""
        return [
            {
                "release": f"{total / 1e6:g} MB",
                "way": way,
                "received": int(statistics.median(received for received, _size, _wall in taken)),
                "share": f"{statistics.median(received / size for received, size, _wall in taken):.1%}",
                "wall": round(statistics.median(wall for _received, _size, wall in taken), 2),
                "rounds": ", ".join(f"{wall:.1f}" for _received, _size, wall in taken),
            }
            for (total, way), taken in sorted(
                self.measured.items(), key=lambda item: (item[0][0], WAYS.index(item[0][1]))
            )
        ]


class AtOnce:
    """All hosts, at once."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.depot = Depot(fleet, directory)
        self.hosts = [host for host in fleet.variables if host.startswith("app")]
        self.blobs = directory / "blobs"
        self.measured: dict[str, list[float]] = {}

    def run(self, rounds: int) -> None:
        """Measure each way in each round, beginning with another one."""
        published = self.depot.publish("large", contents_of(total=SIZES[-1]))
        sha256 = sha256_of(published.artifact.read_bytes())
        shutil.copy(published.artifact, self.blobs / sha256)
        with web_server(self.depot.fleet, self.blobs, breaks_after=2**40) as web:
            url = web.url.format(sha256=sha256)
            ways = {
                "plain ssh, sent": lambda: self._bare("cat >a.tar.gz", sha256, published.artifact),
                "plain ssh, fetched": lambda: self._bare(
                    f"python3 -c {shlex.quote(FETCH)} {url}", sha256, Path(os.devnull)
                ),
                "push": lambda: self._convoy(published, transfer="push"),
                "pull": lambda: self._convoy(published, transfer="pull", url=web.url),
            }
            names = list(ways)
            for number in range(rounds):
                for index in range(len(names)):
                    self._all(f"rm -rf {BARE} {ROOT}; sync")
                    self._take(names[(number + index) % len(names)], ways)
            self._convoy(published, transfer="push")
            self._take("push, to hosts that have it", {"push, to hosts that have it": ways["push"]})
        self._all(f"rm -rf {BARE} {ROOT}")

    def _take(self, name: str, ways: Mapping[str, Callable[[], None]]) -> None:
        began = time.perf_counter()
        ways[name]()
        self.measured.setdefault(name, []).append(round(time.perf_counter() - began, 2))
        print(f"{len(self.hosts)} hosts, {name:<28} {self.measured[name][-1]:6.2f} s", flush=True)

    def _bare(self, get: str, sha256: str, given: Path) -> None:
        self._all(SCRIPT.format(place=BARE, get=get, sha256=sha256), given)

    def _all(self, script: str, given: Path = Path(os.devnull)) -> None:
        async def run() -> None:
            await asyncio.gather(*(ssh(self.depot.fleet, host, script, given) for host in self.hosts))

        asyncio.run(run())

    def _convoy(self, published: Published, **how: Any) -> None:
        """By one task of Ansible."""
        arguments = json.dumps({**published.arguments, "lacking": True, **how})
        inventory, forks = str(self.depot.fleet.inventory), str(len(self.hosts))
        command = [
            BIN / "ansible",
            "-i",
            inventory,
            "-f",
            forks,
            "app",
            "-m",
            "convoy.rollout.release",
            "-a",
            arguments,
        ]
        done = subprocess.run(
            command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise ContestError(
                f"{shlex.join(map(str, command[:4]))} ended with {done.returncode}:\n{done.stdout[-3000:]}"
            )

    def figures(self) -> list[dict[str, Any]]:
        """A row each, beside what the quicker one of plain ssh's ways needs."""
        walls = {name: statistics.median(taken) for name, taken in self.measured.items()}
        floor = min(wall for name, wall in walls.items() if name.startswith("plain"))
        return [
            {
                "way": name,
                "wall": round(wall, 2),
                "ratio": f"{wall / floor:.2f}",
                "rounds": ", ".join(f"{one:.1f}" for one in self.measured[name]),
            }
            for name, wall in walls.items()
        ]


def write(record: dict[str, Any]) -> None:
    """Keep the record, and put the section where the page has the one before."""
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    before = PAGE.read_text().partition(HEAD)[0].rstrip()
    busy = "" if record["load_before"] < 1 else " (**others kept it busy: these times are too long**)"
    tables = {
        "table": report.table(COLUMNS, record["figures"]),
        "at_once": report.table(AT_ONCE_COLUMNS, record["figures_at_once"]),
    }
    PAGE.write_text(f"{before}\n\n{SECTION.format(**record, busy=busy, **tables)}")


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(prog="bench/transfer", description="Measure how releases travel.")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    load = report.load()
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(f"/var/lib/convoy-lab/labs/{os.environ['CONVOY_LAB']}/hosts"))
        contest, at_once = Contest(fleet, Path(directory)), AtOnce(fleet, Path(directory))
        try:
            contest.run(rounds)
            at_once.run(rounds)
        except ContestError as error:
            sys.exit(f"bench: {error}")
    facts = {"machine": report.machine(), "load_before": load, "load_after": report.load(), "count": rounds}
    facts |= {"changed": CHANGED, "files": FILES, "hosts": len(at_once.hosts), "large": f"{SIZES[-1] / 1e6:g} MB"}
    write({**facts, "figures": contest.figures(), "figures_at_once": at_once.figures()})


if __name__ == "__main__":
    main()
