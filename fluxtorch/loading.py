"""Saving and loading: `state` makes plain data of a model or a state tree, `loadmodel_` copies such data into one.

`save_checkpoint` writes all that a run needs to go on into a file, and `load_checkpoint_` brings it back.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import KeyPath, _items, _like, children, fcollect, fleaves, functor, isleaf
from fluxtorch.layers.recurrent import Recur
from fluxtorch.namedtuples import NamedTuple, _same
from fluxtorch.optimise import AbstractOptimiser
from fluxtorch.optimisers.interface import Leaf
from fluxtorch.optimisers.rule import AbstractRule
from fluxtorch.optimisers.torch_optim import TorchTree, bare, fitting
from fluxtorch.zygote.implicit import Params, params

__all__ = ["load_checkpoint_", "loadmodel_", "loadparams_", "save_checkpoint", "state"]

# Where in a checkpoint that is which isn't under the name of a thing.
_HEAD = "fluxtorch"
_VERSION = 1
# Tensors by identity, each with where it is in a checkpoint: the name of the thing, and its number in that.
Places: TypeAlias = "dict[int, tuple[torch.Tensor, tuple[str, int]]]"


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
    _put(todo)
    return dst


def _put(todo: dict[int, tuple[Any, Any]]) -> None:
    """Does what `_load` has found is to be done."""
    with torch.no_grad():
        for x, new in todo.values():
            if isinstance(x, torch.Tensor):
                x.copy_(new)
    for x, new in todo.values():
        if isinstance(x, Leaf) or (isinstance(x, Recur) and not _same(x.reset_(), new)):
            x.state = new
        elif isinstance(x, TorchTree):
            x.optimizer.load_state_dict(new)


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


# -- checkpoints --------------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike[str], /, **things: Any) -> None:
    """Writes `things`, by their names, into the file `path`, so that `load_checkpoint_` lets a run go on exactly.

    A thing is a model; a state tree from `setup`, or in the implicit style the rule, saved together
    with its model or `Params`; a `torch.Generator`; what has a `state_dict`, such as a scheduler; or
    plain data: numbers, strings, arrays, and structures of them. The random numbers of torch, CUDA,
    Python and NumPy go along. The file that was there is replaced at the end, when the new one is
    whole on the disk: a crash leaves one or the other. `torch.load(path)["model"]` is the `state` of
    the model, for `loadmodel_`.

    Raises `TypeError` for what holds nothing that can be saved. Warns if a rule remembers arrays that
    aren't among the things.

    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "run.pt")
    >>> m = nt(w=torch.ones(2))
    >>> opt = setup(Momentum(0.1), m)
    >>> save_checkpoint(file, model=m, opt=opt, epoch=3)
    >>> _ = update_(opt, m, nt(w=[1, 1]))
    >>> load_checkpoint_(file, model=m, opt=opt)
    (epoch = 3,)
    >>> m, opt
    ((w = [1.0, 1.0],), (w = Leaf(Momentum(0.1, 0.9), [0.0, 0.0]),))
    """
    if _HEAD in things:
        raise ValueError(f"a checkpoint has its own {_HEAD!r}: give this thing another name")
    things = {name: _listed(x) for name, x in things.items()}
    places = _places(things)
    data = state(things)
    known: dict[str, list[Any]] = {}
    for name, x in things.items():
        known[name] = []
        for v in _keepers(x):
            known[name].append((_kind(v), _knowledge(v, name, places)))
        if data[name] == () and type(x) is not tuple and not known[name]:
            raise TypeError(f"{name} is {summary(x)}, which holds nothing that can be saved")
    data[_HEAD] = {"version": _VERSION, "known": known, "random": _random_numbers()}
    target = os.path.realpath(path)  # a link goes on being one
    part = f"{target}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def load_checkpoint_(path: str | os.PathLike[str], /, **things: Any) -> NamedTuple:
    """Brings what `save_checkpoint` wrote back into `things`, in place; gives what else the file has, by name.

    The program makes the things as it did then, and this puts into them what training has changed:
    arrays, on whatever device they are, and recurrent states, as `loadmodel_` does; whole state trees
    and rules, with their fields; and where the random numbers of torch, CUDA, Python and NumPy go on.
    Modes, and numbers in a model, are as the program has them. On a CPU, training then goes on bit
    for bit as it would have.

    Raises `FileNotFoundError` if there is no file, `ValueError` if it is no checkpoint, has no thing of
    such a name or has another one than is to be loaded, and `TypeError` for a number or the like, which
    can't be changed in place. Then nothing is changed.

    >>> import os, tempfile
    >>> file = os.path.join(tempfile.mkdtemp(), "run.pt")
    >>> save_checkpoint(file, w=torch.ones(2), losses=[0.5, 0.25])
    >>> w = torch.zeros(2)
    >>> load_checkpoint_(file, w=w).losses, w
    ([0.5, 0.25], tensor([1., 1.]))
    """
    data, head = _read(path)
    things = {name: _listed(x) for name, x in things.items()}
    for name, x in things.items():
        if name not in data:
            raise ValueError(f"{path} has no {name!r}: it has {', '.join(data) or 'nothing'}")
        if not _keepers(x) and not any(isinstance(v, (torch.Tensor, Recur, TorchTree)) for v in fcollect(x)):
            raise TypeError(f"{name} is {summary(x)}, which can't be changed in place: take it from what this gives")
    todo: dict[int, tuple[Any, Any]] = {}
    _load(things, {name: data[name] for name in things}, lambda _: True, KeyPath(), todo, set())
    tensors = {place: x for x, place in _places(things).values()}
    copies: dict[Any, Any] = {}
    lessons = []
    for name, x in things.items():
        mine, theirs = _keepers(x), head["known"][name]
        if [_kind(v) for v in mine] != [kind for kind, _ in theirs]:
            kinds = [", ".join(dict.fromkeys(found)) for found in ([kind for kind, _ in theirs], map(_kind, mine))]
            raise ValueError(f"Tried to load {kinds[0] or 'nothing'} into {kinds[1] or 'nothing'}{_at(KeyPath(name))}")
        for v, (_, new) in zip(mine, theirs, strict=True):
            lessons.append(_lesson(v, new, tensors, copies, _at(KeyPath(name))))
    _put(todo)
    for learn in lessons:
        learn()
    _go_on_with(head["random"])
    return NamedTuple.of({name: x for name, x in data.items() if name not in things})


def _listed(x: Any) -> Any:
    return list(x) if isinstance(x, Params) else x


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The things in the checkpoint `path`, all on the CPU, and what is written above them."""
    with open(path, "rb") as file:
        try:
            data = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # of any kind: the file may be anything
            raise ValueError(f"{path} is no checkpoint, or not a whole one") from error
    head = data.pop(_HEAD, None) if isinstance(data, dict) else None
    if not isinstance(head, dict):
        raise ValueError(
            f"{path} is no checkpoint of save_checkpoint's: for a state there is loadmodel_(m, torch.load(…))"
        )
    if head["version"] != _VERSION:
        raise ValueError(f"{path} is a checkpoint of another version of fluxtorch")
    return data, head


