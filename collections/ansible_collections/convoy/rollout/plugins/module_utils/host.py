# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module call works with: the tree, the journal, the supervisor, the clock, and what was done when."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import process as processes
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.journal import BY_TASKS, IN_DOUBT, Entry, History, Journal
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record, kind_of
from ansible_collections.convoy.rollout.plugins.module_utils.systemd import UNIT_DIRECTORY, Supervisor
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING
from ansible_collections.convoy.rollout.plugins.module_utils.units import UnitDirectory

if TYPE_CHECKING:
    from typing import Any, Sequence


class Host:
    """One component on one host, in the hands of one rollout."""

    def __init__(
        self,
        tree: Tree,
        supervisor: Supervisor,
        clock: Clock,
        rollout: str = "",
        token: int = 0,
        unit_directory: str = UNIT_DIRECTORY,
    ) -> None:
        self.tree = tree
        self.journal = Journal(tree.journal)
        self.supervisor = supervisor
        self.clock = clock
        self.rollout = rollout
        self.token = token
        self.unit_directory = unit_directory
        self.steps: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.began = clock.wall()
        self.done("begun")

    @property
    def units(self) -> UnitDirectory:
        """The unit files of the component."""
        return UnitDirectory(self.unit_directory, self.tree.component)

    def history(self) -> History:
        """What the journal amounts to now."""
        return self.journal.history()

    def process_fault(self, running: processes.Process, recorded: Record, not_before: int) -> str | None:
        """Why a process is not a fresh one of a release, None when it is; `not_before`: in ticks since boot."""
        kind = kind_of(recorded)
        if kind is not None:
            return kind.process_fault(self, running, recorded, not_before)
        return processes.fault(running, self.tree.releases, recorded.release, not_before)

    def done(self, step: str) -> None:
        """Note that a step has just ended."""
        self.steps.append({"step": step, "at": round(self.clock.wall(), 3)})

    def note(self, event: str, release: str, **fields: Any) -> None:
        """Write to the journal, in the name of the rollout."""
        entry = Entry(self.clock.wall(), event, release, rollout=self.rollout, token=self.token, **fields)
        self.journal.append(entry)

    def begin(self, goes_on: bool = False) -> History:
        """What every changing call does first, under the lock: be admitted, tidy up, make the journal true.

        With `goes_on` what this rollout has announced is not taken for interrupted.
        """
        self.tree.admit(self.token, self.rollout)
        self.tree.clear_leftovers()
        history = self.history()
        pending = history.pending
        gone = sorted(set(history.standings) - self.tree.present())
        if pending is not None and goes_on and pending.rollout == self.rollout:
            pending = None
        if pending is not None:
            self.note(
                "interrupted",
                pending.release,
                came_from=pending.came_from,
                went_to=pending.went_to,
                reason=IN_DOUBT if pending.reason == BY_TASKS else "",
            )
        for release in gone:
            self.note("removed", release)
        return self.history() if pending or gone else history

    def outcome(
        self,
        release: str | None,
        changed: bool,
        reverted: bool = False,
        pruned: Sequence[str] = (),
        gate: dict[str, Any] | None = None,
        process: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What every call returns: what was done, and how the host is now."""
        active = self.tree.look_at_current().release
        return {
            "changed": changed,
            "release": release,
            "active": active,
            "previous": self.history().last_good(self.tree.present(), besides=active),
            "reverted": reverted,
            "pruned": list(pruned),
            "gate": gate,
            "process": process or {},
        }
