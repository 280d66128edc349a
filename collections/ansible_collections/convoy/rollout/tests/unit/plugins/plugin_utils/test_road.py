# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's road: its steps, and what became of the host at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils import road
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import ROLES

FORWARD = ["before_drain", "drain", "after_drain", "activate", "after_activate", "undrain", "after_undrain"]

OK: dict[str, Any] = {"changed": True, "active": "1.1.0-bbbbbbbbbbbb"}
FAILED: dict[str, Any] = {"failed": True, "msg": "it broke\nat line 3"}
REVERTED: dict[str, Any] = {**FAILED, "reverted": True, "active": "1.0.0-aaaaaaaaaaaa"}
EMPTIED: dict[str, Any] = {**FAILED, "reverted": True, "active": None}
BEGUN: dict[str, Any] = {**FAILED, "tasks": {"begun": True}, "active": "1.1.0-bbbbbbbbbbbb"}
GONE: dict[str, Any] = {"unreachable": True, "msg": "Connection timed out"}
SKIPPED: dict[str, Any] = {"skipped": True, "changed": False}


# which steps there are


def shown(files: list[str]) -> list[str]:
    """Files of the collection by their place in its roles."""
    return [file.removeprefix(f"{ROLES}/") for file in files]


def test_without_hooks_and_load_balancer_only_the_component_is_left() -> None:
    assert shown(road.steps(FORWARD)) == ["component/tasks/activate.yml"]


@pytest.mark.parametrize("adapter", ["haproxy", "nginx"])
def test_every_step_of_the_collection_has_its_file(adapter: str) -> None:
    found = road.steps([*FORWARD, "stage", "revert"], adapter=adapter)
    assert len([file for file in found if f"/traffic/tasks/{adapter}/" in file]) == 2
    assert len(found) == 5
    for file in found:
        assert (ROLES / file).is_file(), file


def test_hooks_and_traffic_come_in_the_order_of_the_road() -> None:
    hooks = {"after_activate": "/site/warm_up.yml", "before_drain": "/site/announce.yml"}
    assert shown(road.steps(FORWARD, hooks, "haproxy")) == [
        "/site/announce.yml",
        "traffic/tasks/haproxy/drain.yml",
        "component/tasks/activate.yml",
        "/site/warm_up.yml",
        "traffic/tasks/haproxy/undrain.yml",
    ]


def test_a_hook_of_another_part_of_the_road_is_not_run_here() -> None:
    assert shown(road.steps(["before_stage", "stage"], {"after_undrain": "/site/x.yml"})) == [
        "component/tasks/stage.yml"
    ]


def test_an_adapter_of_the_site_uses_its_task_files() -> None:
    site = {"drain": "/site/out.yml", "undrain": "/site/in.yml"}
    assert road.steps(["drain", "undrain"], adapter="tasks", site_tasks=site) == ["/site/out.yml", "/site/in.yml"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            {"hooks": {"before_activat": "x"}},
            "rollout_hooks: unknown hook 'before_activat': did you mean 'before_activate'?",
        ),
        ({"hooks": {"on_error": "x"}}, "rollout_hooks: unknown hook 'on_error': known are after_activate, "),
        ({"adapter": "haprox"}, "traffic_adapter: unknown adapter 'haprox': did you mean 'haproxy'?"),
        (
            {"adapter": "tasks", "site_tasks": {"drain": "x"}},
            "traffic_tasks: 'undrain' is missing: the adapter 'tasks'",
        ),
        (
            {"adapter": "tasks", "site_tasks": {"drian": "x"}},
            "traffic_tasks: unknown step 'drian': did you mean 'drain'?",
        ),
    ],
)
def test_what_is_written_wrong_is_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError) as refused:
        road.steps(FORWARD, **arguments)
    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize(
    ("hooks", "adapter", "site_tasks", "expected"),
    [
        ({}, "none", {}, {}),
        ({"after_phase": "/a"}, "haproxy", {}, {"rollout_hooks.after_phase": "/a"}),
        ({}, "tasks", {"drain": "/b", "undrain": "/c"}, {"traffic_tasks.drain": "/b", "traffic_tasks.undrain": "/c"}),
        ({}, "none", {"drain": "/b"}, {}),
    ],
)
def test_the_files_that_the_site_has_to_have(hooks: Any, adapter: str, site_tasks: Any, expected: Any) -> None:
    assert road.site_files(hooks, adapter, site_tasks) == expected


