#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says which releases a host has, which one runs, and what is wrong with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: Say which releases a host has, and which one it runs
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Reads the release tree of a component, its units and their processes, and asks its probes once.
  - Changes nothing, waits for nobody, and takes whatever it finds for an answer rather than for an error.
options:
  component:
    description: The name of the component.
    type: str
    required: true
  root:
    description: Where the release tree is. By default C(/srv/) and the name of the component.
    type: path
  units:
    description: The units to look at. By default those of the active release.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the unit with its type.
        type: str
        required: true
  verify:
    description:
      - Read every file of the active release and compare its digest. Otherwise only what can be told without reading
        files is compared, which is sizes, modes, and whether they are there.
    type: bool
    default: false
  show:
    description: Files and units of the active release whose content is returned. An action asks for it in diff mode.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Whether it is a file of the release or a unit.
        type: str
        required: true
        choices: [config, unit]
      name:
        description: The path inside the release, or the name of the unit.
        type: str
        required: true
      secret:
        description: Return its digest alone.
        type: bool
        default: false
extends_documentation_fragment:
  - convoy.rollout.gate
  - convoy.rollout.gate.dependencies
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It only looks, so it does the same in check mode.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
    details: It changes nothing. It returns how the configuration differs that a deployment would bring.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
notes:
  - Needs root on the host, because the journal is for root only.
seealso:
  - module: convoy.rollout.release
  - module: convoy.rollout.health_gate
"""

EXAMPLES = r"""
- name: See what runs
  convoy.rollout.release_info:
    component: hello
    probes:
      - kind: http
        url: http://127.0.0.1:8080/healthz
  register: hello

- name: Name what is wrong
  ansible.builtin.debug:
    var: hello.problems
"""

RETURN = r"""
present:
  description: Whether Convoy ever brought a release of the component to this host.
  returned: always
  type: bool
  sample: true
active:
  description: The release that C(current) points to; null when there is none.
  returned: always
  type: str
  sample: 1.1.0-0123456789ab
version:
  description: Its version.
  returned: always
  type: str
  sample: "1.1.0"
kind:
  description:
    - Whether it is an V(archive), a V(package) or a V(container), or put in place by V(tasks); null when there is none.
  returned: always
  type: str
  sample: archive
active_since:
  description: Since when it is active, in seconds since the epoch; null when the journal does not say.
  returned: always
  type: float
  sample: 1735689600.123
good:
  description: The good releases, the newest first.
  returned: always
  type: list
  elements: str
  sample: [1.1.0-0123456789ab, 1.0.0-ba9876543210]
last_good:
  description: The newest good release that is not active; where a rollback would go.
  returned: always
  type: str
  sample: 1.0.0-ba9876543210
staged:
  description: All releases that are on the host.
  returned: always
  type: list
  elements: str
  sample: [1.0.0-ba9876543210, 1.1.0-0123456789ab]
releases:
  description: The same, the one that was staged last first.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: The id of the release.
      type: str
      sample: 1.1.0-0123456789ab
    version:
      description: Its version.
      type: str
      sample: "1.1.0"
    state:
      description: The last thing that the journal says of it.
      type: str
      sample: good
    artifact:
      description: The SHA-256 of its artifact; null where Convoy did not bring it.
      type: str
      sample: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
problems:
  description: What is not as it should be, each in one sentence.
  returned: always
  type: list
  elements: str
  sample: ['hello.service: it is failed (failed), result exit-code']
obstacle:
  description: Why no release can be activated here and how to mend that; null when nothing stands in the way.
  returned: always
  type: str
  sample: '/srv/hello/current points to releases/1.0.0-ba9876543210, which is not there'
token:
  description: The highest fencing token seen.
  returned: always
  type: int
  sample: 42
unsettled:
  description:
    - That the tasks which put the active release in place have not ended well, C(is_known) to have failed or not. Null
      where they have, and where it is of another kind.
  returned: always
  type: dict
  sample: {"release": "2.0.0-0123456789ab", "is_known": false}
unconfirmed:
  description: The active release and until when it must be confirmed, if it has to be; otherwise null.
  returned: always
  type: dict
  sample: {"release": "1.1.0-0123456789ab", "until": 1735689660.123}
busy:
  description: Which call is changing the tree at this moment; null when none is.
  returned: always
  type: str
  sample: process 4711, state=active of rollout r-42
free_bytes:
  description: The free bytes of the file system.
  returned: always
  type: int
  sample: 21474836480
free_inodes:
  description: The free inodes of the file system; null when it has no fixed number of them.
  returned: always
  type: int
  sample: 1310720
health:
  description: One round of the probes, as M(convoy.rollout.health_gate) returns it; null when nothing was asked.
  returned: always
  type: dict
  sample: {"verdict": "pass", "message": "all 1 probes were healthy", "attempts": [], "dropped": 0, "elapsed": 0.01}
dependencies:
  description: One round of O(dependencies), as M(convoy.rollout.health_gate) returns it; null without any.
  returned: always
  type: dict
process:
  description: Of every unit with a main process, that process.
  returned: always
  type: dict
  sample:
    hello.service: {"pid": 4711, "started": 1735689600.5, "cwd": "/srv/hello/releases/1.1.0-0123456789ab",
                    "release": "1.1.0-0123456789ab"}
place:
  description: What tells the component's root on this host from that on any other, by whatever name the host is called.
  returned: always
  type: str
  sample: 2f0e3a6c-8b1d-4c57-9f3e-5d2a1b7c9e04:65024:131073:.
config_diff:
  description:
    - How the configuration and the units that the variables and templates of now make differ from those of the active
      release. Of what is secret it is only told that it differs.
  returned: in diff mode
  type: list
  elements: dict
  sample: [{"kind": "config", "name": "etc/hello.json", "lines": ["changed", "@@ -1 +1 @@", "-one", "+two"]}]
clock:
  description: What time it is on the host, in seconds since the epoch.
  returned: always
  type: float
  sample: 1735689600.123
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import release_info


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(argument_spec=release_info.arguments(), supports_check_mode=True)
    result = release_info.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
