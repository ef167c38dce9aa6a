"""Defining customised layers: the page of Flux 0.14's manual, with each of its models trained on small made-up data.

The layers are the page's: a model that adds its input to what a chain gives, an Affine of which only W is trained,
Join for several inputs (by hand, and as a Parallel), Split for several outputs. The page only calls them. Here
- CustomModel learns another one's function, of which it knows nothing but examples;
- Affine learns the page's W from the page's b, which stays;
- Join's model learns x₁² + x₂/2 - x₃, which has one term for each of its paths;
- Split's model learns another one's three outputs, with the page's loss.

Run: python examples/custom_layers.py [--epochs 100] [--gpu] [--plot custom_layers.png]
"""

from program import progress, run, save

import operator

import matplotlib.pyplot as plt
import torch

from fluxtorch import *
import fluxtorch as Flux

# -- Custom Model Example ----------------------------------------------------------------------------


@Flux.layer
class CustomModel:
    chain: Chain

    def __call__(self, x):
        # Anything may stand here, and all of it is differentiated.
        return self.chain(x) + x


def custom_model():
    chain = Chain(Dense(10 |to| 10, relu), Dense(10 |to| 10))
    return CustomModel(chain)


# -- Customising Parameter Collection for a Model ----------------------------------------------------


@Flux.layer
class Affine:
    W: torch.Tensor
    b: torch.Tensor

    @classmethod
    def sized(cls, n_in, n_out):  # Affine(in::Int, out::Int)
        return cls(randn32(n_out, n_in), randn32(n_out))

    def __call__(self, x):
        return broadcast(operator.add, self.W @ x, self.b)


class FixedBias(Affine):
    def trainable(self):  # Flux.trainable(a::Affine) = (; W = a.W)
        return nt(W=self.W)


@Flux.layer(trainable=("W",))  # the same, said to the macro
class FixedBias2(Affine):
    pass


# -- Multiple inputs: a custom Join layer ------------------------------------------------------------


@Flux.layer
class Join:
    combine: object
    paths: tuple

    # Join(combine, paths...)
    def __init__(self, combine, *paths):
        self.combine = combine
        self.paths = paths

    # m((x1, x2, x3)) and m(x1, x2, x3)
    def __call__(self, *xs):
        if len(xs) == 1 and isinstance(xs[0], tuple):
            xs = xs[0]
        return self.combine(*[f(x) for f, x in zip(self.paths, xs, strict=True)])


def join_model():
    return Chain(
        Join(
            vcat,
            Chain(Dense(1 |to| 5, relu), Dense(5 |to| 1)),  # branch 1
            Dense(1 |to| 2),  # branch 2
            Dense(1 |to| 1),  # branch 3
        ),
        Dense(4 |to| 1),
    )


def join_data(n):
    xs = tuple(2 * rand32(1, n) - 1 for _ in range(3))
    return xs, xs[0] ** 2 + xs[1] / 2 - xs[2]


# -- Multiple outputs: a custom Split layer ----------------------------------------------------------


@Flux.layer
class Split:
    paths: tuple

    # Split(paths...)
    def __init__(self, *paths):
        self.paths = paths

    def __call__(self, x):
        return tuple(f(x) for f in self.paths)


def split_model():
    return Chain(
        Dense(10 |to| 5),
        Split(Dense(5 |to| 1, tanh), Dense(5 |to| 3, tanh), Dense(5 |to| 2)),
    )


# x is the input, ys a tuple of outputs.
def split_loss(x, ys, model):
    # the root of the mean over all the mse
    ŷs = model(x)
    return sqrt(mean(Flux.mse(y, ŷ) for y, ŷ in zip(ys, ŷs, strict=True)))


# -- Training ----------------------------------------------------------------------------------------


# n random inputs as columns, and what a model makes of them.
def examples_of(teacher, n_in, n):
    x = randn32(n_in, n)
    with torch.no_grad():
        return x, teacher(x)


# Trains in batches of 50. Gives the loss on the test data before the first epoch and after each.
def fit(what, rule, loss, model, train, test, epochs):
    opt_state = Flux.setup(rule, model)
    loader = Flux.DataLoader(train, batchsize=50, shuffle=True)
    losses = []
    for epoch in progress(range(epochs), what):
        with torch.no_grad():
            losses.append(loss(model, *test))
        Flux.train_(loss, model, loader, opt_state)
    with torch.no_grad():
        losses.append(loss(model, *test))
    return cpu(stack(losses, dims=0))


