"""Writes text letter by letter: a small GPT, of blocks of attention.

Follows text/nanogpt of Flux's model zoo: https://github.com/FluxML/model-zoo/tree/master/text/nanogpt
The blocks, their sizes and the training are those there, for a machine without a GPU in smaller numbers: 2 blocks
instead of 6, batches of 32 instead of 128, 6 epochs instead of 20. Instead of Shakespeare it reads the first 300 000
letters of the language reference that comes with Python; `--data file.txt` takes any other text. With
`--checkpoint gpt.pt` it writes the model and the state of its training after each epoch, which the Julia program does
unasked; `load_model` reads them back.

Run: python examples/gpt.py
"""

from __future__ import annotations

import math
import operator
import re
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from program import progress, run, save
from texts import read, wsample

from fluxtorch import *
import fluxtorch as Flux
from fluxtorch import base


@dataclass
class Args:
    n_embed: int = 64  # Length of the vector that stands for a letter
    n_hidden: int = 256  # Width within a block's perceptron
    n_heads: int = 4  # Heads of attention
    qk_dim: int = 16  # Size of queries and keys, of all heads together
    v_dim: int = 16  # Size of values, of all heads together
    n_layers: int = 2  # Blocks
    seqlen: int = 64  # Letters that the model looks back on
    batchsz: int = 32  # Sequences in a batch
    dropout: float = 0.0  # Share that is dropped in training
    testpercent: float = 0.1  # How much of the text is kept for the test
    lr: float = 1e-2  # Learning rate
    epochs: int = 6  # Times through the text
    usegpu: bool = False  # Train on the GPU?
    data: str | None = None  # The file to learn from
    checkpoint: str | None = None  # The file to write the model to


# -- The model ---------------------------------------------------------------------------------------


# One block, of which the model has args.n_layers
class GPTBlock(Layer):
    layernorm1: LayerNorm
    mha: MultiHeadAttention
    mlp: Chain

    def __init__(self, *, n_embed, n_hidden, qk_dim, v_dim, n_heads, dropout):
        self.layernorm1 = LayerNorm(n_embed)
        self.mha = MultiHeadAttention(n_embed |to| (qk_dim, v_dim) |to| n_embed, nheads=n_heads, dropout_prob=dropout)
        self.mlp = Chain(
            LayerNorm(n_embed),
            Dense(n_embed |to| n_hidden, gelu),
            Dense(n_hidden |to| n_embed),
            Dropout(dropout),
        )

    def __call__(self, x):
        y, _ = self.mha(self.layernorm1(x), mask=NNlib.make_causal_mask(x))
        x = x + y  # `x += y` makes a new array in Julia, and would change this one in Python
        x = x + self.mlp(x)
        return x


class GPT(Layer):
    alphabet: list
    tok_embed: Embedding
    pos_embed: Embedding
    dropout: Dropout
    blocks: list
    layernorm1: LayerNorm
    output_layer: Dense

    def __init__(self, args, alphabet):
        n_vocab = len(alphabet)
        self.alphabet = alphabet
        self.tok_embed = Embedding(n_vocab |to| args.n_embed)
        self.pos_embed = Embedding(args.seqlen |to| args.n_embed)
        self.dropout = Dropout(args.dropout)
        self.blocks = [
            GPTBlock(
                n_embed=args.n_embed,
                n_hidden=args.n_hidden,
                qk_dim=args.qk_dim,
                v_dim=args.v_dim,
                n_heads=args.n_heads,
                dropout=args.dropout,
            )
            for _ in range(args.n_layers)
        ]
        self.layernorm1 = LayerNorm(args.n_embed)
        self.output_layer = Dense(args.n_embed |to| n_vocab)

    def __call__(self, tokens):
        T, _ = size(tokens)
        te = self.tok_embed(tokens)
        pe = self.pos_embed(torch.arange(T, device=tokens.device))
        x = self.dropout(broadcast(operator.add, te, pe))
        for blk in self.blocks:
            x = blk(x)
        x = self.layernorm1(x)
        x = self.output_layer(x)
        return x


# args.seqlen, as the model has it
context_length = lambda m: size(m.pos_embed.weight, 1)


# -- Writing -----------------------------------------------------------------------------------------


def generate(model, seed, outlen, device=cpu):
    seqlen = context_length(model)
    x = [model.alphabet.index(c) for c in seed or model.alphabet[-1]]
    with torch.no_grad():
        while len(x) < outlen:
            tail = torch.tensor(x[-seqlen:])[:, None]
            y = cpu(model(device(tail)))
            p = softmax(y[:, -1, 0])
            j = wsample(range(len(model.alphabet)), p)
            x.append(j)
    return "".join(model.alphabet[j] for j in x)


# -- Data --------------------------------------------------------------------------------------------


