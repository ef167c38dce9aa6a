"""Functors.jl 0.4: its documented examples, its tests, and random structures."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import gc
import operator
import typing
import weakref
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import fluxtorch as Flux
from fluxtorch import Chain, Dense, Layer, NamedTuple, compose, layer, nt, params, relu, tanh, to
from fluxtorch.functors import (
    KeyPath,
    children,
    closure,
    execute,
    fcollect,
    fleaves,
    fmap,
    fmap_with_path,
    fmapstructure,
    fmapstructure_with_path,
    functor,
    getkeypath,
    haskeypath,
    isleaf,
    leaf,
    setkeypath_,
    trainable,
)

t = torch.tensor


class Fields:
    """A class with fields and equality, as a Julia struct has."""

    def __init__(self, *values: Any) -> None:
        for name, value in zip(type(self).names, values, strict=True):
            setattr(self, name, value)

    names: typing.ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


@functor
class Foo(Fields):
    names = ("x", "y")


@functor
class Bar(Fields):
    names = ("x",)


class OneChild3(Fields):
    names = ("x", "y", "z")


class WrongOrder(Fields):
    names = ("x", "y", "z")


class NoChildren2(Fields):
    names = ("x", "y")


functor(OneChild3, ("y",))
functor(WrongOrder, ("z", "x"))


def same(a: Any, b: Any) -> bool:
    """Equal, tensors by their values."""
    return nt(a=a) == nt(a=b)


class TestDocumented:
    def test_functor(self) -> None:
        assert functor(Foo) is Foo
        assert children(Foo(1, 2)) == nt(x=1, y=2)
        kids, rebuild = functor(Foo(1, 2))
        assert rebuild((10, 20)) == Foo(10, 20)
        assert rebuild(nt(x=10, y=20)) == Foo(10, 20)
        # By name, which Julia asks itself about.
        assert rebuild(nt(y=22, x=11)) == Foo(11, 22)
        assert rebuild({"y": 22, "x": 11}) == Foo(11, 22)

        class TwoThirds(Fields):
            names = ("a", "b", "c")

        functor(TwoThirds, ("a", "c"))
        kids, rebuild = functor(TwoThirds(10, 20, 30))
        assert kids == nt(a=10, c=30)
        assert rebuild(("ten", "thirty")) == TwoThirds("ten", 20, "thirty")
        assert fmap(lambda x: 10 * x, TwoThirds(Foo(1, 2), Foo(3, 4), 56)) == TwoThirds(Foo(10, 20), Foo(3, 4), 560)

    def test_isleaf(self) -> None:
        assert isleaf(1)
        assert isleaf(t([2, 3, 4]))
        assert not isleaf(["five", [6, 7]])
        assert not isleaf([])
        assert not isleaf((8, 9))
        assert isleaf(())
        # Julia's (;) and Dict() are no leaves either.
        assert not isleaf(nt()) and not isleaf({})
        assert isleaf(relu) and isleaf(len) and isleaf("text") and isleaf(None) and isleaf(Foo)

    def test_fmap(self) -> None:
        assert fmap(str, nt(x=1, y=(2, 3))) == nt(x="1", y=("2", "3"))
        v = nt(a=t([1, 2]), b=[23, (45,), nt(x=6 / 7, y=())], c=t([8, 9]))
        seen: list[Any] = []
        assert fmap(seen.append, v) == NamedTuple.of(
            {"a": None, "b": [None, (None,), NamedTuple.of({"x": None, "y": None})], "c": None}
        )
        assert same(seen, [t([1, 2]), 23, 45, 6 / 7, (), t([8, 9])])
        seen.clear()
        fmap(seen.append, v, exclude=lambda x: isinstance(x, (list, torch.Tensor)))
        assert same(seen, [t([1, 2]), v.b, t([8, 9])])

    def test_mapleaves(self) -> None:  # Flux 0.8's page on GPUs
        d = Flux.mapleaves(lambda x: x.double() if isinstance(x, torch.Tensor) else x, Dense(10 | to | 5, tanh))
        assert d.weight.dtype == d.bias.dtype == torch.float64 and d(torch.rand(10).double()).shape == (5,)

    def test_shared_once(self) -> None:
        twice = t([1, 2])
        seen: list[Any] = []
        fmap(seen.append, nt(i=twice, ii=34, iii=t([5, 6]), iv=(twice, 34), v=34.0))
        assert same(seen, [t([1, 2]), 34, t([5, 6]), 34, 34.0])

    def test_dicts(self) -> None:
        d1 = {"x": t([1, 2]), "y": 3}
        d2 = {"x": t([4, 5]), "y": 6, "z": "an_extra_value"}
        assert same(fmap(operator.add, d1, d2), {"x": t([5, 7]), "y": 9})

    def test_foo_bar(self) -> None:
        m = Foo(Bar(t([1, 2, 3])), (4, 5, Bar(Foo(6, 7))))
        ten = fmap(lambda x: 10 * x, m)
        assert same(ten.x.x, t([10, 20, 30])) and ten.y == (40, 50, Bar(Foo(60, 70)))
        text = fmap(lambda x: str(x.tolist() if isinstance(x, torch.Tensor) else x), m)
        assert text == Foo(Bar("[1, 2, 3]"), ("4", "5", Bar(Foo("6", "7"))))
        text = fmap(lambda x: "bar" if isinstance(x, Bar) else x, m, exclude=lambda v: isinstance(v, Bar))
        assert text == Foo("bar", (4, 5, "bar"))

    def test_prune(self) -> None:
        twice = t([1, 2])
        pruned = fmap(torch.Tensor.float, nt(x=twice, y=t([1, 2]), z=twice), prune="missing")
        assert same(pruned, NamedTuple.of({"x": t([1.0, 2.0]), "y": t([1.0, 2.0]), "z": "missing"}))

    def test_fmapstructure(self) -> None:
        m = Foo(t([1, 2, 3]), [4, (5, 6), Foo(7, 8)])
        doubled = fmapstructure(lambda x: 2 * x, m)
        assert same(doubled, NamedTuple.of({"x": t([2, 4, 6]), "y": [8, (10, 12), nt(x=14, y=16)]}))
        seen: list[Any] = []
        assert fmapstructure(seen.append, m) == NamedTuple.of(
            {"x": None, "y": [None, (None, None), NamedTuple.of({"x": None, "y": None})]}
        )
        assert same(seen, [t([1, 2, 3]), 4, 5, 6, 7, 8])

    def test_fcollect(self) -> None:
        m = Foo(Bar(t([1, 2, 3])), NoChildren2("a", "b"))
        found = fcollect(m)
        assert list(map(id, found)) == list(map(id, [m, m.x, m.x.x, m.y]))
        assert fcollect(m, exclude=lambda v: isinstance(v, Bar)) == [m, m.y]
        assert fcollect(m, exclude=isleaf) == [m, m.x]

    def test_fmap_with_path(self) -> None:
        x = (t([1, 2, 3]), 4, nt(a=5, b={"A": 6, "B": 7}, c={"C": 8, "D": 9}))
        squared = fmap_with_path(
            lambda path, v: None if isinstance(v, dict) else v**2,
            x,
            exclude=lambda path, v: path == KeyPath(2, "c") or isleaf(v),
        )
        assert same(squared, (t([1, 4, 9]), 16, nt(a=25, b={"A": 36, "B": 49}, c=None)))

    def test_fleaves(self) -> None:
        m = NamedTuple.of({"a": Bar(t([1, 2, 3])), "b": NoChildren2(4, 5)})
        assert fleaves(m) == [m.a.x, m.b]

    def test_keypath(self) -> None:
        path = KeyPath("b", 3)
        assert KeyPath("a", path, "c", 4) == KeyPath("a", "b", 3, "c", 4)
        assert repr(KeyPath("a", path, "c", 4)) == 'KeyPath("a", "b", 3, "c", 4)'

        class T(Fields):
            names = ("a", "b")
            ab = property(lambda self: "ab")

        x = T(3, {"c": 4, "d": 5})
        assert getkeypath(x, KeyPath("ab")) == "ab"
        assert getkeypath(x, KeyPath("b", "c")) == 4
        assert (
            haskeypath(x, KeyPath("ab")) and haskeypath(x, KeyPath("b", "c")) and not haskeypath(x, KeyPath("b", "e"))
        )

    def test_execute(self) -> None:
        m = Foo(Bar(t([1, 2, 3])), (4, 5, Bar(Foo(6, 7))))

        def walk(recurse: Any, x: Any) -> Any:
            if isinstance(x, Bar):
                return "hello"
            kids, rebuild = functor(x)
            return 10 * x if isleaf(x) else rebuild(tuple(map(recurse, kids)))

        assert execute(walk, m) == Foo("hello", (40, 50, "hello"))


class TestFunctorsTests:
    """What Functors.jl's own tests say."""

    def test_children_and_leaves(self) -> None:
        assert isleaf(NoChildren2(1, 2)) and children(NoChildren2(1, 2)) == ()
        assert not isleaf(Foo(1, 2)) and children(Foo(1, 2)) == nt(x=1, y=2)

    def test_property_list(self) -> None:
        assert fmap(lambda x: 2 * x, OneChild3(1, 2, 3)) == OneChild3(1, 4, 3)
        assert fmap(lambda x: 2 * x, WrongOrder(1, 2, 3)) == WrongOrder(2, 2, 6)

    def test_sharing(self) -> None:
        shared = t([1, 2, 3])
        m1 = Foo(shared, Foo(t([1, 2, 3]), Foo(shared, t([1, 2, 3]))))
        m1f = fmap(torch.Tensor.float, m1)
        assert m1f.x is m1f.y.y.x and m1f.x is not m1f.y.x
        pruned = fmapstructure(lambda x: x.tolist(), m1, prune=None)
        assert pruned.x == pruned.y.x == pruned.y.y.y == [1, 2, 3] and pruned.y.y.x is None
        alone = fmap(torch.Tensor.float, m1, cache=None)
        assert alone.x is not alone.y.y.x

        inner = Foo(shared, 4)
        m2 = Foo(inner, Foo(shared, 4))
        m2f = fmap(lambda x: x * 1.0, m2)
        assert m2f.x.x is m2f.y.x
        # What isn't shared is no leaf's twin: 4 is 4 wherever it stands.
        m2p = fmapstructure(lambda x: x.tolist() if isinstance(x, torch.Tensor) else x, m2, prune=Bar(0))
        assert m2p == NamedTuple.of(
            {"x": NamedTuple.of({"x": [1, 2, 3], "y": 4}), "y": NamedTuple.of({"x": Bar(0), "y": 4})}
        )
        m3 = Foo(Foo(shared, range(3)), Foo(range(3), shared))
        m3p = fmapstructure(lambda x: x, m3, prune=0)
        assert m3p.y.y == 0 and m3p.y.x == range(3)

        ref = Bar(1)
        m5 = nt(x=ref, y=ref, z=Bar(1))
        m5f = fmap(lambda x: x / 2, m5)
        assert m5f.x is m5f.y and m5f.x is not m5f.z and m5f.x == Bar(0.5)

    def test_ref(self) -> None:
        x = Bar(13)
        x2 = NamedTuple.of({"a": x, "b": [7, x, None], "c": (7, None, Bar(13))})
        y2 = fmap(lambda v: v, x2)
        assert x2.a is not y2.a and y2.a is y2.b[1] and y2.a is not y2.c[2]
        x3 = Bar(t([3.14]))
        y3 = fmapstructure(lambda v: v, [Foo(x3, x), x3, x])
        assert y3[0].x is y3[1] and y3[0].x.x is y3[1].x

    def test_pair_and_partial(self) -> None:
        pair = fmap(lambda x: x**0.5, 4 | to | 9)
        assert pair == (2.0, 3.0) and type(pair) is Flux.Pair
        fix = fmap(lambda x: x**0.5 if isinstance(x, int) else x, functools.partial(operator.truediv, 4))
        assert fix(10) == 0.2

    def test_composed(self) -> None:
        f = compose(Dense(t([[1.0]]), False), Dense(t([[2.0]]), False))
        assert list(vars(children(f))) == ["outer", "inner"]
        g = fmap(lambda x: x.detach() + 10 if isinstance(x, torch.Tensor) else x, f)
        assert g.outer.weight.item() == 11 and g.inner.weight.item() == 12 and type(g) is type(f)

    def test_fcollect(self) -> None:
        m1 = t([1, 2, 3])
        m3 = Foo(m1, 1)
        m4 = Bar(m3)
        assert list(map(id, fcollect(m4))) == list(map(id, [m4, m3, m1, 1]))
        assert list(map(id, fcollect(m4, exclude=lambda x: isinstance(x, torch.Tensor)))) == list(map(id, [m4, m3, 1]))
        assert fcollect(m4, exclude=lambda x: isinstance(x, Foo)) == [m4]
        assert len(fcollect(Foo(m1, m1))) == 2
        assert len(fcollect(Foo(t([1]), t([1])))) == 3

    @pytest.mark.parametrize("walk", [fmap, lambda f, *xs, **kw: fmap_with_path(lambda _, *v: f(*v), *xs, **kw)])
    def test_several_trees(self, walk: Any) -> None:
        m1, n1 = nt(x=t([1, 2]), y=3), nt(x=t([4, 5]), y=6)
        assert same(walk(operator.add, m1, n1), nt(x=t([5, 7]), y=9))
        foo1 = Foo(t([7, 8]), 9)
        assert same(walk(operator.add, m1, foo1), nt(x=t([8, 10]), y=12))
        assert type(walk(operator.add, foo1, n1)) is Foo and same(walk(operator.add, foo1, n1).x, t([11, 13]))
        with pytest.raises(ValueError, match="NamedTuple has a child 'a' and there is none in int"):
            walk(lambda a, b: a, nt(x=t([1, 2]), y=nt(a=t([3, 4]), b=5)), nt(x=t([6, 7]), y=8))
        shared = t([1, 2, 3])
        m3, n3 = nt(x=shared, y=t([4, 5, 6]), z=shared), nt(x=shared, y=shared, z=t([7, 8, 9]))
        z3 = walk(operator.add, m3, n3)
        assert same(z3, nt(x=t([2, 4, 6]), y=t([5, 7, 9]), z=t([2, 4, 6]))) and z3.x is z3.z
        assert same(walk(operator.add, m3, n3, prune=None), nt(x=t([2, 4, 6]), y=t([5, 7, 9]), z=None))
        z4 = walk(lambda *x: sum(x), m3, n3, m3, n3)
        assert same(z4, walk(lambda x: 2 * x, z3)) and z4.x is z4.z
        assert same(walk(lambda a, b, c: a * b * c, m1, foo1, n1), nt(x=t([28, 80]), y=162))

    def test_several_trees_structure(self) -> None:
        assert same(fmapstructure(operator.add, Foo(t([1, 2]), 3), Foo(t([4, 5]), 6)), nt(x=t([5, 7]), y=9))
        with pytest.raises(ValueError):
            fmapstructure(lambda a, b: a, nt(y=nt(a=1)), nt(y=8))

    def test_old_update(self) -> None:
        m = Dense(torch.ones(3, 4), torch.zeros(3))
        grads = Flux.gradient(lambda m, x: m(x).sum(), m, torch.ones(4, 2))[0]
        new = fmap(lambda x, g: x if g is None else x.detach() - 0.1 * g, m, grads)
        assert torch.allclose(new.weight, torch.full((3, 4), 0.8)) and torch.allclose(new.bias, torch.full((3,), -0.2))

    def test_dict(self) -> None:
        d = {"a": 1, "b": {"a": 5, "b": 6, "c": 7}}
        assert children(d) == d and fmap(lambda x: x + 1, d) == {"a": 2, "b": {"a": 6, "b": 7, "c": 8}}
        assert same(fmap(operator.add, {"x": t([1, 2]), "y": 3}, nt(x=t([4, 5]), y=6)), {"x": t([5, 7]), "y": 9})
        more = fmap(
            operator.add, {"x": 1, "y": {"a": 3, "b": 4}}, {"x": 4, "y": {"a": 0.1, "b": 0.2, "c": 5}, "z": {"a": 5}}
        )
        assert more == {"x": 5, "y": {"a": 3.1, "b": 4.2}}

    def test_leaf(self) -> None:
        @leaf
        class B(Fields):
            names = ("x",)

        b = B(1)
        kids, rebuild = functor(b)
        assert kids == () and rebuild(kids) is b

    def test_fleaves(self) -> None:
        x = (1, (2, 3), nt(a=4, b=(5, 6), c=7))
        assert fleaves(x) == [1, 2, 3, 4, 5, 6, 7]
        assert fleaves(x, exclude=lambda x: isleaf(x) or isinstance(x, NamedTuple)) == [1, 2, 3, x[2]]
        assert fleaves(nt()) == [] and fleaves(nt(a=1, b=2, c=nt())) == [1, 2]

    def test_with_path(self) -> None:
        m = Bar(Foo({"a": 1, "b": nt(b1=2, b2=20)}, [3, 4, (5, 6)]))
        assert fmap_with_path(lambda _, x: x**2, m) == Bar(Foo({"b": nt(b1=4, b2=400), "a": 1}, [9, 16, (25, 36)]))
        res = fmap_with_path(
            lambda _, x: x**2 if isinstance(x, int) else None,
            m,
            exclude=lambda path, x: path in (KeyPath("x", "x", "b"), KeyPath("x", "y", 2)) or isleaf(x),
        )
        assert res == Bar(Foo({"b": None, "a": 1}, [9, 16, None]))
        res = fmapstructure_with_path(lambda _, x: x**2, m)
        assert res == NamedTuple.of(
            {"x": NamedTuple.of({"x": {"b": nt(b1=4, b2=400), "a": 1}, "y": [9, 16, (25, 36)]})}
        )
        shared = t([1, 2, 3])
        m1 = Foo(shared, Foo(t([1, 2, 3]), Foo(shared, t([1, 2, 3]))))
        assert fmapstructure_with_path(lambda _, x: x, m1, prune=None).y.y.x is None

    def test_keypath(self) -> None:
        kp = KeyPath("a", 3, "b", 4)
        assert tuple(kp) == ("a", 3, "b", 4) and len(kp) == 4 and kp[0] == "a" and kp[3] == 4
        assert kp[:-1] == KeyPath("a", 3, "b") and not KeyPath()
        assert tuple(KeyPath("a", kp, "c", 5)) == ("a", "a", 3, "b", 4, "c", 5)
        assert tuple(KeyPath()) == () and hash(kp) == hash(KeyPath("a", 3, "b", 4))
        assert str(kp) == "a.3.b.4"
        x = {"a": 3, "b": {"c": 4, "d": [5, 6, 7]}}
        assert getkeypath(x, KeyPath("a")) == 3 and getkeypath(x, KeyPath("b", "d", 1)) == 6
        assert haskeypath(x, KeyPath("b", "d", 1)) and not haskeypath(x, KeyPath("b", "d", 3))
        assert not haskeypath(x, KeyPath("b", "e")) and haskeypath(x, KeyPath())
        setkeypath_(x, KeyPath("a"), 4)
        setkeypath_(x, KeyPath("b", "d", 0), 17)
        assert x == {"a": 4, "b": {"c": 4, "d": [17, 6, 7]}}
        setkeypath_(x, KeyPath("b", "d"), [0])
        assert x["b"]["d"] == [0]  # type: ignore[index]
        with pytest.raises(ValueError, match="at least one key"):
            setkeypath_(x, KeyPath(), 1)
        m = Chain(Dense(1 | to | 1, relu))
        setkeypath_(m, KeyPath("layers", 0, "σ"), tanh)
        assert getkeypath(m, KeyPath("layers", 0, "σ")) is tanh and haskeypath(m, KeyPath("layers", 0, "weight"))


