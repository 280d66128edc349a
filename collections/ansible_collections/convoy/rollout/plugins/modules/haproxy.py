#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes servers out of a HAProxy backend and puts them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy
short_description: Drain servers of a HAProxy backend, put them back, or watch them
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Runs on the host of the load balancer and talks to HAProxy through its runtime socket. Needs HAProxy 2.0 or later.
  - It changes the administrative state of servers and nothing else. HAProxy forgets that state when it is reloaded,
    unless it has a C(server-state-file).
  - Convoy never puts a server in maintenance. One that is in maintenance was put there by a person, so it counts as
    out of service, and is left there unless O(force=true).
options:
  socket:
    description:
      - Path of the runtime socket, the C(stats socket) line of HAProxy's configuration. Changes need C(level admin).
    type: path
    default: /run/haproxy/admin.sock
  backend:
    description: Name of the backend.
    type: str
    required: true
  servers:
    description:
      - Names of the servers in the backend. With O(state=switched) there may be none, so that O(away) is all that
        happens.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drained) sends no new requests to the servers and waits until their sessions have ended. When they do not end
        within O(timeout), what this call drained is put back in service and the module fails.
      - V(ready) puts each server back in service as soon as HAProxy's own health check finds it healthy, and waits
        until it is up. When that does not happen within O(timeout), the server stays in drain and the module fails. A
        server that is in maintenance is held there, with a warning, and is no failure.
      - V(switched) puts O(servers) in service and takes O(away) out of it, all at once, in one connection. It waits
        first until at least O(min_up) of O(servers) are healthy, and changes nothing when they do not become so within
        O(timeout). When too few of them are up right after it, it is undone and the module fails. Sessions with the
        servers that were taken out are not waited for.
      - V(watched) sees for O(duration) that the servers stay up, and fails as soon as one of them does not.
    type: str
    choices: [drained, ready, switched, watched]
    required: true
  away:
    description:
      - With O(state=switched), the servers that are taken out of service.
    type: list
    elements: str
    default: []
  timeout:
    description: How many seconds to wait for sessions to end, or for a server to become healthy.
    type: float
    default: 30
  min_up:
    description:
      - With O(state=drained), refuse to drain a server that is up unless at least that many other servers of the
        backend are up and ready. Backup servers and those with a weight of 0 do not count.
      - Set it to V(0) for a backend with one server.
      - With O(state=switched), how many of O(servers) have to be healthy.
    type: int
    default: 1
  force:
    description:
      - With O(state=drained), go on after O(timeout) although sessions are open. They may be broken by what follows.
      - With O(state=ready), end the maintenance that somebody else began.
    type: bool
    default: false
  duration:
    description: With O(state=watched), for how many seconds to watch.
    type: float
    default: 10
  token:
    description:
      - The fencing token of the rollout. The load balancer's host remembers the highest one that it has seen, and
        refuses a lower one before anything is changed. With O(state=switched) calls wait for each other.
    type: int
  rollout:
    description: The rollout that has the token, to tell who has a higher one.
    type: str
    default: ""
  fence:
    description: The directory on the load balancer's host in which tokens are remembered, by backend.
    type: path
    default: /var/lib/convoy/haproxy
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: With O(state=watched) it looks once. With O(state=switched) it waits until enough servers are healthy.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.haproxy_info
  - module: convoy.rollout.health_gate
"""

EXAMPLES = r"""
- name: Take this host out of the load balancer, as long as three others are up
  convoy.rollout.haproxy:
    backend: app
    servers: ["{{ inventory_hostname }}"]
    state: drained
    timeout: 60
    min_up: 3
  delegate_to: lb1

- name: Put it back when the load balancer finds it healthy
  convoy.rollout.haproxy:
    backend: app
    servers: ["{{ inventory_hostname }}"]
    state: ready
  delegate_to: lb1

- name: Send all requests to green instead of blue
  convoy.rollout.haproxy:
    backend: app
    servers: [green1, green2]
    away: [blue1, blue2]
    state: switched
    min_up: 2
  delegate_to: lb1

- name: See for a minute that the load balancer keeps them up
  convoy.rollout.haproxy:
    backend: app
    servers: [app1, app2]
    state: watched
    duration: 60
  delegate_to: lb1
"""

RETURN = r"""
servers:
  description:
    - The servers that were named, as they were at the end, in the form of M(convoy.rollout.haproxy_info).
    - Also on failure, when HAProxy answered.
  returned: success
  type: dict
  sample:
    app1:
      state: drained
      status: DRAIN
      admin: drain
      healthy: true
      check: L7OK
      answer: "200"
      sessions: 0
      queued: 0
      requests: 18230
      errors_5xx: 2
      weight: 1
forced:
  description: Whether the module went on with open sessions.
  returned: when O(state=drained)
  type: bool
  sample: false
held:
  description: The servers that were left in maintenance.
  returned: when O(state=ready) or O(state=switched)
  type: list
  elements: str
  sample: []
elapsed:
  description: For how long the servers were watched, in seconds.
  returned: when O(state=watched)
  type: float
  sample: 60.0
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import haproxy


def main() -> None:
    """Reach the state, or fail with what HAProxy says."""
    module = AnsibleModule(argument_spec=haproxy.arguments(), supports_check_mode=True)
    result = haproxy.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
