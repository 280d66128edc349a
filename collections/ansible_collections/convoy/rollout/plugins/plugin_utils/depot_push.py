# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a depot goes to a depot elsewhere: gathered and verified here, compared with what is there, and brought.

Nothing is brought before all has been found good. Artifacts come first and releases when theirs are there. What is
there is added to and never replaced, but for an artifact that is not what its name says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_states
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Depot, DepotError, Item, Trust
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import record_name
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_target import Target, in_order
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SigningError

_RECORD = re.compile(r"\d{6}\.json")


class UnfitReleaseError(DepotError):
    """Something that is to be pushed is not as it must be."""

    reason: ClassVar[str] = "push-unfit"


class OtherReleaseError(DepotError):
    """The place has something else under the same name, or knows more of it."""

    reason: ClassVar[str] = "push-other"


@dataclass(frozen=True)
class Parcel:
    """A release to be pushed: its files by their paths below it. ``manifest`` is None for one that is retired.

    Of that one only goes that it is retired, and only to where it is.
    """

    component: str
    version: str
    files: Mapping[str, bytes]
    manifest: Manifest | None

    @property
    def artifact(self) -> Artifact | None:
        return self.manifest.artifact if self.manifest else None

    def __str__(self) -> str:
        return f"{self.component} {self.version}"

    @property
    def path(self) -> str:
        return f"components/{self.component}/{self.version}"


@dataclass(frozen=True)
class Pending:
    """What of a release is to be brought. ``is_new``: there is none there. ``artifact``: None where it is there."""

    parcel: Parcel
    files: Mapping[str, bytes]
    is_new: bool
    artifact: Artifact | None

    @property
    def size(self) -> int:
        """How many bytes that are."""
        return sum(map(len, self.files.values())) + (self.artifact.size if self.artifact else 0)

    @property
    def is_nothing(self) -> bool:
        return not self.files and self.artifact is None


def gather(depot: Depot, trust: Trust, only: tuple[str, str] | None = None) -> list[Parcel]:
    """The releases that are promoted for the environment of ``trust``, verified, and those that are retired.

    Their artifacts are verified by check_artifacts(), when it is known which are to be brought. ``only``: a component
    and a version. Raises UnfitReleaseError where any of them is not as it must be.
    """
    if trust.verifier is None:
        raise SigningError("environment_allowed_signers is not set: only what its signers signed is pushed")
    if only:
        depot.known(*only)
    parcels: list[Parcel] = []
    faults: list[str] = []
    with depot.failures_told():
        depot.check_usable()
        with depot.files.unchanged():
            items = [depot.item(*only)] if only else depot.items()
            for item in items:
                try:
                    parcels += _parcels(depot, item, trust)
                except ConvoyError as error:
                    what = f"{item.component} {item.version}"
                    faults.append(str(error) if what in str(error) else f"{what}: {error}")
    _refuse_unfit(faults)
    if only and not parcels:
        what, standing = " ".join(only), depot.standing(*only)
        depot_states.refuse_unpromoted(what, only[1], standing, trust.environment)
    return parcels


def _parcels(depot: Depot, item: Item, trust: Trust) -> list[Parcel]:
    if item.manifest is None:
        raise UnfitReleaseError(item.trouble)
    found, standing = item.manifest, item.standing
    if (found.component, found.version) != (item.component, item.version):
        raise UnfitReleaseError(f"its manifest is of {found.component} {found.version}: publish it again")
    if standing.retired:
        return [_parcel(found, {**depot.signed(found), **_records(depot, item)}, None)]
    if trust.environment not in standing.promoted:
        return []
    depot.inspect(item.component, item.version, trust)
    depot.check_provenance(found)
    return [_parcel(found, {**depot.proof(found), **_records(depot, item)}, found)]


def _parcel(found: Manifest, files: Mapping[str, bytes], whole: Manifest | None) -> Parcel:
    return Parcel(found.component, found.version, files, whole)


def _records(depot: Depot, item: Item) -> dict[str, bytes]:
    names = [record_name(number) for number in range(1, len(item.standing.changes) + 1)]
    directory = depot.files.release(item.component, item.version) / "states"
    return {f"states/{name}": (directory / name).read_bytes() for name in names}


