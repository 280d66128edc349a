# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates and conditions that are compiled before workers are forked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible._internal._templating._engine import TemplateEngine
from ansible._internal._templating._jinja_bits import AnsibleEnvironment
from ansible.errors import AnsibleUndefinedVariable
from ansible.template import trust_as_template

from ansible_collections.convoy.rollout.plugins.plugin_utils.compiled import SITE_MOST, Compiled

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


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """The variables of a site, with a file that is rendered into releases."""
    path = tmp_path / "unit.j2"
    path.write_text("Description={{ colour }}\n")
    variables = {
        "here": str(tmp_path),
        "component_probes": [{"url": "http://{{ address }}/"}],
        "component_units": [{"name": "a.service", "src": "{{ here }}/unit.j2"}],
    }
    return {name: trusted(value) for name, value in variables.items()}


def trusted(value: Any) -> Any:
    if isinstance(value, list):
        return [{key: trust_as_template(text) for key, text in item.items()} for item in value]
    return value


@pytest.mark.parametrize("text", ["http://{{ address }}/", "{{ here }}/unit.j2", "Description={{ colour }}\n"])
def test_what_a_site_says_and_has_rendered_is_compiled_once(roles: Path, site: dict[str, Any], text: str) -> None:
    Compiled(roles).remember_site(site)
    assert AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"component_units": "{{ units }}"},
        {"component_units": ["a.service"]},
        {"component_units": [{"name": "a.service"}]},
        {"component_units": [{"src": trust_as_template("{{ nowhere }}/unit.j2")}]},
        {"component_units": [{"src": "unit.j2"}, {"src": "/nowhere/unit.j2"}, {"src": 1}]},
        {"colour": "{{ colour"},
    ],
)
def test_what_is_wrong_with_it_is_told_by_whoever_uses_it(
    roles: Path, site: dict[str, Any], wrong: dict[str, Any]
) -> None:
    Compiled(roles).remember_site({**wrong, "component_config": site["component_units"], "here": site["here"]})
    text = "Description={{ colour }}\n"
    assert AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text)


def test_no_site_waits_for_thousands_of_texts(roles: Path) -> None:
    texts = [f"{{{{ colour }}}} {number}" for number in range(SITE_MOST + 1)]
    Compiled(roles).remember_site({"words": texts})
    known = [AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text) for text in texts]
    assert known == [*[True] * SITE_MOST, False]


def test_the_roles_of_the_collection_have_templates_that_every_host_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_later(monkeypatch)
    Compiled().remember("component/tasks/*.yml")
    text = "{{ rollout_current.token }}"
    assert AnsibleEnvironment().compile(text) is AnsibleEnvironment().compile(text)
