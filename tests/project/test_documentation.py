# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users read agrees with what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COLLECTION = Path("collections/ansible_collections/convoy/rollout")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^```(?P<kind>ya?ml)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def pages(files: list[Path]) -> list[Path]:
    return [path for path in files if path.suffix == ".md"]


def test_the_tables_of_the_roles_are_those_of_their_argument_specs(root: Path) -> None:
    command = [sys.executable, str(root / "docs" / "role_tables.py"), "--check"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


def test_every_link_leads_somewhere(root: Path, pages: list[Path]) -> None:
    assert pages
    broken = [
        f"{page}: {target}"
        for page in pages
        for target in LINK.findall((root / page).read_text())
        if not target.startswith(("http://", "https://", "mailto:")) and not (root / page.parent / target).exists()
    ]
    assert broken == []


def test_every_piece_of_yaml_can_be_read(root: Path, pages: list[Path]) -> None:
    for page in pages:
        for piece in FENCED.finditer((root / page).read_text()):
            list(yaml.safe_load_all(piece["text"]))


def test_nobody_is_told_to_put_files_below_the_inventory(root: Path, pages: list[Path]) -> None:
    """Ansible reads every file below a directory that is an inventory as one more inventory, and fails."""
    told = [str(page) for page in pages if "inventory_dir }}/" in (root / page).read_text()]
    assert told == []
