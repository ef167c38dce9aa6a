"""MLUtils.jl: observations, batches, `DataLoader`, splits and folds."""

from fluxtorch.mlutils.arrays import flatten, normalise, rescale, rpad_constant, stack, topk, unsqueeze, unstack
from fluxtorch.mlutils.folds import (
    frequencies,
    group_counts,
    group_indices,
    kfolds,
    leavepout,
    oversample,
    splitobs,
    timeseries_kfolds,
    undersample,
)
from fluxtorch.mlutils.like import falses_like, fill_like, ones_like, rand_like, randn_like, trues_like, zeros_like
from fluxtorch.mlutils.loader import BatchView, DataLoader, batchsize, eachobs
from fluxtorch.mlutils.observations import ObsDim, ObsView, getobs, numobs, obsview, randobs, shuffleobs
from fluxtorch.mlutils.sequences import batch, batch_sequence, batchseq, chunk, slidingwindow, unbatch
from fluxtorch.mlutils.transforms import filterobs, groupobs, joinobs, mapobs

__all__ = [
    "BatchView",
    "DataLoader",
    "ObsDim",
    "ObsView",
    "batch",
    "batch_sequence",
    "batchseq",
    "batchsize",
    "chunk",
    "eachobs",
    "falses_like",
    "fill_like",
    "filterobs",
    "flatten",
    "frequencies",
    "getobs",
    "group_counts",
    "group_indices",
    "groupobs",
    "joinobs",
    "kfolds",
    "leavepout",
    "mapobs",
    "normalise",
    "numobs",
    "obsview",
    "ones_like",
    "oversample",
    "rand_like",
    "randn_like",
    "randobs",
    "rescale",
    "rpad_constant",
    "shuffleobs",
    "slidingwindow",
    "splitobs",
    "stack",
    "timeseries_kfolds",
    "topk",
    "trues_like",
    "unbatch",
    "undersample",
    "unsqueeze",
    "unstack",
    "zeros_like",
]
