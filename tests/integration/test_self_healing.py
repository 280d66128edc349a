# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments that cut the way to their own hosts: the hosts go back by themselves, and the ledger ends saying so."""

from __future__ import annotations

import os
from typing import Any

import pytest

from .environment import TOP, Environment

WITHIN = 8
GRACE = 10.0  # seconds for the way back itself
HELLO = {"name": "hello.service", "src": str(TOP / "examples/hello/templates/hello.service.j2")}
# The release brings a unit that cuts the way as long as it is there. It leaves with the release.
EVERY_SSHD = "/bin/sh -c 'kill -{signal} $(pidof sshd)'"
CUTS = {
    "sshd is stopped": ("/usr/bin/systemctl stop ssh.service", "/usr/bin/systemctl start ssh.service"),
    "sshd answers nobody": (EVERY_SSHD.format(signal="STOP"), EVERY_SSHD.format(signal="CONT")),
}


def units(environment: Environment, kind: str) -> list[dict[str, str]]:
    """The units of the example, and one that cuts."""
    start, stop = CUTS[kind]
    source = environment.directory / "convoy-test-cut.service.j2"
    source.write_text(f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={start}\nExecStop={stop}\n")
    return [HELLO, {"name": "convoy-test-cut.service", "src": str(source)}]


def healed_after(environment: Environment, host: str) -> float:
    """How many seconds after its activation a host had gone back, by its own journal."""
    journal = environment.look(host)[host].journal
    active = [entry for entry in journal if entry["event"] == "active"][-1]
    back = [entry for entry in journal if entry["event"] == "reverted" and entry["at"] > active["at"]][-1]
    assert back["reason"] == f"not confirmed within {WITHIN} s"
    return float(back["at"] - active["at"])


@pytest.mark.parametrize("kind", sorted(CUTS))
def test_a_release_that_cuts_ssh_is_taken_back(on_1_0_0: Environment, kind: str) -> None:
    variables: dict[str, Any] = {
        "rollout_target": "app1,app2",
        "rollout_phases": "one_by_one",
        "component_confirm_within": WITHIN,
        "component_units": units(on_1_0_0, kind),
    }
    ended = on_1_0_0.deploy("1.1.0", **variables)
    assert ended.rc != 0, ended.said
    (host,) = (name for name, status in on_1_0_0.statuses().items() if status != "pending")
    healed, busy = healed_after(on_1_0_0, host), max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    print(
        f"{kind}: healed {healed:.1f} s after its activation; the load is {busy:.1f} of what this machine does at once"
    )
    assert healed <= WITHIN + GRACE * busy
    assert on_1_0_0.view().status == "reverted"
    assert on_1_0_0.statuses()[host] in ("returned", "reverted")
    told = [event for event in on_1_0_0.events("moved") if event["now"] in ("returned", "reverted")]
    assert any(words in told[-1]["why"] for words in ("it had gone back by itself", "not confirmed within")), told
    on_1_0_0.see("1.0.0")
    assert on_1_0_0.fleet.shell(host, "ls /etc/systemd/system | grep -c convoy- || true").strip() == "0"


def test_a_release_that_cuts_nothing_is_confirmed(on_1_0_0: Environment) -> None:
    variables = {"rollout_target": "app1,app2", "component_confirm_within": 120}
    ended = on_1_0_0.deploy("1.1.0", **variables)
    assert ended.rc == 0, ended.said
    looks = on_1_0_0.look("app1", "app2")
    for look in looks.values():
        events = [entry["event"] for entry in look.journal if entry["release"].startswith("1.1.0-")]
        assert events == ["staged", "activating", "active", "good"]
        assert [unit for unit in look.units if unit.startswith("convoy-")] == []
    on_1_0_0.see("1.1.0", "app1", "app2")
