# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes of an environment."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.policy import PolicyError, refuse_when_frozen

BEGIN = dt.datetime(2026, 12, 23, 15, tzinfo=dt.UTC).timestamp()
END = dt.datetime(2027, 1, 2, 7, tzinfo=dt.UTC).timestamp()
FREEZE = {"name": "end of the year", "from": "2026-12-23T16:00:00+01:00", "until": "2027-01-02T08:00:00+01:00"}


@pytest.mark.parametrize(
    ("now", "frozen"), [(BEGIN - 1, False), (BEGIN, True), (END - 1, True), (END, False), (END + 1, False)]
)
def test_a_freeze_holds_from_its_first_moment_to_before_its_last(now: float, frozen: bool) -> None:
    if not frozen:
        assert refuse_when_frozen([FREEZE], now, "") == ""
        return
    with pytest.raises(PolicyError) as refused:
        refuse_when_frozen([FREEZE], now, "")
    message = str(refused.value)
    assert "frozen (end of the year) until 2027-01-02T08:00:00+01:00" in message
    assert "-e rollout_freeze_override=" in message


def test_any_of_several_freezes_holds() -> None:
    past = {"from": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}
    with pytest.raises(PolicyError):
        refuse_when_frozen([past, FREEZE], BEGIN, "")


def test_a_freeze_without_a_name_is_called_by_its_place() -> None:
    nameless = {key: FREEZE[key] for key in ("from", "until")}
    with pytest.raises(PolicyError, match=r"environment_freezes\[0\]"):
        refuse_when_frozen([nameless], BEGIN, "")


def test_an_override_is_told_with_its_reason() -> None:
    assert refuse_when_frozen([FREEZE], BEGIN, "CVE fix") == "the freeze end of the year was overridden: CVE fix"


def test_an_override_without_a_freeze_is_nothing() -> None:
    assert refuse_when_frozen([FREEZE], END, "CVE fix") == ""


@pytest.mark.parametrize(
    "moment",
    [
        "2026-12-23T15:00:00",  # no zone: UTC
        "2026-12-23 15:00:00+00:00",
        dt.datetime(2026, 12, 23, 15, tzinfo=dt.UTC),  # as YAML reads a time without quotes
        "2026-12-23T15:00:00Z",
    ],
)
def test_times_may_be_written_in_these_ways(moment: Any) -> None:
    with pytest.raises(PolicyError):
        refuse_when_frozen([{**FREEZE, "from": moment}], BEGIN, "")
    assert refuse_when_frozen([{**FREEZE, "from": moment}], BEGIN - 1, "") == ""


def test_a_date_is_its_first_moment() -> None:
    with pytest.raises(PolicyError):
        refuse_when_frozen([{**FREEZE, "from": dt.date(2026, 12, 23)}], BEGIN, "")


@pytest.mark.parametrize(
    ("freeze", "complaint"),
    [
        ({**FREEZE, "form": "x"}, r"environment_freezes\[0\]: unknown key 'form': did you mean 'from'\?"),
        ({**FREEZE, "until": "tomorrow"}, r"environment_freezes\[0\]\.until: 'tomorrow' is no time: write it like"),
        ({"from": FREEZE["from"]}, r"environment_freezes\[0\]\.until: None is no time"),
        (
            {**FREEZE, "from": FREEZE["until"], "until": FREEZE["from"]},
            r"environment_freezes\[0\]: it ends at 2026-12-23T16:00:00\+01:00, before it begins at 2027",
        ),
        ({**FREEZE, "until": FREEZE["from"]}, "it ends at"),
    ],
)
def test_a_freeze_that_is_written_wrong_is_refused_even_when_overridden(freeze: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        refuse_when_frozen([freeze], 0.0, "CVE fix")
