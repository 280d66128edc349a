# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A builder with a real key of its own, and the provenance that it makes: for tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILDER = "https://builder.example/v1"
SOURCE = "git+https://git.example/team/hello@refs/tags/v1.0.0"
POLICY_SOURCE = "git+https://git.example/team/hello@refs/tags/*"


def slsa_1(
    *subjects: str, builder: Any = BUILDER, sources: Sequence[str] = (SOURCE,), **parameters: Any
) -> dict[str, Any]:
    """A statement with SLSA provenance v1 about these SHA-256."""
    materials = [{"uri": uri, "digest": {"gitCommit": "0f" * 20}} for uri in sources]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"file{number}", "digest": {"sha256": sha256}} for number, sha256 in enumerate(subjects)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://builder.example/make/v1",
                "externalParameters": parameters,
                "resolvedDependencies": [*materials, {"uri": "pkg:docker/debian@12"}],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }


def slsa_0_2(
    *subjects: str, builder: Any = BUILDER, source: str = SOURCE, materials: Sequence[str] = ()
) -> dict[str, Any]:
    """The same in v0.2, in a statement of v0.1."""
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [{"name": "file", "digest": {"sha256": sha256}} for sha256 in subjects],
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "predicate": {
            "builder": {"id": builder},
            "buildType": "https://builder.example/make/v1",
            "invocation": {"configSource": {"uri": source}},
            "materials": [{"uri": uri} for uri in materials],
        },
    }


@dataclass(frozen=True)
class Builder:
    """Signs envelopes with its key; ``public`` is the file of its public half."""

    signer: CryptoSigner
    public: Path

    @classmethod
    def make(cls, directory: Path, kind: str = "ed25519", name: str = "builder") -> Builder:
        """A new one with a key of this kind."""
        private: Any = {
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ecdsa-384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
        }[kind]()
        public = directory / f"{name}.pem"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
        return cls(CryptoSigner(private), public)

    def sign(self, statement: dict[str, Any] | bytes, payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
        """The envelope with this statement, as it is in JSON."""
        payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        envelope = Envelope(payload, payload_type, {})
        envelope.sign(self.signer)
        made: dict[str, Any] = envelope.to_dict()
        return made

    def envelope(self, *subjects: str, **said: Any) -> bytes:
        """Provenance v1 of these SHA-256, signed."""
        return json.dumps(self.sign(slsa_1(*subjects, **said))).encode()


def tampered(envelope: bytes, **said: Any) -> bytes:
    """The envelope with the same signature about something else."""
    values = json.loads(envelope)
    statement = json.loads(base64.b64decode(values["payload"]))
    values["payload"] = base64.b64encode(json.dumps({**statement, **said}).encode()).decode()
    return json.dumps(values).encode()
