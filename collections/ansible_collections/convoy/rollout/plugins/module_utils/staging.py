# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a release beside the running one: verified, whole and durable before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from ansible_collections.convoy.rollout.plugins.module_utils import durable, names
from ansible_collections.convoy.rollout.plugins.module_utils import record as records
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    ArchiveError,
    InputError,
    NotIntactError,
    SpaceError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.member import Limits
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry, Record, Unit
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import (
    Artifact,
    Delta,
    check_format,
    directories_of,
)

if TYPE_CHECKING:
    from typing import Any, Iterator, Mapping, Sequence

    from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
    from ansible_collections.convoy.rollout.plugins.module_utils.reuse import Base

# While an artifact is unpacked, it and the rest of the host go on needing room.
_RESERVE = 2
# What a file takes of a disk is a multiple of this, nearly everywhere.
_BLOCK = 4096


class ConfigFile(NamedTuple):
    """A rendered file of a release; it takes the place of one that the artifact has there."""

    path: str
    content: bytes
    mode: int

    @property
    def entry(self) -> FileEntry:
        """As the record names it."""
        digest = hashlib.sha256(self.content).hexdigest()
        return FileEntry(self.path, len(self.content), self.mode, digest)


class Wanted(NamedTuple):
    """The release that is to be staged, as the controller describes it."""

    release: str
    version: str
    artifact: Artifact
    files: tuple[FileEntry, ...]
    config: tuple[ConfigFile, ...] = ()
    units: tuple[Unit, ...] = ()
    probes: tuple[Mapping[str, Any], ...] = ()
    gate: Mapping[str, Any] | None = None
    image: Image | None = None
    by_tasks: bool = False

    def record(self, staged_at: float) -> Record:
        """The record that a host keeps of it."""
        files = {entry.path: entry for entry in self.files}
        files.update((item.path, item.entry) for item in self.config)
        return Record(
            release=self.release,
            version=self.version,
            artifact=self.artifact._asdict(),
            files=tuple(files[path] for path in sorted(files)),
            units=self.units,
            probes=self.probes,
            gate=self.gate,
            staged_at=staged_at,
            image=self.image._asdict() if self.image is not None else None,
            by_tasks=self.by_tasks,
        )


def config_file(fields: Mapping[str, Any]) -> ConfigFile:
    """A rendered file as the module takes it. InputError names it and what is wrong."""
    path = str(fields["dest"])
    fault = names.path_fault(path)
    if fault:
        raise InputError(f"config file {path!r}: {fault}; dest is a path inside the release, such as etc/hello.ini")
    mode = records.octal(fields.get("mode") or "0644", path)
    return ConfigFile(path, str(fields["content"]).encode("utf-8"), records.plain_mode(mode))


def manifest(fields: Mapping[str, Any]) -> tuple[Artifact, tuple[FileEntry, ...]]:
    """Artifact and files of a manifest. InputError names what is wrong in it."""
    artifact, files = fields.get("artifact"), fields.get("files")
    if not isinstance(artifact, dict) or not isinstance(files, list):
        raise InputError("the manifest must have a mapping 'artifact' and a list 'files', as publishing makes them")
    digest, size, kind = artifact.get("sha256"), artifact.get("size"), artifact.get("format")
    if not records.is_sha256(digest) or not isinstance(size, int) or not isinstance(kind, str):
        raise InputError(f"the manifest's artifact must have sha256, size and format, not {dict(artifact)!r}")
    entries = tuple(records.file_entry(entry) for entry in files)
    paths = [entry.path for entry in entries]
    if len(set(paths)) != len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"the manifest names file {twice!r} twice")
    return Artifact(str(digest), size, kind), entries


def image(fields: Mapping[str, Any]) -> Image | None:
    """The image of a manifest, None where the artifact is none. InputError names what is wrong in it."""
    if fields.get("image") is None:
        return None
    from ansible_collections.convoy.rollout.plugins.module_utils import containers

    return containers.image_of(fields["image"])


def image_file(image: Image) -> ConfigFile:
    """The file of a release by which its unit knows which image to run."""
    from ansible_collections.convoy.rollout.plugins.module_utils import containers

    return ConfigFile(containers.IMAGE_FILE, image.environment.encode("ascii"), 0o644)


def is_staged(host: Host, wanted: Wanted) -> bool:
    """Whether the release is here, whole, and the one that is wanted. Reads only.

    InputError when another content has the same id: an id stands for one content.
    """
    try:
        recorded = host.tree.verify(wanted.release)
    except NotIntactError:
        return False
    expected = wanted.record(recorded.staged_at)
    if (recorded.artifact.get("sha256"), recorded.files, recorded.units, recorded.image) != (
        expected.artifact["sha256"],
        expected.files,
        expected.units,
        expected.image,
    ):
        raise InputError(
            f"release {wanted.release} is on this host with another content (its artifact is "
            f"{recorded.artifact.get('sha256')}); an id must stand for one content: make a new version"
        )
    return True


