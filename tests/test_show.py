"""Printed forms: the columns, words and flags of Flux 0.14."""

import functools
import math
import operator

import numpy as np
import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.printing import show


def filled(layer, value):
    for p in params(layer):
        p[...] = value
    return layer


class TestOneLine:
    @pytest.mark.parametrize(
        ("layer", "text"),
        [
            (lambda: Dense(2, 3), "Dense(2 => 3)"),
            (lambda: Chain(Dense(2, 3)), "Chain(Dense(2 => 3))"),
            (lambda: Chain(lay=Dense(2, 3)), "Chain(lay = Dense(2 => 3))"),
            (lambda: Dense(2, 3, σ), "Dense(2 => 3, σ)"),
            (lambda: Dense(2, 3, torch.tanh), "Dense(2 => 3, tanh)"),
            (
                lambda: Chain(Dense(10 | to | 5, relu), Dense(5 | to | 2), softmax),
                "Chain(Dense(10 => 5, relu), Dense(5 => 2), softmax)",
            ),
            (lambda: RNN(3 | to | 5), "Recur(RNNCell(3 => 5, tanh))"),
            (lambda: Recur(lambda h, x: (h, x), 0), "Recur(<lambda>)"),
            (lambda: BatchNorm(3, relu, affine=False), "BatchNorm(3, relu, affine=false)"),
            (lambda: Chain(nn.Linear(2, 3)), "Chain(Linear(in_features=2, out_features=3, bias=True))"),
            (lambda: Chain(functools.partial(operator.mul, torch.ones(1, 2))), "Chain(partial(*, [1.0 1.0]))"),
            (lambda: functools.partial(softmax, dims=1), "partial(softmax, dims = 1)"),
            (lambda: Dropout(np.float64(0.3)), "Dropout(0.3)"),
        ],
    )
    def test_str(self, layer, text):
        assert show(layer()) == text

    def test_print_shows_one_line(self, capsys):
        print(Dense(10 | to | 5, relu))
        assert capsys.readouterr().out == "Dense(10 => 5, relu)\n"


