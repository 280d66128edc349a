# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provenance verified: a DSSE envelope by keys that an environment trusts, through securesystemslib.

The library is imported when an envelope is verified, and not before.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import (
    PAYLOAD_TYPE,
    Envelope,
    MissingProvenanceError,
    Policy,
    ProvenancePolicyError,
    TamperedProvenanceError,
    UntrustedProvenanceError,
    read_envelope,
    read_statement,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.signers import signers_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import Identity, SigningError, Verifier

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

KEYS_LARGEST = 64 * 1024  # bytes of a file with a public key


class MissingLibraryError(ConvoyError):
    """The package that verifies envelopes is not installed."""

    reason: ClassVar[str] = "provenance-library"


@dataclass(frozen=True)
class _TrustedKey:
    """A public key, with the ids that signers give it in envelopes."""

    key: SSlibKey
    fingerprint: str
    ids: frozenset[str]


@dataclass(frozen=True)
class ProvenanceVerifier:
    """Trusts what one of ``keys``, files of public keys in PEM, has signed, where ``policy`` accepts what it says."""

    keys: tuple[Path, ...]
    policy: Policy

    def __post_init__(self) -> None:
        if not self.keys:
            raise ProvenancePolicyError("environment_provenance.keys names no file with a builder's public key")

    def verify(self, content: bytes, signature: bytes) -> Identity:
        """The builder, and the key that signed for it; ``content`` is the manifest, ``signature`` the envelope."""
        envelope = read_envelope(signature)
        fingerprint = self._signed_by(envelope)
        statement = read_statement(envelope.payload)
        self.policy.check(statement, manifest.from_json(content).artifact.sha256)
        return Identity(statement.builder, fingerprint)

    def _signed_by(self, envelope: Envelope) -> str:
        """The fingerprint of the trusted key that signed it."""
        trusted = [_read_key(path) for path in self.keys]
        for one in trusted:
            if any(_is_good(one.key, envelope.payload, mark.signature) for mark in envelope.marks):
                return one.fingerprint
        for mark in envelope.marks:
            for one in trusted:
                if mark.keyid in one.ids:
                    raise TamperedProvenanceError(
                        f"the provenance names the trusted key {one.fingerprint}, which has not signed this: it was "
                        "changed after it was signed; let the builder make it anew"
                    )
        named = ", ".join(mark.keyid for mark in envelope.marks if mark.keyid) or "one that it does not name"
        raise UntrustedProvenanceError(
            f"no key of environment_provenance.keys ({', '.join(str(path) for path in self.keys)}) has signed the "
            f"provenance; its key is {named}"
        )


def verifier_of(demanded: Mapping[str, Any] | None) -> ProvenanceVerifier | None:
    """What verifies provenance as ``environment_provenance`` demands it; None where it is not set."""
    if demanded is None:
        return None
    policy = Policy(tuple(demanded["builders"]), tuple(demanded["sources"]))
    return ProvenanceVerifier(tuple(Path(path) for path in demanded["keys"]), policy)


def builder_of(verifier: Verifier | None, what: str, content: bytes, envelopes: Sequence[bytes]) -> Identity | None:
    """Who built the release with this manifest, by the first envelope that is good. None where nobody asks.

    Raises MissingProvenanceError where there is none, the refusal of the first one where none is good.
    """
    if verifier is None:
        return None
    if not envelopes:
        raise MissingProvenanceError(
            f"{what} has no provenance, and this environment demands it (environment_provenance): publish it again "
            "with publish_provenance=FILE"
        )
    return signers_of(verifier, content, envelopes, 1)[0]


def _is_good(key: SSlibKey, payload: bytes, signature: bytes) -> bool:
    """Whether the key signed the payload. Signatures are tried whatever key they name: a name is only a hint."""
    from securesystemslib.dsse import Envelope as SignedEnvelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature

    signed = SignedEnvelope(payload, PAYLOAD_TYPE, {key.keyid: Signature(key.keyid, signature.hex())})
    try:
        signed.verify([key], 1)
    except VerificationError:
        return False
    return True


def _read_key(path: Path) -> _TrustedKey:
    """A public key in PEM. Raises SigningError for a file that is none, MissingLibraryError without the library."""
    try:
        from cryptography.hazmat.primitives import serialization
        from securesystemslib.signer import SSlibKey
    except ImportError as error:
        raise MissingLibraryError(
            f"provenance needs the Python package {error.name} on the controller: "
            "pip install 'securesystemslib[crypto]'"
        ) from error
    try:
        with path.open("rb") as stream:
            content = stream.read(KEYS_LARGEST)
        if b"PRIVATE KEY" in content:
            raise ValueError("it is a private key, which should be with the builder alone: give its public half")
        public = serialization.load_pem_public_key(content)
        key = SSlibKey.from_crypto(public)
    except (OSError, ValueError) as error:
        raise SigningError(
            f"environment_provenance.keys: {path} is no public key in PEM (Ed25519, ECDSA or RSA): {error}"
        ) from error
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form))
    fingerprint = "SHA256:" + base64.b64encode(digest.digest()).decode().rstrip("=")
    return _TrustedKey(key, fingerprint, frozenset({key.keyid, digest.hexdigest(), fingerprint}))
