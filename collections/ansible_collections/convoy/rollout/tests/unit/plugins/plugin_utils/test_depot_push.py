# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is promoted here is brought elsewhere whole or not at all, whatever is there and whenever it is killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_push
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Author, Depot, Publication, Resolved, Trust
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import UnsafeDepotError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_place import RemoteDepotError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_push import (
    OtherReleaseError,
    Parcel,
    Pending,
    UnfitReleaseError,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_remote import RemoteDepot
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_states import NotPromotedError, RetiredReleaseError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_target import Target, in_order, target_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_upkeep import look_through
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import machine, started
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SigningError, SshSigner, SshVerifier
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import Builder

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AUTHOR = Author("anna", NOW, "why")
BILL = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "library", "name": "zlib"}]}'


@dataclass
class World:
    """A depot with 1.0.0 and 1.1.0, promoted, and 1.2.0, which is not; and a place of which ``url`` tells."""

    home: Path
    url: str

    @property
    def depot(self) -> Depot:
        return Depot(self.home / "depot")

    @property
    def place(self) -> Path:
        return self.home / "elsewhere"

    @property
    def trust(self) -> Trust:
        return Trust("staging", SshVerifier(self.home / "allowed_signers"))

    def target(self, started_at: int = 0) -> Target:
        run = Run(machine(), os.getpid(), started_at or started(os.getpid()) or 0, "anna")
        return target_of(self.url, {}, run, sleep=lambda seconds: None)

    def compared(self, only: tuple[str, str] | None = None) -> list[Pending]:
        return depot_push.compare(depot_push.gather(self.depot, self.trust, only), self.target())

    def push(self, only: tuple[str, str] | None = None) -> list[str]:
        """Push; what was brought."""
        brought = [one for one in self.compared(only) if not one.is_nothing]
        depot_push.check_artifacts(brought, self.depot)
        depot_push.bring(brought, self.depot, self.target())
        return [str(one.parcel) for one in brought]

    def blob(self, version: str) -> Path:
        item = self.depot.item("hello", version)
        assert item.manifest
        return self.depot.files.blob(item.manifest.artifact.sha256)

    def release(self, version: str) -> Path:
        return self.home / "depot" / "components" / "hello" / version

    def files_there(self) -> dict[str, bytes]:
        """All that is at the place, but for what is empty or only being brought."""
        filesystem, root = fsspec.core.url_to_fs(self.url)
        found = filesystem.find(root) if filesystem.exists(root) else []
        contents = {path[len(root.rstrip("/")) + 1 :]: filesystem.cat_file(path) for path in found}
        return {name: content for name, content in contents.items() if content}

    def write_there(self, path: str, content: bytes) -> None:
        filesystem, root = fsspec.core.url_to_fs(self.url)
        there = f"{root.rstrip('/')}/{path}"
        filesystem.makedirs(there.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(there, content)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("published")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(home / "key")], check=True)
    (home / "allowed_signers").write_text(f"alice {(home / 'key.pub').read_text()}")
    (home / "bom.json").write_bytes(BILL)
    builder = Builder.make(home)
    trust = Trust("staging", SshVerifier(home / "allowed_signers"))
    depot = Depot(home / "depot")
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        (home / "noise").write_bytes(random.Random(number).randbytes(30_000))
        archive = home / f"{version}.tar"
        with tarfile.open(archive, "w") as packed:
            packed.add(home / "noise", "noise")
        envelope = home / f"{version}.intoto.json"
        envelope.write_bytes(builder.envelope(hashlib.sha256(archive.read_bytes()).hexdigest()))
        publication = Publication("hello", version, archive, sbom=home / "bom.json", provenance=envelope)
        depot.publish(publication, SshSigner(home / "key"), NOW, trust, "anna")
        if version != "1.2.0":
            depot.promote("hello", version, trust, AUTHOR)
    return home


class Tree(LocalFileSystem):
    """A tree of which nothing is known but that it renames, as of FTP and SMB."""

    protocol = "tree"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("tree://")


