#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/rollout.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout
short_description: Check, open, turn round and close a rollout
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - The steps of a rollout that concern all of its hosts at once. They run on the controller.
  - The hosts' own steps are M(convoy.rollout.admission), M(convoy.rollout.release) and M(convoy.rollout.report).
options:
  state:
    description:
      - V(checked) refuses what can be refused without asking a host. The variables, the phases, the artifact's
        signature, freezes of the environment.
      - V(opened) refuses what the hosts cannot take, makes the plan, takes the token and records the opening, or goes
        on with the rollout that a dead run left open. In check mode it tells the plan and changes nothing. The hosts
        must have been read before, by M(convoy.rollout.release_info) registered as C(component_read).
      - V(joined) takes part in the rollout that another run has opened, for the steps of a deployment as jobs of their
        own.
      - V(staged) reports the hosts that could not be staged, and says which are to roll.
      - V(decided) says which hosts have to go back.
      - V(closed) records the verdict, tells it, and gives the token back. It fails unless the rollout succeeded.
    type: str
    required: true
    choices: [checked, opened, joined, staged, decided, closed]
  ledger_url:
    description:
      - The ledger, as an SQLAlchemy URL. C(sqlite:////path/file.db) for one controller,
        C(postgresql+psycopg://user@host/database) for several. SQLite is refused in a job of AWX.
    type: str
    required: true
  kind:
    description:
      - V(deploy) goes forward to a version, V(rollback) back to a release that the hosts still have.
      - V(catch_up) brings the version of the last rollout to those of its hosts that it deferred.
      - V(repair) brings once more what they were left with to the hosts that drifted.
    type: str
    choices: [deploy, rollback, catch_up, repair]
    default: deploy
  environment:
    description: The environment's name. Required if O(state=checked) or O(state=joined).
    type: str
  component:
    description: The component's name. Required if O(state=checked) or O(state=joined).
    type: str
  version:
    description:
      - The version to go to, a string. A number is refused, since V(1.10) in YAML is the number 1.1.
      - A rollback without it goes to the last good release of what most of the hosts run.
    type: str
  component_kind:
    description: Of which kind the component is, V(archive), V(package), V(container) or V(tasks).
    type: str
    default: archive
  package:
    description: The package, as C(component_package) of the role P(convoy.rollout.component#role) describes it.
    type: dict
    default: {}
  container:
    description: How the image runs, C(component_container) of the role P(convoy.rollout.component#role).
    type: raw
    default: {}
  tasks:
    description: C(component_tasks) of the role P(convoy.rollout.component#role).
    type: dict
    default: {}
  in_doubt:
    description: C(component_in_doubt) of that role.
    type: str
    default: ""
  confirm_within:
    description: C(component_confirm_within) of that role, which does not go with every kind.
    type: raw
    default: 0
  artifact:
    description: C(component_artifact), which is refused for a package.
    type: str
    default: ""
  config:
    description: C(component_config), which is refused for a package.
    type: raw
    default: []
  units:
    description: C(component_units), whose templates are refused for a package.
    type: raw
    default: []
  depot:
    description: The directory of the depot. A rollback does not need it, and a package neither.
    type: path
  depot_url:
    description:
      - The depot, where it is elsewhere, as a URL that fsspec reads, such as C(https://releases.example/depot). It is
        only read. O(depot) is not looked at then.
      - Needs the Python package C(fsspec[http]) on the controller, C(fsspec[s3]) for S3, C(fsspec[sftp]) for SFTP.
    type: str
  depot_cache:
    description: The directory on the controller that keeps what was read from O(depot_url).
    type: path
    default: ~/.cache/convoy/depots
  depot_options:
    description: Options of fsspec's file system for O(depot_url), such as credentials.
    type: dict
    default: {}
  allowed_signers:
    description: The file of the keys that may sign releases, in ssh-keygen's format. A rollback does not need it.
    type: path
  revoked_signers:
    description: The file of keys that are revoked, in ssh-keygen's format.
    type: path
  required_signers:
    description: How many people of O(allowed_signers) must have signed a release for it to be deployed.
    type: int
    default: 1
  requires_promotion:
    description:
      - Whether only a release is deployed that was promoted for O(environment). A retired release is deployed nowhere,
        whatever this says.
    type: bool
    default: false
  freezes:
    description:
      - Times in which nothing is deployed, each with C(name), C(from) and C(until) in ISO 8601. A time without a zone
        is in UTC. Rolling back is always allowed.
    type: list
    elements: dict
    default: []
  freeze_override:
    description: The reason for which a freeze is overridden. It is recorded in the ledger.
    type: str
    default: ""
  hosts:
    description: The hosts that run the component, in the order in which they are put into the phases.
    type: list
    elements: str
    default: []
  mendable:
    description: For O(kind=repair), the hosts that drifted, as M(convoy.rollout.drift) returned them.
    type: list
    elements: str
  releases:
    description: For O(kind=repair), the releases that hosts were left with, as M(convoy.rollout.drift) returned them.
    type: dict
    default: {}
  versions:
    description:
      - For O(kind=repair), the versions of O(releases) as far as hosts know them, as M(convoy.rollout.drift) returned
        them. The id of a release does not tell all versions of packages apart.
    type: dict
    default: {}
  colours:
    description:
      - The inventory groups of the two colours, as C(rollout_colours) of the role P(convoy.rollout.rollout#role)
        describes them. Empty where hosts have none.
    type: raw
    default: {}
  phases:
    description:
      - The phases, in order, as the role P(convoy.rollout.rollout#role) describes them, or the name of a preset.
        Required if O(state=checked).
    type: raw
  max_unavailable:
    description:
      - How many hosts of a phase that does not say it itself may be out of service at once, as a count or a percentage
        of the fleet (rounded down, at least 1).
    type: raw
    default: 1
  failure_budget:
    description:
      - How many hosts may end failed, unreachable or reverted over the whole rollout, as a count or a percentage
        (rounded down). One more, and the rollout turns round.
      - Or a mapping with this number as C(hosts), and limits for failures one after the other (C(consecutive), a count)
        and in one zone (C(per_zone), a count or a percentage of the smallest zone).
    type: raw
    default: 0
  turn_back_max_unavailable:
    description: How many hosts may be out of service at once on the way back.
    type: raw
    default: 50%
  turn_back_scope:
    description:
      - Which hosts go back when the rollout turns back. V(all) that run the new release, those of the open V(phase),
        only each V(host) that failed, or V(none).
    type: str
    default: all
  lease:
    description: Seconds after which an admitted host that has not reported counts as lost.
    type: raw
    default: 600
  min_available:
    description: How many hosts serve at any time, whatever the windows are, as a count or a percentage (rounded up).
    type: raw
    default: 0
  zone_order:
    description:
      - How zones share the phases. V(inventory) means that they do not matter, V(spread) that each phase takes hosts of
        all zones in turn, V(one_at_a_time) that a phase becomes a phase for each zone.
    type: str
    default: inventory
  on_failure:
    description:
      - What happens when more hosts have failed than the budget allows, in phases that do not say it themselves.
        V(turn_back), V(hold) until a person decides, or V(continue) to the end and fail then.
    type: str
    default: turn_back
  when_unreachable:
    description: What a host that cannot be reached before it is touched counts as, V(fail) or V(defer).
    type: str
    default: fail
  when_unhealthy:
    description:
      - What becomes of a host that is not healthy before it is touched. It may V(go_first) in its phase, be left out
        (V(skip)), or let nothing be deployed (V(fail)).
    type: str
    default: go_first
  min_up:
    description: How many other servers must be up for a host to be drained, as the load balancer will see to it.
    type: int
    default: 0
  members_up:
    description: How many servers the load balancer has up, for O(state=opened).
    type: int
  alertmanager:
    description:
      - Where to ask whether an alert fires, in which case nothing is deployed. C(url), C(filters) (matchers such as
        C(service="hello")), C(headers), C(timeout), C(ca_path).
    type: dict
    default: {}
  progress_deadline:
    description: Seconds without a host that succeeds after which the rollout counts as failed; V(0) for never.
    type: raw
    default: 0
  gate:
    description: The gate of the component, to see that its times fit those of the rollout.
    type: dict
    default: {}
  gates:
    description: The metric gates that phases name, to see that they can be used.
    type: dict
    default: {}
  gate_options:
    description: What all metric gates have in common.
    type: dict
    default: {}
  balancers:
    description: The hosts of HAProxy whose counters gates without a source of their own read.
    type: list
    elements: str
    default: []
  backend:
    description: The backend there.
    type: str
    default: ''
  when_busy:
    description:
      - What O(state=checked) does while another run holds a rollout of the component open. V(reject) fails. V(queue)
        waits until it has ended. V(cancel_older) tells it to turn back and waits. V(hold) waits, and then the rollout
        is opened paused. In check mode it does not matter.
    type: str
    choices: [reject, queue, cancel_older, hold]
    default: reject
  queue_deadline:
    description: Seconds for which O(when_busy) waits.
    type: float
    default: 3600
  hooks:
    description: Task files of the site by the step of the road at which they run.
    type: dict
    default: {}
  traffic_adapter:
    description: How hosts are taken out of load balancers, as the role P(convoy.rollout.traffic#role) describes it.
    type: str
    default: none
  migrations:
    description: What runs once in the whole rollout, as C(component_migrations) has it.
    type: raw
    default: []
  accept_irreversible:
    description:
      - The reason for which a rollback goes back past migrations that cannot be reversed. It is recorded in the ledger.
    type: str
    default: ""
  traffic_tasks:
    description: The task files of the adapter C(tasks).
    type: dict
    default: {}
  keep:
    description: How many good releases stay on a host, to tell what would be pruned.
    type: int
    default: 5
  transfer:
    description: How artifacts get to hosts, V(push), V(delta) or V(pull).
    type: str
    default: push
  artifact_url:
    description: Where hosts fetch artifacts from, with placeholders. Required if O(transfer=pull).
    type: str
    default: ''
  pull:
    description: How hosts fetch artifacts, as M(convoy.rollout.release) takes it.
    type: dict
    default: {}
  checked:
    description: What O(state=checked) returned. Required if O(state=opened).
    type: dict
  membership:
    description: Which hosts the load balancers have in service, as P(convoy.rollout.membership#filter) makes it.
    type: dict
    default: {}
  rotation:
    description: What each load balancer says of each host, as P(convoy.rollout.rotation#filter) makes it.
    type: dict
    default: {}
  opened:
    description: What O(state=opened) returned. Required if O(state=staged), O(state=decided) or
      O(state=closed).
    type: dict
extends_documentation_fragment:
  - convoy.rollout.provenance
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The hosts are not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: O(state=opened) tells the plan, and the states after it have nothing to do.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: The plan names what each host runs and what it would run.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details: When every host runs the release and is in service, nothing is opened.
seealso:
  - module: convoy.rollout.admission
  - module: convoy.rollout.report
  - module: convoy.rollout.verdict
"""

EXAMPLES = r"""
- name: Check the request, the artifact and the policy
  convoy.rollout.rollout:
    state: checked
    environment: staging
    component: hello
    version: "1.1.0"
    ledger_url: sqlite:////var/lib/convoy/staging.db
    depot: /var/lib/convoy/depot
    allowed_signers: /etc/convoy/allowed_signers
    hosts: "{{ groups['app'] }}"
    phases:
      - name: canary
        size: 1
        bake: 30
      - name: fleet
        size: 100%
        max_unavailable: 25%
  register: rollout_checked

- name: Plan, take the token, record the opening
  convoy.rollout.rollout:
    state: opened
    ledger_url: sqlite:////var/lib/convoy/staging.db
    checked: "{{ rollout_checked }}"
  register: rollout_opened

- name: Record and tell the verdict
  convoy.rollout.rollout:
    state: closed
    ledger_url: sqlite:////var/lib/convoy/staging.db
    opened: "{{ rollout_opened }}"
"""

RETURN = r"""
stream:
  description: The environment and the component, with a slash between them. Where the rollout stands in the ledger.
  returned: when O(state=checked), or a rollout was opened or joined
  type: str
  sample: staging/hello
version:
  description: The version that the rollout goes to.
  returned: when O(state=checked), or a rollout was opened or joined
  type: str
  sample: 1.1.0
artifact:
  description: The artifact of the version in the depot.
  returned: when O(state=checked) and O(kind=deploy)
  type: str
  sample: /var/lib/convoy/depot/blobs/sha256/9f1d4c07b3e2a8556e0c1d9f4b7a2e638cf05d1b94e7a3620c8f5b1d7e4a9036
artifact_size:
  description: The artifact's size in bytes.
  returned: when O(state=checked) and O(kind=deploy)
  type: int
  sample: 4612
artifact_sha256:
  description: The artifact's digest.
  returned: when O(state=checked) and O(kind=deploy)
  type: str
  sample: 9f1d4c07b3e2a8556e0c1d9f4b7a2e638cf05d1b94e7a3620c8f5b1d7e4a9036
manifest:
  description: The manifest that was verified.
  returned: when O(state=checked) and O(kind=deploy)
  type: dict
  contains:
    path:
      description: Where it is.
      type: str
      sample: /var/lib/convoy/depot/components/hello/1.1.0/manifest.json
    sha256:
      description: Its digest, which the release is staged against.
      type: str
      sample: 2b7e0c9a51d84f36a1c5e7f09283b4d6508f1a2c3d4e5f60718293a4b5c6d7e8
serial:
  description:
    - The number of the release's publication. One that is lower than what was deployed is refused, since that would go
      back.
  returned: when O(state=checked) and O(kind=deploy)
  type: int
  sample: 7
signer:
  description: Who signed the manifest, principals of O(allowed_signers), with commas between them.
  returned: when O(state=checked) and O(kind=deploy)
  type: str
  sample: release@convoy.example
builder:
  description: Who built the artifact, by its provenance.
  returned: when O(state=checked) and O(kind=deploy) and O(required_provenance) is given
  type: str
  sample: https://builder.example/v1
need_bytes:
  description: How many bytes must be free on every host.
  returned: when O(state=checked) and O(kind=deploy)
  type: int
  sample: 81920
override:
  description: Which freeze was overridden and why. Empty when none was.
  returned: when O(state=checked)
  type: str
  sample: "the freeze end of the year was overridden: security fix"
idle:
  description: Whether there is nothing to do, because it is done already or because this is check mode.
  returned: when O(state=opened) or O(state=joined)
  type: bool
  sample: false
rollout:
  description: The rollout's id.
  returned: when a rollout was opened or joined
  type: str
  sample: 20260105-091500-3fa2
token:
  description: The fencing token of this run. Hosts and ledger refuse a lower one.
  returned: when a rollout was opened or joined
  type: int
  sample: 1767604500
order:
  description: The hosts that have to go, in the order in which they ask for admission.
  returned: when O(state=opened), O(state=joined) or O(state=staged)
  type: list
  elements: str
  sample: [app1, app2, app3]
hosts:
  description:
    - For O(state=checked) the hosts as they were given.
    - When a rollout was opened or joined, a dictionary, by host, of C(from), the release that the host ran when the
      rollout was opened (or null), and C(to), the release that it has to run.
  returned: when O(state=checked), or a rollout was opened or joined
  type: raw
  sample:
    app1:
      from: 1.0.0-0c5e77d1f2b8
      to: 1.1.0-5f2c1e8ab904
switch:
  description: With two colours, which one the load balancers are switched to. Null otherwise.
  returned: when a rollout was opened or joined
  type: dict
  sample:
    coming: green
    leaving: blue
    serving: [app1, app2]
gate:
  description: The gate that a dead run left open, as M(convoy.rollout.report) returns it, or null.
  returned: when a rollout was opened or joined
  type: dict
retry:
  description: The command that does the same again.
  returned: when a rollout was opened or joined
  type: str
  sample: ansible-playbook deploy.yml -i staging -e component_version=1.1.0
to_return:
  description: The hosts that have to go back, the ones that are out of service first.
  returned: when O(state=decided)
  type: list
  elements: str
  sample: [app1]
status:
  description:
    - Where the rollout stands.
  returned: when O(state=closed) and a rollout was opened
  type: str
  sample: succeeded
reason:
  description: A short word for what was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: policy
convoy:
  description: What is told in the terminal, in C(lines) at once or in C(summary) at the end of the run.
  returned: when there is something to tell
  type: dict
  sample:
    summary:
      - "deploy of hello 1.1.0 in staging: succeeded (rollout 20260105-091500-3fa2)"
      - "1.1.0-5f2c1e8ab904: app1, app2, app3"
"""
