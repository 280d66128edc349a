# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What provenance says, and which of it a policy accepts; nothing is signed here."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils import provenance
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import (
    Policy,
    Statement,
    kept_statements,
    read_envelope,
    read_statement,
)
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import (
    BUILDER,
    PAYLOAD_TYPE,
    POLICY_SOURCE,
    SOURCE,
    slsa_0_2,
    slsa_1,
)

DIGEST, OTHER = "0f" * 32, "1e" * 32
POLICY = Policy((BUILDER,), (POLICY_SOURCE,))


def statement(values: dict[str, Any]) -> Statement:
    return read_statement(json.dumps(values).encode())


def enveloped(content: bytes = b"{}", **changed: Any) -> bytes:
    """An envelope with a signature that nobody made; None leaves a key out."""
    values = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(content).decode(),
        "signatures": [{"keyid": "", "sig": "AAAA"}],
        **changed,
    }
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode()


@pytest.mark.parametrize("made", [slsa_1(OTHER, DIGEST), slsa_0_2(OTHER, DIGEST), slsa_1(DIGEST.upper())])
def test_what_a_builder_says_is_read_and_accepted(made: dict[str, Any]) -> None:
    said = statement(made)
    assert (said.builder, said.sources) == (BUILDER, (SOURCE,))
    POLICY.check(said, DIGEST)


@pytest.mark.parametrize(
    ("made", "expected", "said"),
    [
        (slsa_1(OTHER), provenance.WrongSubjectError, f"is of {OTHER}, and the artifact has the SHA-256 {DIGEST}"),
        (slsa_1(DIGEST, builder="https://evil.example"), provenance.WrongBuilderError, "'https://evil.example'"),
        (slsa_1(DIGEST, builder=BUILDER + "/x"), provenance.WrongBuilderError, "accepted here is only"),
        (slsa_1(DIGEST, sources=[]), provenance.WrongSourceError, "names no source"),
        (slsa_1(DIGEST, sources=["git+https://git.example/team/x@refs/tags/v1"]), provenance.WrongSourceError, "/x"),
        (slsa_1(DIGEST, sources=[SOURCE, "git+https://evil.example/x"]), provenance.WrongSourceError, "evil"),
        (slsa_1(DIGEST, source="git+https://evil.example/x"), provenance.WrongSourceError, "evil"),
        (slsa_1(DIGEST, source={"uri": "https://evil.example/x"}), provenance.WrongSourceError, "evil"),
        (slsa_0_2(DIGEST, source="git+https://evil.example/x"), provenance.WrongSourceError, "evil"),
        (slsa_0_2(DIGEST, materials=["git+https://evil.example/x"]), provenance.WrongSourceError, "evil"),
        (slsa_1(DIGEST, sources=[SOURCE.replace("v1.0.0", "a/b")]), provenance.WrongSourceError, "a/b"),
        (slsa_1(DIGEST, sources=[SOURCE.replace("v1.0.0", "..")]), provenance.WrongSourceError, r"tags/\.\."),
    ],
)  # fmt: skip
def test_what_a_policy_does_not_accept_has_a_reason_of_its_own(
    made: dict[str, Any], expected: type[ConvoyError], said: str
) -> None:
    with pytest.raises(expected, match=said) as refused:
        POLICY.check(statement(made), DIGEST)
    assert refused.type is expected


def test_a_repository_that_two_rules_name_is_told_once() -> None:
    assert statement(slsa_1(DIGEST, source=SOURCE)).sources == (SOURCE,)


