# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures by OpenSSH keys, made and checked by ``ssh-keygen -Y``.

ssh-keygen alone decides whether a signature is good. When it is not, the files are read here
once more, to tell which of the reasons it was: its own message is the same for most of them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

NAMESPACE = "convoy-release"
SECONDS = 30  # that ssh-keygen may take

_ARMOR = re.compile(rb"\s*-----BEGIN SSH SIGNATURE-----\s+([A-Za-z0-9+/=\s]+)-----END SSH SIGNATURE-----\s*\Z")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_MAGIC = b"SSHSIG"
_FIELD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PATTERN_CHARACTERS = frozenset("*?!")


class SigningError(ConvoyError):
    """A signature cannot be made or checked: key, trust file or ssh-keygen are not usable."""

    reason: ClassVar[str] = "signing"


class SignatureRefusedError(ConvoyError):
    """The signature is not one to trust. Each subclass is one reason."""

    reason: ClassVar[str] = "signature-refused"


class MalformedSignatureError(SignatureRefusedError):
    """It is no SSH signature, or a damaged one."""

    reason: ClassVar[str] = "signature-malformed"


class WrongNamespaceError(SignatureRefusedError):
    """The signature, or the key, is for another use than releases."""

    reason: ClassVar[str] = "signature-namespace"


class UnknownSignerError(SignatureRefusedError):
    """The trust file does not know the key, or not under an accepted name."""

    reason: ClassVar[str] = "signer-unknown"


class SignerExpiredError(SignatureRefusedError):
    """The time for which the trust file vouches for the key is over."""

    reason: ClassVar[str] = "signer-expired"


class SignerNotYetValidError(SignatureRefusedError):
    """The time for which the trust file vouches for the key has not begun."""

    reason: ClassVar[str] = "signer-not-yet-valid"


class SignerRevokedError(SignatureRefusedError):
    """The key is on the revocation list."""

    reason: ClassVar[str] = "signer-revoked"


class ContentTamperedError(SignatureRefusedError):
    """The signer is trusted, but it is other content that they signed."""

    reason: ClassVar[str] = "signature-content"


@dataclass(frozen=True)
class Identity:
    """Who signed: a principal of the trust file, and the fingerprint of the key."""

    principal: str
    fingerprint: str


class Signer(Protocol):
    def sign(self, content: bytes) -> bytes:
        """A detached signature of the content. Raises SigningError."""


class Verifier(Protocol):
    def verify(self, content: bytes, signature: bytes) -> Identity:
        """Who signed the content. Raises SignatureRefusedError, or SigningError when it cannot be told."""


@dataclass(frozen=True)
class SshSigner:
    """Signs with a private key file, or through an agent when ``key`` is a public key file."""

    key: Path
    namespace: str = NAMESPACE

    def sign(self, content: bytes) -> bytes:
        self.check()
        done = _ssh_keygen(["-Y", "sign", "-f", str(self.key), "-n", self.namespace], content)
        if done.returncode != 0 or not _ARMOR.match(done.stdout):
            raise SigningError(
                f"ssh-keygen cannot sign with {self.key}: {_first_line(done.stderr)}. A key with a passphrase "
                "must be in an agent; give the path of its public half then"
            )
        return done.stdout

    def fingerprint(self) -> str | None:
        """The fingerprint of the key; None where it cannot be told without its passphrase."""
        done = _ssh_keygen(["-l", "-f", str(self.key)], b"")
        found = _FINGERPRINT.search(done.stdout.decode(errors="replace"))
        return found.group() if done.returncode == 0 and found else None

    def check(self) -> None:
        """Raise SigningError for a key that is not there, or that others could use."""
        try:
            mode = stat.S_IMODE(self.key.stat().st_mode)
        except OSError as error:
            raise SigningError(f"cannot read the signing key {self.key}: {error.strerror}") from error
        if self.key.suffix != ".pub" and mode & 0o077:
            raise SigningError(
                f"the signing key {self.key} has mode {mode:04o}, which lets others read it: "
                f"chmod 0600 {shlex.quote(str(self.key))}"
            )


