# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an environment allows at this moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

FREEZE_KEYS = ("name", "from", "until")


class PolicyError(ConvoyError):
    """The environment's policy does not allow this now."""

    reason = "policy"


def refuse_when_frozen(freezes: Sequence[Mapping[str, Any]], now: float, override: str) -> str:
    """Raise PolicyError during a freeze; with ``override`` (a reason) say instead what was overridden.

    ``freezes``: mappings with name, from and until (ISO 8601, with a time zone; without one: UTC).
    """
    for index, freeze in enumerate(freezes):
        field = f"environment_freezes[{index}]"
        for key in freeze:
            if key not in FREEZE_KEYS:
                raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), FREEZE_KEYS)}")
        begin, end = (_moment(f"{field}.{key}", freeze.get(key)) for key in ("from", "until"))
        if end <= begin:
            raise SpecError(
                f"{field}: it ends at {end.isoformat()}, before it begins at {begin.isoformat()}: "
                "exchange from and until"
            )
        if not begin.timestamp() <= now < end.timestamp():
            continue
        name = freeze.get("name", field)
        if not override:
            raise PolicyError(
                f"the environment is frozen ({name}) until {end.isoformat()}: wait, or give a reason with "
                "-e rollout_freeze_override='...'; rolling back is always allowed"
            )
        return f"the freeze {name} was overridden: {override}"
    return ""


def _moment(field: str, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise SpecError(f"{field}: {value!r} is no time: write it like '2026-12-24T00:00:00+01:00'") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
