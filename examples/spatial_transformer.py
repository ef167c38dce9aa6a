"""Spatial transformer: a network that turns, zooms and moves images before another one reads the digits in them.

Follows vision/spatial_transformer of the Flux model zoo (Flux 0.13, implicit parameters): the same two networks, grid
and training. There the digits are MNIST's. Here scikit-learn's, 8×8, are drawn on 28×28 turned, moved and among scraps
of others, which needs no network and gives the transformer something to do; `--data FOLDER` takes MNIST's own files,
and leaves their images as they are. Other differences: the transformer begins as the identity, Adam's steps are larger,
as there are 470 in place of 37480, and the classifier is also trained without the transformer, for comparison.

Run: python examples/spatial_transformer.py [--epochs 10] [--gpu] [--data FOLDER] [--plot spatial_transformer.png]
"""

import matplotlib.pyplot as plt
import torch
from digits import digits
from program import progress, run, save

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import base

args = dict(
    bsz=64,  # images in a batch
    img_size=(28, 28),  # width and height
    η=1e-3,  # Adam's step (1e-4 in the model zoo)
)

# -- Data --------------------------------------------------------------------------------------------


def place(x, angle, scale, at):
    """Images `x`, (w, h, 1, N), drawn on empty ones of 28×28: turned, `scale` times as wide as those, around `at`."""
    A = torch.stack([cos(angle), sin(angle), -sin(angle), cos(angle)]) / scale
    A = reshape(A, 2, 2, -1)
    theta = cat(A, -batched_mul(A, unsqueeze(at, dims=1)), dims=1)
    grid = batched_mul(theta, get_sampling_grid(*args["img_size"]))
    return grid_sample(x, reshape(grid, 2, *args["img_size"], -1))


def uniform(low, high, *size):
    return low + (high - low) * rand32(*size)


def clutter(x, scraps=4):
    """Digits `x`, (8, 8, 1, N), turned and moved, each among small pieces of others."""
    n = x.shape[-1]
    y = place(x, uniform(-0.8, 0.8, n), uniform(0.4, 0.6, n), uniform(-0.4, 0.4, 2, n))
    for _ in range(scraps):
        other = x[..., torch.randperm(n)]
        scrap = place(other, uniform(-3, 3, n), uniform(0.12, 0.18, n), uniform(-0.9, 0.9, 2, n))
        y = torch.maximum(y, scrap)
    return y[:, :, 0, :]


def get_data(data=None, copies=2):
    """Training and test images, (28, 28, N), with their labels."""
    train, test = digits(data, "train"), digits(data, "test")
    if data is not None:
        return (train.features[:, :, 0, :], train.targets), (test.features[:, :, 0, :], test.targets)
    drawn = [clutter(train.features) for _ in range(copies)]
    return (cat(*drawn, dims=2), train.targets.repeat(copies)), (clutter(test.features), test.targets)


# -- Interpolation -----------------------------------------------------------------------------------


def get_sampling_grid(width, height):
    """The places of all pixels, from -1 to 1, with a row of ones: 3 × (width · height) × 1."""
    x = torch.linspace(-1, 1, width)
    y = torch.linspace(-1, 1, height)
    x_t_flat = x.repeat(height)
    y_t_flat = y.repeat_interleave(width)
    return unsqueeze(stack([x_t_flat, y_t_flat, ones32(width * height)], dims=0), dims=2)


def affine_grid_generator(sampling_grid, thetas, sz=args["img_size"]):
    """The places that `thetas`, 6 numbers for each image, move those of `sampling_grid` to: 2 × width × height × N."""
    # The offsets, thetas[4:6], are multiplied by the scale, thetas[0] and thetas[3].
    theta = vcat(thetas[0:4, :], thetas[[0, 3], :] * thetas[4:6, :])
    theta = reshape(theta, 2, 3, -1)
    transformed_grid = batched_mul(theta, sampling_grid)
    return reshape(transformed_grid, 2, *sz, -1)


def sample_patch(x, thetas, sampling_grid, sz=args["img_size"]):
    """The images `x` at the places where `thetas` put the grid: width × height × 1 × N."""
    ximg = reshape(x, *sz, 1, -1)
    tr_grid = affine_grid_generator(sampling_grid, thetas, sz)
    return grid_sample(ximg, tr_grid, padding_mode="zeros")


# -- Models ------------------------------------------------------------------------------------------


def get_models():
    # Says for each image how to turn, stretch and move it
    localization_net = Chain(
        lambda x: unsqueeze(x, dims=2),  # the channel's axis, for Conv
        Conv((5, 5), 1 |to| 20, stride=(1, 1), pad=(0, 0)),
        MaxPool((2, 2)),
        Conv((5, 5), 20 |to| 20, stride=(1, 1), pad=(0, 0)),
        flatten,
        Dense(1280, 50, relu),
        Dense(50 |to| 6, init=zeros32, bias=torch.tensor([1.0, 0, 0, 1, 0, 0])),  # at first, not at all
    )

    # Reads the images that come of it
    classifier = Chain(
        Conv((3, 3), 1 |to| 32, relu),
        MaxPool((2, 2)),
        Conv((3, 3), 32 |to| 32, relu),
        MaxPool((2, 2)),
        flatten,
        Dense(800, 256, relu),
        Dense(256, 10),
    )
    return localization_net, classifier


