# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of hosts: drifted only where something was seen, clean only where everything was, and is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils.drift import Finding
from ansible_collections.convoy.rollout.plugins.plugin_utils import drift
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.drift import Expectation, HostDrift, Verdict
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import HostRow, NewestRow

OLD, NEW = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb"
FILE = {"what": "file", "name": "etc/x", "expected": "mode 0644", "actual": "mode 0666"}
DROP_IN = {"what": "drop-in", "name": "/etc/x.conf", "expected": "not there", "actual": "there"}

RELEASES = st.sampled_from([None, OLD, NEW])
EXPECTATIONS = st.builds(Expectation, RELEASES, st.sampled_from(["r1", "r2"]), st.sampled_from(["", "nobody knows"]))
SIGHTS = st.fixed_dictionaries(
    {"active": RELEASES, "findings": st.lists(st.sampled_from([FILE, DROP_IN]), max_size=2)},
    optional={"busy": st.sampled_from([None, "process 7"]), "incomplete": st.sampled_from([None, "too slow"])},
)
TOLD = st.one_of(SIGHTS, st.sampled_from([{}, {"msg": "no route", "unreachable": True}, {"failed": True, "msg": "no"}]))


@given(EXPECTATIONS, EXPECTATIONS, TOLD)
def test_clean_is_only_what_was_seen_whole_and_is_known(
    before: Expectation, after: Expectation, told: dict[str, Any]
) -> None:
    host = drift.judge("app1", before, after, told)
    seen = "findings" in told and not told.get("busy") and before == after
    differs = seen and (told["findings"] or (told["active"] and before.release is None and not before.why))
    whole = seen and not told.get("incomplete") and not before.why
    expected = Verdict.DRIFTED if differs else Verdict.CLEAN if whole else Verdict.UNKNOWN
    assert host.verdict is expected
    assert bool(host.findings) is (host.verdict is Verdict.DRIFTED)
    assert host.why or whole
    assert not host.mendable or (host.verdict is Verdict.DRIFTED and host.release)


@given(st.lists(st.sampled_from(Verdict)))
def test_drift_outweighs_what_is_not_known(verdicts: list[Verdict]) -> None:
    found = drift.overall([HostDrift(f"app{n}", verdict) for n, verdict in enumerate(verdicts)])
    worst = sorted(verdicts, key=[Verdict.CLEAN, Verdict.UNKNOWN, Verdict.DRIFTED].index)
    assert found is (worst[-1] if worst else Verdict.CLEAN)


@pytest.mark.parametrize(
    ("release", "findings", "mendable"),
    [(NEW, [FILE], True), (NEW, [FILE, DROP_IN], True), (NEW, [DROP_IN], False), (None, [FILE], False)],
)
def test_mended_is_what_convoy_may_change(release: str | None, findings: list[dict[str, str]], mendable: bool) -> None:
    expected = Expectation(release, "r1")
    host = drift.judge("app1", expected, expected, {"active": release, "findings": findings})
    assert host.mendable is mendable


def row(status: HostStatus, ended: bool = True, why: str = "") -> NewestRow:
    return NewestRow("r1", ended, HostRow("app1", 0, 0, "", OLD, NEW, status, why, 0.0))


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        (None, Expectation()),
        (row(HostStatus.SUCCEEDED), Expectation(NEW, "r1")),
        (row(HostStatus.CURRENT), Expectation(NEW, "r1")),
        (row(HostStatus.REVERTED), Expectation(OLD, "r1")),
        (row(HostStatus.DEFERRED), Expectation(OLD, "r1")),
        (row(HostStatus.PENDING, ended=False), Expectation(OLD, "r1")),
        (row(HostStatus.ADMITTED, ended=False), Expectation(None, "r1", "rollout r1 is at it")),
        (
            row(HostStatus.FAILED, why="no answer"),
            Expectation(None, "r1", "the ledger does not say what it runs: rollout r1 left it failed: no answer"),
        ),
    ],
)
def test_what_the_ledger_says(newest: NewestRow | None, expected: Expectation) -> None:
    assert drift.expectation_of(newest) == expected


def test_a_host_that_nothing_was_deployed_to() -> None:
    nothing = drift.judge("app1", Expectation(), Expectation(), {"active": None, "findings": []})
    assert nothing.verdict is Verdict.CLEAN
    something = drift.judge("app1", Expectation(), Expectation(), {"active": NEW, "findings": []})
    assert something.findings == (Finding("release", "current", "nothing, by the ledger", f"releases/{NEW}"),)
    assert not something.mendable
    found = drift.judge("app1", Expectation(), Expectation(), {"active": "1.0-1-found", "findings": []})
    assert found.verdict is Verdict.CLEAN


def test_the_version_is_that_of_the_release_that_the_ledger_says() -> None:
    told = {"active": NEW, "findings": [FILE], "version": "1.1.0"}
    known = Expectation(NEW, "r1")
    assert drift.judge("app1", known, known, told).version == "1.1.0"
    assert drift.judge("app1", Expectation(), Expectation(), told).version is None


def test_a_finding_of_many_hosts_is_told_once() -> None:
    digest = {"what": "file", "name": "bin", "expected": f"sha256 {'a' * 64}", "actual": f"sha256 {'b' * 64}"}
    expected = Expectation(NEW, "r1")
    hosts = [
        drift.judge(f"app{n}", expected, expected, {"active": NEW, "findings": [digest], "more": 2}) for n in range(20)
    ]
    hosts.append(drift.judge("app20", expected, expected, {"active": NEW, "findings": [DROP_IN]}))
    hosts.append(drift.judge("app21", expected, expected, {"unreachable": True, "msg": "no route\nat all"}))
    hosts.append(drift.judge("app22", expected, expected, {"active": NEW, "findings": []}))
    names = ", ".join(f"app{n}" for n in range(10)) + " and 10 more"
    assert drift.lines(hosts) == [
        f"{'host'.ljust(len(names))}  what     which        expected              found",
        f"{names}  file     bin          sha256 {'a' * 12}…  sha256 {'b' * 12}…",
        f"{'app20'.ljust(len(names))}  drop-in  /etc/x.conf  not there             there",
        "and 40 more",
        "Convoy changes no drop-in or foreign-file or foreign-unit: remove it, or name it in drift_ignored",
        "unknown: app21: no route",
        "drift: 21 of 23 hosts drifted, 1 unknown, 1 clean",
    ]
