"""`autosize`: a model whose sizes are found from that of its input."""

# Flux's macro replaces each call that has `_` among its arguments by a layer that is made when it is
# first called. Python has no macros, but the names that a function uses can be given other meanings:
# the caller's function is run with a stand-in, `_Named`, for every module, class and function that it
# names. Called with `_` among its arguments, a stand-in gives a `LazyLayer`; any other call goes
# through. So `block(_, 5)` is lazy as a whole, as in Julia, whatever `block` is, and no layer need
# know of it. One run on an array without contents then makes the lazy layers, each from what it is
# given, and they are put in their places.

from __future__ import annotations

import builtins
import functools
import inspect
import operator
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from fluxtorch.arrays import summary
from fluxtorch.functors import _items, _like, functor
from fluxtorch.layers.layer import ComposedFunction
from fluxtorch.layers.normalise import testmode_
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.outputsize import _is_shape, _on_meta, outputsize
from fluxtorch.printing import function_name, show

__all__ = ["autosize"]

# The layers for which `_` is the first size of their input, and not the last but one.
_BY_FIRST = "Dense Embedding LayerNorm RNN LSTM GRU GRUv3 MultiHeadAttention".split()


def autosize(size: tuple[Any, ...], f: Callable[[Any], Any]) -> Any:
    """The model `f(_)` for inputs of the given `size`, where `_` stands for a number that is found for each layer.

    It may be an argument of whatever `f` names and calls (a layer, a class, a function that makes
    layers), stand in a pair or tuple, and be calculated with. For `Dense`, `Embedding`, `LayerNorm`,
    recurrent layers and attention it is the size of the layer's input along axis 0, for all else along
    the axis before the last (the channels); a class may say otherwise by a static method
    `autosizefor(x)`. Nothing is computed, and the layers are made in the order in which an input
    reaches them. For a model of several inputs, `size` is a tuple of sizes.

    Raises `TypeError` where `_` can't be used, `ValueError` for a layer with `_` that no input
    reaches, and what the model itself raises for an input of this size.

    >>> autosize((3, 1), lambda _: Chain(Dense(_ |to| 2, sigmoid), BatchNorm(_, affine=False)))
    Chain(
      Dense(3 => 2, σ),                     # 8 parameters
      BatchNorm(2, affine=false),
    )
    >>> img = (28, 28)
    >>> m = autosize((*img, 1, 32), lambda _: Chain(
    ...     Chain(c=Conv((3, 3), _ |to| 5, stride=2, pad=SamePad()), p=MeanPool((3, 3)), b=BatchNorm(_), f=flatten),
    ...     Dense(_ |to| _ // 4, relu, init=rand32),
    ...     Dense(_ |to| 10),
    ... ))
    >>> m[1], m[2]
    (Dense(80 => 20, relu)  # 1_620 parameters, Dense(20 => 10)     # 210 parameters)
    >>> outputsize(m, (28, 28, 1, 32))
    (10, 32)
    """
    if not isinstance(size, (tuple, list)) or not (_is_shape(size) or all(map(_is_shape, size))):
        raise TypeError(f"autosize's first argument must be a tuple, the size of the input, and got {summary(size)}")
    if not callable(f):
        raise TypeError(
            "autosize's second argument must be a function of _, as in lambda _: Chain(layers...), "
            f"and got {summary(f)}"
        )
    work = _Work(f)
    m = work.run()
    if isinstance(m, _Size) or not callable(m):
        raise TypeError(
            f"autosize needs a function that gives a model, as in lambda _: Chain(layers...), and got {m!r}"
        )
    work.sizing = True
    outputsize(m, size)
    return work.settled(m)


def _unknown(self: Any, *_: Any) -> NoReturn:
    raise TypeError(f"autosize doesn't expect an underscore here: {self} is known only once its layer is made")


