# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts in one worker: each with its own variables and connection, and those that cannot go so are left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .conftest import AWAY, HERE, Ended, Site

MANY = {f"app{number}": {**HERE, "component_root": f"{{{{ inventory_dir }}}}/../{number}"} for number in range(1, 8)}
READ = {
    "name": "Read them",
    "ansible.builtin.import_role": {"name": "convoy.rollout.rollout", "tasks_from": "read"},
}


def read(
    site: Site,
    *arguments: str,
    before: tuple[dict[str, Any], ...] = (),
    environment: Mapping[str, str] = os.environ,
) -> tuple[Ended, dict[str, Any]]:
    """Read the hosts, with tasks of the site's before; what was registered at the first that is left."""
    path = site.directory / "said.json"
    keep = {
        "ansible.builtin.copy": {
            "content": "{{ {'at_once': rollout_reads, 'alone': dict(ansible_play_hosts | zip(ansible_play_hosts"
            " | map('extract', hostvars) | map(attribute='component_read', default={})))} | to_json }}",
            "dest": str(path),
        },
        "delegate_to": "localhost",
        "run_once": True,
    }
    plays = [
        *({"hosts": "app", "gather_facts": False, "tasks": [task]} for task in before),
        {"hosts": "app", "gather_facts": False, "ignore_unreachable": True, "tasks": [READ]},
        {"hosts": "app", "gather_facts": False, "tasks": [keep]},
    ]
    playbook = site.directory / "play.yml"
    playbook.write_text(json.dumps(plays))
    path.unlink(missing_ok=True)
    ended = site.run(str(playbook), *arguments, environment=environment)
    return ended, json.loads(path.read_text()) if path.exists() else {}


def place(read: Mapping[str, Any]) -> str:
    """The last of the words by which a host says where the component's directory lies."""
    return str(read["place"].rpartition(":")[2])


def test_every_host_is_read_with_its_own_variables(site: Site) -> None:
    site.hosts = MANY
    for forks in ("1", "3", "20"):
        ended, said = read(site, "--forks", forks)
        assert ended.rc == 0, ended.said
        assert list(said["at_once"]["results"]) == list(MANY)
        assert [place(one) for one in said["at_once"]["results"].values()] == [str(number) for number in range(1, 8)]
        assert said["at_once"]["left"] == []


def test_modules_may_go_ansibles_own_way_from_several_hosts_at_once(site: Site) -> None:
    site.hosts = MANY
    ended, said = read(site, environment={**os.environ, "ANSIBLE_PIPELINING": "false"})
    assert ended.rc == 0, ended.said
    assert [place(one) for one in said["at_once"]["results"].values()] == [str(number) for number in range(1, 8)]


def test_a_host_that_is_away_takes_nobody_along(site: Site) -> None:
    site.hosts = {**MANY, "app3": AWAY}
    ended, said = read(site)
    results = said["at_once"]["results"]
    assert "unreachable: [app3] convoy.rollout.rollout : Read the host's releases and health: " in ended.said
    assert results["app3"]["unreachable"]
    assert all("active" in result for host, result in results.items() if host != "app3")


def test_a_host_whose_variables_are_wrong_takes_nobody_along(site: Site) -> None:
    site.hosts = {
        **MANY,
        "app2": {**HERE, "component_root": "{{ nowhere }}"},
        "app4": {"ansible_connection": "{{ no }}"},
    }
    ended, said = read(site)
    results, alone = said["at_once"]["results"], said["alone"]
    assert "failed: [app4] " in ended.said
    assert "nowhere" in results["app2"]["msg"]
    assert said["at_once"]["left"] == ["app4"]
    assert "app4" not in alone
    assert all("active" in result for host, result in results.items() if host != "app2")


def test_a_host_with_another_connection_goes_ansibles_usual_way(site: Site) -> None:
    site.hosts = {**MANY, "app5": {**MANY["app5"], "ansible_connection": "here"}}
    plugin = site.directory / "plugins" / "here.py"
    plugin.parent.mkdir()
    plugin.write_text(
        'DOCUMENTATION = """\nname: here\nshort_description: local by another name\n"""\n'
        "from ansible.plugins.connection.local import Connection as Local\n"
        "class Connection(Local):\n    transport = 'here'\n"
    )
    ended, said = read(site, environment={**os.environ, "ANSIBLE_CONNECTION_PLUGINS": str(plugin.parent)})
    assert ended.rc == 0, ended.said
    assert said["at_once"]["left"] == ["app5"]
    assert place(said["alone"]["app5"]) == "5"


def test_hosts_that_are_limited_away_or_failed_before_are_left_alone(site: Site) -> None:
    site.hosts = MANY
    fail = {"ansible.builtin.fail": {"msg": "no"}, "when": "inventory_hostname in ['app1', 'app6']"}
    ended, said = read(site, "--limit", "app1,app2,app6,app7,localhost", before=(fail,))
    assert ended.rc == 2
    assert list(said["at_once"]["results"]) == ["app2", "app7"]


def test_reading_in_check_mode_changes_nothing(site: Site) -> None:
    site.hosts = MANY
    ended, _said = read(site, "--check", "--diff")
    assert ended.rc == 0, ended.said
    assert not (site.directory / "1").exists()


def test_any_ansible_core_reads_hosts_and_stages_on_them(site: Site) -> None:
    site.hosts = MANY
    site.variables["component_probes"] = [{"kind": "command", "argv": ["true"]}]
    deployed = site.deploy("-e", '{"rollout_phases": "all_at_once"}')
    assert deployed.rc == 0, deployed.said
    status = site.run("status.yml")
    assert status.rc == 0, status.said
    assert status.said.count("1.0.0-") >= len(MANY), status.said
