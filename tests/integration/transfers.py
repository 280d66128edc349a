# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A depot of a component of many files, a host that it is staged on, and a web server that hosts fetch from."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import random
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
        files = [FileEntry(path, len(held), 0o644, sha256_of(held)) for path, held in sorted(contents.items())]
        manifest = Manifest("transfer", version, 1, datetime(2026, 1, 1, tzinfo=UTC), described, tuple(files))
        path = self.root / "components" / "transfer" / version / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest.to_json())
        rendered, given = [], []
        for dest, text in (config or {}).items():
            template = self.root / f"template-{sha256_of(text.encode())[:8]}"
            template.write_text(text)
            given.append({"dest": dest, "src": str(template), "mode": "0644"})
            rendered.append({"dest": dest, "mode": "0644", "content": text})
        arguments = {
            "component": "transfer", "root": ROOT, "state": "staged", "version": version, "token": 1, "rollout": "r-1",
            "release": release_id(version, described.sha256, Rendered(tuple(rendered), ()).digest),
            "artifact": str(artifact), "config": given,
            "manifest": {"path": str(path), "sha256": sha256_of(path.read_bytes())},
        }  # fmt: skip
        return Published(artifact, {**contents, **{d: t.encode() for d, t in (config or {}).items()}}, arguments)

    def known(self) -> dict[str, Any]:
        """What a road knows of a host from having read it."""
        read = self.fleet.module(HOST, "convoy.rollout.release_info", {"component": "transfer", "root": ROOT})
        return {"releases": read["releases"], "lacking": True}

    def activate(self, published: Published) -> None:
        """Take a release into service that has nothing that serves."""
        known = {key: published.arguments[key] for key in ("component", "root", "token", "rollout", "release")}
        asked = {**known, "state": "active", "probes": [{"kind": "command", "argv": ["true"]}]}
        result = self.fleet.module(HOST, "convoy.rollout.release", asked)
        assert result["active"] == known["release"], result

    def stage(self, published: Published, *options: str, **arguments: Any) -> tuple[dict[str, Any], int]:
        """The result of staging, and how many bytes the host has received meanwhile. What is there is compared."""
        before = int(self.fleet.shell(HOST, RECEIVED))
        result = self.fleet.module(HOST, "convoy.rollout.release", {**published.arguments, **arguments}, *options)
        received = int(self.fleet.shell(HOST, RECEIVED)) - before
        assert not result["failed"], result
        release = f"{ROOT}/releases/{published.arguments['release']}"
        listed = self.fleet.shell(HOST, f"cd {release} && find . -type f -links 1 -perm 0644 -exec sha256sum {{}} +")
        there = {line[66:].removeprefix("./"): line[:64] for line in listed.splitlines()}
        assert there == {path: sha256_of(content) for path, content in published.contents.items()}
        assert self.fleet.shell(HOST, f"ls {ROOT}/.convoy/incoming; ls -d {release}/empty").split() == [
            f"{release}/empty"
        ]
        return result, received


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def contents_of(changed: int = 0, seed: str = "", total: int = TOTAL) -> Contents:
    """Files that do not pack, of which so many are other ones than in the first version, by a seed."""
    dice = random.Random(1)
    size = total // FILES
    contents = {f"lib/part{n % 20}/file{n}": dice.randbytes(size) for n in range(FILES)}
    for path in sorted(contents)[:changed]:
        contents[path] = random.Random(seed + path).randbytes(size)
    return contents


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


@contextmanager
def web_server(fleet: Fleet, directory: Path, breaks_after: int) -> Iterator[Web]:
    """Such a server at the address of this machine in the lab, while the block runs."""
    gateway = fleet.address(HOST).rpartition(".")[0] + ".1"
    with Web(gateway, directory, breaks_after) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