class _Size:
    """The number that `_` stands for, or one calculated from it, for a layer that is not yet made."""

    def __init__(self, at: Callable[[int], Any], text: str) -> None:
        self.at, self.text = at, text

    def __repr__(self) -> str:
        return self.text

    __bool__ = __index__ = __int__ = __float__ = __iter__ = __len__ = _unknown
    __hash__ = None  # type: ignore[assignment]


def _deferred(f: Callable[..., Any], form: str) -> Callable[..., _Size]:
    def operation(*args: Any, **kwargs: Any) -> _Size:
        return _Size(lambda n: f(*_resolved(args, n), **_resolved(kwargs, n)), form.format(*args))

    return operation


for _name, _sign in zip("add sub mul truediv floordiv mod pow".split(), "+ - * / // % **".split(), strict=True):
    _f = getattr(operator, _name)
    setattr(_Size, f"__{_name}__", _deferred(_f, f"({{}} {_sign} {{}})"))
    setattr(_Size, f"__r{_name}__", _deferred(lambda b, a, f=_f: f(a, b), f"({{1}} {_sign} {{0}})"))
for _name, _sign in zip("lt le eq ne gt ge".split(), "< <= == != > >=".split(), strict=True):
    setattr(_Size, f"__{_name}__", _deferred(getattr(operator, _name), f"({{}} {_sign} {{}})"))
setattr(_Size, "__neg__", _deferred(operator.neg, "-{}"))  # noqa: B010


