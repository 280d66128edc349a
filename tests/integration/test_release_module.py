# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules release and release_info on a real host, with its systemd, its disk, and its deaths."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .payload import PLUGINS, modules

HOST = "app1"
ROOT = "/srv/convoy-test"
UNIT = "convoy-test-release.service"
PORT = 18090

SERVER = f"""
import http.server, json, os

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ill = os.path.exists("ill") and self.path == "/healthz"
        self.send_response(500 if ill else 200)
        self.end_headers()
        self.wfile.write(json.dumps({{"version": open("version").read()}}).encode())

http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Pages).serve_forever()
"""

SERVICE = f"""
[Service]
WorkingDirectory={ROOT}/current
ExecStart=/usr/bin/python3 server.py
TimeoutStopSec=5

[Install]
WantedBy=multi-user.target
"""

LOADED = f"systemctl show -P LoadState {UNIT}"
ASK = f"python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/').read().decode())\""

# Also what a test that was broken off left behind.
CLEAN = f"""
umount {ROOT} 2>/dev/null
cd /etc/systemd/system
systemctl stop $(ls | grep '^convoy.*test') 2>/dev/null
systemctl disable --quiet $(ls | grep '^convoy.*test') 2>/dev/null
rm -rf convoy*test* */convoy*test* {ROOT} /root/convoy-test-*.tar.gz
systemctl daemon-reload
systemctl reset-failed
"""


