# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of nginx's configuration: what is read in it, what is refused, and that an edit leaves all else alone."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import nginx_config
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TrafficError

SITE = """\
# upstream app { server not-this-one; }
upstream api { server 10.0.0.1:80; include more/*.conf; }
upstream app {
    zone app 64k; least_conn;
    server 10.0.0.1:8080 weight=5 max_fails=0;
    server 'app2.example:8080' "down" # out since "Monday"; really
        ;
    server unix:/run/app\\ 3.sock backup;
\tserver [2001:db8::1]:8080 fail_timeout=30s down;# }
    keepalive 16;
}
map $uri $name { default "a;b{"; "~^/(?<x>.{2})$" ${x}s; '~"' c; }
server { listen 80; location / { proxy_pass http://app; } }
"""


def parse(text: str) -> dict[str, nginx_config.Line]:
    return nginx_config.parse(text, "app", "/etc/nginx/app.conf")


def edit(text: str, **out: bool) -> str:
    return nginx_config.edit(text, parse(text).values(), out)


def test_the_servers_of_a_block_and_of_no_other() -> None:
    servers = [line[:4] for line in parse(SITE).values()]
    assert servers == [
        ("10.0.0.1:8080", False, False, 5),
        ("app2.example:8080", True, False, 1),
        ("unix:/run/app\\ 3.sock", False, True, 1),
        ("[2001:db8::1]:8080", True, False, 1),
    ]


def test_a_block_inside_http_and_none_inside_stream() -> None:
    text = "http { upstream app { server a; } } stream { upstream app { server b; } }"
    assert list(parse(text)) == ["a"]
    with pytest.raises(TrafficError, match="has no upstream block 'app'"):
        parse("stream { upstream app { server b; } }")


EDITS = [
    ("server a;", {"a": True}, "server a down;"),
    ("server a weight=2 ;", {"a": True}, "server a weight=2 down ;"),
    ("server a\n  # why\n;", {"a": True}, "server a down\n  # why\n;"),
    ("server 'a';", {"a": True}, "server 'a' down;"),
    ("server a down;", {"a": False}, "server a;"),
    ("server a down weight=2;", {"a": False}, "server a weight=2;"),
    ("server a\tdown  backup;", {"a": False}, "server a  backup;"),
    ('server a "down" down;', {"a": False}, "server a;"),
    ("server a # down\n  down;", {"a": False}, "server a # down\n;"),
    ("server down;", {"down": True}, "server down down;"),
    ("server down down;", {"down": False}, "server down;"),
    ("server a;\r\n# é\r\nserver b;\r\n", {"b": True}, "server a;\r\n# é\r\nserver b down;\r\n"),
    ("server a;server b;server c down;", {"a": True, "c": False}, "server a down;server b;server c;"),
    ("server a down;", {"a": True}, "server a down;"),
    ("server a;", {}, "server a;"),
]


@pytest.mark.parametrize(("inside", "out", "wanted"), EDITS)
def test_an_edit(inside: str, out: dict[str, bool], wanted: str) -> None:
    before, after = "# x\nupstream app {", "}\nupstream b { server a; }\n"
    assert edit(before + inside + after, **out) == before + wanted + after


