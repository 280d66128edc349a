# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host to deploy to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.convoy.rollout.tests.unit.plugins.release_world import World


@pytest.fixture
def world() -> Iterator[World]:
    """An empty host, in memory where there is a place for that: what is synced there costs no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        made = World(Path(place))
        yield made
        made.supervisor.end_everything()
