# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of the load balancer: one that asks the service, as its users do, and one that reads the statistics."""

from __future__ import annotations

import asyncio
import csv
import threading
import time
from dataclasses import dataclass, field

LOOK_EVERY = 0.05
PATIENCE = 15.0  # seconds for an answer
AT_ONCE = 500  # requests under way, at most


@dataclass(frozen=True)
class Server:
    """A server's row in HAProxy's statistics. ``retries``: connections tried again, here or at another server."""

    status: str
    sessions: int
    requests: int
    retries: int
    errors: int

    @property
    def serves(self) -> bool:
        """Whether it gets new requests."""
        return self.status.startswith("UP")


@dataclass
class Watched:
    """What was seen: how many requests were answered, what became of the others, and HAProxy's servers in time."""

    answered: int = 0
    broken: list[str] = field(default_factory=list)
    samples: list[dict[str, Server]] = field(default_factory=list)
    seconds: float = 0.0

    def out(self, among: set[str] | None = None) -> list[set[str]]:
        """The servers that were out of service, sample by sample; only those ``among`` where that is given."""
        return [
            {name for name, server in sample.items() if not server.serves and (among is None or name in among)}
            for sample in self.samples
        ]

    def most_out(self, among: set[str] | None = None) -> int:
        """How many were out of service at once, at most."""
        return max(map(len, self.out(among)), default=0)

    @property
    def drained(self) -> set[str]:
        """The servers that were drained at some time, by HAProxy's own word."""
        return {name for sample in self.samples for name, server in sample.items() if server.status.startswith("DRAIN")}

    def grown(self, column: str) -> dict[str, int]:
        """By how much a counter of each server grew."""
        first, last = self.samples[0], self.samples[-1]
        return {name: getattr(last[name], column) - getattr(first[name], column) for name in last}


class Watch:
    """Asks, in a thread of its own, from ``with`` to its end."""

    def __init__(self, balancer: str, ask_every: float, look_every: float = LOOK_EVERY, port: int = 80) -> None:
        self.watched = Watched()
        self._ask_every = ask_every
        self._balancer = balancer
        self._port = port
        self._look_every = look_every
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        self._over.set()
        self._thread.join()

    async def _watch(self) -> None:
        began = time.monotonic()
        await asyncio.gather(self._ask(), self._look())
        self.watched.seconds = time.monotonic() - began

    async def _ask(self) -> None:
        """A new connection every so often, whether the ones before were answered or not."""
        room, asked = asyncio.Semaphore(AT_ONCE), set()
        due = time.monotonic()
        while not self._over.is_set():
            await room.acquire()
            task = asyncio.create_task(self._ask_once())
            asked.add(task)
            task.add_done_callback(asked.discard)
            task.add_done_callback(lambda _done: room.release())
            due += self._ask_every
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*asked)

    async def _ask_once(self) -> None:
        try:
            answer = await asyncio.wait_for(self._get(self._port, "/"), PATIENCE)
        except (OSError, EOFError, TimeoutError) as error:
            answer = repr(error)
        status, _, body = answer.partition("\r\n")
        if " 200 " in status and "Hello from app" in body:
            self.watched.answered += 1
        else:
            self.watched.broken.append(f"{time.strftime('%H:%M:%S')} {status}")

    async def _look(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            await self._look_once()
            due = max(due + self._look_every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _look_once(self) -> None:
        self.watched.samples.append(await self._servers())

    async def _servers(self) -> dict[str, Server]:
        return _servers(await asyncio.wait_for(self._get(8404, "/;csv"), PATIENCE))

    async def _get(self, port: int, path: str) -> str:
        reader, writer = await asyncio.open_connection(self._balancer, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n".encode())
            answer: bytes = await reader.read(-1)
        finally:
            writer.close()
        return answer.decode()


def _servers(answer: str) -> dict[str, Server]:
    _head, _, table = answer.partition("# ")
    return {
        row["svname"]: Server(
            status=row["status"],
            sessions=int(row["scur"]),
            requests=int(row["stot"]),
            retries=int(row["wretr"]) + int(row["wredis"]),
            errors=int(row["econ"]) + int(row["eresp"]) + int(row["hrsp_5xx"]),
        )
        for row in csv.DictReader(table.splitlines())
        if row["pxname"] == "app" and row["svname"] != "BACKEND"
    }