class TestTree:
    def test_counts_start_in_column_20(self):
        assert repr(Dense(2, 3)) == "Dense(2 => 3)       # 9 parameters"
        assert repr(Dense(784, 100, relu)) == "Dense(784 => 100, relu)  # 78_500 parameters"

    def test_chain(self):
        assert repr(Chain(Dense(10 | to | 5, relu), Dense(5 | to | 2), softmax)) == (
            "Chain(\n"
            "  Dense(10 => 5, relu),                 # 55 parameters\n"
            "  Dense(5 => 2),                        # 12 parameters\n"
            "  softmax,\n"
            ")                   # Total: 4 arrays, 67 parameters, 268 bytes."
        )

    def test_no_total_for_two_arrays(self):
        assert (
            repr(Chain(Dense(2, 3), relu))
            == "Chain(\n  Dense(2 => 3),                        # 9 parameters\n  relu,\n)"
        )

    def test_nested_with_names_and_untrained_arrays(self):
        m = Chain(a=Chain(Dense(28**2, 64), BatchNorm(64, relu)), b=Dense(64, 10))
        assert repr(m) == (
            "Chain(\n"
            "  a = Chain(\n"
            "    Dense(784 => 64),                   # 50_240 parameters\n"
            "    BatchNorm(64, relu),                # 128 parameters, plus 128\n"
            "  ),\n"
            "  b = Dense(64 => 10),                  # 650 parameters\n"
            ")         # Total: 6 trainable arrays, 51_018 parameters,\n"
            "          # plus 2 non-trainable, 128 parameters, summarysize 199.789 KiB."
        )

    def test_batch_norm_at_the_top(self):
        assert repr(BatchNorm(2, relu)) == "BatchNorm(2, relu)  # 4 parameters, plus 4 non-trainable"

    def test_recur_counts_its_state(self):
        assert repr(LSTM(3 | to | 5)) == (
            "Recur(\n"
            "  LSTMCell(3 => 5),                     # 190 parameters\n"
            ")         # Total: 5 trainable arrays, 190 parameters,\n"
            "          # plus 2 non-trainable, 10 parameters, summarysize 760 bytes."
        )

    def test_a_tied_array_counts_once(self):
        W = torch.ones(2, 2)
        assert len(params(Chain(Dense(W), Dense(W)))) == 3

    def test_flags(self):
        assert repr(filled(Dense(1, 1), 0)) == "Dense(1 => 1)       # 2 parameters  (all zero)"
        assert repr(filled(Dense(1, 1), math.nan)).endswith("(some NaN)")
        assert repr(filled(Dense(1, 1), math.inf)).endswith("(some Inf)")
        assert "(all zero)" not in repr(Dense(1, 1))

    def test_layers_that_hold_layers_unfold(self):
        class Holder(Layer):
            inner: Dense
            W: torch.Tensor
            sizes: tuple
            more: list

        assert repr(Holder(Dense(1, 2), torch.ones(3, 4), (1, 2), [Dense(1, 1)])) == (
            "Holder(\n"
            "  Dense(1 => 2),                        # 4 parameters\n"
            "  3×4 Matrix{Float32},                  # 12 parameters\n"
            "  1,\n"
            "  2,\n"
            "  [\n"
            "    Dense(1 => 1),                      # 2 parameters\n"
            "  ],\n"
            ")                   # Total: 5 arrays, 18 parameters, 72 bytes."
        )

    def test_old_instances_of_what_became_a_layer(self):
        class Trio:
            def __init__(self, a, b, c):
                self.a, self.b, self.c = a, b, c

            def __call__(self, x):
                return self.b(self.a(x))

        tri = Trio(Dense([[1.1, 2.2]], [0.0], tanh), Dense([[3.3]], False), Dropout(0.4))
        assert repr(Flux.destructure(tri)) == "(tensor([], dtype=torch.bool), Restructure(Trio, ..., 0))"
        layer(Trio, expand=True)
        tree = (
            "Trio(\n"
            "  Dense(2 => 1, tanh),                  # 3 parameters\n"
            "  Dense(1 => 1; bias=false),            # 1 parameters\n"
            "  Dropout(0.4),\n"
            ")                   # Total: 3 arrays, 4 parameters, 16 bytes."
        )
        assert str(tri) == "Trio(Dense(2 => 1, tanh), Dense(1 => 1; bias=false), Dropout(0.4))"
        assert repr(tri) == tree
        assert Flux.destructure(tri)[0].tolist() == pytest.approx([1.1, 2.2, 0, 3.3])
        layer(Trio)  # layers that hold layers unfold by themselves
        assert repr(tri) == tree and repr(Chain(tri)).startswith("Chain(\n  Trio(\n    Dense(2 => 1, tanh), ")
        layer(Trio, expand=False)
        assert repr(tri) == f"{tri}  # 4 parameters"

    def test_a_function_with_an_array_given(self):
        assert repr(Chain(functools.partial(operator.mul, rand32(22, 33)), softmax)) == (
            "Chain(\n  partial(\n    *,\n    22×33 Matrix{Float32},              # 726 parameters\n  ),\n  softmax,\n)"
        )
        assert repr(Chain(functools.partial(softmax, dims=1), relu)) == "Chain(partial(softmax, dims = 1), relu)"

    def test_without_fields(self):
        @layer
        class NoFields:
            pass

        assert repr(Chain(Dense(1 | to | 1), Dense(1 | to | 1), NoFields())).endswith(
            "  NoFields(),\n)                   # Total: 4 arrays, 4 parameters, 16 bytes."
        )

    def test_lists(self):
        assert repr(Chain([Dense(torch.tensor([[1, 2], [3, 4]]).T)])) == (
            "Chain(\n  [\n    Dense(2 => 2),                      # 6 parameters\n  ],\n)"
        )
        assert repr([Dense(2, 3)] * 2) == f"[{Dense(2, 3)!r}, {Dense(2, 3)!r}]"

    def test_composition(self):
        assert repr(Dense(5, 2) @ Dense(10, 5, σ)) == "Dense(5 => 2) ∘ Dense(10 => 5, σ)"


