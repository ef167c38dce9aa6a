"""`Layer`, the base of the layers: an `nn.Module` whose annotated fields are its children."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar, get_origin, overload

import torch
from torch import nn
from torch.autograd import forward_ad
from typing_extensions import Format, Self, dataclass_transform, get_annotations

from fluxtorch.arrays import array
from fluxtorch.functors import _set_rule, functor
from fluxtorch.layers.show import big_show, plain_show
from fluxtorch.namedtuples import NamedTuple, fold
from fluxtorch.printing import show
from fluxtorch.zygote.backward import ends
from fluxtorch.zygote.scope import within_gradient

__all__ = ["ComposedFunction", "Layer", "Parameter", "compose", "layer", "treelike"]

C = TypeVar("C", bound=type)


class Parameter(nn.Parameter):
    """A layer's tensor, which outside `gradient` may be changed in place: `W -= 0.1 * dW`, `W[...] = e`.

    >>> d = Dense(torch.ones(1, 2), False)
    >>> d.weight[0, 0] = 5
    >>> d.weight[0, 1] += 2
    >>> d.weight -= 1
    >>> d.weight.tolist()
    [[4.0, 2.0]]
    """

    def __getitem__(self, key: Any) -> torch.Tensor:
        part = super().__getitem__(key)
        if type(part) is torch.Tensor and part.requires_grad and part._is_view():
            part.__class__ = _Part
        return part

    def detach(self) -> torch.Tensor:
        x = super().detach()
        if sys._getframe(1).f_code is nn.Parameter.__new__.__code__:  # `nn.Parameter(W)` asks for the same kind
            x.__class__ = Parameter
        return x

    def view(self, *size: Any) -> torch.Tensor:
        # Where the memory has Flux's order torch refuses to give a view as one vector, for which its tools ask.
        # What is part of a graph nobody may write into, so that a copy is as good.
        return self.reshape(*size) if torch.is_grad_enabled() else super().view(*size)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Parameter containing:\n{self.detach()!r}"

    def __hash__(self) -> int:
        return id(self)


def _outside_gradient(name: str) -> Callable[..., Any]:
    plain = getattr(torch.Tensor, name)

    @functools.wraps(plain)
    def change(self: Parameter, *args: Any) -> Any:
        if within_gradient():
            raise RuntimeError("a parameter can't be changed in place while a gradient is taken: it would have none")
        with torch.no_grad():
            return plain(self, *args)

    return change


class _Part(torch.Tensor):
    """What `W[i, j]` gives of a parameter `W`: a tensor whose `+=` makes a new one, as in Julia.

    `W[i, j] += e` gets `W[i, j]`, adds to it and sets `W[i, j]`; torch refuses to add in place to what has a graph.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> Any:  # in a file, a tensor like any other
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)


_Part.__name__ = "tensor"  # by which it is printed
setattr(Parameter, "__setitem__", _outside_gradient("__setitem__"))  # noqa: B010
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    if hasattr(torch.Tensor, f"__i{_name}__"):
        setattr(Parameter, f"__i{_name}__", _outside_gradient(f"__i{_name}__"))
        setattr(_Part, f"__i{_name}__", getattr(torch.Tensor, f"__{_name}__"))


PLAIN = (torch.Tensor, nn.Parameter, Parameter)


def is_eager(x: torch.Tensor) -> bool:
    """Do operations on `x` go straight to torch's kernels, with nothing that compiles, traces, casts or looks on?

    Where something does, it should see torch's own operations, and gets none from an `autograd.Function`.
    """
    return not (
        torch.compiler.is_dynamo_compiling()
        or _transforms()
        or _dispatching()
        or _overriding()
        or forward_ad._current_level >= 0
        or x.is_meta
        or torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type)
        or torch._C._get_tracing_state()
    )


# Is vmap, or another of torch.func's transforms, at work, a TorchDispatchMode, or a TorchFunctionMode, as `gradient`
# needs for tensors of inference mode? (Private to torch; where there is none, it counts as so.)
_transforms: Callable[[], Any] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
_dispatching: Callable[[], Any] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: True)
_overriding: Callable[[], Any] = getattr(torch._C, "_len_torch_function_stack", lambda: True)


