# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages that programs show to Prometheus, and selectors of their series."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.exposition import (
    ExpositionError,
    Point,
    Selector,
    parse_page,
)

PAGE = r"""
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400",}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by {zero}, sort of"} +Inf -3982045
   negative { a = "b" , c = "d" } -Inf
not_a_number NaN
http_request_duration_seconds_bucket{le="0.05"} 24054 # {trace_id="KOO5S4vxi0o"} 0.67
# EOF
"""


def test_a_page() -> None:
    points = parse_page(PAGE)
    assert [(point.name, dict(point.labels), point.value) for point in points if not math.isnan(point.value)] == [
        ("http_requests_total", {"method": "post", "code": "200"}, 1027),
        ("http_requests_total", {"method": "post", "code": "400"}, 3),
        (
            "msdos_file_access_time_seconds",
            {"path": r"C:\DIR\FILE.TXT", "error": 'Cannot find file:\n"FILE.TXT"'},
            1.458255915e9,
        ),
        ("metric_without_timestamp_and_labels", {}, 12.47),
        ("something_weird", {"problem": "division by {zero}, sort of"}, math.inf),
        ("negative", {"a": "b", "c": "d"}, -math.inf),
        ("http_request_duration_seconds_bucket", {"le": "0.05"}, 24054),
    ]
    assert [point.name for point in points if math.isnan(point.value)] == ["not_a_number"]


def test_a_page_with_the_line_ends_of_windows_and_an_empty_one() -> None:
    assert [point.value for point in parse_page("a 1\r\nb 2\r\n")] == [1, 2]
    assert parse_page("") == []


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<html><body>Log in</body></html>", "line 1 is not in Prometheus's text format: '<html>"),
        ("a 1\nb", "line 2 is not in Prometheus's text format: 'b'"),
        ("a 1\nmetric1", "line 2 is not in Prometheus's text format: 'metric1'"),
        ("a one", "line 1: 'one' is no number"),
        ('a{b="c} 1', "line 1 is not in Prometheus's text format"),
        ("a{b=c} 1", "the labels of 'a{b=c} 1' are not understood from 'b=c' on"),
        ('a{b="c" d="e"} 1', "are not understood from"),
        ('{"status": "ok"}', "line 1 is not in Prometheus's text format"),
    ],
)
def test_what_is_no_page(page: str, message: str) -> None:
    with pytest.raises(ExpositionError) as caught:
        parse_page(page)
    assert message in str(caught.value)


LABELS = st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text(st.characters(codec="utf-8")))


@given(LABELS, st.floats(allow_nan=False))
def test_every_label_and_value_comes_back(labels: dict[str, str], value: float) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    inside = ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
    assert parse_page(f"name{{{inside}}} {value!r}") == [Point("name", labels, value)]


@pytest.mark.parametrize(
    ("selector", "codes"),
    [
        ("requests_total", ["200", "500", "503", ""]),
        ("requests_total{}", ["200", "500", "503", ""]),
        ('requests_total{code="500"}', ["500"]),
        ('requests_total{code=~"5.."}', ["500", "503"]),
        ('requests_total{code=~"5"}', []),
        ('requests_total{code!="500"}', ["200", "503", ""]),
        ('requests_total{code!~"5.."}', ["200", ""]),
        ('requests_total{code!=""}', ["200", "500", "503"]),
        ('requests_total{code=~"5..", app="hello"}', ["500"]),
        ('requests_total{code=~"a{2}|5.."}', ["500", "503"]),
        ("requests", []),
    ],
)
def test_what_a_selector_selects(selector: str, codes: list[str]) -> None:
    points = parse_page(
        'requests_total{code="200"} 1\nrequests_total{code="500",app="hello"} 1\n'
        'requests_total{code="503",app="other"} 1\nrequests_total 1\nother_total{code="500"} 1\n'
    )
    found = Selector.parse(selector)
    assert [point.labels.get("code", "") for point in points if found.selects(point)] == codes


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("", "'' is no selector of series"),
        ("rate(requests_total[1m])", "is no selector of series"),
        ("requests_total{code=500}", "are not understood from 'code=500' on"),
        ('requests_total{code=~"5("}', "the pattern '5(' is wrong"),
    ],
)
def test_what_is_no_selector(selector: str, message: str) -> None:
    with pytest.raises(ExpositionError) as caught:
        Selector.parse(selector)
    assert message in str(caught.value)
