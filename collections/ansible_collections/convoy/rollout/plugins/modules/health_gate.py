#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a play up until a component is healthy, or fails."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Wait until a component is healthy, or fail
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Asks a set of probes on the host again and again, in one call, until all of them are healthy in enough rounds in a
    row and for long enough, or until time is up.
  - Only a healthy answer lets it pass. It fails when the component is unhealthy or silent, when a probe cannot be used
    (its command is not there, say), and when there are no probes.
options:
  version:
    description: The version that a probe of kind V(version) without an C(expect) of its own expects.
    type: str
  watch:
    description:
      - Watch for so many seconds instead of waiting for health. Asks each O(gate.interval), and passes when no round
        was unhealthy; the first one that was ends it. The other rules of O(gate) do not count then.
    type: float
extends_documentation_fragment:
  - convoy.rollout.gate
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It only looks, so it does the same in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.release
"""

EXAMPLES = r"""
- name: Wait until the service answers and stays healthy for ten seconds
  convoy.rollout.health_gate:
    probes:
      - kind: http
        url: http://127.0.0.1:8080/healthz
        body: '"status": "ok"'
      - kind: systemd
        unit: hello.service
        restarts: 0
    gate:
      interval: 0.5
      successes: 3
      min_healthy_time: 10
      deadline: 60

- name: See that the new version is the one that answers
  convoy.rollout.health_gate:
    probes:
      - name: running version
        kind: version
        url: http://127.0.0.1:8080/version
        expect: "1.1.0"
      - kind: tcp
        port: 8080
      - kind: command
        argv: [/usr/bin/test, -e, /srv/hello/current]

- name: See that the service stays healthy for a minute
  convoy.rollout.health_gate:
    probes:
      - kind: systemd
        unit: hello.service
        restarts: 0
    watch: 60
"""

RETURN = r"""
verdict:
  description:
    - V(pass) when the component was healthy for long enough, V(fail) when it was not before the deadline,
      V(inconclusive) when there was nothing to ask, V(error) when the gate itself could not be used.
    - The module fails unless it is V(pass).
  returned: always
  type: str
  sample: pass
message:
  description: One sentence that says how the gate ended. On failure it names the probe and what it answered.
  returned: always
  type: str
  sample: all 2 probes were healthy in 3 rounds in a row, for 1.0 s, after 2.5 s
attempts:
  description: Every attempt of every probe in the order of time, or the first 5 and the last 45.
  returned: always
  type: list
  elements: dict
  contains:
    at:
      description: When the round began, in seconds since the gate did.
      type: float
      sample: 0.5
    probe:
      description: Which probe was asked.
      type: str
      sample: http http://127.0.0.1:8080/healthz
    ok:
      description: Whether the answer was healthy.
      type: bool
      sample: false
    detail:
      description: What was answered, on one line of at most 200 characters, with secrets masked.
      type: str
      sample: 'answered 500 (expected 200): no database'
dropped:
  description: How many attempts were left out of RV(attempts).
  returned: always
  type: int
  sample: 0
elapsed:
  description: How long the gate took, in seconds.
  returned: always
  type: float
  sample: 2.513
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import health_gate


def main() -> None:
    """Ask, and let pass only what passed."""
    module = AnsibleModule(argument_spec=health_gate.arguments(), supports_check_mode=True)
    result = health_gate.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
