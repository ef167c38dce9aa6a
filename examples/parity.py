"""Learns whether a string of bits holds an odd number of ones, and then knows it of strings of any length.

Follows other/bitstring-parity of Flux's model zoo, in the implicit style of its day:
https://github.com/FluxML/model-zoo/tree/master/other/bitstring-parity
Three programs are in one. By default it is xor2.jl, which learns from 2000 strings of 1 to 10 bits; of its 20 epochs 6
are enough, and 100 strings of 50 bits for the last test, instead of 1000. xor1.jl is `--length 2 --train-len 100
--val-len 10 --epochs 20`; xor3.jl, which takes hours, `--length 50 --train-len 100000 --val-len 1000 --epochs 20`. As
there, the strings go through the network one by one, so that a GPU would be slower.

Run: python examples/parity.py
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from program import progress, run, save

from fluxtorch import *
import fluxtorch as Flux
from fluxtorch import logitcrossentropy, onecold, onehot, onehotbatch, reset_, throttle

# -- Data --------------------------------------------------------------------------------------------

alphabet = [False, True]  # 0, 1

parity = lambda x: foldl(operator.xor, x)


def gendata(n, k):
    """`n` strings with their parities; `k` is how long they are, or a range of lengths."""
    k = k if isinstance(k, range) else range(k, k + 1)
    X = [rand(torch.bool, length) for length in rand(k, n)]
    return [(onehotbatch(x, alphabet), onehot(parity(x), alphabet)) for x in X]


@dataclass
class Args:
    lr: float = 1e-3  # Learning rate
    epochs: int = 6  # Times through the data
    length: int = 10  # Length of the longest string
    train_len: int = 2000  # Strings to learn from
    val_len: int = 100  # Strings to validate with
    throttle: int = 10  # Seconds between two reports


def getdata(args):
    # xor1.jl learns from strings of two bits alone, the others from all lengths up to the longest
    train = gendata(args.train_len, 2 if args.length == 2 else range(1, args.length + 1))
    val = gendata(args.val_len, args.length)
    return train, val


# -- The model ---------------------------------------------------------------------------------------


def build_model():
    scanner = LSTM(len(alphabet), 20)
    encoder = Dense(20, len(alphabet))
    return scanner, encoder


def model(x, scanner, encoder):
    state = [scanner(bit) for bit in eachcol(x)][-1]
    reset_(scanner)
    return encoder(state)


def states(x, scanner):
    """The state after each bit of the strings `x` of `(strings, bits)`: `(units, strings, bits)`, by one call."""
    h = scanner(x)
    reset_(scanner)
    return h


# -- Training ----------------------------------------------------------------------------------------


def train(device, **kws):
    args = Args(**kws)

    train_data, val_data = device(getdata(args))

    scanner, encoder = device(build_model())

    loss = lambda x, y: logitcrossentropy(model(x, scanner, encoder), y)

    def batch_loss(data):
        with torch.no_grad():
            return mean(loss(*d) for d in data).item()

    opt = ADAM(args.lr)
    ps = params(scanner, encoder)
    evalcb = lambda: print("batch_loss(val_data) =", batch_loss(val_data))

    # The state after each bit tells the parity of all bits so far, so strings of 100 bits are a test of 100 lengths
    x = rand(torch.bool, 200, 100)
    bits, odd = device(onehotbatch(x, alphabet)), device(x.cumsum(1) % 2)

    def right():
        with torch.no_grad():
            return vec(mean(onecold(encoder(states(bits, scanner))) == odd, dims=0)).tolist()

    curve, rights = [batch_loss(val_data)], [right()]
    for i in range(1, args.epochs + 1):
        Flux.train_(loss, ps, progress(train_data, f"epoch {i}"), opt, cb=throttle(evalcb, args.throttle))
        curve.append(batch_loss(val_data))
        rights.append(right())

    # It has seen short strings only, but the rule that it found holds for longer ones
    t50 = batch_loss(device(gendata(100, 50)))
    print("Batch_loss for length 50 string:", t50)
    return scanner, encoder, curve, rights, t50


def test(scanner, encoder):
    """Says what becomes of the four strings of two bits."""
    input = [[0, 1], [1, 0], [0, 0], [1, 1]]
    tx = [onehotbatch(c, range(2)) for c in input]
    with torch.no_grad():
        out = [onecold(model(x, scanner, encoder)) for x in tx]
    for i in range(len(tx)):
        print(input[i], "=>", out[i])
    return out


def draw(scanner, curve, rights, longest):
    """The loss, how often it is right after how many bits, and what it remembers while it reads a string."""
    figure, axes = plt.subplot_mosaic([["loss", "right"], ["states", "states"]], figsize=(12, 8), layout="constrained")

    axes["loss"].semilogy(curve, "o-")
    axes["loss"].axhline(math.log(2), color="gray", ls=":", label="tossing a coin")
    axes["loss"].set(title=f"Strings of {longest} bits", xlabel="epochs", ylabel="loss")
    axes["loss"].legend()

    axes["right"].axvspan(0, longest, color="gray", alpha=0.15)
    colors = plt.cm.viridis(torch.linspace(0.95, 0, len(rights)).numpy())
    some = -(-len(rights) // 10)  # no more than ten names
    for epoch, (right, color) in enumerate(zip(rights, colors, strict=True)):
        label = epoch if epoch % some == 0 else None
        axes["right"].plot(range(1, 101), right, color=color, label=label)
    axes["right"].set(title="All lengths (it learned from those in gray)", xlabel="bits", ylabel="right answers")
    axes["right"].set_ylim(0, 1.05)
    axes["right"].legend(title="epochs", ncols=4, loc="lower right")

    x = rand(torch.bool, 40)
    odd = x.cumsum(0) % 2 == 1
    with torch.no_grad():
        h = states(onehotbatch(x[None], alphabet), scanner)[:, 0]
    # Units that answer alike to odd and even stand side by side
    order = vec(mean(h[:, odd], dims=1) - mean(h[:, ~odd], dims=1)).argsort()
    image = axes["states"].imshow(h[order].numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    labels = [f"{bit:d}\n{'odd' if o else '·'}" for bit, o in zip(x.tolist(), odd, strict=True)]
    axes["states"].set_xticks(range(40), labels, size=8)
    axes["states"].set(title="What it remembers while it reads", xlabel="bits, and the parity so far", yticks=[])
    axes["states"].set(ylabel="units")
    figure.colorbar(image, label="state", aspect=40)
    return figure


def main(
    epochs: int = 6,
    gpu: bool = False,
    length: int = 10,
    train_len: int = 2000,
    val_len: int = 100,
    lr: float = 1e-3,
    plot: str = "parity.png",
) -> dict[str, Any]:
    device = Flux.gpu if gpu else cpu
    scanner, encoder, curve, rights, t50 = train(
        device, epochs=epochs, length=length, train_len=train_len, val_len=val_len, lr=lr
    )
    scanner, encoder = cpu((scanner, encoder))
    out = test(scanner, encoder)

    return {
        "loss before": curve[0],
        "loss after": curve[-1],
        "loss for 50 bits": t50,
        "right for 50 bits": rights[-1][49],
        "right for 100 bits": rights[-1][99],
        "01, 10, 00, 11": str(out),
        "plot": save(draw(scanner, curve, rights, length), plot),
    }


if __name__ == "__main__":
    run(main)
