# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provenance is trusted only as a key that an environment trusts has signed it: real keys, real envelopes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils import attestation, provenance, signing
from ansible_collections.convoy.rollout.plugins.plugin_utils.attestation import (
    MissingLibraryError,
    ProvenanceVerifier,
    builder_of,
    verifier_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import Policy
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import (
    BUILDER,
    POLICY_SOURCE,
    Builder,
    slsa_0_2,
    slsa_1,
    tampered,
)

DIGEST = "0f" * 32
MANIFEST = Manifest(
    "hello", "1.0.0", 1, datetime(2026, 6, 1, tzinfo=UTC), Artifact(DIGEST, 1), (FileEntry("app", 1, 0o644, DIGEST),)
).to_json()
POLICY = Policy((BUILDER,), (POLICY_SOURCE,))


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder.make(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Builder:
    return Builder.make(tmp_path, name="other")


def trusting(*builders: Builder) -> ProvenanceVerifier:
    return ProvenanceVerifier(tuple(one.public for one in builders), POLICY)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "ecdsa-384", "rsa"])
def test_what_a_trusted_builder_signed_is_good(tmp_path: Path, kind: str, other: Builder) -> None:
    builder = Builder.make(tmp_path, kind)
    verifier = trusting(other, builder)
    for statement in (slsa_1(DIGEST), slsa_0_2(DIGEST), slsa_1("1e" * 32, DIGEST, "2d" * 32)):
        identity = verifier.verify(MANIFEST, json.dumps(builder.sign(statement)).encode())
        assert identity.principal == BUILDER
        assert identity.fingerprint.startswith("SHA256:")


@pytest.mark.parametrize("keyid", [None, "", "the build key"])
def test_a_signature_may_name_its_key_as_it_likes_or_not_at_all(builder: Builder, keyid: str | None) -> None:
    values = builder.sign(slsa_1(DIGEST))
    del values["signatures"][0]["keyid"]
    if keyid is not None:
        values["signatures"][0]["keyid"] = keyid
    assert trusting(builder).verify(MANIFEST, json.dumps(values).encode()).principal == BUILDER


def test_one_good_signature_among_several_is_enough(builder: Builder, other: Builder) -> None:
    values = other.sign(slsa_1(DIGEST))
    values["signatures"] += [{"sig": "AAAA"}, *builder.sign(slsa_1(DIGEST))["signatures"]]
    assert trusting(builder).verify(MANIFEST, json.dumps(values).encode()).principal == BUILDER


def another_payload_type(builder: Builder, other: Builder) -> bytes:
    return json.dumps(builder.sign(slsa_1(DIGEST), "text/plain")).encode()


def payload_type_exchanged(builder: Builder, other: Builder) -> bytes:
    """Signed as something else, and passed off as a statement: the type is signed too."""
    values = builder.sign(slsa_1(DIGEST), "text/plain")
    return json.dumps({**values, "payloadType": provenance.PAYLOAD_TYPE}).encode()


def unsigned(builder: Builder, other: Builder) -> bytes:
    return json.dumps({**builder.sign(slsa_1(DIGEST)), "signatures": []}).encode()


def keyid_of_somebody_else(builder: Builder, other: Builder) -> bytes:
    values = other.sign(slsa_1(DIGEST))
    values["signatures"][0]["keyid"] = builder.signer.public_key.keyid
    return json.dumps(values).encode()


def cut(builder: Builder, other: Builder) -> bytes:
    values = builder.sign(slsa_1(DIGEST))
    values["signatures"][0]["sig"] = values["signatures"][0]["sig"][:40]
    return json.dumps(values).encode()


def tampered_without_a_name(builder: Builder, other: Builder) -> bytes:
    values = json.loads(tampered(builder.envelope("1e" * 32), subject=[{"digest": {"sha256": DIGEST}}]))
    del values["signatures"][0]["keyid"]
    return json.dumps(values).encode()


def tampered_subject(builder: Builder, other: Builder) -> bytes:
    return tampered(builder.envelope("1e" * 32), subject=[{"digest": {"sha256": DIGEST}}])


