# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes: what may be written, and what is judged healthy."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import probes
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.observers import CommandEnd, HttpAnswer, UnitState

URL = "http://127.0.0.1:8080/healthz"


def parsed(**given: Any) -> probes.Probe:
    return probes.parse("probes[0]", given, 2.0)


def judged(seen: Any, **given: Any) -> tuple[bool, str]:
    probe = parsed(**given)
    verdict = probes.KINDS[probe.kind].judge(probe.options, seen)
    return verdict.ok, verdict.detail


def test_defaults_are_filled_in() -> None:
    assert parsed(kind="http", url=URL) == (
        "http",
        f"http {URL}",
        2.0,
        {
            "url": URL,
            "status": [200],
            "body": None,
            "json": {},
            "answer_headers": {},
            "within": None,
            "follow": 0,
            "headers": {},
        },
    )
    assert parsed(kind="tcp", port=80).options == {"host": "127.0.0.1", "port": 80}
    assert parsed(kind="command", argv=["true"]).options == {"argv": ["true"], "rc": 0}
    assert parsed(kind="version", url=URL, expect="1.10").options["key"] == "version"


def test_keys_without_a_value_count_as_not_given() -> None:
    assert parsed(kind="tcp", port=80, url=None, host=None, timeout=None) == parsed(kind="tcp", port=80)


def test_one_status_is_a_list_of_one() -> None:
    assert parsed(kind="http", url=URL, status=204).options["status"] == [204]


def test_a_name_and_what_it_stands_for_are_the_label() -> None:
    assert parsed(kind="systemd", unit="hello.service", name="service").label == "service (systemd hello.service)"


def test_a_label_shows_no_secret() -> None:
    assert parsed(kind="http", url=URL + "?token=abc").label == f"http {URL}?token=***"
    assert "abc" not in parsed(kind="command", argv=["check", "--password=abc"]).label


