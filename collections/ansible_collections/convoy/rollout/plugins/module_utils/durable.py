# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to the file system that are still there after a power cut.

A rename is atomic but not durable: until the directory that holds the name was synced, a power
cut may bring the old name back, or the new name with empty files behind it. Every function here
returns only when what it promises has reached the disk.
"""

from __future__ import annotations

import os
import re
import stat

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Container

_TEMPORARY = r"\.(.+)\.[0-9a-f]{12}\.convoy-new"


def fsync_directory(path: str) -> None:
    """Make the names in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: str) -> None:
    """Make all that was written to the file system of `path` durable, with one call.

    One syncfs(2) takes the place of an fsync for every file and directory of a release: 50,000
    of them took 115 seconds.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte of `data`: os.write may take only a part of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: str, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Put `data` at `path`: a reader, also one after a power cut, finds all of it or the old file.

    `owner`: the numbers of user and group that the file gets, if not those of this process.
    """
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_all(descriptor, data)
            if owner:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        remove_if_there(temporary)
        raise
    fsync_directory(os.path.dirname(path))


def replace_symlink(target: str, path: str) -> None:
    """Point the symbolic link `path` to `target`, so that there is no moment without a link.

    The temporary link has a name of its own: one that was left behind by a killed process is never
    taken for this one.
    """
    temporary = temporary_name(path)
    os.symlink(target, temporary)
    try:
        os.rename(temporary, path)
    except OSError:
        remove_if_there(temporary)
        raise
    fsync_directory(os.path.dirname(path))


def rename(source: str, destination: str) -> None:
    """Rename a file or directory, and make both directories' names durable."""
    os.rename(source, destination)
    parents = {os.path.dirname(source), os.path.dirname(destination)}
    for parent in sorted(parents):
        fsync_directory(parent)


def unlink(path: str) -> bool:
    """Remove a file or link for good. False when there was none."""
    removed = remove_if_there(path)
    if removed:
        fsync_directory(os.path.dirname(path))
    return removed


def make_directory(path: str, mode: int) -> bool:
    """Make a directory that survives a power cut. False when it was there already."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
        return False
    os.chmod(path, mode)
    fsync_directory(os.path.dirname(path))
    return True


def remove_if_there(path: str) -> bool:
    """Unlink without a complaint when there is nothing. Not yet durable."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, as far as that can be done. Not yet durable.

    Most often there is none; shutil imports every kind of compression.
    """
    if os.path.lexists(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def temporary_name(path: str) -> str:
    """A name beside `path` that nobody else uses, and that clear_temporaries() knows again."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{os.urandom(6).hex()}.convoy-new")


def clear_temporaries(directory: str, names: Container[str] | None = None) -> None:
    """Remove the temporary files that killed calls left in a directory; with `names`: only those made for these."""
    for entry in os.listdir(directory):
        made_for = re.fullmatch(_TEMPORARY, entry)
        if made_for and (names is None or made_for.group(1) in names):
            remove_if_there(os.path.join(directory, entry))