# -- the kinds of things that have children ------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = 3


@dataclasses.dataclass(slots=True)
class Slotted:
    a: Any
    keys: Any = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    keys: Any
    values: Any = 1


class Plain(typing.NamedTuple):
    x: Any
    y: Any = 2


class Affine(Layer):
    W: Any
    b: Any

    def __call__(self, x: Any) -> Any:
        return self.W @ x + self.b


@layer(trainable=("W",))
class Marked:
    def __init__(self, W: Any, b: Any) -> None:
        self.W, self.b = W, b


class MyTuple(tuple):
    pass


class MyList(list):
    pass


class MyDict(dict):
    pass


class TestKinds:
    def test_dataclasses(self) -> None:
        for cls in (Frozen, Slotted, FrozenSlotted):
            assert fmap(lambda v: 2 * v, cls(1, [2])) == cls(2, [4])

        @dataclasses.dataclass
        class Late:
            a: int = 1
            c: int = dataclasses.field(init=False, default=7)

        assert fmap(lambda v: 2 * v, Late()).c == 14

    def test_rule_of_a_dataclass(self) -> None:
        @dataclasses.dataclass
        class Chosen:
            a: int
            b: int

        functor(Chosen, ("a",))
        assert fmap(lambda v: 2 * v, Chosen(1, 4)) == Chosen(2, 4)
        leaf(Chosen)
        assert isleaf(Chosen(1, 4))

    def test_named_tuples(self) -> None:
        Old = collections.namedtuple("Old", "x keys")
        for x in (Old(1, 2), Plain(1, 2)):
            y = fmap(lambda v: 2 * v, x)
            assert y == (2, 4) and type(y) is type(x) and isinstance(children(x), NamedTuple)

    @pytest.mark.parametrize(
        "x",
        [
            MyTuple((1, 2)),
            MyList([1]),
            MyDict(a=1),
            collections.OrderedDict(a=1),
            collections.Counter(a=1),
            torch.Size([1, 2]),
        ],
    )
    def test_own_containers(self, x: Any) -> None:
        y = fmap(lambda v: 2 * v, x)
        assert type(y) is type(x) and (list(y.values()) if isinstance(y, dict) else list(y))[0] == 2

    def test_containers_keep_what_is_theirs(self) -> None:
        d = collections.defaultdict(list, a=1)
        assert fmap(lambda v: v, d)["new"] == []
        assert fmap(str, torch.Size([1, 2])) == ("1", "2")
        m = torch.max(t([[1.0, 2.0]]), 1)
        assert fmap(lambda v: 2 * v, m).values.tolist() == [4.0] and type(fmap(lambda v: v, m)) is type(m)

    def test_partial(self) -> None:
        f = fmap(lambda v: 2 * v if isinstance(v, int) else v, functools.partial(pow, 3, mod=7))
        assert f(2) == 6**2 % 14 and children(f).keywords == {"mod": 14}

    def test_bound_method(self) -> None:
        f = fmap(lambda v: 2 * v, Bar(3).__eq__)
        assert f.__self__ == Bar(6) and type(f.__self__) is Bar

    def test_slots(self) -> None:
        class S:
            __slots__ = ("a", "b")

        s = functor(S)()
        s.a, s.b = 1, 2
        new = fmap(lambda v: 2 * v, s)
        assert (new.a, new.b) == (2, 4)

    def test_own_functor_method(self) -> None:
        class Half:
            def __init__(self, a: Any, b: Any) -> None:
                self.a, self.b = a, b

            def functor(self) -> Any:
                return nt(a=self.a), lambda kids: Half(kids[0], self.b)

        new = fmap(lambda v: 2 * v, Half(1, 2))
        assert (new.a, new.b) == (2, 2)

    def test_constructors_do_not_run(self) -> None:
        class Made(Layer):
            W: Any

            def __init__(self, n: int) -> None:
                assert isinstance(n, int), "rebuilding ran __init__"
                self.W = torch.ones(n)

        assert fmap(lambda v: v.detach() * 2, Made(2)).W.tolist() == [2, 2]
        assert fmap(lambda v: v * 2, functor(type("P", (), {"__init__": lambda s: setattr(s, "a", 1)}))()).a == 2

    def test_enum_and_types_are_leaves(self) -> None:
        Kind = enum.Enum("Kind", "A B")
        for x in (Kind.A, int, torch.float32, "s", b"s", range(3), ..., len, torch.device("cpu")):
            assert isleaf(x)
            assert fmap(lambda v: v, (x, x), prune=0) == (x, x)


