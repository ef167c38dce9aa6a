"""Flux's layers."""

from fluxtorch.layers.basic import Chain, Dense, Diagonal, Maxout, Scale, activations, flatten
from fluxtorch.layers.conv import (
    Conv,
    ConvTranspose,
    CrossCor,
    DepthwiseConv,
    MaxPool,
    MeanPool,
    SamePad,
    convfilter,
    depthwiseconvfilter,
)
from fluxtorch.layers.layer import ComposedFunction, Layer, Parameter, compose, layer, treelike
from fluxtorch.layers.normalise import BatchNorm, Dropout, testmode_, trainmode_
from fluxtorch.layers.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, Recur, RNNCell, reset_, truncate_

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BatchNorm",
    "Chain",
    "ComposedFunction",
    "Conv",
    "ConvTranspose",
    "CrossCor",
    "Dense",
    "DepthwiseConv",
    "Diagonal",
    "Dropout",
    "GRUCell",
    "LSTMCell",
    "Layer",
    "MaxPool",
    "Maxout",
    "MeanPool",
    "Parameter",
    "RNNCell",
    "Recur",
    "SamePad",
    "Scale",
    "activations",
    "compose",
    "convfilter",
    "depthwiseconvfilter",
    "flatten",
    "layer",
    "reset_",
    "testmode_",
    "trainmode_",
    "treelike",
    "truncate_",
]
