"""Dot-product attention with several heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.base import identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import alike, axes, floats, tensor, whole
from fluxtorch.zygote.scope import nested, within_gradient

__all__ = ["dot_product_attention", "dot_product_attention_scores", "make_causal_mask"]


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    *,
    fdrop: Callable[[Any], Any] = identity,
    mask: Any = None,
    nheads: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of queries to keys, and the values that it picks, as in transformers: `(y, scores)`.

    `query` is `(qk_dim, q_len, batch...)`, `key` `(qk_dim, kv_len, batch...)`, `value` `(v_dim,
    kv_len, batch...)`, with any number of batch axes or none. `y` is `(v_dim, q_len, batch...)`,
    the scores `(kv_len, q_len, nheads, batch...)`; over `kv_len` they sum to 1.

    `bias` is added before the softmax, and where `mask` is False the score is 0; both line up, from
    the first axis, with `(kv_len, q_len, nheads, batch)`, all batch axes counting as one. `fdrop`
    is applied to the scores after the softmax. The features are split among `nheads` heads.

    Raises `DimensionMismatch` if the sizes don't fit, `TypeError` for a mask that is not Bool.
    Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762.

    >>> q, k, v = torch.ones(10, 20, 2), torch.ones(10, 30, 2), torch.ones(20, 30, 2)
    >>> y, scores = dot_product_attention(q, k, v, nheads=5)
    >>> y.shape, scores.shape
    (torch.Size([20, 20, 2]), torch.Size([30, 20, 5, 2]))
    """
    q, k, v = [reversed_axes(floats(tensor("dot_product_attention", x))) for x in (query, key, value)]
    y, scores = attention_reversed(q, k, v, bias, fdrop, mask, whole("nheads", nheads, 1))
    return Attended(reversed_axes(y), scores) if callable(scores) else (reversed_axes(y), scores)


