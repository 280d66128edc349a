# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What really travels to a host: the bytes that its network card receives, whatever a result says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Fleet
from .transfers import (
    CLEAN,
    FILES,
    HOST,
    NOTHING,
    OVERHEAD,
    ROOT,
    TOTAL,
    Depot,
    Web,
    contents_of,
    sha256_of,
    web_server,
)


@pytest.fixture(scope="module")
def depot(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    """A depot, and a host that has its 1.0.0 active and nothing else of it."""
    fleet.shell(HOST, CLEAN)
    depot = Depot(fleet, tmp_path_factory.mktemp("depot"))
    first = depot.publish("1.0.0", contents_of())
    result, received = depot.stage(first, transfer="delta", **depot.known())
    assert result["transfer"] == {**NOTHING, "way": "whole", "bytes": first.size}
    assert received > first.size
    depot.activate(first)
    yield depot
    fleet.shell(HOST, CLEAN)


def test_an_artifact_that_a_host_has_is_not_sent_again(depot: Depot) -> None:
    configured = depot.publish("1.0.0", contents_of(), {"etc/transfer.ini": "port = 1\n"})
    result, received = depot.stage(configured, **depot.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1)
    assert received < OVERHEAD
    again, received = depot.stage(configured, transfer="pull", url="http://127.0.0.1:1/")
    assert (again["changed"], again["transfer"]) == (False, NOTHING)
    assert received < OVERHEAD


@pytest.mark.parametrize("version", ["1.1.0", "1.1.1"])
def test_five_per_cent_changed_are_less_than_ten_per_cent_sent(depot: Depot, version: str) -> None:
    """Whether or not it is known what the host has."""
    second = depot.publish(version, contents_of(changed=FILES // 20, seed=version))
    known = depot.known() if version == "1.1.0" else {}
    result, received = depot.stage(second, transfer="delta", **known)
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1 if known else 2)
    assert result["transfer"]["reused"] == (TOTAL // FILES) * (FILES - FILES // 20)
    assert result["transfer"]["bytes"] < received < second.size / 10


def test_the_same_once_more_without_pipelining(depot: Depot) -> None:
    second = depot.publish("1.1.2", contents_of(changed=FILES // 20, seed="1.1.2"))
    result, _received = depot.stage(second, "-e", '{"ansible_pipelining": false}', transfer="delta", **depot.known())
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("delta", 1)
    again, _received = depot.stage(second, transfer="delta")
    assert (again["changed"], again["transfer"]) == (False, NOTHING)


@pytest.fixture
def web(depot: Depot, tmp_path: Path) -> Iterator[Web]:
    """A web server that breaks connections in the middle of an artifact."""
    with web_server(depot.fleet, tmp_path, breaks_after=2_000_000) as server:
        yield server


def test_a_host_fetches_what_it_lacks(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.0", contents_of(changed=15, seed="1.2.0"))
    shutil.copy(second.artifact, web.directory / sha256_of(second.artifact.read_bytes()))
    result, received = depot.stage(second, transfer="pull", url=web.url, **depot.known())
    assert result["transfer"] == {**NOTHING, "way": "pull", "bytes": second.size}
    assert [begin for begin, _authorization in web.asked] == [0, 2_000_000, 4_000_000]
    assert second.size < received < second.size + OVERHEAD + second.size // 10
    depot.stage(second, transfer="pull", url=web.url)
    assert len(web.asked) == 3


def test_what_a_host_cannot_fetch_leaves_nothing_but_what_came(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.1", contents_of(changed=15, seed="1.2.1"))
    sha256 = sha256_of(second.artifact.read_bytes())
    data = bytearray(second.artifact.read_bytes())
    data[3_000_000] ^= 1
    (web.directory / sha256).write_bytes(data)
    told = depot.fleet.module(HOST, "convoy.rollout.release", {**second.arguments, "transfer": "pull", "url": web.url})
    assert (told["failed"], told.get("active")) == (True, None)
    assert f"the manifest says {sha256}" in told["msg"]
    there = depot.fleet.shell(HOST, f"ls {ROOT}/releases; stat -c %s {ROOT}/.convoy/incoming/*").split()
    assert second.arguments["release"] not in there
    assert there[-1] == "0"
    shutil.copy(second.artifact, web.directory / sha256)
    depot.stage(second, transfer="pull", url=web.url)


def test_credentials_are_nowhere_to_be_seen(depot: Depot, web: Web) -> None:
    second = depot.publish("1.2.2", contents_of(changed=15, seed="1.2.2"))
    pull = {"authorization": "Bearer s3cr3t-0f-the-depot"}
    for options in (("-vvvv",), ("-e", '{"ansible_pipelining": false}', "-vvvv")):
        arguments = {**second.arguments, "transfer": "pull", "url": web.url, "pull": pull}
        told = depot.fleet.module(HOST, "convoy.rollout.release", arguments, *options)
        assert "is not https: anyone on the way could read the authorization" in told["msg"]
        assert "s3cr3t" not in str(told)


def test_a_damaged_base_falls_back_to_the_whole(depot: Depot) -> None:
    """The last test: it leaves no base to work with."""
    path = max(contents_of())
    second = depot.publish("1.3.0", contents_of(changed=15, seed="1.3.0"))
    known = depot.known()
    (base,) = (release["id"] for release in known["releases"] if release["state"] == "good")
    depot.fleet.shell(HOST, f"printf x | dd of={ROOT}/releases/{base}/{path} conv=notrunc status=none")
    result, received = depot.stage(second, transfer="delta", **known)
    assert (result["transfer"]["way"], result["transfer"]["calls"]) == ("whole", 2)
    assert f"release {base} is not intact on this host: {path}" in result["transfer"]["fallback"]
    assert received > second.size
