"""`Torch`: any torch module as a layer in Flux's axis order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.functors import fmap
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.attention import Attended
from fluxtorch.zygote.scope import within_gradient

__all__ = ["Torch"]


@layer(expand=False)
class Torch(Layer):
    """A torch module as a layer in Flux's axis order: `Torch(module)`.

    Arrays go to the module with their axes reversed, and come back so, also those in tuples, lists,
    dicts and keyword arguments: `(features, N)` is torch's `(N, features)`, `(W, H, C, N)` its `(N, C,
    H, W)`. Both are views; nothing is copied. Other arguments and results pass as they are. The
    module's parameters are those of the layer.

    As other layers, it is in test mode except while `gradient` runs, until `trainmode_`, `testmode_`,
    `.train()` or `.eval()` settle it; parts of the module that are in test mode by themselves stay so.

    Raises `TypeError` for anything but a module.

    >>> m = Chain(Torch(torch.nn.Linear(3, 4)), relu, Dense(4 |to| 2))
    >>> m(rand32(3, 5)).shape
    torch.Size([2, 5])
    >>> m[0]
    Torch(Linear(in_features=3, out_features=4, bias=True))  # 16 parameters
    >>> gradient(lambda m: m(ones32(3, 5)).sum(), m)[0].layers[0].module.weight.shape
    torch.Size([4, 3])
    """

    module: Any
    active: bool | None  # type: ignore[assignment]

    def __init__(self, module: nn.Module, *, active: bool | None = None) -> None:
        if not isinstance(module, nn.Module) or isinstance(module, type):
            raise TypeError(f"Torch expects a torch module, as in Torch(nn.Linear(3, 4)), and got {summary(module)}")
        self.module, self.active = module, active

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self.module
        args, kwargs = _reversed([array(x) for x in args]), _reversed(kwargs)
        if self.active is not None or within_gradient():
            return _reversed(module(*args, **kwargs))
        with _in_test_mode(module):
            return _reversed(module(*args, **kwargs))

    def __str__(self) -> str:
        text = self.module.extra_repr().replace("\n", " ")
        return f"Torch({type(self.module).__name__}({text}{optional((any(self.module.children()), '…'))}))"


def _reversed(x: Any) -> Any:
    if isinstance(x, Tensor):
        return reversed_axes(x)
    if type(x) is Attended:
        x = x.whole()
    if type(x) is tuple or type(x) is list:  # by themselves, where torch.compile can look into it
        return type(x)([_reversed(v) for v in x])
    if type(x) is dict:
        return {k: _reversed(v) for k, v in x.items()}
    return x if _whole(x) else fmap(lambda v: reversed_axes(v) if isinstance(v, Tensor) else v, x, exclude=_whole)


def _whole(x: Any) -> bool:
    # A packed sequence is torch's own business, and a module no array.
    return isinstance(x, (Tensor, PackedSequence, nn.Module)) or not isinstance(x, (tuple, list, dict))


@contextlib.contextmanager
def _in_test_mode(module: nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True
