# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a release into service, and the way back.

The order is: announce it in the journal, write the units, switch `current`, restart, wait for the
gate, look at the processes, write the outcome into the journal. Whatever fails after the
announcement leads back to the release that was in service before, through the same steps. A call
that is killed anywhere leaves the old release or the new one in `current`, and the announcement: the
same call made again starts from what is really there.
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import durable, gate, guard, process, staging, units
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ActivationError, ConvoyTargetError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import History, WayBack
from ansible_collections.convoy.rollout.plugins.module_utils.pruning import prunable, prune
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record, Unit, kind_of
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UnitStatus, unit_fault
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Mapping, Sequence


class Order(NamedTuple):
    """What a rollout asks of a host. `release` is None for a rollback to the last good one.

    With `mend` a release is made whole and restarted also where it seems to serve as it should. One that
    `is_provisional` is good only when it was confirmed, whenever that is.
    """

    release: str | None
    probes: tuple[Mapping[str, Any], ...] = ()
    gate: Mapping[str, Any] | None = None
    keep: int = 5
    confirm_within: int = 0
    mend: bool = False
    is_provisional: bool = False


class Judgement(NamedTuple):
    """What became of a release in service. `fault` is None when it is healthy and the running one."""

    gate: dict[str, Any] | None
    processes: dict[str, Any]
    fault: str | None
    log: tuple[str, ...] = ()


# For how long a start may take until the gate begins, while nobody is there to see that it never ends.
_START_ALLOWANCE = 60.0

# --- the roads ---------------------------------------------------------------------------------------------------


def activate(host: Host, order: Order) -> dict[str, Any]:
    """Take a staged release into service. ActivationError when it had to be taken back."""
    if order.mend:
        staging.mend(host, str(order.release))
    recorded = host.tree.verify(str(order.release))
    host.done("verified")
    probing = gate_of(order.probes, order.gate, recorded)
    active, history = host.tree.active(), host.history()
    _ready(host, recorded)
    recorded = staging.keep_probes(host, recorded, order.probes, order.gate)
    if active == recorded.release and history.state(active) in ("good", "active") and not order.mend:
        judgement = if_in_service(host, recorded, probing)
        if judgement is not None:
            guard.tidy(host)
            return host.outcome(active, False, gate=judgement.gate, process=judgement.processes)
    staging.adopt(host, active)
    way = history.way_back(active, recorded.release, host.tree.present())
    host.note("activating", recorded.release, came_from=history.origin_of(active, recorded.release))
    if order.mend:
        end_strays(host, recorded)
    judgement = _take_into_service(host, recorded, probing, order.confirm_within)
    if judgement.fault is not None:
        raise _go_back(host, recorded.release, way, judgement)
    return settle(host, recorded, order, judgement)


def confirm(host: Host, order: Order) -> dict[str, Any]:
    """Make an unconfirmed release a good one. TreeError when it is not the active one any more."""
    release, history, active = str(order.release), host.history(), host.tree.active()
    if active != release or history.state(release) not in ("active", "good"):
        raise TreeError(_why_not_to_confirm(history, release, active), active=active)
    if history.state(release) == "good":
        guard.tidy(host)
        return host.outcome(release, False)
    host.note("good", release)
    guard.tidy(host)
    host.done("confirmed")
    recorded = host.tree.read_record(release)
    processes, _faults = _look_at_processes(host, recorded, not_before=0)
    pruned = prune(host, recorded, _in_use(processes), order.keep)
    return host.outcome(release, True, pruned=pruned)


def revert(host: Host, order: Order, reason: str = "") -> dict[str, Any]:
    """Go back to a release, or to the last good one. ActivationError when that one is unhealthy: no further step."""
    active, history = host.tree.active(), host.history()
    way = WayBack(order.release)
    if order.release is None:
        way = history.rollback_target(active, host.tree.present(), host.rollout)
    if way.stay:
        raise TreeError(f"there is no good release on this host to go back to; {active} stays active", active=active)
    if way.release is None:
        return _revert_to_nothing(host, active, reason)
    return _revert_to(host, way.release, order, active, history, reason)


