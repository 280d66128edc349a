# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A depot that is elsewhere is read as one that is here, over real HTTP, whatever the connection does."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import (
    depot,
    depot_place,
    depot_remote,
    depot_states,
    signing,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.attestation import ProvenanceVerifier
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import (
    Author,
    Depot,
    Publication,
    ReadOnlyDepotError,
    Resolved,
    Trust,
    require_directory,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_remote import RemoteDepot, RemoteDepotError
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError
from ansible_collections.convoy.rollout.plugins.plugin_utils.provenance import MissingProvenanceError, Policy
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshSigner, SshVerifier
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import BUILDER, POLICY_SOURCE, Builder
from ansible_collections.convoy.rollout.tests.unit.plugins.web_depot import Faults, serving

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AUTHOR = Author("anna", NOW, "why")


@dataclass
class World:
    """A depot of one release behind a web server, and who reads it. ``slept``: seconds, between attempts."""

    home: Path
    url: str
    faults: Faults
    slept: list[float] = field(default_factory=list)

    @property
    def depot(self) -> Depot:
        return Depot(self.home / "depot")

    @property
    def release(self) -> Path:
        return self.home / "depot" / "components" / "hello" / "1.0.0"

    @property
    def blob(self) -> Path:
        (path,) = (self.home / "depot" / "blobs" / "sha256").iterdir()
        return path

    @property
    def trust(self) -> Trust:
        return Trust("staging", SshVerifier(self.home / "allowed_signers"))

    @property
    def remote(self) -> RemoteDepot:
        return RemoteDepot(self.url, self.home / "cache", sleep=self.slept.append)

    def resolve(self, version: str = "1.0.0", trust: Trust | None = None, **options: Any) -> Resolved:
        return self.remote.resolve("hello", version, trust or self.trust, now=NOW, **options)

    def cached(self) -> list[str]:
        """The artifacts that were brought, whole or in part."""
        found = (self.home / "cache").glob("*/blobs/sha256/*"), (self.home / "cache").glob("*/incoming/*")
        return sorted(path.name for paths in found for path in paths)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A depot with one release of 300 kB that staging has verified."""
    home = tmp_path_factory.mktemp("published")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(home / "key")], check=True)
    (home / "allowed_signers").write_text(f"alice {(home / 'key.pub').read_text()}")
    (home / "noise").write_bytes(random.Random(1).randbytes(300_000))
    with tarfile.open(home / "hello.tar", "w") as archive:
        archive.add(home / "noise", "noise")
    trust = Trust("staging", SshVerifier(home / "allowed_signers"))
    publication = Publication("hello", "1.0.0", home / "hello.tar")
    Depot(home / "depot").publish(publication, SshSigner(home / "key"), NOW, trust, "anna")
    return home


@pytest.fixture
def world(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    shutil.copytree(published, tmp_path / "home")
    monkeypatch.setattr(depot_remote, "CHUNK", 50_000)
    faults = Faults()
    with serving(tmp_path / "home" / "depot", faults) as url:
        yield World(tmp_path / "home", url, faults)


def test_what_is_resolved_is_what_is_there(world: World) -> None:
    here, there = world.depot.resolve("hello", "1.0.0", world.trust, now=NOW), world.resolve()
    assert (there.manifest, there.signers, there.digest, there.standing) == (
        here.manifest, here.signers, here.digest, here.standing,
    )  # fmt: skip
    assert there.artifact.read_bytes() == here.artifact.read_bytes()
    assert there.path.read_bytes() == here.path.read_bytes()
    assert world.slept == []


def test_an_artifact_comes_once(world: World) -> None:
    world.resolve()
    asked = len(world.faults.asked)
    assert asked > 1
    world.resolve()
    assert len(world.faults.asked) == asked


def test_an_artifact_that_was_damaged_here_comes_again(world: World) -> None:
    artifact = world.resolve().artifact
    artifact.write_bytes(b"x")
    assert world.resolve().artifact.read_bytes() == world.blob.read_bytes()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(world: World) -> None:
    world.faults.cuts = 3
    assert world.resolve().artifact.read_bytes() == world.blob.read_bytes()
    assert world.slept == [1.0, 2.0, 4.0]
    assert sorted(set(world.faults.asked)) == list(range(0, world.blob.stat().st_size, 50_000))


def test_a_run_that_gave_up_is_taken_up_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies for good after three chunks: what came is kept, and not asked for again."""
    monkeypatch.setattr(depot_place, "ATTEMPTS", 1)
    world.faults.die_after = 3
    with pytest.raises(RemoteDepotError, match="What came so far is kept: run it again"):
        world.resolve()
    assert world.faults.asked[:3] == [0, 50_000, 100_000]
    world.faults.die_after = None
    world.faults.asked.clear()
    assert world.resolve().artifact.read_bytes() == world.blob.read_bytes()
    assert world.faults.asked[0] == 150_000


def test_a_server_without_ranges_will_do(world: World) -> None:
    world.faults.ranges = False
    assert world.resolve().artifact.read_bytes() == world.blob.read_bytes()


def test_a_server_that_is_busy_is_asked_again(world: World) -> None:
    world.faults.errors = 3
    assert world.resolve()
    assert world.slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(("status", "attempts"), [(503, 5), (429, 5), (403, 1), (401, 1)])
def test_a_server_that_refuses_is_named(world: World, status: int, attempts: int) -> None:
    world.faults.errors, world.faults.status = 10**6, status
    with pytest.raises(RemoteDepotError, match=rf"cannot be read \(attempt {attempts}\): {status}") as refused:
        world.resolve()
    assert (len(world.slept), refused.value.reason) == (attempts - 1, "depot-remote")


def test_a_server_that_is_away_is_named(world: World) -> None:
    away = RemoteDepot("http://127.0.0.1:9", world.home / "cache", sleep=world.slept.append)
    with pytest.raises(RemoteDepotError, match=r"the depot http://127\.0\.0\.1:9 cannot be read \(attempt 5\)"):
        away.resolve("hello", "1.0.0", world.trust, now=NOW)


def test_what_is_not_there_is_answered_with_what_is(world: World) -> None:
    with pytest.raises(
        depot.UnknownReleaseError, match=r"has no hello 1\.0\.1: .*it has 1\.0\.0, did you mean '1\.0\.0'"
    ):
        world.resolve("1.0.1")


# what may not get out


def change_manifest(world: World) -> None:
    path = world.release / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"serial":1', b'"serial":9'))


def change_artifact(world: World) -> None:
    content = bytearray(world.blob.read_bytes())
    content[200_000] ^= 1
    world.blob.write_bytes(content)


def shorten_artifact(world: World) -> None:
    world.blob.write_bytes(world.blob.read_bytes()[:-1])


def exchange_signature(world: World) -> None:
    (world.release / FIRST).write_text("trust me")


FIRST = "manifest.json.sig"


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        (change_manifest, signing.ContentTamperedError, "changed after it was signed"),
        (exchange_signature, signing.MalformedSignatureError, "no SSH signature"),
        (lambda world: (world.release / FIRST).unlink(), depot.DamagedReleaseError, "is not whole at"),
        (lambda world: world.blob.unlink(), depot.DamagedReleaseError, "copy blobs before components"),
        (change_artifact, depot.DamagedReleaseError, "is not the one of its name"),
        (shorten_artifact, RemoteDepotError, "is it what was published"),
        (lambda world: setattr(world.faults, "listing", False), RemoteDepotError, "autoindex on"),
    ],
)
def test_what_is_not_as_it_was_published_is_refused(
    world: World, fault: Callable[[World], object], expected: type[ConvoyError], said: str
) -> None:
    fault(world)
    with pytest.raises(expected, match=said):
        world.resolve()


