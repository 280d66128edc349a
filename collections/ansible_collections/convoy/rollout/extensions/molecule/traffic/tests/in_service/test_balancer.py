# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After app1 was put back."""

from __future__ import annotations

from fleet import Balancer

HOSTS = ("app1", "app2", "app3")


def test_haproxy_has_every_host_up(balancer: Balancer) -> None:
    assert balancer.servers == dict.fromkeys(HOSTS, "UP")


def test_clients_are_sent_to_every_host(balancer: Balancer) -> None:
    assert balancer.ask(6) == {f"Hello from {host}, version 1.0.0": 2 for host in HOSTS}