def _adopted(x: torch.Tensor) -> torch.Tensor:
    """The floating tensor `x` as a parameter: the same object wherever that can be, so that ties and look-ups hold."""
    if x.grad_fn is not None:  # a part of somebody's computation stays one
        return x
    if type(x) is nn.Parameter:
        x.__class__ = Parameter
    elif type(x) is torch.Tensor and not x.is_inference():
        x.__class__ = Parameter
        x.requires_grad_()
    elif not isinstance(x, nn.Parameter):
        x = Parameter(x.detach().clone() if x.is_inference() else x)
    return x


# For what isn't in this list, torch's optimizers don't choose their faster kernels by themselves.
_fast: Any = getattr(sys.modules["torch.optim.optimizer"], "_foreach_supported_types", [])
if Parameter not in _fast:
    _fast.append(Parameter)


class _Ref:
    """In the template of a field that is a tuple: here belongs what the module has registered as `key`."""

    __slots__ = ("key", "registry")

    def __init__(self, registry: str, key: str) -> None:
        self.registry, self.key = registry, key


@dataclass_transform(field_specifiers=())
class Layer(nn.Module):
    """Base class of layers: annotate the fields, define `__call__`.

    The fields, in their order, are the arguments of the constructor, unless the class has its own
    `__init__` (which need not call `super().__init__()`), and the children that every walk sees.
    Floating tensors become parameters (the very tensors, so one given to two layers is tied), layers
    become submodules, also inside a field's list, tuple or dict; the rest stays as it is. A class
    without annotations has for fields the attributes that its `__init__` sets.

    Raises `TypeError` when a class is made with a field that would hide a method of `nn.Module`.

    >>> class Affine(Layer):
    ...     W: torch.Tensor
    ...     b: torch.Tensor
    ...
    ...     def __call__(self, x):
    ...         return self.W @ x + self.b
    >>> a = Affine(torch.ones(1, 2), torch.tensor([3.0]))
    >>> a(torch.tensor([1.0, 1.0])).detach()
    tensor([5.])
    >>> a
    Affine([1.0 1.0], [3.0])  # 3 parameters
    """

    _fields: ClassVar[tuple[str, ...] | None] = None
    _defaults: ClassVar[dict[str, Any]] = {}
    # Fields that training doesn't change, and fields that torch shouldn't register at all.
    _untrained: ClassVar[frozenset[str]] = frozenset()
    _unregistered: ClassVar[frozenset[str]] = frozenset()
    # Whether the layer is shown with its contents below it; None: if it holds layers.
    _expand: ClassVar[bool | None] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        nn.Module.__init__(self)
        vars(self).update(_templates={}, _nested={})
        return self

    def __init__(self) -> None:
        pass  # done in __new__: a class's own __init__ needn't think of it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = tuple(dict.fromkeys(name for base in reversed(cls.__mro__) for name in _own_fields(base)))
        for name in fields:
            _refuse_clash(name, cls.__name__)
        cls._fields = fields or None
        cls._defaults = dict(cls._defaults)
        plain = [base for base in cls.__mro__ if base is cls or not issubclass(base, Layer)]
        for base in reversed(plain):
            for name in fields:
                if name in vars(base) and not isinstance(vars(base)[name], (property, types.MemberDescriptorType)):
                    # Left on the class, a default would hide what the field is set to, and a function become a method.
                    cls._defaults[name] = vars(base)[name]
                    delattr(base, name)
        _call_through_module(cls)
        if fields and _inherited_init(cls):
            cls.__init__ = _make_init(cls)  # type: ignore[method-assign]

    # -- fields -------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        name = fold(name)
        fields = type(self)._fields
        if name in type(self)._unregistered:
            object.__setattr__(self, name, value)
        elif name == "training" or name.startswith("_"):
            super().__setattr__(name, value)
            if name == "training" and type(vars(self).get("active")) is bool:
                vars(self)["active"] = value  # Lightning sets it back like this after evaluation
        elif isinstance(inspect.getattr_static(type(self), name, None), property):
            object.__setattr__(self, name, value)
        elif fields is None or name in fields:
            if fields is None:
                _refuse_clash(name, type(self).__name__)
                vars(self).setdefault("_order", {})[name] = None
            self._assign(name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        parameters = own.get("_parameters")
        if parameters is not None and name in parameters:  # what layers ask for most
            return parameters[name]
        templates = own.get("_templates")
        if templates and name in templates:
            return self._resolve(templates[name])
        if parameters is not None:  # before `fold`, which torch.compile can't look into
            for registry in (own["_buffers"], own["_modules"]):
                if name in registry:
                    return registry[name]
        if not name.isascii() and fold(name) != name:  # getattr doesn't fold names, the parser does
            return getattr(self, fold(name))
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in (type(self)._fields or ()):
                problem = f"{type(self).__name__} has no value for its field {name!r}: its __init__ must set it"
                raise AttributeError(problem) from None
            raise

    def __delattr__(self, name: str) -> None:
        self._forget(name)
        vars(self).get("_order", {}).pop(name, None)

    def _assign(self, name: str, value: Any) -> None:
        if value is not None and self._parameters.get(name) is value:
            return  # `m.weight -= …` sets what it has changed
        if isinstance(value, list) and isinstance(found := array(value), torch.Tensor) and found.is_floating_point():
            value = found
        if name in self._parameters and isinstance(value, torch.Tensor) and value.is_floating_point():
            old = self._parameters[name]
            if value.grad_fn is not None and not within_gradient() and all(x is old for x in ends([value])):
                value = value.detach()  # `m.weight = m.weight - 0.1 * g`: no history, as in Julia
            self._register(name, value, name not in type(self)._untrained)  # where it was: the order is state_dict's
            return
        self._forget(name)
        if _pruned(name) in self._parameters:
            vars(self)[name] = value
        elif isinstance(value, (torch.Tensor, nn.Module)):
            self._register(name, value, name not in type(self)._untrained)
        elif isinstance(value, (tuple, NamedTuple)) and _holds_torch(value):
            # A tuple can't change, so what torch has registered is the truth, and the tuple is made from it.
            self._templates[name] = self._template(name, value)
        else:
            vars(self)[name] = value
            if name == "active" and type(value) is bool:
                vars(self)["training"] = value
            if isinstance(value, (list, dict)) and _holds_torch(value):
                self._register_nested(name, value)

    def _register(self, key: str, value: torch.Tensor | nn.Module, trained: bool = True) -> str:
        """Puts `value` where torch looks for it, under `key`; returns the name of the registry."""
        if isinstance(value, nn.Module):
            self._modules[key] = value
            return "_modules"
        if trained and (value.is_floating_point() or value.is_complex()):
            self._parameters[key] = _adopted(value)  # type: ignore[assignment]
            return "_parameters"
        self._buffers[key] = value
        self._non_persistent_buffers_set.discard(key)
        return "_buffers"

    def _forget(self, name: str) -> None:
        for registry in (vars(self), self._parameters, self._buffers, self._modules, self._templates):
            registry.pop(name, None)
        for registry, key in self._nested.pop(name, ()):
            vars(self)[registry].pop(key, None)

    def _key(self, name: str, path: tuple[Any, ...]) -> str:
        # Entries of `layers` are named as nn.Sequential names them, so that the state dicts agree.
        short = "_".join(str(k).replace(".", "_") for k in path)
        taken = short in (type(self)._fields or ()) or hasattr(type(self), short)
        return short if name == "layers" and not taken else f"{name}_{short}"

    def _template(self, name: str, value: Any, path: tuple[Any, ...] = ()) -> Any:
        if isinstance(value, (torch.Tensor, nn.Module)):
            key = self._key(name, path)
            registry = self._register(key, value, name not in type(self)._untrained)
            self._nested.setdefault(name, []).append((registry, key))
            return _Ref(registry, key)
        if isinstance(value, NamedTuple):
            return NamedTuple.of({k: self._template(name, v, (*path, k)) for k, v in vars(value).items()})
        if isinstance(value, tuple):
            kids = [self._template(name, v, (*path, i)) for i, v in enumerate(value)]
            return tuple(kids) if type(value) is tuple else type(value)(*kids)
        if isinstance(value, (list, dict)) and _holds_torch(value):
            self._register_nested(name, value, path)
        return value

    def _resolve(self, template: Any) -> Any:
        own = self.__dict__
        if type(template) is _Ref:
            return own[template.registry][template.key]
        if type(template) is tuple:
            return tuple([own[t.registry][t.key] if type(t) is _Ref else self._resolve(t) for t in template])
        if isinstance(template, NamedTuple):
            return NamedTuple.of({k: self._resolve(t) for k, t in vars(template).items()})
        if isinstance(template, tuple):
            return type(template)(*map(self._resolve, template))
        return template

    def _register_nested(self, name: str, value: Any, path: tuple[Any, ...] = ()) -> None:
        """Registers what a list or dict holds, which stays the caller's own and may grow."""
        entries = enumerate(value) if isinstance(value, (list, tuple)) else list(value.items())
        for k, v in entries:
            if isinstance(v, (torch.Tensor, nn.Module)):
                key = self._key(name, (*path, k))
                registry = self._register(key, v, name not in type(self)._untrained)
                self._nested.setdefault(name, []).append((registry, key))
                if vars(self)[registry][key] is not v:
                    value[k] = vars(self)[registry][key]
            elif isinstance(v, (list, dict, tuple)):
                self._register_nested(name, v, (*path, k))

    def _refreshed(self, name: str) -> Any:
        """The field `name`, with whatever was added to a list or dict since then registered too."""
        value = getattr(self, name)
        if name in type(self)._unregistered:
            return value
        if isinstance(value, (list, dict)) and (name in self._nested or _holds_torch(value)):
            for registry, key in self._nested.pop(name, ()):
                vars(self)[registry].pop(key, None)
            self._register_nested(name, value)
        return value

    def _edges(self, trained: bool = True) -> list[tuple[dict[str, Any], str, Any]] | None:
        """Where (trained) children are kept, as (table, key, child); None if they may change unseen."""
        own, cls = self.__dict__, type(self)
        method = getattr(cls, "trainable", None)
        if cls._fields is None or (method is not None and not getattr(method, "_fixed", False)):
            return None
        edges = []
        for name in cls._fields:
            if (trained and name in cls._untrained) or name in cls._unregistered:
                continue
            if name in self._templates:
                edges.append((self._templates, name, self._templates[name]))
                edges += [(own[registry], key, own[registry][key]) for registry, key in self._nested.get(name, ())]
                continue
            tables = (self._parameters, self._modules, self._buffers, own)
            table = next((table for table in tables if name in table), None)
            if table is None or isinstance(table[name], (list, dict)):
                return None
            edges.append((table, name, table[name]))
        return edges + [(table, key, table[key]) for table, key in self._added()]

    def _field_names(self) -> tuple[str, ...]:
        return type(self)._fields or tuple(vars(self).get("_order", ()))

    def _added(self) -> list[tuple[dict[str, Any], str]]:
        """What is registered beside the fields, by torch's parametrizations and pruning, or by hand: (table, key)."""
        own, names = self.__dict__, self._field_names()
        nested = [key for places in own["_nested"].values() for _, key in places]
        tables = own["_parameters"], own["_buffers"], own["_modules"]
        added = [(t, key) for t in tables for key, v in t.items() if v is not None and key not in names]
        return [(t, key) for t, key in added if key not in nested]

    def _computed(self, name: str) -> bool:
        """Does torch compute the field from others, which it has added?"""
        return _pruned(name) in self._parameters or name in self._modules.get("parametrizations", ())  # type: ignore[operator]

    # -- torch's side -------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Settles training (or, by `eval()`, test) mode for this layer and those in it, as in torch."""
        super().train(mode)
        if "active" in self._field_names():
            self.active = mode
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for name in self._field_names():
            self._refreshed(name)
        super()._apply(fn, recurse)
        self._adopt()
        for name, places in self._nested.items():
            if isinstance(vars(self).get(name), (list, dict)):
                _replace(vars(self)[name], iter([vars(self)[registry][key] for registry, key in places]))
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._adopt()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, None if param is None else _adopted(param))  # type: ignore[arg-type]

    def _adopt(self) -> None:
        """Makes the layer's own kind of parameters of those that torch has made."""
        for x in self._parameters.values():
            if x is not None:
                _adopted(x)

    # -- Flux's side --------------------------------------------------------------------------------

    def __matmul__(self, inner: Any) -> Any:
        return (
            ComposedFunction(self, inner) if callable(inner) and not isinstance(inner, torch.Tensor) else NotImplemented
        )

    def __rmatmul__(self, outer: Any) -> Any:
        return (
            ComposedFunction(outer, self) if callable(outer) and not isinstance(outer, torch.Tensor) else NotImplemented
        )

    def __str__(self) -> str:
        return plain_show(self)

    def __repr__(self) -> str:
        return big_show(self)


