"""OneHotArrays.jl: Bool arrays with a single `true` along the first axis, kept as the positions of it.

A `OneHotArray` is a `torch.Tensor` without numbers of its own: whatever moves columns about works
on the positions, a product with it is a gather or a scatter-add, and any other operation sees the
Bool array that it stands for.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.printing import julia_type, show

__all__ = ["OneHotArray", "OneHotMatrix", "OneHotVector", "onecold", "onehot", "onehotbatch"]

aten = torch.ops.aten

_MISSING: Any = object()


class OneHotArray(Tensor):
    """A one-hot array `(nlabels, size(indices)...)`, kept as its `indices`: `OneHotArray(indices, nlabels)`.

    `indices` is a whole number, or an array of them `(batch…)`, that says where along the first axis
    `true` stands, from 0. It is a Bool tensor to look at. What only moves, picks or joins columns
    (indexing, `hcat`, `reshape` that keeps the first axis, `.T`, `.to(device)`) gives a one-hot array
    again, as do other element types (`.float()`), so that layers take it as it is. `W @ x` picks
    columns of `W`, `y @ x.T` adds up columns of `y`. Everything else gives plain tensors, as
    `to_dense()` does. It can't be changed in place and has no gradient.

    Raises `TypeError` for indices that are no whole numbers, `IndexError` for one that isn't below
    `nlabels` (unless they are on a GPU). Follows OneHotArrays.jl, where indices count from 1.

    >>> x = OneHotArray([2, 0], 3)
    >>> x
    3×2 OneHotMatrix(::Vector{UInt32}) with eltype Bool:
     ⋅  1
     ⋅  ⋅
     1  ⋅
    >>> x[:, 0].indices, x[0, :]
    (tensor(2), tensor([False,  True]))
    >>> torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) @ x
    tensor([[3., 1.],
            [6., 4.]])
    """

    indices: Tensor  # type: ignore[assignment]
    nlabels: int
    axis: int
    """Where the labels are: 0, unless axes were exchanged."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, indices: Any, nlabels: int) -> OneHotArray:
        indices, n = array(indices), operator.index(nlabels)
        if isinstance(indices, int) and not isinstance(indices, bool):
            indices = torch.tensor(indices)
        if not isinstance(indices, Tensor) or _is_inexact(indices.dtype) or indices.dtype == torch.bool:
            raise TypeError(f"the indices of a one-hot array are whole numbers, but got {summary(indices)}")
        if indices.device.type == "cpu" and indices.numel():
            for k in (int(indices.min()), int(indices.max())):
                if not 0 <= k < n:
                    raise IndexError(f"index {k} is not among {n} labels, which count from 0")
        return _onehot(indices.to(torch.int64), n)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            _refuse_change(func, args, kwargs)
        elif (rule := _RULES.get(func)) is not None:
            result = rule(*args, **kwargs)
            if result is not NotImplemented:
                return result
        elif func in _VIEWS:
            return _viewed(func, *args, **kwargs)
        else:
            result = func.decompose(*args, **kwargs)  # in inference mode, where operations made of others arrive whole
            if result is not NotImplemented:
                return result
        return _densely(func, args, kwargs)

    def to_dense(self, dtype: torch.dtype | None = None, *, masked_grad: bool | None = None) -> Tensor:
        """The same array as a plain tensor, with all its numbers in memory.

        >>> onehot("b", "abc").to_dense()
        tensor([False,  True, False])
        """
        axis = self.ndim - 1 - self.axis  # with the axes reversed, which is how Flux's arrays lie in memory
        x = torch.zeros(self.shape[::-1], dtype=dtype or self.dtype, device=self.device)
        return reversed_axes(x.scatter_(axis, reversed_axes(self.indices).unsqueeze(axis), 1))

    def numpy(self, *, force: bool = False) -> Any:
        """The array as a NumPy array, on the CPU."""
        return self.to_dense().numpy(force=force)

    def tolist(self) -> Any:
        """The array as nested lists, row by row."""
        return self.to_dense().tolist()

    def share_memory_(self) -> OneHotArray:  # type: ignore[override]
        """Moves the indices to memory that other processes can see."""
        self.indices.share_memory_()
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(_UNCHANGEABLE)

    def __deepcopy__(self, memo: dict[int, Any]) -> OneHotArray:
        memo[id(self)] = new = _onehot(self.indices.clone(), self.nlabels, self.axis, self.dtype)
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _onehot, (self.indices, self.nlabels, self.axis, self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        return _display(self)

    def __str__(self) -> str:
        return show(self)


class OneHotVector(OneHotArray):
    """A one-hot vector `(nlabels,)`, kept as one index: `OneHotVector(index, nlabels)`.

    >>> OneHotVector(1, 3)
    3-element OneHotVector(::UInt32) with eltype Bool:
     ⋅
     1
     ⋅
    """


class OneHotMatrix(OneHotArray):
    """A one-hot matrix `(nlabels, N)`, kept as N indices: `OneHotMatrix(indices, nlabels)`.

    >>> print(OneHotMatrix([0, 1], 2))
    Bool[1 0; 0 1]
    """


_UNCHANGEABLE = "a one-hot array can't be changed in place; what its to_dense() gives can"


def _onehot(indices: Tensor, nlabels: int, axis: int = 0, dtype: torch.dtype = torch.bool) -> OneHotArray:
    """A one-hot array of indices that are known to be right."""
    shape = (*indices.shape[:axis], nlabels, *indices.shape[axis:])
    cls = (OneHotVector, OneHotMatrix, OneHotArray)[min(indices.ndim, 2)] if axis == 0 else OneHotArray
    x = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=indices.device)  # type: ignore[attr-defined]
    x.indices, x.nlabels, x.axis = indices, nlabels, axis
    return x


