"""Functors.jl: any nested structure has children, and can be rebuilt from new ones.

Everything that looks into a model (gradients, parameters, optimiser state, devices, saving,
printing) is a short walk over `functor`. Tuples, lists, dicts, named tuples, dataclasses, every
`nn.Module`, classes marked by `functor` or `layer`, bound methods, `functools.partial`, and plain
functions (their children are the local variables that they capture) have children; the rest are leaves.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import nn

from fluxtorch.namedtuples import NamedTuple, fold

__all__ = [
    "KeyPath",
    "children",
    "closure",
    "execute",
    "fcollect",
    "fleaves",
    "fmap",
    "fmap_with_path",
    "fmapstructure",
    "fmapstructure_with_path",
    "functor",
    "getkeypath",
    "haskeypath",
    "isleaf",
    "leaf",
    "mapleaves",
    "setkeypath_",
    "trainable",
]

Children: TypeAlias = "tuple[Any, ...] | list[Any] | dict[Any, Any] | NamedTuple"
Rebuild: TypeAlias = "Callable[[Any], Any]"
Rule: TypeAlias = "Callable[[Any], tuple[Children, Rebuild]]"

# What decides how instances of a class are taken apart; None makes them leaves.
_rules: dict[type, Rule | None] = {}
# The same for every class met so far, found through its bases.
_found: dict[type, Rule | None] = {}
# What a rule gives for a leaf; nobody calls the function.
_PLAIN: tuple[Children, Rebuild] = ((), tuple)


def functor(x: Any, fields: tuple[str, ...] | list[str] | str | None = None) -> Any:
    """The children of `x` with a function that rebuilds `x` from others; or, for a class, Julia's `@functor`.

    Given an instance, returns `(children, rebuild)`. Given a class, tells fluxtorch to look inside
    its instances (their fields, or only those named in `fields`, a tuple), and returns the class.
    A class may also define a method `functor(self)` that returns the pair.

    >>> class Foo:
    ...     def __init__(self, x, y):
    ...         self.x, self.y = x, y
    >>> functor(Foo) is Foo
    True
    >>> kids, rebuild = functor(Foo(1, 2))
    >>> kids
    (x = 1, y = 2)
    >>> rebuild((10, 20)).y
    20
    """
    if isinstance(x, type):
        fields = (fields,) if isinstance(fields, str) else fields
        if fields is not None and not all(isinstance(name, str) for name in fields):
            raise TypeError(f"functor expects field names, got {fields!r}")
        _set_rule(x, functools.partial(_object, names=None if fields is None else tuple(map(fold, fields))))
        return x
    rule = _rule(type(x))
    kids, rebuild = _PLAIN if rule is None else rule(x)
    return (kids, (lambda _: x) if _none(kids) else rebuild)


def leaf(cls: type) -> type:
    """Makes the instances of `cls` leaves, which no walk looks into (Julia's `@leaf`); returns `cls`.

    >>> isleaf(leaf(type("Config", (dict,), {}))(a=1))
    True
    """
    _set_rule(cls, None)
    return cls


def children(x: Any) -> Any:
    """The children of `x`: a tuple, a list, a dict, or a named tuple of its fields; `()` for a leaf.

    >>> children(nt(a=1, b=(2, 3)))
    (a = 1, b = (2, 3))
    """
    rule = _rule(type(x))  # not by `functor`, for which a class is one to be looked into from now on
    return () if rule is None else rule(x)[0]


def isleaf(x: Any) -> bool:
    """True if `x` has no children.

    >>> isleaf(1), isleaf(torch.ones(3)), isleaf(["five", [6, 7]]), isleaf([]), isleaf(())
    (True, True, False, False, True)
    """
    rule = _rule(type(x))
    return rule is None or _none(rule(x)[0])


def closure(f: Callable[..., Any]) -> NamedTuple:
    """The local variables that the function `f` captures, as a named tuple: Julia's `f.W` is `closure(f).W`.

    Warns if it captures none: global variables don't count, here or in Julia.

    >>> def linear(n, m):
    ...     W = torch.ones(m, n)
    ...     return lambda x: W @ x
    >>> closure(linear(2, 1)).W
    tensor([[1., 1.]])
    """
    if not isinstance(f, types.FunctionType):
        raise TypeError(f"closure looks into a function defined in Python, and got a {type(f).__name__}")
    kids = children(f)
    if isinstance(kids, NamedTuple):
        return kids
    warnings.warn(f"the function {f.__name__} captures no local variables; global variables don't count", stacklevel=2)
    return NamedTuple()


def trainable(x: Any) -> Any:
    """The children of `x` that training changes: all of them, unless its class says otherwise.

    A class says so by `layer(trainable=(…))` or by a method `trainable(self)` that returns a named
    tuple of fields; a torch module's buffers are never trained. (Optimisers.jl's `trainable`.)

    >>> trainable((1, 2))
    (1, 2)
    """
    return _trained(x, children(x))


def _trained(x: Any, kids: Children) -> Any:
    """Those of the children `kids` of `x` that training changes."""
    method = getattr(type(x), "trainable", None)
    if callable(method):
        chosen = method(x)
        if type(chosen) is tuple and isinstance(kids, NamedTuple):  # Flux's old spelling, without names
            return NamedTuple.of({k: v for k, v in vars(kids).items() if any(v is c for c in chosen)})
        if isinstance(kids, NamedTuple) and not isinstance(chosen, (dict, NamedTuple)):
            raise TypeError(f"trainable of {type(x).__name__} must give a named tuple of fields, and gave {chosen!r}")
        return NamedTuple.of(chosen) if isinstance(chosen, dict) and isinstance(kids, NamedTuple) else chosen
    if isinstance(x, nn.Module) and x._buffers:
        return NamedTuple.of({k: v for k, v in vars(kids).items() if k not in x._buffers})
    return kids


_KEEP: Any = type("_Keep", (), {"__repr__": lambda _: "nothing is pruned"})()


def fmap(
    f: Callable[..., Any],
    x: Any,
    *ys: Any,
    exclude: Callable[[Any], bool] = isleaf,
    cache: dict[int, Any] | bool | None = True,
    prune: Any = _KEEP,
) -> Any:
    """Applies `f` to every leaf of `x` and rebuilds `x` from the results.

    With more trees `ys`, `f` gets the leaf of each at the same place; where `x` is a layer, its
    gradient's named tuple will do. `exclude(node)` says where to stop and apply `f` (default: at
    leaves). A tensor, list, dict or layer that stands at several places is handled once, so that it
    stays shared; `prune=value` puts `value` at all but the first place; `cache=None` handles every
    place anew. Raises `ValueError` or `TypeError` where one of `ys` has a place too few.

    >>> fmap(lambda v: 10 * v, nt(a=1, b=(2, [3])))
    (a = 10, b = (20, [30]))
    >>> fmap(lambda a, b: a + b, {"x": 1, "y": 2}, {"x": 10, "y": 20, "z": "ignored"})
    {'x': 11, 'y': 22}
    >>> twice = torch.ones(1)
    >>> fmap(lambda v: v + 1, (twice, twice), prune=None)
    (tensor([2.]), None)
    """
    return _walk(f, x, ys, exclude, cache, prune)


mapleaves = fmap  # its name in Flux 0.8


def fmapstructure(
    f: Callable[..., Any],
    x: Any,
    *ys: Any,
    exclude: Callable[[Any], bool] = isleaf,
    cache: dict[int, Any] | bool | None = True,
    prune: Any = _KEEP,
) -> Any:
    """Like `fmap`, but gives named tuples, tuples, lists and dicts in the place of layers and other objects.

    >>> fmapstructure(lambda v: 2 * v, (1, [2, nt(a=3)]))
    (2, [4, (a = 6,)])
    """
    return _walk(f, x, ys, exclude, cache, prune, rebuilding=False)


def fmap_with_path(
    f: Callable[..., Any],
    x: Any,
    *ys: Any,
    exclude: Callable[[KeyPath, Any], bool] | None = None,
    cache: dict[int, Any] | bool | None = True,
    prune: Any = _KEEP,
) -> Any:
    """Like `fmap`, with `f(path, leaf, …)` and `exclude(path, node)`, where `path` is a `KeyPath`.

    >>> fmap_with_path(lambda path, v: path, nt(a=1, b=(2,)))
    (a = KeyPath("a"), b = (KeyPath("b", 0),))
    """
    return _walk(f, x, ys, exclude or isleaf, cache, prune, path=KeyPath())


def fmapstructure_with_path(
    f: Callable[..., Any],
    x: Any,
    *ys: Any,
    exclude: Callable[[KeyPath, Any], bool] | None = None,
    cache: dict[int, Any] | bool | None = True,
    prune: Any = _KEEP,
) -> Any:
    """Like `fmap_with_path`, with the result of `fmapstructure`.

    >>> fmapstructure_with_path(lambda path, v: len(path), [1, (2,)])
    [1, (2,)]
    """
    return _walk(f, x, ys, exclude or isleaf, cache, prune, rebuilding=False, path=KeyPath())


def execute(walk: Callable[..., Any], x: Any, *ys: Any) -> Any:
    """Runs `walk(recurse, x, *ys)`, where `recurse(child, …)` continues with the same walk.

    >>> def total(recurse, v):
    ...     return sum(map(recurse, children(v))) if not isleaf(v) else v
    >>> execute(total, (1, [2, 3]))
    6
    """

    def recurse(*nodes: Any) -> Any:
        return walk(recurse, *nodes)

    return recurse(x, *ys)


def fcollect(x: Any, exclude: Callable[[Any], bool] = lambda _: False) -> list[Any]:
    """Every node of `x`, `x` itself first, each shared one once; nothing at or below nodes where `exclude` is true.

    >>> fcollect((1, [2]))
    [(1, [2]), 1, [2], 2]
    """
    nodes: list[Any] = []
    _collect(x, exclude, set(), nodes)
    return nodes


# These walks are no functions within functions: such a one knows itself, and keeps what it holds from being freed
# until the garbage collector comes.


def _collect(node: Any, exclude: Callable[[Any], bool], seen: set[int], nodes: list[Any]) -> None:
    if exclude(node):
        return
    kids = children(node)
    if _shareable(node, _none(kids)):
        if id(node) in seen:
            return
        seen.add(id(node))
    nodes.append(node)
    for _, child in _items(kids):
        _collect(child, exclude, seen, nodes)


def fleaves(x: Any, exclude: Callable[[Any], bool] = isleaf) -> list[Any]:
    """The leaves of `x` from left to right; with `exclude`, the nodes where it is true.

    >>> fleaves((1, [2, nt(a=3)]))
    [1, 2, 3]
    """
    leaves: list[Any] = []
    _collect_leaves(x, exclude, set(), leaves)
    return leaves


def _collect_leaves(node: Any, exclude: Callable[[Any], bool], above: set[int], leaves: list[Any]) -> None:
    if exclude(node):
        leaves.append(node)
    elif id(node) not in above:
        above.add(id(node))
        for _, child in _items(children(node)):
            _collect_leaves(child, exclude, above, leaves)
        above.discard(id(node))


class KeyPath:
    """The keys that lead from the root of a structure to a node: field names, dict keys, positions from 0.

    >>> KeyPath("a", KeyPath("b", 3), "c")
    KeyPath("a", "b", 3, "c")
    """

    __slots__ = ("keys",)

    def __init__(self, *keys: Any) -> None:
        self.keys: tuple[Any, ...] = tuple(
            k for key in keys for k in (key.keys if isinstance(key, KeyPath) else (key,))
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __getitem__(self, i: int | slice) -> Any:
        return KeyPath(*self.keys[i]) if isinstance(i, slice) else self.keys[i]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyPath) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)

    def __str__(self) -> str:
        return ".".join(map(str, self.keys))

    def __repr__(self) -> str:
        return "KeyPath(" + ", ".join(f'"{k}"' if isinstance(k, str) else repr(k) for k in self.keys) + ")"


def getkeypath(x: Any, path: KeyPath | str | int) -> Any:
    """The node of `x` at `path`, a `KeyPath` or a single key.

    Raises `KeyError`, `IndexError` or `AttributeError` where there is none.

    >>> getkeypath({"a": 3, "b": {"d": [5, 6, 7]}}, KeyPath("b", "d", 2))
    7
    """
    for key in KeyPath(path):
        x = getattr(x, key) if _by_attribute(x, key) else x[key]
    return x


def haskeypath(x: Any, path: KeyPath | str | int) -> bool:
    """True if `x` has a node at `path`.

    >>> haskeypath({"a": [1]}, KeyPath("a", 0)), haskeypath({"a": [1]}, KeyPath("a", 1))
    (True, False)
    """
    try:
        getkeypath(x, path)
    except (KeyError, IndexError, AttributeError, TypeError):
        return False
    return True


def setkeypath_(x: Any, path: KeyPath | str | int, value: Any) -> None:
    """Puts `value` at `path` in `x`, in place. Raises `ValueError` for an empty path.

    >>> x = {"a": [1, 2]}
    >>> setkeypath_(x, KeyPath("a", 0), 10)
    >>> x
    {'a': [10, 2]}
    """
    path = KeyPath(path)
    if len(path) == 0:
        raise ValueError("setkeypath_ needs a path with at least one key")
    parent, key = getkeypath(x, path[:-1]), path[-1]
    if _by_attribute(parent, key):
        setattr(parent, key, value)
    else:
        parent[key] = value


def _by_attribute(x: Any, key: Any) -> bool:
    return isinstance(key, str) and not isinstance(x, (dict, list, tuple, NamedTuple)) and hasattr(x, key)


# -- the walk itself -------------------------------------------------------------------------------


def _walk(
    f: Callable[..., Any],
    x: Any,
    ys: tuple[Any, ...],
    exclude: Callable[..., bool],
    cache: dict[int, Any] | bool | None,
    prune: Any,
    rebuilding: bool = True,
    path: KeyPath | None = None,
) -> Any:
    """What `fmap` and its kin do; with a `path`, `f` and `exclude` get that of their node first."""
    return _Walk(f, exclude, {} if cache is True else None if cache is False else cache, prune, rebuilding).at(
        x, ys, path
    )


class _Walk:
    def __init__(
        self, f: Callable[..., Any], exclude: Callable[..., bool], done: Any, prune: Any, rebuilding: bool
    ) -> None:
        self.f, self.exclude, self.done, self.prune, self.rebuilding = f, exclude, done, prune, rebuilding
        self.above: dict[int, Any] = {}

    def at(self, x: Any, ys: tuple[Any, ...], path: KeyPath | None) -> Any:
        f, exclude, done, above = self.f, self.exclude, self.done, self.above
        rule = _rule(type(x))
        kids, rebuild = _PLAIN if rule is None else rule(x)
        leaf = _none(kids)
        shared = done is not None and _shareable(x, leaf)
        if shared and id(x) in done:
            return done[id(x)][1] if self.prune is _KEEP else self.prune
        if id(x) in above:  # a function that captures itself, say: there is nothing new below it
            return _hollow(x, above) if self.rebuilding else x
        if leaf if exclude is isleaf else exclude(x) if path is None else exclude(path, x):
            result = f(x, *ys) if path is None else f(path, x, *ys)
        elif leaf:
            result = x
        else:
            above[id(x)] = None
            values = [
                self.at(kid, tuple([_child(y, key, x) for y in ys]), path if path is None else KeyPath(path, key))
                for key, kid in _items(kids)
            ]
            hollow = above.pop(id(x))
            result = _like(kids, values)
            if hollow is not None:
                result = _fill(hollow, kids, values)
            elif self.rebuilding:
                result = rebuild(result)
        if shared:
            done[id(x)] = (x, result)  # x is held, so that its id can't be reused
        return result


def _none(kids: Children) -> bool:
    """Are these the children of a leaf?"""
    return type(kids) is tuple and not kids


def _shareable(x: Any, leaf: bool) -> bool:
    """Can `x` stand at two places and be changed in both? Numbers, text, rows of values and plain functions can't."""
    if leaf:
        return isinstance(x, torch.Tensor) or not (isinstance(x, _VALUES) or callable(x))
    return not isinstance(x, (tuple, NamedTuple))


