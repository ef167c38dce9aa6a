"""Lookup tables: `Embedding` and `EmbeddingBag`."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import maximum, mean, minimum, sum
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import randn32
from fluxtorch.layers.basic import at_most, initial, is_size, sizes, weights, whole
from fluxtorch.layers.layer import Layer
from fluxtorch.onehotarrays import OneHotArray
from fluxtorch.printing import show

__all__ = ["Embedding", "EmbeddingBag"]

# Python's own functions, where Julia's reduce an array along an axis.
_WHOLE_ARRAY: dict[Any, Any] = {builtins.sum: sum, builtins.max: maximum, builtins.min: minimum}


def _table(layer: str, W: Any, args: tuple[Any, ...], init: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """The weight, given or made for `in => out`, and the other arguments."""
    given = weights(layer, W)
    if given is not None:
        if given.ndim != 2:
            raise DimensionMismatch(f"{layer} expects a matrix of weights, and got a {summary(given)}")
        return given, args
    n, m, rest = sizes(layer, W, args)
    whole(layer, n, m)
    # Each vector in one place in memory, as in Julia: looking up is several times faster.
    return initial(layer, init, m, n).detach().t().contiguous().t(), rest


def _lookup(layer: Any, x: Any) -> torch.Tensor:
    """The columns of a layer's weight at the indices `x`, `(out, size(x)...)`, or its product with a one-hot `x`."""
    W = layer.weight
    if isinstance(x, torch.Tensor) and x.dtype == torch.bool:
        if x.ndim == 0 or x.shape[0] != W.shape[1]:
            raise DimensionMismatch(
                f"layer {layer} expects one-hot vectors of length {W.shape[1]}, but got {summary(x)}"
            )
        if not (isinstance(x, OneHotArray) and x.axis == 0):
            return reversed_axes(F.linear(reversed_axes(x).to(W.dtype), W))
        x = x.indices
    if not isinstance(x, torch.Tensor) or x.is_floating_point() or x.is_complex():
        raise TypeError(f"layer {layer} expects whole numbers as indices, or one-hot vectors, but got {summary(x)}")
    try:
        # Columns of a matrix are rows of its transpose, which is what torch looks up.
        return reversed_axes(F.embedding(reversed_axes(x), W.t()))
    except IndexError:
        given = f"{x.min()} to {x.max()}"
        raise IndexError(f"layer {layer} has indices from 0 to {W.shape[1] - 1}, and was given {given}") from None


class Embedding(Layer):
    """A table of trainable vectors, looked up by index: `Embedding(in |to| out; init=randn32)`.

    An index from 0 to `in - 1` gives `(out,)`, an array of indices `(out, size(x)...)`; a one-hot
    vector or array `(in, …)` gives `(out, …)`. `weight` is `init(out, in)`; `Embedding(W)` takes it.

    Raises `IndexError` for an index that isn't in the table (on a GPU torch does so, later), and
    `TypeError` for numbers that are not whole.

    >>> emb = Embedding(26 |to| 4, init=identity_init(gain=22))
    >>> emb
    Embedding(26 => 4)  # 104 parameters
    >>> emb(1).detach()
    tensor([ 0., 22.,  0.,  0.])
    >>> emb([2, 0, 19]).detach()
    tensor([[ 0., 22.,  0.],
            [ 0.,  0.,  0.],
            [22.,  0.,  0.],
            [ 0.,  0.,  0.]])
    """

    weight: torch.Tensor

    def __init__(self, W: Any, *args: Any, init: Callable[..., torch.Tensor] = randn32) -> None:
        self.weight, rest = _table("Embedding", W, args, init)
        at_most("Embedding", rest, 0)

    def __call__(self, x: Any) -> torch.Tensor:
        if isinstance(x, int) and not isinstance(x, bool):
            x = torch.tensor(x, device=self.weight.device)
        return _lookup(self, _indices(self, x))

    def __str__(self) -> str:
        return f"Embedding({self.weight.shape[1]} => {self.weight.shape[0]})"


