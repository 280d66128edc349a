# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metric gates of a site: named once, asked by the phases that want them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import (
    Metric,
    MetricGate,
    Options,
    parse_gate,
    parse_metrics,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import HAProxy
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    PhaseSpec,
    SpecError,
    nearest,
    parse_seconds,
)

INTERVAL = 10.0  # seconds between two looks
OPTIONS = ("interval", "before", "score", "timeout", "ca_path")
SCHEME = "haproxy://"


@dataclass(frozen=True)
class Balancers:
    """The load balancers of the site, by their names in the inventory: whose counters a gate reads by default."""

    hosts: tuple[str, ...] = ()
    backend: str = ""

    @property
    def source(self) -> HAProxy | None:
        """The source of gates that name none."""
        if not self.hosts:
            return None
        return HAProxy(tuple(f"{SCHEME}{host}" for host in self.hosts), self.backend)

    @staticmethod
    def named(url: str) -> str:
        """Which of them the address of a request means; empty where it is an address of another kind."""
        return url.removeprefix(SCHEME) if url.startswith(SCHEME) else ""


def check_gates(gates: Any, options: Any, phases: Sequence[PhaseSpec], balancers: Balancers) -> None:
    """Refuse gates that cannot be used, before anything is touched. Raises SpecError."""
    known = {metric.name: metric for metric in metrics_of(gates, balancers)}
    _check_options(options)
    for phase in phases:
        for name in phase.gates:
            if name not in known:
                raise SpecError(
                    f"rollout_phases: phase {phase.name!r} asks the gate {name!r}, which is not in rollout_gates: "
                    f"{nearest(name, known)}"
                )
        if phase.gates and not phase.bake:
            raise SpecError(f"rollout_phases: phase {phase.name!r} asks gates, but its bake time is 0: give it one")
    for name in phases[-1].gates:
        if known[name].compares and not known[name].before:
            raise SpecError(
                f"rollout_phases: phase {phases[-1].name!r} is the last, and leaves no host on the old release to "
                f"compare with, but its gate {name!r} does: judge it by a threshold, or leave it to an earlier phase"
            )


def metrics_of(gates: Any, balancers: Balancers) -> tuple[Metric, ...]:
    """The gates that ``rollout_gates`` defines, each a metric with the name of its key. Raises SpecError."""
    if not isinstance(gates, Mapping):
        raise SpecError(f"rollout_gates: {gates!r} is no mapping: write a gate below its name")
    raw = []
    for name, gate in gates.items():
        if gate is not None and not isinstance(gate, Mapping):
            raise SpecError(f"rollout_gates.{name}: {gate!r} is no gate: write it as a mapping")
        raw.append({"name": str(name), **(gate or {})})
    fields = [f"rollout_gates.{one['name']}" for one in raw]
    return parse_metrics(raw, balancers.source, fields)


def asked_of(arguments: Mapping[str, Any], seconds: float, balancers: Balancers) -> MetricGate | None:
    """The gates that are asked, over both sides, for so many seconds; None where none is. Raises SpecError.

    ``sides`` has the hosts of the canary and of the baseline, and the zones of both.
    """
    known = {metric.name: metric for metric in metrics_of(arguments["gates"], balancers)}
    sides = arguments["sides"]
    canary, baseline = sides.get("canary", []), sides.get("baseline", [])
    out = left_out(arguments, balancers)
    names = [name for name in known if name not in out] if arguments["ask"] is None else arguments["ask"]
    for name in names:
        if name not in known:
            raise SpecError(f"rollout_gates: the gate {name!r}, which is asked, is not there: {nearest(name, known)}")
    if not names:
        return None
    options = _check_options(arguments["options"])
    asked = {
        "metrics": tuple(known[name] for name in names),
        "canary": canary,
        "baseline": baseline,
        "zones": _matching(sides.get("zones", {}), canary, baseline),
        "names": arguments["names"],
        "before": options.get("before"),
        "duration": seconds,
        "interval": options.get("interval", INTERVAL),
        "ends_early": False,
        "score": options.get("score"),
    }
    return parse_gate(asked)


def left_out(arguments: Mapping[str, Any], balancers: Balancers) -> list[str]:
    """The gates that cannot be asked where nobody chose any: those that compare hosts, when there is no baseline."""
    if arguments["ask"] is not None or arguments["sides"].get("baseline"):
        return []
    metrics = metrics_of(arguments["gates"], balancers)
    return [metric.name for metric in metrics if metric.compares and not metric.before]


def _check_options(raw: Any) -> Mapping[str, Any]:
    options = Options("rollout_gate_options", raw, "mapping of options", OPTIONS)
    parse_seconds("rollout_gate_options.interval", options.raw.get("interval", INTERVAL), least=0.1)
    parse_seconds("rollout_gate_options.timeout", options.raw.get("timeout", 10.0), least=0.1)
    return options.raw


def _matching(zones: Mapping[str, str], canary: Sequence[str], baseline: Sequence[str]) -> Mapping[str, str]:
    """The zones, as far as there is a host to compare with in one of the canary's; else they do not matter."""
    shared = {zones.get(host, "") for host in canary} & {zones.get(host, "") for host in baseline}
    return zones if shared else {}
