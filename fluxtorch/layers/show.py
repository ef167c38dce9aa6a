"""Models as Flux prints them: one line for a layer, a tree with counts for what holds layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fluxtorch.functors import _items, children, fleaves, isleaf, trainable
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.printing import julia_type, show, underscorise
from fluxtorch.zygote.implicit import Params, params

__all__ = ["big_show", "optional"]


def optional(*parts: tuple[bool, str]) -> str:
    """The texts whose condition holds, one after the other."""
    return "".join(text for wanted, text in parts if wanted)


def big_show(x: Any) -> str:
    """What Julia's REPL shows for the layer `x`: counts of parameters, and its layers one below the other."""
    lines: list[str] = []
    _big_show(x, lines, 0, "")
    return "\n".join(line.rstrip() for line in lines)


def _big_show(x: Any, lines: list[str], indent: int, name: str) -> None:
    kids = _shown_children(x)
    if not _unfolds(x, kids):
        lines.append(_layer_line(x, indent, name))
        return
    opening, closing = _brackets(x)
    lines.append(" " * indent + name + opening)
    for key, kid in kids:
        _big_show(kid, lines, indent + 2, key)
    if indent:
        lines.append(" " * indent + closing + ",")
    else:
        lines.append(closing.ljust(2) + _finale(x))


def _unfolds(x: Any, kids: list[tuple[str, Any]]) -> bool:
    expand = getattr(type(x), "_expand", isinstance(x, (tuple, list, dict, NamedTuple)))
    if expand is None:
        return any(_holds_layers(kid) for _, kid in kids)
    return _holds_arrays(x) or (bool(expand) and not all(_leaflike(kid) for _, kid in kids))


def _is_layer(x: Any) -> bool:
    return isinstance(x, nn.Module) or hasattr(type(x), "_expand")


def _holds_arrays(x: Any) -> bool:
    """Is `x` a function with some arguments given, and arrays or layers among them?"""
    given = (x.func, *x.args, *x.keywords.values()) if isinstance(x, functools.partial) else ()
    return any(isinstance(v, torch.Tensor) or _holds_layers(v) for v in given)


def _holds_layers(x: Any) -> bool:
    return _is_layer(x) or (
        isinstance(x, (tuple, list, dict, NamedTuple)) and any(_holds_layers(kid) for _, kid in _items(children(x)))
    )


def _shown_children(x: Any) -> list[tuple[str, Any]]:
    """The children that are shown, each with the `name = ` before it: a layer's tuples are spread out."""
    if isinstance(x, (tuple, list)):
        return [("", kid) for kid in x]
    if isinstance(x, dict):
        return [(f"{key} = ", kid) for key, kid in x.items()]
    if isinstance(x, NamedTuple):
        return [(f"{key} = ", kid) for key, kid in _items(x)]
    if isinstance(x, functools.partial):
        return [("", v) for v in (x.func, *x.args)] + [(f"{key} = ", v) for key, v in x.keywords.items()]
    if isleaf(x) or not _is_layer(x):
        return []
    shown: list[tuple[str, Any]] = []
    for name, field in _items(trainable(x)):
        if name == "parametrizations":  # what torch computes a field from
            continue
        if isinstance(field, NamedTuple):
            shown += [(f"{key} = ", kid) for key, kid in _items(field)]
        elif type(field) is tuple:
            shown += [("", kid) for kid in field]
        else:
            shown.append(("", field))
    return shown


def _leaflike(x: Any) -> bool:
    if isinstance(x, tuple):
        return all(isinstance(v, (bool, int, float)) for v in x) or all(isinstance(v, torch.Tensor) for v in x)
    return not (_is_layer(x) or isinstance(x, (list, dict, NamedTuple)) or _holds_arrays(x))


def _brackets(x: Any) -> tuple[str, str]:
    if isinstance(x, list):
        return "[", "]"
    if isinstance(x, (NamedTuple, dict)):
        return "(;", ")"
    return ("Tuple" if isinstance(x, tuple) else type(x).__name__) + "(", ")"


def _layer_line(x: Any, indent: int, name: str) -> str:
    own = hasattr(type(x), "_expand")
    text = name + (_array_text(x) if isinstance(x, torch.Tensor) else str(x) if own else show(x))
    line = " " * indent + text + ("," if indent else "")
    ps = _params(x)
    if len(ps):
        line += " " * max(2, (39 if indent else 20) - indent - len(text)) + f"# {_count(ps)} parameters"
        rest = _total(lambda v: v.numel(), x) - sum(p.numel() for p in ps)
        if rest > 0:
            line += f", plus {underscorise(rest)}" + ("" if indent else " non-trainable")
        line += _warning(ps)
    return line


def _params(x: Any) -> Params:
    return Params() if callable(x) and isleaf(x) and not isinstance(x, torch.Tensor) else params((x,))


def _array_text(x: torch.Tensor) -> str:
    size = f"{len(x)}-element" if x.ndim == 1 else "×".join(map(str, x.shape)) if x.ndim else "0-dimensional"
    kind = {1: "Vector{%s}", 2: "Matrix{%s}"}.get(x.ndim, "Array{%s,...}") % julia_type(x)
    return f"{size} {kind}"


def _finale(x: Any) -> str:
    ps = _params(x)
    if len(ps) <= 2:
        return ""
    nbytes = _format_bytes(_nbytes(x))
    arrays = _total(lambda _: 1, x)
    if arrays > len(ps):
        rest = underscorise(_total(lambda v: v.numel(), x) - sum(p.numel() for p in ps))
        return (
            f"{'':8}# Total: {len(ps)} trainable arrays, {_count(ps)} parameters,\n"
            f"{'':10}# plus {arrays - len(ps)} non-trainable, {rest} parameters, summarysize {nbytes}."
        )
    return f"{'':18}# Total: {len(ps)} arrays, {_count(ps)} parameters, {nbytes}."


def _count(ps: Iterable[torch.Tensor]) -> str:
    return underscorise(sum(p.numel() for p in ps))


def _total(f: Callable[[torch.Tensor], int], x: Any) -> int:
    # Every place counts, also that of a tensor which was counted elsewhere, as in Flux.
    return sum(f(v) for v in fleaves(x) if isinstance(v, torch.Tensor))


def _nbytes(x: Any) -> int:
    return sum({id(v): v.numel() * v.element_size() for v in fleaves(x) if isinstance(v, torch.Tensor)}.values())


def _format_bytes(n: int) -> str:
    if n < 1024:
        return "1 byte" if n == 1 else f"{n} bytes"
    power = min(int(math.log(n, 1024)), 5)
    return f"{n / 1024**power:.3f} {('', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def _warning(ps: Iterable[torch.Tensor]) -> str:
    xs = [p.detach() for p in ps if p.device.type != "meta"]
    if xs and all(not bool(x.any()) for x in xs):
        return "  (all zero)"
    if any(bool(x.isnan().any()) for x in xs):
        return "  (some NaN)"
    if any(bool(x.isinf().any()) for x in xs):
        return "  (some Inf)"
    return ""


def plain_show(x: Any) -> str:
    """`x` on one line as a constructor with its fields, for layers that don't say otherwise."""
    return f"{type(x).__name__}({', '.join(show(kid) for _, kid in _items(children(x)))})"
