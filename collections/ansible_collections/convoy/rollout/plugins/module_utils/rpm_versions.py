# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of rpm: epoch, version and release, and which comes before which. Pure."""

from __future__ import annotations

import re

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Tuple

_PART = re.compile(r"~|\^|[0-9]+|[A-Za-z]+")
# How the parts of a version sort: '~' before its end, '^' right after it, then words, then numbers.
_TILDE, _END, _CARET, _WORD, _NUMBER = range(5)
if TYPE_CHECKING:
    _Rank = Tuple[int, int, str]


class Evr(NamedTuple):
    """A version with its epoch and its release, which is empty where none is named."""

    epoch: int
    version: str
    release: str

    def __str__(self) -> str:
        """As repositories show it: without an epoch of 0."""
        release = f"-{self.release}" if self.release else ""
        return f"{self.epoch}:{self.version}{release}" if self.epoch else f"{self.version}{release}"


class Nevra(NamedTuple):
    """A package: name, version and architecture."""

    name: str
    evr: Evr
    arch: str


def parse_evr(text: str) -> Evr:
    """[epoch:]version[-release]. ValueError when it is not that."""
    epoch, colon, rest = text.rpartition(":")
    version, _dash, release = rest.partition("-")
    if not version or "-" in release or (colon and not (epoch.isascii() and epoch.isdigit())):
        raise ValueError(f"{text!r} is not [epoch:]version[-release]")
    return Evr(int(epoch or 0), version, release)


def parse_nevra(text: str) -> Nevra:
    """name-[epoch:]version-release.architecture. ValueError when it is not that."""
    rest, _dot, arch = text.rpartition(".")
    named, _dash, release = rest.rpartition("-")
    name, _dash, version = named.rpartition("-")
    if not (name and release and arch):
        raise ValueError(f"{text!r} is not name-[epoch:]version-release.architecture")
    return Nevra(name, parse_evr(f"{version}-{release}"), arch)


def is_older(one: str, other: str) -> bool:
    """Whether a version comes before another one."""
    return compare(parse_evr(one), parse_evr(other)) < 0


def compare(one: Evr, other: Evr) -> int:
    """Below 0 when `one` is older, above 0 when it is newer. Releases count where both are named."""
    keys = [[[(evr.epoch, 0, "")], _ranks(evr.version)] for evr in (one, other)]
    if one.release and other.release:
        for key, evr in zip(keys, (one, other)):
            key.append(_ranks(evr.release))
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


def satisfies(evr: Evr, relation: str, limit: Evr) -> bool:
    """Whether a version is what a dependency such as `< 2.0` names."""
    compared = compare(evr, limit)
    sign = "<" if compared < 0 else ">" if compared > 0 else "="
    return sign in relation


def _ranks(text: str) -> list[_Rank]:
    """What a version is sorted by; whatever is no letter, digit, '~' or '^' only separates."""
    return [*map(_rank, _PART.findall(text)), (_END, 0, "")]


def _rank(part: str) -> _Rank:
    if part in "~^":
        return (_TILDE if part == "~" else _CARET, 0, "")
    return (_NUMBER, int(part), "") if part.isdigit() else (_WORD, 0, part)
