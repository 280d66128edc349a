# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives ansible-test its pip from a wheel beside this file, where it would download a script.

tests/ansible-test puts both into ansible-test's cache. It is run in an empty virtual environment, with the packages
to install (pip itself) and with switches of the script that it replaces.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

REPLACED_SWITCHES = {"--no-setuptools", "--no-wheel"}


def main() -> None:
    cache = Path(__file__).resolve().parent
    wheel = next(cache.glob("pip-*.whl"))
    sys.path.insert(0, str(wheel))
    arguments = [argument for argument in sys.argv[1:] if argument not in REPLACED_SWITCHES]
    sys.argv = ["pip", "install", "--no-index", "--find-links", str(cache), *arguments]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
