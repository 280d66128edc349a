# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of an nginx upstream block, taken out of service and put back by the flag `down` in its file.

Nginx without a subscription has no runtime API and asks no server how it is. So the file is edited, tested and read
again by nginx (one call at a time on a host), and this module asks a server itself before it is put back. The file
says what nginx does after a restart too.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat

from ansible_collections.convoy.rollout.plugins.module_utils import connections, durable, fence, nginx_config, observers
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.nginx_config import Line
from ansible_collections.convoy.rollout.plugins.module_utils.nginx_process import Nginx
from ansible_collections.convoy.rollout.plugins.module_utils.process import Child
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Callable, ContextManager, Iterable, Iterator, Mapping, Sequence

POLL = 0.1
PROBE_SECONDS = 5.0
RISE = 2  # answers in a row before a server is put back
PATIENCE = 120.0  # for others that change nginx's configuration; each takes a second or so
ASKED_AT_ONCE = 16
SERVER = "{server}"

_PENDING = "pending"
_DEFAULT_PORT = 80

if TYPE_CHECKING:
    Hold = Callable[[], ContextManager[None]]
    Lines = Mapping[str, Line]


class Server(NamedTuple):
    """One server. `admin` is what its file wants of it: ready, or drain for `down`.

    `loaded`: whether nginx has read that. `healthy`, `answer`: what it said when it was asked. `sessions`: connections
    that nginx has open with it, None where that cannot be told; `held`: whether some of them may be those of workers
    that are shutting down.
    """

    name: str
    admin: str
    loaded: bool
    healthy: bool
    answer: str
    sessions: int | None
    held: bool
    weight: int
    backup: bool

    @property
    def state(self) -> str:
        """One word: up, down, draining, drained, or unloaded (a change that nginx may not have read)."""
        if not self.loaded:
            return "unloaded"
        if self.admin == "drain":
            return "draining" if self.held else "drained"
        return "up" if self.healthy else "down"

    def as_dict(self) -> dict[str, Any]:
        """As a module returns it."""
        fields = ("state", "admin", "healthy", "answer", "sessions", "weight", "backup")
        return {field: getattr(self, field) for field in fields}


class Change(NamedTuple):
    """What was done: the servers whose line was changed, and the workers from before a reload, None without one."""

    servers: list[str]
    old: list[Child] | None


class Outcome(NamedTuple):
    """What a call did. `before` and `after` are administrative states by server; in check mode `after` is predicted.

    `reloaded`: nginx read its configuration again. `extra` are further keys of the result; `warnings` are for a person.
    """

    servers: dict[str, Server]
    before: dict[str, str]
    after: dict[str, str]
    reloaded: bool
    extra: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As a module returns it."""
        diff = {"diff": {"before": self.before, "after": self.after}} if self.before != self.after else {}
        changed = self.reloaded or bool(diff)
        return {"changed": changed, "servers": as_dicts(self.servers), "reloaded": self.reloaded, **diff, **self.extra}


def as_dicts(servers: Mapping[str, Server]) -> dict[str, Any]:
    """Servers as a module returns them."""
    return {name: server.as_dict() for name, server in servers.items()}


def admins(lines: Lines) -> dict[str, str]:
    """What the file wants of each server."""
    return {name: "drain" if line.down else "ready" for name, line in lines.items()}


# --- asking a server -------------------------------------------------------------------------------------------


def ask(name: str, probe: str) -> tuple[bool, str]:
    """Whether a server is healthy, and what it said. Without a probe it has to accept a connection."""
    try:
        if not probe:
            _connect(name)
            return True, "accepted the connection"
        answer = observers.fetch(probe.replace(SERVER, name), {}, PROBE_SECONDS)
    except observers.NoAnswerError as error:
        return False, error.message
    return 200 <= answer.status < 300, f"answered {answer.status}"


def ask_all(names: Iterable[str], probe: str) -> dict[str, tuple[bool, str]]:
    """The answers of several servers, some at once."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = list(names)
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(lambda name: ask(name, probe), wanted)))


