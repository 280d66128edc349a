# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module release killed at every step that its code names, on real hosts, and called again.

CONVOY_KILLS says how often at each step, once if it does not. CONVOY_KILLS_ELSEWHERE says how often at every other
moment of every road: before and after each durable change, each member of the archive, each call of systemd.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.hardening.moments import NAMED, named_in

from .payload import PLUGINS, modules

TIMES = int(os.environ.get("CONVOY_KILLS", "1"))
ELSEWHERE = int(os.environ.get("CONVOY_KILLS_ELSEWHERE", "0"))
HERE = Path(__file__).parents[1] / "hardening"
ROOT = "/srv/convoy-kill"
PLACE = "/run/convoy-kill"
PORT = 8765
SERVE = f"systemd-run --quiet --unit convoy-test-web python3 -m http.server --bind 127.0.0.1 --directory {PLACE} {PORT}"
OLDEST, OLD, NEW, ILL = (f"{version}-abc" for version in ("0.9.0", "1.0.0", "1.1.0", "1.2.0"))
A, B, C = (f"convoy-kill-{letter}.service" for letter in "abc")


def unit(extra: str = "") -> str:
    """A service that runs where the release is."""
    return (
        f"[Service]\nWorkingDirectory={ROOT}/current\nExecStart=/usr/bin/sleep infinity\n{extra}"
        "[Install]\nWantedBy=multi-user.target\n"
    )


FILES = {
    release: {"version": release.encode(), "lib/code": os.urandom(20_000), "healthy": b""}
    for release in (OLDEST, OLD, NEW, ILL)
}
del FILES[ILL]["healthy"]
# With the new release one unit changes, one goes and one comes.
UNITS = {OLDEST: {A: unit()}, OLD: {A: unit(), B: unit()}, NEW: {A: unit("Nice=5\n"), C: unit()}}
UNITS[ILL] = UNITS[NEW]


@functools.cache
def artifact(release: str) -> bytes:
    """The archive of a release."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in FILES[release].items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), 1, mtime=0)


def digests(release: str) -> dict[str, str]:
    """What a release consists of."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in FILES[release].items()}


def call(state: str, release: str | None = None, fails: bool = False, **more: Any) -> dict[str, Any]:
    """A call of the module, whether it fails, and what must be active after it."""
    known = {"active": more.pop("active")} if "active" in more else {}
    return {"arguments": {"state": state, "release": release, **more}, "fails": fails, **known}


def staged(release: str, **more: Any) -> dict[str, Any]:
    """The call that stages a release."""
    data = artifact(release)
    files = [
        {"path": path, "size": len(FILES[release][path]), "mode": "0644", "sha256": digest}
        for path, digest in digests(release).items()
    ]
    described = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": "tar.gz"}
    how = more or {"artifact": f"{PLACE}/{release}"}
    return call(
        "staged",
        release,
        version=release.split("-")[0],
        manifest={"artifact": described, "files": files},
        units=[{"name": name, "content": content} for name, content in UNITS[release].items()],
        **how,
    )


def active(release: str, **more: Any) -> dict[str, Any]:
    """The call that activates a release, and succeeds."""
    return call("active", release, **{"active": release, **more})


def ends(release: str | None, **standing: str) -> dict[str, Any]:
    """Where a road ends: what is active, and what the journal says of releases."""
    known = {OLDEST: "oldest", OLD: "old", NEW: "new", ILL: "ill"}
    told = {release: standing[name] for release, name in known.items() if name in standing}
    return {"active": release, "standing": told, "units": sorted(UNITS[release]) if release else []}


TWO = [staged(OLDEST), active(OLDEST), staged(OLD), active(OLD)]
FAILS = call("active", ILL, fails=True, gate={"interval": 0.05, "successes": 1, "deadline": 0.5, "timeout": 0.5})
ROADS: dict[str, dict[str, Any]] = {
    "deployment": {
        "before": TWO,
        "calls": [staged(NEW), active(NEW, keep=1)],
        "allowed": [OLD, NEW],
        # Killed when all is said, and before it has pruned: the next deployment does.
        "ends": ends(NEW, oldest="removed or good", old="good", new="good"),
    },
    "unhealthy release": {
        "before": TWO[2:],
        "calls": [staged(ILL), {**FAILS, "active": OLD}],
        "allowed": [OLD, ILL],
        "ends": ends(OLD, old="good", ill="bad"),
    },
    "first release, unhealthy": {
        "before": [],
        "calls": [staged(ILL), {**FAILS, "active": None}],
        "allowed": [None, ILL],
        "ends": ends(None, ill="bad"),
    },
    "confirmation": {
        "before": TWO[2:],
        "calls": [staged(NEW), active(NEW, confirm_within=600), call("confirmed", NEW, active=NEW)],
        "allowed": [OLD, NEW],
        "ends": ends(NEW, new="good"),
    },
    "rollback": {
        "before": [*TWO[2:], staged(NEW), active(NEW)],
        "calls": [call("reverted", OLD, active=OLD, rollout="r-2", token=2)],
        "allowed": [OLD, NEW],
        "ends": ends(OLD, old="good", new="reverted"),
    },
    "removal": {
        "before": [*TWO[2:], staged(NEW)],
        "calls": [call("absent", NEW)],
        "allowed": [OLD],
        "ends": ends(OLD, new="removed"),
    },
    "artifact that is fetched": {
        "before": TWO[2:],
        "calls": [staged(NEW, transfer="pull", url=f"http://127.0.0.1:{PORT}/{NEW}")],
        "allowed": [OLD],
        "ends": ends(OLD, old="good", new="staged"),
    },
    "repair": {
        "before": TWO[2:],
        "damage": {"release": OLD, "files": {"lib/code": "somebody else's"}},
        "calls": [staged(OLD, artifact=f"{PLACE}/{OLD}", mend=True), active(OLD, mend=True)],
        "allowed": [OLD],
        "ends": ends(OLD, old="good"),
    },
}
GATE = {"interval": 0.05, "successes": 1, "deadline": 30, "timeout": 10}  # the machine may be busy
COMMON = {
    "component": "convoy-kill",
    "root": ROOT,
    "rollout": "r-1",
    "token": 1,
    "probes": [{"kind": "command", "argv": ["test", "-e", f"{ROOT}/current/healthy"]}],
    "gate": GATE,
}


