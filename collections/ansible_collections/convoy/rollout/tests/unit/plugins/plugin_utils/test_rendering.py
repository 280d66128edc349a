# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration and units of a release, and the id that follows from them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import names
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import Rendered, release_id, render

CONFIG = {"dest": "etc/hello.json", "src": "hello.json.j2", "mode": "0640"}
UNIT = {"name": "hello.service", "src": "hello.service.j2", "action": "restart"}

TEXT = st.text(max_size=8)
CONTENTS = st.lists(st.dictionaries(st.sampled_from(["dest", "mode", "content"]), TEXT), max_size=3)
UNITS = st.lists(st.dictionaries(st.sampled_from(["name", "action", "content"]), TEXT), max_size=3)
RENDERED = st.builds(lambda config, units: Rendered(tuple(config), tuple(units)), CONTENTS, UNITS)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


def shout(source: str) -> str:
    return f"<{source}>"


def test_each_source_becomes_its_content() -> None:
    rendered = render([CONFIG], [UNIT], shout)
    assert rendered.config == ({"dest": "etc/hello.json", "mode": "0640", "content": "<hello.json.j2>"},)
    assert rendered.units == ({"name": "hello.service", "action": "restart", "content": "<hello.service.j2>"},)


def test_what_may_be_left_out_stays_out() -> None:
    rendered = render([{"dest": "a", "src": "b"}], [], shout)
    assert rendered.config == ({"dest": "a", "content": "<b>"},)


def test_units_may_be_only_named_where_tasks_bring_them() -> None:
    rendered = render([], [UNIT, {"name": "vendor.service", "action": "reload"}], shout, may_be_named=True)
    assert [sorted(unit) for unit in rendered.units] == [["action", "content", "name"], ["action", "name"]]
    with pytest.raises(SpecError, match=r"component_units\[0\]: unknown key 'secret'"):
        render([], [{"name": "vendor.service", "secret": True}], shout, may_be_named=True)
    with pytest.raises(SpecError, match=r"component_units\[0\]: 'src' is missing"):
        render([], [{"name": "vendor.service"}], shout)


def test_nothing_is_a_release_too() -> None:
    assert render([], [], shout) == Rendered((), ())


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ({**CONFIG, "dst": "x"}, r"component_config\[1\]: unknown key 'dst': did you mean 'dest'\?"),
        ({**CONFIG, "owner": "x"}, r"component_config\[1\]: unknown key 'owner': known are dest, mode, secret, src"),
        ({"dest": "a"}, r"component_config\[1\]: 'src' is missing"),
        ({"src": "a"}, r"component_config\[1\]: 'dest' is missing"),
        ("hello.json", r"component_config\[1\]: 'hello\.json' is no mapping: write it with dest, src, mode"),
        ({**CONFIG, "mode": 0o644}, r"component_config\[1\]\.mode: 420 is no string.*write it in quotes"),
    ],
)
def test_config_that_is_written_wrong_is_named(item: Any, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        render([CONFIG, item], [], shout)


def test_a_unit_that_is_written_wrong_is_named() -> None:
    with pytest.raises(SpecError, match=r"component_units\[0\]: unknown key 'actoin': did you mean 'action'\?"):
        render([], [{**UNIT, "actoin": "reload"}], shout)


@pytest.mark.parametrize("change", [{"mode": "0644"}, {"dest": "etc/other.json"}, {"src": "other.j2"}])
def test_every_change_of_config_is_another_release(change: dict[str, str]) -> None:
    assert render([{**CONFIG, **change}], [UNIT], shout).digest != render([CONFIG], [UNIT], shout).digest


def test_config_and_units_are_not_taken_for_each_other() -> None:
    same = {"content": "x"}
    assert Rendered((same,), ()).digest != Rendered((), (same,)).digest


@given(RENDERED)
def test_the_same_content_has_the_same_digest(rendered: Rendered) -> None:
    def turned(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict(reversed(item.items())) for item in copy.deepcopy(items))

    assert Rendered(turned(rendered.config), turned(rendered.units)).digest == rendered.digest


@given(RENDERED, RENDERED)
def test_other_content_has_another_digest(one: Rendered, other: Rendered) -> None:
    assume(one != other)
    assert one.digest != other.digest


@given(DIGESTS, DIGESTS, DIGESTS, DIGESTS)
def test_artifact_and_configuration_tell_releases_apart(a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d))
    assert release_id("1.0.0", a, b) != release_id("1.0.0", c, d)


@given(DIGESTS, DIGESTS)
def test_an_id_can_name_a_directory_on_a_host(artifact: str, rendered: str) -> None:
    made = release_id("1.0.0+build.7", artifact, rendered)
    assert made.startswith("1.0.0+build.7-")
    assert names.release(made) == made


def test_an_id_is_the_same_on_every_controller() -> None:
    assert release_id("1.1.0", "0" * 64, "f" * 64) == "1.1.0-1c52cf998d9b"
