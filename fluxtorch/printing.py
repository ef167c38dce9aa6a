"""Values as Julia prints them: `true`, `nothing`, `1.0e-8`, `[1.0 2.0; 3.0 4.0]`, `(a = 1, b = 2)`."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import torch
from torch import nn

__all__ = ["function_name", "julia_type", "show", "underscorise"]

_JULIA_TYPES = {
    torch.float32: "Float32",
    torch.float64: "Float64",
    torch.int64: "Int64",
    torch.float16: "Float16",
    torch.bfloat16: "BFloat16",
    torch.int8: "Int8",
    torch.int16: "Int16",
    torch.int32: "Int32",
    torch.uint8: "UInt8",
    torch.bool: "Bool",
    torch.complex64: "ComplexF32",
    torch.complex128: "ComplexF64",
}

_FUNCTION_NAMES: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    torch.add: "+",
    torch.sub: "-",
    torch.mul: "*",
    torch.div: "/",
    torch.sigmoid: "σ",
}


def show(x: Any, compact: bool = False) -> str:
    """`x` as Julia's REPL would print it inside a line.

    With `compact`, numbers are rounded to six significant digits, as in Julia's `:compact`. Long
    arrays are cut in the middle. The element type stands before an array only where it is not
    torch's default, Float64 or Int64.

    >>> show((1, 0.5, None, True, "a", 1e-8))
    '(1, 0.5, nothing, true, "a", 1.0e-8)'
    >>> show(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    '[1.0 2.0; 3.0 4.0]'
    """
    if x is None:
        return "nothing"
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, float):
        return _float(x, compact)
    if isinstance(x, complex):
        return _number(x, compact)
    if isinstance(x, str):
        return '"' + x.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(x, torch.Tensor):
        return _tensor(x, compact)
    if type(x) is tuple or isinstance(x, torch.Size):
        return "(" + ", ".join(show(v, compact) for v in x) + (",)" if len(x) == 1 else ")")
    if type(x) is list:
        return "[" + ", ".join(show(v, compact) for v in x) + "]"
    if isinstance(x, dict):
        return "Dict(" + ", ".join(f"{show(k, compact)} => {show(v, compact)}" for k, v in x.items()) + ")"
    if hasattr(type(x), "keys") and hasattr(type(x), "of"):
        return _fields(vars(x), compact)
    if isinstance(x, torch.dtype):
        return str(x)
    if isinstance(x, nn.Module) or hasattr(type(x), "_expand"):
        return str(x)
    if isinstance(x, functools.partial):
        given = [show(v, compact) for v in (x.func, *x.args)]
        return f"partial({', '.join(given + [f'{k} = {show(v, compact)}' for k, v in x.keywords.items()])})"
    return (function_name(x) if callable(x) else "") or repr(x)


def julia_type(x: torch.Tensor) -> str:
    """The name of the element type of `x` in Julia.

    >>> julia_type(torch.ones(2, dtype=torch.bfloat16))
    'BFloat16'
    """
    return _JULIA_TYPES.get(x.dtype, str(x.dtype).removeprefix("torch."))


def _fields(fields: Mapping[str, Any], compact: bool) -> str:
    inner = ", ".join(f"{name} = {show(value, compact)}" for name, value in fields.items())
    return f"({inner},)" if len(fields) == 1 else f"({inner})" if fields else "NamedTuple()"


def function_name(f: Any) -> str:
    """The name under which Flux prints a function: `σ` for the sigmoid, `+` for `operator.add`; "" if it has none.

    >>> function_name(torch.tanh), function_name(operator.add)
    ('tanh', '+')
    """
    try:
        if f in _FUNCTION_NAMES:
            return _FUNCTION_NAMES[f]
    except TypeError:  # not hashable, so no function
        return ""
    return getattr(f, "__name__", "")


def _float(x: float, compact: bool = False, kind: torch.dtype = torch.float64) -> str:
    """A float in Julia's form: shortest digits that read back as the same number."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Inf" if x > 0 else "-Inf"
    if compact:
        digits = f"{x:.6g}"
    elif kind is not torch.float64:
        digits = next(d for d in (f"{x:.{p}g}" for p in range(1, 10)) if _rounded(float(d), kind) == x)
    else:
        digits = repr(float(x))  # NumPy's floats are floats, too
    exact = Decimal(digits).normalize()
    power = exact.adjusted() if exact else 0
    if -5 < power < (3 if kind is torch.float16 else 6):
        plain = f"{exact:f}"
        return plain if "." in plain else plain + ".0"
    head = f"{exact.scaleb(-power):f}"
    return f"{head if '.' in head else head + '.0'}e{power}"


def _rounded(x: float, kind: torch.dtype) -> float:
    return torch.tensor(x, dtype=kind, device="cpu").item()


def _number(x: Any, compact: bool, kind: torch.dtype = torch.float64) -> str:
    if isinstance(x, bool):
        return str(int(x))
    if isinstance(x, float):
        return _float(x, compact, kind)
    if isinstance(x, complex):
        sign, times = "-" if math.copysign(1.0, x.imag) < 0 else "+", "" if math.isfinite(x.imag) else "*"
        return f"{_float(x.real, compact, kind)} {sign} {_float(abs(x.imag), compact, kind)}{times}im"
    return str(x)


def _tensor(x: torch.Tensor, compact: bool) -> str:
    if x.device.type == "meta":
        return f"{tuple(x.shape)} on meta"
    x = x.detach()
    kind = x.dtype.to_real()
    if x.ndim == 0:
        value = x.item()
        return show(value) if isinstance(value, bool) else _number(value, compact, kind)
    plain = (torch.get_default_dtype(), torch.float64, torch.int64)
    prefix = "" if x.dtype in plain else julia_type(x)
    if x.numel() == 0:
        name = f"Matrix{{{julia_type(x)}}}" if x.ndim == 2 else f"Array{{{julia_type(x)}, {x.ndim}}}"
        return f"{julia_type(x)}[]" if x.ndim == 1 else f"{name}(undef, {', '.join(map(str, x.shape))})"

    def cell(v: torch.Tensor) -> str:
        return _number(v.item(), compact, kind)

    def ends(n: int, most: int) -> tuple[list[int], list[int]]:
        half = most // 2
        return (list(range(n)), []) if n <= most else (list(range(half)), list(range(n - half, n)))

    def matrix(m: torch.Tensor) -> str:
        columns = ends(m.shape[1], 4)
        rows = ends(m.shape[0], 4)

        def row(i: int) -> str:
            parts = [" ".join(cell(m[i, j]) for j in part) for part in columns if part]
            return " … ".join(parts)

        return "; … ; ".join("; ".join(row(i) for i in part) for part in rows if part)

    if x.ndim == 1:
        body = "  …  ".join(", ".join(cell(x[i]) for i in part) for part in ends(len(x), 20) if part)
    else:
        body = _slices(x, matrix) + (";" * x.ndim if x.shape[-1] == 1 else "")
    return f"{prefix}[{body}]"


def _slices(x: torch.Tensor, matrix: Callable[[torch.Tensor], str]) -> str:
    if x.ndim == 2:
        return matrix(x)
    n, mark = x.shape[-1], ";" * x.ndim
    parts = [_slices(x[..., i], matrix) for i in (range(n) if n <= 10 else (0, 1, 2, n - 3, n - 2, n - 1))]
    if n > 10:
        parts[2:4] = [f"{parts[2]}{mark} … {mark} {parts[3]}"]
    return f"{mark} ".join(parts)


def underscorise(n: int) -> str:
    """A whole number with its digits grouped in threes, as Flux prints parameter counts.

    >>> underscorise(50240)
    '50_240'
    """
    return f"{n:_}"
