#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/at_once.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: at_once
short_description: Take many hosts through a step at once
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Runs the task of the role P(convoy.rollout.component#role) that reads a host, or that brings the release to it, on
    many hosts at once, as many as there are C(forks). Ansible's executor runs it, with each host's own variables and
    over its own connection, in the worker that this action has already. That saves the controller a fork and more for
    each host.
  - Callbacks are told of each host. What they are told says that the task was delegated to the host by the one that
    ran this action; P(convoy.rollout.terse#callback) tells the name of the host alone.
  - Hosts that are not connected to over SSH, or locally, are left for Ansible's usual way; and all of them with an
    ansible-core whose executor it does not know.
  - Use it with C(run_once).
options:
  step:
    description: The task to run.
    type: str
    required: true
    choices: [read, stage]
  hosts:
    description: The hosts.
    type: list
    elements: str
    required: true
  when:
    description: A condition as that of a task, without braces. A host for which it is false is left.
    type: str
    default: ""
  known:
    description: Variables that are the same for all of the hosts, so that they need not be templated for each.
    type: dict
    default: {}
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: It runs on the controller; the tasks contact their hosts.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
    details: The tasks return them.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.release_info
  - module: convoy.rollout.release
  - module: convoy.rollout.road
"""

EXAMPLES = r"""
- name: Read the hosts at once
  convoy.rollout.at_once:
    step: read
    hosts: "{{ ansible_play_hosts }}"
  run_once: true
  register: rollout_reads
"""

RETURN = r"""
results:
  description:
    - What the task returned of each host, by the host's name, where it failed or the host was unreachable too.
  returned: success
  type: dict
  sample: {"app1": {"active": "1.4.2-3f2a91c04be7", "changed": false}}
left:
  description: The hosts on which nothing was done.
  returned: success
  type: list
  elements: str
  sample: []
"""
