# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every action of the controller does alike: arguments checked, errors turned into a result once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

Result = dict[str, Any]


class ControllerAction(ActionBase):
    """An action that does its work on the controller. A subclass gives ``SPEC`` and ``perform``."""

    TRANSFERS_FILES = False
    SPEC: ClassVar[Mapping[str, Any]]
    REQUIRED_IF: ClassVar[tuple[Any, ...]] = ()

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Run the action; a ConvoyError becomes a failure with its message and its reason."""
        result: Result = super().run(tmp, task_vars)
        try:
            self.before_validation(self._task.args)
            _checked, arguments = self.validate_argument_spec(self.SPEC, required_if=self.REQUIRED_IF)
            return {**result, **self.perform(arguments, task_vars or {})}
        except ConvoyError as error:
            self.refused(self._task.args, error)
            raise AnsibleActionFail(str(error), result={"reason": error.reason, **error.details}) from None

    def before_validation(self, raw: Mapping[str, Any]) -> None:
        """Look at the arguments before their types are converted."""

    def refused(self, raw: Mapping[str, Any], error: ConvoyError) -> None:
        """Do what is to be done when the work ends in an error; ``raw`` are the arguments as they were given."""

    @abstractmethod
    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Do the work; return what goes into the task's result."""

    @property
    def check_mode(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self._task.check_mode)


LEDGER_SPEC: dict[str, Any] = {
    "ledger_url": {"type": "str", "required": True, "no_log": True},
    "stream": {"type": "str", "required": True},
    "rollout": {"type": "str", "required": True},
    "token": {"type": "int", "required": True},
}
