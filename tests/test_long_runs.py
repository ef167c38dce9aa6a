"""`train_` over a long time: Ctrl-C, the progress bar, and memory."""

import contextlib
import gc
import io
import itertools
import os
import signal
import sys
import threading
import types
from pathlib import Path

import pytest
import torch

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import optimise
from fluxtorch.optimisers import AbstractRule


def interrupt():
    signal.raise_signal(signal.SIGINT)


def everything(x):
    return [v.detach().clone() for v in Flux.functors.fleaves(x) if isinstance(v, torch.Tensor)]


def same(xs, ys):
    return len(xs) == len(ys) and all(map(torch.equal, xs, ys))


class Program:
    """A model with all that a step can change: arrays of two types, statistics, a state, random numbers."""

    def __init__(self, kind, rule=None):
        torch.manual_seed(0)
        layers = Dense(2 | to | 3), BatchNorm(3), Dropout(0.3), LSTM(3 | to | 2)
        self.model = nt(layers=layers, out=torch.ones(2, dtype=torch.float64)) if kind == "tuple" else Chain(*layers)
        if kind == "module":
            f64(self.model[0])
        self.data = [torch.randn(2, 4) for _ in range(8)]
        self.rule = RAdam(0.01) if rule is None else rule
        self.opt = self.rule if kind == "implicit" else setup(self.rule, self.model)
        self.kind, self.seen = kind, 0

    def forward(self, m, x):
        if self.kind != "tuple":
            return m(x)
        for layer in m.layers:
            x = layer(x)
        return m.out[:, None] * x

    def train(self, data=None, before=lambda _: None, after=lambda _: None, **options):
        def loss(m, x):
            i, self.seen = self.seen, self.seen + 1
            before(i)
            y = self.forward(m, x)
            after(i)
            return (y**2).sum()

        data = self.data if data is None else data
        if self.kind == "implicit":
            train_(lambda x: loss(self.model, x), params(self.model), data, self.opt, **options)
        else:
            train_(loss, self.model, data, self.opt, **options)

    @property
    def all(self):
        """What a run of so many steps has led to."""
        memory = [entry[1] for entry in getattr(self.rule, "_memory", {}).values()]
        return [*everything((self.model, self.opt, memory)), torch.get_rng_state()], repr((self.opt, memory))


def after(n, kind, **options):
    program = Program(kind, **options)
    program.train(program.data[:n])
    return program.all


def assert_same(a, b):
    assert same(a[0], b[0])
    assert a[1] == b[1]


@pytest.fixture(autouse=True)
def _handler():
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


KINDS = pytest.mark.parametrize("kind", ["module", "tuple", "implicit"])


# -- Ctrl-C ------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_has_begun_comes_to_its_end(kind, when):
    program = Program(kind)
    with pytest.raises(KeyboardInterrupt):
        program.train(**{when: lambda i: i == 2 and interrupt()})
    assert program.seen == 3
    assert_same(program.all, after(3, kind))
    program.train(program.data[3:])
    assert_same(program.all, after(8, kind))


class Interrupted(AbstractRule):
    """A rule whose every step is interrupted, twice."""

    eta: float = 0.1

    def init(self, x):
        return torch.zeros_like(x), 0

    def apply_(self, state, x, dx):
        interrupt()
        interrupt()
        v, n = state
        return (v.mul_(0.9).add_(dx), n + 1), self.eta * v


