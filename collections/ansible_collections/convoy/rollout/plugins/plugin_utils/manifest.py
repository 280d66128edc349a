# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a release: what is signed, and what a host unpacks against.

docs/manifest.schema.json describes it for others. It is canonical JSON (keys sorted, no
blanks, UTF-8), so that the same manifest is always the same bytes under a signature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

from ansible_collections.convoy.rollout.plugins.module_utils import containers, names, record
from ansible_collections.convoy.rollout.plugins.module_utils.containers import Image
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.module_utils.naming import did_you_mean
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.module_utils.unpack import link_fault
from ansible_collections.convoy.rollout.plugins.plugin_utils import sbom
from ansible_collections.convoy.rollout.plugins.plugin_utils.errors import ConvoyError

SCHEMA = 1
FORMATS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip")
SBOM_FORMATS = (sbom.CYCLONEDX, sbom.SPDX)

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Kind = TypeVar("_Kind")
_Content = TypeVar("_Content")
_RELEASE_SUFFIX = "-" + 12 * "0"  # what a release id adds to a version


class ManifestError(ConvoyError):
    """Something that is no manifest, or may not stand in one."""

    reason: ClassVar[str] = "manifest"


@dataclass(frozen=True)
class Artifact:
    """The archive of a release."""

    sha256: str
    size: int
    format: str = "tar.gz"


@dataclass(frozen=True)
class Sbom:
    """The bill of material that is kept with a release."""

    sha256: str
    size: int
    format: str


@dataclass(frozen=True)
class Manifest:
    """A release as its publisher signed it. Raises ManifestError for values that cannot be.

    ``serial`` grows with every publication of the component. ``audience`` names the
    environments that may run the release; empty is all of them. Times are UTC, in whole seconds. ``image`` is what
    the artifact is the OCI layout of, where it is one.
    """

    component: str
    version: str
    serial: int
    created: datetime
    artifact: Artifact
    files: tuple[FileEntry, ...]
    audience: tuple[str, ...] = ()
    expires: datetime | None = None
    signer: str | None = None
    sbom: Sbom | None = None
    image: Image | None = None

    def __post_init__(self) -> None:
        check_name(self.component, self.version)
        check_audience(self.audience)
        if self.serial < 1:
            raise ManifestError(f"serial {self.serial} is not a number from 1 on")
        if not record.is_sha256(self.artifact.sha256) or self.artifact.size < 0:
            raise ManifestError(f"artifact {self.artifact!r} has no digest and size")
        if self.artifact.format not in FORMATS:
            raise ManifestError(f"artifact format '{self.artifact.format}' is unknown: use {', '.join(FORMATS)}")
        if self.sbom is not None and (not record.is_sha256(self.sbom.sha256) or self.sbom.size < 0):
            raise ManifestError(f"sbom {self.sbom!r} has no digest and size")
        if self.sbom is not None and self.sbom.format not in SBOM_FORMATS:
            raise ManifestError(f"sbom format '{self.sbom.format}' is unknown: use {', '.join(SBOM_FORMATS)}")
        _check_files(self.files)

    def to_json(self) -> bytes:
        """The bytes that are signed."""
        optional = {
            "audience": list(self.audience),
            "expires": self.expires and format_time(self.expires),
            "signer": self.signer,
            "sbom": self.sbom and asdict(self.sbom),
        }
        content = {
            "schema": SCHEMA,
            "component": self.component,
            "version": self.version,
            "serial": self.serial,
            "created": format_time(self.created),
            **self.for_host(),
            **{key: value for key, value in optional.items() if value},
        }
        try:
            return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ManifestError(f"'{error.object[error.start - 40 : error.end]!a}' is no valid UTF-8") from error

    def for_host(self) -> dict[str, Any]:
        """What a host needs of it to stage the release: artifact, files, and the image where it is one."""
        return {
            **({"image": self.image._asdict()} if self.image is not None else {}),
            "artifact": {
                "sha256": self.artifact.sha256,
                "size": self.artifact.size,
                "format": self.artifact.format,
            },
            "files": [_file_fields(entry) for entry in self.files],
        }


