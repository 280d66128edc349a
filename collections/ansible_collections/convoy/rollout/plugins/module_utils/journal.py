# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a release tree: what happened to which release, and what follows from it.

One JSON object a line, appended and synced before the call goes on. An entry that announces a
change ('activating', 'reverting') is written before the change and is followed by one that tells
its outcome; when a process is killed in between, the next call finds the announcement alone.
What the entries mean is decided by History, which is pure.
"""

from __future__ import annotations

import json
import os

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.module_utils.errors import TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import AbstractSet, Any, Iterable

EVENTS = frozenset(
    [
        "staged",  # whole, verified, beside the running release
        "activating",  # announcement: about to become current
        "active",  # current, its gate passed; not yet confirmed
        "good",  # current, its gate passed, nothing left to wait for
        "bad",  # its activation failed, or it failed its gate while it had to serve
        "reverting",  # announcement: about to be left
        "reverted",  # left on purpose; no target of a rollback until it is good again
        "interrupted",  # an announcement without an outcome was found
        "removed",  # no longer on this host
    ]
)
_LONGEST_REASON = 300
# The reason of an announcement of what tasks of the site do, and of the entry that finds it without an outcome.
BY_TASKS = "by tasks of the site"
IN_DOUBT = "begun by tasks, not known whether they are done"


class Entry(NamedTuple):
    """One line of the journal. `came_from` and `went_to` are the other release of a move."""

    at: float
    event: str
    release: str
    rollout: str = ""
    token: int = 0
    came_from: str | None = None
    went_to: str | None = None
    until: float | None = None
    reason: str = ""

    def line(self) -> bytes:
        """The entry as it is stored; at most about a kilobyte."""
        fields: dict[str, Any] = {"at": round(self.at, 3), "event": self.event}
        fields["release"] = self.release
        optional = (
            ("rollout", self.rollout),
            ("token", self.token),
            ("from", self.came_from),
            ("to", self.went_to),
            ("until", self.until and round(self.until, 3)),
            ("reason", self.reason[:_LONGEST_REASON]),
        )
        fields.update((key, value) for key, value in optional if value)
        return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def parse(line: bytes) -> Entry:
    """Read one line back. Raises ValueError when it is not one that Entry.line() wrote."""
    fields = json.loads(line.decode("ascii"))
    if not isinstance(fields, dict) or fields.get("event") not in EVENTS:
        raise ValueError("not a journal entry")
    release = fields.get("release")
    if not isinstance(release, str) or not isinstance(fields.get("at"), (int, float)):
        raise ValueError("a journal entry without release or time")
    return Entry(
        at=float(fields["at"]),
        event=fields["event"],
        release=release,
        rollout=str(fields.get("rollout", "")),
        token=int(fields.get("token", 0)),
        came_from=fields.get("from"),
        went_to=fields.get("to"),
        until=fields.get("until"),
        reason=str(fields.get("reason", "")),
    )


class Reading(NamedTuple):
    """What the journal's file says: its entries, the numbers of damaged lines, a cut-off end."""

    entries: tuple[Entry, ...]
    damaged: tuple[int, ...]
    torn: bool


class Journal:
    """The file. One process at a time appends: the caller holds the tree's lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen = b""
        self._entries: list[Entry] = []
        self._damaged: list[int] = []
        self._history = History({})

    def read(self) -> Reading:
        """Every entry. A last line without its newline was never acknowledged, and is left out."""
        try:
            with open(self.path, "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            data = b""
        end = data.rfind(b"\n") + 1
        self._follow(data[:end])
        return Reading(tuple(self._entries), tuple(self._damaged), torn=end < len(data))

    def _follow(self, lines: bytes) -> None:
        """Take in what is new. A call asks often, of a file that only grows, and may be long."""
        if not lines.startswith(self._seen):
            self._entries, self._damaged, self._history, self._seen = [], [], History({}), b""
        first = len(self._entries) + len(self._damaged) + 1
        for number, line in enumerate(lines[len(self._seen) :].split(b"\n")[:-1], start=first):
            try:
                entry = parse(line)
            except ValueError:
                self._damaged.append(number)
            else:
                self._entries.append(entry)
                self._history = self._history.after(entry)
        self._seen = lines

    def history(self) -> History:
        """What the entries amount to. Raises TreeError when a line of them cannot be read."""
        reading = self.read()
        if reading.damaged:
            raise TreeError(
                f"line {reading.damaged[0]} of {self.path} cannot be read, so it is not known which releases are "
                "good; compare it with the ledger, correct or remove the line, and run this again"
            )
        return self._history

    def append(self, entry: Entry) -> None:
        """Add an entry, and return when it is on the disk."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        is_new = not os.path.exists(self.path)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            _cut_torn_line(descriptor)
            durable.write_all(descriptor, entry.line())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            durable.fsync_directory(os.path.dirname(self.path))


