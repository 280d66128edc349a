# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of `typing` a call needs while it runs: NamedTuple and Protocol, without its import.

That alone takes 2 ms of every call, and its NamedTuple as long again: it compiles the annotation of each field.
"""

from __future__ import annotations

from collections import namedtuple

# Whoever checks types takes this name for true, wherever it comes from.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:

    class _Fields(type):
        """Makes of a class with annotations a named tuple, as typing does, with what else the class has."""

        def __new__(cls, name, bases, own):
            fields = own.pop("__annotations__", {})
            defaults = [own.pop(field) for field in fields if field in own]
            made = namedtuple(name, fields, defaults=defaults, module=own.pop("__module__"))
            made.__annotations__ = fields
            for key, value in own.items():
                setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Fields, "NamedTuple", (), {})

    class Protocol:
        """Only those who check types ask whether anything keeps one."""


__all__ = ["TYPE_CHECKING", "NamedTuple", "Protocol"]