# what became of a host on its way forward


@pytest.mark.parametrize(
    ("results", "failure", "expected"),
    [
        pytest.param({"drain": OK, "activate": OK, "undrain": OK}, {}, ("succeeded", ""), id="all went well"),
        pytest.param({"activate": OK}, {}, ("succeeded", ""), id="there is no load balancer"),
        pytest.param({}, FAILED, ("reverted", "it broke"), id="a hook before the drain failed"),
        pytest.param(
            {"drain": GONE},
            {},
            ("reverted", "the load balancer cannot be reached, the host was left as it was: Connection timed out"),
            id="the load balancer is away",
        ),
        pytest.param(
            {"drain": {**GONE, "changed": True, "results": [OK, GONE]}},
            {},
            ("failed", "it was taken out of one load balancer, and another cannot be reached: Connection timed out"),
            id="the second load balancer is away",
        ),
        pytest.param(
            {"drain": FAILED, "undrain": OK},
            FAILED,
            ("reverted", "it broke"),
            id="it could not be drained, and is back",
        ),
        pytest.param(
            {"drain": {**FAILED, "changed": True, "results": [OK, FAILED]}, "undrain": FAILED},
            FAILED,
            ("failed", "it broke"),
            id="it could not be drained or brought back",
        ),
        pytest.param(
            {"drain": FAILED, "undrain": FAILED},
            FAILED,
            ("reverted", "it broke"),
            id="the load balancer could not even be asked",
        ),
        pytest.param(
            {"drain": OK, "activate": REVERTED, "undrain": OK},
            REVERTED,
            ("reverted", "it broke"),
            id="it took itself back",
        ),
        pytest.param(
            {"drain": OK, "activate": EMPTIED, "undrain": SKIPPED},
            EMPTIED,
            ("reverted", "it broke"),
            id="it took itself back to nothing",
        ),
        pytest.param(
            {"drain": OK, "activate": FAILED}, FAILED, ("failed", "it broke"), id="it could not take itself back"
        ),
        pytest.param(
            {"drain": OK, "activate": REVERTED, "undrain": GONE},
            REVERTED,
            ("failed", "it broke"),
            id="it took itself back, then the load balancer went away",
        ),
        pytest.param(
            {"drain": OK, "activate": GONE},
            {},
            ("lost", "it cannot be reached any more: Connection timed out"),
            id="it went away while activating",
        ),
        pytest.param(
            {"drain": OK, "activate": OK, "confirm": GONE},
            {},
            ("lost", "it cannot be reached any more: Connection timed out"),
            id="its new release cut the way to it",
        ),
        pytest.param(
            {"drain": OK, "activate": OK, "confirm": FAILED, "revert": OK, "undrain": OK},
            FAILED,
            ("reverted", "it broke"),
            id="it had gone back by itself before it was confirmed",
        ),
        pytest.param(
            {"drain": OK, "activate": OK, "revert": OK, "undrain": OK},
            FAILED,
            ("reverted", "it broke"),
            id="a hook failed, and the host was taken back",
        ),
        pytest.param(
            {"drain": OK, "activate": OK, "revert": FAILED},
            FAILED,
            ("failed", "it broke"),
            id="a hook failed, and the host could not be taken back",
        ),
        pytest.param(
            {"drain": GONE, "activate": OK, "revert": OK, "undrain": GONE},
            FAILED,
            ("failed", "it broke"),
            id="the last hook failed, and then the load balancer was away",
        ),
        pytest.param(
            {"drain": OK, "activate": OK, "undrain": GONE},
            {},
            ("failed", "Connection timed out"),
            id="the load balancer went away before the host was back",
        ),
    ],
)
def test_the_outcome_tells_what_is_known(results: Any, failure: Any, expected: tuple[str, str]) -> None:
    found = road.outcome(results, failure)
    assert (found["outcome"], found["why"]) == expected


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({}, []),
        ({"drain": OK, "activate": REVERTED}, []),
        ({"drain": OK, "activate": GONE}, []),
        ({"drain": OK, "activate": SKIPPED}, []),
        ({"drain": OK, "activate": OK}, ["revert"]),
        ({"drain": OK, "activate": OK, "undrain": FAILED}, ["revert"]),
        ({"drain": OK, "activate": OK, "undrain": OK}, ["drain", "revert"]),
        ({"drain": OK, "activate": BEGUN}, ["revert"]),
        ({"drain": OK, "activate": {**BEGUN, "tasks": {"begun": False}}}, []),
    ],
)
def test_a_host_that_serves_again_is_drained_before_it_goes_back(results: Any, expected: list[str]) -> None:
    assert road.undo(results) == expected


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({}, True),
        ({"drain": FAILED}, True),
        ({"activate": SKIPPED}, True),
        ({"activate": OK}, False),
        ({"activate": FAILED}, False),
        ({"activate": GONE}, False),
        ({"activate": REVERTED}, True),
        ({"activate": OK, "revert": OK}, True),
        ({"activate": OK, "revert": SKIPPED}, False),
        ({"activate": OK, "revert": FAILED}, False),
        ({"activate": OK, "revert": GONE}, False),
    ],
)
def test_whether_a_host_runs_its_old_release(results: Any, expected: bool) -> None:
    assert road.serves_old(results) is expected


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], True),
        ([{}, {}], True),
        ([OK, OK], True),
        ([REVERTED], True),
        ([{}, GONE], False),
        ([EMPTIED], False),
    ],
)
def test_no_step_follows_on_a_host_that_is_away_or_empty(results: Any, expected: bool) -> None:
    assert road.may_go_on(results) is expected


