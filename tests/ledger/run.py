# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of its own process, as the tests start many of: ``run.py COMMAND URL ARGUMENTS`` with the arguments as JSON.

It says ``ready``, waits for a line, does its command, and answers in lines of JSON:

* ``open``   opens the rollout, or is told who holds it; then lives until its input ends
* ``roll``   takes the hosts forward as a play would, one after the other, and says which ones went
* ``write``  writes for ever, and says of each event that it is in the ledger
* ``verify`` verifies the ledger as often as it can until its input ends
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import Admitted, Recorded, Verdict, Wait
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, machine, started, user

STREAM = "staging/hello"


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def no_more_input() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)


def open_rollout(ledger: Ledger, new_id: str, hosts: int, window: int, zone_window: int | None = None) -> None:
    ledger.prepare()
    names = [f"app{index:02}" for index in range(hosts)]
    seen = {name: HostFacts(name, "new", "old", f"zone{name[-1]}", Health.HEALTHY) for name in names}
    phases = [
        {"name": "canary", "size": 1, "bake": 0.05},
        {"name": "half", "size": "50%"},
        {"name": "all", "size": "100%"},
    ]
    limits = {"max_unavailable": window, **({"max_unavailable_per_zone": zone_window} if zone_window else {})}
    spec = RolloutSpec(
        parse_phases([phase | limits for phase in phases], 1), FailureBudget(Quantity(0)), Quantity(2), lease=60.0
    )
    run = Run(machine(), os.getpid(), started(os.getpid()) or 0, user())
    facts = {"kind": "deploy", "version": "1.1.0"}
    rollouts = Rollouts(ledger, STREAM)
    opened = rollouts.open(make_plan(spec, list(seen.values())), seen, facts, run, dead, new_id, patience=60.0)
    say(opened=opened.rollout, token=opened.token, resumed=opened.resumed)
    sys.stdin.read()


def roll(ledger: Ledger, rollout: str, token: int, out: str, work: float) -> None:
    """``out``: a directory in which a host has a file for as long as it is out of service, ``work`` seconds."""
    rollouts = Rollouts(ledger, STREAM)
    went, most = [], 0
    for name in rollouts.standing(rollout).to_go:
        while isinstance(answer := rollouts.admit(rollout, token, name), Wait):
            time.sleep(0.002)
        if not isinstance(answer, Admitted):
            continue
        mark = Path(out) / name
        mark.touch(exist_ok=False)
        most = max(most, len(os.listdir(out)))
        time.sleep(work)
        mark.unlink()
        went.append(name)
        report = rollouts.report(rollout, token, name, HostStatus.SUCCEEDED)
        while isinstance(report, Recorded) and report.gate_due:
            report = rollouts.judge(rollout, token, Verdict.PASS)
            if isinstance(report, Wait):
                time.sleep(0.01)
                report = Recorded(gate_due=True)
    say(went=went, most=most)


def write(ledger: Ledger, rollout: str, writer: str) -> None:
    rollouts = Rollouts(ledger, STREAM)
    for number in itertools.count():
        rollouts.pause(rollout, f"{writer}:{number}")
        say(written=f"{writer}:{number}")


def verify(ledger: Ledger) -> None:
    times = 0
    while not no_more_input():
        ledger.verify(STREAM)
        times += 1
    say(verified=times)


COMMANDS: dict[str, Callable[..., None]] = {"open": open_rollout, "roll": roll, "write": write, "verify": verify}


def main() -> None:
    command, url, arguments = sys.argv[1:]
    ledger = Ledger(url, f"process {os.getpid()}")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        COMMANDS[command](ledger, **json.loads(arguments))
    except ConvoyError as error:
        say(error=error.reason, message=str(error))


if __name__ == "__main__":
    main()
