# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configuration and units of a release: rendered on the controller with the host's variables, part of the release."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils.packages import in_release_id
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest

CONFIG_KEYS = ("dest", "src", "mode", "secret")
UNIT_KEYS = ("name", "src", "action", "secret")


@dataclass(frozen=True)
class Rendered:
    """What a release adds to its artifact: ``config`` and ``units`` as the module ``release`` takes them.

    ``secrets`` are the names of those whose content is not to be shown. That is no part of the release.
    """

    config: tuple[Mapping[str, str], ...]
    units: tuple[Mapping[str, str], ...]
    secrets: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(json.dumps([self.config, self.units], sort_keys=True).encode()).hexdigest()


def render(
    config: Sequence[Any], units: Sequence[Any], template: Callable[[str], str], may_be_named: bool = False
) -> Rendered:
    """Render every ``src`` of ``component_config`` and ``component_units``; ``template`` renders one file.

    Where units ``may_be_named`` only, those without a ``src`` are there by other means.
    """

    def unit(field: str, item: Any) -> dict[str, str]:
        if may_be_named and isinstance(item, Mapping) and "src" not in item:
            return _checked(field, item, ("name", "action"))
        return _render(field, item, UNIT_KEYS, template)

    return Rendered(
        tuple(_render(f"component_config[{n}]", item, CONFIG_KEYS, template) for n, item in enumerate(config)),
        tuple(unit(f"component_units[{n}]", item) for n, item in enumerate(units)),
        frozenset(str(item.get("dest", item.get("name"))) for item in (*config, *units) if item.get("secret")),
    )


def with_container(rendered: Rendered, unit: Mapping[str, str]) -> Rendered:
    """With the unit that runs a container before the others."""
    return replace(rendered, units=(unit, *rendered.units))


def named(units: Sequence[Any]) -> Rendered:
    """The ``component_units`` of a package, which brings them itself: names and actions, nothing to render."""
    return Rendered(
        (), tuple(_checked(f"component_units[{n}]", unit, ("name", "action")) for n, unit in enumerate(units))
    )


def _render(field: str, item: Any, keys: tuple[str, ...], template: Callable[[str], str]) -> dict[str, str]:
    _checked(field, item, keys, required=2)
    if not isinstance(item.get("mode", ""), str):
        raise SpecError(f"{field}.mode: {item['mode']!r} is no string, YAML reads 0644 as 420: write it in quotes")
    if not isinstance(item.get("secret", False), bool):
        raise SpecError(f"{field}.secret: {item['secret']!r} is neither true nor false")
    kept = {key: str(value) for key, value in item.items() if key not in ("src", "secret")}
    return {**kept, "content": template(str(item["src"]))}


def _checked(field: str, item: Any, keys: tuple[str, ...], required: int = 1) -> dict[str, str]:
    """A mapping with these keys, the first of which are ``required``."""
    if not isinstance(item, Mapping):
        raise SpecError(f"{field}: {item!r} is no mapping: write it with {', '.join(keys)}")
    for key in item:
        if key not in keys:
            raise SpecError(f"{field}: unknown key {key!r}: {nearest(str(key), keys)}")
    for key in keys[:required]:
        if key not in item:
            raise SpecError(f"{field}: {key!r} is missing")
    return {key: str(value) for key, value in item.items()}


def release_id(version: str, artifact_sha256: str, rendered: str) -> str:
    """The id of a release: its version, and what tells its content apart. The same content has the same id."""
    content = hashlib.sha256(f"{artifact_sha256}\n{rendered}\n".encode()).hexdigest()
    return f"{in_release_id(version)}-{content[:12]}"