def getdata(args):
    text = read(args.data)

    # A space for each line's end looks nicer when printed
    text = re.sub(r"\r?\n", " ", text)

    # Every letter once, and a mark for the end. In Julia that is '_', of which Python's pages are full.
    stop = "¶"
    alphabet = list(dict.fromkeys(text + stop))

    # torch has no arrays of letters, so they become their places in the alphabet first
    tokens = onecold(onehotbatch(text, alphabet))
    B = (len(text) - 1) // args.seqlen
    Xs = reshape(tokens[: B * args.seqlen], args.seqlen, B)
    Ys = reshape(tokens[1 : B * args.seqlen + 1], args.seqlen, B)

    # A sequence begins with the mark, which stands for no context. A slice is a view in torch: Ys has the letters, too.
    Xs = Xs.clone()
    Xs[0, :] = alphabet.index(stop)

    # Xs holds places in the alphabet, which Embedding takes; Ys one-hot vectors, which logitcrossentropy takes
    Ys = onehotbatch(Ys, range(len(alphabet)))

    numbatch = size(Xs, 1)
    split = int((1 - args.testpercent) * numbatch)
    if split == 0:
        raise ValueError(f"the text is too short for sequences of {args.seqlen} letters")

    trainX, trainY = Xs[:, :split], Ys[:, :, :split]
    testX, testY = Xs[:, split:], Ys[:, :, split:]

    return alphabet, trainX, trainY, testX, testY


# -- Training ----------------------------------------------------------------------------------------


def loss(m, xs, ys):
    return Flux.logitcrossentropy(m(xs), ys)


def train(**kws):
    args = Args(**kws)

    device = gpu if args.usegpu else cpu

    alphabet, trainX, trainY, testX, testY = getdata(args)

    trainX, trainY, testX, testY = device((trainX, trainY, testX, testY))

    print(f"Alphabet size: {len(alphabet)}")
    print(f"Training size: {size(trainX, 1)} sequences.")
    print(f"Testing  size: {size(testX, 1)} sequences.")

    loader = MLUtils.DataLoader((trainX, trainY), batchsize=args.batchsz, shuffle=True)

    model = device(GPT(args, alphabet))
    print(f"Number of params: {base.sum(length, Flux.params(model))}")

    opt_state = Flux.setup(Adam(args.lr), model)

    def testloss():
        with torch.no_grad():
            return loss(model, testX, testY).item()

    curve, tests = [], [testloss()]

    for epoch in range(1, args.epochs + 1):
        trainmode_(model)  # dropout is on, for training
        for x, y in progress(loader, f"Training, epoch {epoch} / {args.epochs}"):
            val, grad = withgradient(lambda m: loss(m, x, y), model)
            Flux.update_(opt_state, model, grad[0])
            curve.append(val)

        testmode_(model)  # and off, for the test

        if args.checkpoint is not None:
            torch.save(
                {
                    "model_state": Flux.state(cpu(model)),
                    "opt_state": Flux.state(cpu(opt_state)),
                    "alphabet": alphabet,
                    "args": asdict(args),
                },
                args.checkpoint,
            )

        tests.append(testloss())
        print(f"epoch {epoch} / {args.epochs}: loss per letter of the test {tests[-1]:.4f}")
        print(generate(model, "¶", 50, device))
        print(generate(model, "The", 50, device))

    return args, model, ([val.item() for val in curve], tests, testX)


def load_model(filename):
    """The model of a `--checkpoint`."""
    saved = torch.load(filename)
    args = Args(**saved["args"])
    model = GPT(args, saved["alphabet"])
    Flux.loadmodel_(model, saved["model_state"])
    return args, model


def draw(model, curve, tests, tokens, sample):
    """The losses, what the model writes, and where each head of its last block looks, from each letter of a line."""
    figure = plt.figure(figsize=(13, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 0.85])
    left, right = above.subplots(1, 2)

    steps = len(curve) // max(len(tests) - 1, 1)
    left.plot(curve, lw=0.8, label="each batch")
    left.plot([steps * k for k in range(len(tests))], tests, "o-", label="test, after each epoch")
    left.axhline(math.log(len(model.alphabet)), color="gray", ls=":", label="all letters alike")
    left.set(title="What it learns", xlabel="batches", ylabel="loss per letter", ylim=(0, None))
    left.legend()

    right.text(0, 1, textwrap.fill(sample, 72), va="top", family="monospace", size=9, parse_math=False)
    right.set(title="What it writes")
    right.axis("off")

    with torch.no_grad():
        x = broadcast(operator.add, model.tok_embed(tokens), model.pos_embed(range(len(tokens))))[:, :, None]
        for blk in model.blocks:
            _, α = blk.mha(blk.layernorm1(x), mask=NNlib.make_causal_mask(x))
            x = blk(x)
    letters = [model.alphabet[j] for j in tokens]
    for h, plot in enumerate(below.subplots(1, α.shape[2], sharey=True)):
        plot.imshow(α[:, :, h, 0].T.numpy(), cmap="Blues", vmin=0, vmax=1)
        plot.set(title=f"head {h}", xlabel="looked at")
        plot.set_xticks(range(len(letters)), letters, family="monospace", size=7)
        plot.set_yticks(range(len(letters)), letters, family="monospace", size=7)
    below.suptitle("Where its last block looks, from each letter of a line that was kept for the test")
    return figure


def main(
    epochs: int = 6,
    gpu: bool = False,
    data: str | None = None,
    checkpoint: str | None = None,
    plot: str = "gpt.png",
) -> dict[str, Any]:
    _, model, (curve, tests, testX) = train(epochs=epochs, usegpu=gpu, data=data, checkpoint=checkpoint)
    model = cpu(model)
    sample = generate(model, "The", 1000)
    return {
        "loss before": tests[0],
        "loss after": tests[-1],
        "sample": sample,
        "plot": save(draw(model, curve, tests, cpu(testX[:32, 0]), sample), plot),
    }


if __name__ == "__main__":
    run(main)
