# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of the host itself: what may be written, and what is judged healthy."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import probes
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.host_observers import Running, Space
from ansible_collections.convoy.rollout.plugins.module_utils.observers import HttpAnswer

MB, GB = 10**6, 10**9
ROOMY = Space(5 * GB, 10 * GB, 900, 1000)
LOG = ["listening", "cannot connect: password=secret", "done"]
RUNS = Running(77, "/srv/app/releases/2", 30.0, frozenset({8080}))
STATISTICS = HttpAnswer(
    200, "# pxname,svname,status,\napp,app1,UP,\napp,app2,DOWN 1/2,\napp,BACKEND,UP,\nother,app3,UP,\n", ""
)
BALANCER = {"kind": "balancer", "url": "http://lb:8404/;csv", "backend": "app"}

CASES: list[tuple[dict[str, Any], Any, bool, str]] = [
    ({"kind": "disk"}, ROOMY, True, "has 5000 MB free (50 %)"),
    ({"kind": "disk", "free_mb": 6000}, ROOMY, False, "has 5000 MB free (50 %), at least 6000 MB are wanted"),
    ({"kind": "disk", "free_percent": 60}, ROOMY, False, "has 5000 MB free (50 %), at least 60 % are wanted"),
    ({"kind": "disk"}, ROOMY._replace(free_inodes=9), False, "has 0.9 % of its inodes free, at least 5 % are wanted"),
    ({"kind": "disk"}, ROOMY._replace(free_inodes=0, inodes=0), True, "has 5000 MB free (50 %)"),
    ({"kind": "memory"}, (GB, 4 * GB), True, "has 1000 MB available (25 %)"),
    (
        {"kind": "memory", "free_mb": 1001},
        (GB, 4 * GB),
        False,
        "has 1000 MB available (25 %), at least 1001 MB are wanted",
    ),
    ({"kind": "memory"}, (10 * MB, GB), False, "has 10 MB available (1 %), at least 5 % are wanted"),
    ({"kind": "clock", "host": "ntp"}, 29.9, True, "is 29.9 s ahead of this host's clock"),
    ({"kind": "clock", "host": "ntp"}, -31.0, False, "is 31 s behind this host's clock (at most 30 s allowed)"),
    ({"kind": "dns", "host": "db"}, ["10.0.0.5"], True, "resolves to 10.0.0.5"),
    (
        {"kind": "dns", "host": "db", "addresses": ["10.0.0.6", "10.0.0.5"]},
        ["10.0.0.5", "10.0.0.6"],
        True,
        "resolves to",
    ),
    ({"kind": "dns", "host": "db", "addresses": ["10.0.0.6"]}, ["10.0.0.5"], False, "10.0.0.5 (expected 10.0.0.6)"),
    ({"kind": "tls", "host": "a"}, 14.5, True, "shows a certificate that is valid for 14.5 days"),
    ({"kind": "tls", "host": "a", "days": 30}, 14.5, False, "valid for 14.5 days (at least 30 are wanted)"),
    ({"kind": "log", "unit": "a", "pattern": "panic"}, LOG, True, "has no line that matches 'panic'"),
    ({"kind": "log", "unit": "a", "pattern": "panic"}, [], True, "has no line that matches 'panic'"),
    ({"kind": "log", "unit": "a", "pattern": "cannot"}, LOG, False, "has 1 line that match 'cannot': cannot connect:"),
    ({"kind": "process", "unit": "a", "cwd": "/srv/app/releases/2", "port": 8080}, RUNS, True, "has process 77"),
    (
        {"kind": "process", "unit": "a", "cwd": "/srv/app/releases/3"},
        RUNS,
        False,
        "works in /srv/app/releases/2 (expected",
    ),
    ({"kind": "process", "unit": "a", "port": 80}, RUNS, False, "listens on 8080 (expected 80)"),
    ({"kind": "process", "unit": "a", "running_for": 60}, RUNS, False, "running for 30.0 s (at least 60 s wanted)"),
    ({"kind": "process", "unit": "a"}, Running(0, "", 0.0, frozenset()), False, "has no process"),
    ({**BALANCER, "server": "app1"}, STATISTICS, True, "has app1 as UP"),
    ({**BALANCER, "server": "app2"}, STATISTICS, False, "has app2 as DOWN 1/2 (expected UP)"),
    ({**BALANCER, "server": "app3"}, STATISTICS, False, "knows no server 'app3' in backend 'app'"),
    ({**BALANCER, "server": "app1"}, HttpAnswer(401, "", ""), False, "answered 401 (expected 200)"),
    ({**BALANCER, "server": "app1"}, HttpAnswer(200, "<html>", ""), False, "did not answer as HAProxy's statistics do"),
]


@pytest.mark.parametrize(("given", "found", "ok", "words"), CASES)
def test_what_is_healthy(given: dict[str, Any], found: Any, ok: bool, words: str) -> None:
    probe = probes.parse("probes[0]", given, 2.0)
    verdict = probes.KINDS[probe.kind].judge(probe.options, found)
    assert (verdict.ok, words in verdict.detail) == (ok, True), verdict.detail


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "disk", "path": "srv"}, "path is 'srv': must be an absolute path"),
        ({"kind": "disk", "free_percent": 101}, "free_percent is 101: must be a number from 0 to 100"),
        ({"kind": "memory", "free_mb": -1}, "free_mb is -1: must be a number of megabytes"),
        ({"kind": "clock"}, "has no key 'host'"),
        ({"kind": "clock", "host": "ntp", "most": 0}, "most is 0: must be a number of seconds above 0"),
        ({"kind": "dns", "host": "db", "addresses": []}, "addresses is"),
        ({"kind": "tls", "host": "a", "day": 3}, "unknown key 'day', did you mean 'days'"),
        ({"kind": "log", "unit": "a"}, "has no key 'pattern'"),
        ({"kind": "log", "unit": "a", "pattern": "("}, "must be a regular expression"),
        ({"kind": "process", "unit": "a", "port": 0}, "port is 0"),
        ({"kind": "process", "unit": "a", "cwd": "current"}, "cwd is 'current': must be an absolute path"),
        ({"kind": "balancer", "url": "http://lb/", "server": "a"}, "has no key 'backend'"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(GateError) as refused:
        probes.parse("probes[0]", given, 2.0)
    assert words in refused.value.message


def test_evidence_from_a_log_is_masked() -> None:
    probe = probes.parse("probes[0]", {"kind": "log", "unit": "a", "pattern": "cannot"}, 2.0)
    told = probes.told(probe, probes.KINDS["log"].judge(probe.options, LOG))
    assert told.detail.endswith("cannot connect: password=***")
