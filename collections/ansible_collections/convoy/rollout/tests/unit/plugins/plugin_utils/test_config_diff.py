# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment would change of configuration is shown, what is secret of it never."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils import config_diff
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.rendering import render


def shown(text: str | None, **changed: Any) -> dict[str, Any]:
    """What a host says of a file that holds this."""
    digest = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    return {"name": "x", "sha256": digest, "text": text, **changed}


def change(before: dict[str, Any], after: str, vaulted: tuple[str, ...] = (), secret: bool = False) -> tuple[str, ...]:
    """The lines of the one change of a file; none where there is none."""
    rendered = render([{"dest": "etc/x", "src": "x", "secret": secret}], [], lambda _source: after)
    asked = config_diff.wanted(rendered, vaulted)
    found = config_diff.changes(rendered, asked, [before], vaulted)
    return found[0].lines if found else ()


def test_a_file_that_stays_is_no_change() -> None:
    assert change(shown("a\n"), "a\n") == ()


def test_units_that_are_only_named_are_nobodys_configuration() -> None:
    rendered = render([], [{"name": "vendor.service"}], lambda _source: "", may_be_named=True)
    assert config_diff.wanted(rendered, ()) == []
    assert config_diff.changes(rendered, [], [], ()) == []


def test_the_lines_that_change_are_shown() -> None:
    assert change(shown("a\nb\nc\n"), "a\nB\nc\n") == ("changed", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c")
    assert change(shown(None), "a\n") == ("new", "@@ -0,0 +1 @@", "+a")
    assert change(shown("a"), "a\n") == ("changed at the ends of its lines",)


def test_what_cannot_be_shown() -> None:
    binary = {"name": "x", "sha256": "0" * 64, "text": None}
    assert change(binary, "a") == ("changed (no text, or too long to show)",)
    long = "\n".join(str(n) for n in range(1000))
    lines = change(shown(None), long)
    assert lines[-1] == "and 801 lines more"
    assert len(lines) == 202


LINES = st.lists(st.sampled_from(["plain", "password=hunter22", "x"]), max_size=4).map("\n".join)


@given(LINES, LINES, st.booleans())
def test_no_secret_is_ever_shown(before: str, after: str, marked: bool) -> None:
    lines = change(shown(before), after, ("hunter22",), secret=marked)
    assert "hunter22" not in " ".join(lines)
    if marked or "hunter22" in before + after:
        assert lines == (("changed (secret)",) if before != after else ())


@pytest.mark.parametrize(
    ("secret", "content", "asked"), [(True, "x", True), (False, "x", False), (False, "hunter22", True)]
)
def test_of_what_is_secret_the_host_is_asked_for_a_digest_alone(secret: bool, content: str, asked: bool) -> None:
    rendered = render([{"dest": "etc/x", "src": "x", "secret": secret}], [], lambda _source: content)
    assert config_diff.wanted(rendered, ["hunter22"]) == [{"kind": "config", "name": "etc/x", "secret": asked}]


def test_units_as_hosts_have_them() -> None:
    rendered = render([], [{"name": "a.service", "src": "x"}], lambda _source: "[Service]")
    asked = config_diff.wanted(rendered, [])
    assert config_diff.changes(rendered, asked, [shown("[Service]\n")], []) == []
    lost = config_diff.changes(rendered, asked, [shown("[Service]\n"), {**shown("x"), "name": "b.service"}], [])
    assert lost == [config_diff.Change("unit", "b.service", ("removed",))]


def test_a_change_of_many_hosts_is_told_once() -> None:
    one = {"kind": "config", "name": "etc/x", "lines": ["changed", "-a", "+b"]}
    other = {"kind": "config", "name": "etc/x", "lines": ["changed (secret)"]}
    by_host = {**{f"app{n}": [one] for n in range(500)}, "app500": [other], "app501": []}
    names = ", ".join(f"app{n}" for n in range(10)) + " and 490 more"
    assert config_diff.told(by_host) == [
        f"config etc/x changed: {names}",
        "  -a",
        "  +b",
        "config etc/x changed (secret): app500",
    ]


def test_secret_is_no_part_of_a_release() -> None:
    plain = render([{"dest": "a", "src": "b"}], [{"name": "a.service", "src": "c"}], str)
    marked = render(
        [{"dest": "a", "src": "b", "secret": True}], [{"name": "a.service", "src": "c", "secret": True}], str
    )
    assert marked.digest == plain.digest
    assert marked.secrets == {"a", "a.service"}


def test_secret_is_yes_or_no() -> None:
    with pytest.raises(SpecError, match=r"component_config\[0\]\.secret: 'maybe' is neither true nor false"):
        render([{"dest": "a", "src": "b", "secret": "maybe"}], [], str)
