# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The depot: what gets in stays as it is, and nothing comes out unverified."""

from __future__ import annotations

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
from ansible_collections.convoy.rollout.plugins.plugin_utils import depot, signing, terms
from ansible_collections.convoy.rollout.plugins.plugin_utils.archive import UnsafeArtifactError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Depot, Publication, Published, Resolved
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import ManifestError
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner, SshVerifier

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
        given: dict[str, Any] = {"environment": "staging", "now": NOW, **options}
        return self.depot.resolve("hello", version, self.verifier, **given)

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
    first = world.publish("1.0", artifact=world.artifact())
    second = world.publish("2.0", artifact=world.artifact())
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
        world.depot.resolve(component, version, world.verifier, environment="staging", now=NOW)


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
        world.depot.resolve("helo", "1.0.0", world.verifier, environment="staging", now=NOW)


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
