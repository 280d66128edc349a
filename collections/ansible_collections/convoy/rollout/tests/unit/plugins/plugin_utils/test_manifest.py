# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests: one form only, and nothing in it that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils import manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest, ManifestError

DIGEST = "0f" * 32
MANIFEST = Manifest(
    component="hello",
    version="1.0.0",
    serial=7,
    created=datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
    artifact=Artifact(DIGEST, 4450),
    files=(
        FileEntry("app/-rf süß.py", 12, 0o755, DIGEST),
        FileEntry("current", mode=0o777, link="app"),
    ),
    audience=("production", "staging"),
    expires=datetime(2030, 1, 1, tzinfo=UTC),
    signer="release@example.org",
)
VALUES: dict[str, Any] = json.loads(MANIFEST.to_json())
NAMES = st.text(st.characters(min_codepoint=32, exclude_characters="/\x7f", codec="utf-8"), max_size=40)


def canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def changed(path: str, value: object) -> bytes:
    """The manifest's JSON with another value in one place, in canonical form."""
    values = json.loads(json.dumps(VALUES))
    *parents, last = path.split("/")
    place = values
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[int(last) if isinstance(place, list) else last] = value
    return canonical(values)


def test_the_signed_bytes_are_canonical() -> None:
    assert MANIFEST.to_json().decode() == (
        '{"artifact":{"format":"tar.gz","sha256":"' + DIGEST + '","size":4450},'
        '"audience":["production","staging"],"component":"hello","created":"2026-01-31T09:30:00Z",'
        '"expires":"2030-01-01T00:00:00Z","files":['
        '{"mode":"0755","path":"app/-rf süß.py","sha256":"' + DIGEST + '","size":12},'
        '{"link":"app","path":"current"}],'
        '"schema":1,"serial":7,"signer":"release@example.org","version":"1.0.0"}'
    )


def test_what_was_not_said_is_left_out() -> None:
    plain = replace(MANIFEST, audience=(), expires=None, signer=None)
    assert VALUES.keys() - json.loads(plain.to_json()).keys() == {"audience", "expires", "signer"}
    assert manifest.from_json(plain.to_json()) == plain


@given(
    version=st.text("0123456789abcXYZ._+-", max_size=100),
    serial=st.integers(1, 2**62),
    created=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    names=st.sets(NAMES, min_size=1),
)
def test_reading_gives_back_what_was_written(version: str, serial: int, created: datetime, names: set[str]) -> None:
    paths = sorted(f"a/{name}~" for name in names)
    files = tuple(FileEntry(path, 1, 0o644, DIGEST) for path in paths)
    made = replace(MANIFEST, version=f"1{version}", serial=serial, created=created.replace(microsecond=0), files=files)
    assert manifest.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(VALUES).encode(), id="blanks"),
        pytest.param(MANIFEST.to_json() + b"\n", id="newline"),
        pytest.param(MANIFEST.to_json().replace(b'"serial":7,', b'"serial":9,"serial":7,'), id="key twice"),
        pytest.param(MANIFEST.to_json().replace("ü".encode(), rb"\u00fc"), id="escape"),
        pytest.param(MANIFEST.to_json().replace(b'"0755"', b"493"), id="mode as number"),
        pytest.param(MANIFEST.to_json().replace(b'"0755"', b'"4755"'), id="mode with setuid"),
    ],
)  # fmt: skip
def test_another_form_of_the_same_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError, match="not in canonical form"):
        manifest.from_json(content)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("schema", 2, "schema 2 is unknown: this Convoy reads 1"),
        ("component", "../etc", "component '../etc' is not a name"),
        ("component", 5, "component is 5, which is no str"),
        ("version", "1/0", "version '1/0' cannot be used"),
        ("version", "-1", "version '-1' cannot be used"),
        ("version", "1" * 116, "1 to 115 letters"),
        ("version", 1.1, "version is 1.1, which is no str"),
        ("serial", 0, "serial 0 is not a number from 1 on"),
        ("serial", True, "serial is True, which is no int"),
        ("created", "yesterday", "created 'yesterday' is no time"),
        ("expires", "2030-01-01", "expires '2030-01-01' is no time"),
        ("audience", ["staging", "production"], "must be sorted"),
        ("audience", ["a b"], "audience 'a b' is no environment's name"),
        ("audience", "staging", "audience is 'staging', which is no list"),
        ("artifact/sha256", "0F" * 32, "has no digest and size"),
        ("artifact/size", -1, "has no digest and size"),
        ("artifact/format", "rar", "artifact format 'rar' is unknown: use tar, tar.gz"),
        ("artifact/url", "https://x", "artifact has an unknown key 'url'"),
        ("files", [], "files must be one or more"),
        ("files/0/path", "../etc/passwd", "'../etc/passwd'"),
        ("files/0/path", "/etc/passwd", "absolute"),
        ("files/0/path", "zzz", "sorted by path"),
        ("files/1/path", "app/-rf süß.py", "each path once"),
        ("files/0/size", -1, "size -1"),
        ("files/0/sha256", "x", "sha256 'x'"),
        ("files/1/link", "/etc", "'current' is a symbolic link to '/etc'"),
        ("files/1/link", "../app", "leads out of the release"),
        ("files/0", "app", "files is 'app', which is no dict"),
        ("signer", 1, "signer is 1, which is no str"),
        ("singer", "x", "unknown key 'singer', did you mean 'signer'?"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_value(path: str, value: object, complaint: str) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest.from_json(changed(path, value))
    assert complaint in str(refused.value)


@pytest.mark.parametrize("key", sorted(VALUES.keys() - {"audience", "expires", "signer"}))
def test_what_is_missing_is_named(key: str) -> None:
    rest = {name: value for name, value in VALUES.items() if name != key}
    with pytest.raises(ManifestError, match=f"the manifest has no '{key}'"):
        manifest.from_json(json.dumps(rest).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError):
        manifest.from_json(content)


def test_text_that_is_no_text_is_refused() -> None:
    with pytest.raises(ManifestError, match="no valid UTF-8"):
        replace(MANIFEST, signer="a\ud800").to_json()


def test_a_host_gets_the_artifact_and_the_files() -> None:
    assert MANIFEST.for_host() == {"artifact": VALUES["artifact"], "files": VALUES["files"]}
