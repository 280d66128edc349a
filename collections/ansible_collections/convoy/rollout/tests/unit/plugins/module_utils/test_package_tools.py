# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of package managers, what they complain of, and the locks that are waited for."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import apt, package_tools
from ansible_collections.convoy.rollout.plugins.module_utils.errors import LockedError, PackageError

FAILED = """\
Setting up hello (1.3) ...
no licence for tuesdays
dpkg: error processing package hello (--configure):
 installed hello package post-installation script subprocess returned error exit status 1
W: Unable to read /dev/null
E: Sub-process /usr/bin/dpkg returned an error code (1)
"""


def test_words_are_the_complaints() -> None:
    assert package_tools.Done(100, FAILED).words == (
        "dpkg: error processing package hello (--configure):; installed hello package post-installation script "
        "subprocess returned error exit status 1; E: Sub-process /usr/bin/dpkg returned an error code (1)"
    )
    assert package_tools.Done(1, "").words == "it said nothing"
    assert package_tools.Done(1, "one\ntwo\nthree\nfour\n").words == "two; three; four"
    assert len(package_tools.Done(1, "E: " + "x" * 1000).words) == 400


HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)


def test_a_lock_is_waited_for_and_its_holder_named(tmp_path: Path, world: Any) -> None:
    path = str(tmp_path / "lock")
    assert not package_tools.is_locked(path)
    with open(path, "w") as own:
        fcntl.lockf(own, fcntl.LOCK_EX)
    assert not package_tools.is_locked(path)
    manager = apt.Apt(world.clock, 3)
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert package_tools.is_locked(path)
        began = world.clock.now()
        with pytest.raises(LockedError, match=rf"process {other.pid} \(python.*\), which has {path}, .*after 3 s"):
            manager._wait_for([path])
        assert 3 <= world.clock.now() - began < 5
        other.communicate()
    manager._wait_for([path])


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(PackageError, match="cannot run convoy-no-such-command: No such file"):
        package_tools.run(["convoy-no-such-command"], 1)


def test_a_command_that_does_not_end_is_left_to_run() -> None:
    with pytest.raises(
        PackageError, match=r"'sleep 5' has not ended within 0\.1 s, and still runs as process \d+"
    ) as caught:
        package_tools.run(["sleep", "5"], 0.1)
    pid = int(str(caught.value).split("process ")[1].split(":")[0])
    os.kill(pid, 9)


def test_a_service_that_keeps_its_output_open_is_not_waited_for() -> None:
    done = package_tools.run(["sh", "-c", "sleep 5 & echo $!"], 3)
    assert done.code == 0
    os.kill(int(done.said), 9)
