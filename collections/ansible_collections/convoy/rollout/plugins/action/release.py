# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring a release to a host and run the module ``release``: one remote call, also where the artifact has to travel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.connection import ConnectionBase

from ansible_collections.convoy.rollout.plugins.plugin_utils.courier import Courier, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest, from_json
from ansible_collections.convoy.rollout.plugins.plugin_utils.release_action import ReleaseAction
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import release_id


class ActionModule(ReleaseAction):
    """``convoy.rollout.release``"""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Run the module. The artifact goes with it where the host is known to lack it, else when it says so."""
        result: Result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        artifact, lacking = arguments.pop("artifact", None), arguments.pop("lacking", False)
        if arguments.get("verify_only"):
            artifact = None
            arguments = {key: value for key, value in arguments.items() if key not in ("manifest", "config", "units")}
        elif arguments.get("state") == "staged":
            self._complete(arguments, task_vars or {})
        elif arguments.get("state") == "confirmed":
            _connect_anew(self._connection)
        courier = Courier(self, task_vars or {})
        sends = bool(artifact) and not self._task.check_mode
        result.update(courier.call("release", arguments, artifact if sends and lacking else None))
        if result.get("artifact_needed") and sends:
            result.update(courier.call("release", arguments, artifact))
        return result

    def _complete(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> None:
        """Put in the manifest and the rendered files, and see that they are those of the planned release."""
        rendered = self.rendered(arguments, task_vars)
        manifest = _verified(arguments["manifest"])
        found = release_id(arguments["version"], manifest.artifact.sha256, rendered.digest)
        if found != arguments["release"]:
            raise AnsibleActionFail(
                f"the release is {found} now, the plan says {arguments['release']}: configuration or units changed "
                "since the plan was made. Run the deployment again to plan anew"
            )
        arguments.update(manifest=manifest.for_host(), config=list(rendered.config), units=list(rendered.units))


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
