# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring a release to a host and run the module ``release``: one remote call, also where the artifact has to travel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.connection import ConnectionBase

from ansible_collections.convoy.rollout.plugins.plugin_utils import transfer
from ansible_collections.convoy.rollout.plugins.plugin_utils.bringing import Bringing
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import parse_choice
from ansible_collections.convoy.rollout.plugins.plugin_utils.courier import Courier, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.kinds import package_digest
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest, from_json
from ansible_collections.convoy.rollout.plugins.plugin_utils.pulling import url_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.release_action import ReleaseAction
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import release_id

_OF_STAGING = ("manifest", "package", "container", "tasks", "config", "units")


class ActionModule(ReleaseAction):
    """``convoy.rollout.release``"""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Run the module. What the host needs goes with it where that is known, else when the host says so."""
        result: Result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        artifact = arguments.pop("artifact", None)
        asked = {key: arguments.pop(key, None) for key in ("lacking", "releases", "transfer", "url", "pull")}
        courier = Courier(self, task_vars or {})
        if arguments.get("verify_only"):
            arguments = {key: value for key, value in arguments.items() if key not in _OF_STAGING}
        elif arguments.get("state") == "staged":
            manifest = self._complete(arguments, task_vars or {})
            if manifest is None:  # the module says what of this is not for a package
                given = {"artifact": artifact, **{key: asked[key] for key in ("transfer", "url", "pull")}}
                arguments.update({key: value for key, value in given.items() if value})
            elif artifact and not self._task.check_mode:
                published = Path(self._task.args["manifest"]["path"])
                how = self._how(arguments, asked, manifest)
                call = partial(courier.call, "release")
                bringing = Bringing(call, arguments, artifact, manifest, published, Path(constants.DEFAULT_LOCAL_TMP))
                held = transfer.held_of(asked["releases"] or [])
                return {**result, **bringing.bring(how, boolean(asked["lacking"] or False), held)}
        elif arguments.get("state") == "confirmed":
            _connect_anew(self._connection)
        return {**result, **courier.call("release", arguments)}

    def _how(self, arguments: dict[str, Any], asked: Mapping[str, Any], manifest: Manifest) -> transfer.Transfer:
        """How the artifact is to travel; puts in what a host needs to fetch it."""
        try:
            how = parse_choice("component_transfer", asked["transfer"] or "push", transfer.Transfer)
            if how is transfer.Transfer.PULL:
                arguments.update(url=url_of(asked["url"] or "", manifest), pull=asked["pull"] or {})
        except ConvoyError as error:
            raise AnsibleActionFail(str(error), result={"reason": error.reason}) from None
        return how

    def _complete(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Manifest | None:
        """Put in the manifest and the rendered files, and see that they are those of the planned release.

        A package has no manifest.
        """
        rendered = self.rendered(arguments, task_vars)
        package: Mapping[str, Any] = arguments.get("package") or {}
        manifest = None if package else _verified(arguments["manifest"])
        digest = manifest.artifact.sha256 if manifest else package_digest(package["name"], arguments["version"])
        found = release_id(arguments["version"], digest, rendered.digest)
        if found != arguments["release"]:
            raise AnsibleActionFail(
                f"the release is {found} now, the plan says {arguments['release']}: configuration or units changed "
                "since the plan was made. Run the deployment again to plan anew"
            )
        if manifest is not None:
            arguments["manifest"] = manifest.for_host()
        arguments.update(config=list(rendered.config), units=list(rendered.units))
        return manifest


def _connect_anew(connection: ConnectionBase) -> None:
    """What confirms a release is that the host can be reached: a connection that was open before does not show it."""
    if type(connection).reset is not ConnectionBase.reset:
        connection.reset()


def _verified(manifest: Mapping[str, str]) -> Manifest:
    """The manifest that was verified when the rollout was opened, and no other that lies there now."""
    content = Path(manifest["path"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise AnsibleActionFail(
            f"{manifest['path']} is not what was verified when the rollout was opened: somebody changed it since. "
            "Find out who, publish the release again, and deploy again"
        )
    return from_json(content)
