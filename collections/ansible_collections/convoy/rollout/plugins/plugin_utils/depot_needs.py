# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions the hosts of environments still need, by their ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.audit import audit
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.releases import held_in, streams_in
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger, LedgerError, not_intact

Needs = dict[str, dict[str, set[str]]]


def versions_needed(ledgers: Mapping[str, Any], keep: int, actor: str) -> Needs:
    """The versions that hosts run or could go back to, by environment and component.

    ``ledgers``: a URL for each environment; ``keep``: how many good releases a host keeps. Raises LedgerError for a
    ledger that cannot be read, or that is not as it was written: nothing is known of the hosts then.
    """
    if keep < 1:
        raise SpecError(f"component_keep: {keep} is out of range: a host keeps at least 1 release")
    return {environment: _of_environment(environment, url, keep, actor) for environment, url in ledgers.items()}


def _of_environment(environment: str, url: Any, keep: int, actor: str) -> dict[str, set[str]]:
    if not isinstance(url, str):
        raise SpecError(f"depot_ledgers.{environment}: this is no URL: write it as environment_ledger_url")
    try:
        ledger = Ledger(url, actor, reads_only=True)
        ledger.expect()
        with ledger.reading() as connection:
            needs = {}
            for stream in streams_in(connection, environment):
                found = audit(connection, stream, 1)
                if found.broken:
                    raise not_intact(stream, found.broken)
                if found.differs:
                    raise LedgerError(f"the tables of {stream} are not what its events say: {found.differs[0]}")
                needs[stream.removeprefix(f"{environment}/")] = held_in(connection, stream, keep)
            return needs
    except LedgerError as error:
        raise LedgerError(
            f"what the hosts of {environment} run or could go back to cannot be told, so nothing was collected: {error}"
        ) from error
