# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input is refused: no host touched, exit code not 0, a message that says what to do.

Where a run is expected to go beyond its refusals it is a check run or ends with the opening.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import machine, started

from .conftest import AWAY, HERE, ROOT, STREAM, Ended, Site

NO_HOST = "rollout_target: no host matches: check the group's name and the inventory"


def frozen() -> dict[str, Any]:
    """A freeze that holds now."""
    now = datetime.now(UTC)
    moments = {"from": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    return {"environment_freezes": [{"name": "the sale", **moments}]}


def given(**variables: Any) -> list[str]:
    """Extra variables that keep their types."""
    return ["-e", json.dumps(variables)]


def refused(ended: Ended, site: Site, *said: str, recorded: bool = False) -> None:
    """Assert that nothing was done, that each of ``said`` was, and that the first is ``recorded``."""
    for words in said:
        assert words in ended.said
    if recorded:
        entry = site.ledger().entries(STREAM)[-1]
        assert (entry.kind, entry.rollout) == ("refused", "")
        assert said[0] in json.loads(entry.data)["why"]
    assert ended.rc not in (0, None)
    assert "Traceback" not in ended.said
    assert not site.component.exists()


# versions


@pytest.mark.parametrize("number", ["1.10", "2"])
def test_a_version_that_is_a_number(site: Site, number: str) -> None:
    ended = site.run("deploy.yml", "-e", f'{{"component_version": {number}}}')
    refused(
        ended,
        site,
        f"component_version is the number {number.rstrip('0')}, not a string",
        'Write it in quotes in a file (component_version: "1.10"), as -e component_version=1.10 on the command line, '
        'or as -e \'{"component_version": "1.10"}\'; in AWX use a version that is no number, such as 1.10.0',
        recorded=True,
    )


def test_no_version(site: Site) -> None:
    refused(site.run("deploy.yml"), site, "component_version is not set: give it with -e", recorded=True)


def test_a_version_that_was_not_published(site: Site) -> None:
    refused(site.deploy(version="1.0.1"), site, "has no hello 1.0.1: publish it first; it has 1.0.0, 1.1.0")


def test_a_component_that_was_not_published(site: Site) -> None:
    refused(
        site.deploy(*given(component_name="helo")), site, "has no component 'helo'; it has hello, did you mean 'hello'?"
    )


# the artifact


def change_artifact(site: Site) -> None:
    for blob in Path(site.variables["depot_path"], "blobs", "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)


def remove_artifact(site: Site) -> None:
    for blob in Path(site.variables["depot_path"], "blobs", "sha256").iterdir():
        blob.unlink()


def change_manifest(site: Site) -> None:
    manifest = Path(site.variables["depot_path"], "components", "hello", "1.0.0", "manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"0644"', b'"0755"'))


def trust_somebody_else(site: Site) -> None:
    other = site.directory / "other"
    subprocess.run([sys.executable, str(ROOT / "examples" / "keys"), str(other)], check=True, stdout=subprocess.DEVNULL)
    site.variables["environment_allowed_signers"] = str(other / "allowed_signers")


def open_the_depot(site: Site) -> None:
    Path(site.variables["depot_path"]).chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_artifact, "was changed: its SHA-256 is"),
        (remove_artifact, "is missing; publish it again"),
        (change_manifest, "signed by 'release@convoy.example'"),
        (trust_somebody_else, "add it there if its owner may release"),
        (open_the_depot, "others could read releases or put their own there"),
    ],
)
def test_a_release_that_is_not_to_be_trusted(site: Site, spoil: Callable[[Site], None], said: str) -> None:
    spoil(site)
    refused(site.deploy(), site, said)


