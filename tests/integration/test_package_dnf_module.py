# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind package by dnf on a real host: its dnf, its rpm, a repository, and what goes wrong with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from .payload import modules
from .repository import CONFIG, LIBRARY, PACKAGE, UNIT
from .rpm_repository import CLOSE, LOCKS, OPEN, PLACE, REMOVE, TAKE_DOWN, make_and_serve
from .test_package_module import ASK, HOST, ROOT, SERVED, Component, release

OLD, STRICT, NEW, ILL, BROKEN, UNMET = "1.0~rc1-1", "1:1.0-1", "1:1.1-1", "1:1.2-1", "1:1.3-1", "1:1.4-1"
CLEAN = f"{REMOVE}\nsystemctl stop 'convoy-confirm-convoy-test*'; rm -rf {ROOT} /etc/systemd/system/convoy-*test*; true"
BY_DNF = {"name": PACKAGE, "lock_timeout": 20, "manager": "dnf"}
VERSION = "rpm --query --queryformat '%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n' "
INSTALL = f"rpm --upgrade --oldpackage {PLACE}/repository/noarch"


class RpmComponent(Component):
    """A package of rpm as a component of one host, which has apt as well."""

    def stage(self, version: str, **arguments: Any) -> dict[str, Any]:
        """Bring a version beside what is installed."""
        return super().stage(version, **{"package": BY_DNF, **arguments})

    def installed(self, package: str = PACKAGE) -> str:
        """The version of a package in rpm's database."""
        return self.shell(f"{VERSION} {package} | grep -v 'is not installed' || true")

    def locks(self) -> str:
        """The versions that dnf is told to stay on."""
        return self.shell(f"grep ^convoy-test {LOCKS} || true")

    def check_serving(self, version: str) -> None:
        """rpm, the process and `current` say the same."""
        info = self.info()
        assert info["problems"] == []
        assert self.findings() == []
        assert (info["active"], info["version"], info["kind"]) == (release(version), version, "package")
        assert self.installed() == version
        assert self.locks() == f"{PACKAGE}-{version if ':' in version else f'0:{version}'}.*"
        assert json.loads(self.shell(ASK))["version"] == version
        assert self.shell(f"ls -A {ROOT}/.convoy/incoming; ls -d /var/cache/dnf/convoy-* 2>/dev/null || true") == ""


@pytest.fixture(scope="module")
def prepared(fleet: Any) -> Iterator[Any]:
    """A host with the modules and dnf on it, which can reach the repository."""
    fleet.shell(HOST, "base64 -d > /run/convoy-test-modules.zip", base64.b64encode(modules()).decode())
    make_and_serve(fleet, HOST)
    yield fleet
    fleet.shell(HOST, CLOSE + TAKE_DOWN + "\nrm -f /run/convoy-test-*")


@pytest.fixture
def component(prepared: Any) -> Iterator[RpmComponent]:
    """A host that has the repository, and not the package."""
    prepared.shell(HOST, OPEN + CLEAN)
    yield RpmComponent(prepared)
    prepared.shell(HOST, CLEAN)


def test_the_whole_road_and_back_without_a_repository(component: RpmComponent) -> None:
    staged = component.stage(OLD)
    assert (staged["failed"], staged.get("changed")) == (False, True), staged
    assert component.installed() == ""
    assert component.stage(OLD)["changed"] is False
    first = component.activate(OLD)
    assert (first["failed"], first["changed"], first["active"]) == (False, True, release(OLD)), first
    component.check_serving(OLD)
    staged = component.stage(NEW)
    assert (staged["failed"], staged["changed"]) == (False, True), staged
    assert component.installed() == OLD
    component.shell(CLOSE)
    second = component.activate(NEW)
    assert (second["active"], second["previous"]) == (release(NEW), release(OLD)), second
    component.check_serving(NEW)
    component.shell(f"echo mine > {CONFIG}")
    assert component.call("reverted", rollout="r-2", token=2)["active"] == release(OLD)
    component.check_serving(OLD)
    assert component.installed(LIBRARY) == "2-1"
    assert component.shell(f"cat {CONFIG}") == "mine"


def test_dependencies_go_back_where_the_old_version_cannot_run_with_the_new_ones(component: RpmComponent) -> None:
    component.deploy(STRICT)
    component.deploy(NEW)
    assert component.installed(LIBRARY) == "2-1"
    component.shell(CLOSE)
    component.call("reverted", rollout="r-2", token=2)
    assert component.installed(LIBRARY) == "1-1"
    component.check_serving(STRICT)


