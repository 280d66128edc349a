# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of a HAProxy backend, taken out of service and put back through the runtime socket.

What HAProxy says is parsed by pure functions into `Server`; a `Backend` looks and sets; `drain`, `ready` and `watch`
wait with a clock that is passed in. The answers are those of HAProxy 2.6 (management guide, 'show servers state',
'show stat', 'set server'); the bits of the administrative state are HAProxy's SRV_ADMF_* flags.
"""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping, Sequence

POLL = 0.05
WATCH_POLL = 0.25
ANSWER_TIMEOUT = 5.0
LONGEST_LINE = 12000  # HAProxy's buffer has 16384 bytes by default

# Maintenance: forced, inherited, by name resolution, for want of an address. The flag 0x04 only remembers that the
# configuration said 'disabled', and stays when the server is put in service.
_MAINT = 0x01 | 0x02 | 0x20 | 0x40
_DRAIN = 0x08 | 0x10
_STARTING, _RUNNING = 1, 2
_CHECK_CONFIGURED = 0x02
_STATE_COLUMNS = ("srv_name", "srv_op_state", "srv_admin_state", "srv_check_health", "srv_check_state")


class Server(NamedTuple):
    """One server as HAProxy sees it.

    `admin` is what people want of it (ready, drain, maint), `status` HAProxy's own word for what became of that.
    `healthy` says whether HAProxy would send it requests if it were ready: it runs, and its latest check passed.
    `check` is the code of its check (L7OK, L4CON, empty without a check), `answer` what the check was told.
    `downs` counts its changes from up to down, None when HAProxy does not count them.
    """

    name: str
    admin: str
    status: str
    healthy: bool
    checked: bool
    check: str
    answer: str
    sessions: int
    queued: int
    requests: int
    errors_5xx: int
    weight: int
    backup: bool
    downs: int | None

    @property
    def state(self) -> str:
        """One word: up, down, draining, drained, maint, or stopping (it refuses new sessions itself)."""
        if self.admin == "maint":
            return "maint"
        if self.admin == "drain":
            return "drained" if self.idle else "draining"
        if self.status == "NOLB":
            return "stopping"
        return "up" if self.status.startswith(("UP", "no check")) else "down"

    @property
    def idle(self) -> bool:
        """No session open and none waiting."""
        return not self.sessions and not self.queued

    @property
    def serving(self) -> bool:
        """It counts as a server that new requests can go to in the ordinary course of things."""
        return self.state == "up" and self.weight > 0 and not self.backup

    @property
    def told(self) -> str:
        """The state and what the check says, for messages."""
        check = " ".join(word for word in (self.check, self.answer) if word)
        return f"{self.status} ({check})" if check else self.status

    def as_dict(self) -> dict[str, Any]:
        """As a module returns it."""
        fields = ("status", "admin", "healthy", "check", "answer", "sessions", "queued", "requests", "errors_5xx")
        return {"state": self.state, **{name: getattr(self, name) for name in fields}, "weight": self.weight}


# --- what HAProxy answers --------------------------------------------------------------------------------------


def parse_servers(states: str, stat: str) -> dict[str, Server]:
    """The servers of one backend by name, from the answers to `show servers state` and `show stat`."""
    admin = {row["srv_name"]: row for row in _state_rows(states)}
    rows = {row["svname"]: row for row in stat_rows(stat)}
    return {name: _server(admin[name], row) for name, row in rows.items() if name in admin}


def _state_rows(text: str) -> list[dict[str, str]]:
    """Line 1 is the format's version, line 2 names the columns, every other line is a server."""
    lines = text.strip().splitlines()
    if len(lines) < 2 or lines[0] != "1" or not lines[1].startswith("# "):
        raise TrafficError(f"HAProxy answered 'show servers state' in a way that is not understood: {text[:80]!r}")
    columns = lines[1][2:].split()
    if not set(_STATE_COLUMNS) <= set(columns):
        raise TrafficError(f"HAProxy's 'show servers state' lacks columns that are needed: {lines[1]!r}")
    return [dict(zip(columns, line.split())) for line in lines[2:]]


def stat_rows(text: str) -> list[dict[str, str]]:
    """The rows of `show stat`, by its column names. HAProxy's statistics page has the same shape at `/stats;csv`."""
    import csv

    if not text.startswith("# pxname,"):
        raise TrafficError(f"HAProxy answered 'show stat' in a way that is not understood: {text[:80]!r}")
    return list(csv.DictReader(text[2:].strip().splitlines()))


