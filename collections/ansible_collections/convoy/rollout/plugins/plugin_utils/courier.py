# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls the collection's own modules on a host, with one short remote command each.

Ansible packs a module with all that it imports, sends that with every call, and has the host unpack and compile it. The
library of this collection is settled on a host once instead (``module_utils/settle.py``); a call then names the module
and brings its arguments, which are checked here. Where that cannot be, the module goes Ansible's way, with the same
result: for users who are not root, without pipelining, and where the library finds no place.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action import ActionBase

from ansible_collections.convoy.rollout.plugins.module_utils import answer, settle

Result = dict[str, Any]

PLACE = "/var/lib/convoy/lib"
ATTACHED_MOST = 16 * 2**20  # bytes; Ansible holds in memory what it sends, once for every fork
_LIBRARY = Path(answer.__file__).parent
_ANSWER = answer.PACKAGE.replace(".", "/") + "/answer.py"
_SETTLE = Path(settle.__file__).read_text(encoding="utf-8")
_NO_SUCH_SCRIPT = 2  # Python's exit code
_START_OF_TIME = (1980, 1, 1, 0, 0, 0)


class NotSettledError(Exception):
    """The library cannot be settled on the host."""


class Courier:
    """Calls modules on the host of an action."""

    def __init__(self, action: ActionBase, task_vars: Mapping[str, Any]) -> None:
        self._action, self._task_vars = action, task_vars

    def call(self, name: str, arguments: Mapping[str, Any], artifact: str | None = None) -> Result:
        """The result of the module ``convoy.rollout.<name>``. AnsibleConnectionFailure for a host out of reach.

        ``artifact``: a file of the controller that goes to the host, as the argument of that name.
        """
        if self._is_short() and not _expands(name, arguments):
            try:
                if artifact is None or Path(artifact).stat().st_size <= ATTACHED_MOST:
                    return self._short_way(name, arguments, Path(artifact).read_bytes() if artifact else None)
                return self._short_way(name, {**arguments, "artifact": self._send(artifact)})
            except NotSettledError:
                pass
        given = {**arguments, "artifact": self._send(artifact)} if artifact else dict(arguments)
        result: Result = self._action._execute_module(
            module_name=f"convoy.rollout.{name}", module_args=given, task_vars=self._task_vars
        )
        return result

    def _send(self, artifact: str) -> str:
        remote: str = self._action._connection._shell.join_path(self._action._make_tmp_path(), "artifact")
        self._action._transfer_file(artifact, remote)
        return remote

    def _is_short(self) -> bool:
        """Whether the short way may be open. What root runs lies where only root may write."""
        connection = self._action._connection
        user = self._action.get_become_option("become_user") if connection.become else self._action._get_remote_user()
        return user == "root" and not self._action._task.async_val and bool(connection.is_pipelining_enabled())

    def _short_way(self, name: str, arguments: Mapping[str, Any], attached: bytes | None = None) -> Result:
        called = _call(name)
        validator = ArgumentSpecValidator(called.arguments(), required_if=getattr(called, "REQUIRED_IF", None))
        checked = validator.validate(dict(arguments))
        if checked.error_messages:
            unknown = isinstance(checked.errors[0], UnsupportedError)
            prefix = f"Unsupported parameters for (convoy.rollout.{name}) module: " if unknown else ""
            raise AnsibleActionFail(prefix + checked.errors.msg)
        request = {
            "call": name,
            "params": checked.validated_parameters,
            "check_mode": bool(self._action._task.check_mode),
            "attached": "artifact" if attached is not None else None,
        }
        sent = json.dumps(request, default=str).encode() + b"\n" + (attached or b"")
        done = self._python(f"{PLACE}/{digest()}/{_ANSWER}", sent=sent)
        if done["rc"] == _NO_SUCH_SCRIPT and "can't open file" in done["stderr"]:
            self._settle()
            done = self._python(f"{PLACE}/{digest()}/{_ANSWER}", sent=sent)
        result: Result = remove_values(_parsed(name, done), checked._no_log_values)
        return result

    def _settle(self) -> None:
        done = self._python("-c", _SETTLE, f"{PLACE}/{digest()}", sent=packed())
        if done["rc"]:
            raise NotSettledError

    def _python(self, *words: str, sent: bytes) -> Result:
        """Run the host's Python, which sees nothing of users' packages and variables."""
        command = " ".join([self._interpreter(), "-IS", *map(shlex.quote, words)])
        environment = self._action._compute_environment_string()
        result: Result = self._action._low_level_execute_command(f"{environment} {command}".strip(), in_data=sent)
        return result

    def _interpreter(self) -> str:
        """What is configured; else the first that Ansible's discovery would look for and the host has."""
        host = self._action._task.delegate_to
        variables = self._task_vars["ansible_delegated_vars"][host] if host else self._task_vars
        given = constants.config.get_config_value("INTERPRETER_PYTHON", variables=variables)
        python = self._action._templar.template(given)
        if python and not python.startswith("auto"):
            return shlex.quote(python)
        candidates = constants.config.get_config_value("INTERPRETER_PYTHON_FALLBACK", variables=variables)
        return '"$(' + " || ".join(f"command -v {shlex.quote(candidate)}" for candidate in candidates) + ')"'


class CallAction(ActionBase):
    """An action that only calls the module ``NAME``."""

    NAME: ClassVar[str]

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Call it with the task's arguments."""
        result: Result = super().run(tmp, task_vars)
        return {**result, **Courier(self, task_vars or {}).call(self.NAME, self._task.args)}


def _call(name: str) -> Any:
    return import_module(f"{answer.PACKAGE}.calls.{name}")


def _expands(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether there is a path with a ~ or a variable, which only the host can expand."""
    paths = [option for option, spec in _call(name).arguments().items() if spec["type"] == "path"]
    return any(sign in str(arguments.get(path) or "") for path in paths for sign in "~$")


def _parsed(name: str, done: Mapping[str, Any]) -> Result:
    """What the module said last, or that it ended without."""
    *_before, last = done["stdout"].strip().splitlines() or [""]
    try:
        result: Result = json.loads(last)
    except ValueError:
        *_before, why = done["stderr"].strip().splitlines() or ["it said nothing"]
        return {
            "failed": True,
            "msg": f"the module convoy.rollout.{name} ended without a result, exit code {done['rc']}: {why}",
            "module_stdout": done["stdout"],
            "module_stderr": done["stderr"],
            "rc": done["rc"],
        }
    return result


@cache
def packed() -> bytes:
    """The library, as the zip file that is settled: the same bytes for the same sources."""
    *packages, _last = (answer.PACKAGE + ".").split(".")
    content = {"/".join((*packages[: count + 1], "__init__.py")): b"" for count in range(len(packages))}
    for path in sorted(_LIBRARY.rglob("*.py")):
        content["/".join((*packages, *path.relative_to(_LIBRARY).parts))] = path.read_bytes()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, source in content.items():
            archive.writestr(zipfile.ZipInfo(name, _START_OF_TIME), source, zipfile.ZIP_DEFLATED)
    return zipped.getvalue()


@cache
def digest() -> str:
    """What the directory of the settled library is named by."""
    return hashlib.sha256(packed()).hexdigest()[:16]
