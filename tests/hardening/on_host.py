# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the module release killed at moments of its work, over and over, and looks at what is left each time.

Runs on a host: `on_host.py PROGRAM < job > findings`, with moments.py beside it; PROGRAM is the zip of the modules. A
job is what a component looks like before, the calls of the module, where they must end, and how often. What is looked
at are files, the journal and processes, by means of this file alone.
"""

from __future__ import annotations

import collections
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

UNITS = "/etc/systemd/system"

sys.path[:0] = [sys.argv[1], os.path.dirname(os.path.abspath(__file__))]
moments = importlib.import_module("moments")
patch_module_args = importlib.import_module("ansible.module_utils.testing").patch_module_args
MODULES = {
    name: importlib.import_module("ansible_collections.convoy.rollout.plugins.modules." + name)
    for name in ("release", "release_info")
}


class KilledError(Exception):
    """The call came to the moment at which it was to be killed."""


class Component:
    """A component on this host, how it was, and what it consists of."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.root = job["root"]
        self.kept = self.root + ".kept"

    def calls(self, calls: list[dict[str, Any]], kill: list[Any] | None = None) -> list[list[Any]]:
        """Make the calls one after the other, and kill one: [its number, the moment, which of that name].

        Returns the moments that came, in the same form. Raises KilledError, or AssertionError where a call ends
        otherwise than it should.
        """
        seen: list[list[Any]] = []
        for number, call in enumerate(calls):
            at = kill[1:] if kill and kill[0] == number else None
            result, came = self.call("release", {**self.job["common"], **call["arguments"]}, at)
            seen += [[number, *moment] for moment in came]
            assert bool(result.get("failed")) == call["fails"], result
            assert "active" not in call or result["active"] == call["active"], result
        return seen

    def call(self, module: str, arguments: dict[str, Any], at: list[Any] | None = None) -> Any:
        """The result of a module, run in a child as Ansible would, and the moments that came to pass in it."""
        said, came = self.root + ".said", self.root + ".came"
        child = os.fork()
        if child == 0:
            self._live(module, arguments, at, said, came)
        _pid, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and at:
            raise KilledError
        assert not os.WIFSIGNALED(status), "the module died by itself"
        with open(said) as stream:
            result = json.loads(stream.read().splitlines()[-1])
        with open(came) as stream:
            return result, [json.loads(line) for line in stream]

    def _live(self, module: str, arguments: dict[str, Any], at: list[Any] | None, said: str, came: str) -> None:
        try:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            counted: collections.Counter[str] = collections.Counter()
            with open(came, "w") as stream, patch_module_args(arguments):

                def tell(moment: str) -> None:
                    counted[moment] += 1
                    if [moment, counted[moment]] == at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    stream.write(json.dumps([moment, counted[moment]]) + "\n")

                moments.watch(tell)
                try:
                    MODULES[module].main()
                except SystemExit:
                    sys.stdout.flush()
            os._exit(0)
        finally:  # nothing of the parent may be run by a child
            traceback.print_exc()
            os._exit(9)

    # --- how it is before every kill

    def keep(self) -> None:
        """Remember the component as it is."""
        shutil.rmtree(self.kept, ignore_errors=True)
        os.mkdir(self.kept)
        if os.path.isdir(self.root):
            shutil.copytree(self.root, self.kept + "/root", symlinks=True)
        for name in self._unit_files():
            shutil.copy2(os.path.join(UNITS, name), self.kept)
        self._running = [name for name in os.listdir(self.kept) if name != "root"]

    def put_back(self) -> None:
        """Have it again as it was remembered."""
        self._remove()
        if os.path.isdir(self.kept + "/root"):
            shutil.copytree(self.kept + "/root", self.root, symlinks=True)
        for name in self._running:
            shutil.copy2(os.path.join(self.kept, name), os.path.join(UNITS, name))
        systemctl("daemon-reload")
        if self._running:
            systemctl("--quiet", "--no-reload", "enable", *self._running)
            systemctl("start", *self._running)

    def clean(self) -> None:
        """Remove all of the component."""
        self._remove()
        systemctl("daemon-reload")

    def _remove(self) -> None:
        names = self._unit_files()
        if names:
            systemctl("stop", *names)
            systemctl("--quiet", "--no-reload", "disable", *names)
            for name in names:
                os.unlink(os.path.join(UNITS, name))
        shutil.rmtree(self.root, ignore_errors=True)

    def _unit_files(self) -> list[str]:
        return [name for name in os.listdir(UNITS) if self.job["prefix"] in name and "." in name]

    # --- what must hold

    def check_whole(self, damaged: bool = False) -> None:
        """At every moment: the old release or the new one, whole, and every release that has its name is whole.

        `damaged`: files that were damaged before may still be.
        """
        current = self.root + "/current"
        active = os.path.basename(os.readlink(current)) if os.path.islink(current) else None
        assert active in self.job["allowed"], f"{active} is active"
        assert active or not os.path.lexists(current)
        for release in listing(self.root + "/releases"):
            found = digests(os.path.join(self.root, "releases", release))
            if damaged:
                found = self._mended(release, found)
            assert found == self.job["releases"][release], f"{release} is not whole: {sorted(found)}"
        self.journal()

    def damage(self) -> None:
        """Change files of a release, as somebody might."""
        hurt = self.job.get("damage", {"files": {}})
        for path, text in hurt["files"].items():
            with open(os.path.join(self.root, "releases", hurt["release"], path), "w") as stream:
                stream.write(text)

    def _mended(self, release: str, found: dict[str, str]) -> dict[str, str]:
        """What was found, with each file that is damaged just as it was before taken for a good one."""
        hurt = self.job.get("damage", {"release": None})
        if release != hurt["release"]:
            return found
        before = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in hurt["files"].items()}
        whole = self.job["releases"][release]
        return {path: whole[path] if before.get(path) == digest else digest for path, digest in found.items()}

    def journal(self) -> list[dict[str, Any]]:
        """Every line that was ended is an entry."""
        if not os.path.exists(self.root + "/.convoy/journal.jsonl"):
            return []
        with open(self.root + "/.convoy/journal.jsonl") as stream:
            return [json.loads(line) for line in stream.read().split("\n")[:-1]]

    def check_settled(self) -> None:
        """Once a call came to its end: one release, what the journal says, what runs, and nothing else."""
        self.check_whole()
        wanted = self.job["ends"]
        current = self.root + "/current"
        assert (os.path.basename(os.readlink(current)) if os.path.lexists(current) else None) == wanted["active"]
        standing = {}
        for entry in self.journal():
            standing[entry["release"]] = entry["event"]
        there = {release for release, event in standing.items() if event != "removed"}
        assert there == set(listing(self.root + "/releases")), standing
        assert there == {name[: -len(".json")] for name in listing(self.root + "/.convoy/releases")}
        for release, event in wanted["standing"].items():
            assert standing.get(release) in event.split(" or "), (release, standing)
        assert listing(self.root + "/.convoy/incoming") == []
        assert {*listing(self.root)} <= {".convoy", "current", "releases", "shared"}, listing(self.root)
        assert sorted(self._unit_files()) == sorted(wanted["units"]), self._unit_files()
        for unit in wanted["units"]:
            pid = subprocess.check_output(["systemctl", "show", "-P", "MainPID", unit], text=True).strip()
            where = os.readlink(f"/proc/{pid}/cwd")
            assert where == os.path.join(self.root, "releases", wanted["active"]), (unit, where)
        info, _came = self.call("release_info", {**self.job["asked"], "verify": True})
        assert not info.get("failed"), info
        assert info["problems"] == [], info["problems"]


