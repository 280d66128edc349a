# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a good signature is good for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils import terms
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Artifact, Manifest
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import Identity

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ALICE = Identity("alice", "SHA256:abc")
MANIFEST = Manifest(
    component="hello",
    version="1.0.0",
    serial=5,
    created=NOW - timedelta(days=1),
    artifact=Artifact("0f" * 32, 1),
    files=(FileEntry("app", 1, 0o644, "0f" * 32),),
)


@pytest.mark.parametrize("signer", [None, "alice"])
def test_the_manifest_asked_for_passes(signer: str | None) -> None:
    terms.check_place(replace(MANIFEST, signer=signer), "hello", "1.0.0", [ALICE])


@pytest.mark.parametrize(
    ("component", "version", "signer", "complaint"),
    [
        ("other", "1.0.0", None, "asked for other 1.0.0, the signed manifest there is of hello 1.0.0"),
        ("hello", "1.0.1", None, "asked for hello 1.0.1, the signed manifest there is of hello 1.0.0"),
        ("hello", "1.0.0", "bob", "names 'bob' as its signer, but 'alice'"),
    ],
)
def test_another_manifest_is_refused(component: str, version: str, signer: str | None, complaint: str) -> None:
    with pytest.raises(terms.MisplacedManifestError) as refused:
        terms.check_place(replace(MANIFEST, signer=signer), component, version, [ALICE])
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "manifest",
    [
        MANIFEST,
        replace(MANIFEST, audience=("production", "staging")),
        replace(MANIFEST, expires=NOW + timedelta(seconds=1)),
    ],
)
@pytest.mark.parametrize("minimum_serial", [0, 4, 5])
def test_a_release_within_its_terms_passes(manifest: Manifest, minimum_serial: int) -> None:
    terms.check_terms(manifest, "staging", NOW, minimum_serial)


def test_an_environment_that_is_not_named_is_refused() -> None:
    with pytest.raises(terms.WrongAudienceError, match=r"hello 1\.0\.0 was published for staging, not for production"):
        terms.check_terms(replace(MANIFEST, audience=("staging",)), "production", NOW, 0)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=400)])
def test_an_expired_release_is_refused(late: timedelta) -> None:
    with pytest.raises(terms.ReleaseExpiredError, match="expired at "):
        terms.check_terms(replace(MANIFEST, expires=NOW - late), "staging", NOW, 0)


def test_a_replayed_serial_is_refused() -> None:
    with pytest.raises(terms.ReplayedSerialError, match="serial 5, but 6 was seen"):
        terms.check_terms(MANIFEST, "staging", NOW, 6)


def test_every_refusal_has_a_reason_of_its_own() -> None:
    kinds = (
        terms.MisplacedManifestError,
        terms.WrongAudienceError,
        terms.ReleaseExpiredError,
        terms.ReplayedSerialError,
    )
    assert len({kind.reason for kind in kinds}) == len(kinds)
