# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/hardening.md names is there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_that_is_named_is_there(root: Path, files: list[Path]) -> None:
    page = (root / "docs/hardening.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)`", page))
    assert len(named) > 10
    assert named <= {path.name for path in files}


def test_every_target_that_is_named_is_there(root: Path) -> None:
    page, makefile = (root / "docs/hardening.md").read_text(), (root / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z0-9-]+)`", page))
    assert {"prove", "prove-kills", "prove-power", "prove-archives"} <= named
    assert named <= set(re.findall(r"^([a-z0-9-]+):.* ## ", makefile, re.MULTILINE))
