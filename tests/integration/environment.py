# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment of its own over the lab's hosts: runs of the playbooks, and what the hosts are, seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts, RolloutView
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger

from .fleet import BIN, TOP, Fleet
from .watching import Watch, Watched

PATIENCE = 900  # seconds; nothing takes as long, unless it hangs
STREAM = "test/hello"
ALL_AT_ONCE = [{"name": "all", "size": "100%", "max_unavailable": "100%"}]

LOOK = """
import json, os, subprocess, urllib.request

def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""

def last(link):
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""

def names(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []

def version():
    try:
        with urllib.request.urlopen("http://127.0.0.1:8080/version", timeout=5) as answer:
            return json.load(answer)["version"]
    except OSError:
        return ""

show = ["systemctl", "show", "--property=MainPID", "--value", "hello.service"]
pid = int(subprocess.run(show, stdout=subprocess.PIPE, check=True).stdout or 0)
timers = ["systemctl", "list-units", "--plain", "--no-legend", "--all", "convoy-*"]
print(json.dumps({
    "active": last("/srv/hello/current"),
    "running": last("/proc/%d/cwd" % pid) if pid else "",
    "pid": pid,
    "started": read("/proc/%d/stat" % pid).rpartition(")")[2].split()[19] if pid else "",
    "says": version() if pid else "",
    "releases": names("/srv/hello/releases"),
    "incoming": names("/srv/hello/.convoy/incoming"),
    "token": json.loads(read("/srv/hello/.convoy/token") or "{}").get("token", 0),
    "journal": [json.loads(line) for line in read("/srv/hello/.convoy/journal.jsonl").splitlines()],
    "units": subprocess.run(timers, stdout=subprocess.PIPE, check=True).stdout.decode().split(),
}))
"""

# What a run that was killed began on a host may still be at work there: it is waited for.
WIPE = """
set -eu
if test -e /srv/hello/.convoy/lock; then flock --timeout 60 /srv/hello/.convoy/lock true; fi
systemctl stop --quiet 'convoy-*hello*' hello.service 2>/dev/null || true
rm -rf /srv/hello
rm -f /etc/systemd/system/hello.service /etc/systemd/system/*.wants/hello.service
rm -f /etc/systemd/system/convoy-*hello* /etc/systemd/system/*.wants/convoy-*hello*
"""
KEEP = """
set -eu
cd /
tar -cf {kept} srv/hello etc/systemd/system/hello.service etc/systemd/system/*.wants/hello.service
"""
PUT_BACK = """
tar -C / -xf {kept}
systemctl daemon-reload
systemctl reset-failed hello.service 2>/dev/null || true
systemctl start hello.service
"""
NOTHING_LEFT = """
systemctl daemon-reload
systemctl reset-failed hello.service 2>/dev/null || true
"""

RUNTIME = """
import socket, sys

link = socket.socket(socket.AF_UNIX)
link.connect("/run/haproxy/admin.sock")
link.sendall(sys.stdin.buffer.read())
sys.stdout.write(b"".join(iter(lambda: link.recv(65536), b"")).decode())
"""


@dataclass(frozen=True)
class Ended:
    """A run of ansible-playbook that has ended: its exit code, and what it said."""

    rc: int
    said: str

    @property
    def summary(self) -> str:
        """The last lines, below the recap."""
        return self.said.rpartition("PLAY RECAP")[2].partition("\n\n")[2]

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        found = re.findall(r"^(\S+)\s+: ok=.* changed=(\d+)", self.said, re.MULTILINE)
        return {host: int(count) for host, count in found}


