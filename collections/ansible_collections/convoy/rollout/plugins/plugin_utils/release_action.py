# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An action around a module of the same name: renders what belongs to the release before the module is sent."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

from ansible_collections.convoy.rollout.plugins.plugin_utils.container_unit import unit
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import Rendered, named, render, with_container


class ReleaseAction(ActionBase):
    """What the actions ``release`` and ``release_info`` have in common."""

    def rendered(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Rendered:
        """Take ``config``, ``units`` and ``container`` out of the arguments and render them with the host's variables.

        Those of a package are not rendered, and units that tasks bring neither; that of a container is written here.
        """
        container = arguments.pop("container", None)
        config, units = arguments.pop("config", None) or [], arguments.pop("units", None) or []

        def template(source: str) -> str:
            lookup = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
            try:
                return str(lookup.run([source], variables=_Variables(task_vars))[0])
            except AnsibleError as error:
                raise AnsibleActionFail(f"cannot render {source}: {error}") from error

        try:
            if arguments.get("package"):
                return named(units)
            rendered = render(config, units, template, may_be_named=arguments.get("tasks") is not None)
            if container is None:
                return rendered
            component = str(arguments["component"])
            return with_container(rendered, unit(component, arguments.get("root") or f"/srv/{component}", container))
        except ConvoyError as error:
            raise AnsibleActionFail(str(error), result={"reason": error.reason}) from None


class _Variables(dict[str, Any]):
    """Variables that need not be copied to the bottom, which took most of the time of a template."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return dict(self)