# variables


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"rollout_phase": []}, "unknown variable rollout_phase: did you mean 'rollout_phases'?"),
        (
            {"rollout_failure_budget": "101%"},
            "rollout_failure_budget: '101%' is out of range: a percentage is at most 100%",
        ),
        ({"rollout_failure_budget": -1}, "rollout_failure_budget: -1"),
        (
            {"rollout_phases": [{"name": "fleet", "size": "100%", "bakes": 3}]},
            "rollout_phases[0]: unknown key 'bakes': did you mean 'bake'?",
        ),
        (
            {"rollout_phases": [{"name": "half", "size": "50%"}]},
            "rollout_phases: the last phase 'half' reaches 50% of the fleet: sizes are cumulative, so that it must "
            "reach '100%'",
        ),
        (
            {"rollout_phases": [{"name": "canary", "size": 1}]},
            "rollout_phases: the last phase 'canary' reaches 1 of 2 hosts: sizes are cumulative, so that it must "
            "reach '100%'",
        ),
        (
            {"component_config": [{"dest": "etc/hello.json", "source": "x.j2"}]},
            "component_config[0]: unknown key 'source'",
        ),
    ],
    ids=str,
)
def test_a_variable_that_is_written_wrong(site: Site, variables: dict[str, Any], said: str) -> None:
    refused(site.deploy(*given(**variables)), site, said, recorded="component_config" not in variables)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"rollout_hooks": {"after_activation": "/x.yml"}},
            "rollout_hooks: unknown hook 'after_activation': did you mean 'after_activate'?",
        ),
        (
            {"rollout_hooks": {"after_activate": "/nowhere.yml"}},
            "rollout_hooks.after_activate: there is no file /nowhere.yml",
        ),
        (
            {"component_migrations": [{"name": "m1", "tasks": "/nowhere.yml", "irreversible": True}]},
            "component_migrations[0].tasks: there is no file /nowhere.yml",
        ),
        (
            {"component_migrations": [{"name": "m1", "tasks": "/nowhere.yml"}]},
            "component_migrations[0]: 'm1' needs either reverse, the task file that takes it back, or irrev",
        ),
        ({"traffic_adapter": "haprox"}, "traffic_adapter: unknown adapter 'haprox': did you mean 'haproxy'?"),
        ({"traffic_adapter": "tasks", "traffic_tasks": {"drain": "/x.yml"}}, "traffic_tasks: 'undrain' is missing"),
    ],
    ids=str,
)
def test_what_the_site_adds_is_looked_at_before_anything_else(site: Site, variables: dict[str, Any], said: str) -> None:
    refused(site.deploy(*given(**variables)), site, said)
    assert site.rollouts().view() is None


# how releases travel


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"component_transfer": "dleta"}, "component_transfer: unknown value 'dleta': did you mean 'delta'?"),
        ({"component_transfer": "pull"}, "component_artifact_url is not set, and component_transfer is pull"),
        (
            {"component_transfer": "pull", "component_artifact_url": "https://d/{sha265}"},
            "component_artifact_url: unknown placeholder {sha265}: did you mean 'sha256'?",
        ),
        (
            {
                "component_transfer": "pull",
                "component_artifact_url": "http://d/{sha256}",
                "component_pull": {"authorization": "Bearer s3cr3t"},
            },
            "is not https: anyone on the way could read the authorization",
        ),
    ],
    ids=["misspelt", "no address", "placeholder", "readable"],
)
def test_a_transfer_that_cannot_be(site: Site, variables: dict[str, Any], said: str) -> None:
    ended = site.deploy("-vvv", *given(**variables))
    refused(ended, site, said, recorded=True)


# tasks that put releases in place

ACTIVATE = {"activate": __file__}


@pytest.mark.parametrize(
    ("tasks", "variables", "said"),
    [
        ({}, {}, "component_tasks.activate is missing"),
        ({"activat": "/x.yml"}, {}, "component_tasks: unknown key 'activat': did you mean 'activate'?"),
        ({"activate": "/no/such.yml"}, {}, "component_tasks.activate: there is no file /no/such.yml"),
        ({**ACTIVATE, "revert": "/no/such.yml"}, {}, "component_tasks.revert: there is no file /no/such.yml"),
        ({**ACTIVATE, "irreversible": True}, {}, "component_tasks.irreversible: phase canary, fleet turns back"),
        (ACTIVATE, {"component_confirm_within": 60}, "component_confirm_within: 60 does not go with component_kind"),
        (ACTIVATE, {"component_in_doubt": "dnoe"}, "component_in_doubt: unknown answer 'dnoe': did you mean 'done'?"),
        (ACTIVATE, {"component_kind": "archive"}, "component_tasks: it is for component_kind: tasks, and that is"),
    ],
    ids=str,
)
def test_tasks_that_cannot_be(site: Site, tasks: dict[str, Any], variables: dict[str, Any], said: str) -> None:
    asked = {"component_kind": "tasks", "component_tasks": tasks, **variables}
    refused(site.deploy(*given(**asked)), site, said, recorded=True)


