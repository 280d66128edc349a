# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The library where it is settled: all of it or nothing, and calls of it as a host runs them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import answer, settle

SOURCES = Path(answer.__file__).parent
NOW = 1_800_000_000.0


def packed() -> bytes:
    """The real library."""
    parts = answer.PACKAGE.split(".")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for count in range(1, len(parts) + 1):
            archive.writestr("/".join((*parts[:count], "__init__.py")), "")
        for source in SOURCES.rglob("*.py"):
            if source.parent != SOURCES or source.name != "__init__.py":
                archive.write(source, "/".join((*parts, *source.relative_to(SOURCES).parts)))
    return stream.getvalue()


def call(
    place: Path, name: str, params: dict[str, Any], attached: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Start the library as the controller does."""
    request = {"call": name, "params": params, "check_mode": False, "attached": "artifact" if attached else None}
    return subprocess.run(
        [sys.executable, "-IS", str(place.joinpath(*answer.PACKAGE.split("."), "answer.py"))],
        input=json.dumps(request).encode() + b"\n" + (attached or b""),
        capture_output=True,
        check=False,
    )


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """The library on a host."""
    settle.settle(packed(), str(tmp_path / "lib/one"), NOW)
    return tmp_path / "lib/one"


def test_a_call_is_answered_as_the_last_line(settled: Path) -> None:
    done = call(settled, "haproxy_info", {"socket": "/nowhere", "backend": "app", "servers": None, "statistics": False})
    assert (done.returncode, done.stderr) == (0, b"")
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["failed"], "/nowhere" in result["msg"]) == (True, True)


def test_what_is_attached_is_a_file_there(tmp_path: Path) -> None:
    content = b"\n\x00what is sent\n" * 100_000
    directory = tmp_path.joinpath(*answer.PACKAGE.split("."))
    (directory / "calls").mkdir(parents=True)
    (directory / "answer.py").write_bytes(Path(answer.__file__).read_bytes())
    (directory / "calls/size.py").write_text(
        "import os\n\n\ndef run(params, check_mode):\n    return {'size': os.path.getsize(params['artifact'])}\n"
    )
    done = call(tmp_path, "size", {}, content)
    assert json.loads(done.stdout.splitlines()[-1]) == {"size": len(content)}


def test_all_is_compiled_and_private(settled: Path) -> None:
    sources = [path for path in settled.rglob("*.py") if path.stat().st_size]
    compiled = {path.name.partition(".")[0] for path in settled.rglob("__pycache__/*.pyc")}
    assert {path.stem for path in sources} <= compiled
    assert settled.stat().st_mode & 0o077 == 0


def test_settling_again_leaves_what_is_there(settled: Path) -> None:
    before = {path: path.stat().st_ino for path in settled.rglob("*")}
    settle.settle(packed(), str(settled), NOW)
    assert {path: path.stat().st_ino for path in settled.rglob("*")} == before
    assert os.listdir(settled.parent) == ["one"]


def test_nothing_is_left_of_what_could_not_be_settled(tmp_path: Path) -> None:
    with pytest.raises(zipfile.BadZipFile):
        settle.settle(b"no zip file", str(tmp_path / "lib/one"), NOW)
    assert os.listdir(tmp_path / "lib") == []


def test_other_versions_go_after_a_month(tmp_path: Path) -> None:
    for name, days in (("old", 31), ("recent", 29)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (NOW - days * 86400, NOW - days * 86400))
    settle.settle(packed(), str(tmp_path / "new"), NOW)
    assert sorted(os.listdir(tmp_path)) == ["new", "recent"]


@pytest.mark.parametrize(
    ("name", "more"), [("release", {"shutil", "socket", "subprocess", "threading"}), ("release_info", {"hashlib"})]
)
def test_what_a_call_does_not_need_is_not_imported(settled: Path, name: str, more: set[str]) -> None:
    """Each costs every call on every host as much as a millisecond, some of them twenty."""
    code = (
        "import json, sys; import importlib; sys.path.insert(0, sys.argv[1]);"
        "importlib.import_module(sys.argv[2]); print(json.dumps(sorted(sys.modules)))"
    )
    asked = [sys.executable, "-IS", "-c", code, str(settled), f"{answer.PACKAGE}.calls.{name}"]
    imported = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert f"{answer.PACKAGE}.host" in imported
    needless = {"ctypes", "dataclasses", "email", "http.client", "lzma", "platform", "queue", "ssl", "typing", *more}
    assert needless & set(imported) == set()
