# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a release in the depot, and what each of them allows. Pure.

quarantined -> verified -> promoted (for an environment, each by itself) -> retired

Every change is a record of its own: who, when, why, and of which manifest. No record changes any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import ManifestError, format_time, parse_time

SCHEMA = 1


class State(StrEnum):
    """How far a release has come."""

    QUARANTINED = "quarantined"  # published, but no environment has found its signatures to be trusted
    VERIFIED = "verified"  # signatures and digest were checked against the signers of an environment
    PROMOTED = "promoted"  # somebody said that an environment may have it
    RETIRED = "retired"  # not deployed any more, anywhere


class StateRecordError(ConvoyError):
    """A record of a change of state is none, or not of this release."""

    reason: ClassVar[str] = "release-state"


class NotVerifiedError(ConvoyError):
    """A release that is to be promoted has not been verified."""

    reason: ClassVar[str] = "release-not-verified"


class NotPromotedError(ConvoyError):
    """The environment deploys only what was promoted for it, and the release was not."""

    reason: ClassVar[str] = "release-not-promoted"


class RetiredReleaseError(ConvoyError):
    """The release is retired."""

    reason: ClassVar[str] = "release-retired"


@dataclass(frozen=True)
class Change:
    """A change of state. ``at``: UTC, in whole seconds; ``manifest``: the SHA-256 of what it was said of."""

    state: State
    at: datetime
    by: str
    why: str
    manifest: str
    environment: str = ""

    def to_json(self) -> bytes:
        """As it is stored."""
        content = {"schema": SCHEMA, **asdict(self), "at": format_time(self.at)}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def change_from_json(content: bytes, source: str) -> Change:
    """Read a record back. Raises StateRecordError naming ``source``."""
    try:
        values: dict[str, Any] = json.loads(content)
        if values.pop("schema") != SCHEMA:
            raise ValueError("written by another version of Convoy")
        if set(values) != {field.name for field in fields(Change)} or not all(
            isinstance(value, str) for value in values.values()
        ):
            raise ValueError("its fields are others")
        return Change(**{**values, "state": State(values["state"]), "at": parse_time("at", values["at"])})
    except (ValueError, KeyError, TypeError, AttributeError, ManifestError) as error:
        raise StateRecordError(
            f"{source} is no record of a release's state ({error}): restore it from a backup"
        ) from error


@dataclass(frozen=True)
class Standing:
    """Where a release stands, by all of its changes. One without any was published before states were kept."""

    changes: tuple[Change, ...] = ()

    @property
    def state(self) -> State:
        """How far it has come anywhere."""
        if self.retired:
            return State.RETIRED
        if self.promoted:
            return State.PROMOTED
        return State.VERIFIED if self.verified else State.QUARANTINED

    @property
    def retired(self) -> bool:
        return any(change.state is State.RETIRED for change in self.changes)

    @property
    def verified(self) -> bool:
        return any(change.state in (State.VERIFIED, State.PROMOTED) for change in self.changes)

    @property
    def promoted(self) -> tuple[str, ...]:
        """The environments that it is promoted for, sorted."""
        return tuple(sorted({change.environment for change in self.changes if change.state is State.PROMOTED}))

    @property
    def environments(self) -> frozenset[str]:
        """The environments that had to do with it."""
        return frozenset(change.environment for change in self.changes if change.environment)

    def trusted_in(self, environment: str) -> bool:
        """Whether this environment's signers were found to have signed it."""
        return any(
            change.environment == environment and change.state in (State.VERIFIED, State.PROMOTED)
            for change in self.changes
        )

    def __str__(self) -> str:
        if self.state is State.PROMOTED:
            return f"{State.PROMOTED}: {', '.join(self.promoted)}"
        return str(self.state)


def standing_of(what: str, changes: Sequence[Change], manifest: str) -> Standing:
    """What the changes make of the release. Raises StateRecordError for one that was said of another manifest."""
    for number, change in enumerate(changes, start=1):
        if change.manifest != manifest:
            raise StateRecordError(
                f"{what}: its record {number} ({change.state}) is of a manifest with the SHA-256 {change.manifest}, "
                f"and the manifest has {manifest}: somebody exchanged one of them. Restore both from a backup"
            )
    return Standing(tuple(changes))


def refuse_retired(what: str, standing: Standing, wanted: str) -> None:
    """Raise RetiredReleaseError for a release that is retired; ``wanted`` is what it is not any more."""
    for change in standing.changes:
        if change.state is State.RETIRED:
            raise RetiredReleaseError(
                f"{what} was retired at {format_time(change.at)} by {change.by}: {change.why}. It is not {wanted} any "
                "more: publish its successor, or the same artifact as a new version. Hosts that still have it can go "
                "back to it with rollback.yml"
            )


def refuse_unverified(what: str, standing: Standing) -> None:
    """Raise NotVerifiedError for a release that is still in quarantine."""
    if not standing.verified:
        why = standing.changes[-1].why if standing.changes else "it was published before states were kept"
        raise NotVerifiedError(
            f"{what} is in quarantine ({why}), and only a verified release is promoted: when its signatures are to be "
            "trusted, run depot.yml -e depot_do=verify"
        )


def refuse_unpromoted(what: str, version: str, standing: Standing, environment: str) -> None:
    """Raise NotPromotedError for a release that is not promoted for the environment."""
    if environment not in standing.promoted:
        raise NotPromotedError(
            f"{what} is {standing}, and {environment} deploys only what is promoted for it "
            f"(environment_requires_promotion): run promote.yml -e component_version={version} with this inventory"
        )