def _connect(name: str) -> None:
    if not name.startswith("unix:"):
        observers.connect(*split_address(name), PROBE_SECONDS)
        return
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.connect(name[len("unix:") :])
    except OSError as error:
        raise observers.NoAnswerError(observers.connection_trouble(error)) from error


def split_address(name: str) -> tuple[str, int]:
    """The host and port of a server's address, as nginx understands it."""
    host, colon, port = name.rpartition(":")
    if not colon or name.endswith("]"):
        host, port = name, str(_DEFAULT_PORT)
    return host.strip("[]"), int(port) if port.isdigit() else _DEFAULT_PORT


# --- an upstream block -----------------------------------------------------------------------------------------


class Upstream:
    """One upstream block of a file, looked at and changed.

    `place` is where this host remembers what was begun; `hold` lets a call through whose token is not stale.
    `touched`: a change may have been left behind.
    """

    def __init__(self, nginx: Nginx, config: str, name: str, probe: str, place: str, hold: Hold) -> None:
        self.nginx, self.name, self.probe, self.place, self.hold = nginx, name, probe, place, hold
        self.config = os.path.realpath(config)  # a link to it stays one
        self.touched = False

    def read(self) -> dict[str, Line]:
        """The lines of all its servers, as the file has them now."""
        return nginx_config.parse(self._text(), self.name, self.config)

    def picked(self, lines: Lines, names: Iterable[str]) -> dict[str, Line]:
        """Those of `lines` that are named. Raises TrafficError when one is not there."""
        wanted = list(names)
        for name in wanted:
            if name not in lines:
                raise TrafficError(
                    f"the upstream block {self.name!r} in {self.config} has no server {name!r}"
                    f"{did_you_mean(name, lines)} (it has {', '.join(lines) or 'none'})"
                )
        return {name: lines[name] for name in wanted}

    def look(self, names: Sequence[str] | None = None) -> dict[str, Server]:
        """All its servers by name, or those that are named, as they are now."""
        everyone = self.read()
        lines = everyone if names is None else self.picked(everyone, names)
        workers = self.nginx.workers(self.nginx.master()).values()
        old = self.nginx.leaving()
        open_now, held = (connections.count(worker.pid for worker in some) for some in (workers, old))
        answers, unloaded = ask_all(lines, self.probe), self.unloaded()
        servers = {}
        for name, line in lines.items():
            ends = _endpoints(name)
            sessions = sum(open_now[end] for end in ends) if ends else None
            is_held = any(held[end] for end in ends) if ends else bool(old)
            servers[name] = Server(
                name,
                admins(lines)[name],
                name not in unloaded,
                *answers[name],
                sessions,
                is_held,
                line.weight,
                line.backup,
            )
        return servers

    def busy(self, names: Iterable[str], workers: Iterable[Child]) -> dict[str, int | None]:
        """Connections that these workers have with servers, None where that cannot be told; without those with none."""
        held = connections.count(worker.pid for worker in workers)
        ends = {name: _endpoints(name) for name in names}
        counts = {name: sum(held[end] for end in ends[name]) if ends[name] else None for name in ends}
        return {name: count for name, count in counts.items() if count != 0}

    def check(self, names: Iterable[str]) -> dict[str, Line]:
        """The lines of servers, where nginx runs with a configuration that could be changed. Else TrafficError."""
        lines = self.picked(self.read(), names)
        self.nginx.master()
        self.nginx.test(self.config)
        return lines

    def change(self, out: Mapping[str, bool], permit: Callable[[Lines], None] = lambda _lines: None) -> Change:
        """Set the flag `down` of servers, or take it away, and have nginx read it; one call at a time on this host.

        `permit` may refuse, by what the file says then. What nginx does not take is undone, and TrafficError raised.
        """
        with self._alone(), self.hold():
            lines = self.read()
            self.picked(lines, out)
            permit(lines)
            changed = [name for name, down in out.items() if lines[name].down != down]
            if not changed and not self.is_pending:
                return Change([], None)
            self.check(out)
            return Change(changed, self._changed(changed, out))

    def _changed(self, names: Sequence[str], out: Mapping[str, bool]) -> list[Child]:
        """Write, test, reload. The old workers; what is pending is noted until it is seen that nginx has read it."""
        old = self._text()
        pending = self._pending()
        self._note([*pending, *((self.config, self.name, name) for name in names)])
        self._write(nginx_config.edit(old, self.read().values(), out))
        try:
            self.nginx.test(self.config)
        except TrafficError as error:
            self._write(old)
            self._note(pending)
            raise TrafficError(f"{error.message}; {self.config} is again as it was") from error
        self.touched = True
        try:
            workers = self.nginx.reload()
        except TrafficError as error:
            self._write(old)
            with contextlib.suppress(TrafficError):
                self.nginx.reload()
            raise TrafficError(f"{error.message}; {self.config} is again as it was") from error
        self._note([])
        return workers

    # what was begun and not seen to its end

    def unloaded(self) -> set[str]:
        """The servers whose line was changed by a call that did not live to see nginx read it."""
        return {name for config, upstream, name in self._pending() if (config, upstream) == (self.config, self.name)}

    @property
    def is_pending(self) -> bool:
        """Whether there are such servers, of any upstream block of this nginx: the next call reloads it."""
        return bool(self._pending())

    @property
    def _pending_path(self) -> str:
        return os.path.join(fence.tree(self.place).state, _PENDING)

    def _pending(self) -> list[tuple[str, str, str]]:
        path = self._pending_path
        try:
            with open(path, "rb") as stream:
                return [(str(config), str(upstream), str(name)) for config, upstream, name in json.loads(stream.read())]
        except FileNotFoundError:
            return []
        except PermissionError as error:
            raise TrafficError(f"{path} may not be read by this user: run the task with become: true") from error
        except (ValueError, TypeError) as error:
            raise TrafficError(
                f"{path} cannot be read ({error}): reload nginx, remove it and run this again"
            ) from error

    def _note(self, pending: Iterable[tuple[str, str, str]]) -> None:
        noted = sorted(set(pending))
        if noted:
            durable.write_file(self._pending_path, json.dumps(noted).encode("utf-8") + b"\n")
        else:
            durable.unlink(self._pending_path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A reload reads all files: who changes one of them waits for all others."""
        tree = fence.tree(self.place)
        fence.prepare(tree)
        with tree.lock(self.nginx.clock, PATIENCE, f"upstream {self.name}"):
            yield

    def _text(self) -> str:
        """The file; bytes that are no UTF-8 come through unchanged."""
        try:
            with open(self.config, "rb") as stream:
                return stream.read().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise TrafficError(f"{self.config} cannot be read: {error.strerror}; name the file as config") from error

    def _write(self, text: str) -> None:
        try:
            status = os.stat(self.config)
            data = text.encode("utf-8", "surrogateescape")
            durable.write_file(self.config, data, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))
        except OSError as error:
            raise TrafficError(f"{self.config} cannot be written: {error.strerror}") from error


def _endpoints(name: str) -> set[tuple[str, int]]:
    return set() if name.startswith("unix:") else connections.endpoints(*split_address(name))


# --- out of service --------------------------------------------------------------------------------------------


def drain(upstream: Upstream, names: Sequence[str], timeout: float, min_up: int, force: bool, dry: bool) -> Outcome:
    """Send no new requests to `names`, and wait until the workers have ended that may have requests with them.

    After `timeout` a worker that has no connection with these servers is waited for no more, with a warning. When one
    has, what this call took out is put back and TrafficError is raised; with `force` the servers stay out and `forced`
    says so.
    """

    def permit(lines: Lines) -> None:
        check_min_up(upstream, lines, names, min_up)

    before = admins(upstream.picked(upstream.read(), names))
    if dry:
        permit(upstream.read())
        return _predicted(upstream, names, dict.fromkeys(names, "drain"), forced=False)
    clock = upstream.nginx.clock
    change = upstream.change(dict.fromkeys(names, True), permit)
    old = upstream.nginx.leaving() if change.old is None else change.old
    after = dict.fromkeys(names, "drain")
    ends = clock.now() + timeout
    while True:
        back = [name for name, line in upstream.picked(upstream.read(), names).items() if not line.down]
        if back:
            raise _undone(upstream, names, change, _interference(back))
        alive = upstream.nginx.alive(old)
        if not alive:
            return Outcome(upstream.look(names), before, after, change.old is not None, {"forced": False})
        if clock.now() >= ends:
            break
        clock.sleep(POLL)
    busy = upstream.busy(names, alive)
    if busy and not force:
        raise _undone(upstream, names, change, _still_busy(busy, change.servers, timeout))
    warning = _forced(busy, timeout) if busy else _not_ended(len(alive), timeout)
    return Outcome(upstream.look(names), before, after, change.old is not None, {"forced": bool(busy)}, (warning,))


def check_min_up(upstream: Upstream, lines: Lines, names: Sequence[str], min_up: int) -> None:
    """Refuse when fewer than `min_up` other servers would be left that are in service and answer.

    Only a server that answers takes something away when it goes.
    """
    leaving = [name for name in names if name in lines and not lines[name].down]
    if not leaving or not min_up:
        return
    others = [name for name, line in lines.items() if name not in names and not line.down and not line.backup]
    answers = ask_all(others + leaving, upstream.probe)
    left = [name for name in others if answers[name][0]]
    if len(left) < min_up and any(answers[name][0] for name in leaving):
        raise TrafficError(
            f"draining {', '.join(leaving)} would leave {len(left)} other servers up ({', '.join(left) or 'none'}), "
            f"fewer than min_up ({min_up}): wait until others are up, or lower min_up"
        )


def _undone(upstream: Upstream, names: Sequence[str], change: Change, message: str) -> TrafficError:
    """A drain that failed leaves nothing drained behind: capacity would be lost that nobody looks for."""
    upstream.change(dict.fromkeys(change.servers, False))
    upstream.touched = False
    return TrafficError(message, servers=as_dicts(upstream.look(names)))


def _interference(back: Sequence[str]) -> str:
    return (
        f"{', '.join(back)} was put back in service by somebody else while it was being drained: "
        "find out who changes this upstream block before going on"
    )


def _sessions(busy: Mapping[str, int | None]) -> str:
    counts = ((name, "connections unknown" if count is None else f"{count} open") for name, count in busy.items())
    return ", ".join(f"{name} ({told})" for name, told in counts)


def _still_busy(busy: Mapping[str, int | None], drained: Sequence[str], timeout: float) -> str:
    back = f"{', '.join(drained)} is back in service" if drained else "what was drained before stays drained"
    return (
        f"connections have not ended {timeout:g} s after the drain began: {_sessions(busy)}; {back}. "
        "Give a longer timeout, or set force: true to go on and break them"
    )


def _forced(busy: Mapping[str, int | None], timeout: float) -> str:
    return f"went on with connections that had not ended after {timeout:g} s: {_sessions(busy)}"


def _not_ended(count: int, timeout: float) -> str:
    return (
        f"{count} old workers of nginx have not ended after {timeout:g} s; they have no connection with these servers, "
        "so they were waited for no longer. The directive worker_shutdown_timeout ends them sooner"
    )


# --- back in service -------------------------------------------------------------------------------------------


def ready(upstream: Upstream, names: Sequence[str], timeout: float, dry: bool) -> Outcome:
    """Put `names` back in service when they answer their probe, twice in a row, and go on answering it after that.

    One that does not within `timeout` stays out, or goes out again, and TrafficError is raised.
    """
    before = admins(upstream.picked(upstream.read(), names))
    after = dict.fromkeys(names, "ready")
    if dry:
        return _predicted(upstream, names, after)
    ends = upstream.nginx.clock.now() + timeout
    able = await_healthy(upstream, names, ends, RISE)
    change = upstream.change({name: False for name in names if name in able})
    again = await_healthy(upstream, change.servers, ends, 1)
    ill = [name for name in change.servers if name not in again]
    if ill:
        upstream.change(dict.fromkeys(ill, True))
    servers = upstream.look(names)
    waiting = [name for name in names if name not in able or name in ill]
    if waiting:
        told = "; ".join(f"{name} {servers[name].answer} and {_where(servers[name])}" for name in waiting)
        changed = any(name not in ill for name in change.servers)
        raise TrafficError(f"not healthy after {timeout:g} s: {told}", servers=as_dicts(servers), changed=changed)
    return Outcome(servers, before, after, change.old is not None, {})


def await_healthy(upstream: Upstream, names: Sequence[str], ends: float, rise: int) -> set[str]:
    """Those of `names` that answered well `rise` times in a row, when all have or it is too late."""
    rows = dict.fromkeys(names, 0)
    while True:
        asked = [name for name, row in rows.items() if row < rise]
        for name, (healthy, _answer) in ask_all(asked, upstream.probe).items():
            rows[name] = rows[name] + 1 if healthy else 0
        able = {name for name, row in rows.items() if row >= rise}
        if len(able) == len(rows) or upstream.nginx.clock.now() >= ends:
            return able
        upstream.nginx.clock.sleep(POLL)


def _where(server: Server) -> str:
    return "stays out of service" if server.admin == "drain" else "is in service, as it was"


# --- switched --------------------------------------------------------------------------------------------------


def switch(
    upstream: Upstream, names: Sequence[str], away: Sequence[str], timeout: float, min_up: int, dry: bool
) -> Outcome:
    """Put `names` in service and take `away` out, by one change of the file; open requests end in their own time.

    Waits until all of `names` are healthy; after `timeout` at least `min_up` have to be, and the others stay out, as
    nginx would never find out when they are. When fewer answer right after the switch it is undone.
    """
    before = admins(upstream.picked(upstream.read(), [*names, *away]))
    able = await_healthy(upstream, names, upstream.nginx.clock.now() + timeout, RISE)
    left_out = [name for name in names if name not in able]
    if len(able) < min_up:
        servers = upstream.look(names)
        told = "; ".join(f"{name} {servers[name].answer}" for name in left_out)
        raise TrafficError(
            f"nothing was switched: {len(able)} of {len(names)} servers are healthy after {timeout:g} s, {min_up} have "
            f"to be: {told}",
            servers=as_dicts(servers),
        )
    wanted = {**{name: False for name in names if name in able}, **dict.fromkeys(away, True)}
    after = {**before, **{name: "drain" if down else "ready" for name, down in wanted.items()}}
    warnings = tuple(f"{name} is not healthy and was not put in service" for name in left_out)
    if dry:
        return _predicted(upstream, [*names, *away], after, warnings)
    change = upstream.change(wanted)
    servers = upstream.look([*names, *away])
    up = [name for name in names if servers[name].state == "up"]
    if len(up) < min_up:
        upstream.change({name: not wanted[name] for name in change.servers})
        upstream.touched = False
        raise TrafficError(
            f"{len(up)} of {len(names)} servers are up after the switch, {min_up} have to be; it was undone",
            servers=as_dicts(upstream.look([*names, *away])),
        )
    return Outcome(servers, before, after, change.old is not None, {}, warnings)


def _predicted(
    upstream: Upstream, names: Sequence[str], after: dict[str, str], warnings: tuple[str, ...] = (), **extra: Any
) -> Outcome:
    """What a call would do, where nginx runs with a configuration that passes its test."""
    before = admins(upstream.check(names))
    return Outcome(upstream.look(names), before, after, before != after or upstream.is_pending, extra, warnings)