# what became of a host that had to go back


@pytest.mark.parametrize(
    ("results", "failure", "expected"),
    [
        ({"drain": OK, "revert": OK, "undrain": OK}, "", ("returned", "")),
        ({"revert": OK}, "", ("returned", "")),
        ({"drain": GONE, "revert": SKIPPED, "undrain": SKIPPED}, "", ("stuck", "drain: Connection timed out")),
        ({"drain": FAILED}, "it broke", ("stuck", "drain: it broke")),
        ({"drain": OK, "revert": FAILED}, "it broke", ("stuck", "revert: it broke")),
        ({"drain": OK, "revert": OK, "undrain": GONE}, "", ("stuck", "undrain: Connection timed out")),
        ({"drain": OK, "revert": OK}, "a site's task failed", ("stuck", "a site's task failed")),
        ({"await": OK, "revert": OK}, "", ("returned", "")),
        (
            {"await": OK, "revert": {**OK, "changed": False}},
            "",
            ("returned", "when it could be reached again it had gone back by itself"),
        ),
        ({"await": FAILED, "revert": SKIPPED}, "it broke", ("stuck", "it broke")),
    ],
)
def test_the_way_back_tells_where_it_ended(results: Any, failure: str, expected: tuple[str, str]) -> None:
    found = road.way_back(results, failure)
    assert (found["outcome"], found["why"]) == expected


@pytest.mark.parametrize(("within", "left"), [(0, ["activate", "undrain"]), (60, ["activate", "confirm", "undrain"])])
def test_only_what_is_to_be_confirmed_is(within: int, left: list[str]) -> None:
    assert road.unless_confirming(["activate", "confirm", "undrain"], within) == left


