# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates and conditions that are compiled before Ansible forks its workers.

Ansible compiles every template anew in each worker, which is a quarter of what a worker does, and the conditions of
``meta`` tasks for every host in the main process. Here the main process compiles what the tasks of every host have, the
collection's and the site's, and its forks find it. What a template means does not change: the same text, with Jinja's
delimiters as usual, is the same code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Any

import yaml
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from jinja2 import TemplateError
from jinja2.environment import TemplateExpression

from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import LOADER, ROLES

CONDITIONS = ("when", "failed_when", "changed_when", "until")
SITE_MOST = 100  # texts of a site's variables, and files: no site has to wait for thousands that no task uses


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
        for pattern in files:
            for path in self._roles.glob(pattern):
                self._remember(_strings("", yaml.load(path.read_text(encoding="utf-8"), LOADER)))

    def remember_site(self, variables: Mapping[str, Any]) -> None:
        """The same for the site's variables, and for the files that it has rendered into releases."""
        texts = [text for _name, text in _strings("", dict(variables)) if "{{" in text]
        files = _rendered(variables)
        self._remember(("", text) for text in (*islice(texts, SITE_MOST), *islice(files, SITE_MOST)))

    def _remember(self, texts: Iterable[tuple[str, str]]) -> None:
        """Texts, and as what they are said. One with a backslash is left: what it means depends on who asks."""
        plain, keeping = AnsibleEnvironment(), _Keeping()
        for name, text in texts:
            with contextlib.suppress(TemplateError):  # whoever uses it says better what is wrong
                if "\\" in text:
                    continue
                if "{{" in text:
                    if text not in self._templates:
                        self._templates[text] = self._compile(plain, text)
                elif name in CONDITIONS and text not in self._conditions:
                    self._compile_expression(keeping, text, False)
                    self._conditions[text] = keeping.code


class _Keeping(AnsibleEnvironment):
    """Keeps the code of the expression that it has compiled last."""

    code: CodeType

    def from_string(self, source: Any, *args: Any, **options: Any) -> Any:
        """Jinja makes a template of an expression."""
        self.code = self.compile(source)
        return self.template_class.from_code(self, self.code, self.make_globals(None))


def _rendered(variables: Mapping[str, Any]) -> Iterator[str]:
    """The files that a release's configuration and units are made of, as far as this host's variables name them."""
    templar = Templar(loader=DataLoader(), variables=dict(variables))
    for items in (variables.get("component_config"), variables.get("component_units")):
        for item in items if isinstance(items, list) else ():
            with contextlib.suppress(AnsibleError, OSError, ValueError, KeyError, TypeError):
                path = Path(templar.template(item["src"]))
                if path.is_absolute():
                    yield path.read_text(encoding="utf-8")


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
