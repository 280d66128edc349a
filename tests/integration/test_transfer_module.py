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
NOTHING = {"way": "none", "calls": 1, "bytes": 0, "base": None, "reused": 0, "fallback": None}

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

    def stage(self, published: Published, *options: str, **arguments: Any) -> tuple[dict[str, Any], int]:
        """The result of staging, and how many bytes the host has received meanwhile. What is there is compared."""
        before = int(self.fleet.shell(HOST, RECEIVED))
        result = self.fleet.module(HOST, "convoy.rollout.release", {**published.arguments, **arguments}, *options)
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


def contents_of(changed: int = 0, seed: str = "") -> Contents:
    """Files that do not pack, of which so many are other ones than in the first version, by a seed."""
    dice = random.Random(1)
    size = TOTAL // FILES
    contents = {f"lib/part{n % 20}/file{n}": dice.randbytes(size) for n in range(FILES)}
    for path in sorted(contents)[:changed]:
        contents[path] = random.Random(seed + path).randbytes(size)
    return contents


@pytest.fixture(scope="module")
def depot(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    """A depot, and a host that has its 1.0.0 active and nothing else of it."""
    fleet.shell(HOST, CLEAN)
    depot = Depot(fleet, tmp_path_factory.mktemp("depot"))
    first = depot.publish("1.0.0", contents_of())
    result, received = depot.stage(first, transfer="delta", **depot.known())
    assert result["transfer"] == {**NOTHING, "way": "whole", "bytes": first.size}
    assert received > first.size
    release = first.arguments["release"]
    active = {key: first.arguments[key] for key in ("component", "root", "token", "rollout")}
    probe = [{"kind": "command", "argv": ["true"]}]
    asked = {**active, "state": "active", "release": release, "probes": probe}
    assert depot.fleet.module(HOST, "convoy.rollout.release", asked)["active"] == release
    yield depot
    fleet.shell(HOST, CLEAN)


def test_an_artifact_that_a_host_has_is_not_sent_again(depot: Depot) -> None:
    configured = depot.publish("1.0.0", contents_of(), {"etc/transfer.ini": "port = 1\n"})
    result, received = depot.stage(configured, **depot.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1)
    assert received < OVERHEAD
    again, received = depot.stage(configured, transfer="pull", url="http://127.0.0.1:1/")
    assert (again["changed"], again["transfer"]) == (False, NOTHING)
    assert received < OVERHEAD


@pytest.mark.parametrize("version", ["1.1.0", "1.1.1"])
def test_five_per_cent_changed_are_less_than_ten_per_cent_sent(depot: Depot, version: str) -> None:
    """Whether or not it is known what the host has."""
    second = depot.publish(version, contents_of(changed=FILES // 20, seed=version))
    known = depot.known() if version == "1.1.0" else {}
    result, received = depot.stage(second, transfer="delta", **known)
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1 if known else 2)
    assert result["transfer"]["reused"] == (TOTAL // FILES) * (FILES - FILES // 20)
    assert result["transfer"]["bytes"] < received < second.size / 10


def test_the_same_once_more_without_pipelining(depot: Depot) -> None:
    second = depot.publish("1.1.2", contents_of(changed=FILES // 20, seed="1.1.2"))
    result, _received = depot.stage(second, "-e", '{"ansible_pipelining": false}', transfer="delta", **depot.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1)
    again, _received = depot.stage(second, transfer="delta")
    assert (again["changed"], again["transfer"]) == (False, NOTHING)


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
def web(depot: Depot, tmp_path: Path) -> Iterator[Web]:
    """A web server that the hosts of the lab reach."""
    gateway = depot.fleet.address(HOST).rpartition(".")[0] + ".1"
    (tmp_path / "blobs").mkdir()
    with Web(gateway, tmp_path / "blobs", breaks_after=2_000_000) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_host_fetches_what_it_lacks(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.0", contents_of(changed=15, seed="1.2.0"))
    shutil.copy(second.artifact, web.directory / _sha256(second.artifact.read_bytes()))
    result, received = depot.stage(second, transfer="pull", url=web.url, **depot.known())
    assert result["transfer"] == {**NOTHING, "way": "pull", "bytes": second.size}
    assert [begin for begin, _authorization in web.asked] == [0, 2_000_000, 4_000_000]
    assert second.size < received < second.size + OVERHEAD + second.size // 10
    depot.stage(second, transfer="pull", url=web.url)
    assert len(web.asked) == 3


def test_what_a_host_cannot_fetch_leaves_nothing_but_what_came(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.1", contents_of(changed=15, seed="1.2.1"))
    sha256 = _sha256(second.artifact.read_bytes())
    data = bytearray(second.artifact.read_bytes())
    data[3_000_000] ^= 1
    (web.directory / sha256).write_bytes(data)
    told = depot.fleet.module(HOST, "convoy.rollout.release", {**second.arguments, "transfer": "pull", "url": web.url})
    assert (told["failed"], told.get("active")) == (True, None)
    assert f"the manifest says {sha256}" in told["msg"]
    there = depot.fleet.shell(HOST, f"ls {ROOT}/releases; stat -c %s {ROOT}/.convoy/incoming/*").split()
    assert second.arguments["release"] not in there
    assert there[-1] == "0"
    shutil.copy(second.artifact, web.directory / sha256)
    depot.stage(second, transfer="pull", url=web.url)


def test_credentials_are_nowhere_to_be_seen(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.2", contents_of(changed=15, seed="1.2.2"))
    pull = {"authorization": "Bearer s3cr3t-0f-the-depot"}
    for options in (("-vvvv",), ("-e", '{"ansible_pipelining": false}', "-vvvv")):
        arguments = {**second.arguments, "transfer": "pull", "url": web.url, "pull": pull}
        told = depot.fleet.module(HOST, "convoy.rollout.release", arguments, *options)
        assert "is not https: anyone on the way could read the authorization" in told["msg"]
        assert "s3cr3t" not in str(told)


def test_a_damaged_base_falls_back_to_the_whole(depot: Depot) -> None:
    """The last test: it leaves no base to work with."""
    path = max(contents_of())
    second = depot.publish("1.3.0", contents_of(changed=15, seed="1.3.0"))
    known = depot.known()
    (base,) = (release["id"] for release in known["releases"] if release["state"] == "good")
    depot.fleet.shell(HOST, f"printf x | dd of={ROOT}/releases/{base}/{path} conv=notrunc status=none")
    result, received = depot.stage(second, transfer="delta", **known)
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("whole", 2)
    assert f"release {base} is not intact on this host: {path}" in result["transfer"]["fallback"]
    assert received > second.size
