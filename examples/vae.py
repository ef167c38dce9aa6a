"""A variational auto-encoder learns to draw handwritten digits: each becomes a few numbers, and is drawn from them.

Kingma and Welling, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114. It follows vision/vae_mnist of
Flux's model zoo, and draws its pictures at the end. The digits are scikit-learn's 1498, their 8×8 pixels upsampled to
MNIST's size, so that nothing is downloaded; codes of 10 numbers, not 64, are learnt from fewer digits, in 2350 steps
in place of 9400.

Run:                     python examples/vae.py
on MNIST, as the Julia:  python examples/vae.py --data FOLDER --epochs 20 --batch-size 128 --latent-dim 64
"""

import torch
from matplotlib import pyplot as plt

from fluxtorch import *
from fluxtorch import base
from fluxtorch.mlutils import randn_like
import fluxtorch as Flux

from digits import digits
from program import progress, run, save


# Pictures as columns, with their labels
def get_data(data, batch_size):
    xtrain = reshape(data.features, -1, len(data.targets))
    return DataLoader((xtrain, data.targets), batchsize=batch_size, shuffle=True)


@Flux.layer
class Encoder:
    def __init__(self, input_dim, latent_dim, hidden_dim):
        self.linear = Dense(input_dim, hidden_dim, tanh)
        self.μ = Dense(hidden_dim, latent_dim)
        self.logσ = Dense(hidden_dim, latent_dim)

    def __call__(self, x):
        h = self.linear(x)
        return self.μ(h), self.logσ(h)


def Decoder(input_dim, latent_dim, hidden_dim):
    return Chain(
        Dense(latent_dim, hidden_dim, tanh),
        Dense(hidden_dim, input_dim),
    )


def reconstruct(encoder, decoder, x):
    μ, logσ = encoder(x)
    z = μ + randn_like(logσ) * exp(logσ)
    return μ, logσ, decoder(z)


def model_loss(encoder, decoder, x):
    μ, logσ, decoder_z = reconstruct(encoder, decoder, x)
    batch_size = size(x)[-1]
    # KL-divergence of the code from the standard normal distribution
    kl_q_p = 0.5 * base.sum(exp(2 * logσ) + μ**2 - 1 - 2 * logσ) / batch_size

    logp_x_z = -logitbinarycrossentropy(decoder_z, x, agg=base.sum) / batch_size

    return -logp_x_z + kl_q_p


def convert_to_image(x, y_size):
    """The columns of x as pictures, y_size of them above each other, as a matrix that is shown as it is."""
    return permutedims(vcat(*[reshape(c, 28, -1) for c in chunk(cpu(x), y_size)]), (1, 0))


