"""Fizz buzz: which of "fizz", "buzz", "fizzbuzz" and the number itself to say, as in Flux's model zoo (other/fizzbuzz).

The network gets the number's remainders by 3, 5 and 15. These come again after 15 numbers, so 1 to 100 is all the data
there is, and there is no test. Model, rule and steps (501 of them: the epochs count from 0) are the Julia program's.

Run: python examples/fizzbuzz.py [--epochs 500] [--gpu] [--plot fizzbuzz.png] [--dim 20] [--eta 0.001]
"""

from program import progress, run, save

import matplotlib.pyplot as plt
import torch

from fluxtorch import *
import fluxtorch as Flux
from fluxtorch import logitcrossentropy, onehotbatch, setup, train_


# -- Data --------------------------------------------------------------------------------------------


def fizzbuzz(x):
    is_divisible_by_three = x % 3 == 0
    is_divisible_by_five = x % 5 == 0

    if is_divisible_by_three and is_divisible_by_five:
        return "fizzbuzz"
    elif is_divisible_by_three:
        return "fizz"
    elif is_divisible_by_five:
        return "buzz"
    else:
        return "else"


LABELS = ("fizz", "buzz", "fizzbuzz", "else")


# features(x) of one number is a column; of several numbers, a column for each.
def features(x):
    if isinstance(x, int):
        return [float(x % 3), float(x % 5), float(x % 15)]
    return hcat(*[features(n) for n in x])


def getdata():
    assert broadcast(fizzbuzz, (3, 5, 15, 98)) == LABELS

    raw_x = range(1, 101)
    raw_y = broadcast(fizzbuzz, raw_x)

    X = features(raw_x)
    y = onehotbatch(raw_y, LABELS)
    return X, y


# -- Training ----------------------------------------------------------------------------------------


def main(
    epochs: int = 500, gpu: bool = False, plot: str = "fizzbuzz.png", dim: int = 20, eta: float = 0.001
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu

    X, y = device(getdata())

    m = device(Chain(Dense(3 |to| dim, relu), Dense(dim |to| 4)))
    loss = lambda m, x, y: logitcrossentropy(m(x), y)

    # What the network would say. The last class, 3 from 0, stands for the number itself.
    def deepbuzz(x):
        a = argmax(m(device(features(x))))
        return x if a == 3 else LABELS[a]

    def monitor(e):
        print(f"epoch {e:4}: loss = {loss(m, X, y):.4f} | ", end="")
        print("deepbuzz of 3, 5, 15, 98 =", [deepbuzz(x) for x in [3, 5, 15, 98]])

    def answers():
        with torch.no_grad():
            return [deepbuzz(x) for x in range(1, 101)]

    opt = setup(Adam(eta), m)
    untrained = answers()
    losses = []
    for e in progress(range(epochs + 1), "epochs"):
        with torch.no_grad():
            losses.append(loss(m, X, y))
            if e % 50 == 0:
                monitor(e)
        train_(loss, m, [(X, y)], opt)

    trained = answers()
    right = lambda answers: mean([answer == truth(x) for x, answer in enumerate(answers, 1)]).item()
    with torch.no_grad():
        losses = cpu(stack([*losses, loss(m, X, y)], dims=0))
    return {
        "loss, untrained": losses[0].item(),
        "loss, trained": losses[-1].item(),
        "right of 1 to 100, untrained": right(untrained),
        "right of 1 to 100, trained": right(trained),
        "picture": draw(untrained, trained, losses, plot),
    }


def truth(x):
    return x if fizzbuzz(x) == "else" else fizzbuzz(x)


def draw(untrained, trained, losses, path):
    figure, (before, after, course) = plt.subplots(1, 3, figsize=(17, 4.6), layout="constrained")

    colours = {"fizz": "#fdd49e", "buzz": "#c6dbef", "fizzbuzz": "#d4b9da", "else": "white"}
    for table, answers, title in [(before, untrained, "Before training"), (after, trained, "After training")]:
        for k, answer in enumerate(answers):
            row, column, x = k // 10, k % 10, k + 1
            colour = colours[fizzbuzz(x)]
            table.add_patch(plt.Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="grey", linewidth=0.5))
            style = {} if answer == truth(x) else {"color": "red", "weight": "bold"}
            table.text(column + 0.5, row + 0.5, answer, ha="center", va="center", size=7.5, **style)
        table.set(title=f"{title} (colour: truth, red: wrong)", xlim=(0, 10), ylim=(10, 0))
        table.set_xticks([])
        table.set_yticks([])
    swatches = [plt.Rectangle((0, 0), 1, 1, facecolor=colours[label], edgecolor="grey") for label in LABELS]
    meaning = ["fizz", "buzz", "fizzbuzz", "the number itself"]
    before.legend(swatches, meaning, loc="upper left", bbox_to_anchor=(0, 0), ncols=4, frameon=False)

    course.plot(range(len(losses)), losses)
    course.set(title="Loss during training", xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    return save(figure, path)


if __name__ == "__main__":
    run(main)
