"""The example programs with a spatial transformer and with a pretrained ResNet learn what the same in torch does."""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fluxtorch as Flux

for needed in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(needed)


@pytest.fixture
def same_kernels(monkeypatch):
    """The very kernels that torch takes: what these programs read from between pixels, rounding decides."""
    monkeypatch.setattr("fluxtorch.layers.layout._has_onednn", lambda: False)
    monkeypatch.setattr("fluxtorch.layers.linear._onednn_is_faster", lambda: False)


# -- Spatial transformer ---------------------------------------------------------------------------


@pytest.fixture
def stn(example, monkeypatch):
    """The program with five of the digits, moved and turned, without scraps: they are learned in few steps."""
    stn = example("spatial_transformer")

    def drawn(split):
        found = example("digits").digits(split=split)
        x, y = found.features[..., found.targets < 5], found.targets[found.targets < 5]
        n = len(y)
        angle, scale, at = stn.uniform(-0.3, 0.3, n), stn.uniform(0.4, 0.6, n), stn.uniform(-0.3, 0.3, 2, n)
        return stn.place(x, angle, scale, at)[:, :, 0, :], y

    torch.manual_seed(1)
    data = drawn("train"), drawn("test")
    monkeypatch.setattr(stn, "get_data", lambda path=None: data)
    monkeypatch.setitem(stn.args, "bsz", 16)
    return stn


def test_spatial_transformer_learns(stn, tmp_path):
    torch.manual_seed(0)
    figures = stn.main(epochs=3, plot=str(tmp_path / "x.png"))
    assert os.path.getsize(figures["picture"]) > 10_000
    assert figures["test accuracy with the transformer"] > 0.85  # by chance, 0.2
    assert figures["test accuracy with the transformer"] > figures["test accuracy classifier alone"]
    assert figures["test loss with the transformer"] < figures["test loss classifier alone"]


def test_spatial_transformer_learns_as_in_torch(stn, same_kernels):
    torch.manual_seed(0)
    localization_net, classifier = stn.get_models()
    net, reader = copy.deepcopy((Flux.to_torch(localization_net[1:]), Flux.to_torch(classifier)))
    batches = list(Flux.DataLoader(stn.get_data()[0], batchsize=16, shuffle=True))[:40]

    grid = stn.get_sampling_grid(28, 28)
    m = Flux.nt(localization_net=localization_net, classifier=classifier, sampling_grid=grid)
    onehot = [(x, Flux.onehotbatch(y, range(10))) for x, y in batches]
    losses = stn.train_model(m, Flux.Adam(1e-3), Flux.params(localization_net, classifier), onehot)

    opt = torch.optim.Adam([*net.parameters(), *reader.parameters()], lr=1e-3)
    for (x, y), loss in zip(batches, losses, strict=True):
        x = x.permute(2, 1, 0)[:, None]
        t = net(x)
        at = (t[:, [0, 3]] * t[:, 4:6])[:, :, None]
        places = F.affine_grid(torch.cat([t[:, :4].reshape(-1, 2, 2).mT, at], 2), x.shape, align_corners=True)
        same = F.cross_entropy(reader(F.grid_sample(x, places, align_corners=True)), y)
        torch.testing.assert_close(loss, same.detach(), rtol=1e-2, atol=0)
        opt.zero_grad()
        same.backward()
        opt.step()
    assert same < 0.75 * losses[0]


def test_grid_moves_images_as_said(example):
    stn = example("spatial_transformer")
    grid = stn.get_sampling_grid(28, 28)
    x = torch.rand(28, 28, 2)
    same = stn.sample_patch(x, stn.straight(x), grid)
    torch.testing.assert_close(same[:, :, 0, :], x)
    # A quarter of a turn; the right half (the offset counts in units of the scale) and the middle half of the height.
    thetas = torch.tensor([[0.0, 1, -1, 0, 0, 0], [0.5, 0, 0, 0.5, 1, 0]]).T
    y = stn.sample_patch(x, thetas, grid)[:, :, 0, :]
    torch.testing.assert_close(y[:, :, 0], torch.rot90(x[:, :, 0], -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(y[27, 0, 1], 0.25 * x[27, 6, 1] + 0.75 * x[27, 7, 1])
    torch.testing.assert_close(y[0, 27, 1], 0.75 * x[13:15, 20, 1].mean() + 0.25 * x[13:15, 21, 1].mean())


# -- Transfer learning -----------------------------------------------------------------------------


def test_transfer(example, monkeypatch, tmp_path, same_kernels):
    transfer = example("transfer")
    train, digits = transfer.train, transfer.digits
    start = {}

    def noted(what, epochs, step, m, deval):
        start[what] = copy.deepcopy(m), torch.get_rng_state(), m
        return train(what, epochs, step, m, deval)

    def fewer_tests(split):
        x, y, _ = digits(split=split)
        return Flux.nt(features=x[..., :100], targets=y[:100]) if split == "test" else Flux.nt(features=x, targets=y)

    monkeypatch.setattr(transfer, "train", noted)
    monkeypatch.setattr(transfer, "digits", fewer_tests)

    epochs = 4
    torch.manual_seed(0)
    figures = transfer.main(epochs=epochs, steps=120, plot=str(tmp_path / "x.png"))
    assert os.path.getsize(figures["picture"]) > 10_000
    assert figures["accuracy fine-tuned"] > max(figures["accuracy from scratch"] + 0.1, 0.5)  # by chance, 0.1

    # The new layer and the fine-tuning in torch, from the same weights, on the same batches.
    model, rng, _ = start["🐢 new layer"]
    body, head = Flux.to_torch(model[0]).eval(), Flux.to_torch(model[1][2])
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    data, tests = fewer_tests("train"), fewer_tests("test")
    few = transfer.ImageContainer(data, transfer.few(data.targets, 5))
    batches = Flux.DataLoader(few, batchsize=16, shuffle=True, collate=True)
    x, y = next(iter(Flux.DataLoader(transfer.ImageContainer(tests, range(100)), batchsize=100, collate=True)))

    def accuracy():
        with torch.no_grad():
            return (model(x.permute(3, 2, 1, 0)).argmax(1) == y).float().mean().item()

    def run():
        for _ in range(epochs):
            for a, b in batches:
                opt.zero_grad()
                F.cross_entropy(model(a.permute(3, 2, 1, 0)), b).backward()
                opt.step()

    torch.set_rng_state(rng)
    opt = torch.optim.Adam(head.parameters(), lr=3e-3)
    run()
    assert figures["accuracy with a new layer"] >= accuracy() - 0.03
    opt.add_param_group({"params": list(body.parameters())})
    for group in opt.param_groups:
        group["lr"] = 3e-4
    run()
    assert figures["accuracy fine-tuned"] >= accuracy() - 0.03
    with torch.no_grad():
        tuned = start["🐢 fine-tuned"][2]
        torch.testing.assert_close(tuned(x).T, model(x.permute(3, 2, 1, 0)), atol=1e-2, rtol=1e-2)
    print(figures)


def test_resnet_has_torchvisions_names(example, tmp_path):
    transfer = example("transfer")
    with torch.device("meta"):
        resnet = transfer.resnet18(64, 1000)
    names = list(resnet.state_dict())
    assert sum(p.numel() for p in resnet.parameters()) == 11_689_512  # torchvision's
    assert len(names) == 122 and names[0] == "conv1.weight" and names[-1] == "fc.bias"
    assert {"bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.bn2.bias", "layer2.0.downsample.1.weight"} <= {
        *names
    }
