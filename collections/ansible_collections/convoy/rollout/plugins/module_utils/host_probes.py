# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of the host itself and of what is around it, by kind: pure predicates over what was seen."""

from __future__ import annotations

import os
import re

from ansible_collections.convoy.rollout.plugins.module_utils import host_observers as seen
from ansible_collections.convoy.rollout.plugins.module_utils import observers
from ansible_collections.convoy.rollout.plugins.module_utils.errors import GateError, TrafficError
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.probe_rules import (
    HEADERS,
    TEXT_RULE,
    URL,
    Field,
    Kind,
    Verdict,
    is_number,
    is_pattern,
    is_port,
    is_positive,
    is_text,
    shown,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Mapping

if TYPE_CHECKING:
    Options = Mapping[str, Any]
_MB = 1000000


def _is_percent(value: Any) -> bool:
    return is_number(value) and bool(0 <= value <= 100)


def _is_amount(value: Any) -> bool:
    return is_number(value) and bool(value >= 0)


def _is_path(value: Any) -> bool:
    return is_text(value) and str(value).startswith("/")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_text(one) for one in value)


_TEXT = Field(TEXT_RULE, is_text, required=True)
_UNIT = _TEXT
_MEGABYTES = Field("a number of megabytes, 0 or more", _is_amount, default=0)
_PATH_RULE = "an absolute path"


# --- the judges ------------------------------------------------------------------------------------------------


def _judge_disk(options: Options, found: seen.Space) -> Verdict:
    free = f"has {found.free / _MB:.0f} MB free ({_percent(found.free, found.total):.3g} %)"
    if found.free < options["free_mb"] * _MB:
        return Verdict(False, f"{free}, at least {options['free_mb']:g} MB are wanted")
    if _percent(found.free, found.total) < options["free_percent"]:
        return Verdict(False, f"{free}, at least {options['free_percent']:g} % are wanted")
    inodes = _percent(found.free_inodes, found.inodes)
    if inodes < options["free_percent"]:
        return Verdict(
            False, f"has {inodes:.3g} % of its inodes free, at least {options['free_percent']:g} % are wanted"
        )
    return Verdict(True, free)


def _percent(part: float, whole: float) -> float:
    """Of nothing, all is free."""
    return 100 * part / whole if whole else 100.0


def _judge_memory(options: Options, found: tuple[int, int]) -> Verdict:
    available, total = found
    told = f"has {available / _MB:.0f} MB available ({_percent(available, total):.3g} %)"
    if available < options["free_mb"] * _MB:
        return Verdict(False, f"{told}, at least {options['free_mb']:g} MB are wanted")
    if _percent(available, total) < options["free_percent"]:
        return Verdict(False, f"{told}, at least {options['free_percent']:g} % are wanted")
    return Verdict(True, told)


def _judge_clock(options: Options, offset: float) -> Verdict:
    told = f"is {abs(offset):.3g} s {'ahead of' if offset > 0 else 'behind'} this host's clock"
    most: float = options["most"]
    return Verdict(abs(offset) <= most, told if abs(offset) <= most else f"{told} (at most {most:g} s allowed)")


def _judge_dns(options: Options, found: list[str]) -> Verdict:
    wanted: list[str] | None = options["addresses"]
    told = f"resolves to {', '.join(found)}"
    if wanted is not None and set(found) != set(wanted):
        return Verdict(False, f"{told} (expected {', '.join(sorted(wanted))})")
    return Verdict(True, told)


def _judge_tls(options: Options, days: float) -> Verdict:
    told = f"shows a certificate that is valid for {days:.1f} days"
    if days < options["days"]:
        return Verdict(False, f"{told} (at least {options['days']:g} are wanted)")
    return Verdict(True, told)


def _judge_log(options: Options, lines: list[str]) -> Verdict:
    matching = [line for line in lines if re.search(options["pattern"], line)]
    if matching:
        times = f"{len(matching)} line{'' if len(matching) == 1 else 's'}"
        return Verdict(False, f"has {times} that match {options['pattern']!r}{shown(matching[-1])}")
    return Verdict(True, f"has no line that matches {options['pattern']!r}")


def _judge_process(options: Options, found: seen.Running) -> Verdict:
    if not found.pid:
        return Verdict(False, "has no process")
    cwd: str | None = options["cwd"]
    if cwd is not None and found.cwd != os.path.realpath(cwd):
        return Verdict(False, f"works in {found.cwd} (expected {os.path.realpath(cwd)}): an older process still runs")
    if options["port"] is not None and options["port"] not in found.ports:
        ports = ", ".join(map(str, sorted(found.ports))) or "no port"
        return Verdict(False, f"listens on {ports} (expected {options['port']})")
    if found.seconds < options["running_for"]:
        return Verdict(
            False, f"has been running for {found.seconds:.1f} s (at least {options['running_for']:g} s wanted)"
        )
    return Verdict(True, f"has process {found.pid}, running for {found.seconds:.0f} s")


