# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changed on hosts is named, and mended by a rollout; what a deployment will change is shown before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .environment import ALL_AT_ONCE, Environment
from .fleet import BIN

# How somebody changes a host, and what is found: what and which.
SAME_SIZE = "sed -i s/Hello/Hallo/ /srv/hello/current/etc/hello.json"
UNIT = """
printf '# by hand\\n' >> /etc/systemd/system/hello.service
systemctl daemon-reload
systemctl --quiet disable hello.service
"""
BY_HAND = """
systemctl stop hello.service
cd /srv/hello/current
setsid -f setpriv --reuid daemon --clear-groups /usr/bin/python3 -B app/hello.py etc/hello.json <&- >&- 2>&-
"""
DROP_IN = "/etc/systemd/system/hello.service.d/by-hand.conf"


def found(path: Path) -> dict[str, list[tuple[str, str]]]:
    """What the file for machines says of the hosts that drifted: what, and which."""
    told = json.loads(path.read_text())
    return {
        host["host"]: [(finding["what"], finding["name"]) for finding in host["findings"]]
        for host in told["hosts"]
        if host["verdict"] == "drifted"
    }


@pytest.fixture
def few(on_1_1_0: Environment) -> Iterator[dict[str, Any]]:
    """Four hosts, on which nothing of these tests stays."""
    yield {"rollout_target": ",".join(on_1_1_0.hosts[:4]), "rollout_phases": ALL_AT_ONCE}
    on_1_1_0.fleet.shell("app3", f"rm -rf {Path(DROP_IN).parent}; systemctl daemon-reload")


def test_what_somebody_changed_is_named_and_mended(on_1_1_0: Environment, few: dict[str, Any], tmp_path: Path) -> None:
    with on_1_1_0.untouched():
        clean = on_1_1_0.run("drift.yml", **few)
    assert clean.rc == 0, clean.said
    assert "drift: 0 of 4 hosts drifted, 4 clean" in clean.summary

    active = on_1_1_0.look("app1")["app1"].active
    first = next(one for one in on_1_1_0.look("app4")["app4"].releases if one != active)
    for host, change in {
        "app1": SAME_SIZE,
        "app2": UNIT,
        "app3": BY_HAND,
        "app4": f"ln -sfn releases/{first} /srv/hello/current",
    }.items():
        on_1_1_0.fleet.shell(host, change)
    path = tmp_path / "drift.json"
    drifted = on_1_1_0.run("drift.yml", drift_json=str(path), **few)
    assert drifted.rc == 2, drifted.said
    assert found(path) == {
        "app1": [("file", "etc/hello.json")],
        "app2": [("enabled", "hello.service"), ("unit", "hello.service")],
        "app3": [("process", f"/srv/hello/releases/{active}/app/hello.py"), ("state", "hello.service")],
        "app4": [("release", "current")],
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert "drift: 4 of 4 hosts drifted, 0 clean" in drifted.summary
    assert f"releases/{active}" in drifted.summary
    assert "next: ansible-playbook repair.yml" in drifted.summary

    changed = on_1_1_0.run("repair.yml", hello_greeting="Hi", **few)
    assert changed.rc == 2, changed.said
    assert "a repair changes no configuration" in changed.said
    assert on_1_1_0.look("app4")["app4"].active == first

    mended = on_1_1_0.run("repair.yml", **few)
    assert mended.rc == 0, mended.said
    assert "repair of hello 1.1.0 in test: succeeded" in mended.summary
    assert "drift: 0 of 4 hosts drifted, 4 clean" in mended.summary
    assert on_1_1_0.view().facts["kind"] == "repair"
    assert set(on_1_1_0.statuses().values()) == {"succeeded"}
    assert {look.active for look in on_1_1_0.look().values()} == {active}
    on_1_1_0.see("1.1.0")

    with on_1_1_0.untouched():
        again = on_1_1_0.run("repair.yml", **few)
    assert again.rc == 0, again.said
    assert "nothing to repair" in again.said


def test_what_is_not_convoys_is_named_and_left_and_what_was_not_seen_is_no_drift(
    on_1_1_0: Environment, few: dict[str, Any]
) -> None:
    with on_1_1_0.host_variables("app2", ansible_port=1):
        unseen = on_1_1_0.run("drift.yml", **few)
        assert unseen.rc == 4, unseen.said
        assert "unknown: app2: " in unseen.summary
        assert "drift: 0 of 4 hosts drifted, 1 unknown, 3 clean" in unseen.summary

        add = f"mkdir -p {Path(DROP_IN).parent}; printf '[Service]\\nNice=5\\n' > {DROP_IN}; systemctl daemon-reload"
        on_1_1_0.fleet.shell("app3", add)
        both = on_1_1_0.run("drift.yml", **few)
        assert both.rc == 2, both.said
        assert "drift: 1 of 4 hosts drifted, 1 unknown, 2 clean" in both.summary
        assert DROP_IN in both.summary
    with on_1_1_0.untouched():
        left = on_1_1_0.run("repair.yml", **few)
        assert left.rc == 2, left.said
        assert "nothing to repair" in left.said
        ignored = on_1_1_0.run("drift.yml", drift_ignored=[f"{Path(DROP_IN).parent}/*"], **few)
    assert ignored.rc == 0, ignored.said


def test_what_a_deployment_would_change_of_configuration_is_shown_but_for_secrets(
    on_1_1_0: Environment, few: dict[str, Any], tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("of the vault\n")
    vault = on_1_1_0.inventory / "group_vars" / "all" / "vault.yml"
    encrypt = [str(BIN / "ansible-vault"), "encrypt_string", "--vault-password-file", str(password)]
    done = subprocess.run([*encrypt, "hunter22", "--name", "vault_word"], capture_output=True, text=True, check=True)
    looks = ["--check", "--diff", "--vault-password-file", str(password)]
    try:
        vault.write_text(done.stdout)
        with on_1_1_0.untouched(), on_1_1_0.host_variables("app3", hello_greeting="Moin {{ vault_word }}"):
            shown = on_1_1_0.deploy("1.1.0", *looks, hello_settings={"workers": 3}, **few)
    finally:
        vault.unlink()
    assert shown.rc == 0, shown.said
    assert "config etc/hello.json changed: app1, app2, app4" in shown.summary
    assert shown.summary.count('+    "workers": 3') == 1
    assert "config etc/hello.json changed (secret): app3" in shown.summary
    assert "unit hello.service" not in shown.summary
    assert "hunter22" not in shown.said
    assert "Moin" not in shown.said
