# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was read from the fleet, made into what the coordinator plans with. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import Health, HostFacts
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

SKEW_WARN = 30.0  # seconds that a host's clock may differ before it is said
SKEW_REFUSE = 300.0  # seconds from which nothing is deployed to it


class FleetError(ConvoyError):
    """The hosts cannot take what is asked; the message names each one and its reason."""

    reason = "fleet"


@dataclass(frozen=True)
class Reading:
    """What ``release_info`` said of one host; ``read`` is its result, or says why there is none.

    ``in_service`` is what the load balancer says (None: no load balancer, or it does not know the host);
    ``skew`` is how many seconds the host's clock is ahead of the controller's.
    """

    name: str
    read: Mapping[str, Any]
    zone: str = ""
    in_service: bool | None = None

    @property
    def reachable(self) -> bool:
        """Whether it could be read: release_info says of every host what is active, be it nothing."""
        return "active" in self.read

    @property
    def trouble(self) -> str:
        """Why it could not be read."""
        return (str(self.read.get("msg") or "").strip() or "it was not read").splitlines()[0]

    @property
    def active(self) -> str | None:
        return self.read.get("active")

    @property
    def skew(self) -> float:
        return float(self.read.get("clock_skew", 0.0))

    @property
    def health(self) -> Health:
        verdict = (self.read.get("health") or {}).get("verdict")
        if verdict == "pass":
            return Health.HEALTHY
        return Health.UNHEALTHY if verdict == "fail" else Health.UNKNOWN

    def has(self, release: str) -> bool:
        """Whether the host has the release already."""
        return any(known["id"] == release for known in self.read.get("releases", ()))

    def would_prune(self, release: str, keep: int) -> list[str]:
        """The good releases that the host will not keep once it runs ``release``."""
        good = [release, *(known for known in self.read.get("good", ()) if known != release)]
        return [known for known in good[max(keep, 1) :] if known != self.active]

    @property
    def left_out(self) -> bool:
        """Whether it could serve, but a load balancer has it out."""
        sound = self.health is Health.HEALTHY and not self.read.get("unconfirmed") and not self.read.get("problems")
        return self.in_service is False and self.reachable and self.active is not None and sound

    def facts(self, target: str) -> HostFacts:
        """As the coordinator sees it, on its way to ``target``."""
        return HostFacts(
            name=self.name,
            target=target,
            active=self.active,
            zone=self.zone,
            health=self.health,
            confirmed=not self.read.get("unconfirmed") and not self.read.get("unsettled"),
            in_service=self.in_service is not False,
            reachable=self.reachable,
        )


def readings_of(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], membership: Mapping[str, bool]
) -> list[Reading]:
    """The readings that the play before left in the hosts' variables, with what the load balancers said."""
    readings, at_once = [], done_at_once("rollout_reads", hosts, hostvars)
    for name in hosts:
        variables = hostvars[name]
        read = at_once.get(name) or variables.get("component_read") or {}
        readings.append(Reading(name, read, str(variables.get("zone", "")), membership.get(name)))
    return readings


