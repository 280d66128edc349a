#!/usr/bin/env python3
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the tables of variables in the roles' READMEs anew, from the roles' argument specs.

With --check it writes nothing, names the READMEs whose tables are old, and fails if there are any.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "collections/ansible_collections/convoy/rollout/roles"
TABLE = re.compile(r"(?<=<!-- variables -->\n).*?(?=<!-- end of variables -->)", re.DOTALL)
MARKUP = re.compile(r"\b[CMOV]\(([^)]*)\)")


def main(arguments: list[str]) -> int:
    """Write or compare; the exit code."""
    old = []
    for spec in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        readme = spec.parents[1] / "README.md"
        text = readme.read_text()
        (variables,) = yaml.safe_load(spec.read_text())["argument_specs"].values()
        fresh = TABLE.sub("\n".join(["", *table_of(variables["options"]), "", ""]).replace("\\", r"\\"), text)
        if fresh != text:
            old.append(str(readme.relative_to(ROLES)))
            if "--check" not in arguments:
                readme.write_text(fresh)
    if old and "--check" in arguments:
        print(f"old tables in {', '.join(old)}: run docs/role_tables.py", file=sys.stderr)
        return 1
    return 0


def table_of(options: Mapping[str, Any]) -> list[str]:
    """The table, as lines of Markdown."""
    return ["| variable | type | default | what it is |", "|---|---|---|---|", *rows(options)]


def rows(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A row for each option, and for each of what it consists of."""
    for name, option in options.items():
        path = prefix + name
        yield f"| `{path}` | {kind(option)} | {default(option)} | {text(option)} |"
        yield from rows(option.get("options", {}), path + ("[]." if option["type"] == "list" else "."))


def kind(option: Mapping[str, Any]) -> str:
    """The type, in the words of YAML."""
    words = {"str": "string", "int": "integer", "bool": "boolean", "dict": "mapping", "raw": "count or percentage"}
    if "elements" in option:
        return f"list of {words.get(option['elements'], option['elements'])}s"
    return str(words.get(option["type"], option["type"]))


def default(option: Mapping[str, Any]) -> str:
    """What holds where nothing is said."""
    if "default" not in option:
        return "**required**" if option.get("required") else ""
    value = option["default"]
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def text(option: Mapping[str, Any]) -> str:
    """The description, with the markup of Ansible's documentation as Markdown."""
    told = MARKUP.sub(r"`\1`", " ".join(option["description"].split())).replace("|", r"\|")
    choices = " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "." if "choices" in option else ""
    return told + choices


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
