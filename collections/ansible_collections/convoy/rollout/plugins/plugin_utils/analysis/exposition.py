# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text in which programs expose their metrics to Prometheus, and selectors of series in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*\"((?:[^\"\\\n]|\\.)*)\"\s*(,|$)")
# A timestamp and an exemplar may follow the value.
LINE = re.compile(
    rf"({NAME})(?:\s*\{{((?:[^\"}}]|\"(?:[^\"\\]|\\.)*\")*)\}}\s*|\s+)([^\s{{}}\"]+)(?:\s+[-+0-9.eE]+)?(?:\s+#\s.*)?\s*$"
)
SELECTOR = re.compile(rf"\s*({NAME})\s*(?:\{{(.*)\}})?\s*$", re.DOTALL)
ESCAPED = re.compile(r"\\(.)")
ESCAPES = {"n": "\n"}


class ExpositionError(ConvoyError):
    """What a page of metrics says, or a selector, is not in Prometheus's format."""

    reason = "metrics_format"


@dataclass(frozen=True)
class Point:
    """One series of a page, with its value."""

    name: str
    labels: Mapping[str, str]
    value: float

    @property
    def key(self) -> str:
        """The series as Prometheus writes it."""
        return series_name(self.name, self.labels)


@dataclass(frozen=True)
class Matcher:
    """One condition on a label, which counts as empty where it is missing."""

    label: str
    sign: str
    text: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds; a pattern has to match the whole value, as in Prometheus."""
        value = labels.get(self.label, "")
        same = bool(re.fullmatch(self.text, value)) if "~" in self.sign else value == self.text
        return same is not self.sign.startswith("!")


@dataclass(frozen=True)
class Selector:
    """Which series are meant: ``name{label="value",other=~"pattern"}``."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read a selector. Raises ExpositionError."""
        found = SELECTOR.match(text)
        if not found:
            raise ExpositionError(f"{text!r} is no selector of series: write one such as requests_total{{code=~'5..'}}")
        matchers = tuple(Matcher(*parts) for parts in _labels(found[2] or "", text))
        for matcher in matchers:
            try:
                re.compile(matcher.text if "~" in matcher.sign else "")
            except re.error as error:
                raise ExpositionError(f"{text!r}: the pattern {matcher.text!r} is wrong: {error}") from None
        return cls(found[1], matchers)

    def selects(self, point: Point) -> bool:
        """Whether the series is meant."""
        return point.name == self.name and all(matcher.matches(point.labels) for matcher in self.matchers)


def parse_page(text: str) -> list[Point]:
    """The series of a page, in the text format of Prometheus or OpenMetrics. Raises ExpositionError."""
    return [
        _point(line.strip(), number)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def series_name(name: str, labels: Mapping[str, str]) -> str:
    """``name{label="value"}``, with the labels in the order of their names."""
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def _point(line: str, number: int) -> Point:
    found = LINE.match(line)
    if not found:
        raise ExpositionError(f"line {number} is not in Prometheus's text format: {line[:80]!r}")
    try:
        value = float(found[3])
    except ValueError:
        raise ExpositionError(f"line {number}: {found[3][:40]!r} is no number") from None
    labels = {label: text for label, sign, text in _labels(found[2] or "", line) if sign == "="}
    return Point(found[1], labels, value)


def _labels(text: str, whole: str) -> Iterator[tuple[str, str, str]]:
    """The labels inside braces: name, sign, value. A comma may follow the last one."""
    at, text = 0, text.strip()
    while at < len(text):
        found = LABEL.match(text, at)
        if not found:
            raise ExpositionError(f"the labels of {whole[:80]!r} are not understood from {text[at : at + 40]!r} on")
        yield found[1], found[2], ESCAPED.sub(lambda escaped: ESCAPES.get(escaped[1], escaped[1]), found[3])
        at = found.end()