@KINDS
def test_an_update_is_never_broken_off(kind, monkeypatch):
    program = Program(kind, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        program.train()
    monkeypatch.setattr(sys.modules[__name__], "interrupt", lambda: None)
    assert program.seen == 1
    assert_same(program.all, after(1, kind, rule=Interrupted()))


@KINDS
def test_the_second_one_does_not_wait(kind):
    program = Program(kind)

    def twice(i):
        if i == 2:
            interrupt()
            interrupt()
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        program.train(before=twice)
    assert_same(program.all, after(2, kind))
    program.train(program.data[2:])
    assert_same(program.all, after(8, kind))


@KINDS
def test_waiting_for_data_is_interrupted_at_once(kind):
    program = Program(kind)

    def data():
        yield from program.data[:2]
        interrupt()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        program.train(data())
    assert_same(program.all, after(2, kind))


def test_callbacks_are_interrupted_at_once():
    program, called = Program("implicit"), []

    def callback():
        called.append(program.seen)
        if program.seen == 2:
            interrupt()
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        program.train(cb=callback)
    assert called == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        program.train(before=lambda _: interrupt(), cb=callback)
    assert called == [1, 2]
    assert_same(program.all, after_items(program, 3))


def after_items(program, n):
    other = Program(program.kind)
    other.train([other.data[i] for i in (0, 1, 0)][:n])
    return other.all


def test_it_is_not_lost_where_the_step_ends_otherwise():
    program = Program("module")
    for ending in (stop, skip, lambda: 1 / 0):

        def before(_, ending=ending):
            interrupt()
            ending()

        with pytest.raises(KeyboardInterrupt):
            program.train(before=before)
    assert program.seen == 3


def test_real_signals_at_any_time():
    """Whenever Ctrl-C comes, the model is one of those that an uninterrupted run goes through."""
    steps = 200
    whole, states = Program("module"), []
    whole.train(
        itertools.chain.from_iterable(itertools.repeat(whole.data, steps // 8)),
        before=lambda _: states.append(whole.all[0][:-1]),
    )
    counts = set()
    for k in range(8):
        program = Program("module")
        timer = threading.Timer(0.003 * k + 0.001, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            program.train(itertools.cycle(program.data))
        n = program.opt.layers[0].bias.state[3] - 1
        counts.add(n)
        if n < steps:
            assert same(program.all[0][:-1], states[n])
    assert len(counts) > 2


def test_handlers_of_ones_own_and_other_threads():
    got = []
    program = Program("module")
    mine = signal.signal(signal.SIGINT, lambda *_: got.append(program.seen))
    try:
        program.train(before=lambda i: i == 1 and interrupt())
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, mine)
    assert got == [2]
    assert_same(program.all, after(8, "module"))
    program = Program("module")
    thread = threading.Thread(target=program.train)
    thread.start()
    thread.join()
    assert_same(program.all, after(8, "module"))


def test_training_within_training():
    outer, inner = Program("module"), Program("tuple")

    def nested(i):
        if i == 1:
            inner.train(before=lambda j: j == 2 and interrupt())

    with pytest.raises(KeyboardInterrupt):
        outer.train(before=nested)
    assert (outer.seen, inner.seen) == (2, 8)


def test_the_handler_is_put_back():
    program = Program("module")
    program.train()
    program.train(before=lambda _: stop())
    with pytest.raises(ZeroDivisionError):
        program.train(before=lambda _: 1 / 0)
    with pytest.raises(DomainError, match="on data item 1"):
        train_(lambda m, x: m.w.sum() * x, nt(w=[1.0]), [1.0, float("nan")], Descent())


# -- progress ----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def slow(monkeypatch):
    """Makes each item seem to take 0.4 seconds."""
    tqdm = pytest.importorskip("tqdm").tqdm
    clock = itertools.count(0, 0.4)
    monkeypatch.setattr(optimise, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    yield
    assert len(tqdm._instances) == 0


def weigh(m, x):
    return (m.w * x).sum()


def shown(monkeypatch, data, loss=weigh, stderr=Terminal):
    """What training prints on such a stderr."""
    m, file = nt(w=[1.0]), stderr()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        train_(loss, m, data, setup(Descent(), m))
    return file.getvalue()


def test_a_bar_after_a_second_which_goes_away(slow, monkeypatch):
    text = shown(monkeypatch, [1.0] * 5)
    assert " 3/5 " in text
    assert text.endswith(" \r")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (iter([1.0] * 5), " 3/5 "),
        ((x for x in [1.0] * 5), "3it "),
        (DataLoader(torch.ones(5), batchsize=1), " 3/5 "),
        (torch.utils.data.DataLoader([1.0] * 5, collate_fn=lambda x: x[0]), " 3/5 "),
    ],
    ids=["iterator", "generator", "loader", "torch's loader"],
)
def test_how_much_there_is(slow, monkeypatch, data, expected):
    assert expected in shown(monkeypatch, data)


def test_a_length_that_is_not_known(slow, monkeypatch):
    class Data(list):
        def __len__(self):
            raise NotImplementedError

    assert "3it " in shown(monkeypatch, Data([1.0] * 5))


@pytest.mark.parametrize(
    ("ending", "error"), [(stop, None), (lambda: 1 / 0, ZeroDivisionError), (interrupt, KeyboardInterrupt)]
)
def test_it_goes_away_however_the_training_ends(slow, monkeypatch, ending, error):
    terminal = Terminal()

    def loss(m, x):
        if x == 4:
            assert " 3/5 " in terminal.getvalue()
            ending()
        return m.w.sum()

    with pytest.raises(error) if error else contextlib.nullcontext() as found:
        shown(monkeypatch, [1, 2, 3, 4, 5], loss, lambda: terminal)
    assert error is None or found.traceback  # which holds on to the frames
    assert terminal.getvalue().endswith(" \r")


def test_no_bar(slow, monkeypatch):
    assert shown(monkeypatch, [1.0] * 2) == ""
    assert shown(monkeypatch, [1.0] * 5, stderr=io.StringIO) == ""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert shown(monkeypatch, [1.0] * 9) == ""


def test_no_bar_beside_callbacks_nor_where_there_is_no_stderr(slow, monkeypatch):
    w, terminal = torch.ones(1), Terminal()
    for file, options in (terminal, {"cb": lambda: None}), (None, {}):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", file)
            train_(lambda x: (w * x).sum(), Params([w]), [1.0] * 5, Descent(), **options)
    assert terminal.getvalue() == ""


# -- memory ------------------------------------------------------------------------------------------


def resident():
    """Bytes of memory that this process has."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("needs /proc")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tensors():
    gc.collect()
    return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())


@pytest.mark.parametrize(
    ("style", "resetting"), [("explicit", False), ("explicit", True), ("implicit", False), ("loop", False)]
)
def test_a_stateful_model_holds_memory_flat(style, resetting):
    model = Chain(Dense(8 | to | 64), LSTM(64 | to | 64), Dense(64 | to | 8))
    rule, ps, x = Adam(1e-4), params(model), torch.randn(8, 64)
    opt = setup(rule, model)

    def loss(m, x):
        if resetting:
            reset_(m)
        return mse(m(x), x)

    def train(n):
        if style == "explicit":
            train_(loss, model, [x] * n, opt)
        elif style == "implicit":
            train_(lambda x: loss(model, x), ps, [x] * n, rule)
        else:
            for _ in range(n):
                update_(opt, model, gradient(loss, model, x)[0])

    train(20)
    before, memory = tensors(), resident()
    train(150)
    assert tensors() <= before
    assert resident() - memory < 8e6
    assert not any(h.requires_grad for h in model[1].state) or resetting


def test_the_measure_would_find_a_leak():
    model, x, kept = LSTM(64 | to | 64), torch.randn(64, 64), []
    before = tensors()
    for _ in range(150):
        kept.append(model(x))
    assert tensors() >= before + 150
