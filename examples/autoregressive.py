"""Foretells a series whose next value hangs on the last three and on chance: an autoregressive process.

Follows other/autoregressive-process of Flux's model zoo:
https://github.com/FluxML/model-zoo/tree/master/other/autoregressive-process
Process, network and training are those there, in one file. No one can foretell the chance part, whose variance is 1:
the figures show how near to that the network comes, and what the true coefficients reach. In the end it
learns the training data by heart, and the loss of the test grows again. `--proclen 7500` gives it more to learn from.

Run: python examples/autoregressive.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import torch
from program import progress, run, save

from fluxtorch import *
import fluxtorch as Flux

# -- The process and its pieces (utils.jl) -----------------------------------------------------------


def generate_process(φ, s):
    """`s` values of an AR(p) process, of which the p coefficients are `φ`, that of the newest value first."""
    if s <= 0:
        raise ValueError(f"s must be positive, but is {s}")
    # White noise
    ε = randn(torch.float32, s)
    X = zeros(torch.float32, s)
    p = len(φ)
    X[0] = ε[0]
    # The newest value stands last in the series, so its coefficient comes last, too
    φ = φ.flip(0)
    # The first values have fewer before them
    for t in range(1, p):
        X[t] = dot(X[:t], φ[-t:]) + ε[t]
    for t in range(p, s):
        X[t] = dot(X[t - p : t], φ) + ε[t]
    return X


def batch_timeseries(X, s, r):
    """The series `X` as sequences of `s` values, each `r` after the one before: `s` matrices `(1, sequences)`."""
    if r <= 0:
        raise ValueError(f"r must be positive, but is {r}")
    # A series that is a vector becomes 1×T
    if X.ndim == 1:
        X = permutedims(X)
    T = size(X, 1)
    if s > T:
        raise ValueError(f"s cannot be longer than the whole series, of {T} values, but is {s}")
    # The first values are dropped, so that the sequences end with the series
    X = X[:, (T - s) % r :]
    T = size(X, 1)
    return [X[:, t : T - s + t + 1 : r] for t in range(s)]


# -- The model (model.jl) ----------------------------------------------------------------------------


@dataclass
class Args:
    seed: int = 72  # Seed of all that is random
    # The process
    φ: torch.Tensor = field(default_factory=lambda: torch.tensor([0.3, 0.2, -0.5]))  # Coefficients: AR(3)
    proclen: int = 750  # Length
    # The network
    dev: Callable = cpu  # cpu or gpu
    opt: Callable = ADAM  # Optimiser
    η: float = 2e-3  # Learning rate
    hidden_nodes: int = 64  # Units of a layer
    hidden_layers: int = 2  # Recurrent layers
    layer: Callable = LSTM  # LSTM, GRU or RNN
    epochs: int = 100
    seqlen: int = 10  # Length of the sequences
    seqshift: int = 10  # How far each is after the one before
    train_ratio: float = 0.7  # Share of the series to train with
    verbose: bool = True  # Report every ten epochs?


def build_model(args):
    return args.dev(
        Chain(
            args.layer(1, args.hidden_nodes),
            *[args.layer(args.hidden_nodes, args.hidden_nodes) for _ in range(args.hidden_layers - 1)],
            Dense(args.hidden_nodes, 1, identity),
        )
    )


def generate_train_test_data(args):
    data = generate_process(args.φ, args.proclen)
    # The input, and what is asked for: the same series, one value on
    X, y = data[:-1], data[1:]
    idx = round(args.train_ratio * len(X))
    Xtrain, Xtest = X[:idx], X[idx:]
    ytrain, ytest = y[:idx], y[idx:]
    return [args.dev(batch_timeseries(x, args.seqlen, args.seqshift)) for x in (Xtrain, Xtest, ytrain, ytest)]


def mse_loss(model, x, y):
    # The first value of each sequence only fills the memory
    model(x[0])
    return mean(broadcast(Flux.Losses.mse, [model(xi) for xi in x[1:]], y[1:]))


def train_model(args):
    torch.manual_seed(args.seed)
    model = build_model(args)
    Xtrain, Xtest, ytrain, ytest = generate_train_test_data(args)

    opt = Flux.setup(args.opt(args.η), model)
    losses = nt(train=zeros(args.epochs + 1), test=zeros(args.epochs + 1))

    def report(i):
        for k, x, y in ("train", Xtrain, ytrain), ("test", Xtest, ytest):
            Flux.reset_(model)  # the memory of the one set is none for the other
            with torch.no_grad():
                losses[k][i] = mse_loss(model, x, y)

    report(0)
    for i in progress(range(1, args.epochs + 1), "epochs"):
        Flux.reset_(model)
        (dm,) = gradient(lambda m: mse_loss(m, Xtrain, ytrain), model)
        Flux.update_(opt, model, dm)
        report(i)
        if args.verbose and i % 10 == 0:
            print(f"Epoch {i} / {args.epochs}, train loss: {losses.train[i]:.3f} | test loss: {losses.test[i]:.3f}")
    return model, losses, Xtest, ytest


# -- What came of it ---------------------------------------------------------------------------------


def forecast(model, x):
    """What the model says after each value of the sequences `x` but the first: `(values - 1, sequences)`."""
    Flux.reset_(model)
    with torch.no_grad():
        model(x[0])
        return cpu(vcat(*[model(xi) for xi in x[1:]]))


def draw(losses, y, ŷ, best, average, shown=8):
    """The end of the series with the forecasts, the losses, and the forecasts beside the best there can be."""
    figure, axes = plt.subplot_mosaic([["series", "series"], ["losses", "best"]], figsize=(12, 8), layout="constrained")
    n = len(y)

    axes["series"].plot(vec(y[:, -shown:]), color="gray", marker=".", label="the series")
    for k in range(shown):
        times, label = range(n * k + 1, n * (k + 1)), None if k else "foretold, one by one"
        axes["series"].plot(times, ŷ[:, k - shown], "o-", ms=4, color="C1", label=label)
    axes["series"].set(title="The last sequences of the test", xlabel="time")
    axes["series"].legend()

    axes["losses"].plot(losses.train, label="training")
    axes["losses"].plot(losses.test, label="test")
    axes["losses"].axhline(average, color="gray", ls="--", label="always 0")
    axes["losses"].axhline(Flux.mse(best, y[2:]), color="gray", ls=":", label="the true coefficients")
    axes["losses"].set(title="What it learns", xlabel="epochs", ylabel="mean squared error")
    axes["losses"].legend()

    axes["best"].plot(vec(best), vec(ŷ[1:]), ".", color="C1")
    axes["best"].axline((0, 0), slope=1, color="gray", ls=":")
    axes["best"].set(title="Forecasts of the test", xlabel="by the true coefficients", ylabel="by the network")
    axes["best"].set_aspect("equal")
    return figure


def main(epochs: int = 100, gpu: bool = False, proclen: int = 750, plot: str = "autoregressive.png") -> dict[str, Any]:
    args = Args(epochs=epochs, proclen=proclen, dev=Flux.gpu if gpu else cpu)
    model, losses, xtest, ytest = train_model(args)

    ŷ = forecast(model, xtest)
    x, y = cpu(vcat(*xtest)), cpu(vcat(*ytest))
    # What the true coefficients say, from the third value of a sequence on: only the chance part is left
    best = args.φ[0] * x[2:] + args.φ[1] * x[1:-1] + args.φ[2] * x[:-2]
    average = Flux.mse(zeros32(size(y[1:])), y[1:]).item()
    return {
        "train loss before": losses.train[0].item(),
        "train loss": losses.train[-1].item(),
        "test loss before": losses.test[0].item(),
        "test loss": losses.test[-1].item(),
        "smallest test loss": losses.test.min().item(),
        "test loss of always 0": average,
        "test loss of the true coefficients": Flux.mse(best, y[2:]).item(),
        "correlation with their forecasts": torch.corrcoef(hcat(vec(best), vec(ŷ[1:])).T)[0, 1].item(),
        "plot": save(draw(losses, y, ŷ, best, average), plot),
    }


if __name__ == "__main__":
    run(main)
