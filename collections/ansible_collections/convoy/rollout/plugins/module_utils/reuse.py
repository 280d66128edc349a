# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a release of what the host has already: unchanged files come from another release, by their digests.

A file system that can lets both share their bytes until one of them is written (a reflink); elsewhere they are copied.
They are never the same file: what happens to one release must not happen to another.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.module_utils.errors import NotIntactError
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterable, Sequence

_CHUNK = 1024 * 1024
_FICLONE = 0x40049409  # linux/fs.h; some machines have another number, and copy
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Base:
    """The release `release` in `directory`, that is said to consist of `files`, as a place to take files from.

    `taken` is how many bytes were.
    """

    def __init__(self, release: str, directory: str, files: Iterable[FileEntry]) -> None:
        self.release = release
        self.taken = 0
        self._directory = directory
        self._paths = {entry.sha256: entry.path for entry in files if entry.link is None}
        self._shares = True

    def lacks(self, files: Sequence[FileEntry]) -> list[str]:
        """The paths of the files whose content is not here."""
        return [entry.path for entry in files if entry.link is None and entry.sha256 not in self._paths]

    def copy(self, entry: FileEntry, path: str) -> None:
        """Make the file `path` with content and mode of `entry`. NotIntactError when that content is not here."""
        if entry.sha256 not in self._paths:
            raise NotIntactError(f"release {self.release} has no file with the content of {entry.path!r}")
        source = self._open(self._paths[entry.sha256], entry.size)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                if self._copy(source, descriptor) != entry.sha256:
                    raise self._differs(self._paths[entry.sha256], "other content than recorded")
                os.fchmod(descriptor, entry.mode)
            finally:
                os.close(descriptor)
        finally:
            os.close(source)
        self.taken += entry.size

    def _open(self, path: str, size: int) -> int:
        """The file, which is to be one of that size: another kind may have its place, and would be waited for."""
        try:
            descriptor = os.open(os.path.join(self._directory, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise self._differs(path, os.strerror(error.errno or 0)) from error
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return descriptor
        os.close(descriptor)
        raise self._differs(path, f"not a regular file of {size} bytes")

    def _differs(self, path: str, why: str) -> NotIntactError:
        return NotIntactError(f"release {self.release} is not intact on this host: {path}: {why}")

    def _copy(self, source: int, destination: int) -> str:
        """The SHA-256 of what is in the destination then."""
        if self._share(source, destination):
            return _digest(destination)
        digest = hashlib.sha256()
        for chunk in iter(lambda: os.read(source, _CHUNK), b""):
            durable.write_all(destination, chunk)
            digest.update(chunk)
        return digest.hexdigest()

    def _share(self, source: int, destination: int) -> bool:
        """Whether both share their bytes now. A file system that cannot do it once is not asked again."""
        if self._shares:
            try:
                fcntl.ioctl(destination, _FICLONE, source)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                self._shares = False
        return self._shares


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: os.read(descriptor, _CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()
