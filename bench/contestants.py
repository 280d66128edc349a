# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who deploys: plain ssh, pyinfra, a playbook written by hand, and Convoy.

All do the same work: bring an archive to every host, verify and unpack it, switch to it, restart the unit, wait until
health and version agree, prune. Each has a tree, a unit and a port of its own, so that all can be there at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shlex
import sqlite3
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import yaml

from tests.integration.environment import ALL_AT_ONCE, Environment
from tests.integration.fleet import BIN, TOP, Fleet

HELLO = TOP / "examples" / "hello"
PEERS = TOP / "bench" / "peers"
PINS = TOP / "requirements" / "bench.txt"
PYINFRA = TOP / ".cache" / "bench" / "pyinfra"
FILES, BYTES = 300, 5_000_000
KEPT = 2  # releases that stay on a host, with everybody
PATIENCE = 120.0  # seconds within which a host must tell the version that it was brought to

Delays = Mapping[str, float]
Step = tuple[str, Callable[[], None]]


class ContestError(Exception):
    """A contestant did not do the work: its figure would be none."""


@dataclass(frozen=True)
class Release:
    """A version of the example service, as large as releases are."""

    version: str
    artifact: Path
    digest: str


def make_release(version: str, directory: Path, size: int = BYTES, count: int = FILES) -> Release:
    """Pack the service among files that do not compress; every file differs from those of other versions."""
    dice = random.Random(version)
    service = (HELLO / "app" / "hello.py").read_bytes()
    files = {"app/hello.py": service, "defaults.json": json.dumps({"version": version}).encode() + b"\n"}
    others = count - len(files)
    for index in range(others):
        files[f"lib/part{index % 20:02}/file{index:03}.bin"] = dice.randbytes((size - len(service)) // others)
    artifact = directory / f"hello-{version}.tar.gz"
    with tarfile.open(artifact, "w:gz", compresslevel=1) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, BytesIO(content))
    return Release(version, artifact, hashlib.sha256(artifact.read_bytes()).hexdigest())


def serve(fleet: Fleet, hosts: Sequence[str], port: int, version: str) -> None:
    """See from here that every host serves the version. ContestError names one that does not."""

    def look(host: str) -> str:
        with urllib.request.urlopen(f"http://{fleet.address(host)}:{port}/version", timeout=5) as answer:
            return str(json.load(answer)["version"])

    def wait(host: str) -> None:
        told, deadline = "nothing", time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                told = look(host)
            if told == version:
                return
            time.sleep(0.2)
        raise ContestError(f"{host} tells {told} at port {port}, not {version}")

    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(wait, hosts))


# --- the floor -------------------------------------------------------------------------------------------------


class Ssh:
    """One ssh and one shell script a host, ``at_once`` of them, from one asyncio program."""

    port = 8081

    def __init__(self, fleet: Fleet, hosts: Sequence[str], name: str = "floor", at_once: int = 20) -> None:
        self.fleet, self.hosts, self.name, self.at_once = fleet, hosts, name, at_once
        self._script = (PEERS / "release.sh").read_text()

    def deploy(self, release: Release, delays: Delays | None = None) -> None:
        """Bring the release, switch to it; ``delays``: how long the service of a host takes to start."""
        unit, digest = rendered_unit(self.name), release.digest

        def arguments(host: str) -> list[str]:
            settings = {"port": self.port, "start_delay": (delays or {}).get(host, 0.0)}
            return ["deploy", self.name, str(self.port), release.version, digest, unit, json.dumps(settings)]

        asyncio.run(self._on_all(arguments, release.artifact))

    def back(self) -> None:
        """Switch to the release before, which every host still has."""
        asyncio.run(self._on_all(lambda _host: ["back", self.name, str(self.port)], Path(os.devnull)))

    async def _on_all(self, arguments: Callable[[str], list[str]], given: Path) -> None:
        places = asyncio.Semaphore(self.at_once)

        async def run(host: str) -> None:
            async with places:
                script = shlex.join(["bash", "-c", self._script, "release.sh", *arguments(host)])
                await ssh(self.fleet, host, script, given)

        await asyncio.gather(*map(run, self.hosts))


async def ssh(fleet: Fleet, host: str, script: str, given: Path) -> None:
    """Run a script on a host, with the content of a file as its input."""
    known = fleet.variables[host]
    options = [
        "-F",
        "none",
        "-i",
        known["ansible_ssh_private_key_file"],
        *shlex.split(known["ansible_ssh_common_args"]),
    ]
    login = f"{known['ansible_user']}@{known['ansible_host']}"
    with given.open("rb") as stream:
        process = await asyncio.create_subprocess_exec(
            "ssh", *options, login, script, stdin=stream, stderr=asyncio.subprocess.PIPE
        )
    _out, said = await process.communicate()
    if process.returncode:
        raise ContestError(f"ssh to {host} ended with {process.returncode}: {said.decode().strip()}")


def rendered_unit(name: str) -> str:
    """The example's unit, for a tree of another name."""
    template = jinja2.Template((HELLO / "templates" / "hello.service.j2").read_text())
    return str(template.render(component_name=name, component_root=f"/srv/{name}"))


# --- the peers -------------------------------------------------------------------------------------------------


