# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections over TCP a process has open, as the kernel lists them (proc_pid_net(5), proc_pid_fd(5))."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterable

_SOCKET = "socket:["
_OPEN = ("01", "02")  # established, and on its way there
_TABLES = (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6))


def count(pids: Iterable[int], proc: str = "/proc") -> Counter[tuple[str, int]]:
    """How many connections these processes have open, by the address and port of the other end."""
    found: Counter[tuple[str, int]] = Counter()
    for pid in pids:
        try:
            sockets = _sockets(pid, proc)
            for table, family in _TABLES:
                found.update(other for inode, other in _table(f"{proc}/{pid}/net/{table}", family) if inode in sockets)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def _sockets(pid: int, proc: str) -> set[str]:
    found = set()
    for entry in os.scandir(f"{proc}/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if target.startswith(_SOCKET):
            found.add(target[len(_SOCKET) : -1])
    return found


def _table(path: str, family: int) -> Iterable[tuple[str, tuple[str, int]]]:
    """The inode of each open connection, with its other end."""
    try:
        with open(path, encoding="ascii") as stream:
            rows = [line.split() for line in stream][1:]
    except FileNotFoundError:  # a kernel without IPv6
        return []
    return [(row[9], _endpoint(row[2], family)) for row in rows if row[3] in _OPEN]


def _endpoint(told: str, family: int) -> tuple[str, int]:
    """`0100007F:1F90` is 127.0.0.1, port 8080: the address is in words of 32 bits, in the order of the machine."""
    address, port = told.split(":")
    words = (address[at : at + 8] for at in range(0, len(address), 8))
    raw = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(family, raw), int(port, 16)


def endpoints(host: str, port: int) -> set[tuple[str, int]]:
    """The addresses, with the port, that a name stands for; none when it stands for nothing."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    return {(str(info[4][0]), port) for info in infos}