def _judge_balancer(options: Options, answer: observers.HttpAnswer) -> Verdict:
    if answer.status != 200:
        return Verdict(False, f"answered {answer.status} (expected 200){shown(answer.body)}")
    from ansible_collections.convoy.rollout.plugins.module_utils.haproxy import stat_rows

    try:
        rows = stat_rows(answer.body)
    except TrafficError:
        return Verdict(False, f"did not answer as HAProxy's statistics do{shown(answer.body)}")
    servers = {row["svname"]: row["status"] for row in rows if row["pxname"] == options["backend"]}
    status = servers.get(options["server"])
    if status is None:
        near = did_you_mean(options["server"], servers)
        return Verdict(False, f"knows no server {options['server']!r} in backend {options['backend']!r}{near}")
    if not status.startswith("UP"):
        return Verdict(False, f"has {options['server']} as {status} (expected UP)")
    return Verdict(True, f"has {options['server']} as {status}")


# --- the observers ---------------------------------------------------------------------------------------------


def _see_memory(options: Options, timeout: float) -> tuple[int, int]:
    try:
        return seen.memory()
    except (OSError, KeyError, ValueError) as error:
        raise GateError(f"this host does not tell how much memory it has: {error}") from error


def _see_certificate(options: Options, timeout: float) -> float:
    name = options["server_name"] or options["host"]
    try:
        return seen.certificate_days(options["host"], options["port"], name, options["ca_path"], timeout)
    except FileNotFoundError as error:
        raise GateError(f"there is no file {options['ca_path']} on this host") from error


# --- the table -------------------------------------------------------------------------------------------------

HOST_KINDS: Mapping[str, Kind] = {
    "disk": Kind(
        {
            "path": Field(_PATH_RULE, _is_path, default="/"),
            "free_mb": _MEGABYTES,
            "free_percent": Field("a number from 0 to 100", _is_percent, default=5),
        },
        lambda options: str(options["path"]),
        lambda options, timeout: seen.space(options["path"]),
        _judge_disk,
    ),
    "memory": Kind(
        {"free_mb": _MEGABYTES, "free_percent": Field("a number from 0 to 100", _is_percent, default=5)},
        lambda options: "available",
        _see_memory,
        _judge_memory,
    ),
    "clock": Kind(
        {
            "host": _TEXT,
            "port": Field("a port from 1 to 65535", is_port, default=123),
            "most": Field("a number of seconds above 0", is_positive, default=30),
        },
        lambda options: f"of {options['host']}",
        lambda options, timeout: seen.clock_offset(options["host"], options["port"], timeout),
        _judge_clock,
    ),
    "dns": Kind(
        {"host": _TEXT, "addresses": Field("a list of addresses", _is_texts)},
        lambda options: str(options["host"]),
        lambda options, timeout: seen.addresses(options["host"]),
        _judge_dns,
    ),
    "tls": Kind(
        {
            "host": _TEXT,
            "port": Field("a port from 1 to 65535", is_port, default=443),
            "server_name": Field(TEXT_RULE, is_text),
            "days": Field("a number of days, 0 or more", _is_amount, default=14),
            "ca_path": Field(_PATH_RULE, _is_path),
        },
        lambda options: f"{options['host']}:{options['port']}",
        _see_certificate,
        _judge_tls,
    ),
    "log": Kind(
        {
            "unit": _UNIT,
            "pattern": Field("a regular expression", is_pattern, required=True),
            "since": Field("a number of seconds above 0", is_positive),
        },
        lambda options: f"of {options['unit']}",
        lambda options, timeout: seen.log_lines(options["unit"], options["since"], timeout),
        _judge_log,
    ),
    "process": Kind(
        {
            "unit": _UNIT,
            "cwd": Field(_PATH_RULE, _is_path),
            "port": Field("a port from 1 to 65535", is_port),
            "running_for": Field("a number of seconds, 0 or more", _is_amount, default=0),
        },
        lambda options: f"of {options['unit']}",
        lambda options, timeout: seen.running(options["unit"], timeout),
        _judge_process,
    ),
    "balancer": Kind(
        {"url": URL, "backend": _TEXT, "server": _TEXT, "headers": HEADERS},
        lambda options: str(options["url"]),
        lambda options, timeout: observers.fetch(options["url"], options["headers"], timeout),
        _judge_balancer,
    ),
}
