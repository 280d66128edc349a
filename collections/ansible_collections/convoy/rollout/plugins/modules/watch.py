#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/watch.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: watch
short_description: Watch hosts and metrics at the same time
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Asks the probes of several hosts and reads metrics, all at the same time, for as long as is wanted, and makes one
    verdict of it. Whatever fails ends it at once.
  - It is run as a loop that is delegated to each of the hosts in turn. All items but the last one only enlist their
    host; the last one watches all of them, so it alone has a verdict.
  - Only V(pass) lets the last item succeed. No data is never a pass.
options:
  host:
    description: The host that the item is delegated to.
    type: str
    required: true
  hosts:
    description: The hosts whose probes are asked. The loop has to have all of them, in this order.
    type: list
    elements: str
    required: true
  balancers:
    description:
      - The hosts of HAProxy whose counters gates without a source of their own read. They follow O(hosts) in the loop.
    type: list
    elements: str
    default: []
  probes:
    description: What is asked on O(host), as M(convoy.rollout.health_gate) takes it.
    type: list
    elements: dict
    default: []
  modules:
    description:
      - Modules that are run on O(host) each time its probes have passed. One that fails lets the host fail. They run on
        the host itself, without an action of their own on the controller.
    type: list
    elements: dict
    default: []
    suboptions:
      module:
        description: The name of the module.
        type: str
        required: true
      args:
        description: Its options.
        type: dict
        default: {}
  version:
    description: The version that a probe of kind V(version) without an C(expect) of its own expects.
    type: str
  gate:
    description: How often the probes are asked, as M(convoy.rollout.health_gate) takes it.
    type: dict
    default: {}
  seconds:
    description: For how long to watch. Without it each probe is asked once.
    type: float
  gates:
    description: The metric gates of the site by name, each as a metric of M(convoy.rollout.metric_gate).
    type: dict
    default: {}
  ask:
    description:
      - The names of the gates that are asked. By default all of them; where O(sides) has no baseline, those that
        compare with one are left out then, with a warning.
    type: list
    elements: str
  sides:
    description:
      - Whom the gates compare. The hosts of the C(canary), those of the C(baseline), and C(zones), the zone of each.
    type: dict
    default: {}
  names:
    description: What the sources call a host, where that is not its name in the inventory.
    type: dict
    default: {}
  options:
    description:
      - What all gates have in common, as M(convoy.rollout.metric_gate) takes it. C(interval) (by default 10 seconds),
        C(before), C(score), C(timeout), C(ca_path).
    type: dict
    default: {}
  socket:
    description: The path of HAProxy's runtime socket on O(balancers).
    type: path
    default: /run/haproxy/admin.sock
  backend:
    description: The backend there.
    type: str
    default: ''
  rollout:
    description:
      - The rollout whose gate it is. As soon as it does not wait for the gate any more, since somebody has aborted it,
        say, the watch ends, inconclusive.
    type: dict
    suboptions:
      id:
        description: Its id.
        type: str
        required: true
      ledger_url:
        description: The ledger, as an SQLAlchemy URL.
        type: str
        required: true
      stream:
        description: The environment and the component, with a slash between them.
        type: str
        required: true
  summary:
    description: Whether to tell, as the last lines of the run, how each host and gate is.
    type: bool
    default: false
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: Metrics are read from the controller. Hosts are asked by M(convoy.rollout.health_gate).
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
  - module: convoy.rollout.health_gate
  - module: convoy.rollout.metric_gate
  - module: convoy.rollout.verdict
"""

EXAMPLES = r"""
- name: Watch three hosts, and the errors of one of them against the others', for five minutes
  convoy.rollout.watch:
    host: "{{ watched }}"
    hosts: [app1, app2, app3]
    balancers: [lb1]
    backend: app
    probes: "{{ component_probes }}"
    seconds: 300
    gates:
      errors:
        minimum_effect: 2
    ask: [errors]
    sides:
      canary: [app1]
      baseline: [app2, app3]
  delegate_to: "{{ watched }}"
  loop: [app1, app2, app3, lb1]
  loop_control:
    loop_var: watched
"""

RETURN = r"""
verdict:
  description:
    - V(pass), V(fail), V(inconclusive) when there was too little to tell, or V(error) when something could not be used.
    - The item fails unless it is V(pass).
  returned: by the last item
  type: str
  sample: pass
message:
  description: Why, with the numbers. What gates said that are a dry run is told too.
  returned: by the last item
  type: str
  sample: 3 hosts healthy for 300 s; errors are no more than before
hosts:
  description: What each host said last.
  returned: by the last item
  type: list
  elements: dict
  contains:
    host:
      description: The host.
      type: str
      sample: app1
    verdict:
      description: Its own verdict.
      type: str
      sample: pass
    message:
      description: Why, in one sentence.
      type: str
      sample: all 3 probes were healthy in 6 rounds
    attempts:
      description: The attempts of its last seconds, as M(convoy.rollout.health_gate) returns them.
      type: list
      elements: dict
metrics:
  description: What each gate said, as M(convoy.rollout.metric_gate) returns it. Empty where a host failed first.
  returned: by the last item
  type: list
  elements: dict
score:
  description: The score of the gates with the judge C(mann_whitney), or null where none has it.
  returned: by the last item
  type: float
  sample: 100.0
elapsed:
  description: For how long it was watched, in seconds.
  returned: by the last item
  type: float
  sample: 300.214
enlisted:
  description: The host is going to be watched by the last item.
  returned: by all items but the last
  type: bool
  sample: true
convoy:
  description: What is told in the terminal, in RV(convoy.summary).
  returned: by the last item, when O(summary=true)
  type: dict
  contains:
    summary:
      description: The last lines of the run.
      type: list
      elements: str
      sample: ["app1  pass  all 3 probes were healthy in 6 rounds"]
"""