@dataclass(frozen=True)
class SshVerifier:
    """Trusts the keys of an ``allowed_signers`` file, less those on a revocation list.

    ``principals``, when given, narrows it to some of the file's principals. Principals with
    wildcards are refused: such a line vouches for any name that is asked for.
    """

    allowed_signers: Path
    revoked: Path | None = None
    principals: frozenset[str] | None = None
    namespace: str = NAMESPACE

    def verify(self, content: bytes, signature: bytes) -> Identity:
        parsed = parse_signature(signature)
        if parsed.namespace != self.namespace:
            raise WrongNamespaceError(
                f"the signature was made for the namespace '{parsed.namespace}', needed is '{self.namespace}': "
                f"sign with ssh-keygen -Y sign -n {self.namespace}"
            )
        refusals = []
        for principal in self._principals_of(parsed):
            identity = Identity(principal, parsed.fingerprint)
            refusal = self._refusal(identity, content, signature)
            if refusal is None:
                return identity
            refusals.append(refusal)
        raise refusals[0]

    def _principals_of(self, signature: SshSignature) -> list[str]:
        """The names under which the trust file lists the signature's key: at least one."""
        listed = [
            principal
            for entry in read_allowed_signers(self.allowed_signers)
            if entry.key == signature.key
            for principal in entry.principals
        ]
        if not listed:
            raise UnknownSignerError(
                f"the key {signature.fingerprint} is not in {self.allowed_signers}: "
                "add it there if its owner may release"
            )
        accepted = [name for name in listed if self.principals is None or name in self.principals]
        if not accepted:
            raise UnknownSignerError(
                f"signed by '{listed[0]}' ({signature.fingerprint}), which {self.allowed_signers} knows, "
                f"but accepted here is only {', '.join(sorted(self.principals or ()))}"
            )
        return accepted

    def _refusal(self, identity: Identity, content: bytes, signature: bytes) -> SignatureRefusedError | None:
        """What ssh-keygen has against the signature, None when it is good."""
        who = f"'{identity.principal}' ({identity.fingerprint})"
        with tempfile.NamedTemporaryFile(prefix="convoy-", suffix=".sig") as file:
            file.write(signature)
            file.flush()
            arguments = [
                "-Y", "verify", "-f", str(self.allowed_signers), "-I", identity.principal,
                "-n", self.namespace, "-s", file.name,
            ]  # fmt: skip
            revocation = self._revocation_arguments()
            done = _ssh_keygen([*arguments, *revocation], content)
            if done.returncode == 0:
                return None
            if revocation and _ssh_keygen(arguments, content).returncode == 0:
                return SignerRevokedError(f"the key of {who} is revoked by {self.revoked}, or that list is damaged")
        for said, refusal, advice in _REFUSALS:
            if said in done.stderr:
                return refusal(f"signed by {who}, but {_first_line(done.stderr)}: {advice}")
        return SignatureRefusedError(f"ssh-keygen refuses the signature of {who}: {_first_line(done.stderr)}")

    def _revocation_arguments(self) -> list[str]:
        if self.revoked is None:
            return []
        if not os.access(self.revoked, os.R_OK):
            raise SigningError(f"cannot read the revocation list {self.revoked}: no release is trusted without it")
        return ["-r", str(self.revoked)]


@dataclass(frozen=True)
class SshSignature:
    """What an SSH signature says of itself. Nothing of it is verified."""

    key: bytes
    namespace: str

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.key).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"


def parse_signature(signature: bytes) -> SshSignature:
    """Read an armored signature as PROTOCOL.sshsig of OpenSSH describes it."""
    armor = _ARMOR.match(signature)
    try:
        if armor is None:
            raise ValueError("it has no lines BEGIN and END SSH SIGNATURE")
        blob = base64.b64decode(b"".join(armor.group(1).split()), validate=True)
        if not blob.startswith(_MAGIC):
            raise ValueError("it does not begin with SSHSIG")
        key, rest = _read_string(blob[len(_MAGIC) + 4 :])
        namespace, _rest = _read_string(rest)
        return SshSignature(key, namespace.decode())
    except ValueError as error:
        raise MalformedSignatureError(f"the signature is no SSH signature, or damaged: {error}") from error


def _read_string(data: bytes) -> tuple[bytes, bytes]:
    """An SSH string (length in four bytes, then content) and what follows it."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < end:
        raise ValueError("it is cut off")
    return data[4:end], data[end:]


@dataclass(frozen=True)
class AllowedSigner:
    """A line of an ``allowed_signers`` file."""

    principals: tuple[str, ...]
    key: bytes


def read_allowed_signers(path: Path) -> list[AllowedSigner]:
    """The lines of the file. Raises SigningError for one that cannot be read or vouches for any name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SigningError(
            f"cannot read the allowed signers {path}: {error}. Point environment_allowed_signers to a file "
            "in the format of ssh-keygen(1), ALLOWED SIGNERS"
        ) from error
    return [
        _read_signer(f"{path}:{number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _read_signer(where: str, line: str) -> AllowedSigner:
    fields = _FIELD.findall(line)
    for position in (2, 3):
        key = _read_key(*fields[position - 1 : position + 1])
        if key is not None:
            break
    else:
        raise SigningError(f'{where}: no key found: a line is PRINCIPAL namespaces="{NAMESPACE}" KEYTYPE KEY')
    principals = tuple(fields[0].strip('"').split(","))
    for principal in principals:
        if _PATTERN_CHARACTERS & set(principal):
            raise SigningError(
                f"{where}: the principal '{principal}' is a pattern, which vouches for any name that fits: "
                "name each signer"
            )
    return AllowedSigner(principals, key)


def _read_key(kind: str = "", encoded: str = "") -> bytes | None:
    """The public key, None when these two fields are none: a key repeats its type inside."""
    try:
        key = base64.b64decode(encoded, validate=True)
        return key if kind and _read_string(key)[0] == kind.encode() else None
    except ValueError:
        return None


def _ssh_keygen(arguments: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run it with the content on its standard input, and no terminal that it could ask on."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK") if name in os.environ}
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=content,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            start_new_session=True,
            env={**environment, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
        )
    except FileNotFoundError as error:
        raise SigningError("ssh-keygen is not installed: install OpenSSH's client, 8.1 or newer") from error
    except subprocess.TimeoutExpired as error:
        raise SigningError(f"ssh-keygen did not answer within {SECONDS} s") from error


def _first_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else "it gave no reason"


# How ssh-keygen begins each refusal, and what to do about it.
_REFUSALS: tuple[tuple[bytes, type[SignatureRefusedError], str], ...] = (
    (b"not permitted for use in signature namespace", WrongNamespaceError, "let another key sign"),
    (b"key has expired", SignerExpiredError, "sign again with a key that is valid now"),
    (b"key is not yet valid", SignerNotYetValidError, "wait, or sign with a key that is valid now"),
    (b"incorrect signature", ContentTamperedError, "the content was changed after it was signed; publish it again"),
)
