# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates and conditions that are compiled before workers are forked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible._internal._templating._engine import TemplateEngine
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from ansible.errors import AnsibleUndefinedVariable
from ansible.template import trust_as_template

from ansible_collections.convoy.rollout.plugins.plugin_utils.compiled import Compiled

KNOWN = "{{ colour }} and {{ 'blue' if colour else '' }}"
CONDITION = "colour in ['green', 'blue']"
FILES = ("*/tasks/*.yml", "*/defaults/main.yml")
BACKSLASH = "{{ 'a\\\\tb' }}"


def forget_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compile", "compile_expression"):
        monkeypatch.setattr(AnsibleEnvironment, name, getattr(AnsibleEnvironment, name))


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Roles with templates in a task and in defaults; what is remembered is forgotten after the test."""
    forget_later(monkeypatch)
    tasks = tmp_path / "component" / "tasks"
    tasks.mkdir(parents=True)
    said = {"name": "Stage", "debug": {"msg": KNOWN}, "loop": [1, 2], "when": [f" {CONDITION}\n", True]}
    (tasks / "stage.yml").write_text(yaml.safe_dump([said]))
    defaults = tmp_path / "rollout" / "defaults"
    defaults.mkdir(parents=True)
    (defaults / "main.yml").write_text(f"text: >-\n  {BACKSLASH}\nplain: words\n")
    return tmp_path


def test_a_template_of_the_roles_is_compiled_once(roles: Path) -> None:
    Compiled(roles).remember(*FILES)
    assert AnsibleEnvironment().compile(KNOWN) is AnsibleEnvironment().compile(KNOWN)


@pytest.mark.parametrize("text", ["{{ colour }}", BACKSLASH])
def test_other_templates_are_compiled_anew(roles: Path, text: str) -> None:
    Compiled(roles).remember(*FILES)
    assert AnsibleEnvironment().compile(text) is not AnsibleEnvironment().compile(text)


def test_with_other_delimiters_a_text_is_another_template(roles: Path) -> None:
    Compiled(roles).remember(*FILES)
    overlay = AnsibleEnvironment().overlay(variable_start_string="[[", variable_end_string="]]")
    assert overlay.compile(KNOWN) is not AnsibleEnvironment().compile(KNOWN)


@pytest.mark.parametrize("colour", ["green", ""])
def test_it_means_what_it_meant(roles: Path, colour: str) -> None:
    def rendered() -> object:
        return TemplateEngine(variables={"colour": colour}).template(trust_as_template(KNOWN))

    before = rendered()
    Compiled(roles).remember(*FILES)
    assert rendered() == before == f"{colour} and {'blue' if colour else ''}"


@pytest.mark.parametrize("colour", ["green", "red"])
def test_a_condition_of_the_roles_is_compiled_once_and_means_what_it_meant(
    roles: Path, monkeypatch: pytest.MonkeyPatch, colour: str
) -> None:
    def holds() -> bool:
        return TemplateEngine(variables={"colour": colour}).evaluate_conditional(trust_as_template(CONDITION))

    before = holds()
    Compiled(roles).remember(*FILES)
    monkeypatch.delattr(AnsibleEnvironment, "_parse")
    monkeypatch.setattr(AnsibleEnvironment, "compile", None)
    assert holds() == before == (colour == "green")


def test_what_a_condition_lacks_is_told_as_before(roles: Path) -> None:
    Compiled(roles).remember(*FILES)
    with pytest.raises(AnsibleUndefinedVariable, match=r"Error while evaluating conditional.*'colour' is undefined"):
        TemplateEngine().evaluate_conditional(trust_as_template(CONDITION))


def test_an_expression_that_is_no_condition_of_the_roles_is_compiled_anew(roles: Path) -> None:
    Compiled(roles).remember(*FILES)
    assert TemplateEngine(variables={"colour": "red"}).evaluate_expression(trust_as_template("colour")) == "red"


def test_the_roles_of_the_collection_have_templates_that_every_host_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_later(monkeypatch)
    Compiled().remember("component/tasks/*.yml")
    text = "{{ rollout_current.token }}"
    assert AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text)
