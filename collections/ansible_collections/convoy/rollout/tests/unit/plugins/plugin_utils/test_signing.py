# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures made and refused by the real ssh-keygen, each refusal for its own reason."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import signing
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner, SshVerifier

CONTENT = b'{"component":"hello"}'
RELEASES = 'namespaces="convoy-release"'


@dataclass(frozen=True)
class Home:
    """A directory with keys and a trust file."""

    path: Path

    def key(self, name: str, passphrase: str = "") -> Path:
        path = self.path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)], check=True)
        return path

    def public(self, name: str) -> str:
        return (self.path / f"{name}.pub").read_text().strip()

    def trust(self, *lines: str) -> SshVerifier:
        path = self.path / "allowed_signers"
        path.write_text("".join(f"{line}\n" for line in lines))
        return SshVerifier(path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.key("release")
    return home


@pytest.fixture
def signature(home: Home) -> bytes:
    return SshSigner(home.path / "release").sign(CONTENT)


def test_a_good_signature_names_its_signer(home: Home, signature: bytes) -> None:
    identity = home.trust(f"alice@example.org {RELEASES} {home.public('release')}").verify(CONTENT, signature)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(home.path / "release.pub")], capture_output=True, text=True, check=True
    )
    assert identity == signing.Identity("alice@example.org", shown.stdout.split()[1])


@pytest.mark.parametrize(
    "line",
    [
        "alice {key}",
        "alice,bob {key}",
        'alice namespaces="file,convoy-release" {key}',
        'alice namespaces="convoy-*" {key}',
        'alice valid-after="20200101Z",namespaces="convoy-release" {key} a comment',
        '"alice" {key}',
    ],
)
def test_every_form_of_a_trust_line_is_read(home: Home, signature: bytes, line: str) -> None:
    verifier = home.trust("# who may release", "", line.format(key=home.public("release")))
    assert verifier.verify(CONTENT, signature).principal == "alice"


def test_a_key_is_trusted_while_one_of_its_lines_is_good(home: Home, signature: bytes) -> None:
    key = home.public("release")
    verifier = home.trust(f'old valid-before="20200101Z" {key}', f"new {key}")
    assert verifier.verify(CONTENT, signature).principal == "new"


