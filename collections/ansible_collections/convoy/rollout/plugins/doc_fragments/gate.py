# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a health gate, shared by the modules that have one."""

from __future__ import annotations


class ModuleDocFragment:
    """Documents what module_utils/gate.py's arguments() adds to an argument spec."""

    DOCUMENTATION = r"""
options:
  probes:
    description:
      - What is asked to find out whether the component is healthy. All probes of a round are asked at the same time.
      - A gate without probes has the verdict V(inconclusive), which is not a pass.
    type: list
    elements: dict
    suboptions:
      kind:
        description:
          - V(http) asks O(probes[].url) once, without following redirects, and wants one of O(probes[].status) and, if
            given, a body that matches O(probes[].body).
          - V(tcp) wants a connection to O(probes[].host) and O(probes[].port) to be accepted.
          - V(command) runs O(probes[].argv) without a shell, from C(/) and with no input, and wants the exit code
            O(probes[].rc). Whatever the command started is ended with it.
          - V(systemd) wants O(probes[].unit) to be active, restarted by systemd at most O(probes[].restarts) times.
          - V(version) asks O(probes[].url) for JSON and wants the text at O(probes[].key) to be O(probes[].expect).
        type: str
        required: true
        choices: [command, http, systemd, tcp, version]
      name:
        description: What the probe is called in messages. By default its kind and what it asks.
        type: str
      timeout:
        description:
          - Seconds within which the whole answer must be there. By default O(gate.timeout).
        type: float
      url:
        description:
          - For the kinds V(http) and V(version), an C(http) or C(https) URL as seen from the host. Credentials belong
            in O(probes[].headers).
        type: str
      status:
        description: For the kind V(http), the statuses that are healthy. By default V([200]).
        type: list
        elements: int
      body:
        description: For the kind V(http), a Python regular expression that must be found in the body.
        type: str
      headers:
        description:
          - For the kinds V(http) and V(version), headers to send. Their values are never shown.
        type: dict
      host:
        description: For the kind V(tcp), where to connect to. By default V(127.0.0.1).
        type: str
      port:
        description: For the kind V(tcp), the port to connect to.
        type: int
      argv:
        description: For the kind V(command), the program and its arguments.
        type: list
        elements: str
      rc:
        description: For the kind V(command), the exit code that is healthy. By default V(0).
        type: int
      unit:
        description: For the kind V(systemd), the name of the unit.
        type: str
      restarts:
        description:
          - For the kind V(systemd), how many automatic restarts are still healthy. By default they are not looked at.
        type: int
      key:
        description:
          - For the kind V(version), where in the JSON the version stands. A dot leads into a nested mapping. By default
            V(version).
        type: str
      expect:
        description: For the kind V(version), the version that is expected. Put it in quotes.
        type: str
  gate:
    description:
      - How often and for how long the probes are asked. All times are in seconds.
    type: dict
    suboptions:
      interval:
        description: From the beginning of one round to the beginning of the next. By default V(0.5).
        type: float
      timeout:
        description: Within which each probe must have answered, unless it has a O(probes[].timeout). By default V(2).
        type: float
      successes:
        description: How many rounds in a row must be healthy. By default V(2).
        type: int
      min_healthy_time:
        description:
          - For how long the probes must have been healthy without a break. Must be less than O(gate.deadline). By
            default V(0).
        type: float
      deadline:
        description:
          - Within which all this must have happened. The gate ends earlier when it can no longer happen in time. By
            default V(30).
        type: float
"""
