#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: publish
short_description: Put a release into the depot, signed
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Opens the archive, lists every file of it in a manifest, signs the manifest with an OpenSSH key, and puts both into
    the depot. From there M(convoy.rollout.release) brings the release to hosts.
  - Refuses an archive that hosts would refuse, naming the member. That is found out by unpacking it once with the code
    that hosts use, which needs as much room as the release.
  - A version never changes. Publishing the same again changes nothing, other content under a version that is in the
    depot already is refused.
  - The release is in the depot whole, or not at all, whenever this is interrupted.
  - It is verified where O(required_signers) of O(allowed_signers) have signed it, and in quarantine where not.
    Publishing it again with another key adds a signature.
options:
  component:
    description: The name of the component. 1 to 64 letters, digits, C(.), C(_) or C(-), the first a letter or digit.
    type: str
    required: true
  version:
    description:
      - The version, which must be a string. A number is refused, because YAML reads C(1.10) as V(1.1). Put it in
        quotes.
    type: str
    required: true
  kind:
    description: What it is, an V(archive), the image of a V(container), or an archive that V(tasks) put in place.
    type: str
    choices: [archive, container, tasks]
    default: archive
  artifact:
    description:
      - The path of the archive on the controller. Its name must end in C(.tar), C(.tar.gz), C(.tgz), C(.tar.bz2),
        C(.tar.xz), C(.tar.zst), C(.zip) or C(.whl) (a wheel is a zip).
      - C(.tar.zst) needs Python 3.14 on the controller and on every host.
      - With O(kind=container) it is the OCI layout of an image, an archive or the directory itself. Every blob is
        compared with the digest that it is named after, and the manifest that is signed names the digest of the image.
    type: path
    required: true
  image:
    description:
      - Which image of a layout that holds several is meant, by its name in C(org.opencontainers.image.ref.name) or by
        the digest of its manifest. Only for O(kind=container).
    type: str
  depot:
    description:
      - The directory of the depot on the controller. It is created when it is not there.
      - One that others may read or write is refused.
    type: path
    required: true
  depot_url:
    description: A depot that is elsewhere. It is refused here, since only deployments read from there.
    type: str
  signing_key:
    description:
      - The path of a private OpenSSH key that nobody else may read, or of a public one whose private half is in the
        agent that E(SSH_AUTH_SOCK) names.
    type: path
    required: true
  identity:
    description:
      - The name under which the C(allowed_signers) file of an environment lists the key. When given, environments that
        list it under another name refuse the release.
    type: str
  audience:
    description: The environments that may deploy the release. By default all of them may.
    type: list
    elements: str
    default: []
  expires:
    description: The time in UTC from which on the release is not deployed any more, such as V(2030-01-31T00:00:00Z).
    type: str
  sbom:
    description:
      - The bill of material of the artifact, CycloneDX or SPDX in JSON. It is kept with the release, and the manifest
        that is signed names its digest.
    type: path
  provenance:
    description:
      - A DSSE envelope with an in-toto statement that says how the artifact was built. It is kept with the release. One
        of another artifact, or that nobody signed, is refused. Publishing again with another one adds it.
    type: path
  environment:
    description: The environment whose signers are asked for, as it is recorded with the state of the release.
    type: str
    default: ''
  allowed_signers:
    description:
      - The file of the keys that may sign releases, in ssh-keygen's format. Without it the release is in quarantine.
    type: path
  revoked_signers:
    description: The file of keys that are revoked, in ssh-keygen's format.
    type: path
  required_signers:
    description: How many people of O(allowed_signers) must have signed a release for it to be verified.
    type: int
    default: 1
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
  - module: convoy.rollout.depot
  - module: convoy.rollout.release
"""

EXAMPLES = r"""
- name: Publish version 1.1.0 for every environment
  convoy.rollout.publish:
    component: hello
    version: "1.1.0"
    artifact: build/hello-1.1.0.tar.gz
    depot: /var/lib/convoy/depot
    signing_key: ~/.ssh/release_key

- name: Publish a version that only staging may deploy, until the end of the year
  convoy.rollout.publish:
    component: hello
    version: "1.2.0-rc1"
    artifact: build/hello-1.2.0-rc1.tar.gz
    depot: /var/lib/convoy/depot
    signing_key: ~/.ssh/release_key
    identity: release@example.org
    audience: [staging]
    expires: "2027-01-01T00:00:00Z"
    sbom: build/hello-1.2.0-rc1.cdx.json
    provenance: build/hello-1.2.0-rc1.intoto.json
"""

RETURN = r"""
component:
  description: The name of the component.
  returned: success
  type: str
  sample: hello
version:
  description: The version.
  returned: success
  type: str
  sample: 1.1.0
serial:
  description: The number of this publication. It grows with every publication of the component.
  returned: success
  type: int
  sample: 2
created:
  description: When it was published.
  returned: success
  type: str
  sample: "2026-01-31T09:30:00Z"
sha256:
  description: The digest of the archive.
  returned: success
  type: str
  sample: 1a1500fd4d5ae7ffec4e8ac5f2f3e455c7b69fb02e0ea06ee0bac9c3024e3327
size:
  description: The size of the archive in bytes.
  returned: success
  type: int
  sample: 4450
files:
  description: How many files and links the release has.
  returned: success
  type: int
  sample: 2
manifest:
  description: The path of the manifest in the depot.
  returned: success
  type: str
  sample: /var/lib/convoy/depot/components/hello/1.1.0/manifest.json
artifact:
  description: The path of the archive in the depot.
  returned: success
  type: str
  sample: /var/lib/convoy/depot/blobs/sha256/1a1500fd4d5ae7ffec4e8ac5f2f3e455c7b69fb02e0ea06ee0bac9c3024e3327
sbom:
  description: The SBOM by its digest, size and format, C(cyclonedx-json) or C(spdx-json). Null where there is none.
  returned: success
  type: dict
  sample:
    sha256: 6f8c1e0d9b7a45f2836ce4d1a09b7c5e2f3d4a6b8c9e0f1a2b3c4d5e6f708192
    size: 10240
    format: cyclonedx-json
image:
  description:
    - The image, with the C(digest) of its manifest, its C(id), which podman knows it by, and what it is made for. Null
      for an archive.
  returned: success
  type: dict
  sample:
    digest: sha256:0d8efbd412ba5b1115bede1d6f76f542d672afd909374060473b8fefb19fb076
    id: sha256:0b1dc1a53b21d8357006933ca0f44876441f1fc8dbedc4ae82f54b3e3da27e54
    media_type: application/vnd.oci.image.manifest.v1+json
    size: 401
    os: linux
    architecture: amd64
state:
  description:
    - Where the release stands, V(quarantined), V(verified) or V(promoted). Null in check mode for a new one.
  returned: success
  type: str
  sample: verified
convoy:
  description: What the callback C(convoy.rollout.progress) prints.
  returned: success
  type: dict
  sample:
    lines:
      - "hello 1.1.0 published: serial 2, 2 files"
      - it is verified
reason:
  description: A short word for why it was refused. It does not change when the message is reworded.
  returned: failure
  type: str
  sample: version-taken
"""
