# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""podman, as far as a release needs it: images in its storage, and the container that a unit runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

from ansible_collections.convoy.rollout.plugins.module_utils.containers import LABEL, Container, Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ContainerError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from typing import Any, Sequence

_ASK, _LOAD, _REMOVE = 60.0, 1800.0, 120.0  # seconds until an answer is not waited for any more
_LONGEST_WORDS = 400
# podman names what it takes from a directory after that one, so that it has to be a plain path. The same for the same
# image, whose names of calls that were killed go with the next one.
_PLACE = "/run/convoy-image-"
_ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# Its exit codes do not tell what is not there from what could not be done.
_NOT_THERE = ("no such container", "no such image", "image not known")


class Done(NamedTuple):
    """A command that has ended: its exit code, its answer, and its complaint."""

    code: int
    answer: str
    complaint: str

    @property
    def words(self) -> str:
        """The end of what it complained of, on one line."""
        lines = [" ".join(line.split()) for line in self.complaint.splitlines() if line.strip()]
        text = "; ".join(lines[-3:]) or "it said nothing"
        return text if len(text) <= _LONGEST_WORDS else "..." + text[3 - _LONGEST_WORDS :]


class Engine(Protocol):
    """What a release needs of what runs containers. Every method raises ContainerError when it could not be done."""

    def check(self) -> None:
        """Raise unless this host can run containers at all."""

    def has(self, image: Image) -> bool:
        """Whether the image is in the storage."""

    def load(self, layout: str, image: Image, name: str) -> None:
        """Bring an image of an OCI layout into the storage, under a name."""

    def name(self, image: Image, name: str) -> None:
        """Give an image that is in the storage a name; one that has it already keeps it."""

    def names(self, repository: str) -> list[str]:
        """The names of images that begin with this one, and a tag."""

    def forget(self, name: str) -> None:
        """Take a name away, and with its last name the image, unless a container uses it."""

    def container(self, name: str) -> Container | None:
        """The container of this name; None where there is none."""

    def remove(self, name: str) -> None:
        """Stop and remove a container, if it is there."""


class Podman:
    """The podman of this host."""

    def check(self) -> None:
        """See Engine."""
        _podman(["version", "--format", "{{.Client.Version}}"], _ASK)

    def has(self, image: Image) -> bool:
        """See Engine."""
        return self._inspected("image", _plain(image.id)) is not None

    def load(self, layout: str, image: Image, name: str) -> None:
        """See Engine. podman compares every blob with its digest; what it has then must be the image that is meant."""
        place = _PLACE + hashlib.sha256(name.encode()).hexdigest()[:16]
        shutil.rmtree(place, ignore_errors=True)
        try:
            _point_to(image, layout, place)
            _podman(["pull", "--quiet", f"oci:{place}"], _LOAD)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        found = self._inspected("image", _plain(image.id))
        digests = {found.get("Digest"), *_digests(found)} if found is not None else set()
        if image.digest not in digests:
            told = ", ".join(sorted(filter(None, digests))) or "nothing of that id"
            raise ContainerError(
                f"podman was given the image with the manifest {image.digest}, and has {told} now: look into it with "
                f"'podman image inspect {_plain(image.id)}', remove that image, and run this again"
            )
        self.name(image, name)
        for other in found["RepoTags"] if found is not None else ():
            if other.startswith(f"localhost{_PLACE}"):
                _podman(["untag", _plain(image.id), other], _ASK)

    def name(self, image: Image, name: str) -> None:
        """See Engine."""
        _podman(["tag", _plain(image.id), name], _ASK)

    def names(self, repository: str) -> list[str]:
        """See Engine."""
        told = _podman(["images", "--format", "{{.Repository}}:{{.Tag}}"], _ASK).answer
        return sorted({line for line in told.splitlines() if line.startswith(repository + ":")})

    def forget(self, name: str) -> None:
        """See Engine."""
        done = _run(["rmi", name], _REMOVE)
        if done.code and not _is_gone(done) and "in use" not in done.complaint and "used by" not in done.complaint:
            raise _failed(["rmi", name], done)

    def container(self, name: str) -> Container | None:
        """See Engine."""
        found = self._inspected("container", name)
        if found is None:
            return None
        state, labels = found.get("State") or {}, (found.get("Config") or {}).get("Labels") or {}
        image = str(found.get("Image", ""))
        return Container(
            image=image if image.startswith("sha256:") else f"sha256:{image}",
            component=labels.get(LABEL),
            is_running=bool(state.get("Running")),
        )

    def remove(self, name: str) -> None:
        """See Engine."""
        _podman(["rm", "--force", "--ignore", name], _REMOVE)

    def _inspected(self, kind: str, name: str) -> dict[str, Any] | None:
        done = _run([kind, "inspect", name], _ASK)
        if done.code and _is_gone(done):
            return None
        if done.code:
            raise _failed([kind, "inspect", name], done)
        return parse_inspected(done.answer)


def parse_inspected(text: str) -> dict[str, Any]:
    """What `podman inspect` says of one thing. ContainerError when it says something else."""
    try:
        found = json.loads(text)[0]
    except (ValueError, LookupError, TypeError) as error:
        raise ContainerError(f"podman inspect answered with something that is not its JSON: {error}") from error
    if not isinstance(found, dict):
        raise ContainerError(f"podman inspect answered with something that is not its JSON: {text[:80]!r}")
    return found


def _digests(found: dict[str, Any]) -> set[str]:
    """All digests of manifests that podman knows an image by: the same content may have been packed twice."""
    return {str(name).rpartition("@")[2] for name in found.get("RepoDigests") or ()}


def _point_to(image: Image, layout: str, place: str) -> None:
    """Make a layout of the blobs of another one with this image alone, however many that has."""
    os.mkdir(place, 0o700)
    descriptor = {"mediaType": image.media_type, "digest": image.digest, "size": image.size}
    contents = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "manifests": [descriptor]},
    }
    for name, content in contents.items():
        with open(os.path.join(place, name), "w", encoding="ascii") as stream:
            json.dump(content, stream)
    os.symlink(os.path.join(os.path.abspath(layout), "blobs"), os.path.join(place, "blobs"))


def _plain(digest: str) -> str:
    return digest.partition(":")[2]


def _is_gone(done: Done) -> bool:
    return any(words in done.complaint.lower() for words in _NOT_THERE)


def _podman(arguments: Sequence[str], patience: float) -> Done:
    done = _run(arguments, patience)
    if done.code:
        raise _failed(arguments, done)
    return done


def _failed(arguments: Sequence[str], done: Done) -> ContainerError:
    return ContainerError(f"'podman {' '.join(arguments)}' ended with {done.code}: {done.words}")


def _run(arguments: Sequence[str], patience: float) -> Done:
    """Run podman on this host, whatever the caller's environment says of others."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CONTAINER_", "XDG_"))}
    try:
        done = subprocess.run(
            ["podman", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            cwd="/",
            env={**environment, **_ENVIRONMENT},
            check=False,
        )
    except OSError as error:
        raise ContainerError(
            f"cannot run podman: {error.strerror}; a container needs podman 4 or newer on its host"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ContainerError(f"'podman {' '.join(arguments)}' gave no answer within {patience:g} s") from error
    return Done(done.returncode, done.stdout, done.stderr)