def _revert_to_nothing(host: Host, active: str | None, reason: str) -> dict[str, Any]:
    """Take out of service what the rollout that goes back had brought to a host without a release."""
    if active is None:
        return host.outcome(None, False)
    host.note("reverting", active, reason=reason)
    leave_nothing(host, active)
    host.note("reverted", active, reason=reason)
    guard.tidy(host)
    return host.outcome(None, True, reverted=True)


def _revert_to(
    host: Host, target: str, order: Order, active: str | None, history: History, reason: str
) -> dict[str, Any]:
    """Go back to a release, through the gate that it once passed."""
    recorded = host.tree.verify(target)
    host.done("verified")
    probing = remembered_gate(recorded, order)
    left = left_by(history, active, target)
    if active == target and history.state(target) == "good":
        judgement = if_in_service(host, recorded, probing)
        if judgement is not None and left is None:
            return host.outcome(target, False, gate=judgement.gate, process=judgement.processes)
        if judgement is not None:
            return close_rollback(host, left, target, reason, judgement)
    _ready(host, recorded)
    if left is None:
        host.note("activating", target, came_from=history.origin_of(active, target))
    else:
        host.note("reverting", left, went_to=target, reason=reason)
    judgement = _take_into_service(host, recorded, probing)
    return close_rollback(host, left, target, reason, judgement)


def take_back(host: Host, release: str, reason: str) -> str:
    """Leave a release that was not confirmed; what became of that. The host does this by itself."""
    token = host.tree.token()
    host.token, host.rollout = token.value, token.rollout
    history = host.begin()
    way = history.way_back(release, release, host.tree.present())
    return _go_back(host, release, way, Judgement(None, {}, reason), event="reverted").message


def fit_units(host: Host) -> bool:
    """Make the unit files those of the active release, without starting or stopping anything. Whether they were not."""
    active = host.tree.active()
    wanted = host.tree.read_record(active).own_units if active is not None else ()
    plan = host.units.plan(wanted)
    host.supervisor.disable(plan.remove)
    host.units.remove(plan.remove)
    host.units.write(plan.write, str(active))
    host.supervisor.enable([unit.name for unit in plan.write if units.is_installable(unit)])
    if plan:
        host.supervisor.daemon_reload()
    return bool(plan)


def foresee(host: Host, state: str, order: Order) -> dict[str, Any]:
    """What a call would come to, as far as it can be told without one. Reads only."""
    active, history, present = host.tree.active(), host.history(), host.tree.present()
    if state == "active":
        release = str(order.release)
        settled = active == release and history.state(release) in ("good", "active")
        ahead = history.with_good(release, host.clock.wall())
        spared = {active} if active else set()
        doomed = prunable(ahead, present | {release}, release, spared, order.keep)
        return host.outcome(release, not settled, pruned=[] if settled or order.confirm_within else doomed)
    if state == "confirmed":
        return host.outcome(order.release, history.state(str(order.release)) == "active")
    if state == "absent":
        return host.outcome(order.release, order.release in present)
    way = WayBack(order.release) if order.release else history.rollback_target(active, present, host.rollout)
    target = active if way.stay else way.release
    return host.outcome(target, target != active, reverted=target != active)


# --- the steps ---------------------------------------------------------------------------------------------------


def gate_of(probes: Sequence[Mapping[str, Any]], options: Mapping[str, Any] | None, recorded: Record) -> gate.Gate:
    """The gate of a release, one that can say pass. TreeError without a probe."""
    probing = gate.validate(gate.expecting(probes, recorded.version), dict(options or {}))
    if not probing.probes:
        raise TreeError(
            f"there is no probe for release {recorded.release}, and without one nothing shows that it is healthy; "
            "nothing was changed. Give at least one, such as {kind: http, url: 'http://127.0.0.1:8080/healthz'}"
        )
    return probing


