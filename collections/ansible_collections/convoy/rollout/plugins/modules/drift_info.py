#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says what of a release is not as it was deployed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_info
short_description: Say what of a release is not as it was deployed
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Compares a host with the record of a release, which is what was brought to it. Looks at C(current), at every file of
    the release, at its unit files and what systemd makes of them, and at the processes that run of it.
  - Of a release that is a package, the version that is installed is looked at, whether it is held, and what the package
    manager finds changed of its files. Units, drop-ins and configuration of a package are not the release's.
  - Changes nothing, and takes whatever it finds for an answer rather than for an error.
options:
  component:
    description: The name of the component.
    type: str
    required: true
  root:
    description: Where the release tree is. By default C(/srv/) and the name of the component.
    type: path
  release:
    description: The id of the release that ought to be active. By default the one that is.
    type: str
  digests:
    description:
      - Read every file of the release and compare its digest. Otherwise only what can be told without reading files is
        compared, which is sizes, modes, links, and whether they are there.
    type: bool
    default: true
  seconds:
    description: For how long files may be read.
    type: float
    default: 300.0
  ignored:
    description:
      - Shell patterns of names that are not told of, such as C(cache/*) for files of the release, or
        C(/etc/systemd/system/hello.service.d/*) for drop-ins.
    type: list
    elements: str
    default: []
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
notes:
  - Needs root on the host, because the record is for root only.
seealso:
  - module: convoy.rollout.drift
  - module: convoy.rollout.release_info
"""

EXAMPLES = r"""
- name: See whether the release is as it was deployed
  convoy.rollout.drift_info:
    component: hello
  register: hello

- name: Name what is not
  ansible.builtin.debug:
    var: hello.findings
"""

RETURN = r"""
active:
  description: The release that C(current) points to; null when there is none.
  returned: success
  type: str
  sample: 1.1.0-0123456789ab
compared:
  description: The release whose record the host was compared with; null when there is none.
  returned: success
  type: str
  sample: 1.1.0-0123456789ab
version:
  description: The version of that release; null when there is none, or no record of it.
  returned: success
  type: str
  sample: 1.1.0
findings:
  description: What differs, the first 50.
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description:
        - What kind of thing it is. V(release) is the link C(current), V(record) what the host knows of the release,
          V(file) a file of it, V(unit) a unit file, V(enabled) whether a unit starts at boot, V(state) how a unit is,
          V(process) what runs, V(package) a package of the distribution, V(image) and V(container) what a container
          runs, V(tasks) how those of the site ended that put the release in place. Not Convoy's to change are
          V(foreign-file), a file in the release that is not of it, V(foreign-unit), a unit file that somebody else
          wrote in its place, and V(drop-in), a file that adds to one.
      type: str
      sample: file
    name:
      description: Which one. A path inside the release, the name of a unit, a path.
      type: str
      sample: etc/hello.json
    expected:
      description: How it should be.
      type: str
      sample: mode 0644
    actual:
      description: How it is.
      type: str
      sample: mode 0666
more:
  description: How many more there are.
  returned: success
  type: int
  sample: 0
incomplete:
  description: Why not everything was looked at; null when everything was.
  returned: success
  type: str
  sample: 300 s were not enough to read all files; give more, or ask for no digests
busy:
  description: Which call was changing the tree at this moment; null when none was.
  returned: success
  type: str
  sample: process 4711, state=active of rollout r-42
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import drift_info


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(argument_spec=drift_info.arguments(), supports_check_mode=True)
    result = drift_info.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
