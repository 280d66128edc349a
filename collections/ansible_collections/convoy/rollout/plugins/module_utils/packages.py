# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of a distribution: what a release keeps of them, and which of them an activation installs. Pure."""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError, PackageError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Sequence

# deb-control(5) and deb-version(7); rpm's names and versions fit into them but for capitals and '_'.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{1,127}")
_VERSION = re.compile(r"([0-9]+:)?[0-9][A-Za-z0-9.+~^_-]{0,99}")
_MOST_NAMED = 8
# What the id of a release ends in that was installed before Convoy came, where others have a digest.
_FOUND = "-found"


class Installed(NamedTuple):
    """A package on the host. `is_whole` unless its installation did not end; `at`: epoch seconds of its files."""

    version: str
    is_held: bool
    is_whole: bool
    at: float


class Change(NamedTuple):
    """What an installation does to one package; None stands for not being there."""

    name: str
    old: str | None
    new: str | None


class Kept(NamedTuple):
    """An archive of a package in the directory of a release."""

    path: str
    name: str
    version: str


class Pinned(NamedTuple):
    """What a release of the kind package consists of.

    `archives` are the package and what else had to be installed with it when it was staged, `before` what that
    replaced, beside the release `beside`. `is_held` is whether upgrades leave it alone while the release is active,
    `patience` for how many seconds others that install are waited for.
    """

    manager: str
    name: str
    version: str
    archives: tuple[Kept, ...]
    before: tuple[Kept, ...] = ()
    beside: str | None = None
    is_held: bool = True
    patience: float = 0.0

    def fields(self) -> dict[str, Any]:
        """As a record has it."""
        lists = {name: tuple(one._asdict() for one in getattr(self, name)) for name in ("archives", "before")}
        return {**self._asdict(), **lists}


class Manager(Protocol):
    """What Convoy needs of a package manager. Every method raises PackageError when it could not be done."""

    name: str
    # The directory in which archives are looked for that no repository has any more.
    spare: str

    def installed(self, name: str) -> Installed | None:
        """The package as it is on the host; None when it is not."""

    def plan(self, name: str, version: str) -> tuple[Change, ...]:
        """What installing that version from the repositories would come to. Reads, and asks repositories for news."""

    def fetch(self, wanted: Sequence[tuple[str, str]], place: str) -> list[Kept]:
        """Bring archives of packages in these versions into a directory, verified as the manager verifies them."""

    def wait(self) -> None:
        """Wait until nobody else installs. LockedError names who does."""

    def repair(self) -> bool:
        """End an installation that was interrupted. Whether there was one."""

    def refusal(self, paths: Sequence[str]) -> str | None:
        """Why these archives cannot be installed with nothing else changed; None when they can."""

    def install(self, paths: Sequence[str]) -> None:
        """Install these archives, and nothing else: without a repository, a question, or a removal."""

    def remove(self, name: str) -> None:
        """Remove a package; its configuration stays."""

    def can_hold(self) -> bool:
        """Whether this host has what it takes to keep upgrades from a package."""

    def hold(self, name: str, is_held: bool) -> None:
        """Let upgrades leave it alone, or not."""

    def altered(self, name: str) -> list[str]:
        """Files of the package, other than its configuration, that are not as it brought them."""

    def is_older(self, one: str, other: str) -> bool:
        """Whether a version comes before another one."""


def check_name(name: str) -> str:
    """The name of a package, or InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"component_package.name {name!r} is not the name of a package: 2 to 128 letters, digits, '+', '.', '_' "
            "or '-', the first a letter or digit"
        )
    return name


def check_version(version: str) -> str:
    """The version of a package, or InputError."""
    if not _VERSION.fullmatch(version):
        raise InputError(
            f"version {version!r} is not the version of a package: write it as the repository has it, such as 1.4-2 "
            "or 1:1.4~rc1-2+b1; it begins with a digit"
        )
    return version


def in_release_id(version: str) -> str:
    """A version as a part of a release's id, which has no ':', '~' and '^'."""
    return re.sub(r"[:~^]", "_", version)


def found_release(version: str) -> str:
    """The id of the release that what was installed before Convoy came is kept as."""
    return in_release_id(version) + _FOUND


def is_found(release: str) -> bool:
    """Whether a release is what was installed before Convoy came."""
    return release.endswith(_FOUND)


def pinned_of(fields: Mapping[str, Any] | None) -> Pinned:
    """What a record says, read back. TreeError for a record that is of another kind, or damaged."""
    try:
        values = dict(fields or {})
        for key in ("archives", "before"):
            values[key] = tuple(Kept(**kept) for kept in values[key])
        return Pinned(**values)
    except (TypeError, KeyError) as error:
        raise TreeError(f"the record of the release tells of no package ({error}); stage the release again") from error


def check_plan(name: str, version: str, changes: Sequence[Change]) -> None:
    """Raise PackageError for an installation that takes other packages away."""
    gone = [change.name for change in changes if change.new is None]
    if gone:
        raise PackageError(
            f"{name} {version} cannot be staged: installing it would remove {_listed(gone)}. Convoy removes no package "
            "that it did not bring; remove what is in the way yourself, or choose another version"
        )


def unknown_version(name: str, version: str, known: Sequence[str]) -> PackageError:
    """The error for a version that no repository has; it names those that are there."""
    if not known:
        return PackageError(
            f"no repository of this host has a package {name!r}: check component_package.name and the host's sources"
        )
    return PackageError(
        f"no repository of this host has version {version!r} of {name}; there is {_listed(known)}. Choose one of "
        "these, or add the repository that has it"
    )


def choices(
    target: Pinned,
    others: Iterable[Pinned],
    release: str,
    installed: Mapping[str, str],
    is_older: Callable[[str, str], bool],
) -> list[list[Kept]]:
    """The sets of archives with which the package comes into place, the one that changes least first.

    The package itself is always the version of the release. What it stands on is not taken to an older version unless
    it cannot be otherwise: then all goes back to what was there when another release replaced it.
    `installed` are the versions of all that is named by `target` and `others`.
    """
    own = [kept for kept in target.archives if kept.name == target.name]
    beside = [kept for kept in target.archives if kept.name != target.name]
    newer = [kept for kept in beside if kept.name not in installed or is_older(installed[kept.name], kept.version)]
    exact = {kept.name: kept for kept in beside}
    for other in others:
        if other.beside == release:
            exact.update((kept.name, kept) for kept in other.before)
    least, most = [*own, *newer], [*own, *exact.values()]
    return [least] if set(least) == set(most) else [least, most]


def problems(pinned: Pinned, found: Installed | None) -> list[str]:
    """How a package differs from what the active release has pinned."""
    name = pinned.name
    if found is None:
        return [f"package {name} is not installed, the active release has {pinned.version}"]
    if found.version != pinned.version:
        return [f"package {name} is {found.version} here, the active release has {pinned.version}"]
    if not found.is_whole:
        return [f"the installation of package {name} {found.version} did not end: run the deployment again"]
    if pinned.is_held and not found.is_held:
        return [f"package {name} is not held any more: an upgrade would replace {found.version}"]
    return []


def difference(pinned: Pinned, found: Installed | None) -> tuple[str, str] | None:
    """The package as the active release has it, and as it is; None where there are no problems()."""
    expected = [pinned.version, *(["held"] if pinned.is_held else [])]
    if found is None:
        actual = ["not installed"]
    else:
        actual = [found.version] if found.is_whole else [found.version, "not installed to the end"]
        actual += [] if not pinned.is_held else ["held"] if found.is_held else ["not held"]
    return None if expected == actual else (", ".join(expected), ", ".join(actual))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