def _places(things: dict[str, Any]) -> Places:
    places: Places = {}
    for name, x in things.items():
        for i, v in enumerate([v for v in fcollect(x) if isinstance(v, torch.Tensor)]):
            places.setdefault(id(v), (v, (name, i)))
    return places


def _has_state_dict(x: Any) -> bool:
    methods = hasattr(type(x), "state_dict") and hasattr(type(x), "load_state_dict")
    return methods and not isinstance(x, torch.nn.Module)


def _keepers(x: Any) -> list[Any]:
    """What in `x` knows more than its `state`: leaves of state trees, rules, generators, things with a `state_dict`."""

    def keeps(v: Any) -> bool:
        return isinstance(v, (Leaf, AbstractRule, torch.Generator, TorchTree)) or _has_state_dict(v)

    nodes = {id(v): v for v in fleaves(x, lambda v: keeps(v) or isleaf(v)) if keeps(v)}
    return [v for node in nodes.values() for v in (_keepers(bare(node)) if type(node) is TorchTree else [node])]


def _kind(x: Any) -> str:
    return f"Generator ({x.device.type})" if isinstance(x, torch.Generator) else type(x).__name__


def _knowledge(x: Any, name: str, places: Places) -> Any:
    """What the keeper `x` knows, as plain data."""
    if isinstance(x, torch.Generator):
        return x.get_state()
    if _has_state_dict(x):
        return x.state_dict()
    if isinstance(x, Leaf):
        return _fields(x.rule), x.frozen
    memories, left = [], 0
    for rule in _rules(x):
        if isinstance(rule, AbstractOptimiser) and vars(rule):
            raise TypeError(f"{name} has a {type(rule).__name__}, which remembers in a way of its own")
        memory = list(vars(rule).get("_memory", {}).values())
        memories.append([(places[id(v)][1], value) for v, value in memory if id(v) in places])
        left = max(left, len(memory) - len(memories[-1]))
    if left:
        warnings.warn(
            f"{name} remembers {left} arrays that aren't among what is saved with it, and that is left out",
            stacklevel=3,
        )
    return _fields(x), memories


