# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the gate of a phase is still awaited: an abort ends a watch before its bake time is over."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gate_open
short_description: Whether the gate of a phase is still to be answered
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Asks the ledger whether the rollout waits for the gate of a phase that has closed. It does so no more when somebody
    has aborted it. A ledger that cannot be read is taken for a yes.
options:
  _terms:
    description: The rollout's id.
    required: true
  ledger_url:
    description: The ledger, as an SQLAlchemy URL.
    type: str
    required: true
  stream:
    description: The environment and the component, with a slash between them.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say whether the gate is still to be answered
  ansible.builtin.debug:
    msg: >-
      {{ query('convoy.rollout.gate_open', rollout_current.rollout, ledger_url=environment_ledger_url,
      stream=rollout_current.stream) | first }}
"""

RETURN = r"""
_raw:
  description: One element for each rollout.
  type: list
  elements: bool
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Rollouts
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import Ledger
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run


class LookupModule(LookupBase):
    """``convoy.rollout.gate_open``"""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[bool]:
        """The answers, in the order of the rollouts."""
        for name in ("ledger_url", "stream"):
            if name not in kwargs:
                raise AnsibleLookupError(f"gate_open: {name} is not given")
        rollouts = Rollouts(Ledger(kwargs["ledger_url"], str(this_run())), kwargs["stream"])
        return [_is_open(rollouts, rollout) for rollout in terms]


def _is_open(rollouts: Rollouts, rollout: str) -> bool:
    """A ledger that cannot be read ends no watch: whoever records the verdict will say so."""
    try:
        return rollouts.standing(rollout).state.gate is not None
    except ConvoyError:
        return True
