# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a measurement, as a table and as JSON, with the machine and the versions that they are of."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def show(name: str, figures: Sequence[Mapping[str, Any]], arguments: Sequence[str], *packages: str) -> None:
    """Print the figures, a row each; write them to the file that ``arguments`` name, if any."""
    here = machine(*packages)
    columns = list(figures[0])
    rows = [columns, *([cell(figure[column]) for column in columns] for figure in figures)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    for path in arguments:
        Path(path).write_text(json.dumps({"measured": name, "on": here, "figures": figures}, indent=2) + "\n")


def cell(value: Any) -> str:
    """A figure as text; what was not measured is a dash."""
    return "-" if value is None else str(value)


def machine(*packages: str) -> dict[str, str]:
    """What the figures depend on. The load is that of others at the end of the measurement, and its own."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "load": f"{os.getloadavg()[0]:.1f}",
    }