REFUSED: list[tuple[object, str]] = [
    ("http", r"probes\[0\] is 'http': must be a mapping with a 'kind' \(balancer, clock, command, disk, dns,"),
    ({}, r"probes\[0\].kind is None: must be one of balancer, clock"),
    ({"kind": "htp"}, r"kind is 'htp'.*did you mean 'http'\?"),
    ({"kind": ["http"]}, r"kind is \['http'\]"),
    ({"kind": "http"}, r"probes\[0\] has no key 'url': must be an http or https URL"),
    ({"kind": "http", "ulr": URL}, r"unknown key 'ulr', did you mean 'url'\? \(kind http takes answer_headers, body"),
    ({"kind": "http", "url": URL, "port": 80}, r"unknown key 'port'"),
    ({"kind": "http", "url": URL, 7: 1}, r"unknown key 7"),
    ({"kind": "http", "url": "127.0.0.1:8080"}, r"url is '127.0.0.1:8080': must be an http or https URL"),
    ({"kind": "http", "url": "file:///etc/passwd"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http:///healthz"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http://h:99999/"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http://[::1/"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http://h/a b"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http://h/\r\nX: y"}, "must be an http or https URL"),
    ({"kind": "http", "url": "http://u:pw@h/"}, r"url is 'http://\*\*\*@h/': .*credentials belong in 'headers'"),
    ({"kind": "http", "url": URL, "status": "200"}, r"status is '200': must be a status from 100 to 599"),
    ({"kind": "http", "url": URL, "status": []}, "status is"),
    ({"kind": "http", "url": URL, "status": [200, 999]}, "status is"),
    ({"kind": "http", "url": URL, "status": True}, "status is True"),
    ({"kind": "http", "url": URL, "body": "(ok"}, r"body is '\(ok': must be a regular expression"),
    ({"kind": "http", "url": URL, "headers": {"X-A": "b\r\nc"}}, "headers is not shown: must be a mapping"),
    ({"kind": "http", "url": URL, "headers": {"X A": "b"}}, "headers is not shown"),
    ({"kind": "http", "url": URL, "timeout": 0}, "timeout is 0: must be a number of seconds above 0"),
    ({"kind": "http", "url": URL, "timeout": float("nan")}, "timeout is nan"),
    ({"kind": "http", "url": URL, "timeout": True}, "timeout is True"),
    ({"kind": "http", "url": URL, "name": " "}, "name is ' '"),
    ({"kind": "http", "url": URL, "json": ["ok"]}, r"json is \['ok'\]: must be a mapping of paths to values"),
    ({"kind": "http", "url": URL, "answer_headers": {"X": "("}}, "answer_headers is"),
    ({"kind": "http", "url": URL, "within": 0}, "within is 0: must be a number of seconds above 0"),
    ({"kind": "http", "url": URL, "follow": -1}, "follow is -1: must be a count"),
    ({"kind": "tcp"}, "has no key 'port': must be a port from 1 to 65535"),
    ({"kind": "tcp", "port": 0}, "port is 0"),
    ({"kind": "tcp", "port": "80"}, "port is '80'"),
    ({"kind": "tcp", "port": 80, "host": ""}, "host is ''"),
    ({"kind": "command", "argv": "true"}, "argv is 'true': must be a list of texts that begins with the program"),
    ({"kind": "command", "argv": []}, "argv is"),
    ({"kind": "command", "argv": ["", "x"]}, "argv is"),
    ({"kind": "command", "argv": ["true", 1]}, "argv is"),
    ({"kind": "command", "argv": ["true"], "rc": -1}, "rc is -1"),
    ({"kind": "systemd", "unit": "a\nb"}, "unit is"),
    ({"kind": "systemd", "unit": "a", "restarts": -1}, "restarts is -1"),
    ({"kind": "version", "url": URL}, "has no key 'expect'"),
    ({"kind": "version", "url": URL, "expect": 1.1}, r"expect is 1.1: must be .* \(a version in quotes\)"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_is_wrong_is_named(given: object, words: str) -> None:
    with pytest.raises(GateError, match=words):
        probes.parse("probes[0]", given, 2.0)


PAGE = HttpAnswer(200, "all is well", "")
HTTP: list[tuple[HttpAnswer, dict[str, Any], bool, str]] = [
    (PAGE, {}, True, "answered 200"),
    (PAGE, {"status": [204, 200]}, True, "answered 200"),
    (PAGE, {"status": [204, 206]}, False, "answered 200 (expected 204 or 206): all is well"),
    (PAGE, {"body": "^all is"}, True, "answered 200"),
    (PAGE, {"body": "ALL"}, False, "answered 200, but its body does not match 'ALL': all is well"),
    (HttpAnswer(500, "", ""), {}, False, "answered 500 (expected 200)"),
    (HttpAnswer(200, "", ""), {"body": "."}, False, "answered 200, but its body does not match '.'"),
    (
        HttpAnswer(302, "", "/login"),
        {},
        False,
        "answered 302 and pointed to /login, which is not followed (expected 200)",
    ),
    (PAGE._replace(seconds=0.2), {"within": 0.3}, True, "answered 200"),
    (PAGE._replace(seconds=0.4), {"within": 0.3}, False, "answered 200 after 0.4 s (at most 0.3 s allowed)"),
    (PAGE._replace(headers={"x-shard": "eu-1"}), {"answer_headers": {"X-Shard": "^eu-"}}, True, "answered 200"),
    (
        PAGE._replace(headers={"x-shard": "us-1"}),
        {"answer_headers": {"X-Shard": "^eu-"}},
        False,
        "answered 200, but its header X-Shard is 'us-1', which does not match '^eu-'",
    ),
    (PAGE, {"answer_headers": {"X-Shard": "."}}, False, "answered 200, but it has no header X-Shard"),
]
JSON = HttpAnswer(200, '{"status": "ok", "checks": [{"up": true, "n": 1}]}', "")
HTTP += [
    (JSON, {"json": {"status": "ok", "checks.0.up": True}}, True, "answered 200"),
    (JSON, {"json": {"status": "up"}}, False, "answered 200, but its JSON has 'ok' at 'status' (expected 'up')"),
    (JSON, {"json": {"checks.0.n": True}}, False, "answered 200, but its JSON has 1 at 'checks.0.n' (expected True)"),
    (
        JSON,
        {"json": {"checks.1.up": True}},
        False,
        f"answered 200, but its JSON has nothing at 'checks.1.up': {JSON.body}",
    ),
    (PAGE, {"json": {"a": 1}}, False, "answered 200, but its body is no JSON: all is well"),
]


@pytest.mark.parametrize(("seen", "given", "ok", "detail"), HTTP)
def test_http(seen: HttpAnswer, given: dict[str, Any], ok: bool, detail: str) -> None:
    assert judged(seen, kind="http", url=URL, **given) == (ok, detail)


VERSION: list[tuple[int, str, str, bool, str]] = [
    (200, '{"version": "1.10"}', "version", True, "says 1.10"),
    (200, '{"app": {"version": "1.10"}}', "app.version", True, "says 1.10"),
    (200, '{"version": "1.1"}', "version", False, "says 1.1 (expected 1.10)"),
    (200, '{"version": 1.10}', "version", False, "says 1.1 in 'version', which is not a text"),
    (200, '{"version": null}', "version", False, "says None in 'version', which is not a text"),
    (200, '{"app": "1.10"}', "app.version", False, "answered JSON without the key 'app.version'"),
    (200, '["1.10"]', "version", False, "answered JSON without the key 'version'"),
    (200, "1.10 <html>", "version", False, "answered no JSON: 1.10 <html>"),
    (200, "", "version", False, "answered no JSON"),
    (404, '{"version": "1.10"}', "version", False, 'answered 404 (expected 200): {"version": "1.10"}'),
]


@pytest.mark.parametrize(("status", "body", "key", "ok", "detail"), VERSION)
def test_version(status: int, body: str, key: str, ok: bool, detail: str) -> None:
    seen = HttpAnswer(status, body, "")
    assert judged(seen, kind="version", url=URL, key=key, expect="1.10") == (ok, detail)


COMMAND: list[tuple[CommandEnd, int, bool, str]] = [
    (CommandEnd(0, "fine"), 0, True, "ended with 0"),
    (CommandEnd(3, ""), 3, True, "ended with 3"),
    (CommandEnd(1, "no disk"), 0, False, "ended with 1 (expected 0): no disk"),
    (CommandEnd(-9, ""), 0, False, "ended with signal 9 (expected 0)"),
]


@pytest.mark.parametrize(("seen", "rc", "ok", "detail"), COMMAND)
def test_command(seen: CommandEnd, rc: int, ok: bool, detail: str) -> None:
    assert judged(seen, kind="command", argv=["check"], rc=rc) == (ok, detail)


UNIT: list[tuple[UnitState, Any, bool, str]] = [
    (UnitState("loaded", "active", "running", "success", 0), None, True, "is active (running)"),
    (UnitState("loaded", "active", "exited", "success", 0), 0, True, "is active (exited)"),
    (UnitState("loaded", "active", "running", "success", 7), None, True, "is active (running)"),
    (UnitState("loaded", "active", "running", "success", 2), 2, True, "is active (running)"),
    (
        UnitState("loaded", "active", "running", "success", 3),
        2,
        False,
        "was restarted 3 times by systemd (at most 2 allowed)",
    ),
    (
        UnitState("loaded", "activating", "auto-restart", "exit-code", 4),
        None,
        False,
        "is activating (auto-restart, result exit-code, restarted 4 times)",
    ),
    (
        UnitState("masked", "inactive", "dead", "success", 0),
        None,
        False,
        "is inactive (dead, result success, restarted 0 times)",
    ),
]


@pytest.mark.parametrize(("seen", "restarts", "ok", "detail"), UNIT)
def test_systemd(seen: UnitState, restarts: Any, ok: bool, detail: str) -> None:
    assert judged(seen, kind="systemd", unit="hello", restarts=restarts) == (ok, detail)


def test_an_attempt_says_what_it_saw_on_one_line_without_what_was_sent() -> None:
    code = "import sys; print('first\\nsecond password: abc'); sys.exit(1)"
    outcome = probes.check(parsed(kind="command", argv=["python3", "-c", code], name="check"), 10)
    assert outcome.detail == "ended with 1 (expected 0): first second password: ***"
    assert (outcome.ok, outcome.usable) == (False, True)


def test_the_values_of_headers_are_masked_in_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    echo = HttpAnswer(401, "you sent Bearer s3cr3t-word and s3cr3t-word", "")
    monkeypatch.setattr(probes.observers, "fetch", lambda *_asked: echo)
    probe = parsed(kind="http", url=URL, headers={"Authorization": "Bearer s3cr3t-word"})
    assert probes.check(probe, 1).detail == "answered 401 (expected 200): you sent *** and ***"


def test_a_command_that_is_not_there_is_no_verdict() -> None:
    outcome = probes.check(parsed(kind="command", argv=["/nowhere/check"]), 1)
    assert (outcome.ok, outcome.usable) == (False, False)


def test_a_unit_that_is_not_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = UnitState("not-found", "inactive", "dead", "success", 0)
    monkeypatch.setattr(probes.observers, "unit_state", lambda unit, timeout: unknown)
    outcome = probes.check(parsed(kind="systemd", unit="helo.service"), 1)
    assert (outcome.ok, outcome.usable) == (False, False)
    assert "knows no unit 'helo.service'" in outcome.detail