def _server(state: Mapping[str, str], stat: Mapping[str, str]) -> Server:
    return Server(
        name=stat["svname"],
        admin=_admin(int(state["srv_admin_state"])),
        status=stat["status"],
        healthy=_is_healthy(state, stat),
        checked=bool(int(state["srv_check_state"]) & _CHECK_CONFIGURED) or bool(stat.get("tracked")),
        # A leading '* ' says that the next check is under way.
        check=stat.get("check_status", "").replace("* ", ""),
        answer=" ".join(word for word in (stat.get("check_code"), stat.get("last_chk")) if word),
        sessions=_count(stat.get("scur")),
        queued=_count(stat.get("qcur")),
        requests=_count(stat.get("req_tot") or stat.get("stot")),
        errors_5xx=_count(stat.get("hrsp_5xx")),
        weight=_count(stat.get("weight")),
        backup=stat.get("bck") == "1",
        downs=_count(stat["chkdown"]) if stat.get("chkdown") else None,
    )


def _admin(bits: int) -> str:
    if bits & _MAINT:
        return "maint"
    return "drain" if bits & _DRAIN else "ready"


def _is_healthy(state: Mapping[str, str], stat: Mapping[str, str]) -> bool:
    """A passing check of a running server fills its health up to rise + fall - 1.

    Less means that a check failed since, or that none ran yet since the server left maintenance: HAProxy would send
    it requests all the same.
    """
    if int(state["srv_op_state"]) not in (_STARTING, _RUNNING):
        return False
    if not int(state["srv_check_state"]) & _CHECK_CONFIGURED:
        return True
    full = _count(stat.get("check_rise")) + _count(stat.get("check_fall")) - 1
    return int(state["srv_check_health"]) >= full > 0


def _count(text: str | None) -> int:
    return int(text) if text else 0


# --- the socket ------------------------------------------------------------------------------------------------


