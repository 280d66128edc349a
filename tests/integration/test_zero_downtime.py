# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy release rolls over the whole fleet while clients ask: none of them notices."""

from __future__ import annotations

import pytest

from .conftest import FirstRollouts
from .environment import Environment


@pytest.fixture(autouse=True)
def _rolled(environment: Environment, first_rollouts: FirstRollouts) -> None:
    assert first_rollouts.rolled.rc == 0, first_rollouts.rolled.said


def test_no_request_fails(first_rollouts: FirstRollouts) -> None:
    watched = first_rollouts.watched
    assert watched.broken == []
    assert watched.answered > 90 * watched.seconds


def test_every_host_is_drained_so_that_no_request_has_to_be_tried_again(
    environment: Environment, first_rollouts: FirstRollouts
) -> None:
    watched = first_rollouts.watched
    assert watched.drained == set(environment.hosts)
    assert watched.grown("retries") == dict.fromkeys(environment.hosts, 0)
    assert watched.grown("errors") == dict.fromkeys(environment.hosts, 0)
    assert min(watched.grown("requests").values()) > 0


def test_never_more_hosts_than_the_window_are_out(environment: Environment, first_rollouts: FirstRollouts) -> None:
    watched = first_rollouts.watched
    assert len(watched.samples) > 10 * watched.seconds
    assert watched.most_out() == 2
    canary = environment.hosts[0]
    last_with_canary = max(n for n, out in enumerate(watched.out()) if canary in out)
    assert all(out <= {canary} for out in watched.out()[: last_with_canary + 1])


def test_the_fleet_runs_the_new_release_and_the_ledger_says_so(
    environment: Environment, first_rollouts: FirstRollouts
) -> None:
    environment.have("1.1.0")
    looks = environment.see("1.1.0")
    view = environment.view()
    assert view.status == "succeeded"
    assert environment.statuses() == dict.fromkeys(environment.hosts, "succeeded")
    for host, look in looks.items():
        assert look.token == view.token
        assert look.journal[-1]["event"] == "good"
        assert look.journal[-1]["rollout"] == view.id
        assert {row.to_release for row in view.hosts if row.name == host} == {look.active}
    assert "deploy of hello 1.1.0 in test: succeeded" in first_rollouts.rolled.summary
    assert f"{looks['app1'].active}: {', '.join(environment.hosts)}" in first_rollouts.rolled.summary
