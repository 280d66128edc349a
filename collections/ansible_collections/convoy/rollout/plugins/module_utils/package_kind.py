# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind package: a version of a distribution's package, with all archives that going to it takes.

A release is a directory with the package's archive and those of what had to come with it, so that neither
an activation nor the way back needs a repository. `current` says which of them is meant to be installed.
What was installed before Convoy came is kept as a release of its own, for the way back.
"""

from __future__ import annotations

import os
import shutil

from ansible_collections.convoy.rollout.plugins.module_utils import durable, names, packages, record, staging
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    InputError,
    NotIntactError,
    PackageError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.packages import Kept, Manager, Pinned
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record, Unit
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Mapping

    from ansible_collections.convoy.rollout.plugins.module_utils.kinds import Difference

LOCK_TIMEOUT = 120
_ARCHIVES, _BEFORE = "archives", "before"
# The clock of files is no finer than the kernel's tick, that of processes neither.
_TICK = 1.0

AUTO = "auto"


def _apt(host: Host, patience: float) -> Manager:
    from ansible_collections.convoy.rollout.plugins.module_utils.apt import Apt

    return Apt(host.clock, patience)


def _dnf(host: Host, patience: float) -> Manager:
    from ansible_collections.convoy.rollout.plugins.module_utils.dnf import Dnf

    return Dnf(host.clock, patience)


# Where a host has several, it is managed by the first one. None is imported where it is not used.
MANAGERS: Mapping[str, Callable[[Host, float], Manager]] = {"apt": _apt, "dnf": _dnf}
_PROGRAMS = {"apt": "apt-get"}


class Wanted(NamedTuple):
    """The release that is to be staged: which package in which version, and the units that it brings.

    `manager` is the package manager to use, or AUTO.
    """

    release: str
    name: str
    version: str
    units: tuple[Unit, ...]
    patience: float
    manager: str


def wanted_of(params: Mapping[str, Any]) -> Wanted:
    """What is asked for. InputError names what is wrong with it."""
    for option in ("artifact", "manifest", "config", "delta", "url", "pull"):
        if params[option]:
            raise InputError(f"{option} is for releases of an archive: leave it away for a package")
    if params["transfer"] != "push":
        raise InputError(
            f"transfer is {params['transfer']!r}, which is for releases of an archive: hosts fetch a package from "
            "their own repositories; leave it away"
        )
    for unit in params["units"]:
        if unit["content"] is not None:
            raise InputError(f"unit {unit['name']!r} has content: a package brings its units, name them only")
    asked, units = params["package"], params["units"]
    patience = LOCK_TIMEOUT if asked["lock_timeout"] is None else asked["lock_timeout"]
    if patience < 0:
        raise InputError(f"component_package.lock_timeout is {patience}: must be 0 or more")
    return Wanted(
        release=params["release"],
        name=packages.check_name(asked["name"]),
        version=packages.check_version(params["version"] or ""),
        units=tuple(Unit(names.unit(unit["name"]), "", unit["action"]) for unit in units),
        patience=patience,
        manager=asked.get("manager") or AUTO,
    )


class Package:
    """See kinds.Kind. `manager` makes the package manager of a host by its name."""

    def __init__(self, managers: Mapping[str, Callable[[Host, float], Manager]] | None = None) -> None:
        self._managers = MANAGERS if managers is None else managers

    def stage(self, host: Host, params: Mapping[str, Any], is_check: bool) -> dict[str, Any]:
        """Bring a release to the host. What is installed without one is kept as one first."""
        wanted = wanted_of(params)
        host.tree.active()
        if self._is_staged(host, wanted):
            changed = not is_check and staging.ensure_noted(host, wanted.release)
            if not is_check:
                staging.forget_mended(host, wanted.release)
            return dict(host.outcome(wanted.release, changed), artifact_needed=False)
        if not params["mend"]:
            staging.check_not_in_use(host, wanted.release)
        if not is_check:
            manager = self._manager(host, self._usual(wanted.manager), wanted.patience)
            self._adopt(host, manager, wanted)
            self._bring(host, manager, wanted)
        return dict(host.outcome(wanted.release, True), artifact_needed=False)

    def ready(self, host: Host, recorded: Record) -> None:
        """See Kind."""
        pinned, manager = self._pinned(host, recorded)
        manager.wait()
        if manager.repair():
            host.warnings.append(
                "packages of this host were half installed, since an installation had been interrupted: dpkg "
                "--configure -a was run before anything else"
            )
            host.done("repaired")
        self._choose(host, manager, recorded.release, pinned)

    def activate(self, host: Host, recorded: Record) -> None:
        """See Kind."""
        pinned, manager = self._pinned(host, recorded)
        chosen = self._choose(host, manager, recorded.release, pinned)
        manager.install([kept.path for kept in chosen])
        manager.hold(pinned.name, pinned.is_held)
        host.supervisor.daemon_reload()
        faults = packages.problems(pinned, manager.installed(pinned.name))
        if faults:
            raise PackageError(f"{'; '.join(faults)}, although {pinned.manager} says that it was installed")
        host.done("installed")

    def revert(self, host: Host, recorded: Record) -> None:
        """See Kind. Its configuration stays, and what came with it: others may have begun to use that."""
        pinned, manager = self._pinned(host, recorded)
        host.supervisor.stop([unit.name for unit in recorded.units])
        if manager.installed(pinned.name) is not None:
            manager.remove(pinned.name)

    def sweep(self, host: Host) -> None:
        """See Kind. All that is kept of a package lies in the directory of its release."""

    def info(self, host: Host, recorded: Record, verify: bool) -> Iterator[str]:
        """See Kind."""
        pinned, manager = self._pinned(host, recorded)
        yield from packages.problems(pinned, manager.installed(pinned.name))
        if verify:
            yield from (f"{path} is not as package {pinned.name} brought it" for path in manager.altered(pinned.name))

    def drift(self, host: Host, recorded: Record, digests: bool) -> Iterator[Difference]:
        """See Kind."""
        pinned, manager = self._pinned(host, recorded)
        differs = packages.difference(pinned, manager.installed(pinned.name))
        if differs is not None:
            yield ("package", pinned.name, *differs)
        if digests:
            brought = f"as package {pinned.name} brought it"
            yield from (("file", path, brought, "changed or gone") for path in manager.altered(pinned.name))

    def process_fault(self, host: Host, running: Process, recorded: Record, not_before: int) -> str | None:
        """See Kind. What a process runs cannot be told by its directory; that it began after its files came, can."""
        pinned, manager = self._pinned(host, recorded)
        if running.started_ticks < not_before:
            return f"process {running.pid} is older than the installation: it was not restarted"
        found = manager.installed(pinned.name)
        if found is not None and running.started < found.at - _TICK:
            return f"process {running.pid} is older than the files of {pinned.name} {found.version}: restart its unit"
        return None

    def _usual(self, asked: str) -> str:
        """The package manager of this host, or the one that is asked for."""
        known = [name for name in self._managers if asked in (AUTO, name)]
        for name in known:
            if shutil.which(_PROGRAMS.get(name, name), path="/usr/local/bin:/usr/bin:/bin"):
                return name
        if asked != AUTO:
            raise PackageError(
                f"component_package.manager is {asked}, and this host has no {asked}: set it to auto, or to "
                "the package manager that the host has"
            )
        raise PackageError(
            f"this host has none of the package managers that Convoy knows ({', '.join(self._managers)}): deploy an "
            "archive instead (component_kind: archive)"
        )

    def _manager(self, host: Host, name: str, patience: float) -> Manager:
        if name not in self._managers:
            raise PackageError(f"the release was staged with {name}, which this Convoy does not know; stage it again")
        return self._managers[name](host, patience)

    def _pinned(self, host: Host, recorded: Record) -> tuple[Pinned, Manager]:
        """The package of a release with full paths, and what manages it."""
        directory = host.tree.release(recorded.release)
        pinned = packages.pinned_of(recorded.package)

        def here(kept: tuple[Kept, ...]) -> tuple[Kept, ...]:
            return tuple(one._replace(path=os.path.join(directory, one.path)) for one in kept)

        pinned = pinned._replace(archives=here(pinned.archives), before=here(pinned.before))
        return pinned, self._manager(host, pinned.manager, pinned.patience)

    def _is_staged(self, host: Host, wanted: Wanted) -> bool:
        """Whether the release is here and whole. InputError when its id stands for something else."""
        try:
            recorded = host.tree.verify(wanted.release)
        except NotIntactError:
            return False
        pinned = packages.pinned_of(recorded.package)
        if (pinned.name, pinned.version, recorded.units) != (wanted.name, wanted.version, wanted.units):
            raise InputError(
                f"release {wanted.release} is on this host as {pinned.name} {pinned.version} with other units or "
                "another name; an id must stand for one content: make a new version"
            )
        host.done("verified")
        return True

    def _adopt(self, host: Host, manager: Manager, wanted: Wanted) -> None:
        """Keep what is installed without a release as one, so that there is something to go back to."""
        found = manager.installed(wanted.name)
        if host.tree.active() is not None or found is None:
            return
        release = packages.found_release(found.version)
        pinned = Pinned(manager.name, wanted.name, found.version, (), is_held=found.is_held, patience=wanted.patience)
        try:
            self._keep(host, manager, release, pinned, wanted.units, [(wanted.name, found.version)], [])
        except PackageError as error:
            raise PackageError(
                f"{wanted.name} {found.version} is installed here, not by Convoy, and there would be no way back to "
                f"it: {error.message}. Put its archive into {manager.spare}, and run this again",
                **error.details,
            ) from error
        durable.replace_symlink(f"releases/{release}", host.tree.current)
        host.note("good", release, reason="installed before Convoy came")
        host.done("adopted")

    def _bring(self, host: Host, manager: Manager, wanted: Wanted) -> None:
        """Bring the package, what comes with it, and what that replaces as far as it can still be had."""
        known = self._known(host, wanted)
        if known is not None:
            new, old = ([(kept.name, kept.version) for kept in part] for part in (known.archives, known.before))
            self._keep(host, manager, wanted.release, known, wanted.units, new, old)
            return
        changes = manager.plan(wanted.name, wanted.version)
        packages.check_plan(wanted.name, wanted.version, changes)
        beside = [change for change in changes if change.name != wanted.name]
        new = [(wanted.name, wanted.version), *((change.name, str(change.new)) for change in beside)]
        old = [(change.name, change.old) for change in beside if change.old is not None]
        beside_release = host.tree.active()
        pinned = Pinned(
            manager=manager.name,
            name=wanted.name,
            version=wanted.version,
            archives=(),
            beside=beside_release,
            is_held=manager.can_hold(),
            patience=wanted.patience,
        )
        if not pinned.is_held:
            host.warnings.append(
                f"{wanted.name} will not be held, since {manager.name} cannot lock a version on this host: whoever "
                "upgrades its packages may replace it. dnf 4 can with its plugin versionlock"
            )
        self._keep(host, manager, wanted.release, pinned, wanted.units, new, old)

    def _known(self, host: Host, wanted: Wanted) -> Pinned | None:
        """What the active release consists of that is damaged: what it took to come to it is not asked for again."""
        if host.tree.active() != wanted.release:
            return None
        try:
            return packages.pinned_of(host.tree.read_record(wanted.release).package)
        except TreeError:
            return None

    def _keep(
        self,
        host: Host,
        manager: Manager,
        release: str,
        pinned: Pinned,
        units: tuple[Unit, ...],
        new: list[tuple[str, str]],
        old: list[tuple[str, str]],
    ) -> None:
        """Make the release: archives, record, name."""
        with staging.work_place(host, release) as place:
            for directory in (place, *(os.path.join(place, part) for part in (_ARCHIVES, _BEFORE))):
                os.mkdir(directory, 0o755)
            archives = manager.fetch(new, os.path.join(place, _ARCHIVES))
            host.done("fetched")
            before = list(self._what_can_be_had(host, manager, old, os.path.join(place, _BEFORE)))
            pinned = pinned._replace(archives=_relative(archives, place), before=_relative(before, place))
            staging.publish(
                host,
                Record(
                    release=release,
                    version=pinned.version,
                    artifact={},
                    files=record.survey(place),
                    units=units,
                    package=pinned.fields(),
                    staged_at=host.clock.wall(),
                ),
                place,
            )

    def _what_can_be_had(self, host: Host, manager: Manager, old: list[tuple[str, str]], place: str) -> Iterator[Kept]:
        for name, version in old:
            try:
                yield from manager.fetch([(name, version)], place)
            except PackageError:
                host.warnings.append(
                    f"{name} {version} is replaced by the new version and can be had nowhere any more: a rollback "
                    f"leaves the newer {name} where it is"
                )

    def _choose(self, host: Host, manager: Manager, release: str, pinned: Pinned) -> list[Kept]:
        """The archives to install: the first set that can be. PackageError says why none can."""
        recorded = (host.tree.read_record(other) for other in sorted(host.tree.present() - {release}))
        others = [self._pinned(host, other)[0] for other in recorded if other.package is not None]
        named = {kept.name for one in (pinned, *others) for kept in (*one.archives, *one.before)}
        found = {name: manager.installed(name) for name in sorted(named)}
        installed = {name: one.version for name, one in found.items() if one is not None}
        refusal = ""
        for chosen in packages.choices(pinned, others, release, installed, manager.is_older):
            refused = manager.refusal([kept.path for kept in chosen])
            if refused is None:
                return chosen
            refusal = refusal or refused
        raise PackageError(
            f"{pinned.name} {pinned.version} cannot be installed from what was kept of it on this host; "
            f"{pinned.manager} says: {refusal}"
        )


def _relative(kept: list[Kept], place: str) -> tuple[Kept, ...]:
    return tuple(one._replace(path=os.path.relpath(one.path, place)) for one in kept)


PACKAGE = Package()