def _layer_children(x: Layer) -> tuple[NamedTuple, Callable[[Any], Layer]]:
    own = vars(x)
    parameters, modules, buffers = own["_parameters"], own["_modules"], own["_buffers"]
    more = len(parameters) + len(modules) + len(buffers) - sum(map(len, own["_nested"].values()))
    kids: dict[str, Any] = {}
    for name in x._field_names():  # what most fields are, without the detour of getattr
        if name in parameters:
            kids[name] = parameters[name]
            more -= 1
        elif name in modules:
            kids[name] = modules[name]
            more -= 1
        elif name in own and type(own[name]) not in (list, dict):
            kids[name] = own[name]
        else:
            more -= name in buffers
            kids[name] = x._refreshed(name)
    if more:
        kids = {name: kid for name, kid in kids.items() if not x._computed(name)}
        kids.update({key: table[key] for table, key in x._added()})
    return NamedTuple.of(kids), functools.partial(_rebuilt, x, tuple(kids))


_set_rule(Layer, _layer_children)


# What belongs to one layer and none of its copies; the last is what `compile()` has made, of this layer's parameters.
_OF_ONE = frozenset(("_templates", "_nested", "_compiled_call_impl"))


def _rebuilt(x: Layer, names: tuple[str, ...], kids: Any) -> Layer:
    """A copy of `x` with other children, which have these names; its `__init__` is not run."""
    new = type(x).__new__(type(x))
    fields = x._field_names()
    registries = ("_parameters", "_buffers", "_modules")
    owned = {key for places in x._nested.values() for _, key in places}.union(fields, names)
    for key, value in vars(x).items():
        if key in registries:
            vars(new)[key].update({k: v for k, v in value.items() if k not in owned})
        elif key not in fields and key not in _OF_ONE:
            vars(new)[key] = copy.copy(value) if isinstance(value, (dict, list, set)) else value
    for name, value in zip(names, kids, strict=True):
        frozen = isinstance(old := x._parameters.get(name), nn.Parameter) and not old.requires_grad
        if name in fields:
            setattr(new, name, value)
        else:
            new._register(name, value, name in x._parameters)
        if frozen and value is not old and isinstance(p := new._parameters.get(name), nn.Parameter):
            p.requires_grad_(False)
    for name in fields:
        original: Any = new._parameters.get(_pruned(name))
        mask = new._buffers.get(f"{name}_mask")
        if original is not None and mask is not None:
            vars(new)[name] = original * mask
    return new


