"""A chain keeps arrays in torch's order where its layers allow it, and gives what they give one after the other."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtorch import *

ACTIVATIONS = st.sampled_from([identity, relu, tanh, σ, gelu, softmax])
FUNCTIONS = st.sampled_from([flatten, relu, lambda x: 2 * x, Dropout(0), softmax])


def mostly(n: int) -> Any:
    """A number of channels or features: sometimes a wrong one."""
    return st.sampled_from([n, n, n, n, n + 1])


@st.composite
def of_images(draw: Any) -> Any:
    layers, n = [], 2
    for kind in draw(st.lists(st.sampled_from(["conv", "pool", "norm", "function", "dense"]), min_size=1, max_size=4)):
        window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        pad = draw(st.sampled_from([0, 1, (1, 0), (1, 0, 0, 1), SamePad()]))
        if kind == "conv":
            m, bias, stride = draw(st.integers(1, 3)), draw(st.booleans()), draw(st.integers(1, 2))
            layers.append(Conv(window, draw(mostly(n)) | to | m, draw(ACTIVATIONS), pad=pad, stride=stride, bias=bias))
            n = m
        elif kind == "pool":
            # The largest of nothing but padding is the lowest number, whose square is more than a norm can bear.
            pool = draw(st.sampled_from([MaxPool, MeanPool])) if min(window) > 1 or pad == 0 else MeanPool
            layers.append(pool(window, pad=pad, stride=draw(st.integers(1, 2))))
        elif kind == "norm":
            layers.append(BatchNorm(draw(mostly(n)), draw(ACTIVATIONS), affine=draw(st.booleans())))
        elif kind == "dense":
            layers.append(Dense(draw(mostly(5)) | to | 5, draw(ACTIVATIONS)))
        else:
            layers.append(draw(FUNCTIONS))
    return layers, (5, draw(st.integers(3, 5)), 2, 3)


@st.composite
def of_vectors(draw: Any) -> Any:
    layers, n = [], 3
    for kind in draw(st.lists(st.sampled_from(["dense", "norm", "function"]), min_size=1, max_size=4)):
        if kind == "dense":
            m = draw(st.integers(1, 4))
            layers.append(Dense(draw(mostly(n)) | to | m, draw(ACTIVATIONS), bias=draw(st.booleans())))
            n = m
        elif kind == "norm":
            layers.append(draw(st.sampled_from([BatchNorm, LayerNorm]))(draw(mostly(n))))
        else:
            layers.append(draw(FUNCTIONS))
    return layers, draw(st.sampled_from([(3,), (3, 4), (3, 2, 4), (3, 0)]))


@st.composite
def of_sequences(draw: Any) -> Any:
    layers, n = [], 3
    for kind in draw(st.lists(st.sampled_from([RNN, LSTM, GRU, GRUv3, Dense]), min_size=1, max_size=3)):
        layers.append(kind(draw(mostly(n)) | to | 2))
        n = 2
    return layers, draw(st.sampled_from([(3,), (3, 4), (3, 4, 5), (3, 1), (3, 4, 0)]))


def results(m: Any, x: Any, call: Any) -> Any:
    """What two calls in a gradient give, the gradients, the statistics and a call in testing; or the error."""

    def loss(m: Any, x: Any) -> Any:
        ys = [call(m, x), call(m, x)]
        return (ys[0].sum() + ys[1].square().sum(), *ys)

    try:
        val, grads = withgradient(loss, m, x)
        reset_(m)
        return [*val, *(g for g in Functors.fleaves(grads) if g is not None), *m.buffers(), call(m, x).detach()]
    except (DimensionMismatch, ValueError, IndexError, RuntimeError) as error:
        return type(error), str(error)


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(of_images(), of_vectors(), of_sequences()), st.sampled_from([torch.float32, torch.float64, torch.int64])
)
def test_any_chain_gives_what_its_layers_give_by_turns(made: Any, dtype: torch.dtype) -> None:
    layers, size = made
    m, x = Chain(*layers), (3 * torch.randn(size)).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of element types
        got = results(copy.deepcopy(m), x, lambda m, x: m(x))
        want = results(copy.deepcopy(m), x, lambda m, x: activations(m, x)[-1])
    if isinstance(want, tuple):
        assert got == want
    else:
        for a, b in zip(got, want, strict=True):
            # Of what a norm takes away again, as of the bias before one, the gradient is 0 and all else rounding.
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3, equal_nan=True)
