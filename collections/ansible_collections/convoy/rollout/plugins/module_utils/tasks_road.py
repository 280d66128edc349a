# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a release into service, and the way back, by tasks of the site: two calls with the tasks between them.

The first announces it in the journal, writes the units and switches `current`; then the controller runs the tasks; the
second restarts, waits for the gate, looks at the processes, and writes down the outcome. Whoever dies in between leaves
the announcement alone: the next call does not believe that the tasks are done. The host cannot take a release back by
itself, since the tasks are the controller's: a release that fails stays active until the way back was gone.
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import activation, gate, guard, process, staging
from ansible_collections.convoy.rollout.plugins.module_utils.activation import Judgement, Order
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, InputError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import BY_TASKS, WayBack
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Mapping, Sequence


class Asked(NamedTuple):
    """What the controller says of the tasks.

    `back`: whether they take the host back. `in_doubt`: what to do where nobody knows whether they are done. When they
    have run, `failure` says why they failed, `written` is what begin() returned as such, and with `verifies` the
    release is good only when it is confirmed.
    """

    back: bool = False
    in_doubt: str = "again"
    failure: str = ""
    written: Sequence[str] = ()
    verifies: bool = False


def asked_of(params: Mapping[str, Any]) -> Asked:
    """What is asked. InputError for what a host cannot do."""
    if params["confirm_within"]:
        raise InputError(
            f"confirm_within is {params['confirm_within']}: a host cannot take a release back by itself that tasks of "
            "the controller put in place; leave it away"
        )
    return Asked(**(params["tasks"] or {}))


# --- before the tasks --------------------------------------------------------------------------------------------


def begin(host: Host, order: Order, asked: Asked) -> dict[str, Any]:
    """Announce that tasks will take the host to a release, or back; what they need to know is in `tasks`."""
    return _begin_back(host, order) if asked.back else _begin_forward(host, order, asked)


def foresee(host: Host, state: str, order: Order, asked: Asked) -> dict[str, Any]:
    """What a call would come to. Reads only."""
    outcome = activation.foresee(host, "reverted" if asked.back else "active", order)
    if state == "settled":
        return outcome
    active = host.tree.active()
    came_from = active if active != outcome["release"] else None
    return dict(outcome, tasks=_told(host, outcome["release"], came_from, outcome["changed"]))


def _begin_forward(host: Host, order: Order, asked: Asked) -> dict[str, Any]:
    if order.mend:
        staging.mend(host, str(order.release))
    recorded = _verified(host, str(order.release))
    release, probing = recorded.release, activation.gate_of(order.probes, order.gate, recorded)
    host.units.plan(recorded.own_units)
    active, history = host.tree.active(), host.history()
    recorded = staging.keep_probes(host, recorded, order.probes, order.gate)
    unsettled = history.unsettled(active)
    if active == release and history.state(release) in ("good", "active") and unsettled is None and not order.mend:
        nothing_to_do = _if_in_service(host, recorded, probing)
        if nothing_to_do is not None:
            return nothing_to_do
    is_in_doubt = unsettled is not None and not unsettled.is_known
    if is_in_doubt and asked.in_doubt == "hold":
        raise TreeError(
            f"tasks that put {active} in place were begun here, and it is not known whether they are done; nothing was "
            "changed. See how far they came, then say that they are done, or that they may run again",
            active=active,
        )
    staging.adopt(host, active)
    came_from = history.origin_of(active, release)
    host.note("activating", release, came_from=came_from, reason=BY_TASKS)
    if order.mend:
        activation.end_strays(host, recorded)
    written = _place(host, recorded)
    runs = not (is_in_doubt and asked.in_doubt == "done" and active == release)
    told = _told(host, release, came_from, True, runs, _all(recorded) if unsettled is not None else written)
    return dict(host.outcome(release, True), tasks=told)


def _begin_back(host: Host, order: Order) -> dict[str, Any]:
    active, history = host.tree.active(), host.history()
    way = WayBack(order.release)
    if order.release is None:
        way = history.rollback_target(active, host.tree.present(), host.rollout)
    if way.stay:
        raise TreeError(f"there is no good release on this host to go back to; {active} stays active", active=active)
    if way.release is None:
        return _begin_leaving(host, active)
    recorded = _verified(host, way.release)
    probing = activation.remembered_gate(recorded, order)
    host.units.plan(recorded.own_units)
    left = activation.left_by(history, active, recorded.release)
    if left is None and history.state(recorded.release) == "good" and history.unsettled(active) is None:
        nothing_to_do = _if_in_service(host, recorded, probing)
        if nothing_to_do is not None:
            return nothing_to_do
    if left is None:
        came_from = history.origin_of(active, recorded.release)
        host.note("activating", recorded.release, came_from=came_from, reason=BY_TASKS)
    else:
        host.note("reverting", left, went_to=recorded.release, reason=BY_TASKS)
    _place(host, recorded)
    told = _told(host, recorded.release, left, True, written=_all(recorded))
    return dict(host.outcome(recorded.release, True), tasks=told)


