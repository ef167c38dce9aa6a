"""Julia's pairs: `10 => 5` is written `10 |to| 5`."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Pair", "to"]


class Pair(NamedTuple):
    """Two things that belong together, such as the sizes of a layer's input and output.

    A `Pair` is a tuple, and wherever fluxtorch takes a pair a plain tuple of two will do.

    >>> Pair(10, 5) == (10, 5)
    True
    >>> 10 |to| 5
    10 => 5
    """

    first: Any
    second: Any

    def __repr__(self) -> str:
        first = f"({self.first!r})" if isinstance(self.first, Pair) else repr(self.first)
        return f"{first} => {self.second!r}"

    def __or__(self, other: Any) -> Any:
        return _Half(self) if isinstance(other, _To) else NotImplemented


class _Half:
    """What stands on the left of the second `|` of `a |to| b`."""

    __slots__ = ("left",)

    def __init__(self, left: Any) -> None:
        self.left = left

    def __or__(self, right: Any) -> Pair:
        return _attach(self.left, right)

    def __repr__(self) -> str:
        return f"{self.left!r} |to| …"


class _To:
    """The operator of `a |to| b`."""

    __slots__ = ()
    __array_ufunc__ = None  # a NumPy array would make a pair of each element

    def __ror__(self, left: Any) -> _Half:
        return _Half(left)

    def __call__(self, first: Any, second: Any) -> Pair:
        return Pair(first, second)

    def __repr__(self) -> str:
        return "to"


def _attach(left: Any, right: Any) -> Pair:
    # Python's | groups to the left and Julia's => to the right, so a new end goes to the innermost pair.
    return Pair(left.first, _attach(left.second, right)) if isinstance(left, Pair) else Pair(left, right)


to = _To()
"""`a |to| b` is Julia's `a => b`: a `Pair`. It groups to the right, as `=>` does.

>>> 4 |to| 10 |to| 5
4 => 10 => 5
>>> (4 |to| 10 |to| 5).second
10 => 5
"""
