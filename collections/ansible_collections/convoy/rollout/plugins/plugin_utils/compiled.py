# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Templates that are compiled before Ansible forks its workers.

Ansible compiles every template anew in each worker, which is a quarter of what a worker does. Here the main process
compiles those that the tasks of every host have, and its forks find them. What a template means does not change: the
same text, with Jinja's delimiters as usual, is the same code.
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

from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import LOADER, ROLES

FILES = (
    "*/defaults/main.yml", "*/vars/main.yml", "component/tasks/*.yml", "traffic/tasks/*/*drain.yml",
    "rollout/tasks/stage.yml", "rollout/tasks/roll.yml", "rollout/tasks/turn_back.yml",
)  # fmt: skip


def remember_templates(roles: Path = ROLES) -> None:
    """From now on, do not compile what the roles' files say again."""
    anew = AnsibleEnvironment.compile
    environment = AnsibleEnvironment()
    known: dict[Any, CodeType] = {}
    for text in set(_texts(roles)):
        with contextlib.suppress(TemplateError):  # whoever uses it says better what is wrong
            known[text] = anew(environment, text)

    def compiled(self: AnsibleEnvironment, source: Any, *args: Any, **options: Any) -> CodeType:
        code = None if self.overlayed or args or options else known.get(source)
        return anew(self, source, *args, **options) if code is None else code

    AnsibleEnvironment.compile = compiled


def _texts(roles: Path) -> Iterator[str]:
    """The templates of the files. Those with a backslash are left: what it means depends on who asks."""
    for pattern in FILES:
        for path in roles.glob(pattern):
            for text in _strings(yaml.load(path.read_text(encoding="utf-8"), LOADER)):
                if "{{" in text and "\\" not in text:
                    yield text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
