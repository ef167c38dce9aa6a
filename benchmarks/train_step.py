"""Times one training step of three small networks beside the same program in torch, in turn, as ratios.

Run: python benchmarks/train_step.py [--rounds 9] [--seconds 0.3] [--device cuda]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import fluxtorch as Flux
from fluxtorch import Adam, Chain, Dense, gradient, logitcrossentropy, params, relu, setup, tanh, to, train_, update_

NETWORKS = [("2-3-2", (2, 3, 2), 64), ("784-128-10", (784, 128, 10), 64), ("784-1024-10", (784, 1024, 10), 256)]


def programs(sizes: tuple[int, int, int], batch: int, device: str) -> dict[str, Callable[[], object]]:
    """A training step in each of the ways that are compared, all of the same network on the same data."""
    n, hidden, classes = sizes
    x = torch.randn(n, batch, device=device)
    labels = torch.randint(classes, (batch,), device=device)
    xt = x.t().contiguous()  # torch's own order
    y = Flux.onehotbatch(labels, range(classes))

    def torch_step(**options: bool) -> Callable[[], object]:
        act = nn.Tanh() if n == 2 else nn.ReLU()
        model = nn.Sequential(nn.Linear(n, hidden), act, nn.Linear(hidden, classes)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

        def step() -> None:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xt), labels)
            loss.backward()
            optimizer.step()

        return step

    def model() -> Chain:
        made = Chain(Dense(n | to | hidden, tanh if n == 2 else relu), Dense(hidden | to | classes))
        return Flux.gpu(made) if device != "cpu" else made

    def explicit() -> Callable[[], object]:
        m = model()
        state = setup(Adam(1e-3), m)

        def step() -> None:
            grads = gradient(lambda m: logitcrossentropy(m(x), y), m)
            update_(state, m, grads[0])

        return step

    def trained() -> Callable[[], object]:
        m = model()
        state = setup(Adam(1e-3), m)
        data = [(x, y)]
        return lambda: train_(lambda m, x, y: logitcrossentropy(m(x), y), m, data, state)

    def implicit() -> Callable[[], object]:
        m = model()
        ps, opt = params(m), Flux.ADAM(1e-3)

        def step() -> None:
            gs = gradient(lambda: logitcrossentropy(m(x), y), ps)
            update_(opt, ps, gs)

        return step

    return {
        "torch": torch_step(),
        "torch fused": torch_step(fused=True),
        "gradient, update_": explicit(),
        "train_": trained(),
        "implicit": implicit(),
    }


def time_of(step: Callable[[], object], seconds: float, device: str) -> float:
    """Seconds for one step, over as many as fill the time."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(5):
            step()
        count += 5
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {args.device}, {threads} threads, median of {args.rounds} rounds\n")
    print("| network, batch | program | µs | of torch | of torch fused |\n|---|---|---|---|---|")
    for name, sizes, batch in NETWORKS:
        steps = programs(sizes, batch, args.device)
        for step in steps.values():
            time_of(step, 0.1, args.device)
        times: dict[str, list[float]] = {program: [] for program in steps}
        for _ in range(args.rounds):
            for program, step in steps.items():
                times[program].append(time_of(step, args.seconds, args.device))
        for program, seconds in times.items():
            ratios = [
                statistics.median(t / u for t, u in zip(seconds, times[base], strict=True))
                for base in ("torch", "torch fused")
            ]
            µs = statistics.median(seconds) * 1e6
            print(f"| {name}, {batch} | {program} | {µs:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
