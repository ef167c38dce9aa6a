"""Derivatives, layers, recurrence, regularisation (a notebook of Flux 0.8, with Tracker), line by line.

Run: python examples/recurrence_and_regularisation.py
"""

import operator

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux
from fluxtorch.base import norm

# -- Derivatives -------------------------------------------------------------------------------------

from fluxtorch import Tracker
from fluxtorch.tracker import update_

f = lambda x: 3 * x**2 + 2 * x + 1

df = lambda x: Tracker.gradient(f, x, nest=True)[0]

print(df(2))  # 14.0 (tracked)

d2f = lambda x: Tracker.gradient(df, x, nest=True)[0]

print(d2f(2))  # 6.0 (tracked)

f = lambda W, b, x: W * x + b
print(Tracker.gradient(f, 2, 3, 4))  # (4.0 (tracked), 1.0 (tracked), 2.0 (tracked))

W = Flux.param(2)  # 2.0 (tracked)
b = Flux.param(3)  # 3.0 (tracked)

f = lambda x: W * x + b

grads = Tracker.gradient(lambda: f(4), Flux.params(W, b))

print(grads[W])  # 4.0
print(grads[b])  # 1.0

# -- Simple Model: Linear Regression -----------------------------------------------------------------

W = rand(2, 5)
b = rand(2)

predict = lambda x: broadcast(operator.add, W @ x, b)


def loss(x, y):
    ŷ = predict(x)
    return base.sum((y - ŷ) ** 2)


x, y = rand(5), rand(2)  # Dummy data
print(loss(x, y))  # ~ 3

W = Flux.param(W)
b = Flux.param(b)

gs = Tracker.gradient(lambda: loss(x, y), params(W, b))
print(gs)  # Grads(...)

Δ = gs[W]

# Update the parameter and reset the gradient
update_(W, -0.1 * Δ)

print(loss(x, y))  # ~ 2.5

# -- Building Layers ---------------------------------------------------------------------------------

W1 = Flux.param(rand(3, 5))
b1 = Flux.param(rand(3))
layer1 = lambda x: broadcast(operator.add, W1 @ x, b1)

W2 = Flux.param(rand(2, 3))
b2 = Flux.param(rand(2))
layer2 = lambda x: broadcast(operator.add, W2 @ x, b2)

model = lambda x: layer2(σ(layer1(x)))

print(model(rand(5)))  # => 2-element vector


def linear(n_in, n_out):
    W = Flux.param(randn(n_out, n_in))
    b = Flux.param(randn(n_out))
    return lambda x: broadcast(operator.add, W @ x, b)


linear1 = linear(5, 3)  # we can access closure(linear1).W etc
linear2 = linear(3, 2)

model = lambda x: linear2(σ(linear1(x)))

print(model(rand(5)))  # => 2-element vector


class Affine:
    def __init__(self, n_in, n_out):
        self.W = Flux.param(randn(n_out, n_in))
        self.b = Flux.param(randn(n_out))

    # Overload call, so the object can be used as a function
    def __call__(self, x):
        return broadcast(operator.add, self.W @ x, self.b)


a = Affine(10, 5)

print(a(rand(10)))  # => 5-element vector

# -- Stacking It Up ----------------------------------------------------------------------------------

layers = [Dense(10, 5, σ), Dense(5, 2), softmax]

model = lambda x: foldl(lambda x, m0: m0(x), layers, init=x)

print(model(rand(10)))  # => 2-element vector

model2 = Chain(
    Dense(10, 5, σ),
    Dense(5, 2),
    softmax,
)

print(model2(rand(10)))  # => 2-element vector

m3 = Dense(5, 2) @ Dense(10, 5, σ)

print(m3(rand(10)))

m4 = Chain(lambda x: x**2, lambda x: x + 1)

print(m4(5))  # => 26

# -- Recurrence --------------------------------------------------------------------------------------

Wxh = randn(5, 10)
Whh = randn(5, 5)
b = randn(5)


def rnn(h, x):
    h = tanh(broadcast(operator.add, broadcast(operator.add, Wxh @ x, Whh @ h), b))
    return h, h


x = rand(10)  # dummy data
h = rand(5)  # initial hidden state

h, y = rnn(h, x)
print((h, y))

h, y = rnn(h, x)
print((h, y))

rnn2 = Flux.RNNCell(10, 5)

x = rand(10)  # dummy data
h = rand(5)  # initial hidden state

h, y = rnn2(h, x)
print((h, y))

# -- Stateful Models ---------------------------------------------------------------------------------

x = rand(10)
h = rand(5)

m5 = Flux.Recur(rnn, h)

y = m5(x)
print(y)

print(RNN(10, 5))  # Recur(RNNCell(10, 5, tanh))

# -- Sequences ---------------------------------------------------------------------------------------

seq = [rand(10) for i in range(10)]

print([m5(x) for x in seq])  # returns a list of 5-element vectors

m51 = Chain(LSTM(10, 15), Dense(15, 5))
print([m51(x) for x in seq])

# -- Truncating Gradients ----------------------------------------------------------------------------

Flux.truncate_(m51)

Flux.reset_(m51)

# -- Regularisation ----------------------------------------------------------------------------------

from fluxtorch import crossentropy

m6 = Dense(10, 5)
loss = lambda x, y: crossentropy(softmax(m6(x)), y)

penalty = lambda: norm(m6.W) + norm(m6.b)
reg_loss = lambda x, y: loss(x, y) + penalty()

print(reg_loss(rand(10), rand(5)))

print(Flux.params(m6))

print(base.sum(norm, Flux.params(m6)))

# Here's a larger example with a multi-layer perceptron.

m7 = Chain(
    Dense(28**2, 128, relu),
    Dense(128, 32, relu),
    Dense(32, 10),
    softmax,
)

loss = lambda x, y: crossentropy(m7(x), y) + base.sum(norm, Flux.params(m7))

print(loss(rand(28**2), rand(10)))

# One can also easily add per-layer regularisation via the activations function:
c = Chain(Dense(10, 5, σ), Dense(5, 2), softmax)

c_reg = activations(c, rand(10))
print(base.sum(norm, c_reg))