def test_version_that_is_ill_or_cannot_be_installed_is_taken_back(component: RpmComponent) -> None:
    result = component.deploy(ILL)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, None), result
    assert component.installed() == component.locks() == ""
    component.deploy(OLD)
    result = component.deploy(BROKEN)
    assert (result["failed"], result["reverted"], result["active"]) == (True, True, release(OLD)), result
    assert "rpm could not install it" in result["msg"]
    assert f"%post({PACKAGE}-{BROKEN}.noarch) scriptlet failed, exit status 1" in result["msg"]
    component.check_serving(OLD)


def test_what_was_installed_before_is_gone_back_to(component: RpmComponent) -> None:
    component.shell(f"{INSTALL}/{PACKAGE}-{OLD}.noarch.rpm {PLACE}/repository/noarch/{LIBRARY}-1-1.noarch.rpm")
    component.shell(f"systemctl daemon-reload; systemctl start {UNIT}")
    result = component.deploy(ILL)
    assert (result["failed"], result["active"]) == (True, "1.0_rc1-1-found"), result
    assert (component.installed(), component.locks()) == (OLD, "")
    assert json.loads(component.shell(ASK))["version"] == OLD


def test_drift_is_named_and_mended(component: RpmComponent) -> None:
    component.deploy(OLD)
    component.shell(f"{INSTALL}/{PACKAGE}-1.2-1.noarch.rpm")
    assert f"package {PACKAGE} is {ILL} here, the active release has {OLD}" in component.info()["problems"]
    assert component.activate(OLD)["changed"] is True
    component.check_serving(OLD)
    component.shell(f"sed -i /{PACKAGE}/d {LOCKS}; echo '# changed' >> {SERVED}; echo mine > {CONFIG}")
    assert component.findings() == [("package", PACKAGE), ("file", SERVED)]
    staged = component.stage(OLD, mend=True)
    assert staged["failed"] is False, staged
    component.shell(CLOSE)
    result = component.activate(OLD, mend=True)
    assert (result["failed"], result["active"]) == (False, release(OLD)), result
    component.check_serving(OLD)
    assert component.shell(f"cat {CONFIG}") == "mine"


def test_an_interrupted_installation_leaves_two_versions_and_is_ended_by_the_next(component: RpmComponent) -> None:
    component.deploy(OLD)
    component.deploy(NEW)
    component.shell(f"rpm --install --force --nodeps --justdb {PLACE}/repository/noarch/{PACKAGE}-{OLD}.noarch.rpm")
    assert any("did not end" in problem for problem in component.info()["problems"])
    assert component.activate(NEW)["failed"] is False
    component.check_serving(NEW)


def test_lock_of_another_is_waited_for_and_then_named(component: RpmComponent) -> None:
    component.deploy(OLD)
    component.stage(NEW, package={**BY_DNF, "lock_timeout": 2})
    lock = "f = open('/var/lib/rpm/.rpm.lock', 'a'); fcntl.lockf(f, fcntl.LOCK_EX)"
    hold = f'python3 -c "import fcntl, time; {lock}; time.sleep(60)"'
    component.shell(f"systemd-run --quiet --collect --unit convoy-test-lock {hold}; sleep 1")
    result = component.activate(NEW)
    component.shell("systemctl stop convoy-test-lock")
    assert result["failed"] is True
    assert "(python3), which has /var/lib/rpm/.rpm.lock, and still were after 2 s" in result["msg"], result["msg"]
    component.check_serving(OLD)


def test_what_no_repository_has_is_refused_with_what_there_is(component: RpmComponent) -> None:
    nobody = {**BY_DNF, "name": "convoy-test-nobody"}
    for version, asked, said in (
        ("9-9", BY_DNF, f"no repository of this host has version '9-9' of {PACKAGE}; there is {UNMET}, {BROKEN}"),
        (NEW, nobody, "no repository of this host has a package 'convoy-test-nobody'"),
        (UNMET, BY_DNF, f"nothing provides convoy-test-nowhere needed by {PACKAGE}-{UNMET}.noarch"),
    ):
        result = component.stage(version, package=asked)
        assert result["failed"] is True
        assert said in result["msg"], result["msg"]
    place = f"{PLACE}/repository/noarch/{PACKAGE}-1.1-1.noarch.rpm"
    component.shell(f"cp {place} {PLACE}/kept; printf x | dd of={place} bs=1 seek=2000 conv=notrunc 2>/dev/null")
    result = component.stage(NEW)
    component.shell(f"mv {PLACE}/kept {place}")
    assert result["failed"] is True
    assert f"{PACKAGE}-{NEW}.noarch: Cannot download" in result["msg"], result["msg"]
    assert (component.installed(), component.shell(f"ls {ROOT}/releases")) == ("", "")
