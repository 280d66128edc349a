# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be in any file of the project.

The patterns are put together from pieces, so that they do not find themselves.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

HEADER = (
    "# Copyright (c) the Convoy contributors\n"
    "# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)\n"
    "# SPDX-License-Identifier: GPL-3.0-or-later\n"
)

FORBIDDEN = {
    "a note to oneself": "|".join(rf"\b{a}{b}\b" for a, b in [("TO", "DO"), ("FIX", "ME"), ("X", "XX")]),
    "a check switched off": "|".join(
        [r"#\s*no" + "qa", r"type:\s*ig" + "nore", "pragma: no" + " cover", "pylint: dis" + "able"]
    ),
    "a blind except": r"except (Base)?Excep" + r"tion\b",
    "a path of one machine": r"(?<![\w.}])/(wo" + r"rk|ro" + r"ot/\.pyenv)/",
    "a package registry": "|".join(
        re.escape(host)
        for host in [
            "py" + "pi.org",
            "python" + "hosted.org",
            "galaxy.ansible" + ".com",
            "docker" + ".io",
            "quay" + ".io",
            "ghcr" + ".io",
        ]
    ),
}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def is_python(path: Path, text: str) -> bool:
    return path.suffix == ".py" or bool(re.match(r"#!.*python", text))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_has(what: str, root: Path, files: list[Path]) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(text_of(root / path).splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_python_files_name_the_licence(root: Path, files: list[Path]) -> None:
    texts = {path: text_of(root / path) for path in files}
    without = [
        str(path)
        for path, text in texts.items()
        if is_python(path, text) and text.strip() and HEADER not in text[: len(HEADER) + 80]
    ]
    assert without == []


def test_scripts_can_be_executed(root: Path, files: list[Path]) -> None:
    plugins = "plugins"
    scripts = [path for path in files if plugins not in path.parts and text_of(root / path).startswith("#!")]
    assert scripts
    assert [str(path) for path in scripts if not os.access(root / path, os.X_OK)] == []


def test_sanity_has_no_ignores(files: list[Path]) -> None:
    assert [str(path) for path in files if path.name.startswith("ignore-")] == []


def test_the_licence_is_in_both_places(root: Path) -> None:
    collection = root / "collections/ansible_collections/convoy/rollout"
    assert (root / "COPYING").read_bytes() == (collection / "COPYING").read_bytes()
