# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place elsewhere where a depot is or comes to be, through fsspec: opened, asked, and asked again when it fails."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_files import DepotError

ATTEMPTS = 5
SILENCE = 60  # seconds without a byte after which a server counts as away
LARGEST = 64 * 2**20  # bytes of a manifest, a signature, a record
EXTRAS = {"http": "http", "https": "http", "s3": "s3", "sftp": "sftp", "ssh": "sftp"}  # of fsspec, by scheme
HERE = ("file", "local", "memory")  # where nothing gets better by waiting

_FAILURES = (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("paramiko", "SSHException"))
_FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

Answer = TypeVar("Answer")


class RemoteDepotError(DepotError):
    """The place where the depot is cannot be read, or not be written."""

    reason: ClassVar[str] = "depot-remote"


class HostKeyError(RemoteDepotError):
    """The server of the place is not known to be the one that it says it is."""

    reason: ClassVar[str] = "depot-host-key"


@dataclass(frozen=True)
class Purpose:
    """What is done with a place, as it is said when that fails, and what is to be known then."""

    done: str
    kept: str


READING = Purpose("read", "What came so far is kept")
WRITING = Purpose("written", "Nothing half sent is to be seen there, and what is there whole is not sent again")


@dataclass
class Place:
    """The place at a URL. ``options`` are those of fsspec's filesystem."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], None] = time.sleep
    purpose: Purpose = READING
    _opened: tuple[Any, str] | None = field(default=None, init=False, repr=False)

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    def read(self, path: str) -> bytes:
        """What is in a file that is no artifact. Raises FileNotFoundError."""
        size = self.ask("info", path)["size"]
        if size is not None and size > LARGEST:
            raise RemoteDepotError(
                f"{self.url}/{path} has {size} bytes, which nothing but an artifact has: is this a depot?"
            )
        content: bytes = self.ask("cat_file", path)
        return content

    def names(self, path: str) -> list[str]:
        """What is in the directory; nothing where there is none."""
        try:
            listed = self.ask("ls", path + "/", detail=False)
        except FileNotFoundError:
            return []
        return sorted({name.rstrip("/").rpartition("/")[2] for name in listed})

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer of fsspec's file system to one question."""
        return self.attempt(lambda filesystem, root: getattr(filesystem, method)(f"{root}/{path}", **arguments))

    def attempt(self, do: Callable[[Any, str], Answer]) -> Answer:
        """Do something with fsspec's file system and the path of the depot in it.

        It is done again after a growing pause where that may help, over a new connection: it must bear that.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                filesystem, root = self._open()
                return do(filesystem, root)
            except FileNotFoundError:
                raise
            except NotImplementedError as error:
                raise RemoteDepotError(f"depot_url: with {self.scheme}:// nothing is {self.purpose.done}") from error
            except _failures() as error:
                if attempt == ATTEMPTS or self.scheme in HERE or _is_final(error):
                    raise self.failed(error, attempt) from error
                self._opened = None
                self.sleep(2.0 ** (attempt - 1))

    def failed(self, error: Exception, attempt: int = 1) -> RemoteDepotError:
        """What is to be raised of an error of the place."""
        return RemoteDepotError(
            f"the depot {self.url} cannot be {self.purpose.done} (attempt {attempt}): {str(error) or repr(error)}. "
            f"{self.purpose.kept}: run it again when that is mended"
        )

    def _open(self) -> tuple[Any, str]:
        """What reads the URL, and what it calls it. The library is imported here, and not before."""
        if self._opened is None:
            try:
                filesystem, root = self._filesystem()
            except ImportError as error:
                extra = EXTRAS.get(self.scheme)
                package = f"fsspec[{extra}]" if extra else "fsspec"
                raise RemoteDepotError(
                    f"depot_url needs Python packages on the controller ({error}): pip install '{package}'"
                ) from error
            except (ValueError, TypeError) as error:
                raise RemoteDepotError(
                    f"depot_url: fsspec cannot use {self.scheme}:// with depot_options: {error}"
                ) from error
            self._opened = filesystem, root.rstrip("/")
        return self._opened

    def _filesystem(self) -> tuple[Any, str]:
        import fsspec

        if self.scheme in ("sftp", "ssh"):
            from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_sftp import connected

            return connected(self.url, self.options)
        found: tuple[Any, str] = fsspec.core.url_to_fs(self.url, **{**_patience(self.scheme), **self.options})
        return found


def refuse_password(url: str) -> None:
    """Raise RemoteDepotError for a URL that must not be told."""
    if urlsplit(url).password is not None:
        raise RemoteDepotError("depot_url holds a password, which would be told: put it into depot_options")


def _is_final(error: Exception) -> bool:
    """Whether the answer would be the same again: no right to it, no room, or a status of HTTP that says so."""
    status = getattr(error, "status", 0)
    refused = isinstance(error, (PermissionError, FileExistsError)) or getattr(error, "errno", None) in _FINAL
    return refused or (400 <= status < 500 and status not in (408, 429))


def _patience(scheme: str) -> dict[str, Any]:
    """Options that let a server not hang for ever."""
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    return {"timeout": ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)}


def _failures() -> tuple[type[Exception], ...]:
    """What a place may fail with; of the libraries below fsspec only what those raise that are in use."""
    own = [getattr(sys.modules[module], name) for module, name in _FAILURES if sys.modules.get(module)]
    return (OSError, EOFError, *own)
