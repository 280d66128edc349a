# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules release and release_info as Ansible calls them: arguments in, one JSON document out."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.convoy.rollout.plugins.module_utils import calls
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.modules import release, release_info


class Caller:
    """Calls the modules on the host of a world."""

    def __init__(self, world: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = world
        self.capsys = capsys

    def call(self, module: Any, **arguments: Any) -> dict[str, Any]:
        """The result; RV(failed) is always in it."""
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return {"failed": False, **result}

    def release(self, state: str, version: str | None = None, /, **arguments: Any) -> dict[str, Any]:
        """Call the module release, with what every call needs."""
        known = {"component": "hello", "root": str(self.world.root), "rollout": "r-1", "token": 1}
        if version is not None:
            known["release"] = f"{version}-abc"
        if state in ("active", "reverted"):
            known.update(probes=[self.world.probe], gate={"deadline": 3.0})
        return self.call(release, **{**known, "state": state, **arguments})

    def stage(self, version: str, /, artifact: bool = True, **arguments: Any) -> dict[str, Any]:
        """Call it with a manifest, as the controller does."""
        wanted, path = self.world.wanted(version)
        manifest = {
            "artifact": wanted.artifact._asdict(),
            "files": [
                {"path": entry.path, "size": entry.size, "mode": f"{entry.mode:04o}", "sha256": entry.sha256}
                for entry in wanted.files
            ],
        }
        units = [{"name": unit.name, "content": unit.content} for unit in wanted.units]
        given = {"version": version, "manifest": manifest, "units": units, **({"artifact": path} if artifact else {})}
        return self.release("staged", version, **{**given, **arguments})

    def info(self, **arguments: Any) -> dict[str, Any]:
        """Call the module release_info."""
        return self.call(release_info, **{"component": "hello", "root": str(self.world.root), **arguments})


@pytest.fixture
def caller(world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Both modules, on a host in a directory."""
    for module in (calls.release, calls.release_info):
        monkeypatch.setattr(module, "Host", functools.partial(Host, unit_directory=str(world.units)))
        monkeypatch.setattr(module, "Systemd", lambda: world.supervisor)
        monkeypatch.setattr(module, "Clock", lambda: world.clock)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    handler = signal.getsignal(signal.SIGHUP)
    yield Caller(world, capsys)
    signal.signal(signal.SIGHUP, handler)


def test_the_whole_road(caller: Caller) -> None:
    asked = caller.stage("1.0.0", artifact=False)
    assert (asked["changed"], asked["artifact_needed"]) == (False, True)
    staged = caller.stage("1.0.0")
    assert (staged["changed"], staged["artifact_needed"]) == (True, False)
    assert [step["step"] for step in staged["steps"]] == ["begun", "unpacked", "configured", "synced", "staged"]
    again = caller.stage("1.0.0", artifact=False)
    assert (again["changed"], again["artifact_needed"]) == (False, False)
    active = caller.release("active", "1.0.0")
    assert (active["changed"], active["active"]) == (True, "1.0.0-abc")
    assert caller.release("active", "1.0.0")["changed"] is False
    caller.stage("1.1.0")
    assert caller.release("active", "1.1.0", confirm_within=60)["previous"] == "1.0.0-abc"
    assert caller.info()["unconfirmed"]["release"] == "1.1.0-abc"
    assert caller.release("confirmed", "1.1.0")["changed"] is True
    reverted = caller.release("reverted", rollout="r-2")
    assert (reverted["active"], reverted["reverted"]) == ("1.0.0-abc", True)
    caller.stage("1.2.0")
    caller.stage("1.3.0")
    assert caller.release("absent", "1.2.0")["changed"] is True
    assert caller.release("absent", "1.2.0")["changed"] is False
    assert caller.info()["staged"] == ["1.0.0-abc", "1.1.0-abc", "1.3.0-abc"]


def test_the_road_of_a_release_that_tasks_put_in_place(caller: Caller) -> None:
    gated = {"probes": [caller.world.probe], "gate": {"deadline": 3.0}}
    caller.stage("1.0.0", tasks={})
    assert caller.release("begun", "1.0.0", **gated, _ansible_check_mode=True)["tasks"]["run"] is True
    begun = caller.release("begun", "1.0.0", **gated)
    assert (begun["changed"], begun["tasks"]["run"]) == (True, True)
    assert caller.info()["unsettled"] == {"release": "1.0.0-abc", "is_known": False}
    assert caller.release("settled", "1.0.0", _ansible_check_mode=True)["changed"] is True
    settled = caller.release("settled", "1.0.0", tasks={"written": begun["tasks"]["written"]})
    assert (settled["failed"], settled["gate"]["verdict"]) == (False, "pass")
    info = caller.info()
    assert (info["kind"], info["unsettled"], info["problems"]) == ("tasks", None, [])
    assert caller.release("begun", "1.0.0", **gated)["tasks"]["begun"] is False

    caller.stage("1.1.0", tasks={})
    caller.release("begun", "1.1.0", **gated)
    held = caller.release("begun", "1.1.0", **gated, tasks={"in_doubt": "hold"})
    assert "it is not known whether they are done; nothing was changed" in held["msg"]
    (problem,) = caller.info()["problems"][:1]
    assert "were begun, and it is not known whether they are done" in problem
    caller.release("begun", "1.1.0", **gated)
    failed = caller.release("settled", "1.1.0", tasks={"failure": "no licence"})
    assert (failed["failed"], failed["active"], failed["tasks"]["begun"]) == (True, "1.1.0-abc", True)
    back = caller.release("begun", "1.0.0", **gated, tasks={"back": True})
    assert caller.release("settled", "1.0.0", tasks={"back": True})["active"] == "1.0.0-abc"
    assert back["tasks"]["previous"]["version"] == "1.1.0"


def test_tasks_refuse_what_a_host_cannot_do_alone(caller: Caller) -> None:
    caller.stage("1.0.0", tasks={})
    gated = {"probes": [caller.world.probe]}
    refused = caller.release("begun", "1.0.0", **gated, confirm_within=60)
    assert "confirm_within is 60: a host cannot take a release back by itself" in refused["msg"]
    assert "call state=begun, run them, and call state=settled" in caller.release("active", "1.0.0")["msg"]
    assert caller.world.current is None
    assert "has no content: only a package, or tasks" in caller.stage("1.1.0", units=[{"name": "a.service"}])["msg"]
    assert caller.stage("1.1.0", units=[{"name": "a.service"}], tasks={})["failed"] is False


def test_check_mode_foresees_and_changes_nothing(caller: Caller) -> None:
    check = {"_ansible_check_mode": True}
    assert caller.stage("1.0.0", artifact=False, **check)["artifact_needed"] is True
    assert not caller.world.root.exists()
    assert caller.release("active", "1.0.0", **check)["changed"] is True
    caller.stage("1.0.0")
    assert caller.stage("1.0.0", **check)["changed"] is False
    caller.release("active", "1.0.0")
    before = caller.world.journal()
    for state in ("active", "confirmed", "absent"):
        caller.release(state, "1.0.0", **check)
    assert caller.world.journal() == before


def test_verify_only(caller: Caller) -> None:
    missing = caller.release("staged", "1.0.0", verify_only=True)
    assert missing["failed"] is True
    assert "is not on this host" in missing["msg"]
    caller.stage("1.0.0")
    assert caller.release("staged", "1.0.0", verify_only=True)["changed"] is False
    (caller.world.root / "releases" / "1.0.0-abc" / "version").write_text("9.9.9")
    assert caller.release("staged", "1.0.0", verify_only=True)["faults"] == ["version: other content than recorded"]


def test_failed_activation_tells_what_is_active(caller: Caller) -> None:
    caller.stage("1.0.0")
    caller.release("active", "1.0.0")
    caller.stage("1.1.0")
    failed = caller.release("active", "1.1.0", probes=[{"kind": "command", "argv": ["false"]}])
    assert failed["failed"] is True
    assert (failed["reverted"], failed["active"], failed["changed"]) == (True, "1.0.0-abc", True)
    assert (failed["gate"]["verdict"], failed["gate_after"]["verdict"]) == ("fail", "pass")
    assert failed["log"] == ["hello.service said goodbye"]
    assert [step["step"] for step in failed["steps"]].count("switched") == 2


def test_stale_token(caller: Caller) -> None:
    caller.stage("1.0.0", token=7, rollout="r-7")
    for state in ("active", "reverted", "absent", "confirmed"):
        refused = caller.release(state, "1.0.0", token=6)
        assert (refused["failed"], refused["stale_token"], refused["highest"]) == (True, True, 7)
        assert caller.release(state, "1.0.0", token=6, _ansible_check_mode=True)["stale_token"] is True
    assert caller.world.events() == ["staged 1.0.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"component": "../x"}, "component '../x' is not a name"),
        ({"root": "/"}, "root '/' must be an absolute path"),
        ({"release": "../x"}, "release '../x' is not an id"),
        ({"rollout": "a b"}, "rollout 'a b' is not an id"),
        ({"keep": 0}, "keep is 0: must be 1 or more"),
        ({"token": -1}, "token is -1: must be 0 or more"),
        ({"confirm_within": -1}, "confirm_within is -1: must be 0 or more"),
        ({"units": [{"name": "../x.service", "content": ""}]}, "unit '../x.service' is not the name"),
        ({"config": [{"dest": "../x", "content": ""}]}, "config file '../x': the path leads upwards"),
        ({"manifest": {}}, "the manifest must have a mapping 'artifact'"),
        ({"manifest": None}, "needs manifest and version"),
        ({"version": ""}, "needs manifest and version"),
    ],
)
def test_values_that_cannot_be_right(caller: Caller, arguments: dict[str, Any], message: str) -> None:
    refused = caller.stage("1.0.0", **arguments)
    assert refused["failed"] is True
    assert message in refused["msg"]
    assert not (caller.world.root / "releases" / "1.0.0-abc").exists()


def test_release_is_needed(caller: Caller) -> None:
    for state in ("staged", "active", "confirmed", "absent"):
        assert "release" in caller.release(state)["msg"]


@pytest.mark.parametrize("module", ["release", "info"])
def test_without_root_nothing_is_tried(caller: Caller, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = caller.info() if module == "info" else caller.stage("1.0.0")
    assert refused["failed"] is True
    assert "needs root on the host: run it with become: true" in refused["msg"]
    assert not caller.world.root.exists()


def test_host_that_convoy_never_saw(caller: Caller) -> None:
    assert caller.release("reverted")["changed"] is False
    assert caller.release("absent", "1.0.0")["changed"] is False
    for state in ("confirmed", "reverted"):
        assert "nothing was ever deployed" in caller.release(state, "1.0.0")["msg"]
    assert not caller.world.root.exists()
    assert caller.info()["present"] is False


def test_second_call_at_once_is_refused(caller: Caller) -> None:
    caller.stage("1.0.0")
    host = caller.world.host()
    with host.tree.lock(caller.world.clock, 0, "state=active of rollout r-9"):
        refused = caller.release("active", "1.0.0", lock_timeout=0)
    assert (refused["failed"], refused["locked"]) == (True, True)
    assert "rollout r-9" in refused["msg"]


def test_error_of_the_system_is_told_in_a_sentence(caller: Caller) -> None:
    caller.world.root.parent.mkdir()
    caller.world.root.write_text("")
    assert "is not a directory" in caller.stage("1.0.0")["msg"]


def test_result_repeats_no_content(caller: Caller) -> None:
    result = caller.stage("1.0.0", config=[{"dest": "secret.ini", "content": "password = hunter2"}])
    assert result["failed"] is False
    assert "hunter2" not in json.dumps(result)
    assert "manifest" not in result.get("invocation", {}).get("module_args", {})


def test_connection_that_hangs_up_stops_nothing(caller: Caller) -> None:
    caller.stage("1.0.0")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("module", [release, release_info])
def test_what_is_returned_is_documented(caller: Caller, module: Any) -> None:
    documented = set(re.findall(r"^(\w+):$", module.RETURN, re.MULTILINE))
    caller.stage("1.0.0")
    results = [caller.info()] if module is release_info else [caller.stage("1.0.0"), caller.release("active", "1.0.0")]
    for result in results:
        assert set(result) - {"changed", "failed", "invocation"} <= documented


def test_health_of_the_active_release(caller: Caller) -> None:
    caller.stage("1.0.0")
    caller.release("active", "1.0.0")
    info = caller.info(probes=[caller.world.probe])
    assert info["health"]["verdict"] == "pass"
    assert (info["token"], info["problems"]) == (1, [])
    assert info["free_bytes"] > 0
    assert "kind" in caller.info(probes=[{"kind": "telepathy"}])["msg"]
