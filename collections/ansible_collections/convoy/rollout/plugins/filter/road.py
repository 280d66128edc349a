# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of the roles; what they do is in plugin_utils, where it is tested without Ansible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.convoy.rollout.plugins.plugin_utils import road
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    def told(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except ConvoyError as error:
            raise AnsibleFilterError(str(error)) from error

    return told


class FilterModule:
    """``convoy.rollout.*``"""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        functions = (
            road.steps, road.is_ours, road.may_go_on, road.outcome, road.undo, road.serves_old, road.way_back,
            road.sample, road.watch_verdict, road.membership, road.members_up, road.rotation, road.server_names,
            road.without_service, road.unless_confirming, road.tasks_file,
        )  # fmt: skip
        return {function.__name__: _filter(function) for function in functions}