# What is equal to itself wherever it stands.
_VALUES = (
    int,
    float,
    complex,
    str,
    bytes,
    tuple,
    range,
    frozenset,
    enum.Enum,
    torch.dtype,
    torch.device,
    type(None),
    type(...),
)


def _hollow(x: Any, above: dict[int, Any]) -> Any:
    """The function that is being made of the function `x`, its captured variables still to come; `x` if it is none."""
    if isinstance(x, types.FunctionType) and above[id(x)] is None:
        above[id(x)] = _with_cells(x, tuple([types.CellType() for _ in x.__closure__ or ()]))
    return above[id(x)] or x


def _fill(hollow: types.FunctionType, kids: Any, values: list[Any]) -> types.FunctionType:
    """Gives a function made by `_hollow` the captured variables `values` in the place of `kids`."""
    cells = dict(zip(hollow.__code__.co_freevars, hollow.__closure__ or (), strict=True))
    for name, value in zip(vars(kids), values, strict=True):
        cells[name].cell_contents = value
    return hollow


def _items(kids: Children) -> Iterable[tuple[Any, Any]]:
    """The children with their keys."""
    if isinstance(kids, NamedTuple):
        return vars(kids).items()
    return kids.items() if isinstance(kids, dict) else enumerate(kids)


def _values(kids: Children) -> Iterable[Any]:
    if isinstance(kids, NamedTuple):
        return vars(kids).values()
    return kids.values() if isinstance(kids, dict) else kids


