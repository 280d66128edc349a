# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A component that the site's own tasks put in place: deployed, turned back, killed in the middle, rolled back.

Its artifact is what a supplier might give: an installer that copies things to /opt and brings a unit of its own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from .environment import Ended, Run
from .fleet import BIN, TOP, Fleet
from .repository import SERVER

NAME, PORT = "convoy-test-vendor", 18093
HOSTS = ("app1", "app2", "app3")
OLD, NEW, ILL, BROKEN, NEXT, STUCK, LAST = "1.0.0", "1.1.0", "1.2.0", "1.3.0", "2.0.0", "2.1.0", "2.2.0"
SERVICE = f"""
[Service]
ExecStart=/usr/bin/python3 /opt/{NAME}/server.py
"""
INSTALL = f"""
set -e
mkdir -p /opt/{NAME}
cp "$(dirname "$0")/server.py" /opt/{NAME}/
cp "$(dirname "$0")/{NAME}.service" /etc/systemd/system/
"""
CLEAN = f"""
systemctl stop {NAME} 2>/dev/null
rm -rf /opt/{NAME} /srv/{NAME} /etc/systemd/system/{NAME}.service /run/{NAME}
systemctl daemon-reload
"""


def note(what: str, shell: str = "true") -> list[dict[str, Any]]:
    """A task file that does something, and writes down what it was told."""
    told = "{{ (component_release or {}).version | default('nothing') }}"
    before = "{{ (component_previous | default(none) or {}).version | default('nothing') }}"
    line = f"echo {what} {told} {before} >> /run/{NAME}"
    return [{"name": f"Tell of {what}", "ansible.builtin.shell": f"{line}; {shell}", "changed_when": True}]


TASKS = {
    "stage": note("stage", "test -f {{ component_release.path }}/install.sh"),
    "activate": [
        *note("activate"),
        {
            "name": "Run the installer",
            "ansible.builtin.command": "sh {{ component_release.path }}/install.sh",
            "changed_when": True,
        },
        {"name": "Wait", "ansible.builtin.command": "sleep {{ site_pause | default(0) }}", "changed_when": False},
    ],
    "verify": note("verify", f"test -f /opt/{NAME}/server.py"),
    "prune": [
        {
            "name": "Tell of what is gone",
            "ansible.builtin.shell": f"echo prune {{{{ component_pruned | join(' ') }}}} >> /run/{NAME}",
            "changed_when": True,
        }
    ],
}