def _like(x: OneHotArray, indices: Tensor, axis: int) -> OneHotArray:
    return _onehot(indices, x.nlabels, axis, x.dtype)


# Files are loaded with weights_only=True, which builds nothing that it wasn't told of.
torch.serialization.add_safe_globals([_onehot])


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


# ---------------------------------------------------------------- torch's operations


def _densely(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func` of the plain arrays that the one-hot ones stand for."""
    dtype = None
    if func.overloadpacket in _SAME_TYPE:
        others = [x.dtype for x in args if isinstance(x, Tensor) and not isinstance(x, OneHotArray)]
        dtype = others[0] if others else torch.int64

    def dense(x: Any) -> Any:
        if isinstance(x, OneHotArray):
            return x.to_dense(dtype if x.dtype == torch.bool else None)
        return type(x)(map(dense, x)) if isinstance(x, (list, tuple)) else x

    return func(*map(dense, args), **{name: dense(x) for name, x in kwargs.items()})


def _refuse_change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for k, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            x = args[k] if k < len(args) else kwargs.get(argument.name)
            if any(isinstance(v, OneHotArray) for v in (x if isinstance(x, (list, tuple)) else [x])):
                raise TypeError(_UNCHANGEABLE)


def _viewed(func: Any, x: OneHotArray, *args: Any, **kwargs: Any) -> Any:
    """A view of `x`, which is where two arrays of its size are equal: its indices, and the numbers of its labels.

    The first are the same all along the labels' axis, the second all along the others. Where a view
    keeps the labels whole, which the strides of an array of those alone tell, it is one-hot again.
    """
    places = func(x.indices.unsqueeze(x.axis).expand(x.shape), *args, **kwargs)
    strides = [int(d == x.axis) for d in range(x.ndim)]
    labels = func(torch.empty(x.nlabels).as_strided(x.shape, strides), *args, **kwargs)
    one = isinstance(labels, Tensor)
    axes = [_whole_axis(v, x.nlabels) for v in ([labels] if one else labels)]
    places = [places] if one else places
    if None not in axes:
        views: list[Tensor] = [_like(x, p.select(k, 0), k) for p, k in zip(places, axes, strict=True) if k is not None]
    else:
        numbers = torch.arange(x.nlabels, device=x.device).reshape(-1, *[1] * (x.ndim - 1 - x.axis))
        labels = func(numbers.expand(x.shape), *args, **kwargs)
        views = [(p == n).to(x.dtype) for p, n in zip(places, [labels] if one else labels, strict=True)]
    return views[0] if one else views


def _whole_axis(labels: Tensor, n: int) -> int | None:
    """The axis along which all of `n` labels stand."""
    if labels.storage_offset():
        return None
    return next((d for d in range(labels.ndim) if labels.stride(d) == 1 and labels.shape[d] == n), None)


def _transposed(x: OneHotArray) -> OneHotArray:
    return _like(x, x.indices, 1 - x.axis if x.ndim == 2 else x.axis)


def _reshaped(x: Tensor, size: list[int]) -> Any:
    if not isinstance(x, OneHotArray):
        return NotImplemented
    rest = math.prod(n for n in size if n != -1)
    size = [x.numel() // max(rest, 1) if n == -1 else n for n in size]
    before = math.prod(x.shape[: x.axis])
    if math.prod(size) == x.numel():
        for k, n in enumerate(size):
            if n == x.nlabels and math.prod(size[:k]) == before:
                return _like(x, x.indices.reshape((*size[:k], *size[k + 1 :])), k)
    return x.to_dense().reshape(size)


def _copied(x: OneHotArray, *, memory_format: Any = None) -> OneHotArray:
    return _like(x, x.indices.clone(), x.axis)


def _converted(
    x: OneHotArray, *, dtype: torch.dtype | None = None, device: Any = None, non_blocking: bool = False, **_: Any
) -> OneHotArray:
    indices = x.indices.to(device=device or x.device, non_blocking=non_blocking)
    return _onehot(indices, x.nlabels, x.axis, dtype or x.dtype)


def _indexed(x: Tensor, entries: list[Tensor | None]) -> Any:
    """`x[:, [i, j]]` and the like: one-hot if the labels are left alone."""
    if not isinstance(x, OneHotArray) or any(isinstance(e, OneHotArray) for e in entries):
        return NotImplemented
    each: list[Tensor | None] = []
    for e in entries:
        each += e.nonzero(as_tuple=True) if e is not None and e.dtype in (torch.bool, torch.uint8) else [e]
    each += [None] * (x.ndim - len(each))
    used = [k for k, e in enumerate(each) if e is not None]
    first, last, axis = used[0], used[-1], x.axis
    if first <= axis <= last:
        return NotImplemented
    added = max(e.ndim for e in each if e is not None)
    if last - first >= len(used):  # torch puts the axes of indices that stand apart first
        first, axis = 0, axis - sum(k < axis for k in used) + len(used)
    picked = tuple(slice(None) if e is None else e for k, e in enumerate(each) if k != x.axis)
    return _like(x, x.indices[picked], axis if axis < first else axis - len(used) + added)


def _picked(x: OneHotArray, dim: int, index: Tensor) -> Any:
    dim %= x.ndim
    return NotImplemented if dim == x.axis else _like(x, x.indices.index_select(dim - (dim > x.axis), index), x.axis)


def _joined(xs: list[Tensor], dim: int = 0) -> Any:
    first = xs[0]
    if not isinstance(first, OneHotArray):
        return NotImplemented
    dim %= first.ndim
    indices = []
    for x in xs:
        if not isinstance(x, OneHotArray) or (x.ndim, x.axis, x.dtype) != (first.ndim, first.axis, first.dtype):
            return NotImplemented
        indices.append(x.indices)
    if dim == first.axis:
        return NotImplemented
    if any(x.shape[first.axis] != first.nlabels for x in xs):
        raise DimensionMismatch("The number of labels are not the same for all one-hot arrays.")
    return _like(first, torch.cat(indices, dim - (dim > first.axis)), first.axis)


def _stacked(xs: list[Tensor], dim: int = 0) -> Any:
    return torch.cat([x.unsqueeze(dim) for x in xs], dim)


def _summed(x: OneHotArray, dims: list[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    axes = sorted({d % x.ndim for d in dims}) if dims else list(range(x.ndim))
    dtype = dtype or (x.dtype if _is_inexact(x.dtype) else torch.int64)
    if x.axis in axes:
        return torch.ones_like(x.indices, dtype=dtype).unsqueeze(x.axis).sum(axes, keepdim, dtype=dtype)
    if len(axes) < x.ndim - 1:
        return NotImplemented
    ones = torch.ones((), dtype=dtype, device=x.device).expand(x.indices.numel())
    counts = torch.zeros(x.nlabels, dtype=dtype, device=x.device).index_add_(0, x.indices.reshape(-1), ones)
    return counts.reshape([x.nlabels if d == x.axis else 1 for d in range(x.ndim)]) if keepdim else counts


def _largest(x: OneHotArray, dim: int | None = None, keepdim: bool = False) -> Tensor:
    if dim is not None and dim % x.ndim == x.axis:
        return x.indices.clone().unsqueeze(x.axis) if keepdim else x.indices.clone()
    return torch.argmax(x.to_dense(torch.uint8), dim, keepdim)


def _equal(x: Tensor, y: Tensor) -> Any:
    if isinstance(x, OneHotArray) and isinstance(y, OneHotArray) and x.axis == y.axis:
        return x.shape == y.shape and torch.equal(x.indices, y.indices)
    return NotImplemented


def _product(A: Tensor, B: Tensor) -> Any:
    """`A @ B` of two matrices, one of them one-hot: a gather where it says what to take, else a scatter-add."""
    if A.shape[1] != B.shape[0]:
        raise DimensionMismatch(
            f"Matrix column must correspond with OneHot size: {A.shape[1]} != {B.shape[0]}"
            f", in the product of sizes {tuple(A.shape)} and {tuple(B.shape)}"
        )
    if isinstance(A, OneHotArray) and isinstance(B, OneHotArray):
        A = A.to_dense(torch.int64 if A.dtype == torch.bool else None)
    x, other, dim = (B, A, 1) if isinstance(B, OneHotArray) else (A, B, 0)
    assert isinstance(x, OneHotArray)
    if x.axis == 1 - dim:
        return other.index_select(dim, x.indices)
    other = other.to(torch.int64) if other.dtype == torch.bool else other
    size = (other.shape[0], x.nlabels) if dim else (x.nlabels, other.shape[1])
    return torch.zeros(size, dtype=other.dtype, device=other.device).index_add_(dim, x.indices, other)


def _times_vector(A: Tensor, x: Tensor) -> Any:
    return _product(A, x.unsqueeze(1)).squeeze(1)


def _dot(x: Tensor, y: Tensor) -> Any:
    return _product(x.unsqueeze(0), y.unsqueeze(1)).reshape(())


def _added(b: Tensor, product: Any, beta: float, alpha: float) -> Any:
    return torch.add(b if beta == 1 else beta * b, product, alpha=alpha)


_RULES: dict[Any, Callable[..., Any]] = {
    aten.t.default: _transposed,
    aten.view.default: _reshaped,
    aten._unsafe_view.default: _reshaped,
    aten.clone.default: _copied,
    aten._to_copy.default: _converted,
    aten.index.Tensor: _indexed,
    aten.index_select.default: _picked,
    aten.cat.default: _joined,
    aten.stack.default: _stacked,
    aten.sum.default: _summed,
    aten.sum.dim_IntList: _summed,
    aten.argmax.default: _largest,
    aten.equal.default: _equal,
    aten.mm.default: _product,
    aten.mv.default: _times_vector,
    aten.dot.default: _dot,
    aten.addmm.default: lambda b, A, B, *, beta=1, alpha=1: _added(b, _product(A, B), beta, alpha),
    aten.addmv.default: lambda b, A, x, *, beta=1, alpha=1: _added(b, _times_vector(A, x), beta, alpha),
}

_VIEWS = {
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.transpose.int,
    aten.unbind.int,
    aten.unsqueeze.default,
}

# Torch wants one element type for all arguments of the first, and the others take no Bools; in Julia Bools are numbers.
_SAME_TYPE = {aten.baddbmm, aten.bmm, aten.addbmm, aten.ger, aten.addr, aten.vdot, aten.convolution}
_SAME_TYPE |= {aten.sub, aten.sub_, aten.rsub, aten.neg}


# ---------------------------------------------------------------- printing


_SCREEN = (24, 80)


def _display(x: OneHotArray) -> str:
    """What Julia shows for `x` on a screen of 24 lines of 80 columns."""
    n = x.indices.ndim
    name = ("OneHotVector", "OneHotMatrix", "OneHotArray")[min(n, 2)]
    # The type of a position in Julia, where it is unsigned to save memory.
    storage = ("UInt32", "Vector{UInt32}", "Matrix{UInt32}", f"Array{{UInt32, {n}}}")[min(n, 3)]
    kind = f"{name}(::{storage})"
    if x.axis:
        kind = f"{'transpose' if n == 1 else 'permutedims'}({kind})"
    size = f"{x.nlabels}-element" if x.ndim == 1 else "×".join(map(str, x.shape))
    head = f"{size} {kind} with eltype {julia_type(x)}"
    if x.is_meta or not x.numel():
        return head
    body = _slices(x) if x.ndim > 2 else _matrix(x if x.ndim == 2 else x.unsqueeze(1), "⋅")
    return f"{head}:\n{body}"


def _slices(x: Tensor) -> str:
    """The matrices that make up an array, one below the other."""
    places: list[tuple[Any, ...]] = [(..., *k[::-1]) for k in itertools.product(*map(range, reversed(x.shape[2:])))]
    first, last = _ends(places, 10, 3, 3)
    texts = [f"[:, :, {', '.join(map(str, k[1:]))}] =\n{_matrix(x[k], '0')}" for k in first + last]
    return "\n\n".join(texts[: len(first)] + ["..."] * bool(last) + texts[len(first) :])


def _matrix(x: Tensor, off: str) -> str:
    """The rows of a matrix, with dots for what the screen has no room for."""
    height, width = _SCREEN[0] - 4, _SCREEN[1] - 1
    on = "1.0" if x.is_floating_point() else "1"
    off = f"{off + '.0' if on != '1' and off == '0' else off:^{len(on)}}"
    gap, hdots, ddots, vdot, blank = "  ", "  …  ", "  ⋱  ", "⋮".ljust(len(on)), " " * len(on)
    cell = len(on) + len(gap)
    most_right = (width - len(hdots) + 1) // 2 // cell
    most_left = (width - most_right * cell + len(gap) - len(hdots) - 1) // cell
    left, right = _ends(range(x.shape[1]), (width - 1) // cell, most_left, most_right)
    top, bottom = _ends(range(x.shape[0]), height, height // 2, (height - 1) // 2)
    # First along the axis that stays one-hot, so that no large array is made.
    by_row = isinstance(x, OneHotArray) and x.axis == 1
    seen = x[top + bottom][:, left + right] if by_row else x[:, left + right][top + bottom]

    def line(cells: list[str], dots: str) -> str:
        texts = (gap.join(cells[: len(left)]), gap.join(cells[len(left) :]))
        return f" {(dots if right else '').join(texts)}".rstrip()

    rows = [
        line([on if v else off for v in row], hdots if i % 5 == 0 else " " * len(hdots))
        for i, row in zip(top + bottom, seen.tolist(), strict=True)
    ]
    if bottom:
        rows.insert(len(top), line([blank if j % 5 else vdot for j in left + right], ddots))
    return "\n".join(rows)


def _ends(xs: Any, most: int, first: int, last: int) -> tuple[list[Any], list[Any]]:
    """All of `xs` if there are not too many, else the first and the last ones."""
    n = len(xs)
    return (list(xs), []) if n <= most else (list(xs[:first]), list(xs[n - last :]))


# ---------------------------------------------------------------- labels to positions and back


def onehot(x: Any, labels: Any, default: Any = _MISSING) -> OneHotArray:
    """A `OneHotVector` that is true where `labels` has `x`: `onehot(x, labels, [default])`.

    `labels` are a range, list, tuple, string, vector or any ordered collection; of equal ones the first
    counts. If `x` is not among them, the result is `onehot(default, labels)`. 0.0 and -0.0 differ, NaN
    is equal to itself.

    Raises `ValueError` if neither `x` nor `default` is among the labels.

    >>> onehot("b", ("a", "b", "c"))
    3-element OneHotVector(::UInt32) with eltype Bool:
     ⋅
     1
     ⋅
    >>> hcat(onehot(0, range(3)), onehot("b", "abc"), onehot("z", ["a", "b", "c"], "c"))
    3×3 OneHotMatrix(::Vector{UInt32}) with eltype Bool:
     1  ⋅  ⋅
     ⋅  1  ⋅
     ⋅  ⋅  1
    """
    labels = _collection(labels)
    find = _finder(labels)
    place = find(x)
    if place is None and default is not _MISSING:
        x, place = default, find(default)
    if place is None:
        raise ValueError(f"Value {_value(x)} is not in labels")
    return _onehot(torch.tensor(place), len(labels))


def onehotbatch(xs: Any, labels: Any, default: Any = _MISSING) -> OneHotArray:
    """A one-hot array whose column `k` is `onehot(xs[k], labels)`: `onehotbatch(xs, labels, [default])`.

    `xs` is any collection, as a list, a string (of characters), an array or a list of lists, of size
    `(batch…)`; the result is `(length(labels), batch…)`, a `OneHotMatrix` for one axis. `labels` and
    `default` are as in `onehot`. Whole numbers with a `range` of labels are fastest, and stay on
    their GPU; others go through Python.

    Raises `ValueError` for values or a `default` that are not among the labels; on a GPU torch
    reports such a value later. Raises `DimensionMismatch` for lists of several lengths inside one.

    >>> oh = onehotbatch("abracadabra", "abcde", "e")
    >>> oh
    5×11 OneHotMatrix(::Vector{UInt32}) with eltype Bool:
     1  ⋅  ⋅  1  ⋅  1  ⋅  1  ⋅  ⋅  1
     ⋅  1  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  1  ⋅  ⋅
     ⋅  ⋅  ⋅  ⋅  1  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅
     ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  1  ⋅  ⋅  ⋅  ⋅
     ⋅  ⋅  1  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  1  ⋅
    >>> reshape(range(1, 16), 3, 5) @ oh
    tensor([[ 1,  4, 13,  1,  7,  1, 10,  1,  4, 13,  1],
            [ 2,  5, 14,  2,  8,  2, 11,  2,  5, 14,  2],
            [ 3,  6, 15,  3,  9,  3, 12,  3,  6, 15,  3]])
    """
    labels = _collection(labels)
    find = _finder(labels)
    other = None
    if default is not _MISSING and (other := find(default)) is None:
        raise ValueError(f"Default value {_value(default)} is not in labels")
    if isinstance(labels, range):
        xs = array(xs)
        if isinstance(xs, Tensor) and not xs.is_complex():
            return _onehot(_within(xs, labels, other), len(labels))
    device = xs.device if isinstance(xs, Tensor) else None
    if hasattr(xs, "tolist"):
        xs = xs.tolist()

    def places(x: Any) -> Any:
        if isinstance(x, list):
            return list(map(places, x))
        place = find(x)
        if place is None and other is None:
            raise ValueError(f"Value {_value(x)} not found in labels")
        return other if place is None else place

    found = places(list(xs) if isinstance(xs, Iterable) else xs)
    try:
        indices = torch.tensor(found, dtype=torch.int64, device=device)
    except (TypeError, ValueError):
        raise DimensionMismatch("onehotbatch takes lists of one length inside a list") from None
    return _onehot(indices, len(labels))


def onecold(y: Any, labels: Any = None) -> Any:
    """The label of the largest number of `y`, or of each column of it: `onecold(y, labels=range(size(y, 0)))`.

    `y` is one-hot, or numbers such as probabilities. A vector gives one label (without labels an
    int, counted from 0), an array `(n, batch…)` labels `(batch…)`: a tensor if they are numbers,
    else a list, nested for more than one axis. Of equal numbers the first counts. The inverse of
    `onehot` and `onehotbatch`; not differentiable.

    Raises `DimensionMismatch` unless there are `n` labels, `ValueError` for a vector with NaN.

    >>> onecold([False, True, False]), onecold([0.3, 0.2, 0.5], "abc")
    (1, 'c')
    >>> onecold([[1, 20, 5], [2, 7, 6], [3, 9, 10], [2, 1, 14]])
    tensor([2, 0, 3])
    >>> "".join(onecold(onehotbatch("bead", "abcde"), "abcde"))
    'bead'
    """
    y = array(y)
    if not isinstance(y, Tensor) or y.ndim == 0:
        raise TypeError(f"onecold takes a vector or an array, but got {summary(y)}")
    n = y.shape[0]
    if labels is not None:
        labels = _collection(labels)
        if len(labels) != n:
            what = f"a vector of length {n}" if y.ndim == 1 else f"an array with size(y, 0) == {n}"
            raise DimensionMismatch(f"onecold got {len(labels)} labels for {what}, these must agree")
    if y.ndim == 1 and y.is_floating_point() and bool(torch.isnan(y).any()):
        raise ValueError("maximum value found by onecold is NaN")
    places = torch.argmax(y.to(torch.uint8) if y.dtype == torch.bool else y, 0)
    if y.ndim == 1:
        place = int(places)
        return place if labels is None else _value(labels[place])
    if labels is None:
        return places
    if isinstance(labels, range):
        return places * labels.step + labels.start
    if isinstance(labels, Tensor) or all(isinstance(v, (bool, int, float)) for v in labels):
        return torch.as_tensor(labels, device=y.device)[places]
    return _looked_up(labels, places.tolist())


def _looked_up(labels: Any, places: Any) -> Any:
    return [_looked_up(labels, k) for k in places] if isinstance(places, list) else labels[places]


def _collection(labels: Any) -> Any:
    """Labels as a range, a vector or a list."""
    if isinstance(labels, (set, frozenset)):
        raise TypeError("a set of labels has no order, which positions depend on: give sorted(labels)")
    if isinstance(labels, range):
        return labels
    if isinstance(labels, Tensor) and labels.ndim == 1:
        return labels
    labels = labels.tolist() if hasattr(labels, "tolist") else labels
    if not isinstance(labels, Iterable):
        raise TypeError(f"labels are a collection, as range(10) or a list, but got {summary(labels)}")
    return list(labels)


def _finder(labels: Any) -> Callable[[Any], int | None]:
    """The function that gives the position of a value among the labels."""
    if isinstance(labels, range):
        return lambda x: labels.index(_key(x)) if _key(x) in labels else None
    places: dict[Any, int] = {}
    for k, x in enumerate(labels.tolist() if isinstance(labels, Tensor) else labels):
        places.setdefault(_key(x), k)
    return lambda x: places.get(_key(x))


def _value(x: Any) -> Any:
    """A 0-d tensor as the number in it."""
    return x.item() if isinstance(x, Tensor) and x.ndim == 0 else x


def _key(x: Any) -> Any:
    """What stands for `x` in a dictionary, where numbers are equal that Julia's `isequal` takes for equal."""
    x = _value(x)
    if isinstance(x, float) and (x != x or (x == 0 and math.copysign(1, x) < 0)):
        return "float", repr(x)
    return x


def _within(xs: Tensor, labels: range, default: int | None) -> Tensor:
    """The positions of numbers in a range, all at once and where they are."""
    xs = xs if xs.is_floating_point() else xs.to(torch.int64)
    places = torch.div(xs - labels.start, labels.step, rounding_mode="floor")
    found = (places * labels.step + labels.start == xs) & (places >= 0) & (places < len(labels))
    if default is not None:
        places = torch.where(found, places, default)
    elif xs.is_cuda:  # which is not waited for
        torch._assert_async(found.all(), "onehotbatch got a value that is not in labels")
    elif not xs.is_meta and not found.all():
        raise ValueError(f"Value {xs[~found][0].item()} not found in labels")
    return places.to(torch.int64)