def _cut_torn_line(descriptor: int) -> None:
    """Remove what a power cut left of a line, so that the next entry starts a line of its own."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    data = os.pread(descriptor, size, 0)
    os.ftruncate(descriptor, data.rfind(b"\n") + 1)


class Standing(NamedTuple):
    """What the journal says of one release.

    `origin` is the release that its last activation started from, `brought_by` the rollout that asked
    for it; `is_unfinished` until that activation had an outcome.
    """

    state: str
    at: float
    good_at: float | None = None
    since: float | None = None
    origin: str | None = None
    brought_by: str = ""
    is_unfinished: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it passed its gate when it last had to, and was not left for a reason since."""
        return self.good_at is not None


class WayBack(NamedTuple):
    """Where to go from a release that must be left.

    To `release`; or, when that is None, to nothing at all (there was nothing before); or nowhere,
    `stay`: there is nothing to go back to.
    """

    release: str | None = None
    stay: bool = False


class Unsettled(NamedTuple):
    """That tasks which ought to put the active release in place have not ended well.

    `is_known`: that they failed; else nobody knows how they ended, or whether they still run.
    """

    release: str
    is_known: bool


class History(NamedTuple):
    """What a journal amounts to. Pure: all that is decided from the past is decided here."""

    standings: dict[str, Standing]
    pending: Entry | None = None
    unconfirmed: Entry | None = None
    last_move_back: Entry | None = None

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> History:
        """Fold the entries, oldest first."""
        history = cls({})
        for entry in entries:
            history = history.after(entry)
        return history

    def after(self, entry: Entry) -> History:
        """The history with one more entry."""
        return _after(self, entry)

    def with_good(self, release: str, at: float) -> History:
        """The history as it will be when `release` has become good."""
        return self.after(Entry(at, "good", release))

    def state(self, release: str) -> str | None:
        """The state of a release, None for one that the journal does not know."""
        standing = self.standings.get(release)
        return None if standing is None else standing.state

    def is_good(self, release: str | None) -> bool:
        """Whether a release may be gone back to."""
        return release in self.standings and self.standings[release].is_good

    def good(self, present: AbstractSet[str]) -> list[str]:
        """The good releases among `present`, the newest first."""
        found = [
            (standing.good_at, release)
            for release, standing in self.standings.items()
            if standing.good_at is not None and release in present
        ]
        return [release for _at, release in sorted(found, reverse=True)]

    def last_good(self, present: AbstractSet[str], besides: str | None) -> str | None:
        """The newest good release of `present` that is not `besides`: the target of a rollback."""
        for release in self.good(present):
            if release != besides:
                return release
        return None

    def rollback_target(self, active: str | None, present: AbstractSet[str], rollout: str) -> WayBack:
        """Where a rollback that names no release goes: to the last good one.

        The rollout that brought the active release goes back to where it started, which may be
        nothing. It does so only once, and a rollback that was killed is completed: a second run
        never goes back one further.
        """
        back = self.last_move_back
        if back is not None and back.event == "interrupted" and self.state(back.release) == "interrupted":
            return WayBack(back.went_to)
        if active is None:
            return WayBack()
        if back is not None and back.rollout == rollout != "" and back.went_to == active:
            return WayBack(active)
        standing = self.standings.get(active)
        if standing is not None and standing.brought_by == rollout != "" and standing.origin is None:
            return WayBack()
        target = self.last_good(present, besides=active)
        return WayBack(target, stay=target is None)

    def way_back(self, current: str | None, target: str, present: AbstractSet[str]) -> WayBack:
        """Where to go if the activation of `target` fails while `current` is in service."""
        origin = self.origin_of(current, target)
        was_in_service = origin == target
        if was_in_service and self.is_good(target):
            return WayBack(stay=True)
        if origin in present and not was_in_service and (self.is_good(origin) or origin not in self.standings):
            return WayBack(origin)
        candidate = self.last_good(present, besides=target)
        if candidate is not None:
            return WayBack(candidate)
        if was_in_service:
            return WayBack(stay=True)
        if origin in present and self.state(str(origin)) in ("active", "bad", "reverted"):
            return WayBack(origin)
        return WayBack()

    def unsettled(self, active: str | None) -> Unsettled | None:
        """Whether it is open, or a failure, how the host came to its active release; None when it is settled."""
        state = self.state(active) if active is not None else None
        if active is None or state is None:
            return None
        back = self.pending if self.pending is not None and self.pending.event == "reverting" else self.last_move_back
        is_half_way = back is not None and back.went_to == active and back.event in ("reverting", "interrupted")
        if is_half_way or state in ("activating", "reverting", "interrupted"):
            return Unsettled(active, is_known=False)
        return Unsettled(active, is_known=True) if state == "bad" else None

    def origin_of(self, current: str | None, target: str) -> str | None:
        """The release that an activation of `target` starts from: also when it starts again after a kill.

        It is `target` itself when that one is in service already, and only has to be restarted.
        """
        standing = self.standings.get(target)
        if current == target and standing is not None and standing.is_unfinished:
            return standing.origin
        return current


