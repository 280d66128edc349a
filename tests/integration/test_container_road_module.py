# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container on the road of the playbooks: published, deployed, turned back, rolled back, compared, repaired."""

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
from .images import NESTED, PORT, PREPARE, make
from .test_container_module import MACHINE, VERSIONS

HOSTS = ("app1", "app2")
NAME = "convoy-test-container-road"
OLD, NEW, ILL = "1.0.0", "1.1.0", "1.2.0"
CLEAN = f"""
systemctl stop {NAME}.service 2>/dev/null; podman rmi --force --all >/dev/null 2>&1
rm -rf /srv/{NAME} /etc/systemd/system/*{NAME}* /etc/systemd/system/*.wants/*{NAME}*; systemctl daemon-reload; true
"""
ASK = f"python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/').read().decode())\""


class Site:
    """An environment whose component is a container, with a depot and a key of its own."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.directory, self.inventory = fleet, directory, directory / "inventory"
        variables = self.inventory / "group_vars" / "all"
        variables.mkdir(parents=True)
        shutil.copy(fleet.inventory, self.inventory / "hosts")
        key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        public = key.with_suffix(".pub").read_text()
        (directory / "signers").write_text(f'tests namespaces="convoy-release" {public}')
        (directory / "told.j2").write_text("told with {{ greeting }}\n")
        described = {
            "environment_name": "test",
            "environment_ledger_url": f"sqlite:///{directory}/ledger.db",
            "environment_allowed_signers": str(directory / "signers"),
            "depot_path": str(directory / "depot"),
            "publish_signing_key": str(key),
            "component_name": NAME,
            "component_kind": "container",
            "component_container": {
                **NESTED,
                "environment": {"GREETING": "{{ greeting }}"},
                "volumes": ["./etc/told:/etc/told:ro"],
            },
            "component_config": [{"dest": "etc/told", "src": str(directory / "told.j2")}],
            "component_probes": [
                {"kind": "http", "url": f"http://127.0.0.1:{PORT}/healthz"},
                {"kind": "version", "url": f"http://127.0.0.1:{PORT}/"},
            ],
            "component_gate": {"interval": 0.2, "deadline": 5},
            "greeting": "hello",
            "rollout_target": ",".join(HOSTS),
            "rollout_phases": [{"name": "canary", "size": 1}, {"name": "fleet", "size": "100%"}],
        }
        (variables / "environment.json").write_text(json.dumps(described))

    def layout(self, version: str, **arguments: str) -> Path:
        """A layout's directory with a version of the service."""
        place = self.directory / f"layout-{version}"
        return place if place.is_dir() else make(place, version, **{"architecture": MACHINE, **arguments})

    def run(self, playbook: str, version: str = "", *options: str, **variables: Any) -> tuple[int, str]:
        """The exit code of a playbook, and what it said, on one line."""
        given = {**variables, **({"component_version": version} if version else {})}
        command = [str(BIN / "ansible-playbook"), playbook, "-i", str(self.inventory), "-e", json.dumps(given)]
        done = subprocess.run(
            [*command, *options],
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

    def serving(self) -> list[tuple[str, str, str]]:
        """What the service of each host says: its version, its greeting, its file."""
        told = [json.loads(said) for said in self.on_each(ASK)]
        return [(one["version"], one["greeting"], one["file"]) for one in told]


@pytest.fixture(scope="module")
def site(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hosts that run containers, and have none; three versions in the depot."""
    site = Site(fleet, tmp_path_factory.mktemp("containers"))
    site.on_each(PREPARE)
    site.on_each(CLEAN)
    for version in (OLD, NEW, ILL):
        rc, said = site.run(
            "playbooks/publish.yml", version, component_artifact=str(site.layout(version, **VERSIONS[version]))
        )
        assert rc == 0, said
        assert f"{NAME} {version} published: serial" in said
        assert ", image sha256:" in said, said
    yield site
    site.on_each(CLEAN)


def test_deployed_turned_back_and_rolled_back(site: Site) -> None:
    rc, said = site.run("deploy.yml", OLD)
    assert (rc, site.serving()) == (0, [(OLD, "hello", "told with hello")] * 2), said
    rc, said = site.run("deploy.yml", NEW, greeting="good day")
    assert (rc, site.serving()) == (0, [(NEW, "good day", "told with good day")] * 2), said
    rc, said = site.run("deploy.yml", NEW, greeting="good day")
    assert rc == 0, said
    assert "nothing to do" in said
    rc, said = site.run("deploy.yml", NEW, "--check", "--diff", greeting="good evening")
    assert rc == 0, said
    assert "--env=GREETING=good evening" in said.replace('"', ""), said
    rc, said = site.run("deploy.yml", ILL, greeting="good night")
    assert (rc != 0, site.serving()) == (True, [(NEW, "good day", "told with good day")] * 2), said
    rc, said = site.run("rollback.yml")
    assert (rc, site.serving()) == (0, [(OLD, "hello", "told with hello")] * 2), said


def test_drift_is_found_and_repaired(site: Site) -> None:
    """Somebody stopped the service of one host and removed all that podman had."""
    if site.run("deploy.yml", OLD)[0] != 0:
        pytest.fail("there is nothing to drift")
    site.fleet.shell("app1", f"systemctl stop {NAME}; podman rmi --force --all >/dev/null")
    rc, said = site.run("status.yml")
    assert rc == 0, said
    assert "in podman's storage" in said, said
    rc, said = site.run("drift.yml")
    assert rc == 2, said
    assert "app1 image sha256:" in said, said
    rc, said = site.run("repair.yml")
    assert rc == 0, said
    assert "0 of 2 hosts drifted, 2 clean" in said
    assert [one[0] for one in site.serving()] == [OLD] * 2


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"component_container": {"port": ["80:80"]}},
            "component_container: unknown key 'port': did you mean 'ports'?",
        ),
        ({"component_kind": "archive", "component_container": {}}, "was published as 'container': set it right"),
    ],
)
def test_bad_input_is_refused_before_a_host_is_asked(site: Site, variables: dict[str, Any], said: str) -> None:
    rc, told = site.run("deploy.yml", **{"component_version": NEW, **variables})
    assert rc != 0
    assert said in told, told


def test_what_is_no_layout_is_not_published(site: Site, tmp_path: Path) -> None:
    rc, told = site.run("playbooks/publish.yml", "2.0.0", component_artifact=str(tmp_path))
    assert rc != 0
    assert "this is no OCI layout" in told, told
    damaged = make(tmp_path / "damaged", "2.0.0")
    blob = max((damaged / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes() + b"x")
    rc, told = site.run("playbooks/publish.yml", "2.0.0", component_artifact=str(damaged))
    assert rc != 0
    assert f"blob {blob.name} of the layout has other content" in told, told