def scaled(v: Any) -> Any:
    return v.detach() * 2 if isinstance(v, torch.Tensor) else v


class TestFunctions:
    def test_closure(self) -> None:
        def linear(n: int, m: int) -> Any:
            W, b = torch.ones(m, n), torch.zeros(m)
            return lambda x: W @ x + b

        f = linear(2, 1)
        assert closure(f).W.tolist() == [[1, 1]] and sorted(vars(closure(f))) == ["W", "b"]
        assert fmap(scaled, f)(t([1.0, 2.0])).tolist() == [6.0]
        with pytest.warns(UserWarning, match="captures no local variables"):
            assert closure(lambda: 1) == nt()
        with pytest.raises(TypeError, match="a function defined in Python"):
            closure(len)

    def test_untouched_function_is_the_same(self) -> None:
        w = t(1.0)
        f = lambda x: w * x  # noqa: E731
        assert fmap(lambda v: v, f) is f

    def test_everything_about_a_function_is_kept(self) -> None:
        w = 2

        def f(x: int, y: int = 5, *, k: int = 3) -> int:
            "What it does."
            return w * x * y * k

        f.note = "mine"  # type: ignore[attr-defined]
        g = fmap(lambda v: 10 * v, f)
        assert g(1) == 300 and g.note == "mine" and g.__doc__ == f.__doc__ and g.__qualname__ == f.__qualname__

    def test_self_capturing(self) -> None:
        def make(w: Any) -> Any:
            def power(x: Any, n: int) -> Any:
                return x if n == 0 else w * power(x, n - 1)

            return power

        f = make(t(2.0))
        assert fmap(scaled, f)(1.0, 3) == 64
        assert len(fleaves(f)) == 1 and len(fcollect(f)) == 2 and len(params(f)) == 1
        assert fmapstructure(scaled, f).w == 4

    def test_mutually_recursive(self) -> None:
        def make(w: Any, v: Any) -> Any:
            def even(x: Any, n: int) -> Any:
                return x if n == 0 else w * odd(x, n - 1)

            def odd(x: Any, n: int) -> Any:
                return x if n == 0 else v * even(x, n - 1)

            return even

        f = make(t(2.0), t(3.0))
        assert fmap(scaled, f)(1.0, 4) == (4 * 6) ** 2
        assert f(1.0, 4) == 36 and len(params(f)) == 2
        g = fmap(scaled, (f, f))
        assert g[0] is g[1]

    def test_not_assigned_yet(self) -> None:
        w = t(1.0)

        def f() -> Any:
            return later * w

        g = fmap(scaled, f)
        later = 3
        assert g() == 6

    def test_containers_in_a_cycle_end(self) -> None:
        xs: list[Any] = [1]
        xs.append(xs)
        assert fmap(lambda v: 2 * v, xs)[0] == 2 and fleaves(xs) == [1] and len(fcollect(xs)) == 2


