# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What really travels to a host: the bytes that its network card receives, whatever a result says."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import random
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import Rendered, release_id

from .fleet import Fleet

HOST = "app1"
ROOT = "/srv/convoy-transfer"
RECEIVED = "cat /sys/class/net/eth0/statistics/rx_bytes"
FILES = 300
TOTAL = 5_000_000
OVERHEAD = 150_000  # bytes: the connection, the arguments with the manifest, the library where it is not settled yet
CLEAN = f"rm -rf {ROOT}"

Contents = dict[str, bytes]


@dataclass(frozen=True)
class Published:
    """A release in a depot: its artifact, and the arguments that stage it."""

    artifact: Path
    contents: Contents
    arguments: dict[str, Any]

    @property
    def size(self) -> int:
        return self.artifact.stat().st_size


class Depot:
    """A directory laid out as a depot is, and the host that releases of it are staged on."""

    def __init__(self, fleet: Fleet, root: Path) -> None:
        self.fleet, self.root = fleet, root
        self.released = 0

    def publish(self, version: str, contents: Contents, config: Mapping[str, str] | None = None) -> Published:
        """Put a release in. ``config``: rendered files by where they belong in it."""
        artifact = self.root / f"{version}.tar.gz"
        with (
            gzip.GzipFile(artifact, "wb", compresslevel=1, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            empty = tarfile.TarInfo("empty")
            empty.type, empty.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(empty)
            for path, content in contents.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        data = artifact.read_bytes()
        described = Artifact(hashlib.sha256(data).hexdigest(), len(data))
        files = [FileEntry(path, len(held), 0o644, _sha256(held)) for path, held in sorted(contents.items())]
        manifest = Manifest("transfer", version, 1, datetime(2026, 1, 1, tzinfo=UTC), described, tuple(files))
        path = self.root / "components" / "transfer" / version / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest.to_json())
        rendered, given = [], []
        for dest, text in (config or {}).items():
            template = self.root / f"template-{_sha256(text.encode())[:8]}"
            template.write_text(text)
            given.append({"dest": dest, "src": str(template), "mode": "0644"})
            rendered.append({"dest": dest, "mode": "0644", "content": text})
        arguments = {
            "component": "transfer", "root": ROOT, "state": "staged", "version": version, "token": 1, "rollout": "r-1",
            "release": release_id(version, described.sha256, Rendered(tuple(rendered), ()).digest),
            "artifact": str(artifact), "config": given,
            "manifest": {"path": str(path), "sha256": _sha256(path.read_bytes())},
        }  # fmt: skip
        return Published(artifact, {**contents, **{d: t.encode() for d, t in (config or {}).items()}}, arguments)

    def known(self) -> dict[str, Any]:
        """What a road knows of a host from having read it."""
        read = self.fleet.module(HOST, "convoy.rollout.release_info", {"component": "transfer", "root": ROOT})
        return {"releases": read["releases"], "lacking": True}

    def stage(self, published: Published, **arguments: Any) -> tuple[dict[str, Any], int]:
        """The result of staging, and how many bytes the host has received meanwhile. What is there is compared."""
        before = int(self.fleet.shell(HOST, RECEIVED))
        result = self.fleet.module(HOST, "convoy.rollout.release", {**published.arguments, **arguments})
        received = int(self.fleet.shell(HOST, RECEIVED)) - before
        assert not result["failed"], result
        release = f"{ROOT}/releases/{published.arguments['release']}"
        listed = self.fleet.shell(HOST, f"cd {release} && find . -type f -links 1 -perm 0644 -exec sha256sum {{}} +")
        there = {line[66:].removeprefix("./"): line[:64] for line in listed.splitlines()}
        assert there == {path: _sha256(content) for path, content in published.contents.items()}
        assert self.fleet.shell(HOST, f"ls {ROOT}/.convoy/incoming; ls -d {release}/empty").split() == [
            f"{release}/empty"
        ]
        return result, received


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def contents_of(changed: int = 0) -> Contents:
    """Files that do not pack, of which so many are other ones than in the first version."""
    dice = random.Random(1)
    size = TOTAL // FILES
    contents = {f"lib/part{n % 20}/file{n}": dice.randbytes(size) for n in range(FILES)}
    for path in sorted(contents)[:changed]:
        contents[path] = random.Random(path).randbytes(size)
    return contents


@pytest.fixture
def depot(fleet: Fleet, tmp_path: Path) -> Iterator[Depot]:
    """A depot, and a host that has nothing of it."""
    fleet.shell(HOST, CLEAN)
    yield Depot(fleet, tmp_path)
    fleet.shell(HOST, CLEAN)


@pytest.fixture
def on_first(depot: Depot) -> Depot:
    """The same with 1.0.0 active."""
    first = depot.publish("1.0.0", contents_of())
    result, received = depot.stage(first, lacking=True)
    assert result["transfer"] == {
        "way": "whole", "calls": 1, "bytes": first.size, "base": None, "reused": 0, "fallback": None,
    }  # fmt: skip
    assert received > first.size
    release = first.arguments["release"]
    active = {key: first.arguments[key] for key in ("component", "root", "token", "rollout")}
    probe = [{"kind": "command", "argv": ["true"]}]
    done = depot.fleet.module(
        HOST, "convoy.rollout.release", {**active, "state": "active", "release": release, "probes": probe}
    )
    assert done["active"] == release, done
    return depot


def test_an_artifact_that_a_host_has_is_not_sent_again(on_first: Depot) -> None:
    configured = on_first.publish("1.0.0", contents_of(), {"etc/transfer.ini": "port = 1\n"})
    result, received = on_first.stage(configured, **on_first.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1)
    assert received < OVERHEAD
    again, received = on_first.stage(configured, **on_first.known(), transfer="pull", url="http://127.0.0.1:1/")
    assert (again["changed"], again["transfer"]["bytes"]) == (False, 0)
    assert received < OVERHEAD


def test_what_configuration_replaced_is_sent(on_first: Depot) -> None:
    path = min(contents_of())
    on_first.stage(on_first.publish("1.0.0", contents_of(), {path: "replaced\n"}), **on_first.known())
    known = on_first.known()
    known["releases"] = [release for release in known["releases"] if release["state"] == "staged"]
    elsewhere = on_first.publish("1.0.0", contents_of(), {"etc/transfer.ini": "port = 2\n"})
    result, _received = on_first.stage(elsewhere, **known)
    assert result["transfer"]["way"] == "whole"
    assert f"has no file with the content of {path!r}" in result["transfer"]["fallback"]


@pytest.mark.parametrize("knows", [True, False])
def test_five_per_cent_changed_are_less_than_ten_per_cent_sent(on_first: Depot, knows: bool) -> None:
    second = on_first.publish("1.1.0", contents_of(changed=FILES // 20))
    known = on_first.known() if knows else {}
    result, received = on_first.stage(second, transfer="delta", **known)
    assert result["transfer"]["way"] == "delta"
    assert result["transfer"]["calls"] == (1 if knows else 2)
    assert result["transfer"]["reused"] == (TOTAL // FILES) * (FILES - FILES // 20)
    assert received < second.size / 10
    again, received = on_first.stage(second, transfer="delta")
    assert (again["changed"], again["transfer"]["way"], again["transfer"]["calls"]) == (False, "none", 1)


def test_a_base_that_the_depot_does_not_know_is_asked_for(on_first: Depot) -> None:
    second = on_first.publish("1.1.0", contents_of(changed=15))
    (on_first.root / "components/transfer/1.0.0/manifest.json").unlink()
    result, received = on_first.stage(second, transfer="delta", **on_first.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 2)
    assert received < second.size / 10


@pytest.mark.parametrize(
    "damage",
    ["echo more >> {}", "printf x | dd of={} conv=notrunc status=none", "rm {}", "rm {0}; mkfifo {0}", "ln -sf / {}"],
)
def test_a_damaged_base_falls_back_to_the_whole(on_first: Depot, damage: str) -> None:
    path = max(contents_of())
    second = on_first.publish("1.1.0", contents_of(changed=15))
    known = on_first.known()
    (base,) = (release["id"] for release in known["releases"])
    on_first.fleet.shell(HOST, damage.format(f"{ROOT}/releases/{base}/{path}"))
    result, received = on_first.stage(second, transfer="delta", **known)
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("whole", 2)
    assert f"release {base} is not intact on this host: {path}" in result["transfer"]["fallback"]
    assert received > second.size


def test_a_first_release_goes_whole_in_one_call(depot: Depot) -> None:
    first = depot.publish("1.0.0", contents_of())
    result, _received = depot.stage(first, transfer="delta", **depot.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("whole", 1)


class Web(http.server.ThreadingHTTPServer):
    """Serves the blobs of a depot to the hosts of the lab, and breaks each connection after so many bytes."""

    def __init__(self, address: str, directory: Path, breaks_after: int) -> None:
        super().__init__((address, 0), _Blobs)
        self.directory, self.breaks_after = directory, breaks_after
        self.asked: list[tuple[int, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}/{{sha256}}"


class _Blobs(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        data = (self.server.directory / self.path[1:]).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.asked.append((begin, self.headers.get("Authorization")))
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : begin + self.server.breaks_after])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(on_first: Depot, tmp_path: Path) -> Iterator[Web]:
    """A web server that the hosts of the lab reach."""
    gateway = on_first.fleet.address(HOST).rpartition(".")[0] + ".1"
    (tmp_path / "blobs").mkdir()
    with Web(gateway, tmp_path / "blobs", breaks_after=2_000_000) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_host_fetches_what_it_lacks(on_first: Depot, web: Web) -> None:
    second = on_first.publish("1.1.0", contents_of(changed=15))
    shutil.copy(second.artifact, web.directory / _sha256(second.artifact.read_bytes()))
    result, received = on_first.stage(second, transfer="pull", url=web.url, **on_first.known())
    assert result["transfer"] == {
        "way": "pull", "calls": 1, "bytes": second.size, "base": None, "reused": 0, "fallback": None,
    }  # fmt: skip
    assert [begin for begin, _authorization in web.asked] == [0, 2_000_000, 4_000_000]
    assert second.size < received < second.size + OVERHEAD + second.size // 10
    on_first.stage(second, transfer="pull", url=web.url)
    assert len(web.asked) == 3


def test_what_a_host_cannot_fetch_leaves_nothing_but_what_came(on_first: Depot, web: Web) -> None:
    second = on_first.publish("1.1.0", contents_of(changed=15))
    sha256 = _sha256(second.artifact.read_bytes())
    data = bytearray(second.artifact.read_bytes())
    data[3_000_000] ^= 1
    (web.directory / sha256).write_bytes(data)
    told = on_first.fleet.module(
        HOST, "convoy.rollout.release", {**second.arguments, "transfer": "pull", "url": web.url}
    )
    assert (told["failed"], told.get("active")) == (True, None)
    assert f"the manifest says {sha256}" in told["msg"]
    there = f"ls {ROOT}/releases; stat -c %s {ROOT}/.convoy/incoming/*"
    assert len(on_first.fleet.shell(HOST, there).split()) == 2
    shutil.copy(second.artifact, web.directory / sha256)
    on_first.stage(second, transfer="pull", url=web.url)


def test_credentials_are_nowhere_to_be_seen(on_first: Depot, web: Web) -> None:
    second = on_first.publish("1.1.0", contents_of(changed=15))
    pull = {"authorization": "Bearer s3cr3t-0f-the-depot"}
    for options in ((), ("-vvvv",), ("-e", '{"ansible_pipelining": false}', "-vvvv")):
        told = on_first.fleet.module(
            HOST,
            "convoy.rollout.release",
            {**second.arguments, "transfer": "pull", "url": web.url, "pull": pull},
            *options,
        )
        assert "is not https: anyone on the way could read the authorization" in told["msg"]
        assert "s3cr3t" not in str(told)