# what always holds

RESULT = st.sampled_from(
    [{}, OK, FAILED, REVERTED, EMPTIED, GONE, SKIPPED, {"failed": True}, {"failed": True, "msg": " "}]
)
RESULTS = st.dictionaries(st.sampled_from(["drain", "activate", "confirm", "await", "revert", "undrain"]), RESULT)
FAILURES = st.sampled_from([{}, FAILED, {"failed": True, "results": [OK, FAILED]}, {"failed": True, "msg": "\n"}])


# a whole road within one worker


class Host:
    """A host whose steps return what is written down for them, one result after the other; else all goes well."""

    def __init__(self, **results: Any) -> None:
        self.results = {step: list(found) if isinstance(found, list) else [found] for step, found in results.items()}
        self.taken: list[str] = []

    def take(self, step: str) -> dict[str, Any]:
        if step in road.HOOKS:
            return {}
        self.taken.append(step)
        left = self.results.get(step, [])
        result: dict[str, Any] = left.pop(0) if left else OK
        return result


def test_a_host_that_cannot_be_reached_anew_goes_no_further() -> None:
    host = Host(confirm=GONE)
    assert road.go_forward(["drain", "activate", "confirm", "undrain"], host.take)["outcome"] == "lost"
    assert host.taken == ["drain", "activate", "confirm"]


@pytest.mark.parametrize(
    ("results", "taken", "outcome"),
    [
        ({}, ["drain", "activate", "undrain"], "succeeded"),
        ({"drain": FAILED}, ["drain", "undrain"], "reverted"),
        ({"drain": GONE}, ["drain"], "reverted"),
        ({"activate": REVERTED}, ["drain", "activate", "undrain"], "reverted"),
        ({"activate": EMPTIED}, ["drain", "activate"], "reverted"),  # it had no release, and has none again
        ({"activate": FAILED}, ["drain", "activate"], "failed"),
        ({"activate": GONE}, ["drain", "activate"], "lost"),
        ({"undrain": [FAILED, OK]}, ["drain", "activate", "undrain", "revert", "undrain"], "reverted"),
        ({"undrain": FAILED, "revert": FAILED}, ["drain", "activate", "undrain", "revert"], "failed"),
        ({"undrain": [FAILED, FAILED]}, ["drain", "activate", "undrain", "revert", "undrain"], "failed"),
        ({"undrain": GONE}, ["drain", "activate", "undrain"], "failed"),
    ],
)
def test_a_host_goes_forward_and_where_that_fails_what_is_left_back(
    results: dict[str, Any], taken: list[str], outcome: str
) -> None:
    host = Host(**results)
    assert road.go_forward(FORWARD, host.take)["outcome"] == outcome
    assert host.taken == taken


def test_a_host_of_an_idle_colour_is_not_put_into_service_by_a_failure_either() -> None:
    host = Host(activate=REVERTED)
    assert road.go_forward(road.without_service(FORWARD, {"coming": "green"}), host.take)["outcome"] == "reverted"
    assert host.taken == ["drain", "activate"]


@pytest.mark.parametrize(
    ("results", "taken", "outcome"),
    [
        ({}, ["drain", "revert", "undrain"], "returned"),
        ({"drain": FAILED}, ["drain"], "stuck"),
        ({"revert": FAILED}, ["drain", "revert"], "stuck"),
        ({"revert": GONE}, ["drain", "revert"], "stuck"),
        ({"revert": EMPTIED}, ["drain", "revert"], "stuck"),
        ({"undrain": FAILED}, ["drain", "revert", "undrain"], "stuck"),
        ({"undrain": GONE}, ["drain", "revert", "undrain"], "stuck"),
    ],
)
def test_a_host_goes_back_as_far_as_it_comes(results: dict[str, Any], taken: list[str], outcome: str) -> None:
    host = Host(**results)
    assert road.go_back(["drain", "revert", "undrain"], host.take)["outcome"] == outcome
    assert host.taken == taken


