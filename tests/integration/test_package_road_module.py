# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package on the road of the playbooks: deployed, turned back, read, rolled back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .fleet import BIN, TOP, Fleet
from .repository import CLOSE, OPEN, PACKAGE, PORT, REMOVE, TAKE_DOWN, UNIT, make, serve

HOSTS = ("app1", "app2")
OLD, NEW, ILL = "1.0-1~rc1", "1:1.1-1", "1:1.2-1"
CLEAN = f"{REMOVE}\nrm -rf /srv/convoy-test-road; true"


class Site:
    """An environment whose component is a package."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.inventory = fleet, directory / "inventory"
        variables = self.inventory / "group_vars" / "all"
        variables.mkdir(parents=True)
        shutil.copy(fleet.inventory, self.inventory / "hosts")
        probes = [
            {"kind": "http", "url": f"http://127.0.0.1:{PORT}/healthz"},
            {"kind": "version", "url": f"http://127.0.0.1:{PORT}/"},
        ]
        described = {
            "environment_name": "test",
            "environment_ledger_url": f"sqlite:///{directory}/ledger.db",
            "component_name": "convoy-test-road",
            "component_kind": "package",
            "component_package": {"name": PACKAGE, "lock_timeout": 30},
            "component_units": [{"name": UNIT}],
            "component_probes": probes,
            "component_gate": {"interval": 0.2, "deadline": 4},
            "rollout_target": ",".join(HOSTS),
            "rollout_phases": [{"name": "canary", "size": 1}, {"name": "fleet", "size": "100%"}],
        }
        (variables / "environment.json").write_text(json.dumps(described))

    def run(self, playbook: str, version: str = "", **variables: Any) -> tuple[int, str]:
        """The exit code of a playbook, and what it said, on one line."""
        given = {**variables, **({"component_version": version} if version else {})}
        command = [str(BIN / "ansible-playbook"), playbook, "-i", str(self.inventory), "-e", json.dumps(given)]
        done = subprocess.run(
            command,
            cwd=TOP,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def on_each(self, script: str) -> list[str]:
        """What a script prints on each host."""
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            return [said.strip() for said in pool.map(lambda host: self.fleet.shell(host, script), HOSTS)]

    def installed(self) -> list[str]:
        """The package on each host, in dpkg's words."""
        form = "${db:Status-Want} ${db:Status-Status} ${Version}"
        return self.on_each(f"dpkg-query -W -f='{form}' {PACKAGE} 2>/dev/null || true")


@pytest.fixture(scope="module")
def site(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hosts that have the repository, and not the package."""
    directory = tmp_path_factory.mktemp("packages")
    (directory / "repository").mkdir()
    repository = make(directory / "repository")
    site = Site(fleet, directory)
    site.on_each(CLEAN)
    for host in HOSTS:
        serve(fleet, host, repository)
    yield site
    site.on_each(f"{CLEAN}\n{CLOSE}{TAKE_DOWN}")


def test_deployed_turned_back_and_rolled_back(site: Site) -> None:
    rc, said = site.run("deploy.yml", OLD)
    assert (rc, site.installed()) == (0, [f"hold installed {OLD}"] * 2), said
    rc, said = site.run("deploy.yml", NEW)
    assert (rc, site.installed()) == (0, [f"hold installed {NEW}"] * 2), said
    rc, said = site.run("deploy.yml", NEW)
    assert rc == 0, said
    assert "nothing to do" in said
    rc, said = site.run("deploy.yml", ILL)
    assert (rc != 0, site.installed()) == (True, [f"hold installed {NEW}"] * 2), said
    rc, said = site.run("status.yml")
    assert rc == 0, said
    site.on_each(CLOSE)
    rc, said = site.run("rollback.yml")
    assert (rc, site.installed()) == (0, [f"hold installed {OLD}"] * 2), said
    site.on_each(OPEN)


def test_drift_is_told_by_status(site: Site) -> None:
    site.on_each(f"apt-get -qq update; apt-get -qq install -y --allow-change-held-packages {PACKAGE}={NEW}")
    rc, said = site.run("status.yml")
    assert rc == 0, said
    assert f"package {PACKAGE} is {NEW} here, the active release has {OLD}" in said


@pytest.mark.long
def test_drift_is_found_and_repaired(site: Site) -> None:
    """It is the version of the test before; the id of its release does not tell '~' from '_'."""
    rc, said = site.run("drift.yml")
    assert rc == 2, said
    assert f"{', '.join(HOSTS)} package {PACKAGE} {OLD}, held {NEW}, " in said
    rc, said = site.run("repair.yml")
    assert (rc, site.installed()) == (0, [f"hold installed {OLD}"] * 2), said
    assert f"repair of convoy-test-road {OLD}" in said
    assert "0 of 2 hosts drifted, 2 clean" in said
    rc, said = site.run("repair.yml")
    assert rc == 0, said
    assert "nothing to repair" in said


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"component_kind": "packge"}, "component_kind: unknown kind 'packge': did you mean 'package'?"),
        ({"component_artifact": "/x.tar"}, "component_artifact: not for component_kind: package"),
        ({"component_transfer": "delta"}, "component_transfer: not for component_kind: package"),
    ],
)
def test_bad_input_is_refused_before_a_host_is_asked(site: Site, variables: dict[str, Any], said: str) -> None:
    rc, told = site.run("deploy.yml", **{"component_version": NEW, **variables})
    assert rc != 0
    assert said in told, told


def test_a_version_that_no_repository_has_names_those_that_are_there(site: Site) -> None:
    rc, told = site.run("deploy.yml", "7.7")
    assert rc != 0
    assert f"no repository of this host has version '7.7' of {PACKAGE}; there is" in told, told
    assert NEW in told
