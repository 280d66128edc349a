# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a load balancer's servers, refused where it would mean nothing."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping


def check(params: Mapping[str, Any], numbers: Iterable[str], place: str) -> None:
    """Raise TrafficError for parameters named in `numbers` below 0, and for `servers` and `away` that are no request.

    `place`: what has the servers, for messages.
    """
    for name in numbers:
        if params[name] < 0:
            raise TrafficError(f"{name} is {params[name]}: must be 0 or more")
    if not params["servers"] and not (params["state"] == "switched" and params["away"]):
        raise TrafficError(f"servers is empty: name at least one server of the {place}")
    both = sorted(set(params["servers"]) & set(params["away"]))
    if both:
        raise TrafficError(f"{', '.join(both)} in servers and in away: a server is put in service or taken out of it")
