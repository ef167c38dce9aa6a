"""Devices and element types: `gpu`, `cpu`, `f32` and the like, for whole models."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fluxtorch.arrays import array, summary
from fluxtorch.functors import fleaves, fmap, isleaf

__all__ = [
    "DeviceIterator",
    "bf16",
    "cpu",
    "cpu_device",
    "f16",
    "f32",
    "f64",
    "get_device",
    "get_device_type",
    "gpu",
    "gpu_device",
]


class Device:
    """What `gpu_device()` and `cpu_device()` give: a function that puts tensors, models and data on its device.

    >>> cpu_device()(nt(x=torch.ones(2))).x.device
    device(type='cpu')
    """

    __slots__ = ("device",)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, x: Any) -> Any:
        if isleaf(x) and not isinstance(x, torch.Tensor) and hasattr(x, "__iter__") and hasattr(x, "batchsize"):
            return DeviceIterator(self, x)
        return fmap(self._moved, x)

    def _moved(self, x: Any) -> Any:
        x = array(x) if hasattr(x, "__array_interface__") else x
        if not isinstance(x, torch.Tensor) or x.device == self.device:
            return x
        with torch.no_grad():
            # A GPU is slow at Float64, so Flux turns it into Float32 on the way.
            smaller = self.device.type != "cpu" and x.dtype == torch.float64
            y = x.detach().to(self.device, dtype=torch.float32 if smaller else x.dtype, non_blocking=True)
        return _as_before(x, y)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.device == other.device

    def __hash__(self) -> int:
        return hash(self.device)

    def __repr__(self) -> str:
        name = {"cpu": "CPU", "cuda": "CUDA", "mps": "Metal", "xpu": "oneAPI"}.get(self.device.type, self.device.type)
        return f"{name}Device({'' if self.device.index is None else self.device.index})"


class DeviceIterator:
    """An iterable whose items are put on a device as they come: `DeviceIterator(gpu_device(), loader)`.

    >>> [x.device.type for x in DeviceIterator(cpu_device(), [torch.ones(1)])]
    ['cpu']
    """

    def __init__(self, device: Callable[[Any], Any], iterator: Any) -> None:
        self.dev, self.iterator = device, iterator

    def __iter__(self) -> Iterator[Any]:
        return map(self.dev, iter(self.iterator))

    def __len__(self) -> int:
        return len(self.iterator)


def _as_before(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`y`, made from `x`, a parameter or tracked where `x` is."""
    if isinstance(x, nn.Parameter):
        return type(x)(y, requires_grad=x.requires_grad and y.is_floating_point())
    return y.requires_grad_() if x.requires_grad and x.is_leaf else y


def _accelerator() -> str | None:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


@functools.cache
def _say_no_gpu() -> None:
    warnings.warn("No GPU is available to torch, so gpu(x) is x. This is said once.", stacklevel=4)


def gpu_device(id: int | None = None, *, force: bool = False) -> Device:
    """The current GPU, or that with the number `id` (from 0), as a function; without one, the CPU, said once.

    Raises `RuntimeError` for a GPU that isn't there, with `force` also if there is none at all.

    >>> callable(gpu_device())
    True
    """
    kind = _accelerator()
    if kind is None:
        if force:
            raise RuntimeError("no GPU is available to torch")
        _say_no_gpu()
        return cpu_device()
    if kind == "cuda":
        index = torch.cuda.current_device() if id is None else id
        if not 0 <= index < torch.cuda.device_count():
            raise RuntimeError(f"there is no GPU {index}: torch sees {torch.cuda.device_count()}, numbered from 0")
        return Device(torch.device("cuda", index))
    return Device(torch.device(kind, 0))


def cpu_device() -> Device:
    """The CPU, as a function.

    >>> cpu_device()
    CPUDevice()
    """
    return Device(torch.device("cpu"))


def get_device(x: Any = None, idx: int = 0) -> Any:
    """The device of the tensors in `x`, None without any.

    `get_device("CPU")` and `get_device("CUDA", 0)` are those devices, `get_device()` is the GPU.
    Raises `ValueError` if they are on several devices, or for an unknown name.

    >>> get_device(torch.ones(2)), get_device("CPU")
    (CPUDevice(), CPUDevice())
    """
    if x is None:
        return gpu_device()
    if isinstance(x, str):
        if x.upper() == "CPU":
            return cpu_device()
        if x.upper() in ("CUDA", "AMD", "AMDGPU", "METAL", "ONEAPI", "GPU"):
            return gpu_device(idx, force=True)
        raise ValueError(f'get_device knows "CPU", "CUDA", "AMDGPU" and "Metal", and got {x!r}')
    found = {v.device for v in fleaves(x) if isinstance(v, torch.Tensor)}
    if len(found) > 1:
        raise ValueError(f"the tensors are on several devices: {', '.join(sorted(map(str, found)))}")
    return Device(found.pop()) if found else None


def get_device_type(x: Any) -> str | None:
    """The kind of device that the tensors in `x` are on, as torch names it: `"cpu"`, `"cuda"`; None without tensors.

    >>> get_device_type(torch.ones(2))
    'cpu'
    """
    device = get_device(x)
    return None if device is None else device.device.type


def gpu(x: Any) -> Any:
    """`x`, a tensor, a model or any structure, copied to the GPU; without one, `x` itself, said once.

    Float64 becomes Float32 on the way.

    >>> m = Dense(2 |to| 1)
    >>> gpu(m)(rand32(2)).shape
    torch.Size([1])
    """
    return x if _accelerator() is None and _say_no_gpu() is None else gpu_device()(x)


def cpu(x: Any) -> Any:
    """`x`, a tensor, a model or any structure, copied to the CPU; what is there already is shared.

    >>> cpu((torch.ones(2), "text"))
    (tensor([1., 1.]), 'text')
    """
    return cpu_device()(x)


def _converted(x: Any, dtype: torch.dtype, name: str) -> Any:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        raise TypeError(f"{name} converts arrays and models, and got the number {x}")

    def convert(v: Any) -> Any:
        if not isinstance(v, torch.Tensor) or not v.is_floating_point() or v.dtype == dtype:
            return v
        with torch.no_grad():
            return _as_before(v, v.detach().to(dtype))

    x = array(x)
    if not isinstance(x, torch.Tensor) and isleaf(x) and x is not None and not callable(x):
        raise TypeError(f"{name} converts arrays and models, and got {summary(x)}")
    return fmap(convert, x)


def f16(x: Any) -> Any:
    """`x` with every floating array as Float16; integers stay.

    >>> f16(Dense(2 |to| 1)).weight.dtype
    torch.float16
    """
    return _converted(x, torch.float16, "f16")


def bf16(x: Any) -> Any:
    """`x` with every floating array as BFloat16; integers stay.

    >>> bf16([1.0, 2.0]).dtype
    torch.bfloat16
    """
    return _converted(x, torch.bfloat16, "bf16")


def f32(x: Any) -> Any:
    """`x` with every floating array as Float32; integers stay.

    >>> f32(rand(2)).dtype
    torch.float32
    """
    return _converted(x, torch.float32, "f32")


def f64(x: Any) -> Any:
    """`x` with every floating array as Float64; integers stay.

    >>> f64(nt(a=[1.0], b=[1])).a.dtype
    torch.float64
    """
    return _converted(x, torch.float64, "f64")
