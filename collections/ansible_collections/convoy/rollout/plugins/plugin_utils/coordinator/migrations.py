# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps of the site's own that run once in an environment: which ones, in which order, forward and back."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Plan, PlannedMigration
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    MigrationSpec,
    OnIrreversible,
    PhaseSpec,
    Scope,
    SpecError,
    nearest,
    parse_choice,
    parse_flag,
    parse_seconds,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import (
    ON_THE_NEW_RELEASE,
    Applied,
    HostStatus,
    RolloutState,
    Standing,
    Status,
)

FIELD = "component_migrations"
KEYS = ("name", "before", "after", "tasks", "reverse", "irreversible", "run_on", "timeout", "idempotent",
        "on_irreversible")  # fmt: skip
FIRST, LAST = "first", "last"  # instead of the names of phases
CONTROLLER = "localhost"
BRING_WHAT_WAS_DEPLOYED = frozenset({"catch_up", "repair"})  # kinds of rollouts that leave migrations as they are
_MAY_RUN_THE_NEW_RELEASE = frozenset({*ON_THE_NEW_RELEASE, HostStatus.ADMITTED, HostStatus.RETURNING, HostStatus.STUCK})
_NOT_GONE_BACK = frozenset(HostStatus) - {HostStatus.SUCCEEDED, HostStatus.CURRENT, HostStatus.STANDBY}


# what is asked for


def parse_migrations(
    raw: Any, phases: Sequence[PhaseSpec], lease: float, hosts: Container[str]
) -> tuple[MigrationSpec, ...]:
    """Read ``component_migrations``. One may take ``lease`` seconds by default, and run on one of ``hosts``."""
    if isinstance(raw, (str, Mapping)) or not isinstance(raw, Sequence):
        raise SpecError(f"{FIELD}: {raw!r} is no list of migrations: give each with name, tasks, and reverse")
    found = tuple(_parse(f"{FIELD}[{nth}]", item, phases, lease, hosts) for nth, item in enumerate(raw))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"{FIELD}: the name {name!r} is used twice: what has run is told apart by it")
    return found


def _parse(field: str, raw: Any, phases: Sequence[PhaseSpec], lease: float, hosts: Container[str]) -> MigrationSpec:
    if not isinstance(raw, Mapping):
        raise SpecError(f"{field}: {raw!r} is no migration: write it as a mapping with name, tasks, and reverse")
    for key in raw:
        if key not in KEYS:
            raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), KEYS)}")
    for key in ("name", "tasks"):
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            raise SpecError(f"{field}: {key!r} is missing, or no text: {raw.get(key)!r}")
    irreversible = parse_flag(f"{field}.irreversible", raw.get("irreversible", False))
    if irreversible == bool(raw.get("reverse")):
        raise SpecError(
            f"{field}: {raw['name']!r} needs either reverse, the task file that takes it back, or irreversible: true"
        )
    if "on_irreversible" in raw and not irreversible:
        raise SpecError(f"{field}.on_irreversible: {raw['name']!r} can be reversed, so that it has no meaning")
    run_on = str(raw.get("run_on", CONTROLLER))
    if run_on != CONTROLLER and run_on not in hosts:
        raise SpecError(f"{field}.run_on: there is no host {run_on!r} in the inventory: name one, or {CONTROLLER}")
    phase, after = _parse_place(field, raw, [phase.name for phase in phases])
    choice = raw.get("on_irreversible")
    return MigrationSpec(
        name=raw["name"],
        phase=phase,
        after=after,
        run_on=run_on,
        timeout=parse_seconds(f"{field}.timeout", raw.get("timeout", lease), least=1),
        reversible=not irreversible,
        idempotent=parse_flag(f"{field}.idempotent", raw.get("idempotent", False)),
        on_irreversible=choice and parse_choice(f"{field}.on_irreversible", choice, OnIrreversible),
    )


def _parse_place(field: str, raw: Mapping[str, Any], phases: Sequence[str]) -> tuple[str, bool]:
    if "before" in raw and "after" in raw:
        raise SpecError(f"{field}: before and after are both set: a migration has one place")
    key = "after" if "after" in raw else "before"
    name = str(raw.get(key, FIRST))
    known = {FIRST: phases[0], LAST: phases[-1], **{phase: phase for phase in phases}}
    if name not in known:
        raise SpecError(f"{field}.{key}: there is no phase {name!r}: {nearest(name, known)}")
    return known[name], key == "after"


# what a rollout inherits, and plans


def inherited(before: RolloutState) -> dict[str, Applied]:
    """What a new rollout knows of the environment's migrations. One that was running then is in doubt."""
    return {name: replace(_ceased(one), here=False) for name, one in before.migrations.items()}


def _ceased(one: Applied) -> Applied:
    if one.standing is not Standing.RUNNING:
        return one
    return replace(one, standing=Standing.IN_DOUBT, why=f"{one.by}, which ran it, has ended")


def plan_forward(plan: Plan, known: Mapping[str, Applied], release: str) -> Plan:
    """The plan of a deployment. Raises SpecError where migrations that have yet to run are not in the list's order.

    The list is the order in which they were written, and may rely on one another.
    """
    to_run = [one for one in plan.migrations if not is_done(one, known)]
    for earlier, later in pairwise(to_run):
        if _place(later) < _place(earlier):
            raise SpecError(
                f"{FIELD}: {later.name!r} comes after {earlier.name!r}, but would run before it, and neither has run "
                "here: deploy the release first that brought the earlier one, or give both the same place"
            )
    return replace(plan, migrations=tuple(replace(one, release=release) for one in plan.migrations))