# migrations


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"rollout_migration": "m1", "rollout_order": "done"},
            "no rollout of tiny/hello is open: if migration m1 is in doubt, the next deployment waits for it: say it",
        ),
        ({"rollout_order": "again"}, "order is again but all of the following are missing: migration"),
    ],
    ids=["no rollout", "no name"],
)
def test_a_word_about_a_migration_that_nobody_waits_for(site: Site, variables: dict[str, Any], said: str) -> None:
    site.ledger()
    refused(site.run("playbooks/migration.yml", *given(**variables)), site, said)


# two colours


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"rollout_phases": "blue_green"},
            "rollout_colours: it is not set, and the preset 'blue_green' needs it: name the groups of both colours",
        ),
        (
            {"rollout_phases": "blue_green", "rollout_colours": {"blue": "app", "green": "gren"}},
            "rollout_colours.green: there is no group 'gren'",
        ),
        (
            {"rollout_phases": "blue_green", "rollout_colours": {"blue": "app"}},
            "rollout_colours: 'green' is missing: name the inventory group of each colour",
        ),
        (
            {"rollout_phases": "blue_green", "rollout_colours": {"blue": "app", "green": "all"}},
            "rollout_colours: app1, app2 in both groups: each host has one colour",
        ),
        (
            {"rollout_phases": "blue_green", "rollout_colours": {"blue": "app", "green": "lb"}},
            "rollout_colours: lb1 in a group, but not in rollout_target: both colours together have to be all",
        ),
        (
            {"rollout_phases": "canary", "rollout_colours": {"blue": "app", "green": "lb"}, "rollout_target": "all"},
            "rollout_phases: 3 phases do not go with rollout_colours: write blue_green",
        ),
        (
            {
                "rollout_phases": "blue_green",
                "rollout_colours": {"blue": "app", "green": "lb"},
                "rollout_target": "all",
            },
            "rollout_colours: they need traffic_adapter: haproxy or nginx, and it is 'none'",
        ),
    ],
    ids=str,
)
def test_colours_that_are_written_wrong(site: Site, variables: dict[str, Any], said: str) -> None:
    site.balancers = {"lb1": HERE}
    refused(site.deploy(*given(**variables)), site, said)
    assert site.rollouts().view() is None


# hosts


def test_an_inventory_that_is_not_there(site: Site) -> None:
    ended = site.deploy("-i", str(site.directory / "stagin"))
    refused(ended, site, "Completely failed to parse inventory source", "stagin")


def test_a_group_that_is_not_there(site: Site) -> None:
    refused(site.deploy(*given(rollout_target="web")), site, NO_HOST, recorded=True)


def test_a_group_without_hosts(site: Site) -> None:
    site.hosts = {}
    refused(site.deploy(), site, NO_HOST, recorded=True)


def test_a_limit_that_leaves_the_controller_out(site: Site) -> None:
    ended = site.deploy("--limit", "app1")
    refused(ended, site, "--limit leaves out localhost", "Choose hosts with -e rollout_target=... instead")


def test_a_limit_that_leaves_hosts_out(site: Site) -> None:
    ended = site.deploy("--limit", "app1,localhost")
    refused(
        ended,
        site,
        "app2: it was not read. If --limit leaves it out, choose hosts with -e rollout_target=...",
        recorded=True,
    )
    assert site.rollouts().view() is None


def test_a_fleet_that_cannot_be_reached(site: Site) -> None:
    site.hosts = {"app1": AWAY, "app2": AWAY}
    refused(site.deploy(), site, "no host could be reached: app1: ", "app2: ", "Connection refused")


