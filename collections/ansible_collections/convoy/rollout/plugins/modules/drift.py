#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/drift.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drift
short_description: Say which hosts are not as the ledger says that they were left
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - With O(state=expected) reads in the ledger which release each host was left with. With O(state=compared) puts beside
    that what M(convoy.rollout.drift_info) said of the hosts meanwhile, registered as C(component_drift).
  - Fails where a host drifted. Where that cannot be told, because a host could not be looked at, the ledger could not
    be read, or a variable is wrong, it is unreachable instead, so that the exit code tells the two apart, 2 and 4.
options:
  state:
    description: Which half of the work is done.
    type: str
    required: true
    choices: [expected, compared]
  ledger_url:
    description:
      - The ledger, as an SQLAlchemy URL. C(sqlite:////path/file.db) for one controller,
        C(postgresql+psycopg://user@host/database) for several.
    type: str
    required: true
  environment:
    description: The environment's name.
    type: str
    required: true
  component:
    description: The component's name.
    type: str
    required: true
  hosts:
    description: The hosts to tell about.
    type: list
    elements: str
    required: true
  expected:
    description: What O(state=expected) returned as RV(expected).
    type: dict
    default: {}
  json:
    description: A file of the controller to which what is found is written, for its owner alone.
    type: path
  fails:
    description: Whether drift is a failure. Otherwise it is only told.
    type: bool
    default: true
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The hosts are not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It only looks, so it does the same in check mode, where it does not write the file O(json).
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.drift_info
  - module: convoy.rollout.status
"""

EXAMPLES = r"""
- name: Read in the ledger what the hosts were left with
  convoy.rollout.drift:
    state: expected
    ledger_url: "{{ environment_ledger_url }}"
    environment: staging
    component: hello
    hosts: "{{ groups['app'] }}"
  register: rollout_expected

- name: Say which hosts drifted, and how
  convoy.rollout.drift:
    state: compared
    ledger_url: "{{ environment_ledger_url }}"
    environment: staging
    component: hello
    hosts: "{{ groups['app'] }}"
    expected: "{{ rollout_expected.expected }}"
    json: /var/lib/monitoring/hello-drift.json
"""

RETURN = r"""
expected:
  description: What the ledger says of each host.
  returned: when O(state=expected)
  type: dict
  sample: {"app1": {"release": "1.1.0-0123456789ab", "rollout": "20260105-091500-3fa2", "why": ""}}
verdict:
  description:
    - V(drifted) where a host drifted, V(unknown) where none is known to, but not everything could be seen, else
      V(clean).
  returned: when O(state=compared)
  type: str
  sample: drifted
hosts:
  description: The hosts, in the order of O(expected).
  returned: when O(state=compared)
  type: list
  elements: dict
  contains:
    host:
      description: The host's name.
      type: str
      sample: app1
    verdict:
      description: V(clean), V(drifted) or V(unknown).
      type: str
      sample: drifted
    release:
      description: The release that the ledger says, or null.
      type: str
      sample: 1.1.0-0123456789ab
    active:
      description: The release that is active, or null.
      type: str
      sample: 1.1.0-0123456789ab
    findings:
      description: What differs, as M(convoy.rollout.drift_info) returns it.
      type: list
      elements: dict
    more:
      description: How many more findings there are.
      type: int
      sample: 0
    why:
      description: Why nothing, or not everything, can be said of it. Empty where everything can.
      type: str
    version:
      description: The version of the release, or null where the host has no record of it.
      type: str
      sample: 1.1.0
mendable:
  description: The hosts of which deploying what the ledger says would mend something.
  returned: when O(state=compared)
  type: list
  elements: str
  sample: [app1]
releases:
  description: The release that the ledger says of each host.
  returned: when O(state=compared)
  type: dict
  sample: {"app1": "1.1.0-0123456789ab"}
versions:
  description: The versions of RV(releases), as far as the hosts' records tell them.
  returned: when O(state=compared)
  type: dict
  sample: {"1.1.0-0123456789ab": "1.1.0"}
reason:
  description:
    - A short word for what went wrong, V(drift) where hosts drifted. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: drift
convoy:
  description: What is told in the terminal, in RV(convoy.summary).
  returned: when O(state=compared)
  type: dict
  contains:
    summary:
      description: What differs, each with its hosts.
      type: list
      elements: str
      sample: ["drift: 1 of 6 hosts drifted, 5 clean"]
"""
