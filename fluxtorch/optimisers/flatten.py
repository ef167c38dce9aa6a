"""Flat views of a nested model: one vector of all its parameters, or a list of all its layers."""

from __future__ import annotations

import functools
from typing import Any

import torch

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import fcollect, fmap, isleaf
from fluxtorch.optimisers.interface import trainables
from fluxtorch.zygote.scope import within_gradient

__all__ = ["Restructure", "destructure", "modules"]


def destructure(model: Any) -> tuple[torch.Tensor, Restructure]:
    """All arrays of `model` that are trained as one vector, and a function that makes such a vector a model again.

    The vector is a copy, `(n,)`: one array after the other, each column-major, an array that stands
    at several places once, in the element type that all of them have together. The function gives each
    array its own type back. Inside `gradient` both are differentiated, to any order; outside of it the
    vector carries no graph. (Optimisers.jl's `destructure`.)

    >>> v, re = destructure(nt(x=[1.0, 2.0], y=(torch.sin, torch.tensor([3 + 4j]))))
    >>> v, re
    (tensor([1.+0.j, 2.+0.j, 3.+4.j]), Restructure(NamedTuple, ..., 3))
    >>> re([3, 5, 7 + 11j])
    (x = [3.0, 5.0], y = (sin, ComplexF32[7.0 + 11.0im]))
    """
    places: dict[Any, int] = {}
    arrays: list[torch.Tensor] = []
    parts: list[torch.Tensor] = []
    owners: dict[int, int] = {}
    for x in trainables(model):
        i = places.setdefault(_identity(x), len(parts))
        if i == len(parts):
            parts.append(x.permute(*range(x.ndim)[::-1]).reshape(-1))
        arrays.append(x)
        owners[id(x)] = i
    re = Restructure(model, arrays, owners, [len(part) for part in parts])
    if not parts:
        return torch.empty(0, dtype=torch.bool), re
    dtype = functools.reduce(torch.promote_types, [part.dtype for part in parts])
    flat = torch.cat([part.to(dtype) for part in parts])
    return (flat if within_gradient() else flat.detach()), re


def _identity(x: torch.Tensor) -> Any:
    # What stands twice in a tuple or the like has two stand-ins inside `gradient`, of one memory: leaves, or aliases.
    if within_gradient() and x.device.type != "meta" and x.numel() and (x.is_leaf or _is_alias(x)):
        return x.data_ptr(), x.shape, x.stride(), x.dtype
    return id(x)


def _is_alias(x: torch.Tensor) -> bool:
    return type(x.grad_fn).__name__ == "ViewBackward0"


class Restructure:
    """What `destructure` gives: `re(flat)` is the model with the parameters in `flat`, `re(x, flat)` is that of `x`.

    The new model has arrays of its own where the old one's are trained, on the device of `flat`, and
    shares all others with it. `len(re)` is the length that `flat` must have: else `DimensionMismatch`.
    Raises `ValueError` if arrays of the old model have been replaced since.

    >>> _, re = destructure(Dense([[1, 2], [3, 4]], [0, 0], sigmoid))
    >>> re
    Restructure(Dense, ..., 6)
    >>> m = re(torch.arange(-4, 2))
    >>> m.weight.tolist(), m.bias.tolist()
    ([[-4.0, -2.0], [-3.0, -1.0]], [0.0, 1.0])
    """

    def __init__(self, model: Any, arrays: list[torch.Tensor], owners: dict[int, int], sizes: list[int]) -> None:
        # The arrays are held, so that no other can come to have the id of one of them.
        self.model, self._arrays, self._owners, self._sizes = model, arrays, owners, sizes

    def __call__(self, flat: Any, *more: Any) -> Any:
        *xs, flat = flat, *more
        if xs:
            return self(flat)(*xs)
        flat = array(flat)
        if not isinstance(flat, torch.Tensor) or flat.ndim != 1:
            raise TypeError(f"Rebuild expected a vector of length {len(self)}, got {summary(flat)}")
        if len(flat) != len(self):
            raise DimensionMismatch(f"Rebuild expected a vector of length {len(self)}, got {len(flat)}")
        if not self._arrays:
            return self.model
        parts = flat.split(self._sizes)
        made: dict[int, torch.Tensor] = {}
        found: set[int] = set()

        def replaced(x: Any) -> Any:
            i = self._owners.get(id(x)) if isinstance(x, torch.Tensor) else None
            if i is None:
                return x
            found.add(id(x))
            if i not in made:
                made[i] = _shaped(parts[i], x)
            return made[i]

        model = fmap(replaced, self.model)
        if len(found) < len(self._owners):
            raise ValueError(
                f"this {type(self.model).__name__} has other arrays than when destructure was called on it"
            )
        return model

    def __len__(self) -> int:
        return sum(self._sizes)

    def __repr__(self) -> str:
        kind: Any = torch.Tensor if isinstance(self.model, torch.Tensor) else type(self.model)
        name = {tuple: "Tuple", list: "Array", dict: "Dict", torch.Tensor: "Array"}.get(kind, kind.__name__)
        return f"Restructure({name}, ..., {len(self)})"


def _shaped(part: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The vector `part` as an array like `x`: a view where a graph goes through it, else in memory of its own."""
    y = part.reshape(x.shape[::-1]).permute(*range(x.ndim)[::-1])
    y = (y.real if y.is_complex() and not x.is_complex() else y).to(x.dtype)
    if y.requires_grad and torch.is_grad_enabled():
        return y
    return y.clone(memory_format=torch.contiguous_format if x.is_contiguous() else torch.preserve_format)


def modules(m: Any) -> list[Any]:
    """Everything in `m` that has children: `m` itself first, then depth-first, each once.

    Layers, and what holds layers. Tuples of numbers or of arrays, and lists of numbers, count as leaves.
    For penalties and the like on some of the layers.

    >>> from fluxtorch.printing import show
    >>> m1 = Chain(Dense(28**2, 64), BatchNorm(64, relu))
    >>> m2 = Chain(m1, Dense(64, 10))
    >>> for x in modules(m2):
    ...     print(show(x))
    Chain(Chain(Dense(784 => 64), BatchNorm(64, relu)), Dense(64 => 10))
    (Chain(Dense(784 => 64), BatchNorm(64, relu)), Dense(64 => 10))
    Chain(Dense(784 => 64), BatchNorm(64, relu))
    (Dense(784 => 64), BatchNorm(64, relu))
    Dense(784 => 64)
    BatchNorm(64, relu)
    Dense(64 => 10)
    >>> sum(abs2(l.weight).sum() for l in modules(m2) if isinstance(l, Dense)).dtype
    torch.float32
    """
    return [x for x in fcollect(m) if not isleaf(x) and not _is_data(x)]


def _is_data(x: Any) -> bool:
    numbers = isinstance(x, (tuple, list)) and all(isinstance(v, (int, float, complex)) for v in x)
    return numbers or (isinstance(x, tuple) and all(isinstance(v, torch.Tensor) for v in x))