class TestModules:
    def test_ties(self) -> None:
        seq = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        seq[1].weight = seq[0].weight
        new = fmap(scaled, seq)
        assert new[0].weight is new[1].weight and isinstance(new[0].weight, nn.Parameter)
        assert torch.equal(new[0].weight, 2 * seq[0].weight) and len(list(new.parameters())) == 3

    def test_ties_between_layers_and_modules(self) -> None:
        m = Chain(Dense(2 | to | 2), nn.Linear(2, 2), lambda x: x)
        m[1].weight = m[0].weight
        new = fmap(scaled, m)
        assert new[0].weight is new[1].weight and new[0].weight.requires_grad

    @pytest.mark.parametrize(
        ("module", "x"),
        [
            (nn.LSTM(2, 3), torch.randn(4, 1, 2)),
            (nn.GRU(2, 3, num_layers=2, bidirectional=True), torch.randn(4, 1, 2)),
            (nn.Linear(2, 3, bias=False), torch.randn(2)),
            (nn.BatchNorm1d(2).eval(), torch.randn(3, 2)),
            (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), torch.randn(2)),
            (nn.TransformerEncoderLayer(4, 2, dropout=0.0), torch.randn(3, 1, 4)),
        ],
    )
    def test_rebuilt_modules_compute_with_what_they_were_given(self, module: nn.Module, x: Any) -> None:
        def out(m: Any) -> Any:
            y = m(x)
            return y[0] if isinstance(y, tuple) else y

        scale = lambda v, c: v.detach() * c if torch.is_floating_point(v) else v.clone()  # noqa: E731
        double = fmap(lambda v: scale(v, 2) if isinstance(v, torch.Tensor) else v, module)
        again = fmap(lambda v: scale(v, 0.5) if isinstance(v, torch.Tensor) else v, double)
        assert not torch.allclose(out(double), out(module)) and torch.allclose(out(again), out(module), atol=1e-6)
        assert list(again.state_dict()) == list(module.state_dict())

    def test_a_part_of_a_computation_stays_one(self) -> None:
        lstm = nn.LSTM(2, 3)
        x = torch.randn(4, 1, 2)
        s = t(1.0, requires_grad=True)
        y = fmap(lambda v: v * s if isinstance(v, torch.Tensor) else v, lstm)(x)[0].sum()
        direct = torch.func.functional_call(lstm, {k: v * s for k, v in lstm.named_parameters()}, (x,))[0].sum()
        assert torch.allclose(torch.autograd.grad(y, s)[0], torch.autograd.grad(direct, s)[0])

    def test_frozen_and_complex_parameters(self) -> None:
        m = nn.Module()
        m.p = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        m.q = nn.Parameter(torch.ones(2), requires_grad=False)
        new = fmap(scaled, m)
        assert new.p.requires_grad and not new.q.requires_grad

    def test_the_original_is_left_alone(self) -> None:
        m = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        before = copy.deepcopy(m.state_dict())
        new = fmap(scaled, m)
        new[0].weight.data += 5
        new.add_module("more", nn.ReLU())
        new[1].register_forward_hook(lambda *_: None)
        assert len(m) == 2 and not m[1]._forward_hooks
        assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


