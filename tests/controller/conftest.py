# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project's playbooks, run for real against hosts that are this machine: nothing here needs a lab.

The component's directory is below the test's own, so that it stays away unless a run touches a host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Depot, Publication
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner

ROOT = Path(__file__).resolve().parents[2]
STREAM = "tiny/hello"
VERSIONS = ("1.0.0", "1.1.0")
HERE = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
BESIDE = {**HERE, "component_root": "{{ inventory_dir }}/../beside"}  # else it would be the same host twice
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}


@dataclass(frozen=True)
class Ended:
    """A run of ansible-playbook: its exit code, and all that it said, on one line."""

    rc: int
    said: str


@dataclass
class Site:
    """An environment of its own: an inventory, a depot, keys, a ledger. ``variables`` stand in group_vars/all."""

    directory: Path
    variables: dict[str, Any]
    hosts: dict[str, dict[str, Any]] = field(default_factory=lambda: {"app1": HERE, "app2": BESIDE})
    balancers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory"

    @property
    def component(self) -> Path:
        """The component's directory on the hosts."""
        return Path(self.variables["component_root"])

    def ledger(self) -> Ledger:
        """The ledger, as the runs write it."""
        ledger = Ledger(self.variables["environment_ledger_url"], "test")
        ledger.prepare()
        return ledger

    def rollouts(self) -> Rollouts:
        """The rollouts in it."""
        return Rollouts(self.ledger(), STREAM)

    def run(self, playbook: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> Ended:
        """Run a playbook of the project."""
        self._write()
        command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook, "-i", str(self.inventory)]
        own = {"ANSIBLE_HOME": str(self.directory / "ansible"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env={**environment, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return Ended(done.returncode, " ".join(done.stdout.split()))

    def deploy(self, *arguments: str, version: str = "1.0.0", environment: Mapping[str, str] = os.environ) -> Ended:
        """Run the deployment of ``version``."""
        return self.run("deploy.yml", "-e", f"component_version={version}", *arguments, environment=environment)

    def _write(self) -> None:
        """The inventory, as JSON, which is YAML."""
        groups = {"app": {"hosts": self.hosts}, "lb": {"hosts": self.balancers}}
        variables = self.inventory / "group_vars" / "all"
        variables.mkdir(parents=True, exist_ok=True)
        (self.inventory / "hosts.yml").write_text(json.dumps(groups))
        (variables / "environment.yml").write_text(json.dumps(self.variables))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good versions of the example, published, with the keys that signed them."""
    directory = tmp_path_factory.mktemp("releases")
    for script, arguments in (("keys", []), ("build", VERSIONS)):
        command = [sys.executable, str(ROOT / "examples" / script), str(directory / script), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    depot = Depot(directory / "depot")
    signer = SshSigner(directory / "keys" / "release_key")
    for version in VERSIONS:
        artifact = directory / "build" / f"hello-{version}.tar.gz"
        depot.publish(Publication("hello", version, artifact), signer, datetime.now(UTC))
    return directory


@pytest.fixture
def site(releases: Path, tmp_path: Path) -> Site:
    """An environment with two hosts and nothing deployed; its depot may be changed."""
    shutil.copytree(releases / "depot", tmp_path / "depot")
    return Site(
        tmp_path,
        {
            "environment_name": "tiny",
            "environment_ledger_url": f"sqlite:///{tmp_path}/ledger.db",
            "environment_allowed_signers": str(releases / "keys" / "allowed_signers"),
            "depot_path": str(tmp_path / "depot"),
            "component_name": "hello",
            "component_root": str(tmp_path / "hello"),
            "component_probes": [{"kind": "tcp", "port": 1}],
        },
    )