def compare(parcels: list[Parcel], target: Target) -> list[Pending]:
    """What of the releases the place does not have. Raises OtherReleaseError where it has something else."""
    target.check()
    held: dict[str, bool] = {}
    compared = []
    for parcel in parcels:
        there = target.read(f"{parcel.path}/manifest.json")
        if there is None and parcel.manifest is None:
            continue
        artifact = parcel.artifact
        if artifact and artifact.sha256 in held:
            artifact = None
        elif artifact:
            held[artifact.sha256] = target.holds(artifact.sha256, artifact.size)
            artifact = None if held[artifact.sha256] else artifact
        files = parcel.files if there is None else _missing(parcel, there, target)
        compared.append(Pending(parcel, files, there is None, artifact))
    return compared


def _missing(parcel: Parcel, manifest: bytes, target: Target) -> dict[str, bytes]:
    """What a release there lacks."""
    here = parcel.files["manifest.json"]
    if manifest != here:
        raise OtherReleaseError(
            f"{target.place.url} has another {parcel}: its manifest has the SHA-256 {_sha256(manifest)}, and the one "
            f"here {_sha256(here)}. A version never changes. Find out where that one was published; nothing was pushed"
        )
    _refuse_further(parcel, target)
    missing = {}
    for name, content in parcel.files.items():
        path = f"{parcel.path}/{name}"
        if name == "sbom.json" or name.startswith("provenance/"):  # named for its content, or bound by the manifest
            if target.size(path) != len(content):
                missing[name] = content
        elif name != "manifest.json":
            there = target.read(path)
            if there is None:
                missing[name] = content
            elif there != content:
                raise OtherReleaseError(
                    f"{target.place.url} has another {name} of {parcel}: it has the SHA-256 {_sha256(there)}, and the "
                    f"one here {_sha256(content)}. What was published is only added to. Find out who wrote that one; "
                    "nothing was pushed"
                )
    return missing


def _refuse_further(parcel: Parcel, target: Target) -> None:
    """What became of a release is recorded in one depot; the other one follows it."""
    there = [name for name in target.names(f"{parcel.path}/states") if _RECORD.fullmatch(name)]
    more = [name for name in there if f"states/{name}" not in parcel.files]
    if more:
        raise OtherReleaseError(
            f"{target.place.url} has {len(there)} records of {parcel}, and here are {len(there) - len(more)}: somebody "
            f"recorded {more[0]} there, or this depot is an old copy. Restore it, or push from the depot that knows "
            "them; nothing was pushed"
        )


def check_artifacts(pending: list[Pending], depot: Depot) -> None:
    """Raise UnfitReleaseError for artifacts that are to be brought and are not what was signed."""
    faults = []
    with depot.failures_told():
        for one in pending:
            try:
                if one.artifact and one.parcel.manifest:
                    depot.check_blob(one.parcel.manifest)
            except ConvoyError as error:
                faults.append(str(error))
    _refuse_unfit(faults)


def _refuse_unfit(faults: list[str]) -> None:
    if faults:
        raise UnfitReleaseError("nothing was pushed: " + "; and ".join(faults))


def bring(pending: list[Pending], depot: Depot, target: Target) -> None:
    """Bring what is missing, in an order that lets nobody see half of anything.

    What was retired goes at once, since nobody should wait for that until large artifacts have come.
    """
    retired = [one for one in pending if one.parcel.manifest is None]
    others = [one for one in pending if one.parcel.manifest is not None]
    with depot.failures_told(), target.session():
        for one in retired:
            _bring_files(one, target)
        for one in others:
            if one.artifact:
                target.bring(depot.files.blob(one.artifact.sha256), f"blobs/sha256/{one.artifact.sha256}")
        for one in others:
            _bring_files(one, target)


def _bring_files(one: Pending, target: Target) -> None:
    if one.is_new:
        target.place_release(one.parcel.path, one.files)
        return
    for name in in_order(one.files):
        target.write(f"{one.parcel.path}/{name}", one.files[name])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