def _pruned(name: str) -> str:
    """The parameter in the place of which `torch.nn.utils.prune` puts its product with a mask."""
    return f"{name}_orig"


def _holds_torch(x: Any) -> bool:
    if isinstance(x, (torch.Tensor, nn.Module)):
        return True
    if isinstance(x, (tuple, list, NamedTuple)):
        return any(map(_holds_torch, x))
    return isinstance(x, dict) and any(map(_holds_torch, x.values()))


def _replace(x: Any, new: Iterator[Any]) -> None:
    """Puts what torch has registered in the place of what stands in a list or dict, in the order of registration."""
    for k, v in enumerate(x) if isinstance(x, (list, tuple)) else list(x.items()):
        if isinstance(v, (torch.Tensor, nn.Module)):
            found = next(new)
            if found is not v:
                x[k] = found
        elif isinstance(v, (list, dict, tuple)):
            _replace(v, new)


def _own_fields(cls: type) -> list[str]:
    if cls in (Layer, nn.Module, object) or cls.__module__.startswith("torch."):
        return []
    if sys.version_info >= (3, 14):  # annotations are evaluated late there, and the names may not exist yet
        annotations = get_annotations(cls, format=Format.FORWARDREF)
    else:
        annotations = vars(cls).get("__annotations__", {})
    return [
        fold(name)
        for name, kind in annotations.items()
        if not name.startswith("_") and get_origin(kind) is not ClassVar and "ClassVar[" not in str(kind)
    ]


