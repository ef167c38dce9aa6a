"""Housing: linear regression with one's own model and training loop, as in Flux's model zoo (other/housing).

What Flux does here is to take gradients, in the implicit style, and to make the steps; the rest is written out.

The Julia program downloads the prices of houses in Boston. This one needs no network: by default it predicts how far
diabetes goes on within a year, from 10 numbers about each of 442 patients, which come with scikit-learn. `--data` reads
the file that the Julia program reads, `housing.data` of the UCI repository: 506 lines of 14 numbers, the price last.

One thing differs. There and here `split_ratio` is said to be the part that is for the test, but there the first tenth
is trained on, and the rest is for the test. Here that tenth is for the test.

Run: python examples/housing.py [--epochs 500] [--gpu] [--data housing.data] [--plot housing.png] [--lr 0.1]
"""

from program import progress, run, save

import operator
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux
from fluxtorch import gradient
from fluxtorch.optimise import update_

HOUSES = "CRIM ZN INDUS CHAS NOX RM AGE DIS RAD TAX PTRATIO B LSTAT".split()


@dataclass
class Hyperparams:
    lr: float = 0.1
    split_ratio: float = 0.1  # the part of the data that is for the test


# -- Data --------------------------------------------------------------------------------------------


def get_processed_data(args, file):
    if file is None:
        diabetes = load_diabetes(scaled=False)
        names, what = diabetes.feature_names, "progress of the disease"
        x, y = torch.from_numpy(diabetes.data.T), torch.from_numpy(diabetes.target)[None, :]
    else:
        rawdata = np.loadtxt(file, ndmin=2).T
        if rawdata.shape[0] != 14:
            raise ValueError(f"{file} is not UCI's housing.data: it has {rawdata.shape[0]} numbers a line, not 14")
        names, what = HOUSES, "price in 1000 $"
        x, y = torch.from_numpy(rawdata[0:13, :]), torch.from_numpy(rawdata[13:14, :])

    # Each feature with mean 0 and standard deviation 1.
    x = (x - mean(x, dims=1)) / std(x, dims=1)

    split_index = int(size(x, 1) * args.split_ratio)
    x_test = x[:, :split_index]
    y_test = y[:, :split_index]
    x_train = x[:, split_index:]
    y_train = y[:, split_index:]

    return (x_train, y_train), (x_test, y_test), names, what


# -- Model -------------------------------------------------------------------------------------------


@dataclass
class Model:
    W: torch.Tensor
    b: torch.Tensor


predict = lambda x, m: broadcast(operator.add, m.W @ x, m.b)

# Flux has it too: Flux.mse.
meansquarederror = lambda ŷ, y: base.sum((ŷ - y) ** 2) / size(y, 1)


# -- Training ----------------------------------------------------------------------------------------


def main(
    epochs: int = 500, gpu: bool = False, data: str | None = None, plot: str = "housing.png", lr: float = 0.1
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    args = Hyperparams(lr=lr)

    train_data, test_data, names, what = get_processed_data(args, data)
    (x_train, y_train), (x_test, y_test) = device(train_data), device(test_data)

    # A row of weights, one for each feature, and one bias.
    m = device(Model(randn(1, size(x_train, 0)), zeros(1)))

    loss = lambda x, y: meansquarederror(predict(x, m), y)
    before = loss(x_test, y_test).item()

    η = args.lr
    θ = params(m.W, m.b)

    losses = []
    for i in progress(range(1, epochs + 1), "steps"):
        losses.append(loss(x_train, y_train))
        g = gradient(lambda: loss(x_train, y_train), θ)
        for x in θ:
            update_(x, g[x] * η)
        if i % 100 == 0:
            print("loss(x_train, y_train) =", loss(x_train, y_train).item())

    # What no step of training has seen.
    err = meansquarederror(predict(x_test, m), y_test).item()
    print(err)

    spread = mean(abs2(y_test - mean(y_train))).item()
    losses = cpu(stack(losses, dims=0))
    return {
        "training loss, first": losses[0].item(),
        "training loss, last": loss(x_train, y_train).item(),
        "test loss, untrained": before,
        "test loss, trained": err,
        "test loss of the mean": spread,
        "picture": draw(cpu(m), cpu(predict(x_test, m)), cpu(y_test), losses, names, what, plot),
    }


def draw(m, ŷ, y, losses, names, what, path):
    figure, (fit, weights, course) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")

    ends = [y.min(), y.max()]
    fit.plot(ends, ends, color="grey", linewidth=1, label="exact")
    fit.scatter(y, ŷ, s=28, alpha=0.7, label="test data")
    fit.set(title="Prediction and truth", xlabel=what, ylabel="predicted")
    fit.legend()

    w = vec(m.W).tolist()
    weights.barh(names, w, color=["C0" if each > 0 else "C3" for each in w])
    weights.axvline(0, color="black", linewidth=0.8)
    weights.invert_yaxis()
    weights.set(title="Weights", xlabel="change of the prediction\nfor one standard deviation of the feature")

    course.loglog(range(1, len(losses) + 1), losses)
    course.set(title="Training loss", xlabel="step", ylabel="mean squared error")
    return save(figure, path)


if __name__ == "__main__":
    run(main)
