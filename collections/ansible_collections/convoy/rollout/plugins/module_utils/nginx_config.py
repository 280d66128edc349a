# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of nginx's configuration: the servers of one upstream block, and the flag `down` of each. Pure.

The text is cut into words as nginx does it (ngx_conf_read_token), and each word keeps its place, so that an edit
changes the flag and nothing else. What cannot be understood is refused with its line: a guess would send requests
where none may go.
"""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Iterable, Iterator, Mapping

DOWN = "down"
DEFAULT_WEIGHT = 1

_BLANKS = " \t\r\n"
_OF_HTTP = ((), ("http",))


class Word(NamedTuple):
    """A word without its quotes, and where it stands in the text with them."""

    text: str
    start: int
    end: int


class Directive(NamedTuple):
    """Words up to a `;`, or up to the `{` of a block. `path` names the blocks that it is in."""

    words: tuple[Word, ...]
    opens: bool
    path: tuple[str, ...]
    line: int

    @property
    def name(self) -> str:
        """Its first word."""
        return self.words[0].text


class Line(NamedTuple):
    """A `server` line of an upstream block. `name` is the server's address as the file has it."""

    name: str
    down: bool
    backup: bool
    weight: int
    directive: Directive


def parse(text: str, upstream: str, path: str) -> dict[str, Line]:
    """The servers of the block `upstream` by name. Raises TrafficError; `path` is for its message."""
    found: dict[str, dict[str, Line]] = {}
    for inside in _blocks(text, path):
        if inside.name in found and inside.name == upstream:
            raise _not_understood(path, inside.line, f"a second upstream block {upstream!r}")
        found[inside.name] = _servers(inside.body, path) if inside.name == upstream else {}
    if upstream not in found:
        others = ", ".join(sorted(found)) or "none"
        raise TrafficError(
            f"{path} has no upstream block {upstream!r}{did_you_mean(upstream, found)} (it has {others})"
        )
    return found[upstream]


def edit(text: str, servers: Iterable[Line], out: Mapping[str, bool]) -> str:
    """The text with the flag `down` of the servers in `out` set (true) or taken away. All else stays as it is."""
    cuts: list[tuple[int, int, str]] = []
    for server in servers:
        wanted = out.get(server.name, server.down)
        if wanted and not server.down:
            end = server.directive.words[-1].end
            cuts.append((end, end, f" {DOWN}"))
        elif server.down and not wanted:
            cuts += [(_with_blanks(text, word), word.end, "") for word in server.directive.words[2:] if _is_down(word)]
    for start, end, instead in sorted(cuts, reverse=True):
        text = text[:start] + instead + text[end:]
    return text


def _with_blanks(text: str, word: Word) -> int:
    """Where the blanks before a word begin, on its line: the line before may end in a comment."""
    start = word.start
    while text[start - 1] in " \t":
        start -= 1
    return start


def _is_down(word: Word) -> bool:
    return word.text == DOWN


# --- the blocks ------------------------------------------------------------------------------------------------


class _Block(NamedTuple):
    name: str
    line: int
    body: list[Directive]


def _blocks(text: str, path: str) -> Iterator[_Block]:
    """The upstream blocks of HTTP in a file, which is the main one or one that its `http` block includes."""
    block: _Block | None = None
    for directive in directives(text, path):
        if directive.path in _OF_HTTP and directive.name == "upstream":
            if not directive.opens or len(directive.words) != 2:
                raise _not_understood(path, directive.line, "an upstream without one name and a block")
            if block:
                yield block
            block = _Block(directive.words[1].text, directive.line, [])
        elif block and "upstream" in directive.path[-1:] and directive.path[:-1] in _OF_HTTP:
            block.body.append(directive)
    if block:
        yield block


def _servers(body: Iterable[Directive], path: str) -> dict[str, Line]:
    servers: dict[str, Line] = {}
    for directive in body:
        if directive.opens or directive.name == "include":
            raise _not_understood(
                path, directive.line, f"{directive.name!r} in an upstream block, which may hide servers"
            )
        if directive.name != "server":
            continue
        server = _server(directive, path)
        if server.name in servers:
            raise _not_understood(path, directive.line, f"a second server {server.name!r} in the same upstream block")
        servers[server.name] = server
    return servers


