# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt and dpkg say, and what is made of it."""

from __future__ import annotations

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import apt
from ansible_collections.convoy.rollout.plugins.module_utils.packages import Change, Installed

SIMULATION = """\
Reading package lists...
The following packages will be REMOVED:
  old-lib
Remv old-lib [0.9-1]
Inst hello-lib [1] (2 stable [all]) []
Inst hello (1:1.1-1 Debian:12.5/stable, Security:12/stable [amd64])
Conf hello-lib (2 stable [all])
Conf hello (1:1.1-1 Debian:12.5/stable [amd64])
"""
VERIFIED = """\
??5?????? c /etc/hello.conf
??5??????   /usr/lib/hello/server.py
missing   c /etc/hello.d/a b
missing     /usr/lib/hello/with a blank
"""


def test_a_simulation_tells_what_changes() -> None:
    assert apt.parse_simulation(SIMULATION) == (
        Change("old-lib", "0.9-1", None),
        Change("hello-lib", "1", "2"),
        Change("hello", None, "1:1.1-1"),
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("install ok installed 1.0 all", Installed("1.0", False, True, 5.0)),
        ("hold ok installed 1.0 amd64", Installed("1.0", True, True, 5.0)),
        ("install ok half-configured 1.0 all", Installed("1.0", False, False, 5.0)),
        ("install reinstreq half-installed 1.0 all", Installed("1.0", False, False, 5.0)),
        ("deinstall ok config-files 1.0 all", None),
        ("hold ok not-installed  all", None),
        ("", None),
    ],
)
def test_a_status(line: str, found: Installed | None) -> None:
    assert apt.parse_status(line, lambda _architecture: 5.0) == found


def test_altered_files_without_configuration() -> None:
    assert apt.parse_verify(VERIFIED) == ["/usr/lib/hello/server.py", "/usr/lib/hello/with a blank"]


def test_half_installed_packages_are_found() -> None:
    text = "ok installed a\nok half-configured b\nreinstreq installed c\nok config-files d\nok triggers-pending e\n"
    assert apt.half_installed(text) == ["b", "c", "e"]
