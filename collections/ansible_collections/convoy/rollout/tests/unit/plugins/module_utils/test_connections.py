# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of processes, by real ones of this process."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import connections


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_open_connections_are_counted_by_their_other_end(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        listener.listen()
        end = (address, listener.getsockname()[1])
        assert connections.count([os.getpid()])[end] == 0
        with socket.create_connection(end), socket.create_connection(end):
            assert connections.count([os.getpid()])[end] == 2
            assert connections.count([os.getppid()])[end] == 0
        assert connections.count([os.getpid()])[end] == 0


def test_a_process_that_is_gone_has_none() -> None:
    assert not connections.count([2**22 + 1])


def test_what_a_name_stands_for() -> None:
    assert connections.endpoints("127.0.0.1", 80) == {("127.0.0.1", 80)}
    assert connections.endpoints("no-such-host.invalid", 80) == set()
