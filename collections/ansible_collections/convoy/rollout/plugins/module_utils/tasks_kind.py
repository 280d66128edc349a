# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind tasks: an archive that is put in place by the site's own tasks, which run between two calls.

It is staged, kept and pruned as an archive is. What its tasks do to the host is theirs to know; what can be known here
is whether they were begun, and how they ended. See tasks_road for the two calls.
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils import process
from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import Unsettled
from ansible_collections.convoy.rollout.plugins.module_utils.process import Process
from ansible_collections.convoy.rollout.plugins.module_utils.record import Record
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterator

    from ansible_collections.convoy.rollout.plugins.module_utils.kinds import Difference


class Tasks:
    """See kinds.Kind."""

    def ready(self, host: Host, recorded: Record) -> None:
        """See Kind. One call alone cannot do it."""
        raise InputError(
            f"release {recorded.release} is put in place by tasks of the site: call state=begun, run them, and call "
            "state=settled; nothing was changed"
        )

    def activate(self, host: Host, recorded: Record) -> None:
        """See Kind. The tasks do it."""

    def revert(self, host: Host, recorded: Record) -> None:
        """See Kind. The tasks do it."""

    def sweep(self, host: Host) -> None:
        """See Kind. The tasks do it."""

    def info(self, host: Host, recorded: Record, verify: bool) -> Iterator[str]:
        """See Kind."""
        unsettled = host.history().unsettled(recorded.release)
        if unsettled is not None:
            yield f"the tasks that put {recorded.release} in place {told(unsettled)}: run the deployment again"

    def drift(self, host: Host, recorded: Record, digests: bool) -> Iterator[Difference]:
        """See Kind."""
        unsettled = host.history().unsettled(recorded.release)
        if unsettled is not None:
            yield ("tasks", recorded.release, "ended well", told(unsettled))

    def process_fault(self, host: Host, running: Process, recorded: Record, not_before: int) -> str | None:
        """See Kind. Where a process works may be anywhere, but not in another release."""
        if running.started_ticks < not_before:
            return f"process {running.pid} is older than the activation: it was not restarted"
        runs = process.release_of(running, host.tree.releases)
        if runs not in (None, recorded.release):
            return f"process {running.pid} works in release {runs}: restart its unit"
        return None


def told(unsettled: Unsettled) -> str:
    """What became of tasks that have not ended well."""
    return "failed" if unsettled.is_known else "were begun, and it is not known whether they are done"


TASKS = Tasks()
