# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot: what gets in stays as it is, and nothing comes out unverified."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.plugin_utils import (
    depot,
    depot_states,
    depot_upkeep,
    manifest,
    provenance,
    signing,
    terms,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import UnsafeArtifactError
from ansible_collections.convoy.rollout.plugins.plugin_utils.attestation import ProvenanceVerifier
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    Author,
    Depot,
    Publication,
    Published,
    Resolved,
    Trust,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_attached import UnreadableAttachmentError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import State
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import ManifestError
from ansible_collections.convoy.rollout.plugins.plugin_utils.oci import NotAnImageError
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import Policy
from ansible_collections.convoy.rollout.plugins.plugin_utils.sbom import SbomError
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner, SshVerifier
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import BUILDER, POLICY_SOURCE, Builder
from ansible_collections.convoy.rollout.tests.unit.plugins.layouts import REF_NAME, Layout

NOW = datetime(2026, 6, 1, 12, 0, 0, 999_999, tzinfo=UTC)
LATER = datetime(2026, 6, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(home / name)], check=True)
    (home / "allowed_signers").write_text(f"alice {(home / 'release.pub').read_text()}")
    return home


@dataclass
class World:
    """A depot, a key that is trusted, and the artifacts to publish."""

    home: Path
    keys: Path

    @property
    def depot(self) -> Depot:
        return Depot(self.home / "depot")

    @property
    def signer(self) -> SshSigner:
        return SshSigner(self.keys / "release")

    @property
    def verifier(self) -> SshVerifier:
        return SshVerifier(self.keys / "allowed_signers")

    def artifact(self, name: str = "hello", **files: str) -> Path:
        path = self.home / f"{name}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for member, content in (files or {"app": name}).items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
        return path

    def publication(self, version: str = "1.0.0", component: str = "hello", **terms: Any) -> Publication:
        artifact = self.home / f"{component}-{version}.tar.gz"
        if not artifact.exists():
            self.artifact(f"{component}-{version}")
        return replace(Publication(component, version, artifact), **terms)

    def publish(self, version: str = "1.0.0", component: str = "hello", **terms: Any) -> Published:
        return self.depot.publish(self.publication(version, component, **terms), self.signer, NOW)

    def resolve(self, version: str = "1.0.0", **options: Any) -> Resolved:
        given: dict[str, Any] = {"environment": "staging", "required_signers": 1, "now": NOW, **options}
        trust = Trust(given.pop("environment"), self.verifier, given.pop("required_signers"))
        return self.depot.resolve("hello", version, trust, **given)

    @property
    def trust(self) -> Trust:
        return Trust("staging", self.verifier)

    @property
    def author(self) -> Author:
        return Author("anna@deploy1", NOW, "it ran well")

    def verified(self, version: str = "1.0.0", **terms: Any) -> Published:
        return self.depot.publish(self.publication(version, **terms), self.signer, NOW, self.trust, "anna@deploy1")

    def states(self, version: str = "1.0.0") -> list[State]:
        return [change.state for change in self.depot.standing("hello", version).changes]

    def visible(self) -> list[str]:
        components = self.home / "depot" / "components"
        return sorted(str(path.relative_to(components)) for path in components.glob("*/*"))


@pytest.fixture
def world(tmp_path: Path, keys: Path) -> World:
    return World(tmp_path, keys)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_what_was_published_is_resolved(world: World) -> None:
    published = world.publish(audience=("staging",), expires=LATER, signer="alice")
    resolved = world.resolve()
    assert published.changed
    assert resolved.manifest == published.manifest
    assert resolved.manifest.created == NOW.replace(microsecond=0)
    assert resolved.signer.principal == "alice"
    assert resolved.artifact.read_bytes() == world.publication().artifact.read_bytes()
    assert resolved.path.read_bytes() == resolved.manifest.to_json()


def test_serials_grow_by_component(world: World) -> None:
    serials = [
        world.publish(version, component).manifest.serial
        for component, version in [("hello", "2.0"), ("hello", "1.0"), ("other", "1.0"), ("hello", "3.0")]
    ]
    assert serials == [1, 2, 1, 3]
    assert world.depot.versions("hello") == ["2.0", "1.0", "3.0"]
    assert world.depot.versions("nothing") == []


def test_a_serial_is_not_given_out_twice_when_a_version_is_removed(world: World) -> None:
    world.publish("1.0")
    world.publish("2.0")
    shutil.rmtree(world.home / "depot" / "components" / "hello" / "2.0")
    assert world.publish("3.0").manifest.serial == 3


def test_a_lost_counter_is_made_up_from_the_manifests(world: World) -> None:
    world.publish("1.0")
    (world.home / "depot" / "serials" / "hello").unlink()
    assert world.publish("2.0").manifest.serial == 2


def test_a_damaged_counter_is_named(world: World) -> None:
    world.publish("1.0")
    (world.home / "depot" / "serials" / "hello").write_text("-1")
    with pytest.raises(depot.DepotError, match=r"serials/hello must hold .* not '-1'"):
        world.publish("2.0")


