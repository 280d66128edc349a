# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab that the integration tests run over: its hosts, and an environment with a fleet at known releases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .environment import Ended, Environment, Look
from .fleet import Fleet
from .watching import Watched


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The hosts of the inventory named by CONVOY_TEST_INVENTORY, or of the lab named by CONVOY_LAB.

    CONVOY_LAB may name as many labs as xdist has workers, separated by commas: each works over one of its own.
    """
    named = os.environ.get("CONVOY_TEST_INVENTORY")
    if not named and os.environ.get("CONVOY_LAB"):
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        named = f"/var/lib/convoy-lab/labs/{os.environ['CONVOY_LAB'].split(',')[worker]}/hosts"
    if not named:
        pytest.fail(
            "no lab: set CONVOY_TEST_INVENTORY to an inventory with app1 to app6 and lb1, or run: make integration",
            pytrace=False,
        )
    if not Path(named).is_file():
        pytest.fail(f"the inventory {named} is not there: is the lab up? (lab/lab status)", pytrace=False)
    return Fleet(Path(named))


@pytest.fixture(scope="session")
def environment(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment of its own over the hosts of the lab, on which nothing was ever deployed."""
    environment = Environment(fleet, tmp_path_factory.mktemp("environment"))
    environment.wipe()
    yield environment
    environment.leave()


@dataclass(frozen=True)
class FirstRollouts:
    """The first deployment, of 1.0.0, with a look at the hosts after it; then that of 1.1.0, while clients ask."""

    deployed: Ended
    looks: dict[str, Look]
    rolled: Ended
    watched: Watched


@pytest.fixture(scope="session")
def first_rollouts(environment: Environment) -> FirstRollouts:
    """What happened on the way to a fleet that runs 1.1.0, with 1.0.0 behind it. Both are kept for other tests."""
    deployed = environment.deploy("1.0.0")
    assert deployed.rc == 0, deployed.said
    looks = environment.look()
    environment.keep("1.0.0")
    with environment.watched() as watched:
        rolled = environment.deploy("1.1.0")
    environment.keep("1.1.0")
    return FirstRollouts(deployed, looks, rolled, watched)


@pytest.fixture
def on_1_0_0(environment: Environment, first_rollouts: FirstRollouts) -> Environment:
    """The whole fleet on 1.0.0, its first release, and in service."""
    assert first_rollouts.deployed.rc == 0, first_rollouts.deployed.said
    environment.have("1.0.0")
    return environment


@pytest.fixture
def on_1_1_0(environment: Environment, first_rollouts: FirstRollouts) -> Environment:
    """The whole fleet on 1.1.0, in service, with 1.0.0 behind it."""
    assert first_rollouts.rolled.rc == 0, first_rollouts.rolled.said
    environment.have("1.1.0")
    return environment
