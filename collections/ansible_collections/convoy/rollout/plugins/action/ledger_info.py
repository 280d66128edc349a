# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell what the ledger holds of a component, verify it, and export it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.convoy.rollout.plugins.plugin_utils import chronicle
from ansible_collections.convoy.rollout.plugins.plugin_utils.controller_action import ControllerAction, Result
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.audit import Audit, audit
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.export import export
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.history import story
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import stream_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import (
    Ledger,
    LedgerError,
    entries_in,
    not_intact,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.run import this_run
from ansible_collections.convoy.rollout.plugins.plugin_utils.variables import refuse_unknown


class NotAsRecordedError(LedgerError):
    """The ledger is not what was written; the result still tells what is there."""

    def __init__(self, message: str, told: Result) -> None:
        super().__init__(message)
        self.details = told


class ActionModule(ControllerAction):
    """``convoy.rollout.ledger_info``"""

    SPEC: ClassVar[Mapping[str, Any]] = {
        "ledger_url": {"type": "str", "required": True, "no_log": True},
        "environment": {"type": "str", "required": True},
        "component": {"type": "str", "required": True},
        "rollout": {"type": "str", "default": ""},
        "last": {"type": "int", "default": 20},
        "export": {"type": "path"},
    }

    def perform(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> Result:
        """Read everything in one view; a ledger that is not as it was written is a failure, after all was told."""
        refuse_unknown(task_vars)
        if arguments["last"] < 1:
            raise SpecError(f"ledger_last: {arguments['last']} is out of range: at least 1 rollout is told")
        stream = stream_of(arguments)
        ledger = Ledger(arguments["ledger_url"], str(this_run()), reads_only=True)
        ledger.expect()
        with ledger.reading() as connection:
            found = audit(connection, stream, arguments["last"])
            entries = list(entries_in(connection, stream, arguments["rollout"])) if arguments["rollout"] else []
            if arguments["rollout"] and not entries:
                raise LedgerError(f"rollout {arguments['rollout']} is not in the ledger of {stream}: check its id")
            told = list(story(entries))
            exported, changed = self._export(arguments["export"], entries_in(connection, stream))
        history = [
            *chronicle.history_lines(found.chapters, time.time()),
            *chronicle.refusal_lines(found.refusals),
        ]
        summary = chronicle.story_lines(told) or history
        result = {
            "changed": changed,
            **_facts(found),
            "story": [asdict(line) for line in told],
            "convoy": {"summary": [*summary, *chronicle.verdict_lines(found), *exported]},
        }
        _refuse_unless_whole(found, result)
        return result

    def _export(self, path: str | None, entries: Any) -> tuple[list[str], bool]:
        """What is said of the export, and whether a file was written."""
        if not path:
            return [], False
        if self.check_mode:
            return [f"check mode: {path} would be written, it was not"], False
        changed = export(entries, Path(path))
        return [f"exported to {path}" if changed else f"{path} holds the same already"], changed


def _facts(found: Audit) -> dict[str, Any]:
    return {
        "intact": found.broken is None,
        "differs": found.differs,
        "head": {"seq": found.head, "hash": found.head_hash},
        "rollouts": [asdict(one) for one in found.chapters],
        "refusals": [asdict(one) for one in found.refusals],
    }


def _refuse_unless_whole(found: Audit, result: Result) -> None:
    if found.broken:
        raise NotAsRecordedError(str(not_intact(found.stream, found.broken)), result)
    if found.differs:
        raise NotAsRecordedError(
            f"the tables of {found.stream} are not what its events say: {found.differs[0]}. The events are intact: "
            "restore the tables from a backup, or find out who changed them, before the next deployment",
            result,
        )