class Component:
    """A component of a few files on one host, and what is asked of it."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet

    def shell(self, script: str) -> str:
        """What a script prints on the host."""
        printed: str = self.fleet.shell(HOST, script)
        return printed.strip()

    def call(self, state: str, check: bool = False, by_ansible: bool = False, **arguments: Any) -> dict[str, Any]:
        """Call the module itself, not the action of its name, which is the controller's."""
        known: dict[str, Any] = {"component": "convoy-test", "root": ROOT, "rollout": "r-1", "token": 1}
        if state in ("active", "reverted"):
            known["probes"] = [
                {"kind": "http", "url": f"http://127.0.0.1:{PORT}/healthz"},
                {"kind": "version", "url": f"http://127.0.0.1:{PORT}/"},
            ]
            known["gate"] = {"interval": 0.2, "deadline": 30, "timeout": 10}
        known.update(arguments, state=state)
        if by_ansible:
            result: dict[str, Any] = self.fleet.module(HOST, "bare_release", known)
            return result
        return self.run("release", {**known, "_ansible_check_mode": check})

    def run(self, module: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a module on the host as Ansible would, without Ansible's five seconds. Nothing said: it was killed."""
        said = self.fleet.shell(HOST, f"python3 /run/convoy-test-modules.zip {module} || true", json.dumps(arguments))
        return {"failed": not said, **json.loads(said or "{}")}

    def info(self, **arguments: Any) -> dict[str, Any]:
        """Call the module release_info."""
        return self.run("release_info", {"component": "convoy-test", "root": ROOT, "verify": True, **arguments})

    def build(self, version: str, files: dict[str, bytes] | None = None) -> tuple[bytes, dict[str, Any]]:
        """An artifact and its manifest."""
        contents = {"server.py": SERVER.encode(), "version": version.encode(), **(files or {})}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, content in contents.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        data = gzip.compress(packed.getvalue(), 1, mtime=0)
        named = [
            {"path": path, "size": len(content), "mode": "0644", "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in contents.items()
        ]
        artifact = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": "tar.gz"}
        return data, {"artifact": artifact, "files": named}

    def send(self, version: str, data: bytes) -> str:
        """Bring an artifact to the host; its path there."""
        path = f"/root/convoy-test-{version}.tar.gz"
        self.fleet.shell(HOST, f"base64 -d > {path}", base64.b64encode(data).decode())
        return path

    def stage(
        self, version: str, files: dict[str, bytes] | None = None, units: dict[str, str] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Build, bring and stage."""
        data, manifest = self.build(version, files)
        wanted = [{"name": name, "content": content} for name, content in (units or {UNIT: SERVICE}).items()]
        known = {"release": f"{version}-abc", "version": version, "manifest": manifest, "units": wanted}
        if "artifact" not in arguments:
            arguments["artifact"] = self.send(version, data)
        return self.call("staged", **{**known, **arguments})

    def deploy(self, version: str, gate: dict[str, Any] | None = None, **stage: Any) -> dict[str, Any]:
        """Stage and activate; the activation's result."""
        staged = self.stage(version, **stage)
        assert not staged["failed"], staged
        return self.call("active", release=f"{version}-abc", **({"gate": gate} if gate else {}))

    def meanwhile(self, script: str) -> threading.Thread:
        """Run a script on the host beside what the test does next; it begins before this returns."""
        self.shell(f"cat > /run/convoy-test-watch <<'END'\n{script}\nEND")
        thread = threading.Thread(target=self.shell, args=("timeout 60 bash /run/convoy-test-watch",))
        thread.start()
        deadline = time.monotonic() + 30
        while "bash" not in self.shell("pgrep -af convoy-test-watch || true"):
            assert time.monotonic() < deadline
        return thread

    def journal(self) -> list[str]:
        """The journal in short."""
        lines = self.shell(f"cat {ROOT}/.convoy/journal.jsonl").splitlines()
        return [f"{line['event']} {line['release'].split('-')[0]}" for line in map(json.loads, lines)]

    def check_serving(self, version: str | None) -> None:
        """`current`, the process, systemd and the answer all say the same, and nothing lies about."""
        info = self.info()
        assert info["problems"] == []
        assert info["active"] == (f"{version}-abc" if version else None)
        if version is None:
            left = self.shell(
                f"ls -A {ROOT} {ROOT}/.convoy/incoming; ls -R /etc/systemd/system | grep convoy.*test; {LOADED}"
            )
            assert left.split() == f"{ROOT}: .convoy releases shared {ROOT}/.convoy/incoming: not-found".split()
        else:
            assert info["process"][UNIT]["release"] == f"{version}-abc"
            enabled, answer, *left = self.shell(
                f"systemctl is-enabled {UNIT}; {ASK}; ls -A {ROOT}/.convoy/incoming"
            ).splitlines()
            assert (enabled, json.loads(answer)["version"], left) == ("enabled", version, [])


@pytest.fixture(scope="module")
def prepared(fleet: Any) -> Iterator[Any]:
    """A host with the modules on it."""
    fleet.shell(HOST, "base64 -d > /run/convoy-test-modules.zip", base64.b64encode(modules()).decode())
    yield fleet
    fleet.shell(HOST, "rm -f /run/convoy-test-*")


@pytest.fixture
def component(prepared: Any) -> Iterator[Component]:
    """A host without the component."""
    prepared.shell(HOST, CLEAN)
    yield Component(prepared)
    prepared.shell(HOST, CLEAN)


ILL = {"ill": b""}
# What must fail need not be waited for.
IMPATIENT = {"interval": 0.5, "deadline": 3}


def test_the_whole_road(component: Component) -> None:
    asked = component.stage("1.0.0", artifact=None)
    assert (asked["changed"], asked["artifact_needed"]) == (False, True)
    assert component.stage("1.0.0")["changed"] is True
    first = component.call("active", release="1.0.0-abc")
    assert (first["failed"], first["changed"], first["active"]) == (False, True, "1.0.0-abc"), first
    component.check_serving("1.0.0")
    second = component.deploy("1.1.0")
    assert (second["active"], second["previous"]) == ("1.1.0-abc", "1.0.0-abc")
    component.check_serving("1.1.0")
    pid = component.info()["process"][UNIT]["pid"]
    assert component.stage("1.1.0", artifact=None)["changed"] is False
    assert component.call("active", release="1.1.0-abc")["changed"] is False
    assert component.info()["process"][UNIT]["pid"] == pid
    back = component.call("reverted", rollout="r-2", token=2)
    assert (back["changed"], back["active"]) == (True, "1.0.0-abc"), back
    component.check_serving("1.0.0")
    assert component.call("reverted", rollout="r-2", token=2)["changed"] is False


def test_ansible_runs_it_and_the_guard_is_made_of_what_ansible_sent(
    component: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare_release.py").symlink_to(PLUGINS / "modules" / "release.py")
    monkeypatch.setenv("ANSIBLE_LIBRARY", str(tmp_path))
    component.stage("1.0.0", by_ansible=True)
    active = component.call("active", by_ansible=True, release="1.0.0-abc", confirm_within=600)
    assert (active["failed"], active["changed"], active["active"]) == (False, True, "1.0.0-abc"), active
    component.check_serving("1.0.0")
    script = f"{ROOT}/.convoy/guard.pyz"
    assert component.shell(f"python3 -I {script} convoy-test {ROOT} revert") == "1.0.0-abc may still be confirmed"
    assert component.call("active", by_ansible=True, release="1.0.0-abc")["changed"] is False


def test_check_mode_changes_nothing(component: Component) -> None:
    foreseen = component.stage("1.0.0", artifact=None)
    assert foreseen["artifact_needed"] is True
    component.deploy("1.0.0")
    component.stage("1.1.0")
    before = component.shell(f"cat {ROOT}/.convoy/journal.jsonl; readlink {ROOT}/current")
    assert component.call("active", check=True, release="1.1.0-abc")["changed"] is True
    assert component.call("active", check=True, release="1.0.0-abc")["changed"] is False
    assert component.shell(f"cat {ROOT}/.convoy/journal.jsonl; readlink {ROOT}/current") == before


# --- releases that fail --------------------------------------------------------------------------------------------


def test_ill_release_goes_back(component: Component) -> None:
    component.deploy("1.0.0")
    result = component.deploy("1.1.0", IMPATIENT, files=ILL)
    assert result["failed"] is True
    assert (result["reverted"], result["active"], result["gate"]["verdict"]) == (True, "1.0.0-abc", "fail")
    assert result["gate_after"]["verdict"] == "pass"
    assert "/healthz" in result["msg"]
    assert result["msg"].endswith("1.0.0-abc is active again")
    component.check_serving("1.0.0")
    assert component.journal()[-3:] == ["activating 1.1.0", "reverting 1.1.0", "bad 1.1.0"]


def test_first_release_that_fails_leaves_nothing(component: Component) -> None:
    result = component.deploy("1.0.0", IMPATIENT, files=ILL)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, None)
    component.check_serving(None)
    assert component.deploy("1.1.0")["active"] == "1.1.0-abc"
    component.check_serving("1.1.0")


def test_release_that_crashes_at_once_goes_back_with_its_last_words(component: Component) -> None:
    component.deploy("1.0.0")
    result = component.deploy("1.1.0", IMPATIENT, files={"server.py": b"raise SystemExit('no licence for tuesdays')"})
    assert (result["failed"], result["active"]) == (True, "1.0.0-abc")
    assert any("no licence for tuesdays" in line for line in result["log"]), result["log"]
    component.check_serving("1.0.0")


def test_release_that_lies_about_its_version_goes_back(component: Component) -> None:
    component.deploy("1.0.0")
    result = component.deploy("1.1.0", IMPATIENT, files={"version": b"1.0.0"})
    assert (result["failed"], result["active"]) == (True, "1.0.0-abc")
    component.check_serving("1.0.0")


def test_process_of_the_old_release_is_found_out(component: Component) -> None:
    """Its unit starts what another release has: the probes are content, the working directory is not."""
    component.deploy("1.0.0")
    elsewhere = SERVICE.replace(f"{ROOT}/current", f"{ROOT}/releases/1.0.0-abc")
    probes = [{"kind": "http", "url": f"http://127.0.0.1:{PORT}/healthz"}]
    component.stage("1.1.0", units={UNIT: elsewhere})
    result = component.call("active", release="1.1.0-abc", probes=probes)
    assert result["failed"] is True
    assert result["gate"]["verdict"] == "pass"
    assert f"runs from {ROOT}/releases/1.0.0-abc, expected {ROOT}/releases/1.1.0-abc" in result["msg"]
    component.check_serving("1.0.0")


@pytest.mark.parametrize(
    "text", ["[Service]\nExecStart=/nonexistent/program\n", "[Service]\nExecStart=relative\n", "rubbish\n"]
)
def test_unit_that_cannot_start_goes_back(component: Component, text: str) -> None:
    component.deploy("1.0.0")
    more = {"convoy-test-more.service": SERVICE.replace("server.py", "-c 'import time; time.sleep(600)'")}
    result = component.deploy("1.1.0", IMPATIENT, units={UNIT: text, **more})
    assert (result["failed"], result["active"]) == (True, "1.0.0-abc"), result
    component.check_serving("1.0.0")
    assert component.shell("ls -R /etc/systemd/system | grep -c convoy-test-more || true") == "0"
    assert component.shell("systemctl show -P LoadState convoy-test-more.service") == "not-found"


def test_units_come_and_go_with_their_release(component: Component) -> None:
    sleeper = SERVICE.replace("server.py", "-c 'import time; time.sleep(600)'")
    timer = "[Timer]\nOnUnitActiveSec=1d\nOnBootSec=1d\nUnit=convoy-test-b.service\n[Install]\nWantedBy=timers.target\n"
    component.deploy("1.0.0", units={UNIT: SERVICE, "convoy-test-a.service": sleeper})
    component.deploy("1.1.0", units={UNIT: SERVICE, "convoy-test-b.service": sleeper, "convoy-test-b.timer": timer})
    component.check_serving("1.1.0")
    assert component.shell("systemctl is-active convoy-test-b.service convoy-test-b.timer") == "active\nactive"
    assert component.shell("systemctl show -P LoadState convoy-test-a.service") == "not-found"
    component.call("reverted")
    component.check_serving("1.0.0")
    assert component.shell("systemctl is-active convoy-test-a.service") == "active"
    assert component.shell("systemctl show -P LoadState convoy-test-b.timer") == "not-found"


def test_unit_of_somebody_else_is_left_alone(component: Component) -> None:
    component.shell(f"printf '[Service]\nExecStart=/bin/true\n' > /etc/systemd/system/{UNIT}")
    result = component.stage("1.0.0", artifact=None)
    assert result["failed"] is True
    assert f"unit {UNIT} was not written by Convoy" in result["msg"]
    assert component.shell(f"cat /etc/systemd/system/{UNIT}") == "[Service]\nExecStart=/bin/true"


# --- refusals ------------------------------------------------------------------------------------------------------


def test_stale_token_is_refused(component: Component) -> None:
    component.stage("1.0.0", token=5, rollout="r-5")
    for state in ("active", "reverted", "absent"):
        result = component.call(state, release="1.0.0-abc", token=4)
        assert (result["failed"], result.get("stale_token"), result.get("highest")) == (True, True, 5), result
    assert component.journal() == ["staged 1.0.0"]


@pytest.mark.parametrize(
    ("make", "repair"),
    [
        (f"mkdir {ROOT}/current", f"mv {ROOT}/current {ROOT}/current.before-convoy"),
        (f"ln -s releases/gone {ROOT}/current", f"rm {ROOT}/current"),
        (f"ln -s /opt {ROOT}/current", f"rm {ROOT}/current"),
    ],
)
def test_current_that_is_not_ours_is_refused_with_its_repair(component: Component, make: str, repair: str) -> None:
    component.stage("1.0.0")
    component.shell(make)
    for result in (component.stage("1.1.0"), component.call("active", release="1.0.0-abc")):
        assert result["failed"] is True
        assert repair in result["msg"]
    assert repair in component.info()["obstacle"]
    component.shell(repair)
    assert component.call("active", release="1.0.0-abc")["active"] == "1.0.0-abc"


def test_truncated_and_swapped_artifacts_leave_nothing(component: Component) -> None:
    data, manifest = component.build("1.0.0", {"big": os.urandom(300_000)})
    arguments = {"release": "1.0.0-abc", "version": "1.0.0", "manifest": manifest}
    for harmed, message in (
        (data[:-1000], "it was cut off"),
        (data[:-1] + bytes([data[-1] ^ 1]), "damaged or swapped"),
    ):
        result = component.call("staged", **arguments, artifact=component.send("1.0.0", harmed))
        assert result["failed"] is True
        assert message in result["msg"]
        assert component.shell(f"ls -A {ROOT}/releases {ROOT}/.convoy/incoming {ROOT}/.convoy/releases") == (
            f"{ROOT}/.convoy/incoming:\n\n{ROOT}/.convoy/releases:\n\n{ROOT}/releases:"
        )


def test_hostile_artifact_writes_nothing_outside(component: Component) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, target in (("out", "../../../../etc"), ("out/convoy-test-evil", None)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.REGTYPE, "")
            archive.addfile(member)
    data = packed.getvalue()
    empty = hashlib.sha256(b"").hexdigest()
    manifest = {
        "artifact": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "format": "tar.gz"},
        "files": [
            {"path": "out", "link": "../../../../etc"},
            {"path": "out/convoy-test-evil", "size": 0, "mode": "0644", "sha256": empty},
        ],
    }
    artifact = component.send("1.0.0", data)
    result = component.call("staged", release="1.0.0-abc", version="1.0.0", manifest=manifest, artifact=artifact)
    assert result["failed"] is True
    assert "is refused" in result["msg"] or "symbolic link" in result["msg"]
    assert component.shell("ls /etc/convoy-test-evil 2>/dev/null || echo none") == "none"
    assert component.shell(f"ls -A {ROOT}/releases {ROOT}/.convoy/incoming | grep -v : | grep . || echo none") == "none"


def test_damaged_release_is_not_activated_and_brought_anew(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0")
    component.shell(f"echo '# tampered' >> {ROOT}/releases/1.1.0-abc/server.py")
    for result in (
        component.call("active", release="1.1.0-abc"),
        component.call("staged", release="1.1.0-abc", verify_only=True),
    ):
        assert result["failed"] is True
        assert "server.py: " in result["msg"]
    component.check_serving("1.0.0")
    assert component.stage("1.1.0")["changed"] is True
    assert component.call("active", release="1.1.0-abc")["active"] == "1.1.0-abc"


def test_no_room_is_found_out_before(component: Component) -> None:
    component.shell(f"mkdir -p {ROOT} && mount -t tmpfs -o size=2m tmpfs {ROOT}")
    result = component.stage("1.0.0", {"big": os.urandom(1_500_000)})
    assert result["failed"] is True
    assert "bytes free" in result["msg"]
    assert result["needed_bytes"] > result["free_bytes"] > 0


def test_too_few_inodes_are_found_out_before(component: Component) -> None:
    component.shell(f"mkdir -p {ROOT} && mount -t tmpfs -o size=20m,nr_inodes=100 tmpfs {ROOT}")
    result = component.stage("1.0.0", {f"f{number}": b"" for number in range(80)})
    assert result["failed"] is True
    assert "inodes free" in result["msg"]


def test_disk_that_fills_up_meanwhile(component: Component) -> None:
    component.shell(f"mkdir -p {ROOT} && mount -t tmpfs -o size=260m tmpfs {ROOT}")
    component.deploy("1.0.0")
    filler = component.meanwhile(
        f"until compgen -G '{ROOT}/.convoy/incoming/unpack.*' >/dev/null; do :; done; fallocate -l 250M {ROOT}/filler; "
        f"head -c 300M /dev/zero > {ROOT}/filler2; true"
    )
    result = component.stage("1.1.0", {"big": os.urandom(90_000_000)})
    filler.join()
    assert result["failed"] is True, result
    assert "ran out of room while 1.1.0-abc was staged" in result["msg"]
    assert component.shell(f"ls -A {ROOT}/.convoy/incoming; ls {ROOT}/releases") == "1.0.0-abc"
    component.shell(f"rm {ROOT}/filler*")
    component.check_serving("1.0.0")
    assert component.stage("1.1.0", {"big": b"small"})["changed"] is True


@pytest.mark.long
def test_inodes_that_run_out_meanwhile(component: Component) -> None:
    component.shell(f"mkdir -p {ROOT} && mount -t tmpfs -o size=400m,nr_inodes=2000 tmpfs {ROOT}")
    component.deploy("1.0.0")
    filler = component.meanwhile(
        f"until compgen -G '{ROOT}/.convoy/incoming/unpack.*' >/dev/null; do :; done; mkdir {ROOT}/filler; "
        f"for n in $(seq 2000); do : > {ROOT}/filler/$n; done 2>/dev/null; true"
    )
    files = {"big": os.urandom(90_000_000), **{f"f{number}": b"x" for number in range(500)}}
    result = component.stage("1.1.0", files)
    filler.join()
    assert result["failed"] is True, result
    assert "ran out of room while 1.1.0-abc was staged" in result["msg"]
    assert component.shell(f"ls -A {ROOT}/.convoy/incoming; ls {ROOT}/releases") == "1.0.0-abc"
    component.shell(f"rm -r {ROOT}/filler")
    component.check_serving("1.0.0")
    assert component.stage("1.1.0", {"big": b"small"})["changed"] is True


def test_prune_keeps_the_active_and_the_last_good_one(component: Component) -> None:
    for number in range(3):
        component.deploy(f"1.{number}.0")
    component.deploy("1.3.0", IMPATIENT, files=ILL)
    component.stage("1.4.0")
    pruned = component.call("active", release="1.4.0-abc", keep=1)["pruned"]
    assert pruned == ["1.0.0-abc", "1.1.0-abc"]
    assert component.info()["staged"] == ["1.2.0-abc", "1.3.0-abc", "1.4.0-abc"]
    for release in ("1.4.0-abc", "1.2.0-abc"):
        assert component.call("absent", release=release)["failed"] is True
    assert component.call("absent", release="1.3.0-abc")["changed"] is True
    assert component.call("reverted")["active"] == "1.2.0-abc"


# --- deaths --------------------------------------------------------------------------------------------------------

KILL = f"kill -9 $(sed -n 's/^process \\([0-9]*\\),.*/\\1/p' {ROOT}/.convoy/lock)"


def test_killed_while_unpacking(component: Component) -> None:
    component.deploy("1.0.0")
    killer = component.meanwhile(f"until compgen -G '{ROOT}/.convoy/incoming/unpack.*' >/dev/null; do :; done; {KILL}")
    assert component.stage("1.1.0", {"big": os.urandom(60_000_000)})["failed"] is True
    killer.join()
    assert component.info()["staged"] == ["1.0.0-abc"]
    component.stage("1.1.0")
    assert component.call("active", release="1.1.0-abc")["active"] == "1.1.0-abc"
    component.check_serving("1.1.0")


def test_killed_right_after_the_switch(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0", units={UNIT: SERVICE.replace("TimeoutStopSec=5", "TimeoutStopSec=6")})
    killer = component.meanwhile(f'until [ "$(readlink {ROOT}/current)" = releases/1.1.0-abc ]; do :; done; {KILL}')
    assert component.call("active", release="1.1.0-abc")["failed"] is True
    killer.join()
    problems = component.info()["problems"]
    assert any("the activation of 1.1.0-abc by rollout r-1 did not end" in problem for problem in problems), problems
    again = component.call("active", release="1.1.0-abc")
    assert (again["failed"], again["active"], again["previous"]) == (False, "1.1.0-abc", "1.0.0-abc"), again
    component.check_serving("1.1.0")
    assert component.journal()[-3:] == ["interrupted 1.1.0", "activating 1.1.0", "good 1.1.0"]


@pytest.mark.long
def test_killed_on_the_way_back(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0", ILL)
    killer = component.meanwhile(f"until grep -q reverting {ROOT}/.convoy/journal.jsonl; do :; done; {KILL}")
    assert component.call("active", release="1.1.0-abc", gate=IMPATIENT)["failed"] is True
    killer.join()
    back = component.call("reverted", rollout="r-2")
    assert (back["failed"], back["active"]) == (False, "1.0.0-abc"), back
    component.check_serving("1.0.0")


def test_connection_that_breaks_after_the_switch_stops_nothing(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0")
    # The sshd of the call: the ancestor of the module that is neither a shell nor Python.
    cut = f"""
    pid=$(sed -n 's/^process \\([0-9]*\\),.*/\\1/p' {ROOT}/.convoy/lock)
    while [ "$(cat /proc/$pid/comm)" != sshd ]; do pid=$(awk '/^PPid/ {{ print $2 }}' /proc/$pid/status); done
    kill -9 $pid
    """
    cutter = component.meanwhile(f'until [ "$(readlink {ROOT}/current)" = releases/1.1.0-abc ]; do :; done; {cut}')
    with pytest.raises(AssertionError):
        component.call("active", release="1.1.0-abc")
    cutter.join()
    component.shell(f"flock -w 30 {ROOT}/.convoy/lock true")
    component.check_serving("1.1.0")
    assert component.journal()[-2:] == ["activating 1.1.0", "good 1.1.0"]


# What a power cut leaves behind when it comes between the unit files and `current`.
HALF_WAY = f"""
import importlib, sys

sys.path.insert(0, "{ROOT}/.convoy/guard.pyz")
clock, guard, host, record, systemd, tree = (
    importlib.import_module("ansible_collections.convoy.rollout.plugins.module_utils." + name)
    for name in ("clock", "guard", "host", "record", "systemd", "tree")
)
made = host.Host(tree.Tree("{ROOT}", "convoy-test"), systemd.Systemd(), clock.Clock(), "r-1", 1)
new = made.tree.read_record("1.1.0-abc")
made.note("activating", new.release, came_from="1.0.0-abc")
guard.stand_by(made, [unit.name for unit in new.units])
made.units.write(new.units, new.release)
"""


def test_units_fit_again_after_a_power_cut(component: Component) -> None:
    component.deploy("1.0.0")
    more = {"convoy-test-more.service": SERVICE.replace("server.py", "-c 'import time; time.sleep(600)'")}
    component.stage("1.1.0", units={UNIT: SERVICE.replace("TimeoutStopSec=5", "TimeoutStopSec=6"), **more})
    component.fleet.shell(HOST, "python3 -", HALF_WAY)
    component.shell("systemctl daemon-reload")
    unit = "convoy-recover-convoy-test.service"
    wanted_by, before = component.shell(f"systemctl show -P WantedBy -P Before {unit}").splitlines()
    assert wanted_by == "multi-user.target"
    assert {UNIT, "convoy-test-more.service"} <= set(before.split())
    component.shell(f"systemctl start {unit}")
    problems = component.info()["problems"]
    assert len(problems) == 1
    assert "the activation of 1.1.0-abc by rollout r-1 did not end" in problems[0]
    assert component.call("active", release="1.1.0-abc")["active"] == "1.1.0-abc"
    component.check_serving("1.1.0")


# --- nobody confirms -----------------------------------------------------------------------------------------------


def test_host_goes_back_when_nobody_confirms(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0")
    result = component.call("active", release="1.1.0-abc", confirm_within=4)
    assert (result["failed"], result["active"]) == (False, "1.1.0-abc"), result
    component.shell(f"timeout 60 bash -c 'until grep -q reverted {ROOT}/.convoy/journal.jsonl; do sleep 0.2; done'")
    component.shell(f"flock -w 30 {ROOT}/.convoy/lock true")
    component.check_serving("1.0.0")
    assert component.journal()[-3:] == ["active 1.1.0", "reverting 1.1.0", "reverted 1.1.0"]
    assert component.shell("ls -R /etc/systemd/system | grep -c convoy-confirm || true") == "0"
    late = component.call("confirmed", release="1.1.0-abc")
    assert late["failed"] is True
    assert "it was left for 1.0.0-abc (not confirmed within 4 s)" in late["msg"]


def test_confirmed_release_stays(component: Component) -> None:
    component.deploy("1.0.0")
    component.stage("1.1.0")
    component.call("active", release="1.1.0-abc", confirm_within=600)
    info = component.info()
    assert info["unconfirmed"]["until"] - info["clock"] == pytest.approx(600, abs=60)
    assert component.shell("systemctl is-enabled convoy-confirm-convoy-test.timer") == "enabled"
    assert component.call("confirmed", release="1.1.0-abc")["changed"] is True
    assert component.call("confirmed", release="1.1.0-abc")["changed"] is False
    component.check_serving("1.1.0")
    assert component.info()["unconfirmed"] is None
    assert component.shell("systemctl show -P LoadState convoy-confirm-convoy-test.timer") == "not-found"