@pytest.fixture(params=["file", "tree", "memory"])
def world(request: pytest.FixtureRequest, published: Path, tmp_path: Path) -> Iterator[World]:
    """A directory, another tree, and a store of objects."""
    shutil.copytree(published, tmp_path / "home")
    fsspec.register_implementation("tree", Tree, clobber=True)
    yield World(tmp_path / "home", f"{request.param}://{tmp_path}/home/elsewhere")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def local(published: Path, tmp_path: Path) -> World:
    shutil.copytree(published, tmp_path / "home")
    return World(tmp_path / "home", f"file://{tmp_path}/home/elsewhere")


def here(world: World, *versions: str) -> dict[str, bytes]:
    """What the place is to have of the versions."""
    root = world.depot.path
    paths = [path for one in versions for path in (world.blob(one), *world.release(one).rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def resolved_there(world: World, version: str) -> Resolved:
    """The release, as a deployment takes it from there."""
    if world.url.startswith("file"):
        return Depot(world.place).resolve("hello", version, world.trust, now=NOW, requires_promotion=True)
    remote = RemoteDepot(world.url, world.home / "cache")
    return remote.resolve("hello", version, world.trust, now=NOW, requires_promotion=True)


# what goes


def test_what_is_promoted_goes_with_all_that_proves_it(world: World) -> None:
    assert [one.size for one in world.compared()] == [
        sum(map(len, here(world, version).values())) for version in ("1.0.0", "1.1.0")
    ]
    assert world.files_there() == {}
    assert world.push() == ["hello 1.0.0", "hello 1.1.0"]
    assert world.files_there() == here(world, "1.0.0", "1.1.0")
    assert any("provenance/" in name for name in world.files_there())
    assert world.push() == []


def test_it_can_be_deployed_from_there(world: World) -> None:
    world.push()
    resolved = resolved_there(world, "1.1.0")
    assert resolved.artifact.read_bytes() == world.blob("1.1.0").read_bytes()


def test_a_directory_becomes_a_depot_that_can_be_verified(local: World) -> None:
    local.push()
    found = look_through(Depot(local.place), local.trust)
    assert (found.releases, found.faults, found.notes) == (2, [], [])
    assert local.place.stat().st_mode & 0o777 == 0o750


def test_one_release_can_go_alone(world: World) -> None:
    assert world.push(("hello", "1.1.0")) == ["hello 1.1.0"]
    assert world.files_there() == here(world, "1.1.0")


def test_what_is_not_promoted_stays_here(world: World) -> None:
    with pytest.raises(NotPromotedError, match=r"hello 1\.2\.0 is verified"):
        world.push(("hello", "1.2.0"))
    elsewhere = Trust("production", world.trust.verifier)
    assert depot_push.gather(world.depot, elsewhere) == []


def test_what_is_there_is_not_sent_again(world: World) -> None:
    content = world.blob("1.0.0").read_bytes()
    world.write_there(f"blobs/sha256/{world.blob('1.0.0').name}", content)
    if world.url.startswith("file"):
        subprocess.run(["chmod", "-R", "o=,g-w", str(world.place)], check=True)
    first, second = world.compared()
    assert (first.artifact, second.artifact is None) == (None, False)
    assert world.push() == ["hello 1.0.0", "hello 1.1.0"]
    assert world.files_there() == here(world, "1.0.0", "1.1.0")


def test_an_artifact_of_two_releases_goes_once(world: World) -> None:
    publication = Publication("hello", "1.3.0", world.home / "1.0.0.tar")
    world.depot.publish(publication, SshSigner(world.home / "key"), NOW, world.trust)
    world.depot.promote("hello", "1.3.0", world.trust, AUTHOR)
    first, _second, third = world.compared()
    assert (first.artifact is None, third.artifact) == (False, None)
    world.push()
    assert world.files_there() == here(world, "1.0.0", "1.1.0", "1.3.0")


def test_what_was_added_follows(world: World) -> None:
    """A signature, a promotion for another environment: what was pushed before learns of it."""
    world.push()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(world.home / "second")], check=True
    )
    publication = Publication("hello", "1.0.0", world.home / "1.0.0.tar")
    world.depot.publish(publication, SshSigner(world.home / "second"), NOW, world.trust)
    world.depot.promote("hello", "1.0.0", Trust("production", world.trust.verifier), AUTHOR)
    (changed,) = [one for one in world.compared() if not one.is_nothing]
    assert (changed.is_new, changed.artifact) == (False, None)
    assert [name.partition("/")[0] for name in in_order(changed.files)] == ["signatures", "states"]
    assert world.push() == ["hello 1.0.0"]
    assert world.files_there() == here(world, "1.0.0", "1.1.0")


