# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a foreign text: one line, short, no secret."""

from __future__ import annotations

import time

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.evidence import EXCERPT_LIMIT, excerpt, mask

SECRETS = [
    '{"db_password": "hunter2 and more", "a": 1}',
    "{'token': 'hunter2', 'a': 1}",
    "Authorization: Bearer hunter2",
    "authorization = Basic hunter2, and so on",
    "X-Api-Key: hunter2",
    "url postgres://app:hunter2@db/x",
    "http://h/x?access_token=hunter2&y=1",
    'secrets: ["hunter2", "hunter2"]',
    'credentials: {"user": "a", "word": "hunter2"}',
    '{"log": "{\\"password\\": \\"hunter2\\"}"}',
    'password="never closed hunter2',
    "Set-Cookie: session=hunter2",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2 cut off",
]


@pytest.mark.parametrize("text", SECRETS)
def test_values_of_secret_names_are_masked(text: str) -> None:
    assert "hunter2" not in mask(text)
    assert "***" in mask(text)


@pytest.mark.parametrize("text", ["the token expired", "500 from app1: no disk", '{"status": "passing", "n": 1}'])
def test_innocent_text_stays(text: str) -> None:
    assert mask(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    assert mask("http://h/x?token=abc&y=1") == "http://h/x?token=***&y=1"


def test_literals_are_masked_wherever_they_stand_but_not_when_they_are_too_short() -> None:
    assert mask("sent s3cr3t-value back", ["s3cr3t-value", "b"]) == "sent *** back"


def test_an_excerpt_is_one_short_printable_line() -> None:
    shown = excerpt("first\n\x1b[31msecond\x00 " + "x" * 1000)
    assert shown.startswith("first ?[31msecond? xxx")
    assert shown.endswith("...")
    assert len(shown) == EXCERPT_LIMIT


def test_a_secret_is_masked_before_the_text_is_cut() -> None:
    text = "x" * (EXCERPT_LIMIT - 20) + " password: abcdefghijklmnopqrstuvwxyz"
    assert "abc" not in excerpt(text)


@pytest.mark.parametrize("piece", ["token", 'token"', "://", "token: '\\'", "-----BEGIN PRIVATE KEY-----", "a-b.c_"])
def test_a_hostile_text_costs_no_time(piece: str) -> None:
    began = time.monotonic()
    excerpt(piece * 100000)
    assert time.monotonic() - began < 0.5