def check(host: Host, wanted: Wanted) -> None:
    """What would stop the release later, found before anything is brought. Reads only."""
    check_format(wanted.artifact.format)
    host.tree.active()
    host.units.plan(wanted.record(0.0).own_units)
    if wanted.image is not None:
        from ansible_collections.convoy.rollout.plugins.module_utils.container_kind import CONTAINER

        CONTAINER.check(wanted.image)


def check_not_in_use(host: Host, release: str) -> None:
    """A release that is not intact may be staged anew, unless it is the active one: its files are in use."""
    if host.tree.active() != release:
        return
    try:
        host.tree.verify(release)
    except NotIntactError as error:
        raise NotIntactError(
            f"release {release} is active here, and {error.message}. Nothing was changed, because its files are in "
            "use: mend it with repair.yml, or deploy another release or roll back, then this one can be staged again",
            **error.details,
        ) from error


def check_space(host: Host, wanted: Wanted, fetched: int = 0) -> None:
    """SpaceError unless twice of what the release needs is free, and the bytes that are to be fetched before."""
    files = wanted.record(0.0).files
    directories = len(directories_of(entry.path for entry in files)) + 1
    blocks = sum(-(-entry.size // _BLOCK) for entry in files) + directories
    needed, nodes = _RESERVE * blocks * _BLOCK + fetched, _RESERVE * (len(files) + directories)
    free_bytes, free_inodes = host.tree.free()
    if free_bytes < needed:
        raise SpaceError(
            f"{host.tree.root} has {free_bytes} bytes free, staging {wanted.release} asks for {needed} (twice its "
            "size on disk); nothing was changed. Free some, or lower keep",
            free_bytes=free_bytes,
            needed_bytes=needed,
        )
    if free_inodes is not None and free_inodes < nodes:
        raise SpaceError(
            f"{host.tree.root} has {free_inodes} inodes free, staging {wanted.release} asks for {nodes} (twice its "
            "files and directories); nothing was changed. Free some, or lower keep",
            free_inodes=free_inodes,
            needed_inodes=nodes,
        )


def base(host: Host, release: str) -> Base:
    """A release of this host, to take files from. NotIntactError when it is not here."""
    from ansible_collections.convoy.rollout.plugins.module_utils.reuse import Base

    return Base(release, host.tree.release(release), host.tree.read_record(release).files)


def offer(host: Host, wanted: Wanted) -> dict[str, Any]:
    """The release that files can be taken from, active or else good last, and what it lacks. Empty without one."""
    present, active = host.tree.present(), host.tree.active()
    release = active if active in present else host.history().last_good(present, besides=None)
    try:
        return {"base": release, "lacks": base(host, release).lacks(wanted.files)} if release else {}
    except TreeError:
        return {}


def stage(host: Host, wanted: Wanted, artifact: str, limits: Limits, strict: bool, delta: Delta | None = None) -> None:
    """Bring the release to the host. Until its last step nothing has its name; if it fails, nothing is left."""
    with work_place(host, wanted.release) as place:
        _unpack(host, wanted, artifact, place, limits, strict, delta)
        recorded = wanted.record(host.clock.wall())
        if recorded.image is not None:
            from ansible_collections.convoy.rollout.plugins.module_utils.container_kind import CONTAINER

            CONTAINER.load(host, recorded, place)
        publish(host, recorded, place)
        host.tree.clear_fetched()


@contextlib.contextmanager
def work_place(host: Host, release: str) -> Iterator[str]:
    """Where a release is made, which is gone again where that fails."""
    place = host.tree.work_place("unpack", release)
    try:
        yield place
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(
                f"{host.tree.root} ran out of room while {release} was staged ({error.strerror}); what was "
                "written is removed again and the active release untouched. Free some room and run this again"
            ) from error
        raise
    finally:
        durable.remove_tree(place)


def _unpack(
    host: Host, wanted: Wanted, artifact: str, place: str, limits: Limits, strict: bool, delta: Delta | None
) -> None:
    from ansible_collections.convoy.rollout.plugins.module_utils.unpack import unpack

    if not os.path.isfile(artifact):
        raise ArchiveError(f"the artifact {artifact} is not a file on this host")
    with open(artifact, "rb") as stream:
        unpack(stream, wanted.artifact, wanted.files, place, limits, strict, delta)
    host.done("unpacked")
    for item in wanted.config:
        _write_config(place, item)
    host.done("configured")


def _write_config(place: str, item: ConfigFile) -> None:
    """Write a rendered file into the unpacked release, never through a link of the artifact."""
    directory = place
    for part in item.path.split("/")[:-1]:
        directory = os.path.join(directory, part)
        if os.path.islink(directory) or os.path.isfile(directory):
            raise InputError(f"config file {item.path!r}: {part!r} is not a directory in the artifact")
        if not os.path.isdir(directory):
            os.mkdir(directory)
            os.chmod(directory, records.MODE_MASK)
    path = os.path.join(place, item.path)
    if os.path.isdir(path) and not os.path.islink(path):
        raise InputError(f"config file {item.path!r}: the artifact has a directory there")
    durable.remove_if_there(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        durable.write_all(descriptor, item.content)
        os.fchmod(descriptor, item.mode)
    finally:
        os.close(descriptor)


def publish(host: Host, recorded: Record, place: str) -> None:
    """Make it durable, then give it its name: the moment from which the release is there.

    Beside the active release, which is damaged then, it gets the name of what that one will be mended from.
    """
    tree, release = host.tree, recorded.release
    if tree.active() == release:
        _publish_beside(host, recorded, place)
        return
    if os.path.lexists(tree.release(release)):
        tree.discard(release)
    durable.write_file(tree.record_path(release), recorded.as_json())
    durable.sync_file_system(place)
    host.done("synced")
    durable.rename(place, tree.release(release))
    host.note("staged", release)
    host.done("staged")


def _publish_beside(host: Host, recorded: Record, place: str) -> None:
    tree, release = host.tree, recorded.release
    with contextlib.suppress(NotIntactError):
        known = tree.read_record(release)
        recorded = recorded._replace(probes=known.probes, gate=known.gate)
    durable.remove_tree(tree.mended(release))
    durable.write_file(tree.record_path(release), recorded.as_json())
    durable.sync_file_system(place)
    durable.rename(place, tree.mended(release))
    host.done("staged beside")


def mend(host: Host, release: str) -> None:
    """Make the files of a release those of its record again, from the copy beside it; no file is ever half one.

    What lies there without being of the release is left. Killed in between, this leaves a release that is still
    damaged, and is staged beside and mended anew.
    """
    source, directory = host.tree.mended(release), host.tree.release(release)
    if not os.path.isdir(source):
        return
    for entry in host.tree.read_record(release).files:
        if records.fault(entry, directory):
            _put(os.path.join(source, entry.path), directory, entry.path)
    durable.sync_file_system(directory)
    forget_mended(host, release)
    host.done("mended")


def forget_mended(host: Host, release: str) -> None:
    """Remove the copy that is not needed any more."""
    durable.remove_tree(host.tree.mended(release))


def _put(source: str, directory: str, path: str) -> None:
    """Put a file in its place, through directories alone: never through a link that somebody left there."""
    *parents, _name = path.split("/")
    for part in parents:
        directory = os.path.join(directory, part)
        if os.path.islink(directory) or not os.path.isdir(directory):
            durable.remove_if_there(directory)
            os.mkdir(directory)
            os.chmod(directory, records.MODE_MASK)
    place = os.path.join(directory, os.path.basename(path))
    if os.path.isdir(place) and not os.path.islink(place):
        raise TreeError(f"{place} is a directory, and a file of the release belongs there: move it away")
    os.rename(source, place)


def keep_probes(
    host: Host, recorded: Record, probes: Sequence[Mapping[str, Any]], gate: Mapping[str, Any] | None
) -> Record:
    """Remember with a release what it is gated with now, so that the host can gate it by itself."""
    kept = recorded._replace(probes=tuple(probes), gate=gate)
    if (kept.probes, kept.gate) != (recorded.probes, recorded.gate):
        durable.write_file(host.tree.record_path(recorded.release), kept.as_json())
    return kept


def adopt(host: Host, release: str | None) -> None:
    """Give a record to a release that serves without one: whoever put it there, it is what there is to go back to."""
    if release is None or release in host.tree.present():
        return
    found = [there for there in host.units.find(()).values() if there.component == host.tree.component]
    recorded = Record(
        release=release,
        version=release,
        artifact={},
        files=records.survey(host.tree.release(release)),
        units=tuple(Unit(there.name, there.body) for there in found),
        staged_at=host.clock.wall(),
    )
    durable.write_file(host.tree.record_path(release), recorded.as_json())


def ensure_noted(host: Host, release: str) -> bool:
    """Journal a release that was staged by a call that died before it could say so."""
    if host.history().state(release) is not None:
        return False
    host.note("staged", release)
    return True


def ensure_loaded(host: Host, release: str) -> bool:
    """Bring in anew what the kind of a release keeps elsewhere, and somebody removed. Whether anything was."""
    recorded = host.tree.read_record(release)
    if recorded.image is None:
        return False
    from ansible_collections.convoy.rollout.plugins.module_utils.container_kind import CONTAINER

    if CONTAINER.has(host, recorded):
        return False
    CONTAINER.load(host, recorded, host.tree.release(release))
    return True


def remove(host: Host, release: str) -> bool:
    """Remove a release that is neither active nor the last good one. False when it is not here."""
    tree = host.tree
    active, history, present = tree.active(), host.history(), tree.present()
    if release == active:
        raise TreeError(f"release {release} is active and cannot be removed; deploy another or roll back first")
    if release == history.last_good(present, besides=active):
        raise TreeError(f"release {release} is the last good one, the target of a rollback, and cannot be removed")
    if not os.path.lexists(tree.release(release)) and not os.path.lexists(tree.record_path(release)):
        return False
    recorded = tree.read_record(release) if release in present else None
    tree.discard(release)
    host.note("removed", release)
    if recorded is not None:
        from ansible_collections.convoy.rollout.plugins.module_utils.pruning import sweep

        sweep(host, recorded)
    return True
