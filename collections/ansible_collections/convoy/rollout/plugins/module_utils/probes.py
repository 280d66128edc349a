# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of a gate: what may be asked (a table by kind), and pure predicates over what was answered.

An observer (observers.py) looks at the world once; a judge, given the probe's options and what the observer saw,
says whether that is healthy and why. `check` joins the two.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping, NamedTuple

from ansible_collections.convoy.rollout.plugins.module_utils import observers
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt, mask
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean

_LONGEST_TEXT = 4096


class Verdict(NamedTuple):
    """What a judge says of one observation: healthy or not, and the facts it rests on."""

    ok: bool
    detail: str


class Probe(NamedTuple):
    """A validated probe. `label` names it in messages; `options` hold every key of its kind, defaults filled in."""

    kind: str
    label: str
    timeout: float
    options: Mapping[str, Any]


class Outcome(NamedTuple):
    """One attempt of one probe. `usable` is False when the probe itself could not be used: that is no verdict."""

    probe: str
    ok: bool
    detail: str
    usable: bool = True


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


def is_count(value: object) -> bool:
    """A whole number, zero or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and len(value) <= _LONGEST_TEXT


def _is_url(value: object) -> bool:
    from urllib.parse import urlsplit

    if not isinstance(value, str) or not _is_text(value) or " " in value:
        return False
    try:
        parts = urlsplit(value)
        usable_port = parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and usable_port


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _is_status(value: object) -> bool:
    return is_count(value) and isinstance(value, int) and 100 <= value <= 599


def _is_statuses(value: object) -> bool:
    return _is_status(value) or (isinstance(value, list) and bool(value) and all(_is_status(one) for one in value))


def _is_headers(value: object) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9-]+", str(name)) and isinstance(text, str) and text.isprintable()
        for name, text in value.items()
    )


def _is_port(value: object) -> bool:
    return is_count(value) and isinstance(value, int) and 1 <= value <= 65535


def _is_argv(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(word, str) and "\0" not in word for word in value)
        and bool(value[0])
    )


def _is_rc(value: object) -> bool:
    return is_count(value) and isinstance(value, int) and value <= 255


_TEXT_RULE = f"a printable text of at most {_LONGEST_TEXT} characters that is not empty"
_URL = Field(
    "an http or https URL with a host and no user name in it (credentials belong in 'headers')", _is_url, required=True
)
_HEADERS = Field("a mapping of header names to printable texts", _is_headers, default={})


# --- the judges ------------------------------------------------------------------------------------------------


def _judge_http(options: Mapping[str, Any], answer: observers.HttpAnswer) -> Verdict:
    wanted: list[int] = options["status"]
    if answer.status not in wanted:
        return Verdict(False, f"{_answered(answer)} (expected {_either(wanted)}){_shown(answer.body)}")
    pattern: str | None = options["body"]
    if pattern is not None and not re.search(pattern, answer.body):
        return Verdict(False, f"answered {answer.status}, but its body does not match {pattern!r}{_shown(answer.body)}")
    return Verdict(True, f"answered {answer.status}")


def _answered(answer: observers.HttpAnswer) -> str:
    if not answer.location:
        return f"answered {answer.status}"
    return f"answered {answer.status} and pointed to {answer.location}, which is not followed"


def _either(wanted: list[int]) -> str:
    return " or ".join(str(one) for one in wanted)


def _shown(text: str) -> str:
    return f": {text}" if text.strip() else ""


def _judge_version(options: Mapping[str, Any], answer: observers.HttpAnswer) -> Verdict:
    if answer.status != 200:
        return Verdict(False, f"{_answered(answer)} (expected 200){_shown(answer.body)}")
    import json

    try:
        found = json.loads(answer.body)
    except ValueError:
        return Verdict(False, f"answered no JSON{_shown(answer.body)}")
    return _judge_document(options, found)


def _judge_document(options: Mapping[str, Any], found: Any) -> Verdict:
    for step in options["key"].split("."):
        if not isinstance(found, dict) or step not in found:
            return Verdict(False, f"answered JSON without the key {options['key']!r}")
        found = found[step]
    if not isinstance(found, str):
        return Verdict(False, f"says {found!r} in {options['key']!r}, which is not a text")
    if found != options["expect"]:
        return Verdict(False, f"says {found} (expected {options['expect']})")
    return Verdict(True, f"says {found}")


def _judge_tcp(options: Mapping[str, Any], answer: None) -> Verdict:
    return Verdict(True, "accepted the connection")


def _judge_command(options: Mapping[str, Any], end: observers.CommandEnd) -> Verdict:
    if end.rc != options["rc"]:
        return Verdict(False, f"ended with {_ending(end.rc)} (expected {options['rc']}){_shown(end.output)}")
    return Verdict(True, f"ended with {end.rc}")


def _ending(rc: int) -> str:
    return str(rc) if rc >= 0 else f"signal {-rc}"


def _judge_systemd(options: Mapping[str, Any], unit: observers.UnitState) -> Verdict:
    most: int | None = options["restarts"]
    if unit.active != "active":
        return Verdict(False, f"is {unit.active} ({unit.sub}, result {unit.result}, restarted {unit.restarts} times)")
    if most is not None and unit.restarts > most:
        return Verdict(False, f"was restarted {unit.restarts} times by systemd (at most {most} allowed)")
    return Verdict(True, f"is active ({unit.sub})")


# --- the table -------------------------------------------------------------------------------------------------


def _observe_http(options: Mapping[str, Any], timeout: float) -> observers.HttpAnswer:
    return observers.fetch(options["url"], options["headers"], timeout)


def _observe_tcp(options: Mapping[str, Any], timeout: float) -> None:
    observers.connect(options["host"], options["port"], timeout)


def _observe_command(options: Mapping[str, Any], timeout: float) -> observers.CommandEnd:
    return observers.run_command(options["argv"], timeout)


def _observe_systemd(options: Mapping[str, Any], timeout: float) -> observers.UnitState:
    unit = observers.unit_state(options["unit"], timeout)
    if unit.load == "not-found":
        raise GateError(f"systemd on this host knows no unit {options['unit']!r}: check the name and its suffix")
    return unit


def _url(options: Mapping[str, Any]) -> str:
    return str(options["url"])


KINDS: Mapping[str, Kind] = {
    "http": Kind(
        {
            "url": _URL,
            "status": Field("a status from 100 to 599 or a list of them", _is_statuses, default=[200]),
            "body": Field("a regular expression", _is_pattern),
            "headers": _HEADERS,
        },
        _url,
        _observe_http,
        _judge_http,
    ),
    "tcp": Kind(
        {
            "host": Field(_TEXT_RULE, _is_text, default="127.0.0.1"),
            "port": Field("a port from 1 to 65535", _is_port, required=True),
        },
        lambda options: f"{options['host']}:{options['port']}",
        _observe_tcp,
        _judge_tcp,
    ),
    "command": Kind(
        {
            "argv": Field("a list of texts that begins with the program", _is_argv, required=True),
            "rc": Field("an exit code from 0 to 255", _is_rc, default=0),
        },
        lambda options: " ".join(options["argv"]),
        _observe_command,
        _judge_command,
    ),
    "systemd": Kind(
        {
            "unit": Field(_TEXT_RULE, _is_text, required=True),
            "restarts": Field("a count, zero or more", is_count),
        },
        lambda options: str(options["unit"]),
        _observe_systemd,
        _judge_systemd,
    ),
    "version": Kind(
        {
            "url": _URL,
            "key": Field(_TEXT_RULE, _is_text, default="version"),
            "expect": Field(f"{_TEXT_RULE} (a version in quotes)", _is_text, required=True),
            "headers": _HEADERS,
        },
        _url,
        _observe_http,
        _judge_version,
    ),
}
_COMMON: Mapping[str, Field] = {
    "kind": Field("the kind of the probe", _is_text, required=True),
    "name": Field(_TEXT_RULE, _is_text),
    "timeout": Field("a number of seconds above 0", lambda value: is_number(value) and value > 0),
}


# --- validation ------------------------------------------------------------------------------------------------


def parse(where: str, given: object, timeout: float) -> Probe:
    """The probe that `given` describes. `where` names it in errors, `timeout` stands when it has none of its own.

    A key whose value is None counts as not given. Raises GateError.
    """
    if not isinstance(given, dict):
        raise GateError(f"{where} is {given!r}: must be a mapping with a 'kind' ({', '.join(sorted(KINDS))})")
    values = {key: value for key, value in given.items() if value is not None}
    name = values.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        raise GateError(f"{where}.kind is {name!r}: must be one of {', '.join(sorted(KINDS))}{_near(name, KINDS)}")
    fields = {**_COMMON, **KINDS[name].fields}
    check_keys(where, values, fields, f"kind {name}")
    check_values(where, values, fields)
    return _built(name, values, timeout)


def _near(name: object, known: Mapping[str, Any]) -> str:
    return did_you_mean(name, known) if isinstance(name, str) else ""


def check_keys(where: str, values: Mapping[Any, Any], fields: Mapping[str, Field], owner: str) -> None:
    """Every key must be a known one. Raises GateError that names the nearest."""
    for key in values:
        if key not in fields:
            raise GateError(
                f"{where} has an unknown key {key!r}{_near(key, fields)} ({owner} takes {', '.join(sorted(fields))})"
            )


def check_values(where: str, values: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Every value must keep the rule of its key, and no required key may be missing. Raises GateError."""
    for key, field in fields.items():
        if key not in values:
            if field.required:
                raise GateError(f"{where} has no key {key!r}: must be {field.rule}")
        elif not field.holds(values[key]):
            shown = "not shown" if key == "headers" else mask(repr(values[key]))
            raise GateError(f"{where}.{key} is {shown}: must be {field.rule}")


