"""The names of Julia's Base, Random, Statistics and LinearAlgebra that Flux programs lean on.

Each means what it means in Julia, save that axes and indices count from 0: arrays line up from the
first axis, reductions with `dims` keep the axis, `reshape` is column-major, `rand` and `zeros` give
Float64. A list of numbers, a `range` and a NumPy array are arrays here. Some of the names hide
Python's own (`sum`, `abs`, `min`, `max`, `round`); `EXPORTED` are those that hide none.
"""

from __future__ import annotations

import builtins
import cmath
import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch

from fluxtorch.arrays import array, ints, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.pairs import Pair

__all__ = [
    "abs",
    "abs2",
    "argmax",
    "broadcast",
    "cat",
    "cos",
    "dot",
    "eachcol",
    "eachslice",
    "exp",
    "findmin",
    "foldl",
    "hcat",
    "identity",
    "length",
    "log",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "norm",
    "ones",
    "only",
    "partition",
    "permutedims",
    "rand",
    "randn",
    "reshape",
    "round",
    "sin",
    "size",
    "sqrt",
    "std",
    "sum",
    "tanh",
    "transpose",
    "var",
    "vcat",
    "vec",
    "zeros",
]

EXPORTED: tuple[str, ...] = tuple(name for name in __all__ if not hasattr(builtins, name))
"""The names that `from fluxtorch import *` brings: those that hide no Python built-in."""

Dims: TypeAlias = int | Iterable[int] | None

_MISSING: Any = object()


# ---------------------------------------------------------------- what counts as what


def _is_array(x: Any) -> bool:
    return hasattr(type(x), "__torch_function__")


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, complex)) and not _is_array(x)


def _array(x: Any, name: str) -> Any:
    x = array(x)
    if not _is_array(x):
        raise TypeError(f"{name} takes an array, but got {summary(x)}")
    return x


def _padded(x: Any, ndim: int) -> Any:
    """`x` with axes of size 1 appended, as Julia sees every array."""
    return x if x.ndim == ndim else x[(...,) + (None,) * (ndim - x.ndim)]


def _items(xs: Any) -> Iterable[Any]:
    """The elements of a collection, an array's in column-major order, a dictionary's values."""
    if _is_array(xs):
        return vec(xs).unbind()
    return map(array, xs.values() if isinstance(xs, Mapping) else xs)


def _packed(values: list[Any], floats: torch.dtype, device: torch.device | None = None) -> torch.Tensor | None:
    """A vector of numbers and 0-d tensors, Python's floats as `floats`; None if there is anything else among them."""
    dtypes = set()
    for v in values:
        if _is_array(v) and v.ndim == 0:
            dtypes.add(v.dtype)
        elif not _is_number(v):
            return None
        elif isinstance(v, complex):
            dtypes.add(floats.to_complex())
        else:
            dtypes.add(torch.bool if isinstance(v, bool) else torch.int64 if isinstance(v, int) else floats)
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else floats
    device = next((v.device for v in values if _is_array(v)), device)
    if not any(map(_is_array, values)):
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.stack([v.to(dtype) if _is_array(v) else torch.tensor(v, dtype=dtype, device=device) for v in values])


# ---------------------------------------------------------------- one element at a time


def _each(whole: Callable[[Any], Any], single: Callable[[Any], Any], x: Any) -> Any:
    """`whole` of an array, or Python's own function of a plain number, with Julia's limits."""
    x = array(x)
    if not _is_number(x):
        return whole(x)
    if isinstance(x, complex):
        return getattr(cmath, single.__name__)(x)
    try:
        return single(x)
    except OverflowError:
        return math.inf
    except ValueError:
        raise DomainError(
            f"{single.__name__}({x}) is no real number; of a complex({x}) it may be a complex one"
        ) from None


def identity(x: Any) -> Any:
    """`x` itself, of whatever kind.

    >>> identity(3)
    3
    """
    return x


def exp(x: Any) -> Any:
    """The exponential of each element. `x` of any shape, the result of the same; a number gives a float.

    >>> exp([0, 0])
    tensor([1., 1.])
    >>> exp(0)
    1.0
    """
    return _each(torch.exp, math.exp, x)


def log(x: Any) -> Any:
    """The natural logarithm of each element. `x` of any shape, the result of the same; a number gives a float.

    A negative number raises `DomainError`, as in Julia; inside a tensor it gives NaN.

    >>> log(1), log(0)
    (0.0, -inf)
    >>> log([1, 1])
    tensor([0., 0.])
    """
    return -math.inf if _is_number(x) and x == 0 else _each(torch.log, math.log, x)


