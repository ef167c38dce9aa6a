"""Where a gradient is being taken: how layers know that they are in training."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import Self

__all__ = ["differentiating", "nested", "outermost", "scope", "when_done", "within_gradient"]


_IN_PLACE = (
    "What gradient needs again can't be changed in place: "
    "write x = x + y for x += y, and x = x.clone() before x[...] = y."
)


class _Local(threading.local):
    depth: int
    deepest = 0
    token: int | None = None
    done: list[Callable[[], None]]

    def __init__(self) -> None:
        # Each thread's own, and no class attribute: that is what torch.compile would see instead, or before.
        self.depth = 0


_local = _Local()
# One for each outermost call. Numbers, since torch.compile can't tell other objects apart.
_tokens = itertools.count(1)


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


def outermost() -> bool:
    """True within a `gradient` call that runs in no other."""
    return _local.depth == 1


def scope() -> int | None:
    """A token for the outermost `gradient` call that is running in this thread, or None."""
    return _local.token


def when_done(f: Callable[[], None]) -> None:
    """Calls `f` when the outermost `gradient` call ends, also if it raises; not at all outside of one."""
    if _local.depth:
        _local.done.append(f)


class differentiating:
    """`with differentiating():` marks a gradient call; torch records inside, whatever was switched off outside.

    `start` is the number of the first operation inside, and `inference` says whether torch's
    inference mode was on.
    """

    __slots__ = ("_depth", "_grad", "_inference", "_token", "inference", "start")

    def __init__(self, token: int | None = None) -> None:
        self._token = token

    def __enter__(self) -> Self:
        self.inference = torch.is_inference_mode_enabled()
        if self.inference:
            self._inference = torch.inference_mode(False)
            self._inference.__enter__()
        self._grad = torch.is_grad_enabled()
        if not self._grad:
            torch.set_grad_enabled(True)
        self._depth = _local.depth = _local.deepest = _local.depth + 1
        if self._depth == 1:
            _local.token = self._token or next(_tokens)
            _local.done = []
            torch.clear_autocast_cache()  # of weights that were converted before, with a graph that isn't followed
        self.start: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        _local.depth -= 1
        if torch.is_grad_enabled() != self._grad:
            torch.set_grad_enabled(self._grad)
        if self.inference:
            self._inference.__exit__(None, None, None)
        if self._depth == 1:
            if isinstance(error, RuntimeError) and re.search("in-?place operation", str(error)):
                getattr(error, "add_note", str)(_IN_PLACE)  # Python 3.10 has no notes
            _local.token = None
            torch.clear_autocast_cache()
            done, _local.done = _local.done, []
            for f in done:
                f()

    def held_another(self) -> bool:
        """Did another gradient call run inside this one?"""
        return _local.deepest > self._depth