def remembered_gate(recorded: Record, order: Order) -> gate.Gate:
    """The gate that a release once passed; what is ordered may ask for the version of another one."""
    if recorded.probes:
        return gate_of(recorded.probes, recorded.gate, recorded)
    return gate_of(order.probes, order.gate, recorded)


def _ready(host: Host, recorded: Record) -> None:
    """Find what would stop the release, before anything is changed."""
    host.units.plan(recorded.own_units)
    kind = kind_of(recorded)
    if kind is not None:
        kind.ready(host, recorded)


def _is_in_place(host: Host, recorded: Record) -> bool:
    """Whether units, and what the kind brings besides, are those of the release."""
    kind = kind_of(recorded)
    return not host.units.plan(recorded.own_units) and (kind is None or not any(kind.info(host, recorded, False)))


def if_in_service(host: Host, recorded: Record, probing: gate.Gate) -> Judgement | None:
    """The judgement on a release that already serves as it should; None when something must be done."""
    if not _is_in_place(host, recorded):
        return None
    judgement = judge(host, recorded, probing, not_before=0)
    return judgement if judgement.fault is None else None


def _take_into_service(host: Host, recorded: Record, probing: gate.Gate | None, confirm_within: int = 0) -> Judgement:
    """Units, switch, restart, gate, processes. What goes wrong on the way is a fault of the release.

    A deadline for the confirmation is set twice: generously before, in case that nothing of this
    comes to an end, and again when it runs.
    """
    try:
        if confirm_within and probing is not None:
            guard.arm(host, recorded.release, _START_ALLOWANCE + probing.deadline + confirm_within)
            host.done("deadline set")
        not_before = _switch(host, recorded)
        judgement = judge(host, recorded, probing, not_before)
        if confirm_within and judgement.fault is None:
            guard.arm(host, recorded.release, confirm_within)
        return judgement
    except (ConvoyTargetError, OSError) as error:
        names = runnable(recorded.units)
        return Judgement(None, {}, str(error), tuple(host.supervisor.last_words(names, host.began)))


def _switch(host: Host, recorded: Record) -> int:
    """Put the release's units and `current` in place and restart. Returns when that began, in ticks since boot."""
    plan = place(host, recorded)
    kind = kind_of(recorded)
    if kind is not None:
        kind.activate(host, recorded)
    not_before = process.ticks_now()
    restart(host, recorded.units, plan.write)
    host.done("restarted")
    return not_before


def place(host: Host, recorded: Record) -> units.UnitPlan:
    """Put the release's units and `current` in place; which units that changed."""
    plan = host.units.plan(recorded.own_units)
    before = host.supervisor.show(runnable(recorded.units))
    if plan:
        guard.stand_by(host, [*(unit.name for unit in recorded.units), *plan.remove])
    _write_units(host, recorded, plan, before)
    durable.replace_symlink(f"releases/{recorded.release}", host.tree.current)
    host.done("switched")
    guard.stand_down(host)
    return plan


def _write_units(host: Host, recorded: Record, plan: units.UnitPlan, before: Mapping[str, UnitStatus]) -> None:
    """Make the unit files, and what systemd knows of them, those of the release."""
    host.units.clear_leftovers(recorded.own_units)
    _retire(host, plan.remove)
    host.units.write(plan.write, recorded.release)
    enabled = _settle_boot(host, recorded.own_units, plan.write, before)
    if plan or enabled or any(status.is_outdated for status in before.values()):
        host.supervisor.daemon_reload()
        host.done("units")


def _settle_boot(host: Host, wanted: Sequence[Unit], written: Sequence[Unit], before: Mapping[str, UnitStatus]) -> bool:
    """Let units start at boot exactly when their [Install] section asks for it. Whether anything had to be done."""
    enable, disable = [], []
    for unit in wanted:
        state = before[unit.name].file_state if unit.name in before else ""
        if units.is_installable(unit) and (unit in written or state == "disabled"):
            enable.append(unit.name)
        if not units.is_installable(unit) and state == "enabled":
            disable.append(unit.name)
    host.supervisor.disable(disable)
    host.supervisor.enable(enable)
    return bool(enable or disable)


