# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task files that put releases in place: what is said of them has to make sense."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import by_tasks
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import OnFailure, SpecError, parse_phases
from ansible_collections.convoy.rollout.plugins.plugin_utils.kinds import check_kind

ALL = {"stage": "/s.yml", "activate": "/a.yml", "verify": "/v.yml", "revert": "/r.yml", "prune": "/p.yml"}
ASKED: dict[str, Any] = {
    "kind": "deploy",
    "component_kind": "tasks",
    "package": {},
    "container": {},
    "tasks": ALL,
    "in_doubt": "",
    "confirm_within": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tasks": {"activate": "/a.yml"}},
        {"tasks": {"activate": "/a.yml", "irreversible": True, "idempotent": False}},
        {"in_doubt": "again", "confirm_within": "0"},
        {"in_doubt": "done", "kind": "rollback"},
    ],
)
def test_good_tasks(change: dict[str, Any]) -> None:
    check_kind({**ASKED, **change})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"component_kind": "archive"}, "component_tasks: it is for component_kind: tasks, and that is 'archive'"),
        ({"package": {"name": "x"}}, "component_package: it is for component_kind: package, and that is 'tasks'"),
        ({"tasks": {}}, r"component_tasks\.activate is missing"),
        ({"tasks": {"revert": "/r.yml"}}, r"component_tasks\.activate is missing"),
        ({"tasks": {"activat": "/a.yml"}}, r"component_tasks: unknown key 'activat': did you mean 'activate'\?"),
        (
            {"tasks": {"activate": ["/a.yml"]}},
            r"component_tasks\.activate: \['/a.yml'\] is not the path of a task file",
        ),
        ({"tasks": {"activate": ""}}, r"component_tasks\.activate: '' is not the path of a task file"),
        ({"tasks": {**ALL, "idempotent": "yes"}}, r"component_tasks\.idempotent: 'yes' is neither true nor false"),
        ({"tasks": {**ALL, "irreversible": 1}}, r"component_tasks\.irreversible: 1 is neither true nor false"),
        ({"tasks": {**ALL, "irreversible": True}}, "revert and irreversible: true exclude each other"),
        (
            {"tasks": {"activate": "/a.yml", "irreversible": True}, "kind": "rollback"},
            r"component_tasks\.irreversible: a rollback is what it rules out",
        ),
        ({"in_doubt": "agian"}, r"component_in_doubt: unknown answer 'agian': did you mean 'again'\?"),
        ({"confirm_within": 60}, "component_confirm_within: 60 does not go with component_kind: tasks"),
        ({"confirm_within": "60"}, "component_confirm_within: 60 does not go with component_kind: tasks"),
    ],
)
def test_bad_tasks(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        check_kind({**ASKED, **change})


def test_nothing_turns_back_by_itself_what_cannot_be_taken_back() -> None:
    raw = [{"name": "canary", "size": 1, "on_failure": "hold"}, {"name": "fleet", "size": "100%"}]
    turning, holding = (parse_phases(raw, 1, False, default) for default in (OnFailure.TURN_BACK, OnFailure.CONTINUE))
    irreversible = {"activate": "/a.yml", "irreversible": True}
    by_tasks.refuse_turning_back(ALL, turning)
    by_tasks.refuse_turning_back(irreversible, holding)
    with pytest.raises(SpecError, match="irreversible: phase fleet turns back on a failure, and nothing takes a host"):
        by_tasks.refuse_turning_back(irreversible, turning)


def test_files_are_named_by_where_they_stand() -> None:
    assert by_tasks.task_files({"activate": "/a.yml", "idempotent": False}) == {"component_tasks.activate": "/a.yml"}


@pytest.mark.parametrize(
    ("tasks", "answer", "told"),
    [
        (ALL, "", "again"),
        ({**ALL, "idempotent": True}, "", "again"),
        ({**ALL, "idempotent": False}, "", "hold"),
        ({**ALL, "idempotent": False}, "done", "done"),
        (ALL, "done", "done"),
    ],
)
def test_what_is_done_in_doubt(tasks: dict[str, Any], answer: str, told: str) -> None:
    assert by_tasks.in_doubt(tasks, answer) == told
