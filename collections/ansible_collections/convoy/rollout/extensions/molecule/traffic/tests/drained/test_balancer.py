# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""While app1 is drained."""

from __future__ import annotations

from fleet import Balancer


def test_haproxy_has_the_host_in_drain(balancer: Balancer) -> None:
    assert balancer.servers == {"app1": "DRAIN", "app2": "UP", "app3": "UP"}


def test_clients_are_not_sent_there(balancer: Balancer) -> None:
    assert balancer.ask(6) == {f"Hello from {host}, version 1.0.0": 3 for host in ("app2", "app3")}
