"""Two convolutional networks play against each other: one draws handwritten digits, one tells them from real ones.

Radford, Metz and Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, https://arxiv.org/abs/1511.06434. It follows vision/dcgan_mnist of Flux's model zoo, which says that an epoch
takes 20 minutes on a CPU. Here all is smaller, and nothing is downloaded: scikit-learn's 1498 digits, their 8×8
pixels upsampled to 16×16, a quarter of the channels, batches of 32, and 1900 steps that are longer, with the paper's
0.5 for the first β of Adam.

Run:                     python examples/dcgan.py
on MNIST, as the Julia:  python examples/dcgan.py --gpu --data FOLDER --epochs 20 --batch-size 128 --channels 64 \\
                         --lr 2e-4 --beta 0.9
"""

import torch
from matplotlib import pyplot as plt

from fluxtorch import *
from fluxtorch.losses import logitbinarycrossentropy
from fluxtorch.mlutils import randn_like
from fluxtorch.optimise import update_
import fluxtorch as Flux

from digits import digits
from program import progress, run, save


def create_output_image(gen, fixed_noise, output_y):
    """What the generator makes of each noise, output_y pictures above each other, as a matrix from 0 to 1."""
    with torch.no_grad():
        fake_images = [cpu(gen(noise)) for noise in fixed_noise]
    image_array = vcat(*[hcat(*column) for column in partition(fake_images, output_y)])
    image_array = permutedims(image_array[:, :, 0, 0], (1, 0))
    return (image_array + 1) / 2


# How the paper begins with the weights
def dcgan_init(*shape):
    return randn(torch.float32, *shape) * 0.02


def Discriminator(side, channels):
    return Chain(
        Conv((4, 4), 1 |to| channels, stride=2, pad=1, init=dcgan_init),
        lambda x: leakyrelu(x, 0.2),
        Dropout(0.25),
        Conv((4, 4), channels |to| 2 * channels, stride=2, pad=1, init=dcgan_init),
        lambda x: leakyrelu(x, 0.2),
        Dropout(0.25),
        lambda x: reshape(x, side * side * 2 * channels, -1),
        Dense(side * side * 2 * channels |to| 1),
    )


def Generator(latent_dim, side, channels):
    return Chain(
        Dense(latent_dim |to| side * side * 4 * channels),
        BatchNorm(side * side * 4 * channels, relu),
        lambda x: reshape(x, side, side, 4 * channels, -1),
        ConvTranspose((5, 5), 4 * channels |to| 2 * channels, stride=1, pad=2, init=dcgan_init),
        BatchNorm(2 * channels, relu),
        ConvTranspose((4, 4), 2 * channels |to| channels, stride=2, pad=1, init=dcgan_init),
        BatchNorm(channels, relu),
        ConvTranspose((4, 4), channels |to| 1, stride=2, pad=1, init=dcgan_init),
        tanh,
    )


def discriminator_loss(real_output, fake_output):
    real_loss = logitbinarycrossentropy(real_output, 1)
    fake_loss = logitbinarycrossentropy(fake_output, 0)
    return real_loss + fake_loss


def generator_loss(fake_output):
    return logitbinarycrossentropy(fake_output, 1)


def train_discriminator_(gen, dscr, x, opt_dscr, hparams):
    noise = randn_like(x, (hparams.latent_dim, hparams.batch_size))
    fake_input = gen(noise)
    # Taking gradient
    loss, grads = Flux.withgradient(
        lambda dscr: discriminator_loss(dscr(x), dscr(fake_input)),
        dscr,
    )
    update_(opt_dscr, dscr, grads[0])
    return loss


def train_generator_(gen, dscr, x, opt_gen, hparams):
    noise = randn_like(x, (hparams.latent_dim, hparams.batch_size))
    # Taking gradient
    loss, grads = Flux.withgradient(
        lambda gen: generator_loss(dscr(gen(noise))),
        gen,
    )
    update_(opt_gen, gen, grads[0])
    return loss


def nearest(xs, ys):
    """For each picture of xs the one of ys that is most like it: how much ink they differ by, and which it is."""
    distance, index = torch.cdist(Flux.flatten(xs).T, Flux.flatten(ys).T, p=1).min(1)
    return mean(distance / 2).item(), index  # the pixels are from -1 to 1


