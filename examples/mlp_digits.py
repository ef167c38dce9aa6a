"""A multi-layer perceptron with one hidden layer learns to read handwritten digits.

It follows vision/mlp_mnist of Flux's model zoo. The digits are scikit-learn's, 1498 of 8×8 pixels in place of MNIST's
60000 of 28×28, so that nothing is downloaded; with smaller batches and more epochs it takes as many steps.

Run:                     python examples/mlp_digits.py
on MNIST, as the Julia:  python examples/mlp_digits.py --data FOLDER --epochs 30 --batchsize 256
"""

import torch
from matplotlib import pyplot as plt

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux

from digits import digits
from program import progress, run, save


# -- Data --------------------------------------------------------------------------------------------

# The model takes a matrix, one column for each picture; the loader makes it, and the one-hot labels.


def simple_loader(data, batchsize=64):
    x2dim = reshape(data.features, -1, len(data.targets))
    yhot = Flux.onehotbatch(data.targets, range(10))
    return Flux.DataLoader((x2dim, yhot), batchsize=batchsize, shuffle=True)


# -- Accuracy ----------------------------------------------------------------------------------------

# Both sets are small enough to be looked at as one big batch.


def simple_accuracy(model, data):
    x, y = only(simple_loader(data, batchsize=len(data.targets)))
    with torch.no_grad():
        ŷ = model(x)
    iscorrect = Flux.onecold(ŷ) == Flux.onecold(y)
    return base.round(100 * mean(iscorrect), digits=2).item()


def main(
    epochs: int = 300, gpu: bool = False, data: str | None = None, batchsize: int = 64, plot: str = "mlp_digits.png"
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    train_data, test_data = device(digits(data)), device(digits(data, "test"))
    w, h, _, _ = size(train_data.features)

    # 32 hidden neurons, each connected to every pixel and to every neuron of the output. The softmax makes
    # probabilities of the outputs: none is negative, and together they are 1.
    model = device(Chain(Dense(w * h |to| 32, sigmoid), Dense(32 |to| 10), softmax))

    p1 = model(device(rand32(w * h)))  # one made-up picture
    print("sum(p1) ≈ 1:", abs(base.sum(p1).item() - 1) < 1e-6)

    p3 = model(device(rand32(w * h, 3)))  # and a batch of three
    print("sum(p3, dims=0) =", base.sum(p3, dims=0).tolist())

    x1, y1 = next(iter(simple_loader(train_data)))  # a matrix with a row for each pixel, and a 10×64 OneHotMatrix
    print("crossentropy =", Flux.crossentropy(model(x1), y1).item())  # the loss

    accuracy_before = simple_accuracy(model, test_data)
    print("accuracy =", accuracy_before)  # some 10%

    # -- Training ------------------------------------------------------------------------------------

    train_loader = simple_loader(train_data, batchsize=batchsize)

    # What Adam remembers of each parameter, and the learning rate.
    opt_state = Flux.setup(Adam(3e-4), model)

    log = []
    every = max(1, epochs // 15)
    for epoch in progress(range(1, epochs + 1), "epochs"):
        loss = 0.0
        for x, y in train_loader:
            val, gs = Flux.withgradient(lambda m: Flux.crossentropy(m(x), y), model)
            Flux.update_(opt_state, model, gs[0])
            loss = loss + val / len(train_loader)

        if epoch % every == 1 % every or epoch == epochs:
            train_acc, test_acc = simple_accuracy(model, train_data), simple_accuracy(model, test_data)
            print(f"After epoch = {epoch}: loss = {loss:.4f}, train_acc = {train_acc:.2f}, test_acc = {test_acc:.2f}")
            log.append(nt(epoch=epoch, loss=loss.item(), train_acc=train_acc, test_acc=test_acc))

    # -- Inspection ----------------------------------------------------------------------------------

    # One of the test pictures, what it is, and how likely each digit is for the model.
    picture, label = test_data.features[:, :, 0, 32], test_data.targets[32].item()
    with torch.no_grad():
        p10 = model(vec(picture))
    print("label:", label)
    p10 = p10.tolist()
    for digit, p in enumerate(p10):
        print(f"  {digit} => {p:.4f}")

    return {
        "loss of the first epoch": log[0].loss,
        "loss": log[-1].loss,
        "accuracy before": accuracy_before,
        "train accuracy": log[-1].train_acc,
        "test accuracy": log[-1].test_acc,
        "plot": save(draw(log, model, picture, label, p10), plot),
    }


def draw(log, model, picture, label, p10):
    figure = plt.figure(figsize=(10, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.4, 1))
    losses, shown, bars = above.subplots(1, 3, width_ratios=(1.5, 0.7, 1))

    epochs = [row.epoch for row in log]
    losses.plot(epochs, [row.train_acc for row in log], color="C0", label="accuracy, train")
    losses.plot(epochs, [row.test_acc for row in log], color="C1", label="accuracy, test")
    losses.set(title="Training", xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 101))
    losses.legend(loc="center right")
    right = losses.twinx()
    right.plot(epochs, [row.loss for row in log], color="gray", ls="--")
    right.set_ylabel("loss, cross-entropy (dashed)", color="gray")
    right.set_ylim(bottom=0)

    shown.imshow(cpu(transpose(picture)).numpy(), cmap="gray_r")
    shown.set(title=f"a test picture: {label}", xticks=[], yticks=[])
    colours = ["C2" if digit == label else "lightgray" for digit in range(10)]
    bars.bar(range(10), p10, color=colours)
    bars.set(title="what the model says", xlabel="digit", ylabel="probability", xticks=range(10), ylim=(0, 1))

    below.suptitle("What the 32 hidden neurons look for: ink (red) or paper (blue)")
    weight = cpu(model[0].weight.detach())
    most = maximum(weight.abs()).item()
    for i, axes in enumerate(below.subplots(2, 16).flat):
        axes.axis("off")
        axes.imshow(transpose(reshape(weight[i], *size(picture))).numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
    return figure


if __name__ == "__main__":
    run(main)
