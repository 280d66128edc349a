# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of molecule's scenarios ask the lab: a plugin of pytest that builds on pytest-testinfra.

Everything is seen on the hosts and in the load balancer, over SSH; nothing comes from the ledger.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from typing import Any, ClassVar

import pytest
import testinfra
from testinfra.host import Host

ROOT = "/srv/hello"
UNIT = "hello.service"
GET = """
import sys, urllib.request
for _ in range(int(sys.argv[2])):
    print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip())
"""


def get(host: Host, url: str, times: int = 1) -> str:
    """What `url` answers when it is asked from `host`: a line for each time, where an answer is a line."""
    return str(host.check_output("python3 -c %s %s %s", GET, url, str(times)))


class Component:
    """The example service on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name: str = host.backend.get_hostname()

    @property
    def active(self) -> str:
        """The id of the release that `current` leads to."""
        return str(self.host.file(f"{ROOT}/current").linked_to).removeprefix(f"{ROOT}/releases/")

    @property
    def running(self) -> str:
        """The id of the release whose directory the unit's process works in."""
        process = self.host.service(UNIT).systemd_properties["MainPID"]
        return str(self.host.file(f"/proc/{process}/cwd").linked_to).removeprefix(f"{ROOT}/releases/")

    @property
    def releases(self) -> set[str]:
        """The versions of the releases that are there."""
        return {release.partition("-")[0] for release in self.host.file(f"{ROOT}/releases").listdir()}

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What happened on the host, oldest first."""
        lines = self.host.file(f"{ROOT}/.convoy/journal.jsonl").content_string.splitlines()
        return [json.loads(line) for line in lines]

    def events(self, version: str) -> list[str]:
        """What happened to the releases of a version, oldest first."""
        return [entry["event"] for entry in self.journal if entry["release"].startswith(f"{version}-")]


class Balancer:
    """The load balancer of the lab."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def servers(self) -> dict[str, str]:
        """The state of each server in HAProxy's own words."""
        table = get(self.host, "http://127.0.0.1:8404/;csv").removeprefix("# ")
        rows = csv.DictReader(table.splitlines())
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "app" and row["svname"] != "BACKEND"}

    def ask(self, times: int) -> Counter[str]:
        """What clients are answered, and how often."""
        return Counter(get(self.host, "http://127.0.0.1/", times).splitlines())


@pytest.fixture
def component(host: Host) -> Component:
    return Component(host)


@pytest.fixture(scope="session")
def balancer(request: pytest.FixtureRequest) -> Balancer:
    return Balancer(testinfra.get_host("ansible://lb1", ansible_inventory=request.config.option.ansible_inventory))


@pytest.fixture(scope="session")
def servers(balancer: Balancer) -> dict[str, str]:
    return balancer.servers


class FleetRuns:
    """Tests that every host runs `version`, wherever one looks, and serves. Their module names the hosts."""

    version: ClassVar[str]

    def test_current_leads_to_it(self, component: Component) -> None:
        assert component.active.startswith(f"{self.version}-")

    def test_the_process_is_of_it(self, component: Component) -> None:
        assert component.running == component.active

    def test_the_unit_runs_and_starts_at_boot(self, component: Component) -> None:
        unit = component.host.service(UNIT)
        assert unit.is_running
        assert unit.is_enabled

    def test_the_service_says_so(self, component: Component) -> None:
        assert json.loads(get(component.host, "http://127.0.0.1:8080/version")) == {"version": self.version}

    def test_the_journal_calls_it_good(self, component: Component) -> None:
        assert component.events(self.version)[-1] == "good"

    def test_the_host_is_in_service(self, component: Component, servers: dict[str, str]) -> None:
        assert servers[component.name] == "UP"

    def test_clients_get_it_from_every_host(self, balancer: Balancer) -> None:
        hosts = ("app1", "app2", "app3")
        assert balancer.ask(6) == {f"Hello from {host}, version {self.version}": 2 for host in hosts}