def test_nothing_is_fetched_for_a_manifest_that_nobody_signed(world: World) -> None:
    change_manifest(world)
    with pytest.raises(signing.ContentTamperedError):
        world.resolve()
    assert world.faults.asked == []


def test_what_was_cached_is_no_excuse(world: World) -> None:
    """Retired, promoted, signed: what is there now counts, not what was there before."""
    world.resolve()
    with pytest.raises(depot_states.NotPromotedError):
        world.resolve(requires_promotion=True)
    world.depot.promote("hello", "1.0.0", world.trust, AUTHOR)
    assert world.resolve(requires_promotion=True).standing.promoted == ("staging",)
    shutil.copytree(world.release / "states", world.home / "before")
    world.depot.retire("hello", "1.0.0", AUTHOR, "staging")
    with pytest.raises(depot_states.RetiredReleaseError):
        world.resolve()
    shutil.rmtree(world.release / "states")
    shutil.copytree(world.home / "before", world.release / "states")
    assert world.resolve(requires_promotion=True)


def test_a_part_that_is_bad_is_thrown_away(world: World) -> None:
    """What an attempt left that is not of this artifact costs a second attempt, and nothing else."""
    world.resolve()
    (cached,) = (world.home / "cache").glob("*/blobs/sha256/*")
    cached.unlink()
    (cached.parents[2] / "incoming" / f"{cached.name}.part").write_bytes(b"x" * 70_000)
    assert hashlib.sha256(world.resolve().artifact.read_bytes()).hexdigest() == cached.name
    assert world.cached() == [cached.name]