def artifact(path: Path, version: str) -> Path:
    """An installer. Those of BROKEN and STUCK fail, and what that of ILL installs is not healthy."""
    contents = {
        "server.py": SERVER.format(status=500 if version == ILL else 200, version=version, port=PORT),
        f"{NAME}.service": SERVICE,
        "install.sh": INSTALL + ("echo no licence >&2; exit 3\n" if version in (BROKEN, STUCK) else ""),
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


class Site:
    """An environment whose component is put in place by tasks."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self.directory, self.inventory = fleet, directory, directory / "inventory"
        self._published: set[str] = set()
        variables = self.inventory / "group_vars" / "all"
        variables.mkdir(parents=True)
        (self.inventory / "hosts").write_text(fleet.inventory.read_text())
        subprocess.run([str(TOP / "examples/keys"), str(directory / "keys")], check=True, capture_output=True)
        for name, tasks in TASKS.items():
            (directory / f"{name}.yml").write_text(yaml.safe_dump(tasks))
        (variables / "all.json").write_text(json.dumps(self._described()))

    def _described(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{PORT}"
        return {
            "environment_name": "test",
            "environment_ledger_url": f"sqlite:///{self.directory}/ledger.db",
            "environment_allowed_signers": str(self.directory / "keys/allowed_signers"),
            "publish_signing_key": str(self.directory / "keys/release_key"),
            "depot_path": str(self.directory / "depot"),
            "component_name": NAME,
            "component_kind": "tasks",
            "component_tasks": {name: str(self.directory / f"{name}.yml") for name in TASKS},
            "component_units": [{"name": f"{NAME}.service"}],
            "component_probes": [{"kind": "http", "url": f"{url}/healthz"}, {"kind": "version", "url": f"{url}/"}],
            "component_gate": {"interval": 0.2, "deadline": 4},
            "component_keep": 1,
            "rollout_target": ",".join(HOSTS),
            "rollout_phases": [
                {"name": "canary", "size": 1},
                {"name": "fleet", "size": "100%", "max_unavailable": "100%"},
            ],
        }

    def start(self, playbook: str, version: str = "", **variables: Any) -> Run:
        """Begin to run a playbook."""
        given = {**variables, **({"component_version": version} if version else {})}
        command = [str(BIN / "ansible-playbook"), playbook, "-i", str(self.inventory), "-e", json.dumps(given)]
        return Run(command, {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.directory / "ansible")})

    def run(self, playbook: str, version: str = "", **variables: Any) -> Ended:
        """Run a playbook to its end; what it said is on one line."""
        ended = self.start(playbook, version, **variables).end()
        return Ended(ended.rc, " ".join(ended.said.split()))

    def publish(self, *versions: str) -> None:
        """Put versions into the depot that are not there."""
        for version in (one for one in versions if one not in self._published):
            self._published.add(version)
            made = artifact(self.directory / f"{version}.tar.gz", version)
            ended = self.run("playbooks/publish.yml", version, component_artifact=str(made))
            assert ended.rc == 0, ended.said

    def on_each(self, script: str) -> list[str]:
        """What a script prints on each host."""
        with ThreadPoolExecutor(len(HOSTS)) as pool:
            return [said.strip() for said in pool.map(lambda host: self.fleet.shell(host, script), HOSTS)]

    def told(self) -> list[list[str]]:
        """What the tasks wrote down on each host since this was asked last."""
        return [said.splitlines() for said in self.on_each(f"cat /run/{NAME} 2>/dev/null; : > /run/{NAME}")]

    def serves(self) -> list[str]:
        """The version that answers on each host."""
        script = f"import json,urllib.request as u; print(json.load(u.urlopen('http://127.0.0.1:{PORT}/'))['version'])"
        return self.on_each(f'python3 -c "{script}" 2>/dev/null || echo nothing')

    def journal(self, host: str) -> list[dict[str, Any]]:
        said = self.fleet.shell(host, f"cat /srv/{NAME}/.convoy/journal.jsonl")
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def site(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hosts that run the first version."""
    site = Site(fleet, tmp_path_factory.mktemp("tasks"))
    site.on_each(CLEAN)
    site.publish(OLD)
    ended = site.run("deploy.yml", OLD)
    assert (ended.rc, site.serves()) == (0, [OLD] * 3), ended.said
    assert site.told() == [[f"stage {OLD} nothing", f"activate {OLD} nothing", f"verify {OLD} nothing"]] * 3
    yield site
    site.on_each(CLEAN)


def test_rolled_out(site: Site) -> None:
    site.publish(NEW)
    ended = site.run("deploy.yml", NEW)
    assert (ended.rc, site.serves()) == (0, [NEW] * 3), ended.said
    assert site.told() == [[f"stage {NEW} nothing", f"activate {NEW} {OLD}", f"verify {NEW} {OLD}"]] * 3
    again = site.run("deploy.yml", NEW)
    assert again.rc == 0, again.said
    assert "nothing to do" in again.said
    assert site.told() == [[]] * 3


def test_an_unhealthy_version_turns_back(site: Site) -> None:
    site.publish(ILL)
    active = version(site)
    ended = site.run("deploy.yml", ILL)
    assert (ended.rc != 0, site.serves()) == (True, [active] * 3), ended.said
    canary, *others = site.told()
    assert canary == [f"stage {ILL} nothing", f"activate {ILL} {active}", f"activate {active} {ILL}"]
    assert others == [[f"stage {ILL} nothing"]] * 2
    assert "app1 reverted" in ended.said, ended.said
    assert [entry["event"] for entry in site.journal("app1")][-4:] == ["bad", "reverting", "reverted", "good"]


def test_rolled_back(site: Site) -> None:
    if version(site) == OLD:
        pytest.skip("there is nothing before the first version: run the tests above as well")
    ended = site.run("rollback.yml")
    assert (ended.rc, site.serves()) == (0, [OLD] * 3), ended.said
    assert site.told() == [[f"activate {OLD} {NEW}"]] * 3
    status = site.run("status.yml")
    assert status.rc == 0, status.said
    assert "not known whether" not in status.said, status.said


def test_a_task_that_fails_turns_the_host_back_and_is_told(site: Site) -> None:
    site.publish(BROKEN)
    before = version(site)
    ended = site.run("deploy.yml", BROKEN)
    assert (ended.rc != 0, site.serves()) == (True, [before] * 3), ended.said
    assert "its tasks failed: Run the installer: " in ended.said
    assert "app1 reverted" in ended.said, ended.said
    assert [entry["event"] for entry in site.journal("app1")][-4:] == ["bad", "reverting", "reverted", "good"]
    drift = site.run("drift.yml")
    assert drift.rc == 0, drift.said


def test_a_run_that_dies_between_begin_and_settle_is_not_believed(site: Site) -> None:
    site.publish(NEXT)
    active, before, _told = version(site), releases(site), site.told()
    once = {**{name: str(site.directory / f"{name}.yml") for name in TASKS}, "idempotent": False}
    killed = site.start("deploy.yml", NEXT, site_pause=30, component_tasks=once)
    deadline = time.monotonic() + 120
    while f"activate {NEXT}" not in site.fleet.shell("app1", f"cat /run/{NAME}"):
        assert time.monotonic() < deadline, killed.said
        assert killed.lives(0.3), killed.said
    killed.kill()
    announced = site.journal("app1")[-1]
    assert (announced["event"], announced["reason"]) == ("activating", "by tasks of the site")

    refused = site.run("deploy.yml", NEXT, component_tasks=once)
    assert refused.rc != 0, refused.said
    assert "were begun, and it is not known whether they are done" in refused.said, refused.said
    assert "run this again with -e component_in_doubt=done if they are" in refused.said, refused.said
    assert site.told()[0] == [f"stage {NEXT} nothing", f"activate {NEXT} {active}"]

    ended = site.run("deploy.yml", NEXT)
    assert (ended.rc, site.serves()) == (0, [NEXT] * 3), ended.said
    assert "goes on" in ended.said
    events = [entry["event"] for entry in site.journal("app1") if entry["release"].startswith(NEXT)]
    assert events == ["staged", "activating", "interrupted", "activating", "active", "good"]
    canary, gone = site.told()[0], before - releases(site)
    assert canary[:3] == [f"stage {NEXT} nothing", f"activate {NEXT} {active}", f"verify {NEXT} {active}"]
    assert {word for line in canary[3:] for word in line.split()} - {"prune"} == gone


@pytest.mark.long
def test_what_nothing_takes_back_stays_until_the_next_version(site: Site) -> None:
    site.publish(STUCK, LAST)
    once = {"activate": str(site.directory / "activate.yml"), "irreversible": True}
    before = version(site)
    failed = site.run("deploy.yml", STUCK, component_tasks=once, rollout_on_failure="continue")
    assert (failed.rc != 0, site.serves()) == (True, [before] * 3), failed.said
    assert "app1 failed: " in failed.said, failed.said
    assert [entry["event"] for entry in site.journal("app1")][-2:] == ["activating", "bad"]
    status = site.run("status.yml")
    assert "in place failed: run the deployment again" in status.said, status.said
    refused = site.run("rollback.yml", component_tasks=once, rollout_on_failure="continue")
    assert "component_tasks.irreversible: a rollback is what it rules out" in refused.said, refused.said
    mended = site.run("deploy.yml", LAST, component_tasks=once, rollout_on_failure="continue")
    assert (mended.rc, site.serves()) == (0, [LAST] * 3), mended.said


def version(site: Site) -> str:
    """The version that the hosts run, whichever tests were before."""
    (active,) = set(site.serves())
    return active


def releases(site: Site) -> set[str]:
    """The releases on the first host."""
    return set(site.fleet.shell("app1", f"ls /srv/{NAME}/releases").split())