def attention_reversed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: Any, fdrop: Callable[[Any], Any], mask: Any, nheads: int
) -> tuple[torch.Tensor, Any]:
    """The same in torch's order of axes, but for the scores; in the place of those it may give what computes them."""
    _check(q, k, v, nheads)
    batch = q.shape[:-2]
    n = math.prod(batch)
    q, k, v = [x.reshape(n, x.shape[-2], nheads, x.shape[-1] // nheads).transpose(1, 2) for x in (q, k, v)]

    def scores() -> torch.Tensor:
        return reversed_axes(_scores(q, k, bias, mask, fdrop))

    def shaped(α: torch.Tensor) -> torch.Tensor:
        return reversed_axes(α.reshape(*batch, *α.shape[1:]))

    # In training torch's kernel spares the memory of the scores. It has no second derivative, and no masks here: where
    # one leaves nothing, its NaN are others.
    α = None
    if bias is None and mask is None and fdrop is identity and _for_kernel(q, k, v):
        y = F.scaled_dot_product_attention(q, k, v)
    else:
        α, v = alike(scores(), v)
        y = torch.matmul(α, v)
    y = y.transpose(1, 2)
    y = y.reshape(*batch, y.shape[1], y.shape[2] * y.shape[3])
    return y, (lambda: shaped(scores())) if α is None else shaped(α)


class Attended(tuple[Any, ...]):
    """The pair `(y, scores)`, in which the scores are computed when somebody looks at them.

    >>> made = Attended(torch.ones(2), lambda: torch.zeros(1))
    >>> made[0], len(made)
    (tensor([1., 1.]), 2)
    >>> y, scores = made
    >>> scores
    tensor([0.])
    """

    _compute: Callable[[], torch.Tensor]
    _scores: torch.Tensor | None

    def __new__(cls, y: torch.Tensor, scores: Callable[[], torch.Tensor]) -> Attended:
        pair = super().__new__(cls, (y, None))
        pair._compute, pair._scores = scores, None
        return pair

    def scores(self) -> torch.Tensor:
        """The second of the pair, computed once."""
        if self._scores is None:
            self._scores = self._compute()
        return self._scores

    def whole(self) -> tuple[Any, ...]:
        """A plain tuple of both."""
        return super().__getitem__(0), self.scores()

    def __getitem__(self, i: Any) -> Any:
        return super().__getitem__(0) if i in (0, -2) else self.whole()[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.whole())

    def __add__(self, other: Any) -> Any:
        return self.whole() + other

    def __reduce__(self) -> Any:
        return tuple, (self.whole(),)

    def __repr__(self) -> str:
        return repr(self.whole())


def _for_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Is this the way there of a plain gradient, and of arrays that torch's own attention takes?"""
    if not within_gradient() or nested() or torch.compiler.is_compiling():
        return False
    return q.dtype == k.dtype == v.dtype and not q.is_complex() and bool(q.numel() and k.numel() and v.numel())


def dot_product_attention_scores(
    query: Any, key: Any, bias: Any = None, *, fdrop: Callable[[Any], Any] = identity, mask: Any = None
) -> torch.Tensor:
    """The scores of `dot_product_attention`, `(kv_len, q_len, nheads, batch)`.

    `query` is `(qk_dim ÷ nheads, nheads, q_len, batch)`, `key` the same with `kv_len`.

    Raises `DimensionMismatch` if the sizes don't fit, `TypeError` for a mask that is not Bool.

    >>> dot_product_attention_scores(torch.ones(4, 2, 3, 1), torch.ones(4, 2, 5, 1))[:, 0, 0, 0]
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000])
    """
    q, k = (floats(tensor("dot_product_attention_scores", x)) for x in (query, key))
    if q.ndim != 4 or k.ndim != 4 or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise DimensionMismatch(
            "dot_product_attention_scores expects a query and a key (features, heads, length, batch) that differ in "
            f"length only, and got a {summary(q)} and a {summary(k)}"
        )
    return _scores(reversed_axes(q).transpose(1, 2), reversed_axes(k).transpose(1, 2), bias, mask, fdrop)


def make_causal_mask(x: Any, dims: int = 1) -> torch.Tensor:
    """A mask for attention that looks at no later keys: `(n, n)`, Bool, `m[i, j] == (i <= j)`.

    `n` is the length of `x` along the axis `dims`.

    >>> make_causal_mask(torch.ones(8, 3)).int()
    tensor([[1, 1, 1],
            [0, 1, 1],
            [0, 0, 1]], dtype=torch.int32)
    """
    x = tensor("make_causal_mask", x)
    (axis,) = axes("make_causal_mask", x, dims)
    n = x.shape[axis]
    return reversed_axes(torch.ones(n, n, dtype=torch.bool, device=x.device).tril())


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, nheads: int) -> None:
    why = None
    if q.ndim < 2 or not q.ndim == k.ndim == v.ndim:
        why = "they must have as many axes, (features, length, batch...)"
    elif not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        why = "their batch axes must be the same"
    elif q.shape[-1] != k.shape[-1]:
        why = "query and key must have as many features, axis 0"
    elif k.shape[-2] != v.shape[-2]:
        why = "key and value must be of the same length, axis 1"
    elif any([x.shape[-1] % nheads for x in (q, k, v)]):
        why = f"the features, axis 0, must be divisible by nheads, {nheads}"
    if why:
        query, key, value = [summary(reversed_axes(x)) for x in (q, k, v)]
        problem = f"dot_product_attention got as query a {query}, as key a {key}, as value a {value}: {why}"
        raise DimensionMismatch(problem)


def _scores(q: torch.Tensor, k: torch.Tensor, bias: Any, mask: Any, fdrop: Callable[[Any], Any]) -> torch.Tensor:
    """The scores, in Flux's order, of a query and a key `(batch, nheads, length, features)`."""
    q, k = alike(q, k)
    logits = torch.matmul(q / math.sqrt(q.shape[-1]), k.transpose(-2, -1))
    if bias is not None:
        logits = logits + _beside(logits, bias, "bias")
    if mask is not None:
        mask = _beside(logits, mask, "mask")
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask must be of Bool elements, and is a {summary(reversed_axes(mask))}")
        logits = torch.where(mask, logits, -math.inf)
    # Where a score is infinite it is 1, as in NNlib. Out of autograd's sight: a softmax needs its output only.
    logits.detach().clamp_max_(torch.finfo(logits.dtype).max)
    return fdrop(reversed_axes(torch.softmax(logits, -1)))  # type: ignore[no-any-return]


def _beside(logits: torch.Tensor, x: Any, what: str) -> torch.Tensor:
    """`x`, given in Flux's order, reversed: to that torch adds missing axes at the right end."""
    x = tensor("dot_product_attention", x)
    size = tuple(logits.shape[::-1])
    if x.ndim > 4 or any(m not in (1, n) for m, n in zip(x.shape, size, strict=False)):
        raise DimensionMismatch(
            f"the {what}, a {summary(x)}, doesn't line up with the scores, {size}, from the first axis"
        )
    return reversed_axes(x)
