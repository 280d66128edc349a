# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to bring a release to a host that has the one before: bench/transfer runs this over a lab."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.contestants import ContestError
from tests.integration.fleet import TOP, Fleet
from tests.integration.transfers import CLEAN, FILES, HOST, RECEIVED, ROOT, Depot, Web, contents_of, web_server

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
"""
)


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


def write(record: dict[str, Any]) -> None:
    """Keep the record, and put the section where the page has the one before."""
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    before = PAGE.read_text().partition(HEAD)[0].rstrip()
    busy = "" if record["load_before"] < 1 else " (**others kept it busy: these times are too long**)"
    PAGE.write_text(
        f"{before}\n\n{SECTION.format(**record, busy=busy, table=report.table(COLUMNS, record['figures']))}"
    )


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(prog="bench/transfer", description="Measure how releases travel.")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    load = report.load()
    with tempfile.TemporaryDirectory() as directory:
        contest = Contest(Fleet(Path(f"/var/lib/convoy-lab/labs/{os.environ['CONVOY_LAB']}/hosts")), Path(directory))
        contest.run(rounds)
    facts = {"machine": report.machine(), "load_before": load, "load_after": report.load()}
    write({**facts, "count": rounds, "changed": CHANGED, "files": FILES, "figures": contest.figures()})


if __name__ == "__main__":
    main()
