# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX offers as playbooks and inventories when this project is added to it.

AWX goes through a project's files with a rule of its own, restated here: a YAML file with a line that starts, at any
depth, with hosts:, include: or import_playbook: (or an encrypted one) is a playbook; a file named hosts or inventory,
an .ini file, an executable, or a file without extension whose first lines look like names is an inventory.
Directories named roles, tasks, group_vars or host_vars, and those with a dot, are left out.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

import pytest

PLAYBOOK_LINE = re.compile(r"\s*-?\s*(hosts|include|import_playbook):")
INVENTORY_LINE = re.compile(r"[a-zA-Z0-9_.=\[\]]")
LEFT_OUT = {"roles", "tasks", "group_vars", "host_vars"}
MOST_INVENTORIES = 50

COLLECTION = Path("collections/ansible_collections/convoy/rollout")


def is_walked(path: Path) -> bool:
    return not any(part in LEFT_OUT or part.startswith(".") for part in path.parent.parts)


def lines(path: Path, most: int | None = None) -> list[str]:
    with path.open(encoding="utf-8", errors="ignore") as text:
        return list(islice(text, most))


def could_be_playbook(path: Path) -> bool:
    if path.suffix not in (".yml", ".yaml"):
        return False
    text = lines(path)
    return text[:1] != [] and (text[0].startswith("$ANSIBLE_VAULT;") or any(PLAYBOOK_LINE.match(line) for line in text))


def could_be_inventory(path: Path) -> bool:
    if path.name in ("hosts", "inventory") or path.suffix == ".ini" or os.access(path, os.X_OK):
        return True
    return not path.suffix and all(INVENTORY_LINE.match(line) for line in lines(path, most=10))


@pytest.fixture(scope="module")
def playbooks(root: Path, files: list[Path]) -> list[Path]:
    return [path for path in files if is_walked(path) and could_be_playbook(root / path)]


@pytest.fixture(scope="module")
def inventories(root: Path, files: list[Path]) -> list[Path]:
    return [path for path in files if is_walked(path) and could_be_inventory(root / path)]


def test_the_root_offers_the_playbooks_of_every_day(playbooks: list[Path]) -> None:
    offered = {path.name for path in playbooks if path.parent == Path()}
    every_day = {"deploy.yml", "catch_up.yml", "rollback.yml", "status.yml", "gate.yml", "ledger.yml"}
    every_day |= {"depot.yml", "promote.yml", "drift.yml", "repair.yml"}
    steering = {"pause.yml", "resume.yml", "advance.yml", "abort.yml", "unlock.yml"}
    assert offered == every_day | steering


@pytest.mark.parametrize("directory", [Path("playbooks"), COLLECTION / "playbooks"], ids=["project", "collection"])
def test_every_playbook_is_offered(directory: Path, files: list[Path], playbooks: list[Path]) -> None:
    there = {path for path in files if path.parent == directory and path.suffix == ".yml"}
    assert there
    assert there == {path for path in playbooks if path.parent == directory}


def test_the_project_has_every_playbook_of_the_collection(files: list[Path]) -> None:
    """AWX cannot select a playbook by its collection name: each one needs a file of its own.

    But for join, which does nothing by itself: stage, roll, turn_back and close begin with it.
    """
    of_project = {path.name for path in files if path.parent == Path("playbooks")}
    of_collection = {path.name for path in files if path.parent == COLLECTION / "playbooks"}
    assert of_collection - {"join.yml"} <= of_project


def test_nothing_else_passes_for_a_playbook(playbooks: list[Path]) -> None:
    places = {Path(), Path("playbooks"), COLLECTION / "playbooks"}
    assert [path for path in playbooks if path.parent not in places] == []


def test_environments_are_inventories(root: Path, playbooks: list[Path], inventories: list[Path]) -> None:
    environments = [path.relative_to(root) for path in sorted((root / "inventories").iterdir())]
    assert environments
    for environment in environments:
        assert environment / "hosts" in inventories
        assert not [path for path in playbooks if path.is_relative_to(environment)]


def test_no_inventory_is_hidden_by_the_length_of_the_list(inventories: list[Path]) -> None:
    assert len(inventories) <= MOST_INVENTORIES


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yml", "- hosts: all\n", True),
        ("a.yaml", "---\n- name: A\n  import_playbook: b.c.d\n", True),
        ("a.yml", "all:\n  hosts:\n    h1:\n", True),
        ("a.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", True),
        ("a.yml", "component_name: hello\nadded_hosts: 3\n", False),
        ("a.yml", "", False),
        ("a.txt", "- hosts: all\n", False),
        ("a.yml", '- "hosts": all\n', False),
    ],
)
def test_the_rule_for_playbooks(tmp_path: Path, name: str, text: str, expected: bool) -> None:
    (tmp_path / name).write_text(text)
    assert could_be_playbook(tmp_path / name) is expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hosts", "# any text\n", True),
        ("hosts.yml", "all:\n", False),
        ("fleet.ini", "# any text\n", True),
        ("fleet", "[app]\napp1\n", True),
        ("fleet", "# a comment\n[app]\n", False),
    ],
)
def test_the_rule_for_inventories(tmp_path: Path, name: str, text: str, expected: bool) -> None:
    (tmp_path / name).write_text(text)
    assert could_be_inventory(tmp_path / name) is expected