def _like(kids: Children, values: list[Any]) -> Children:
    """`values` in the place of `kids`, in a container of the same kind."""
    if type(kids) is tuple:
        return tuple(values)
    if type(kids) is NamedTuple:
        new = object.__new__(NamedTuple)
        new.__dict__.update(zip(kids.__dict__, values))  # noqa: B905  # strict would double the time
        return new
    if isinstance(kids, dict):
        return dict(zip(kids, values, strict=True))
    return values if isinstance(kids, list) else tuple(values)


def _child(y: Any, key: Any, x: Any) -> Any:
    """The child of `y` that goes with the child `key` of `x`."""
    kids = y if isinstance(y, (tuple, list, dict, NamedTuple)) and not hasattr(y, "_fields") else children(y)
    try:
        return kids[key]
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"the trees don't have the same structure: {type(x).__name__} has a child {key!r} "
            f"and there is none in {'nothing' if y is None else type(y).__name__}"
        ) from None


# -- how each kind of thing is taken apart -----------------------------------------------------------


def _set_rule(cls: type, rule: Rule | None) -> None:
    _rules[cls] = rule
    _found.clear()


def _rule(cls: type) -> Rule | None:
    try:
        return _found[cls]
    except KeyError:
        _found[cls] = found = _find_rule(cls)
        return found