def straight(x):
    """In place of the localization net: leaves the images as they are."""
    return torch.tensor([1.0, 0, 0, 1, 0, 0], device=x.device)[:, None].expand(6, x.shape[-1])


def transform_image(m, x):
    """Images `x` as the classifier gets them."""
    thetas = m.localization_net(x)
    return sample_patch(x, thetas, m.sampling_grid)


def model_loss(m, x, y):
    xnew = transform_image(m, x)
    ŷ = m.classifier(xnew)
    return Flux.logitcrossentropy(ŷ, y)


accuracy = lambda ŷ, y: mean(onecold(ŷ) == onecold(y))


def train_model(m, opt, ps, train_loader, epoch=1):
    losses = []
    for x, y in progress(train_loader, f"Training epoch {epoch}"):
        loss, grad = withgradient(lambda: model_loss(m, x, y), ps)
        Flux.update_(opt, ps, grad)
        losses.append(loss)
    return losses


@torch.no_grad()
def test_model(m, test_loader):
    L, acc, n = 0, 0, 0
    for x, y in test_loader:
        ŷ = m.classifier(transform_image(m, x))
        L += Flux.logitcrossentropy(ŷ, y, agg=base.sum)
        acc += accuracy(ŷ, y) * numobs(y)
        n += numobs(y)
    return (L / n).item(), (acc / n).item()


# -- Plots -------------------------------------------------------------------------------------------


def plot_batch(axes, x, title, ncols=6):
    """The images `x`, width × height × N, as one, row by row."""
    rows = [vcat(*row) for row in partition(eachslice(x, dims=2), ncols)]
    axes.imshow(hcat(*rows).T.numpy(), cmap="gray", vmin=0, vmax=1)
    for edge in range(1, ncols):
        axes.axhline(edge * x.shape[1] - 0.5, color="gray", lw=0.5)
        axes.axvline(edge * x.shape[0] - 0.5, color="gray", lw=0.5)
    axes.set(title=title, xticks=[], yticks=[])


@torch.no_grad()
def plot_stn(m, x, curves, ncols=6):
    """Images, the frame that the transformer puts around what it wants to see, and what the classifier gets."""
    x = x[:, :, : ncols**2]
    w, h = args["img_size"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    plot_batch(left, cpu(x), "Original, and where it looks (the top is red)", ncols)
    plot_batch(middle, cpu(transform_image(m, x))[:, :, 0, :], "Transformed", ncols)

    frames = cpu(affine_grid_generator(m.sampling_grid, m.localization_net(x)))
    for i in range(x.shape[2]):
        row, column = divmod(i, ncols)
        corners = frames[:, [0, -1, -1, 0, 0], [0, 0, -1, -1, 0], i].numpy()
        at_x = (corners[0] + 1) / 2 * (w - 1) + column * w
        at_y = (corners[1] + 1) / 2 * (h - 1) + row * h
        image = plt.Rectangle((column * w - 0.5, row * h - 0.5), w, h, transform=left.transData)
        for line in left.plot(at_x, at_y, "orange", at_x[:2], at_y[:2], "red", lw=1.2, scalex=False, scaley=False):
            line.set_clip_path(image)

    for name, accs in curves.items():
        right.plot(range(1, len(accs) + 1), accs, marker=".", label=name)
    right.set(title="Test accuracy", xlabel="epoch", ylim=(None, 1))
    right.grid(alpha=0.3)
    right.legend(loc="lower right")
    return figure


# -- Training ----------------------------------------------------------------------------------------


def main(epochs: int = 10, gpu: bool = False, data: str | None = None, plot: str = "spatial_transformer.png") -> dict:
    dev = Flux.gpu if gpu else cpu

    (train_digits, train_labels), (test_digits, test_labels) = get_data(data)
    train_labels = onehotbatch(train_labels, range(10))
    test_labels = onehotbatch(test_labels, range(10))
    train_loader = DataLoader((dev(train_digits), dev(train_labels)), batchsize=args["bsz"], shuffle=True)
    test_loader = DataLoader((dev(test_digits), dev(test_labels)), batchsize=args["bsz"])

    sampling_grid = dev(get_sampling_grid(*args["img_size"]))
    localization_net, classifier = dev(get_models())
    m = nt(localization_net=localization_net, classifier=classifier, sampling_grid=sampling_grid)
    alone = nt(localization_net=straight, classifier=dev(get_models()[1]), sampling_grid=sampling_grid)
    runs = {
        "with the transformer": (m, Flux.params(m.localization_net, m.classifier)),
        "classifier alone": (alone, Flux.params(alone.classifier)),
    }

    figures, curves = {}, {}
    for name, (model, ps) in runs.items():
        opt = Adam(args["η"])
        curves[name] = []
        for epoch in range(1, epochs + 1):
            train_model(model, opt, ps, train_loader, epoch)
            Ltest, test_acc = test_model(model, test_loader)
            curves[name].append(test_acc)
            print(f"{name}, epoch {epoch}: test loss {Ltest:.4f}, test accuracy {100 * test_acc:.1f} %")
        figures |= {f"test loss {name}": Ltest, f"test accuracy {name}": test_acc}

    figures["picture"] = save(plot_stn(m, dev(test_digits), curves), plot)
    return figures


if __name__ == "__main__":
    run(main)
