# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of podman's answers; podman itself is asked on real hosts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import podman
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Container, Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ContainerError
from ansible_collections.convoy.rollout.plugins.module_utils.podman import Podman

PLAIN, DIGEST = "0b" * 32, f"sha256:{'0a' * 32}"
IMAGE = Image(DIGEST, f"sha256:{PLAIN}", "application/x", 400, "linux", "amd64")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a shell script stand for podman; what it was asked goes to the file `asked`."""

    def use(script: str) -> Path:
        path = tmp_path / "podman"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setitem(podman._ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "asked"

    return use


def answer(**fields: Any) -> str:
    return f"echo '{json.dumps([fields])}'"


def test_a_failure_names_command_exit_and_last_words(program: Any) -> None:
    program("echo first >&2; echo 'Error: no  space' >&2; exit 125")
    with pytest.raises(ContainerError, match=rf"^'podman tag {PLAIN} x' ended with 125: first; Error: no space$"):
        Podman().name(IMAGE, "x")


def test_long_words_are_cut(program: Any) -> None:
    program("printf 'x%.0s' $(seq 1000) >&2; exit 1")
    with pytest.raises(ContainerError, match=r": \.\.\.x{397}$"):
        Podman().check()


def test_silence_is_told(program: Any) -> None:
    program("exit 3")
    with pytest.raises(ContainerError, match="ended with 3: it said nothing"):
        Podman().check()


def test_a_podman_that_hangs_is_not_waited_for(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program("exec sleep 20")
    monkeypatch.setattr(podman, "_ASK", 0.1)
    with pytest.raises(ContainerError, match=r"'podman version .*' gave no answer within 0\.1 s"):
        Podman().check()


def test_a_host_without_podman_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(podman._ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(ContainerError, match="cannot run podman: No such file or directory; a container needs podman"):
        Podman().check()


@pytest.mark.parametrize("words", ["Error: no such container hello", "Error: inspecting object: x: image not known"])
def test_what_is_not_there_is_no_failure(program: Any, words: str) -> None:
    program(f"echo '[]'; echo '{words}' >&2; exit 125")
    assert Podman().container("hello") is None
    assert Podman().has(IMAGE) is False


@pytest.mark.parametrize("said", ["", "[]", "{}", '["x"]', "nonsense"])
def test_answers_that_are_none_are_refused(program: Any, said: str) -> None:
    program(f"echo '{said}'")
    with pytest.raises(ContainerError, match="podman inspect answered with something that is not its JSON"):
        Podman().has(IMAGE)


def test_a_container_is_read(program: Any) -> None:
    program(
        answer(
            Image=PLAIN,
            State={"Running": True},
            Config={"Labels": {"io.convoy.component": "hello"}},
        )
    )
    assert Podman().container("hello") == Container(IMAGE.id, "hello", is_running=True)
    program(answer(Image=IMAGE.id, State={"Running": False}, Config={"Labels": None}))
    assert Podman().container("hello") == Container(IMAGE.id, None, is_running=False)


def test_names_are_those_of_one_repository(program: Any) -> None:
    program("echo a:1; echo b:1; echo a:2; echo a-b:3; echo '<none>:<none>'")
    assert Podman().names("a") == ["a:1", "a:2"]


def test_an_image_in_use_is_left(program: Any) -> None:
    program("echo 'Error: image used by 12: image is in use by a container' >&2; exit 2")
    Podman().forget("a:1")
    program("echo 'Error: a:1: image not known' >&2; exit 1")
    Podman().forget("a:1")
    program("echo 'Error: disk on fire' >&2; exit 125")
    with pytest.raises(ContainerError, match="'podman rmi a:1' ended with 125: Error: disk on fire"):
        Podman().forget("a:1")


def test_an_image_is_pulled_from_a_layout_of_its_own(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "image-"
    monkeypatch.setattr(podman, "_PLACE", str(place))
    (tmp_path / "layout" / "blobs").mkdir(parents=True)
    tags = [f"localhost{place}0123:latest", "a:1"]
    found = answer(Digest=DIGEST, RepoTags=tags)
    copy = f'cp -r "${{3#oci:}}" {tmp_path}/seen'
    asked = program(f'[ "$1" = pull ] && {copy}; {found}')
    Podman().load(str(tmp_path / "layout"), IMAGE, "a:1")
    commands = asked.read_text().splitlines()
    assert [command.split()[0] for command in commands] == ["pull", "image", "tag", "untag"]
    assert commands[-2:] == [f"tag {PLAIN} a:1", f"untag {PLAIN} {tags[0]}"]
    index = json.loads((tmp_path / "seen" / "index.json").read_text())
    assert index["manifests"] == [{"mediaType": "application/x", "digest": DIGEST, "size": 400}]
    assert os.readlink(tmp_path / "seen" / "blobs") == str(tmp_path / "layout" / "blobs")
    assert not list(tmp_path.glob("image-*"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"Digest": "sha256:other"}, "and has sha256:other now"), ({}, "and has nothing of that id now")],
)
def test_an_image_that_is_another_one_is_refused(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(podman, "_PLACE", str(tmp_path / "image-"))
    program(f'[ "$1" != pull ] && {answer(RepoTags=[], **fields)}; true')
    with pytest.raises(ContainerError, match=told):
        Podman().load(str(tmp_path), IMAGE, "a:1")


def test_the_same_content_may_have_been_packed_before(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podman, "_PLACE", str(tmp_path / "image-"))
    program(answer(Digest="sha256:other", RepoTags=["a:1"], RepoDigests=["a@sha256:other", f"a@{DIGEST}"]))
    Podman().load(str(tmp_path), IMAGE, "a:1")