def main(
    epochs: int = 40,
    gpu: bool = False,
    data: str | None = None,
    batch_size: int = 32,
    channels: int = 16,
    lr: float = 2e-3,
    beta: float = 0.5,
    plot: str = "dcgan.png",
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    hparams = nt(
        batch_size=batch_size,
        latent_dim=100,
        epochs=epochs,
        output_x=6,
        output_y=6,
        lr_dscr=lr,
        lr_gen=lr,
    )

    train_data, test_data = (device(digits(data, split, size=(16, 16))) for split in ("train", "test"))
    # Normalise to [-1, 1]
    image_tensor, test_tensor = 2 * train_data.features - 1, 2 * test_data.features[:, :, :, :300] - 1
    width, _, _, N = size(image_tensor)
    # Partition into batches
    batches = [getobs(image_tensor, r) for r in partition(range(N), hparams.batch_size)]

    fixed_noise = [
        device(randn(torch.float32, hparams.latent_dim, 1)) for _ in range(hparams.output_x * hparams.output_y)
    ]
    test_noise = device(randn(torch.float32, hparams.latent_dim, size(test_tensor)[-1]))

    # Both strides of 2 halve the pictures, and double them.
    dscr = device(Discriminator(width // 4, channels))
    gen = device(Generator(hparams.latent_dim, width // 4, channels))

    opt_dscr = Flux.setup(Adam(hparams.lr_dscr, (beta, 0.999)), dscr)
    opt_gen = Flux.setup(Adam(hparams.lr_gen, (beta, 0.999)), gen)

    with torch.no_grad():
        before, _ = nearest(gen(test_noise), image_tensor)

    # -- Training ------------------------------------------------------------------------------------

    losses = []
    verbose_freq = max(1, hparams.epochs * len(batches) // 3)
    output_images = {0: create_output_image(gen, fixed_noise, hparams.output_y)}
    for ep in progress(range(1, hparams.epochs + 1), "epochs"):
        for x in batches:
            # Update discriminator and generator
            loss_dscr = train_discriminator_(gen, dscr, x, opt_dscr, hparams)
            loss_gen = train_generator_(gen, dscr, x, opt_gen, hparams)
            losses.append(torch.stack([loss_dscr, loss_gen]))

            train_steps = len(losses)
            if train_steps % verbose_freq == 0:
                print(
                    f"Train step {train_steps}, Discriminator loss = {loss_dscr:.3f}, Generator loss = {loss_gen:.3f}"
                )
                output_images[train_steps] = create_output_image(gen, fixed_noise, hparams.output_y)

    # -- Figures -------------------------------------------------------------------------------------

    # A drawing is good if some real digit is like it, and all are if together they are like digits of all kinds.
    with torch.no_grad():
        after, resembled = nearest(gen(test_noise), image_tensor)
    among_real, _ = nearest(test_tensor, image_tensor)
    counts = frequencies(train_data.targets[resembled])

    losses = cpu(stack(losses, dims=1))
    loss_dscr, loss_gen = mean(losses[:, -len(batches) :], dims=1)[:, 0].tolist()
    real = [cpu(image_tensor[:, :, :, [i]]) for i in range(len(fixed_noise))]
    return {
        "discriminator loss": loss_dscr,  # 2 log 2 = 1.386 if it can only guess
        "generator loss": loss_gen,
        "pixels off the nearest digit before": before,
        "pixels off the nearest digit": after,
        "pixels that a real digit is off another": among_real,
        "digits drawn": len([n for n in counts.values() if n >= 0.02 * len(resembled)]),
        "plot": save(draw(losses, output_images, create_output_image(identity, real, hparams.output_y)), plot),
    }


def draw(losses, output_images, real):
    figure, axes = plt.subplots(2, 3, figsize=(12, 7.8), layout="constrained")
    curves, *panels = axes.flat

    # Each point is the mean of some steps, as single ones jump.
    smooth = mean(reshape(losses[:, : losses.shape[1] // 10 * 10], 2, 10, -1), dims=1)[:, 0, :]
    steps = range(10, 10 * smooth.shape[1] + 1, 10)
    curves.plot(steps, smooth[0].tolist(), label="discriminator")
    curves.plot(steps, smooth[1].tolist(), label="generator")
    curves.axhline(1.386, color="C0", ls=":", lw=1, label="a discriminator that guesses")
    curves.axhline(0.693, color="C1", ls=":", lw=1, label="a generator that is guessed at")
    curves.set(title="Losses", xlabel="step", ylabel="logit binary cross-entropy")
    curves.set_ylim(bottom=0)
    curves.legend()

    images = {"Real digits": real} | {f"Drawn after {step} steps": image for step, image in output_images.items()}
    for title, image in images.items():
        ax = panels.pop(0)
        ax.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1)
        ax.set(title=title, xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    run(main)
