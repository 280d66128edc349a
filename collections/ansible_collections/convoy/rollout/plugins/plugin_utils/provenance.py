# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provenance: how an artifact was built, as its builder says it in an in-toto statement with SLSA's predicate. Pure.

The statement comes in a DSSE envelope. What is read here is not verified: ``attestation`` does that.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SignatureRefusedError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
SLSA_1 = "https://slsa.dev/provenance/v1"
SLSA_0_2 = "https://slsa.dev/provenance/v0.2"
LARGEST = 4 * 2**20  # bytes of an envelope

_REPOSITORY = re.compile(r"(git|hg|svn|bzr)\+", re.IGNORECASE)
_FIXED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/*]+/[^*]")  # how a pattern begins: scheme, host, some of the path
_OPEN = re.compile(r"[^/@]\*\*")  # what would go on behind the name of another team, or another repository
_DOTS = re.compile(r"/(\.|%2e){1,2}(?=[/@?#]|$)", re.IGNORECASE)
_URLSAFE = str.maketrans("-_", "+/")


class ProvenancePolicyError(ConvoyError):
    """What an environment demands of provenance cannot be."""

    reason: ClassVar[str] = "provenance-policy"


class MissingProvenanceError(SignatureRefusedError):
    """The environment demands provenance, and the release has none."""

    reason: ClassVar[str] = "provenance-missing"


class MalformedProvenanceError(SignatureRefusedError):
    """It is no envelope, or no statement in it, or too large."""

    reason: ClassVar[str] = "provenance-malformed"


class WrongTypeError(SignatureRefusedError):
    """A good envelope, of something else than SLSA provenance."""

    reason: ClassVar[str] = "provenance-type"


class UnsignedProvenanceError(SignatureRefusedError):
    """The envelope carries no signature."""

    reason: ClassVar[str] = "provenance-unsigned"


class UntrustedProvenanceError(SignatureRefusedError):
    """No key that the environment trusts has signed it."""

    reason: ClassVar[str] = "provenance-signer"


class TamperedProvenanceError(SignatureRefusedError):
    """It names a trusted key, which did not sign this."""

    reason: ClassVar[str] = "provenance-content"


class WrongSubjectError(SignatureRefusedError):
    """It is of another artifact."""

    reason: ClassVar[str] = "provenance-subject"


class WrongBuilderError(SignatureRefusedError):
    """A builder made it that the environment does not accept."""

    reason: ClassVar[str] = "provenance-builder"


class WrongSourceError(SignatureRefusedError):
    """It was built from sources that the environment does not accept."""

    reason: ClassVar[str] = "provenance-source"


@dataclass(frozen=True)
class Mark:
    """A signature of an envelope; ``keyid`` is a hint that its maker gave, or empty."""

    keyid: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope with at least one signature, of an in-toto statement."""

    payload: bytes
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Statement:
    """What a builder says: the SHA-256 of what it built, who it is, and the repositories it built from."""

    subjects: tuple[str, ...]
    builder: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """What an environment accepts: builders by their ids, sources by patterns. Raises ProvenancePolicyError.

    In a pattern ``*`` stands for anything but a slash, ``**`` for anything. It must begin with scheme, host and some of
    the path, and ``**`` must follow a slash or an @: no pattern accepts every source, or one that only begins alike.
    """

    builders: tuple[str, ...]
    sources: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("builders", "sources"):
            if not all(getattr(self, name)) or not getattr(self, name):
                raise ProvenancePolicyError(
                    f"environment_provenance.{name} names none: name at least one, or leave environment_provenance away"
                )
        for pattern in self.sources:
            if not _FIXED.match(pattern) or _OPEN.search(pattern):
                raise ProvenancePolicyError(
                    f"environment_provenance.sources: '{pattern}' would accept too much: a pattern begins with scheme, "
                    "host and a path, and ** follows a slash or an @, as in git+https://git.example/team/hello@**"
                )

    def check(self, statement: Statement, sha256: str) -> None:
        """Raise the refusal of its own for another artifact, another builder, another source."""
        check_subject(statement, sha256)
        if statement.builder not in self.builders:
            raise WrongBuilderError(
                f"the provenance is by the builder '{statement.builder}', and accepted here is only "
                f"{', '.join(self.builders)} (environment_provenance.builders)"
            )
        if not statement.sources:
            raise WrongSourceError(
                "the provenance names no source: no repository (git+https://...) is among what was built from"
            )
        for source in statement.sources:
            if _DOTS.search(source) or not any(_fits(source, pattern) for pattern in self.sources):
                raise WrongSourceError(
                    f"it was built from '{source}', and accepted here is only {', '.join(self.sources)} "
                    "(environment_provenance.sources)"
                )


def _fits(source: str, pattern: str) -> bool:
    """Whether the source is one that the pattern stands for."""
    parts = re.split(r"(\*\*|\*)", pattern)
    stands_for = {"**": ".*", "*": "[^/]*"}
    return bool(re.fullmatch("".join(stands_for.get(part, re.escape(part)) for part in parts), source))


def check_subject(statement: Statement, sha256: str) -> None:
    """Raise WrongSubjectError unless the artifact is among what was built."""
    if sha256 not in statement.subjects:
        others = ", ".join(statement.subjects[:3]) or "nothing with a SHA-256"
        raise WrongSubjectError(f"the provenance is of {others}, and the artifact has the SHA-256 {sha256}")


def read_envelope(content: bytes) -> Envelope:
    """Read a DSSE envelope. Raises the refusal of its own for none, an unsigned one, or one of something else."""
    if len(content) > LARGEST:
        raise MalformedProvenanceError(
            f"the provenance has more than {LARGEST} bytes, which no builder's has: give a single envelope"
        )
    values = _parsed("the provenance", content)
    if "dsseEnvelope" in values:
        raise MalformedProvenanceError(
            "the provenance is a Sigstore bundle, and keys verify an envelope: give what its dsseEnvelope holds, where "
            "one of environment_provenance.keys has signed that"
        )
    kind, payload, signatures = (values.get(key) for key in ("payloadType", "payload", "signatures"))
    if not isinstance(kind, str) or not isinstance(payload, str) or not isinstance(signatures, list):
        raise MalformedProvenanceError(
            "the provenance is no DSSE envelope: it needs payloadType, payload and signatures"
        )
    if kind != PAYLOAD_TYPE:
        raise WrongTypeError(f"the envelope's payloadType is '{kind}', needed is '{PAYLOAD_TYPE}'")
    if not signatures:
        raise UnsignedProvenanceError("the provenance is not signed: let the builder sign it")
    return Envelope(_decoded("payload", payload), tuple(_mark(one) for one in signatures))


def read_statement(payload: bytes) -> Statement:
    """Read an in-toto statement of SLSA provenance, v1 or v0.2. Raises MalformedProvenanceError, or WrongTypeError."""
    values = _parsed("the statement in the provenance", payload)
    if values.get("_type") not in STATEMENTS:
        raise WrongTypeError(f"the statement's _type is {values.get('_type')!r}, needed is {STATEMENTS[0]}")
    kind, predicate = values.get("predicateType"), values.get("predicate")
    if kind not in (SLSA_1, SLSA_0_2):
        raise WrongTypeError(f"the predicate is of type {kind!r}, needed is {SLSA_1} or {SLSA_0_2}")
    if kind == SLSA_1:
        builder = _at(predicate, "runDetails", "builder", "id")
        source = _at(predicate, "buildDefinition", "externalParameters", "source")
        materials = _at(predicate, "buildDefinition", "resolvedDependencies")
    else:
        builder = _at(predicate, "builder", "id")
        source = _at(predicate, "invocation", "configSource", "uri")
        materials = _at(predicate, "materials")
    if not isinstance(builder, str) or not builder:
        raise MalformedProvenanceError("the provenance names no builder: its predicate has no builder with an id")
    return Statement(_digests(values.get("subject")), builder, _sources(source, materials))


def _digests(subjects: Any) -> tuple[str, ...]:
    if not isinstance(subjects, list) or not subjects:
        raise MalformedProvenanceError("the provenance names no subject: it has to say what was built")
    found = (_at(subject, "digest", "sha256") for subject in subjects)
    return tuple(digest.lower() for digest in found if isinstance(digest, str))


def _sources(named: Any, materials: Any) -> tuple[str, ...]:
    """What is named as the source, and every repository among the materials: other materials are no sources."""
    named = _at(named, "uri") if isinstance(named, dict) else named
    uris = [_at(one, "uri") for one in materials] if isinstance(materials, list) else []
    repositories = [uri for uri in uris if isinstance(uri, str) and _REPOSITORY.match(uri)]
    found = [named, *repositories] if isinstance(named, str) and named else repositories
    return tuple(dict.fromkeys(found))


def _mark(values: Any) -> Mark:
    keyid, signature = _at(values, "keyid"), _at(values, "sig")
    if not isinstance(signature, str) or not (keyid is None or isinstance(keyid, str)):
        raise MalformedProvenanceError("a signature of the provenance is none: it needs sig, and may have a keyid")
    return Mark(keyid or "", _decoded("sig", signature))


def _at(values: Any, *keys: str) -> Any:
    """What is below these keys, None where there is nothing."""
    for key in keys:
        if not isinstance(values, dict):
            return None
        values = values.get(key)
    return values


def _parsed(what: str, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedProvenanceError(f"{what} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise MalformedProvenanceError(f"{what} is JSON, but no object")
    return values


def _decoded(name: str, encoded: str) -> bytes:
    """Base64, of either alphabet, as DSSE allows."""
    try:
        return base64.b64decode(encoded.translate(_URLSAFE), validate=True)
    except ValueError as error:
        raise MalformedProvenanceError(f"{name} of the provenance is no Base64: {error}") from error


def kept_statements(envelopes: Sequence[bytes]) -> list[Statement]:
    """What envelopes say, for people. Those that cannot be read are left out."""
    found = []
    for content in envelopes:
        try:
            found.append(read_statement(read_envelope(content).payload))
        except SignatureRefusedError:
            continue
    return found
