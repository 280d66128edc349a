# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where hosts find artifacts, and what is refused before one is asked."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils import pulling
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest, parse_time

SHA256 = "a" * 64
MANIFEST = Manifest(
    "hello",
    "1.1.0+b",
    1,
    parse_time("", "2026-01-01T00:00:00Z"),
    Artifact(SHA256, 1),
    (FileEntry("a", 1, 0o644, SHA256),),
)


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://depot.example/blobs/sha256/{sha256}", f"https://depot.example/blobs/sha256/{SHA256}"),
        ("http://d/{component}/{version}.{format}", "http://d/hello/1.1.0%2Bb.tar.gz"),
        ("http://d/fixed?x=%7B", "http://d/fixed?x=%7B"),
    ],
)
def test_placeholders(template: str, url: str) -> None:
    assert pulling.url_of(template, MANIFEST) == url
    pulling.check(template, MANIFEST, {"timeout": 5})


@pytest.mark.parametrize(
    ("template", "options", "words"),
    [
        ("", {}, "component_artifact_url is not set, and component_transfer is pull"),
        ("http://d/{sha265}", {}, "unknown placeholder {sha265}: did you mean 'sha256'?"),
        ("http://d/{}", {}, "unknown placeholder {}: known are component, format, sha256, version"),
        ("depot/{sha256}", {}, "is not one of http or https"),
        ("http://d/", {"authorization": "Bearer s3cr3t"}, "is not https: anyone on the way could read"),
        ("http://d/", {"timeout": "soon"}, "component_pull: "),
        ("http://d/", {"timout": 5}, "component_pull: timout"),
        ("http://d/", {"retries": -1}, "retries is -1: must be 0 or more"),
    ],
)
def test_what_could_not_be_fetched(template: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        pulling.check(template, MANIFEST, options)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
