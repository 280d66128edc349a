# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates that are compiled before workers are forked."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible._internal._templating._engine import TemplateEngine
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from ansible.template import trust_as_template

from ansible_collections.convoy.rollout.plugins.plugin_utils.compiled import remember_templates

KNOWN = "{{ colour }} and {{ 'blue' if colour else '' }}"
BACKSLASH = "{{ 'a\\\\tb' }}"


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Roles with templates in a task and in defaults; what is remembered is forgotten after the test."""
    monkeypatch.setattr(AnsibleEnvironment, "compile", AnsibleEnvironment.compile)
    tasks = tmp_path / "component" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "stage.yml").write_text(f'- name: Stage\n  debug:\n    msg: "{KNOWN}"\n  loop: [1, 2]\n')
    defaults = tmp_path / "rollout" / "defaults"
    defaults.mkdir(parents=True)
    (defaults / "main.yml").write_text(f"text: >-\n  {BACKSLASH}\nplain: words\n")
    return tmp_path


def test_a_template_of_the_roles_is_compiled_once(roles: Path) -> None:
    remember_templates(roles)
    assert AnsibleEnvironment().compile(KNOWN) is AnsibleEnvironment().compile(KNOWN)


@pytest.mark.parametrize("text", ["{{ colour }}", BACKSLASH])
def test_other_templates_are_compiled_anew(roles: Path, text: str) -> None:
    remember_templates(roles)
    assert AnsibleEnvironment().compile(text) is not AnsibleEnvironment().compile(text)


def test_with_other_delimiters_a_text_is_another_template(roles: Path) -> None:
    remember_templates(roles)
    overlay = AnsibleEnvironment().overlay(variable_start_string="[[", variable_end_string="]]")
    assert overlay.compile(KNOWN) is not AnsibleEnvironment().compile(KNOWN)


@pytest.mark.parametrize("colour", ["green", ""])
def test_it_means_what_it_meant(roles: Path, colour: str) -> None:
    def rendered() -> object:
        return TemplateEngine(variables={"colour": colour}).template(trust_as_template(KNOWN))

    before = rendered()
    remember_templates(roles)
    assert rendered() == before == f"{colour} and {'blue' if colour else ''}"


def test_the_roles_of_the_collection_have_templates_that_every_host_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnsibleEnvironment, "compile", AnsibleEnvironment.compile)
    remember_templates()
    text = "{{ rollout_current.token }}"
    assert AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text)