REFUSED = [
    ("upstream app {\n server a;", "line 2: the end of the file, where a ';' or '}' has to be"),
    ("upstream app { server a }", "line 1: a '}' that ends no block"),
    ("upstream app { server a; }\n}", "line 2: a '}' that ends no block"),
    ("upstream app {\n ;}", "line 2: a ';' without a directive before it"),
    ("{ }", "line 1: a '{' without a directive before it"),
    ("\nupstream app;", "line 2: an upstream without one name and a block"),
    ("upstream app x { }", "line 1: an upstream without one name and a block"),
    ("upstream app { }\nupstream app { }", "line 2: a second upstream block 'app'"),
    ("upstream app {\n server a;\n server a down;\n}", "line 3: a second server 'a' in the same upstream block"),
    ("upstream app {\n server;\n}", "line 2: a server without an address"),
    ("upstream app {\n server a weight=x;\n}", "line 2: 'weight=x', which is no weight"),
    ("upstream app {\n include x;\n}", "line 2: 'include' in an upstream block, which may hide servers"),
    ("upstream app {\n server a; if (x) { server b; }\n}", "line 2: 'if' in an upstream block, which may hide servers"),
    ("upstream app {\n server 'a;\n}\n", "line 2: a ' that is not closed"),
    ("upstream app {\n server 'a'b;\n}\n", "line 2: a ' with more behind it in the same word"),
    ("a;\nrewrite_by_lua_block { x = '}' }", "line 2: 'rewrite_by_lua_block': put the upstream block into a file"),
    ("upstream ap { }", "has no upstream block 'app', did you mean 'ap'? (it has ap)"),
    ("", "has no upstream block 'app' (it has none)"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(TrafficError) as refused:
        parse(text)
    assert words in refused.value.message
    assert refused.value.message.startswith("/etc/nginx/app.conf")


# --- properties ------------------------------------------------------------------------------------------------

ADDRESSES = [f"10.0.0.{number}:8080" for number in range(6)]
BLANKS = st.sampled_from([" ", "\t", "  ", "\n    ", " # ; } { 'x\n\t", "\r\n "])
PARAMETERS = st.sampled_from(["weight=3", "max_fails=0", "backup", '"fail_timeout=1s"'])
AROUND = st.sampled_from(
    ["", "# upstream app {\n", "upstream other { server 10.0.0.1:8080 down; }\n", "\n\n", "log 'a\"';"]
)


@st.composite
def server_lines(draw: st.DrawFn, address: str) -> str:
    quote = draw(st.sampled_from(["", "'", '"']))
    words = ["server", quote + address + quote, *draw(st.lists(PARAMETERS, max_size=2, unique=True))]
    if draw(st.booleans()):
        words.insert(draw(st.integers(2, len(words))), "down")
    return "".join(word + draw(BLANKS) for word in words) + ";" + draw(st.sampled_from(["", "\n", " # down;\n"]))


@st.composite
def files(draw: st.DrawFn) -> str:
    addresses = draw(st.lists(st.sampled_from(ADDRESSES), min_size=1, unique=True))
    body = "".join(draw(server_lines(address)) for address in addresses)
    return f"{draw(AROUND)}upstream app {{{body}}}\n{draw(AROUND)}"


@given(files(), st.dictionaries(st.sampled_from(ADDRESSES), st.booleans()))
def test_an_edit_sets_the_flags_and_leaves_all_else(text: str, out: dict[str, bool]) -> None:
    before = parse(text)
    edited = edit(text, **out)
    after = parse(edited)
    assert {name: line.down for name, line in after.items()} == {
        name: out.get(name, line.down) for name, line in before.items()
    }
    assert [words(line) for line in after.values()] == [words(line) for line in before.values()]
    assert outside(edited) == outside(text)
    for name, line in before.items():
        if out.get(name, line.down) == line.down:
            assert span(edited, after[name]) == span(text, line)


@given(files(), st.sets(st.sampled_from(ADDRESSES)))
def test_taken_out_and_put_back_the_file_is_byte_for_byte_what_it_was(text: str, names: set[str]) -> None:
    taken = {name: True for name, line in parse(text).items() if name in names and not line.down}
    out = edit(text, **taken)
    assert edit(out, **dict.fromkeys(taken, False)) == text
    assert edit(out, **taken) == out


@given(st.text(alphabet="ab;{}#'\"\\$ \n", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(TrafficError):
        for directive in nginx_config.directives(text, "file"):
            assert all(0 <= word.start < word.end <= len(text) for word in directive.words)


def words(line: nginx_config.Line) -> list[str]:
    first, address, *others = (word.text for word in line.directive.words)
    return [first, address, *(word for word in others if word != "down")]


def span(text: str, line: nginx_config.Line) -> str:
    return text[line.directive.words[0].start : line.directive.words[-1].end]


def outside(text: str) -> tuple[str, str]:
    lines = list(parse(text).values())
    last = lines[-1].directive.words[-1].end
    signs = nginx_config._signs(text, "file")
    ends = next(sign.start for sign in signs if sign.text == ";" and sign.start >= last)  # not one in a comment
    return text[: lines[0].directive.words[0].start], text[ends:]
