# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that are not those of the component's kind are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.kinds import check_kind, check_published, package_digest
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest
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
    "component": "hello",
    "container": {},
    "requires_promotion": False,
    "required_provenance": None,
    "required_signers": 1,
}
ARCHIVE = {**PACKAGE, "component_kind": "archive", "package": {}, "artifact": "/x.tar", "config": [{"src": "a"}]}
CONTAINER = {**ARCHIVE, "component_kind": "container", "container": {"ports": ["80:80"]}}
PULLED = {**ARCHIVE, "transfer": "pull", "artifact_url": "https://depot.example/{sha256}", "pull": {"retries": 1}}


@pytest.mark.parametrize(
    "asked",
    [
        PACKAGE,
        ARCHIVE,
        PULLED,
        CONTAINER,
        {**CONTAINER, "container": {}},
        {**PACKAGE, "kind": "rollback", "version": None, "requires_promotion": True},
    ],
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
        (
            {"package": {"name": "nginx", "manager": "dfn"}},
            r"component_package\.manager: unknown manager 'dfn': did you mean 'dnf'\?",
        ),
        ({"version": "latest"}, "version 'latest' is not the version of a package"),
        ({"artifact": "/x.tar"}, "^component_artifact: not for component_kind: package"),
        ({"config": [{}], "artifact": "x"}, "^component_artifact, component_config: not for component_kind: package"),
        (
            {"units": [{"name": "a.service", "src": "b"}]},
            r"^component_units\[0\]\.src: not for component_kind: package",
        ),
        ({"units": [{"name": "a.service", "secret": True}]}, r"^component_units\[0\]\.secret: not for component_kind:"),
        ({"transfer": "delta"}, "^component_transfer: not for component_kind: package.* from its own repositories"),
        (
            {"transfer": "pull", "artifact_url": "https://x/", "pull": {"retries": 1}},
            "^component_transfer, component_artifact_url, component_pull: not for component_kind: package",
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


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"component_kind": "archive"},
            "component_container: it is for component_kind: container, and that is 'archive'",
        ),
        ({"component_kind": "contaner"}, r"unknown kind 'contaner': did you mean 'container'\?"),
        (
            {"package": {"name": "nginx"}},
            "component_package: it is for component_kind: package, and that is 'container'",
        ),
        ({"container": {"port": 80}}, r"component_container: unknown key 'port': did you mean 'ports'\?"),
        (
            {"units": [{"name": "hello.service", "src": "x"}]},
            "component_units: hello.service is the unit that runs the",
        ),
    ],
)
def test_bad_containers_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        check_kind({**CONTAINER, **change})


@pytest.mark.parametrize(("kind", "published"), [("archive", "container"), ("container", "archive")])
def test_a_release_is_deployed_as_what_it_was_published_as(kind: str, published: str) -> None:
    image = Image(f"sha256:{'0a' * 32}", f"sha256:{'0b' * 32}", "x", 1, "linux", "amd64")
    files = (FileEntry("a", 1, 0o644, "0f" * 32),)
    made = Manifest("hello", "1.0", 1, datetime(2026, 1, 1, tzinfo=UTC), Artifact("0f" * 32, 1), files)
    manifest = replace(made, image=image if published == "container" else None)
    with pytest.raises(SpecError, match=f"it is '{kind}', and hello 1.0 was published as '{published}': set it right"):
        check_published(kind, manifest)
    check_published(published, manifest)