@pytest.mark.parametrize(
    ("pattern", "source", "fits"),
    [
        ("git+https://h/team/hello", "git+https://h/team/hello", True),
        ("git+https://h/team/hello", "git+https://h/team/hello@refs/heads/main", False),
        ("git+https://h/team/hello", "git+https://h/team/hello2", False),
        ("git+https://h/team/*@refs/tags/*", "git+https://h/team/hello@refs/tags/v1", True),
        ("git+https://h/team/*@refs/tags/*", "git+https://h/team/a/b@refs/tags/v1", False),
        ("git+https://h/team/**", "git+https://h/team/a/b@refs/heads/x/y", True),
        ("git+https://h/team/**", "git+https://h/teams/a", False),
        ("git+https://h/team/**", "git+https://h/team/../evil/a", False),
        ("git+https://h/team/**", "git+https://h/team/%2E%2e/evil/a", False),
        ("git+https://h/team/hello@**", "git+https://h/team/hello@refs/heads/feature/x", True),
        ("git+https://h/t.am/x", "git+https://h/team/x", False),
    ],
)
def test_patterns(pattern: str, source: str, fits: bool) -> None:
    policy = Policy((BUILDER,), (pattern,))
    if fits:
        policy.check(Statement((DIGEST,), BUILDER, (source,)), DIGEST)
    else:
        with pytest.raises(provenance.WrongSourceError):
            policy.check(Statement((DIGEST,), BUILDER, (source,)), DIGEST)


@given(st.lists(st.sampled_from(["team", "hello", "@", "/", "*", "**", ".", "evil"]), max_size=6))
def test_no_pattern_accepts_another_host(parts: list[str]) -> None:
    """Whatever follows the host in a pattern, what is elsewhere is not accepted."""
    try:
        policy = Policy((BUILDER,), ("git+https://git.example/" + "".join(parts),))
    except provenance.ProvenancePolicyError:
        return
    for elsewhere in (
        "git+https://evil.example/team/hello",
        "git+https://git.example.evil/team/hello",
        "git+file:///x",
    ):
        with pytest.raises(provenance.WrongSourceError):
            policy.check(Statement((DIGEST,), BUILDER, (elsewhere,)), DIGEST)


@pytest.mark.parametrize(
    ("builders", "sources", "said"),
    [
        ((), (POLICY_SOURCE,), r"environment_provenance\.builders names none"),
        (("",), (POLICY_SOURCE,), r"environment_provenance\.builders names none"),
        ((BUILDER,), (), r"environment_provenance\.sources names none"),
        ((BUILDER,), ("*",), r"'\*' would accept too much"),
        ((BUILDER,), ("git+https://*/team/hello",), "would accept too much"),
        ((BUILDER,), ("git+https://git.example*",), "would accept too much"),
        ((BUILDER,), ("git+https://git.example/**",), "would accept too much"),
        ((BUILDER,), ("git+https://git.example/team**",), "would accept too much"),
        ((BUILDER,), ("hello",), "would accept too much"),
    ],
)
def test_a_policy_that_accepts_nothing_or_too_much_is_refused(
    builders: tuple[str, ...], sources: tuple[str, ...], said: str
) -> None:
    with pytest.raises(provenance.ProvenancePolicyError, match=said) as refused:
        Policy(builders, sources)
    assert refused.value.reason == "provenance-policy"