class Pyinfra:
    """pyinfra, from an environment of its own. ContestError where that cannot be made."""

    name, port = "pyinfra", 8082

    def __init__(self, fleet: Fleet, hosts: Sequence[str], directory: Path) -> None:
        self.version = _install_pyinfra()
        self._inventory = directory / "pyinfra_inventory.py"
        self._inventory.write_text(f"hosts = {[(host, _for_pyinfra(fleet.variables[host])) for host in hosts]!r}\n")

    def deploy(self, release: Release) -> None:
        """Run its deploy file."""
        data = {
            "name": self.name,
            "port": self.port,
            "version": release.version,
            "artifact": release.artifact,
            "digest": release.digest,
            "config": json.dumps({"port": self.port}),
            "unit": rendered_unit(self.name),
        }
        given = [part for key, value in data.items() for part in ("--data", f"{key}={value}")]
        program, operations = PYINFRA / "bin" / "pyinfra", PEERS / "pyinfra_release.py"
        _run([program, self._inventory, operations, "--yes", *given], self._inventory.parent)


def _for_pyinfra(known: Mapping[str, str]) -> dict[str, Any]:
    options = dict(part.split("=", 1) for part in shlex.split(known["ansible_ssh_common_args"]) if "=" in part)
    return {
        "ssh_hostname": known["ansible_host"],
        "ssh_user": known["ansible_user"],
        "ssh_key": known["ansible_ssh_private_key_file"],
        "ssh_known_hosts_file": options["UserKnownHostsFile"],
        "ssh_strict_host_key_checking": "yes",
    }


def _install_pyinfra() -> str:
    """Bring its environment to the pinned requirements; its version."""
    uv = BIN / "uv"
    try:
        if not (PYINFRA / "bin" / "python").exists():
            _run([uv, "venv", "--quiet", "--python", BIN / "python", PYINFRA], TOP)
        _run([uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", PYINFRA / "bin" / "python", PINS], TOP)
        return _run([PYINFRA / "bin" / "pyinfra", "--version"], TOP).split()[-1].removeprefix("v")
    except OSError as error:
        raise ContestError(f"pyinfra cannot be installed: {error}") from error


class Playbook:
    """A playbook written for this work, with all settings that make it faster; the same ansible-core."""

    name, port = "byhand", 8083

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet, self._directory = fleet, directory

    def deploy(self, release: Release) -> None:
        """Run it."""
        variables = {
            "component_name": self.name,
            "component_version": release.version,
            "component_artifact": str(release.artifact),
            "component_digest": release.digest,
            "hello_templates": str(HELLO / "templates"),
            "hello_port": self.port,
            "hello_greeting": "Hello",
            "hello_settings": {},
        }
        _run(
            [BIN / "ansible-playbook", PEERS / "playbook", "-i", self.fleet.inventory, "-e", json.dumps(variables)],
            TOP,
            ANSIBLE_CONFIG=str(PEERS / "ansible.cfg"),
            ANSIBLE_HOME=str(self._directory / "ansible"),
        )


def _run(command: Sequence[str | Path], directory: Path, **variables: str) -> str:
    """What a program prints. ContestError with its last words where it fails."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContestError(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


# --- Convoy ----------------------------------------------------------------------------------------------------

# What the others do too: healthy is who answers once, asked ten times a second.
POLICY = {
    "traffic_adapter": "none",
    "component_keep": KEPT,
    "component_gate": {"interval": 0.1, "timeout": 2.0, "successes": 1, "min_healthy_time": 0, "deadline": 60},
}


class Convoy:
    """The whole of deploy.yml and rollback.yml with the project's settings, everything on, the ledger in SQLite."""

    port = 8080

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.environment = Environment(fleet, directory)
        self._variables = self.environment.inventory / "group_vars" / "all" / "zz_bench.yml"
        self.wait_for(ALL_AT_ONCE)

    def wait_for(self, phases: list[dict[str, Any]], delays: Delays | None = None) -> None:
        """Roll in these phases from now on; ``delays``: how long the service of a host takes to start."""
        policy: dict[str, Any] = {**POLICY, "rollout_phases": phases}
        if delays:
            policy["bench_delays"] = dict(delays)
            policy["hello_settings"] = {"start_delay": "{{ bench_delays[inventory_hostname] }}"}
        self._variables.write_text(yaml.safe_dump(policy))

    def make(self, version: str) -> Release:
        """A release in the depot."""
        release = make_release(version, self.environment.directory / "build")
        self.environment.publish(version)
        return release

    def deploy(self, release: Release) -> None:
        """Open to close."""
        self._end("deploy.yml", release.version)

    def back(self) -> None:
        """Back to the last good release."""
        self._end("rollback.yml")

    def _end(self, playbook: str, version: str | None = None) -> None:
        ended = self.environment.run(playbook, version)
        if ended.rc:
            raise ContestError(f"{playbook} ended with {ended.rc}:\n{ended.said[-3000:]}")

    def away(self) -> dict[str, float]:
        """For how many seconds each host was away in the last rollout, by the ledger: from admission to report."""
        last = "select rollout from convoy_events order by seq desc limit 1"
        asked = (
            f"select host, max(at) - min(at) from convoy_events where kind = 'moved' and rollout = ({last}) group by 1"
        )
        with contextlib.closing(sqlite3.connect(self.environment.directory / "ledger.db")) as ledger:
            return dict(ledger.execute(asked).fetchall())

    @contextlib.contextmanager
    def unchanged(self, hosts: Sequence[str]) -> Iterator[None]:
        """See that nothing on the hosts changes meanwhile. ContestError names a host where something did."""
        before = self.environment.look(*hosts)
        yield
        for host, look in self.environment.look(*hosts).items():
            if look.untouched != before[host].untouched:
                raise ContestError(f"a second run has changed {host}")