class LazyLayer:
    """What a call with `_` among its arguments gives: the layer, once there is an input."""

    def __init__(self, work: _Work, make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.work, self.make, self.args, self.kwargs = work, make, args, kwargs
        self.layer: Any = None

    def at(self, n: int) -> Any:
        args, kwargs = _resolved((self.args, self.kwargs), n)
        return self.make(*args, **kwargs)

    def __call__(self, *xs: Any) -> Any:
        if self.layer is None:
            x = xs[0] if xs else None
            x = x[0] if type(x) is tuple and x else x
            if not isinstance(x, torch.Tensor) or x.ndim == 0:
                raise TypeError(
                    f"{self} needs an array as its first input, whose size tells what _ is, and got {summary(x)}"
                )
            self.layer = self.at(_size_for(self.make, x))
        return testmode_(_on_meta(self.layer))(*xs)

    def functor(self) -> tuple[tuple[()], Any]:
        if not self.work.sizing:
            raise TypeError(
                f"{self} has no arrays yet: what changes or looks into a model is for the result of autosize"
            )
        return (), lambda _: self

    def __matmul__(self, inner: Any) -> ComposedFunction:
        return ComposedFunction(self, inner)

    def __rmatmul__(self, outer: Any) -> ComposedFunction:
        return ComposedFunction(outer, self)

    def __repr__(self) -> str:
        given = [show(x) for x in self.args] + [f"{name}={show(x)}" for name, x in self.kwargs.items()]
        made = (
            f"{function_name(self.make) or show(self.make)}({', '.join(given)})"
            if self.layer is None
            else show(self.layer)
        )
        return f"LazyLayer({made})"


def _size_for(make: Callable[..., Any], x: torch.Tensor) -> int:
    """What `_` is among the arguments of `make`, for the input `x`."""
    if hasattr(make, "autosizefor"):
        return make.autosizefor(x)
    kinds = (make, *getattr(make, "__mro__", ()))
    ours = [kind.__name__ for kind in kinds if getattr(kind, "__module__", "").startswith("fluxtorch.")]
    return x.shape[0 if any(name in _BY_FIRST for name in ours) else max(0, x.ndim - 2)]


class _Named:
    """Stands in for a module, class or function that the caller's function names."""

    def __init__(self, work: _Work, value: Any) -> None:
        self._work, self._value = work, value

    def __getattr__(self, name: str) -> Any:
        return self._work.named(getattr(self._value, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sizes: list[_Size] = []

        def meant(x: Any) -> Any:
            if isinstance(x, _Size):
                sizes.append(x)
            return x._value if isinstance(x, _Named) else x

        f, args, kwargs = self._value, _each(meant, args), _each(meant, kwargs)
        if not sizes:
            return f(*args, **kwargs)
        if getattr(f, "__module__", None) in ("builtins", "math", "_operator"):
            return _deferred(f, f"{f.__name__}({', '.join('{}' for _ in args)})")(*args, **kwargs)
        return LazyLayer(self._work, f, args, kwargs)

    def __repr__(self) -> str:
        return show(self._value)


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    """`x`, the arguments of a call, with `f` applied to each, in tuples, lists and dicts too."""
    if isinstance(x, NamedTuple):
        return NamedTuple.of(_each(f, vars(x)))
    if type(x) is dict:
        return {key: _each(f, v) for key, v in x.items()}
    if isinstance(x, (tuple, list)):
        values = [_each(f, v) for v in x]
        return type(x)(*values) if hasattr(x, "_fields") else type(x)(values)
    return f(x)


def _resolved(args: Any, n: int) -> Any:
    """The arguments of a call, where `_` is `n`."""
    return _each(lambda x: x.at(n) if isinstance(x, (_Size, LazyLayer)) else x, args)


class _Work:
    """One call of `autosize`."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.sizing = False
        self.names: dict[str, Any] = {}

    def named(self, x: Any) -> Any:
        """The stand-in for `x`, if it is something that can make a layer or hold what can."""
        if isinstance(x, type) and issubclass(x, BaseException):
            return x
        makes = inspect.isroutine(x) or isinstance(x, (type, functools.partial, types.ModuleType))
        return _Named(self, x) if makes else x

    def run(self) -> Any:
        """What the caller's function gives for `_`, with lazy layers and stand-ins in it."""
        f, placeholder = self.f, _Size(lambda n: n, "_")
        if not isinstance(f, types.FunctionType):
            return _Named(self, f)(placeholder)
        known = {**vars(builtins), **f.__globals__}
        self.names.update(f.__globals__)
        self.names.update({name: self.named(known[name]) for name in _names(f.__code__) if name in known})
        cells = []
        for cell in f.__closure__ or ():
            try:
                stand_in = self.named(cell.cell_contents)
            except ValueError:  # not assigned yet
                stand_in = None
            cells.append(types.CellType(stand_in) if isinstance(stand_in, _Named) else cell)
        return _function(f, self.names, tuple(cells))(placeholder)

    def settled(self, m: Any) -> Any:
        """`m` with the layers that were made in the place of lazy ones, and without stand-ins."""
        done: dict[int, tuple[Any, Any]] = {}

        def visit(x: Any) -> Any:
            if isinstance(x, _Named):
                return x._value
            if isinstance(x, _Size):
                _unknown(x)
            if id(x) in done:
                return done[id(x)][1]
            done[id(x)] = x, x
            if isinstance(x, LazyLayer):
                if x.layer is None:
                    raise ValueError(f"no input has reached {x}, so its size is unknown")
                y = visit(x.layer)
            else:
                kids, rebuild = functor(x)
                old = [kid for _, kid in _items(kids)]
                new = [visit(kid) for kid in old]
                y = x if all(map(operator.is_, old, new)) else rebuild(_like(kids, new))
                if isinstance(y, types.FunctionType) and y.__globals__ is self.names:
                    y = _function(y, self.f.__globals__, y.__closure__)  # type: ignore[attr-defined]
                    y.__defaults__, y.__kwdefaults__ = visit(y.__defaults__), visit(y.__kwdefaults__)
            done[id(x)] = x, y
            return y

        return visit(m)


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that a function uses, and those that the functions in it use."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


def _function(
    f: types.FunctionType, names: dict[str, Any], cells: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """`f` with other meanings of its global names, and of those from the functions around it."""
    new = types.FunctionType(f.__code__, names, f.__name__, f.__defaults__, cells)
    new.__kwdefaults__, new.__qualname__, new.__doc__, new.__module__ = (
        f.__kwdefaults__,
        f.__qualname__,
        f.__doc__,
        f.__module__,
    )
    new.__dict__.update(f.__dict__)
    return new