class TestValues:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (nt(a=1, b=2.0, c=None, d=True, e="x"), '(a = 1, b = 2.0, c = nothing, d = true, e = "x")'),
            (nt(a=(1,)), "(a = (1,),)"),
            (nt(), "NamedTuple()"),
            (nt(W=torch.tensor([[1.0, 2.0], [3.0, 4.0]])), "(W = [1.0 2.0; 3.0 4.0],)"),
            (nt(x=torch.tensor([1, 2]), y=torch.tensor([True, False])), "(x = [1, 2], y = Bool[1, 0])"),
            (nt(x=torch.tensor([1.5], dtype=torch.float16)), "(x = Float16[1.5],)"),
            (nt(x=torch.tensor([1e-8, 1e6, 123456.0, 0.0001, -0.0])), "(x = [1.0e-8, 1.0e6, 123456.0, 0.0001, -0.0],)"),
            (nt(x=torch.tensor(0.1)), "(x = 0.1,)"),
            (nt(x=torch.tensor([0.1, 65504, 3e-8]).half()), "(x = Float16[0.1, 6.55e4, 6.0e-8],)"),
            (nt(x=torch.tensor([0.1, math.pi]).bfloat16()), "(x = BFloat16[0.1, 3.14],)"),
            (nt(x=torch.tensor([0.1 + 3.4028235e38j])), "(x = ComplexF32[0.1 + 3.4028235e38im],)"),
            (nt(x=1e-5, y=math.inf, z=-math.inf, n=math.nan), "(x = 1.0e-5, y = Inf, z = -Inf, n = NaN)"),
            (nt(f=sigmoid, g=torch.tanh), "(f = σ, g = tanh)"),
            (nt(x={"a": [1, "b"]}), '(x = Dict("a" => [1, "b"]),)'),
            (nt(x=torch.zeros(0)), "(x = Float32[],)"),
            (nt(x=torch.zeros(0, 2)), "(x = Matrix{Float32}(undef, 0, 2),)"),
            (nt(x=torch.zeros(2, 0, 1)), "(x = Array{Float32, 3}(undef, 2, 0, 1),)"),
            (nt(a=torch.tensor([[1.290355429422727]], dtype=torch.float64)), "(a = [1.290355429422727;;],)"),
            (nt(weight=torch.zeros(6, 1), bias=torch.zeros(1)), "(weight = [0.0; 0.0; … ; 0.0; 0.0;;], bias = [0.0])"),
            (nt(x=torch.arange(8).reshape(2, 2, 2)), "(x = [0 2; 4 6;;; 1 3; 5 7],)"),
            (nt(x=torch.ones(2, 1, 2), y=torch.ones(1, 2, 1)), "(x = [1.0; 1.0;;; 1.0; 1.0], y = [1.0 1.0;;;])"),
            (nt(x=torch.arange(4).reshape(1, 1, 2, 2)), "(x = [0;;; 2;;;; 1;;; 3],)"),
            (nt(x=torch.arange(10).reshape(1, 1, 10)), "(x = [0;;; 1;;; 2;;; 3;;; 4;;; 5;;; 6;;; 7;;; 8;;; 9],)"),
            (nt(x=torch.arange(11).reshape(1, 1, 11)), "(x = [0;;; 1;;; 2;;; … ;;; 8;;; 9;;; 10],)"),
            (nt(x=complex(1.5, -0.0), y=complex(math.nan, math.inf)), "(x = 1.5 - 0.0im, y = NaN + Inf*im)"),
            (
                nt(x=torch.arange(30)),
                "(x = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9  …  20, 21, 22, 23, 24, 25, 26, 27, 28, 29],)",
            ),
            (nt(x=torch.arange(25).reshape(5, 5)), "(x = [0 1 … 3 4; 5 6 … 8 9; … ; 15 16 … 18 19; 20 21 … 23 24],)"),
            (nt(x=1 | to | 2), "(x = 1 => 2,)"),
            (nt(m=Dense(1, 1)), "(m = Dense(1 => 1),)"),
        ],
    )
    def test_named_tuples(self, value, text):
        assert repr(value) == text

    def test_params(self):
        assert (
            repr(params(Chain(Dense(torch.ones(2, 3)), softmax))) == "Params([[1.0 1.0 1.0; 1.0 1.0 1.0], [0.0, 0.0]])"
        )
        assert repr(Flux.gradient(lambda: 0.0 * torch.zeros(()), Params())) == "Grads(...)"