def test_a_host_that_cannot_be_reached_is_told_with_the_reason(site: Site) -> None:
    site.hosts = {"app1": HERE, "app2": AWAY}
    ended = site.deploy("--check")
    assert "app2 cannot be read: " in ended.said
    assert "Connection refused" in ended.said
    assert "app2 unreachable" in ended.said
    assert not site.component.exists()


def test_a_host_without_the_privilege(site: Site) -> None:
    """Root becomes nobody here, so that what runs on the host is not root."""
    python = {"ansible_python_interpreter": "/usr/bin/python3"}
    become = {"ansible_become": True, "ansible_become_user": "nobody", "ansible_become_method": "su"}
    site.hosts = {"app1": {**HERE, **python, **become, "ansible_become_flags": "-s /bin/sh"}}
    refused(site.deploy(), site, "app1: convoy.rollout.release_info needs root on the host: run it with become: true")


def test_a_host_that_has_two_names(site: Site) -> None:
    site.hosts = {"app1": HERE, "web1": HERE}
    refused(site.deploy(), site, "app1 and web1 are the same host: keep one of the names", recorded=True)


def test_a_check_that_refuses_records_nothing(site: Site) -> None:
    refused(site.deploy("--check", *given(rollout_target="web")), site, NO_HOST)
    assert site.ledger().head(STREAM) == 0


def test_a_current_that_is_a_directory(site: Site) -> None:
    (site.component / "current").mkdir(parents=True)
    ended = site.deploy()
    current = site.component / "current"
    assert ended.rc == 2
    assert f"nothing was touched: app1: {current} is not a symbolic link" in ended.said
    assert f"mv {current} {current}.before-convoy" in ended.said
    assert [entry.name for entry in site.component.iterdir()] == ["current"]


def test_a_load_balancer_that_is_away(site: Site) -> None:
    site.balancers = {"lb1": HERE}
    site.variables["traffic_adapter"] = "haproxy"
    site.variables["traffic_haproxy_socket"] = str(site.directory / "admin.sock")
    refused(site.deploy(), site, str(site.directory / "admin.sock"))


# how many at once


# gates, and what is asked before


CANARY = {"name": "canary", "size": 1, "bake": 5, "gates": ["errors"]}
PAGE = {"url": "http://{host}:8080/metrics", "events": "errors_total", "total": "requests_total"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "phase 'canary' asks the gate 'errors', which is not in rollout_gates"),
        (
            {"rollout_gates": {"errors": {}}},
            "rollout_gates.errors: none is given as a source: give one of haproxy, page",
        ),
        (
            {"rollout_gates": {"errors": {"page": PAGE, "alfa": 1}}},
            "rollout_gates.errors: unknown key 'alfa': did you mean 'alpha'?",
        ),
        ({"rollout_gates": {"errors": {"page": PAGE}}, "rollout_gate_options": {"every": 1}}, "unknown key 'every'"),
        ({"rollout_unhealthy": "skipp"}, "rollout_unhealthy: unknown value 'skipp': did you mean 'skip'?"),
    ],
)
def test_gates_that_cannot_be_used(site: Site, variables: dict[str, Any], said: str) -> None:
    phases = [CANARY, {"name": "fleet", "size": "100%"}] if "rollout_unhealthy" not in variables else "all_at_once"
    refused(site.deploy(*given(rollout_phases=phases, **variables)), site, said)


