"""Iris: which of three species a flower is of, by logistic regression, as in Flux's model zoo (other/iris).

The model is one layer, Dense(4, 3), and the loss takes its outputs as they are: logitcrossentropy does the softmax.
Fisher's 150 flowers come with scikit-learn, so nothing is downloaded. Its numbers are those of Fisher's paper; the
file of the UCI repository has two flowers wrong. `--epochs` is what the Julia program calls `repeat`.

Run: python examples/iris.py [--epochs 110] [--gpu] [--plot iris.png] [--lr 0.5]
"""

from program import progress, run, save

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_iris

from fluxtorch import *
import fluxtorch as Flux
from fluxtorch import logitcrossentropy, normalise, onecold, onehotbatch


@dataclass
class Args:
    lr: float = 0.5
    repeat: int = 110


# -- Data --------------------------------------------------------------------------------------------


def get_processed_data(args):
    iris = load_iris()
    labels = [str(iris.target_names[target]) for target in iris.target]
    features = torch.from_numpy(iris.data.T)  # 4×150: a flower is a column

    # Each feature with mean 0 and standard deviation 1.
    normed_features = f32(normalise(features, dims=1))

    klasses = sorted(set(labels))
    onehot_labels = onehotbatch(labels, klasses)

    # Of each three flowers two are for training, the third is for the test.
    train_indices = [*range(0, 150, 3), *range(1, 150, 3)]

    X_train = normed_features[:, train_indices]
    y_train = onehot_labels[:, train_indices]

    X_test = normed_features[:, 2:150:3]
    y_test = onehot_labels[:, 2:150:3]

    # The same batch, `args.repeat` times.
    train_data = [(X_train, y_train)] * args.repeat
    test_data = (X_test, y_test)

    return train_data, test_data, klasses


# -- Metrics -----------------------------------------------------------------------------------------

accuracy = lambda model, x, y: mean(onecold(model(x)) == onecold(y))


def confusion_matrix(model, X, y):
    ŷ = onehotbatch(onecold(model(X)), range(3))  # onecold counts from 0
    return y @ transpose(ŷ)


# -- Training ----------------------------------------------------------------------------------------


def train(model, train_data, args):
    # The softmax is in the loss, which is exact also where a probability is near 0.
    loss = lambda m, x, y: logitcrossentropy(m(x), y)

    # Gradient descent needs no setup, as it remembers nothing. For another rule:
    # opt_state = Flux.setup(Momentum(args.lr), model)
    optimiser = Descent(args.lr)

    print("Starting training.")
    Flux.train_(loss, model, progress(train_data, "steps"), optimiser)


def main(epochs: int = 110, gpu: bool = False, plot: str = "iris.png", lr: float = 0.5) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    args = Args(lr=lr, repeat=epochs)

    train_data, test_data, klasses = get_processed_data(args)
    train_data, (X_test, y_test) = device(train_data), device(test_data)

    # Four features in, one number for each of three species out.
    model = device(Chain(Dense(4, 3)))

    with torch.no_grad():
        before = logitcrossentropy(model(X_test), y_test).item()
        accuracy_before = accuracy(model, X_test, y_test).item()

    train(model, train_data, args)

    with torch.no_grad():
        accuracy_score = accuracy(model, X_test, y_test).item()
        print(f"\nAccuracy: {accuracy_score}")

        print("\nConfusion Matrix:\n")
        confusion = cpu(confusion_matrix(model, X_test, y_test))
        print(confusion)

        after = logitcrossentropy(model(X_test), y_test).item()
        guessed = cpu(onecold(model(X_test)))
    return {
        "test loss, untrained": before,
        "test loss, trained": after,
        "test accuracy, untrained": accuracy_before,
        "test accuracy, trained": accuracy_score,
        "picture": draw(cpu(X_test), cpu(onecold(y_test)), guessed, confusion, klasses, plot),
    }


def draw(X, truth, guessed, confusion, klasses, path):
    figure, (flowers, table) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")

    for k, klass in enumerate(klasses):
        flowers.scatter(X[2, truth == k], X[3, truth == k], label=klass, s=40, alpha=0.8)
    wrong = truth != guessed
    flowers.scatter(X[2, wrong], X[3, wrong], label="guessed wrong", s=150, facecolors="none", edgecolors="black")
    flowers.set(title="Test flowers, by species", xlabel="petal length, normalised", ylabel="petal width, normalised")
    flowers.legend()

    table.imshow(confusion.tolist(), cmap="Blues")
    table.set(title="Confusion matrix of the test", xlabel="guessed", ylabel="species")
    table.set_xticks(range(3), klasses)
    table.set_yticks(range(3), klasses)
    for i in range(3):
        for j in range(3):
            n = int(confusion[i, j])
            table.text(j, i, n, ha="center", va="center", size=14, color="white" if n > 9 else "black")
    return save(figure, path)


if __name__ == "__main__":
    run(main)
