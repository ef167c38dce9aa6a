"""Where a gradient is being taken: how layers know that they are in training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["differentiating", "scope", "when_done", "within_gradient"]


class _Local(threading.local):
    depth = 0
    token: object | None = None
    done: list[Callable[[], None]]


_local = _Local()


def within_gradient(x: Any = None) -> bool:
    """True while `gradient` (or a relative of it) runs a function in this thread; `x` is not looked at.

    This is what dropout and batch-norm go by in their automatic mode, as in NNlib.jl.

    >>> within_gradient()
    False
    """
    return _local.depth > 0


def nested() -> bool:
    """True where one `gradient` call runs inside another, so that its result must carry a graph."""
    return _local.depth > 1


def scope() -> object | None:
    """A token for the outermost `gradient` call that is running in this thread, or None."""
    return _local.token


def when_done(f: Callable[[], None]) -> None:
    """Calls `f` when the outermost `gradient` call ends, also if it raises; not at all outside of one."""
    if _local.depth:
        _local.done.append(f)


class differentiating:
    """`with differentiating():` marks a gradient call; torch records inside, whatever was switched off outside."""

    __slots__ = ("_grad", "_inference", "_token")

    def __init__(self, token: object | None = None) -> None:
        self._token = token

    def __enter__(self) -> None:
        self._inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else None
        if self._inference is not None:
            self._inference.__enter__()
        self._grad = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        _local.depth += 1
        if _local.depth == 1:
            _local.token = self._token or object()
            _local.done = []

    def __exit__(self, *exc: Any) -> None:
        _local.depth -= 1
        torch.set_grad_enabled(self._grad)
        if self._inference is not None:
            self._inference.__exit__(None, None, None)
        if _local.depth == 0:
            _local.token = None
            done, _local.done = _local.done, []
            for f in done:
                f()
