"""Devices and element types: `gpu`, `cpu`, `f32` and the like, for whole models."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.data
from torch import nn

from fluxtorch.arrays import array, summary
from fluxtorch.functors import fleaves, fmap, isleaf
from fluxtorch.mlutils import BatchView, DataLoader, mapobs
from fluxtorch.zygote.scope import within_gradient

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


_SMALLER = {torch.float64: torch.float32, torch.complex128: torch.complex64}


def _literal(x: Any) -> Any:
    """A list of numbers as an array; a range stays one, as in Julia."""
    return array(x) if isinstance(x, list) else x


class Device:
    """What `gpu_device()` and `cpu_device()` give: a function that puts tensors, models and data on its device.

    A `DataLoader` gives one whose batches are put there as they come, a torch `DataLoader` or a
    `BatchView` a `DeviceIterator`. A list of numbers and a NumPy array become tensors. Gradients
    flow through it. `.device` is torch's word for it, for `x.to(gpu_device().device)`.

    >>> cpu_device()(nt(x=torch.ones(2))).x.device
    device(type='cpu')
    """

    __slots__ = ("device",)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, x: Any) -> Any:
        return fmap(self._moved, _literal(x))

    def _moved(self, x: Any) -> Any:
        if isinstance(x, DataLoader):
            return x._followed(self, mapobs(self, x.data))
        if isinstance(x, (BatchView, torch.utils.data.DataLoader)):
            return DeviceIterator(self, x)
        x = array(x) if hasattr(x, "__array_interface__") else x
        if not isinstance(x, torch.Tensor) or x.device == self.device:
            return x
        # A GPU is slow at Float64, so Flux turns it into Float32 on the way there.
        dtype = _SMALLER.get(x.dtype, x.dtype) if x.device.type == "cpu" else x.dtype
        # The CPU has to wait: it would read what has not arrived yet.
        return _changed(x, device=self.device, dtype=dtype, non_blocking=self.device.type != "cpu")

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


def _changed(x: torch.Tensor, **to: Any) -> torch.Tensor:
    """`x.to(…)`: a step of the computation that `x` is part of; or else a parameter or tracked, as `x` is."""
    if x.requires_grad and (within_gradient() or not x.is_leaf):
        return x.to(**to)
    y = x.detach().to(**to)
    if isinstance(x, nn.Parameter):
        return type(x)(y, requires_grad=x.requires_grad)
    return y.requires_grad_(x.requires_grad)


def _accelerator() -> torch.device | None:
    return torch.accelerator.current_accelerator(check_available=True)


# What `gpu_device(id)` was last asked for.
_chosen: Device | None = None


@functools.cache
def _say_no_gpu() -> None:
    warnings.warn("No GPU is available to torch, so gpu(x) is x. This is said once.", stacklevel=4)


def gpu_device(id: int | None = None, *, force: bool = False) -> Device:
    """The GPU with the number `id`, from 0, as a function; without `id`, the one last asked for, else torch's current.

    Without any GPU it is the CPU, which is said once. Raises `RuntimeError` for a GPU that isn't
    there, with `force` also if there is none at all. MLDataDevices.jl's `gpu_device`.

    >>> callable(gpu_device())
    True
    """
    global _chosen
    kind = _accelerator()
    if kind is None:
        if force:
            raise RuntimeError("no GPU is available to torch")
        _say_no_gpu()
        return cpu_device()
    if id is None:
        return _chosen or Device(torch.device(kind.type, torch.accelerator.current_device_index()))
    count = torch.accelerator.device_count()
    if not 0 <= id < count:
        raise RuntimeError(f"there is no GPU {id}: torch sees {count}, numbered from 0")
    _chosen = Device(torch.device(kind.type, id))
    return _chosen


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

    Float64 becomes Float32 on the way. A `DataLoader` gives one whose batches are copied as they come.

    >>> m = Dense(2 |to| 1)
    >>> gpu(m)(rand32(2)).shape
    torch.Size([1])
    """
    device = gpu_device()
    return _literal(x) if device == cpu_device() else device(x)


def cpu(x: Any) -> Any:
    """`x`, a tensor, a model, a `DataLoader` or any structure, copied to the CPU; what is there already is shared.

    >>> cpu((torch.ones(2), "text"))
    (tensor([1., 1.]), 'text')
    """
    return cpu_device()(x)


def _converted(x: Any, dtype: torch.dtype, name: str) -> Any:
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        raise TypeError(f"{name} converts arrays and models, and got the number {x}")

    def convert(v: Any) -> Any:
        if not isinstance(v, torch.Tensor) or not (v.is_floating_point() or v.is_complex()):
            return v
        wanted = dtype.to_complex() if v.is_complex() else dtype
        return v if v.dtype == wanted else _changed(v, dtype=wanted)

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
