# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The coordinator's decisions, taken and recorded in one transaction each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, ClassVar, cast

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator import decide
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.decide import (
    Admitted,
    Answer,
    Decision,
    Denied,
    HostRecord,
    Migrate,
    MigrationReport,
    Recorded,
    SwitchReport,
    Verdict,
    Wait,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.migrations import BRING_WHAT_WAS_DEPLOYED
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    HostFacts,
    Plan,
    PlannedHost,
    PlannedMigration,
    Sighting,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    FAILURES,
    READY,
    Event,
    HostStatus,
    RolloutState,
    Status,
    Traffic,
    evolve,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger import schema
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.questions import Asked
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.releases import serial_mark_in
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError, Transaction

if schema.INSTALLED:
    from sqlalchemy import Connection, bindparam, insert, select, text, update

    _ROLLOUTS, _HOSTS = schema.rollouts.c, schema.hosts.c
    _INSERT_ROLLOUT, _INSERT_HOST = insert(schema.rollouts), insert(schema.hosts)
    _SELECT_ROLLOUT = select(_ROLLOUTS.rules, _ROLLOUTS.state, _ROLLOUTS.digest).where(_ROLLOUTS.id == bindparam("of"))
    _SELECT_HOSTS = select(schema.hosts).where(_HOSTS.rollout == bindparam("of"))
    _MOVE_HOST = (
        update(schema.hosts)
        .where((_HOSTS.rollout == bindparam("of")) & (_HOSTS.name == bindparam("host")))
        .values({name: bindparam(name) for name in ("status", "why", "updated_at")})
    )
    _UPDATE_ROLLOUT = (
        update(schema.rollouts)
        .where(_ROLLOUTS.id == bindparam("of"))
        .values({name: bindparam(name) for name in ("state", "status")})
    )
    _AHEAD, _AHEAD_IN_ZONE = (
        text(
            f"SELECT count(*) FROM (SELECT 1 FROM {schema.hosts.name} WHERE rollout = :of AND status = 'pending' "
            f"AND phase = :in_phase AND position < :before{in_zone} LIMIT :enough) AS ahead"
        )
        for in_zone in ("", " AND zone = :in_zone")
    )

HEARD = 5.0  # seconds after which a run that only waits is written down anew as heard of


def stream_of(values: Mapping[str, Any]) -> str:
    """The place in the ledger of a component in an environment."""
    return f"{values['environment']}/{values['component']}"


class BusyError(ConvoyError):
    """Another run holds the token of this component in this environment."""

    reason: ClassVar[str] = "busy"


class StaleTokenError(ConvoyError):
    """A newer run has taken the token over; this one may change nothing any more."""

    reason: ClassVar[str] = "stale_token"


NO_ROLLOUT = ""  # in place of an id, of events that belong to none
SEVERAL = "several"  # instead of the machine of the run that holds the token
WHEN_BUSY = "Wait until it ends, or end it; a dead run is taken over by running the same command again"


@dataclass(frozen=True)
class Blocker:
    """A rollout that is in the way of another; ``told`` says who holds it."""

    rollout: str
    told: str


@dataclass(frozen=True)
class Run:
    """A controller process. ``started``: its start time as the machine counts it, which tells a reused pid apart."""

    machine: str
    pid: int
    started: int
    user: str

    def __str__(self) -> str:
        if self.machine == SEVERAL:
            return f"several runs of {self.user}"
        return f"{self.user}@{self.machine.partition('/')[0]} (process {self.pid})"


@dataclass(frozen=True)
class Opened:
    """A rollout that may go on. ``gate_due``: its open phase has to pass its gate before anything else."""

    rollout: str
    token: int
    resumed: bool
    state: RolloutState
    gate_due: bool


@dataclass(frozen=True)
class Question:
    """What a run asks about a host: whether it may go, or, with an ``outcome``, to take what became of it."""

    token: int
    outcome: HostStatus | None = None
    why: str = ""

    def to_text(self) -> str:
        """For another run to answer."""
        return json.dumps([self.token, self.outcome, storable(self.why)])

    @classmethod
    def from_text(cls, text: str) -> Question:
        """The inverse."""
        token, outcome, why = json.loads(text)
        return cls(token, HostStatus(outcome) if outcome else None, why)


@dataclass(frozen=True)
class HostRow:
    """A host in a rollout; ``why`` says what was reported last."""

    name: str
    position: int
    phase: int
    zone: str
    from_release: str | None
    to_release: str
    status: HostStatus
    why: str
    updated_at: float

    @property
    def record(self) -> HostRecord:
        """As the coordinator knows it."""
        return HostRecord(self.name, self.phase, self.zone, self.status)


@dataclass(frozen=True)
class NewestRow:
    """A host in the newest rollout that it was a part of; ``ended``: whether that one has."""

    rollout: str
    ended: bool
    row: HostRow


@dataclass(frozen=True)
class RolloutView:
    """A rollout as it stands. ``facts``: what its opening recorded (version, kind, actor, …)."""

    id: str
    opened_at: float
    status: Status
    facts: Mapping[str, Any]
    plan: Plan
    state: RolloutState
    hosts: tuple[HostRow, ...]
    head: tuple[int, str]
    token: int
    holder: Run | None

    @property
    def ready(self) -> list[str]:
        """The hosts that run the release for good."""
        return [row.name for row in self.hosts if row.status in READY]

    @property
    def to_go(self) -> list[str]:
        """The hosts that have to go forward, in order: those that a dead run left down first, then as planned."""
        rows = [row for row in self.hosts if row.status is HostStatus.PENDING]
        return [row.name for row in sorted(rows, key=lambda row: (row.name not in self.state.down, row.position))]

    @property
    def to_return(self) -> list[str]:
        """The hosts that have to go back, in order: out of service first, then the newest first.

        Those that have not reported from their way forward are among them, last.
        """
        out = {**self.state.out, **self.state.down}
        rows = [row for row in self.hosts if decide.may_go_back(self.state, row.record)]
        return [row.name for row in sorted(rows, key=lambda row: (_turn(row, out), -row.updated_at))]


def _turn(row: HostRow, out: Mapping[str, str]) -> int:
    return 0 if row.name in out else 2 if row.status is HostStatus.ADMITTED else 1


class Rollouts:
    """The rollouts of one component in one environment (``stream``)."""

    def __init__(self, ledger: Ledger, stream: str) -> None:
        self._ledger = ledger
        self.stream = stream
        self._decided_at = 0  # the newest event when something was decided last

    def open(
        self,
        plan: Plan,
        seen: Mapping[str, HostFacts],
        facts: dict[str, Any],
        run: Run,
        dead: Callable[[Run], bool | None],
        new_id: str,
        patience: float,
        traffic: Traffic = Traffic.OLD,
        before: RolloutView | None = None,
    ) -> Opened:
        """Take the token and open a rollout, or go on with the one that a dead run left open.

        ``dead`` says of a run whether its process is gone (None: it cannot be seen from here); a run that cannot be
        seen counts as dead after ``patience`` seconds of silence. ``traffic`` is where the load balancers stand that
        the plan switches, ``before`` the newest rollout, whose migrations this one inherits. Raises BusyError naming
        the holder, or where another rollout was opened since ``before`` was read.
        """
        self._ledger.verify(self.stream)
        with self._ledger.transaction(self.stream) as tx:
            open_rollout = tx.row.rollout
            if open_rollout:
                held = _held(tx, run, dead, patience)
                if held:
                    raise BusyError(f"{self.stream}: {held}. {WHEN_BUSY}")
            token = max(tx.row.token + 1, int(tx.now))
            taken = {"token": token, "holder": json.dumps(asdict(run))}
            if open_rollout:
                left = _load(tx, open_rollout)
                if left.digest == plan.digest():
                    state = self._resume(tx, left, seen, run, traffic)
                    tx.finish(**taken)
                    return Opened(left.id, token, True, state, state.gate is not None)
                reason = f"superseded by {new_id}, which has another plan"
                left.take(Decision(Denied(reason), (decide.ended(Status.FAILED, reason, tx.now),)))
                left.save()
            if before is not None and (plan.migrations or before.state.migrations) and tx.row.head != before.head[0]:
                raise BusyError(f"{self.stream}: something was recorded since it was read. Run the same command again")
            decision = decide.opening(plan, tx.now, str(run), facts, traffic, before.state if before else None)
            state = _insert(tx, self.stream, new_id, plan, facts, decision)
            tx.finish(**taken, rollout=new_id)
        self._ledger.survey()
        return Opened(new_id, token, False, state, state.gate is not None)

    def admit(self, rollout: str, token: int, host: str) -> Admitted | Wait | Denied | Migrate:
        """May ``host`` go out of service now, or has a migration to be run first?"""
        return cast(Admitted | Wait | Denied | Migrate, self._ask(rollout, host, Question(token)))

    def report(self, rollout: str, token: int, host: str, outcome: HostStatus, why: str = "") -> Answer:
        """What became of ``host``."""
        return self._ask(rollout, host, Question(token, outcome, why))

    def judge(self, rollout: str, token: int, verdict: Verdict, why: str = "") -> Answer:
        """What the gate of the closed phase said."""
        return self._decide(rollout, token, lambda it, now: decide.judge(it.plan, it.state, verdict, now, why))

    def admit_switch(self, rollout: str, token: int, asker: str) -> Admitted | Wait | Denied:
        """May ``asker`` switch the load balancers now?"""
        answer = self._decide(rollout, token, lambda it, now: decide.admit_switch(it.plan, it.state, asker, now))
        return cast(Admitted | Wait | Denied, answer)

    def report_switch(self, rollout: str, token: int, report: SwitchReport, asker: str) -> Answer:
        """What became of the switch of the load balancers."""
        return self._decide(rollout, token, lambda it, now: decide.report_switch(it.plan, it.state, report, now, asker))

    def admit_migration(self, rollout: str, token: int, asker: str) -> Migrate | Wait | Denied:
        """Has ``asker`` to run a migration now that no host was told to run?"""
        answer = self._decide(rollout, token, lambda it, now: decide.admit_migration(it.plan, it.state, asker, now))
        return cast(Migrate | Wait | Denied, answer)

    def report_migration(self, rollout: str, token: int, report: MigrationReport, asker: str) -> Answer:
        """What became of a migration."""
        return self._decide(
            rollout, token, lambda it, now: decide.report_migration(it.plan, it.state, report, now, asker)
        )

    def settle_migration(self, rollout: str, name: str, done: bool, why: str) -> Answer:
        """Somebody says whether a migration that is in doubt took effect (``done``), or has to be run again."""
        return self._decide(
            rollout, None, lambda it, now: decide.settle_migration(it.plan, it.state, name, done, why, now)
        )

    def applied_with(self, releases: Sequence[str]) -> frozenset[str]:
        """The migrations that had run when the newest rollout that came to one of ``releases`` had ended.

        One that succeeded is preferred to one that did not. None had where no rollout came to them. A rollout that
        leaves migrations as they are does not count: it comes to hosts that an earlier one left on an older release.
        """
        rollouts, hosts = schema.rollouts.c, schema.hosts.c
        came = (rollouts.stream == self.stream) & rollouts.id.in_(
            select(hosts.rollout).where(hosts.to_release.in_(releases))
        )
        newest_first = (
            select(rollouts.status, rollouts.state, rollouts.facts)
            .where(came)
            .order_by(rollouts.opened_at.desc(), rollouts.id.desc())
        )
        with self._ledger.reading() as connection:
            ended = [
                (status, state)
                for status, state, facts in connection.execute(newest_first)
                if json.loads(facts).get("kind") not in BRING_WHAT_WAS_DEPLOYED
            ]
        state = next((state for status, state in ended if status == Status.SUCCEEDED), ended[0][1] if ended else None)
        return frozenset(_state(state).migrations) if state else frozenset()

    def close(self, rollout: str, token: int) -> Answer:
        """End the rollout with its verdict, and give the token back."""
        return self._decide(rollout, token, lambda it, now: decide.close(it.plan, it.state, now))

    def turn_back(self, rollout: str, token: int | None, reason: str, stop: bool = False) -> Answer:
        """Somebody wants the rollout turned round (``stop``: ended where it is).

        A person needs no token (None), neither here nor below.
        """
        return self._decide(rollout, token, lambda it, now: decide.turn_back(it.plan, it.state, reason, now, stop))

    def pause(self, rollout: str, why: str) -> Answer:
        """Somebody wants that no further host goes."""
        return self._decide(rollout, None, lambda it, now: decide.pause(it.state, why, now))

    def unpause(self, rollout: str) -> Answer:
        """Somebody wants the rollout to go on."""
        return self._decide(rollout, None, lambda it, now: decide.unpause(it.state, now))

    def approve(self, rollout: str, why: str) -> Answer:
        """Somebody says yes to what the rollout waits for: an approval, or a gate that could not tell."""
        return self._decide(rollout, None, lambda it, now: decide.approve(it.plan, it.state, why, now))

    def share(self, rollout: str, user: str) -> None:
        """Let several runs take part: none of them holds the token for itself, any of them shows that it is held."""
        with self._ledger.transaction(self.stream) as tx:
            if tx.row.rollout != rollout:
                raise LedgerError(f"rollout {rollout} is not open any more: open another one")
            tx.finish(holder=json.dumps(asdict(Run(SEVERAL, 0, 0, user))))

    def unlock(self, rollout: str, why: str) -> None:
        """Take the token away from whoever holds it: the next run goes on with the rollout, the last one is stale."""
        with self._ledger.transaction(self.stream) as tx:
            if tx.row.rollout != rollout:
                raise LedgerError(f"rollout {rollout} is not open: {tx.row.rollout or 'none'} is; give its id")
            freed = Event("unlocked", tx.now, data={"why": why, "holder": str(_holder(tx) or "nobody")})
            loaded = _load(tx, rollout)
            loaded.take(Decision(Recorded(), (freed,)))
            loaded.save()
            tx.finish(holder=None, token=max(tx.row.token + 1, int(tx.now)))

    def refuse(self, kind: str, version: str, error: ConvoyError) -> None:
        """Record that a rollout was asked for and refused. Whoever holds the token was not heard of by that."""
        with self._ledger.transaction(self.stream) as tx:
            data = {"kind": kind, "version": version, "reason": error.reason, "why": storable(str(error))}
            tx.append(NO_ROLLOUT, [Event("refused", tx.now, data=data)])
            tx.finish(seen_at=tx.row.seen_at, clock_at=tx.row.clock_at)

    def in_the_way(self, run: Run, dead: Callable[[Run], bool | None], patience: float) -> Blocker | None:
        """The rollout that a living run holds open; None where the way is free. Arguments are as those of ``open``."""
        with self._ledger.transaction(self.stream) as tx:
            if not tx.row.rollout:
                return None
            told = _held(tx, run, dead, patience)
            return Blocker(tx.row.rollout, told) if told else None

    def gate(self, rollout: str) -> dict[str, Any] | None:
        """The open gate as JSON types; None if none is open.

        phase (its name), bake and bake_left (seconds, the whole and what is left of it by the ledger's clock), hosts
        (those of the phase), gates (names), and ``sides``: the hosts that this rollout brought to the new release,
        those that still run the old one, and the zones of both.
        """
        view = self.standing(rollout)
        if view.state.gate is None:
            return None
        phase = view.plan.phases[view.state.phase]
        hosts = [row.name for row in view.hosts if row.phase == view.state.phase and row.status is HostStatus.SUCCEEDED]
        if view.plan.switch and view.state.traffic is Traffic.NEW:
            hosts = view.ready
        with self._ledger.transaction(self.stream) as tx:
            left = max(0.0, view.state.gate.bake_until - tx.now)
        return {
            "phase": phase.name,
            "bake": phase.bake,
            "bake_left": left,
            "hosts": hosts,
            "gates": list(phase.gates),
            "sides": {
                "canary": [row.name for row in view.hosts if row.status is HostStatus.SUCCEEDED],
                "baseline": [row.name for row in view.hosts if row.status is HostStatus.PENDING],
                "zones": {row.name: row.zone for row in view.hosts if row.zone},
            },
        }

    def tally(self, rollout: str) -> dict[str, Any]:
        """How far the rollout has come, as JSON types: phase (its name), done, total, in_flight, failed (hosts)."""
        row = select(schema.rollouts.c.state, schema.rollouts.c.rules).where(schema.rollouts.c.id == rollout)
        with self._ledger.reading() as connection:
            state_json, rules_json = connection.execute(row).tuples().one()
        state, plan = RolloutState.from_json(json.loads(state_json)), Plan.from_rules(json.loads(rules_json))
        return {
            "phase": plan.phases[state.phase].name,
            "done": state.count({HostStatus.SUCCEEDED, HostStatus.CURRENT, HostStatus.RETURNED}),
            "total": state.count(set(HostStatus) - {HostStatus.STANDBY}),
            "in_flight": len(state.leases),
            "failed": state.count(FAILURES),
        }

    def wait_for_change(self, timeout: float, poll: float, host: str = "") -> bool:
        """Wait until something has happened since the last answer that ``host`` should ask about, at most ``timeout``
        seconds; whether it has. ``poll``: seconds, see ``Ledger.wait_for_change``.
        """
        return self._ledger.wait_for_change(self.stream, self._decided_at, timeout, poll, host)

    def serial_mark(self) -> int:
        """The serial below which a deployment would go back; 0 where nothing is known."""
        with self._ledger.reading() as connection:
            return serial_mark_in(connection, self.stream)

    def head(self) -> int:
        """The number of the newest event."""
        return self._ledger.head(self.stream)

    def view(self, rollout: str | None = None) -> RolloutView | None:
        """A rollout as it stands (the newest one by default); None where there is none."""
        with self._ledger.reading() as connection:
            return view_in(connection, self.stream, rollout)

    def newest_rows(self, hosts: Iterable[str]) -> dict[str, NewestRow]:
        """Of each host that the ledger knows its place in the newest rollout that it was a part of."""
        with self._ledger.reading() as connection:
            return newest_rows_in(connection, self.stream, hosts)

    def standing(self, rollout: str) -> RolloutView:
        """The rollout with this id as it stands. Raises LedgerError where there is none."""
        view = self.view(rollout)
        if view is None:
            raise LedgerError(f"rollout {rollout} is not in the ledger of {self.stream}: check its id")
        return view

    def _decide(self, rollout: str, token: int | None, decider: Callable[[_Loaded, float], Decision]) -> Answer:
        with self._ledger.transaction(self.stream, rollout) as tx:
            loaded = _loaded(tx, rollout)
            loaded.expect(token)
            decision = decider(loaded, tx.now)
            loaded.take(decision)
            loaded.settle()
            self._decided_at = tx.head
            return decision.answer

    def _ask(self, rollout: str, host: str, question: Question) -> Answer:
        words = self._ledger.ask(self.stream, rollout, host, question.to_text(), partial(_answer_all, rollout))
        answer, self._decided_at = _understood(words)
        return answer

    def _resume(
        self, tx: Transaction, left: _Loaded, seen: Mapping[str, HostFacts], run: Run, traffic: Traffic
    ) -> RolloutState:
        wanted = "from_release" if left.state.status is Status.TURNING_BACK else "to_release"
        rows = [dict(zip(_HOSTS.keys(), row, strict=True)) for row in tx.rows(_SELECT_HOSTS, {"of": left.id})]
        read = [(_record(row), _sighting(seen.get(row["name"]), row[wanted])) for row in rows]
        left.take(decide.resume(left.plan, left.state, read, tx.now, str(run), traffic))
        return left.save()


@dataclass
class _Loaded:
    """A rollout inside a transaction: what is decided changes it, one decision after the other."""

    id: str
    plan: Plan
    state: RolloutState
    digest: str
    tx: Transaction
    events: list[Event] = field(default_factory=list)
    moved: dict[str, HostStatus] = field(default_factory=dict)

    def expect(self, token: int | None) -> None:
        """Raise StaleTokenError or LedgerError unless the rollout is open and the token its newest; None: any."""
        newest, opened = self.tx.row.token, self.tx.row.rollout
        if token not in (None, newest):
            newer = _holder(self.tx) or "a newer run"
            raise StaleTokenError(
                f"rollout {self.id}: the token {token} is stale: {newer} took over with {newest}. "
                "This run changes nothing any more"
            )
        if opened != self.id and (token is None or opened):
            raise LedgerError(f"rollout {self.id} is not open: it has {self.state.status}")

    def answer(self, asked: Asked, question: Question) -> Answer:
        """Decide what is asked about a host."""
        self.expect(question.token)
        if asked.position is None or asked.phase is None or asked.zone is None:
            raise LedgerError(f"host {asked.host} is not in the plan of rollout {self.id}: deploy again to plan anew")
        status = self.moved.get(asked.host) or HostStatus(str(asked.status))
        host = HostRecord(asked.host, asked.phase, asked.zone, status)
        if question.outcome is None:
            host = replace(host, ahead=self._ahead(host, asked.position))
            decision = decide.admit(self.plan, self.state, host, self.tx.now)
        else:
            decision = decide.report(self.plan, self.state, host, question.outcome, self.tx.now, question.why)
        self.take(decision, asked.actor)
        return decision.answer

    def _ahead(self, host: HostRecord, position: int) -> int:
        """How many hosts have to go before ``host``; of its zone where zones have windows.

        They are counted only where, and only as far as, they keep it from going.
        """
        places = decide.places_for_others(self.plan, self.state, host)
        if not places:
            return 0
        values = {"of": self.id, "in_phase": host.phase, "before": position, "enough": places}
        if self.plan.phases[host.phase].zone_window is None:
            return int(self.tx.rows(_AHEAD, values)[0][0])
        return int(self.tx.rows(_AHEAD_IN_ZONE, {**values, "in_zone": host.zone})[0][0])

    def take(self, decision: Decision, actor: str = "") -> None:
        """Append the decision's events, and write where hosts went; ``actor``: who asked, if that is another one."""
        for event in decision.events:
            self.state = evolve(self.state, event)
            if event.kind == "moved":
                self.moved[str(event.host)] = HostStatus(event.data["now"])
        if decision.events:
            self.tx.append(self.id, decision.events, actor)
            _project_moves(self.tx, self.id, decision.events)
            self.events += decision.events

    def save(self) -> RolloutState:
        """Write where the rollout stands after all that was taken."""
        if self.events:
            values = {"of": self.id, "state": _text(self.state), "status": self.state.status}
            self.tx.write(_UPDATE_ROLLOUT, values)
        return self.state

    def settle(self) -> None:
        """Save, write down that the run was heard of, and say who may go now."""
        self.save()
        if self.events or self.tx.now - self.tx.row.seen_at >= HEARD:
            self.tx.finish(**({"rollout": None, "holder": None} if self.state.status.ended else {}))
        places = decide.places_to_fill(self.plan, self.state, self.events)
        self.tx.next_to_go = None if places is None else (self.id, self.state.phase, places)


def _answer_all(rollout: str, tx: Transaction, asked: Sequence[Asked]) -> dict[str, str]:
    """What is said to each asker. Who reports goes first: a place that becomes free can be taken at once."""
    loaded, said = _loaded(tx, rollout), {}
    questions = [(one, Question.from_text(one.question)) for one in asked]
    for one, question in sorted(questions, key=lambda pair: pair[1].outcome is None):
        answer: Answer | ConvoyError
        try:
            answer = loaded.answer(one, question)
        except (LedgerError, StaleTokenError) as error:
            answer = error
        said[one.asker] = _told(answer, tx.head)
    loaded.settle()
    return said


_SAID: Mapping[str, Callable[..., Answer]] = {
    **{cls.__name__: cls for cls in (Admitted, Wait, Denied, Recorded)},
    Migrate.__name__: lambda migration, until: Migrate(PlannedMigration(**migration), until),
}
_RAISED = {cls.__name__: cls for cls in (LedgerError, StaleTokenError)}


def _told(answer: Answer | ConvoyError, head: int) -> str:
    """An answer as text, with the newest event when it was given."""
    told = str(answer) if isinstance(answer, ConvoyError) else vars(answer)
    return json.dumps([type(answer).__name__, told, head], default=vars)


def _understood(words: str) -> tuple[Answer, int]:
    """The inverse. Raises the error that the answer is."""
    name, told, head = json.loads(words)
    if name in _RAISED:
        raise _RAISED[name](told)
    return _SAID[name](**told), head


def view_in(connection: Connection, stream: str, rollout: str | None = None) -> RolloutView | None:
    """A rollout as the tables have it (the newest one by default); None where there is none."""
    events = schema.events.c
    opened = select(events.rollout).where((events.stream == stream) & (events.kind == "opened"))
    newest = opened.order_by(events.seq.desc()).limit(1).scalar_subquery()
    query = select(schema.rollouts).where(schema.rollouts.c.stream == stream)
    row = connection.execute(query.where(schema.rollouts.c.id == (rollout or newest))).mappings().first()
    if row is None:
        return None
    of_stream = connection.execute(select(schema.streams).where(schema.streams.c.name == stream)).mappings().one()
    return RolloutView(
        id=row["id"],
        opened_at=row["opened_at"],
        status=Status(row["status"]),
        facts=json.loads(row["facts"]),
        plan=Plan.from_rules(json.loads(row["rules"])),
        state=RolloutState.from_json(json.loads(row["state"])),
        hosts=hosts_in(connection, row["id"]),
        head=(of_stream["head"], of_stream["head_hash"]),
        token=of_stream["token"],
        holder=Run(**json.loads(of_stream["holder"])) if of_stream["holder"] else None,
    )


def hosts_in(connection: Connection, rollout: str) -> tuple[HostRow, ...]:
    """The hosts of a rollout as the tables have them, in the plan's order."""
    of_rollout = select(schema.hosts).where(schema.hosts.c.rollout == rollout)
    rows = connection.execute(of_rollout.order_by(schema.hosts.c.position)).mappings()
    return tuple(_host_row(dict(host)) for host in rows)


def newest_rows_in(connection: Connection, stream: str, hosts: Iterable[str]) -> dict[str, NewestRow]:
    """The newest row of each host that the tables have, reading no more rollouts than that takes."""
    rollouts, missing = schema.rollouts.c, set(hosts)
    of_stream = select(rollouts.id, rollouts.status).where(rollouts.stream == stream)
    found: dict[str, NewestRow] = {}
    for rollout, status in connection.execute(of_stream.order_by(rollouts.opened_at.desc(), rollouts.id.desc())):
        if not missing:
            break
        for row in hosts_in(connection, rollout):
            if row.name in missing:
                missing.remove(row.name)
                found[row.name] = NewestRow(rollout, Status(status).ended, row)
    return found


def _sighting(facts: HostFacts | None, wanted: str | None) -> Sighting:
    return facts.sighting(wanted) if facts else Sighting.UNREACHABLE


def _load(tx: Transaction, rollout: str) -> _Loaded:
    """A rollout that was not asked for as the transaction began."""
    rows = tx.rows(_SELECT_ROLLOUT, {"of": rollout})
    if not rows:
        raise LedgerError(f"rollout {rollout} is not in the ledger of {tx.stream}: check its id")
    rules, state, digest = rows[0]
    return _Loaded(rollout, _plan(rules), _state(state), digest, tx)


def _loaded(tx: Transaction, rollout: str) -> _Loaded:
    """The rollout that was asked for as the transaction began."""
    row = tx.row
    if row.rules is None or row.state is None or row.digest is None:
        raise LedgerError(f"rollout {rollout} is not in the ledger of {tx.stream}: check its id")
    return _Loaded(rollout, _plan(row.rules), _state(row.state), row.digest, tx)


@lru_cache(maxsize=8)
def _plan(rules: str) -> Plan:
    """The plan without its hosts; a rollout's rules never change."""
    return Plan.from_rules(json.loads(rules))


def _text(state: RolloutState) -> str:
    """The state as ``to_json`` has it, without copying all of it first: this is done while others wait."""
    return json.dumps(vars(state), default=_plain)


def _plain(value: Any) -> Any:
    """A part of the state that JSON has no type for."""
    return sorted(value) if isinstance(value, frozenset) else vars(value)


def _state(text: str) -> RolloutState:
    return RolloutState.from_json(json.loads(text))


def _insert(
    tx: Transaction, stream: str, rollout: str, plan: Plan, facts: dict[str, Any], decision: Decision
) -> RolloutState:
    state = RolloutState()
    for event in decision.events:
        state = evolve(state, event)
    row = {
        "id": rollout,
        "stream": stream,
        "opened_at": tx.now,
        "status": state.status,
        "facts": json.dumps(facts),
        "rules": json.dumps(plan.rules()),
        "digest": plan.digest(),
        "state": _text(state),
    }
    tx.write(_INSERT_ROLLOUT, row)
    rows = [_planned_row(host, rollout, tx.now) for host in plan.hosts]
    tx.write(_INSERT_HOST, *rows)
    tx.append(rollout, decision.events)
    return state


def _planned_row(host: PlannedHost, rollout: str, now: float) -> dict[str, Any]:
    row = {**asdict(host), "rollout": rollout, "why": "", "updated_at": now}
    del row["serves"]
    return row


def _project_moves(tx: Transaction, rollout: str, events: Iterable[Event]) -> None:
    moves = [
        {
            "of": rollout,
            "host": event.host,
            "status": event.data["now"],
            "why": storable(event.data.get("why", "")),
            "updated_at": event.at,
        }
        for event in events
        if event.kind == "moved"
    ]
    tx.write(_MOVE_HOST, *moves)


def storable(text: str) -> str:
    """Text that every database takes: what a probe answered may hold anything."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _record(row: Mapping[str, Any]) -> HostRecord:
    return HostRecord(row["name"], row["phase"], row["zone"], HostStatus(row["status"]))


def _host_row(row: Mapping[str, Any]) -> HostRow:
    kept = {key: value for key, value in row.items() if key != "rollout"}
    return HostRow(**{**kept, "status": HostStatus(row["status"])})


def _held(tx: Transaction, run: Run, dead: Callable[[Run], bool | None], patience: float) -> str:
    """Who holds the open rollout, for people; empty if nobody who lives and is not ``run``."""
    holder = _holder(tx)
    if holder is None or holder == run:
        return ""
    gone = dead(holder)
    silence = tx.now - tx.row.seen_at
    if gone or (gone is None and silence > patience):
        return ""
    when = "it is running" if gone is False else f"last heard of {silence:.0f} s ago, waited for {patience:.0f} s"
    return f"rollout {tx.row.rollout} is held by {holder} ({when})"


def _holder(tx: Transaction) -> Run | None:
    return Run(**json.loads(tx.row.holder)) if tx.row.holder else None
