#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells how the servers of a HAProxy backend are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_info
short_description: Tell how the servers of a HAProxy backend are
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Runs on the host of the load balancer and asks HAProxy through its runtime socket. Needs HAProxy 2.0 or later.
  - A server that was drained, one that is in maintenance and one that is down are all out of service, for reasons that
    a person must be able to tell apart.
options:
  socket:
    description: Path of the runtime socket, the C(stats socket) line of HAProxy's configuration.
    type: path
    default: /run/haproxy/admin.sock
  backend:
    description: Name of the backend.
    type: str
    required: true
  servers:
    description: Names of the servers in the backend. By default all of them.
    type: list
    elements: str
  statistics:
    description: Whether to return HAProxy's own statistics too, with every counter of every server of the backend.
    type: bool
    default: false
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
  - module: convoy.rollout.haproxy
"""

EXAMPLES = r"""
- name: Ask how all servers are
  convoy.rollout.haproxy_info:
    backend: app
  register: convoy_balancer

- name: Name those that were left drained
  ansible.builtin.debug:
    msg: "{{ drained | map(attribute='key') }}"
  vars:
    drained: "{{ convoy_balancer.servers | dict2items | selectattr('value.state', 'eq', 'drained') }}"
"""

RETURN = r"""
servers:
  description: The servers by name.
  returned: success
  type: dict
  sample:
    app1:
      state: up
      status: UP
      admin: ready
      healthy: true
      check: L7OK
      answer: "200"
      sessions: 3
      queued: 0
      requests: 18230
      errors_5xx: 2
      weight: 1
  contains:
    state:
      description:
        - V(up), V(down), V(draining) (out of service, sessions still open), V(drained), V(maint) or V(stopping) (the
          server itself asked for no new sessions).
      type: str
      sample: drained
    status:
      description: HAProxy's own word.
      type: str
      sample: DRAIN
    admin:
      description: What people want of it, V(ready), V(drain) or V(maint).
      type: str
      sample: drain
    healthy:
      description: Whether it runs and its latest check passed, in service or not.
      type: bool
      sample: true
    check:
      description: How the latest check ended, in HAProxy's code. Empty without a check and in maintenance.
      type: str
      sample: L7OK
    answer:
      description: What the latest check was answered.
      type: str
      sample: "200"
    sessions:
      description: Sessions that are open now.
      type: int
      sample: 0
    queued:
      description: Requests that wait for this server now.
      type: int
      sample: 0
    requests:
      description: Requests since HAProxy was started or reloaded.
      type: int
      sample: 18230
    errors_5xx:
      description: Answers with a status of 500 to 599 since then.
      type: int
      sample: 2
    weight:
      description: Its present weight.
      type: int
      sample: 1
statistics:
  description: What HAProxy answers to C(show stat) of the backend's servers, as CSV.
  returned: when O(statistics=true)
  type: str
  sample: "# pxname,svname,qcur,qmax"
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import haproxy_info


def main() -> None:
    """Tell, or fail with what HAProxy says."""
    module = AnsibleModule(argument_spec=haproxy_info.arguments(), supports_check_mode=True)
    result = haproxy_info.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