class Runtime:
    """The runtime API of a HAProxy on this host. Each call of `ask` is one connection."""

    def __init__(self, path: str, timeout: float = ANSWER_TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout

    def ask(self, *commands: str) -> list[str]:
        """The answers to `commands`, which are sent as one batch. Only for commands that answer something."""
        answers = self._exchange(commands).split("\n\n")
        self._refuse_denied(answers)
        return answers[: len(commands)]

    def change(self, commands: Sequence[str]) -> None:
        """Send `commands` as one batch; HAProxy answers nothing to a change that it made."""
        answer = self._exchange(commands).strip()
        self._refuse_denied(answer.splitlines())
        if answer:
            raise TrafficError(f"HAProxy refused {'; '.join(commands)!r} with: {' '.join(answer.split())[:200]}")

    def _exchange(self, commands: Sequence[str]) -> str:
        import socket

        line = ";".join(commands) + "\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self.timeout)
                connection.connect(self.path)
                connection.sendall(line.encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8", "replace")
        except OSError as error:
            raise TrafficError(self._trouble(error)) from error

    def _trouble(self, error: OSError) -> str:
        import socket

        if isinstance(error, FileNotFoundError):
            why = "is not there: is HAProxy running, and is this the path of its 'stats socket' line?"
        elif isinstance(error, ConnectionRefusedError):
            why = "is there, but nobody listens: HAProxy is not running"
        elif isinstance(error, PermissionError):
            why = "may not be used by this user: run the task with become: true"
        elif isinstance(error, socket.timeout):
            why = f"gave no answer within {self.timeout:g} s"
        else:
            why = f"cannot be used: {error.strerror or error}"
        return f"HAProxy's runtime socket {self.path} {why}"

    def _refuse_denied(self, answers: Iterable[str]) -> None:
        if any(answer.strip() == "Permission denied" for answer in answers):
            raise TrafficError(
                f"HAProxy's runtime socket {self.path} may look but not change anything: "
                "add 'level admin' to its 'stats socket' line and reload HAProxy"
            )


class Backend:
    """One backend, looked at and changed through the runtime socket.

    `touched`: a change may have been left behind. `statistics`: what HAProxy said at the last look, as CSV.
    """

    def __init__(self, runtime: Runtime, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", name):
            raise TrafficError(f"backend is {name!r}: HAProxy allows letters, digits and _ . : - in a name")
        self.runtime = runtime
        self.name = name
        self.touched = False
        self.statistics = ""

    def look(self) -> dict[str, Server]:
        """All its servers by name, as they are now."""
        answers = self.runtime.ask(f"show servers state {self.name}", f"show stat {self.name} 4 -1")
        if answers[0].strip().startswith("Can't find backend"):
            raise TrafficError(f"HAProxy has no backend {self.name!r}{did_you_mean(self.name, self._others())}")
        self.statistics = answers[-1]
        return parse_servers(answers[0], self.statistics)

    def _others(self) -> list[str]:
        return self.runtime.ask("show backend")[0].splitlines()[1:]

    def pick(self, names: Sequence[str]) -> dict[str, Server]:
        """Those of its servers that are named. Raises TrafficError when one is not there."""
        return self.picked(self.look(), names)

    def picked(self, everyone: Mapping[str, Server], names: Sequence[str]) -> dict[str, Server]:
        """Those of `everyone` that are named. Raises TrafficError when one is not there."""
        for name in names:
            if name not in everyone:
                raise TrafficError(
                    f"HAProxy's backend {self.name!r} has no server {name!r}{did_you_mean(name, everyone)} "
                    f"(it has {', '.join(sorted(everyone)) or 'none'})"
                )
        return {name: everyone[name] for name in names}

    def put(self, names: Iterable[str], state: str) -> None:
        """Set the administrative state of these servers: drain, ready or maint."""
        self._send([f"set server {self.name}/{name} state {state}" for name in names])

    def swap(self, joining: Iterable[str], leaving: Iterable[str]) -> None:
        """Set servers ready and others to drain in one connection, in this order: there is always one to serve."""
        pairs = [(name, "ready") for name in joining] + [(name, "drain") for name in leaving]
        self._send([f"set server {self.name}/{name} state {state}" for name, state in pairs])

    def _send(self, commands: Sequence[str]) -> None:
        for batch in _batches(commands):
            self.touched = True
            self.runtime.change(batch)


def _batches(commands: Sequence[str]) -> list[list[str]]:
    """The commands in as few lines as HAProxy's buffer takes."""
    batches: list[list[str]] = []
    for command in commands:
        if not batches or sum(len(known) + 1 for known in batches[-1]) + len(command) > LONGEST_LINE:
            batches.append([])
        batches[-1].append(command)
    return batches


# --- out of service --------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a call did. `before` and `after` are administrative states by server; in check mode `after` is predicted.

    `extra` are further keys of the module's result; `warnings` are for a person.
    """

    servers: dict[str, Server]
    before: dict[str, str]
    after: dict[str, str]
    extra: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As a module returns it."""
        changed = self.before != self.after
        diff = {"diff": {"before": self.before, "after": self.after}} if changed else {}
        return {"changed": changed, "servers": _as_dicts(self.servers), **diff, **self.extra}


def unchanged(servers: dict[str, Server], **extra: Any) -> Outcome:
    """The outcome of looking only."""
    return Outcome(servers, _admins(servers), _admins(servers), extra)


def _admins(servers: Mapping[str, Server]) -> dict[str, str]:
    return {name: server.admin for name, server in servers.items()}


def _as_dicts(servers: Mapping[str, Server]) -> dict[str, Any]:
    return {name: server.as_dict() for name, server in servers.items()}


def to_drain(servers: Mapping[str, Server]) -> list[str]:
    """Those that new requests can still be sent to. One in maintenance is out of service already."""
    return [name for name, server in servers.items() if server.admin == "ready"]


def check_min_up(everyone: Mapping[str, Server], leaving: Sequence[str], min_up: int) -> None:
    """Refuse when fewer than `min_up` others would be left up.

    Only a server that is up takes something away when it goes: one that is down may always be drained, or the first
    deployment of a fleet and the repair of a broken one could not begin.
    """
    others = [name for name, server in everyone.items() if server.serving and name not in leaving]
    if len(others) < min_up and any(everyone[name].serving for name in leaving):
        raise TrafficError(
            f"draining {', '.join(leaving)} would leave {len(others)} other servers up "
            f"({', '.join(others) or 'none'}), fewer than min_up ({min_up}): wait until others are up, or lower min_up",
            servers=_as_dicts(everyone),
        )


def drain(
    backend: Backend, clock: Clock, names: Sequence[str], timeout: float, min_up: int, force: bool, dry: bool
) -> Outcome:
    """Send no new requests to `names`, and wait until their sessions have ended.

    When they do not end in time, what this call drained is put back in service and TrafficError is raised; with
    `force` the servers stay drained and `forced` says so.
    """
    everyone = backend.look()
    servers = backend.picked(everyone, names)
    leaving = to_drain(servers)
    check_min_up(everyone, leaving, min_up)
    before = _admins(servers)
    after = {**before, **dict.fromkeys(leaving, "drain")}
    if dry:
        return Outcome(servers, before, after, {"forced": False})
    backend.put(leaving, "drain")
    ends = clock.now() + timeout
    while True:
        servers = backend.pick(names)
        back = [name for name, server in servers.items() if server.admin == "ready"]
        if back:
            raise _undone(backend, names, leaving, _interference(back))
        busy = [server for server in servers.values() if not server.idle]
        if not busy or (clock.now() >= ends and force):
            return Outcome(servers, before, after, {"forced": bool(busy)}, _forced(busy, timeout))
        if clock.now() >= ends:
            raise _undone(backend, names, leaving, _still_busy(busy, leaving, timeout))
        clock.sleep(POLL)


def _undone(backend: Backend, names: Sequence[str], drained: Sequence[str], message: str) -> TrafficError:
    """A drain that failed leaves nothing drained behind: capacity would be lost that nobody looks for."""
    backend.put(drained, "ready")
    backend.touched = False
    return TrafficError(message, servers=_as_dicts(backend.pick(names)))


def _interference(back: Sequence[str]) -> str:
    return (
        f"{', '.join(back)} was put back in service by somebody else while it was being drained: "
        "find out who changes this backend before going on"
    )


def _sessions(busy: Sequence[Server]) -> str:
    return ", ".join(f"{server.name} ({server.sessions} open, {server.queued} queued)" for server in busy)


def _still_busy(busy: Sequence[Server], drained: Sequence[str], timeout: float) -> str:
    back = f"{', '.join(drained)} is back in service" if drained else "what was drained before stays drained"
    return (
        f"sessions have not ended {timeout:g} s after the drain began: {_sessions(busy)}; {back}. "
        "Give a longer timeout, or set force: true to go on and break them"
    )


def _forced(busy: Sequence[Server], timeout: float) -> tuple[str, ...]:
    return (f"went on with sessions that had not ended after {timeout:g} s: {_sessions(busy)}",) if busy else ()


# --- back in service -------------------------------------------------------------------------------------------


def ready(backend: Backend, clock: Clock, names: Sequence[str], timeout: float, force: bool, dry: bool) -> Outcome:
    """Put `names` back in service, each as soon as HAProxy's own check finds it healthy, and wait until it is up.

    A server in maintenance was put there by a person: it is held, left as it is, unless `force` is given. It then
    goes by way of drain, as HAProxy would send it requests before its first check. A server that does not become
    healthy in time stays in drain, and TrafficError is raised.
    """
    servers = backend.pick(names)
    held = [name for name, server in servers.items() if server.admin == "maint" and not force]
    wanted = [name for name in names if name not in held]
    out = [name for name in wanted if servers[name].admin != "ready"]
    before = _admins(servers)
    after = {**before, **dict.fromkeys(out, "ready")}
    if dry:
        return Outcome(servers, before, after, {"held": held}, _held(held))
    backend.put([name for name in out if servers[name].admin == "maint"], "drain")
    put: set[str] = set()
    ends = clock.now() + timeout
    while True:
        servers = backend.pick(names)
        able = [name for name in out if servers[name].healthy and name not in put]
        if able:
            backend.put(able, "ready")
            put.update(able)
            continue
        waiting = [name for name in wanted if not (servers[name].state == "up" and servers[name].healthy)]
        if not waiting:
            return Outcome(servers, before, after, {"held": held}, _held(held) + _unchecked(servers.values()))
        if clock.now() >= ends:
            raise _given_up(backend, names, waiting, put, timeout)
        clock.sleep(POLL)


def _given_up(
    backend: Backend, names: Sequence[str], waiting: Sequence[str], put: Iterable[str], timeout: float
) -> TrafficError:
    """Take back what became unhealthy again after it was put in service, and say how things stand."""
    again = [name for name in waiting if name in put]
    backend.put(again, "drain")
    servers = backend.pick(names)
    told = "; ".join(f"{name} is {servers[name].told} {_where(servers[name])}" for name in waiting)
    return TrafficError(
        f"not healthy for HAProxy after {timeout:g} s: {told}",
        servers=_as_dicts(servers),
        changed=any(name not in again for name in put),
    )


def _where(server: Server) -> str:
    return "and stays in drain, without requests" if server.admin == "drain" else f"and set to {server.admin}"


def _held(held: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{name} is in maintenance, which Convoy never sets: somebody else took it out, so it stays out of service. "
        "If that is over, set it ready by hand or with force: true"
        for name in held
    )


def _unchecked(servers: Iterable[Server]) -> tuple[str, ...]:
    names = [server.name for server in servers if not server.checked and server.state == "up"]
    return (
        (f"HAProxy has no health check for {', '.join(names)}: it sends requests there whatever their health",)
        if names
        else ()
    )


# --- switched --------------------------------------------------------------------------------------------------


def switch(
    backend: Backend, clock: Clock, names: Sequence[str], away: Sequence[str], timeout: float, min_up: int, dry: bool
) -> Outcome:
    """Put `names` in service and take `away` out, all at once; their sessions end in their own time.

    Waits first until at least `min_up` of `names` are healthy, and touches nothing if they do not become so. A server
    in maintenance was put there by a person and stays there. When too few are up right after the switch it is undone,
    and TrafficError is raised.
    """
    servers = _await_healthy(backend, clock, names, away, timeout, min_up)
    joining = [name for name in names if servers[name].admin == "drain"]
    leaving = to_drain({name: servers[name] for name in away})
    before = _admins(servers)
    after = {**before, **dict.fromkeys(joining, "ready"), **dict.fromkeys(leaving, "drain")}
    held = [name for name in names if servers[name].admin == "maint"]
    if dry:
        return Outcome(servers, before, after, {"held": held}, _held(held))
    backend.swap(joining, leaving)
    servers = backend.pick([*names, *away])
    wrong = _not_switched(servers, names, away, min_up)
    if wrong:
        backend.swap(leaving, joining)
        backend.touched = False
        raise TrafficError(f"{wrong}: what was switched is as it was before", servers=_as_dicts(backend.pick(names)))
    return Outcome(servers, before, after, {"held": held}, _held(held) + _unchecked(servers[name] for name in names))


def _await_healthy(
    backend: Backend, clock: Clock, names: Sequence[str], away: Sequence[str], timeout: float, min_up: int
) -> dict[str, Server]:
    ends = clock.now() + timeout
    while True:
        servers = backend.pick([*names, *away])
        able = [name for name in names if servers[name].healthy and servers[name].admin != "maint"]
        if len(able) >= min_up:
            return servers
        if clock.now() >= ends:
            told = "; ".join(f"{name} is {servers[name].told}" for name in names if name not in able)
            raise TrafficError(
                f"nothing was switched: {len(able)} of {len(names)} servers are healthy for HAProxy after {timeout:g} "
                f"s, {min_up} have to be: {told}",
                servers=_as_dicts(servers),
            )
        clock.sleep(POLL)


def _not_switched(servers: Mapping[str, Server], names: Sequence[str], away: Sequence[str], min_up: int) -> str:
    up = [name for name in names if servers[name].state == "up"]
    if len(up) < min_up:
        return f"{len(up)} of {len(names)} servers are up after the switch, {min_up} have to be"
    still = [name for name in away if servers[name].admin == "ready"]
    return f"{', '.join(still)} was put back in service by somebody else during the switch" if still else ""


# --- watched ---------------------------------------------------------------------------------------------------


def watch(backend: Backend, clock: Clock, names: Sequence[str], duration: float, dry: bool) -> Outcome:
    """See for `duration` seconds that `names` stay up. Raises TrafficError as soon as one of them does not."""
    began = clock.now()
    servers = first = backend.pick(names)
    while True:
        elapsed = clock.now() - began
        _refuse_left(first, servers, elapsed)
        if dry or elapsed >= duration:
            return unchanged(servers, elapsed=round(elapsed, 3))
        clock.sleep(min(WATCH_POLL, duration - elapsed))
        servers = backend.pick(names)


def _refuse_left(first: Mapping[str, Server], servers: Mapping[str, Server], elapsed: float) -> None:
    for name, server in servers.items():
        why = _why_not_up(first[name], server)
        if why:
            raise TrafficError(f"{name} {why} after {elapsed:.1f} s of watching", servers=_as_dicts(servers))


def _why_not_up(first: Server, server: Server) -> str:
    if server.state != "up":
        return f"is not up for HAProxy but {server.told}"
    # Between two looks it may have been down and come back.
    if server.downs is not None and first.downs is not None and server.downs > first.downs:
        return f"was down for HAProxy for a moment ({server.downs - first.downs} times), now {server.told},"
    return ""
