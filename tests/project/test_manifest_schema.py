# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/manifest.schema.json tells others what the code wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import manifest

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((PROJECT / "docs" / "manifest.schema.json").read_text())

GOOD: dict[str, Any] = {
    "schema": 1,
    "component": "hello",
    "version": "1.0.0",
    "serial": 1,
    "created": "2026-01-31T09:30:00Z",
    "artifact": {"sha256": "0f" * 32, "size": 1, "format": "tar.gz"},
    "files": [
        {"path": "..c", "link": "a b/ü"},
        {"path": "a b/ü", "size": 1, "mode": "0755", "sha256": "0f" * 32},
    ],
}


def canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


SBOM: dict[str, Any] = {"sha256": "0f" * 32, "size": 1, "format": "spdx-json"}


IMAGE: dict[str, Any] = {
    "digest": "sha256:" + "0a" * 32,
    "id": "sha256:" + "0b" * 32,
    "media_type": "application/vnd.oci.image.manifest.v1+json",
    "size": 400,
    "os": "linux",
    "architecture": "amd64",
}


@pytest.mark.parametrize("values", [GOOD, {**GOOD, "sbom": SBOM}, {**GOOD, "image": IMAGE}])
def test_schema_and_code_accept_the_same(values: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(values, SCHEMA)
    assert manifest.from_json(canonical(values)).to_json() == canonical(values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.pop("serial"),
        lambda values: values.update(serial=0),
        lambda values: values.update(extra=1),
        lambda values: values.update(version=1.1),
        lambda values: values.update(expires="2030-01-01"),
        lambda values: values.update(audience=[]),
        lambda values: values.update(files=[]),
        lambda values: values["artifact"].update(sha256="0F" * 32),
        lambda values: values["files"][1].update(path="a/../b"),
        lambda values: values["files"][1].update(path="/a"),
        lambda values: values["files"][1].update(path="a\nb"),
        lambda values: values["files"][1].update(mode="4755"),
        lambda values: values["files"][1].update(mode="0777"),
        lambda values: values["files"][1].update(link="x"),
        lambda values: values["files"][0].update(link="/etc"),
        lambda values: values.update(sbom=None),
        lambda values: values.update(sbom={}),
        lambda values: values.update(sbom={**SBOM, "format": "tar"}),
        lambda values: values.update(sbom={**SBOM, "size": -1}),
        lambda values: values.update(sbom={**SBOM, "sha256": "0F" * 32}),
        lambda values: values.update(sbom={**SBOM, "path": "x"}),
        lambda values: values.update(image=None),
        lambda values: values.update(image={}),
        lambda values: values.update(image={**IMAGE, "digest": "0a" * 32}),
        lambda values: values.update(image={**IMAGE, "id": "sha256:" + "0B" * 32}),
        lambda values: values.update(image={**IMAGE, "size": 0}),
        lambda values: values.update(image={**IMAGE, "os": 7}),
        lambda values: values.update(image={**IMAGE, "name": "x"}),
    ],
)
def test_schema_and_code_refuse_the_same(spoil: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(json.dumps(GOOD))
    spoil(values)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)
    with pytest.raises(manifest.ManifestError):
        manifest.from_json(canonical(values))