def test_publishers_at_the_same_time_get_serials_of_their_own(world: World) -> None:
    publications = [world.publication(f"1.{number}") for number in range(8)]
    threads = [
        threading.Thread(target=world.depot.publish, args=(publication, world.signer, NOW))
        for publication in publications
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    resolved = [world.resolve(publication.version).manifest.serial for publication in publications]
    assert sorted(resolved) == list(range(1, 9))


def test_two_versions_with_the_same_content_share_the_artifact(world: World) -> None:
    artifact = world.artifact()
    first = world.publish("1.0", artifact=artifact)
    second = world.publish("2.0", artifact=artifact)
    assert first.artifact == second.artifact
    assert world.resolve("1.0").artifact == world.resolve("2.0").artifact


# publishing again


def test_publishing_the_same_again_changes_nothing(world: World) -> None:
    world.publish()
    before = snapshot(world.home / "depot")
    again = world.depot.publish(world.publication(), world.signer, NOW + timedelta(days=1))
    assert not again.changed
    assert again.manifest.created == NOW.replace(microsecond=0)
    assert snapshot(world.home / "depot") == before


def test_other_content_under_the_same_version_is_refused(world: World) -> None:
    world.publish()
    before = snapshot(world.home / "depot")
    with pytest.raises(depot.VersionTakenError, match=r"hello 1\.0\.0 is in the depot already, with other content"):
        world.publish(artifact=world.artifact("other"))
    assert snapshot(world.home / "depot") == before


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        ({"audience": ("production",)}, r"another audience \(staging\)"),
        ({"expires": None}, r"another expiry \(2027-01-01T00:00:00Z\)"),
        ({"signer": "bob"}, r"another signer \(alice\)"),
    ],
)
def test_other_terms_under_the_same_version_are_refused(world: World, terms: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = {"audience": ("staging",), "expires": datetime(2027, 1, 1, tzinfo=UTC), "signer": "alice"}
    world.publish(**given)
    with pytest.raises(depot.VersionTakenError, match=complaint):
        world.publish(**{**given, **terms})


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["gone", "damaged"])
def test_publishing_again_puts_a_lost_artifact_back(world: World, damage: Callable[[Path], object]) -> None:
    published = world.publish()
    damage(published.artifact)
    assert world.publish().changed
    assert world.resolve().manifest == published.manifest
    assert not world.publish().changed


# check mode


def test_a_preview_says_what_would_be_and_changes_nothing(world: World) -> None:
    preview = world.depot.preview(world.publication(), NOW)
    assert preview.changed
    assert not (world.home / "depot").exists()
    assert world.publish().manifest == preview.manifest
    before = snapshot(world.home / "depot")
    assert not world.depot.preview(world.publication(), NOW).changed
    assert world.depot.preview(world.publication("2.0"), NOW).manifest.serial == 2
    assert snapshot(world.home / "depot") == before


def test_a_preview_refuses_what_publishing_would(world: World) -> None:
    world.publish()
    with pytest.raises(depot.VersionTakenError):
        world.depot.preview(world.publication(artifact=world.artifact("other")), NOW)
    with pytest.raises(UnsafeArtifactError):
        world.depot.preview(world.publication("2.0", artifact=world.artifact(**{"../evil": ""})), NOW)


# what may not get in


def test_a_hostile_archive_leaves_nothing(world: World) -> None:
    with pytest.raises(UnsafeArtifactError, match=r"'\.\./evil'"):
        world.publish(artifact=world.artifact(**{"../evil": "x"}))
    assert world.visible() == []
    assert [path for path in snapshot(world.home / "depot") if not path.endswith("/lock")] == []


@pytest.mark.parametrize(("component", "version"), [("../etc", "1"), ("hello", "../1"), ("hello", ".."), ("", "1")])
def test_a_name_that_is_a_path_is_refused(world: World, component: str, version: str) -> None:
    with pytest.raises(ManifestError):
        Publication(component, version, Path("a.tar.gz"))
    with pytest.raises(ManifestError):
        world.depot.resolve(component, version, world.trust, now=NOW)


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o751, 0o770, 0o1777])
def test_a_depot_that_is_open_to_others_is_refused(world: World, mode: int) -> None:
    world.publish()
    (world.home / "depot").chmod(mode)
    attempts = (world.publish, world.resolve, lambda: world.depot.preview(world.publication(), NOW))
    for attempt in attempts:
        with pytest.raises(depot.UnsafeDepotError, match=rf"mode {mode:04o}.*chmod 0750"):
            attempt()


def test_a_new_depot_is_private(world: World) -> None:
    umask = os.umask(0)
    try:
        world.publish()
    finally:
        os.umask(umask)
    paths = [world.home / "depot", *(world.home / "depot").rglob("*")]
    open_ones = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o027]
    assert open_ones == []


def test_a_depot_behind_a_link_is_used(world: World) -> None:
    (world.home / "elsewhere").mkdir(mode=0o750)
    (world.home / "depot").symlink_to(world.home / "elsewhere")
    world.publish()
    assert world.resolve().artifact.is_relative_to(world.home / "elsewhere")


def test_a_depot_that_is_a_file_is_named(world: World) -> None:
    (world.home / "depot").write_text("")
    with pytest.raises(depot.DepotError, match="depot cannot be used"):
        world.publish()


# publishing that is interrupted