def test_what_is_retired_here_is_retired_there(world: World) -> None:
    """Though its artifact was collected here, and its signer is not trusted any more; and only where it is."""
    world.push(("hello", "1.0.0"))
    world.blob("1.0.0").unlink()
    for version in ("1.0.0", "1.1.0"):
        world.depot.retire("hello", version, AUTHOR, "staging")
    assert world.push() == ["hello 1.0.0"]
    assert not any("1.1.0" in name for name in world.files_there())
    assert world.push() == []
    with pytest.raises(RetiredReleaseError):
        resolved_there(world, "1.0.0")


# what is not as it must be here


def change_artifact(world: World) -> None:
    content = bytearray(world.blob("1.1.0").read_bytes())
    content[10_000] ^= 1
    world.blob("1.1.0").write_bytes(content)


def change_manifest(world: World) -> None:
    path = world.release("1.1.0") / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"serial":2', b'"serial":9'))


def change_provenance(world: World) -> None:
    for path in (world.release("1.1.0") / "provenance").iterdir():
        path.write_text("{}")


def trust_nobody(world: World) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(world.home / "other")], check=True)
    (world.home / "allowed_signers").write_text(f"bob {(world.home / 'other.pub').read_text()}")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_artifact, r"nothing was pushed: the artifact of hello 1\.1\.0, .*/blobs/.* was changed"),
        (lambda world: world.blob("1.1.0").unlink(), r"the artifact of hello 1\.1\.0, .* is missing"),
        (lambda world: world.blob("1.1.0").write_bytes(b"x"), r"hello 1\.1\.0, .* has 1 bytes, signed were"),
        (change_manifest, r"hello 1\.1\.0: its record 1 \(verified\) is of a manifest"),
        (change_provenance, r"hello 1\.1\.0.*does not belong there"),
        (lambda world: (world.release("1.1.0") / "sbom.json").write_text("{}"), r"the SBOM of hello 1\.1\.0, .* was"),
        (lambda world: (world.release("1.1.0") / "manifest.json.sig").write_text("?"), r"hello 1\.1\.0: .*signature"),
        (trust_nobody, r"hello 1\.0\.0: .*SHA256:.*; and hello 1\.1\.0: "),
    ],
)  # fmt: skip
def test_what_is_not_as_it_must_be_keeps_all_from_being_pushed(
    world: World, spoil: Callable[[World], object], said: str
) -> None:
    spoil(world)
    with pytest.raises(UnfitReleaseError, match=said) as refused:
        world.push()
    assert refused.value.reason == "push-unfit"
    assert world.files_there() == {}


def test_somebody_has_to_be_trusted(world: World) -> None:
    with pytest.raises(SigningError, match="environment_allowed_signers is not set"):
        depot_push.gather(world.depot, Trust("staging"))


# what is there already


def test_another_manifest_there_is_not_replaced(world: World) -> None:
    world.push(("hello", "1.0.0"))
    mine = (world.release("1.0.0") / "manifest.json").read_bytes()
    other = mine.replace(b'"serial":1', b'"serial":7')
    world.write_there("components/hello/1.0.0/manifest.json", other)
    before = world.files_there()
    digests = [hashlib.sha256(content).hexdigest() for content in (other, mine)]
    said = rf"has another hello 1\.0\.0: its manifest has the SHA-256 {digests[0]}, and the one here {digests[1]}"
    with pytest.raises(OtherReleaseError, match=said) as refused:
        world.push()
    assert refused.value.reason == "push-other"
    assert world.files_there() == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("manifest.json.sig", r"another manifest\.json\.sig of hello 1\.0\.0: it has the SHA-256"),
        ("states/000001.json", r"another states/000001\.json of hello 1\.0\.0"),
        ("states/000003.json", r"has 3 records of hello 1\.0\.0, and here are 2: somebody recorded 000003\.json there"),
    ],
)
def test_what_else_was_written_there_is_not_replaced(world: World, path: str, said: str) -> None:
    world.push()
    world.write_there(f"components/hello/1.0.0/{path}", b"other")
    before = world.files_there()
    world.depot.promote("hello", "1.2.0", world.trust, AUTHOR)
    with pytest.raises(OtherReleaseError, match=said):
        world.push()
    assert world.files_there() == before


