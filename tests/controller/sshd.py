# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSH's server of a test's own, on this machine alone, that speaks SFTP and nothing else.

It runs as the user daemon where the test is root: what may not be written there is not written, and no account is made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".cache" / "sshd"  # by tests/sshd, where the system has none

CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


@dataclass
class Server:
    """A server that runs; what is in ``home`` is its user's."""

    home: Path
    port: int
    user: pwd.struct_passwd
    directory: Path  # of the test, for keys

    @property
    def depot(self) -> Path:
        return self.home / "depot"

    @property
    def url(self) -> str:
        return f"sftp://{self.user.pw_name}@127.0.0.1:{self.port}{self.depot}"

    @property
    def options(self) -> dict[str, Any]:
        """What depot_options has to be."""
        return {
            "key_filename": str(self.directory / "client_key"),
            "known_hosts": str(self.directory / "known_hosts"),
            "allow_agent": False,
            "look_for_keys": False,
        }

    def know(self, key: Path) -> None:
        """Let the client know this key as the server's."""
        public = key.with_name(f"{key.name}.pub").read_text()
        (self.directory / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def own(self, path: Path, mode: int) -> None:
        """Give what is there to the server's user."""
        os.chown(path, self.user.pw_uid, self.user.pw_gid)
        path.chmod(mode)


def _programs(home: Path) -> tuple[list[str], dict[str, str]]:
    """The command of the server, and its environment. What was unpacked is copied to where its user may execute it."""
    if Path("/usr/sbin/sshd").exists():
        return ["/usr/sbin/sshd"], {}
    if not (UNPACKED / "usr" / "sbin" / "sshd").exists():
        pytest.skip("there is no sshd: tests/sshd brings one")
    there = home / "sshd"
    shutil.copytree(UNPACKED, there, symlinks=True)
    libraries = {str(path.parent) for path in there.rglob("*.so.*")}
    found = [f"-o{name}Path={path}" for name in ("SshdSession", "SshdAuth") for path in _helpers(there, name)]
    return [str(there / "usr" / "sbin" / "sshd"), *found], {"LD_LIBRARY_PATH": ":".join(sorted(libraries))}


def _helpers(there: Path, name: str) -> list[Path]:
    """The programs that newer servers consist of."""
    return [path for path in (there / "usr/lib/openssh" / name.replace("Sshd", "sshd-").lower(),) if path.exists()]


@contextmanager
def serving_sftp(directory: Path) -> Iterator[Server]:
    """A server whose key is known to the client, which it lets in."""
    user = pwd.getpwnam("daemon") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    home = Path(tempfile.mkdtemp(prefix="convoy-sshd-"))
    process = None
    try:
        command, environment = _programs(home)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = Server(home, free.getsockname()[1], user, directory)
        host_key, client_key = make_key(home / "host_key"), make_key(directory / "client_key")
        shutil.copy(client_key.with_name("client_key.pub"), home / "authorized_keys")
        (home / "config").write_text(CONFIG.format(port=server.port, home=home))
        for path in (home, *home.iterdir()):
            server.own(path, 0o700 if path.is_dir() else 0o600)
        server.know(host_key)
        become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        process = subprocess.Popen(
            [*command, "-D", "-e", "-f", str(home / "config")],
            cwd="/",
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stderr=(directory / "sshd.log").open("w"),
            **become,
        )
        _wait_for(server, process)
        yield server
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        shutil.rmtree(home)


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"sshd did not start: {(server.directory / 'sshd.log').read_text()}")
