# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The build of the example's versions and the keys to sign them with."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VERSIONS = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0"]


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / tool), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_build_makes_every_version_and_prints_it(tmp_path: Path) -> None:
    built = run("build", tmp_path / "out")
    assert built.returncode == 0
    assert built.stdout.splitlines() == [str(tmp_path / "out" / f"hello-{version}.tar.gz") for version in VERSIONS]


def test_build_is_the_same_to_the_byte(tmp_path: Path) -> None:
    for directory in ("one", "two"):
        run("build", tmp_path / directory)
    first = digests(tmp_path / "one")
    assert first == digests(tmp_path / "two")
    assert len(set(first.values())) == len(VERSIONS)


def test_build_bakes_the_version_and_its_faults_in(tmp_path: Path) -> None:
    run("build", tmp_path, "1.4.0")
    with tarfile.open(tmp_path / "hello-1.4.0.tar.gz") as archive:
        assert archive.getnames() == ["app/hello.py", "defaults.json"]
        defaults = archive.extractfile("defaults.json")
        assert defaults is not None
        assert json.load(defaults) == {"version": "1.4.0", "crash_after": 5.0}


def test_build_names_the_versions_there_are(tmp_path: Path) -> None:
    built = run("build", tmp_path, "9.9.9")
    assert built.returncode == 2
    assert "no version 9.9.9; there are 1.0.0, 1.1.0" in built.stderr
    assert list(tmp_path.iterdir()) == []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_and_stay_as_they_are(tmp_path: Path) -> None:
    home = tmp_path / "keys"
    assert run("keys", home).returncode == 0
    before = digests(home)
    assert sorted(before) == ["allowed_signers", "release_key", "release_key.pub"]
    assert mode(home) == 0o700
    assert mode(home / "release_key") == 0o600
    assert run("keys", home).returncode == 0
    assert digests(home) == before


def test_keys_trust_the_key_for_releases_only(tmp_path: Path) -> None:
    run("keys", tmp_path, "--identity", "me@example.org")
    line = (tmp_path / "allowed_signers").read_text()
    public = (tmp_path / "release_key.pub").read_text().split()
    assert line == f'me@example.org namespaces="convoy-release" {public[0]} {public[1]}\n'


def test_keys_repair_what_is_missing_or_too_open(tmp_path: Path) -> None:
    run("keys", tmp_path)
    signers = (tmp_path / "allowed_signers").read_text()
    os.unlink(tmp_path / "allowed_signers")
    (tmp_path / "release_key").chmod(0o644)
    assert run("keys", tmp_path).returncode == 0
    assert (tmp_path / "allowed_signers").read_text() == signers
    assert mode(tmp_path / "release_key") == 0o600
