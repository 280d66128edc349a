# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a release into the depot, signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    TRUST_SPEC,
    Depot,
    Publication,
    Published,
    require_directory,
    trust_of,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import State
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import format_time, parse_time
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner
from ansible_collections.convoy.rollout.plugins.plugin_utils.spec_guard import require_string


class ActionModule(ControllerAction):
    """``convoy.rollout.publish``"""

    SPEC: ClassVar[dict[str, Any]] = {
        "component": {"type": "str", "required": True},
        "version": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["archive", "container", "tasks"], "default": "archive"},
        "artifact": {"type": "path", "required": True},
        "image": {"type": "str"},
        "depot": {"type": "path", "required": True},
        "depot_url": {"type": "str"},
        "signing_key": {"type": "path", "required": True},
        "identity": {"type": "str"},
        "audience": {"type": "list", "elements": "str", "default": []},
        "expires": {"type": "str"},
        "sbom": {"type": "path"},
        "provenance": {"type": "path"},
        "environment": {"type": "str", "default": ""},
        **TRUST_SPEC,
    }

    def before_validation(self, raw: Mapping[str, Any]) -> None:
        """Refuse a depot that is elsewhere, and a version that YAML made a number, before its type is converted."""
        require_directory(raw)
        if "version" in raw:
            require_string("component_version", raw["version"])

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Publish, or in check mode tell what that would do."""
        depot, publication = Depot(Path(arguments["depot"])), _publication(arguments)
        signer, now = SshSigner(Path(arguments["signing_key"])), datetime.now(UTC)
        if self.check_mode:
            signer.check()
            published = depot.preview(publication, now, signer.fingerprint())
        else:
            published = depot.publish(publication, signer, now, trust_of(arguments), str(this_run()))
        lines = [_line(published, self.check_mode), *_state_lines(published)]
        return {**_result(published), "convoy": {"lines": lines}}


def _publication(arguments: Mapping[str, Any]) -> Publication:
    expires, is_image = arguments["expires"], arguments["kind"] == "container"
    if arguments["image"] and not is_image:
        raise SpecError(
            f"publish_image: it chooses an image of an OCI layout, and component_kind is {arguments['kind']!r}"
        )
    return Publication(
        component=arguments["component"],
        version=arguments["version"],
        artifact=Path(arguments["artifact"]),
        audience=tuple(sorted(set(arguments["audience"]))),
        expires=parse_time("expires", expires) if expires else None,
        signer=arguments["identity"] or None,
        sbom=Path(arguments["sbom"]) if arguments["sbom"] else None,
        provenance=Path(arguments["provenance"]) if arguments["provenance"] else None,
        is_image=is_image,
        image=arguments["image"] or None,
    )


def _result(published: Published) -> Result:
    manifest = published.manifest
    return {
        "changed": published.changed,
        "component": manifest.component,
        "version": manifest.version,
        "serial": manifest.serial,
        "created": format_time(manifest.created),
        "sha256": manifest.artifact.sha256,
        "size": manifest.artifact.size,
        "files": len(manifest.files),
        "manifest": str(published.path),
        "artifact": str(published.artifact),
        "sbom": asdict(manifest.sbom) if manifest.sbom else None,
        "image": manifest.image._asdict() if manifest.image else None,
        "state": published.standing.state.value if published.standing else None,
    }


def _line(published: Published, check_mode: bool) -> str:
    manifest = published.manifest
    done = "would be published" if check_mode else "published"
    what = done if published.changed else "was published before, nothing changed"
    added = [*(["signature"] if published.signed else []), *published.added]
    if added:
        is_so = "would be" if check_mode else "is" if len(added) == 1 else "are"
        what = f"was published before, its {' and '.join(added)} {is_so} added"
    holds = f"image {manifest.image.digest}" if manifest.image else f"{len(manifest.files)} files"
    return f"{manifest.component} {manifest.version} {what}: serial {manifest.serial}, {holds}"


def _state_lines(published: Published) -> list[str]:
    """Where the release stands, and why where that is in quarantine."""
    standing = published.standing
    if standing is None:
        return []
    if standing.state is State.QUARANTINED and standing.changes:
        return [f"it is in quarantine: {standing.changes[-1].why}"]
    return [f"it is {standing}"]