def test_an_artifact_that_is_damaged_there_comes_again(world: World) -> None:
    world.push()
    world.write_there(f"blobs/sha256/{world.blob('1.0.0').name}", b"half")
    first, _second = world.compared()
    assert (first.is_new, first.artifact is None, dict(first.files)) == (False, False, {})
    assert world.push() == ["hello 1.0.0"]
    assert world.files_there() == here(world, "1.0.0", "1.1.0")


def test_a_directory_tells_an_artifact_by_its_digest(local: World) -> None:
    local.push()
    there = local.place / "blobs" / "sha256" / local.blob("1.0.0").name
    there.write_bytes(b"x" * there.stat().st_size)
    assert local.push() == ["hello 1.0.0"]
    assert there.read_bytes() == local.blob("1.0.0").read_bytes()


# places


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://releases.example/depot", "can only be read, since over http nothing is written"),
        ("https://releases.example/depot", "can only be read, since over https nothing is written"),
        ("/srv/depot", "'/srv/depot' names no place to push to"),
        ("simplecache::sftp://releases.example/depot", "names no place to push to"),
        ("sftp://me:secret@releases.example/depot", "holds a password"),
    ],
)
def test_a_url_that_nothing_is_pushed_to(local: World, url: str, said: str) -> None:
    local.url = url
    with pytest.raises(RemoteDepotError, match=said) as refused:
        local.target()
    assert "secret" not in str(refused.value)


def test_a_scheme_that_nobody_knows(local: World) -> None:
    local.url = "nowhere://x/depot"
    with pytest.raises(RemoteDepotError, match="depot_url: fsspec cannot use nowhere://"):
        local.push()


class Shelf(fsspec.AbstractFileSystem):
    """A place with nothing in it, which tells that it takes nothing, or says that it did, as fsspec's base does."""

    protocol = "shelf"
    cachable = False

    def info(self, path: str, **more: Any) -> Any:
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        raise FileNotFoundError(path)

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        raise NotImplementedError


class Abyss(Shelf):
    protocol = "abyss"

    def put_file(self, lpath: str, rpath: str, *rest: Any, **more: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Shelf, "with shelf:// nothing is written"), (Abyss, r"abyss://x/depot/blobs/.* is not there .* it was written")],
)
def test_a_place_that_nothing_can_be_written_to(local: World, kind: type[Shelf], said: str) -> None:
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    local.url = f"{kind.protocol}://x/depot"
    with pytest.raises(RemoteDepotError, match=said):
        local.push()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_place_that_others_may_use_is_refused(local: World, mode: int) -> None:
    local.place.mkdir()
    local.place.chmod(mode)
    with pytest.raises(UnsafeDepotError, match=f"has mode {mode:04o}.*chmod 0750"):
        local.push()
    assert list(local.place.iterdir()) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_place_that_may_not_be_written(local: World) -> None:
    local.place.mkdir(mode=0o500)
    with pytest.raises(RemoteDepotError, match=r"cannot be written .*Permission denied"):
        local.push()


def test_a_place_below_a_file(local: World) -> None:
    local.place.write_text("x")
    with pytest.raises(RemoteDepotError, match=r"cannot be written \(attempt 1\).*run it again when that is mended"):
        local.push()
    assert local.place.read_text() == "x"


