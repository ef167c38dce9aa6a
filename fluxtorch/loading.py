"""Saving and loading: `state` makes plain data of a model or a state tree, `loadmodel_` copies such data into one."""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import KeyPath, _items, _like, children, fcollect, functor, isleaf
from fluxtorch.layers.recurrent import Recur
from fluxtorch.namedtuples import NamedTuple, _same
from fluxtorch.optimisers.interface import Leaf
from fluxtorch.optimisers.torch_optim import TorchTree, fitting
from fluxtorch.zygote.implicit import Params, params

__all__ = ["loadmodel_", "loadparams_", "state"]


def state(x: Any) -> Any:
    """What `x`, a model or an optimiser's state tree, holds: named tuples, tuples, lists and dicts in its structure.

    In them are the arrays themselves, trained or not, numbers, strings and None; in the place of
    anything else, such as a function that captures no arrays, is `()`. `torch.save` writes the result,
    `torch.load` reads it back with its defaults, and `loadmodel_` brings it back into a model.

    >>> m1 = Chain(Dense(1 |to| 2, tanh, init=ones), Dense(2 |to| 1, init=ones))
    >>> s = state(m1)
    >>> s.layers[0].weight is m1[0].weight, s.layers[0].σ
    (True, ())
    >>> m2 = Chain(Dense(1 |to| 2, tanh), Dense(2 |to| 1, bias=False))
    >>> loadmodel_(m2, s)[0].weight.tolist()
    [[1.0], [1.0]]
    >>> state(trainmode_(Dropout(0.2)))
    (p = 0.2, dims = nothing, active = true, rng = nothing)
    """
    return _state(x, set())


def _state(x: Any, above: set[int]) -> Any:
    if x is None or isinstance(x, torch.Tensor):
        return x
    kind: Any
    for kind in (bool, int, float, complex, str):
        if isinstance(x, kind):
            return kind(x)  # a file takes no classes of others, such as NumPy's numbers
    if hasattr(x, "__array_interface__"):
        return array(x)
    if _is_code(x) or id(x) in above:
        return ()
    above.add(id(x))
    kids = children(x)
    result = _like(kids, [_state(kid, above) for _, kid in _items(kids)])
    above.discard(id(x))
    return result


def _is_code(x: Any) -> bool:
    """Is `x` a function, and nothing that holds arrays?"""
    functions = (types.FunctionType, types.MethodType, functools.partial)
    return isinstance(x, functions) and not any(isinstance(v, torch.Tensor) for v in fcollect(x))


def loadmodel_(dst: Any, src: Any, filter: Callable[[Any], bool] = lambda _: True) -> Any:
    """Copies all arrays in `src`, a model or what `state` made of one, into those of `dst`, in place. Gives `dst`.

    The two must have the same structure; `filter(child)` says which children, in both, take part.
    Arrays are of the same size, and take on element type and device of `dst`. Numbers, functions and
    the like stay as they are in `dst`, except in states: that of a `Recur` (whatever its batch), and
    those of the rules in an optimiser's state tree, are loaded whole. `false`, which is no bias, and a
    bias of zeros may stand for each other.

    Raises `ValueError` (`DimensionMismatch` for sizes) where `src` doesn't fit, or where it has
    different values for one array that stands at several places in `dst`; then nothing is changed.

    >>> dst = Chain(Dense(ones(2, 5), ones(2), tanh), Dense(2 |to| 1, bias=[1]))
    >>> src = Chain(Dense(zeros(2, 5), zeros(2), relu), Dense(2 |to| 1, bias=False))
    >>> loadmodel_(dst, src) is dst
    True
    >>> dst[0].weight.any().item(), dst[1].bias.any().item(), dst[0].σ is tanh
    (False, False, True)
    """
    todo: dict[int, tuple[Any, Any]] = {}
    _load(dst, src, filter, KeyPath(), todo, set())
    with torch.no_grad():
        for x, new in todo.values():
            if isinstance(x, torch.Tensor):
                x.copy_(new)
    for x, new in todo.values():
        if isinstance(x, Leaf) or (isinstance(x, Recur) and not _same(x.reset_(), new)):
            x.state = new
        elif isinstance(x, TorchTree):
            x.optimizer.load_state_dict(new)
    return dst


def _load(
    dst: Any, src: Any, keep: Callable[[Any], bool], where: KeyPath, todo: dict[int, tuple[Any, Any]], above: set[int]
) -> None:
    """Puts into `todo` what is to become of the arrays and states in `dst`."""
    if isinstance(dst, torch.Tensor):
        new = _fitting(dst, src, where)
        known = todo.setdefault(id(dst), (dst, new))[1]
        if isinstance(src, bool) and known.any():
            raise ValueError(
                "Encountered tied parameter with boolean source at some nodes and non-boolean sources at others"
                + _at(where)
            )
        _check_tie(known, new, where)
    elif isinstance(dst, TorchTree):
        todo[id(dst)] = dst, fitting(dst, src, _at(where))
    elif isleaf(dst) or _is_code(dst):
        if isinstance(src, torch.Tensor) and dst is not False:
            if dst is True:
                raise ValueError("Cannot copy non-zero parameter to boolean parameter == true" + _at(where))
            raise ValueError(f"Tried to copy an array to {summary(dst)}; this is not allowed" + _at(where))
    elif id(dst) not in above:
        above.add(id(dst))
        to, come = _kids(dst, keep), _kids(src, keep)
        if to.keys() != come.keys():
            raise ValueError(
                f"Tried to load {_names(come)} into {_names(to)} but the structures do not match" + _at(where)
            )
        for key, kid in to.items():
            if key == "state" and isinstance(dst, (Leaf, Recur)):
                # What a state holds is nobody's place: a new one is put there, numbers and all.
                new = _new_state(kid, come[key], KeyPath(where, key), isinstance(dst, Recur))
                _check_tie(todo.setdefault(id(dst), (dst, new))[1], new, KeyPath(where, key))
            else:
                _load(kid, come[key], keep, KeyPath(where, key), todo, above)
        above.discard(id(dst))