def _find_rule(cls: type) -> Rule | None:
    for base in cls.__mro__:
        if base in _rules:
            return _rules[base]
        if "functor" in vars(base):
            return lambda x: x.functor()
        if "__dataclass_fields__" in vars(base) and not issubclass(cls, nn.Module):
            return _dataclass
        if "_fields" in vars(base) and issubclass(base, tuple):
            return _namedtuple
    return None


def _tuple(x: tuple[Any, ...]) -> tuple[Children, Rebuild]:
    cls = type(x)
    if cls is tuple:
        return x, tuple

    def rebuild(kids: Any) -> Any:
        try:
            return cls(kids)
        except TypeError:  # a torch.Size of something else than numbers
            return tuple(kids)

    return tuple(x), rebuild


def _namedtuple(x: Any) -> tuple[Children, Rebuild]:
    return NamedTuple.of(x._asdict()), type(x)._make


def _list(x: list[Any]) -> tuple[Children, Rebuild]:
    if type(x) is list:
        return x, list

    def rebuild(kids: Any) -> Any:
        new = copy.copy(x)
        new[:] = kids
        return new

    return list(x), rebuild


def _dict(x: dict[Any, Any]) -> tuple[Children, Rebuild]:
    def rebuild(kids: Any) -> Any:
        new = copy.copy(x)
        dict.update(new, kids)  # a Counter's own would add
        return new

    return dict(x), rebuild


