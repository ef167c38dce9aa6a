"""Julia's named tuples: `(a = 1, b = 2)` is written `nt(a=1, b=2)`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

import torch

from fluxtorch.arrays import array
from fluxtorch.printing import show

__all__ = ["NamedTuple", "fold", "nt"]


def fold(name: str) -> str:
    """The form in which Python itself keeps an identifier, so that `"ϵ"` finds the field `ε`.

    >>> fold("ϵ") == "ε"
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


class NamedTuple:
    """An immutable row of named values, read by attribute, by index or by name.

    Unpacks like a tuple. A list of numbers given as a field becomes a tensor, as a literal is an
    array in Julia. Raises `AttributeError` or `KeyError` where there is no such field, and
    `AttributeError` on assignment.

    >>> x = nt(a=[2, 1], b=3, c=None)
    >>> x.a
    tensor([2, 1])
    >>> x[1], x["b"]
    (3, 3)
    >>> _, b, _ = x
    >>> x
    (a = [2, 1], b = 3, c = nothing)
    """

    # What a gradient, or a state tree, knows of the arrays in it, in a row, for `update_`: no field, and not copied.
    __slots__ = ("__dict__", "__flat__", "__weakref__")

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        for name, value in dict(vars(fields) if isinstance(fields, NamedTuple) else fields, **more).items():
            if not isinstance(name, str):
                raise TypeError(f"the fields of a named tuple have names, and {name!r} is none")
            self.__dict__[fold(name)] = value if isinstance(value, range) else array(value)

    @classmethod
    def of(cls, fields: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> NamedTuple:
        """A named tuple of `fields` as they are: names already folded, lists left as lists."""
        new = object.__new__(cls)
        vars(new).update(fields)
        return new

    def keys(self) -> KeysView[str]:
        return self.__dict__.keys()

    def values(self) -> ValuesView[Any]:
        return self.__dict__.values()

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, str):
            try:
                return self.__dict__[fold(key)]
            except KeyError:
                raise KeyError(f"no field {key!r} in a named tuple of {', '.join(self.__dict__)}") from None
        return tuple(self.__dict__.values())[key]

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are no field as they stand: getattr doesn't fold, the parser does.
        try:
            return self.__dict__[fold(name)]
        except KeyError:
            raise AttributeError(f"named tuple has no field {name!r}: it has {', '.join(self.__dict__)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a named tuple can't be changed, so {name!r} can't be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a named tuple can't be changed, so {name!r} can't be deleted")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__.values())

    def __len__(self) -> int:
        return len(self.__dict__)

    def __contains__(self, value: Any) -> bool:
        return any(value is v or _same(value, v) for v in self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NamedTuple):
            return NotImplemented
        return list(self.__dict__) == list(other.__dict__) and all(map(_same, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__))  # tensors of equal values have different hashes

    def __dir__(self) -> list[str]:
        return list(self.__dict__)

    def __repr__(self) -> str:
        return show(self)


def _same(a: Any, b: Any) -> bool:
    """`a == b` as one bool, where either may be a tensor or hold tensors."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b)


nt = NamedTuple

# Files are loaded with weights_only=True, which builds nothing that it wasn't told of.
torch.serialization.add_safe_globals([NamedTuple])