def test_provenance_comes_along(world: World, tmp_path: Path) -> None:
    builder = Builder.make(tmp_path)
    policy = Policy((BUILDER,), (POLICY_SOURCE,))
    trust = Trust("staging", world.trust.verifier, builders=ProvenanceVerifier((builder.public,), policy))
    with pytest.raises(MissingProvenanceError):
        world.resolve(trust=trust)
    envelope = tmp_path / "hello.intoto.json"
    envelope.write_bytes(builder.envelope(world.blob.name))
    publication = Publication("hello", "1.0.0", world.home / "hello.tar", provenance=envelope)
    world.depot.publish(publication, SshSigner(world.home / "key"), NOW, trust)
    resolved = world.resolve(trust=trust)
    assert resolved.builder is not None
    assert resolved.builder.principal == BUILDER


def test_names_that_a_server_makes_up_are_no_paths(world: World) -> None:
    for name in ("000002.json.bak", "..%2f..%2fevil", "x.json"):
        (world.release / "states" / name).write_text("{}")
    assert world.resolve().manifest
    assert len(list((world.home / "cache").glob("*/components/hello/1.0.0/states/*"))) == 1


# what it is told


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/srv/depot", "names no place elsewhere"),
        ("file:///srv/depot", "names no place elsewhere"),
        ("https://me:secret@releases.example/depot", "holds a password"),
    ],
)
def test_a_url_that_is_none(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(RemoteDepotError, match=said) as refused:
        RemoteDepot(url, tmp_path)
    assert "secret" not in str(refused.value)


def test_a_scheme_that_nobody_knows(tmp_path: Path, world: World) -> None:
    with pytest.raises(RemoteDepotError, match="depot_url: fsspec cannot use nowhere://"):
        RemoteDepot("nowhere://x/depot", tmp_path).resolve("hello", "1.0.0", world.trust, now=NOW)


def test_promotions_are_not_believed_over_plain_http(tmp_path: Path, world: World) -> None:
    plain = RemoteDepot("http://releases.example/depot", tmp_path)
    with pytest.raises(RemoteDepotError, match=r"could make up a promotion.*use https"):
        plain.resolve("hello", "1.0.0", world.trust, now=NOW, requires_promotion=True)


@pytest.mark.parametrize(("missing", "package"), [("fsspec", r"fsspec\[http\]"), ("aiohttp", r"fsspec\[http\]")])
def test_without_the_library_the_package_is_named(
    world: World, missing: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RemoteDepotError, match=f"pip install '{package}'"):
        world.resolve()


def test_what_sees_to_a_depot_needs_its_directory() -> None:
    with pytest.raises(ReadOnlyDepotError, match="depot_url is set, and only deployments read from there") as refused:
        require_directory({"depot": "/srv/depot", "depot_url": "https://releases.example"})
    assert refused.value.reason == "depot-read-only"
    with pytest.raises(SpecError, match="depot_path is not set"):
        require_directory({"depot_url": ""})
    require_directory({"depot": "/srv/depot"})


def test_a_directory_costs_nothing_more() -> None:
    code = (
        "import sys; import ansible_collections.convoy.rollout.plugins.action.rollout; "
        "print([name for name in sys.modules if name.startswith(('fsspec', 'aiohttp')) or 'depot_remote' in name])"
    )
    root = Path(depot.__file__).parents[5]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
