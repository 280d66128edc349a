# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that are not those of the component's kind are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.kinds import check_kind, package_digest
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import named, release_id

PACKAGE: dict[str, Any] = {
    "kind": "deploy",
    "component_kind": "package",
    "package": {"name": "nginx", "lock_timeout": 60},
    "version": "1.22.1-9+deb12u1",
    "artifact": "",
    "config": [],
    "transfer": "push",
    "artifact_url": "",
    "pull": {},
    "units": [{"name": "nginx.service"}],
    "requires_promotion": False,
    "required_provenance": None,
    "required_signers": 1,
}
ARCHIVE = {**PACKAGE, "component_kind": "archive", "package": {}, "artifact": "/x.tar", "config": [{"src": "a"}]}
PULLED = {**ARCHIVE, "transfer": "pull", "artifact_url": "https://depot.example/{sha256}", "pull": {"retries": 1}}


@pytest.mark.parametrize(
    "asked", [PACKAGE, ARCHIVE, PULLED, {**PACKAGE, "kind": "rollback", "version": None, "requires_promotion": True}]
)
def test_good_components(asked: dict[str, Any]) -> None:
    check_kind(asked)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"component_kind": "packge"}, r"component_kind: unknown kind 'packge': did you mean 'package'\?"),
        ({"component_kind": "archive"}, "component_package: it is for component_kind: package"),
        ({"package": {}}, r"component_package\.name is missing"),
        ({"package": {"nmae": "x"}}, r"component_package: unknown key 'nmae': did you mean 'name'\?"),
        ({"package": {"name": "a b"}}, r"component_package\.name 'a b' is not the name of a package"),
        ({"package": {"name": "nginx", "lock_timeout": "x"}}, r"lock_timeout: 'x' is not a number of seconds"),
        ({"version": "latest"}, "version 'latest' is not the version of a package"),
        ({"artifact": "/x.tar"}, "^component_artifact: for component_kind: archive only"),
        ({"config": [{}], "artifact": "x"}, "^component_artifact, component_config: for component_kind: archive only"),
        ({"units": [{"name": "a.service", "src": "b"}]}, r"^component_units\[0\]\.src: for component_kind: archive"),
        ({"units": [{"name": "a.service", "secret": True}]}, r"^component_units\[0\]\.secret: for component_kind:"),
        ({"transfer": "delta"}, "^component_transfer: for component_kind: archive only.* from its own repositories"),
        (
            {"transfer": "pull", "artifact_url": "https://x/", "pull": {"retries": 1}},
            "^component_transfer, component_artifact_url, component_pull: for component_kind: archive only",
        ),
        ({"requires_promotion": True}, "cannot be what environment_requires_promotion of the environment demands"),
        ({"required_provenance": {"keys": ["a"]}}, "what environment_provenance of"),
        ({"required_signers": 2}, "what environment_required_signers of"),
    ],
)
def test_bad_components(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        check_kind({**PACKAGE, **change})


def test_the_release_of_a_package_has_an_id_of_its_own() -> None:
    digest = named([{"name": "nginx.service"}]).digest
    made = release_id("1:1.22~rc1", package_digest("nginx", "1:1.22~rc1"), digest)
    assert made.startswith("1_1.22_rc1-")
    others = {
        release_id("1:1.22^rc1", package_digest("nginx", "1:1.22^rc1"), digest),
        release_id("1:1.22~rc1", package_digest("apache2", "1:1.22~rc1"), digest),
        release_id("1:1.22~rc1", package_digest("nginx", "1:1.22~rc1"), named([]).digest),
    }
    assert made not in others
