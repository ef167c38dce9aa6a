"""NNlib.jl: activations, softmax, convolution, pooling, dropout."""

from fluxtorch.nnlib.activations import *  # noqa: F403
from fluxtorch.nnlib.activations import __all__ as _activations
from fluxtorch.nnlib.conv import conv, depthwiseconv, maxpool, meanpool
from fluxtorch.nnlib.dropout import dropout
from fluxtorch.nnlib.softmax import logsoftmax, logsumexp, softmax
from fluxtorch.zygote.scope import within_gradient

__all__ = [
    *_activations,
    "conv",
    "depthwiseconv",
    "dropout",
    "logsoftmax",
    "logsumexp",
    "maxpool",
    "meanpool",
    "softmax",
    "within_gradient",
]
