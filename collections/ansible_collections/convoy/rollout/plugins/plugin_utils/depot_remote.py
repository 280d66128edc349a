# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A depot that is elsewhere (HTTP(S), S3, SFTP, whatever fsspec reads), brought here to be read; never written to.

What a deployment needs of a release is copied to a directory that is a depot in form, and verified there as in any
other. Artifacts are kept by their digests; manifest, signatures and records are asked for every time.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.plugin_utils import manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    Depot,
    Resolved,
    Trust,
    UnknownReleaseError,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import (
    FIRST_SIGNATURE,
    DamagedReleaseError,
    remove,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_place import (
    Place,
    RemoteDepotError,
    refuse_password,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact

__all__ = ["RemoteDepot", "RemoteDepotError"]

CHUNK = 4 * 2**20  # bytes that are asked for at once, and lost at most when a connection breaks

# What may lie in the directories of a release: names that a server tells are not taken for paths.
_LISTED = {
    "signatures": re.compile(r"[0-9a-f]{64}\.sig"),
    "provenance": re.compile(r"[0-9a-f]{64}\.json"),
    "states": re.compile(r"\d{6}\.json"),
}


@dataclass(frozen=True)
class RemoteDepot:
    """The depot at a URL. ``options`` are those of fsspec's filesystem; below ``cache`` lies what was brought."""

    url: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.scheme or parts.scheme in ("file", "local"):
            raise RemoteDepotError(
                f"depot_url: '{self.url}' names no place elsewhere such as https://releases.example/depot: for a "
                "directory there is depot_path"
            )
        refuse_password(self.url)

    def resolve(
        self, component: str, version: str, trust: Trust, *, now: datetime, requires_promotion: bool = False
    ) -> Resolved:
        """The release, verified as Depot.resolve() does; its artifact is fetched when all else has been found good.

        Runs that need the same wait for each other, so that it is fetched once.
        """
        manifest.check_name(component, version)
        if requires_promotion:
            self._refuse_forgeable_records()
        files = self._read_release(component, version)
        depot = Depot(self.cache / hashlib.sha256(self.url.encode()).hexdigest()[:16])
        with depot.failures_told(), depot.files.locked():
            _mirror(depot, depot.files.release(component, version), files)
            resolved = depot.admit(component, version, trust, now=now, requires_promotion=requires_promotion)
            artifact = resolved.manifest.artifact
            if not depot.has_blob(artifact):
                part = depot.files.root / "incoming" / f"{artifact.sha256}.part"
                self._fetch(artifact, part)
                depot.files.place(part, depot.files.blob(artifact.sha256))
        return resolved

    @cached_property
    def _place(self) -> Place:
        return Place(self.url, self.options, self.sleep)

    def _refuse_forgeable_records(self) -> None:
        """Promotions are not signed: who is on the way of plain HTTP could make one up."""
        parts = urlsplit(self.url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise RemoteDepotError(
                f"depot_url: whoever is on the way to {self.url} could make up a promotion, and this environment "
                "deploys only what is promoted (environment_requires_promotion): use https"
            )

    def _read_release(self, component: str, version: str) -> dict[str, bytes]:
        """All that is known of a release but its SBOM, by its path below the release."""
        release = f"components/{component}/{version}"
        try:
            files = {"manifest.json": self._place.read(f"{release}/manifest.json")}
        except FileNotFoundError:
            raise self._unknown(component, version) from None
        try:
            files[FIRST_SIGNATURE] = self._place.read(f"{release}/{FIRST_SIGNATURE}")
            for directory, expected in _LISTED.items():
                for name in self._place.names(f"{release}/{directory}"):
                    if expected.fullmatch(name):
                        files[f"{directory}/{name}"] = self._place.read(f"{release}/{directory}/{name}")
        except FileNotFoundError as error:
            raise DamagedReleaseError(
                f"{component} {version} is not whole at {self.url} ({error}): wait until it is copied, or copy it again"
            ) from error
        if not any(name.startswith("states/") for name in files):
            raise RemoteDepotError(
                f"{self.url} shows no record of the states of {component} {version}, so that it may be retired without "
                "being known to be: a web server has to list directories (nginx: autoindex on)"
            )
        return files

    def _unknown(self, component: str, version: str) -> UnknownReleaseError:
        versions = self._place.names(f"components/{component}")
        return UnknownReleaseError(
            f"the depot {self.url} has no {component} {version}: publish it first, and copy it there; "
            f"it has {', '.join(versions) or 'none yet'}{did_you_mean(version, versions)}"
        )

    def _fetch(self, artifact: Artifact, part: Path) -> None:
        """Bring the artifact, from where an interrupted attempt ended; once more from its beginning if that was bad."""
        resumed = part.exists()
        try:
            self._fetch_rest(artifact, part)
        except FileNotFoundError as error:
            raise DamagedReleaseError(
                f"the artifact {artifact.sha256} is missing at {self.url}: copy blobs before components"
            ) from error
        digest = hashlib.sha256()
        with part.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() == artifact.sha256:
            return
        part.unlink()
        if resumed:
            self._fetch(artifact, part)
            return
        raise DamagedReleaseError(
            f"the artifact at {self.url} is not the one of its name: its SHA-256 is {digest.hexdigest()}, and not "
            f"{artifact.sha256}; copy it there again"
        )

    def _fetch_rest(self, artifact: Artifact, part: Path) -> None:
        path = f"blobs/sha256/{artifact.sha256}"
        with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as stream:
            done = stream.seek(0, os.SEEK_END)
            while done < artifact.size:
                end = min(done + CHUNK, artifact.size)
                chunk: bytes = self._place.ask("cat_file", path, start=done, end=end)
                if len(chunk) == artifact.size > end - done:  # the server does not know of ranges
                    done = stream.seek(0)
                elif not 0 < len(chunk) <= end - done:
                    raise RemoteDepotError(
                        f"{self.url}/{path} gave {len(chunk)} bytes where {end - done} from byte {done} on were asked "
                        "for: is it what was published?"
                    )
                done += stream.write(chunk)
                stream.flush()


def _mirror(depot: Depot, release: Path, files: Mapping[str, bytes]) -> None:
    """Let the release here be what was read, no more and no less."""
    for path in [path for path in release.rglob("*") if path.is_file()]:
        if str(path.relative_to(release)) not in files:
            remove(path)
    depot.files.make_directory(release.parent)
    depot.files.make_directory(release)
    for name, content in files.items():
        depot.files.write(release / name, content)
