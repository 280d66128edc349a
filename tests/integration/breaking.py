# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are broken meanwhile, and mended in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .environment import Environment

# A second sshd, to have a way in while the first one is away.
BACK_DOOR = 2222
OPEN_BACK_DOOR = (
    f"systemd-run --quiet --unit=convoy-test-sshd /usr/sbin/sshd -D -p {BACK_DOOR};"
    f" until bash -c ': </dev/tcp/127.0.0.1/{BACK_DOOR}' 2>/dev/null; do sleep 0.1; done"
)
CLOSE_BACK_DOOR = "systemctl stop convoy-test-sshd"
# With sshd go its sessions, which are in its control group. Its unit takes away the directory that every sshd needs.
SSHD_DIES = "systemctl kill --signal=KILL ssh.service; systemctl stop ssh.service; mkdir -p /run/sshd"


@contextmanager
def back_door(environment: Environment, host: str) -> Iterator[None]:
    """A host that can be mended, whatever becomes of its sshd; it has its sshd again in the end."""
    environment.fleet.shell(host, OPEN_BACK_DOOR)
    try:
        yield
    finally:
        environment.fleet.shell(host, "systemctl start ssh.service", port=BACK_DOOR)
        environment.fleet.shell(host, CLOSE_BACK_DOOR)


@contextmanager
def broken(environment: Environment, host: str, breaks: str, mends: str) -> Iterator[None]:
    """A host on which something is broken meanwhile."""
    environment.fleet.shell(host, breaks)
    try:
        yield
    finally:
        environment.fleet.shell(host, mends)
