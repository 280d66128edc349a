# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import os
import select
import signal
from threading import Lock

from ansible.executor.task_queue_manager import FinalQueue

from ansible_collections.convoy.rollout.plugins.plugin_utils.inline import Turn, stop_reading

WORKERS = 3
SECONDS = 30
MORE_THAN_A_PIPE_HOLDS = b"x" * (1 << 20)


def test_workers_notice_that_the_main_process_is_gone() -> None:
    reading, writing = os.pipe()
    main = os.fork()
    if not main:
        os.setpgid(0, 0)
        queue = FinalQueue()
        for _number in range(WORKERS):
            if not os.fork():
                speak(queue)
                os.write(writing, b"!")
                os._exit(0)
        os._exit(0)
    os.close(writing)
    os.waitpid(main, 0)
    try:
        assert read_all(reading) == b"!" * WORKERS
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(main, signal.SIGKILL)


def speak(queue: FinalQueue) -> None:
    """As a worker does, until nobody can hear it any more."""
    stop_reading(queue)
    with contextlib.suppress(BrokenPipeError):
        while True:
            queue.put(MORE_THAN_A_PIPE_HOLDS)


def read_all(reading: int) -> bytes:
    """What all who can write there have written until they ended, or until they were waited for in vain."""
    said = b""
    while select.select([reading], [], [], SECONDS)[0]:
        more = os.read(reading, 100)
        if not more:
            break
        said += more
    return said


def test_a_turn_is_given_away_once_and_had_again_whatever_happens() -> None:
    lock = Lock()
    turn = Turn(lock)
    taken: list[bool] = []

    def inner() -> None:
        taken.append(lock.locked())
        raise OSError("the host is gone")

    with turn:
        assert lock.locked()
        with contextlib.suppress(OSError):
            turn.given_away(turn.given_away(inner))()
        taken.append(lock.locked())
    assert (taken, lock.locked()) == ([False, True], False)