def signed_but_no_statement(builder: Builder, other: Builder) -> bytes:
    return json.dumps(builder.sign(b"not JSON")).encode()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda builder, other: builder.envelope("1e" * 32), "provenance-subject"),
        (lambda builder, other: builder.envelope("1e" * 32, "2d" * 32, "3c" * 32), "provenance-subject"),
        (lambda builder, other: builder.envelope(DIGEST, builder="x"), "provenance-builder"),
        (lambda builder, other: builder.envelope(DIGEST, sources=["git+https://x/y"]), "provenance-source"),
        (unsigned, "provenance-unsigned"),
        (lambda builder, other: other.envelope(DIGEST), "provenance-signer"),
        (tampered_without_a_name, "provenance-signer"),
        (another_payload_type, "provenance-type"),
        (payload_type_exchanged, "provenance-content"),
        (tampered_subject, "provenance-content"),
        (keyid_of_somebody_else, "provenance-content"),
        (cut, "provenance-content"),
        (lambda builder, other: builder.envelope(DIGEST) + b" " * provenance.LARGEST, "provenance-malformed"),
        (lambda builder, other: b"not JSON", "provenance-malformed"),
        (signed_but_no_statement, "provenance-malformed"),
    ],
)
def test_every_way_of_being_wrong_has_a_reason_of_its_own(
    builder: Builder, other: Builder, make: Callable[[Builder, Builder], bytes], reason: str
) -> None:
    trusting(builder).verify(MANIFEST, builder.envelope(DIGEST))
    with pytest.raises(signing.SignatureRefusedError) as refused:
        trusting(builder).verify(MANIFEST, make(builder, other))
    assert refused.value.reason == reason


def test_no_byte_of_an_envelope_can_be_changed_unseen(builder: Builder) -> None:
    """Each byte changed by itself: refused, or the change meant nothing, and what was signed is what is read."""
    good = builder.envelope(DIGEST)
    signed = provenance.read_envelope(good)
    verifier = trusting(builder)
    for position in range(0, len(good), 7):
        changed = bytearray(good)
        changed[position] ^= 1
        try:
            verifier.verify(MANIFEST, bytes(changed))
        except signing.SignatureRefusedError:
            continue
        assert provenance.read_envelope(bytes(changed)).payload == signed.payload


def private(path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_text("ssh-ed25519 AAAA me"), "is no public key in PEM"),
        (lambda path: path.mkdir(), "Is a directory"),
        (private, "it is a private key, which should be with the builder alone: give its public half"),
    ],
)
def test_what_is_no_public_key_is_named(
    tmp_path: Path, builder: Builder, write: Callable[[Path], object], said: str
) -> None:
    key = tmp_path / "key.pem"
    write(key)
    with pytest.raises(signing.SigningError, match=r"environment_provenance\.keys: .*key\.pem is no public") as refused:
        ProvenanceVerifier((key,), POLICY).verify(MANIFEST, builder.envelope(DIGEST))
    assert said in str(refused.value)


def test_without_the_library_the_package_is_named(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = builder.envelope(DIGEST)
    for name in [name for name in sys.modules if name.partition(".")[0] == "securesystemslib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'securesystemslib\[crypto\]'") as refused:
        trusting(builder).verify(MANIFEST, envelope)
    assert refused.value.reason == "provenance-library"


def test_the_library_is_imported_only_when_it_is_used() -> None:
    code = (
        "import sys; import ansible_collections.convoy.rollout.plugins.action.rollout; "
        "import ansible_collections.convoy.rollout.plugins.action.publish; "
        "print([name for name in sys.modules if name.startswith('securesystemslib')])"
    )
    root = Path(attestation.__file__).parents[5]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nobody_is_asked_where_nothing_is_demanded() -> None:
    assert verifier_of(None) is None
    assert builder_of(None, "hello 1.0.0", MANIFEST, [b"x"]) is None


def test_what_is_demanded_has_to_be_there(builder: Builder) -> None:
    with pytest.raises(provenance.MissingProvenanceError, match=r"hello 1\.0\.0 has no provenance") as refused:
        builder_of(trusting(builder), "hello 1.0.0", MANIFEST, [])
    assert refused.value.reason == "provenance-missing"


def test_one_good_envelope_is_enough(builder: Builder, other: Builder) -> None:
    kept = [other.envelope(DIGEST), builder.envelope(DIGEST)]
    found = builder_of(trusting(builder), "hello 1.0.0", MANIFEST, kept)
    assert found is not None
    assert found.principal == BUILDER
    with pytest.raises(provenance.UntrustedProvenanceError):
        builder_of(trusting(builder), "hello 1.0.0", MANIFEST, kept[:1])


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"keys": []}, "keys names no file"), ({"builders": []}, "builders names none"), ({"sources": ["*"]}, "too much")],
)
def test_what_cannot_be_demanded_is_refused(builder: Builder, changed: dict[str, Any], said: str) -> None:
    demanded = {"keys": [str(builder.public)], "builders": [BUILDER], "sources": [POLICY_SOURCE]}
    assert verifier_of(demanded) == trusting(builder)
    with pytest.raises(provenance.ProvenancePolicyError, match=said):
        verifier_of({**demanded, **changed})