def _refuse_clash(name: str, cls: str) -> None:
    if hasattr(nn.Module, name):
        raise TypeError(f"{cls} can't have a field {name!r}: it would hide nn.Module.{name}, which torch relies on")


def _inherited_init(cls: type) -> bool:
    """Is there no `__init__` of the class's own making?"""
    for base in cls.__mro__:
        if base is Layer:
            return True
        if "__init__" in vars(base):
            return getattr(vars(base)["__init__"], "_from_fields", False)
    return True


def _make_init(cls: type[Any]) -> Callable[..., None]:
    fields, defaults = cls._fields, cls._defaults
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    empty = inspect.Parameter.empty
    parameters = [inspect.Parameter("self", kind)] + [
        inspect.Parameter(name, kind, default=defaults.get(name, empty)) for name in fields
    ]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(fields):
            raise TypeError(f"{cls.__name__} takes {len(fields)} fields ({', '.join(fields)}), and got {len(args)}")
        given = dict(zip(fields, args, strict=False))
        for name, value in kwargs.items():
            if fold(name) not in fields or fold(name) in given:
                problem = "twice" if fold(name) in given else f"it has {', '.join(fields)}"
                raise TypeError(f"{cls.__name__} got the field {name!r}: {problem}")
            given[fold(name)] = value
        missing = [name for name in fields if name not in given and name not in defaults]
        if missing:
            raise TypeError(f"{cls.__name__} is missing its field{'s' * (len(missing) > 1)} {', '.join(missing)}")
        for name in fields:
            setattr(self, name, given[name] if name in given else copy.copy(defaults[name]))

    with contextlib.suppress(ValueError):  # a field without a default after one that has one
        __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    __init__._from_fields = True  # type: ignore[attr-defined]
    return __init__


