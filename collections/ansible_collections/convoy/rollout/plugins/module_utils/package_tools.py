# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all package managers of hosts are worked with by: their commands, and the locks of those who install."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import tempfile

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import LockedError, PackageError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Callable, Sequence

ASK, DOWNLOAD, INSTALL = 120.0, 900.0, 1800.0  # seconds until an answer is not waited for any more
_LOCK_POLL = 0.5
_LONGEST_WORDS = 400

# No question is asked, no pager opened, no service restarted besides those of the package, and words are English.
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
    "LC_ALL": "C",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# First what apt and dpkg complain with, then what dnf and rpm do.
_COMPLAINT = re.compile(
    r"^(E: |dpkg: error|dpkg: dependency| .* returned error exit status| .* (Depends|Conflicts|Breaks)"
    r"|Error: .|error: | Problem|  - |  \S+: Cannot download|\t.* (needed by|conflicts with) |\tfile "
    r"|.*%\w+\(.*\).* failed, |You have enabled checking of packages|Problem repository: )"
)


class Done(NamedTuple):
    """A command that has ended: its exit code, and all that it said."""

    code: int
    said: str

    @property
    def words(self) -> str:
        """What it complained of, on one line; the end of what it said where nothing looks like a complaint."""
        lines = [line for line in self.said.splitlines() if line.strip() and not line.startswith(("W: ", "N: "))]
        complaints = [line for line in lines if _COMPLAINT.match(line)]
        text = "; ".join(" ".join(line.split()) for line in complaints or lines[-3:]) or "it said nothing"
        return text if len(text) <= _LONGEST_WORDS else text[: _LONGEST_WORDS - 3] + "..."


def run(command: Sequence[str], patience: float, directory: str = "/") -> Done:
    """Run a command that says what it has to say in English. It is never killed, since half an installation is worse.

    What it says goes to a file: a service that a package starts would hold a pipe open for ever.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **_ENVIRONMENT},
            )
        except OSError as error:
            raise PackageError(
                f"cannot run {command[0]}: {error.strerror}; a package needs apt and dpkg, or dnf and rpm"
            ) from error
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise PackageError(
                f"'{' '.join(command[:2])}' has not ended within {patience:g} s, and still runs as process "
                f"{process.pid}: look what it waits for"
            ) from error
        said.seek(0)
        return Done(code, said.read().decode("utf-8", "replace"))


def wait_for(clock: Clock, patience: float, busy: Callable[[], str | None]) -> None:
    """Wait until nobody installs. `busy` says who does, and by what that is known; LockedError names it."""
    deadline = clock.now() + patience
    while True:
        who = busy()
        if who is None:
            return
        if clock.now() >= deadline:
            raise LockedError(
                f"packages of this host are being changed by {who}, and still were after {patience:g} s. Wait for it "
                "to end, or set component_package.lock_timeout higher, and run this again",
                locked=True,
            )
        clock.sleep(_LOCK_POLL)


def holder(path: str, locks: str = "/proc/locks") -> str | None:
    """Who has the lock on a file, as far as the kernel tells, and that it is this one; None where nobody has it."""
    if not is_locked(path):
        return None
    inode = os.stat(path).st_ino
    with contextlib.suppress(OSError), open(locks, encoding="ascii") as stream:
        for line in stream:
            fields = line.split()
            if len(fields) >= 6 and fields[5].endswith(f":{inode}") and int(fields[4]) > 0:
                return f"{process(int(fields[4]))}, which has {path}"
    return f"another process, which has {path}"


def process(pid: int) -> str:
    """A process by number and name. OSError when there is none."""
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
        return f"process {pid} ({comm.read().strip()})"


def is_locked(path: str) -> bool:
    """Whether another process has the lock that package managers take on a file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return True
    finally:
        os.close(descriptor)
    return False
