"""`throttle` and the triggers: Flux's tests and the examples of its manual, by a clock of our own."""

import itertools
import threading

import pytest
import torch

from fluxtorch import callbacks
from fluxtorch.callbacks import early_stopping, patience, plateau, throttle


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def sleep(self, seconds):
            self.now += seconds

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(callbacks, "time", clock)
    return clock


def test_throttle_runs_in_alternate_iterations(clock):
    runs = []
    f = throttle(lambda: runs.append(clock.now - 100), 2)
    for _ in range(4):
        f()
        clock.sleep(1)
    assert runs == [0, 2]


def test_throttle_by_default(clock):
    a = []
    f = throttle(lambda: a.append(1), 1, leading=True, trailing=False)
    f()
    f()
    f()
    clock.sleep(1.01)
    assert len(a) == 1
    f()
    assert len(a) == 2


def test_throttle_starts_no_thread(clock):
    before = threading.active_count()
    f = throttle(lambda: None, 3600, trailing=True)
    f()
    f()
    assert threading.active_count() == before


def test_throttle_trailing(clock):
    a = []
    f = throttle(lambda: a.append(clock.now), 1, leading=False, trailing=True)
    f()
    f()
    assert a == []
    clock.sleep(1.01)
    f()  # Flux's timer would have run it by itself
    assert a == [101.01]
    f()
    assert len(a) == 1


def test_throttle_arguments(clock):
    a = []
    f = throttle(lambda x: a.append(x), 1, leading=True, trailing=True)
    f(1)
    assert a == [1]
    f(2)
    f(3)
    assert a == [1]
    clock.sleep(1.01)
    f(4)
    assert a == [1, 3]
    clock.sleep(1.01)
    f(5)
    assert a == [1, 3, 4]
    clock.sleep(10)
    f(x=6)
    assert a == [1, 3, 4, 5, 6]  # Flux's timer would have run 5 long ago
    f(7)
    assert a == [1, 3, 4, 5, 6]


def test_throttle_not_leading_nor_trailing_keeps_the_first_call(clock):
    a = []
    f = throttle(a.append, 1, leading=False)
    f(1)
    f(2)
    clock.sleep(1)
    f(3)
    assert a == [1]
    clock.sleep(1)
    f(4)
    assert a == [1]
    clock.sleep(1)
    f(5)
    assert a == [1, 4]


def test_throttle_gives_the_last_result_and_counts_from_the_end_of_a_run(clock):
    n = itertools.count()

    def slow():
        clock.sleep(5)
        return next(n)

    f = throttle(slow, 2)
    assert [f(), f()] == [0, 0]
    clock.sleep(1.9)
    assert f() == 0
    clock.sleep(0.1)
    assert f() == 1


def test_throttle_after_an_error(clock):
    f = throttle(lambda x: 1 / x, 1)
    with pytest.raises(ZeroDivisionError):
        f(0)
    assert f(2) == 0.5


def test_patience():
    trigger = patience(lambda: True, 3)
    assert [trigger() for _ in range(3)] == [False, False, True]
    v = [False, True, False, True, True, True]
    trigger = patience(lambda i: v[i], 3)
    assert [trigger(i) for i in range(6)] == [False, False, False, False, False, True]
    trigger = patience(lambda: torch.tensor(0.5) < 1, 3)
    assert [trigger() for _ in range(3)] == [False, False, True]


def test_patience_passes_arguments_on():
    trigger = patience(lambda a, *, b: a > b, 3)
    assert not any(trigger(1, b=2) for _ in range(10))
    assert next(i for i in range(1, 11) if trigger(3, b=2)) == 3


def iterations(trigger, args=lambda i: (), kwargs=lambda i: {}):
    """How many calls come before the first that is true, of 99."""
    return next((i for i in range(99) if trigger(*args(i), **kwargs(i))), 99)


def test_early_stopping():
    counter = itertools.count(1)
    assert iterations(early_stopping(lambda: next(counter), 3)) == 2
    es = early_stopping(lambda x, *, y=1: x + y, 10, min_dist=3)
    assert iterations(es, lambda i: (-i,), lambda i: {"y": -i}) == 9
    es = early_stopping(lambda x: x, 10, distance=lambda best, score: score - best)
    assert iterations(es, lambda i: (i,)) == 99
    assert iterations(early_stopping(lambda x: x, 10, init_score=10), lambda i: (i,)) == 10


def test_early_stopping_in_the_manual():
    t = itertools.count(1)
    assert iterations(early_stopping(lambda: (next(t) - 4) ** 2, 2, init_score=9)) == 5
    accuracies = itertools.count(1, 0.01)
    es = early_stopping(lambda: next(accuracies), 3, distance=lambda best, score: score - best)
    assert not any(es() for _ in range(10))


def test_plateau():
    v = 10

    def f():
        nonlocal v
        v = v / abs(v) - v
        return v

    assert iterations(plateau(f, 3, init_score=10, min_dist=18)) == 3
    assert iterations(plateau(lambda: 1.0, 2)) == 2
    assert iterations(plateau(lambda x: x, 2), lambda i: (i,)) == 99


def test_scores_that_are_tensors_are_not_kept():
    w = torch.tensor(4.0, requires_grad=True)
    stop = plateau(lambda: w, 2, min_dist=0.5)
    assert not stop()
    with torch.no_grad():
        w -= 1  # the same tensor, another score
    assert not stop()
    assert not stop()
    assert stop()
    stop = early_stopping(lambda: w * 1, 2, init_score=9)
    assert [stop() for _ in range(3)] == [False, False, False]