class TestTrainable:
    def test_all_by_default(self) -> None:
        assert trainable((1, 2)) == (1, 2) and trainable(Foo(1, 2)) == nt(x=1, y=2) and trainable(1) == ()

    def test_narrowed(self) -> None:
        m = Marked(torch.ones(2), torch.zeros(2))
        assert list(vars(trainable(m))) == ["W"] and list(vars(children(m))) == ["W", "b"]
        assert list(vars(trainable(nn.BatchNorm1d(2)))) == ["weight", "bias"]

    @pytest.mark.parametrize("answer", [lambda m: (m.W,), lambda m: {"W": m.W}, lambda m: NamedTuple.of({"W": m.W})])
    def test_by_a_method(self, answer: Any) -> None:
        class Own(Layer):
            W: Any
            b: Any

            trainable = answer

        m = Own([1.0, 2.0], torch.zeros(2))
        assert list(vars(trainable(m))) == ["W"] and [p is m.W for p in params(m)] == [True]

    def test_lists_stay_lists(self) -> None:
        class Own:
            def __init__(self) -> None:
                self.w = [1, 2]

            def trainable(self) -> Any:
                return {"w": self.w}

        assert trainable(functor(Own)()).w == [1, 2]

    def test_an_attribute_of_that_name_is_no_method(self) -> None:
        @functor
        class Keras:
            trainable = True

            def __init__(self) -> None:
                self.w = 1

        assert trainable(Keras()) == nt(w=1)


