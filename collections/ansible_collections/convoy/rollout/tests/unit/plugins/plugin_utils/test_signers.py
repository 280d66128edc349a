# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""N of M signers, with real keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import signing
from ansible_collections.convoy.rollout.plugins.plugin_utils.signers import (
    RequiredSignersError,
    TooFewSignersError,
    signers_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner, SshVerifier

CONTENT = b"a manifest"
KEYS = {"anna": "anna", "bert": "bert", "cleo": "cleo", "annas-other": "anna", "mallory": ""}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("signers")
    for key in KEYS:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / key], check=True)
    lines = [f"{who} {(directory / f'{key}.pub').read_text()}" for key, who in KEYS.items() if who]
    (directory / "allowed_signers").write_text("".join(lines))
    return directory


def asked(home: Path, keys: list[str], required: int, content: bytes = CONTENT) -> list[str]:
    signatures = [SshSigner(home / key).sign(CONTENT) for key in keys]
    found = signers_of(SshVerifier(home / "allowed_signers"), content, signatures, required)
    return [identity.principal for identity in found]


@pytest.mark.parametrize(
    ("keys", "required", "expected"),
    [
        (["anna"], 1, ["anna"]),
        (["anna", "bert"], 2, ["anna", "bert"]),
        (["bert", "anna", "cleo"], 2, ["bert", "anna", "cleo"]),
        (["mallory", "anna"], 1, ["anna"]),
        (["anna", "mallory", "bert"], 2, ["anna", "bert"]),
    ],
)
def test_enough_people(home: Path, keys: list[str], required: int, expected: list[str]) -> None:
    assert asked(home, keys, required) == expected


@pytest.mark.parametrize(
    ("keys", "required"),
    [
        (["anna"], 2),
        (["anna", "anna"], 2),
        (["anna", "annas-other"], 2),
        (["anna", "mallory"], 2),
        (["anna", "bert"], 3),
    ],
    ids=str,
)
def test_too_few_people(home: Path, keys: list[str], required: int) -> None:
    """One person counts once, whatever keys they have, and strangers do not count."""
    with pytest.raises(TooFewSignersError, match=f"{required} people have to sign") as refused:
        asked(home, keys, required)
    assert refused.value.reason == "signers-too-few"
    assert ("another signature does not count: the key SHA256:" in str(refused.value)) is ("mallory" in keys)


def test_where_nobody_is_trusted_the_first_refusal_is_told(home: Path) -> None:
    with pytest.raises(signing.UnknownSignerError):
        asked(home, ["mallory"], 2)
    with pytest.raises(signing.ContentTamperedError):
        asked(home, ["anna", "bert"], 2, b"another manifest")


@pytest.mark.parametrize("required", [0, -1])
def test_somebody_has_to_sign(home: Path, required: int) -> None:
    with pytest.raises(RequiredSignersError, match=f"environment_required_signers: {required} is out of range"):
        asked(home, ["anna"], required)


def test_a_key_tells_its_fingerprint_without_signing(home: Path, tmp_path: Path) -> None:
    signed = signing.parse_signature(SshSigner(home / "anna").sign(CONTENT)).fingerprint
    assert SshSigner(home / "anna").fingerprint() == signed
    assert SshSigner(home / "anna.pub").fingerprint() == signed
    assert SshSigner(tmp_path / "nothing").fingerprint() is None
