# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams that are read once, forwards, and up to a ceiling, whatever they are packed with."""

from __future__ import annotations

import io

from ansible_collections.convoy.rollout.plugins.module_utils.errors import ArchiveError
from ansible_collections.convoy.rollout.plugins.module_utils.member import Source, unreadable
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing import Any, BinaryIO, Callable

_CHUNK = 1024 * 1024
_PIECE = 64 * 1024
# What a header may ask for in memory: dictionaries of xz and windows of zstd.
MOST_MEMORY = 256 * 1024**2
_ZSTD_WINDOW_LOG = 27


class Decompressor(Protocol):
    """What the decompressors of the standard library have in common, but for zlib's."""

    @property
    def eof(self) -> bool:
        """Whether the end of a stream was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether it has nothing left to go on with."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""


class Forward:
    """A stream that is read once, forwards, in small pieces, up to a ceiling.

    Sizes in headers are not to be believed: a name of 5 GB would be read into memory. `damage` are
    the errors of a decompressor.
    """

    def __init__(self, inner: Source, format_name: str, ceiling: int, *damage: type[Exception]) -> None:
        self._inner = inner
        self._format = format_name
        self._ceiling = ceiling
        self._damage: tuple[type[Exception], ...] = (EOFError, *damage)
        self._place = 0

    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if not 0 <= size <= _CHUNK:
            raise ArchiveError(f"the artifact is refused: a header of it claims {size} bytes")
        parts = []
        while size:
            part = self._read_some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self._place += len(part)
        if self._place > self._ceiling:
            raise ArchiveError(f"the artifact unpacks to more than {self._ceiling} bytes, which is the limit for it")
        return b"".join(parts)

    def _read_some(self, size: int) -> bytes:
        """Damage shows while reading, wherever that is done. An OSError without a number is not one of the disk."""
        try:
            return self._inner.read(size)
        except self._damage as error:
            raise unreadable(self._format, error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise unreadable(self._format, error) from error

    def tell(self) -> int:
        """How many bytes were read."""
        return self._place

    def skip_to(self, place: int) -> None:
        """Read on, for nothing, as far as `place`."""
        while self._place < place:
            if not self.read(min(_CHUNK, place - self._place)):
                raise unreadable(self._format, "it ends too early")


class _Packed(io.RawIOBase):
    """What compressed streams hold, one after the other, up to the end of the file and to its last byte."""

    def __init__(self, stream: BinaryIO, new: Callable[[], Decompressor]) -> None:
        super().__init__()
        self._stream = stream
        self._new = new
        self._decompressor = new()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of the buffer; 0 at the end."""
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                rest = self._behind_the_end()
                if not rest:
                    return b""
                self._decompressor = self._new()
            else:
                rest = self._stream.read(_PIECE) if self._decompressor.needs_input else b""
                if self._decompressor.needs_input and not rest:
                    raise EOFError("it ends too early")
            data = self._decompressor.decompress(rest, size)
            if data:
                return data

    def _behind_the_end(self) -> bytes:
        """What follows a stream, without the zeros that some pad with."""
        rest = self._decompressor.unused_data
        while not rest.strip(b"\0"):
            rest = self._stream.read(_PIECE)
            if not rest:
                return b""
        return rest.lstrip(b"\0")


class _Gzip:
    """zlib's decompressor with the manners of the others."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        """Whether the end of a member was reached, and its checksum was right."""
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        """Whether it has nothing left to go on with."""
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def plain(stream: BinaryIO, ceiling: int) -> Forward:
    """A stream that is not compressed."""
    return Forward(stream, "tar", ceiling)


def gz(stream: BinaryIO, ceiling: int) -> Forward:
    """What gzip packed."""
    import zlib

    return _forward(stream, "tar.gz", ceiling, _Gzip, zlib.error)


def bz2(stream: BinaryIO, ceiling: int) -> Forward:
    """What bzip2 packed."""
    from bz2 import BZ2Decompressor

    return _forward(stream, "tar.bz2", ceiling, BZ2Decompressor)


def xz(stream: BinaryIO, ceiling: int) -> Forward:
    """What xz packed; its decompressor has a limit to the memory that a header may ask for."""
    import lzma

    return _forward(
        stream, "tar.xz", ceiling, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MOST_MEMORY), lzma.LZMAError
    )


def knows_zst() -> bool:
    """Whether this Python can unpack zstd: from 3.14 on."""
    from importlib import import_module

    try:
        import_module("compression.zstd")
    except ImportError:
        return False
    return True


def zst(stream: BinaryIO, ceiling: int) -> Forward:
    """What zstd packed, likewise. ImportError where it is not known."""
    from importlib import import_module

    zstd = import_module("compression.zstd")
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _forward(stream, "tar.zst", ceiling, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError)


def _forward(
    stream: BinaryIO, format_name: str, ceiling: int, new: Callable[[], Decompressor], *damage: type[Exception]
) -> Forward:
    return Forward(io.BufferedReader(_Packed(stream, new), _PIECE), format_name, ceiling, *damage)
