# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The values that a site keeps in its vault, as far as they can be known: what is not to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, is_encrypted

from ansible_collections.convoy.rollout.plugins.plugin_utils.config_diff import LEAST_SECRET

_FOLDERS = ("group_vars", "host_vars")
_BEGINNING = 64  # bytes that tell whether a file is encrypted


def vaulted(variables: Mapping[str, Any], loader: DataLoader) -> list[str]:
    """The values of a host's variables that are encrypted one by one, and those of variable files encrypted whole.

    The files are those beside the inventories and beside the playbook. What is shorter than four characters is left
    out: it is found everywhere.
    """
    sources = [Path(str(source)) for source in variables.get("ansible_inventory_sources") or ()]
    places = {source if source.is_dir() else source.parent for source in sources}
    places |= {Path(str(variables["playbook_dir"]))} if "playbook_dir" in variables else set()
    found = set(_encrypted(variables.values()))
    for path in _encrypted_files(places):
        found |= set(_leaves(loader.load_from_file(str(path))))
    return sorted(secret for secret in found if len(secret) >= LEAST_SECRET)


def _encrypted(values: Iterable[Any]) -> Iterator[str]:
    """The values that are encrypted, however deep; what belongs to other hosts is not looked at."""
    for value in values:
        if isinstance(value, EncryptedString):
            yield str(value).strip()
        elif isinstance(value, dict):
            yield from _encrypted(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _encrypted(value)


def _encrypted_files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        for folder in _FOLDERS:
            for path in (place / folder).rglob("*"):
                if path.is_file():
                    with path.open("rb") as stream:
                        if is_encrypted(stream.read(_BEGINNING)):
                            yield path


def _leaves(value: Any) -> Iterator[str]:
    """All values in what a file holds."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from _leaves(one)
    elif value is not None:
        yield str(value).strip()