def end_strays(host: Host, recorded: Record) -> None:
    """End what runs of the releases beside the units: it may hold what they need, a port say."""
    owners, programs = [unit.name for unit in recorded.units], units.programs(recorded.own_units)
    for stray in process.strays(host.tree.releases, owners, programs):
        process.end(stray.pid, stray.started_ticks, host.clock)
        host.done(f"ended process {stray.pid}")


def restart(host: Host, wanted: Sequence[Unit], written: Sequence[Unit]) -> None:
    """Restart what asks for it. A unit whose text changed is restarted in any case: a reload would not show it."""
    names = runnable(wanted)
    host.supervisor.forget_failures(names)
    restarted = [unit.name for unit in wanted if unit.action == "restart" or unit in written]
    host.supervisor.restart([name for name in names if name in restarted])
    host.supervisor.reload([name for name in names if name not in restarted])


def _retire(host: Host, names: Sequence[str]) -> None:
    """Stop, disable and remove units that the release does not have."""
    runnable = [name for name in names if not units.is_template(name)]
    host.supervisor.stop(runnable)
    host.supervisor.disable(names)
    host.units.remove(names)


def leave_nothing(host: Host, left: str) -> None:
    """Take out of service what was never in service before."""
    _retire(host, host.units.plan(()).remove)
    recorded = host.tree.read_record(left) if left in host.tree.present() else None
    kind = kind_of(recorded) if recorded is not None else None
    if recorded is not None and kind is not None:
        kind.revert(host, recorded)
    durable.unlink(host.tree.current)
    host.supervisor.daemon_reload()
    host.done("removed")


def judge(host: Host, recorded: Record, probing: gate.Gate | None, not_before: int) -> Judgement:
    """Ask the gate, then look at the processes: a service may answer well and still be the old one."""
    answer = gate.run(probing, host.clock) if probing is not None else None
    host.done("gated")
    processes, faults = _look_at_processes(host, recorded, not_before)
    host.done("processes checked")
    if answer is not None and not answer.passed:
        faults.insert(0, answer.message)
    log = host.supervisor.last_words(runnable(recorded.units), host.began) if faults else []
    return Judgement(answer.as_dict() if answer else None, processes, "; ".join(faults) or None, tuple(log))


def _look_at_processes(host: Host, recorded: Record, not_before: int) -> tuple[dict[str, Any], list[str]]:
    """What the release's units run, and what is wrong with it."""
    seen: dict[str, Any] = {}
    faults = []
    for name, status in host.supervisor.show(runnable(recorded.units)).items():
        restarts = next(unit.action for unit in recorded.units if unit.name == name) == "restart"
        running = process.read(status.pid) if status.pid else None
        if running is not None:
            seen[name] = process.describe(running, host.tree.releases)
        fault = unit_fault(status)
        if fault is None and restarts and running is not None:
            fault = host.process_fault(running, recorded, not_before)
        if fault is not None:
            faults.append(f"{name}: {fault}")
    return seen, faults


def settle(host: Host, recorded: Record, order: Order, judgement: Judgement) -> dict[str, Any]:
    """The release is in service and healthy: write it down, and make room."""
    if order.confirm_within or order.is_provisional:
        until = host.clock.wall() + order.confirm_within if order.confirm_within else None
        host.note("active", recorded.release, until=until)
        return host.outcome(recorded.release, True, gate=judgement.gate, process=judgement.processes)
    host.note("good", recorded.release)
    guard.tidy(host)
    pruned = prune(host, recorded, _in_use(judgement.processes), order.keep)
    host.done("pruned")
    return host.outcome(recorded.release, True, pruned=pruned, gate=judgement.gate, process=judgement.processes)


