# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, caused for real: what is refused touches no host, and what cannot be refused tells the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .breaking import BACK_DOOR, SSHD_DIES, back_door, broken
from .environment import ALL_AT_ONCE, Environment


def hook(environment: Environment, moment: str, tasks: str) -> dict[str, str]:
    """A site's hook that does something at that moment."""
    path = environment.directory / f"{moment}.yml"
    path.write_text(tasks)
    return {moment: str(path)}


@contextmanager
def kept_blobs(environment: Environment) -> Iterator[list[Path]]:
    """The artifacts of the depot, which are as they were in the end."""
    blobs = [path for path in (environment.directory / "depot/blobs").rglob("*") if path.is_file()]
    kept = {blob: (blob.read_bytes(), blob.stat().st_mode) for blob in blobs}
    try:
        yield blobs
    finally:
        for blob, (content, mode) in kept.items():
            blob.chmod(0o600)
            blob.write_bytes(content)
            blob.chmod(mode)


def refused(environment: Environment, *said: str) -> None:
    """A deployment is refused, and says why; no host is touched, and the ledger knows of no rollout."""
    with environment.untouched():
        ended = environment.deploy("1.6.0", **environment.few)
    assert ended.rc != 0
    for words in said:
        assert words in ended.said
    assert "Traceback" not in ended.said


# before anything is touched


def test_a_directory_in_the_place_of_current(on_1_1_0: Environment) -> None:
    park = "mv /srv/hello/current /srv/hello/parked; mkdir /srv/hello/current"
    unpark = "rmdir /srv/hello/current; mv /srv/hello/parked /srv/hello/current"
    with broken(on_1_1_0, "app2", park, unpark):
        refused(
            on_1_1_0, "nothing was touched: app2: /srv/hello/current is not a symbolic link", "mv /srv/hello/current "
        )


def test_a_link_that_dangles(on_1_1_0: Environment) -> None:
    park = "mv /srv/hello/current /srv/hello/parked; ln -s releases/gone /srv/hello/current"
    unpark = "rm /srv/hello/current; mv /srv/hello/parked /srv/hello/current"
    with broken(on_1_1_0, "app2", park, unpark):
        refused(on_1_1_0, "nothing was touched: app2: /srv/hello/current ")


def test_no_space_on_a_disk(on_1_1_0: Environment) -> None:
    with broken(on_1_1_0, "app3", "mount -t tmpfs -o size=16k none /srv/hello", "umount /srv/hello"):
        refused(on_1_1_0, "nothing was touched: app3: ", "are needed for two copies of the release")


def test_a_load_balancer_that_is_away(on_1_1_0: Environment) -> None:
    before, head = on_1_1_0.look(), on_1_1_0.head()
    with broken(on_1_1_0, "lb1", "systemctl stop haproxy.service", "systemctl start haproxy.service"):
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few)
    assert ended.rc != 0
    assert "lb1" in ended.said
    assert "/run/haproxy/admin.sock" in ended.said
    assert (on_1_1_0.look(), on_1_1_0.head()) == (before, head)


def test_an_account_without_privilege(on_1_1_0: Environment) -> None:
    with on_1_1_0.host_variables("app2", ansible_user="guest"), on_1_1_0.untouched(*on_1_1_0.hosts):
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few)
    assert ended.rc != 0
    assert "app2 cannot be read: " in ended.said
    assert "root" in ended.summary


def test_an_artifact_that_was_changed_in_the_depot(on_1_1_0: Environment) -> None:
    on_1_1_0.publish("1.6.0")
    with kept_blobs(on_1_1_0) as blobs:
        for blob in blobs:
            content = blob.read_bytes()
            blob.chmod(0o640)
            blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused(on_1_1_0, "1.6.0", "was changed")


def test_an_artifact_that_is_changed_after_it_was_verified(on_1_1_0: Environment) -> None:
    on_1_1_0.publish("1.6.0")
    spoil = (
        "- name: Change the artifacts\n"
        "  ansible.builtin.shell: find {{ depot_path }}/blobs -type f -exec sh -c 'printf x >> {}' ';'\n"
        "  delegate_to: localhost\n"
    )
    with kept_blobs(on_1_1_0), on_1_1_0.untouched(*on_1_1_0.hosts):
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few, rollout_hooks=hook(on_1_1_0, "before_stage", spoil))
    assert ended.rc != 0
    for host in on_1_1_0.hosts[:3]:
        assert f"  {host} unstaged: " in ended.summary
    for look in on_1_1_0.see("1.1.0").values():
        assert not [name for name in look.releases if name.startswith("1.6.0-")]


