# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bench/deployment has found, as a part of docs/benchmarks.md, as JSON, and as a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from bench import report
from tests.integration.fleet import TOP

PAGE = TOP / "docs" / "benchmarks.md"
RECORD = TOP / "docs" / "benchmarks" / "deployment.json"
CHART = TOP / "docs" / "benchmarks" / "deployment.svg"
HEAD = "## A whole deployment"


@dataclass(frozen=True)
class Row:
    """A step that was measured, as it is called; ``against`` another one, with the goals for that ratio, if any."""

    name: str
    told: str
    against: str
    goal: str = ""


ROWS = (
    Row("floor", "ssh: one stream and one shell script a host", "floor"),
    Row("pyinfra", "pyinfra", "floor"),
    Row("playbook", "playbook written by hand, tuned", "floor"),
    Row("convoy", "**Convoy**, `deploy.yml`", "floor", "wall ≤ 2.5, CPU ≤ 3"),
    Row("convoy_again", "**Convoy**, `deploy.yml` again: nothing to change", "floor", "wall ≤ 1"),
    Row("back_floor", "ssh: switch, restart, health", "back_floor"),
    Row("convoy_back", "**Convoy**, `rollback.yml`", "back_floor", "wall ≤ 1.2"),
    Row("window_floor", "window, slow hosts: ssh, asyncio, a semaphore", "window_floor"),
    Row("convoy_window", "window, slow hosts: **Convoy**, `deploy.yml`", "window_floor", "wall ≤ 1.15"),
)
COLUMNS = {
    "told": "how",
    "wall": "wall, s",
    "wall_ratio": "of its floor",
    "cpu": "controller CPU, s",
    "cpu_ratio": "of its floor",
    "rest": "other CPU, s",
    "goal": "goal",
    "rounds": "wall of each round, s",
}
SECTION = (
    HEAD
    + """

`bench/deployment` wrote this part on {on}, at {commit}, in one alternating run over a lab of its own, from
[deployment.json](benchmarks/deployment.json). On {machine}, ansible-core {ansible}, OpenSSH {openssh}, {pyinfra}. Load
before: {load_before}, after: {load_after}; niceness {niceness}{busy}.

The work: a release of {megabytes:g} MB in {files} files, which no host has seen, goes to {hosts} hosts at once:
brought, verified (SHA-256), unpacked, switched to, the unit restarted, waited for until health and version agree, old
releases pruned. The hosts are real ones (systemd, sshd), and on the same machine: their CPU time is in *other CPU*,
with the kernel's and that of everybody else on the machine. *Controller CPU* is that of all processes of the
contestant, ssh's shared connections too; none of them finds a connection that was there before. Medians of {rounds}
rounds, every other one in the opposite order.

{table}

![wall and CPU seconds](benchmarks/deployment.svg)

* The floor stages, switches and prunes in one script over one connection. It keeps nothing on the disk by force, knows
  no lock, no record, no way back.
* The playbook has twelve tasks, pipelining, {hosts} forks, no facts, and lies in `bench/peers`, as pyinfra's file does.
* Convoy runs as users run it, with the project's `ansible.cfg`: signatures verified, ledger (SQLite), journal, tokens,
  gates, durable switch. One phase, all at once, no load balancer; healthy is who answers once, asked ten times a
  second, as with the others. *Again* is the same command once more; that it touched nothing was looked at.
* *Window*: {window} hosts at once, each of which takes from 1 to 6 s to start; the delays alone take {delays_alone} s.
  Convoy reads all hosts and brings the release to all of them before the first one goes. From its admission to its
  report a host was away for {beyond_start} s longer than its service takes to start (median; goal ≤ 0.5).

What counts are the ratios: they were measured together. Seconds of one day are not those of another.
"""
)

BAR, LABEL, LINE, WIDE = 18, 330, 24, 900


def write(record: Mapping[str, Any]) -> None:
    """Keep the record, draw the chart, and put the section where the page has the one before."""
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    CHART.write_text(chart(record["figures"]))
    before = PAGE.read_text().partition(HEAD)[0].rstrip()
    PAGE.write_text(f"{before}\n\n{section(record)}")


def section(record: Mapping[str, Any]) -> str:
    """The part of the page."""
    versions = record["versions"]
    return SECTION.format(
        **record,
        table=report.table(COLUMNS, list(rows(record["figures"]))),
        ansible=versions["ansible-core"],
        openssh=versions["OpenSSH"],
        pyinfra=f"pyinfra {versions['pyinfra']}" if versions["pyinfra"] else "pyinfra could not be installed",
        megabytes=record["bytes"] / 1e6,
        busy="" if record["load_before"] < 1 else " (**others kept it busy: these figures are too high**)",
    )


def rows(figures: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The table's, for what was measured."""
    for row in ROWS:
        if found := figures.get(row.name):
            floor = figures[row.against]
            yield {
                **found,
                "told": row.told,
                "wall_ratio": f"{found['wall'] / floor['wall']:.2f}",
                "cpu_ratio": f"{found['cpu'] / floor['cpu']:.2f}",
                "goal": row.goal or None,
                "rounds": ", ".join(f"{cost['wall']:.1f}" for cost in found["rounds"]),
            }


def chart(figures: Mapping[str, Any]) -> str:
    """Two bars a row: wall and CPU of the controller."""
    shown = [(row, figures[row.name]) for row in ROWS if row.name in figures]
    most = max(max(found["wall"], found["cpu"]) for _row, found in shown)
    high = 2 * LINE * len(shown) + LINE * 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" font-family="sans-serif" '
            'font-size="13">',
            f'<rect width="{WIDE}" height="{high}" fill="white"/>',
            f'<text x="{LABEL}" y="{LINE - 6}"><tspan fill="#1f6feb">■ wall, s</tspan>'
            ' <tspan fill="#d98a00">■ controller CPU, s</tspan></text>',
            *(bars(index, row, found, (WIDE - LABEL - 60) / most) for index, (row, found) in enumerate(shown)),
            "</svg>",
            "",
        ]
    )


def bars(index: int, row: Row, found: Mapping[str, float], scale: float) -> str:
    """Those of one row; ``scale`` is a second's width."""
    top = LINE + 2 * LINE * index
    label = escape(row.told.replace("*", "").replace("`", ""))
    parts = [f'<text x="{LABEL - 8}" y="{top + LINE}" text-anchor="end">{label}</text>']
    for offset, colour, seconds in ((2, "#1f6feb", found["wall"]), (2 + BAR, "#d98a00", found["cpu"])):
        wide = max(1.0, seconds * scale)
        parts.append(
            f'<rect x="{LABEL}" y="{top + offset}" width="{wide:.1f}" height="{BAR - 2}" fill="{colour}"/>'
            f'<text x="{LABEL + wide + 6:.1f}" y="{top + offset + 13}">{seconds:.1f}</text>'
        )
    return "\n".join(parts)