def sqrt(x: Any) -> Any:
    """The square root of each element. `x` of any shape, the result of the same; a number gives a float.

    A negative number raises `DomainError`, as in Julia; inside a tensor it gives NaN.

    >>> sqrt(9), sqrt([4, 9])
    (3.0, tensor([2., 3.]))
    """
    return _each(torch.sqrt, math.sqrt, x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent of each element. `x` of any shape, the result of the same; a number gives a float.

    >>> tanh(0), tanh([0.0, 0.0])
    (0.0, tensor([0., 0.]))
    """
    # An activation, so arrays take the short way.
    return torch.tanh(x) if isinstance(x, torch.Tensor) else _each(torch.tanh, math.tanh, x)


def sin(x: Any) -> Any:
    """The sine of each element, in radians. `x` of any shape, the result of the same; a number gives a float.

    >>> sin(0)
    0.0
    """
    return _each(torch.sin, math.sin, x)


def cos(x: Any) -> Any:
    """The cosine of each element, in radians. `x` of any shape, the result of the same; a number gives a float.

    >>> cos(0)
    1.0
    """
    return _each(torch.cos, math.cos, x)


def abs(x: Any) -> Any:
    """The absolute value of each element. `x` of any shape, the result of the same.

    >>> abs([-1, 2]), abs(-3)
    (tensor([1, 2]), 3)
    """
    x = array(x)
    if _is_array(x) and x.dtype == torch.bool:  # which torch.abs refuses
        return x
    return builtins.abs(x) if _is_number(x) else torch.abs(x)


def abs2(x: Any) -> Any:
    """The squared absolute value of each element. `x` of any shape, the result of the same, real.

    >>> abs2([-1, 2]), abs2(-3), abs2(3 + 4j)
    (tensor([1, 4]), 9, 25.0)
    """
    x = array(x)
    if isinstance(x, complex) or (_is_array(x) and x.is_complex()):
        return x.real * x.real + x.imag * x.imag
    return x * x if _is_number(x) else torch.square(x)


def round(x: Any, *, digits: int = 0) -> Any:
    """Each element rounded to `digits` decimal places, halves to the even neighbour. The element type stays.

    >>> round(2.5), round(3.14159, digits=2)
    (2.0, 3.14)
    >>> round([0.123, 4.567], digits=1)
    tensor([0.1000, 4.6000])
    """
    x = array(x)
    if _is_number(x):
        return builtins.round(x, digits)
    return torch.round(x, decimals=digits) if x.is_floating_point() else x


def _larger(a: Any, b: Any) -> Any:
    # A tie gives the whole gradient to the second, as Julia's rule does, so that max(x, 0) has slope 0 at 0;
    # torch.maximum would share it out. A number is unequal to itself if it is NaN, which wins.
    if _is_array(a) or _is_array(b):
        return torch.where((a > b) | (a != a), a, b)
    return a if a > b or a != a else b


def _smaller(a: Any, b: Any) -> Any:
    if _is_array(a) or _is_array(b):
        return torch.where((a > b) | (b != b), b, a)
    return b if a > b or b != b else a


def _extreme(name: str, f: Callable[[Any, Any], Any], xs: tuple[Any, ...]) -> Any:
    if len(xs) < 2:
        raise TypeError(f"{name} compares two or more; for that of one array or collection write {name}imum(x)")
    return functools.reduce(functools.partial(broadcast, f), xs)


def max(*xs: Any) -> Any:
    """The larger of two or more, element by element, as Julia's `max.(a, b)`. Shapes as in `broadcast`.

    Where two are equal, the second one gets the gradient. NaN wins. One argument is a `TypeError`:
    that is `maximum`.

    >>> max([-1, 2], 0), max(1, 3, 2)
    (tensor([0, 2]), 3)
    """
    return _extreme("max", _larger, xs)


def min(*xs: Any) -> Any:
    """The smaller of two or more, element by element, as Julia's `min.(a, b)`. Shapes as in `broadcast`.

    Where two are equal, the first one gets the gradient. NaN wins. One argument is a `TypeError`:
    that is `minimum`.

    >>> min([-1, 2], 0), min(3, 1, 2)
    (tensor([-1,  0]), 1)
    """
    return _extreme("min", _smaller, xs)


# ---------------------------------------------------------------- broadcast


def broadcast(f: Callable[..., Any], *xs: Any) -> Any:
    """Julia's `f.(xs...)`: `f` of the elements that stand at the same place.

    Arrays line up from their **first** axis; axes of size 1, and those that an array lacks at its
    end, are repeated. So a bias `(out,)` fits `(out,)`, `(out, N)` and `(out, a, b, N)`. Numbers,
    0-d tensors, None, strings, pairs, functions and layers stand for all places, as does what a
    tuple of one holds (Julia's `Ref`). Lists of anything but numbers, other tuples and iterables go
    element by element.

    Gives a tensor where a tensor (or list of numbers) took part and `f` gave numbers; else a list,
    nested for more than one axis; a tuple if only tuples took part.

    `f` is first tried on the arrays as a whole, so it must mean the same on an array as on each of
    its elements, which `operator.add`, torch's functions and activations do. If it fails there or
    gives another size, it is called for each element, in column-major order: slow, but
    differentiable. Elements are then 0-d tensors, or Python's numbers if they are integers or bools.

    Raises `DimensionMismatch` if the sizes don't fit, and `TypeError` for dictionaries and named
    tuples, over which Julia doesn't broadcast either. Follows "Broadcasting" in Julia's manual.

    >>> W, b = torch.ones(2, 3), torch.tensor([0.0, 10.0])
    >>> broadcast(operator.add, W @ torch.ones(3), b)
    tensor([ 3., 13.])
    >>> broadcast(operator.add, W @ torch.ones(3, 2), b)
    tensor([[ 3.,  3.],
            [13., 13.]])
    >>> broadcast(lambda x: x if x > 0 else 0, [-1, 2])
    tensor([0, 2])
    >>> broadcast(operator.eq, ["a", "b"], ["a", "c"])
    [True, False]
    """
    args = [_broadcastable(x) for x in xs]
    only_tuples = all(isinstance(x, tuple) for x in args if _size(x))
    if not only_tuples:  # a tuple of numbers among arrays is an array
        args = [array(list(x)) if type(x) is tuple and all(map(_is_number, x)) else x for x in args]
    sizes = [_size(x) for x in args]
    shape = _common_size(sizes)
    if not shape:
        return f(*args)
    arrays = [x for x, n in zip(args, sizes, strict=True) if n and _is_array(x)]
    if len(arrays) == builtins.sum(map(bool, sizes)):
        whole = [_padded(x, len(shape)) if n else x for x, n in zip(args, sizes, strict=True)]
        result = _as_a_whole(f, whole, shape)
        if result is not None:
            return result
    results = [f(*row) for row in zip(*(_spread(x, shape) for x in args), strict=True)]
    if arrays:
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in arrays))
        floats = dtype if dtype.is_floating_point else torch.get_default_dtype()
        packed = _packed(results, floats, arrays[0].device)
        if packed is not None:
            return reversed_axes(packed.to(arrays[0].device).reshape(shape[::-1]))
    return tuple(results) if only_tuples else _nested(results, shape)


def _broadcastable(x: Any) -> Any:
    """`x` as an array, a list or a tuple if it has elements to go through, else `x`."""
    if _is_array(x) or _is_number(x) or isinstance(x, (str, bytes, tuple)) or callable(x):
        return x
    if isinstance(x, (Mapping, NamedTuple)):
        raise TypeError(f"can't broadcast over {summary(x)}: broadcast over its values instead")
    x = array(x)
    return x if _is_array(x) or not isinstance(x, Iterable) else array(list(x))


def _goes_by_element(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and not isinstance(x, Pair)


def _size(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if _is_array(x) else (len(x),) if _goes_by_element(x) else ()


def _common_size(sizes: list[tuple[int, ...]]) -> tuple[int, ...]:
    common = [1] * builtins.max([0, *map(len, sizes)])
    for size in sizes:
        for axis, n in enumerate(size):
            if n == 1 or n == common[axis]:
                continue
            if common[axis] != 1:
                other = next(s for s in sizes if len(s) > axis and s[axis] == common[axis])
                raise DimensionMismatch(
                    "arrays could not be broadcast to a common size: got a dimension with lengths "
                    f"{other[axis]} and {n}, from sizes {other} and {size} (which line up from the first axis)"
                )
            common[axis] = n
    return tuple(common)


def _as_a_whole(f: Callable[..., Any], args: list[Any], shape: tuple[int, ...]) -> Any:
    """`f` of whole arrays, or None where it can't be what Julia means."""
    attempts = [args]
    if any(map(_is_number, args)):  # torch.maximum and its like take no Python numbers
        kind = {float: torch.float64, complex: torch.complex128}
        attempts.append([torch.tensor(x, dtype=kind.get(type(x))) if _is_number(x) else x for x in args])
    for attempt in attempts:
        try:
            result = f(*attempt)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever f can't do to arrays it may do to numbers, and if not it raises again there
            continue
        if _is_array(result) and result.shape == shape:
            return result
    return None


def _spread(x: Any, shape: tuple[int, ...]) -> Iterable[Any]:
    """What of `x` stands at each place of an array of size `shape`, in column-major order."""
    count = math.prod(shape)
    if _is_array(x) and x.ndim:
        if x.is_meta:  # an `if` in f needs some number to look at
            x = torch.ones((), dtype=x.dtype, device="cpu").expand(x.shape)
        flat = reversed_axes(_padded(x, len(shape)).expand(shape)).reshape(-1)
        return flat.unbind() if x.is_floating_point() or x.is_complex() else flat.tolist()
    if _goes_by_element(x):
        values = list(map(array, x))
        return (values[k % len(values)] for k in range(count))
    return itertools.repeat(x, count)


def _nested(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """A column-major run of values as nested lists, so that `[i][j]` is element (i, j)."""
    if len(shape) == 1:
        return values
    return [_nested(values[i :: shape[0]], shape[1:]) for i in range(shape[0])]


# ---------------------------------------------------------------- reductions


def _data(name: str, f: Any, xs: Any, dims: Dims) -> Any:
    """What `sum(xs)` or `sum(f, xs)` is the sum of: an array, or the elements of a collection."""
    if xs is _MISSING:
        f, xs = None, f
    elif not callable(f):
        raise TypeError(f"{name}(f, x) takes a function first; an axis is given as {name}(x, dims=…)")
    xs = array(xs)
    if _is_array(xs) and f is not None:
        xs = broadcast(f, xs)
    elif not _is_array(xs):
        values = [xs] if _is_number(xs) else _items(xs)
        xs = values if f is None else map(f, values)
    if dims is not None and not _is_array(xs):
        raise TypeError(f"{name} of a collection takes no dims: it has no axes")
    return [xs] if _is_number(xs) else xs


def _axes(x: Any, dims: Dims) -> tuple[int, ...]:
    """`dims` as axes from 0, each once and in order."""
    if dims is None:
        return tuple(range(x.ndim))
    given = ints(dims)
    for d in given:
        if not -x.ndim <= d < x.ndim:
            last = f"; the last axis is {x.ndim - 1}" if x.ndim else ""
            raise IndexError(f"there is no axis {d} in a {summary(x)}: axes count from 0{last}")
    return tuple(sorted({d % x.ndim for d in given}))


def _along(reduce: Callable[[Any, tuple[int, ...], bool], Any], x: Any, dims: Dims) -> Any:
    """`reduce(x, axes, keepdim)` over `dims`, which stay as axes of size 1, or over all."""
    axes = _axes(x, dims)
    if dims is not None and not axes:  # no axis at all, which torch takes to mean every axis
        return reduce(x.unsqueeze(-1), (-1,), False)
    if dims is not None and not x.is_contiguous():  # the result has its axes in memory as `x` has
        return reversed_axes(reduce(reversed_axes(x), tuple([x.ndim - 1 - d for d in axes]), True))
    return reduce(x, axes, dims is not None)


def _counted(x: Any) -> Any:
    """Bools as integers, which add up; in torch they are or-ed."""
    return x.to(torch.int64) if _is_array(x) and x.dtype == torch.bool else +x if isinstance(x, bool) else x


def _plus(a: Any, b: Any) -> Any:
    if isinstance(b, (str, list, tuple)):
        raise TypeError(f"can't add {summary(a)} and {summary(b)}")
    if _is_array(a) or _is_array(b):
        size_a, size_b = _size(a), _size(b)
        if size_a != size_b:  # torch would stretch the smaller one, Julia's + doesn't
            raise DimensionMismatch(f"can't add arrays of sizes {size_a} and {size_b}")
    return a + b


def _real(x: Any) -> Any:
    """Integers and bools as Float64, as wherever Julia divides them."""
    return x if x.is_floating_point() or x.is_complex() else x.to(torch.float64)


def sum(f: Any, xs: Any = _MISSING, /, *, dims: Dims = None) -> Any:
    """`sum(x)` or `sum(f, x)`: the sum of an array or a collection, or of `f` of each element.

    For an array of any shape: a 0-d tensor, or with `dims` (an axis or several) an array in which
    those axes have size 1. For a tuple, list, generator, dictionary (its values) or any iterable:
    the sum of what it holds, 0 if that is nothing; arrays in it must be of one size. Integers and
    bools give integers. `f` is applied as in `broadcast`.

    Raises `DimensionMismatch` for a collection of arrays of several sizes, `IndexError` for an axis
    that isn't there.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> sum(x), sum(x, dims=0), sum(abs2, x)
    (tensor(10.), tensor([[4., 6.]]), tensor(30.))
    >>> sum(norm, (torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])))
    tensor(6.)
    """
    x = _data("sum", f, xs, dims)
    if _is_array(x):
        return _along(lambda x, axes, keep: torch.sum(x, axes, keepdim=keep), x, dims)
    values = map(_counted, x)
    return functools.reduce(_plus, values, next(values, 0))


def mean(f: Any, xs: Any = _MISSING, /, *, dims: Dims = None) -> Any:
    """`mean(x)` or `mean(f, x)`: the mean of an array or a collection, or of `f` of each element.

    For an array of any shape: a 0-d tensor, or with `dims` (an axis or several) an array in which
    those axes have size 1. Integers and bools give Float64. For any other collection of numbers or
    of arrays of one size: their sum over their number, with its gradient. `f` is applied as in
    `broadcast`.

    Raises `ValueError` for an empty collection, `IndexError` for an axis that isn't there, and `TypeError`
    for a single bool: that is what `==` of two lists gives.

    >>> mean([True, False, True, True])
    tensor(0.7500, dtype=torch.float64)
    >>> mean(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), dims=1)
    tensor([[1.5000],
            [3.5000]])
    >>> mean(x * x for x in (1, 2, 3, 4))
    7.5
    """
    if type(f) is bool:
        raise TypeError(
            "mean got a single bool. If it is what == gave: of lists, or of a list and an array, it says whether all "
            "is equal; broadcast(operator.eq, a, b) goes element by element, as a .== b does in Julia"
        )
    x = _data("mean", f, xs, dims)
    if _is_array(x):
        return _along(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep), _real(x), dims)
    values = list(x)
    if not values:
        raise ValueError("mean of an empty collection")
    total = sum(tuple(values))
    return (_real(total) if _is_array(total) else total) / len(values)


def _reduced(name: str, largest: bool, f: Any, xs: Any, dims: Dims) -> Any:
    x = _data(name, f, xs, dims)
    if not _is_array(x):
        values = list(x)
        if not values:
            raise ValueError(f"{name} of an empty collection")
        for v in values:
            if _size(v):
                raise TypeError(f"{name} compares numbers, but the collection holds a {summary(v)}")
        return functools.reduce(lambda a, b: _larger(b, a) if largest else _smaller(a, b), values)
    if any(x.shape[d] == 0 for d in _axes(x, dims)):
        raise ValueError(f"{name} of an empty array")

    def reduce(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return (torch.amax if largest else torch.amin)(x, axes, keepdim=keep)
        # Among equal elements the first gets the whole gradient, as in Zygote; amax would share it out.
        for d in axes:
            x = (torch.max if largest else torch.min)(x, d, keepdim=True).values
        return x if keep else x.squeeze(axes)

    return _along(reduce, x, dims)


def maximum(f: Any, xs: Any = _MISSING, /, *, dims: Dims = None) -> Any:
    """`maximum(x)` or `maximum(f, x)`: the largest element of an array or a collection, or of `f` of each.

    For an array of any shape: a 0-d tensor, or with `dims` (an axis or several) an array in which
    those axes have size 1. NaN wins. The gradient goes to the first of equal ones. `f` is applied as
    in `broadcast`.

    Raises `ValueError` if there is no element, `IndexError` for an axis that isn't there.

    >>> maximum([[1, 5], [3, 4]], dims=0)
    tensor([[3, 5]])
    >>> maximum(abs, (-3, 2))
    3
    """
    return _reduced("maximum", True, f, xs, dims)


def minimum(f: Any, xs: Any = _MISSING, /, *, dims: Dims = None) -> Any:
    """`minimum(x)` or `minimum(f, x)`: the smallest element of an array or a collection, or of `f` of each.

    For an array of any shape: a 0-d tensor, or with `dims` (an axis or several) an array in which
    those axes have size 1. NaN wins. The gradient goes to the first of equal ones. `f` is applied as
    in `broadcast`.

    Raises `ValueError` if there is no element, `IndexError` for an axis that isn't there.

    >>> minimum([[1, 5], [3, 4]], dims=1)
    tensor([[1],
            [3]])
    """
    return _reduced("minimum", False, f, xs, dims)


def _sample(name: str, xs: Any) -> Any:
    """The numbers whose spread is asked for, as an array of floats."""
    x = _data(name, xs, _MISSING, None)
    if not _is_array(x):
        values = list(x)
        x = _packed(values, torch.float64)
        if x is None:
            raise TypeError(f"{name} takes numbers, but got {summary(values)}")
    return _real(x)


def var(x: Any, /, *, dims: Dims = None, corrected: bool = True, mean: Any = None) -> Any:
    """The variance of an array or of a collection of numbers.

    For an array of any shape: a 0-d tensor, or with `dims` (an axis or several) an array in which
    those axes have size 1. Divides by n - 1, with `corrected=False` by n. `mean`, if it is known
    already, is a number or an array of the result's size.

    Raises `DimensionMismatch` if `mean` doesn't fit, `IndexError` for an axis that isn't there.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    >>> var(x, dims=0), var(x, dims=0, corrected=False)
    (tensor([[2., 8.]]), tensor([[1., 4.]]))
    """
    x, mean = _sample("var", x), array(mean)
    if mean is None:
        return _along(lambda x, axes, keep: torch.var(x, axes, correction=int(corrected), keepdim=keep), x, dims)
    deviation = broadcast(operator.sub, x, mean)
    if deviation.shape != x.shape:
        raise DimensionMismatch(f"a mean of size {_size(mean)} doesn't fit an array of size {_size(x)}")
    count = math.prod(x.shape[d] for d in _axes(x, dims))
    return sum(abs2(deviation), dims=dims) / (count - corrected)


def std(x: Any, /, *, dims: Dims = None, corrected: bool = True, mean: Any = None) -> Any:
    """The standard deviation of an array or of a collection of numbers: the root of `var`, with its keywords.

    >>> std([1.0, 2.0, 3.0]), std(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), dims=1, corrected=False)
    (tensor(1.), tensor([[1.],
            [0.]]))
    """
    if mean is not None:
        return torch.sqrt(var(x, dims=dims, corrected=corrected, mean=mean))
    x = _sample("std", x)
    return _along(lambda x, axes, keep: torch.std(x, axes, correction=int(corrected), keepdim=keep), x, dims)


def _position(name: str, largest: bool, x: Any, dims: int | None) -> Any:
    find = torch.argmax if largest else torch.argmin
    if isinstance(x, (list, tuple)):
        packed = _packed(list(x), torch.float64)
        x = array(x) if packed is None else packed
    x = _array(x, name)
    x = x.to(torch.uint8) if x.dtype == torch.bool else x
    axes = _axes(x, dims)
    if any(x.shape[d] == 0 for d in axes):
        raise ValueError(f"{name} of an empty array")
    if dims is not None:
        if len(axes) != 1:
            raise TypeError(f"{name} takes one axis, but got dims={dims}")
        return find(x, axes[0], keepdim=True)
    k = int(find(vec(x)))
    if x.ndim == 1:
        return k
    steps = itertools.accumulate(x.shape, operator.mul, initial=1)
    return tuple(k // step % n for step, n in zip(steps, x.shape, strict=False))


def argmax(f: Any, xs: Any = _MISSING, /, *, dims: int | None = None) -> Any:
    """`argmax(x)`: where the largest element is. `argmax(f, xs)`: the element of `xs` whose `f` is largest.

    Of equal ones the first (in column-major order) is meant; NaN counts as largest. A vector gives an
    int, an array of more axes a tuple of ints, which index it. With `dims`, one axis: an integer
    array of positions along that axis, which stays with size 1.

    Raises `ValueError` if there is no element.

    >>> argmax([3, 9, 9]), argmax([[1, 2], [8, 4]])
    (1, (1, 0))
    >>> argmax([[1, 2], [8, 0]], dims=0)
    tensor([[1, 0]])
    >>> argmax(abs, [-3, 2])
    -3
    """
    if xs is _MISSING:
        return _position("argmax", True, f, dims)
    if not callable(f):
        raise TypeError("argmax(f, xs) takes a function first; an axis is given as argmax(x, dims=…)")
    values = list(_items(xs))
    if not values:
        raise ValueError("argmax of an empty collection")
    return builtins.max(values, key=f)


def findmin(x: Any, /, *, dims: int | None = None) -> tuple[Any, Any]:
    """The smallest element and where it is: `minimum` and the index, counted and shaped as by `argmax`.

    >>> findmin([3, 1, 2])
    (tensor(1), 1)
    """
    return minimum(x, dims=dims), _position("findmin", False, x, dims)


# ---------------------------------------------------------------- making arrays


def _typed(args: tuple[Any, ...]) -> tuple[torch.dtype | None, tuple[Any, ...]]:
    """A leading element type, if there is one, and the rest."""
    return (args[0], args[1:]) if args and isinstance(args[0], torch.dtype) else (None, args)


def _sizes(dims: tuple[Any, ...]) -> tuple[int, ...]:
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple) else dims
    try:
        return tuple(map(operator.index, given))
    except TypeError:
        raise TypeError(f"sizes are whole numbers or one tuple of them, but got {given}") from None


def _drawn(args: tuple[Any, ...], rng: torch.Generator | None) -> tuple[torch.Generator | None, tuple[Any, ...]]:
    """A leading generator, or `rng`, and the rest."""
    return (args[0], args[1:]) if args and isinstance(args[0], torch.Generator) else (rng, args)


def _source(rng: torch.Generator | None) -> dict[str, Any]:
    return {} if rng is None else {"generator": rng, "device": rng.device}


def rand(*args: Any, rng: torch.Generator | None = None) -> Any:
    """`rand([rng], [type], dims...)`: uniform random numbers. `rand([rng], xs, dims...)`: random elements of `xs`.

    `dims` are whole numbers or one tuple of them. The numbers are in [0, 1), Float64 by default; an
    integer type gives any of its numbers, `torch.bool` coins. Without `dims`, one Python number or
    one element. `xs` is a list, range, tensor, string or tuple, so that `rand((2, 3))` is 2 or 3, as
    in Julia, but `rand(x.shape)` is an array. Elements that are numbers come as a tensor, others as
    a list, nested for more than one axis.

    Raises `ValueError` if `xs` is empty, `TypeError` if `dims` are no whole numbers. Follows `rand`
    of Julia's Random.

    >>> rand(2, 3).dtype, rand(torch.float32, 2, 3).shape
    (torch.float64, torch.Size([2, 3]))
    >>> rand(range(1, 7)) in range(1, 7), rand(torch.Generator(), ["heads", "heads"], 2)
    (True, ['heads', 'heads'])
    """
    rng, args = _drawn(args, rng)
    dtype, dims = _typed(args)
    if dtype is None and dims:
        xs = dims[0] if isinstance(dims[0], (list, range)) else array(dims[0])
        if isinstance(xs, (list, range, str)) or type(xs) is tuple or (_is_array(xs) and xs.ndim):
            return _picked(xs, dims[1:], rng)
    shape, kind = _sizes(dims), dtype or torch.float64
    if kind.is_floating_point or kind.is_complex:
        x = torch.rand(shape, dtype=kind, **_source(rng))
    else:
        low, high = (0, 1) if kind == torch.bool else (torch.iinfo(kind).min, torch.iinfo(kind).max)
        x = torch.randint(low, builtins.min(high + 1, 2**63 - 1), shape, **_source(rng)).to(kind)
    return x if dims else x.item()


def _picked(xs: Any, dims: tuple[Any, ...], rng: torch.Generator | None) -> Any:
    """Elements of `xs` at random: one, or as many as `dims` ask for."""
    if _is_array(xs) or (isinstance(xs, range) and dims):
        xs = vec(xs)
    if not len(xs):
        raise ValueError("rand of an empty collection")
    shape = _sizes(dims)
    places = torch.randint(len(xs), shape, **_source(rng))
    if not dims:
        return xs[int(places)]
    if _is_array(xs):
        return xs[places.to(xs.device)]
    return array(_nested([xs[k] for k in vec(places).tolist()], shape))


def randn(*args: Any, rng: torch.Generator | None = None) -> Any:
    """`randn([rng], [type], dims...)`: normal random numbers of mean 0 and standard deviation 1.

    `dims` are whole numbers or one tuple of them; without, one Python number. Float64 by default.

    Raises `TypeError` if `dims` are no whole numbers. Follows `randn` of Julia's Random.

    >>> randn(2, 3).dtype, randn(torch.float32, 2, 3).shape
    (torch.float64, torch.Size([2, 3]))
    """
    rng, args = _drawn(args, rng)
    dtype, dims = _typed(args)
    x = torch.randn(_sizes(dims), dtype=dtype or torch.float64, **_source(rng))
    return x if dims else x.item()


def zeros(*args: Any) -> torch.Tensor:
    """`zeros([type], dims...)`: an array of zeros, Float64 by default. `dims` are whole numbers or one tuple of them.

    >>> zeros(2), zeros(torch.int64, 1, 2)
    (tensor([0., 0.], dtype=torch.float64), tensor([[0, 0]]))
    """
    dtype, dims = _typed(args)
    return torch.zeros(_sizes(dims), dtype=dtype or torch.float64)


def ones(*args: Any) -> torch.Tensor:
    """`ones([type], dims...)`: an array of ones, Float64 by default. `dims` are whole numbers or one tuple of them.

    >>> ones(2), ones(torch.int64, 1, 2)
    (tensor([1., 1.], dtype=torch.float64), tensor([[1, 1]]))
    """
    dtype, dims = _typed(args)
    return torch.ones(_sizes(dims), dtype=dtype or torch.float64)


# ---------------------------------------------------------------- shapes


def size(x: Any, *axes: int) -> Any:
    """The size of an array: all of it as a tuple, or along one axis as an int (along several, a tuple).

    Beyond an array's last axis the size is 1, as in Julia: `size(y, 1)` is the number of columns of
    a matrix and of a vector. Raises `IndexError` for an axis below the first.

    >>> size(torch.ones(2, 3)), size(torch.ones(2, 3), 1), size([1, 2], 1)
    ((2, 3), 3, 1)
    """
    x = array(x)
    shape = tuple(x.shape) if _is_array(x) else () if _is_number(x) else (len(x),)
    lengths = tuple(shape[d] if d < len(shape) else 1 for d in map(operator.index, axes))
    return shape if not axes else lengths[0] if len(axes) == 1 else lengths


def length(x: Any) -> int:
    """How many elements there are: all those of an array, whatever its axes. 1 for a number.

    >>> length(torch.ones(3, 4)), length([[1, 2], [3, 4]]), length("abc"), length(5)
    (12, 4, 3, 1)
    """
    x = array(x)
    return math.prod(x.shape) if _is_array(x) else 1 if _is_number(x) else len(x)


def only(x: Any) -> Any:
    """The one element of an array (as a 0-d tensor) or of a collection. `ValueError` if there isn't exactly one.

    >>> only(torch.tensor([[2.0]])), only(["a"])
    (tensor(2.), 'a')
    """
    x = array(x)
    if _is_number(x) or (_is_array(x) and math.prod(x.shape) == 1):
        return x if _is_number(x) else x.reshape(())
    found = [] if _is_array(x) else list(itertools.islice(_items(x), 2))
    if len(found) != 1:
        raise ValueError(f"only takes a collection of exactly one element, but got {summary(x)}")
    return found[0]


def reshape(x: Any, *dims: Any) -> Any:
    """The same elements in another size, in Julia's column-major order. `dims` are whole numbers or one tuple.

    One of `dims` may be -1, Julia's `:`, and is as long as the rest leaves it. A view where the
    memory allows it: on what layers give, whose first axis runs fastest, it does.

    Raises `DimensionMismatch` if the numbers of elements differ.

    >>> reshape(range(1, 7), 2, 3)
    tensor([[1, 3, 5],
            [2, 4, 6]])
    >>> reshape([[1, 2], [3, 4]], -1)
    tensor([1, 3, 2, 4])
    """
    x, shape = _array(x, "reshape"), _sizes(dims)
    given, count = math.prod(n for n in shape if n != -1), math.prod(x.shape)
    free = shape.count(-1)
    if free > 1 or any(n < -1 for n in shape):
        raise DimensionMismatch(f"new dimensions {shape} must be 0 or more, and one of them may be -1")
    if given != count and not (free and given and count % given == 0):
        raise DimensionMismatch(f"new dimensions {shape} must be consistent with array length {count}")
    if free:
        shape = tuple(count // builtins.max(given, 1) if n == -1 else n for n in shape)
    return reversed_axes(reversed_axes(x).reshape(shape[::-1]))


def vec(x: Any) -> Any:
    """All elements as a vector, in Julia's column-major order. A view where the memory allows it.

    >>> vec([[1, 2], [3, 4]])
    tensor([1, 3, 2, 4])
    """
    return reversed_axes(_array(x, "vec")).reshape(-1)


def transpose(x: Any) -> Any:
    """A matrix `(m, n)` as `(n, m)`, a vector `(n,)` as a row `(1, n)`; a view. A number stays.

    Raises `DimensionMismatch` for more axes: that is `permutedims` with a `perm`.

    >>> transpose([[1, 2], [3, 4]]), transpose([1, 2])
    (tensor([[1, 3],
            [2, 4]]), tensor([[1, 2]]))
    """
    x = array(x)
    return x if _is_number(x) else permutedims(x)


def permutedims(x: Any, perm: Iterable[int] | None = None) -> Any:
    """The axes in another order: axis `k` of the result is axis `perm[k]` of `x`. A view, where Julia copies.

    Without `perm`, a matrix `(m, n)` becomes `(n, m)` and a vector `(n,)` a row `(1, n)`.

    Raises `DimensionMismatch` if `perm` doesn't name every axis once, or is lacking for more than
    two axes.

    >>> permutedims(torch.ones(2, 3, 4), (2, 0, 1)).shape
    torch.Size([4, 2, 3])
    >>> permutedims([1, 2])
    tensor([[1, 2]])
    """
    x = _array(x, "permutedims")
    if perm is not None:
        order = tuple(d + x.ndim if d < 0 else d for d in perm)
        if sorted(order) != list(range(x.ndim)):
            raise DimensionMismatch(f"{order} is not a permutation of the axes 0 to {x.ndim - 1} of a {summary(x)}")
        return x.permute(order)
    if x.ndim > 2:
        raise DimensionMismatch(
            f"a vector or a matrix can be transposed, but not a {summary(x)}: give permutedims a perm"
        )
    return x[None, :] if x.ndim == 1 else reversed_axes(x)


def eachslice(x: Any, *, dims: int) -> list[Any]:
    """The slices of an array along axis `dims`, without that axis: a list of views.

    Raises `IndexError` for an axis that isn't there.

    >>> [s.shape for s in eachslice(torch.ones(2, 3, 2), dims=2)]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """
    x = _array(x, "eachslice")
    axes = _axes(x, dims)
    if len(axes) != 1:
        raise TypeError(f"eachslice takes one axis, but got dims={dims}")
    if isinstance(x, torch.Tensor):
        return list(x.unbind(axes[0]))
    return [x[(slice(None),) * axes[0] + (k,)] for k in range(x.shape[axes[0]])]


def eachcol(x: Any) -> list[Any]:
    """The columns of a matrix `(m, n)`: a list of n views `(m,)`. A vector is its own column.

    Raises `DimensionMismatch` for more axes: that is `eachslice`.

    >>> eachcol([[1, 2], [3, 4]])
    [tensor([1, 3]), tensor([2, 4])]
    """
    x = _array(x, "eachcol")
    if x.ndim not in (1, 2):
        raise DimensionMismatch(f"eachcol takes a matrix, but got a {summary(x)}")
    return [x] if x.ndim == 1 else eachslice(x, dims=1)


def partition(xs: Any, n: int) -> Iterable[Any]:
    """`xs` in runs of `n`, the last one shorter if need be, as Julia's `Iterators.partition`.

    A list, tuple, string or range gives a list of its slices, an array a list of views of its
    `vec`, another iterable a list of lists; an iterator is gone through only as far as asked for.

    Raises `ValueError` if `n` is less than 1.

    >>> partition(range(1, 6), 2), partition([1, 2, 3], 2)
    ([range(1, 3), range(3, 5), range(5, 6)], [[1, 2], [3]])
    """
    if n < 1:
        raise ValueError(f"partition needs runs of 1 or more, but got {n}")
    if isinstance(xs, Iterator):
        return iter(lambda: list(itertools.islice(xs, n)), [])
    if not isinstance(xs, (list, tuple, str, range)):
        xs = array(xs)
        xs = vec(xs) if _is_array(xs) else list(xs)
    return [xs[k : k + n] for k in range(0, len(xs), n)]


def foldl(f: Callable[[Any, Any], Any], xs: Any, *, init: Any = _MISSING) -> Any:
    """`f(…f(f(init, xs[0]), xs[1])…, xs[-1])`; without `init` it starts from the first element.

    `xs` is any collection; an array gives its elements in column-major order, a list of lists its
    rows. Raises `ValueError` if there is nothing to start from.

    >>> foldl(operator.sub, [10, 1, 2]), foldl(lambda x, m: m(x), [exp, log], init=0)
    (7, 0.0)
    """
    values = iter(_items(xs if isinstance(xs, (list, range)) else array(xs)))
    first = next(values, _MISSING) if init is _MISSING else init
    if first is _MISSING:
        raise ValueError("foldl of an empty collection needs an init")
    return functools.reduce(f, values, first)


# ---------------------------------------------------------------- putting together


def _promoted(xs: list[Any]) -> torch.dtype:
    """The element type that holds all of `xs`; numbers and 0-d tensors yield to arrays, as everywhere in torch."""
    arrays = [x.dtype for x in xs if _is_array(x) and x.ndim]
    like: Any = torch.empty(1, dtype=functools.reduce(torch.promote_types, arrays), device="meta") if arrays else xs[0]
    for x in xs:
        if not (_is_array(x) and x.ndim):
            dtype = torch.result_type(like, x)
            like = torch.empty([1] if arrays else [], dtype=dtype, device="meta")
    return like.dtype


def _joined(name: str, xs: tuple[Any, ...], dims: int) -> Any:
    parts = [array(x) for x in xs]
    if not parts:
        raise ValueError(f"{name} needs at least one array")
    for x in parts:
        if not (_is_array(x) or _is_number(x)):
            raise TypeError(f"{name} takes numbers and arrays, but got {summary(x)}")
    ndim = builtins.max([1, dims + 1, *(x.ndim for x in parts if _is_array(x))])
    axis = dims + ndim if dims < 0 else dims
    if axis < 0:
        raise IndexError(f"there is no axis {dims} in arrays of {ndim} axes")
    dtype = _promoted(parts)
    device = next((x.device for x in parts if _is_array(x)), None)
    parts = [
        _padded(x, ndim).to(dtype) if _is_array(x) else torch.full((1,) * ndim, x, dtype=dtype, device=device)
        for x in parts
    ]
    expected = parts[0].shape
    for x in parts:
        if any(d != axis and n != expected[d] for d, n in enumerate(x.shape)):
            raise DimensionMismatch(
                f"{name} needs arrays of one size but for axis {axis}, and got {tuple(expected)} and {tuple(x.shape)}"
            )
    return torch.cat(parts, axis)


def cat(*xs: Any, dims: int) -> Any:
    """Arrays and numbers, one behind the other along axis `dims`.

    Axes of size 1 are appended where they lack; the other axes must be of one size. Element types
    are promoted: Int64 with Float64 gives Float64.

    Raises `DimensionMismatch` if sizes don't fit, `TypeError` for anything but numbers and arrays.

    >>> cat(torch.ones(2, 3), torch.ones(2, 3), dims=2).shape
    torch.Size([2, 3, 2])
    >>> cat([1, 2], [3, 4], dims=1)
    tensor([[1, 3],
            [2, 4]])
    """
    return _joined("cat", xs, operator.index(dims))


def hcat(*xs: Any) -> Any:
    """Side by side: matrices `(m, n)` and vectors `(m,)`, which are columns, give `(m, …)`; numbers a row.

    Otherwise as `cat` with `dims=1`.

    >>> hcat(*range(0, 6))
    tensor([[0, 1, 2, 3, 4, 5]])
    >>> hcat([1, 2], [3, 4])
    tensor([[1, 3],
            [2, 4]])
    """
    return _joined("hcat", xs, 1)


def vcat(*xs: Any) -> Any:
    """One below the other: vectors and numbers give a vector, matrices `(m, n)` give `(…, n)`.

    Otherwise as `cat` with `dims=0`. Lists of anything but numbers are joined to one list.

    >>> vcat(1, 2), vcat([1, 2], 3.5), vcat(["a"], ["b"])
    (tensor([1, 2]), tensor([1.0000, 2.0000, 3.5000]), ['a', 'b'])
    >>> vcat([1, 2], [[3], [4]])
    tensor([[1],
            [2],
            [3],
            [4]])
    """
    if xs and all(type(x) is list for x in xs) and any(not _is_array(array(x)) for x in xs):
        return [element for x in xs for element in x]
    return _joined("vcat", xs, 0)


# ---------------------------------------------------------------- LinearAlgebra


def dot(x: Any, y: Any) -> Any:
    """The sum of `conj(x) * y` over all elements of two arrays of any shape, or of two numbers: a 0-d tensor.

    Raises `DimensionMismatch` if they differ in the number of elements.

    >>> dot([1, 2, 3], [4, 5, 6])
    tensor(32)
    """
    x, y = (v if _is_number(v) else _array(v, "dot") for v in (x, y))
    if length(x) != length(y):
        raise DimensionMismatch(f"dot takes arrays of one length, but got lengths {length(x)} and {length(y)}")
    if _size(x) != _size(y):
        x, y = vec(x), vec(y)
    product = (x.conj() if _is_array(x) else x.conjugate()) * y
    return torch.sum(product) if _is_array(product) else product


def norm(x: Any, p: float = 2) -> Any:
    """The `p`-norm of all elements, of an array of any shape (a 0-d tensor) or of a number.

    Of a collection: the norm of the norms of what it holds, at any depth. `p=math.inf` is the
    largest absolute value, `p=0` the number of elements that aren't 0. The gradient of the 2-norm at
    zero is zero. Follows `norm` of Julia's LinearAlgebra: of a matrix too it is not the operator
    norm.

    >>> norm([3.0, 4.0]), norm([[1.0, -2.0], [3.0, 4.0]], 1), norm(-2)
    (tensor(5.), tensor(10.), 2.0)
    >>> norm((torch.tensor([3.0]), torch.tensor([[4.0]])))
    tensor(5.)
    """
    x = array(x)
    if _is_array(x):
        return torch.linalg.vector_norm(_real(x), p)
    if _is_number(x):
        return float(builtins.abs(x)) if p else float(x != 0)
    norms = [norm(v, p) for v in _items(x)]
    arrays = [v for v in norms if _is_array(v)]
    if not arrays:
        return torch.linalg.vector_norm(torch.tensor(norms, dtype=torch.float64), p).item() if norms else 0.0
    return torch.linalg.vector_norm(_packed(norms, arrays[0].dtype), p)
