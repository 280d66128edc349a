# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a measurement as a table, and the machine and the versions that they are of."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def table(columns: Mapping[str, str], figures: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown, a row each; ``columns`` maps the names of figures to their heads."""
    rows = [list(columns.values()), ["---"] * len(columns)]
    rows += [[cell(figure[name]) for name in columns] for figure in figures]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(value: Any) -> str:
    """A figure as text; what was not measured is a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> str:
    """What the figures depend on, but for the load."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = models[0].partition(":")[2].strip() if models else platform.machine()
    libraries = ", ".join(f"{package} {version(package)}" for package in ("sqlalchemy", "psycopg"))
    return (
        f"{os.cpu_count()} cores of {cpu}, kernel {platform.release()}, Python {platform.python_version()}, "
        f"{libraries}, SQLite {sqlite3.sqlite_version}"
    )


def load() -> float:
    """How many processes have wanted a core during the last minute, on average."""
    return round(os.getloadavg()[0], 1)
