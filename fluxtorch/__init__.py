"""Julia's Flux on PyTorch: the same names, argument order, axis order, numbers and printed models.

`import fluxtorch as Flux` gives `Flux.train_`, `Flux.Losses.mse` and so on; `from fluxtorch import *`
brings what `using Flux` brings in any version.
"""

from fluxtorch import base, functors, losses, nnlib, tracker, zygote
from fluxtorch import functors as Functors
from fluxtorch import losses as Losses
from fluxtorch import nnlib as NNlib
from fluxtorch import tracker as Tracker
from fluxtorch import zygote as Zygote
from fluxtorch.devices import (
    DeviceIterator,
    bf16,
    cpu,
    cpu_device,
    f16,
    f32,
    f64,
    get_device,
    get_device_type,
    gpu,
    gpu_device,
)
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.functors import (
    KeyPath,
    closure,
    fmap,
    functor,
    getkeypath,
    haskeypath,
    trainable,
)
from fluxtorch.initialisers import (
    create_bias,
    glorot_normal,
    glorot_uniform,
    identity_init,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    nfan,
    ones32,
    orthogonal,
    rand32,
    randn32,
    sparse_init,
    truncated_normal,
    zeros32,
)
from fluxtorch.layers import *  # noqa: F403
from fluxtorch.layers import __all__ as _layers
from fluxtorch.losses import *  # noqa: F403
from fluxtorch.losses import __all__ as _losses
from fluxtorch.namedtuples import NamedTuple, nt
from fluxtorch.nnlib import *  # noqa: F403
from fluxtorch.nnlib import __all__ as _nnlib
from fluxtorch.pairs import Pair, to
from fluxtorch.outputsize import outdims, outputsize
from fluxtorch.tracker import param
from fluxtorch.zygote import (
    Grads,
    Params,
    diaghessian,
    gradient,
    hessian,
    jacobian,
    pullback,
    withgradient,
    withjacobian,
)
from fluxtorch.zygote.implicit import params

globals().update({name: getattr(base, name) for name in base.EXPORTED})
__all__ = [name for name in dir() if not name.startswith("_")]
