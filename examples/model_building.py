"""Model-Building Basics (Flux 0.10's manual), line by line. Run: python examples/model_building.py"""

import operator

import torch

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux

# -- Taking Gradients --------------------------------------------------------------------------------

f = lambda x: 3 * x**2 + 2 * x + 1

# This page writes gradient(f, x) for the derivative; gradient gives a tuple with one entry per argument.
df = lambda x: gradient(f, x)[0]  # df/dx = 6x + 2

print(df(2))  # 14

d2f = lambda x: gradient(df, x)[0]  # d²f/dx² = 6

print(d2f(2))  # 6

f = lambda x, y: base.sum((x - y) ** 2)

print(gradient(f, [2, 1], [2, 0]))  # ([0, 2], [0, -2])

# What is looked up by identity must be held: a tensor, not a list.
x = torch.tensor([2, 1])

y = torch.tensor([2, 0])

gs = gradient(lambda: f(x, y), params(x, y))

print(gs[x])  # [0, 2]

print(gs[y])  # [0, -2]

# -- Simple Models -----------------------------------------------------------------------------------

W = rand(2, 5)
b = rand(2)

predict = lambda x: broadcast(operator.add, W @ x, b)


def loss(x, y):
    ŷ = predict(x)
    return base.sum((y - ŷ) ** 2)


x, y = rand(5), rand(2)  # Dummy data
print(loss(x, y))  # ~ 3

gs = gradient(lambda: loss(x, y), params(W, b))

W̄ = gs[W]

W -= 0.1 * W̄

print(loss(x, y))  # ~ 2.5

# -- Building Layers ---------------------------------------------------------------------------------

W1 = rand(3, 5)
b1 = rand(3)
layer1 = lambda x: broadcast(operator.add, W1 @ x, b1)

W2 = rand(2, 3)
b2 = rand(2)
layer2 = lambda x: broadcast(operator.add, W2 @ x, b2)

model = lambda x: layer2(σ(layer1(x)))

print(model(rand(5)))  # => 2-element vector


def linear(n_in, n_out):
    W = randn(n_out, n_in)
    b = randn(n_out)
    return lambda x: broadcast(operator.add, W @ x, b)


linear1 = linear(5, 3)  # we can access closure(linear1).W etc
linear2 = linear(3, 2)

model = lambda x: linear2(σ(linear1(x)))

print(model(rand(5)))  # => 2-element vector


class Affine:
    def __init__(self, n_in, n_out):
        self.W = randn(n_out, n_in)
        self.b = randn(n_out)

    # Overload call, so the object can be used as a function
    def __call__(self, x):
        return broadcast(operator.add, self.W @ x, self.b)


a = Affine(10, 5)

print(a(rand(10)))  # => 5-element vector

# -- Stacking It Up ----------------------------------------------------------------------------------

layer1 = Dense(10, 5, σ)
layer2 = Dense(5, 5, σ)
layer3 = Dense(5, 2)
model = lambda x: layer3(layer2(layer1(x)))

print(model(rand(10)))

layers = [Dense(10, 5, σ), Dense(5, 2), softmax]

model = lambda x: foldl(lambda x, m: m(x), layers, init=x)

print(model(rand(10)))  # => 2-element vector

model2 = Chain(
    Dense(10, 5, σ),
    Dense(5, 2),
    softmax,
)

print(model2(rand(10)))  # => 2-element vector

m = Dense(5, 2) @ Dense(10, 5, σ)

print(m(rand(10)))

m = Chain(lambda x: x**2, lambda x: x + 1)

print(m(5))  # => 26

# -- Layer helpers -----------------------------------------------------------------------------------

Flux.functor(Affine)

print(len(params(a)))  # its parameters can be collected now: 2

# -- Utility functions -------------------------------------------------------------------------------

m = Chain(Conv((3, 3), 3 |to| 16), Conv((3, 3), 16 |to| 32))
print(Flux.outdims(m, (10, 10)) == (6, 6))

m = Dense(10, 5)
print(Flux.outdims(m, (5, 2)) == (5,))
print(Flux.outdims(m, (10,)) == (5,))

m = Conv((3, 3), 3 |to| 16)
print(Flux.outdims(m, (10, 10)) == (8, 8))
print(Flux.outdims(m, (10, 10, 1, 3)) == (8, 8))
