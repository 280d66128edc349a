# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release tree of a component on a host: where everything is, who may change it, what is active.

releases/<id>/      immutable, owned by root
current             relative symbolic link to releases/<id>
shared/             what outlives releases; Convoy never looks into it
.convoy/            for root only
    journal.jsonl   what happened (see journal)
    releases/<id>.json   what each release must consist of (see record)
    token           the highest fencing token seen, and whose it was
    incoming/       what is being brought or taken away; mended.<id>/ is what a damaged release is mended from
    lock            held by the call that changes something
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os

from ansible_collections.convoy.rollout.plugins.module_utils import clock, durable, names, record
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    LockedError,
    NotIntactError,
    StaleTokenError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Iterator

_LOCK_POLL = 0.1
_WORK_PREFIXES = ("unpack.", "trash.")
_FETCH_PREFIX = "fetch."


class Current(NamedTuple):
    """What `current` is: `kind` is absent, release, dangling, elsewhere or not_a_link."""

    kind: str
    release: str | None = None
    target: str = ""


class Tree(NamedTuple):
    """The paths of a release tree, and the questions that can be asked of it."""

    root: str
    component: str

    @property
    def releases(self) -> str:
        """Where the releases are."""
        return os.path.join(self.root, "releases")

    @property
    def current(self) -> str:
        """The link to the active release."""
        return os.path.join(self.root, "current")

    @property
    def state(self) -> str:
        """The private directory."""
        return os.path.join(self.root, ".convoy")

    @property
    def incoming(self) -> str:
        """Where artifacts are brought to, and unpacked."""
        return os.path.join(self.state, "incoming")

    @property
    def journal(self) -> str:
        """The journal's file."""
        return os.path.join(self.state, "journal.jsonl")

    @property
    def lock_path(self) -> str:
        """The file that the lock is on."""
        return os.path.join(self.state, "lock")

    def release(self, release: str) -> str:
        """The directory of a release."""
        return os.path.join(self.releases, names.release(release))

    def record_path(self, release: str) -> str:
        """The record of a release."""
        return os.path.join(self.state, "releases", names.release(release) + ".json")

    def create(self) -> None:
        """Make what is missing of the tree. What is there already is left as it is."""
        os.makedirs(os.path.dirname(self.root), exist_ok=True)
        places = (
            (self.root, 0o755),
            (self.releases, 0o755),
            (os.path.join(self.root, "shared"), 0o755),
            (self.state, 0o700),
            (os.path.join(self.state, "releases"), 0o700),
            (self.incoming, 0o700),
        )
        for path, mode in places:
            try:
                durable.make_directory(path, mode)
            except FileExistsError as error:
                raise TreeError(f"{path} is not a directory; move it away and run this again") from error

    def exists(self) -> bool:
        """Whether Convoy has been here."""
        return os.path.isdir(self.state)

    def look_at_current(self) -> Current:
        """What `current` is now. Reads only."""
        try:
            target = os.readlink(self.current)
        except FileNotFoundError:
            return Current("absent")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return Current("not_a_link")
        head, release = os.path.split(target)
        if head != "releases" or names.release_fault(release):
            return Current("elsewhere", target=target)
        if not os.path.isdir(self.release(release)):
            return Current("dangling", release, target)
        return Current("release", release, target)

    def active(self) -> str | None:
        """The active release, None when nothing was deployed. TreeError, with the repair, for anything else."""
        current = self.look_at_current()
        fault = self.current_fault(current)
        if fault:
            raise TreeError(fault, current=current.kind)
        return current.release

    def current_fault(self, current: Current) -> str | None:
        """Why nothing may be changed while `current` is what it is, and the command that repairs it."""
        link = self.current
        if current.kind == "not_a_link":
            return (
                f"{link} is not a symbolic link, so Convoy did not make it; nothing was changed. "
                f"Move it away: mv {link} {link}.before-convoy"
            )
        if current.kind == "dangling":
            return (
                f"{link} points to {current.target}, which is not there; nothing was changed. "
                f"Point it to a release that is: ln -sfn releases/ID {link} "
                f"({self._choices()}), or remove it: rm {link}"
            )
        if current.kind == "elsewhere":
            return (
                f"{link} points to {current.target!r}, which is not of the form releases/ID; nothing was changed. "
                f"Remove it: rm {link}"
            )
        return None

    def _choices(self) -> str:
        present = sorted(self.present())
        return "ID is one of " + ", ".join(present[-5:]) if present else "there is no whole release here"

    def present(self) -> set[str]:
        """The releases that have both a directory and a record."""
        try:
            directories = {entry.name for entry in os.scandir(self.releases) if entry.is_dir(follow_symlinks=False)}
            records = {name[: -len(".json")] for name in os.listdir(os.path.join(self.state, "releases"))}
        except FileNotFoundError:
            return set()
        return {release for release in directories & records if not names.release_fault(release)}

    def strangers(self) -> list[str]:
        """What lies in releases/ without a record."""
        try:
            return sorted(set(os.listdir(self.releases)) - self.present())
        except FileNotFoundError:
            return []

    def read_record(self, release: str) -> record.Record:
        """What a release must consist of. NotIntactError when it is not on this host."""
        path = self.record_path(release)
        try:
            with open(path, "rb") as stream:
                return record.from_json(stream.read(), path)
        except FileNotFoundError as error:
            raise NotIntactError(f"release {release} is not on this host: stage it first (state=staged)") from error
        except TreeError as error:
            raise NotIntactError(error.message) from error

    def verify(self, release: str) -> record.Record:
        """The record of a release, all of whose files have just been found as recorded. Else NotIntactError."""
        recorded = self.read_record(release)
        directory = self.release(release)
        if not os.path.isdir(directory):
            raise NotIntactError(f"release {release} is not on this host: stage it first (state=staged)")
        faults = record.compare(recorded, directory).faults
        if faults:
            raise NotIntactError(
                f"release {release} is not intact on this host: {'; '.join(faults)}",
                faults=list(faults),
            )
        return recorded

    def work_place(self, kind: str, release: str) -> str:
        """A path in incoming/ for unpacking ('unpack') or removing ('trash') a release."""
        return os.path.join(self.incoming, f"{kind}.{release}.{os.urandom(6).hex()}")

    def mended(self, release: str) -> str:
        """Where a whole copy of the active release waits to mend it; its files are in use until it is restarted."""
        return os.path.join(self.incoming, f"mended.{names.release(release)}")

    def discard(self, release: str) -> None:
        """Remove a release: first its name, in one step, then its record, then its files."""
        trash = self.work_place("trash", release)
        if os.path.lexists(self.release(release)):
            durable.rename(self.release(release), trash)
        durable.unlink(self.record_path(release))
        durable.remove_tree(trash)

    def clear_leftovers(self) -> None:
        """Remove what a killed call left behind. Only under the lock."""
        for entry in os.scandir(self.incoming):
            if entry.name.startswith(_WORK_PREFIXES) and entry.is_dir(follow_symlinks=False):
                import shutil

                shutil.rmtree(entry.path)
        durable.clear_temporaries(self.root, ("current",))
        durable.clear_temporaries(self.state)
        durable.clear_temporaries(os.path.join(self.state, "releases"))

    def fetch_path(self, sha256: str) -> str:
        """Where an artifact is kept while it is fetched, and after that was broken off."""
        return os.path.join(self.incoming, _FETCH_PREFIX + sha256)

    def clear_fetched(self, besides: str = "") -> None:
        """Remove what was fetched, but for one path. Who is fetching it at this moment goes on without its name."""
        for entry in os.scandir(self.incoming):
            if entry.name.startswith(_FETCH_PREFIX) and entry.path != besides:
                durable.remove_if_there(entry.path)

    def free(self) -> tuple[int, int | None]:
        """Free bytes and inodes of the file system; inodes are None where it has no fixed number of them."""
        status = os.statvfs(self._nearest())
        return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None

    def place(self) -> str:
        """Where the root is, the same by whatever name a host is called and different on every other host.

        A boot of a kernel, a directory that is there, and the way from there: clones differ in the first, containers
        of one machine in the second.
        """
        there = self._nearest()
        status = os.stat(there)
        return ":".join((clock.boot_id(), str(status.st_dev), str(status.st_ino), os.path.relpath(self.root, there)))

    def _nearest(self) -> str:
        """The root, or the directory nearest to it that is there."""
        place = self.root
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        return place

    def token(self) -> Token:
        """The highest fencing token seen, 0 when there was none."""
        path = self._token_path
        try:
            with open(path, "rb") as stream:
                fields = json.loads(stream.read().decode("ascii"))
            return Token(int(fields["token"]), str(fields["rollout"]))
        except FileNotFoundError:
            return Token(0, "")
        except (ValueError, KeyError, TypeError) as error:
            raise TreeError(f"{path} cannot be read ({error}); look into it, remove it and run this again") from error

    def admit(self, token: int, rollout: str, remember: bool = True) -> None:
        """Refuse a caller whose token is lower than one seen before; keep a higher one. Only under the lock."""
        highest = self.token()
        if token < highest.value:
            raise StaleTokenError(
                f"token {token} of this rollout is stale: rollout {highest.rollout or 'unknown'} came here with token "
                f"{highest.value}; nothing was changed. Only the newest rollout may change this host. If the ledger "
                f"was lost and counts from the beginning again, remove {self._token_path} on every host",
                stale_token=True,
                token=token,
                highest=highest.value,
            )
        if remember and token > highest.value:
            data = json.dumps({"token": token, "rollout": rollout}).encode("ascii")
            durable.write_file(self._token_path, data + b"\n")

    @property
    def _token_path(self) -> str:
        return os.path.join(self.state, "token")

    @contextlib.contextmanager
    def lock(self, clock: Clock, patience: float, purpose: str) -> Iterator[None]:
        """Be the only one who changes this tree. The kernel frees the lock of a process that died."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self.lock_path, flags, 0o600)
        try:
            self._wait_for_lock(descriptor, clock, patience)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}, {purpose}".encode("utf-8", "replace"), 0)
            yield
        finally:
            os.close(descriptor)

    def holder(self) -> str | None:
        """Who is changing the tree at this moment; None when nobody is."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 200, 0).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
        return None

    def _wait_for_lock(self, descriptor: int, clock: Clock, patience: float) -> None:
        deadline = clock.now() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if clock.now() >= deadline:
                    holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
                    raise LockedError(
                        f"{self.root} is being changed by another call ({holder or 'unknown'}), and still was after "
                        f"{patience:g} s; nothing was changed. Wait for it to end, and run this again",
                        locked=True,
                    ) from error
            clock.sleep(_LOCK_POLL)


class Token(NamedTuple):
    """A fencing token and the rollout that brought it."""

    value: int
    rollout: str
