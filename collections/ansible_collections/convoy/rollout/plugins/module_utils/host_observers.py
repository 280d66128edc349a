# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes look at on the host itself and around it: space, memory, time, names, certificates, logs, processes."""

from __future__ import annotations

import os
import time

from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import (
    NoAnswerError,
    connection_trouble,
    silence,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from typing import Iterable, Sequence

LOG_LINES = 10000
_NTP_EPOCH = 2208988800  # seconds from 1900, where NTP begins, to 1970
_LISTENS = "0A"
_UNIT_PROPERTIES = "LoadState,ActiveState,MainPID,ControlGroup,InvocationID,InactiveExitTimestampMonotonic"


class Space(NamedTuple):
    """A file system: free and total bytes for those who are not root; inodes are 0 where there are none to count."""

    free: int
    total: int
    free_inodes: int
    inodes: int


class Running(NamedTuple):
    """The main process of a unit: 0 for none; `ports` are those on which the unit's processes listen."""

    pid: int
    cwd: str
    seconds: float
    ports: frozenset[int]


def space(path: str) -> Space:
    """How much room there is at `path`."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        raise GateError(f"{path} cannot be looked at on this host: {error.strerror}") from error
    unit = found.f_frsize
    return Space(found.f_bavail * unit, found.f_blocks * unit, found.f_favail, found.f_files)


def memory(meminfo: str = "/proc/meminfo") -> tuple[int, int]:
    """Bytes of memory that programs can have without swapping, and of all there is."""
    with open(meminfo, encoding="ascii") as stream:
        found = dict(line.split(":", 1) for line in stream)
    available, total = (int(found[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    return available, total


def clock_offset(server: str, port: int, timeout: float) -> float:
    """How many seconds the server's clock is ahead of this host's, by one question of SNTP (RFC 4330)."""
    import socket
    import struct

    question = b"\x23" + 47 * b"\0"  # version 4, client
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(server, port, 0, socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as asked:
            asked.settimeout(timeout)
            asked.connect(address)
            sent = time.time()
            asked.send(question)
            answer = asked.recv(512)
            received = time.time()
    except socket.timeout as error:
        raise NoAnswerError(silence(timeout)) from error
    except OSError as error:
        raise NoAnswerError(connection_trouble(error)) from error
    if len(answer) < 48 or answer[1] == 0:
        raise NoAnswerError("answered, but does not know the time itself")
    arrived, left = (whole - _NTP_EPOCH + part / 2**32 for whole, part in struct.iter_unpack("!II", answer[32:48]))
    return float((arrived - sent) + (left - received)) / 2


def addresses(host: str) -> list[str]:
    """The addresses that the host's resolver gives for a name."""
    import socket

    try:
        found = socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise NoAnswerError(f"does not resolve ({error.strerror})") from error
    return sorted({str(entry[4][0]) for entry in found})


def certificate_days(host: str, port: int, server_name: str, ca_path: str | None, timeout: float) -> float:
    """For how many days the certificate that is shown there is valid. One that cannot be verified is no answer."""
    import socket
    import ssl

    context = ssl.create_default_context(cafile=ca_path)
    try:
        plain = socket.create_connection((host, port), timeout)
        with plain, context.wrap_socket(plain, server_hostname=server_name) as secured:
            shown = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise NoAnswerError(f"shows a certificate that is not valid ({error.verify_message})") from error
    except socket.timeout as error:
        raise NoAnswerError(silence(timeout)) from error
    except OSError as error:
        raise NoAnswerError(connection_trouble(error)) from error
    return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / 86400


def log_lines(unit: str, since: float | None, timeout: float) -> list[str]:
    """What the journal has of a unit: of the last `since` seconds, or of its present run."""
    if since is not None:
        wanted = [f"--unit={unit}", f"--since=@{int(time.time() - since)}"]
    else:
        run = _unit(unit, timeout)["InvocationID"]
        if not run:
            raise NoAnswerError("does not run, so that it has no log of its own")
        wanted = [f"_SYSTEMD_INVOCATION_ID={run}"]
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={LOG_LINES}", *wanted]
    done = _run(command, timeout)
    if done.returncode != 0:
        raise GateError(f"journalctl cannot be used on this host: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "replace").splitlines()


def running(unit: str, timeout: float, proc: str = "/proc") -> Running:
    """The main process of a unit, and where its processes listen."""
    found = _unit(unit, timeout)
    pid = int(found["MainPID"] or 0)
    if not pid:
        return Running(0, "", 0.0, frozenset())
    try:
        cwd = os.readlink(f"{proc}/{pid}/cwd")
        with open(f"{proc}/{pid}/stat", "rb") as stream:
            stat = stream.read()
    except OSError as error:
        raise NoAnswerError(f"has gone while it was looked at ({error.strerror})") from error
    ticks = int(stat[stat.rindex(b")") + 2 :].split()[19])
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return Running(pid, cwd, seconds, listening(_members(found["ControlGroup"], pid), proc))


def _members(group: str, pid: int) -> list[int]:
    """The processes of a control group; its main process where groups cannot be read."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
        try:
            with open(f"{root}{group}/cgroup.procs", encoding="ascii") as stream:
                members = [int(line) for line in stream if line.strip() != "0"]
        except OSError:
            continue
        if pid in members:
            return members
    return [pid]


def listening(pids: Iterable[int], proc: str = "/proc") -> frozenset[int]:
    """The TCP ports on which these processes listen. Whose sockets are which, only root and their owner can see."""
    own = {inode for pid in pids for inode in _sockets(pid, proc)}
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/net/{table}", encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENS and row[9] in own}
    return frozenset(ports)


def _sockets(pid: int, proc: str) -> Sequence[str]:
    """The inodes of a process's sockets."""
    found = []
    try:
        for name in os.listdir(f"{proc}/{pid}/fd"):
            target = os.readlink(f"{proc}/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.append(target[len("socket:[") : -1])
    except OSError:
        return found
    return found


def _unit(unit: str, timeout: float) -> dict[str, str]:
    """What systemd says of a unit."""
    done = _run(["systemctl", "show", f"--property={_UNIT_PROPERTIES}", "--", unit], timeout)
    if done.returncode != 0:
        raise NoAnswerError("could not be asked about: " + done.stderr.decode("utf-8", "replace").strip())
    found = dict(line.split("=", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if "=" in line)
    if found.get("LoadState") == "not-found":
        raise GateError(f"systemd on this host knows no unit {unit!r}: check the name and its suffix")
    return {name: found.get(name, "") for name in _UNIT_PROPERTIES.split(",")}


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
    import subprocess

    try:
        return subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(silence(timeout)) from error
    except OSError as error:
        raise GateError(f"{command[0]} cannot be run on this host ({error.strerror}): is it run by systemd?") from error
