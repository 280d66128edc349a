# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read a host: run the module ``release_info``, and say what configuration the host ought to have.

With ``--diff`` also how that differs from the configuration of the release that runs there.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils import config_diff
from ansible_collections.convoy.rollout.plugins.plugin_utils.courier import Courier
from ansible_collections.convoy.rollout.plugins.plugin_utils.release_action import ReleaseAction
from ansible_collections.convoy.rollout.plugins.plugin_utils.vaulted import vaulted


class ActionModule(ReleaseAction):
    """``convoy.rollout.release_info``"""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; add the digest of the rendered files, and how far the host's clock is off."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        rendered = self.rendered(arguments, task_vars or {})
        units = [{"name": unit["name"]} for unit in rendered.units]
        is_package = bool(arguments.pop("package", None))
        arguments.pop("tasks", None)
        is_shown = self._task.diff and not is_package
        secrets = vaulted(task_vars or {}, self._loader) if is_shown else []
        show = config_diff.wanted(rendered, secrets) if is_shown else []
        began = time.time()
        asked = {**arguments, "units": units, **({"show": show} if show else {})}
        result.update(Courier(self, task_vars or {}).call("release_info", asked))
        result["rendered"] = rendered.digest
        shown = result.pop("shown", None)
        if shown is not None:
            changes = config_diff.changes(rendered, show, shown, secrets)
            result["config_diff"] = [asdict(change) for change in changes]
        if "clock" in result:
            result["clock_skew"] = _skew(result["clock"], began, time.time())
        return result


def _skew(clock: float, began: float, ended: float) -> float:
    """Seconds by which ``clock``, read at some time between ``began`` and ``ended``, must at least be off."""
    return min(clock - began, 0.0) + max(clock - ended, 0.0)