class TestErrors:
    def test_trainable_gives_fields(self) -> None:
        @functor
        class Names:
            def __init__(self) -> None:
                self.w = 1

            def trainable(self) -> Any:
                return ["w"]

        with pytest.raises(TypeError, match=r"trainable of Names must give a named tuple of fields, and gave \['w'\]"):
            trainable(Names())

    def test_unknown_keywords(self) -> None:
        with pytest.raises(TypeError, match="excludes"):
            fmap(lambda v: v, (1, 2), excludes=isleaf)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            ([1, 2], [1]),
            ({"a": 1}, {"b": 1}),
            ({"a": 1}, 3),
            (Chain(relu), None),
            ((1, (2,)), (1, 2)),
            (Foo(1, 2), nt(x=1)),
        ],
    )
    def test_mismatch(self, x: Any, y: Any) -> None:
        with pytest.raises(ValueError, match="don't have the same structure"):
            fmap(lambda a, b: a, x, y)

    def test_more_places_are_ignored(self) -> None:
        assert fmap(operator.add, [1, 2], [1, 2, 3]) == [2, 4]
        assert fmap(operator.add, (1, nt(a=2)), (1, nt(b=5, a=2))) == (2, nt(a=4))

    def test_one_field_and_one_key(self) -> None:
        assert list(vars(children(functor(type("C", (), {"ab": 1, "a": 2}), "ab")()))) == ["ab"]
        x = {"ab": [1, 2]}
        setkeypath_(x, "ab", [3, 4])
        assert getkeypath(x, "ab") == [3, 4] and haskeypath(x, "ab") and not haskeypath(x, "a")

    def test_fields_are_names(self) -> None:
        with pytest.raises(TypeError, match="field names"):
            functor(type("C", (), {}), (1,))  # type: ignore[arg-type]


