# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ledger.yml tells and verifies what was recorded, and makes nothing that is not there."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run

from .conftest import Site


@pytest.fixture
def told(site: Site) -> Site:
    """A site whose ledger has one rollout, which came to its end."""
    spec = RolloutSpec(
        parse_phases([{"name": "fleet", "size": "100%"}], 1), FailureBudget(Quantity(0)), Quantity(1), 600
    )
    hosts = {name: HostFacts(name, "1.1.0-bbbbbbbbbbbb", "1.0.0-aaaaaaaaaaaa") for name in ("app1", "app2")}
    facts = {"kind": "deploy", "component": "hello", "version": "1.1.0", "environment": "tiny"}
    rollouts = site.rollouts()
    plan = make_plan(spec, list(hosts.values()))
    token = rollouts.open(plan, hosts, facts, Run("far", 1, 1, "ann"), lambda run: False, "r1", 600.0).token
    for host in hosts:
        rollouts.admit("r1", token, host)
        rollouts.report("r1", token, host, HostStatus.SUCCEEDED, "it answers")
    rollouts.close("r1", token)
    return site


def ledger_of(site: Site) -> Path:
    return Path(site.variables["environment_ledger_url"].removeprefix("sqlite:///"))


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_the_history_is_told_and_verified(told: Site, mode: list[str]) -> None:
    before = ledger_of(told).read_bytes()
    ended = told.run("ledger.yml", *mode)
    assert ended.rc == 0, ended.said
    assert "r1 deploy 1.1.0 succeeded" in ended.said
    assert "intact: every event from 1 to 7 fits its hash" in ended.said
    assert "the tables say what the events say (1 rollout rebuilt and compared)" in ended.said
    assert ledger_of(told).read_bytes() == before


def test_the_story_of_one_rollout(told: Site) -> None:
    ended = told.run("ledger.yml", "-e", "ledger_rollout=r1")
    assert ended.rc == 0, ended.said
    assert "opened: deploy of hello 1.1.0, 2 hosts in phases fleet" in ended.said
    assert "app2 admitted -> succeeded: it answers" in ended.said


def test_an_export(told: Site) -> None:
    path = told.directory / "events.jsonl"
    ended = told.run("ledger.yml", "--check", "-e", f"ledger_export={path}")
    assert f"check mode: {path} would be written, it was not" in ended.said
    assert not path.exists()
    ended = told.run("ledger.yml", "-e", f"ledger_export={path}")
    assert (ended.rc, path.stat().st_mode & 0o777) == (0, 0o600)
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == list(range(1, 8))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE convoy_events SET actor = 'nobody' WHERE seq = 3",
            "the ledger of tiny/hello is not intact: entry 3 (moved, rollout r1) does not match its hash",
        ),
        (
            "UPDATE convoy_hosts SET status = 'failed' WHERE name = 'app1'",
            "rollout r1: host app1 is failed, the events say succeeded",
        ),
    ],
)
def test_what_is_not_as_it_was_written_fails_the_run_and_is_still_told(told: Site, statement: str, said: str) -> None:
    with sqlite3.connect(ledger_of(told)) as connection:
        connection.execute(statement)
    connection.close()
    ended = told.run("ledger.yml")
    assert ended.rc == 2
    assert said in ended.said
    assert "r1 deploy 1.1.0 succeeded" in ended.said


def test_a_ledger_that_is_not_there(site: Site) -> None:
    ended = site.run("ledger.yml")
    assert ended.rc == 2
    assert f"there is no ledger at {ledger_of(site)}: the first deployment makes one. Nothing was made" in ended.said
    assert not ledger_of(site).exists()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("ledger_rollout=r2", "rollout r2 is not in the ledger of tiny/hello: check its id"),
        ("ledger_exprot=/tmp/x", "unknown variable ledger_exprot: did you mean 'ledger_export'?"),
        ("ledger_last=0", "ledger_last: 0 is out of range: at least 1 rollout is told"),
        ("component_name=helo", "the ledger has nothing of tiny/helo: did you mean 'tiny/hello'?"),
    ],
)
def test_what_makes_no_sense_is_refused(told: Site, variable: str, said: str) -> None:
    ended = told.run("ledger.yml", "-e", variable)
    assert ended.rc == 2
    assert said in ended.said