def _call_through_module(cls: type[Any]) -> None:
    """Makes what `cls` defines as its `__call__` the `forward` of a module, so that hooks and compilation work."""
    own = vars(cls).get("__call__")
    if own is not None and own is not nn.Module.__call__ and not getattr(own, "_through_module", False):
        cls.forward = own
        del cls.__call__
    forwards = [base for base in cls.__mro__ if issubclass(base, Layer) and "forward" in vars(base)]
    if len(forwards) > 1 or cls.__call__ is not nn.Module.__call__:
        for base in forwards:
            if "__call__" not in vars(base):
                base.__call__ = _through_module(vars(base)["forward"])  # type: ignore[assignment]


def _through_module(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A `__call__` by way of `nn.Module` that can be reached by `super().__call__(…)` too."""

    @functools.wraps(forward)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self).forward is forward:
            return nn.Module.__call__(self, *args, **kwargs)
        return forward(self, *args, **kwargs)

    __call__._through_module = True  # type: ignore[attr-defined]
    return __call__


@overload
def layer(cls: C, /, *, trainable: tuple[str, ...] | None = ..., expand: bool | None = ...) -> C: ...
@overload
def layer(*, trainable: tuple[str, ...] | None = ..., expand: bool | None = ...) -> Callable[[C], C]: ...
def layer(
    cls: Any = None, /, *, trainable: tuple[str, ...] | list[str] | str | None = None, expand: bool | None = None
) -> Any:
    """Flux's `@layer`: makes a plain class a layer, whose fields gradients, optimisers, devices and printing see.

    As a decorator it gives a subclass that is a `Layer` too, and so an `nn.Module`. Called as
    `layer(T)` after the fact, it also lets every walk look into the instances of `T` itself.
    `trainable=("W",)` names the fields that training changes: the other tensors become buffers, and
    have no gradient. `expand` shows the contents below the name, or (`False`) doesn't; layers that
    hold layers unfold by themselves.

    Raises `TypeError` for what isn't a class, or a field in `trainable` that it doesn't have.

    >>> @layer(trainable=("W",))
    ... class Affine:
    ...     def __init__(self, n, m):
    ...         self.W, self.b = torch.ones(m, n), torch.zeros(m)
    ...
    ...     def __call__(self, x):
    ...         return self.W @ x + self.b
    >>> len(params(Affine(3, 2))), isinstance(Affine(3, 2), torch.nn.Module)
    (1, True)
    """
    if cls is None:
        return functools.partial(layer, trainable=trainable, expand=expand)
    if not isinstance(cls, type):
        raise TypeError(f"layer needs a class, and got {cls!r}")
    given = (trainable,) if isinstance(trainable, str) else trainable
    made = cls if issubclass(cls, Layer) else _layer_class(cls)
    known = made._fields
    names = None if given is None else tuple(map(fold, given))
    if names is not None and known is not None and not set(names) <= set(known):
        raise TypeError(
            f"{cls.__name__} has the fields {', '.join(known)}, so training can't change {', '.join(names)}"
        )
    each: Any
    for each in dict.fromkeys((cls, made)):
        each._expand = expand
        if names is not None:

            def chosen(self: Any, names: tuple[str, ...] = names) -> NamedTuple:
                kids, others = vars(_layer_children(self)[0]), (*self._field_names(), *self._buffers)
                added = [key for key in kids if key not in others]
                return NamedTuple.of({key: kids[key] for key in (*names, *added) if key in kids})

            chosen._fixed = True  # type: ignore[attr-defined]
            each.trainable = chosen
    if names is not None:
        made._untrained = _AllBut(names)  # type: ignore[assignment]
    return made


class _AllBut:
    """Every name but some: what isn't trained, in a class whose fields may not be known yet."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name not in self._names


def _layer_class(cls: type) -> Any:
    """A subclass of the plain class `cls` that is a `Layer`; `cls` itself gets children and the same printed form."""
    namespace: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        # A dataclass compares by value, and torch keeps modules in sets.
        "__eq__": object.__eq__,
        "__hash__": object.__hash__,
    }
    call = next((vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)), None)
    if call is not None:
        namespace["__call__"] = call
    own = getattr(cls, "__dataclass_params__", None)
    if getattr(cls, "__repr__", None) is object.__repr__ or (own is not None and own.repr):
        namespace["__repr__"], namespace["__str__"] = Layer.__repr__, Layer.__str__
        cls.__repr__, cls.__str__ = big_show, plain_show  # type: ignore[method-assign, assignment]
    made: Any = type(cls)(cls.__name__, (cls, Layer), namespace)
    functor(cls, made._fields)
    _set_rule(made, _layer_children)
    if made._fields and "__init__" not in vars(cls):
        setattr(cls, "__init__", made.__init__)  # noqa: B010  # a struct has a constructor before it is a layer, too
    return made