def _go_back(host: Host, failed: str, way: WayBack, judgement: Judgement, event: str = "bad") -> ActivationError:
    """Undo an activation; the error that tells of it."""
    fault = str(judgement.fault)
    if way.stay:
        host.note("bad", failed, reason=fault)
        message = f"{failed} was in service before, was restarted, and is unhealthy: {fault}. It stays active"
        return failure(host, failed, message, judgement, reverted=False)
    host.note("reverting", failed, went_to=way.release, reason=fault)
    after = _return_to(host, way.release, failed)
    if not _has_returned(host, way.release):
        message = f"{failed} failed: {fault}. The way back to {way.release or 'nothing'} failed too: {after.fault}"
        return failure(host, failed, message, judgement, reverted=False, after=after.gate)
    host.note(event, failed, went_to=way.release, reason=fault)
    guard.tidy(host)
    now = f"{way.release} is active again" if way.release else "nothing was active before, and nothing is now"
    but = f", but something is wrong there too: {after.fault}" if after.fault else ""
    return failure(host, failed, f"{failed} failed: {fault}. {now}{but}", judgement, reverted=True, after=after.gate)


def _has_returned(host: Host, release: str | None) -> bool:
    """Whether the old release is in its place again."""
    if host.tree.look_at_current().release != release:
        return False
    recorded = host.tree.read_record(release) if release is not None else None
    return recorded is None or kind_of(recorded) is None or _is_in_place(host, recorded)


def _return_to(host: Host, release: str | None, left: str) -> Judgement:
    """Put the old release back, or nothing where there was nothing."""
    try:
        if release is None:
            leave_nothing(host, left)
            return Judgement(None, {}, None)
        recorded = host.tree.read_record(release)
        probing = gate_of(recorded.probes, recorded.gate, recorded) if recorded.probes else None
        return _take_into_service(host, recorded, probing)
    except (ConvoyTargetError, OSError) as error:
        return Judgement(None, {}, str(error))


def close_rollback(host: Host, left: str | None, target: str, reason: str, judgement: Judgement) -> dict[str, Any]:
    """Write down where a rollback ended. An unhealthy target is not left again: that would be a loop."""
    if left is not None:
        host.note("reverted", left, went_to=target, reason=reason)
    guard.tidy(host)
    if judgement.fault is None:
        host.note("good", target)
        return host.outcome(target, True, left is not None, gate=judgement.gate, process=judgement.processes)
    host.note("bad", target, reason=judgement.fault)
    message = f"went back to {target}, and it is unhealthy: {judgement.fault}. It stays active; choose another release"
    raise failure(host, target, message, judgement, reverted=left is not None)


def left_by(history: History, active: str | None, target: str) -> str | None:
    """The release that a rollback leaves, also when it was switched away from by a call that was killed."""
    if active != target:
        return active
    back = history.last_move_back
    is_half_way = back is not None and back.event == "interrupted" and back.went_to == target
    return back.release if back is not None and is_half_way else None


def _why_not_to_confirm(history: History, release: str, active: str | None) -> str:
    back = history.last_move_back
    if back is not None and back.release == release:
        return f"{release} cannot be confirmed: it was left for {back.went_to} ({back.reason or 'without a reason'})"
    if active == release:
        return f"{release} cannot be confirmed: its activation did not end; activate it again (state=active)"
    return f"{release} cannot be confirmed: {active or 'nothing'} is active on this host"


def runnable(wanted: Sequence[Unit]) -> list[str]:
    """The units that can be asked about and restarted: all but templates."""
    return [unit.name for unit in wanted if not units.is_template(unit.name)]


def _in_use(processes: Mapping[str, Any]) -> set[str]:
    """The releases that processes run from."""
    return {seen["release"] for seen in processes.values() if seen["release"]}


def failure(
    host: Host,
    release: str,
    message: str,
    judgement: Judgement,
    reverted: bool,
    after: dict[str, Any] | None = None,
) -> ActivationError:
    """The same as an outcome, as an error."""
    details = host.outcome(release, True, reverted, gate=judgement.gate, process=judgement.processes)
    return ActivationError(message, **details, log=list(judgement.log), gate_after=after)
