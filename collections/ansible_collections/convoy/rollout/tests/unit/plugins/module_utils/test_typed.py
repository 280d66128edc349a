# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes the place of typing's own names: a named tuple is what typing makes of the same class."""

from __future__ import annotations

import pickle
import typing

import pytest

from ansible_collections.convoy.rollout.plugins.module_utils import typed


class Point(typed.NamedTuple):
    """A place."""

    x: int
    y: int = 7
    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.x > 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.x + self.y

    @classmethod
    def at_zero(cls) -> Point:
        """The beginning."""
        return cls(0, 0)


class Typed(typing.NamedTuple):
    """A place."""

    x: int
    y: int = 7
    names: tuple[str, ...] = ()


def test_it_is_a_tuple_with_names() -> None:
    point = Point(1, names=("a",))
    assert point == (1, 7, ("a",)) == Typed(1, names=("a",))
    assert point._replace(x=2)._asdict() == {"x": 2, "y": 7, "names": ("a",)}
    assert repr(point) == repr(Typed(1, names=("a",))).replace("Typed", "Point")
    assert hash(point) == hash(Typed(1, names=("a",)))
    assert pickle.loads(pickle.dumps(point)) == point


def test_it_says_of_itself_what_typing_would() -> None:
    assert (Point._fields, Point._field_defaults, Point.__doc__) == (
        Typed._fields,
        Typed._field_defaults,
        Typed.__doc__,
    )
    assert (Point.__module__, Point.__qualname__) == (__name__, "Point")
    assert list(Point.__annotations__) == list(Typed.__annotations__)


def test_it_has_the_methods_of_its_class() -> None:
    assert Point(2).total == 9
    assert not Point.at_zero()
    assert Point(1)


@pytest.mark.parametrize("given", [(), (1, 2, (), 4)])
def test_it_takes_its_fields_only(given: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        Point(*given)
    with pytest.raises(TypeError):
        Point(1, z=3)
    with pytest.raises(AttributeError):
        Point(1).x = 2