def _place(one: PlannedMigration) -> tuple[int, bool]:
    return one.phase, not one.early


def plan_back(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan of a rollback: when all hosts are back, ``names`` are reversed in this order."""
    listed = {one.name: one for one in plan.migrations}
    last = len(plan.phases)
    return replace(
        plan,
        migrations=tuple(replace(listed[name], phase=last, early=True, holds=False, back=True) for name in names),
    )


@dataclass(frozen=True)
class WayBack:
    """What becomes of migrations on a way back: those that are reversed, in this order, and those that stay.

    ``barrier`` is the newest that cannot be reversed; what ran before it stays as well, since it may rely on that.
    """

    reverses: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()

    @property
    def barrier(self) -> str:
        return self.stays[0] if self.stays else ""


def way_back(known: Mapping[str, Applied], kept: Container[str], reversible: Container[str]) -> WayBack:
    """The way back of all that is ``known`` and not ``kept``, newest first."""
    newest_first = sorted((name for name in known if name not in kept), key=lambda name: -known[name].nth)
    barred = next((nth for nth, name in enumerate(newest_first) if name not in reversible), len(newest_first))
    return WayBack(tuple(newest_first[:barred]), tuple(newest_first[barred:]))


# what is due


def due(plan: Plan, state: RolloutState) -> PlannedMigration | None:
    """The migration that has to run before anything else goes on; None where none does.

    On the way back that is a reversal, and only when no host runs the new release any more, which may need it.
    """
    if not plan.migrations or state.status is Status.GATING or state.status.ended:
        return None
    if state.status is Status.TURNING_BACK:
        return _to_reverse(plan, state)
    reached = len(plan.phases) if state.status is Status.ROLLED else state.phase
    ahead = [one for one in plan.migrations if one.phase <= reached and not is_done(one, state.migrations)]
    if not ahead or (ahead[0].back and _left_behind(state)):
        return None
    return min(ahead, key=_place)


def is_done(planned: PlannedMigration, known: Mapping[str, Applied]) -> bool:
    """Whether it has run, or is reversed where the plan goes back."""
    one = known.get(planned.name)
    return one is None if planned.back else one is not None and one.standing is Standing.APPLIED


def _left_behind(state: RolloutState) -> bool:
    """Whether a rollback that is through left hosts on the release that it goes back from."""
    return bool(state.count(_NOT_GONE_BACK))


def _to_reverse(plan: Plan, state: RolloutState) -> PlannedMigration | None:
    way = of_turning_back(plan, state)
    if not way.reverses:
        return None
    planned = next(one for one in plan.migrations if one.name == way.reverses[0])
    return replace(planned, back=True)


def of_turning_back(plan: Plan, state: RolloutState) -> WayBack:
    """What becomes of the migrations of this rollout when it turns back. They stay where hosts of the release do."""
    here = {name: one for name, one in state.migrations.items() if one.here}
    if plans_back(plan):
        return WayBack()
    hosts_stay = state.scope is Scope.NONE or state.count(_MAY_RUN_THE_NEW_RELEASE) or state.down
    return way_back(here, (), () if hosts_stay else {one.name for one in plan.migrations if one.reversible})


def plans_back(plan: Plan) -> bool:
    """Whether it is a rollback's, which reverses when its hosts are through."""
    return any(one.back for one in plan.migrations)


def running(state: RolloutState) -> list[tuple[str, Applied]]:
    """The migration that is under way, if one is; there is never more than one."""
    return [(name, one) for name, one in state.migrations.items() if one.standing is Standing.RUNNING]


def bars_turning_back(plan: Plan, state: RolloutState) -> str:
    """Why a person has to decide whether the rollout turns back; empty where it may by itself."""
    if plans_back(plan):
        names = [*state.reversed_here, *(name for name, one in state.migrations.items() if one.back)]
        return f"migration {', '.join(names)} has been reversed, or begun to be" if names else ""
    names = [one.name for one in plan.migrations if one.holds and _ran_here(state.migrations.get(one.name))]
    return f"migration {', '.join(names)} has run and cannot be reversed" if names else ""


def _ran_here(one: Applied | None) -> bool:
    return one is not None and one.here


def may_rerun(planned: PlannedMigration, known: Applied) -> bool:
    """Whether what is in doubt is run again without a person's word: the same direction, and idempotent."""
    return known.again and known.back == planned.back


def doubt(name: str, known: Applied) -> str:
    """What a person has to know of a migration that is in doubt, and do."""
    what = f"the reversal of migration {name}" if known.back else f"migration {name}"
    order = f"playbooks/migration.yml -e rollout_migration={name} -e rollout_order="
    return (
        f"{what} is in doubt: {known.why}. See how far it came, then run {order}done if it took effect, or "
        f"{order}again if it has to be run again"
    )


def doubts_elsewhere(plan: Plan, known: Mapping[str, Applied]) -> list[str]:
    """What a person has to know of migrations that are in doubt, and that the plan does not have: nothing waits."""
    planned = {one.name for one in plan.migrations}
    return [
        doubt(name, one) for name, one in known.items() if one.standing is Standing.IN_DOUBT and name not in planned
    ]


def missing(plan: Plan, state: RolloutState) -> str:
    """Which migration the rollout lacks to go on; empty where it lacks none."""
    planned = due(plan, state)
    if planned is None:
        return ""
    known = state.migrations.get(planned.name)
    if known and known.standing is Standing.IN_DOUBT:
        return doubt(planned.name, known)
    return f"migration {planned.name} has not been {'reversed' if planned.back else 'run'} yet"
