# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release a good signature is good for: this one, here, now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest, format_time
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import Identity


class MisplacedManifestError(ConvoyError):
    """A good signature over the manifest of another release, or claimed for another signer."""

    reason: ClassVar[str] = "manifest-misplaced"


class WrongAudienceError(ConvoyError):
    """The release is not for this environment."""

    reason: ClassVar[str] = "release-audience"


class ReleaseExpiredError(ConvoyError):
    """The publisher set a time after which the release is not to be deployed; it is over."""

    reason: ClassVar[str] = "release-expired"


class ReplayedSerialError(ConvoyError):
    """The release is older than one that was already seen."""

    reason: ClassVar[str] = "release-replayed"


def check_place(found: Manifest, component: str, version: str, signers: Sequence[Identity]) -> None:
    """Raise MisplacedManifestError unless this is the manifest asked for, by the signer that it names."""
    if (found.component, found.version) != (component, version):
        raise MisplacedManifestError(
            f"asked for {component} {version}, the signed manifest there is of {found.component} {found.version}: "
            "somebody moved it"
        )
    if found.signer is not None and found.signer not in [identity.principal for identity in signers]:
        others = " and ".join(f"'{identity.principal}' ({identity.fingerprint})" for identity in signers)
        raise MisplacedManifestError(
            f"the manifest of {component} {version} names '{found.signer}' as its signer, but {others} signed it"
        )


def check_terms(found: Manifest, environment: str, now: datetime, minimum_serial: int) -> None:
    """Raise the error of its own for a release that is for others, over its time, or replayed."""
    what = f"{found.component} {found.version}"
    if found.audience and environment not in found.audience:
        raise WrongAudienceError(f"{what} was published for {', '.join(found.audience)}, not for {environment}")
    if found.expires is not None and now >= found.expires:
        raise ReleaseExpiredError(f"{what} expired at {format_time(found.expires)}: publish a new version")
    check_serial(found.component, found.version, found.serial, minimum_serial)


def check_serial(component: str, version: str, serial: int, minimum_serial: int) -> None:
    """Raise ReplayedSerialError for a release that is older than one that was already deployed."""
    if serial < minimum_serial:
        raise ReplayedSerialError(
            f"{component} {version} has serial {serial}, but {minimum_serial} was seen already: it is older than it "
            "seems, and no deployment goes below. To go back on purpose: rollback.yml "
            f"-e component_version={version}, where the hosts still have it; else publish its artifact as a new version"
        )
