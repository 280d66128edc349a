# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The events of a stream as lines of JSON, so that any other program can verify the chain."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.convoy.rollout.plugins.module_utils import durable
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.chain import Entry
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.store import LedgerError

_MODE = 0o600


def line_of(entry: Entry) -> str:
    """One event. ``data`` stays text: the hash covers it as it is written."""
    return json.dumps({**vars(entry), "at": float(entry.at)}) + "\n"


def export(entries: Iterable[Entry], path: Path) -> bool:
    """Write the entries for the owner alone, all or nothing. False where the file says the same already."""
    temporary = durable.temporary_name(str(path.absolute()))
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "w", encoding="utf-8") as stream:
            stream.writelines(line_of(entry) for entry in entries)
            stream.flush()
            os.fsync(stream.fileno())
        if _is_the_same(Path(temporary), path):
            return False
        durable.rename(temporary, str(path.absolute()))
    except OSError as error:
        raise LedgerError(f"ledger_export: {path} cannot be written: {error.strerror}") from error
    finally:
        durable.remove_if_there(temporary)
    return True


def _is_the_same(fresh: Path, path: Path) -> bool:
    there = path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == _MODE
    return there and filecmp.cmp(fresh, path, shallow=False)
