# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counters that only grow, until what keeps them starts again from 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Series = tuple[str, str]  # the host, and what tells its series apart
Counters = Mapping[Series, float]


def increments(before: Counters, now: Counters, known: Iterable[str]) -> dict[str, float]:
    """How much the counters of each host grew, over all its series.

    One that fell has started again: all it shows has come since. A series that is new on a host of ``known``, which was
    read before, has begun at 0; any other new one says nothing yet.
    """
    hosts = set(known)
    grown: dict[str, float] = {}
    for (host, key), value in now.items():
        if (host, key) not in before and host not in hosts:
            continue
        last = before.get((host, key), 0.0)
        grown[host] = grown.get(host, 0.0) + (value - last if value >= last else value)
    return grown


def hosts_of(counters: Iterable[Series]) -> set[str]:
    """The hosts that have a series there."""
    return {host for host, _key in counters}
