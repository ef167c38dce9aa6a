"""Times whole training steps beside the same program in torch, in turn in one process, as ratios.

    python benchmarks/training.py [--rounds 9] [--seconds 0.3] [--device cuda] [--only LeNet] [--markdown FILE]

Each number is the median over the rounds of the ratio to torch in the same round: to torch as people write
it (`backward()`, the default `torch.optim.Adam`), and to its eager best (`fused=True`). Less than 1 is
faster than torch.
"""

import argparse
import contextlib
import copy
import ctypes
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from programs import MLPS, Program, mapped, mlp, programs

import fluxtorch as Flux
from fluxtorch import Adam, gradient, params, setup, train_, update_

try:
    import equinox_mlp
except ImportError:
    equinox_mlp = None

Step = Callable[[], Any]
# So many batches go through `train_` at each call, and as many steps are taken one by one of the others.
TOGETHER = 10


def keep_memory() -> None:
    """Tells the C library, where it is GNU's, to keep what is freed, as torch does on a GPU.

    Else it gives some of it back after each step, which in the next costs microseconds for each page.
    How much is chance: where in memory something small happens to lie that is longer in use.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD


def steps_of(program: Program) -> dict[str, Step]:
    """A training step with Adam in each of the ways that are compared."""

    def theirs(**options: bool) -> Step:
        model = copy.deepcopy(program.theirs).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)

        def step() -> None:
            optimizer.zero_grad()
            loss = program.their_loss(model)
            loss.backward()
            optimizer.step()

        return step

    def explicit() -> Step:
        model = copy.deepcopy(program.ours)
        state = setup(Adam(1e-3), model)

        def step() -> None:
            grads = gradient(program.our_loss, model)
            update_(state, model, grads[0])

        return step

    def trained() -> Step:
        model = copy.deepcopy(program.ours)
        state = setup(Adam(1e-3), model)
        data = [()] * TOGETHER
        return lambda: train_(program.our_loss, model, data, state)

    def implicit() -> Step:
        model = copy.deepcopy(program.ours)
        ps, optimiser = params(model), Flux.ADAM(1e-3)

        def step() -> None:
            grads = gradient(lambda: program.our_loss(model), ps)
            update_(optimiser, ps, grads)

        return step

    return {
        "torch": theirs(),
        "torch, fused": theirs(fused=True),
        "gradient, update_": explicit(),
        "train_": trained(),
        "implicit": implicit(),
    }


def seconds_of(name: str, step: Step, at_least: float, device: str) -> float:
    """Seconds for one step, over as many as fill the time."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < at_least:
        for _ in range(1 if name == "train_" else TOGETHER):
            step()
        count += TOGETHER
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def measured(steps: dict[str, Step], rounds: int, at_least: float, device: str) -> dict[str, list[float]]:
    """The seconds of each, round by round."""
    for name, step in steps.items():
        seconds_of(name, step, at_least / 3, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds_of(name, step, at_least, device))
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(t / u for t, u in zip(times[name], times[base], strict=True))


def peak_of(step: Step, device: str) -> int:
    """Bytes that a step allocates at its height, beyond what it finds."""
    step()
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = height = 0
    for _, change in changes:
        now += change
        height = max(height, now)
    return height


def import_ratio() -> float:
    """The time of `import fluxtorch`, which imports torch, to that of `import torch`, in a fresh process."""
    program = """if True:
        import gc, time
        gc.disable()  # a collection takes as long as four such imports, and falls into one or the other by chance
        start = time.perf_counter()
        import torch
        between = time.perf_counter()
        import fluxtorch
        print((time.perf_counter() - start) / (between - start))
    """
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # compiled once, as when installed
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    return float(ran.stdout)


def geometric(ratios: list[float]) -> float:
    return math.exp(statistics.mean(map(math.log, ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chance", action="store_true", help="let the C library give memory back as it likes")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--markdown", help="a file for the tables")
    args = parser.parse_args()
    torch.manual_seed(0)
    # A network that has long fitted its one batch steps by denormal numbers, which a CPU is many times slower with.
    torch.set_flush_denormal(True)
    if not args.chance:
        keep_memory()

    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    where = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    say(f"torch {torch.__version__}, {where}, Adam, median of {args.rounds} rounds. Of torch, and (of torch, fused).\n")
    ways = ("gradient, update_", "train_", "implicit")
    say("| program, batch | torch | " + " | ".join(ways) + " | peak memory |")
    say("|---|---|" + "---|" * (len(ways) + 1))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    against: list[float] = []
    for program in programs(args.device):
        if args.only.lower() not in program.name.lower():
            continue
        steps = steps_of(program)
        times = measured(steps, args.rounds, args.seconds, args.device)
        for way in ways:
            found[way].append((ratio(times, way, "torch"), ratio(times, way, "torch, fused")))
        against.append(ratio(times, "implicit", "gradient, update_"))
        memory = peak_of(steps["gradient, update_"], args.device) / peak_of(steps["torch"], args.device)
        cells = [f"{found[way][-1][0]:.2f} ({found[way][-1][1]:.2f})" for way in ways]
        took = f"{statistics.median(times['torch']) * 1e3:.2f} ms"
        say(f"| {program.name} | {took} | " + " | ".join(cells) + f" | {memory:.2f} |")
    means = [f"{geometric([a for a, _ in found[w]]):.2f} ({geometric([b for _, b in found[w]]):.2f})" for w in ways]
    say("| geometric mean | | " + " | ".join(means) + " | |")
    if args.only:
        return
    if equinox_mlp is not None and args.device == "cpu":
        say("\n| program, batch | of equinox under jit |\n|---|---|")
        for sizes in MLPS:
            steps = {
                "ours": steps_of(mlp(*sizes, args.device))["gradient, update_"],
                "theirs": equinox_mlp.step(*sizes[1:]),
            }
            times = measured(steps, args.rounds, args.seconds, args.device)
            say(f"| {sizes[0]} | {ratio(times, 'ours', 'theirs'):.2f} |")

    say("\n| | ratio |\n|---|---|")
    say(f"| implicit against explicit, geometric mean | {geometric(against):.2f} |")
    theirs, ours = mapped(args.device)
    times = measured({"theirs": theirs, "ours": ours}, args.rounds, args.seconds, args.device)
    one_by_one = ratio(times, "ours", "theirs")
    say(f"| 50 vectors one by one through an LSTM, against a loop over nn.LSTMCell | {one_by_one:.2f} |")
    import_ratio()
    ratios = [import_ratio() for _ in range(args.rounds)]
    say(f"| import fluxtorch, against import torch | {statistics.median(ratios):.3f} |")
    if args.markdown:
        with open(args.markdown, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