class ComposedFunction(Layer):
    """`outer ∘ inner`: applies `inner`, then `outer`. Made by `outer @ inner`, or by `compose`.

    >>> m = Dense(torch.ones(1, 2), False) @ relu
    >>> m
    Dense(2 => 1; bias=false) ∘ relu
    >>> m(torch.tensor([-1.0, 2.0])).detach()
    tensor([2.])
    """

    outer: Any
    inner: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.outer(self.inner(*args, **kwargs))

    def __str__(self) -> str:
        return f"{show(self.outer)} ∘ {show(self.inner)}"

    __repr__ = __str__


def compose(*fs: Callable[..., Any]) -> Any:
    """Julia's `f ∘ g ∘ …` for any functions: the last one is applied first. Of one function, that function.

    >>> compose(relu, torch.neg)(torch.tensor([-2.0, 3.0]))
    tensor([2., 0.])
    """
    if not fs or not all(map(callable, fs)):
        raise TypeError(f"compose needs functions, and got {', '.join(map(show, fs)) or 'none'}")
    return functools.reduce(ComposedFunction, fs)


def treelike(cls: C, fields: tuple[str, ...] | None = None) -> C:
    """Flux 0.8's name for `functor`: lets every walk look into the instances of `cls`, or only into `fields` of them.

    Raises `TypeError` for what isn't a class.

    >>> class Pair2:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, b
    >>> treelike(Pair2) is Pair2
    True
    """
    if not isinstance(cls, type):
        raise TypeError(f"treelike needs a class, and got {cls!r}")
    return functor(cls, fields)  # type: ignore[no-any-return]
