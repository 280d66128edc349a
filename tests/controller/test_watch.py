# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action watch in a playbook: a loop that enlists its hosts, and a last item that watches all of them at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import AWAY, HERE, Ended, Site


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def watched(site: Site, where: Path, hosts: list[str], **options: Any) -> tuple[Ended, list[dict[str, Any]]]:
    """Run a play that watches these hosts; how it ended, and what each item returned."""
    kept = where / "kept.json"
    task = {
        "convoy.rollout.watch": {"host": "{{ watched }}", "hosts": hosts, **options},
        "delegate_to": "{{ watched }}",
        "loop": hosts,
        "loop_control": {"loop_var": "watched"},
        "register": "watch",
    }
    keep = {"ansible.builtin.copy": {"content": "{{ watch.results | to_json }}", "dest": str(kept)}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"block": [task], "always": [keep]}]}
    playbook = where / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    ended = site.run(str(playbook))
    return ended, json.loads(kept.read_text())


def asks(port: int) -> list[dict[str, Any]]:
    return [{"kind": "tcp", "port": port, "timeout": 30}]


def test_all_hosts_are_watched_at_the_same_time(site: Site, tmp_path: Path) -> None:
    """Each host's probe waits until all of them are being asked."""
    hosts = [f"app{n}" for n in range(1, 9)]
    site.hosts = dict.fromkeys(hosts, HERE)
    met = tmp_path / "met"
    met.mkdir()
    wait = f"touch {met}/{{{{ watched }}}}; until [ $(ls {met} | wc -l) = 8 ]; do sleep 0.1; done"
    probe = {"kind": "command", "argv": ["/bin/sh", "-c", wait], "timeout": 90}
    ended, results = watched(site, tmp_path, hosts, probes=[probe], seconds=0.5)
    assert ended.rc == 0, ended.said
    assert [result.get("enlisted", False) for result in results] == [True] * 7 + [False]
    assert (results[-1]["verdict"], [one["host"] for one in results[-1]["hosts"]]) == ("pass", hosts)


def test_each_host_is_asked_its_own_probes(site: Site, tmp_path: Path, port: int) -> None:
    site.hosts = {"app1": {**HERE, "own": port}, "app2": {**HERE, "own": 1}}
    probes = [{"kind": "tcp", "port": "{{ hostvars[watched].own | int }}", "timeout": 30}]
    ended, results = watched(site, tmp_path, ["app1", "app2"], probes=probes, seconds=600)
    assert ended.rc == 2
    last = results[-1]
    assert last["msg"] == "app2: probe tcp 127.0.0.1:1 refused the connection"
    assert [one["verdict"] for one in last["hosts"]] == ["pass", "fail"]
    assert last["elapsed"] < 300


def test_a_host_that_cannot_be_reached_fails(site: Site, tmp_path: Path, port: int) -> None:
    site.hosts = {"app1": HERE, "app2": AWAY}
    ended, results = watched(site, tmp_path, ["app2", "app1"], probes=asks(port), seconds=600)
    assert ended.rc == 2
    assert results[-1]["verdict"] == "fail"
    assert results[-1]["message"].startswith("app2: it cannot be reached: ")


def test_metrics_are_watched_beside_the_hosts(site: Site, tmp_path: Path, port: int) -> None:
    gates = {
        "errors": {"prometheus": {"url": "http://127.0.0.1:1", "query": "up"}, "success": "== 1", "error_limit": 0}
    }
    ended, results = watched(site, tmp_path, ["app1"], probes=asks(port), seconds=1, gates=gates, ask=["errors"])
    assert ended.rc == 2
    assert (results[-1]["verdict"], results[-1]["hosts"][0]["verdict"]) == ("error", "pass")
    assert "errors: http://127.0.0.1:1/api/v1/query cannot be reached" in results[-1]["message"]


def test_what_cannot_be_used_is_an_error_and_no_pass(site: Site, tmp_path: Path, port: int) -> None:
    _ended, results = watched(site, tmp_path, ["app1"], probes=asks(port), gates={"e": {}}, ask=["e"])
    assert (results[-1]["verdict"], results[-1]["message"][:16]) == ("error", "rollout_gates.e:")
    _ended, results = watched(site, tmp_path, ["app1"], probes=[{"kind": "tpc"}])
    assert "did you mean 'tcp'?" in results[-1]["message"] or "value of kind must be one of" in results[-1]["message"]
    assert results[-1]["verdict"] == "error"


def test_without_probes_nothing_is_known(site: Site, tmp_path: Path) -> None:
    ended, results = watched(site, tmp_path, ["app1"])
    assert (ended.rc, results[-1]["verdict"]) == (2, "inconclusive")


def test_a_host_that_is_not_to_be_watched(site: Site, tmp_path: Path) -> None:
    ended, _results = watched(site, tmp_path, ["app1"], host="app2")
    assert "host: 'app2' is none of those that are to be watched: app1" in ended.said