@pytest.fixture
def alerts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of something that answers as Alertmanager does, and the alerts that fire."""
    firing: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/api/v2/alerts?active=true&silenced=false") else 404)
            self.end_headers()
            self.wfile.write(json.dumps(firing).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", firing
        server.shutdown()
        thread.join()


def test_an_alert_that_fires(site: Site, alerts: tuple[str, list[dict[str, Any]]]) -> None:
    url, firing = alerts
    site.variables["environment_alertmanager"] = {"url": url}
    assert site.deploy("--check").rc == 0
    firing.append({"labels": {"alertname": "HelloDown"}, "annotations": {"summary": "hello is down"}})
    refused(site.deploy(), site, "1 alert fires: HelloDown (hello is down): mend what they tell of")


def test_an_alertmanager_that_is_away(site: Site) -> None:
    site.variables["environment_alertmanager"] = {"url": "http://127.0.0.1:1"}
    refused(site.deploy(), site, "cannot be reached", "whether an alert fires is not known")


def test_a_dependency_that_is_not_there(site: Site) -> None:
    site.variables["component_dependencies"] = [{"kind": "tcp", "port": 1, "name": "database"}]
    refused(site.deploy(), site, "app1: probe database (tcp 127.0.0.1:1) refused the connection")


def test_a_window_larger_than_the_forks(site: Site) -> None:
    ended = site.deploy("--check", "--forks", "1", *given(rollout_max_unavailable=2))
    assert "a window of 2 hosts needs as many forks, but only 1 are set: run with --forks 2" in ended.said
    assert ended.rc == 0
    assert not site.component.exists()


def test_a_window_as_large_as_the_forks(site: Site) -> None:
    assert "forks" not in site.deploy("--check", "--forks", "2", *given(rollout_max_unavailable=2)).said


# policy


def test_a_freeze(site: Site) -> None:
    site.variables.update(frozen())
    refused(
        site.deploy(),
        site,
        "the environment is frozen (the sale) until",
        "rolling back is always allowed",
        recorded=True,
    )
    told = site.run("ledger.yml")
    assert "refused version at by why deploy 1.0.0 " in told.said
    assert "the environment is frozen (the sale) until" in told.said
    assert site.rollouts().view() is None


def test_a_freeze_that_is_overridden_is_recorded(site: Site) -> None:
    site.variables.update(frozen())
    reason = given(component_version="1.0.0", rollout_freeze_override="the shop is down")
    ended = site.run("playbooks/open.yml", *reason)
    assert ended.rc == 0
    assert "the freeze the sale was overridden: the shop is down" in ended.said
    view = site.rollouts().view()
    assert view is not None
    assert view.facts["override"] == "the freeze the sale was overridden: the shop is down"


def test_a_freeze_does_not_bar_the_way_back(site: Site) -> None:
    site.variables.update(frozen())
    ended = site.run("rollback.yml")
    refused(ended, site, "there is no good release to roll back to")
    assert "frozen" not in ended.said


# the ledger


def test_a_ledger_that_would_be_lost_with_the_container(site: Site) -> None:
    ended = site.deploy(environment={**os.environ, "AWX_PRIVATE_DATA_DIR": str(site.directory)})
    refused(ended, site, "a SQLite file in an AWX job is lost with its container: give a PostgreSQL URL")


def test_a_ledger_that_is_away_and_its_password(site: Site) -> None:
    site.variables["environment_ledger_url"] = "postgresql+psycopg://convoy:hunter2@127.0.0.1:1/convoy"
    ended = site.deploy()
    refused(ended, site, "the ledger postgresql+psycopg://convoy:***@127.0.0.1:1/convoy cannot be used")
    assert "hunter2" not in ended.said


def test_a_ledger_of_no_known_kind(site: Site) -> None:
    refused(site.deploy(*given(environment_ledger_url="mysql://db/convoy")), site, "a ledger cannot be kept in mysql")


def test_a_second_deployment_while_one_runs(site: Site) -> None:
    spec = RolloutSpec(
        parse_phases([{"name": "fleet", "size": "100%"}], 1), FailureBudget(Quantity(0)), Quantity(1), 600
    )
    hosts = {name: HostFacts(name, "1.1.0-bbbbbbbbbbbb") for name in ("app1", "app2")}
    facts = {"kind": "deploy", "component": "hello", "version": "1.1.0", "environment": "tiny"}
    holder = Run(machine(), os.getpid(), started(os.getpid()) or 0, "ann")
    plan = make_plan(spec, list(hosts.values()))
    site.rollouts().open(plan, hosts, facts, holder, lambda run: False, "r1", 600.0)
    refused(site.deploy(), site, f"rollout r1 is held by ann@{machine().partition('/')[0]} (process {os.getpid()})")
