# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot: where releases wait to be deployed. Its files are described in ``depot_files``.

What a reader gets has been verified: the signatures over the manifest, and the artifact against the manifest.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.module_utils import durable, record
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_states, manifest, oci, terms
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import Contents, examine, format_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.attestation import builder_of, verifier_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_attached import (
    Attached,
    check_envelope,
    read_attached,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import (
    FIRST_SIGNATURE,
    DamagedReleaseError,
    DepotError,
    DepotFiles,
    UnsafeDepotError,
    read_up_to,
    record_name,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import (
    Change,
    Standing,
    State,
    standing_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import (
    Artifact,
    Manifest,
    ManifestError,
    format_time,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import Statement, kept_statements
from ansible_collections.convoy.rollout.plugins.plugin_utils.signers import signers_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import (
    Identity,
    MalformedSignatureError,
    SignatureRefusedError,
    Signer,
    SigningError,
    SshVerifier,
    Verifier,
    parse_signature,
)

__all__ = ["DamagedReleaseError", "Depot", "DepotError", "Publication", "Published", "Resolved", "UnsafeDepotError"]


class UnknownReleaseError(DepotError):
    """The depot has no such component, or not in this version."""

    reason: ClassVar[str] = "release-unknown"


class VersionTakenError(DepotError):
    """The version was published before, and was something else."""

    reason: ClassVar[str] = "version-taken"


class ReadOnlyDepotError(DepotError):
    """Something needs the directory of the depot, and the depot is elsewhere."""

    reason: ClassVar[str] = "depot-read-only"


def require_directory(asked: Mapping[str, Any]) -> None:
    """Raise ReadOnlyDepotError for a depot at a URL, SpecError where it was not said which directory it is."""
    if asked.get("depot_url"):
        raise ReadOnlyDepotError(
            "depot_url is set, and only deployments read from there: what sees to a depot needs its directory, where "
            "locks and renames keep it whole. Run this where that is, with depot_path and without depot_url, and bring "
            "it to the URL afterwards with depot.yml -e depot_do=push"
        )
    if not asked.get("depot"):
        raise SpecError("depot_path is not set: give it with -e or in the inventory's group_vars")


@dataclass(frozen=True)
class Publication:
    """What is to be published, and for whom. Raises ManifestError for names that cannot be.

    With ``is_image`` the artifact is an OCI layout, a directory or an archive, and ``image`` says which of its images.
    """

    component: str
    version: str
    artifact: Path
    audience: tuple[str, ...] = ()
    expires: datetime | None = None
    signer: str | None = None
    sbom: Path | None = None
    provenance: Path | None = None
    is_image: bool = False
    image: str | None = None

    def __post_init__(self) -> None:
        manifest.check_name(self.component, self.version)
        manifest.check_audience(self.audience)


@dataclass(frozen=True)
class Trust:
    """Whom an environment trusts: its signers (None: it was not said which), and how many of them have to sign.

    ``builders`` verifies the provenance that it demands; None where it demands none.
    """

    environment: str = ""
    verifier: Verifier | None = None
    required: int = 1
    builders: Verifier | None = None


TRUST_SPEC: dict[str, Any] = {
    "allowed_signers": {"type": "path"},
    "revoked_signers": {"type": "path"},
    "required_signers": {"type": "int", "default": 1},
    "required_provenance": {
        "type": "dict",
        "options": {
            "keys": {"type": "list", "elements": "path", "required": True, "no_log": False},
            "builders": {"type": "list", "elements": "str", "required": True},
            "sources": {"type": "list", "elements": "str", "required": True},
        },
    },
}


def trust_of(asked: Mapping[str, Any]) -> Trust:
    """Whom an environment trusts, by the options of TRUST_SPEC, which its actions have in common."""
    allowed, revoked = asked["allowed_signers"], asked["revoked_signers"]
    verifier = SshVerifier(Path(allowed), Path(revoked) if revoked else None) if allowed else None
    return Trust(asked["environment"], verifier, asked["required_signers"], verifier_of(asked["required_provenance"]))


@dataclass(frozen=True)
class Author:
    """Who changes something, when and why, as it is recorded."""

    by: str
    at: datetime
    why: str

    def change(self, state: State, digest: str, environment: str, why: str = "") -> Change:
        """The record of a change of state of the manifest with this digest."""
        return Change(state, self.at.replace(microsecond=0), self.by, why or self.why, digest, environment)


@dataclass(frozen=True)
class Published:
    """What the depot has now, the manifest at ``path``. ``changed`` is False when it had all of it before.

    ``signed``: whether a signature was added to those of a release that was there; ``added``: what else was put beside
    it. ``standing`` is where the release stands; None in a preview of one that is not there yet, since nothing was
    signed.
    """

    manifest: Manifest
    path: Path
    artifact: Path
    changed: bool
    standing: Standing | None = None
    signed: bool = False
    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A verified release. ``digest`` is the SHA-256 of the manifest at ``path``, which stands for all of it.

    ``builder`` is who built it, where the environment demands provenance.
    """

    manifest: Manifest
    path: Path
    artifact: Path
    signers: tuple[Identity, ...]
    digest: str
    standing: Standing
    builder: Identity | None = None

    @property
    def signer(self) -> Identity:
        """Who signed it, the publisher if the environment trusts them."""
        return self.signers[0]


@dataclass(frozen=True)
class Item:
    """A release as it lies in the depot, nothing of it verified. ``trouble`` says why it cannot be read, if so."""

    component: str
    version: str
    manifest: Manifest | None = None
    standing: Standing = field(default_factory=Standing)
    fingerprints: tuple[str, ...] = ()
    has_artifact: bool = False
    trouble: str = ""


class Depot:
    """A depot in a directory. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.files = DepotFiles(self.path)

    def publish(
        self, publication: Publication, signer: Signer, now: datetime, trust: Trust | None = None, by: str = ""
    ) -> Published:
        """Make the release available under its version; signs its manifest.

        It is verified where the signers that ``trust`` names have signed it, else in quarantine. Publishing the same
        again changes nothing, but for an artifact or SBOM that is gone or damaged, which is put in place again, a
        signature or provenance, which is added where it is new, and a quarantine that has become needless. Needs room
        for the unpacked release meanwhile: it is unpacked once, by the code that hosts unpack with. Raises ConvoyError;
        nothing is visible then.
        """
        trust, author = trust or Trust(), Author(by, now, "")
        with self.failures_told(), self.files.locked(), self.files.workspace() as workspace:
            archive = workspace / "artifact"
            contents = _contents(publication, archive, workspace / "trial")
            attached = read_attached(publication.sbom, publication.provenance, contents.artifact.sha256)
            existing = self._existing(publication, contents, attached)
            if existing is not None:
                placed = self._place_blob(archive, contents.artifact)
                added = self._place_attached(self.files.release(existing.component, existing.version), attached)
                return self._complete(existing, placed, added, signer, trust, author)
            made = self._manifest_of(publication, contents, attached, now)
            content = made.to_json()
            signature = signer.sign(content)
            first = self._judged(made, content, [signature], attached.envelopes, trust, author)
            self._place_blob(archive, contents.artifact)
            self._place_manifest(made, signature, attached, first, workspace / "manifest")
            self._note(trust.environment)
            return self._published(made, changed=True, standing=Standing((first,)))

    def preview(self, publication: Publication, now: datetime, fingerprint: str | None = None) -> Published:
        """What publish() would do; raises what it would, but for what a signature needs.

        ``fingerprint`` is that of the key that would sign; None where it cannot be told.
        """
        with self.failures_told(), tempfile.TemporaryDirectory(prefix="convoy-") as workspace:
            if self.path.exists():
                self.files.check_private()
            given = publication.artifact
            archive = given if given.is_file() else Path(workspace) / "artifact"
            contents = _contents(publication, archive, Path(workspace) / "trial")
            attached = read_attached(publication.sbom, publication.provenance, contents.artifact.sha256)
            existing = self._existing(publication, contents, attached)
            if existing is None:
                return self._published(self._manifest_of(publication, contents, attached, now), changed=True)
            signatures = self.files.read_release(existing.component, existing.version)[1]
            signs = fingerprint is not None and fingerprint not in _fingerprints(signatures.values())
            standing = self.standing(existing.component, existing.version)
            added = tuple(self._unplaced(self.files.release(existing.component, existing.version), attached))
            changed = signs or bool(added) or not self.has_blob(contents.artifact)
            return self._published(existing, changed, standing, signs, added)

    def resolve(
        self,
        component: str,
        version: str,
        trust: Trust,
        *,
        now: datetime,
        minimum_serial: int = 0,
        requires_promotion: bool = False,
    ) -> Resolved:
        """The release, verified: all that admit() asks for, and the artifact."""
        resolved = self.admit(
            component, version, trust, now=now, minimum_serial=minimum_serial, requires_promotion=requires_promotion
        )
        with self.failures_told():
            self.check_blob(resolved.manifest)
        return resolved

    def admit(
        self,
        component: str,
        version: str,
        trust: Trust,
        *,
        now: datetime,
        minimum_serial: int = 0,
        requires_promotion: bool = False,
    ) -> Resolved:
        """The release, verified: signatures, provenance, component, version, audience, expiry, serial and state.

        ``minimum_serial`` is the highest serial that was seen of the component where going back
        is not meant, 0 where it is. Raises a subclass of ConvoyError of its own for each refusal.
        """
        manifest.check_name(component, version)
        with self.failures_told():
            self._check_known(component, version)
            resolved = self.inspect(component, version, trust)
            what, found = f"{component} {version}", resolved.manifest
            depot_states.refuse_retired(what, resolved.standing, "deployed")
            terms.check_terms(found, trust.environment, now, minimum_serial)
            if requires_promotion:
                depot_states.refuse_unpromoted(what, version, resolved.standing, trust.environment)
        return resolved

    def promote(self, component: str, version: str, trust: Trust, author: Author, dry: bool = False) -> bool:
        """Let the environment of ``trust`` have the release, which must be verified and for it; whether that is new."""
        manifest.check_name(component, version)
        manifest.check_audience([trust.environment])
        if trust.verifier is None:
            raise SigningError("environment_allowed_signers is not set: a release is promoted for those who trust it")
        with self._changing(component, version, dry):
            what, standing = f"{component} {version}", self.standing(component, version)
            depot_states.refuse_retired(what, standing, "promoted")
            depot_states.refuse_unverified(what, standing)
            resolved = self.inspect(component, version, trust)
            terms.check_terms(resolved.manifest, trust.environment, author.at, 0)
            self.check_blob(resolved.manifest)
            self.read_sbom(resolved.manifest)
            if trust.environment in standing.promoted:
                return False
            if not dry:
                change = author.change(State.PROMOTED, resolved.digest, trust.environment)
                self.files.append_change(component, version, change)
                self._note(trust.environment)
            return True

    def retire(self, component: str, version: str, author: Author, environment: str, dry: bool = False) -> bool:
        """Let the release not be deployed any more, anywhere; whether that is new."""
        manifest.check_name(component, version)
        with self._changing(component, version, dry):
            standing = self.standing(component, version)
            if standing.retired:
                return False
            if not dry:
                content = self.files.read_release(component, version)[0]
                change = author.change(State.RETIRED, _sha256(content), environment)
                self.files.append_change(component, version, change)
            return True

    def verify_quarantined(self, component: str, version: str, trust: Trust, author: Author) -> bool:
        """Let a release out of quarantine that the signers of ``trust`` have signed, whole; whether it was in it."""
        with self._changing(component, version, dry=False):
            if self.standing(component, version).verified:
                return False
            resolved = self.inspect(component, version, trust)
            self.check_blob(resolved.manifest)
            self.files.append_change(component, version, _verified(resolved, trust, author))
            return True

    def note(self, environment: str) -> None:
        """Note that the environment deploys from here, where this run may write in the depot."""
        try:
            with self.failures_told():
                self._note(environment)
        except DepotError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise

    def versions(self, component: str) -> list[str]:
        """The component's versions in the order of their publication. Nothing is verified."""
        published = sorted(self._manifests(component), key=lambda found: found.serial)
        return [found.version for found in published]

    def items(self) -> list[Item]:
        """Everything that was published, by component and serial. Nothing is verified."""
        found = [
            self.item(component, version)
            for component in self.files.components()
            for version in self.files.versions(component)
        ]
        return sorted(found, key=lambda item: (item.component, item.manifest.serial if item.manifest else 0))

    def item(self, component: str, version: str) -> Item:
        """One release, as far as it can be read."""
        try:
            found = self._read_manifest(component, version)
            standing = self.standing(component, version)
        except ConvoyError as error:
            return Item(component, version, trouble=str(error))
        signatures = self.files.read_release(component, version)[1]
        there = self.files.blob(found.artifact.sha256).is_file()
        return Item(component, version, found, standing, tuple(_fingerprints(signatures.values())), there)

    def known(self, component: str, version: str) -> Item:
        """One release, which must be there."""
        manifest.check_name(component, version)
        with self.failures_told():
            self._check_known(component, version)
            return self.item(component, version)

    def standing(self, component: str, version: str) -> Standing:
        """Where the release stands, by its records."""
        content = self.files.read_release(component, version)[0]
        return standing_of(f"{component} {version}", self.files.read_changes(component, version), _sha256(content))

    def inspect(self, component: str, version: str, trust: Trust) -> Resolved:
        """The release with its signatures and provenance verified, but neither its terms nor its artifact."""
        content, signatures = self.files.read_release(component, version)
        if trust.verifier is None:
            raise SigningError(
                "environment_allowed_signers is not set: there is nobody whose signature is to be trusted"
            )
        signers = signers_of(trust.verifier, content, list(signatures.values()), trust.required)
        found = manifest.from_json(content)
        terms.check_place(found, component, version, signers)
        envelopes = list(self.files.read_provenance(component, version).values()) if trust.builders else []
        builder = builder_of(trust.builders, f"{component} {version}", content, envelopes)
        standing = self.standing(component, version)
        path, artifact = self.files.manifest(component, version), self.files.blob(found.artifact.sha256)
        return Resolved(found, path, artifact, signers, _sha256(content), standing, builder)

    def has_blob(self, artifact: Artifact) -> bool:
        """Whether the artifact is there, whole."""
        path = self.files.blob(artifact.sha256)
        return path.is_file() and record.digest_of(str(path)) == artifact.sha256

    def check_blob(self, found: Manifest) -> None:
        """Raise DamagedReleaseError for an artifact that is not there, or another."""
        path = self.files.blob(found.artifact.sha256)
        what = f"the artifact of {found.component} {found.version}, {path},"
        if not path.is_file():
            raise DamagedReleaseError(f"{what} is missing; publish it again")
        size = path.stat().st_size
        if size != found.artifact.size:
            raise DamagedReleaseError(f"{what} has {size} bytes, signed were {found.artifact.size}; publish it again")
        digest = record.digest_of(str(path))
        if digest != found.artifact.sha256:
            raise DamagedReleaseError(f"{what} was changed: its SHA-256 is {digest}; publish it again")

    def read_sbom(self, found: Manifest) -> bytes | None:
        """The SBOM of a release, None where it has none. Raises DamagedReleaseError where it is gone, or another."""
        if found.sbom is None:
            return None
        path = self.files.sbom(found.component, found.version)
        what = f"the SBOM of {found.component} {found.version}, {path},"
        if not path.is_file():
            raise DamagedReleaseError(f"{what} is missing; publish it again")
        content = read_up_to(path, found.sbom.size)
        if _sha256(content) != found.sbom.sha256:
            raise DamagedReleaseError(
                f"{what} was changed: signed was the SHA-256 {found.sbom.sha256}; publish it again"
            )
        return content

    def statements(self, component: str, version: str) -> list[Statement]:
        """What the provenance that is kept with a release says. Nothing is verified."""
        return kept_statements(list(self.files.read_provenance(component, version).values()))

    def proof(self, found: Manifest) -> dict[str, bytes]:
        """All of a release but its artifact and its states, by its path below the release.

        Raises DamagedReleaseError for an SBOM that is not the one that was signed.
        """
        bill, envelopes = self.read_sbom(found), self.files.read_provenance(found.component, found.version)
        return {
            **self.signed(found),
            **({} if bill is None else {"sbom.json": bill}),
            **{f"provenance/{name}": one for name, one in envelopes.items()},
        }

    def signed(self, found: Manifest) -> dict[str, bytes]:
        """The manifest and its signatures, by their paths below the release."""
        content, signatures = self.files.read_release(found.component, found.version)
        named = {name if name == FIRST_SIGNATURE else f"signatures/{name}": one for name, one in signatures.items()}
        return {"manifest.json": content, **named}

    def export(self, found: Manifest, directory: Path, dry: bool) -> list[str]:
        """Copy all of a release but its artifact and its states to a directory; the paths there that are not so yet.

        For its owner alone. Raises DamagedReleaseError for an SBOM that is not the one that was signed.
        """
        proof = self.proof(found)
        wanted = {name: one for name, one in proof.items() if not _holds(directory / name, one)}
        try:
            for name in [] if dry else wanted:
                (directory / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable.write_file(str(directory / name), wanted[name])
        except OSError as error:
            raise DepotError(f"depot_export: {directory} cannot be written: {error}") from error
        return sorted(wanted)

    def check_provenance(self, found: Manifest) -> None:
        """Raise DamagedReleaseError for provenance that is none, or of another artifact. Who signed it is not asked."""
        kept = self.files.read_provenance(found.component, found.version)
        for name, content in kept.items():
            try:
                check_envelope(content, found.artifact.sha256)
            except SignatureRefusedError as refusal:
                path = self.files.provenance(found.component, found.version) / name
                raise DamagedReleaseError(f"{path} does not belong there: {refusal}. Remove it") from refusal

    def check_usable(self) -> None:
        """Raise DepotError unless there is a depot, and it is private."""
        if not self.path.is_dir():
            raise DepotError(f"there is no depot at {self.path}: set depot_path, or publish a release first")
        self.files.check_private()

    @contextmanager
    def failures_told(self) -> Iterator[None]:
        """Turn errors of the operating system into a DepotError."""
        try:
            yield
        except OSError as error:
            raise DepotError(f"the depot {self.path} cannot be used: {error}") from error

    # reading

    def _read_manifest(self, component: str, version: str) -> Manifest:
        content, _signatures = self.files.read_release(component, version)
        try:
            return manifest.from_json(content)
        except ManifestError as error:
            raise DamagedReleaseError(f"{self.files.manifest(component, version)}: {error}") from error

    def _manifests(self, component: str) -> list[Manifest]:
        return [self._read_manifest(component, version) for version in self.files.versions(component)]

    def _check_known(self, component: str, version: str) -> None:
        self.check_usable()
        if not self.files.release(component, version).is_dir():
            raise self._unknown(component, version)

    def _unknown(self, component: str, version: str) -> UnknownReleaseError:
        components = self.files.components()
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

    # changing

    @contextmanager
    def _changing(self, component: str, version: str, dry: bool) -> Iterator[None]:
        """A release that is there, while nobody else changes it; ``dry``: nothing is changed here either."""
        with self.failures_told():
            self._check_known(component, version)
            if dry:
                yield
                return
            with self.files.locked():
                yield

    def _existing(self, publication: Publication, contents: Contents, attached: Attached) -> Manifest | None:
        """The manifest when the same was published before, None when nothing was."""
        component, version = publication.component, publication.version
        if not self.files.release(component, version).is_dir():
            return None
        found = self._read_manifest(component, version)
        difference = _difference(found, publication, contents, attached)
        if difference:
            raise VersionTakenError(
                f"{component} {version} is in the depot already, with {difference}. "
                "A version never changes: publish this as a new one"
            )
        depot_states.refuse_retired(f"{component} {version}", self.standing(component, version), "published")
        return found

    def _manifest_of(self, publication: Publication, contents: Contents, attached: Attached, now: datetime) -> Manifest:
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
            sbom=attached.bound,
            image=contents.image,
        )

    def _last_serial(self, component: str) -> int:
        """The highest serial given out, also to a version that was removed since."""
        counter = self.files.serial(component)
        given = counter.read_text(encoding="utf-8") if counter.exists() else "0"
        if not given.isdigit():
            raise DepotError(f"{counter} must hold the last serial that was given out, not {given[:40]!r}: correct it")
        return max([int(given), *(found.serial for found in self._manifests(component))])

    def _complete(
        self, found: Manifest, placed: bool, added: tuple[str, ...], signer: Signer, trust: Trust, author: Author
    ) -> Published:
        """What is still missing of a release that was published before: a signature, or that it is verified."""
        component, version = found.component, found.version
        signed = self._cosign(found, signer)
        standing = self.standing(component, version)
        let_out = False
        if not standing.verified and trust.verifier is not None:
            content, signatures = self.files.read_release(component, version)
            envelopes = list(self.files.read_provenance(component, version).values())
            change = self._judged(found, content, list(signatures.values()), envelopes, trust, author)
            let_out = change.state is State.VERIFIED
            if let_out:
                self.files.append_change(component, version, change)
                standing = self.standing(component, version)
        return self._published(found, placed or bool(added) or signed or let_out, standing, signed, added)

    def _cosign(self, found: Manifest, signer: Signer) -> bool:
        """Add the signature of a key that has not signed yet."""
        content, signatures = self.files.read_release(found.component, found.version)
        signature = signer.sign(content)
        fingerprint = parse_signature(signature).fingerprint
        if fingerprint in _fingerprints(signatures.values()):
            return False
        name = hashlib.sha256(fingerprint.encode()).hexdigest() + ".sig"
        self.files.write(self.files.release(found.component, found.version) / "signatures" / name, signature)
        return True

    def _judged(
        self,
        found: Manifest,
        content: bytes,
        signatures: Sequence[bytes],
        envelopes: Sequence[bytes],
        trust: Trust,
        author: Author,
    ) -> Change:
        """Whether signatures and provenance let the release out of quarantine, as its next change of state."""
        digest = _sha256(content)
        if trust.verifier is None:
            why = "it was not said whom to trust (environment_allowed_signers)"
            return author.change(State.QUARANTINED, digest, trust.environment, why)
        try:
            signers = signers_of(trust.verifier, content, signatures, trust.required)
            terms.check_place(found, found.component, found.version, signers)
            builder = builder_of(trust.builders, f"{found.component} {found.version}", content, envelopes)
        except (SignatureRefusedError, SigningError, terms.MisplacedManifestError) as refusal:
            return author.change(State.QUARANTINED, digest, trust.environment, str(refusal))
        return author.change(State.VERIFIED, digest, trust.environment, _vouched_by(signers, builder))

    def _place_blob(self, archive: Path, artifact: Artifact) -> bool:
        """Whether the artifact had to be put in place. ``archive`` is moved."""
        if self.has_blob(artifact):
            return False
        self.files.place(archive, self.files.blob(artifact.sha256))
        return True

    def _place_attached(self, release: Path, attached: Attached) -> tuple[str, ...]:
        """Put what comes with the artifact beside it; what had to be put there."""
        missing = self._unplaced(release, attached)
        for path, content in missing.values():
            self.files.write(path, content)
        return tuple(missing)

    def _unplaced(self, release: Path, attached: Attached) -> dict[str, tuple[Path, bytes]]:
        """What of it is not there yet, by what it is called: where it goes, and its content."""
        files = {what: (release / name, content) for name, (what, content) in attached.files().items()}
        return {what: (path, content) for what, (path, content) in files.items() if not _holds(path, content)}

    def _place_manifest(
        self, made: Manifest, signature: bytes, attached: Attached, first: Change, directory: Path
    ) -> None:
        self.files.write(self.files.serial(made.component), str(made.serial).encode())
        self.files.write(directory / "manifest.json", made.to_json())
        self.files.write(directory / FIRST_SIGNATURE, signature)
        self._place_attached(directory, attached)
        self.files.write(directory / "states" / record_name(1), first.to_json())
        destination = self.files.release(made.component, made.version)
        self.files.make_directory(destination.parent)
        durable.rename(str(directory), str(destination))

    def _note(self, environment: str) -> None:
        path = self.files.environment(environment)
        if environment and not path.exists():
            self.files.write(path, b"")

    def _published(
        self,
        found: Manifest,
        changed: bool,
        standing: Standing | None = None,
        signed: bool = False,
        added: tuple[str, ...] = (),
    ) -> Published:
        path = self.files.manifest(found.component, found.version)
        return Published(found, path, self.files.blob(found.artifact.sha256), changed, standing, signed, added)


def _verified(resolved: Resolved, trust: Trust, author: Author) -> Change:
    why = _vouched_by(resolved.signers, resolved.builder)
    return author.change(State.VERIFIED, resolved.digest, trust.environment, why)


def _vouched_by(signers: Sequence[Identity], builder: Identity | None) -> str:
    signed = "signed by " + ", ".join(f"{one.principal} ({one.fingerprint})" for one in signers)
    return f"{signed}; built by {builder.principal} ({builder.fingerprint})" if builder else signed


def _contents(publication: Publication, archive: Path, scratch: Path) -> Contents:
    """What is to be published, as it lies at ``archive``; it is copied there unless that is the artifact itself."""
    if publication.is_image and publication.artifact.is_dir():
        archive_format = "tar"
        oci.pack(publication.artifact, archive)
    else:
        archive_format = format_of(publication.artifact)
        if archive != publication.artifact:
            shutil.copyfile(publication.artifact, archive)
    contents = examine(archive, archive_format, scratch)
    if not publication.is_image:
        return contents
    return replace(contents, image=oci.read(scratch, contents.files, publication.image))


def _holds(path: Path, content: bytes) -> bool:
    """Whether the file is there with this content."""
    return path.is_file() and read_up_to(path, len(content)) == content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fingerprints(signatures: Iterable[bytes]) -> list[str]:
    """The keys that signed, as the signatures say. Those that cannot be read are left out."""
    found = []
    for signature in signatures:
        try:
            found.append(parse_signature(signature).fingerprint)
        except MalformedSignatureError:
            continue
    return found


def _difference(found: Manifest, publication: Publication, contents: Contents, attached: Attached) -> str:
    """What of a published release is not as it is to be published, empty when nothing is.

    Who adds a signature need not say who the publisher was, nor have the SBOM.
    """
    if found.artifact != contents.artifact:
        return f"other content (SHA-256 {found.artifact.sha256}, not {contents.artifact.sha256})"
    if found.audience != publication.audience:
        return f"another audience ({', '.join(found.audience) or 'all environments'})"
    if found.expires != publication.expires:
        return f"another expiry ({format_time(found.expires) if found.expires else 'none'})"
    if publication.signer not in (None, found.signer):
        return f"another signer ({found.signer or 'none named'})"
    if found.image != contents.image:
        return f"another image ({found.image.digest if found.image else 'none'})"
    if attached.bound not in (None, found.sbom):
        return f"another SBOM ({found.sbom.sha256 if found.sbom else 'none'})"
    return ""