def job(road: str, times: dict[str, int], otherwise: int = 0) -> dict[str, Any]:
    """What is to be done on a host: so many kills at each of these moments."""
    asked = {"component": "convoy-kill", "root": ROOT}
    releases = {release: digests(release) for release in FILES}
    told = {"root": ROOT, "prefix": "convoy-kill", "common": COMMON, "asked": asked, "releases": releases}
    return {**told, **ROADS[road], "times": times, "otherwise": otherwise}


class Killers:
    """The hosts that work on jobs, one each at a time."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.free: Queue[str] = Queue()
        self.hosts = sorted(name for name in fleet.variables if name.startswith("app"))
        for host in self.hosts:
            self.free.put(host)

    def prepare(self, host: str) -> None:
        """Bring all that is needed."""
        sent = {"modules.zip": modules(), **{release: artifact(release) for release in FILES}}
        sent |= {name: (HERE / name).read_bytes() for name in ("on_host.py", "moments.py")}
        self.fleet.shell(host, f"mkdir -p {PLACE}")
        for name, data in sent.items():
            self.fleet.shell(host, f"base64 -d > {PLACE}/{name}", base64.b64encode(data).decode())
        self.fleet.shell(host, SERVE)

    def work(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """What a free host finds."""
        host = self.free.get()
        try:
            said = self.fleet.shell(host, f"python3 {PLACE}/on_host.py {PLACE}/modules.zip", json.dumps(wanted))
        finally:
            self.free.put(host)
        found: dict[str, Any] = json.loads(said)
        return found

    def all(self, jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """What was found on each road."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            return dict(zip(jobs, pool.map(self.work, jobs.values()), strict=True))


@pytest.fixture(scope="module")
def killers(fleet: Any) -> Iterator[Killers]:
    """Hosts with all that is needed, and without the component."""
    killers = Killers(fleet)
    with ThreadPoolExecutor(len(killers.hosts)) as pool:
        list(pool.map(killers.prepare, killers.hosts))
    yield killers
    for host in killers.hosts:
        fleet.shell(host, f"systemctl stop convoy-test-web.service; rm -rf {PLACE} {ROOT}*")


@pytest.fixture(scope="module")
def came(killers: Killers) -> dict[str, Counter[str]]:
    """The moments of each road, when nothing kills."""
    found = killers.all({road: job(road, {}) for road in ROADS})
    return {road: Counter(name for _number, name, _which in told["came"]) for road, told in found.items()}


def steps_of_the_code() -> set[str]:
    """Every step and every entry of the journal that target code names.

    Those of packages and containers need an apt and a repository, or a podman: test_package_module.py and
    test_container_module.py kill at them.
    """
    others = {PLUGINS / "module_utils" / f"{kind}_kind.py" for kind in ("package", "container")}
    sources = set((PLUGINS / "module_utils").rglob("*.py")) - others
    return set().union(*(named_in(source.read_text()) for source in sources))


def test_the_roads_come_by_every_step_that_the_code_names(came: dict[str, Counter[str]]) -> None:
    """A step that is added, and lies on none of these roads, needs a road."""
    steps = steps_of_the_code()
    assert {"step switched", "step restarted", "before journal activating", "before journal removed"} <= steps
    # What a call finds of one that was killed comes when the killed one is made again.
    missing = steps - set().union(*came.values()) - {"before journal interrupted"}
    assert missing == set()


def test_killed_at_every_step_and_called_again(killers: Killers, came: dict[str, Counter[str]]) -> None:
    jobs: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for road, names in came.items():
        new = {name for name in names if name.startswith(NAMED)} - seen
        seen |= new
        jobs[road] = job(road, dict.fromkeys(new, TIMES), otherwise=ELSEWHERE)
    found = killers.all(jobs)
    for road, told in found.items():
        print(f"{road}: {told['trials']} kills, {len(told['faults'])} faults, {told['seconds']:.0f} s")
    assert {road: told["faults"] for road, told in found.items() if told["faults"]} == {}
    assert sum(told["trials"] for told in found.values()) >= TIMES * len(seen) > 25
