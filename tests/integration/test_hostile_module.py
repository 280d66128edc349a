# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of hostile archive, given to the module as root on a real host: nothing on the host differs afterwards."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.tests.unit.plugins.hostile import HOSTILE, Hostile, entry, tar_of

from .payload import modules

HOST = "app1"
ROOT = "/srv/convoy-hostile"
PLACE = "/var/tmp/convoy-hostile"
PROGRAM = Path(__file__).parents[1] / "hardening" / "hostile_on_host.py"
COMMON = {"component": "convoy-hostile", "root": ROOT, "rollout": "r-1", "token": 1, "state": "staged"}
# One that is refused by its digest: after it the tree is there.
PROBE = Hostile(lambda: tar_of(("good", b"content")), "the manifest says")


def arguments(number: int, hostile: Hostile, data: bytes) -> dict[str, Any]:
    """What the module is told of an archive."""
    files = [
        {"path": file.path, "link": file.link}
        if file.link is not None
        else {"path": file.path, "size": file.size, "mode": f"{file.mode:04o}", "sha256": file.sha256}
        for file in hostile.files
    ]
    digest = hashlib.sha256(data).hexdigest() if hostile is not PROBE else "0" * 64
    described = {"sha256": digest, "size": len(data), "format": hostile.format}
    manifest = {"artifact": described, "files": files}
    release = {"release": f"1.0.{number}-abc", "version": f"1.0.{number}", "strict": hostile.strict}
    return {**release, "artifact": f"{PLACE}/{number}", "manifest": manifest}


def parcel() -> bytes:
    """All that the host needs, in one archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:

        def put(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        index = []
        for number, (name, hostile) in enumerate([("refused by its digest", PROBE), *HOSTILE.items()]):
            data = hostile.make()
            put(str(number), data)
            index.append({"name": name, "arguments": arguments(number, hostile, data)})
        put("index.json", json.dumps(index).encode())
        put("modules.zip", modules())
        put("on_host.py", PROGRAM.read_bytes())
    return packed.getvalue()


@pytest.fixture
def clean(fleet: Any) -> Iterator[None]:
    """A host without the component, before and after."""
    fleet.shell(HOST, f"rm -rf {PLACE} {ROOT}; mkdir -p {PLACE}")
    yield
    fleet.shell(HOST, f"rm -rf {PLACE} {ROOT}")


@pytest.mark.usefixtures("clean")
def test_hostile_archives_leave_a_host_as_it_was(fleet: Any) -> None:
    assert len(HOSTILE) > 120
    assert entry("good").path == "good"
    fleet.shell(HOST, f"base64 -d | tar -xz -C {PLACE}", base64.b64encode(parcel()).decode())
    found = json.loads(fleet.shell(HOST, f"cd {PLACE}; python3 on_host.py modules.zip {PLACE}", json.dumps(COMMON)))
    assert found["differs"] == {}
    assert found["seen"] > 5_000  # the whole host
    told = found["told"]
    for name, hostile in HOSTILE.items():
        said = told[name]
        assert said["failed"], name
        assert re.search(hostile.reason, said["msg"]), (name, said["msg"])
        assert (said["status"], said["exception"]) == (0, None), (name, said)
        assert said["seconds"] < 30, (name, said)
        assert said["kilobytes"] < 400_000, (name, said)
    slowest = max(told, key=lambda name: told[name]["seconds"])
    print(f"{len(told)} archives, {found['seen']} files; the slowest, {slowest}: {told[slowest]['seconds']:.1f} s")