def test_a_key_in_an_agent_signs_by_its_public_half(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = home.path / "release", home.path / "release.pub"
    socket = home.path / "agent"
    started = subprocess.run(["ssh-agent", "-s", "-a", str(socket)], capture_output=True, text=True, check=True)
    agent = int(re.findall(r"SSH_AGENT_PID=(\d+)", started.stdout)[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(private)], check=True)
        private.unlink()
        signature = SshSigner(public).sign(CONTENT)
    finally:
        os.kill(agent, signal.SIGTERM)
    assert home.trust(f"alice {home.public('release')}").verify(CONTENT, signature).principal == "alice"


def test_a_public_half_without_an_agent_does_not_sign(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (home.path / "release").unlink()
    with pytest.raises(signing.SigningError, match="cannot sign with"):
        SshSigner(home.path / "release.pub").sign(CONTENT)


def refusal(verifier: SshVerifier, content: bytes, signature: bytes) -> signing.SignatureRefusedError:
    with pytest.raises(signing.SignatureRefusedError) as refused:
        verifier.verify(content, signature)
    return refused.value


def test_other_content_is_refused(home: Home, signature: bytes) -> None:
    error = refusal(home.trust(f"alice {home.public('release')}"), CONTENT + b" ", signature)
    assert error.reason == signing.ContentTamperedError.reason
    assert "'alice'" in str(error)


def test_a_key_that_nobody_listed_is_refused(home: Home) -> None:
    other = SshSigner(home.key("other")).sign(CONTENT)
    error = refusal(home.trust(f"alice {home.public('release')}"), CONTENT, other)
    assert error.reason == signing.UnknownSignerError.reason
    assert "SHA256:" in str(error)
    assert "allowed_signers" in str(error)


def test_an_empty_trust_file_trusts_nobody(home: Home, signature: bytes) -> None:
    assert refusal(home.trust(), CONTENT, signature).reason == signing.UnknownSignerError.reason


def test_a_signer_who_is_not_accepted_here_is_refused(home: Home, signature: bytes) -> None:
    trust = home.trust(f"alice {home.public('release')}")
    narrowed = SshVerifier(trust.allowed_signers, principals=frozenset({"bob", "carol"}))
    error = refusal(narrowed, CONTENT, signature)
    assert error.reason == signing.UnknownSignerError.reason
    assert "signed by 'alice'" in str(error)
    assert "bob, carol" in str(error)


def test_a_signature_for_another_use_is_refused(home: Home) -> None:
    other_use = SshSigner(home.path / "release", namespace="file").sign(CONTENT)
    error = refusal(home.trust(f"alice {home.public('release')}"), CONTENT, other_use)
    assert error.reason == signing.WrongNamespaceError.reason
    assert "'file'" in str(error)
    assert "'convoy-release'" in str(error)


def test_a_key_for_another_use_is_refused(home: Home, signature: bytes) -> None:
    error = refusal(home.trust(f'alice namespaces="git" {home.public("release")}'), CONTENT, signature)
    assert error.reason == signing.WrongNamespaceError.reason
    assert "allowed_signers:1" in str(error)


@pytest.mark.parametrize(
    ("validity", "expected"),
    [
        ('valid-before="20200101Z"', signing.SignerExpiredError),
        ('valid-after="20990101Z"', signing.SignerNotYetValidError),
    ],
)
def test_a_key_out_of_its_time_is_refused(
    home: Home, signature: bytes, validity: str, expected: type[signing.SignatureRefusedError]
) -> None:
    error = refusal(home.trust(f"alice {validity} {home.public('release')}"), CONTENT, signature)
    assert error.reason == expected.reason


def test_a_revoked_key_is_refused(home: Home, signature: bytes) -> None:
    trust = home.trust(f"alice {home.public('release')}")
    revoked = home.path / "revoked"
    revoked.write_text("")
    verifier = SshVerifier(trust.allowed_signers, revoked=revoked)
    assert verifier.verify(CONTENT, signature).principal == "alice"
    revoked.write_text(home.public("release") + "\n")
    error = refusal(verifier, CONTENT, signature)
    assert error.reason == signing.SignerRevokedError.reason
    assert "'alice'" in str(error)


def test_a_revocation_list_that_is_missing_stops_everything(home: Home, signature: bytes) -> None:
    trust = home.trust(f"alice {home.public('release')}")
    with pytest.raises(signing.SigningError, match="cannot read the revocation list"):
        SshVerifier(trust.allowed_signers, revoked=home.path / "nothing").verify(CONTENT, signature)


def test_a_revocation_list_that_is_damaged_trusts_nobody(home: Home, signature: bytes) -> None:
    trust = home.trust(f"alice {home.public('release')}")
    (home.path / "revoked").write_text("no key at all !!\n")
    error = refusal(SshVerifier(trust.allowed_signers, revoked=home.path / "revoked"), CONTENT, signature)
    assert "or that list is damaged" in str(error)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda signature: b"", id="empty"),
        pytest.param(lambda signature: b"hello", id="other"),
        pytest.param(lambda signature: signature[: len(signature) // 2], id="cut"),
        pytest.param(lambda signature: signature.replace(b"U1NIU0", b"U1NIAA"), id="magic"),
        pytest.param(lambda signature: signature.replace(b"U1NIU0", b"U1*IU0"), id="base64"),
        pytest.param(lambda signature: signature[:60] + b"\n-----END SSH SIGNATURE-----\n", id="short"),
        pytest.param(lambda signature: signature + signature, id="twice"),
    ],
)  # fmt: skip
def test_what_is_no_signature_is_refused(home: Home, signature: bytes, damage: Callable[[bytes], bytes]) -> None:
    error = refusal(home.trust(f"alice {home.public('release')}"), CONTENT, damage(signature))
    assert error.reason == signing.MalformedSignatureError.reason


@pytest.mark.parametrize("principal", ["*", "*@example.org", "alic?", "bob,!alice,*"])
def test_a_principal_with_a_pattern_is_refused(home: Home, signature: bytes, principal: str) -> None:
    verifier = home.trust(f"alice {home.public('release')}", f"{principal} {home.public('release')}")
    with pytest.raises(signing.SigningError, match=r"allowed_signers:2: .* is a pattern"):
        verifier.verify(CONTENT, signature)


@pytest.mark.parametrize("line", ["alice", "alice ssh-ed25519", "alice ssh-ed25519 AAAA", "ssh-ed25519 {key}"])
def test_a_trust_line_without_a_key_is_refused(home: Home, signature: bytes, line: str) -> None:
    key = home.public("release").split()[1]
    with pytest.raises(signing.SigningError, match=r"allowed_signers:1: no key found"):
        home.trust(line.format(key=key)).verify(CONTENT, signature)


def test_a_missing_trust_file_is_named(tmp_path: Path, signature: bytes) -> None:
    with pytest.raises(signing.SigningError, match="environment_allowed_signers"):
        SshVerifier(tmp_path / "nothing").verify(CONTENT, signature)


def test_a_key_that_others_can_read_does_not_sign(home: Home) -> None:
    key = home.path / "release"
    key.chmod(0o640)
    with pytest.raises(signing.SigningError, match=r"mode 0640.*chmod 0600"):
        SshSigner(key).sign(CONTENT)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(signing.SigningError, match="nothing: No such file"):
        SshSigner(tmp_path / "nothing").sign(CONTENT)


def test_a_key_with_a_passphrase_is_not_asked_for(home: Home) -> None:
    with pytest.raises(signing.SigningError, match="must be in an agent"):
        SshSigner(home.key("locked", passphrase="correct horse")).sign(CONTENT)


def test_a_missing_ssh_keygen_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("ssh-keygen")
    monkeypatch.setenv("PATH", str(home.path))
    with pytest.raises(signing.SigningError, match="ssh-keygen is not installed"):
        SshSigner(home.path / "release").sign(CONTENT)
