# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of a gate: what may be asked (a table by kind), and pure predicates over what was answered.

An observer (observers.py, host_observers.py) looks at the world once; a judge, given the probe's options and what the
observer saw, says whether that is healthy and why. `check` joins the two.
"""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils import observers
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError
from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt, mask
from ansible_collections.convoy.rollout.plugins.module_utils.host_probes import HOST_KINDS
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.probe_rules import (
    HEADERS,
    TEXT_RULE,
    URL,
    Field,
    Kind,
    Verdict,
    is_argv,
    is_count,
    is_pattern,
    is_patterns,
    is_port,
    is_positive,
    is_rc,
    is_statuses,
    is_text,
    shown,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Mapping


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


# --- the judges ------------------------------------------------------------------------------------------------


def _judge_http(options: Mapping[str, Any], answer: observers.HttpAnswer) -> Verdict:
    wanted: list[int] = options["status"]
    if answer.status not in wanted:
        return Verdict(False, f"{_answered(answer)} (expected {_either(wanted)}){shown(answer.body)}")
    pattern: str | None = options["body"]
    if pattern is not None and not re.search(pattern, answer.body):
        return Verdict(False, f"answered {answer.status}, but its body does not match {pattern!r}{shown(answer.body)}")
    wrong = _wrong_header(options["answer_headers"], answer.headers) or _wrong_value(options["json"], answer.body)
    if wrong:
        return Verdict(False, f"answered {answer.status}, but {wrong}")
    within: float | None = options["within"]
    if within is not None and answer.seconds > within:
        return Verdict(False, f"answered {answer.status} after {answer.seconds:.3g} s (at most {within:g} s allowed)")
    return Verdict(True, f"answered {answer.status}")


def _wrong_header(wanted: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Which header of the answer does not match; empty if all of them do."""
    for name, pattern in wanted.items():
        value = headers.get(name.lower())
        if value is None:
            return f"it has no header {name}"
        if not re.search(pattern, value):
            return f"its header {name} is {value!r}, which does not match {pattern!r}"
    return ""


def _wrong_value(wanted: Mapping[str, Any], body: str) -> str:
    """Which value of the JSON in the body is not as it should be; empty if all of them are."""
    import json

    if not wanted:
        return ""
    try:
        document = json.loads(body)
    except ValueError:
        return f"its body is no JSON{shown(body)}"
    for path, value in wanted.items():
        there, found = value_at(document, path)
        if not there:
            return f"its JSON has nothing at {path!r}{shown(body)}"
        if found != value or isinstance(found, bool) is not isinstance(value, bool):
            return f"its JSON has {found!r} at {path!r} (expected {value!r})"
    return ""


def value_at(document: Any, path: str) -> tuple[bool, Any]:
    """Whether there is something at a path such as `checks.0.status`, and what it is."""
    for step in path.split("."):
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return False, None
    return True, document


def _answered(answer: observers.HttpAnswer) -> str:
    if not answer.location:
        return f"answered {answer.status}"
    return f"answered {answer.status} and pointed to {answer.location}, which is not followed"


def _either(wanted: list[int]) -> str:
    return " or ".join(str(one) for one in wanted)


def _judge_version(options: Mapping[str, Any], answer: observers.HttpAnswer) -> Verdict:
    if answer.status != 200:
        return Verdict(False, f"{_answered(answer)} (expected 200){shown(answer.body)}")
    import json

    try:
        found = json.loads(answer.body)
    except ValueError:
        return Verdict(False, f"answered no JSON{shown(answer.body)}")
    return _judge_document(options, found)


def _judge_document(options: Mapping[str, Any], found: Any) -> Verdict:
    there, found = value_at(found, options["key"])
    if not there:
        return Verdict(False, f"answered JSON without the key {options['key']!r}")
    if not isinstance(found, str):
        return Verdict(False, f"says {found!r} in {options['key']!r}, which is not a text")
    if found != options["expect"]:
        return Verdict(False, f"says {found} (expected {options['expect']})")
    return Verdict(True, f"says {found}")


def _judge_tcp(options: Mapping[str, Any], answer: None) -> Verdict:
    return Verdict(True, "accepted the connection")


def _judge_command(options: Mapping[str, Any], end: observers.CommandEnd) -> Verdict:
    if end.rc != options["rc"]:
        return Verdict(False, f"ended with {_ending(end.rc)} (expected {options['rc']}){shown(end.output)}")
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
    return observers.fetch(options["url"], options["headers"], timeout, options.get("follow", 0))


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
            "url": URL,
            "status": Field("a status from 100 to 599 or a list of them", is_statuses, default=[200]),
            "body": Field("a regular expression", is_pattern),
            "json": Field("a mapping of paths to values", lambda value: isinstance(value, dict), default={}),
            "answer_headers": Field("a mapping of header names to regular expressions", is_patterns, default={}),
            "within": Field("a number of seconds above 0", is_positive),
            "follow": Field("a count, zero or more", is_count, default=0),
            "headers": HEADERS,
        },
        _url,
        _observe_http,
        _judge_http,
    ),
    "tcp": Kind(
        {
            "host": Field(TEXT_RULE, is_text, default="127.0.0.1"),
            "port": Field("a port from 1 to 65535", is_port, required=True),
        },
        lambda options: f"{options['host']}:{options['port']}",
        _observe_tcp,
        _judge_tcp,
    ),
    "command": Kind(
        {
            "argv": Field("a list of texts that begins with the program", is_argv, required=True),
            "rc": Field("an exit code from 0 to 255", is_rc, default=0),
        },
        lambda options: " ".join(options["argv"]),
        _observe_command,
        _judge_command,
    ),
    "systemd": Kind(
        {
            "unit": Field(TEXT_RULE, is_text, required=True),
            "restarts": Field("a count, zero or more", is_count),
        },
        lambda options: str(options["unit"]),
        _observe_systemd,
        _judge_systemd,
    ),
    "version": Kind(
        {
            "url": URL,
            "key": Field(TEXT_RULE, is_text, default="version"),
            "expect": Field(f"{TEXT_RULE} (a version in quotes)", is_text, required=True),
            "headers": HEADERS,
        },
        _url,
        _observe_http,
        _judge_version,
    ),
    **HOST_KINDS,
}
_COMMON: Mapping[str, Field] = {
    "kind": Field("the kind of the probe", is_text, required=True),
    "name": Field(TEXT_RULE, is_text),
    "timeout": Field("a number of seconds above 0", is_positive),
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
    return told(probe, verdict)


def told(probe: Probe, verdict: Verdict) -> Outcome:
    """The outcome of an attempt: one line, short, without secrets."""
    return Outcome(probe.label, verdict.ok, excerpt(verdict.detail, _secrets(probe.options)))
