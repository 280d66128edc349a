# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A depot looked through as a whole: what is wrong with it, and what of it nobody needs any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import provenance, terms
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Author, Depot, Item, Trust
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import DamagedReleaseError, DepotError, remove
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import State
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.signers import TooFewSignersError
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import (
    SignerExpiredError,
    SignerNotYetValidError,
    SignerRevokedError,
    UnknownSignerError,
)

# What another environment, or another day, may see otherwise: the release itself is as it was signed.
_DISTRUST = (
    SignerExpiredError, SignerNotYetValidError, SignerRevokedError, TooFewSignersError, UnknownSignerError,
    terms.MisplacedManifestError, provenance.MissingProvenanceError, provenance.UntrustedProvenanceError,
    provenance.WrongBuilderError, provenance.WrongSourceError,
)  # fmt: skip


class UnknownUsersError(DepotError):
    """Environments use the depot whose hosts nobody can tell about: nothing is collected."""

    reason: ClassVar[str] = "depot-users"


@dataclass
class Findings:
    """What was found: ``faults`` are to be repaired, ``notes`` are not; ``trusted`` are in quarantine needlessly."""

    releases: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trusted: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rubbish:
    """What nobody needs. ``left``: of interrupted uploads; ``artifacts``: with the releases that they were of.

    ``kept`` are retired releases that hosts still run, or could go back to, and the environments that they are in.
    """

    left: tuple[Path, ...]
    artifacts: tuple[tuple[Path, tuple[Item, ...]], ...]
    kept: tuple[tuple[Item, tuple[str, ...]], ...]


def look_through(depot: Depot, trust: Trust) -> Findings:
    """Verify every digest, signature, provenance and record, and look for what is left over. Changes nothing."""
    found = Findings()
    with depot.failures_told():
        depot.check_usable()
        with depot.files.unchanged():
            items = depot.items()
            found.releases = len(items)
            for item in items:
                _look_at(found, depot, item, trust)
            found.faults += _shared_serials(items)
            found.faults += depot.files.exposed()
            found.faults += [
                f"{path} was left by an upload that was interrupted: run depot.yml -e depot_do=collect"
                for path in [*depot.files.leftovers(), *_orphans(depot, items)]
            ]
            found.faults += [f"{path} is no part of a depot: move it away" for path in depot.files.strangers()]
    return found


def _look_at(found: Findings, depot: Depot, item: Item, trust: Trust) -> None:
    what = f"{item.component} {item.version}"
    if item.manifest is None:
        found.faults.append(f"{what}: {item.trouble}")
        return
    try:
        if item.has_artifact or not item.standing.retired:
            depot.check_blob(item.manifest)
        depot.read_sbom(item.manifest)
        depot.check_provenance(item.manifest)
    except DamagedReleaseError as error:
        found.faults.append(f"{what}: {error}")
        return
    if trust.verifier is None:
        return
    try:
        depot.inspect(item.component, item.version, trust)
    except _DISTRUST as error:
        if item.standing.retired or not item.standing.trusted_in(trust.environment):
            found.notes.append(f"{what}: not to be deployed here: {error}")
        else:
            found.faults.append(f"{what}: {error}")
    except ConvoyError as error:
        found.faults.append(f"{what}: {error}")
    else:
        if not item.standing.verified and not item.standing.retired:
            found.trusted.append((item.component, item.version))


def _shared_serials(items: Sequence[Item]) -> list[str]:
    """Serials that two versions have: one of them did not come by publishing."""
    by_serial: dict[tuple[str, int], list[str]] = defaultdict(list)
    for item in items:
        if item.manifest:
            by_serial[item.component, item.manifest.serial].append(item.version)
    return [
        f"{component} {' and '.join(versions)} have the same serial {serial}: one of them was not published here"
        for (component, serial), versions in by_serial.items()
        if len(versions) > 1
    ]


def _orphans(depot: Depot, items: Sequence[Item]) -> list[Path]:
    """Artifacts that no manifest names."""
    named = {item.manifest.artifact.sha256 for item in items if item.manifest}
    return [depot.files.blob(name) for name in depot.files.blobs() if name not in named]


def rubbish(depot: Depot, held: Mapping[str, Mapping[str, AbstractSet[str]]]) -> Rubbish:
    """What collect() removes; ``held`` are the versions that hosts need, by environment and component.

    Raises DamagedReleaseError for a release that cannot be read, since its artifact would seem to be nobody's, and
    UnknownUsersError where an environment uses the depot that ``held`` says nothing of.
    """
    items = depot.items()
    for item in items:
        if item.manifest is None:
            raise DamagedReleaseError(
                f"{item.component} {item.version}: {item.trouble}. Nothing is collected until then"
            )
    _refuse_unknown_users(depot, items, held)
    holders = {(item.component, item.version): _holders(item, held) for item in items if item.standing.retired}
    by_artifact: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_artifact[_artifact_of(item)].append(item)
    idle = [
        (depot.files.blob(name), tuple(of))
        for name, of in sorted(by_artifact.items())
        if of[0].has_artifact and all(holders.get((item.component, item.version)) == () for item in of)
    ]
    kept = [(item, holders[item.component, item.version]) for item in items if item.standing.retired]
    left = (*depot.files.leftovers(), *_orphans(depot, items))
    return Rubbish(left, tuple(idle), tuple((item, users) for item, users in kept if users))


def collect(
    depot: Depot, held: Mapping[str, Mapping[str, AbstractSet[str]]], author: Author, dry: bool
) -> tuple[Rubbish, int]:
    """Remove what nobody needs, and say how many bytes that are; ``dry`` only tells.

    The manifests of what was retired stay, with their records.
    """
    with depot.failures_told():
        if dry:
            found = rubbish(depot, held)
            return found, _bytes_of(found)
        with depot.files.locked():
            found = rubbish(depot, held)
            freed = _bytes_of(found)
            for path in found.left:
                remove(path)
            for path, items in found.artifacts:
                remove(path)
                for item in items:
                    _note_collected(depot, item, author)
            return found, freed


def _bytes_of(found: Rubbish) -> int:
    paths = [*found.left, *(path for path, _items in found.artifacts)]
    files = [file for path in paths for file in ([path, *path.rglob("*")] if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _note_collected(depot: Depot, item: Item, author: Author) -> None:
    manifest = item.standing.changes[-1].manifest
    change = author.change(State.RETIRED, manifest, "", "its artifact was collected")
    depot.files.append_change(item.component, item.version, change)


def _refuse_unknown_users(depot: Depot, items: Sequence[Item], held: Mapping[str, object]) -> None:
    users = set(depot.files.environments())
    for item in items:
        users |= item.standing.environments | set(item.manifest.audience if item.manifest else ())
    unknown = sorted(users - held.keys())
    if unknown:
        raise UnknownUsersError(
            f"the depot {depot.path} is used by {', '.join(unknown)} too, and what the hosts there run or could go "
            "back to is in other ledgers: name each with its URL in depot_ledgers. Nothing was collected"
        )


def _holders(item: Item, held: Mapping[str, Mapping[str, AbstractSet[str]]]) -> tuple[str, ...]:
    """The environments that need the release."""
    return tuple(sorted(name for name, needs in held.items() if item.version in needs.get(item.component, ())))


def _artifact_of(item: Item) -> str:
    manifest: Manifest | None = item.manifest
    return manifest.artifact.sha256 if manifest else ""