@pytest.mark.parametrize(("missing", "package"), [("fsspec", "fsspec"), ("paramiko", r"fsspec\[sftp\]")])
def test_without_the_library_the_package_is_named(
    local: World, missing: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "paramiko":
        local.url = "sftp://nobody@127.0.0.1/srv/depot"
    else:
        local.url = "abfs://container/depot"
    with pytest.raises(RemoteDepotError, match=f"pip install '{package}'"):
        local.push()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"password": "secret"}, "over SFTP a depot is reached with a key"),
        ({"host_key_policy": "auto_add"}, "only a server whose key is known is used"),
    ],
)
def test_sftp_with_less_care(local: World, options: dict[str, str], said: str) -> None:
    target = target_of("sftp://nobody@127.0.0.1/srv/depot", options, Run("far", 1, 1, "ann"))
    with pytest.raises(RemoteDepotError, match=f"depot_options.*{said}") as refused:
        target.check()
    assert "secret" not in str(refused.value)


# being killed


def killed_at(world: World, moment: int) -> bool:
    """Push in another process, which ends at this use of the file system of the place; whether it came that far."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        touches = event in ("os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir", "fcntl.flock")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (touches or writes) and not str(arguments[0]).startswith(str(world.home / "depot")):
            seen += 1
            if seen == moment:
                os._exit(9)

    sys.addaudithook(count)
    try:
        world.push()
        os._exit(0)
    finally:
        os._exit(1)


def test_whenever_it_is_killed_what_is_seen_is_whole(local: World) -> None:
    """And pushing again completes it, and leaves nothing else."""
    moment = 1
    while killed_at(local, moment):
        depot = Depot(local.place)
        if local.place.is_dir():
            for component in depot.files.components():
                for version in depot.files.versions(component):
                    assert depot.resolve(component, version, local.trust, now=NOW, requires_promotion=True)
            for name in depot.files.blobs():
                assert hashlib.sha256(depot.files.blob(name).read_bytes()).hexdigest() == name
        local.push()
        assert local.files_there() == here(local, "1.0.0", "1.1.0")
        assert look_through(depot, local.trust).faults == []
        shutil.rmtree(local.place)
        moment += 1
    assert moment > 30


def test_objects_come_in_an_order_that_nobody_is_misled_by(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has come when it is killed: a release that a reader takes is whole."""
    world = World(published, "memory:///ordered/depot")
    memory = fsspec.filesystem("memory")
    written: list[str] = []
    for method in ("put_file", "pipe_file"):
        real = getattr(type(memory), method)

        def noted(
            self: object, first: str, second: object, *rest: object, real: Callable[..., None] = real, **more: object
        ) -> None:
            written.append(first if str(first).startswith("/ordered") else str(second))
            real(self, first, second, *rest, **more)

        monkeypatch.setattr(type(memory), method, noted)
    world.push()
    memory.store.clear()
    kinds = [path.rpartition("/depot/")[2].replace("components/hello/", "") for path in written]
    assert [kind.partition("/")[0] for kind in kinds[:2]] == ["blobs", "blobs"]
    first = [kind for kind in kinds if kind.startswith("1.0.0/")]
    assert first[-3:] == ["1.0.0/manifest.json", "1.0.0/states/000001.json", "1.0.0/states/000002.json"]


def test_what_another_machine_is_pushing_is_left_alone(world: World) -> None:
    """As what is of a process here that runs; what is of one that is gone is removed."""
    if world.url.startswith("file"):
        pytest.skip("a directory has a lock, and what is below incoming/ is nobody's")
    world.push()
    mine = machine().replace("/", "%2F").replace("-", "%2D")
    kept = ["push-far%2Faway-1-1/x", f"push-{mine}-{os.getppid()}-{started(os.getppid())}/x", "stranger/x"]
    for name in [*kept, f"push-{mine}-{os.getpid()}-1/x"]:
        world.write_there(f"incoming/{name}", b"x")
    world.push()
    assert sorted(name for name in world.files_there() if name.startswith("incoming")) == sorted(
        f"incoming/{name}" for name in kept
    )


def test_files_come_in_their_order() -> None:
    names = ["states/000002.json", "manifest.json", "states/000001.json", "sbom.json", "manifest.json.sig"]
    assert in_order(dict.fromkeys(names, b"")) == [
        "manifest.json.sig", "sbom.json", "manifest.json", "states/000001.json", "states/000002.json",
    ]  # fmt: skip
    assert str(Parcel("hello", "1.0.0", {}, None)) == "hello 1.0.0"
