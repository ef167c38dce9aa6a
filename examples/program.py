"""What the example programs share: a command line, a progress bar, a picture that is saved."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import torch
from tqdm import tqdm

matplotlib.use("Agg")  # a picture goes to a file, and no window is needed


def run(main: Callable[..., dict[str, Any]]) -> None:
    """Calls `main` with the command line's options, one for each of its arguments, and prints the figures it gives.

    On a CPU it takes one core, unless the environment variable OMP_NUM_THREADS says otherwise.
    """
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__.splitlines()[0])
    for name, parameter in inspect.signature(main).parameters.items():
        default = parameter.default
        option = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, default=default, type=str if default is None else type(default))
            parser.set_defaults(**{name: default})
    options = vars(parser.parse_args())
    if options.get("gpu") and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU here")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # with arrays as small as here, threads wait for each other most of the time
    torch.manual_seed(0)
    start = time.perf_counter()
    figures = main(**options)
    figures["seconds"] = time.perf_counter() - start
    for name, value in figures.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def progress(items: Iterable[Any], what: str = "") -> Iterable[Any]:
    """`items`, with a bar that shows how far one is; none where nobody looks, as in a test."""
    if not sys.stderr.isatty():
        return items
    return _barred(items, what)


def _barred(items: Iterable[Any], what: str) -> Iterator[Any]:
    with tqdm(items, desc=what) as bar, contextlib.redirect_stdout(_AboveTheBar(sys.stdout)):
        yield from bar


class _AboveTheBar(io.TextIOBase):
    """What is printed while there is a bar goes above it."""

    def __init__(self, file: Any) -> None:
        self.file, self.line = file, ""

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            tqdm.write(line, file=self.file)
        return len(text)


def save(figure: Any, path: str) -> str:
    """Writes a matplotlib figure to a file, and says where that is."""
    figure.savefig(path, dpi=120, bbox_inches="tight")
    matplotlib.pyplot.close(figure)
    return str(Path(path).resolve())
