# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From examples/build and examples/keys to a depot, by the playbook that a person runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((PROJECT / "docs" / "manifest.schema.json").read_text())


@dataclass(frozen=True)
class Site:
    """An inventory, artifacts, keys and a depot in a directory of their own."""

    home: Path

    def publish(self, *options: str, version: str = "1.0.0", built: str = "1.0.0") -> subprocess.CompletedProcess[str]:
        variables = {
            "component_name": "hello",
            "component_version": version,
            "component_artifact": f"{self.home}/hello-{built}.tar.gz",
            "depot_path": f"{self.home}/depot",
            "publish_signing_key": f"{self.home}/release_key",
            "publish_signer": "release@convoy.example",
        }
        return self.play(*options, variables=variables)

    def play(self, *options: str, variables: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "ansible", "playbook", str(PROJECT / "playbooks" / "publish.yml")),
                *("-i", f"{self.home}/hosts", "-e", json.dumps(variables), *options),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "ANSIBLE_CONFIG": f"{self.home}/ansible.cfg", "ANSIBLE_NOCOLOR": "1"},
        )

    def manifest(self, version: str = "1.0.0") -> dict[str, Any]:
        path = self.home / "depot" / "components" / "hello" / version / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    home = tmp_path_factory.mktemp("site")
    (home / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {PROJECT}/collections\n")
    (home / "hosts").write_text("")
    for tool, *arguments in (("build", "1.0.0", "1.1.0"), ("keys",)):
        command = [sys.executable, str(PROJECT / "examples" / tool), str(home), *arguments]
        subprocess.run(command, check=True, capture_output=True)
    return Site(home)


def changed(ended: subprocess.CompletedProcess[str]) -> int:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return int(re.findall(r"changed=(\d+)", ended.stdout)[0])


def test_check_publish_check_publish(site: Site) -> None:
    assert changed(site.publish("--check")) == 1
    assert not (site.home / "depot").exists()
    assert changed(site.publish()) == 1
    manifest = site.manifest()
    assert changed(site.publish("--check")) == 0
    assert changed(site.publish()) == 0
    assert site.manifest() == manifest
    jsonschema.validate(manifest, SCHEMA)
    assert [file["path"] for file in manifest["files"]] == ["app/hello.py", "defaults.json"]
    assert manifest["signer"] == "release@convoy.example"


def test_terms_of_a_publication_are_signed(site: Site) -> None:
    terms = {"publish_audience": ["staging", "production"], "publish_expires": "2030-01-31T00:00:00Z"}
    site.publish("-e", json.dumps(terms), version="1.1.0", built="1.1.0")
    manifest = site.manifest("1.1.0")
    jsonschema.validate(manifest, SCHEMA)
    assert manifest["audience"] == ["production", "staging"]
    assert manifest["expires"] == "2030-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-e", '{"component_version": 1.1}'], "component_version is the number 1.1, not a string"),
        (["-e", '{"component_version": "1/0"}'], "version '1/0' cannot be used"),
        (["-e", "component_artifact=/nowhere.tar.gz"], "the artifact /nowhere.tar.gz is no file"),
        (["-e", "publish_signing_key=/nowhere", "--check"], "cannot read the signing key /nowhere"),
        (["-e", '{"publish_expires": "tomorrow"}'], "expires 'tomorrow' is no time"),
    ],
)
def test_what_cannot_be_published_is_refused(site: Site, options: list[str], complaint: str) -> None:
    ended = site.publish(*options)
    assert ended.returncode != 0
    assert complaint in ended.stdout + ended.stderr


def test_other_content_under_the_same_version_is_refused(site: Site) -> None:
    site.publish()
    before = site.manifest()
    ended = site.publish(built="1.1.0")
    assert ended.returncode != 0
    assert "hello 1.0.0 is in the depot already, with other content" in ended.stdout + ended.stderr
    assert '"reason": "version-taken"' in ended.stdout
    assert site.manifest() == before
