# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places that a depot is written to, each with what it can do so that nobody sees half of anything.

directories and SFTP servers    files are brought below incoming/ and renamed; a release is one directory, renamed whole
other trees (FTP, SMB, ...)     files are brought below incoming/ and renamed, one after the other
object stores                   an object is there whole or not at all, one after the other

Where a release comes file by file, its manifest comes when all is there that it needs, and its records last: a reader
refuses a release without them.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ansible_collections.convoy.rollout.plugins.module_utils import durable, record
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import (
    DIRECTORIES,
    FORBIDDEN,
    KEPT_BITS,
    NEW_MODE,
    DepotFiles,
    UnsafeDepotError,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_place import (
    WRITING,
    Place,
    RemoteDepotError,
    refuse_password,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import dead

_PUSH = re.compile(r"push-(?P<machine>[^-]+)-(?P<pid>\d+)-(?P<started>\d+)")


def target_of(url: str, options: Mapping[str, Any], run: Run, sleep: Callable[[float], None] = time.sleep) -> Target:
    """What writes to the URL. Raises RemoteDepotError for one that nothing can be written to."""
    refuse_password(url)
    place = Place(url, options, sleep, WRITING)
    if not place.scheme or "::" in url:
        raise RemoteDepotError(
            f"depot_url: '{url}' names no place to push to: give one such as sftp://convoy@releases.example/srv/depot, "
            "s3://bucket/depot or file:///mnt/depot"
        )
    if place.scheme in ("http", "https"):
        raise RemoteDepotError(
            f"depot_url: {url} can only be read, since over {place.scheme} nothing is written: push to what the web "
            "server reads from, e.g. sftp://convoy@releases.example/srv/depot"
        )
    kind = {"file": DirectoryTarget, "local": DirectoryTarget, "sftp": SftpTarget, "ssh": SftpTarget}
    return kind.get(place.scheme, Target)(place, run)


def in_order(names: Mapping[str, bytes]) -> list[str]:
    """The files of a release as they may come one by one: what proves it, the manifest, its records."""
    return sorted(names, key=lambda name: (name.startswith("states/"), name == "manifest.json", name))


class Target:
    """A place of any kind. Paths are those of a depot; ``run`` is who pushes."""

    def __init__(self, place: Place, run: Run) -> None:
        self.place = place
        self.run = run
        self.incoming = f"incoming/push-{quote(run.machine, safe='').replace('-', '%2D')}-{run.pid}-{run.started}"

    # asking

    def check(self) -> None:
        """Raise UnsafeDepotError where others could read what is pushed, as far as this place tells."""

    def read(self, path: str) -> bytes | None:
        """What is in the file, None where there is none."""
        try:
            return self.place.read(path)
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int | None:
        """The size of the file, None where there is none."""
        try:
            size: int | None = self.place.ask("info", path)["size"]
        except FileNotFoundError:
            return None
        return -1 if size is None else size

    def names(self, path: str) -> list[str]:
        """What is in the directory."""
        return self.place.names(path)

    def holds(self, sha256: str, size: int) -> bool:
        """Whether the artifact is there, as far as can be told without fetching it."""
        return self.size(f"blobs/sha256/{sha256}") == size

    def left(self) -> list[str]:
        """What pushes that have died left below incoming/; what may be of one that runs is not told."""
        return [name for name in self.names("incoming") if self._is_left(name)]

    # writing

    @contextmanager
    def session(self) -> Iterator[None]:
        """What is written is written in here; afterwards nothing else of it is left."""
        for name in self.left():
            self._remove(f"incoming/{name}")
        try:
            yield
        finally:
            with suppress(RemoteDepotError, FileNotFoundError):
                self._remove(self.incoming)

    def bring(self, source: Path, path: str) -> None:
        """Bring a file there, whole; what is there is replaced."""
        self._whole(path, source.stat().st_size, lambda filesystem, there: filesystem.put_file(str(source), there))

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, whole; what is there is replaced."""
        self._whole(path, len(content), lambda filesystem, there: filesystem.pipe_file(there, content))

    def place_release(self, release: str, files: Mapping[str, bytes]) -> None:
        """Bring a release there that is not there yet."""
        for name in in_order(files):
            self.write(f"{release}/{name}", files[name])

    def _whole(self, path: str, size: int, bring: Callable[[Any, str], object]) -> None:
        def do(filesystem: Any, root: str) -> None:
            if not _renames(filesystem):
                bring(filesystem, f"{root}/{path}")
                return
            temporary = f"{root}/{self.incoming}/{path.rpartition('/')[2]}"
            for one in (temporary, f"{root}/{path}"):
                filesystem.makedirs(one.rpartition("/")[0], exist_ok=True)
            bring(filesystem, temporary)
            filesystem.mv(temporary, f"{root}/{path}")

        self.place.attempt(do)
        if self.size(path) != size:  # fsspec lets a file system forget what it was given
            raise RemoteDepotError(
                f"{self.place.url}/{path} is not there with {size} bytes after it was written: this place keeps nothing"
            )

    def _remove(self, path: str) -> None:
        def do(filesystem: Any, root: str) -> None:
            if filesystem.exists(f"{root}/{path}"):
                filesystem.rm(f"{root}/{path}", recursive=True)

        self.place.attempt(do)

    def _is_left(self, name: str) -> bool:
        """Whether it is of a push of this machine that runs no more, or of this one."""
        found = _PUSH.fullmatch(name)
        if found is None:
            return False
        run = Run(unquote(found["machine"]), int(found["pid"]), int(found["started"]), "")
        return f"incoming/{name}" == self.incoming or dead(run) is True


def _renames(filesystem: Any) -> bool:
    """Whether it has directories, where a file that is being written is seen, and is renamed at once."""
    from fsspec import AbstractFileSystem

    return type(filesystem).mv is not AbstractFileSystem.mv


class DirectoryTarget(Target):
    """A directory that this machine sees, such as one on a share: written as any depot is, under its lock."""

    def __init__(self, place: Place, run: Run) -> None:
        super().__init__(place, run)
        root = Path(place.attempt(lambda _filesystem, root: root)).resolve()
        self.files = DepotFiles(root)

    def check(self) -> None:
        with self._told():
            if self.files.root.is_dir():
                self.files.check_private()

    def holds(self, sha256: str, size: int) -> bool:
        with self._told():
            path = self.files.blob(sha256)
            return super().holds(sha256, size) and record.digest_of(str(path)) == sha256

    def left(self) -> list[str]:
        with self._told():
            incoming = self.files.root / "incoming"
            return sorted(path.name for path in incoming.iterdir()) if incoming.is_dir() else []

    @contextmanager
    def session(self) -> Iterator[None]:
        with self._told(), self.files.locked(), self.files.workspace() as workspace:
            self.workspace = workspace
            yield

    def bring(self, source: Path, path: str) -> None:
        with self._told():
            copied = self.workspace / "artifact"
            shutil.copyfile(source, copied)
            self.files.place(copied, self.files.root / path)

    def write(self, path: str, content: bytes) -> None:
        with self._told():
            self.files.write(self.files.root / path, content)

    def place_release(self, release: str, files: Mapping[str, bytes]) -> None:
        with self._told():
            directory, destination = self.workspace / "release", self.files.root / release
            for name, content in files.items():
                self.files.make_directory(directory)
                self.files.write(directory / name, content)
            self.files.make_directory(destination.parent)
            durable.rename(str(directory), str(destination))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.place.failed(error) from error


class SftpTarget(Target):
    """A directory behind an SFTP server, which renames and keeps modes. Its directory is made where there is none."""

    def check(self) -> None:
        mode = self._mode("")
        if mode is not None and mode & FORBIDDEN:
            raise UnsafeDepotError(
                f"the depot {self.place.url} has mode {mode:04o}: others could read releases there or put their own. "
                f"Look at what is in it, then, on the server: chmod {NEW_MODE:04o} {shlex.quote(self._root())}"
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        self._make("", NEW_MODE)
        self._directory_mode = (self._mode("") or NEW_MODE) & KEPT_BITS | 0o700
        for name in DIRECTORIES:
            self._make(name, self._directory_mode)
        if self.size("lock") is None:
            self._send(io.BytesIO(), "lock")
        with super().session():
            self._make(self.incoming, self._directory_mode)
            yield

    def bring(self, source: Path, path: str) -> None:
        with source.open("rb") as stream:
            self._through_incoming(stream, path)

    def write(self, path: str, content: bytes) -> None:
        self._make(path.rpartition("/")[0], self._directory_mode)
        self._through_incoming(io.BytesIO(content), path)

    def place_release(self, release: str, files: Mapping[str, bytes]) -> None:
        """Rename it into its place, as which nothing may be there; what an attempt before this one did counts."""
        directory, parent = f"{self.incoming}/release", release.rpartition("/")[0]
        self._remove(directory)
        for path in sorted({directory, *(f"{directory}/{name}".rpartition("/")[0] for name in files)}):
            self._make(path, self._directory_mode)
        for name, content in files.items():
            self._send(io.BytesIO(content), f"{directory}/{name}")
        self._make(parent, self._directory_mode)

        def rename(filesystem: Any, root: str) -> None:
            try:
                filesystem.ftp.rename(f"{root}/{directory}", f"{root}/{release}")
            except OSError:
                if self.read(f"{release}/manifest.json") != files["manifest.json"]:
                    raise

        self.place.attempt(rename)

    def _through_incoming(self, stream: Any, path: str) -> None:
        temporary = f"{self.incoming}/file"
        self._send(stream, temporary)
        self.place.attempt(
            lambda filesystem, root: filesystem.ftp.posix_rename(f"{root}/{temporary}", f"{root}/{path}")
        )

    def _send(self, stream: Any, path: str) -> None:
        """Write a file where nobody looks, from its beginning at each attempt."""

        def do(filesystem: Any, root: str) -> None:
            stream.seek(0)
            filesystem.ftp.putfo(stream, f"{root}/{path}")
            filesystem.ftp.chmod(f"{root}/{path}", self._directory_mode & 0o640)

        self.place.attempt(do)

    def _make(self, path: str, mode: int) -> None:
        """Make a directory where there is none; the one above it must be there."""
        if self._mode(path) is not None:
            return

        def do(filesystem: Any, root: str) -> None:
            directory = f"{root}/{path}".rstrip("/")
            try:
                filesystem.ftp.mkdir(directory, mode)
            except OSError:
                if not filesystem.isdir(directory):  # else another attempt, or another push, was there before
                    raise
            filesystem.ftp.chmod(directory, mode)

        try:
            self.place.attempt(do)
        except FileNotFoundError as error:
            above = f"{self._root()}/{path}".rstrip("/").rpartition("/")[0]
            raise RemoteDepotError(
                f"the depot {self.place.url} cannot be made: there is no directory {above or '/'} on the server. Make "
                "it there, for who pushes"
            ) from error

    def _mode(self, path: str) -> int | None:
        try:
            mode: int = self.place.attempt(
                lambda filesystem, root: filesystem.ftp.stat(f"{root}/{path}".rstrip("/")).st_mode
            )
        except FileNotFoundError:
            return None
        return stat.S_IMODE(mode)

    def _root(self) -> str:
        return self.place.attempt(lambda _filesystem, root: root)

    def _remove(self, path: str) -> None:
        self.place.attempt(lambda filesystem, root: _remove_tree(filesystem.ftp, f"{root}/{path}"))


def _remove_tree(ftp: Any, path: str) -> None:
    try:
        mode = ftp.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        ftp.remove(path)
        return
    for name in ftp.listdir(path):
        _remove_tree(ftp, f"{path}/{name}")
    ftp.rmdir(path)