@lru_cache(maxsize=4)  # many hosts get the same release
def from_json(content: bytes) -> Manifest:
    """Read a manifest. Raises ManifestError unless these are exactly the bytes that to_json() makes."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is no JSON: {error}") from error
    manifest = _from_values(values)
    if manifest.to_json() != content:
        raise ManifestError("the manifest is not in canonical form: keys sorted and unique, no blanks, UTF-8")
    return manifest


def check_name(component: str, version: str) -> None:
    """Raise ManifestError unless both can be part of paths and of a release id."""
    try:
        names.component(component)
    except ConvoyTargetError as error:
        raise ManifestError(str(error)) from error
    if names.release_fault(version + _RELEASE_SUFFIX):
        raise ManifestError(
            f"version '{version}' cannot be used: 1 to {128 - len(_RELEASE_SUFFIX)} letters, digits, '.', '_', '+' "
            "or '-', the first not '.' or '-'"
        )


def check_audience(audience: Iterable[str]) -> None:
    """Raise ManifestError unless these are names of environments, sorted, each once."""
    listed = list(audience)
    for name in listed:
        if not _ENVIRONMENT.fullmatch(name):
            raise ManifestError(f"audience '{name}' is no environment's name: letters, digits, '.', '_' or '-'")
    if sorted(set(listed)) != listed:
        raise ManifestError(f"audience {', '.join(listed)} must be sorted, each environment once")


def _check_files(files: Sequence[FileEntry]) -> None:
    paths = [entry.path for entry in files]
    if not paths or sorted(set(paths)) != paths:
        raise ManifestError("files must be one or more, sorted by path, each path once")
    links = {entry.path: entry.link for entry in files if entry.link is not None}
    for path, target in links.items():
        fault = link_fault(path, target, links)
        if fault:
            raise ManifestError(f"file '{path}' is a symbolic link to '{target}': {fault}")


def parse_time(name: str, value: str) -> datetime:
    """A time as manifests write it, such as 2030-01-31T00:00:00Z."""
    try:
        return datetime.strptime(value, _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise ManifestError(f"{name} '{value}' is no time in UTC such as 2030-01-31T00:00:00Z") from error


def format_time(moment: datetime) -> str:
    """The moment as manifests write it."""
    return moment.astimezone(UTC).strftime(_TIME)


def _from_values(values: Any) -> Manifest:
    known = {"schema", *(field.name for field in fields(Manifest))}
    required = known - {"audience", "expires", "signer", "sbom", "image"}
    _check_keys("the manifest", values, required, known)
    if values["schema"] != SCHEMA:
        raise ManifestError(f"schema {values['schema']!r} is unknown: this Convoy reads {SCHEMA}")
    expires, signer = values.get("expires"), values.get("signer")
    return Manifest(
        component=_typed("component", values["component"], str),
        version=_typed("version", values["version"], str),
        serial=_typed("serial", values["serial"], int),
        created=parse_time("created", _typed("created", values["created"], str)),
        artifact=_content("artifact", values["artifact"], Artifact),
        files=tuple(_file(entry) for entry in _typed("files", values["files"], list)),
        audience=tuple(_typed("audience", name, str) for name in _typed("audience", values.get("audience", []), list)),
        expires=None if expires is None else parse_time("expires", _typed("expires", expires, str)),
        signer=None if signer is None else _typed("signer", signer, str),
        sbom=_content("sbom", values["sbom"], Sbom) if "sbom" in values else None,
        image=_image(values["image"]) if "image" in values else None,
    )


def _content(name: str, values: Any, kind: Callable[[str, int, str], _Content]) -> _Content:
    """What is known of a file by its digest, its size and its format."""
    keys = {"sha256", "size", "format"}
    _check_keys(name, values, keys, keys)
    return kind(
        _typed(f"{name}.sha256", values["sha256"], str),
        _typed(f"{name}.size", values["size"], int),
        _typed(f"{name}.format", values["format"], str),
    )


def _image(values: Any) -> Image:
    try:
        return containers.image_of(_typed("image", values, dict))
    except ConvoyTargetError as error:
        raise ManifestError(str(error)) from error


def _file(values: Any) -> FileEntry:
    try:
        return record.file_entry(_typed("files", values, dict))
    except ConvoyTargetError as error:
        raise ManifestError(str(error)) from error


def _file_fields(entry: FileEntry) -> dict[str, Any]:
    if entry.link is not None:
        return {"path": entry.path, "link": entry.link}
    return {"path": entry.path, "size": entry.size, "mode": f"{entry.mode:04o}", "sha256": entry.sha256}


def _check_keys(what: str, values: Any, required: set[str], known: set[str]) -> None:
    for key in sorted(required - _typed(what, values, dict).keys()):
        raise ManifestError(f"{what} has no '{key}'")
    for key in sorted(values.keys() - known):
        raise ManifestError(f"{what} has an unknown key '{key}'{did_you_mean(key, known)}")


def _typed(name: str, value: Any, kind: type[_Kind]) -> _Kind:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ManifestError(f"{name} is {value!r}, which is no {kind.__name__}")
    return value
