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
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
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
    DepotError,
    remove,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact

CHUNK = 4 * 2**20  # bytes that are asked for at once, and lost at most when a connection breaks
ATTEMPTS = 5
SILENCE = 60  # seconds without a byte after which a server counts as away
LARGEST = 64 * 2**20  # bytes of a manifest, a signature, a record

# What may lie in the directories of a release: names that a server tells are not taken for paths.
_LISTED = {
    "signatures": re.compile(r"[0-9a-f]{64}\.sig"),
    "provenance": re.compile(r"[0-9a-f]{64}\.json"),
    "states": re.compile(r"\d{6}\.json"),
}
_FAILURES = (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("paramiko", "SSHException"))


class RemoteDepotError(DepotError):
    """The place where the depot is cannot be read."""

    reason: ClassVar[str] = "depot-remote"


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
        if parts.password is not None:
            raise RemoteDepotError("depot_url holds a password, which would be told: put it into depot_options")

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
            files = {"manifest.json": self._read(f"{release}/manifest.json")}
        except FileNotFoundError:
            raise self._unknown(component, version) from None
        try:
            files[FIRST_SIGNATURE] = self._read(f"{release}/{FIRST_SIGNATURE}")
            for directory, expected in _LISTED.items():
                for name in self._names(f"{release}/{directory}"):
                    if expected.fullmatch(name):
                        files[f"{directory}/{name}"] = self._read(f"{release}/{directory}/{name}")
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
        versions = self._names(f"components/{component}")
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
                chunk: bytes = self._ask("cat_file", path, start=done, end=end)
                if len(chunk) == artifact.size > end - done:  # the server does not know of ranges
                    done = stream.seek(0)
                elif not 0 < len(chunk) <= end - done:
                    raise RemoteDepotError(
                        f"{self.url}/{path} gave {len(chunk)} bytes where {end - done} from byte {done} on were asked "
                        "for: is it what was published?"
                    )
                done += stream.write(chunk)
                stream.flush()

    def _read(self, path: str) -> bytes:
        size = self._ask("info", path)["size"]
        if size is not None and size > LARGEST:
            raise RemoteDepotError(
                f"{self.url}/{path} has {size} bytes, which nothing but an artifact has: is this a depot?"
            )
        content: bytes = self._ask("cat_file", path)
        return content

    def _names(self, path: str) -> list[str]:
        """What is in the directory; nothing where there is none."""
        try:
            listed = self._ask("ls", path + "/", detail=False)
        except FileNotFoundError:
            return []
        return sorted({name.rstrip("/").rpartition("/")[2] for name in listed})

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer of fsspec's file system, asked again after a growing pause where that may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                filesystem, root = self._place()
                return getattr(filesystem, method)(f"{root.rstrip('/')}/{path}", **arguments)
            except FileNotFoundError:
                raise
            except _failures() as error:
                if attempt == ATTEMPTS or _is_final(error):
                    raise RemoteDepotError(
                        f"the depot {self.url} cannot be read (attempt {attempt}): {str(error) or repr(error)}. What "
                        "came so far is kept: run it again when that is mended"
                    ) from error
                self.sleep(2.0 ** (attempt - 1))

    def _place(self) -> tuple[Any, str]:
        """What reads the URL, and what it calls it. The library is imported here, and not before."""
        scheme = urlsplit(self.url).scheme
        try:
            import fsspec

            found: tuple[Any, str] = fsspec.core.url_to_fs(self.url, **{**_patience(scheme), **self.options})
        except ImportError as error:
            extra = {"http": "http", "https": "http", "s3": "s3", "sftp": "sftp", "ssh": "sftp"}.get(scheme)
            package = f"fsspec[{extra}]" if extra else "fsspec"
            raise RemoteDepotError(
                f"depot_url needs Python packages on the controller ({error}): pip install '{package}'"
            ) from error
        except (ValueError, TypeError) as error:
            raise RemoteDepotError(f"depot_url: fsspec cannot use {scheme}:// with depot_options: {error}") from error
        return found


def _mirror(depot: Depot, release: Path, files: Mapping[str, bytes]) -> None:
    """Let the release here be what was read, no more and no less."""
    for path in [path for path in release.rglob("*") if path.is_file()]:
        if str(path.relative_to(release)) not in files:
            remove(path)
    depot.files.make_directory(release.parent)
    depot.files.make_directory(release)
    for name, content in files.items():
        depot.files.write(release / name, content)


def _is_final(error: Exception) -> bool:
    """Whether the answer would be the same again: no right to read, or a status of HTTP that says so."""
    status = getattr(error, "status", 0)
    return isinstance(error, PermissionError) or (400 <= status < 500 and status not in (408, 429))


def _patience(scheme: str) -> dict[str, Any]:
    """Options that let a server not hang for ever."""
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    return {"timeout": ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)}


def _failures() -> tuple[type[Exception], ...]:
    """What a place may fail with; of the libraries below fsspec only what those raise that are in use."""
    own = [getattr(sys.modules[module], name) for module, name in _FAILURES if sys.modules.get(module)]
    return (OSError, EOFError, *own)
