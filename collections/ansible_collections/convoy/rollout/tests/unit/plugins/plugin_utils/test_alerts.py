# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts bar a deployment, and so does not knowing whether there are any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.alerts import refuse_when_firing, request_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Request
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.policy import PolicyError

ASKED = Request("http://alerts:9093/api/v2/alerts?active=true")


def alert(name: str, **more: Any) -> dict[str, Any]:
    return {"labels": {"alertname": name}, "annotations": {}, **more}


def test_only_alerts_that_nobody_knows_of_are_asked_for() -> None:
    request = request_of({"url": "http://alerts:9093/", "filters": ['service="hello"'], "headers": {"X-Org": "1"}})
    assert request == Request(
        "http://alerts:9093/api/v2/alerts?active=true&silenced=false&inhibited=false&filter=service%3D%22hello%22",
        (("X-Org", "1"),),
    )


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"filters": ["a"]}, "environment_alertmanager: 'url' is missing"),
        ({"url": "alerts:9093"}, "environment_alertmanager.url: 'alerts:9093' is no address"),
        ({"url": "http://a", "filter": "x"}, "unknown key 'filter': did you mean 'filters'?"),
        ({"url": "http://a", "headers": "x"}, "environment_alertmanager.headers: they are no mapping"),
    ],
)
def test_what_is_wrong_is_named(raw: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError) as refused:
        request_of(raw)
    assert complaint in str(refused.value)


def test_no_alert_bars_nothing() -> None:
    refuse_when_firing(ASKED, Answer("[]"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(json.dumps([alert("Down", annotations={"summary": "app1 is down"})])),
            "1 alert fires: Down (app1 is down): mend what they tell of or silence them",
        ),
        (Answer(json.dumps([alert(f"A{n}") for n in range(7)])), "7 alerts fire: A0; A1; A2; A3; A4; and 2 more: "),
        (
            Answer(error="cannot be reached: refused"),
            "alerts cannot be reached: refused: whether an alert fires is not",
        ),
        (Answer("<html>"), "did not answer as Alertmanager does: <html>"),
        (Answer('{"status": "error"}'), "did not answer as Alertmanager does"),
        (Answer('[{"labels": {}}]'), "did not answer as Alertmanager does"),
    ],
)
def test_what_bars_a_deployment_is_told(answer: Answer, said: str) -> None:
    with pytest.raises(PolicyError) as refused:
        refuse_when_firing(ASKED, answer)
    assert said in str(refused.value)
