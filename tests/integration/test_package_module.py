# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind package on a real host: its apt, its dpkg, a signed repository, and what goes wrong with them."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hardening.moments import named_in

from .on_host import OnHost
from .payload import PLUGINS, modules
from .repository import CLOSE, CONFIG, LIBRARY, OPEN, PACKAGE, PORT, REMOVE, TAKE_DOWN, UNIT, make, serve

HOST = "app1"
ROOT = "/srv/convoy-test-package"
OLD, STRICT, NEW, ILL, BROKEN, UNMET = "1.0-1~rc1", "1:1.0-1", "1:1.1-1", "1:1.2-1", "1:1.3-1", "1:1.4-1"
CLEAN = f"{REMOVE}\nsystemctl stop 'convoy-confirm-convoy-test*'; rm -rf {ROOT} /etc/systemd/system/convoy-*test*; true"
INSTALLED = "dpkg-query -W -f='${db:Status-Want} ${db:Status-Status} ${Version}' "
ASK = f"python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{PORT}/').read().decode())\""

SERVED = "/usr/lib/convoy-test-hello/server.py"
# The steps that are of packages alone.
STEPS = ("adopted", "fetched", "repaired", "installed")


def release(version: str) -> str:
    """An id as the controller would make it."""
    return version.replace(":", "_").replace("~", "_") + "-abc"


