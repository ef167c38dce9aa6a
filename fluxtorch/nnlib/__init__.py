"""NNlib.jl: activations, softmax, convolution, pooling, padding, attention and other kernels."""

from fluxtorch.nnlib.activations import *
from fluxtorch.nnlib.activations import __all__ as _activations
from fluxtorch.nnlib.attention import dot_product_attention, dot_product_attention_scores, make_causal_mask
from fluxtorch.nnlib.batched import batched_adjoint, batched_mul, batched_transpose, batched_vec
from fluxtorch.nnlib.bias_act import bias_act_
from fluxtorch.nnlib.conv import conv, depthwiseconv, maxpool, meanpool
from fluxtorch.nnlib.ctc import ctc_loss
from fluxtorch.nnlib.dropout import dropout
from fluxtorch.nnlib.gather_scatter import gather, scatter
from fluxtorch.nnlib.glu import glu
from fluxtorch.nnlib.padding import (
    pad_circular,
    pad_constant,
    pad_reflect,
    pad_repeat,
    pad_symmetric,
    pad_zeros,
)
from fluxtorch.nnlib.pooling import lpnormpool
from fluxtorch.nnlib.sampling import grid_sample
from fluxtorch.nnlib.softmax import logsoftmax, logsumexp, softmax
from fluxtorch.nnlib.unfold import fold, unfold
from fluxtorch.nnlib.upsampling import (
    pixel_shuffle,
    upsample_bilinear,
    upsample_linear,
    upsample_nearest,
    upsample_trilinear,
)
from fluxtorch.zygote.scope import within_gradient

__all__ = [
    *_activations,
    "batched_adjoint",
    "batched_mul",
    "batched_transpose",
    "batched_vec",
    "bias_act_",
    "conv",
    "ctc_loss",
    "depthwiseconv",
    "dot_product_attention",
    "dot_product_attention_scores",
    "dropout",
    "fold",
    "gather",
    "glu",
    "grid_sample",
    "logsoftmax",
    "logsumexp",
    "lpnormpool",
    "make_causal_mask",
    "maxpool",
    "meanpool",
    "pad_circular",
    "pad_constant",
    "pad_reflect",
    "pad_repeat",
    "pad_symmetric",
    "pad_zeros",
    "pixel_shuffle",
    "scatter",
    "softmax",
    "unfold",
    "upsample_bilinear",
    "upsample_linear",
    "upsample_nearest",
    "upsample_trilinear",
    "within_gradient",
]
