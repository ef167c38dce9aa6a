"""The small example programs learn, and just as well as the same programs in plain torch from the same weights."""

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_iris
from torch import nn

import fluxtorch as Flux


@pytest.fixture
def plot(tmp_path):
    """Where the picture goes; that it shows something is checked at the end."""
    path = tmp_path / "x.png"
    yield str(path)
    assert matplotlib.image.imread(path).std() > 0.1


def start_from(net, model):
    """Gives the torch module `net` the weights of the Flux model."""
    with torch.no_grad():
        for p, q in zip(net.parameters(), Flux.trainables(model), strict=True):
            p.copy_(q)
    return net


def step(opt, loss):
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


def test_xor(example, plot):
    epochs = 40
    torch.manual_seed(0)
    figures = example("xor").main(epochs=epochs, plot=plot)

    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    torch.manual_seed(0)
    x = Flux.rand(torch.float32, 2, 1000).T
    y = ((x[:, 0] > 0.5) == (x[:, 1] > 0.5)).long()  # class 0 is true
    start_from(nn.ModuleList([net[0], net[3]]), [Flux.Dense((2, 3)), Flux.Dense((3, 2))])

    def accuracy():
        return (net.eval()(x).argmax(1) == y).float().mean().item()

    before = accuracy()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    order = Flux.DataLoader(torch.arange(1000), batchsize=64, shuffle=True)
    net.train()
    means = [np.mean([step(opt, F.cross_entropy(net(x[i]), y[i])) for i in order]) for _ in range(epochs)]

    assert figures["picture"] == plot
    assert figures["accuracy, untrained"] == pytest.approx(before, abs=0.002)
    assert figures["loss in the first epoch"] == pytest.approx(means[0], rel=1e-4)
    assert figures["loss in the last epoch"] == pytest.approx(means[-1], rel=1e-2)
    assert figures["accuracy, trained"] == pytest.approx(accuracy(), abs=0.005)
    assert figures["accuracy, trained"] > 0.92 and figures["loss in the last epoch"] < 0.25


def test_iris(example, plot, capsys):
    torch.manual_seed(0)
    figures = example("iris").main(plot=plot)

    net = nn.Linear(4, 3)
    torch.manual_seed(0)
    start_from(net, Flux.Dense(4, 3))
    x, y = (torch.from_numpy(array) for array in load_iris(return_X_y=True))
    x = ((x - x.mean(0)) / x.std(0, unbiased=False)).float()
    train, test = torch.arange(150) % 3 != 2, torch.arange(150) % 3 == 2
    before = F.cross_entropy(net(x[test]), y[test]).item()
    opt = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(110):
        step(opt, F.cross_entropy(net(x[train]), y[train]))
    guessed = net(x[test]).argmax(1)
    accuracy = (guessed == y[test]).float().mean().item()

    assert figures["test loss, untrained"] == pytest.approx(before, rel=1e-3)
    assert figures["test loss, trained"] == pytest.approx(F.cross_entropy(net(x[test]), y[test]).item(), rel=1e-3)
    assert figures["test accuracy, trained"] == pytest.approx(accuracy) and accuracy > 0.9
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    confusion.index_put_((y[test], guessed), torch.tensor(1), accumulate=True)
    assert str(confusion) in capsys.readouterr().out


def descend(x, y, W, b, steps):
    """Gradient descent by 0.1 on the mean squared error of `W x + b`; gives the last loss, and what predicts."""
    W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
    opt = torch.optim.SGD([W, b], lr=0.1)
    for _ in range(steps):
        step(opt, F.mse_loss(x @ W.T + b, y))
    return F.mse_loss(x @ W.T + b, y).item(), lambda x: (x @ W.T + b).detach()


def split(x, y):
    x, k = (x - x.mean(0)) / x.std(0), len(x) // 10
    return x[k:], y[k:], x[:k], y[:k]


def test_housing_by_default_on_diabetes(example, plot):
    torch.manual_seed(0)
    figures = example("housing").main(plot=plot)

    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in load_diabetes(return_X_y=True, scaled=False))
    x, y, x_test, y_test = split(x, y[:, None])
    loss, predict = descend(x, y, Flux.randn(1, 10), torch.zeros(1, dtype=torch.float64), 500)
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    best = torch.linalg.lstsq(torch.hstack([x, ones]), y, driver="gelsd").residuals.item() / len(x)

    assert figures["training loss, last"] == pytest.approx(loss, rel=1e-9)
    assert figures["training loss, last"] == pytest.approx(best, rel=0.01)
    assert figures["test loss, trained"] == pytest.approx(F.mse_loss(predict(x_test), y_test).item(), rel=1e-9)
    assert figures["test loss of the mean"] == pytest.approx((y_test - y.mean()).square().mean().item())
    assert figures["test loss, trained"] < 0.5 * figures["test loss of the mean"]


def test_housing_reads_the_file_of_houses(example, plot, tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(506, 13)) * rng.uniform(0.1, 100, size=13) + rng.uniform(-50, 300, size=13)
    y = 22 + (x - x.mean(0)) / x.std(0) @ rng.normal(size=13) + rng.normal(size=506)
    file = tmp_path / "housing.data"
    np.savetxt(file, np.column_stack([x, y]), fmt="%12.6f")

    torch.manual_seed(0)
    figures = example("housing").main(epochs=100, data=str(file), plot=plot)

    torch.manual_seed(0)
    x, y, x_test, y_test = split(*torch.from_numpy(np.loadtxt(file)).split([13, 1], dim=1))
    loss, predict = descend(x, y, Flux.randn(1, 13), torch.zeros(1, dtype=torch.float64), 100)
    assert figures["training loss, last"] == pytest.approx(loss, rel=1e-9)
    assert figures["test loss, trained"] == pytest.approx(F.mse_loss(predict(x_test), y_test).item(), rel=1e-9)
    assert figures["test loss, trained"] < 1.7 and figures["test loss of the mean"] > 5
    out = capsys.readouterr().out
    assert f"loss(x_train, y_train) = {figures['training loss, last']}\n{figures['test loss, trained']}\n" in out