class EmbeddingBag(Layer):
    """A table of vectors, reduced to one for each bag of indices: `EmbeddingBag(in |to| out, reduction=mean; init)`.

    A vector of indices is one bag and gives `(out,)`; a list of bags gives `(out, number)`, nested
    lists of them `(out, …)`; an array `(n, …)` holds bags along its first axis and gives `(out, …)`;
    `eb(data, at)` cuts the vector `data` at the positions `at`, which begin with 0. Bags may be
    one-hot matrices `(in, n)`. `reduction(x, dims=1)` makes one vector of many: `mean`, `sum`, `maximum`.

    Raises `ValueError` for positions that don't begin with 0 or don't grow, `TypeError` for a single
    index, or for what are no whole numbers.

    >>> eb = EmbeddingBag(26 |to| 3, init=identity_init(gain=100))
    >>> eb([2, 2, 0]).detach()
    tensor([33.3333,  0.0000, 66.6667])
    >>> eb([[2, 0, 2], [1, 0]]).detach()
    tensor([[33.3333, 50.0000],
            [ 0.0000, 50.0000],
            [66.6667,  0.0000]])
    >>> eb([10, 0, 11, 1, 12, 2, 13], [0, 3]).detach()
    tensor([[33.3333,  0.0000],
            [ 0.0000, 25.0000],
            [ 0.0000, 25.0000]])
    """

    weight: torch.Tensor
    reduction: Any

    def __init__(self, W: Any, *args: Any, init: Callable[..., torch.Tensor] = randn32) -> None:
        self.weight, rest = _table("EmbeddingBag", W, args, init)
        at_most("EmbeddingBag", rest, 1)
        reduction = rest[0] if rest else mean
        self.reduction = _WHOLE_ARRAY.get(reduction, reduction) if callable(reduction) else reduction
        if not callable(self.reduction):
            raise TypeError(f"EmbeddingBag expects a function as its reduction, and got {show(self.reduction)}")

    def __call__(self, x: Any, at: Any = None) -> torch.Tensor:
        if at is not None:
            x = _split_at(_indices(self, x), array(at))
        if isinstance(x, (list, tuple)):
            if not all(map(is_size, x)):
                for bag in (bag if isinstance(bag, list) else array(bag) for bag in x):
                    if isinstance(bag, torch.Tensor) and bag.ndim != 1 + (bag.dtype == torch.bool):
                        raise TypeError(f"EmbeddingBag expects vectors of indices as bags, but got a {summary(bag)}")
                return torch.stack([self(bag) for bag in x], 1)
            x = torch.tensor(x, dtype=torch.int64, device=self.weight.device)
        x = _indices(self, x)
        if isinstance(x, int) or (isinstance(x, torch.Tensor) and x.ndim == 0):
            raise TypeError("EmbeddingBag expects an array of indices, not just one")
        if isinstance(x, torch.Tensor) and x.dtype == torch.bool and x.ndim == 1:
            raise TypeError("EmbeddingBag is not defined for a one-hot vector: a bag of them is a matrix")
        return self.reduction(_lookup(self, x), dims=1).squeeze(1)

    def __str__(self) -> str:
        return f"EmbeddingBag({self.weight.shape[1]} => {self.weight.shape[0]})"


def _indices(m: Any, x: Any) -> Any:
    """`x` as an array, which is made where the weight of `m` is."""
    new = array(list(x) if isinstance(x, range) else x)
    return new.to(m.weight.device) if new is not x and isinstance(new, torch.Tensor) else new


def _split_at(data: Any, at: Any) -> list[torch.Tensor]:
    if not isinstance(data, torch.Tensor) or data.ndim != 1:
        raise TypeError(f"EmbeddingBag can cut a vector of indices only, and got {summary(data)}")
    at = at.tolist() if isinstance(at, torch.Tensor) else at
    if not isinstance(at, (list, tuple, range)) or not all(map(is_size, at)):
        raise TypeError(f"the positions in `at` must be a vector of whole numbers, and are {show(at)}")
    if not at or at[0] != 0:
        raise ValueError("the first position in `at` must be 0")
    if at[-1] >= len(data):
        raise ValueError(f"the last position in `at` must be less than the length of the data, {len(data)}")
    if any(a >= b for a, b in itertools.pairwise(at)):
        raise ValueError("the positions in `at` must grow, with no duplicates")
    return [data[a:b] for a, b in zip(at, [*at[1:], len(data)], strict=True)]