def _server(directive: Directive, path: str) -> Line:
    if len(directive.words) < 2:
        raise _not_understood(path, directive.line, "a server without an address")
    parameters = [word.text for word in directive.words[2:]]
    weight = DEFAULT_WEIGHT
    for parameter in parameters:
        if parameter.startswith("weight="):
            if not re.fullmatch(r"weight=[0-9]{1,9}", parameter):
                raise _not_understood(path, directive.line, f"{parameter!r}, which is no weight")
            weight = int(parameter[len("weight=") :])
    return Line(directive.words[1].text, DOWN in parameters, "backup" in parameters, weight, directive)


# --- the words -------------------------------------------------------------------------------------------------


def directives(text: str, path: str) -> Iterator[Directive]:
    """All directives of a file, in order. Raises TrafficError, with the line, for what nginx would not read either."""
    words: list[Word] = []
    blocks: list[str] = []
    line, counted = 1, 0
    for sign in _signs(text, path):
        if not words:
            line, counted = line + text.count("\n", counted, sign.start), sign.start
        if sign.text not in (";", "{", "}") or sign.end - sign.start > 1:
            words.append(sign)
            continue
        if sign.text == "}":
            if words or not blocks:
                raise _not_understood(path, line, "a '}' that ends no block")
            blocks.pop()
            continue
        if not words:
            raise _not_understood(path, line, f"a {sign.text!r} without a directive before it")
        opens = sign.text == "{"
        if opens and words[0].text.endswith("_by_lua_block"):
            raise _not_understood(path, line, f"{words[0].text!r}: put the upstream block into a file without Lua")
        yield Directive(tuple(words), opens, tuple(blocks), line)
        if opens:
            blocks.append(words[0].text)
        words = []
    if words or blocks:
        raise _not_understood(path, text.count("\n") + 1, "the end of the file, where a ';' or '}' has to be")


def _signs(text: str, path: str) -> Iterator[Word]:
    """Words, and the signs `;`, `{` and `}` where they stand for themselves. A comment begins where a word could."""
    at = 0
    while at < len(text):
        sign = text[at]
        if sign in _BLANKS:
            at += 1
        elif sign == "#":
            ends = text.find("\n", at)
            at = len(text) if ends < 0 else ends
        elif sign in ";{}":
            yield Word(sign, at, at + 1)
            at += 1
        else:
            word = _quoted(text, at, path) if sign in "\"'" else _plain(text, at)
            yield word
            at = word.end


def _plain(text: str, start: int) -> Word:
    """A word without quotes: it ends at a blank, a `;` or a `{`, unless that is escaped or begins `${`."""
    at = start
    while at < len(text) and text[at] not in _BLANKS + ";{":
        if text[at] == "\\" or text.startswith("${", at):
            at += 1
        at += 1
    at = min(at, len(text))
    return Word(_unescaped(text[start:at]), start, at)


def _quoted(text: str, start: int, path: str) -> Word:
    quote, at = text[start], start + 1
    while at < len(text) and text[at] != quote:
        at += 2 if text[at] == "\\" else 1
    line = text.count("\n", 0, start) + 1
    if at >= len(text):
        raise _not_understood(path, line, f"a {quote} that is not closed")
    if text[at + 1 : at + 2] not in tuple(_BLANKS + ";{)"):
        raise _not_understood(path, line, f"a {quote} with more behind it in the same word")
    return Word(_unescaped(text[start + 1 : at]), start, at + 1)


_ESCAPED = re.compile(r"\\([\"'\\trn])")
_MEANT = {"t": "\t", "r": "\r", "n": "\n"}


def _unescaped(text: str) -> str:
    """Nginx leaves a backslash before any other sign as it is."""
    return _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), text)


def _not_understood(path: str, line: int, what: str) -> TrafficError:
    return TrafficError(f"{path}, line {line}: {what}: this cannot be read safely, so nothing was changed")