def test_a_token_that_is_stale(on_1_1_0: Environment) -> None:
    """What a run that was overtaken still sends to a host is refused there."""
    look = on_1_1_0.look("app1")["app1"]
    stale = {
        "component": "hello",
        "state": "reverted",
        "release": look.releases[0],
        "token": look.token - 1,
        "rollout": "overtaken",
        "probes": [{"kind": "tcp", "port": 8080}],
    }
    with on_1_1_0.untouched():
        answer = on_1_1_0.fleet.module("app1", "convoy.rollout.release", stale)
    assert answer["failed"]
    assert answer["stale_token"]
    assert str(look.token) in answer["msg"]


# in the middle of it


def test_a_host_that_is_away(on_1_1_0: Environment) -> None:
    """Beyond the budget nothing goes; within it the others go, and the end tells the truth about that host."""
    with back_door(on_1_1_0, "app2"):
        on_1_1_0.fleet.shell("app2", SSHD_DIES, port=BACK_DOOR)
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few)
        assert ended.rc != 0
        assert "  app2 unreachable: " in ended.summary
        assert "why: 1 failed, more than the failure budget of 0" in ended.summary
        assert not any(look.activated("1.6.0") for look in on_1_1_0.look("app1", "app3").values())

        within = on_1_1_0.deploy("1.6.0", **on_1_1_0.few, rollout_phases=ALL_AT_ONCE, rollout_failure_budget=1)
        assert within.rc == 0, within.said
        assert "  app2 unreachable: " in within.summary
    on_1_1_0.see("1.6.0", "app1", "app3")
    on_1_1_0.see("1.1.0", "app2")


def test_a_host_that_goes_away_before_its_activation(on_1_1_0: Environment) -> None:
    dies = (
        "- name: Let sshd die in a moment\n"
        "  ansible.builtin.command: >-\n"
        f"    systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms sh -c '{SSHD_DIES}'\n"
        "  when: inventory_hostname == 'app2'\n"
        "- name: Wait until it has\n"
        "  ansible.builtin.wait_for:\n"
        '    host: "{{ ansible_host }}"\n'
        "    port: 22\n"
        "    state: stopped\n"
        "  delegate_to: localhost\n"
        "  when: inventory_hostname == 'app2'\n"
    )
    with back_door(on_1_1_0, "app2"):
        variables = {"rollout_phases": "one_by_one", "rollout_hooks": hook(on_1_1_0, "before_activate", dies)}
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few, **variables)
    assert ended.rc != 0
    assert "  app2 stuck: " in ended.summary
    assert on_1_1_0.view().status == "failed"
    statuses = on_1_1_0.statuses()
    assert statuses.pop("app2") == "stuck"
    assert set(statuses.values()) <= {"returned", "pending"}  # whoever asked first went first
    assert {look.says for look in on_1_1_0.look().values()} == {"1.1.0"}
    states = on_1_1_0.balancer()
    assert states.pop("app2").startswith("DRAIN")
    assert set(states.values()) == {"UP"}

    put_back = on_1_1_0.run("playbooks/reconcile.yml", **on_1_1_0.few)
    assert put_back.rc == 0, put_back.said
    on_1_1_0.see("1.1.0")


@pytest.mark.parametrize("moment", ["before_drain", pytest.param("before_undrain", marks=pytest.mark.long)])
def test_a_load_balancer_that_goes_away(on_1_1_0: Environment, moment: str) -> None:
    """Before the drain the host is left as it was; later it stays out, since nobody can know that it is in."""
    stop = "- name: Stop HAProxy\n  ansible.builtin.command: systemctl stop haproxy.service\n  delegate_to: lb1\n"
    on_1_1_0.publish("1.6.0")
    with broken(on_1_1_0, "lb1", "true", "systemctl start haproxy.service"), on_1_1_0.untouched("app2", "app3"):
        ended = on_1_1_0.deploy("1.6.0", **on_1_1_0.few, rollout_hooks=hook(on_1_1_0, moment, stop))
    assert ended.rc != 0
    assert "  app1 " in ended.summary
    assert "/run/haproxy/admin.sock" in ended.summary
    assert on_1_1_0.look("app1")["app1"].activated("1.6.0") == (moment == "before_undrain")
    assert on_1_1_0.view().status == ("reverted" if moment == "before_drain" else "failed")

    again = on_1_1_0.deploy("1.6.0", **on_1_1_0.few)
    assert again.rc == 0, again.said
    on_1_1_0.see("1.6.0", *on_1_1_0.hosts[:3])
