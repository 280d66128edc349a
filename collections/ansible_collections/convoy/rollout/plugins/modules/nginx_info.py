#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells how the servers of an nginx upstream block are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_info
short_description: Tell how the servers of an nginx upstream block are
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Runs on the host of the load balancer. Whether a server is in service is read from the file, how it is the server is
    asked, and the connections that nginx has with it are those that the kernel lists.
  - The file is taken for what nginx does. Who edits it by hand has to reload nginx.
options:
  servers:
    description: Addresses of the servers, as the file has them. By default all of them.
    type: list
    elements: str
  fence:
    description: The directory on the load balancer's host in which M(convoy.rollout.nginx) remembers what it began.
    type: path
    default: /var/lib/convoy/nginx
extends_documentation_fragment:
  - convoy.rollout.nginx
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
  - module: convoy.rollout.nginx
  - module: convoy.rollout.haproxy_info
"""

EXAMPLES = r"""
- name: Ask how all servers are
  convoy.rollout.nginx_info:
    config: /etc/nginx/conf.d/app.conf
    upstream: app
    probe: http://{server}/healthz
  register: convoy_balancer

- name: Name those that were left drained
  ansible.builtin.debug:
    msg: "{{ drained | map(attribute='key') }}"
  vars:
    drained: "{{ convoy_balancer.servers | dict2items | selectattr('value.state', 'eq', 'drained') }}"
"""

RETURN = r"""
servers:
  description: The servers by name, which is their address as the file has it.
  returned: success
  type: dict
  sample:
    10.0.0.11:8080:
      state: up
      admin: ready
      healthy: true
      answer: answered 200
      sessions: 3
      weight: 1
      backup: false
  contains:
    state:
      description:
        - V(up), V(down) (in service, but it does not answer well), V(draining) (out of service, and workers that are
          shutting down have connections with it), V(drained), or V(unloaded) (a call of M(convoy.rollout.nginx) changed
          its line and was cut short before it saw nginx read it; the next one reloads nginx).
      type: str
      sample: drained
    admin:
      description: What its line in the file says, V(ready), or V(drain) where it has C(down).
      type: str
      sample: drain
    healthy:
      description: Whether it answered O(probe) well, in service or not.
      type: bool
      sample: true
    answer:
      description: What it answered.
      type: str
      sample: answered 200
    sessions:
      description: Connections that nginx has with it now. None where that cannot be told, as for a unix socket.
      type: int
      sample: 0
    weight:
      description: Its weight.
      type: int
      sample: 1
    backup:
      description: Whether it gets requests only when no other one can be reached.
      type: bool
      sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import nginx_info


def main() -> None:
    """Tell, or fail with what stands in the way."""
    module = AnsibleModule(argument_spec=nginx_info.arguments(), supports_check_mode=True)
    result = nginx_info.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