def test_housing_says_what_is_wrong_with_a_file(example, tmp_path):
    file = tmp_path / "other.data"
    np.savetxt(file, np.ones((20, 13)))
    with pytest.raises(ValueError, match=r"other\.data is not UCI's housing\.data: it has 13 numbers a line, not 14"):
        example("housing").main(data=str(file), plot="unused.png")


def test_fizzbuzz(example, plot, capsys):
    torch.manual_seed(0)
    figures = example("fizzbuzz").main(plot=plot)

    net = nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 4))
    torch.manual_seed(0)
    start_from(net, Flux.Chain(Flux.Dense((3, 20)), Flux.Dense((20, 4))))
    n = torch.arange(1, 101)
    x = torch.stack([n % 3, n % 5, n % 15], dim=1).float()
    y = torch.where(n % 15 == 0, 2, torch.where(n % 5 == 0, 1, torch.where(n % 3 == 0, 0, 3)))
    opt = torch.optim.Adam(net.parameters(), lr=0.001)

    def right():
        return (net(x).argmax(1) == y).float().mean().item()

    before, losses = right(), [step(opt, F.cross_entropy(net(x), y)) for _ in range(501)]

    assert figures["loss, untrained"] == pytest.approx(losses[0], rel=1e-4)
    assert figures["loss, trained"] == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-3)
    assert figures["right of 1 to 100, untrained"] == pytest.approx(before)
    assert figures["right of 1 to 100, trained"] == pytest.approx(right(), abs=0.03)
    assert figures["right of 1 to 100, trained"] > 0.9 and before < 0.6
    out = capsys.readouterr().out
    assert f"epoch  500: loss = {losses[500]:.4f} | deepbuzz of 3, 5, 15, 98 = ['fizz', 'buzz', 'fizzbuzz', 98]" in out


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.chain = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))

    def forward(self, x):
        return self.chain(x) + x


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 1))
        self.paths = nn.ModuleList([first, nn.Linear(1, 2), nn.Linear(1, 1)])
        self.last = nn.Linear(4, 1)

    def forward(self, xs):
        return self.last(torch.cat([f(x) for f, x in zip(self.paths, xs, strict=True)], dim=1))


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 5)
        self.heads = nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 3), nn.Linear(5, 2)])

    def forward(self, x):
        one, two, three = (head(self.first(x)) for head in self.heads)
        return one.tanh(), two.tanh(), three


@pytest.mark.parametrize("which", ["custom", "join", "split"])
def test_custom_layers_train_as_in_torch(example, which):
    module, epochs = example("custom_layers"), 15
    torch.manual_seed(0)
    make, net = {
        "custom": (module.custom_model, Residual()),
        "join": (module.join_model, Joined()),
        "split": (module.split_model, Forked()),
    }[which]
    model, teacher = make(), make()
    train, test = (module.join_data(n) if which == "join" else module.examples_of(teacher, 10, n) for n in (500, 200))

    def loss(m, x, y):
        return module.split_loss(x, y, m) if which == "split" else Flux.mse(m(x), y)

    def torch_loss(x, y):
        ŷ = net(x)
        if which == "split":
            return sum(F.mse_loss(a, b) for a, b in zip(ŷ, y, strict=True)).div(3).sqrt()
        return F.mse_loss(ŷ, y)

    def batch(data, rows):
        return [tuple(a.T[rows] for a in d) if isinstance(d, tuple) else d.T[rows] for d in data]

    start_from(net, model)
    torch.manual_seed(1)
    losses = module.fit(which, Flux.Adam(0.01), loss, model, train, test, epochs).tolist()

    torch.manual_seed(1)
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    order = Flux.DataLoader(torch.arange(500), batchsize=50, shuffle=True)
    expected = [torch_loss(*batch(test, slice(None))).item()]
    for _ in range(epochs):
        for rows in order:
            step(opt, torch_loss(*batch(train, rows)))
        expected.append(torch_loss(*batch(test, slice(None))).item())
    assert losses == pytest.approx(expected, rel=5e-3)
    assert losses[-1] < 0.35 * losses[0]


def test_custom_layers(example, plot, capsys):
    torch.manual_seed(0)
    figures = example("custom_layers").main(epochs=40, plot=plot)

    assert figures["CustomModel: test loss, trained"] < 0.1 < 0.5 < figures["CustomModel: test loss, untrained"]
    assert figures["Affine: test loss, trained"] < 1e-8 < 1 < figures["Affine: test loss, untrained"]
    assert figures["Affine: largest error of W"] < 1e-4 and figures["Affine: largest change of b"] == 0
    assert figures["Join: test loss, trained"] < 0.05 < 0.3 < figures["Join: test loss, untrained"]
    assert figures["Split: test loss, trained"] < 0.05 < 0.5 < figures["Split: test loss, untrained"]

    # What the page prints.
    out = capsys.readouterr().out
    W = "[1.0 2.0; 3.0 4.0; 5.0 6.0]"
    assert f"Affine({W}, [7.0, 8.0, 9.0])\n(W = {W}, b = [7.0, 8.0, 9.0])\n(W = {W},) (W = {W},)\n" in out
    assert f"FixedBias(Float16{W}, Float16[7.0, 8.0, 9.0])\n" in out
    # Join and Parallel give the same.
    lines = out.splitlines()
    joined = next(k for k, line in enumerate(lines) if line.startswith("tensor(["))
    assert lines[joined] == lines[joined + 1]