def done_at_once(
    registered: str, hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """The results of hosts that took a step at once, by their names: every host has those of all of them.

    Ansible's variables are taken as they were registered: there is nothing to template in them, and much to search.
    """
    variables = getattr(hostvars, "raw_get", hostvars.__getitem__)
    found = (variables(name).get(registered) for name in hosts)
    return next((one.get("results", {}) for one in found if one), {})


def targets_of(readings: Sequence[Reading], target: Callable[[Reading], str]) -> dict[str, HostFacts]:
    """Every host with the release that it is to run; one that could not be read gets what most others get."""
    wanted = {reading.name: target(reading) for reading in readings if reading.reachable}
    if not wanted:
        raise FleetError("no host could be reached: " + _list(f"{r.name}: {r.trouble}" for r in readings))
    usual = Counter(wanted.values()).most_common(1)[0][0]
    return {reading.name: reading.facts(wanted.get(reading.name, usual)) for reading in readings}


def last_good(readings: Sequence[Reading]) -> Callable[[Reading], str]:
    """Where each host goes when nobody names a version: the last good release of what most of the fleet runs.

    A host that is there already stays. Raises FleetError naming the hosts that have nothing to go back to.
    """
    reached = [reading for reading in readings if reading.reachable]
    leaving = Counter(reading.active for reading in reached).most_common(1)[0][0] if reached else None
    goals = Counter(r.read["last_good"] for r in reached if r.active == leaving and r.read.get("last_good"))
    if not goals:
        raise FleetError(
            f"there is no good release to roll back to: the hosts run {leaving or 'nothing'}, and none before it is "
            "known to be good. Name a version with -e component_version=..."
        )
    goal: str = goals.most_common(1)[0][0]
    version = _version(reached, goal)
    only_configured = leaving is not None and _version(reached, leaving) == version

    def back(reading: Reading) -> str:
        """The release itself where the host has it; else its own of that version, where configuration differs."""
        if goal in (reading.active, *reading.read.get("good", ())):
            return goal
        own = str(reading.read.get("last_good"))
        return own if only_configured and _version([reading], own) == version else _good_release(reading, version)

    return back


def known_version(version: str) -> Callable[[Reading], str]:
    """The newest good release of ``version`` that a host still has. Raises FleetError for a host without one."""
    return lambda reading: _good_release(reading, version)


def _good_release(reading: Reading, version: str) -> str:
    releases = {release["id"]: release for release in reading.read.get("releases", ())}
    candidates = [reading.active, *reading.read.get("good", ())]
    for release in candidates:
        if release in releases and releases[release].get("version") == version:
            return str(release)
    raise FleetError(
        f"{reading.name} has no good release of version {version}: it has "
        f"{_list(sorted({str(r.get('version')) for r in releases.values()}))}. Deploy {version} instead"
    )


def version_of(readings: Sequence[Reading], seen: Mapping[str, HostFacts]) -> str:
    """The version of the release that most hosts are to run, as the hosts know it."""
    return _version(readings, Counter(facts.target for facts in seen.values()).most_common(1)[0][0])


def _version(readings: Iterable[Reading], release: str) -> str:
    known = (known for reading in readings for known in reading.read.get("releases", ()))
    return next((str(one["version"]) for one in known if one["id"] == release), release)


def objections(readings: Sequence[Reading], need_bytes: int, kind: str | None = None) -> list[str]:
    """Why hosts cannot take the release, one sentence each; checked before any of them is touched.

    ``kind`` is the component's (None: it does not matter).

    What a release mends (a service that has failed, an activation that did not end) is no objection to it.
    """
    found = []
    for reading in readings:
        if not reading.read:
            found.append(
                f"{reading.name}: it was not read. If --limit leaves it out, choose hosts with -e rollout_target=... "
                "instead; else see what failed above"
            )
        if not reading.reachable:
            continue
        if reading.read.get("obstacle"):
            found.append(f"{reading.name}: {reading.read['obstacle']}")
        has = reading.read.get("kind") or kind
        if kind is not None and has != kind:
            found.append(
                f"{reading.name}: it runs the component as {has}, component_kind is {kind}: give the new one another "
                "component_name, and take the old one away yourself"
            )
        free = reading.read.get("free_bytes")
        if free is not None and free < need_bytes:
            found.append(
                f"{reading.name}: {free / 1e6:.0f} MB are free, {need_bytes / 1e6:.0f} MB are needed for two copies of "
                "the release: make room, or lower component_keep"
            )
        if abs(reading.skew) > SKEW_REFUSE:
            found.append(f"{reading.name}: its clock is {reading.skew:+.0f} s off, {SKEW_REFUSE:.0f} s are the limit")
    return [*found, *_aliases(readings)]


def doubts(readings: Sequence[Reading]) -> list[str]:
    """Hosts on which tasks that may not run again were begun, and nobody knows whether they are done."""
    return [
        f"{reading.name}: the tasks that put {unsettled['release']} in place were begun, and it is not known whether "
        "they are done. See how far they came, then run this again with -e component_in_doubt=done if they are, or "
        "with -e component_in_doubt=again if they may run once more"
        for reading in readings
        for unsettled in [reading.read.get("unsettled")]
        if unsettled and not unsettled["is_known"]
    ]


def _aliases(readings: Sequence[Reading]) -> Iterator[str]:
    """Hosts that the inventory has more than once: each would be counted, and changed, as often as it has names."""
    names: dict[str, list[str]] = {}
    for reading in readings:
        if reading.read.get("place"):
            names.setdefault(reading.read["place"], []).append(reading.name)
    for several in names.values():
        if len(several) > 1:
            yield f"{' and '.join(several)} are the same host: keep one of the names in the inventory"


def unread(readings: Sequence[Reading]) -> list[str]:
    """Hosts that could not be read, and why."""
    return [f"{reading.name} cannot be read: {reading.trouble}" for reading in readings if not reading.reachable]


def skewed(readings: Sequence[Reading]) -> list[str]:
    """Hosts whose clocks are off by more than is normal."""
    return [
        f"{reading.name}: its clock is {reading.skew:+.0f} s off"
        for reading in readings
        if reading.reachable and abs(reading.skew) > SKEW_WARN
    ]


def _list(items: Iterable[str]) -> str:
    listed = list(items)
    return ("; ".join(listed[:5]) + (f"; and {len(listed) - 5} more" if len(listed) > 5 else "")) or "none"