class Run:
    """A run of ansible-playbook, while it runs."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=TOP,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self._said: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self._said.append(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    @property
    def said(self) -> str:
        """All that it has said so far."""
        return "".join(self._said)

    def until(self, words: str) -> None:
        """Wait until it has said these words."""
        with self._more:
            self._more.wait_for(lambda: words in self.said or not self._reader.is_alive(), PATIENCE)
        if words not in self.said:
            self.kill()
            raise AssertionError(f"the run ended without saying {words!r}:\n{self.said}")

    def lives(self, seconds: float) -> bool:
        """Whether it still runs after so many seconds; known at once when it ends before."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def end(self) -> Ended:
        """Wait for its end."""
        try:
            rc = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the run does not end:\n{self.said}") from None
        self._reader.join(10)  # a process of ssh that stays may hold the output open
        return Ended(rc, self.said)

    def kill(self, workers: bool = True) -> None:
        """SIGKILL for the run, and for its workers unless they are to live on."""
        os.kill(self.pid, signal.SIGSTOP)  # it forks nothing any more
        for pid in (self.pid, *(descendants(self.pid) if workers else ())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def descendants(pid: int) -> list[int]:
    """The children of a process, and their children."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


@dataclass(frozen=True)
class Look:
    """What one look at a host showed. ``active`` is where `current` points, ``running`` where the process stands."""

    active: str
    running: str
    pid: int
    started: str
    says: str
    releases: list[str]
    incoming: list[str]
    token: int
    journal: list[dict[str, Any]]
    units: list[str]

    def activated(self, version: str) -> bool:
        """Whether a release of the version was ever switched to, by the host's own journal."""
        return any(e["event"] == "activating" and e["release"].startswith(f"{version}-") for e in self.journal)

    @property
    def untouched(self) -> tuple[Any, ...]:
        """What does not change as long as nothing live is touched."""
        activations = [entry for entry in self.journal if entry["event"] != "staged"]
        return (self.active, self.running, self.pid, self.started, len(activations))


class Environment:
    """An inventory with a policy, keys, a depot and a ledger of its own, over the application hosts of ``fleet``."""

    def __init__(self, fleet: Fleet, directory: Path, ledger_url: str = "") -> None:
        """``ledger_url``: where the ledger is, if not in a file of the environment's own."""
        self.fleet = fleet
        self.ledger_url = ledger_url or f"sqlite:///{directory}/ledger.db"
        self.process_variables: dict[str, str] = {}  # of the environment of runs
        self.directory = directory
        self.inventory = directory / "inventories" / "test"
        self.hosts = sorted(name for name in fleet.variables if name.startswith("app"))
        self.few = {"rollout_target": ",".join(self.hosts[:3])}  # where the whole fleet would only take longer
        self._published: set[str] = set()
        self._kept: dict[str, object] = {}
        variables = self.inventory / "group_vars" / "all"
        variables.mkdir(parents=True)
        (self.inventory / "hosts").write_text(fleet.inventory.read_text())
        (variables / "component.yml").write_text((TOP / "examples/hello/component.yml").read_text())
        (variables / "environment.yml").write_text(yaml.safe_dump(self._policy()))
        for tool, target in (("keys", "keys"), ("build", "build")):
            subprocess.run([str(TOP / "examples" / tool), str(directory / target)], check=True, capture_output=True)

    def _policy(self) -> dict[str, Any]:
        """As short as may be; what a test is about it gives with -e."""
        return {
            "project_dir": str(TOP),
            "environment_name": "test",
            "environment_ledger_url": self.ledger_url,
            "environment_allowed_signers": str(self.directory / "keys/allowed_signers"),
            "publish_signing_key": str(self.directory / "keys/release_key"),
            "depot_path": str(self.directory / "depot"),
            "component_gate": {
                "interval": 0.2,
                "timeout": 5,
                "successes": 2,
                "deadline": 20,
            },  # the machine may be busy
            "rollout_phases": [
                {"name": "canary", "size": 1, "bake": 1},
                {"name": "fleet", "size": "100%", "max_unavailable": 2},
            ],
            "rollout_lease": PATIENCE,
            "traffic_adapter": "haproxy",
            "traffic_haproxy_backend": "app",
        }

    # running playbooks

    def start(self, playbook: str, version: str | None = None, *options: str, **variables: Any) -> Run:
        """Begin to run a playbook."""
        given = {**variables, **({"component_version": version} if version else {})}
        extra = ["-e", json.dumps(given)] if given else []
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.directory / "ansible")}
        environment |= self.process_variables
        command = [str(BIN / "ansible-playbook"), playbook, "-i", str(self.inventory), *extra, *options]
        return Run(command, environment)

    def run(self, playbook: str, version: str | None = None, *options: str, **variables: Any) -> Ended:
        """Run a playbook to its end."""
        return self.start(playbook, version, *options, **variables).end()

    def deploy(self, version: str, *options: str, **variables: Any) -> Ended:
        """Run deploy.yml to its end; the version is published where it was not yet."""
        self.publish(version)
        return self.run("deploy.yml", version, *options, **variables)

    def publish(self, *versions: str) -> None:
        """Put versions into the depot."""
        for version in versions:
            if version not in self._published:
                artifact = self.directory / "build" / f"hello-{version}.tar.gz"
                ended = self.run("playbooks/publish.yml", version, component_artifact=str(artifact))
                assert ended.rc == 0, ended.said
                self._published.add(version)

    @contextmanager
    def host_variables(self, host: str, **variables: Any) -> Iterator[None]:
        """Variables of one host alone, meanwhile."""
        path = self.inventory / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(variables))
        try:
            yield
        finally:
            path.unlink()

    # looking, from outside

    def on_each(self, script: str, hosts: Sequence[str] | None = None) -> dict[str, str]:
        """What a shell script prints on each host."""
        wanted = self.hosts if hosts is None else list(hosts)
        with ThreadPoolExecutor(len(wanted)) as pool:
            return dict(zip(wanted, pool.map(lambda host: self.fleet.shell(host, script), wanted), strict=True))

    def look(self, *hosts: str) -> dict[str, Look]:
        """One look at each host, or at those that are named."""
        told = self.on_each(f"python3 - <<'END'\n{LOOK}\nEND", hosts or None)
        return {host: Look(**json.loads(answer)) for host, answer in told.items()}

    def tell_balancer(self, *commands: str) -> str:
        """What HAProxy answers at its runtime socket."""
        return str(self.fleet.shell("lb1", f"python3 -c '{RUNTIME}'", "; ".join(commands) + "\n"))

    def balancer(self) -> dict[str, str]:
        """Each server's state, as HAProxy tells it."""
        rows = [line.split(",") for line in self.tell_balancer("show stat").splitlines()]
        return {row[1]: row[17] for row in rows if row[0] == "app" and row[1] in self.hosts}

    def see(self, version: str, *hosts: str) -> dict[str, Look]:
        """Assert that these hosts, or all, run the version, whole; and that all hosts are in service."""
        looks = self.look(*hosts)
        for host, look in looks.items():
            assert look.active.startswith(f"{version}-"), f"{host}: {look.active}"
            assert look.running == look.active, f"{host} runs {look.running}"
            assert look.says == version, f"{host} says {look.says}"
            assert look.incoming == [], host
        assert self.balancer() == dict.fromkeys(self.hosts, "UP")
        return looks

    @contextmanager
    def untouched(self, *hosts: str) -> Iterator[None]:
        """Assert that on these hosts, or on all, nothing live is touched meanwhile, nor the ledger if on all."""
        before, head = self.look(*hosts), self.head()
        yield
        after = self.look(*hosts)
        assert {host: look.untouched for host, look in after.items()} == {h: b.untouched for h, b in before.items()}
        if not hosts:
            assert after == before
            assert self.head() == head

    def ledger(self) -> Ledger:
        """The ledger; its chain is verified."""
        ledger = Ledger(self.ledger_url, "test")
        ledger.prepare()
        ledger.verify(STREAM)
        return ledger

    def rollouts(self) -> Rollouts:
        """The rollouts in the ledger."""
        return Rollouts(self.ledger(), STREAM)

    def head(self) -> int:
        """The number of the ledger's newest event that is more than a refusal."""
        return max((entry.seq for entry in self.ledger().entries(STREAM) if entry.kind != "refused"), default=0)

    def view(self) -> RolloutView:
        """The newest rollout."""
        view = self.rollouts().view()
        assert view is not None
        return view

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the ledger says of each event of a kind in the newest rollout, and when it happened (`at`)."""
        query = "SELECT at, data FROM convoy_events WHERE rollout = ? AND kind = ? ORDER BY seq"
        with sqlite3.connect(self.directory / "ledger.db") as ledger:
            return [{**json.loads(data), "at": at} for at, data in ledger.execute(query, (self.view().id, kind))]

    def statuses(self) -> dict[str, str]:
        """What became of each host in the newest rollout."""
        return {row.name: row.status.value for row in self.view().hosts}

    @contextmanager
    def watched(self, a_second: int = 100) -> Iterator[Watched]:
        """Ask the service so many times a second, and HAProxy 20 times for its servers, meanwhile."""
        with Watch(self.fleet.address("lb1"), 1 / a_second) as watch:
            yield watch.watched

    # bringing the fleet where a test needs it

    def keep(self, name: str) -> None:
        """Keep the fleet and the ledger as they are, to have them again."""
        self.on_each(KEEP.format(kept=_kept_on_host(name)))
        with sqlite3.connect(self.directory / "ledger.db") as here, sqlite3.connect(self._ledger_kept(name)) as there:
            here.backup(there)
        self._kept[name] = self._print()

    def have(self, name: str) -> None:
        """Have the fleet and the ledger again as they were kept, unless they are still so."""
        if self._print() != self._kept[name]:
            self.on_each(WIPE + PUT_BACK.format(kept=_kept_on_host(name)))
            self._forget_ledger()
            shutil.copy(self._ledger_kept(name), self.directory / "ledger.db")
            self._all_in_service()
            self._kept[name] = self._print()

    def wipe(self) -> None:
        """Have hosts on which nothing was ever deployed, and an empty ledger."""
        self.on_each(WIPE + NOTHING_LEFT)
        self.fleet.shell("lb1", "rm -rf /var/lib/convoy/haproxy")
        self._forget_ledger()
        self.tell_balancer(*(f"set server app/{host} state ready" for host in self.hosts))

    def leave(self) -> None:
        """Leave nothing behind."""
        self.wipe()
        self.on_each("rm -f " + _kept_on_host("*"))

    def _all_in_service(self) -> None:
        self.tell_balancer(*(f"set server app/{host} state ready" for host in self.hosts))
        deadline = time.monotonic() + 60
        while (states := self.balancer()) != dict.fromkeys(self.hosts, "UP"):
            assert time.monotonic() < deadline, states
            time.sleep(0.2)

    def _print(self) -> object:
        """What tells the fleet and the ledger from all others."""
        return self.look(), self.balancer(), self.head()

    def _forget_ledger(self) -> None:
        for path in self.directory.glob("ledger.db*"):
            path.unlink()

    def _ledger_kept(self, name: str) -> Path:
        return self.directory / f"kept-{name}.db"


def _kept_on_host(name: str) -> str:
    return f"/var/lib/convoy-test-{name}.tar"
