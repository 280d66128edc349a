# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot: where releases wait to be deployed.

blobs/sha256/<digest>                          artifacts, named for their content
components/<component>/<version>/manifest.json      what was published; appears whole or not at all
components/<component>/<version>/manifest.json.sig  its signature
serials/<component>                            the highest serial that was given out
incoming/                                      what is being published, or was when something died
lock                                           held while something is published

Nothing that was published changes any more. What a reader gets has been verified: the
signature over the manifest, and the artifact against the manifest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils import durable, record
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.plugin_utils import manifest, terms
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import Contents, examine, format_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import (
    Artifact,
    Manifest,
    ManifestError,
    format_time,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import Identity, Signer, Verifier

_DIRECTORIES = ("blobs", "blobs/sha256", "components", "serials", "incoming")
_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640
_FORBIDDEN = 0o027  # to write for the group, anything for others


class DepotError(ConvoyError):
    """The depot refuses. Each subclass is one reason."""

    reason: ClassVar[str] = "depot"


class UnsafeDepotError(DepotError):
    """Others may write in the depot, or read it."""

    reason: ClassVar[str] = "depot-unsafe"


class UnknownReleaseError(DepotError):
    """The depot has no such component, or not in this version."""

    reason: ClassVar[str] = "release-unknown"


class VersionTakenError(DepotError):
    """The version was published before, and was something else."""

    reason: ClassVar[str] = "version-taken"


class DamagedReleaseError(DepotError):
    """Something of a published release is missing, or not what its manifest says."""

    reason: ClassVar[str] = "release-damaged"


@dataclass(frozen=True)
class Publication:
    """What is to be published, and for whom. Raises ManifestError for names that cannot be."""

    component: str
    version: str
    artifact: Path
    audience: tuple[str, ...] = ()
    expires: datetime | None = None
    signer: str | None = None

    def __post_init__(self) -> None:
        manifest.check_name(self.component, self.version)
        manifest.check_audience(self.audience)


@dataclass(frozen=True)
class Published:
    """What the depot has now, the manifest at ``path``. ``changed`` is False when it had all of it before."""

    manifest: Manifest
    path: Path
    artifact: Path
    changed: bool


@dataclass(frozen=True)
class Resolved:
    """A verified release. ``digest`` is the SHA-256 of the manifest at ``path``, which stands for all of it."""

    manifest: Manifest
    path: Path
    artifact: Path
    signer: Identity
    digest: str


class Depot:
    """A depot in a directory. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def publish(self, publication: Publication, signer: Signer, now: datetime) -> Published:
        """Make the release available under its version; signs its manifest.

        Publishing the same again changes nothing, but for an artifact that is gone or damaged,
        which is put in place again. Needs room for the unpacked release meanwhile: it is unpacked
        once, by the code that hosts unpack with. Raises ConvoyError; nothing is visible then.
        """
        with self._failures_told(), self._locked(), self._workspace() as workspace:
            archive_format = format_of(publication.artifact)
            archive = workspace / "artifact"
            shutil.copyfile(publication.artifact, archive)
            contents = examine(archive, archive_format, workspace / "trial")
            existing = self._existing(publication, contents)
            if existing is not None:
                return self._published(existing, changed=self._place_blob(archive, contents.artifact))
            made = self._manifest_of(publication, contents, now)
            signature = signer.sign(made.to_json())
            self._place_blob(archive, contents.artifact)
            self._place_manifest(made, signature, workspace / "manifest")
            return self._published(made, changed=True)

    def preview(self, publication: Publication, now: datetime) -> Published:
        """What publish() would do; raises what it would, but for what a signature needs."""
        with self._failures_told(), tempfile.TemporaryDirectory(prefix="convoy-") as workspace:
            if self.path.exists():
                self._check_private()
            archive_format = format_of(publication.artifact)
            contents = examine(publication.artifact, archive_format, Path(workspace) / "trial")
            existing = self._existing(publication, contents)
            if existing is not None:
                return self._published(existing, changed=not self._has_blob(contents.artifact))
            return self._published(self._manifest_of(publication, contents, now), changed=True)

    def resolve(
        self,
        component: str,
        version: str,
        verifier: Verifier,
        *,
        environment: str,
        now: datetime,
        minimum_serial: int = 0,
    ) -> Resolved:
        """The release, verified: signature, component, version, audience, expiry, serial and artifact.

        ``minimum_serial`` is the highest serial that was seen of the component where going back
        is not meant, 0 where it is. Raises a subclass of ConvoyError of its own for each refusal.
        """
        manifest.check_name(component, version)
        with self._failures_told():
            self._check_known(component, version)
            content, signature = self._read_release(component, version)
            identity = verifier.verify(content, signature)
            found = manifest.from_json(content)
            terms.check_place(found, component, version, identity)
            terms.check_terms(found, environment, now, minimum_serial)
            self._check_blob(found)
        digest = hashlib.sha256(content).hexdigest()
        return Resolved(found, self._manifest_path(component, version), self._blob(found.artifact), identity, digest)

    def versions(self, component: str) -> list[str]:
        """The component's versions in the order of their publication. Nothing is verified."""
        published = sorted(self._manifests(component), key=lambda found: found.serial)
        return [found.version for found in published]

    # where things are

    def _blob(self, artifact: Artifact) -> Path:
        return self.path / "blobs" / "sha256" / artifact.sha256

    def _release(self, component: str, version: str) -> Path:
        return self.path / "components" / component / version

    def _manifest_path(self, component: str, version: str) -> Path:
        return self._release(component, version) / "manifest.json"

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DepotError(f"the depot {self.path} cannot be used: {error}") from error

    # reading

    def _check_private(self) -> None:
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & _FORBIDDEN:
            raise UnsafeDepotError(
                f"the depot {self.path} has mode {mode:04o}: others could read releases or put their own there. "
                f"Look at what is in it, then: chmod {_DIRECTORY_MODE:04o} {shlex.quote(str(self.path))}"
            )

    def _read_release(self, component: str, version: str) -> tuple[bytes, bytes]:
        """A manifest and its signature, nothing of it verified."""
        path = self._manifest_path(component, version)
        try:
            return path.read_bytes(), path.with_suffix(".json.sig").read_bytes()
        except OSError as error:
            raise DamagedReleaseError(
                f"{component} {version}: {error.filename}: {error.strerror}. Restore it from a backup, or remove "
                f"{path.parent} and publish it again"
            ) from error

    def _read_manifest(self, component: str, version: str) -> Manifest:
        content, _signature = self._read_release(component, version)
        try:
            return manifest.from_json(content)
        except ManifestError as error:
            raise DamagedReleaseError(f"{self._manifest_path(component, version)}: {error}") from error

    def _manifests(self, component: str) -> list[Manifest]:
        return [self._read_manifest(component, version) for version in _listed(self.path / "components" / component)]

    def _check_known(self, component: str, version: str) -> None:
        if not self.path.is_dir():
            raise DepotError(f"there is no depot at {self.path}: set depot_path, or publish a release first")
        self._check_private()
        if not self._release(component, version).is_dir():
            raise self._unknown(component, version)

    def _unknown(self, component: str, version: str) -> UnknownReleaseError:
        components = _listed(self.path / "components")
        if component not in components:
            return UnknownReleaseError(
                f"the depot {self.path} has no component '{component}'; "
                f"it has {', '.join(components) or 'none yet'}{did_you_mean(component, components)}"
            )
        versions = self.versions(component)
        return UnknownReleaseError(
            f"the depot {self.path} has no {component} {version}: publish it first; "
            f"it has {', '.join(versions) or 'none yet'}{did_you_mean(version, versions)}"
        )

    def _has_blob(self, artifact: Artifact) -> bool:
        path = self._blob(artifact)
        return path.is_file() and record.digest_of(str(path)) == artifact.sha256

    def _check_blob(self, found: Manifest) -> None:
        path = self._blob(found.artifact)
        what = f"the artifact of {found.component} {found.version}, {path},"
        if not path.is_file():
            raise DamagedReleaseError(f"{what} is missing; publish it again")
        size = path.stat().st_size
        if size != found.artifact.size:
            raise DamagedReleaseError(f"{what} has {size} bytes, signed were {found.artifact.size}; publish it again")
        digest = record.digest_of(str(path))
        if digest != found.artifact.sha256:
            raise DamagedReleaseError(f"{what} was changed: its SHA-256 is {digest}; publish it again")

    # publishing

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.make_directory(str(self.path), _DIRECTORY_MODE)
        self._check_private()
        for name in _DIRECTORIES:
            durable.make_directory(str(self.path / name), _DIRECTORY_MODE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._prepare()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        """A directory for this publication, the only one: what a killed one left there is removed."""
        incoming = self.path / "incoming"
        for left in incoming.iterdir():
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=incoming) as workspace:
            yield Path(workspace)

    def _existing(self, publication: Publication, contents: Contents) -> Manifest | None:
        """The manifest when the same was published before, None when nothing was."""
        if not self._release(publication.component, publication.version).is_dir():
            return None
        found = self._read_manifest(publication.component, publication.version)
        difference = _difference(found, publication, contents)
        if difference:
            raise VersionTakenError(
                f"{publication.component} {publication.version} is in the depot already, with {difference}. "
                "A version never changes: publish this as a new one"
            )
        return found

    def _manifest_of(self, publication: Publication, contents: Contents, now: datetime) -> Manifest:
        return Manifest(
            component=publication.component,
            version=publication.version,
            serial=self._last_serial(publication.component) + 1,
            created=now.replace(microsecond=0),
            artifact=contents.artifact,
            files=contents.files,
            audience=publication.audience,
            expires=publication.expires,
            signer=publication.signer,
        )

    def _last_serial(self, component: str) -> int:
        """The highest serial given out, also to a version that was removed since."""
        counter = self.path / "serials" / component
        given = counter.read_text(encoding="utf-8") if counter.exists() else "0"
        if not given.isdigit():
            raise DepotError(f"{counter} must hold the last serial that was given out, not {given[:40]!r}: correct it")
        return max([int(given), *(found.serial for found in self._manifests(component))])

    def _place_blob(self, archive: Path, artifact: Artifact) -> bool:
        """Whether the artifact had to be put in place. ``archive`` is moved."""
        if self._has_blob(artifact):
            return False
        with archive.open("rb") as stream:
            os.fchmod(stream.fileno(), _FILE_MODE)
            os.fsync(stream.fileno())
        durable.rename(str(archive), str(self._blob(artifact)))
        return True

    def _place_manifest(self, made: Manifest, signature: bytes, directory: Path) -> None:
        durable.write_file(str(self.path / "serials" / made.component), str(made.serial).encode(), _FILE_MODE)
        durable.make_directory(str(directory), _DIRECTORY_MODE)
        durable.write_file(str(directory / "manifest.json"), made.to_json(), _FILE_MODE)
        durable.write_file(str(directory / "manifest.json.sig"), signature, _FILE_MODE)
        destination = self._release(made.component, made.version)
        durable.make_directory(str(destination.parent), _DIRECTORY_MODE)
        durable.rename(str(directory), str(destination))

    def _published(self, found: Manifest, changed: bool) -> Published:
        path = self._manifest_path(found.component, found.version)
        return Published(found, path, self._blob(found.artifact), changed)


def _listed(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


def _difference(found: Manifest, publication: Publication, contents: Contents) -> str:
    """What of a published release is not as it is to be published, empty when nothing is."""
    if found.artifact != contents.artifact:
        return f"other content (SHA-256 {found.artifact.sha256}, not {contents.artifact.sha256})"
    if found.audience != publication.audience:
        return f"another audience ({', '.join(found.audience) or 'all environments'})"
    if found.expires != publication.expires:
        return f"another expiry ({format_time(found.expires) if found.expires else 'none'})"
    if found.signer != publication.signer:
        return f"another signer ({found.signer or 'none named'})"
    return ""
