# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates and conditions that are compiled before Ansible forks its workers.

Ansible compiles every template anew in each worker, which is a quarter of what a worker does, and the conditions of
``meta`` tasks for every host in the main process. Here the main process compiles what the tasks of every host have, and
its forks find it. What a template means does not change: the same text, with Jinja's delimiters as usual, is the same
code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import yaml
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from jinja2 import TemplateError
from jinja2.environment import TemplateExpression

from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import LOADER, ROLES

CONDITIONS = ("when", "failed_when", "changed_when", "until")


class Compiled:
    """What is compiled already. From its making on, Ansible's templating looks here first."""

    def __init__(self, roles: Path = ROLES) -> None:
        self._roles = roles
        self._templates: dict[Any, CodeType] = {}
        self._conditions: dict[Any, CodeType] = {}
        self._compile, self._compile_expression = AnsibleEnvironment.compile, AnsibleEnvironment.compile_expression
        compile_anew, expression_anew = self._compile, self._compile_expression
        templates, conditions = self._templates, self._conditions

        def compiled(self: AnsibleEnvironment, source: Any, *args: Any, **options: Any) -> CodeType:
            code = None if self.overlayed or args or options else templates.get(source)
            return compile_anew(self, source, *args, **options) if code is None else code

        def expression(self: AnsibleEnvironment, source: Any, *args: Any, **options: Any) -> TemplateExpression:
            code = None if self.overlayed or args != (False,) or options else conditions.get(source)
            if code is None:
                made: TemplateExpression = expression_anew(self, source, *args, **options)
                return made
            return TemplateExpression(self.template_class.from_code(self, code, self.make_globals(None)), *args)

        AnsibleEnvironment.compile, AnsibleEnvironment.compile_expression = compiled, expression

    def remember(self, *files: str) -> None:
        """From now on, do not compile again what these files of the roles say: patterns, as ``*/vars/main.yml``."""
        plain, keeping = AnsibleEnvironment(), _Keeping()
        for name, text in self._said(files):
            with contextlib.suppress(TemplateError):  # whoever uses it says better what is wrong
                if "{{" in text:
                    if text not in self._templates:
                        self._templates[text] = self._compile(plain, text)
                elif name in CONDITIONS and text not in self._conditions:
                    self._compile_expression(keeping, text, False)
                    self._conditions[text] = keeping.code

    def _said(self, files: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """What the files say, and as what. A text with a backslash is left: what it means depends on who asks."""
        for pattern in files:
            for path in self._roles.glob(pattern):
                for name, text in _strings("", yaml.load(path.read_text(encoding="utf-8"), LOADER)):
                    if "\\" not in text:
                        yield name, text


class _Keeping(AnsibleEnvironment):
    """Keeps the code of the expression that it has compiled last."""

    code: CodeType

    def from_string(self, source: Any, *args: Any, **options: Any) -> Any:
        """Jinja makes a template of an expression."""
        self.code = self.compile(source)
        return self.template_class.from_code(self, self.code, self.make_globals(None))


def _strings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts in a value, each with the name that it has there."""
    if isinstance(value, str):
        yield name, value.strip() if name in CONDITIONS else value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(name, item)
