# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bills of material are recognised by what is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import sbom
from ansible_collections.convoy.rollout.plugins.plugin_utils.sbom import Bill, SbomError

CYCLONEDX: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [{"type": "library", "name": "zlib", "version": "1.3"}, {"type": "library", "name": "xz"}],
}
SPDX: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3",
    "dataLicense": "CC0-1.0",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": "hello",
    "documentNamespace": "https://example.org/hello",
    "creationInfo": {"created": "2026-01-31T09:30:00Z", "creators": ["Tool: make"]},
    "packages": [{"SPDXID": "SPDXRef-1", "name": "zlib", "downloadLocation": "NOASSERTION"}],
}
SPDX_3: dict[str, Any] = {
    "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld",
    "@graph": [{"type": "SpdxDocument"}, {"type": "software_Package", "name": "zlib"}, {"type": "Relationship"}],
}


def read(values: Any) -> Bill:
    return sbom.read(json.dumps(values).encode(), "hello.json")


@pytest.mark.parametrize(
    ("values", "format_", "said"),
    [
        (CYCLONEDX, "cyclonedx-json", "CycloneDX 1.6, 2 components"),
        (
            {**CYCLONEDX, "components": [], "metadata": {"component": {"name": "hello"}}},
            "cyclonedx-json",
            "1 component",
        ),
        (SPDX, "spdx-json", "SPDX 2.3, 1 component"),
        ({**SPDX, "packages": [], "files": [{"fileName": "./app"}, {"fileName": "./b"}]}, "spdx-json", "2 components"),
        (SPDX_3, "spdx-json", "SPDX 3.0.1, 1 component"),
    ],
)
def test_a_bill_is_recognised(values: dict[str, Any], format_: str, said: str) -> None:
    found = read(values)
    assert found.format == format_
    assert str(found).endswith(said)


def without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "is neither CycloneDX"),
        ("CycloneDX", "is neither CycloneDX"),
        ({}, "is neither CycloneDX"),
        (without(CYCLONEDX, "bomFormat"), "is neither CycloneDX"),
        ({"@context": "https://schema.org", "@graph": []}, "is neither CycloneDX"),
        ({**CYCLONEDX, "specVersion": "2.0"}, "is of CycloneDX '2.0': 1.2 to 1.9 are known here"),
        ({**CYCLONEDX, "specVersion": 1.6}, "is of CycloneDX 1.6"),
        (without(CYCLONEDX, "components"), "names no component"),
        ({**CYCLONEDX, "components": {}}, "components is no list"),
        ({**CYCLONEDX, "components": [{"name": "a"}, {"type": "library"}]}, "number 2 of components has no name"),
        ({**CYCLONEDX, "components": ["a"]}, "number 1 of components has no name"),
        ({**CYCLONEDX, "components": [], "metadata": []}, "names no component"),
        ({**SPDX, "spdxVersion": "SPDX-1.2"}, "is of 'SPDX-1.2'"),
        (without(SPDX, "SPDXID"), "lacks its SPDXID or creationInfo"),
        (without(SPDX, "creationInfo"), "lacks its SPDXID or creationInfo"),
        (without(SPDX, "packages"), "names no component"),
        ({**SPDX, "packages": [{"name": ""}]}, "number 1 of packages has no name"),
        ({**SPDX_3, "@graph": SPDX_3["@graph"][1:]}, "holds no SpdxDocument"),
        ({**SPDX_3, "@graph": "x"}, "holds no SpdxDocument"),
        ({**SPDX_3, "@graph": SPDX_3["@graph"][:1]}, "names no component"),
    ],
)
def test_what_is_no_bill_is_refused(values: Any, said: str) -> None:
    with pytest.raises(SbomError, match=f"the SBOM hello.json.* {said}|the SBOM hello.json: {said}") as refused:
        read(values)
    assert refused.value.reason == "sbom"


@pytest.mark.parametrize("content", [b"", b"<bom/>", b"\xff", b"[" * 200_000])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(SbomError, match=r"the SBOM hello\.xml is no JSON"):
        sbom.read(content, "hello.xml")