ANY = st.lists(st.sampled_from([OK, FAILED, REVERTED, EMPTIED, GONE, SKIPPED]), max_size=2)


@given(st.fixed_dictionaries(dict.fromkeys(("drain", "activate", "revert", "undrain"), ANY)))
def test_who_succeeded_met_no_fault_and_who_serves_the_old_release_was_put_back(results: dict[str, Any]) -> None:
    host = Host(**{step: list(found) for step, found in results.items()})
    outcome = road.go_forward(FORWARD, host.take)["outcome"]
    first = [found[0] for step, found in results.items() if found and step != "revert"]
    if outcome == "succeeded":
        assert host.taken == ["drain", "activate", "undrain"]
        assert not any(result.get("failed") or result.get("unreachable") for result in first)
    elif outcome == "reverted" and EMPTIED not in first:
        assert host.taken[-1] == "undrain" or GONE in first


@pytest.mark.parametrize(
    ("hooks", "adapter", "ours"),
    [
        ({}, "none", True),
        ({}, "haproxy", True),
        ({"after_phase": "/site/tell.yml"}, "nginx", True),
        ({"before_drain": "/site/announce.yml"}, "haproxy", False),
        ({}, "tasks", False),
    ],
)
def test_a_road_is_ours_where_nothing_of_the_site_lies_on_it(hooks: dict[str, str], adapter: str, ours: bool) -> None:
    assert road.is_ours(FORWARD, hooks, adapter) is ours


TASKS = {"activate": "/site/activate.yml"}
RELEASE = {"id": "1.1.0-bbbbbbbbbbbb", "version": "1.1.0", "path": "/srv/x/releases/1.1.0-bbbbbbbbbbbb"}


@pytest.mark.parametrize(
    ("tasks", "files"),
    [
        (TASKS, ["stage.yml", "activate_by_tasks.yml", "revert_by_tasks.yml"]),
        (
            {**TASKS, "stage": "/site/stage.yml"},
            ["stage.yml", "stage_by_tasks.yml", "activate_by_tasks.yml", "revert_by_tasks.yml"],
        ),
    ],
)
def test_tasks_take_the_place_of_what_a_host_does_alone(tasks: dict[str, Any], files: list[str]) -> None:
    found = road.steps(["stage", "activate", "revert"], tasks=tasks)
    assert shown(found) == [f"component/tasks/{file}" for file in files]
    assert all(Path(file).is_file() for file in found)


def test_a_host_that_nothing_takes_back_is_not_even_taken_out_of_service() -> None:
    found = road.steps(["drain", "revert", "undrain"], adapter="haproxy", tasks={**TASKS, "irreversible": True})
    assert shown(found) == ["component/tasks/revert_irreversible.yml"]
    assert Path(found[0]).is_file()
    told = road.way_back({"revert": {"failed": True, "msg": "nothing takes this host back"}}, "nothing takes")
    assert told == {"outcome": "stuck", "why": "revert: nothing takes this host back"}


@pytest.mark.parametrize(
    ("steps", "tasks", "ours"),
    [
        (["drain", "activate", "undrain"], TASKS, False),
        (["drain", "revert", "undrain"], TASKS, False),
        (["before_stage", "stage"], TASKS, True),
        (["before_stage", "stage"], {**TASKS, "stage": "/site/stage.yml"}, False),
        (["drain", "activate"], {}, True),
    ],
)
def test_a_road_with_tasks_of_the_site_is_not_ours(steps: list[str], tasks: dict[str, Any], ours: bool) -> None:
    assert road.is_ours(steps, tasks=tasks) is ours


