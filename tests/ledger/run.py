# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of its own process, as the tests start many of: ``run.py COMMAND URL ARGUMENTS`` with the arguments as JSON.

It says ``ready``, waits for a line, does its command, and answers in lines of JSON:

* ``open``   opens the rollout, or is told who holds it; then lives until its input ends
* ``meet``   the same again and again, each time at the moment that its input names; a rollout of its own is ended
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
from collections.abc import Callable, Sequence
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
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import BusyError, Opened, Rollouts, Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead, machine, started, user

STREAM = "staging/hello"


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def no_more_input() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable)


def open_rollout(
    ledger: Ledger,
    new_id: str,
    hosts: int,
    window: int,
    zone_window: int | None = None,
    budget: int = 0,
    lease: float = 60.0,
) -> None:
    ledger.prepare()
    opened = try_to_open(Rollouts(ledger, STREAM), new_id, hosts, window, zone_window, budget, lease)
    say(opened=opened.rollout, token=opened.token, resumed=opened.resumed)
    sys.stdin.read()


def try_to_open(
    rollouts: Rollouts, new_id: str, hosts: int, window: int, zone_window: int | None, budget: int, lease: float
) -> Opened:
    names = [f"app{index:02}" for index in range(hosts)]
    seen = {name: HostFacts(name, "new", "old", f"zone{name[-1]}", Health.HEALTHY) for name in names}
    phases: list[dict[str, Any]] = [
        {"name": "canary", "size": 1, "bake": 0.05},
        {"name": "half", "size": "50%"},
        {"name": "all", "size": "100%"},
    ]
    limits = {"max_unavailable": window, **({"max_unavailable_per_zone": zone_window} if zone_window else {})}
    spec = RolloutSpec(
        parse_phases([phase | limits for phase in phases], 1), FailureBudget(Quantity(budget)), Quantity(2), lease=lease
    )
    run = Run(machine(), os.getpid(), started(os.getpid()) or 0, user())
    facts = {"kind": "deploy", "version": "1.1.0"}
    return rollouts.open(make_plan(spec, list(seen.values())), seen, facts, run, dead, new_id, patience=60.0)


def meet(ledger: Ledger) -> None:
    """Each line of the input is a moment of the monotonic clock, which all processes of a machine share."""
    rollouts = Rollouts(ledger, STREAM)
    for number, moment in enumerate(sys.stdin):
        time.sleep(max(0.0, float(moment) - time.monotonic()))
        try:
            opened = try_to_open(rollouts, f"r{number}.{os.getpid()}", 4, 1, None, 0, 60.0)
        except BusyError as error:
            say(error=error.reason, message=str(error))
            continue
        say(opened=opened.rollout, token=opened.token, resumed=opened.resumed)
        sys.stdin.readline()
        rollouts.turn_back(opened.rollout, opened.token, "the next one is to begin", stop=True)
        rollouts.close(opened.rollout, opened.token)
        say(ended=opened.rollout)


def roll(
    ledger: Ledger,
    rollout: str,
    token: int,
    out: str,
    work: float,
    part: Sequence[int] = (0, 1),
    fails: str = "",
    hangs: str = "",
) -> None:
    """``out``: a directory in which a host has a file for as long as it is out of service, ``work`` seconds.

    ``part`` n of m: only every m-th host, from the n-th on. The host that ``fails`` stays out of service. With the host
    that ``hangs`` the run says that it has it in hand, and does nothing more.
    """
    rollouts = Rollouts(ledger, STREAM)
    went, most = [], 0
    for name in rollouts.standing(rollout).to_go[part[0] :: part[1]]:
        while isinstance(answer := rollouts.admit(rollout, token, name), Wait):
            rollouts.wait_for_change(timeout=1.0, poll=0.01, host=name)
        if not isinstance(answer, Admitted):
            continue
        mark = Path(out) / name
        with mark.open("x") as file:
            file.write(str(os.getpid()))
        most = max(most, len(os.listdir(out)))
        if name == hangs:
            say(in_hand=name)
            sys.stdin.read()
        time.sleep(work)
        if name == fails:
            rollouts.report(rollout, token, name, HostStatus.FAILED, "it is to fail")
            continue
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


COMMANDS: dict[str, Callable[..., None]] = {
    "open": open_rollout,
    "meet": meet,
    "roll": roll,
    "write": write,
    "verify": verify,
}


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