def _object(x: Any, names: tuple[str, ...] | None) -> tuple[Children, Rebuild]:
    if names is None:
        names = tuple([n for n in getattr(x, "__dict__", None) or type(x).__slots__ if not n.startswith("_")])
    return NamedTuple.of({name: getattr(x, name) for name in names}), functools.partial(_copy_with, x, names)


def _dataclass(x: Any) -> tuple[Children, Rebuild]:
    return _object(x, tuple([field.name for field in dataclasses.fields(x)]))


def _is_object(rebuild: Rebuild) -> bool:
    """Does this rebuild a plain object with fields?"""
    return isinstance(rebuild, functools.partial) and rebuild.func is _copy_with


def _copy_with(x: Any, names: tuple[str, ...], kids: Any) -> Any:
    """A copy of `x` with other fields. Its constructor is not run: it may take other arguments, or do more."""
    if isinstance(kids, (dict, NamedTuple)):
        kids = [kids[name] for name in names]
    new = copy.copy(x)
    for name, value in zip(names, kids, strict=True):
        object.__setattr__(new, name, value)
    return new


def _function(x: types.FunctionType) -> tuple[Children, Rebuild]:
    if x.__closure__ is None:
        return _PLAIN
    captured = {}
    for name, cell in zip(x.__code__.co_freevars, x.__closure__, strict=True):
        try:
            captured[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    if not captured:
        return _PLAIN

    def rebuild(kids: Any) -> Any:
        new = dict(zip(captured, kids, strict=True))
        if all(new[name] is captured[name] for name in captured):
            return x
        cells = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        return _with_cells(x, tuple([types.CellType(new[name]) if name in new else cell for name, cell in cells]))

    return NamedTuple.of(captured), rebuild


def _with_cells(x: types.FunctionType, cells: tuple[types.CellType, ...]) -> types.FunctionType:
    f = types.FunctionType(x.__code__, x.__globals__, x.__name__, x.__defaults__, cells)
    f.__kwdefaults__ = x.__kwdefaults__
    f.__dict__.update(x.__dict__)
    f.__qualname__, f.__doc__, f.__module__ = x.__qualname__, x.__doc__, x.__module__
    return f


def _method(x: types.MethodType) -> tuple[Children, Rebuild]:
    def rebuild(kids: Any) -> Any:
        (owner,) = kids
        return x if owner is x.__self__ else types.MethodType(x.__func__, owner)

    return NamedTuple.of({"self": x.__self__}), rebuild


def _partial(x: functools.partial[Any]) -> tuple[Children, Rebuild]:
    def rebuild(kids: Any) -> Any:
        func, args, keywords = kids
        new = type(x)(func, *args, **keywords)
        new.__dict__.update(x.__dict__)
        return new

    return NamedTuple.of({"func": x.func, "args": x.args, "keywords": x.keywords}), rebuild


def _module(x: nn.Module) -> tuple[Children, Rebuild]:
    kids: dict[str, Any] = {**x._parameters, **x._buffers, **x._modules}
    if not kids:
        return _PLAIN

    def rebuild(new_kids: Any) -> Any:
        if "_orig_mod" in kids and hasattr(x, "dynamo_ctx"):  # it would go on calling the old one
            return type(x)(new_kids[0], x.dynamo_ctx)
        new = x.__new__(type(x))
        # Registries, hooks and lists of weights belong to one module each.
        new.__dict__ = {k: copy.copy(v) if isinstance(v, (list, dict, set)) else v for k, v in vars(x).items()}
        new.__dict__.pop("_compiled_call_impl", None)
        for name, value in zip(kids, new_kids, strict=True):
            old = x._parameters.get(name)
            if isinstance(value, torch.Tensor) and old is not None and not isinstance(value, nn.Parameter):
                if value.grad_fn is not None:  # a part of somebody's computation must stay one
                    new._parameters[name] = value  # type: ignore[assignment]
                    continue
                value = _as_parameter(value, old.requires_grad)
            setattr(new, name, value)
        if isinstance(new, nn.RNNBase):
            new._init_flat_weights()
        return new

    return NamedTuple.of(kids), rebuild


def _as_parameter(x: torch.Tensor, trained: bool) -> nn.Parameter:
    """`x` as a parameter: the very tensor where that can be, so that one at two places stays tied."""
    trained = trained and (x.is_floating_point() or x.is_complex())
    if type(x) is not torch.Tensor or x.is_inference():
        return nn.Parameter(x, trained)
    x.__class__ = nn.Parameter
    return x.requires_grad_(trained)  # type: ignore[return-value]


_rules.update(
    {
        tuple: _tuple,
        list: _list,
        dict: _dict,
        NamedTuple: lambda x: (x, lambda kids: NamedTuple.of(dict(zip(vars(x), kids, strict=True)))),
        types.FunctionType: _function,
        types.MethodType: _method,
        functools.partial: _partial,
        nn.Module: _module,
        torch.Tensor: None,
        KeyPath: None,
        str: None,
    }
)
