# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release on its way to a host, over the real module: how many calls and bytes it takes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.convoy.rollout.plugins.module_utils import record
from ansible_collections.convoy.rollout.plugins.module_utils.calls import release, release_info
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.plugin_utils.bringing import Bringing
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest, parse_time
from ansible_collections.convoy.rollout.plugins.plugin_utils.transfer import Transfer, held_of
from ansible_collections.convoy.rollout.tests.unit.plugins.release_world import World

BIG = {"big": os.urandom(50_000)}


class Road:
    """A controller with a depot, and a host whose module it calls."""

    def __init__(self, world: World, place: Path) -> None:
        self.world, self.place = world, place
        self.sent: list[int] = []
        self.url = ""

    def call(self, arguments: Mapping[str, Any], file: str | None) -> dict[str, Any]:
        self.sent.append(Path(file).stat().st_size if file else 0)
        checked = ArgumentSpecValidator(release.arguments()).validate(dict(arguments))
        assert not checked.error_messages, checked.error_messages
        return release.run({**checked.validated_parameters, "artifact": file}, False)

    def bring(
        self, version: str, how: str, lacking: bool | None = None, config: str = "", **files: bytes
    ) -> dict[str, Any]:
        """The result of bringing a version; `lacking`: what is known of the host, None for nothing at all."""
        wanted, artifact = self.world.wanted(version, {**BIG, **files}, units=())
        entries = tuple(sorted(wanted.files, key=lambda entry: entry.path))
        described = Artifact(*wanted.artifact)
        manifest = Manifest("hello", version, 1, parse_time("", "2026-01-01T00:00:00Z"), described, entries)
        published = self.place / version / "manifest.json"
        published.parent.mkdir(exist_ok=True)
        published.write_bytes(manifest.to_json())
        rendered = [{"dest": config, "content": "configured"}] if config else []
        tag = hashlib.sha256(f"{wanted.artifact.sha256}{config}".encode()).hexdigest()[:6]
        arguments = {
            "component": "hello", "root": str(self.world.root), "state": "staged", "release": f"{version}-{tag}",
            "version": version, "token": 1, "manifest": manifest.for_host(), "config": rendered, "url": self.url,
        }  # fmt: skip
        self.sent.clear()
        bringing = Bringing(self.call, arguments, artifact, manifest, published, self.place)
        result = bringing.bring(Transfer(how), bool(lacking), self.held() if lacking is not None else [])
        assert result["transfer"]["calls"] == len(self.sent)
        if not result.get("failed"):
            assert sum(self.sent) == (0 if result["transfer"]["way"] == "pull" else result["transfer"]["bytes"])
            there = record.survey(str(self.world.root / "releases" / arguments["release"]))
            assert {entry.path: entry.sha256 for entry in there if entry.path != config} == {
                entry.path: entry.sha256 for entry in entries if entry.path != config
            }
            assert os.listdir(self.world.host().tree.incoming) == []
        return result

    def held(self) -> Any:
        """What a road has read of the host."""
        asked = ArgumentSpecValidator(release_info.arguments()).validate(
            {"component": "hello", "root": str(self.world.root)}
        )
        read = release_info.run(asked.validated_parameters, False)
        return held_of(read["releases"])

    def activate(self, result: Mapping[str, Any]) -> None:
        """Let the host say that this release was good."""
        self.world.host().note("good", result["release"])
        link = self.world.root / "current"
        link.symlink_to(f"releases/{result['release']}")


@pytest.fixture
def road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """The road to an empty host."""
    world = World(tmp_path)
    for module in (release, release_info):
        monkeypatch.setattr(module, "Host", functools.partial(Host, unit_directory=str(world.units)))
        monkeypatch.setattr(module, "Systemd", lambda: world.supervisor)
        monkeypatch.setattr(module, "Clock", lambda: world.clock)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "depot").mkdir()
    handler = signal.getsignal(signal.SIGHUP)
    yield Road(world, tmp_path / "depot")
    signal.signal(signal.SIGHUP, handler)


@pytest.fixture
def running(road: Road) -> Road:
    """The road to a host that runs 1.0.0."""
    road.activate(road.bring("1.0.0", "push", True))
    return road


@pytest.mark.parametrize(("lacking", "calls_made"), [(True, 1), (False, 2), (None, 2)])
@pytest.mark.parametrize("how", ["push", "delta"])
def test_a_first_release(road: Road, how: str, lacking: bool | None, calls_made: int) -> None:
    told = road.bring("1.0.0", how, lacking)["transfer"]
    assert (told["way"], told["calls"], told["fallback"]) == ("whole", calls_made, None)
    again = road.bring("1.0.0", how)["transfer"]
    assert (again["way"], again["calls"], again["bytes"]) == ("none", 1, 0)


@pytest.mark.parametrize(("lacking", "calls_made"), [(True, 1), (False, 2), (None, 2)])
def test_a_delta(running: Road, lacking: bool | None, calls_made: int) -> None:
    told = running.bring("1.1.0", "delta", lacking)["transfer"]
    assert (told["way"], told["calls"], told["reused"]) == ("delta", calls_made, 50_000)
    assert told["base"].startswith("1.0.0-")
    assert told["bytes"] < 1000


@pytest.mark.parametrize("manifest", [None, b"{}", b"other"])
def test_a_base_of_which_the_depot_knows_nothing(running: Road, manifest: bytes | None) -> None:
    published = running.place / "1.0.0" / "manifest.json"
    if manifest == b"other":
        published.write_bytes(published.read_bytes().replace(b'"sha256":"', b'"sha256":"0')[:-1])
    elif manifest:
        published.write_bytes(manifest)
    else:
        published.unlink()
    told = running.bring("1.1.0", "delta", True)["transfer"]
    assert (told["way"], told["calls"]) == ("delta", 2)