def main(epochs: int = 100, gpu: bool = False, plot: str = "custom_layers.png") -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    mse = lambda m, x, y: Flux.mse(m(x), y)

    # A model that holds a chain.
    model = device(custom_model())
    print(repr(model))
    print(size(model(device(rand32(10)))))
    teacher = custom_model()
    train, test = device(examples_of(teacher, 10, 500)), device(examples_of(teacher, 10, 200))
    custom_losses = fit("CustomModel", Adam(0.01), mse, model, train, test, epochs)

    # What of a layer is trained.
    a = Affine(torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([7.0, 8, 9]))
    print(a)
    print(Flux.trainable(a))  # by default: W and b
    print(Flux.trainable(FixedBias(a.W, a.b)), Flux.trainable(FixedBias2(a.W, a.b)))  # W
    print(f16(FixedBias(a.W, a.b)))  # everything is converted or moved, trained or not
    train, test = device(examples_of(a, 2, 500)), device(examples_of(a, 2, 200))
    fixed = device(FixedBias(Affine.sized(2, 3).W, a.b.detach().clone()))
    affine_losses = fit("Affine", Descent(0.1), mse, fixed, train, test, epochs)
    fixed = cpu(fixed)
    print(fixed)

    # Several inputs.
    join = device(join_model())
    xs = device((rand32(1), rand32(1), rand32(1)))
    print(join(xs))
    # What Join does, Parallel does too.
    parallel = Chain(Parallel(join[0].combine, *join[0].paths), join[1])
    print(parallel(xs))
    join_losses = fit("Join", Adam(0.01), mse, join, device(join_data(500)), device(join_data(200)), epochs)
    with torch.no_grad():
        apart = torch.linspace(-1, 1, 41)[None, :]
        none = zeros32(1, 41)
        inputs = [(apart, none, none), (none, apart, none), (none, none, apart)]
        terms = [cpu(join(device(xs)) - join(device((none, none, none)))) for xs in inputs]

    # Several outputs.
    split = device(split_model())
    print(split(device(rand32(10))))
    teacher = split_model()
    train, test = device(examples_of(teacher, 10, 500)), device(examples_of(teacher, 10, 200))
    with torch.no_grad():
        before = cpu(split(test[0]))
    split_losses = fit("Split", Adam(0.01), lambda m, x, ys: split_loss(x, ys, m), split, train, test, epochs)
    with torch.no_grad():
        outputs = before, cpu(split(test[0])), cpu(test[1])

    figures = {}
    courses = {"CustomModel": custom_losses, "Affine": affine_losses, "Join": join_losses, "Split": split_losses}
    for what, losses in courses.items():
        figures[f"{what}: test loss, untrained"] = losses[0].item()
        figures[f"{what}: test loss, trained"] = losses[-1].item()
    figures["Affine: largest error of W"] = maximum(abs(fixed.W - a.W)).item()
    figures["Affine: largest change of b"] = maximum(abs(fixed.b - a.b)).item()
    figures["picture"] = draw(courses, vec(apart), terms, outputs, plot)
    return figures


def draw(courses, apart, terms, outputs, path):
    figure, (course, join, split) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")

    for what, losses in courses.items():
        course.semilogy(range(len(losses)), losses, label=what)
    course.set(title="Test loss", xlabel="epoch", ylabel="mean squared error (Split: its root)")
    course.legend()

    for k, term, truth in zip((1, 2, 3), terms, (apart**2, apart / 2, -apart), strict=True):
        join.plot(apart, truth, color="grey", linestyle="--", linewidth=1, label="x₁², x₂/2, -x₃" if k == 1 else None)
        join.plot(apart, vec(term), label=f"learned of x{'₀₁₂₃'[k]}")
    join.set(title="Join: the part of each input", xlabel="that input, the others 0", ylabel="change of the output")
    join.legend()

    untrained, trained, truth = (vcat(*[vec(y) for y in ys]) for ys in outputs)
    split.scatter(truth, untrained, s=8, color="lightgrey", label="before training")
    split.scatter(truth, trained, s=8, label="after training")
    split.set(title="Split: all outputs, for the test data", xlabel="truth", ylabel="predicted")
    split.legend()
    return save(figure, path)


if __name__ == "__main__":
    run(main)