class FailingSigner:
    def sign(self, content: bytes) -> bytes:
        raise signing.SigningError("no key")


def test_a_failure_to_sign_leaves_nothing(world: World) -> None:
    with pytest.raises(signing.SigningError):
        world.depot.publish(world.publication(), FailingSigner(), NOW)
    assert world.visible() == []
    assert list((world.home / "depot" / "incoming").iterdir()) == []


@pytest.mark.parametrize("call", ["write_file", "make_directory", "rename"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_kill_leaves_the_release_whole_or_invisible(
    world: World, call: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the nth of each kind of durable step, it is there or not; publishing again completes it."""
    world.publish("0.9")
    publication = world.publication()
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(durable, call, _killing(getattr(durable, call), nth))
            world.depot.publish(publication, world.signer, NOW)
        finally:
            os._exit(0)
    _pid, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or nth > 1
    assert world.visible() == (["hello/0.9"] if killed else ["hello/0.9", "hello/1.0.0"])
    assert world.publish().changed == killed
    assert world.resolve().manifest.serial > 1
    assert list((world.home / "depot" / "incoming").iterdir()) == []


def _killing(function: Callable[..., object], nth: int) -> Callable[..., object]:
    calls = iter(range(1, nth + 1))

    def call(*arguments: object) -> object:
        if next(calls, None) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    return call


# what may not get out


def test_what_is_not_there_is_answered_with_what_is(world: World) -> None:
    with pytest.raises(depot.DepotError, match=r"there is no depot at .*set depot_path"):
        world.resolve()
    world.publish("1.0.0")
    world.publish("1.1.0")
    with pytest.raises(depot.UnknownReleaseError, match=r"no hello 1\.1\.1.*has 1\.0\.0, 1\.1\.0, did you mean"):
        world.resolve("1.1.1")
    with pytest.raises(depot.UnknownReleaseError, match="no component 'helo'; it has hello, did you mean 'hello'"):
        world.depot.resolve("helo", "1.0.0", world.trust, now=NOW)


def release(world: World) -> Path:
    return world.home / "depot" / "components" / "hello" / "1.0.0"


def tamper_manifest(world: World, published: Published) -> None:
    path = release(world) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"serial":1', b'"serial":9'))


def tamper_signature(world: World, published: Published) -> None:
    (release(world) / "manifest.json.sig").write_bytes(b"trust me")


def sign_otherwise(world: World, published: Published) -> None:
    other = SshSigner(world.keys / "other").sign(published.manifest.to_json())
    (release(world) / "manifest.json.sig").write_bytes(other)


def sign_for_another_use(world: World, published: Published) -> None:
    other = SshSigner(world.keys / "release", namespace="git").sign(published.manifest.to_json())
    (release(world) / "manifest.json.sig").write_bytes(other)


def sign_other_form(world: World, published: Published) -> None:
    content = published.manifest.to_json() + b"\n"
    (release(world) / "manifest.json").write_bytes(content)
    (release(world) / "manifest.json.sig").write_bytes(world.signer.sign(content))


def move(world: World, published: Published) -> None:
    world.publish("2.0.0")
    shutil.rmtree(release(world))
    shutil.copytree(release(world).with_name("2.0.0"), release(world))


def remove_signature(world: World, published: Published) -> None:
    (release(world) / "manifest.json.sig").unlink()


def remove_artifact(world: World, published: Published) -> None:
    published.artifact.unlink()


def truncate_artifact(world: World, published: Published) -> None:
    os.truncate(published.artifact, published.manifest.artifact.size - 1)


def tamper_artifact(world: World, published: Published) -> None:
    content = bytearray(published.artifact.read_bytes())
    content[-1] ^= 1
    published.artifact.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "expected", "complaint"),
    [
        (tamper_manifest, signing.ContentTamperedError, "changed after it was signed"),
        (tamper_signature, signing.MalformedSignatureError, "no SSH signature"),
        (sign_otherwise, signing.UnknownSignerError, "is not in "),
        (sign_for_another_use, signing.WrongNamespaceError, "'git'"),
        (sign_other_form, ManifestError, "not in canonical form"),
        (move, terms.MisplacedManifestError, "there is of hello 2.0.0"),
        (remove_signature, depot.DamagedReleaseError, "manifest.json.sig"),
        (remove_artifact, depot.DamagedReleaseError, "is missing"),
        (truncate_artifact, depot.DamagedReleaseError, "signed were"),
        (tamper_artifact, depot.DamagedReleaseError, "was changed"),
    ],
)
def test_a_release_that_was_tampered_with_is_refused(
    world: World,
    fault: Callable[[World, Published], None],
    expected: type[ConvoyError],
    complaint: str,
) -> None:
    published = world.publish()
    world.resolve()
    fault(world, published)
    with pytest.raises(expected) as refused:
        world.resolve()
    assert refused.value.reason == expected.reason
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"environment": "production"}, terms.WrongAudienceError),
        ({"now": LATER}, terms.ReleaseExpiredError),
        ({"minimum_serial": 2}, terms.ReplayedSerialError),
    ],
)
def test_a_release_out_of_its_terms_is_refused(
    world: World, options: dict[str, Any], expected: type[ConvoyError]
) -> None:
    world.publish(audience=("staging",), expires=LATER)
    world.resolve()
    with pytest.raises(expected):
        world.resolve(**options)


def test_a_signer_under_another_name_is_refused(world: World) -> None:
    world.publish(signer="bob")
    with pytest.raises(terms.MisplacedManifestError, match="names 'bob' as its signer, but 'alice'"):
        world.resolve()


def test_a_damaged_neighbour_is_named_when_a_version_is_published(world: World) -> None:
    world.publish("1.0.0")
    (release(world) / "manifest.json").write_bytes(b"{}")
    with pytest.raises(depot.DamagedReleaseError, match=r"hello/1\.0\.0/manifest\.json: the manifest has no "):
        world.publish("2.0.0")


# states


def test_a_release_is_published_with_the_record_of_its_state(world: World) -> None:
    assert world.verified().changed
    (change,) = world.depot.standing("hello", "1.0.0").changes
    assert (change.state, change.environment, change.by) == (State.VERIFIED, "staging", "anna@deploy1")
    assert change.why.startswith("signed by alice (SHA256:")
    assert change.manifest == world.resolve().digest


def test_a_release_that_nobody_was_asked_about_is_in_quarantine(world: World) -> None:
    world.publish()
    assert world.states() == [State.QUARANTINED]
    with pytest.raises(depot_states.NotVerifiedError):
        world.depot.promote("hello", "1.0.0", world.trust, world.author)
    assert not world.publish().changed
    assert world.verified().changed
    assert not world.verified().changed
    assert world.states() == [State.QUARANTINED, State.VERIFIED]


def test_trust_that_cannot_be_read_leaves_a_release_in_quarantine(world: World) -> None:
    trust = Trust("staging", SshVerifier(world.home / "nowhere"))
    world.depot.publish(world.publication(), world.signer, NOW, trust)
    assert world.states() == [State.QUARANTINED]


def test_another_key_adds_its_signature(world: World) -> None:
    world.publish(signer="alice")
    other = SshSigner(world.keys / "other")
    preview = world.depot.preview(world.publication(), NOW, other.fingerprint())
    assert (preview.changed, preview.signed) == (True, True)
    again = world.depot.publish(world.publication(), other, NOW)
    assert (again.changed, again.signed) == (True, True)
    assert len(world.depot.item("hello", "1.0.0").fingerprints) == 2
    assert not world.depot.publish(world.publication(), other, NOW).changed
    assert not world.depot.preview(world.publication(), NOW, other.fingerprint()).changed
    assert [signer.principal for signer in world.resolve().signers] == ["alice"]


def test_a_promotion_is_for_one_environment(world: World) -> None:
    world.verified()
    with pytest.raises(depot_states.NotPromotedError):
        world.resolve(requires_promotion=True)
    assert world.depot.promote("hello", "1.0.0", world.trust, world.author, dry=True)
    assert world.depot.promote("hello", "1.0.0", world.trust, world.author)
    assert not world.depot.promote("hello", "1.0.0", world.trust, world.author)
    assert world.resolve(requires_promotion=True).standing.promoted == ("staging",)
    with pytest.raises(depot_states.NotPromotedError):
        world.resolve(requires_promotion=True, environment="production")
    assert world.states() == [State.VERIFIED, State.PROMOTED]


@pytest.mark.parametrize(
    ("terms_of_it", "now", "expected"),
    [
        ({"audience": ("production",)}, NOW, terms.WrongAudienceError),
        ({"expires": LATER}, LATER, terms.ReleaseExpiredError),
    ],
)
def test_what_is_not_to_be_deployed_is_not_promoted(
    world: World, terms_of_it: dict[str, Any], now: datetime, expected: type[ConvoyError]
) -> None:
    world.verified(**terms_of_it)
    with pytest.raises(expected):
        world.depot.promote("hello", "1.0.0", world.trust, Author("anna", now, ""))
    assert world.states() == [State.VERIFIED]


def test_a_promotion_checks_signature_and_digest_again(world: World) -> None:
    published = world.verified()
    tamper_artifact(world, published)
    with pytest.raises(depot.DamagedReleaseError):
        world.depot.promote("hello", "1.0.0", world.trust, world.author)
    none = world.home / "allowed_signers"
    none.write_text("")
    with pytest.raises(signing.UnknownSignerError):
        world.depot.promote("hello", "1.0.0", Trust("staging", SshVerifier(none)), world.author)


def test_a_retired_release_is_neither_deployed_nor_promoted_nor_published(world: World) -> None:
    world.verified()
    assert world.depot.retire("hello", "1.0.0", world.author, "staging")
    assert not world.depot.retire("hello", "1.0.0", world.author, "staging")
    attempts = (
        world.resolve,
        world.publish,
        lambda: world.depot.preview(world.publication(), NOW),
        lambda: world.depot.promote("hello", "1.0.0", world.trust, world.author),
    )
    for attempt in attempts:
        with pytest.raises(depot_states.RetiredReleaseError, match="it ran well"):
            attempt()


def test_a_release_from_before_states_were_kept_is_deployed_and_can_be_verified(world: World) -> None:
    world.publish()
    shutil.rmtree(release(world) / "states")
    assert world.resolve().standing.state is State.QUARANTINED
    assert world.depot.verify_quarantined("hello", "1.0.0", world.trust, world.author)
    assert world.states() == [State.VERIFIED]


def test_a_record_that_is_missing_is_named(world: World) -> None:
    world.verified()
    world.depot.promote("hello", "1.0.0", world.trust, world.author)
    (release(world) / "states" / "000001.json").unlink()
    with pytest.raises(depot_states.StateRecordError, match=r"000001\.json is missing"):
        world.resolve()


def test_a_record_is_not_taken_along_to_another_release(world: World) -> None:
    world.verified("1.0.0")
    world.verified("2.0.0")
    world.depot.promote("hello", "2.0.0", world.trust, world.author)
    shutil.rmtree(release(world) / "states")
    shutil.copytree(release(world).with_name("2.0.0") / "states", release(world) / "states")
    with pytest.raises(depot_states.StateRecordError, match="somebody exchanged one of them"):
        world.resolve(requires_promotion=True)


def test_an_environment_that_may_only_read_leaves_no_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish()
    world.depot.note("staging")
    assert world.depot.files.environments() == ["staging"]

    def fails(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(durable, "write_file", fails)
    world.depot.note("production")
    world.depot.note("staging")
    assert world.depot.files.environments() == ["staging"]


# what is kept with a release


BILL = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "library", "name": "zlib"}]}'


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder.make(tmp_path)


def demanding(world: World, builder: Builder, environment: str = "staging") -> Trust:
    """An environment that wants provenance of this builder."""
    policy = Policy((BUILDER,), (POLICY_SOURCE,))
    return Trust(environment, world.verifier, builders=ProvenanceVerifier((builder.public,), policy))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def with_bill(world: World, content: bytes = BILL) -> Publication:
    path = world.home / "hello.cdx.json"
    path.write_bytes(content)
    return world.publication(sbom=path)


def with_provenance(world: World, by: Builder, *subjects: str, **said: Any) -> Publication:
    """A publication with provenance; of its own artifact, if no other subject is given."""
    publication = world.publication()
    path = world.home / "hello.intoto.json"
    path.write_bytes(by.envelope(*(subjects or [sha256(publication.artifact)]), **said))
    return replace(publication, provenance=path)


def test_an_sbom_is_kept_and_bound_by_the_manifest(world: World) -> None:
    published = world.depot.publish(with_bill(world), world.signer, NOW, world.trust)
    assert published.manifest.sbom == manifest.Sbom(hashlib.sha256(BILL).hexdigest(), len(BILL), "cyclonedx-json")
    assert (release(world) / "sbom.json").read_bytes() == BILL
    assert world.depot.read_sbom(world.resolve().manifest) == BILL
    assert depot_upkeep.look_through(world.depot, world.trust).faults == []
    assert not world.depot.publish(with_bill(world), world.signer, NOW, world.trust).changed


def test_a_release_without_an_sbom_has_the_manifest_that_it_always_had(world: World) -> None:
    published = world.publish()
    assert b"sbom" not in published.path.read_bytes()
    assert world.depot.read_sbom(published.manifest) is None
    assert sorted(path.name for path in release(world).iterdir()) == ["manifest.json", "manifest.json.sig", "states"]


def test_a_signature_can_be_added_without_the_sbom_but_not_with_another(world: World) -> None:
    world.depot.publish(with_bill(world), world.signer, NOW)
    assert world.depot.publish(world.publication(), SshSigner(world.keys / "other"), NOW).signed
    for attempt in (world.depot.preview, lambda given, now: world.depot.publish(given, world.signer, now)):
        with pytest.raises(depot.VersionTakenError, match="with another SBOM"):
            attempt(with_bill(world, BILL.replace(b"zlib", b"xz")), NOW)


def test_an_sbom_cannot_be_added_to_what_was_signed_without(world: World) -> None:
    world.publish()
    with pytest.raises(depot.VersionTakenError, match=r"with another SBOM \(none\)"):
        world.depot.publish(with_bill(world), world.signer, NOW)


@pytest.mark.parametrize("content", [b"<bom/>", b"{}", b" " * (64 * 2**20) + BILL], ids=["xml", "other", "large"])
def test_what_is_no_sbom_gets_nowhere(world: World, content: bytes) -> None:
    for attempt in (world.depot.preview, lambda given, now: world.depot.publish(given, world.signer, now)):
        with pytest.raises(SbomError):
            attempt(with_bill(world, content), NOW)
    assert world.visible() == []


def test_what_cannot_be_read_is_named_with_its_variable(world: World) -> None:
    for variable in ("sbom", "provenance"):
        given = replace(world.publication(), **{variable: world.home / "away.json"})
        with pytest.raises(
            UnreadableAttachmentError, match=f"publish_{variable}: cannot read .*away.json: No such file"
        ):
            world.depot.publish(given, world.signer, NOW)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "is missing; publish it again"),
        (lambda path: path.write_bytes(BILL.replace(b"zlib", b"xzib")), "was changed: signed was the SHA-256"),
        (lambda path: path.write_bytes(BILL + b" "), "was changed"),
    ],
    ids=["gone", "changed", "longer"],
)
def test_an_sbom_that_is_not_the_one_signed_is_found(world: World, damage: Callable[[Path], object], said: str) -> None:
    world.depot.publish(with_bill(world), world.signer, NOW, world.trust)
    damage(release(world) / "sbom.json")
    (fault,) = depot_upkeep.look_through(world.depot, world.trust).faults
    assert said in fault
    with pytest.raises(depot.DamagedReleaseError, match="the SBOM of hello"):
        world.depot.promote("hello", "1.0.0", world.trust, world.author)
    assert world.depot.preview(with_bill(world), NOW).added == ("SBOM",)
    assert world.depot.publish(with_bill(world), world.signer, NOW, world.trust).added == ("SBOM",)
    assert depot_upkeep.look_through(world.depot, world.trust).faults == []


def test_provenance_is_kept_verified_and_recorded(world: World, builder: Builder) -> None:
    trust = demanding(world, builder)
    published = world.depot.publish(with_provenance(world, builder), world.signer, NOW, trust)
    assert published.standing is not None
    assert published.standing.state is State.VERIFIED
    assert f"; built by {BUILDER} (SHA256:" in published.standing.changes[0].why
    assert world.depot.promote("hello", "1.0.0", trust, world.author)
    resolved = world.depot.resolve("hello", "1.0.0", trust, now=NOW, requires_promotion=True)
    assert resolved.builder is not None
    assert resolved.builder.principal == BUILDER
    assert world.resolve().builder is None
    assert depot_upkeep.look_through(world.depot, trust).faults == []
    assert not world.depot.publish(with_provenance(world, builder), world.signer, NOW, trust).changed


def test_a_release_without_provenance_is_in_quarantine_until_it_has_some(world: World, builder: Builder) -> None:
    trust = demanding(world, builder)
    world.depot.publish(world.publication(), world.signer, NOW, trust)
    assert "hello 1.0.0 has no provenance" in world.depot.standing("hello", "1.0.0").changes[0].why
    with pytest.raises(provenance.MissingProvenanceError):
        world.depot.resolve("hello", "1.0.0", trust, now=NOW)
    given = with_provenance(world, builder)
    assert world.depot.preview(given, NOW).added == ("provenance",)
    assert world.depot.publish(given, world.signer, NOW, trust).added == ("provenance",)
    assert world.states() == [State.QUARANTINED, State.VERIFIED]
    assert not world.depot.publish(given, world.signer, NOW, trust).changed


def test_who_is_verified_in_one_environment_is_asked_again_in_another(world: World, builder: Builder) -> None:
    """Staging demands nothing, production does: promotion, deployment and upkeep there refuse it."""
    world.verified()
    production = demanding(world, builder, "production")
    with pytest.raises(provenance.MissingProvenanceError):
        world.depot.promote("hello", "1.0.0", production, world.author)
    with pytest.raises(provenance.MissingProvenanceError):
        world.depot.resolve("hello", "1.0.0", production, now=NOW)
    found = depot_upkeep.look_through(world.depot, production)
    assert (found.faults, len(found.notes)) == ([], 1)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"builder": "https://evil.example"}, provenance.WrongBuilderError),
        ({"sources": ["git+https://evil.example/hello"]}, provenance.WrongSourceError),
    ],
)
def test_provenance_that_is_not_accepted_here_leaves_the_release_in_quarantine(
    world: World, builder: Builder, said: dict[str, Any], expected: type[ConvoyError]
) -> None:
    trust = demanding(world, builder)
    world.depot.publish(with_provenance(world, builder, **said), world.signer, NOW, trust)
    assert world.states() == [State.QUARANTINED]
    with pytest.raises(expected):
        world.depot.resolve("hello", "1.0.0", trust, now=NOW)


def test_provenance_that_nobody_could_accept_gets_nowhere(world: World, builder: Builder) -> None:
    given = with_provenance(world, builder, "1e" * 32)
    for attempt in (world.depot.preview, lambda given, now: world.depot.publish(given, world.signer, now)):
        with pytest.raises(provenance.WrongSubjectError):
            attempt(given, NOW)
    assert world.visible() == []


def test_provenance_that_was_put_there_is_found(world: World, builder: Builder) -> None:
    world.depot.publish(with_provenance(world, builder), world.signer, NOW, world.trust)
    (kept,) = (release(world) / "provenance").iterdir()
    kept.write_bytes(b"{}")
    (fault,) = depot_upkeep.look_through(world.depot, world.trust).faults
    assert f"{kept} does not belong there: the provenance is no DSSE envelope" in fault
    assert world.resolve().manifest


def test_a_kill_leaves_what_is_kept_whole_or_invisible(
    world: World, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each durable write: no release without its SBOM is ever seen."""
    given = replace(with_provenance(world, builder), sbom=with_bill(world).sbom)
    for nth in range(1, 12):
        child = os.fork()
        if child == 0:
            try:
                monkeypatch.setattr(durable, "write_file", _killing(durable.write_file, nth))
                world.depot.publish(given, world.signer, NOW)
            finally:
                os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert world.visible() == ([] if killed else ["hello/1.0.0"])
        if not killed:
            break
    assert nth > 5
    assert depot_upkeep.look_through(world.depot, world.trust).faults == []
    assert world.depot.publish(given, world.signer, NOW).changed is False


def test_what_proves_a_release_is_exported(world: World, builder: Builder) -> None:
    given = replace(with_provenance(world, builder), sbom=with_bill(world).sbom)
    published = world.depot.publish(given, world.signer, NOW)
    world.depot.publish(given, SshSigner(world.keys / "other"), NOW)
    target = world.home / "audit" / "hello"
    assert len(world.depot.export(published.manifest, target, dry=True)) == 5
    assert not target.exists()
    written = world.depot.export(published.manifest, target, dry=False)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == written
    for name in written:
        assert (target / name).read_bytes() == (release(world) / name).read_bytes()
        assert stat.S_IMODE((target / name).stat().st_mode) == 0o600
    assert world.depot.export(published.manifest, target, dry=False) == []
    target.joinpath("sbom.json").unlink()
    assert world.depot.export(published.manifest, target, dry=False) == ["sbom.json"]
    (world.home / "file").touch()
    with pytest.raises(depot.DepotError, match=r"depot_export: .*file cannot be written"):
        world.depot.export(published.manifest, world.home / "file", dry=False)


# modes


@pytest.mark.parametrize(
    ("mode", "directories", "files"),
    [(0o750, 0o750, 0o640), (0o700, 0o700, 0o600), (0o2750, 0o2750, 0o640)],
)
def test_the_mode_of_the_depot_is_that_of_all_in_it(world: World, mode: int, directories: int, files: int) -> None:
    root = world.home / "depot"
    root.mkdir()
    root.chmod(mode)
    world.verified()
    world.depot.promote("hello", "1.0.0", world.trust, world.author)
    modes = {path.is_dir(): set[int]() for path in root.rglob("*")}
    for path in root.rglob("*"):
        modes[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {True: {directories}, False: {files}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory to a group that it is not in")
def test_all_in_a_depot_of_a_group_is_the_groups(world: World) -> None:
    root = world.home / "depot"
    root.mkdir()
    os.chown(root, -1, 4321)
    root.chmod(0o2750)
    world.verified()
    assert {path.stat().st_gid for path in root.rglob("*")} == {4321}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o750), (0o077, 0o700), (0o000, 0o750)])
def test_a_new_depot_heeds_the_umask(world: World, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        world.publish()
    finally:
        os.umask(before)
    assert stat.S_IMODE((world.home / "depot").stat().st_mode) == mode


@pytest.mark.parametrize("name", ["components", "blobs/sha256", "serials"])
def test_a_part_of_the_depot_that_others_may_write_is_refused(world: World, name: str) -> None:
    world.publish()
    (world.home / "depot" / name).chmod(0o770)
    for attempt in (world.publish, world.resolve):
        with pytest.raises(depot.UnsafeDepotError, match=rf"{name} has mode 0770.*chmod -R g-w,o= "):
            attempt()


# upkeep


def test_a_depot_in_which_all_is_well(world: World) -> None:
    world.verified("1.0.0")
    world.publish("2.0.0")
    found = depot_upkeep.look_through(world.depot, world.trust)
    assert (found.releases, found.faults, found.notes, found.trusted) == (2, [], [], [("hello", "2.0.0")])


def test_a_signature_that_another_environment_trusts_is_no_fault_here(world: World) -> None:
    world.verified()
    nobody = world.home / "allowed_signers"
    nobody.write_text("")
    there = depot_upkeep.look_through(world.depot, Trust("production", SshVerifier(nobody)))
    assert (there.faults, len(there.notes)) == ([], 1)
    here = depot_upkeep.look_through(world.depot, Trust("staging", SshVerifier(nobody)))
    assert (len(here.faults), here.notes) == (1, [])


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (tamper_manifest, "hello 1.0.0: "),
        (tamper_signature, "no SSH signature"),
        (remove_signature, "manifest.json.sig"),
        (remove_artifact, "is missing"),
        (truncate_artifact, "signed were"),
        (tamper_artifact, "was changed"),
        (move, "hello 1.0.0"),
    ],
)
def test_every_fault_is_found(world: World, fault: Callable[[World, Published], None], complaint: str) -> None:
    published = world.verified()
    fault(world, published)
    found = depot_upkeep.look_through(world.depot, world.trust)
    assert any(complaint in told for told in found.faults)


def test_two_releases_with_one_serial_are_found(world: World) -> None:
    world.verified("1.0.0")
    (world.home / "depot" / "serials" / "hello").unlink()
    elsewhere = release(world).rename(world.home / "1.0.0")
    world.verified("2.0.0")
    elsewhere.rename(release(world))
    found = depot_upkeep.look_through(world.depot, world.trust)
    assert found.faults == ["hello 1.0.0 and 2.0.0 have the same serial 1: one of them was not published here"]


def collected(world: World, held: dict[str, dict[str, set[str]]], dry: bool = False) -> list[str]:
    """The releases whose artifacts are removed."""
    found, _freed = depot_upkeep.collect(world.depot, held, world.author, dry)
    return [f"{item.component} {item.version}" for _path, items in found.artifacts for item in items]


def test_only_retired_releases_that_no_host_needs_are_collected(world: World) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        world.verified(version)
    for version in ("1.0.0", "2.0.0"):
        world.depot.retire("hello", version, world.author, "staging")
    held = {"staging": {"hello": {"2.0.0", "3.0.0"}, "other": {"1.0.0"}}}
    before = snapshot(world.home / "depot")
    assert collected(world, held, dry=True) == ["hello 1.0.0"]
    assert snapshot(world.home / "depot") == before
    assert collected(world, held) == ["hello 1.0.0"]
    assert collected(world, held) == []
    assert depot_upkeep.look_through(world.depot, world.trust).faults == []
    assert world.depot.standing("hello", "1.0.0").changes[-1].why == "its artifact was collected"
    assert [item.has_artifact for item in world.depot.items()] == [False, True, True]


def test_an_artifact_stays_as_long_as_any_release_has_it(world: World) -> None:
    artifact = world.artifact()
    world.verified("1.0.0", artifact=artifact)
    world.verified("2.0.0", artifact=artifact)
    world.depot.retire("hello", "1.0.0", world.author, "staging")
    assert collected(world, {"staging": {}}) == []
    world.depot.retire("hello", "2.0.0", world.author, "staging")
    assert collected(world, {"staging": {"hello": {"1.0.0"}}}) == []
    assert collected(world, {"staging": {}}) == ["hello 1.0.0", "hello 2.0.0"]


def test_what_was_interrupted_is_collected(world: World) -> None:
    world.verified()
    root = world.home / "depot"
    (root / "incoming" / "tmp1").mkdir()
    (root / "incoming" / "tmp1" / "artifact").write_bytes(b"12345")
    (root / "incoming" / "file").write_bytes(b"1")
    (root / "serials" / ".hello.0123456789ab.convoy-new").write_bytes(b"1")
    (root / "blobs" / "sha256" / ("0f" * 32)).write_bytes(b"123")
    found, freed = depot_upkeep.collect(world.depot, {"staging": {}}, world.author, dry=False)
    assert (len(found.left), freed) == (4, 10)
    assert depot_upkeep.look_through(world.depot, world.trust).faults == []


def test_nothing_is_collected_for_environments_that_nobody_told_of(world: World) -> None:
    world.verified("1.0.0")
    world.verified("2.0.0", audience=("test",))
    world.depot.note("production")
    world.depot.retire("hello", "1.0.0", world.author, "staging")
    with pytest.raises(depot_upkeep.UnknownUsersError, match="production, test too") as refused:
        collected(world, {"staging": {}})
    assert refused.value.reason == "depot-users"
    assert collected(world, {"staging": {}, "production": {"hello": {"1.0.0"}}, "test": {}}) == []


def test_nothing_is_collected_where_a_release_cannot_be_read(world: World) -> None:
    world.verified("1.0.0")
    world.verified("2.0.0")
    world.depot.retire("hello", "1.0.0", world.author, "staging")
    (release(world).with_name("2.0.0") / "manifest.json").write_bytes(b"{}")
    with pytest.raises(depot.DamagedReleaseError, match="Nothing is collected"):
        collected(world, {"staging": {}})
    assert len(list((world.home / "depot" / "blobs" / "sha256").iterdir())) == 2


# containers


def layout_of(world: World, name: str, *contents: bytes) -> tuple[Path, list[str]]:
    """A layout's directory with these images; the digests of their manifests."""
    layout = Layout(world.home / name)
    images = [layout.image({"server": content}, annotations={REF_NAME: str(n)}) for n, content in enumerate(contents)]
    layout.index(images)
    return layout.directory, [str(image["digest"]) for image in images]


def test_an_image_is_published_by_its_digest(world: World) -> None:
    directory, (digest,) = layout_of(world, "layout", b"x")
    assert world.depot.preview(world.publication(artifact=directory, is_image=True), NOW).manifest.image is not None
    assert not (world.home / "depot").exists()
    published = world.publish(artifact=directory, is_image=True)
    image = world.resolve().manifest.image
    assert image is not None
    assert (image.digest, image.architecture, published.manifest.artifact.format) == (digest, "amd64", "tar")
    assert not world.publish(artifact=directory, is_image=True).changed


def test_one_of_several_images_is_chosen_for_good(world: World) -> None:
    directory, (_first, second) = layout_of(world, "layout", b"x", b"y")
    with pytest.raises(NotAnImageError, match="the layout holds 2 images: choose one with publish_image"):
        world.publish(artifact=directory, is_image=True)
    assert not world.visible()
    published = world.publish(artifact=directory, is_image=True, image="1")
    assert published.manifest.image is not None
    assert published.manifest.image.digest == second
    with pytest.raises(depot.VersionTakenError, match=f"with another image \\({second}\\)"):
        world.publish(artifact=directory, is_image=True, image="0")


def test_what_is_no_image_is_not_published_as_one(world: World) -> None:
    with pytest.raises(NotAnImageError, match="this is no OCI layout: the artifact has no file oci-layout"):
        world.publish(is_image=True)
    assert not world.visible()
    directory, _digests = layout_of(world, "layout", b"x")
    with pytest.raises(UnsafeArtifactError, match="is no file: give the path of the archive to publish"):
        world.publish(artifact=directory)
