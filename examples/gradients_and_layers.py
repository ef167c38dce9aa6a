"""How Flux Works: Gradients and Layers (Flux 0.14's manual), line by line.

Run: python examples/gradients_and_layers.py
"""

import operator

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux

# -- Taking Gradients ------------------------------------------------------------------------------

f = lambda x: 3 * x**2 + 2 * x + 1

df = lambda x: gradient(f, x)[0]  # df/dx = 6x + 2

print(df(2))  # 14.0

d2f = lambda x: gradient(df, x)[0]  # d²f/dx² = 6

print(d2f(2))  # 6.0

f = lambda x, y: base.sum((x - y) ** 2)

print(gradient(f, [2, 1], [2, 0]))  # ([0.0, 2.0], [-0.0, -2.0])

# The page calls this variable nt, which is the name of the constructor here.
t = NamedTuple(a=[2, 1], b=[2, 0], c=tanh)

g = lambda x: base.sum(abs2, x.a - x.b)

print(g(t))  # 1

dg_nt = gradient(g, t)[0]
print(dg_nt)  # (a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing)

print(gradient(lambda x, y: base.sum(abs2, x.a / y - x.b), t, [1, 2]))
# ((a = [0.0, 0.5], b = [-0.0, -1.0], c = nothing), [-0.0, -0.25])


def do(x, y):  # gradient(nt, [1, 2]) do x, y … end
    z = x.a / y
    return base.sum(abs2, z - x.b)


print(gradient(do, t, [1, 2]))
# ((a = [0.0, 0.5], b = [-0.0, -1.0], c = nothing), [-0.0, -0.25])

print(Flux.withgradient(g, t))
# (val = 1, grad = ((a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing),))

# -- Building Simple Models --------------------------------------------------------------------------

predict = lambda W, b, x: broadcast(operator.add, W @ x, b)


def loss(W, b, x, y):
    ŷ = predict(W, b, x)
    return base.sum((y - ŷ) ** 2)


x, y = rand(5), rand(2)  # Dummy data
W = rand(2, 5)
b = rand(2)

print(loss(W, b, x, y))  # ~ 3

dW, db = gradient(lambda W, b: loss(W, b, x, y), W, b)

W -= 0.1 * dW

print(loss(W, b, x, y))  # ~ 2.5

# -- Building Layers ---------------------------------------------------------------------------------

W1 = rand(3, 5)
b1 = rand(3)
layer1 = lambda x: broadcast(operator.add, W1 @ x, b1)

W2 = rand(2, 3)
b2 = rand(2)
layer2 = lambda x: broadcast(operator.add, W2 @ x, b2)

model = lambda x: layer2(sigmoid(layer1(x)))

print(model(rand(5)))  # => 2-element vector


def linear(n_in, n_out):
    W = randn(n_out, n_in)
    b = randn(n_out)
    return lambda x: broadcast(operator.add, W @ x, b)


linear1 = linear(5, 3)  # we can access closure(linear1).W etc
linear2 = linear(3, 2)

model = lambda x: linear2(sigmoid(linear1(x)))

print(model(rand(5)))  # => 2-element vector


class Affine:
    def __init__(self, W, b):
        self.W = W
        self.b = b

    @classmethod
    def sized(cls, n_in, n_out):  # Affine(in::Integer, out::Integer)
        return cls(randn(n_out, n_in), zeros(n_out))

    # Overload call, so the object can be used as a function
    def __call__(self, x):
        return broadcast(operator.add, self.W @ x, self.b)


a = Affine.sized(10, 5)

print(a(rand(10)))  # => 5-element vector

# -- Stacking It Up ----------------------------------------------------------------------------------

layer1 = Dense(10 |to| 5, relu)
layer2 = Dense(5 |to| 5, relu)
layer3 = Dense(5 |to| 2)
model = lambda x: layer3(layer2(layer1(x)))

print(model(rand(10)))

layers = [Dense(10 |to| 5, relu), Dense(5 |to| 2), softmax]

model = lambda x: foldl(lambda x, m: m(x), layers, init=x)

print(model(rand(10)))  # => 2-element vector

model2 = Chain(
    Dense(10 |to| 5, relu),
    Dense(5 |to| 2),
    softmax,
)

print(model2(rand(10)))  # => 2-element vector

m = Dense(5 |to| 2) @ Dense(10 |to| 5, σ)

print(m(rand(10)))

m = Chain(lambda x: x**2, lambda x: x + 1)

print(m(5))  # => 26

# -- Layer Helpers -----------------------------------------------------------------------------------

Flux.layer(Affine)


def affine(pair, bias=True, init=glorot_uniform):  # Affine((in, out)::Pair; …)
    n_in, n_out = pair
    W = init(n_out, n_in)
    b = Flux.create_bias(W, bias, n_out)
    return Affine(W, b)


print(gpu(affine(3 |to| 1, bias=False)))