class Component(OnHost):
    """A package as a component of one host."""

    def __init__(self, fleet: Any) -> None:
        super().__init__(fleet, HOST, ROOT, PORT)

    def stage(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Bring a version beside what is installed."""
        known = {"release": release(version), "version": version, "package": {"name": PACKAGE, "lock_timeout": 20}}
        return {"changed": None} | self.call("staged", **{**known, "units": [{"name": UNIT}], **arguments})

    def activate(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Take a staged version into service."""
        return self.call("active", release=release(version), **arguments)

    def deploy(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Stage and activate; the activation's result."""
        staged = self.stage(version)
        assert not staged["failed"], staged.get("msg")
        return self.activate(version, **arguments)

    def info(self) -> dict[str, Any]:
        """Call the module release_info."""
        return self.run("release_info", {"verify": True})

    def findings(self) -> list[tuple[str, str]]:
        """Call the module drift_info; what differs."""
        told = self.run("drift_info", {})
        assert told["incomplete"] is None, told
        return [(finding["what"], finding["name"]) for finding in told["findings"]]

    def installed(self, package: str = PACKAGE) -> str:
        """A package in dpkg's words."""
        return self.shell(f"{INSTALLED} {package} 2>/dev/null || true")

    def check_serving(self, version: str) -> None:
        """dpkg, the process and `current` say the same."""
        info = self.info()
        assert info["problems"] == []
        assert self.findings() == []
        assert (info["active"], info["version"], info["kind"]) == (release(version), version, "package")
        assert self.installed() == f"hold installed {version}"
        assert json.loads(self.shell(ASK))["version"] == version
        assert self.shell(f"ls -A {ROOT}/.convoy/incoming; ls -d /var/cache/apt/convoy-* 2>/dev/null || true") == ""

    def kill_in_the_middle(self, version: str, script: str) -> None:
        """Kill the module, apt and dpkg, as a power cut does, while a script of the package runs."""
        self.shell(f"touch /run/convoy-test-slow-{script}")
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(self.activate, version)
            self._kill(script)
            assert isinstance(killed.exception(), AssertionError)  # the shell around it was killed too
        self.shell(f"rm /run/convoy-test-slow-{script}")

    def _kill(self, script: str) -> None:
        deadline = time.monotonic() + 120
        while not re.search(rf"/bin/sh /var/lib/dpkg/\S+{script} ", self.shell("ps -eo args")):
            assert time.monotonic() < deadline
        self.shell("pkill -9 -f '[c]onvoy-test-modules.zip'; pkill -9 apt-get; pkill -9 dpkg; pkill -9 -x sleep; true")


@pytest.fixture(scope="module")
def prepared(fleet: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A host with the modules on it, which can reach the repository."""
    directory = tmp_path_factory.mktemp("packages") / "repository"
    directory.mkdir()
    fleet.shell(HOST, "base64 -d > /run/convoy-test-modules.zip", base64.b64encode(modules()).decode())
    serve(fleet, HOST, make(directory))
    yield fleet
    fleet.shell(HOST, CLOSE + TAKE_DOWN + "\nrm -f /run/convoy-test-*")


@pytest.fixture
def component(prepared: Any) -> Iterator[Component]:
    """A host that has the repository, and not the package."""
    prepared.shell(HOST, OPEN + CLEAN)
    yield Component(prepared)
    prepared.shell(HOST, CLEAN)


def test_the_whole_road_and_back_without_a_repository(component: Component) -> None:
    staged = component.stage(OLD)
    assert (staged["failed"], staged.get("changed")) == (False, True), staged
    assert component.installed() == ""
    assert component.stage(OLD)["changed"] is False
    first = component.activate(OLD)
    assert (first["failed"], first["changed"], first["active"]) == (False, True, release(OLD)), first
    component.check_serving(OLD)
    staged = component.stage(NEW)
    assert (staged["failed"], staged["changed"]) == (False, True), staged
    assert component.installed() == f"hold installed {OLD}"
    component.shell(CLOSE)
    second = component.activate(NEW)
    assert (second["active"], second["previous"]) == (release(NEW), release(OLD)), second
    component.check_serving(NEW)
    pid = component.info()["process"][UNIT]["pid"]
    assert component.activate(NEW)["changed"] is False
    assert component.info()["process"][UNIT]["pid"] == pid
    back = component.call("reverted", rollout="r-2", token=2)
    assert (back["failed"], back["changed"], back["active"]) == (False, True, release(OLD)), back
    component.check_serving(OLD)


def test_ill_version_goes_back(component: Component) -> None:
    component.deploy(OLD)
    result = component.deploy(ILL)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, release(OLD)), result
    assert result["gate"]["verdict"] == "fail"
    assert result["msg"].endswith(f"{release(OLD)} is active again")
    component.check_serving(OLD)


def test_version_whose_installation_fails_goes_back(component: Component) -> None:
    component.deploy(OLD)
    result = component.deploy(BROKEN)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, release(OLD)), result
    assert "apt-get could not install it" in result["msg"]
    component.check_serving(OLD)


def test_first_version_that_fails_leaves_nothing(component: Component) -> None:
    result = component.deploy(ILL)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, None), result
    assert "config-files" in component.installed()
    assert component.shell(f"systemctl show -P ActiveState {UNIT}") == "inactive"


@pytest.mark.long
def test_what_was_installed_before_is_gone_back_to(component: Component) -> None:
    component.shell(
        f"apt-get -qq update && apt-get -qq install -y {PACKAGE}={OLD} {LIBRARY}=1 && systemctl start {UNIT}"
    )
    result = component.deploy(ILL)
    assert (result["failed"], result["active"]) == (True, "1.0-1_rc1-found"), result
    assert component.installed() == f"install installed {OLD}"
    assert json.loads(component.shell(ASK))["version"] == OLD
    assert component.deploy(NEW)["previous"] == "1.0-1_rc1-found"
    assert component.call("reverted", rollout="r-2", token=2)["active"] == "1.0-1_rc1-found"
    assert component.installed() == f"install installed {OLD}"


def test_without_a_way_back_nothing_is_staged(component: Component) -> None:
    """It was installed by hand, and its version is in no repository."""
    component.shell(f"apt-get -qq update && apt-get -qq install -y {PACKAGE}={OLD}")
    component.shell(f"sed -i 's/^Version: {OLD}$/Version: 0.9-1/' /var/lib/dpkg/status")
    result = component.stage(NEW)
    assert result["failed"] is True
    assert "0.9-1 is installed here, not by Convoy, and there would be no way back" in result["msg"]
    assert component.info()["active"] is None


def test_dependencies_stay_on_the_way_back_and_count_as_automatic(component: Component) -> None:
    component.shell(f"apt-get -qq update && apt-get -qq install -y {LIBRARY}=1 && apt-mark auto {LIBRARY}")
    component.deploy(OLD)
    component.deploy(NEW)
    assert component.installed(LIBRARY) == "install installed 2"
    assert component.shell(f"apt-mark showauto {LIBRARY}") == LIBRARY
    component.call("reverted", rollout="r-2", token=2)
    assert component.installed(LIBRARY) == "install installed 2"
    component.check_serving(OLD)


@pytest.mark.long
def test_dependencies_go_back_where_the_old_version_cannot_run_with_the_new_ones(component: Component) -> None:
    component.shell(f"apt-get -qq update && apt-get -qq install -y {LIBRARY}=1")
    component.deploy(STRICT)
    component.deploy(NEW)
    assert component.installed(LIBRARY) == "install installed 2"
    component.shell(CLOSE)
    component.call("reverted", rollout="r-2", token=2)
    assert component.installed(LIBRARY) == "install installed 1"
    component.check_serving(STRICT)


@pytest.mark.long
def test_configuration_that_was_changed_on_the_host_stays(component: Component) -> None:
    component.deploy(OLD)
    component.deploy(NEW)
    assert component.shell(f"cat {CONFIG}") == f"brought by {NEW}"
    component.shell(f"echo mine > {CONFIG}")
    component.call("reverted", rollout="r-2", token=2)
    assert component.shell(f"cat {CONFIG}") == "mine"
    component.check_serving(OLD)


@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_killed_in_the_middle_and_run_again(component: Component, script: str) -> None:
    component.deploy(OLD)
    component.stage(NEW)
    component.kill_in_the_middle(NEW, script)
    problems = " ".join(component.info()["problems"])
    assert "did not end" in problems, problems
    result = component.activate(NEW)
    assert (result["failed"], result["active"]) == (False, release(NEW)), result
    assert "had been interrupted" in json.dumps(result["warnings"]), result["warnings"]
    component.check_serving(NEW)


@pytest.mark.long
@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_killed_in_the_middle_and_taken_back(component: Component, script: str) -> None:
    component.deploy(OLD)
    component.stage(NEW)
    component.kill_in_the_middle(NEW, script)
    result = component.call("reverted", release=release(OLD), rollout="r-2", token=2)
    assert (result["failed"], result["active"]) == (False, release(OLD)), result
    component.check_serving(OLD)


def test_every_step_of_packages_is_killed_at() -> None:
    steps = named_in((PLUGINS / "module_utils/package_kind.py").read_text())
    of_all = {"step verified", "before journal good"}
    assert steps - of_all == {f"step {step}" for step in STEPS}


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_after_each_step_and_run_again(component: Component, step: str) -> None:
    if step == "adopted":
        component.shell(
            f"apt-get -qq update && apt-get -qq install -y {PACKAGE}={OLD} {LIBRARY}=1 && systemctl start {UNIT}"
        )
    else:
        component.deploy(OLD)
    if step in ("repaired", "installed"):
        component.stage(NEW)
    if step == "repaired":
        component.kill_in_the_middle(NEW, "postinst")
    component.killed_at = step
    killed = component.activate(NEW) if step in ("repaired", "installed") else component.stage(NEW)
    component.killed_at = ""
    assert killed == {"failed": True} or killed == {"failed": True, "changed": None}
    result = component.deploy(NEW)
    assert (result["failed"], result["active"]) == (False, release(NEW)), result
    assert result["previous"] == ("1.0-1_rc1-found" if step == "adopted" else release(OLD))
    component.check_serving(NEW)


def test_lock_of_another_is_waited_for_and_then_named(component: Component) -> None:
    component.deploy(OLD)
    component.stage(NEW, package={"name": PACKAGE, "lock_timeout": 3})
    lock = "f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold = f"import fcntl, time; {lock}; time.sleep({{}})"
    component.shell(f'systemd-run --quiet --collect --unit convoy-test-lock python3 -c "{hold.format(60)}"; sleep 1')
    result = component.activate(NEW)
    assert result["failed"] is True
    assert "being changed by process" in result["msg"]
    assert "(python3), which has /var/lib/dpkg/lock-frontend, and still were after 3 s" in result["msg"]
    component.shell("systemctl stop convoy-test-lock")
    component.check_serving(OLD)
    component.shell(f'systemd-run --quiet --collect --unit convoy-test-lock python3 -c "{hold.format(2)}"; sleep 1')
    assert component.activate(NEW)["active"] == release(NEW)
    component.check_serving(NEW)


def test_unconfirmed_version_is_taken_back_by_the_host(component: Component) -> None:
    component.deploy(OLD)
    component.deploy(NEW, confirm_within=3)
    component.shell(CLOSE)
    deadline = time.monotonic() + 120
    while component.info()["active"] != release(OLD) or component.info()["problems"]:
        assert time.monotonic() < deadline, component.info()
        time.sleep(0.5)
    component.check_serving(OLD)


def test_drift_is_named_and_mended(component: Component) -> None:
    component.deploy(OLD)
    component.deploy(NEW)
    component.shell(f"apt-get -qq install -y --allow-change-held-packages --allow-downgrades {PACKAGE}={ILL}")
    assert f"package {PACKAGE} is {ILL} here, the active release has {NEW}" in component.info()["problems"]
    assert component.activate(NEW)["changed"] is True
    component.check_serving(NEW)
    component.shell(f"apt-mark unhold {PACKAGE}")
    assert any("not held any more" in problem for problem in component.info()["problems"])
    assert component.activate(NEW)["changed"] is True
    component.shell("echo '# changed' >> /usr/lib/convoy-test-hello/server.py")
    told = component.info()["problems"]
    assert f"/usr/lib/convoy-test-hello/server.py is not as package {PACKAGE} brought it" in told
    component.shell(
        f"sleep 2; apt-get -qq install -y --reinstall --allow-change-held-packages {PACKAGE}={NEW}; "
        f"apt-mark hold {PACKAGE}"
    )
    assert any("older than the files" in problem for problem in component.info()["problems"])


def test_what_was_changed_of_a_package_is_found_and_repaired(component: Component) -> None:
    component.deploy(OLD)
    component.deploy(NEW)
    component.check_serving(NEW)
    component.shell(f"apt-mark unhold {PACKAGE}; echo '# changed' >> {SERVED}; echo mine > {CONFIG}")
    assert component.findings() == [("package", PACKAGE), ("file", SERVED)]
    component.shell(f"truncate -s 9 {ROOT}/current/archives/{PACKAGE}_*.deb")
    *_others, (what, name) = component.findings()
    assert (what, name.partition("_")[0]) == ("file", f"archives/{PACKAGE}")
    refused = component.stage(NEW)
    assert refused["failed"] is True
    assert "mend it with repair.yml" in refused["msg"], refused["msg"]
    pid = component.info()["process"][UNIT]["pid"]
    staged = component.stage(NEW, mend=True)
    assert (staged["failed"], staged["changed"]) == (False, True), staged
    assert component.info()["process"][UNIT]["pid"] == pid
    component.shell(CLOSE)
    result = component.activate(NEW, mend=True)
    assert (result["failed"], result["active"], result["previous"]) == (False, release(NEW), release(OLD)), result
    component.check_serving(NEW)
    assert component.shell(f"grep -c changed {SERVED} || true") == "0"
    assert component.shell(f"cat {CONFIG}") == "mine"


def test_what_no_repository_has_is_refused_with_what_there_is(component: Component) -> None:
    for version, asked, said in (
        ("9.9", {}, f"no repository of this host has version '9.9' of {PACKAGE}; there is {UNMET}, {BROKEN}"),
        (
            NEW,
            {"package": {"name": "convoy-test-nobody"}},
            "no repository of this host has a package 'convoy-test-nobody'",
        ),
        (UNMET, {}, "Depends: convoy-test-nowhere but it is not installable"),
    ):
        result = component.stage(version, **asked)
        assert result["failed"] is True
        assert said in result["msg"], result["msg"]
    assert component.installed() == ""
    assert component.shell(f"ls {ROOT}/releases") == ""


def test_package_that_is_not_what_was_signed_is_refused(component: Component, prepared: Any, tmp_path: Path) -> None:
    place = f"/srv/convoy-test-repository/{PACKAGE}_1.1-1_all.deb"
    component.shell(f"apt-get -qq update; cp {place} /root/convoy-test-kept; printf x >> {place}")
    result = component.stage(NEW)
    component.shell(f"mv /root/convoy-test-kept {place}")
    assert result["failed"] is True
    assert "could not be fetched" in result["msg"], result["msg"]
    assert component.installed() == ""