@pytest.mark.parametrize(
    ("tasks", "begun", "back", "file"),
    [
        (TASKS, {"run": True, "release": RELEASE}, False, "/site/activate.yml"),
        (TASKS, {"run": False, "release": RELEASE}, False, ""),
        (TASKS, {}, False, ""),
        (TASKS, {"run": True, "release": RELEASE}, True, "/site/activate.yml"),
        (TASKS, {"run": True, "release": None}, True, ""),
        ({**TASKS, "revert": "/site/revert.yml"}, {"run": True, "release": RELEASE}, True, "/site/revert.yml"),
        ({**TASKS, "revert": "/site/revert.yml"}, {"run": True, "release": None}, True, "/site/revert.yml"),
        ({**TASKS, "revert": "/site/revert.yml"}, {"run": True, "release": RELEASE}, False, "/site/activate.yml"),
    ],
)
def test_which_file_runs(tasks: dict[str, Any], begun: dict[str, Any], back: bool, file: str) -> None:
    assert road.tasks_file(tasks, begun, back) == file


def test_a_host_whose_tasks_failed_is_taken_back_and_put_into_service() -> None:
    answers = {"drain": OK, "activate": BEGUN, "revert": OK, "undrain": OK}
    taken: list[str] = []

    def take(step: str) -> dict[str, Any]:
        taken.append(step)
        return answers[step]

    assert road.go_forward(["drain", "activate", "undrain"], take) == {"outcome": "reverted", "why": "it broke"}
    assert taken == ["drain", "activate", "revert", "undrain"]


def test_every_step_of_the_collection_is_one_task() -> None:
    for adapter in road.BALANCERS:
        for file in road.steps(["stage", *FORWARD, "confirm", "await", "revert"], adapter=adapter):
            assert len(yaml.safe_load(Path(file).read_text(encoding="utf-8"))) == 1, file


@given(RESULTS, FAILURES)
def test_every_end_of_a_road_can_be_reported_in_one_line(results: Any, failure: Any) -> None:
    found = road.outcome(results, failure)
    HostStatus(found["outcome"])
    assert bool(found["why"]) is (found["outcome"] != "succeeded")
    assert "\n" not in found["why"]


@given(RESULTS, FAILURES)
def test_only_a_road_without_fault_is_a_success(results: Any, failure: Any) -> None:
    away = any(results.get(step, {}).get("unreachable") for step in ("drain", "activate", "confirm", "undrain"))
    assert (road.outcome(results, failure)["outcome"] == "succeeded") is (not failure and not away)


@given(RESULTS, st.sampled_from(["", "it broke"]))
def test_only_a_way_back_without_fault_has_returned(results: Any, failure: str) -> None:
    relevant = [results.get(step, {}) for step in ("drain", "revert", "undrain")]
    faulty = any((one.get("failed") or one.get("unreachable")) and not one.get("skipped") for one in relevant)
    assert (road.way_back(results, failure)["outcome"] == "returned") is (not faulty and not failure)


# the gate of a phase


@given(st.integers(0, 500), st.integers(1, 30))
def test_all_hosts_are_watched_or_so_many_of_them(count: int, most: int) -> None:
    hosts = [f"app{n}" for n in range(count)]
    chosen = road.sample(hosts, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert chosen == sorted(chosen, key=hosts.index)


def test_a_sample_is_spread_over_the_phase() -> None:
    hosts = [f"app{n}" for n in range(100)]
    assert road.sample(hosts, 10) == [f"app{n}" for n in range(0, 100, 10)]


@pytest.mark.parametrize(
    ("results", "failure", "verdict", "why"),
    [
        ([], "", "inconclusive", "no host of the phase was asked"),
        ([{"enlisted": True}, {"verdict": "pass", "message": "2 hosts healthy"}], "", "pass", "2 hosts healthy"),
        ([{"verdict": "fail", "message": "app1: answered 500"}], "", "fail", "app1: answered 500"),
        ([{"failed": True, "msg": "no such plugin"}], "", "error", "no such plugin"),
        ([{"verdict": "pass", "message": "1 host healthy"}], "the cache is cold", "fail", "the cache is cold"),
    ],
)
def test_the_last_result_has_the_verdict(results: Any, failure: str, verdict: str, why: str) -> None:
    assert road.watch_verdict(results, failure) == {"verdict": verdict, "why": why}


# who is in service


def balancer(**servers: str) -> dict[str, Any]:
    return {"servers": {name: {"state": state} for name, state in servers.items()}}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], {}),
        ([balancer(app1="up", app2="down")], {"app1": True, "app2": False}),
        ([balancer(app1="up"), balancer(app1="up")], {"app1": True}),
        ([balancer(app1="up"), balancer(app1="drained")], {"app1": False}),
        ([balancer(app1="up"), balancer(app2="maint")], {"app1": True, "app2": False}),
        ([balancer(other="up")], {}),
    ],
)
def test_a_host_serves_when_every_load_balancer_that_knows_it_says_so(answers: Any, expected: dict[str, bool]) -> None:
    assert road.membership(answers, {}, ["app1", "app2"]) == expected


