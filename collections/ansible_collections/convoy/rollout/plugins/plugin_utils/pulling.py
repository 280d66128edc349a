# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where hosts find an artifact that they fetch themselves, and what can be said of that before they try."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.convoy.rollout.plugins.module_utils.calls import release
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def url_of(template: str, manifest: Manifest) -> str:
    """``component_artifact_url`` with its placeholders filled in. Raises SpecError where that cannot be done."""
    if not template:
        raise SpecError(
            "component_artifact_url is not set, and component_transfer is pull: say where hosts find artifacts, such "
            "as https://depot.example/blobs/sha256/{sha256}"
        )
    values = {
        "component": manifest.component,
        "version": manifest.version,
        "sha256": manifest.artifact.sha256,
        "format": manifest.artifact.format,
    }

    def fill(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in values:
            raise SpecError(f"component_artifact_url: unknown placeholder {{{name}}}: {nearest(name, values)}")
        return quote(values[name], safe="")

    return _PLACEHOLDER.sub(fill, template)


def check(template: str, manifest: Manifest, options: Mapping[str, Any]) -> None:
    """Raise SpecError unless the artifact could be fetched so, as far as that can be told without trying."""
    from ansible_collections.convoy.rollout.plugins.module_utils.fetch import Source

    url = url_of(template, manifest)
    checked = ArgumentSpecValidator(release.arguments()["pull"]["options"]).validate(dict(options))
    if checked.error_messages:
        raise SpecError(f"component_pull: {checked.errors.msg}")
    try:
        Source(url, **checked.validated_parameters).checked()
    except ConvoyTargetError as error:
        raise SpecError(f"component_artifact_url, component_pull: {error}") from error