def _begin_leaving(host: Host, active: str | None) -> dict[str, Any]:
    """On the way to nothing at all, on a host where nothing was before."""
    if active is not None:
        host.note("reverting", active, reason=BY_TASKS)
    return dict(host.outcome(None, active is not None), tasks=_told(host, None, active, active is not None))


def _verified(host: Host, release: str) -> Record:
    recorded = host.tree.verify(release)
    if not recorded.by_tasks:
        raise InputError(
            f"release {release} was not staged as one that tasks put in place: activate it in one call, by "
            "state=active or state=reverted; nothing was changed"
        )
    host.done("verified")
    return recorded


def _if_in_service(host: Host, recorded: Record, probing: gate.Gate) -> dict[str, Any] | None:
    """What is returned for a release that serves as it should; None when something must be done."""
    judgement = activation.if_in_service(host, recorded, probing)
    if judgement is None:
        return None
    guard.tidy(host)
    outcome = host.outcome(recorded.release, False, gate=judgement.gate, process=judgement.processes)
    return dict(outcome, tasks=_told(host, recorded.release, None, False))


def _place(host: Host, recorded: Record) -> list[str]:
    """Put units and `current` in place; the names of the units whose text that changed."""
    return [unit.name for unit in activation.place(host, recorded).write]


def _all(recorded: Record) -> list[str]:
    """The release's own units. Which of them were changed a call may have known that is dead."""
    return [unit.name for unit in recorded.own_units]


def _told(
    host: Host,
    release: str | None,
    came_from: str | None,
    is_begun: bool,
    runs: bool = True,
    written: Sequence[str] = (),
) -> dict[str, Any]:
    """What the tasks need to know, and the call after them."""
    previous = came_from if came_from != release else None
    return {
        "begun": is_begun,
        "run": is_begun and runs,
        "release": _described(host, release),
        "previous": _described(host, previous),
        "written": list(written),
    }


def _described(host: Host, release: str | None) -> dict[str, str] | None:
    if release is None or release not in host.tree.present():
        return None
    return {"id": release, "version": host.tree.read_record(release).version, "path": host.tree.release(release)}


# --- after the tasks ---------------------------------------------------------------------------------------------


def settle(host: Host, order: Order, asked: Asked) -> dict[str, Any]:
    """What the tasks came to, seen and written down. ActivationError when the release is not in service, healthy."""
    pending = host.history().pending
    if pending is None or pending.reason != BY_TASKS or pending.rollout != host.rollout:
        raise TreeError(
            f"rollout {host.rollout or 'without an id'} has begun nothing on this host that could be settled, or "
            "another one has begun something since; begin again (state=begun)",
            active=host.tree.look_at_current().release,
        )
    if pending.event == "reverting":
        return _settle_back(host, order, asked, pending.release, pending.went_to)
    if asked.back:
        return _settle_back(host, order, asked, None, pending.release)
    return _settle_forward(host, order, asked, pending.release, pending.came_from)


def _settle_forward(host: Host, order: Order, asked: Asked, release: str, came_from: str | None) -> dict[str, Any]:
    recorded = host.tree.read_record(release)
    probing = activation.gate_of(recorded.probes, recorded.gate, recorded)
    judgement = _serve(host, recorded, probing, asked)
    if judgement.fault is None:
        outcome = activation.settle(host, recorded, order._replace(is_provisional=asked.verifies), judgement)
        return dict(outcome, tasks=_told(host, release, came_from, False))
    host.note("bad", release, reason=judgement.fault)
    message = f"{release} failed: {judgement.fault}. It stays active until it was taken back"
    error = activation.failure(host, release, message, judgement, reverted=False)
    error.details["tasks"] = _told(host, release, came_from, True)
    raise error


def _settle_back(host: Host, order: Order, asked: Asked, left: str | None, target: str | None) -> dict[str, Any]:
    if target is not None:
        recorded = host.tree.read_record(target)
        judgement = _serve(host, recorded, activation.remembered_gate(recorded, order), asked)
        return activation.close_rollback(host, left, target, "", judgement)
    if asked.failure:
        message = f"the way back to nothing failed: its tasks failed: {asked.failure}. {left} stays active"
        raise activation.failure(host, str(left), message, Judgement(None, {}, message), reverted=False)
    activation.leave_nothing(host, str(left))
    host.note("reverted", str(left))
    guard.tidy(host)
    return host.outcome(None, True, reverted=True)


def _serve(host: Host, recorded: Record, probing: gate.Gate, asked: Asked) -> Judgement:
    """Restart what the release has for units, and judge it. Whatever fails is a fault of the release."""
    names = activation.runnable(recorded.units)
    if asked.failure:
        fault = f"its tasks failed: {asked.failure}"
        return Judgement(None, {}, fault, tuple(host.supervisor.last_words(names, host.began)))
    try:
        if names:
            host.supervisor.daemon_reload()
        not_before = process.ticks_now()
        activation.restart(host, recorded.units, [unit for unit in recorded.units if unit.name in asked.written])
        host.done("restarted")
        return activation.judge(host, recorded, probing, not_before)
    except (ConvoyTargetError, OSError) as error:
        return Judgement(None, {}, str(error), tuple(host.supervisor.last_words(names, host.began)))