def _lesson(
    x: Any, known: Any, tensors: dict[Any, torch.Tensor], copies: dict[Any, Any], at: str
) -> Callable[[], object]:
    """Checks that `known` is for the keeper `x`; to call the result makes it what `x` knows."""
    if isinstance(x, torch.Generator):
        return functools.partial(x.set_state, known)
    if _has_state_dict(x):
        return functools.partial(x.load_state_dict, known)
    fields, more = known
    old = _fields(x.rule if isinstance(x, Leaf) else x)
    if [name for name, _ in fields] != [name for name, _ in old]:
        raise ValueError(f"Tried to load the rule {fields[-1][0]} into {old[-1][0]}{at}")
    if isinstance(x, Leaf):

        def teach_leaf() -> None:
            x.frozen = more
            if fields != old:
                key = id(x.rule), repr(fields)
                if key not in copies:  # leaves that share a rule go on sharing one
                    copies[key] = _set_fields(copy.deepcopy(x.rule), fields)
                x.rule = copies[key]

        return teach_leaf
    memories = []
    for rule, memory in zip(_rules(x), more, strict=True):
        if any(place not in tensors for place, _ in memory):
            raise ValueError(f"Tried to load what a rule remembers of arrays, and not those arrays{at}")
        found = [(tensors[place], value) for place, value in memory]
        memories.append([[v, _new_state(rule.init(v), value, KeyPath(), False)] for v, value in found])

    def teach_rule() -> None:
        gone = {id(v) for v in tensors.values()}
        for rule, memory in zip(_rules(_set_fields(x, fields)), memories, strict=True):
            others = [entry for key, entry in vars(rule).get("_memory", {}).items() if key not in gone]
            rule._memory = {id(entry[0]): entry for entry in others + memory}

    return teach_rule


def _rules(rule: Any) -> list[Any]:
    """`rule`, and the rules that it consists of."""
    return [r for r in fcollect(rule) if isinstance(r, (AbstractRule, AbstractOptimiser))]


def _fields(rule: Any) -> list[tuple[str, dict[str, Any]]]:
    """The class of each of `_rules(rule)`, and those of its fields that are numbers or the like."""
    return [
        (type(r).__name__, {name: state(v) for name, v in vars(r).items() if name[0] != "_" and _is_plain(v)})
        for r in _rules(rule)
    ]


def _is_plain(x: Any) -> bool:
    return all(map(_is_plain, x)) if type(x) is tuple else isinstance(x, (int, float, complex, str, type(None)))


def _set_fields(rule: Any, fields: list[tuple[str, dict[str, Any]]]) -> Any:
    for r, (_, values) in zip(_rules(rule), fields, strict=True):
        vars(r).update(values)
    return rule


def _random_numbers() -> dict[str, Any]:
    """Where the random numbers of torch, Python, and if they are in use CUDA and NumPy go on."""
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        kind, keys, *rest = numpy.get_state()
        states["numpy"] = (kind, keys.tolist(), *rest)
    return states


def _go_on_with(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    for i, found in enumerate(states.get("cuda", ())[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(found, i)
    with contextlib.suppress(ImportError):
        if "numpy" in states:
            importlib.import_module("numpy.random").set_state(states["numpy"])
