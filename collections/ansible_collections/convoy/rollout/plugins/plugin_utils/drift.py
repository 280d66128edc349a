# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether hosts are as the ledger says that they were left, and what is told of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.drift import Finding
from ansible_collections.convoy.rollout.plugins.module_utils.packages import is_found
from ansible_collections.convoy.rollout.plugins.plugin_utils import text
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import IN_FLIGHT
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import NewestRow

FOREIGN = frozenset({"drop-in", "foreign-file", "foreign-unit"})  # what is not Convoy's to change
MOST_LINES = 100
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


class Verdict(StrEnum):
    """What can be said of a host."""

    CLEAN = "clean"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"  # it could not be looked at, or it is not known how it should be


@dataclass(frozen=True)
class Expectation:
    """What the ledger says of a host: the release that it was left with (None: nothing), and by which rollout.

    ``why`` it cannot tell; empty where it can.
    """

    release: str | None = None
    rollout: str = ""
    why: str = ""


@dataclass(frozen=True)
class HostDrift:
    """What became of the look at a host. ``release`` is what the ledger says, ``why`` nothing can be said.

    ``version``: that of the release, as the host has it in its record; ``more``: how many findings there are beyond
    those that are listed.
    """

    host: str
    verdict: Verdict
    release: str | None = None
    active: str | None = None
    findings: tuple[Finding, ...] = ()
    more: int = 0
    why: str = ""
    version: str | None = None

    @property
    def mendable(self) -> bool:
        """Whether deploying what the ledger says would mend anything of it."""
        theirs = any(finding.what not in FOREIGN for finding in self.findings)
        return self.verdict is Verdict.DRIFTED and self.release is not None and theirs

    def as_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "verdict": self.verdict.value, "findings": [one._asdict() for one in self.findings]}


def expectation_of(newest: NewestRow | None) -> Expectation:
    """What the ledger says of a host, by its newest rollout; nothing was ever deployed to one that it does not know."""
    if newest is None:
        return Expectation()
    row = newest.row
    if not newest.ended and row.status in IN_FLIGHT:
        return Expectation(None, newest.rollout, f"rollout {newest.rollout} is at it")
    release = text.final_release(row)
    if release == "unknown":
        said = f": {row.why}" if row.why else ""
        why = f"the ledger does not say what it runs: rollout {newest.rollout} left it {row.status}{said}"
        return Expectation(None, newest.rollout, why)
    return Expectation(release, newest.rollout)


def judge(host: str, before: Expectation, after: Expectation, told: Mapping[str, Any]) -> HostDrift:
    """Whether a host drifted. ``told`` is what drift_info said of it, ``before`` and ``after`` what the ledger did.

    What is wrong is told wherever it was seen; a host is clean only where everything was seen, and is known.
    """
    if "findings" not in told:
        trouble = (str(told.get("msg") or "").strip() or "it was not looked at").splitlines()[0]
        return HostDrift(host, Verdict.UNKNOWN, before.release, why=trouble)
    active = told.get("active")
    if before != after:
        moved = f"rollout {after.rollout} moved it while it was looked at"
        return HostDrift(host, Verdict.UNKNOWN, after.release, active, why=moved)
    if told.get("busy"):
        return HostDrift(host, Verdict.UNKNOWN, before.release, active, why=f"it is being changed: {told['busy']}")
    findings = [Finding(**finding) for finding in told["findings"]]
    if active is not None and before.release is None and not before.why and not is_found(active):
        findings.insert(0, Finding("release", "current", "nothing, by the ledger", f"releases/{active}"))
    why = before.why or str(told.get("incomplete") or "")
    verdict = Verdict.DRIFTED if findings else Verdict.UNKNOWN if why else Verdict.CLEAN
    more, version = int(told.get("more", 0)), told.get("version") if before.release else None
    return HostDrift(host, verdict, before.release, active, tuple(findings), more, why, version)


def overall(hosts: Sequence[HostDrift]) -> Verdict:
    """The verdict on all of them: drift outweighs what is not known, that what is clean."""
    verdicts = {host.verdict for host in hosts}
    return next((one for one in (Verdict.DRIFTED, Verdict.UNKNOWN) if one in verdicts), Verdict.CLEAN)


def lines(hosts: Sequence[HostDrift]) -> list[str]:
    """What is told people: each finding once, with all the hosts that have it; then what could not be seen."""
    by_finding: dict[Finding, list[str]] = {}
    for host in hosts:
        for finding in host.findings:
            by_finding.setdefault(finding, []).append(host.host)
    rows = [
        (text.names(names), finding.what, finding.name, _short(finding.expected), _short(finding.actual))
        for finding, names in list(by_finding.items())[:MOST_LINES]
    ]
    told = text.table([("host", "what", "which", "expected", "found"), *rows]) if rows else []
    left_out = len(by_finding) - len(rows) + sum(host.more for host in hosts)
    if left_out:
        told.append(f"and {left_out} more")
    if any(finding.what in FOREIGN for finding in by_finding):
        told.append(f"Convoy changes no {' or '.join(sorted(FOREIGN))}: remove it, or name it in drift_ignored")
    by_reason: dict[str, list[str]] = {}
    for host in hosts:
        if host.why:
            by_reason.setdefault(host.why, []).append(host.host)
    told += [f"unknown: {text.names(names)}: {why}" for why, names in by_reason.items()]
    return [*told, tally(hosts)]


def tally(hosts: Sequence[HostDrift]) -> str:
    """How many hosts are how."""
    counts = {verdict: sum(host.verdict is verdict for host in hosts) for verdict in Verdict}
    unknown = f", {counts[Verdict.UNKNOWN]} unknown" if counts[Verdict.UNKNOWN] else ""
    return f"drift: {counts[Verdict.DRIFTED]} of {len(hosts)} hosts drifted{unknown}, {counts[Verdict.CLEAN]} clean"


def _short(words: str) -> str:
    """Digests as people compare them."""
    return _DIGEST.sub(r"\1…", words)
