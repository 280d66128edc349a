#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes servers out of an nginx upstream block and puts them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx
short_description: Drain servers of an nginx upstream block, or put them back
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Runs on the host of the load balancer. It sets or takes away the flag C(down) of servers in a file of nginx's
    configuration and leaves all else in it as it is, has nginx test its configuration, and reloads it by the signal
    that C(systemctl reload) sends. It goes on when nginx's new workers are there and the old ones take no connections
    any more.
  - A file that cannot be understood is refused with the line, a change that nginx does not take is taken back. Calls
    for the same nginx change it one after the other.
  - What the file says outlives reloads and restarts. Nginx knows one way of being out of service, so a server that a
    person set C(down) is put back like any other. To keep one out, take its host out of the rollout's hosts.
options:
  servers:
    description:
      - Addresses of the servers, as the file has them. With O(state=switched) there may be none, so that O(away) is all
        that happens.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drained) sends no new requests to the servers and waits until the workers have ended that nginx had before, as
        these may have requests with them. When they have not after O(timeout) and have a connection with one of the
        servers, what this call took out is put back and the module fails. Workers that are busy elsewhere are then
        waited for no longer, with a warning.
      - V(ready) puts the servers back in service when they have answered O(probe) twice in a row, and asks them again
        after that. One that does not answer well within O(timeout) stays out, and the module fails.
      - V(switched) puts O(servers) in service and takes O(away) out of it by one change. It waits first until all of
        O(servers) are healthy. After O(timeout) at least O(min_up) of them have to be, the others stay out, and nothing
        is changed when too few are. When too few of them answer right after it, it is undone and the module fails.
        Requests with the servers that were taken out are not waited for.
    type: str
    choices: [drained, ready, switched]
    required: true
  away:
    description:
      - With O(state=switched), the servers that are taken out of service.
    type: list
    elements: str
    default: []
  timeout:
    description: How many seconds to wait for old workers to end, or for servers to become healthy.
    type: float
    default: 30
  min_up:
    description:
      - With O(state=drained), refuse to drain a server that is up unless at least that many other servers of the
        upstream block are in service and answer. Backup servers do not count.
      - Set it to V(0) for an upstream block with one server.
      - With O(state=switched), how many of O(servers) have to be healthy.
    type: int
    default: 1
  force:
    description:
      - With O(state=drained), go on after O(timeout) although connections are open. They may be broken by what follows.
    type: bool
    default: false
  token:
    description:
      - The fencing token of the rollout. The load balancer's host remembers the highest one that it has seen, and
        refuses a lower one before anything is changed.
    type: int
  rollout:
    description: The rollout that has the token, to tell who has a higher one.
    type: str
    default: ""
  fence:
    description:
      - The directory on the load balancer's host in which tokens are remembered, by upstream block, and changes that
        were begun, until nginx has read them. Name the same one in all calls for one nginx.
    type: path
    default: /var/lib/convoy/nginx
extends_documentation_fragment:
  - convoy.rollout.nginx
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details:
      - Nginx tests its configuration as it is. With O(state=switched) it waits until enough servers are healthy.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.nginx_info
  - module: convoy.rollout.haproxy
  - module: convoy.rollout.health_gate
"""

EXAMPLES = r"""
- name: Take a server out of the load balancer, as long as three others are up
  convoy.rollout.nginx:
    config: /etc/nginx/conf.d/app.conf
    upstream: app
    servers: ["10.0.0.11:8080"]
    state: drained
    probe: http://{server}/healthz
    timeout: 60
    min_up: 3
  delegate_to: lb1

- name: Put it back when it is healthy
  convoy.rollout.nginx:
    config: /etc/nginx/conf.d/app.conf
    upstream: app
    servers: ["10.0.0.11:8080"]
    state: ready
    probe: http://{server}/healthz
  delegate_to: lb1

- name: Send all requests to green instead of blue
  convoy.rollout.nginx:
    config: /etc/nginx/conf.d/app.conf
    upstream: app
    servers: ["10.0.0.21:8080", "10.0.0.22:8080"]
    away: ["10.0.0.11:8080"]
    state: switched
    probe: http://{server}/healthz
    min_up: 2
  delegate_to: lb1
"""

RETURN = r"""
servers:
  description:
    - The servers that were named, as they were at the end, in the form of M(convoy.rollout.nginx_info).
    - Also on failure, where it says more than the message.
  returned: success
  type: dict
  sample:
    10.0.0.11:8080:
      state: drained
      admin: drain
      healthy: true
      answer: answered 200
      sessions: 0
      weight: 1
      backup: false
reloaded:
  description: Whether nginx read its configuration again.
  returned: success
  type: bool
  sample: true
forced:
  description: Whether the module went on with open connections.
  returned: when O(state=drained)
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import nginx


def main() -> None:
    """Reach the state, or fail with what stands in its way."""
    module = AnsibleModule(argument_spec=nginx.arguments(), supports_check_mode=True)
    result = nginx.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