def systemctl(*arguments: str) -> None:
    """Ask systemd, whatever it says."""
    subprocess.run(["systemctl", *arguments], stderr=subprocess.DEVNULL, check=False)


def listing(directory: str) -> list[str]:
    """What is in a directory; nothing in one that is not there."""
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def digests(directory: str) -> dict[str, str]:
    """All that is in a directory: files by their digest."""
    found = {}
    for parent, _directories, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                found[os.path.relpath(path, directory)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def trial(component: Component, kill: list[Any]) -> str | None:
    """Kill once, look, make the same calls again, look; what did not hold."""
    component.put_back()
    try:
        component.calls(component.job["calls"], kill)
        return "it was not killed: the moment never came"
    except KilledError:
        pass
    except AssertionError as error:
        return f"ended before: {error}"
    try:
        component.check_whole(damaged=True)
    except (AssertionError, OSError, ValueError) as error:
        return f"after the kill: {error or traceback.format_exc()}"
    try:
        component.calls(component.job["calls"])
        component.check_settled()
    except (AssertionError, OSError, ValueError) as error:
        return f"after the same calls again: {error or traceback.format_exc()}"
    return None


def chosen(came: list[list[Any]], job: dict[str, Any]) -> Iterator[list[Any]]:
    """Which moments to kill at: those of each name in turn, as often as is asked for."""
    by_name: dict[str, list[list[Any]]] = {}
    for moment in came:
        by_name.setdefault(moment[1], []).append(moment)
    for name, places in by_name.items():
        for number in range(job["times"].get(name, job["otherwise"])):
            yield places[number % len(places)]


def main() -> None:
    """The moments that there are and, with `times`, what was found at them."""
    job = json.load(sys.stdin)
    component = Component(job)
    component.clean()
    began = time.monotonic()
    for call in job["before"]:
        component.calls([call])
    component.damage()
    component.keep()
    came = component.calls(job["calls"])
    component.check_settled()
    trials, faults = 0, []
    for kill in chosen(came, job):
        trials += 1
        fault = trial(component, kill)
        if fault:
            faults.append(f"{kill[1]} (the {kill[2]}. of call {kill[0]}): {fault}")
    component.clean()
    shutil.rmtree(component.kept)
    seconds = time.monotonic() - began
    json.dump({"came": came, "trials": trials, "faults": faults, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
