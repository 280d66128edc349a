# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a health gate, shared by the modules that have one."""

from __future__ import annotations

from typing import ClassVar


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
          - V(http) asks O(probes[].url) once, without following redirects unless O(probes[].follow) says so, and wants
            one of O(probes[].status) and, if given, what O(probes[].body), O(probes[].json),
            O(probes[].answer_headers) and O(probes[].within) say.
          - V(tcp) wants a connection to O(probes[].host) and O(probes[].port) to be accepted.
          - V(command) runs O(probes[].argv) without a shell, from C(/) and with no input, and wants the exit code
            O(probes[].rc). Whatever the command started is ended with it.
          - V(systemd) wants O(probes[].unit) to be active, restarted by systemd at most O(probes[].restarts) times.
          - V(version) asks O(probes[].url) for JSON and wants the text at O(probes[].key) to be O(probes[].expect).
          - V(process) wants O(probes[].unit) to have a process, and if given, one that works in O(probes[].cwd),
            listens on O(probes[].port) and has been running for O(probes[].running_for).
          - V(log) wants no line of the journal of O(probes[].unit) to match O(probes[].pattern), in its present run or
            in the last O(probes[].since) seconds.
          - V(disk) wants room at O(probes[].path), V(memory) available memory, O(probes[].free_percent) and
            O(probes[].free_mb) of each; of a disk the percentage holds for inodes too.
          - V(clock) asks the NTP server O(probes[].host), and wants its time to differ by at most O(probes[].most).
          - V(dns) wants O(probes[].host) to resolve, if given, to O(probes[].addresses).
          - V(tls) wants the certificate at O(probes[].host) and O(probes[].port) to be valid for O(probes[].days) more.
          - V(balancer) reads HAProxy's statistics at O(probes[].url), as CSV, and wants O(probes[].server) to be up in
            O(probes[].backend).
        type: str
        required: true
        choices: [balancer, clock, command, disk, dns, http, log, memory, process, systemd, tcp, tls, version]
      name:
        description: What the probe is called in messages. By default its kind and what it asks.
        type: str
      timeout:
        description:
          - Seconds within which the whole answer must be there. By default O(gate.timeout).
        type: float
      url:
        description:
          - For the kinds V(http), V(version) and V(balancer), an C(http) or C(https) URL as seen from the host.
            Credentials belong in O(probes[].headers).
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
          - For the kinds V(http), V(version) and V(balancer), headers to send. Their values are never shown.
        type: dict
      json:
        description:
          - For the kind V(http), what the JSON in the body must hold, values by their paths. A dot leads into a mapping
            or, with a number, into a list, as in C(checks.0.status).
        type: dict
      answer_headers:
        description: For the kind V(http), Python regular expressions that headers of the answer must match, by name.
        type: dict
      within:
        description: For the kind V(http), seconds within which the answer must be there to be healthy.
        type: float
      follow:
        description:
          - For the kind V(http), how many redirects are followed. By default V(0). O(probes[].headers) go to the host
            of O(probes[].url) only.
        type: int
      host:
        description:
          - For the kind V(tcp), where to connect to, by default V(127.0.0.1). For V(tls) likewise, without a default.
            For V(clock) the NTP server, for V(dns) the name.
        type: str
      port:
        description:
          - For the kind V(tcp), the port to connect to; for V(tls) by default V(443), for V(clock) V(123). For
            V(process), the port on which one of the unit's processes listens.
        type: int
      path:
        description: For the kind V(disk), a path in the file system. By default V(/).
        type: str
      free_mb:
        description: For the kinds V(disk) and V(memory), how many megabytes must be free. By default V(0).
        type: float
      free_percent:
        description: For the kinds V(disk) and V(memory), how much must be free, in percent. By default V(5).
        type: float
      most:
        description: For the kind V(clock), by how many seconds the clocks may differ. By default V(30).
        type: float
      addresses:
        description: For the kind V(dns), all addresses of the name. By default any will do.
        type: list
        elements: str
      server_name:
        description: For the kind V(tls), the name in the certificate. By default O(probes[].host).
        type: str
      days:
        description: For the kind V(tls), for how many days it has to be valid. By default V(14).
        type: float
      ca_path:
        description: For the kind V(tls), a file on the host with the authorities to trust. By default the system's.
        type: str
      pattern:
        description: For the kind V(log), a Python regular expression that no line may match.
        type: str
      since:
        description:
          - For the kind V(log), how many seconds back to look, restarts included. By default the present run of the
            unit, which began when its release was activated.
        type: float
      cwd:
        description:
          - For the kind V(process), the directory it works in. Links are followed, so that the path of C(current) tells
            a process of an older release.
        type: str
      running_for:
        description: For the kind V(process), how many seconds ago it must have started at least. By default V(0).
        type: float
      backend:
        description: For the kind V(balancer), the backend.
        type: str
      server:
        description: For the kind V(balancer), the server.
        type: str
      argv:
        description: For the kind V(command), the program and its arguments.
        type: list
        elements: str
      rc:
        description: For the kind V(command), the exit code that is healthy. By default V(0).
        type: int
      unit:
        description: For the kinds V(systemd), V(process) and V(log), the name of the unit.
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
    DEPENDENCIES: ClassVar[str]


_KINDS = "      kind:\n" + ModuleDocFragment.DOCUMENTATION.partition("      kind:\n")[2].partition("  gate:\n")[0]

# What a component needs of others: probes as well.
ModuleDocFragment.DEPENDENCIES = r"""
options:
  dependencies:
    description:
      - What the host needs of others, asked once as O(probes) are, whether or not a release is active.
    type: list
    elements: dict
    suboptions:
""" + _KINDS.replace("O(probes[].", "O(dependencies[].").replace("O(gate.timeout)", "V(2)")
