# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alerts that bar a deployment: what is asked of Alertmanager, and what its answer means. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt, mask
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.config import Options
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Request
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.policy import PolicyError

FIELD = "environment_alertmanager"
KEYS = ("url", "filters", "headers", "timeout", "ca_path")
NEXT = "mend what they tell of or silence them, and run the same command again; rolling back is always allowed"
TOLD = 5  # alerts that are named, at most


def request_of(raw: Mapping[str, Any]) -> Request:
    """What is asked: the alerts that are neither silenced nor inhibited. Raises SpecError."""
    options = Options(FIELD, raw, "Alertmanager", KEYS)
    url = options.text("url").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{FIELD}.url: {url!r} is no address: write one that begins with http:// or https://")
    filters = options.texts("filters", ()) if options.has("filters") else ()
    headers = options.raw.get("headers", {})
    if not isinstance(headers, Mapping):
        raise SpecError(f"{FIELD}.headers: they are no mapping of names to texts")
    wanted = [("active", "true"), ("silenced", "false"), ("inhibited", "false"), *(("filter", one) for one in filters)]
    sent = tuple((str(name), str(value)) for name, value in headers.items())
    return Request(f"{url}/api/v2/alerts?{urlencode(wanted)}", sent)


def refuse_when_firing(request: Request, answer: Answer) -> None:
    """Raise PolicyError when an alert fires, and when it is not known whether one does."""
    where = mask(request.url.partition("?")[0])
    if answer.error:
        raise PolicyError(
            f"{where} {answer.error}: whether an alert fires is not known. Deploy with -e {FIELD}={{}} to go without"
        )
    try:
        alerts = json.loads(answer.text)
        names = [str(alert["labels"]["alertname"]) for alert in alerts]
    except (ValueError, TypeError, KeyError):
        raise PolicyError(f"{where} did not answer as Alertmanager does: {excerpt(answer.text)}") from None
    if names:
        count = f"{len(names)} alert{' fires' if len(names) == 1 else 's fire'}"
        raise PolicyError(f"{count}: {_told(alerts)}: {NEXT}")


def _told(alerts: Sequence[Mapping[str, Any]]) -> str:
    """Each alert by its name and its summary, or where it fires."""
    told = []
    for alert in alerts[:TOLD]:
        labels, notes = alert["labels"], alert.get("annotations") or {}
        about = notes.get("summary") or labels.get("instance") or ""
        told.append(excerpt(f"{labels['alertname']} ({about})" if about else labels["alertname"]))
    more = len(alerts) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)
