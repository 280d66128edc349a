# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""depot.yml -e depot_do=push brings releases to a real SFTP server, from which deploy.yml takes them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils import depot_push
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot import Depot, Trust
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_place import RemoteDepotError
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_target import target_of
from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_upkeep import look_through
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.plugins.plugin_utils.signing import SshVerifier

from .conftest import ROOT, Ended, Site
from .sshd import Server, make_key, serving_sftp


def given(**variables: Any) -> list[str]:
    """Extra variables that keep their types."""
    return ["-e", json.dumps(variables)]


def refused(ended: Ended, *said: str) -> None:
    assert ended.rc == 2, ended.said
    for words in said:
        assert words in ended.said
    assert "Traceback" not in ended.said


def push(site: Site, *arguments: str) -> Ended:
    return site.run("depot.yml", "-e", "depot_do=push", *arguments)


def depot_of(site: Site) -> Path:
    return Path(site.variables["depot_path"])


def trust_of(site: Site) -> Trust:
    return Trust("tiny", SshVerifier(Path(site.variables["environment_allowed_signers"])))


def family(pid: int) -> list[int]:
    """The process and all that it has started, the youngest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*(one for child in children for one in family(int(child))), pid]


def modes(directory: Path) -> set[int]:
    return {path.stat().st_mode & 0o7777 for path in directory.rglob("*") if path.is_dir()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving_sftp(tmp_path) as server:
        yield server


@pytest.fixture
def promoted(site: Site, server: Server) -> Site:
    """Both releases are promoted, and the inventory says where the depot is to be."""
    site.run("depot.yml", "-e", "depot_do=verify")
    for number in ("1.0.0", "1.1.0"):
        assert site.run("promote.yml", "-e", f"component_version={number}").rc == 0
    site.variables |= {
        "depot_url": server.url,
        "depot_options": server.options,
        "depot_cache": str(site.directory / "cache"),
        "environment_requires_promotion": True,
    }
    return site


def test_what_is_pushed_is_deployed_from_there(promoted: Site, server: Server) -> None:
    checked = push(promoted, "--check")
    assert (checked.rc, "hello 1.0.0 would be pushed: " in checked.said) == (0, True), checked.said
    assert not server.depot.exists()
    refused(promoted.deploy("--check"), "has no hello 1.0.0: publish it first, and copy it there; it has none yet")
    ended = push(promoted)
    assert ended.rc == 0, ended.said
    assert f"pushed to {server.url}; 0 of 2 releases there before" in ended.said
    found = look_through(Depot(server.depot), trust_of(promoted))
    assert (found.releases, found.faults) == (2, [])
    assert (server.depot.stat().st_mode & 0o7777, modes(server.depot)) == (0o750, {0o750})
    again = push(promoted)
    assert "changed=0" in again.said
    assert "2 of 2 releases there before" in again.said
    deployed = promoted.deploy("--check")
    assert deployed.rc == 0, deployed.said
    (cached,) = (promoted.directory / "cache").glob("*/blobs/sha256/*")
    assert cached.read_bytes() == (depot_of(promoted) / "blobs" / "sha256" / cached.name).read_bytes()
    here = ["-e", "depot_url="]
    assert promoted.run("depot.yml", "-e", "depot_do=retire", "-e", "component_version=1.0.0", *here).rc == 0
    assert "hello 1.0.0 pushed: states/000004.json (retired)" in push(promoted).said
    refused(promoted.deploy("--check"), "hello 1.0.0 was retired at")
    assert promoted.deploy("--check", version="1.1.0").rc == 0


def test_the_group_of_the_place_is_kept(promoted: Site, server: Server) -> None:
    server.depot.mkdir()
    server.own(server.depot, 0o2750)
    assert push(promoted, "-e", "component_version=1.0.0").rc == 0
    assert modes(server.depot) == {0o2750}
    assert {path.stat().st_mode & 0o777 for path in server.depot.rglob("*") if path.is_file()} == {0o640}
    assert [path.name for path in (server.depot / "components" / "hello").iterdir()] == ["1.0.0"]


def test_a_push_that_is_killed_leaves_nothing_to_be_seen(promoted: Site, server: Server, releases: Path) -> None:
    """kill -9 while an artifact is on its way: nothing of it is seen, and the next push brings it and tidies up."""
    artifact, member = promoted.directory / "big.tar.gz", promoted.directory / "noise"
    member.write_bytes(random.Random(7).randbytes(100_000_000))
    with tarfile.open(artifact, "w:gz", compresslevel=1) as archive:
        archive.add(member, "noise")
    number = ["-e", "component_version=2.0.0"]
    key = ["-e", f"publish_signing_key={releases}/keys/release_key", "-e", "depot_url="]
    assert promoted.run("playbooks/publish.yml", *number, "-e", f"component_artifact={artifact}", *key).rc == 0
    assert promoted.run("promote.yml", *number, "-e", "depot_url=").rc == 0
    command = [Path(sys.executable).parent / "ansible-playbook", "depot.yml", "-i", promoted.inventory]
    run = subprocess.Popen(
        [*map(str, command), "-e", "depot_do=push", *number],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(promoted.directory / "ansible")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    coming = server.depot / "incoming"
    while not any(path.stat().st_size for path in coming.glob("push-*/file")) and run.poll() is None:
        time.sleep(0.002)
    for pid in family(run.pid):  # workers are in process groups of their own
        os.kill(pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert any(coming.rglob("file"))
    seen = server.depot / "blobs" / "sha256", server.depot / "components"
    assert [list(path.iterdir()) for path in seen] == [[], []]
    refused(promoted.deploy("--check", version="2.0.0"), "has no hello 2.0.0")
    ended = push(promoted)
    assert ended.rc == 0, ended.said
    assert "removed: what 1 interrupted push left" in ended.said
    assert look_through(Depot(server.depot), trust_of(promoted)).faults == []
    assert list(coming.iterdir()) == []
    assert promoted.deploy("--check", version="2.0.0").rc == 0


# whom it talks to


def forget(server: Server) -> None:
    (server.directory / "known_hosts").write_text("")


def know_another(server: Server) -> None:
    server.know(make_key(server.directory / "another"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            forget,
            ["is in no known_hosts, so that anybody could be this server", "(ssh-ed25519 SHA256:", "ssh-keyscan -p "],
        ),
        (know_another, ["has another key (ssh-ed25519 SHA256:", "this may be another server"]),
        (lambda server: (server.directory / "known_hosts").unlink(), ["depot_options.known_hosts: there is no file"]),
        (lambda server: (server.home / "authorized_keys").write_text(""), ["lets nobody in with the keys that were"]),
    ],
)
def test_only_a_known_server_that_knows_who_comes(
    promoted: Site, server: Server, spoil: Callable[[Server], object], said: list[str]
) -> None:
    """Neither is anything sent nor anything read from there."""
    spoil(server)
    refused(push(promoted), *said)
    refused(promoted.deploy("--check"), *said)
    assert not server.depot.exists()


# what the place is


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_place_that_others_may_use_is_refused(promoted: Site, server: Server, mode: int) -> None:
    server.depot.mkdir()
    server.own(server.depot, mode)
    refused(push(promoted), f"has mode {mode:04o}: others could read releases there", f"chmod 0750 {server.depot}")
    assert list(server.depot.iterdir()) == []


def test_a_place_that_may_not_be_written(promoted: Site, server: Server) -> None:
    server.depot.mkdir()
    server.own(server.depot, 0o550)
    refused(push(promoted), f"the depot {server.url} cannot be written", "Permission denied")
    assert list(server.depot.iterdir()) == []


def test_a_place_that_cannot_be_made(promoted: Site, server: Server) -> None:
    missing = server.home / "no" / "such"
    refused(
        push(promoted, *given(depot_url=server.url.replace(str(server.depot), str(missing)))),
        f"cannot be made: there is no directory {missing.parent} on the server",
    )


def test_another_manifest_there_is_not_replaced(promoted: Site, server: Server) -> None:
    assert push(promoted, "-e", "component_version=1.0.0").rc == 0
    there = server.depot / "components" / "hello" / "1.0.0" / "manifest.json"
    other = there.read_bytes().replace(b'"0644"', b'"0755"')
    there.write_bytes(other)
    refused(push(promoted), "has another hello 1.0.0: its manifest has the SHA-256 ", "and the one here ")
    assert there.read_bytes() == other
    assert not (server.depot / "components" / "hello" / "1.1.0").exists()


def test_a_damaged_artifact_keeps_all_from_being_pushed(promoted: Site, server: Server) -> None:
    for blob in (depot_of(promoted) / "blobs" / "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
    refused(push(promoted), "nothing was pushed: the artifact of hello 1.0.0, ", "was changed", "of hello 1.1.0")
    assert not server.depot.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", "depot_url="], "depot_url is not set, and that is where the depot is pushed to"),
        (["-e", "depot_url=https://releases.example/depot"], "can only be read, since over https nothing is written"),
        (["-e", "depot_url=sftp://daemon@127.0.0.1"], "names no directory: append its path"),
        (["-e", "depot_path=/nowhere/at/all"], "there is no depot at /nowhere/at/all"),
        (["-e", "component_version=1.2.0"], "has no hello 1.2.0"),
        (given(depot_options={"password": "secret"}), "over SFTP a depot is reached with a key"),
    ],
)
def test_what_makes_no_sense_is_refused(promoted: Site, server: Server, arguments: list[str], said: str) -> None:
    refused(push(promoted, *arguments), said)
    assert not server.depot.exists()


def test_nothing_is_promoted(site: Site, server: Server) -> None:
    site.variables |= {"depot_url": server.url, "depot_options": server.options}
    ended = push(site)
    assert (ended.rc, "there is nothing to push: no release is promoted for tiny" in ended.said) == (
        0,
        True,
    )
    assert "changed=0" in ended.said
    assert not server.depot.exists()


def test_two_at_once_do_each_other_no_harm(promoted: Site, server: Server) -> None:
    """From two machines, as it seems: what both bring is there once, and what the other one is bringing stays."""
    targets = [target_of(server.url, server.options, Run(name, 1, 1, "ann")) for name in ("far/1", "away/2")]
    parcels = depot_push.gather(Depot(depot_of(promoted)), trust_of(promoted))
    compared = [depot_push.compare(parcels, target) for target in targets]
    first, second = targets
    with first.session():
        depot_push.bring(compared[1], Depot(depot_of(promoted)), second)
        assert [path.name for path in (server.depot / "incoming").iterdir()] == [Path(first.incoming).name]
    depot_push.bring(compared[0], Depot(depot_of(promoted)), first)
    found = look_through(Depot(server.depot), trust_of(promoted))
    assert (found.releases, found.faults) == (2, [])


def test_a_connection_that_breaks_is_made_again(
    promoted: Site, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it breaks while releases are brought."""
    target = target_of(server.url, server.options, Run("far/1", 1, 1, "ann"), sleep=lambda seconds: None)
    attempt, counted = target.place.attempt, 0

    def breaking(do: Callable[[Any, str], Any]) -> Any:
        nonlocal counted
        counted += 1
        if counted % 3 == 0 and target.place._opened:
            target.place._opened[0].client.close()
        return attempt(do)

    monkeypatch.setattr(target.place, "attempt", breaking)
    parcels = depot_push.gather(Depot(depot_of(promoted)), trust_of(promoted))
    depot_push.bring(depot_push.compare(parcels, target), Depot(depot_of(promoted)), target)
    assert counted > 30
    found = look_through(Depot(server.depot), trust_of(promoted))
    assert (found.releases, found.faults) == (2, [])


def test_a_server_that_is_away_is_named(promoted: Site, server: Server) -> None:
    slept: list[float] = []
    url = server.url.replace(str(server.port), "9")
    target = target_of(url, server.options, Run("far/1", 1, 1, "ann"), sleep=slept.append)
    with pytest.raises(RemoteDepotError, match=r"cannot be written \(attempt 5\): .*run it again when that is mended"):
        target.check()
    assert slept == [1.0, 2.0, 4.0, 8.0]