@pytest.mark.parametrize("how", ["push", "delta", "pull"])
def test_the_same_artifact_is_not_sent_again(running: Road, how: str) -> None:
    told = running.bring("1.0.0", how, True, config="etc/hello.ini")["transfer"]
    assert (told["way"], told["calls"], told["reused"]) == ("delta", 1, 50_005)
    assert told["bytes"] < 200


def test_a_file_that_configuration_replaces_now_goes_along(running: Road) -> None:
    told = running.bring("1.0.0", "push", True, config="version")["transfer"]
    assert (told["way"], told["calls"], told["reused"]) == ("delta", 1, 50_000)
    assert (running.world.root / "current" / "version").read_text() == "1.0.0"


def test_a_file_that_configuration_had_replaced(road: Road) -> None:
    road.activate(road.bring("1.0.0", "push", True, config="big"))
    told = road.bring("1.0.0", "push", True)["transfer"]
    assert (told["way"], told["calls"]) == ("whole", 2)
    assert "has no file with the content of 'big'" in told["fallback"]


@pytest.mark.parametrize("lacking", [True, None])
def test_a_damaged_base(running: Road, lacking: bool | None) -> None:
    (running.world.root / "current" / "big").write_bytes(bytes(50_000))
    told = running.bring("1.1.0", "delta", lacking)["transfer"]
    assert (told["way"], told["calls"], told["reused"]) == ("whole", 2 if lacking else 3, 0)
    assert "big: other content than recorded" in told["fallback"]


def test_a_base_that_was_pruned_meanwhile(running: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    running.bring("1.1.0", "delta", True)
    held = running.held()
    base = next(known for known in held if known.version == "1.0.0")
    (running.world.root / "current").unlink()
    running.world.host().tree.discard(base.id)
    monkeypatch.setattr(running, "held", lambda: held)
    told = running.bring("1.2.0", "delta", True)["transfer"]
    assert (told["way"], told["calls"]) == ("whole", 2)
    assert f"release {base.id} is not on this host" in told["fallback"]


def test_little_in_common_goes_whole_at_once(running: Road) -> None:
    told = running.bring("1.1.0", "delta", True, big=os.urandom(50_000))["transfer"]
    assert (told["way"], told["calls"], told["fallback"]) == ("whole", 1, None)


def test_a_strict_host_sees_the_artifact_itself(running: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    call = running.call
    monkeypatch.setattr(running, "call", lambda arguments, file: call({**arguments, "strict": True}, file))
    wrapped = Bringing.bring

    def strictly(self: Bringing, how: Transfer, lacking: bool, held: Any) -> Any:
        self._arguments = {**self._arguments, "strict": True}
        return wrapped(self, how, lacking, held)

    monkeypatch.setattr(Bringing, "bring", strictly)
    assert running.bring("1.1.0", "delta", True)["transfer"]["way"] == "whole"


def test_an_artifact_that_cannot_be_read_here_is_the_hosts_to_refuse(
    running: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that there is one place that says what is wrong with it."""
    wanted = running.world.wanted

    def damaged(version: str, *args: Any, **kwargs: Any) -> Any:
        described, path = wanted(version, *args, **kwargs)
        Path(path).write_bytes(Path(path).read_bytes()[:30_000])
        return described, path

    monkeypatch.setattr(running.world, "wanted", damaged)
    result = running.bring("1.1.0", "delta", True)
    assert result["failed"]
    assert "the artifact has 30000 bytes, the manifest says" in result["msg"]
    assert "ends too early" in result["transfer"]["fallback"]


@pytest.fixture
def web(running: Road) -> Iterator[Road]:
    """The same with a web server for the artifacts."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(running.world.place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.url = f"http://127.0.0.1:{server.server_address[1]}/1.1.0.tar.gz"
        yield running
        server.shutdown()


@pytest.mark.parametrize("lacking", [True, None])
def test_a_host_fetches_in_one_call(web: Road, lacking: bool | None) -> None:
    result = web.bring("1.1.0", "pull", lacking)
    told = result["transfer"]
    assert (told["way"], told["calls"], told["bytes"]) == ("pull", 1, (web.world.place / "1.1.0.tar.gz").stat().st_size)
    assert [step["step"] for step in result["steps"]] == [
        "begun", "fetched", "unpacked", "configured", "synced", "staged",
    ]  # fmt: skip
    web.url = "http://127.0.0.1:1/"
    again = web.bring("1.1.0", "pull")
    assert (again["changed"], again["transfer"]["way"], again["transfer"]["calls"]) == (False, "none", 1)


def test_what_cannot_be_fetched_is_not_sent_instead(web: Road) -> None:
    """What has come stays until a release is staged, however that comes."""
    web.url = web.url.replace("1.1.0", "1.0.0")
    result = web.bring("1.1.0", "pull", True)
    assert result["failed"]
    assert "the manifest says" in result["msg"]
    assert (web.sent, result["transfer"]["way"]) == ([0], "none")
    incoming = web.world.host().tree.incoming
    assert [name[:6] for name in os.listdir(incoming)] == ["fetch."]
    assert web.bring("1.1.0", "push", True)["transfer"]["way"] == "whole"


def test_room_for_what_is_fetched_is_asked_for(web: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "free", lambda _tree: (130_000, None))
    assert "130000 bytes free" in web.bring("1.1.0", "pull", True)["msg"]
    assert web.bring("1.1.0", "push", True)["transfer"]["way"] == "whole"
