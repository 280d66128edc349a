# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blue and green: which colour serves, by the load balancers, and which way they are to be switched. Pure.

A host's ``rotation`` is what each load balancer says of it: ``up``, ``down`` (it would get requests, were it
healthy), or a word for being out of service. No record is believed, only what the load balancers say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import (
    HostFacts,
    Plan,
    Switch,
    make_switch_plan,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import COLOURS, RolloutSpec
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import Status, Traffic
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.fleet import FleetError, Reading, targets_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import RolloutView

Rotation = Mapping[str, Sequence[str]]
Colours = Mapping[str, Sequence[str]]


class ColourError(ConvoyError):
    """It cannot be told which colour is live; nothing was touched."""

    reason = "colour"


@dataclass(frozen=True)
class Draft:
    """What a rollout would do, with the hosts that it moves as they were ``seen``.

    ``done``: it is done already; then ``runs`` is what each host runs, and ``lines`` what else is to be told.
    ``traffic`` is where the load balancers stand that the plan switches.
    """

    plan: Plan
    seen: Mapping[str, HostFacts]
    done: bool
    runs: Mapping[str, str | None]
    traffic: Traffic = Traffic.OLD
    lines: Sequence[str] = ()


def draft(
    checked: Mapping[str, Any],
    spec: RolloutSpec,
    latest: RolloutView | None,
    readings: Sequence[Reading],
    target: Callable[[], Callable[[Reading], str]],
) -> Draft:
    """The plan for two colours: the idle one goes to the release, then the load balancers are switched to it.

    It is done where all that serve run the release for good. ``target`` gives what release a host is to run, for
    everything but a rollback that names no version: that one goes to what the standby runs.
    """
    of_colours, rotation, version = checked["colours"], checked["rotation"], checked["version"]
    switch = direction(of_colours, rotation, readings, checked["kind"], version, latest)
    traffic = stand(switch, of_colours, rotation)
    coming, leaving = (_of(readings, of_colours[colour]) for colour in (switch.coming, switch.leaving))
    back = checked["kind"] == "rollback"
    live = [reading for reading in leaving if reading.name in serving(of_colours[switch.leaving], rotation)]
    if back and not version:
        goals = standing_release(coming, switch.coming, latest)
        done, goal = False, _by_name(goals)
    elif back and live and all(_version(reading) == version and reading.facts("").serves for reading in live):
        done, goal = True, _active
    else:
        goal = target()
        done = (
            bool(live) and not back and all(reading.facts(goal(reading)).settled_on(goal(reading)) for reading in live)
        )
    # the hosts of the idle colour do not serve, and have not to
    seen = {name: replace(facts, in_service=True) for name, facts in targets_of(coming, goal).items()}
    standby = [reading.facts(str(reading.active or "")) for reading in leaving]
    plan = make_switch_plan(spec, list(seen.values()), standby, switch)
    switched = traffic is Traffic.NEW and not plan.pending
    runs = {reading.name: reading.active for reading in readings}
    done = done and traffic is Traffic.OLD
    return Draft(plan, seen, done or switched, runs, traffic, status_lines(of_colours, rotation))


def _by_name(goals: Mapping[str, str]) -> Callable[[Reading], str]:
    return lambda reading: goals[reading.name]


def _active(reading: Reading) -> str:
    return str(reading.active)


def _of(readings: Sequence[Reading], hosts: Sequence[str]) -> list[Reading]:
    return [reading for reading in readings if reading.name in set(hosts)]


def opening_lines(draft: Draft, view: RolloutView) -> list[str]:
    """What was read of the load balancers where a run died that was switching them."""
    switch = draft.plan.switch
    if switch is None or draft.traffic is Traffic.OLD:
        return []
    half = draft.traffic is Traffic.BETWEEN
    found = f"the load balancers are {'half switched' if half else 'switched'} from {switch.leaving} to {switch.coming}"
    if view.status is Status.TURNING_BACK:
        return [f"{found}: they are switched back"]
    return [f"{found}: the switch is finished" if half else f"{found}: the gate is asked again"]


def other(colour: str) -> str:
    """The colour that it is not."""
    return COLOURS[1 - COLOURS.index(colour)]


def serving(hosts: Sequence[str], rotation: Rotation) -> list[str]:
    """The hosts that get requests from some load balancer."""
    return [host for host in hosts if "up" in rotation.get(host, ())]


def live_colour(colours: Colours, rotation: Rotation) -> str | None:
    """The colour that the load balancers send requests to; None where that is both, or neither.

    Where nobody is healthy it is the colour that would get them.
    """
    for states in ({"up"}, {"up", "down"}):
        lit = [colour for colour in COLOURS if any(states & set(rotation.get(host, ())) for host in colours[colour])]
        if lit:
            return lit[0] if len(lit) == 1 else None
    return None


def stand(switch: Switch, colours: Colours, rotation: Rotation) -> Traffic:
    """Where the load balancers stand, on the way of ``switch``. New is what every one of them has switched to."""
    coming, leaving = colours[switch.coming], colours[switch.leaving]
    if not serving(coming, rotation):
        return Traffic.OLD
    whole = all(set(rotation[host]) == {"up"} for host in serving(coming, rotation))
    left = not any({"up", "down"} & set(rotation.get(host, ())) for host in leaving)
    return Traffic.NEW if whole and left else Traffic.BETWEEN


def direction(
    colours: Colours,
    rotation: Rotation,
    readings: Sequence[Reading],
    kind: str,
    version: str | None,
    left: RolloutView | None,
) -> Switch:
    """Which colour is to be switched to. Raises ColourError, saying what to do, where the load balancers do not tell.

    ``left`` is the newest rollout: one that has not ended goes on in its direction, and a rollback turns one round
    that did not come to its end.
    """
    _refuse_unknown(colours, rotation)
    before = left.plan.switch if left is not None else None
    if left is not None and before is not None and _goes_on(left, kind, version):
        return before
    if before is not None and kind == "rollback" and left is not None and _stopped_on_its_way(left):
        return _switch(before.leaving, colours, rotation, readings)
    live = live_colour(colours, rotation)
    if live is not None:
        return _switch(other(live), colours, rotation, readings)
    if not any(reading.active for reading in readings):
        return _switch(COLOURS[0], colours, rotation, readings)
    raise ColourError(
        _cannot_tell(colours, rotation, before is not None and left is not None and not left.status.ended)
    )


def _goes_on(left: RolloutView, kind: str, version: str | None) -> bool:
    same = left.facts["kind"] == kind and (not version or version == left.facts["version"])
    return not left.status.ended and same


def _stopped_on_its_way(left: RolloutView) -> bool:
    return left.status not in (Status.SUCCEEDED, Status.REVERTED)


def _switch(coming: str, colours: Colours, rotation: Rotation, readings: Sequence[Reading]) -> Switch:
    leaving = other(coming)
    nothing = {reading.name for reading in readings if reading.reachable and reading.active is None}
    would_serve = [host for host in colours[leaving] if host not in nothing and {"up", "down"} & set(rotation[host])]
    return Switch(coming, leaving, tuple(would_serve))


def _refuse_unknown(colours: Colours, rotation: Rotation) -> None:
    for colour in COLOURS:
        missing = [host for host in colours[colour] if not rotation.get(host)]
        if missing:
            raise ColourError(
                f"no load balancer knows {', '.join(missing[:5])} of {colour}: every host of both colours has to be a "
                "server of the backend; add it, or name its server in traffic_haproxy_servers or "
                "traffic_nginx_servers"
            )


def _cannot_tell(colours: Colours, rotation: Rotation, interrupted: bool) -> str:
    lit = {colour: serving(colours[colour], rotation) for colour in COLOURS}
    if not any(lit.values()):
        return (
            "neither colour is in service, though releases are deployed, so that it cannot be told which one is live: "
            "put the one back that is to be, with playbooks/reconcile.yml and -e rollout_target=<its group>"
        )
    told = "; ".join(f"{colour}: {', '.join(hosts)}" for colour, hosts in lit.items())
    ways = (
        "run the interrupted command again, which finishes its switch, or rollback.yml, which goes back"
        if interrupted
        else "take the one out at the load balancers that is not to be live"
    )
    return f"both colours are in service ({told}), so that it cannot be told which one is live: {ways}"


def standing_release(readings: Sequence[Reading], colour: str, left: RolloutView | None) -> dict[str, str]:
    """What each host of the standby runs, to be switched back to. Raises FleetError where it is not one good version.

    A rollback that is asked for twice does not go forward again by itself to what was rolled back from.
    """
    if left is not None and left.status is Status.SUCCEEDED and left.facts["kind"] == "rollback":
        raise FleetError(
            f"the last rollout, {left.id}, was a rollback already: {colour} is what it went back from. To go there "
            "all the same name its version with -e component_version=..."
        )
    known = {reading.name: reading for reading in readings if reading.reachable}
    versions = {name: _version(reading) for name, reading in known.items()}
    if not known or None in versions.values():
        without = [name for name, version in versions.items() if version is None] or [r.name for r in readings]
        raise FleetError(
            f"there is no release to switch back to: {', '.join(without[:5])} of {colour} has none that is active. "
            "Name a version with -e component_version=..., or deploy one"
        )
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise FleetError(f"{colour} runs several versions ({told}): name one with -e component_version=...")
    return {name: str(reading.active) for name, reading in known.items()}


def _version(reading: Reading) -> str | None:
    releases = {release["id"]: release for release in reading.read.get("releases", ())}
    return str(releases[reading.active]["version"]) if reading.active in releases else None


def left_out(readings: Sequence[Reading], colours: Colours, rotation: Rotation) -> list[str]:
    """The hosts that ought to serve and do not. Those of the colour on standby do not have to.

    Where neither colour is in service, those of the only one that was asked about.
    """
    names = [reading.name for reading in readings if reading.left_out]
    if not colours:
        return names
    asked = [colour for colour in COLOURS if {reading.name for reading in readings} & set(colours[colour])]
    live = live_colour(colours, rotation) or (asked[0] if len(asked) == 1 else None)
    nobody = not any(serving(colours[colour], rotation) for colour in COLOURS)
    if nobody and len(asked) == 1:
        live = asked[0]
    return [name for name in names if live is not None and name in colours[live]]


def status_lines(colours: Colours, rotation: Rotation) -> list[str]:
    """Which colour is live, and which one is on standby."""
    if not colours:
        return []
    live = live_colour(colours, rotation)
    if live is None:
        return ["live: it cannot be told, since both colours or neither are in service"]
    return [
        f"live: {live} ({len(serving(colours[live], rotation))} of {len(colours[live])} hosts in service); "
        f"{other(live)} is on standby"
    ]
