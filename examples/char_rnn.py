"""Writes text letter by letter: a recurrent network that learns which letter comes next.

Follows text/char-rnn of Flux's model zoo: https://github.com/FluxML/model-zoo/tree/master/text/char-rnn
The network, the optimiser and the epochs are those there. Instead of Shakespeare it reads the first 300 000 letters of
the language reference that comes with Python, which needs no network and takes half a minute; `--data file.txt` takes
any other text. Two things are put right: input and answers are cut at the same places, whatever the length of the
text, and the loss per letter isn't divided by the size of the batch, over which it is the mean already.

Run: python examples/char_rnn.py
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from program import progress, run, save
from texts import read, wsample

from fluxtorch import *
import fluxtorch as Flux
from fluxtorch import base, batchseq, chunk, logitcrossentropy, partition


@dataclass
class Args:
    lr: float = 1e-2  # Learning rate
    seqlen: int = 50  # Letters in a sequence
    batchsz: int = 50  # Sequences in a batch
    epochs: int = 3  # Times through the text
    usegpu: bool = False  # Train on the GPU?
    testpercent: float = 0.05  # How much of the text is kept for the test
    data: str | None = None  # The file to learn from


# -- Data --------------------------------------------------------------------------------------------


def getdata(args):
    text = read(args.data)

    # Every letter once, and a mark for the end. In Julia that is '_', of which Python's pages are full.
    stop = "¶"
    alphabet = list(dict.fromkeys(text + stop))
    N = len(alphabet)

    # The text as `batchsz` long strips side by side, cut into batches of `seqlen` steps; the answers one letter on
    Xtext = chunk(text[:-1], args.batchsz)
    Ytext = chunk(text[1:], args.batchsz)
    Xs = partition(batchseq(Xtext, stop), args.seqlen)
    Ys = partition(batchseq(Ytext, stop), args.seqlen)
    Xs = [[onehotbatch(b, alphabet) for b in bs] for bs in Xs]
    Ys = [[onehotbatch(b, alphabet) for b in bs] for bs in Ys]

    return Xs, Ys, N, alphabet


# -- The model ---------------------------------------------------------------------------------------


def build_model(N):
    return Chain(
        LSTM(N |to| 128),
        LSTM(128 |to| 128),
        Dense(128 |to| N),
    )


def loss(m, xs, ys):
    Flux.reset_(m)  # each sequence begins without a memory
    return base.sum(broadcast(logitcrossentropy, [m(x) for x in xs], ys))


# -- Training ----------------------------------------------------------------------------------------


def train(**kws):
    args = Args(**kws)

    device = gpu if args.usegpu else cpu

    Xs, Ys, N, alphabet = getdata(args)

    # The batches in random order; the last few are for the test
    L = len(Xs)
    perm = torch.randperm(L).tolist()
    split = int((1 - args.testpercent) * L)

    trainX, trainY = [Xs[i] for i in perm[:split]], [Ys[i] for i in perm[:split]]
    testX, testY = [Xs[i] for i in perm[split:]], [Ys[i] for i in perm[split:]]

    if not trainX:
        raise ValueError(f"the text is too short for batches of {args.batchsz} sequences of {args.seqlen} letters")

    trainX, trainY, testX, testY = device((trainX, trainY, testX, testY))

    model = device(build_model(N))

    def testloss():
        with torch.no_grad():
            return (base.sum(broadcast(loss, (model,), testX, testY)) / base.sum(len, testX)).item()

    curve, tests = [], [testloss()]  # per letter: of each batch as it is trained with, and of the test after each epoch

    def noted(m, xs, ys):
        value = loss(m, xs, ys)
        curve.append(Zygote.ignore_derivatives(value) / len(xs))
        return value

    opt_state = Flux.setup(Adam(args.lr), model)

    for epoch in range(1, args.epochs + 1):
        Flux.train_(
            noted,
            model,
            progress(list(zip(trainX, trainY, strict=True)), f"Training, epoch {epoch} / {args.epochs}"),
            opt_state,
        )

        tests.append(testloss())
        print(f"epoch {epoch} / {args.epochs}: loss per letter of the test {tests[-1]:.4f}")

    return model, alphabet, ([value.item() for value in curve], tests, testX[0], testY[0])


# -- Writing -----------------------------------------------------------------------------------------


def sample_data(m, alphabet, n, seed=""):
    m = cpu(m)
    Flux.reset_(m)
    buf = seed or rand(alphabet)
    with torch.no_grad():
        c = wsample(alphabet, softmax([m(onehot(c, alphabet)) for c in buf][-1]))
        for i in range(n):
            buf += c
            c = wsample(alphabet, softmax(m(onehot(c, alphabet))))
    return buf


def draw(model, alphabet, sample, curve, tests, xs, ys, rows=12):
    """The losses, what the model writes, and a few lines of the test with the loss of each letter."""
    rooms = [["losses", "sample"], ["letters", "letters"]]
    figure, axes = plt.subplot_mosaic(rooms, figsize=(12, 9), layout="constrained")

    plot = axes["losses"]
    steps = len(curve) // max(len(tests) - 1, 1)
    plot.plot(curve, lw=0.8, label="each batch")
    plot.plot([steps * k for k in range(len(tests))], tests, "o-", label="test, after each epoch")
    plot.axhline(math.log(len(alphabet)), color="gray", ls=":", label="all letters alike")
    plot.set(title="What it learns", xlabel="batches", ylabel="loss per letter", ylim=(0, None))
    plot.legend()

    lines = [part for line in sample.splitlines() for part in textwrap.wrap(line, 72, drop_whitespace=False) or [""]]
    axes["sample"].text(0, 1, "\n".join(lines[:25]), va="top", family="monospace", size=9, parse_math=False)
    axes["sample"].set(title="What it writes")
    axes["sample"].axis("off")

    Flux.reset_(model)
    with torch.no_grad():
        losses = [logitcrossentropy(model(x), y, agg=identity)[0, :rows] for x, y in zip(xs, ys, strict=True)]
    image = axes["letters"].imshow(stack(losses, dims=1).numpy(), cmap="Reds", vmin=0, vmax=10, aspect="auto")
    for j, y in enumerate(ys):
        for i, c in enumerate(onecold(y, alphabet)[:rows]):
            axes["letters"].text(j, i, c.replace("\n", "↵"), ha="center", va="center", family="monospace")
    axes["letters"].set(title="What surprises it, in lines that were kept for the test", xlabel="letters", yticks=[])
    figure.colorbar(image, label="loss of the letter", aspect=40)
    return figure


def main(
    epochs: int = 3,
    gpu: bool = False,
    data: str | None = None,
    batchsz: int = 50,
    seqlen: int = 50,
    plot: str = "char_rnn.png",
) -> dict[str, Any]:
    model, alphabet, (curve, tests, xs, ys) = train(
        epochs=epochs, usegpu=gpu, data=data, batchsz=batchsz, seqlen=seqlen
    )
    sample = sample_data(model, alphabet, 1000)
    return {
        "loss before": tests[0],
        "loss after": tests[-1],
        "sample": sample,
        "plot": save(draw(cpu(model), alphabet, sample, curve, tests, cpu(xs), cpu(ys)), plot),
    }


if __name__ == "__main__":
    run(main)
