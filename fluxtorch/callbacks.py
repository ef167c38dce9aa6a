"""Flux's helpers for the training loop: `throttle`, and triggers that say when to stop."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["early_stopping", "patience", "plateau", "throttle"]


def throttle(
    f: Callable[..., Any], timeout: float, *, leading: bool = True, trailing: bool = False
) -> Callable[..., Any]:
    """`f` as a function that runs at most once in `timeout` seconds, and else gives the result of its last run.

    `leading=False` puts off the first run until the time is up. With `trailing=True`, so does each
    call that comes too early, of which the last one counts. What was put off is run by the next call
    after the time is up: clocks are compared, and nothing runs by itself.

    >>> f = throttle(lambda: print("Flux"), 3600)
    >>> for _ in range(4):
    ...     f()
    Flux
    """
    since: float | None = None  # when the last run ended; None if the next call may run
    later: Callable[[], Any] | None = None
    result: Any = None

    def throttled(*args: Any, **kwargs: Any) -> Any:
        nonlocal since, later, result
        waited = 0.0 if since is None else time.monotonic() - since
        if since is not None and waited >= timeout:
            since, run, later = None, later, None
            if run is not None:
                result = run()
                # In Flux it ran when the time was up, and the next call must wait as long again.
                since = None if waited >= 2 * timeout else time.monotonic()
        if since is None:
            if leading:
                result = f(*args, **kwargs)
            else:
                later = lambda: f(*args, **kwargs)  # noqa: E731
            since = time.monotonic()
        elif trailing:
            later = lambda: f(*args, **kwargs)  # noqa: E731
        return result

    return throttled


def patience(predicate: Callable[..., Any], wait: int) -> Callable[..., bool]:
    """A function that calls `predicate` with its arguments, and is true once that was true `wait` times in a row.

    >>> trigger = patience(lambda a, *, b: a > b, 3)
    >>> [trigger(3, b=2) for _ in range(4)]
    [False, False, True, True]
    """
    count = 0

    def on_trigger(*args: Any, **kwargs: Any) -> bool:
        nonlocal count
        count = count + 1 if predicate(*args, **kwargs) else 0
        return count >= wait

    return on_trigger


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = 0,
    min_dist: float = 0,
) -> Callable[..., bool]:
    """A function that calls `f`, a score to be made small, and is true once `delay` scores in a row were no better.

    A score is better if `distance(best, score)` is at least `min_dist`, where `best` is the best one so
    far, at first `init_score`. For a score that is to grow: `distance=lambda best, score: score - best`.

    >>> scores = iter([9, 4, 1, 0, 1, 4])
    >>> stop = early_stopping(lambda: next(scores), 2, init_score=9)
    >>> [stop() for _ in range(6)]
    [False, False, False, False, False, True]
    """
    best = init_score

    def no_better(*args: Any, **kwargs: Any) -> bool:
        nonlocal best
        score = _number(f(*args, **kwargs))
        gain = distance(best, score)
        best = best if gain < 0 else score
        return bool(gain < min_dist)

    return patience(no_better, delay)


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Callable[[Any, Any], Any] = operator.sub,
    init_score: Any = 0,
    min_dist: float = 1e-6,
) -> Callable[..., bool]:
    """A function that calls `f`, a score, and is true once it hardly changed `width` times in a row.

    It hardly changes if `abs(distance(last, score))` is less than `min_dist`, where `last` is the score
    before, at first `init_score`.

    >>> scores = iter([3.0, 2.0, 2.0, 2.0])
    >>> stop = plateau(lambda: next(scores), 2)
    >>> [stop() for _ in range(4)]
    [False, False, False, True]
    """
    last = init_score

    def unchanged(*args: Any, **kwargs: Any) -> bool:
        nonlocal last
        score = _number(f(*args, **kwargs))
        change = abs(distance(last, score))
        last = score
        return bool(change < min_dist)

    return patience(unchanged, width)


def _number(x: Any) -> Any:
    # A tensor that is kept may be changed by its owner, and would keep its graph.
    return x.item() if isinstance(x, torch.Tensor) and x.ndim == 0 else x
