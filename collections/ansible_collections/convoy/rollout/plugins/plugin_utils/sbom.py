# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bills of material: which form one has, and how much it tells. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

CYCLONEDX, SPDX = "cyclonedx-json", "spdx-json"
LARGEST = 64 * 2**20  # bytes

_CYCLONEDX_VERSION = re.compile(r"1\.[2-9]")  # since 1.2 there is one in JSON
_SPDX_VERSION = re.compile(r"SPDX-2\.[0-9]")
_SPDX_3 = re.compile(r"https://spdx\.org/rdf/(3\.[0-9.]+)/spdx-context\.jsonld")


class SbomError(ConvoyError):
    """It is no bill of material that is known here."""

    reason: ClassVar[str] = "sbom"


@dataclass(frozen=True)
class Bill:
    """What a bill of material is: its form, the version of that form, and how many components it names."""

    format: str
    version: str
    components: int

    def __str__(self) -> str:
        name = {CYCLONEDX: "CycloneDX", SPDX: "SPDX"}[self.format]
        return f"{name} {self.version}, {self.components} component{'' if self.components == 1 else 's'}"


def read(content: bytes, source: str) -> Bill:
    """What this bill is. Raises SbomError naming ``source`` for one in no known form, or that names no component."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SbomError(f"the SBOM {source} is no JSON: {error}") from error
    found = _cyclonedx(values, source) or _spdx(values, source) or _spdx_3(values, source)
    if found is None:
        raise SbomError(
            f"the SBOM {source} is neither CycloneDX (bomFormat) nor SPDX (spdxVersion, or @context of SPDX 3) in JSON"
        )
    if not found.components:
        raise SbomError(f"the SBOM {source} names no component: make one that says what is in the artifact")
    return found


def _cyclonedx(values: Any, source: str) -> Bill | None:
    if not isinstance(values, Mapping) or values.get("bomFormat") != "CycloneDX":
        return None
    version = values.get("specVersion")
    if not isinstance(version, str) or not _CYCLONEDX_VERSION.fullmatch(version):
        raise SbomError(f"the SBOM {source} is of CycloneDX {version!r}: 1.2 to 1.9 are known here")
    components = _named(values, "components", source, "name")
    metadata = values.get("metadata")
    itself = metadata.get("component") if isinstance(metadata, Mapping) else None
    return Bill(CYCLONEDX, version, len(components) or int(isinstance(itself, Mapping) and bool(itself.get("name"))))


def _spdx(values: Any, source: str) -> Bill | None:
    if not isinstance(values, Mapping) or "spdxVersion" not in values:
        return None
    version = values["spdxVersion"]
    if not isinstance(version, str) or not _SPDX_VERSION.fullmatch(version):
        raise SbomError(f"the SBOM {source} is of {version!r}: SPDX-2.0 to SPDX-2.9, and SPDX 3, are known here")
    if values.get("SPDXID") != "SPDXRef-DOCUMENT" or not isinstance(values.get("creationInfo"), Mapping):
        raise SbomError(f"the SBOM {source} is no document of SPDX: it lacks its SPDXID or creationInfo")
    packages = _named(values, "packages", source, "name")
    files = _named(values, "files", source, "fileName")
    return Bill(SPDX, version.removeprefix("SPDX-"), len(packages) or len(files))


def _spdx_3(values: Any, source: str) -> Bill | None:
    context = values.get("@context") if isinstance(values, Mapping) else None
    known = _SPDX_3.fullmatch(context) if isinstance(context, str) else None
    if known is None:
        return None
    graph = values.get("@graph")
    elements = [one for one in graph if isinstance(one, Mapping)] if isinstance(graph, list) else []
    if not any(one.get("type") == "SpdxDocument" for one in elements):
        raise SbomError(f"the SBOM {source} is no document of SPDX: its @graph holds no SpdxDocument")
    things = [one for one in elements if one.get("type") in ("software_Package", "software_File")]
    return Bill(SPDX, known.group(1), len(things))


def _named(values: Mapping[str, Any], key: str, source: str, name: str) -> list[Any]:
    """The things in this list, each of which must have a name."""
    listed = values.get(key, [])
    if not isinstance(listed, list):
        raise SbomError(f"the SBOM {source}: {key} is no list")
    for number, one in enumerate(listed, start=1):
        if not isinstance(one, Mapping) or not isinstance(one.get(name), str) or not one[name]:
            raise SbomError(f"the SBOM {source}: number {number} of {key} has no {name}")
    return listed