def _kids(x: Any, keep: Callable[[Any], bool]) -> dict[Any, Any]:
    """The children that take part, by name or else by position among themselves."""
    kids = children(x)
    kept = {key: kid for key, kid in _items(kids) if keep(kid)}
    return kept if isinstance(kids, (NamedTuple, dict)) else dict(enumerate(kept.values()))


def _names(kids: dict[Any, Any]) -> str:
    return f"range(0, {len(kids)})" if all(isinstance(key, int) for key in kids) else f"({', '.join(map(str, kids))})"


def _at(where: KeyPath) -> str:
    return f" (at {where})." if len(where) else "."


def _check_tie(known: Any, new: Any, where: KeyPath) -> None:
    if known is not new and not _same(known, new):
        raise ValueError("Encountered tied destination parameters with untied and mismatched sources" + _at(where))


def _fitting(dst: torch.Tensor, src: Any, where: KeyPath, any_batch: bool = False) -> torch.Tensor:
    """`src` as what is to be copied into `dst`; with `any_batch`, as what may stand in its place."""
    if isinstance(src, bool):
        if src:
            raise ValueError("Cannot copy boolean parameter == true to non-zero parameter" + _at(where))
        return torch.zeros_like(dst)
    src = array(src)
    if not isinstance(src, torch.Tensor):
        raise ValueError(f"Tried to copy {summary(src)} into an array destination; this is not allowed" + _at(where))
    if (src.shape[:1] if any_batch else src.shape) != (dst.shape[:1] if any_batch else dst.shape):
        raise DimensionMismatch(
            f"Tried to load size {tuple(src.shape)} array into size {tuple(dst.shape)}" + _at(where)
        )
    if not any_batch and any(step == 0 and n > 1 for step, n in zip(dst.stride(), dst.shape, strict=True)):
        raise ValueError(f"Tried to load into a {summary(dst)} whose numbers share their memory" + _at(where))
    return _converted(dst, src, where)


def _converted(dst: torch.Tensor, src: torch.Tensor, where: KeyPath) -> torch.Tensor:
    """`src` in the element type and on the device of `dst`."""
    src = src.detach()
    real = src.real if src.is_complex() and not dst.is_complex() else src
    new = real.to(dst.device, dst.dtype)
    inexact = real is not src or not (dst.is_floating_point() or dst.is_complex())
    if inexact and not torch.equal(new.to(src.device, src.dtype), src):
        raise ValueError(
            f"Tried to load a {summary(src)} into a {summary(dst)}, which can't hold its values" + _at(where)
        )
    return new


def _new_state(old: Any, src: Any, where: KeyPath, any_batch: bool) -> Any:
    """What `src` makes of the state `old`, for which it must have the same structure."""
    if isinstance(old, torch.Tensor):
        return _fitting(old, src, where, any_batch).clone()
    if not isleaf(old):
        kids, rebuild = functor(old)
        to, come = dict(_items(kids)), dict(_items(children(src)))
        if to.keys() == come.keys():
            values = [_new_state(kid, come[key], KeyPath(where, key), any_batch) for key, kid in to.items()]
            return rebuild(_like(kids, values))
    elif not isinstance(old, (int, float, complex)):
        if (old is None) == (src is None) and not isinstance(src, torch.Tensor):
            return old
    elif isinstance(src, (int, float, complex)):
        return src
    raise ValueError(f"Tried to load {summary(src)} into {summary(old)} but the structures do not match" + _at(where))


def loadparams_(m: Any, xs: Iterable[Any]) -> None:
    """Copies the arrays `xs`, such as `params` of another model, into the parameters of `m`, in their order, in place.

    Flux ≤ 0.13's way of loading, which `loadmodel_` replaced. Raises `ValueError` for an array of
    another size than its parameter; then nothing is changed. Warns if there are more arrays than
    parameters or fewer: those without a partner are left alone.

    >>> m = Dense(2 |to| 1)
    >>> loadparams_(m, [[[1.0, 2.0]], [3.0]])
    >>> params(m)
    Params([[1.0 2.0], [3.0]])
    """
    ps, xs = list(m if isinstance(m, Params) else params(m)), [array(x) for x in xs]
    for p, x in zip(ps, xs, strict=False):
        if not isinstance(x, torch.Tensor) or x.shape != p.shape:
            got = tuple(x.shape) if isinstance(x, torch.Tensor) else summary(x)
            raise ValueError(f"Expected param size {tuple(p.shape)}, got {got}")
    pairs = [(p, _converted(p, x, KeyPath())) for p, x in zip(ps, xs, strict=False)]
    if len(xs) != len(ps):
        warnings.warn(
            f"loadparams_ got {len(xs)} arrays for a model with {len(ps)} parameters, and loads the first {len(pairs)}",
            stacklevel=2,
        )
    with torch.no_grad():
        for p, x in pairs:
            p.copy_(x)