@pytest.mark.parametrize(
    ("content", "expected", "said"),
    [
        (b"-----BEGIN", provenance.MalformedProvenanceError, "is no JSON"),
        (b"[" * 200_000, provenance.MalformedProvenanceError, "is no JSON"),
        (b"\xff{}", provenance.MalformedProvenanceError, "is no JSON"),
        (b"[]", provenance.MalformedProvenanceError, "no object"),
        (b"{}", provenance.MalformedProvenanceError, "no DSSE envelope: it needs payloadType, payload and signatures"),
        (b" " * (4 * 2**20) + b"{}", provenance.MalformedProvenanceError, "more than 4194304 bytes"),
        (b'{"dsseEnvelope": {}}', provenance.MalformedProvenanceError, "is a Sigstore bundle"),
        (enveloped() + b"\n" + enveloped(), provenance.MalformedProvenanceError, "is no JSON"),
        (enveloped(payloadType="text/plain"), provenance.WrongTypeError, "payloadType is 'text/plain'"),
        (enveloped(payloadType=None), provenance.MalformedProvenanceError, "no DSSE envelope"),
        (enveloped(signatures=[]), provenance.UnsignedProvenanceError, "is not signed"),
        (enveloped(signatures=None), provenance.MalformedProvenanceError, "no DSSE envelope"),
        (enveloped(signatures=[{"keyid": "x"}]), provenance.MalformedProvenanceError, "needs sig"),
        (enveloped(signatures=["x"]), provenance.MalformedProvenanceError, "needs sig"),
        (enveloped(signatures=[{"sig": "@"}]), provenance.MalformedProvenanceError, "sig of the .* is no Base64"),
        (enveloped(payload="ü"), provenance.MalformedProvenanceError, "payload of the provenance is no Base64"),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused(content: bytes, expected: type[ConvoyError], said: str) -> None:
    with pytest.raises(expected, match=said) as refused:
        read_envelope(content)
    assert refused.type is expected


def test_both_alphabets_of_base64_are_read() -> None:
    payload = bytes(range(240, 256))
    urlsafe = base64.urlsafe_b64encode(payload).decode()
    assert set(urlsafe) & set("-_")
    assert read_envelope(enveloped(payload=urlsafe)).payload == payload
    assert read_envelope(enveloped(payload)).payload == payload


@pytest.mark.parametrize(
    ("spoil", "expected", "said"),
    [
        (lambda made: made.update(_type="x"), provenance.WrongTypeError, "_type is 'x'"),
        (lambda made: made.update(predicateType="https://x/vsa"), provenance.WrongTypeError, "predicate is of type"),
        (lambda made: made.pop("predicateType"), provenance.WrongTypeError, "type None"),
        (lambda made: made.update(predicate=[]), provenance.MalformedProvenanceError, "names no builder"),
        (lambda made: made["predicate"].pop("runDetails"), provenance.MalformedProvenanceError, "names no builder"),
        (lambda made: made.update(subject=[]), provenance.MalformedProvenanceError, "names no subject"),
        (lambda made: made.pop("subject"), provenance.MalformedProvenanceError, "names no subject"),
    ],
)
def test_what_is_no_statement_of_provenance_is_refused(
    spoil: Callable[[dict[str, Any]], object], expected: type[ConvoyError], said: str
) -> None:
    made = slsa_1(DIGEST)
    spoil(made)
    with pytest.raises(expected, match=said):
        statement(made)


def test_a_subject_with_another_kind_of_digest_is_nobodys() -> None:
    made = slsa_1(DIGEST)
    made["subject"] = [{"name": "x", "digest": {"sha512": DIGEST}}, "x", {"digest": {"sha256": 1}}]
    with pytest.raises(provenance.WrongSubjectError, match="is of nothing with a SHA-256"):
        POLICY.check(statement(made), DIGEST)


def test_what_cannot_be_read_is_left_out_of_what_people_are_told() -> None:
    good = enveloped(json.dumps(slsa_1(DIGEST)).encode())
    assert [one.builder for one in kept_statements([b"x", good, enveloped(b"{}")])] == [BUILDER]


KEYS = ("_type", "predicate", "predicateType", "subject", "digest", "sha256", "builder", "id", "materials", "uri")
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@given(JSON)
def test_whatever_the_json_is_it_is_read_or_refused(values: Any) -> None:
    """No shape of JSON breaks the reader: the predicate is what a builder, or somebody else, wrote."""
    for kind in (provenance.SLSA_1, provenance.SLSA_0_2):
        made = {"_type": provenance.STATEMENTS[0], "predicateType": kind, "subject": values, "predicate": values}
        for content in (values, made, {**made, "predicate": {"builder": {"id": "x"}, "materials": values}}):
            try:
                statement(content)
            except (provenance.MalformedProvenanceError, provenance.WrongTypeError):
                continue
