# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from outside, made fit to be shown: one line, short, without secrets."""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterable

MASK = "***"
EXCERPT_LIMIT = 200

# Read before anything is looked for: bounds the time that a hostile answer can cost.
_RAW_LIMIT = 4096
# The end of a secret's name: `db_password`, `X-Auth-Token-2`.
_NAME = (
    r"(?:passw(?:or)?d|passphrase|secret|token|authorization|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|credential|cookie|session[_-]?id)[\w.-]{0,40}"
)
# Its value: quoted (also inside quoted JSON), a list, a mapping, a scheme and its word (`Bearer abc`), one word.
_VALUE = (
    r"""(?:\\+["'][^"'\\]*|"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\[[^\]]*\]?|\{[^}]*\}?"""
    r"""|(?:bearer|basic|digest|token)\s+[^\s,;&"'}\]]+|[^\s,;&"'}\]]+)"""
)
_NAMED_SECRET = re.compile("(" + _NAME + r"""\\*["']?\s*[:=]\s*)""" + _VALUE, re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# A literal shorter than this would blank half of an innocent text.
_SHORTEST_LITERAL = 4


def mask(text: str, literals: Iterable[str] = ()) -> str:
    """`text` with the values of secret-looking names, credentials in URLs, private keys and `literals` masked."""
    for literal in sorted(literals, key=len, reverse=True):
        if len(literal) >= _SHORTEST_LITERAL:
            text = text.replace(literal, MASK)
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _URL_CREDENTIALS.sub("://" + MASK + "@", text)
    return _NAMED_SECRET.sub(r"\g<1>" + MASK, text)


def excerpt(text: str, literals: Iterable[str] = (), limit: int = EXCERPT_LIMIT) -> str:
    """The beginning of `text` on one line of at most `limit` printable characters, masked before it is cut."""
    line = " ".join(mask(text[:_RAW_LIMIT], literals).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."
