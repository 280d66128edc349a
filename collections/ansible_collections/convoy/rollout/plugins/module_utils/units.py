# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit files of a component in /etc/systemd/system: which are Convoy's, and which a release needs.

The first line of a unit file that Convoy wrote says so, with the component and the release that
brought this text. A file without it is somebody else's, and is never overwritten or removed.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.record import Unit
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Mapping, Sequence

MARKER = "# Managed by Convoy: "


class UnitFile(NamedTuple):
    """A unit file as found. `component` is None when Convoy did not write it."""

    name: str
    component: str | None
    body: str


class UnitPlan(NamedTuple):
    """What must be done to the unit files so that they are those of a release."""

    write: tuple[Unit, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.write or self.remove)


def plan(component: str, wanted: Sequence[Unit], found: Mapping[str, UnitFile]) -> UnitPlan:
    """Compare the units of a release with those found. TreeError for a file that is somebody else's."""
    write = []
    for unit in wanted:
        there = found.get(unit.name)
        if there is not None and there.component in (None, component) and there.body == body(unit):
            continue
        if there is not None and there.component != component:
            raise TreeError(_refusal(there, component))
        write.append(unit)
    names = {unit.name for unit in wanted}
    remove = (name for name, there in found.items() if there.component == component and name not in names)
    return UnitPlan(tuple(write), tuple(sorted(remove)))


def _refusal(there: UnitFile, component: str) -> str:
    if there.component is not None:
        return (
            f"unit {there.name} belongs to component {there.component!r} of Convoy; nothing was changed. "
            f"Give the unit of {component!r} another name"
        )
    return (
        f"unit {there.name} was not written by Convoy and differs from the release's; nothing was changed. Remove it, "
        f"or hand it over by making its first line '{MARKER}{component} none', and run this again"
    )


def body(unit: Unit) -> str:
    """The text of a unit as it stands below the marker."""
    return unit.content if unit.content.endswith("\n") else unit.content + "\n"


def is_installable(unit: Unit) -> bool:
    """Whether a unit asks to be started at boot."""
    return any(line.strip() == "[Install]" for line in unit.content.splitlines())


def is_template(name: str) -> bool:
    """Whether a name stands for a template, of which only instances run."""
    return name.rsplit(".", 1)[0].endswith("@")


def digest(text: str) -> str:
    """The SHA-256 of a unit's text."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def programs(wanted: Sequence[Unit]) -> set[str]:
    """The programs that units start, by their absolute paths."""
    lines = (line.strip() for unit in wanted for line in unit.content.splitlines())
    commands = (line.partition("=")[2].strip().lstrip("@-:+!") for line in lines if line.startswith("Exec"))
    return {command.split()[0] for command in commands if command.startswith("/")}


class UnitDirectory:
    """The directory of the unit files."""

    def __init__(self, path: str, component: str) -> None:
        self.path = path
        self.component = component

    def find(self, wanted: Sequence[Unit]) -> dict[str, UnitFile]:
        """The files of this component, and whatever has the name of a wanted unit."""
        names = {unit.name for unit in wanted}
        found = {}
        for entry in os.scandir(self.path):
            if entry.is_file(follow_symlinks=False) or entry.name in names:
                there = self._read(entry.name)
                if there is not None and (there.component == self.component or there.name in names):
                    found[there.name] = there
        return found

    def plan(self, wanted: Sequence[Unit]) -> UnitPlan:
        """What must be done so that exactly the wanted units of this component are there."""
        return plan(self.component, wanted, self.find(wanted))

    def write(self, units: Sequence[Unit], release: str) -> None:
        """Write unit files, each in one durable step."""
        for unit in units:
            text = f"{MARKER}{self.component} {release}\n{body(unit)}"
            durable.write_file(os.path.join(self.path, unit.name), text.encode("utf-8"), 0o644)

    def remove(self, names: Sequence[str]) -> None:
        """Remove unit files for good."""
        for name in names:
            durable.unlink(os.path.join(self.path, name))

    def clear_leftovers(self, wanted: Sequence[Unit]) -> None:
        """Remove what a killed call left of the files of these units."""
        durable.clear_temporaries(self.path, {unit.name for unit in wanted})

    def _read(self, name: str) -> UnitFile | None:
        """A file of the directory; None for one that was removed since it was listed, as a host does by itself."""
        path = os.path.join(self.path, name)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return UnitFile(name, None, "")
            with open(path, encoding="utf-8", errors="replace", newline="") as stream:
                first = stream.readline()
                if not first.startswith(MARKER):
                    return UnitFile(name, None, first + stream.read())
                return UnitFile(name, first[len(MARKER) :].split(" ", 1)[0].strip(), stream.read())
        except FileNotFoundError:
            return None
