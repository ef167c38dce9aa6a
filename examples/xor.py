"""A neural network in one minute: XOR of two noisy inputs, the quickstart page of Flux 0.14's manual.

It has the page's sizes and steps, and draws its two figures, as one picture: the true classes, what the network says
before and after training, and the loss. The page moves to the GPU wherever there is one; here `--gpu` asks for that.

Run: python examples/xor.py [--epochs 1000] [--gpu] [--plot xor.png]
"""

from program import progress, run, save

from operator import eq, xor

import matplotlib.pyplot as plt
import torch

from fluxtorch import *
import fluxtorch as Flux


def main(epochs: int = 1000, gpu: bool = False, plot: str = "xor.png") -> dict:
    device = Flux.gpu if gpu else Flux.cpu

    # Points of the unit square, one per column; true where just one coordinate is above a half.
    noisy = rand(torch.float32, 2, 1000)  # 2×1000 Matrix{Float32}
    truth = [xor(col[0] > 0.5, col[1] > 0.5) for col in eachcol(noisy)]  # 1000 bools

    # A multi-layer perceptron with one hidden layer of size 3.
    model = device(
        Chain(
            Dense(2 |to| 3, tanh),  # the activation function is part of the layer
            BatchNorm(3),
            Dense(3 |to| 2),
        )
    )

    # What the network says before training, as its weights are random.
    with torch.no_grad():
        out1 = cpu(model(device(noisy)))  # 2×1000 Matrix{Float32}
    probs1 = softmax(out1)  # as probabilities

    # Batches of 64, and classes as one-hot columns.
    target = Flux.onehotbatch(truth, [True, False])  # 2×1000 OneHotMatrix
    loader = Flux.DataLoader(device((noisy, target)), batchsize=64, shuffle=True)  # 16 batches

    optim = Flux.setup(Flux.Adam(0.01), model)  # keeps Adam's momenta

    # The whole data, again and again.
    losses = []
    for epoch in progress(range(epochs), "epochs"):
        for x, y in loader:

            def loss(m):
                y_hat = m(x)
                return Flux.logitcrossentropy(y_hat, y)

            val, grads = Flux.withgradient(loss, model)
            Flux.update_(optim, model, grads[0])
            losses.append(val)

    with torch.no_grad():
        out2 = cpu(model(device(noisy)))  # the first row speaks for true, the second for false
    probs2 = softmax(out2)
    accuracy = lambda probs: mean(broadcast(eq, probs[0, :] > 0.5, truth)).item()

    losses = cpu(stack(losses, dims=0))
    n = length(loader)
    means = [mean(part).item() for part in partition(losses, n)]
    return {
        "loss in the first epoch": means[0],
        "loss in the last epoch": means[-1],
        "accuracy, untrained": accuracy(probs1),
        "accuracy, trained": accuracy(probs2),
        "picture": draw(noisy, truth, probs1, probs2, losses, means, n, plot),
    }


def draw(noisy, truth, probs1, probs2, losses, means, n, path):
    figure = plt.figure(figsize=(11, 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    axes = top.subplots(1, 3, sharex=True, sharey=True)
    for ax, colour, title in [
        (axes[0], [float(t) for t in truth], "True classification"),
        (axes[1], probs1[0, :], "Untrained network"),
        (axes[2], probs2[0, :], "Trained network"),
    ]:
        style = {"cmap": "inferno", "vmin": 0, "vmax": 1, "s": 22, "edgecolors": "black", "linewidths": 0.3}
        dots = ax.scatter(noisy[0, :], noisy[1, :], c=colour, **style)
        ax.set(title=title, xlabel="first input", aspect="equal")
    axes[0].set_ylabel("second input")
    top.colorbar(dots, ax=axes, label="probability of true", pad=0.01)

    ax = bottom.subplots()
    ax.plot(range(1, len(losses) + 1), losses, label="per batch", linewidth=0.6, alpha=0.6)
    ax.plot(range(n, len(losses) + 1, n), means, label="epoch mean", linewidth=2)
    ax.set(title="Loss during training", xscale="log", xlabel="iteration", ylabel="loss", ylim=(0, None))
    ax.legend()
    return save(figure, path)


if __name__ == "__main__":
    run(main)