# -- random structures -----------------------------------------------------------------------------


class Node:
    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


functor(Node)


def closed_over(a: Any, b: Any) -> Any:
    return lambda x: (a, b, x)


def sequential(xs: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(1, 2), *[x for x in xs if isinstance(x, nn.Module)])


names = st.sampled_from(["a", "b", "keys", "σ", "layers"])
leaves = st.one_of(
    st.integers(-3, 3),
    st.floats(-1, 1),
    st.text("xyz", max_size=2),
    st.none(),
    st.sampled_from([relu, tanh, len, torch.float32]),
    st.builds(lambda n: torch.arange(n + 1.0), st.integers(0, 2)),
    st.builds(lambda n: torch.arange(n + 1), st.integers(0, 2)),
)


def branches(kids: Any) -> Any:
    return st.one_of(
        st.lists(kids, max_size=3),
        st.lists(kids, max_size=3).map(tuple),
        st.dictionaries(st.text("kl", min_size=1, max_size=1), kids, max_size=2),
        st.dictionaries(names, kids, max_size=3).map(NamedTuple.of),
        st.builds(Frozen, kids, kids),
        st.builds(Slotted, kids, kids),
        st.builds(FrozenSlotted, kids, kids),
        st.builds(Plain, kids, kids),
        st.builds(Node, kids, kids),
        st.builds(Affine, kids, kids),
        st.builds(Marked, kids, kids),
        st.builds(functools.partial, st.just(len), kids, k=kids),
        st.builds(closed_over, kids, kids),
        st.builds(lambda a: Node(a, None).__init__, kids),
        st.builds(lambda a: Chain(lambda x: (a, x), relu), kids),
        st.builds(lambda a, b: compose(closed_over(a, b), tanh), kids, kids),
        st.lists(kids, max_size=2).map(sequential),
        st.builds(lambda: nn.LSTM(1, 1)),
        st.builds(lambda x: (x, [x], {"again": x}), kids),
    )


