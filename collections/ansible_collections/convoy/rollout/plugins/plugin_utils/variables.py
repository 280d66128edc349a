# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which variables exist: those that the roles' argument specs name. A misspelt one is refused, not ignored.

``REGISTERED`` are those that the roles set themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest

PREFIXES = ("component_", "rollout_", "environment_", "traffic_", "depot_", "publish_", "ledger_", "drift_")
REGISTERED = frozenset(
    {
        "component_activated", "component_awaited", "component_begun", "component_confirmed", "component_drift",
        "component_previous", "component_pruned", "component_read", "component_release", "component_reverted",
        "component_staged",
        "component_task_failed", "component_task_file",
        "rollout_admission", "rollout_balancers", "rollout_checked", "rollout_current", "rollout_decided",
        "rollout_drift", "rollout_expected", "rollout_failed", "rollout_gate_hosts", "rollout_migrated",
        "rollout_migrating", "rollout_migration_due", "rollout_migration_failed", "rollout_migration_files",
        "rollout_migration_host", "rollout_opened", "rollout_phase_failed", "rollout_reads", "rollout_report",
        "rollout_results", "rollout_road", "rollout_road_back", "rollout_road_forward", "rollout_road_stage",
        "rollout_roads", "rollout_stage_failed", "rollout_staged", "rollout_stages", "rollout_status",
        "rollout_switch", "rollout_switched", "rollout_watch", "rollout_way_back_failed",
        "traffic_answers", "traffic_balancers", "traffic_drained", "traffic_min_up", "traffic_rollout",
        "traffic_servers", "traffic_switch", "traffic_switch_checked", "traffic_switched", "traffic_undrained",
    }
)  # fmt: skip
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one, where PyYAML has it
ROLES = Path(__file__).parents[2] / "roles"


@cache
def known_variables() -> frozenset[str]:
    """The options of all roles of the collection."""
    names: set[str] = set()
    for spec in ROLES.glob("*/meta/argument_specs.yml"):
        for entry in yaml.load(spec.read_bytes(), Loader=LOADER)["argument_specs"].values():
            names |= entry.get("options", {}).keys()
    return frozenset(names)


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise SpecError for a variable with one of our prefixes that no role knows."""
    known = known_variables()
    for name in names:
        if name.startswith(PREFIXES) and name not in known and name not in REGISTERED:
            prefix = name.partition("_")[0]
            alike = [word for word in known if word.startswith(prefix)] or known
            raise SpecError(f"unknown variable {name}: {nearest(name, alike)}")
