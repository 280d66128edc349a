#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: depot
short_description: Tell, verify, promote, retire, push and collect releases in the depot
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Sees to the releases that M(convoy.rollout.publish) put into the depot. Each is in quarantine or verified, may be
    promoted for environments, and is retired in the end. Every change is recorded with who made it, when, and why.
options:
  do:
    description:
      - V(list) tells every release with its state, serial, size and date.
      - V(show) tells all about one release, with its history, and copies what proves it to O(export).
      - V(verify) verifies every digest, signature and record, and looks for what interrupted uploads left and for what
        others could read or write. It fails when something is wrong. Releases in quarantine whose signatures are
        trusted become verified.
      - V(collect) removes what interrupted uploads left, and artifacts of retired releases that no host runs or could
        go back to, by the ledgers of all environments that use the depot. Where one cannot be read, nothing is removed.
      - V(promote) lets the environment have a release that is verified.
      - V(retire) lets a release not be deployed any more, in any environment. There is no way back from there.
      - V(push) brings the releases that are promoted for O(environment) to O(depot_url), with all that proves them,
        after all of them have been verified. Nobody sees half of anything there. What is there already does not go
        again; signatures, provenance and records that came since are added, and nothing but a damaged artifact is
        replaced. A release that was retired is retired there too.
    type: str
    choices: [list, show, verify, collect, promote, retire, push]
    default: list
  depot:
    description: The directory of the depot on the controller. One that others may read or write is refused.
    type: path
    required: true
  depot_url:
    description:
      - The depot elsewhere that O(do=push) brings releases to, as a URL that fsspec writes to, such as
        V(sftp://convoy@releases.example/srv/depot), V(s3://bucket/depot) or V(file:///mnt/depot). Over HTTP(S) it is
        refused. Over SFTP the server's key must be in a known_hosts file. Required if O(do=push).
      - With anything else it is refused, since only deployments read from there.
      - Needs the Python package C(fsspec[sftp]) on the controller for SFTP, C(fsspec[s3]) for S3.
    type: str
  depot_options:
    description:
      - Options of fsspec's file system for O(depot_url), such as credentials. For SFTP, C(key_filename) is the file of
        the key, and C(known_hosts) the file that knows the server's key, instead of C(~/.ssh/known_hosts).
    type: dict
    default: {}
  environment:
    description: The environment's name.
    type: str
    required: true
  component:
    description: The component's name. Required if O(do=show), O(do=promote) or O(do=retire).
    type: str
  version:
    description:
      - The version, a string, for the same, or with O(component) the one release that O(do=push) brings. A number is
        refused, since V(1.10) in YAML is the number 1.1.
    type: str
  allowed_signers:
    description:
      - The file of the keys that may sign releases, in ssh-keygen's format. Without it no signature is verified.
    type: path
  revoked_signers:
    description: The file of keys that are revoked, in ssh-keygen's format.
    type: path
  required_signers:
    description: How many people of O(allowed_signers) must have signed a release.
    type: int
    default: 1
  ledger_url:
    description: The environment's ledger, as an SQLAlchemy URL. Required if O(do=collect).
    type: str
  ledgers:
    description:
      - The ledgers of the other environments that use the depot, by their names, for O(do=collect). One that is known
        to use it, and is not named, lets nothing be removed.
    type: dict
    default: {}
  keep:
    description: How many good releases a host keeps at most, in any of the environments.
    type: int
    default: 5
  export:
    description:
      - A directory on the controller to which O(do=show) copies the manifest of the release, its signatures, its SBOM
        and its provenance. What it writes is for its owner alone.
    type: path
  reason:
    description: Why a release is promoted or retired.
    type: str
    default: no reason was given
extends_documentation_fragment:
  - convoy.rollout.provenance
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: full
    details: All of it is done on the controller, whatever the host is.
seealso:
  - module: convoy.rollout.publish
  - module: convoy.rollout.rollout
"""

EXAMPLES = r"""
- name: Tell what is in the depot
  convoy.rollout.depot:
    depot: /var/lib/convoy/depot
    environment: staging

- name: Let production have version 1.1.0
  convoy.rollout.depot:
    do: promote
    depot: /var/lib/convoy/depot
    environment: production
    component: hello
    version: "1.1.0"
    allowed_signers: /etc/convoy/allowed_signers
    reason: it ran in staging for a week

- name: Bring what is promoted for production to where production's controllers read it
  convoy.rollout.depot:
    do: push
    depot: /var/lib/convoy/depot
    depot_url: sftp://convoy@releases.example/srv/depot
    depot_options:
      key_filename: /etc/convoy/push_key
    environment: production
    allowed_signers: /etc/convoy/allowed_signers

- name: Remove what nobody needs
  convoy.rollout.depot:
    do: collect
    depot: /var/lib/convoy/depot
    environment: staging
    ledger_url: sqlite:////var/lib/convoy/staging.db
    ledgers:
      production: sqlite:////var/lib/convoy/production.db
"""

RETURN = r"""
releases:
  description: The releases, by component and serial.
  returned: when O(do=list) or O(do=show)
  type: list
  elements: dict
  contains:
    component:
      description: The name of the component.
      type: str
      sample: hello
    version:
      description: The version.
      type: str
      sample: 1.1.0
    state:
      description: V(quarantined), V(verified), V(promoted) or V(retired). Null where it cannot be read.
      type: str
      sample: promoted
    promoted:
      description: The environments that it is promoted for.
      type: list
      elements: str
      sample: [staging]
    serial:
      description: The number of its publication. Null where it cannot be read.
      type: int
      sample: 2
    size:
      description: The size of the archive in bytes. Null where it cannot be read.
      type: int
      sample: 4450
    created:
      description: When it was published. Null where it cannot be read.
      type: str
      sample: "2026-01-31T09:30:00Z"
    artifact:
      description: Whether the archive is in the depot.
      type: bool
      sample: true
    sbom:
      description: The SBOM by its digest, size and format. Null where there is none.
      type: dict
      sample: null
    provenance:
      description: What the provenance that is kept with the release says, not verified.
      returned: when O(do=show)
      type: list
      elements: dict
      contains:
        subjects:
          description: The SHA-256 of what was built.
          type: list
          elements: str
          sample: [1a1500fd4d5ae7ffec4e8ac5f2f3e455c7b69fb02e0ea06ee0bac9c3024e3327]
        builder:
          description: The builder's id.
          type: str
          sample: https://builder.example/v1
        sources:
          description: What was built from.
          type: list
          elements: str
          sample: ["git+https://git.example/team/hello@refs/tags/v1.1.0"]
    trouble:
      description: Why the release cannot be read. Empty where it can.
      type: str
      sample: ""
faults:
  description: What is wrong, one sentence each.
  returned: when O(do=verify)
  type: list
  elements: str
  sample: []
notes:
  description: Releases that are as they were signed, but whose signatures are not trusted here.
  returned: when O(do=verify)
  type: list
  elements: str
  sample: []
collected:
  description: The retired releases whose artifacts were removed, each as component and version.
  returned: when O(do=collect)
  type: list
  elements: list
  sample: [[hello, 1.0.0]]
freed:
  description: How many bytes were removed.
  returned: when O(do=collect)
  type: int
  sample: 4450
pushed:
  description: The releases of which something was brought, or would be in check mode.
  returned: when O(do=push)
  type: list
  elements: dict
  contains:
    component:
      description: The name of the component.
      type: str
      sample: hello
    version:
      description: The version.
      type: str
      sample: 1.1.0
    new:
      description: Whether it was not there before.
      type: bool
      sample: true
    artifact:
      description: Whether its artifact was brought. It was there, or came with another release, where not.
      type: bool
      sample: true
    files:
      description: What else was brought, by its path below the release.
      type: list
      elements: str
      sample: [manifest.json, manifest.json.sig, states/000001.json, states/000002.json]
    bytes:
      description: How many bytes that are.
      type: int
      sample: 6120
there:
  description: The releases that were there before with all of that, each as component and version.
  returned: when O(do=push)
  type: list
  elements: list
  sample: [[hello, 1.0.0]]
sent:
  description: How many bytes were brought, or would be in check mode.
  returned: when O(do=push)
  type: int
  sample: 6120
convoy:
  description: What the callback C(convoy.rollout.progress) prints.
  returned: always
  type: dict
  sample:
    summary:
      - "hello 1.1.0 is promoted for staging"
reason:
  description: A short word for why it was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: release-not-verified
"""
