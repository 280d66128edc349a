# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that come from outside, and what they may look like before they become paths and units."""

from __future__ import annotations

import os
import re

from ansible_collections.convoy.rollout.plugins.module_utils.errors import InputError

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RELEASE = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,200}\.(service|socket|timer|path|target|mount|slice)")
_ROLLOUT = re.compile(r"[\x21-\x7e]{0,128}")
_LONGEST_NAME = 255
_LONGEST_PATH = 3000


def component(value: str) -> str:
    """The name of a component, or InputError."""
    if not _COMPONENT.fullmatch(value):
        raise InputError(
            f"component {value!r} is not a name: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    return value


def release_fault(value: str) -> bool:
    """Whether a name cannot be the id of a release."""
    return not _RELEASE.fullmatch(value)


def release(value: str) -> str:
    """The id of a release, or InputError."""
    if release_fault(value):
        raise InputError(
            f"release {value!r} is not an id: 1 to 128 letters, digits, '.', '_', '+' or '-', the first not '.' or '-'"
        )
    return value


def unit(value: str) -> str:
    """The name of a unit with its type, or InputError."""
    if not _UNIT.fullmatch(value):
        raise InputError(f"unit {value!r} is not the name of a systemd unit such as hello.service or hello.timer")
    return value


def rollout(value: str) -> str:
    """The id of a rollout, or InputError."""
    if not _ROLLOUT.fullmatch(value):
        raise InputError(f"rollout {value!r} is not an id: at most 128 printable ASCII characters without blanks")
    return value


def root(value: str) -> str:
    """The root of a release tree, or InputError."""
    # POSIX lets two leading slashes mean something else, and normpath therefore keeps them.
    path = os.path.normpath(value.replace("//", "/"))
    if not os.path.isabs(path) or path.count("/") < 2:
        raise InputError(f"root {value!r} must be an absolute path at least two levels deep, such as /srv/hello")
    return path


def path_fault(path: str) -> str | None:
    """Why a relative path may not be a file's place inside a release; None when it may."""
    if not path:
        return "the name is empty"
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not valid UTF-8"
    if path.startswith("/"):
        return "the path is absolute"
    # What is ASCII and can be printed holds none; most paths are of that kind, and there are many.
    is_plain = path.isascii() and path.isprintable()
    if not is_plain and any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "the name holds a control character"
    parts = path.split("/")
    if ".." in parts:
        return "the path leads upwards with '..'"
    if "" in parts or "." in parts:
        return "the path is not in its plain form"
    if len(raw) > _LONGEST_NAME and (
        len(raw) > _LONGEST_PATH or any(len(part.encode("utf-8")) > _LONGEST_NAME for part in parts)
    ):
        return f"the path is longer than {_LONGEST_PATH} bytes, or a name in it longer than {_LONGEST_NAME}"
    return None