structures = st.recursive(leaves, branches, max_leaves=12)


def shape(x: Any) -> Any:
    """What can be compared of a structure: kinds, keys, and which places hold the same object."""
    first: dict[int, int] = {}
    alive: list[Any] = []

    def visit(v: Any) -> Any:
        alive.append(v)
        if isleaf(v):
            shared = first.setdefault(id(v), len(first)) if isinstance(v, torch.Tensor) else None
            return (type(v).__name__, v.tolist() if isinstance(v, torch.Tensor) else v, shared)
        kids = children(v)
        pairs = (
            vars(kids).items()
            if isinstance(kids, NamedTuple)
            else kids.items()
            if isinstance(kids, dict)
            else enumerate(kids)
        )
        return (type(v).__name__, [(key, visit(kid)) for key, kid in pairs])

    return visit(x)


@settings(max_examples=150, deadline=None)
@given(structures)
def test_identity_law(x: Any) -> None:
    assert shape(fmap(lambda v: v, x)) == shape(x)
    assert shape(fmap_with_path(lambda _, v: v, x)) == shape(x)
    assert shape(fmap(lambda v: v, x, cache=None)) == shape(x)


@settings(max_examples=100, deadline=None)
@given(structures)
def test_rebuilding_from_the_children(x: Any) -> None:
    kids, rebuild = functor(x)
    assert shape(rebuild(kids)) == shape(x)
    assert isleaf(x) == (kids == () and type(kids) is tuple)


@settings(max_examples=100, deadline=None)
@given(structures)
def test_ties_stay_and_no_others_come(x: Any) -> None:
    fresh = lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v  # noqa: E731
    assert shape(fmap(fresh, x)) == shape(x)
    alone = [v for v in fleaves(fmap(fresh, x, cache=None)) if isinstance(v, torch.Tensor)]
    modules = any(isinstance(v, nn.Module) for v in fcollect(x))
    assert modules or len({id(v) for v in alone}) == len(alone)


@settings(max_examples=100, deadline=None)
@given(structures)
def test_leaves_in_order(x: Any) -> None:
    found: list[Any] = []
    fmap(lambda v: (found.append(v), v)[1], x, cache=None)
    assert list(map(id, found)) == list(map(id, fleaves(x)))
    paths = [path for path in fleaves(fmapstructure_with_path(lambda path, _: path, x, cache=None))]
    assert all(getkeypath_by_children(x, path) is v for path, v in zip(paths, fleaves(x), strict=True))
    assert fleaves(fmapstructure(lambda v: 0, x, cache=None)) == [0] * len(found)


def getkeypath_by_children(x: Any, path: KeyPath) -> Any:
    for key in path:
        x = children(x)[key]
    return x


@settings(max_examples=100, deadline=None)
@given(structures)
def test_composition_law(x: Any) -> None:
    f = lambda v: (v.detach() + 1) if isinstance(v, torch.Tensor) and v.is_floating_point() else v  # noqa: E731
    assert shape(fmap(f, fmap(f, x))) == shape(fmap(lambda v: f(f(v)), x))


@settings(max_examples=100, deadline=None)
@given(structures)
def test_two_trees(x: Any) -> None:
    pairs: list[tuple[Any, Any]] = []
    fmap(lambda a, b: (pairs.append((a, b)), a)[1], x, fmapstructure(lambda v: v, x, cache=None), cache=None)
    assert all(a is b for a, b in pairs) and len(pairs) == len(fleaves(x))


@settings(max_examples=100, deadline=None)
@given(structures)
def test_prune_leaves_one_of_each(x: Any) -> None:
    kept = [v for v in fleaves(fmapstructure(lambda v: v, x, prune=...)) if isinstance(v, torch.Tensor)]
    assert len({id(v) for v in kept}) == len(kept)
    assert {id(v) for v in kept} == {id(v) for v in fleaves(x) if isinstance(v, torch.Tensor)}


@settings(max_examples=100, deadline=None)
@given(structures)
def test_collecting(x: Any) -> None:
    nodes = fcollect(x)
    assert nodes[0] is x
    tensors = [id(v) for v in nodes if isinstance(v, torch.Tensor)]
    assert len(set(tensors)) == len(tensors) and set(tensors) == {
        id(v) for v in fleaves(x) if isinstance(v, torch.Tensor)
    }
    ps = params((x,))
    assert {id(p) for p in ps} <= set(tensors)


@pytest.mark.parametrize(
    "walk",
    [
        lambda x: fmap(lambda v: v * 2, x),
        fcollect,
        fleaves,
        params,
        Flux.trainables,
        lambda x: Flux.freeze_(Flux.setup(Flux.Momentum(), x)),
    ],
    ids=["fmap", "fcollect", "fleaves", "params", "trainables", "freeze_"],
)
def test_nothing_waits_for_the_garbage_collector(walk: Any) -> None:
    gc.disable()
    try:
        x = nt(a=torch.ones(2), b=(torch.zeros(3),))
        held = weakref.ref(x.a)
        walk(x)
        del x
        assert held() is None
    finally:
        gc.enable()
