#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a release to a host, takes it into service, and back again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Stage, activate, confirm, revert or remove a release
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Keeps the releases of a component beside each other on a host, with a symbolic link C(current) to the active one,
    and moves between them so that the host serves the old release or the new one, whole, after a power cut too.
  - A release is an artifact, the configuration rendered into it, and its systemd units. Going back brings back all
    three.
  - One call takes a release into service, waits until it is healthy, sees that the running processes are of it, and
    goes back by itself if not.
  - A call that was killed is made again with the same arguments; it goes on from what is really there.
options:
  component:
    description: The name of the component.
    type: str
    required: true
  root:
    description: Where the release tree is. By default C(/srv/) and the name of the component.
    type: path
  state:
    description:
      - V(staged) brings the release beside the running one. Nothing that serves is touched.
      - V(active) takes a staged release into service, and goes back if it does not become healthy.
      - V(confirmed) makes a release that was activated with O(confirm_within) a good one. It connects to the host anew,
        since a connection that was open before does not show that the host can be reached.
      - V(reverted) goes back to O(release), or to the last good release. The one that is left is no target of a
        rollback any more until it was active and good again. Where the same O(rollout) brought the first release of
        this host, nothing is active afterwards.
      - V(absent) removes a release that is neither active nor the last good one.
      - V(begun) and V(settled) take the place of V(active) and V(reverted) for a release that tasks of the site put in
        place, see O(tasks). V(begun) announces it in the journal, and puts units and C(current) in place. Then the
        tasks run. V(settled) restarts the units, waits until the release is healthy, and writes down what became of it.
        A release that fails stays active, since the host cannot take it back by itself.
    type: str
    required: true
    choices: [staged, active, confirmed, reverted, absent, begun, settled]
  release:
    description: The id of the release. Required unless O(state=reverted).
    type: str
  version:
    description: The version of the release. Required with O(manifest).
    type: str
  rollout:
    description: The id of the rollout that asks, for the journal.
    type: str
    default: ''
  token:
    description:
      - The fencing token of the rollout. A host that has seen a higher one refuses, so that a rollout which was stopped
        and comes back to life changes nothing any more.
    type: int
    required: true
  artifact:
    description:
      - The archive, for O(state=staged). A task names a file of the controller, of which is sent what the host needs.
    type: path
  lacking:
    description:
      - Whether the host is known to lack the release, so that O(artifact) may be sent without asking before.
    type: bool
    default: false
  manifest:
    description:
      - What the artifact must be, as publishing made it. C(artifact) with C(sha256), C(size) and C(format), and
        C(files), a list of C(path), C(size), C(mode) and C(sha256), or of C(path) and C(link).
      - Required for O(state=staged) without O(verify_only) and O(package).
    type: dict
  package:
    description:
      - For O(state=staged), the package of the distribution that is the release, in version O(version), instead of an
        artifact. The host downloads it, and what has to come with it, from the repositories that it is configured
        with, verified as its package manager does that. Nothing is installed before O(state=active).
      - What is downloaded stays with the release, so that neither O(state=active) nor O(state=reverted) needs a
        repository. A package that was installed before is kept as a release of its own.
      - The package managers that are known are apt and dnf.
      - With O(mend), what is damaged of a release that is active is fetched again, and the package is installed once
        more from what is kept of it.
    type: dict
    suboptions:
      name:
        description: The name of the package.
        type: str
        required: true
      lock_timeout:
        description: How many seconds to wait for others that install packages. V(120) if not given.
        type: int
      manager:
        description: The package manager. V(auto) is the one that the host has, and apt where it has both.
        type: str
        choices: [auto, apt, dnf]
        default: auto
  container:
    description:
      - For O(state=staged) of a release that was published as a container, how its image runs. It is what
        C(component_container) of the role P(convoy.rollout.component#role) is, and the action makes a unit of it.
      - The image is brought into the storage of podman when the release is staged, and from the release again where it
        is gone. No registry is ever asked.
    type: dict
  tasks:
    description:
      - That the release is put in place by tasks of the site, between O(state=begun) and O(state=settled). With
        O(state=staged) it is given without any option, V({}).
      - Not with O(confirm_within), since a host cannot run them by itself.
    type: dict
    suboptions:
      back:
        description: Whether they take the host back, as O(state=reverted) does it for other releases.
        type: bool
        default: false
      in_doubt:
        description:
          - With O(state=begun), what to do where tasks were begun before, and nobody knows whether they are done.
          - V(again) has them run again, V(done) takes them for done. V(hold) changes nothing, and fails.
        type: str
        choices: [hold, again, done]
        default: again
      failure:
        description: With O(state=settled), why they failed; empty if they did not.
        type: str
        default: ''
      written:
        description: With O(state=settled), RV(tasks.written) of O(state=begun).
        type: list
        elements: str
        default: []
      verifies:
        description: With O(state=settled), whether the release becomes good only by O(state=confirmed).
        type: bool
        default: false
  transfer:
    description:
      - How O(artifact) gets to the host. Whatever it is, what a host has unpacked already is not sent again, and a
        release is staged only if all of it is as O(manifest) says.
      - V(push) sends it whole.
      - V(delta) sends the files that the release lacks which is active, or was good last. The others are copied from
        there, by a reflink where the file system can. Where that does not add up, the artifact is sent whole.
      - V(pull) has the host fetch it from O(url).
    type: str
    choices: [push, delta, pull]
    default: push
  releases:
    description:
      - What is known of the releases on the host, as M(convoy.rollout.release_info) returns it. Saves a call with
        O(transfer=delta).
    type: list
    elements: dict
    default: []
  delta:
    description: What the file is that is sent instead of O(artifact). The action gives it, not the task.
    type: dict
    suboptions:
      base:
        description: The release that the other files are taken from.
        type: str
        required: true
      sha256:
        description: Its digest.
        type: str
        required: true
      size:
        description: Its bytes.
        type: int
        required: true
      format:
        description: Its format.
        type: str
        required: true
  url:
    description:
      - Where the host fetches the artifact, over HTTP or HTTPS, for O(transfer=pull). A task may use the placeholders
        C({sha256}), C({version}), C({component}) and C({format}).
      - Redirects are followed five times, and never from HTTPS to HTTP.
    type: str
  pull:
    description: How the host fetches it.
    type: dict
    suboptions:
      authorization:
        description:
          - The header Authorization, such as C(Bearer ...). Only with https. The server of O(url) gets it, none that
            it redirects to.
        type: str
        default: ''
      ca_file:
        description: The absolute path of a file on the host with the certificates to trust, instead of the system's.
        type: str
        default: ''
      timeout:
        description: Seconds for which the server may be silent.
        type: float
        default: 30.0
      deadline:
        description: Seconds that all of it may take, with retries. The next call goes on with what has come.
        type: float
        default: 1800.0
      retries:
        description: How many times in a row nothing may come before it is given up.
        type: int
        default: 5
      proxy:
        description: Whether the host uses the proxy that its environment names.
        type: bool
        default: false
  verify_only:
    description: With O(state=staged), only prove that the release is on the host and intact; fail if it is not.
    type: bool
    default: false
  config:
    description: Rendered files that belong to the release.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: The path of the file inside the release. It takes the place of the artifact's file there.
        type: str
        required: true
      content:
        description: What is in it.
        type: str
        required: true
      mode:
        description: Its mode. Rights to write for others than root are not granted.
        type: str
        default: '0644'
  units:
    description:
      - systemd units that belong to the release, written to C(/etc/systemd/system) on activation. They start at boot if
        they have an C([Install]) section.
      - So that the running process shows which release it is, a service needs C(WorkingDirectory=<root>/current).
      - A file that Convoy did not write is never overwritten.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The name of the unit with its type.
        type: str
        required: true
      content:
        description: Its text. Required unless the release is an O(package), or put in place by O(tasks).
        type: str
      action:
        description: What makes it take a new release up. A unit whose text changed is restarted in any case.
        type: str
        choices: [restart, reload]
        default: restart
  keep:
    description: How many good releases to keep. The active and the last good one are never removed.
    type: int
    default: 5
  confirm_within:
    description:
      - With O(state=active), the seconds within which O(state=confirmed) must follow. If it does not, the host goes
        back by itself, also after a reboot. V(0) asks for no confirmation.
    type: int
    default: 0
  strict:
    description: Refuse artifacts with modes beyond 0755 or foreign owners, instead of putting them right.
    type: bool
    default: false
  mend:
    description:
      - The release is known to have drifted. With O(state=staged) a whole copy of it is brought beside it where it is
        active and damaged, which is otherwise refused. With O(state=active) its files are made those of that copy,
        processes that run of it beside its units are ended, and it is restarted also where it seems to serve.
    type: bool
    default: false
  limits:
    description: What an artifact may at most be.
    type: dict
    suboptions:
      members:
        description: How many members.
        type: int
        default: 100000
      bytes:
        description: How many bytes when unpacked.
        type: int
        default: 17179869184
      depth:
        description: How many directories deep.
        type: int
        default: 64
      ratio:
        description: How many times its size when unpacked.
        type: int
        default: 200
  lock_timeout:
    description: How many seconds to wait for another call that changes the same release tree.
    type: int
    default: 30
extends_documentation_fragment:
  - convoy.rollout.gate
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: Says what would be fetched, activated and pruned. The gate is not asked, since nothing new runs.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details: A release that is active, good and healthy is not restarted.
notes:
  - Needs root on the host, systemd, and Python 3.8 or later.
seealso:
  - module: convoy.rollout.release_info
  - module: convoy.rollout.health_gate
"""

EXAMPLES = r"""
- name: Bring 1.1.0 beside the running release
  convoy.rollout.release:
    component: hello
    state: staged
    release: 1.1.0-0123456789ab
    version: "1.1.0"
    rollout: r-42
    token: 42
    artifact: files/hello-1.1.0.tar.gz
    manifest: "{{ lookup('file', 'hello-1.1.0.json') | from_json }}"
    config:
      - dest: etc/hello.ini
        content: "{{ lookup('template', 'hello.ini.j2') }}"
    units:
      - name: hello.service
        content: "{{ lookup('template', 'hello.service.j2') }}"

- name: Take it into service, and back if it does not become healthy within half a minute
  convoy.rollout.release:
    component: hello
    state: active
    release: 1.1.0-0123456789ab
    rollout: r-42
    token: 42
    probes:
      - kind: http
        url: http://127.0.0.1:8080/healthz
    gate:
      deadline: 30

- name: Bring version 1.18.0-6 of a package beside the one that is installed
  convoy.rollout.release:
    component: proxy
    state: staged
    release: 1.18.0-6-0123456789ab
    version: "1.18.0-6"
    token: 42
    package:
      name: nginx
    units:
      - name: nginx.service

- name: Have tasks of the site put it in place
  block:
    - name: Begin
      convoy.rollout.release:
        component: vendor
        state: begun
        release: 2.0.0-0123456789ab
        rollout: r-42
        token: 42
        probes:
          - kind: tcp
            port: 9000
      register: begun

    - name: Run the supplier's installer
      ansible.builtin.command: "{{ begun.tasks.release.path }}/install.sh --prefix /opt/vendor"
      changed_when: true
      when: begun.tasks.run

    - name: Settle
      convoy.rollout.release:
        component: vendor
        state: settled
        release: 2.0.0-0123456789ab
        rollout: r-42
        token: 42
        tasks:
          written: "{{ begun.tasks.written }}"
      when: begun.tasks.begun

- name: Go back to the last good release
  convoy.rollout.release:
    component: hello
    state: reverted
    rollout: r-43
    token: 43
"""

RETURN = r"""
release:
  description: The release that was asked for, or gone back to.
  returned: always
  type: str
  sample: 1.1.0-0123456789ab
active:
  description: The release that is active now; null when there is none.
  returned: always
  type: str
  sample: 1.1.0-0123456789ab
previous:
  description: The release that a rollback would go to; null when there is none.
  returned: always
  type: str
  sample: 1.0.0-ba9876543210
reverted:
  description: Whether the host went back to another release, or to none.
  returned: always
  type: bool
  sample: false
artifact_needed:
  description: Whether the release is not on the host, so that O(artifact) must be given.
  returned: when O(state=staged)
  type: bool
  sample: false
transfer:
  description: What it took to bring the release to the host.
  returned: when O(state=staged) and O(artifact) is given, outside check mode
  type: dict
  contains:
    way:
      description: How it came, V(none) where it was there, V(whole), V(delta) or V(pull).
      type: str
      sample: delta
    bytes:
      description: How many bytes of artifacts came, sent or fetched.
      type: int
      sample: 262144
    calls:
      description: How many remote calls it took.
      type: int
      sample: 1
    base:
      description: The release that files were taken from; null where none were.
      type: str
      sample: 1.0.0-ba9876543210
    reused:
      description: How many bytes of files that were.
      type: int
      sample: 4980736
    fallback:
      description: Why the artifact was sent whole after all; null where it was not.
      type: str
      sample: 'release 1.0.0-ba9876543210 is not intact on this host: version: other content than recorded'
pruned:
  description: The releases that were removed to make room.
  returned: always
  type: list
  elements: str
  sample: [0.8.0-00aa11bb22cc]
gate:
  description: How the gate ended, as M(convoy.rollout.health_gate) returns it; null when it was not asked.
  returned: always
  type: dict
  sample: {"verdict": "pass", "message": "all 1 probes were healthy", "attempts": [], "dropped": 0, "elapsed": 0.5}
gate_after:
  description: How the gate of the release that was gone back to ended; null when there was none.
  returned: when an activation failed
  type: dict
process:
  description: Of every service of the release, its main process.
  returned: always
  type: dict
  sample:
    hello.service: {"pid": 4711, "started": 1735689600.5, "cwd": "/srv/hello/releases/1.1.0-0123456789ab",
                    "release": "1.1.0-0123456789ab"}
tasks:
  description: What the tasks that put the release in place need to know.
  returned: when O(state=begun), and O(state=settled) on the way forward
  type: dict
  contains:
    begun:
      description: Whether something was begun, so that O(state=settled) has to follow. Not where all is well.
      type: bool
      sample: true
    run:
      description: Whether the tasks are to run before that.
      type: bool
      sample: true
    release:
      description: The release that they put in place, with C(id), C(version) and C(path); null if none is to be there.
      type: dict
      sample: {"id": "2.0.0-0123456789ab", "version": "2.0.0", "path": "/srv/vendor/releases/2.0.0-0123456789ab"}
    previous:
      description: The same of the release that the host comes from; null if there is none.
      type: dict
      sample: {"id": "1.9.0-ba9876543210", "version": "1.9.0", "path": "/srv/vendor/releases/1.9.0-ba9876543210"}
    written:
      description: The units whose text changed.
      type: list
      elements: str
      sample: [vendor.service]
log:
  description: The last lines that the units logged.
  returned: when an activation failed
  type: list
  elements: str
steps:
  description: What was done when, in seconds since the epoch.
  returned: always
  type: list
  elements: dict
  contains:
    step:
      description: What had been done.
      type: str
      sample: switched
    at:
      description: When it had.
      type: float
      sample: 1735689600.123
stale_token:
  description: Whether a newer rollout has been here.
  returned: when it has
  type: bool
  sample: true
highest:
  description: The token of the newer rollout.
  returned: when O(token) is stale
  type: int
  sample: 43
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.convoy.rollout.plugins.module_utils.calls import release


def main() -> None:
    """Do what is asked, or say why not."""
    module = AnsibleModule(argument_spec=release.arguments(), required_if=release.REQUIRED_IF, supports_check_mode=True)
    result = release.run(module.params, module.check_mode)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
