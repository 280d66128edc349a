# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a release to a host by as few calls and bytes as may be: what ``transfer`` decides is done here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.convoy.rollout.plugins.module_utils import names
from ansible_collections.convoy.rollout.plugins.module_utils.record import FileEntry
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest, ManifestError, from_json
from ansible_collections.convoy.rollout.plugins.plugin_utils.transfer import (
    Held,
    Next,
    Transfer,
    Wanted,
    Way,
    decide,
    from_base,
)

Result = dict[str, Any]
Call = Callable[[Mapping[str, Any], "str | None"], Result]


class Bringing:
    """One release on its way to one host. ``call`` calls the module with arguments, and a file that goes along."""

    def __init__(
        self, call: Call, arguments: Mapping[str, Any], artifact: str, manifest: Manifest, published: Path, cache: Path
    ) -> None:
        """``published``: the manifest's file in the depot; ``cache``: a directory for what is made of artifacts."""
        self._call, self._arguments = call, arguments
        self._artifact, self._manifest = Path(artifact), manifest
        self._published, self._cache = published, cache
        self._about: Result = {"way": "none", "calls": 0, "bytes": 0, "reused": 0, "base": None, "fallback": None}

    def bring(self, how: Transfer, lacking: bool, held: Sequence[Held]) -> Result:
        """What the last call returned, and ``transfer``: what it took. ``lacking`` and ``held`` as for ``decide``."""
        if boolean(self._arguments.get("strict") or False):  # hosts have to see owners and modes in the artifact itself
            how, held = (Transfer.PUSH if how is Transfer.DELTA else how), ()
        config = frozenset(str(item["dest"]) for item in self._arguments["config"])
        wanted = Wanted(self._manifest.artifact.sha256, self._manifest.files, config)
        step = decide(how, wanted, lacking, held, self._files_of)
        if step.way in (Way.ASK, Way.PULL):
            told = self._tell({"transfer": how.value})
            if not told.get("artifact_needed"):
                fetched = told.pop("fetched", None)
                return self._ended(told, "none" if fetched is None else "pull", fetched or 0)
            step = self._after(told, decide(how, wanted, True, held, self._files_of))
        if step.way is Way.DELTA:
            told = self._add_to(step)
            if not told.get("artifact_needed"):
                return told
        return self._ended(self._tell({}, self._artifact), "whole", self._manifest.artifact.size)

    def _after(self, told: Result, step: Next) -> Next:
        """What follows on the answer of a host that was asked, and may have said what the release can be made of."""
        base, lacks = told.get("base"), told.get("lacks", [])
        return from_base(base, lacks, self._manifest.files) if base and step.way is not Way.DELTA else step

    def _add_to(self, step: Next) -> Result:
        """Bring a delta. What is returned asks for the artifact where that comes to nothing."""
        from ansible_collections.convoy.rollout.plugins.plugin_utils.delta import DeltaError, delta_of

        try:
            delta = delta_of(self._artifact, self._manifest, step.missing, self._cache)
        except DeltaError as error:
            self._about["fallback"] = str(error)
            return {"artifact_needed": True}
        if delta.size >= self._manifest.artifact.size:
            return {"artifact_needed": True}
        told = self._tell({"delta": delta.for_host(step.base)}, delta.path)
        self._about["bytes"] += delta.size
        if told.get("artifact_needed"):
            self._about["fallback"] = told.pop("fallback", None)
            return told
        self._about.update(base=step.base, reused=told.pop("reused", 0))
        return self._ended(told, "delta", 0)

    def _tell(self, more: Mapping[str, Any], file: Path | None = None) -> Result:
        self._about["calls"] += 1
        return self._call({**self._arguments, **more}, str(file) if file else None)

    def _ended(self, told: Result, way: str, size: int) -> Result:
        self._about["way"] = way
        self._about["bytes"] += size
        return {**told, "transfer": self._about}

    def _files_of(self, held: Held) -> Sequence[FileEntry] | None:
        """The files of a release that was published beside this one. It is not verified, since nothing rests on it."""
        if names.release_fault(held.version):
            return None
        try:
            found = from_json((self._published.parents[1] / held.version / self._published.name).read_bytes())
        except (OSError, ManifestError):
            return None
        return found.files if found.artifact.sha256 == held.artifact else None