def test_a_host_may_have_another_name_in_the_load_balancer() -> None:
    assert road.membership([balancer(web_1="up")], {"app1": "web_1"}, ["app1"]) == {"app1": True}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        ([balancer(app1="up", app2="drained")], 1),
        ([balancer(app1="up", app2="up"), balancer(app1="up", app2="down")], 1),
        ([balancer(app1="maint")], 0),
    ],
)
def test_how_many_are_up_where_the_fewest_are(answers: Any, expected: int | None) -> None:
    assert road.members_up(answers) == expected


# Load balancers that are switched


@pytest.mark.parametrize(
    ("checked", "switched", "outcome"),
    [
        ({"results": [{}]}, {"results": [{"changed": True}]}, {"went_well": True, "touched": True, "why": ""}),
        ({"skipped": True}, {"results": [{"changed": False}]}, {"went_well": True, "touched": False, "why": ""}),
        (
            {"failed": True, "results": [{}, {"failed": True, "msg": "ill\nvery"}]},
            {"skipped": True},
            {"went_well": False, "touched": False, "why": "ill"},
        ),
        ({"unreachable": True, "msg": "gone"}, {}, {"went_well": False, "touched": False, "why": "gone"}),
        ({}, {}, {"went_well": False, "touched": False, "why": "no load balancer was switched"}),
        (
            {},
            {"failed": True, "results": [{"changed": True}, {"failed": True, "msg": "refused", "changed": False}]},
            {"went_well": False, "touched": True, "why": "refused"},
        ),
        (
            {},
            {"failed": True, "results": [{"failed": True, "msg": "refused", "changed": False}]},
            {"went_well": False, "touched": False, "why": "refused"},
        ),
        (
            {},
            {"results": [{"unreachable": True, "msg": "gone"}]},
            {"went_well": False, "touched": True, "why": "gone"},
        ),
    ],
)
def test_what_became_of_the_switch(checked: dict[str, Any], switched: dict[str, Any], outcome: dict[str, Any]) -> None:
    assert road.switch_outcome(checked, switched) == outcome


def test_a_host_of_the_idle_colour_is_not_put_into_service() -> None:
    forward = ["drain", "activate", "before_undrain", "undrain", "after_undrain"]
    assert road.without_service(forward, {"coming": "green"}) == ["drain", "activate", "before_undrain"]
    assert road.without_service(forward, None) == forward


def test_what_each_load_balancer_says_of_a_host() -> None:
    answers = [{"servers": {"web": {"state": "up"}}}, {"servers": {"web": {"state": "down"}, "app2": {"state": "up"}}}]
    assert road.rotation(answers, {"app1": "web"}, ["app1", "app2", "app3"]) == {
        "app1": ["up", "down"],
        "app2": ["up"],
        "app3": [],
    }
    assert road.server_names(["app1", "app2"], {"app1": "web"}) == ["web", "app2"]
