# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of probe is made of, and the rules that the values of its keys have to keep."""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

LONGEST_TEXT = 4096


class Verdict(NamedTuple):
    """What a judge says of one observation: healthy or not, and the facts it rests on."""

    ok: bool
    detail: str


class Field(NamedTuple):
    """A key of a probe: its rule in words, whether a value keeps it, and what stands when the key is not given."""

    rule: str
    holds: Callable[[Any], bool]
    required: bool = False
    default: Any = None


class Kind(NamedTuple):
    """A kind of probe. `subject` names what is probed, `observe` asks the world, `judge` decides."""

    fields: Mapping[str, Field]
    subject: Callable[[Mapping[str, Any]], str]
    observe: Callable[[Mapping[str, Any], float], Any]
    judge: Callable[[Mapping[str, Any], Any], Verdict]


# --- the rules of values ---------------------------------------------------------------------------------------


def is_number(value: object) -> bool:
    """A finite number; a truth value is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def is_positive(value: Any) -> bool:
    """A finite number above 0."""
    return is_number(value) and bool(value > 0)


def is_count(value: object) -> bool:
    """A whole number, zero or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: object) -> bool:
    """A printable text that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and len(value) <= LONGEST_TEXT


def is_url(value: object) -> bool:
    """An http or https URL with a host, without credentials."""
    from urllib.parse import urlsplit

    if not isinstance(value, str) or not is_text(value) or " " in value:
        return False
    try:
        parts = urlsplit(value)
        usable_port = parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and usable_port


def is_pattern(value: object) -> bool:
    """A regular expression."""
    if not isinstance(value, str) or not value:
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def is_status(value: object) -> bool:
    """A status of HTTP."""
    return is_count(value) and isinstance(value, int) and 100 <= value <= 599


def is_statuses(value: object) -> bool:
    """A status, or a list of them."""
    return is_status(value) or (isinstance(value, list) and bool(value) and all(is_status(one) for one in value))


def is_headers(value: object) -> bool:
    """A mapping of header names to texts."""
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9-]+", str(name)) and isinstance(text, str) and text.isprintable()
        for name, text in value.items()
    )


def is_patterns(value: object) -> bool:
    """A mapping of header names to regular expressions."""
    return is_headers(value) and isinstance(value, dict) and all(is_pattern(text) for text in value.values())


def is_port(value: object) -> bool:
    """The number of a port."""
    return is_count(value) and isinstance(value, int) and 1 <= value <= 65535


def is_argv(value: object) -> bool:
    """A program and its arguments."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(word, str) and "\0" not in word for word in value)
        and bool(value[0])
    )


def is_rc(value: object) -> bool:
    """An exit code."""
    return is_count(value) and isinstance(value, int) and value <= 255


TEXT_RULE = f"a printable text of at most {LONGEST_TEXT} characters that is not empty"
URL = Field(
    "an http or https URL with a host and no user name in it (credentials belong in 'headers')", is_url, required=True
)
HEADERS = Field("a mapping of header names to printable texts", is_headers, default={})


def shown(text: str) -> str:
    """What was answered, as the end of a sentence."""
    return f": {text}" if text.strip() else ""
