"""The types and sizes of data, as Julia names them: `Matrix{Float32}`, `3-element Vector{String}`."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.namedtuples import NamedTuple
from fluxtorch.onehotarrays import OneHotArray
from fluxtorch.printing import julia_type

__all__ = ["size_and_type", "type_name"]

_SCALARS = {bool: "Bool", int: "Int64", float: "Float64", complex: "ComplexF64", str: "String", type(None): "Nothing"}


def type_name(x: Any) -> str:
    """The type that Julia would give to `x`.

    >>> type_name((torch.ones(2, 3), ["a", "b"], range(3)))
    'Tuple{Matrix{Float32}, Vector{String}, UnitRange{Int64}}'
    """
    if isinstance(x, OneHotArray) and x.axis == 0:
        n = x.indices.ndim
        kinds = "", f", {_array('UInt32', 1)}", f", {n}, {n + 1}, {_array('UInt32', n)}"
        return f"{('OneHotVector', 'OneHotMatrix', 'OneHotArray')[min(n, 2)]}{{UInt32{kinds[min(n, 2)]}}}"
    if isinstance(x, torch.Tensor):
        return _array(julia_type(x), x.ndim, "Cu" if x.is_cuda else "")
    if isinstance(x, NamedTuple):
        return "@NamedTuple{" + ", ".join(f"{k}::{type_name(v)}" for k, v in vars(x).items()) + "}"
    if isinstance(x, tuple):
        return "Tuple{" + ", ".join(map(type_name, x)) + "}"
    if isinstance(x, dict):
        return f"Dict{{{_common(list(x))}, {_common(list(x.values()))}}}"
    if isinstance(x, list):
        return f"Vector{{{_common(x)}}}"
    if isinstance(x, range):
        return "UnitRange{Int64}" if x.step == 1 else "StepRange{Int64, Int64}"
    if hasattr(x, "_type_name"):
        return x._type_name()
    return _SCALARS.get(type(x), type(x).__name__)


def _array(kind: str, ndim: int, where: str = "") -> str:
    if ndim == 0:
        return kind
    return f"{where}Array{{{kind}, {ndim}}}" if ndim > 2 else f"{where}{('Vector', 'Matrix')[ndim - 1]}{{{kind}}}"


def _common(xs: list[Any]) -> str:
    names = {type_name(x) for x in xs}
    return names.pop() if len(names) == 1 else "Any"


def size_and_type(x: Any) -> str:
    """What Julia's `summary` says of `x`.

    >>> size_and_type(torch.ones(2, 3)), size_and_type(["a"])
    ('2×3 Matrix{Float32}', '1-element Vector{String}')
    """
    if isinstance(x, OneHotArray):
        return repr(x).split(":\n")[0]
    shape = tuple(getattr(x, "shape", ())) or ((len(x),) if isinstance(x, (list, range)) else ())
    size = f"{shape[0]}-element" if len(shape) == 1 else "×".join(map(str, shape))
    return f"{size} {type_name(x)}".lstrip()
