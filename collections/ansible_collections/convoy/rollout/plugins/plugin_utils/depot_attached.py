# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept with a release beside its artifact: its bill of material, and provenance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import provenance, sbom
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import read_up_to
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Sbom
from ansible_collections.convoy.rollout.plugins.plugin_utils.sbom import SbomError


class UnreadableAttachmentError(ConvoyError):
    """What is to be kept with a release cannot be read."""

    reason: ClassVar[str] = "attachment-unreadable"


@dataclass(frozen=True)
class Attached:
    """What a publisher gives with an artifact. ``bound`` is what the manifest says of the SBOM."""

    sbom: bytes | None = None
    bound: Sbom | None = None
    envelope: bytes | None = None

    @property
    def envelopes(self) -> list[bytes]:
        return [] if self.envelope is None else [self.envelope]

    def files(self) -> dict[str, tuple[str, bytes]]:
        """What each is called, and its content, by its path below the release in the depot."""
        found = {}
        if self.sbom is not None:
            found["sbom.json"] = ("SBOM", self.sbom)
        if self.envelope is not None:
            name = hashlib.sha256(self.envelope).hexdigest()
            found[f"provenance/{name}.json"] = ("provenance", self.envelope)
        return found


def read_attached(bill: Path | None, envelope: Path | None, sha256: str) -> Attached:
    """Read what comes with the artifact of this digest; None is not given.

    Refuses what no environment could ever accept: a bill of no known form (SbomError), provenance that is none, that
    nobody signed, or that is of another artifact (a SignatureRefusedError each). Whose it is, is asked elsewhere.
    """
    content, bound, signed = None, None, None
    if bill is not None:
        content = _read("publish_sbom", bill, sbom.LARGEST)
        if len(content) > sbom.LARGEST:
            raise SbomError(
                f"the SBOM {bill} has more than {sbom.LARGEST} bytes: leave out what is not in the artifact"
            )
        found = sbom.read(content, str(bill))
        bound = Sbom(hashlib.sha256(content).hexdigest(), len(content), found.format)
    if envelope is not None:
        signed = _read("publish_provenance", envelope, provenance.LARGEST)
        check_envelope(signed, sha256)
    return Attached(content, bound, signed)


def check_envelope(content: bytes, sha256: str) -> None:
    """Raise the refusal of its own for provenance that is none, unsigned, or of another artifact."""
    provenance.check_subject(provenance.read_statement(provenance.read_envelope(content).payload), sha256)


def _read(variable: str, path: Path, largest: int) -> bytes:
    try:
        return read_up_to(path, largest)
    except OSError as error:
        raise UnreadableAttachmentError(f"{variable}: cannot read {path}: {error.strerror}") from error
