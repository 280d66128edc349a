# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release tree: `current` in every state, tokens, the lock, and what belongs to it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils.errors import (
    LockedError,
    NotIntactError,
    StaleTokenError,
    TreeError,
)
from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    made = Tree(str(tmp_path / "hello"), "hello")
    made.create()
    return made


def test_tree_is_made_once_and_left_as_it_is(tree: Tree) -> None:
    os.chmod(tree.releases, 0o711)
    tree.create()
    assert sorted(os.listdir(tree.root)) == [".convoy", "releases", "shared"]
    assert os.stat(tree.state).st_mode & 0o777 == 0o700
    assert os.stat(tree.releases).st_mode & 0o777 == 0o711


def test_a_place_is_the_same_by_another_name_and_another_beside_it(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree.root)
    assert Tree(str(tmp_path / "alias"), "hello").place() == tree.place()
    assert len({Tree(str(tmp_path / name), "hello").place() for name in ("hello", "none", "other")}) == 3


def test_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "releases").touch()
    with pytest.raises(TreeError, match=r"hello/releases is not a directory; move it away"):
        Tree(str(tmp_path / "hello"), "hello").create()


CURRENTS: dict[str, tuple[Callable[[Tree], None], str]] = {
    "not_a_link": (
        lambda tree: os.mkdir(tree.current),
        r"is not a symbolic link.*nothing was changed\. Move it away: mv \S+/current \S+/current\.before-convoy",
    ),
    "dangling": (
        lambda tree: os.symlink("releases/gone", tree.current),
        r"points to releases/gone, which is not there; nothing.*ln -sfn releases/ID \S+/current.*rm \S+/current",
    ),
    "elsewhere": (
        lambda tree: os.symlink("/opt/hello", tree.current),
        r"points to '/opt/hello', which is not of the form releases/ID; nothing was changed\. Remove it: rm ",
    ),
}


@pytest.mark.parametrize("kind", sorted(CURRENTS))
def test_current_that_convoy_did_not_make_is_refused_with_its_repair(tree: Tree, kind: str) -> None:
    make, message = CURRENTS[kind]
    make(tree)
    assert tree.look_at_current().kind == kind
    with pytest.raises(TreeError, match=message):
        tree.active()


@pytest.mark.parametrize(
    "target", ["releases/../../etc", "releases/", "releases/a/b", "./releases/a", "releases/.hidden"]
)
def test_links_that_only_look_like_ours(tree: Tree, target: str) -> None:
    os.symlink(target, tree.current)
    assert tree.look_at_current().kind == "elsewhere"


def test_file_in_the_place_of_current(tree: Tree) -> None:
    Path(tree.current).touch()
    assert tree.look_at_current().kind == "not_a_link"


def test_repair_of_a_dangling_link_names_what_is_there(world: Any) -> None:
    world.stage("1.0.0")
    os.symlink("releases/gone", world.root / "current")
    with pytest.raises(TreeError, match=r"ID is one of 1\.0\.0-abc"):
        world.host().tree.active()


def test_release_needs_both_directory_and_record(world: Any) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        world.stage(version)
    tree = world.host().tree
    os.unlink(tree.record_path("1.1.0-abc"))
    os.rename(tree.release("1.2.0-abc"), tree.release("renamed"))
    assert tree.present() == {"1.0.0-abc"}
    assert tree.strangers() == ["1.1.0-abc", "renamed"]
    for release in ("1.1.0-abc", "1.2.0-abc", "9.9.9"):
        with pytest.raises(NotIntactError, match="is not on this host: stage it first"):
            tree.verify(release)


# --- tokens ------------------------------------------------------------------------------------------------------


def test_lower_token_is_refused_and_the_newer_rollout_named(tree: Tree) -> None:
    tree.admit(7, "r-7")
    tree.admit(7, "r-7")
    with pytest.raises(
        StaleTokenError, match=r"token 6 .* is stale: rollout r-7 came here with token 7; nothing was changed"
    ) as caught:
        tree.admit(6, "r-6")
    assert caught.value.details == {"stale_token": True, "token": 6, "highest": 7}
    tree.admit(8, "r-8")
    assert (tree.token().value, tree.token().rollout) == (8, "r-8")


def test_check_mode_remembers_no_token(tree: Tree) -> None:
    tree.admit(7, "r-7", remember=False)
    assert tree.token().value == 0


@pytest.mark.parametrize("content", [b"", b"seven", b"{}", b"[7]", b'{"token": null, "rollout": ""}'])
def test_token_that_cannot_be_read_stops_everything(tree: Tree, content: bytes) -> None:
    Path(tree.state, "token").write_bytes(content)
    with pytest.raises(TreeError, match="token cannot be read"):
        tree.admit(9, "r-9")


# --- the lock ----------------------------------------------------------------------------------------------------


def test_second_call_waits_and_then_names_the_first(world: Any) -> None:
    tree = world.host().tree
    with tree.lock(world.clock, 5, "state=active of rollout r-1"):
        before = world.clock.time
        holder = rf"process {os.getpid()}, state=active of rollout r-1\), and still was after 5 s"
        with pytest.raises(LockedError, match=holder), tree.lock(world.clock, 5, "state=active of rollout r-2"):
            pytest.fail("two at once")
        assert 5 <= world.clock.time - before < 6
    with tree.lock(world.clock, 0, "state=active of rollout r-2"):
        assert Path(tree.lock_path).read_text().endswith("r-2")


def test_lock_of_a_dead_process_is_free(world: Any) -> None:
    tree = world.host().tree
    child = os.fork()
    if child == 0:
        descriptor = os.open(tree.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os._exit(0)
    os.waitpid(child, 0)
    with tree.lock(world.clock, 0, "next"):
        pass


# --- leftovers ---------------------------------------------------------------------------------------------------


def test_leftovers_go_and_everything_else_stays(world: Any) -> None:
    host = world.host()
    tree = host.tree
    for directory in ("unpack.1.0.0-abc.0123", "trash.1.0.0-abc.0123", "mine"):
        os.makedirs(os.path.join(tree.incoming, directory, "deep"))
    Path(tree.incoming, "artifact.tar.gz").touch()
    os.symlink("releases/x", os.path.join(tree.root, ".current.0123456789ab.convoy-new"))
    Path(tree.root, ".other.0123456789ab.convoy-new").touch()
    Path(tree.state, ".token.0123456789ab.convoy-new").touch()
    Path(tree.state, "releases", ".a.json.0123456789ab.convoy-new").touch()
    host.begin()
    assert sorted(os.listdir(tree.incoming)) == ["artifact.tar.gz", "mine"]
    assert sorted(os.listdir(tree.root)) == [".convoy", ".other.0123456789ab.convoy-new", "releases", "shared"]
    assert sorted(os.listdir(tree.state)) == ["incoming", "releases", "token"]
    assert os.listdir(os.path.join(tree.state, "releases")) == []


def test_release_that_somebody_removed_is_noted(world: Any) -> None:
    world.stage("1.0.0")
    os.rename(world.root / "releases" / "1.0.0-abc", world.place / "away")
    world.host().begin()
    assert world.events() == ["staged 1.0.0", "removed 1.0.0"]
    world.host().begin()
    assert world.events() == ["staged 1.0.0", "removed 1.0.0"]
