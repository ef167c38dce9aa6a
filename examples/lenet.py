"""LeNet, a convolutional network of 1998, learns to read handwritten digits, and is saved and loaded again.

It follows vision/conv_mnist of Flux's model zoo. The digits are scikit-learn's 1498, their 8×8 pixels upsampled to
MNIST's size, so that the network is the original one and nothing is downloaded. With smaller batches and more epochs
it takes 1900 steps, not 4700.

Run:                     python examples/lenet.py
on MNIST, as the Julia:  python examples/lenet.py --data FOLDER --epochs 10 --batchsize 128
"""

import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot as plt

from fluxtorch import *
from fluxtorch import base
import fluxtorch as Flux

from digits import digits
from program import progress, run, save


# -- Data --------------------------------------------------------------------------------------------

# Flux wants pictures as (width, height, channels, batch), here with one channel.


def loader(data, batchsize=64):
    yhot = Flux.onehotbatch(data.targets, range(10))  # a 10×N OneHotMatrix
    return Flux.DataLoader((data.features, yhot), batchsize=batchsize, shuffle=True)


# -- Model -------------------------------------------------------------------------------------------

# Two convolutions, each followed by pooling, and three dense layers, where most of the parameters are.


def LeNet():
    return Chain(
        Conv((5, 5), 1 |to| 6, relu),
        MaxPool((2, 2)),
        Conv((5, 5), 6 |to| 16, relu),
        MaxPool((2, 2)),
        Flux.flatten,
        Dense(256 |to| 120, relu),
        Dense(120 |to| 84, relu),
        Dense(84 |to| 10),
    )


# -- Metrics -----------------------------------------------------------------------------------------


def loss_and_accuracy(model, data):
    x, y = only(loader(data, batchsize=len(data.targets)))  # all of it as one batch
    with torch.no_grad():
        ŷ = model(x)
        loss = Flux.logitcrossentropy(ŷ, y)  # the model itself has no softmax
    acc = base.round(100 * mean(Flux.onecold(ŷ) == Flux.onecold(y)), digits=2)
    return nt(loss=loss.item(), acc=acc.item(), split=data.split)