def main(
    epochs: int = 50,
    gpu: bool = False,
    data: str | None = None,
    batch_size: int = 32,
    latent_dim: int = 10,
    plot: str = "vae.png",
) -> dict:
    device = Flux.gpu if gpu else Flux.cpu
    train_data, test_data = (device(digits(data, split, size=(28, 28))) for split in ("train", "test"))
    args = nt(
        η=1e-3,  # learning rate
        λ=1e-4,  # regularisation
        batch_size=batch_size,
        sample_size=10,  # rows and columns of pictures that are looked at
        epochs=epochs,
        input_dim=28**2,
        latent_dim=latent_dim,
        hidden_dim=500,
    )

    loader = get_data(train_data, args.batch_size)
    test_x, test_y = only(get_data(test_data, len(test_data.targets)))

    encoder = device(Encoder(args.input_dim, args.latent_dim, args.hidden_dim))
    decoder = device(Decoder(args.input_dim, args.latent_dim, args.hidden_dim))

    opt_enc = Flux.setup(AdamW(eta=args.η, lambda_=args.λ), encoder)
    opt_dec = Flux.setup(AdamW(eta=args.η, lambda_=args.λ), decoder)

    original, _ = next(iter(get_data(train_data, args.sample_size**2)))

    with torch.no_grad():
        before = model_loss(encoder, decoder, test_x).item()
        # what a decoder that looks at no code would reach
        mean_x = mean(only(get_data(train_data, len(train_data.targets)))[0], dims=1).expand(size(test_x))
        blind = binarycrossentropy(mean_x, test_x, agg=base.sum).item() / size(test_x)[-1]

    # -- Training ------------------------------------------------------------------------------------

    print(f"Start Training, total {args.epochs} epochs")
    losses, test_losses = [], []
    for epoch in progress(range(1, args.epochs + 1), "epochs"):
        total = 0.0
        for x, _ in loader:
            loss, (grad_enc, grad_dec) = Flux.withgradient(
                lambda enc, dec: model_loss(enc, dec, x),
                encoder,
                decoder,
            )

            Flux.update_(opt_enc, encoder, grad_enc)
            Flux.update_(opt_dec, decoder, grad_dec)
            total = total + loss / len(loader)

        with torch.no_grad():
            losses.append(total.item())
            test_losses.append(model_loss(encoder, decoder, test_x).item())
        if epoch % 10 == 0 or epoch == args.epochs:
            print(f"Epoch {epoch}: loss = {losses[-1]:.2f}, test_loss = {test_losses[-1]:.2f}")

    # -- Plots ---------------------------------------------------------------------------------------

    with torch.no_grad():
        _, _, rec_original = reconstruct(encoder, decoder, original)
        rec_original = sigmoid(rec_original)

        # where the encoder puts each digit
        train_x, train_y = only(get_data(train_data, len(train_data.targets)))
        train_μ, _ = encoder(train_x)
        test_μ, _ = encoder(test_x)

        # what the decoder draws of random codes
        samples = sigmoid(decoder(device(randn32(args.latent_dim, args.sample_size**2))))

    # Codes are of use if digits that look alike have codes that are near: a test digit's label is guessed from the
    # training digit whose code is nearest.
    nearest = torch.cdist(test_μ[:, :1000].T, train_μ.T).argmin(1)
    accuracy = 100 * mean(train_y[nearest] == test_y[:1000]).item()

    pictures = {
        "digits": ("Digits, as they are", convert_to_image(original, args.sample_size)),
        "drawn": ("and as drawn from their codes", convert_to_image(rec_original, args.sample_size)),
        "random": ("Drawn from random codes", convert_to_image(samples, args.sample_size)),
    }
    return {
        "test loss before": before,
        "test loss of the mean picture": blind,
        "train loss": losses[-1],
        "test loss": test_losses[-1],
        "accuracy of the nearest code": accuracy,
        "plot": save(draw(losses, test_losses, blind, pictures, cpu(train_μ), cpu(train_y)), plot),
    }


def draw(losses, test_losses, blind, pictures, μ, y):
    figure, axes = plt.subplot_mosaic([["loss", "digits", "drawn"], ["codes", "codes", "random"]], figsize=(12, 7.8))
    figure.set_layout_engine("constrained")

    axes["loss"].plot(range(1, len(losses) + 1), losses, label="train")
    axes["loss"].plot(range(1, len(losses) + 1), test_losses, label="test")
    axes["loss"].axhline(blind, color="gray", ls=":", label="mean picture, no code")
    axes["loss"].set(title="Loss, the negative evidence bound", xlabel="epoch", ylabel="nats per picture")
    axes["loss"].legend()

    for name, (title, image) in pictures.items():
        axes[name].imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes[name].set(title=title, xticks=[], yticks=[])

    # Most codes have more than two dimensions, and are seen from where they are widest.
    directions, _, _ = torch.linalg.svd(μ - mean(μ, dims=1), full_matrices=False)
    seen = (directions[:, :2].T @ μ).numpy()
    points = axes["codes"].scatter(*seen, c=y.numpy(), cmap="tab10", vmin=-0.5, vmax=9.5, s=12, alpha=0.8)
    axes["codes"].set(title="Codes of the digits, in their two main directions", xticks=[], yticks=[])
    figure.colorbar(points, ax=axes["codes"], ticks=range(10), pad=0.01)
    return figure


if __name__ == "__main__":
    run(main)
