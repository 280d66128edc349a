# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many people have to sign a release: N of those whom a trust file names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import Identity, SignatureRefusedError, Verifier


class RequiredSignersError(ConvoyError):
    """The number of signers that an environment requires is none."""

    reason: ClassVar[str] = "signers-required"


class TooFewSignersError(SignatureRefusedError):
    """There are good signatures, but by fewer people than are required."""

    reason: ClassVar[str] = "signers-too-few"


def signers_of(verifier: Verifier, content: bytes, signatures: Sequence[bytes], required: int) -> tuple[Identity, ...]:
    """Who signed the content, each principal once, however many of their keys did.

    A signature that is refused does not count, and is no harm as long as enough others are good. Raises the refusal of
    the first signature where none is good, TooFewSignersError where not enough are.
    """
    if required < 1:
        raise RequiredSignersError(f"environment_required_signers: {required} is out of range: at least 1 person signs")
    good: dict[str, Identity] = {}
    refusals = []
    for signature in signatures:
        try:
            identity = verifier.verify(content, signature)
        except SignatureRefusedError as refusal:
            refusals.append(refusal)
        else:
            good.setdefault(identity.principal, identity)
    if not good:
        raise refusals[0]
    if len(good) < required:
        others = "".join(f"; another signature does not count: {refusal}" for refusal in refusals)
        raise TooFewSignersError(
            f"{required} people have to sign, and {len(good)} did: {', '.join(good)}. Somebody else of the allowed "
            f"signers publishes the same artifact with a key of their own, which adds a signature{others}"
        )
    return tuple(good.values())
