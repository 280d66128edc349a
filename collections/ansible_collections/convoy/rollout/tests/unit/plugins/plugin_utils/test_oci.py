# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI layouts: which image is meant, and what is refused when one is published."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import record
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.plugin_utils import oci
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import examine
from ansible_collections.convoy.rollout.plugins.plugin_utils.oci import NotAnImageError
from ansible_collections.convoy.rollout.tests.unit.plugins.layouts import INDEX, MANIFEST, REF_NAME, Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A layout without an image."""
    return Layout(tmp_path / "layout")


def read(layout: Layout, chosen: str | None = None) -> Image:
    return oci.read(layout.directory, record.survey(str(layout.directory)), chosen)


def refused(layout: Layout, complaint: str, chosen: str | None = None) -> None:
    with pytest.raises(NotAnImageError, match=re.escape(complaint)):
        read(layout, chosen)


def test_the_one_image(layout: Layout) -> None:
    there = layout.image({"server": b"x"})
    layout.index([there])
    manifest = layout.read(there["digest"])
    expected = Image(there["digest"], manifest["config"]["digest"], MANIFEST, there["size"], "linux", "amd64")
    assert read(layout) == expected
    assert read(layout, there["digest"]) == expected


def test_one_of_several_by_its_name_or_digest(layout: Layout) -> None:
    one = layout.image({"server": b"1"}, annotations={REF_NAME: "one"})
    two = layout.image({"server": b"2"}, annotations={REF_NAME: "two"})
    layout.index([one, two])
    assert read(layout, "two").digest == two["digest"]
    assert read(layout, one["digest"]).digest == one["digest"]
    refused(
        layout,
        "the layout holds 2 images: choose one with publish_image, by its name or digest; there is one",
    )
    refused(layout, f"there is one {one['digest']}; two {two['digest']}")
    refused(layout, "the layout holds no image 'three'; there is one", "three")


def test_images_for_several_machines_are_chosen_from_by_digest(layout: Layout) -> None:
    made = [
        layout.image({"server": b"x"}, architecture=name, platform={"os": "linux", "architecture": name})
        for name in ("amd64", "arm64")
    ]
    attested = layout.image({"x": b"y"}, platform={"os": "unknown", "architecture": "unknown"})
    index = {"schemaVersion": 2, "manifests": [*made, attested]}
    layout.index([layout.document(index, INDEX, annotations={REF_NAME: "hello"})])
    assert read(layout, made[1]["digest"]).architecture == "arm64"
    refused(layout, f"{made[1]['digest']} for linux/arm64")
    refused(layout, "the layout holds 2 images 'hello': choose one with publish_image, by its digest", "hello")


def test_an_index_of_one_image_is_followed(layout: Layout) -> None:
    image = layout.image({"server": b"x"})
    attested = layout.image({"x": b"y"}, platform={"os": "unknown", "architecture": "unknown"})
    layout.index([layout.document({"schemaVersion": 2, "manifests": [image, attested]}, INDEX)])
    assert read(layout).digest == image["digest"]


def without(name: str) -> Callable[[Layout], object]:
    return lambda layout: (layout.directory / name).unlink()


def written(name: str, content: str) -> Callable[[Layout], object]:
    return lambda layout: (layout.directory / name).write_text(content)


def spoiled(part: str, spoil: Callable[[Path], object]) -> Callable[[Layout], object]:
    """With a blob of the image that is not what it was: its manifest, its config or its layer."""

    def change(layout: Layout) -> None:
        digest = json.loads((layout.directory / "index.json").read_text())["manifests"][0]["digest"]
        manifest = layout.read(digest)
        digests = {"manifest": digest, "config": manifest["config"]["digest"], "layer": manifest["layers"][0]["digest"]}
        spoil(layout.path(digests[part]))

    return change


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (without("oci-layout"), "this is no OCI layout: the artifact has no file oci-layout"),
        (without("index.json"), "this is no OCI layout: the artifact has no file index.json"),
        (written("oci-layout", "{}"), "its oci-layout says version None, and 1.0.0 is known"),
        (written("oci-layout", "x"), "oci-layout of the layout is no JSON"),
        (written("index.json", "[]"), "index.json of the layout is no JSON object"),
        (written("index.json", "[" * 100_000), "index.json of the layout is no JSON"),
        (written("index.json", "{}"), "an index of the layout has no list of manifests"),
        (written("index.json", '{"manifests": []}'), "the layout holds no image: its index names no manifest of one"),
        (
            written("index.json", '{"manifests": ["x"]}'),
            "a manifest of the layout is named by 'x', which has no SHA-256",
        ),
        (
            written("index.json", '{"manifests": [{"digest": "sha256:../../x", "size": 1}]}'),
            "which has no SHA-256 digest",
        ),
        (spoiled("manifest", lambda path: path.write_bytes(b"{}")), "of the layout has other content, with the digest"),
        (spoiled("layer", lambda path: path.write_bytes(b"x")), "it was damaged; make the layout anew"),
        (spoiled("manifest", os.unlink), "is not in the layout: make it anew, with all blobs"),
        (spoiled("config", os.unlink), "configuration sha256:"),
        (spoiled("layer", os.unlink), "layer sha256:"),
    ],
)
def test_what_is_no_whole_layout_is_refused(layout: Layout, spoil: Callable[[Layout], object], complaint: str) -> None:
    layout.index([layout.image({"server": b"x"})])
    spoil(layout)
    refused(layout, complaint)


def test_sizes_must_be_those_that_are_said(layout: Layout) -> None:
    there = layout.image({"server": b"x"})
    layout.index([{**there, "size": 7}])
    refused(layout, f"manifest {there['digest']} has {there['size']} bytes, and the layout says 7")


def test_a_document_may_not_be_huge(layout: Layout) -> None:
    there = layout.blob(b" " * (oci.LARGEST_DOCUMENT + 1), MANIFEST)
    layout.index([there])
    refused(layout, f"larger than {oci.LARGEST_DOCUMENT} bytes")


def test_indexes_end_somewhere(layout: Layout) -> None:
    inner = layout.image({"server": b"x"})
    for _depth in range(oci.DEEPEST + 2):
        inner = layout.document({"schemaVersion": 2, "manifests": [inner]}, INDEX)
    layout.index([inner])
    refused(layout, f"lies deeper than {oci.DEEPEST}")


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"os": "windows", "architecture": "amd64"}, "is made for windows/amd64: Convoy runs images for linux"),
        ({"os": "linux"}, "is made for linux/no architecture"),
        ({}, "is made for no system/no architecture"),
    ],
)
def test_images_of_another_system_are_refused(layout: Layout, config: dict[str, Any], complaint: str) -> None:
    manifest = {"config": layout.document(config, "application/vnd.oci.image.config.v1+json"), "layers": []}
    layout.index([layout.document(manifest, MANIFEST)])
    refused(layout, complaint)


def test_a_manifest_of_something_else_is_refused(layout: Layout) -> None:
    layout.index([layout.document({"artifactType": "text/plain"}, MANIFEST)])
    refused(layout, "has no config and layers: not an image")


def test_a_directory_is_packed_the_same_way_every_time(layout: Layout, tmp_path: Path) -> None:
    layout.index([layout.image({"server": b"x"})])
    for number in (1, 2):
        os.utime(layout.directory / "index.json", (number, number))
        (layout.directory / "index.json").chmod(0o600 + number * 0o20)
        oci.pack(layout.directory, tmp_path / f"{number}.tar")
    made = [(tmp_path / f"{number}.tar").read_bytes() for number in (1, 2)]
    assert hashlib.sha256(made[0]).digest() == hashlib.sha256(made[1]).digest()
    contents = examine(tmp_path / "1.tar", "tar", tmp_path / "trial")
    assert oci.read(tmp_path / "trial", contents.files) == read(layout)
    with tarfile.open(tmp_path / "1.tar") as archive:
        assert {member.mode for member in archive} == {0o644}


def test_a_directory_that_is_no_layout_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(NotAnImageError, match=r"this is no OCI layout: the directory .* has no file oci-layout"):
        oci.pack(tmp_path, tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()
