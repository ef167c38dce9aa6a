"""Doctests see what `from fluxtorch import *` brings, where their own module has no such name; Ctrl-C does its work.

Tests take one core: on arrays so small, torch's threads wait for each other, for long where other programs run.
"""

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fluxtorch


@pytest.fixture(autouse=True)
def _names(request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.clear()
        names = {name: getattr(fluxtorch, name) for name in fluxtorch.__all__} | {"torch": torch}
        doctest_namespace.update({k: v for k, v in names.items() if k not in request.node.dtest.globs})


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports one of the example programs by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "examples"))
    return importlib.import_module


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)


if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)
