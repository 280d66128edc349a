# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI layouts, made without any tool: images of a few files, alone or several of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


class Layout:
    """A layout in a directory, which grows by images."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def blob(self, content: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
        """Put a blob there; its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.path(f"sha256:{digest}").write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **fields}

    def document(self, content: Mapping[str, Any], media_type: str, **fields: Any) -> dict[str, Any]:
        """Put JSON there; its descriptor."""
        return self.blob(json.dumps(content).encode(), media_type, **fields)

    def image(
        self,
        files: Mapping[str, bytes],
        config: Mapping[str, Any] | None = None,
        architecture: str = "amd64",
        **fields: Any,
    ) -> dict[str, Any]:
        """Put an image there, of one layer; the descriptor of its manifest."""
        layer = packed(files)
        described = {
            "architecture": architecture,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.document(described, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")],
        }
        return self.document(manifest, MANIFEST, **fields)

    def index(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Say which of them it is a layout of."""
        content = {"schemaVersion": 2, "manifests": list(manifests)}
        (self.directory / "index.json").write_text(json.dumps(content))

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.directory / "blobs" / digest.replace(":", "/")

    def read(self, digest: str) -> dict[str, Any]:
        """A blob that is JSON."""
        found: dict[str, Any] = json.loads(self.path(digest).read_bytes())
        return found


def packed(files: Mapping[str, bytes]) -> bytes:
    """A layer of programs."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()
