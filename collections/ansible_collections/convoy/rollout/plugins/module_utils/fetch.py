# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching an artifact over HTTP: in pieces where connections break, and never more of it than there should be.

Nothing that a server says is believed. What comes is hashed while it comes, and is the artifact when size and SHA-256
are those of the manifest. What has come stays when a call ends, so that the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import random
import re
import ssl
import urllib.request
from urllib.parse import SplitResult, urljoin, urlsplit

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    FetchError,
    InputError,
    LockedError,
    SpaceError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import Artifact

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

_CHUNK = 256 * 1024
_MOST_REDIRECTS = 5
_LONGEST_PAUSE = 30.0
_LOCK_POLL = 0.1
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)")
_NUMBER = re.compile(r"[0-9]{1,18}")
_PORTS = {"http": 80, "https": 443}


class Source(NamedTuple):
    """Where an artifact lies, and how patiently it is fetched.

    `authorization` is the header of that name. `ca_file` has the certificates to trust instead of the system's.
    `timeout` is how long a server may be silent, `deadline` how long all may take, `retries` how often in a row nothing
    may come; `proxy`: whether the proxies that the environment names are used.
    """

    url: str
    authorization: str = ""
    ca_file: str = ""
    timeout: float = 30.0
    deadline: float = 1800.0
    retries: int = 5
    proxy: bool = False

    def checked(self) -> Source:
        """This source. Raises InputError where it cannot be one."""
        _check_url(urlsplit(self.url), self.url)
        if self.authorization and urlsplit(self.url).scheme != "https":
            raise InputError(f"{shown(self.url)} is not https: anyone on the way could read the authorization")
        if not self.authorization.isprintable():
            raise InputError("authorization holds a line break or a control character: give it without")
        if self.ca_file and not os.path.isabs(self.ca_file):
            raise InputError(f"ca_file {self.ca_file!r} is not an absolute path, such as /etc/ssl/site-ca.pem")
        for name, least in (("timeout", 0.1), ("deadline", 1.0), ("retries", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: must be {least:g} or more")
        return self


class Answer(NamedTuple):
    """What a server says before it sends anything: status and headers."""

    status: int
    length: int | None = None
    range: str = ""
    location: str = ""
    retry_after: float = 0.0


class Verdict(NamedTuple):
    """What an answer is good for: `take` its bytes, which begin `at`; `redirect`, `retry`, `restart` or `refuse`."""

    does: str
    why: str = ""
    at: int = 0


def judge(answer: Answer, have: int, size: int) -> Verdict:
    """What to do with an answer to a request for the bytes from `have` on, of `size` in all."""
    if answer.status in _REDIRECTS:
        return Verdict("redirect")
    if answer.status in _PASSING:
        return Verdict("retry", f"the server answered {answer.status}")
    if answer.status == 416 and have:
        return Verdict("restart", "the server does not have the bytes that are missing")
    if answer.status not in (200, 206):
        return Verdict("refuse", f"the server answered {answer.status}")
    begin = 0
    if answer.status == 206:
        named = _RANGE.fullmatch(answer.range)
        if not have or not named or int(named.group(1)) != have or named.group(2) not in ("*", str(size)):
            what = f"the server answered with {answer.range or 'an unnamed range'!r} when asked for bytes from {have}"
            return Verdict("restart" if have else "refuse", what)
        begin = have
    if answer.length is not None and (answer.length > size - begin or (not begin and answer.length != size)):
        return Verdict("refuse", f"the server has {answer.length + begin} bytes, the manifest says {size}")
    return Verdict("take", at=begin)


def pause(tries: int, asked: float, chance: float) -> float:
    """Seconds to wait after `tries` times nothing came. `chance`, 0 to 1, keeps hosts from coming back together."""
    backoff = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(tries, 10)) * (0.5 + chance / 2)
    return max(backoff, min(max(asked, 0.0), _LONGEST_PAUSE))


def redirected(url: str, location: str) -> str:
    """Where a redirect leads. FetchError where it must not: to anything but HTTP, or out of TLS."""
    target = urljoin(url, location)
    parts = _parts(target)
    if not location or parts is None or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise FetchError(f"{shown(url)} redirects to {shown(target)!r}, which is no place to fetch an artifact from")
    if urlsplit(url).scheme == "https" and parts.scheme != "https":
        raise FetchError(f"{shown(url)} redirects to {shown(target)}, out of TLS: correct the server or the URL")
    return target


def same_origin(url: str, other: str) -> bool:
    """Whether both are of one server, so that it may see what was meant for the other."""
    first, second = (urlsplit(each) for each in (url, other))
    ports = [parts.port or _PORTS[parts.scheme] for parts in (first, second)]
    return (first.scheme, first.hostname, ports[0]) == (second.scheme, second.hostname, ports[1])


def shown(url: str) -> str:
    """A URL for messages: without its query and its user, where secrets may be."""
    parts = _parts(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts else "a URL that cannot be read"


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port else None
    except ValueError:
        return None


def _check_url(parts: SplitResult, url: str) -> None:
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InputError(f"url {shown(url)!r} is not one of http or https, such as https://depot.example/{{sha256}}")
    if "@" in parts.netloc:
        raise InputError(f"url {shown(url)!r} holds a user or a password, which would be shown: use authorization")


def fetch(
    source: Source, artifact: Artifact, descriptor: int, clock: Clock, chance: Callable[[], float] = random.random
) -> int:
    """Complete the artifact in the file `descriptor`, whatever is in it by now. How many bytes came.

    FetchError when it cannot be had; what has come stays in the file, unless it is of another artifact.
    """
    return _Fetching(source, artifact, _Part(descriptor), clock, chance).run()


@contextlib.contextmanager
def place(tree: Tree, sha256: str, clock: Clock, patience: float) -> Iterator[int]:
    """The file for an artifact that is to be fetched, for this process alone. LockedError when it stays in use."""
    path = tree.fetch_path(sha256)
    tree.clear_fetched(besides=path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = clock.now() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if clock.now() >= deadline:
                    raise LockedError(
                        f"{path} is being fetched by another call, and still was after {patience:g} s. Wait for it to "
                        "end, and run this again",
                        locked=True,
                    ) from error
            clock.sleep(_LOCK_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


class _Part:
    """The bytes that are there so far, and their digest."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = 0
        self._digest = hashlib.sha256()
        os.lseek(descriptor, 0, os.SEEK_SET)
        for chunk in iter(lambda: os.read(descriptor, _CHUNK), b""):
            self._digest.update(chunk)
            self.size += len(chunk)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, chunk: bytes) -> None:
        """Write more of it. What goes wrong here is no fault of the network."""
        try:
            durable.write_all(self._descriptor, chunk)
        except OSError as error:
            self.clear()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpaceError(
                    f"the file system ran out of room while the artifact was fetched ({error.strerror}); what had come "
                    "is removed again. Free some room and run this again"
                ) from error
            raise FetchError(f"the artifact cannot be written: {error.strerror}") from error
        self._digest.update(chunk)
        self.size += len(chunk)

    def clear(self) -> None:
        """Begin anew."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.ftruncate(self._descriptor, 0)
        self._digest, self.size = hashlib.sha256(), 0


class _BrokenError(Exception):
    """This try came to nothing, or not to its end; another one may. `asked`: the seconds that a server asks for."""

    def __init__(self, why: object, asked: float = 0.0) -> None:
        super().__init__(str(why))
        self.asked = asked


class _Fetching:
    """One artifact on its way."""

    def __init__(
        self, source: Source, artifact: Artifact, part: _Part, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self._source, self._artifact, self._part = source, artifact, part
        self._clock, self._chance = clock, chance
        self._deadline = clock.now() + source.deadline
        self._opener = _opener(source)
        self._came = 0

    def run(self) -> int:
        """Try until all is there. What was put together from pieces and is wrong is fetched once more."""
        if self._part.size > self._artifact.size:
            self._part.clear()
        in_pieces, may_repeat = self._part.size > 0, True
        tries = 0
        while True:
            before = self._came
            try:
                if self._part.size < self._artifact.size:
                    self._try()
            except _BrokenError as error:
                in_pieces = True
                tries = 0 if self._came > before else tries + 1
                self._wait(tries, error)
                continue
            if self._part.sha256 == self._artifact.sha256:
                return self._came
            found = self._part.sha256
            self._part.clear()
            if not (in_pieces and may_repeat):
                raise self._hopeless(f"what lies there has SHA-256 {found}, the manifest says {self._artifact.sha256}")
            in_pieces = may_repeat = False

    def _wait(self, tries: int, error: _BrokenError) -> None:
        if tries > self._source.retries:
            raise self._hopeless(f"{error}; no byte came in {tries} tries, which is the limit (retries)") from error
        seconds = pause(tries, error.asked, self._chance())
        if self._clock.now() + seconds > self._deadline:
            raise self._late(f"the last try: {error}") from error
        self._clock.sleep(seconds)

    def _hopeless(self, why: str) -> FetchError:
        return FetchError(
            f"the artifact cannot be fetched from {shown(self._source.url)}: {why}; {self._part.size} of "
            f"{self._artifact.size} bytes are here"
        )

    def _late(self, why: str) -> FetchError:
        limit = f"not done after {self._source.deadline:g} s, which is the limit (deadline)"
        return self._hopeless(f"{limit}; {why}. Run this again to go on from there, or raise it")

    def _try(self) -> None:
        """One request for what is missing, with its redirects."""
        url = self._source.url
        for _count in range(_MOST_REDIRECTS + 1):
            with self._opened(url) as response:
                answer = _answer(response)
                verdict = judge(answer, self._part.size, self._artifact.size)
                if verdict.does == "redirect":
                    url = redirected(url, answer.location)
                    continue
                if verdict.does == "refuse":
                    raise self._hopeless(f"{verdict.why}, at {shown(url)}")
                if verdict.does == "restart" or verdict.at != self._part.size:
                    self._part.clear()
                if verdict.does != "take":
                    raise _BrokenError(verdict.why, answer.retry_after)
                self._take(response)
                return
        raise self._hopeless(f"more than {_MOST_REDIRECTS} redirects, the last one to {shown(url)}")

    def _opened(self, url: str) -> Any:
        headers = {"User-Agent": "convoy", "Accept-Encoding": "identity"}
        if self._part.size:
            headers["Range"] = f"bytes={self._part.size}-"
        if self._source.authorization and same_origin(self._source.url, url):
            headers["Authorization"] = self._source.authorization
        timeout = min(self._source.timeout, max(self._deadline - self._clock.now(), 0.1))
        self._opener.addheaders = list(headers.items())
        with self._network():
            return self._opener.open(url, timeout=timeout)

    def _take(self, response: Any) -> None:
        """Its bytes, as they come."""
        while True:
            with self._network():
                chunk = response.read1(_CHUNK)
            if not chunk:
                break
            if self._part.size + len(chunk) > self._artifact.size:
                self._part.clear()
                raise self._hopeless(f"the server sends more than the {self._artifact.size} bytes of the manifest")
            self._part.add(chunk)
            self._came += len(chunk)
            if self._clock.now() > self._deadline:
                raise self._late("the server is slow")
        if self._part.size < self._artifact.size:
            raise _BrokenError("the connection ended too early")

    @contextlib.contextmanager
    def _network(self) -> Iterator[None]:
        """What goes wrong on the way is tried again, but for a server that is not the one that it says."""
        try:
            yield
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise self._hopeless(f"its certificate is not trusted: {cause.verify_message}") from error
            if isinstance(cause, (ValueError, http.client.InvalidURL)):
                raise self._hopeless(f"this cannot be asked for ({type(cause).__name__})") from error
            raise _BrokenError(str(cause) or type(cause).__name__) from error


def _opener(source: Source) -> urllib.request.OpenerDirector:
    """Opens HTTP and nothing else, follows nothing by itself, and knows of no proxy unless it is asked to."""
    try:
        trusted = ssl.create_default_context(cafile=source.ca_file or None)
    except OSError as error:
        raise InputError(f"ca_file {source.ca_file}: no certificates can be read from it ({error})") from error
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=trusted))
    if source.proxy:
        opener.add_handler(urllib.request.ProxyHandler())
    return opener


def _answer(response: Any) -> Answer:
    headers = response.headers
    return Answer(
        response.status,
        _number(headers.get("Content-Length")),
        headers.get("Content-Range", ""),
        headers.get("Location", ""),
        float(_number(headers.get("Retry-After")) or 0),
    )


def _number(text: str | None) -> int | None:
    """What a header says in digits; Retry-After may be a date, which no clock need agree with."""
    return int(text) if text and _NUMBER.fullmatch(text) else None
