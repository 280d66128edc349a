# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetching what sources want: many pages at a time, each within a time limit, no redirects followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError

from ansible.module_utils.urls import open_url

from ansible_collections.convoy.rollout.plugins.module_utils.evidence import excerpt
from ansible_collections.convoy.rollout.plugins.plugin_utils.analysis.sources import Answer, Answers, Request

AT_ONCE = 16
MOST_BYTES = 32_000_000
CHUNK = 65536


def fetcher(timeout: float, ca_path: str | None = None) -> Callable[[Sequence[Request]], Answers]:
    """What fetches requests; none takes longer than ``timeout`` seconds, or fails otherwise than in its answer."""

    def fetch(requests: Sequence[Request]) -> Answers:
        different = list(dict.fromkeys(requests))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(different, pool.map(partial(_fetch, timeout, ca_path), different), strict=True))

    return fetch


def _fetch(timeout: float, ca_path: str | None, request: Request) -> Answer:
    ends = time.monotonic() + timeout
    try:
        response = open_url(
            request.url,
            headers=dict(request.headers),
            timeout=timeout,
            follow_redirects="none",
            ca_path=ca_path,
            http_agent="convoy",
        )
        with response:
            return _read(response, ends, timeout)
    except HTTPError as error:
        return _refused(error)
    except TimeoutError:
        return Answer(error=f"gave no answer within {timeout:g} s")
    except URLError as error:
        return Answer(error=f"cannot be reached: {excerpt(str(error.reason))}")
    except (OSError, HTTPException, ValueError) as error:
        return Answer(error=f"cannot be read: {excerpt(str(error) or type(error).__name__)}")


def _read(response: Any, ends: float, timeout: float) -> Answer:
    """The body, unless it is endless or comes too slowly."""
    body = b""
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > MOST_BYTES:
            return Answer(error=f"answered more than {MOST_BYTES} bytes")
        if time.monotonic() > ends:
            return Answer(error=f"gave no whole answer within {timeout:g} s")
    return Answer(body.decode("utf-8", "replace"))


def _refused(error: HTTPError) -> Answer:
    """Prometheus tells what is wrong with a query in the body of a 4xx: that is an answer to be read."""
    if 300 <= error.code < 400:
        return Answer(error=f"answered {error.code}, but redirects are not followed")
    body = error.read(CHUNK).decode("utf-8", "replace")
    if error.code in (400, 422, 503) and body.startswith('{"status":"error"'):
        return Answer(body)
    return Answer(error=f"answered {error.code}: {excerpt(body)}" if body.strip() else f"answered {error.code}")
