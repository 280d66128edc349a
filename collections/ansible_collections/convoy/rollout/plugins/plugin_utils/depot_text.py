# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a depot, as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Item
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_push import Pending
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import Change
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_upkeep import Findings, Rubbish
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import format_time
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import Statement
from ansible_collections.convoy.rollout.plugins.plugin_utils.text import size, table


def list_lines(items: Sequence[Item]) -> list[str]:
    """A table of releases, in their order."""
    if not items:
        return ["the depot is empty: publish a release first"]
    return table([("component", "version", "state", "serial", "size", "published"), *map(_row, items)])


def _row(item: Item) -> tuple[str, ...]:
    if item.manifest is None:
        return (item.component, item.version, "damaged: see depot_do=verify", "?", "?", "?")
    artifact = size(item.manifest.artifact.size)
    return (
        item.component,
        item.version,
        str(item.standing),
        str(item.manifest.serial),
        artifact if item.has_artifact else f"{artifact}, {_without_artifact(item)}",
        format_time(item.manifest.created),
    )


def _without_artifact(item: Item) -> str:
    return "collected" if item.standing.retired else "missing"


@dataclass(frozen=True)
class Kept:
    """What is kept with a release: what its SBOM is, and what its provenance says."""

    bill: str
    statements: Sequence[Statement]


def show_lines(item: Item, kept: Kept, trusted: str) -> list[str]:
    """All about one release; ``trusted`` says whether this environment trusts its signatures, and its provenance."""
    found = item.manifest
    if found is None:
        return [item.trouble]
    here = "" if item.has_artifact else f", {_without_artifact(item)}"
    files = f"{len(found.files)} file{'' if len(found.files) == 1 else 's'}"
    facts = [
        ("state", str(item.standing)),
        ("serial", str(found.serial)),
        ("published", format_time(found.created)),
        ("expires", format_time(found.expires) if found.expires else "never"),
        ("for", ", ".join(found.audience) or "all environments"),
        ("artifact", f"{size(found.artifact.size)}, {found.artifact.format}, SHA-256 {found.artifact.sha256}{here}"),
        ("holds", f"{files}, {size(sum(entry.size for entry in found.files))} unpacked"),
        ("signed with", ", ".join(item.fingerprints) or "nothing that can be read"),
        ("SBOM", f"{kept.bill}, SHA-256 {found.sbom.sha256}" if found.sbom else "none"),
        *(("provenance", _said(statement)) for statement in kept.statements),
        ("trusted here", trusted),
    ]
    changes = [_change_row(change) for change in item.standing.changes]
    history = table([("state", "for", "at", "by", "why"), *changes]) if changes else []
    return [f"{found.component} {found.version}", *table(facts), *history]


def _said(statement: Statement) -> str:
    return f"it says: built by {statement.builder} from {', '.join(statement.sources) or 'no source that it names'}"


def _change_row(change: Change) -> tuple[str, ...]:
    return (change.state, change.environment, format_time(change.at), change.by.partition(" (process")[0], change.why)


def findings_lines(found: Findings, let_out: Sequence[str], check_mode: bool) -> list[str]:
    """What is wrong, what is to be known, and what left its quarantine."""
    would = "would leave" if check_mode else "has left"
    verdict = f"{len(found.faults)} FAULTS" if found.faults else "every digest, signature and record is as it must be"
    count = f"{found.releases} release{'' if found.releases == 1 else 's'} verified"
    return [
        *(f"WRONG: {fault}" for fault in found.faults),
        *found.notes,
        *(f"{what} {would} its quarantine: its signatures are trusted here" for what in let_out),
        f"{count}: {verdict}",
    ]


def rubbish_lines(found: Rubbish, freed: int, check_mode: bool) -> list[str]:
    """What was removed, and which retired releases are still needed; ``freed``: bytes."""
    removed = "would be removed" if check_mode else "removed"
    lines = [f"{_name(path)} {removed}: left by an interrupted upload" for path in found.left]
    for path, items in found.artifacts:
        of = ", ".join(f"{item.component} {item.version}" for item in items)
        lines.append(f"{_name(path)} {removed}: the artifact of {of}, retired")
    for item, users in found.kept:
        lines.append(
            f"{item.component} {item.version} is kept: hosts of {', '.join(users)} run it or could go back to it"
        )
    return [*lines, f"{size(freed)} {removed}" if found.left or found.artifacts else "there is nothing to collect"]


def push_lines(compared: Sequence[Pending], left: int, where: str, environment: str, check_mode: bool) -> list[str]:
    """What was brought to ``where``, and what it had; ``left``: so many dead pushes left something there."""
    if not compared:
        return [
            f"there is nothing to push: no release is promoted for {environment}, or what was is retired. Promote one "
            "with promote.yml"
        ]
    done = "would be pushed" if check_mode else "pushed"
    brought = [one for one in compared if not one.is_nothing]
    lines = [f"{one.parcel} {done}: {_said_of(one)}" for one in brought]
    if left:
        removed = "would be removed" if check_mode else "removed"
        lines.append(f"{removed}: what {left} interrupted push{'' if left == 1 else 'es'} left")
    before = len(compared) - len(brought)
    whole = f"{size(sum(one.size for one in brought))} {done} to {where}"
    return [*lines, f"{whole}; {before} of {len(compared)} release{'' if len(compared) == 1 else 's'} there before"]


def _said_of(one: Pending) -> str:
    if one.is_new:
        artifact = "with its artifact" if one.artifact else "its artifact was there"
        return f"{size(one.size)}, {artifact}"
    what = [*(["its artifact, which was missing or damaged there"] if one.artifact else []), *sorted(one.files)]
    retired = " (retired)" if one.parcel.manifest is None else ""
    return f"{', '.join(what)}{retired}"


def _name(path: Path) -> str:
    return "/".join(path.parts[-2:]) if path.parent.name != "sha256" else f"artifact {path.name[:12]}"