def _after(history: History, entry: Entry) -> History:
    """The history with one more entry."""
    standings = dict(history.standings)
    known = standings.get(entry.release, Standing("unknown", entry.at))
    standings[entry.release] = _standing_after(known, entry)
    if entry.event == "removed":
        del standings[entry.release]
    if entry.event in ("bad", "reverted") and entry.went_to in standings:
        reached = standings[entry.went_to]
        standings[entry.went_to] = reached._replace(since=entry.at, is_unfinished=False)
    is_announcement = entry.event in ("activating", "reverting")
    pending = history.pending
    if is_announcement:
        pending = entry
    elif entry.event not in ("staged", "removed"):
        pending = None
    return History(
        standings,
        pending=pending,
        unconfirmed=_unconfirmed_after(history.unconfirmed, entry),
        last_move_back=_move_back_after(history, entry),
    )


def _unconfirmed_after(before: Entry | None, entry: Entry) -> Entry | None:
    if entry.event == "active":
        return entry
    if entry.event in ("staged", "removed", "interrupted"):
        return before
    return None


def _move_back_after(history: History, entry: Entry) -> Entry | None:
    """The entry that tells how the last move back ended, if nothing moved forward since."""
    if entry.event == "activating":
        return None
    was_reverting = history.pending is not None and history.pending.event == "reverting"
    if entry.event in ("bad", "reverted") and (entry.went_to or was_reverting):
        return entry
    if entry.event == "interrupted" and was_reverting:
        return entry
    return history.last_move_back


def _standing_after(known: Standing, entry: Entry) -> Standing:
    """What an entry makes of the release that it names."""
    event, at = entry.event, entry.at
    if event == "staged":
        state = "staged" if known.state == "unknown" else known.state
        return known._replace(state=state, at=at)
    if event == "activating":
        return known._replace(
            state=event,
            at=at,
            since=None,
            origin=entry.came_from,
            brought_by=entry.rollout,
            is_unfinished=True,
        )
    if event == "active":
        return known._replace(state=event, at=at, since=at)
    if event == "good":
        since = at if known.since is None else known.since
        return known._replace(state=event, at=at, good_at=at, since=since, is_unfinished=False)
    if event == "reverting":
        return known._replace(state=event, at=at, good_at=None, since=None)
    if event in ("bad", "reverted"):
        return known._replace(state=event, at=at, good_at=None, since=None, is_unfinished=False)
    return known._replace(state=event, at=at)