def _built(name: str, values: Mapping[str, Any], timeout: float) -> Probe:
    kind = KINDS[name]
    options = {key: values.get(key, field.default) for key, field in kind.fields.items()}
    if isinstance(options.get("status"), int):
        options["status"] = [options["status"]]
    subject = excerpt(f"{name} {kind.subject(options)}", _secrets(options))
    label = f"{values['name']} ({subject})" if "name" in values else subject
    return Probe(name, label, float(values.get("timeout", timeout)), options)


def _secrets(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What the text of an answer must not show: the values of the headers that were sent, as a server may echo them."""
    headers: dict[str, str] = options.get("headers") or {}
    return tuple(word for text in headers.values() for word in (text, text.split(" ")[-1]))


# --- one attempt -----------------------------------------------------------------------------------------------


def check(probe: Probe, timeout: float) -> Outcome:
    """Look once, for at most `timeout` seconds, and judge what was seen."""
    kind = KINDS[probe.kind]
    try:
        verdict = kind.judge(probe.options, kind.observe(probe.options, timeout))
    except observers.NoAnswerError as trouble:
        verdict = Verdict(False, trouble.message)
    except GateError as error:
        return Outcome(probe.label, False, excerpt(error.message), usable=False)
    return Outcome(probe.label, verdict.ok, excerpt(verdict.detail, _secrets(probe.options)))