def main(
    epochs: int = 40, gpu: bool = False, data: str | None = None, batchsize: int = 32, plot: str = "lenet.png"
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    lenet = device(LeNet())
    train_data, test_data = (device(digits(data, split, size=(28, 28))) for split in ("train", "test"))

    x1, y1 = next(iter(loader(train_data)))  # 28×28×1×64 and 10×64
    y1hat = lenet(x1)  # not trained yet, so these numbers have nothing in common:
    print("answers, labels =", Flux.onecold(y1hat, range(10))[:8], Flux.onecold(y1, range(10))[:8])

    before = loss_and_accuracy(lenet, test_data)
    print("before training:", before)

    # -- Training ------------------------------------------------------------------------------------

    settings = nt(
        eta=3e-4,  # learning rate
        lambda_=1e-2,  # for weight decay
        batchsize=batchsize,
        epochs=epochs,
    )
    train_log = []

    opt_rule = OptimiserChain(WeightDecay(settings.lambda_), Adam(settings.eta))
    opt_state = Flux.setup(opt_rule, lenet)

    folder = tempfile.TemporaryDirectory()
    filename = Path(folder.name) / "lenet.pt"

    for epoch in progress(range(1, settings.epochs + 1), "epochs"):
        for x, y in loader(train_data, batchsize=settings.batchsize):
            grads = Flux.gradient(lambda m: Flux.logitcrossentropy(m(x), y), lenet)
            Flux.update_(opt_state, lenet, grads[0])

        # Logging and saving, not after every epoch
        if epoch % 2 == 1 or epoch == settings.epochs:
            loss, acc, _ = loss_and_accuracy(lenet, train_data)
            test_loss, test_acc, _ = loss_and_accuracy(lenet, test_data)
            print(f"logging: epoch = {epoch}, acc = {acc:.2f}, test_acc = {test_acc:.2f}")
            train_log.append(nt(epoch=epoch, loss=loss, acc=acc, test_loss=test_loss, test_acc=test_acc))
        if epoch % 5 == 0 or epoch == settings.epochs:
            torch.save(Flux.state(cpu(lenet)), filename)
            print(f"saved to {filename} after {epoch} epochs")

    y1hat = lenet(x1)
    print("answers, labels =", Flux.onecold(y1hat, range(10))[:8], Flux.onecold(y1, range(10))[:8])

    # -- Inspection ----------------------------------------------------------------------------------

    # Which picture is the model least sure of? Of each column of probabilities the largest; of these the least.
    xtest = test_data.features
    with torch.no_grad():
        ptest = softmax(lenet(xtest))
    max_p = maximum(ptest, dims=0)
    _, i = findmin(vec(max_p))
    answer = Flux.onecold(ptest[:, i], range(10))
    print(f"least certain: picture {i}, a {test_data.targets[i]}, taken for a {answer} with p = {max_p[0, i]:.2f}")

    # -- Array sizes ---------------------------------------------------------------------------------

    print("weight of a Conv((5, 5), 1 => 6):", size(Conv((5, 5), 1 |to| 6).weight))
    for n in range(6):
        print(f"size after {n} layers:", size(lenet[:n](x1)))

    # 256 = 4 · 4 · 16 has to be what the flattened picture has. autosize finds out by itself:
    lenet2 = Flux.autosize(
        (28, 28, 1, 1),
        lambda _: Chain(
            Conv((5, 5), 1 |to| 6, relu),
            MaxPool((2, 2)),
            Conv((5, 5), _ |to| 16, relu),
            MaxPool((2, 2)),
            Flux.flatten,
            Dense(_ |to| 120, relu),
            Dense(_ |to| 84, relu),
            Dense(_ |to| 10),
        ),
    )
    print("size of lenet2(x1):", size(lenet2(cpu(x1))))

    # -- Loading -------------------------------------------------------------------------------------

    # What was saved goes into a model of the same layers, which then gives the same numbers.
    loaded_state = torch.load(filename)
    Flux.loadmodel_(lenet2, loaded_state)
    print("lenet2(x1) ≈ lenet(x1):", torch.allclose(lenet2(cpu(x1)), cpu(lenet(x1)), atol=1e-4))
    folder.cleanup()

    return {
        "test loss before": before.loss,
        "test accuracy before": before.acc,
        "train loss": train_log[-1].loss,
        "train accuracy": train_log[-1].acc,
        "test loss": train_log[-1].test_loss,
        "test accuracy": train_log[-1].test_acc,
        "plot": save(draw(train_log, test_data, ptest), plot),
    }


def draw(log, test, ptest):
    """The curves of training, how often which digit was taken for which, and the least certain pictures."""
    figure = plt.figure(figsize=(11, 7.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    curves, table = above.subplots(1, 2)

    epochs = [row.epoch for row in log]
    curves.plot(epochs, [row.loss for row in log], label="train")
    curves.plot(epochs, [row.test_loss for row in log], label="test")
    curves.set(title="Loss", xlabel="epoch", ylabel="logit cross-entropy", ylim=(0, None))
    curves.legend()

    # A one-hot matrix of labels times one of answers counts how often the two came together.
    answers = Flux.onecold(ptest, range(10))
    counts = cpu(onehotbatch(test.targets, range(10)) @ transpose(onehotbatch(answers, range(10))))
    table.imshow((counts / base.sum(counts, dims=1)).numpy(), cmap="Blues", vmin=0, vmax=1)
    for label in range(10):
        for answer in range(10):
            n = int(counts[label, answer])
            table.text(answer, label, n or "", ha="center", va="center", color="white" if label == answer else "black")
    table.set(title=f"Test pictures: accuracy {log[-1].test_acc:.1f} %", xlabel="answer", ylabel="label")
    table.set(xticks=range(10), yticks=range(10))

    below.suptitle("The test pictures that it is least sure of: label → answer, with its probability")
    order = vec(maximum(ptest, dims=0)).argsort().tolist()
    for axes, i in zip(below.subplots(2, 8).flat, order[:16], strict=True):
        wrong = test.targets[i] != answers[i]
        axes.imshow(transpose(cpu(test.features[:, :, 0, i])).numpy(), cmap="gray_r")
        axes.set_title(f"{test.targets[i]} → {answers[i]}  ({maximum(ptest[:, i]):.2f})", color="C3" if wrong else "C2")
        axes.axis("off")
    return figure


if __name__ == "__main__":
    run(main)
