"""Named tuples, pairs, the door for arrays, and values printed as Julia prints them."""

from __future__ import annotations

import copy
import functools
import io
import operator
import pickle
import struct
import warnings
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from fluxtorch import Chain, Dense, NamedTuple, Pair, nt, relu, tanh, to, σ
from fluxtorch.arrays import array, summary
from fluxtorch.namedtuples import fold
from fluxtorch.printing import function_name, julia_type, show, underscorise

t = torch.tensor


class TestNamedTuple:
    def test_reading(self) -> None:
        x = nt(a=[2, 1], b=3, c=None)
        assert x.a.tolist() == [2, 1] and x.b == x[1] == x["b"] == x[-2] == 3 and x[1:] == (3, None) and len(x) == 3
        _, b, c = x
        assert b == 3 and c is None and list(x.keys()) == ["a", "b", "c"] and dir(x) == ["a", "b", "c"]
        assert 3 in x and None in x and t([2, 1]) in x and t([2, 2]) not in x and "a" not in x
        assert nt is NamedTuple

    def test_making(self) -> None:
        assert nt({"a": 1}, b=2) == nt(a=1, b=2) == nt([("a", 1), ("b", 2)]) == nt(nt(a=1), b=2) == nt(**{"a": 1}, b=2)
        assert len(nt()) == 0 and nt(a=nt(b=1)).a.b == 1
        kept = NamedTuple.of({"a": [1, 2]})
        assert kept.a == [1, 2]
        for bad in ({1: 2}, [(1, 2)]):
            with pytest.raises(TypeError, match="1 is none"):
                nt(bad)

    def test_names_that_are_methods(self) -> None:
        x = nt(keys=1, of=2, _same=3, items=4)
        assert (x.keys, x.of, x["items"], x[2]) == (1, 2, 4, 3) and nt(x) == x and copy.deepcopy(x) == x
        assert show(x) == "(keys = 1, of = 2, _same = 3, items = 4)"

    def test_missing(self) -> None:
        x = nt(a=1, b=2)
        with pytest.raises(AttributeError, match="no field 'c': it has a, b"):
            x.c  # noqa: B018
        with pytest.raises(KeyError, match="no field 'c' in a named tuple of a, b"):
            x["c"]
        with pytest.raises(IndexError):
            x[2]
        assert not hasattr(x, "c") and getattr(x, "c", 5) == 5

    def test_cannot_change(self) -> None:
        x = nt(a=1)
        for change in (
            lambda: setattr(x, "a", 2),
            lambda: setattr(x, "b", 2),
            lambda: delattr(x, "a"),
            lambda: operator.setitem(x, "a", 2),
        ):
            with pytest.raises((AttributeError, TypeError)):
                change()
        assert x == nt(a=1)

    def test_comparison(self) -> None:
        assert (
            nt(a=1) == nt(a=1) != nt(b=1) and nt(a=1, b=2) != nt(b=2, a=1) and nt(a=1) != (1,) and nt(a=1) != {"a": 1}
        )
        assert nt(a=[1, 2]) == nt(a=[1, 2]) != nt(a=[1, 3]) and nt(a=[1, 2]) != nt(a=1) and nt(a=1) != nt(a=t(1))
        assert nt(a=(t([1]), [t(2.0)], {"k": t([3])})) == nt(a=(t([1]), [t(2.0)], {"k": t([3])}))
        assert (
            nt(a=nt(b=[1])) == nt(a=nt(b=[1])) and nt(a=(1,)) != nt(a=[1]) and nt(a=float("nan")) != nt(a=float("nan"))
        )
        assert {nt(a=1): "x"}[nt(a=1)] == "x" and len({nt(a=[1, 2]), nt(a=[1, 2])}) == 1

    def test_greek_names_by_any_spelling(self) -> None:
        assert fold("ϵ") == "ε" and fold("plain") == "plain"
        for x in (nt(ϵ=1), nt(**{"ϵ": 1}), nt({"ϵ": 1}), nt(ε=1)):
            assert x.ϵ == x.ε == x["ϵ"] == x["ε"] == getattr(x, "ϵ") == 1 and list(x.keys()) == ["ε"]  # noqa: B009

    def test_copies_and_files(self) -> None:
        x = nt(a=[1.0, 2.0], b=(nt(c=1),), f=None)
        for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
            assert y == x and type(y) is NamedTuple
        assert copy.deepcopy(x).a is not x.a
        file = io.BytesIO()
        torch.save({"x": x}, file)
        file.seek(0)
        assert torch.load(file)["x"] == x

    def test_printing(self) -> None:
        assert repr(nt(a=[2, 1], b=3, c=None)) == "(a = [2, 1], b = 3, c = nothing)"
        assert repr(nt(a=1)) == "(a = 1,)" and repr(nt()) == "NamedTuple()" and str(nt(a="x")) == '(a = "x",)'
        assert repr(nt(σ=tanh, m=Dense(t([[1.0]]), False))) == "(σ = tanh, m = Dense(1 => 1; bias=false))"


class TestPair:
    def test_made(self) -> None:
        p = 10 | to | 5
        assert (
            p == (10, 5) and p.first == 10 and p.second == 5 and repr(p) == "10 => 5" and to(10, 5) == p == Pair(10, 5)
        )
        a, b = p
        assert (a, b) == (10, 5) and pickle.loads(pickle.dumps(p)) == p and hash(p) == hash((10, 5))

    def test_groups_to_the_right(self) -> None:
        p = 4 | to | 10 | to | 5
        assert (
            p == Pair(4, Pair(10, 5)) and repr(p) == "4 => 10 => 5" and repr(Pair(Pair(4, 10), 5)) == "(4 => 10) => 5"
        )
        assert (1 | to | 2 | to | 3 | to | 4) == Pair(1, Pair(2, Pair(3, 4)))
        assert 3 | to | 1 + 1 == Pair(3, 2) and (4 | to | (10 | to | 5)) == p

    @pytest.mark.parametrize(
        "left",
        [
            None,
            True,
            "a",
            2.5,
            (1, 2),
            [1],
            {"a": 1},
            {1},
            int,
            relu,
            t([1.0, 2.0]),
            t(2),
            np.ones(2),
            np.int64(3),
            range(2),
        ],
    )
    def test_anything_on_either_side(self, left: Any) -> None:
        p = left | to | 3
        assert type(p) is Pair and p.first is left and p.second == 3
        q = 3 | to | left
        assert type(q) is Pair and q.second is left

    def test_layers(self) -> None:
        d = Dense(1 | to | 1)
        assert (d | to | relu).first is d and (relu | to | d).second is d

    def test_unfinished(self) -> None:
        assert repr(1 | to) == "1 |to| …" and repr(to) == "to"
        with pytest.raises(TypeError):
            (1 | to | 2) | 3


class TestArray:
    @pytest.mark.parametrize(
        ("x", "expected"),
        [
            ([2, 1], t([2, 1])),
            ([[1.0, 2], [3, 4]], t([[1.0, 2], [3, 4]])),
            ([True, False], t([True, False])),
            ([1, 2.5], t([1, 2.5])),
            ([1, 2j], t([1, 2j])),
            ([True, 2], t([1, 2])),
            ([[[1]]], t([[[1]]])),
            (np.array([1, 2]), t([1, 2])),
            (np.arange(3.0)[::-1], t([2.0, 1, 0], dtype=torch.float64)),
            (np.float32(2.5), t(2.5)),
            ([np.float64(1), np.float64(2)], t([1.0, 2], dtype=torch.float64)),
        ],
    )
    def test_arrays(self, x: Any, expected: torch.Tensor) -> None:
        found = array(x)
        assert torch.equal(found, expected) and found.dtype == expected.dtype

    @pytest.mark.parametrize(
        "x",
        [
            [],
            [[]],
            [[1, 2], [3]],
            ["five", [6, 7]],
            [1, None],
            [t(1.0), 2],
            (1, 2),
            3,
            2.5,
            "text",
            None,
            {"a": 1},
            np.float64(3),
            np.array(["a", "b"]),
            np.array([None, 1]),
            np.array(["2020-01-01"], dtype="datetime64[D]"),
            relu,
        ],
    )
    def test_the_rest_as_it_is(self, x: Any) -> None:
        assert array(x) is x

    def test_shares_memory_with_numpy(self) -> None:
        a = np.zeros(2)
        array(a)[0] = 5
        assert a[0] == 5
        x = torch.ones(2)
        assert array(x) is x

    def test_summary(self) -> None:
        cases = [
            (torch.ones(3, 4), "3×4 tensor of float32"),
            (torch.ones(3), "3-element tensor of float32"),
            (t(1), "0-dimensional tensor of int64"),
            (torch.ones(0), "0-element tensor of float32"),
            (2, "2"),
            (None, "None"),
            ("a", "'a'"),
            (True, "True"),
            (2 + 3j, "complex: (2+3j)"),
            ((1, 2), "tuple: (1, 2)"),
            (nt(a=1), "NamedTuple: (a = 1,)"),
            (relu, "function relu"),
            (int, "type int"),
            (Dense(2 | to | 1), "Dense(2 => 1)"),
            (Chain(Dense(2 | to | 1), relu), "Chain(Dense(2 => 1), relu)"),
            (nn.Sequential(nn.Linear(1, 1)), "Sequential( (0): Linear(in_features=1, out_features=1, bias=True) )"),
        ]
        for x, text in cases:
            assert summary(x) == text
        assert len(summary(list(range(1000)))) == 80


class TestShow:
    @pytest.mark.parametrize(
        ("x", "text"),
        [
            (None, "nothing"),
            (True, "true"),
            (False, "false"),
            (3, "3"),
            (2**70, "1180591620717411303424"),
            ("a", '"a"'),
            ('a"b\\c\n', '"a\\"b\\\\c\\n"'),
            (1 + 2j, "1.0 + 2.0im"),
            (1 - 0.5j, "1.0 - 0.5im"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e5, "100000.0"),
            (123456.0, "123456.0"),
            (999999.0, "999999.0"),
            (1e6, "1.0e6"),
            (1234567.0, "1.234567e6"),
            (1e-4, "0.0001"),
            (1e-5, "1.0e-5"),
            (1e22, "1.0e22"),
            (5e-324, "5.0e-324"),
            (float("inf"), "Inf"),
            (-float("inf"), "-Inf"),
            (float("nan"), "NaN"),
            (0.00012345, "0.00012345"),
            ((), "()"),
            ((1,), "(1,)"),
            ((1, (2.5,)), "(1, (2.5,))"),
            ([1, "a"], '[1, "a"]'),
            ({"a": 1}, 'Dict("a" => 1)'),
            (1 | to | 2, "1 => 2"),
            (torch.float32, "torch.float32"),
            (relu, "relu"),
            (operator.add, "+"),
            (torch.sigmoid, "σ"),
            (torch.Size([1, 2]), "(1, 2)"),
            (int, "int"),
            (t(0.1), "0.1"),
            (t(0.1, dtype=torch.float64), "0.1"),
            (t(3), "3"),
            (t(True), "true"),
            (t(1e-8), "1.0e-8"),
            (t([True, False]), "Bool[1, 0]"),
            (t([1, 2], dtype=torch.int32), "Int32[1, 2]"),
            (t([1 + 2j]), "ComplexF32[1.0 + 2.0im]"),
            (t([1.0, 2.0]), "[1.0, 2.0]"),
            (t([[1.0, 2.0], [3.0, 4.0]]), "[1.0 2.0; 3.0 4.0]"),
            (t([[1, 2]]), "[1 2]"),
            (torch.arange(8).reshape(2, 2, 2), "[0 2; 4 6;;; 1 3; 5 7]"),
            (torch.zeros(0), "Float32[]"),
            (torch.zeros(2, 0), "Matrix{Float32}(undef, 2, 0)"),
            (torch.ones(2).half(), "Float16[1.0, 1.0]"),
            (t([float("nan"), -float("inf")]), "[NaN, -Inf]"),
            (torch.arange(30), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9  …  20, 21, 22, 23, 24, 25, 26, 27, 28, 29]"),
            (torch.ones(2, device="meta"), "(2,) on meta"),
        ],
    )
    def test_values(self, x: Any, text: str) -> None:
        assert show(x) == text

    def test_compact(self) -> None:
        assert (
            show(1 / 3, compact=True) == "0.333333"
            and show((1 / 3, t([2 / 3])), compact=True) == "(0.333333, [0.666667])"
        )
        assert show(1e-8, compact=True) == "1.0e-8" and show(123456789.0, compact=True) == "1.23457e8"

    def test_names(self) -> None:
        assert function_name(σ) == "σ" and function_name(torch.tanh) == "tanh" and function_name(torch.mul) == "*"
        assert (
            function_name(lambda x: x) == "<lambda>"
            and function_name([]) == ""
            and function_name(functools.partial(len)) == ""
        )
        assert (
            julia_type(torch.ones(1)) == "Float32" and julia_type(torch.ones(1).to(torch.float8_e5m2)) == "float8_e5m2"
        )
        assert underscorise(50240) == "50_240" and underscorise(12) == "12"

    def test_tracked_arrays_print_without_warnings(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert show(t([1.5], requires_grad=True) * 2) == "[3.0]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back(x: float) -> None:
    text = show(x)
    assert float(text) == x and ("." in text)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_single_floats_read_back_and_are_short(x: float) -> None:
    text = show(t(x, dtype=torch.float32))
    assert struct.pack("f", float(text)) == struct.pack("f", x)
    assert len(text.split("e")[0].strip("-0").replace(".", "").strip("0")) <= 9


@given(st.lists(st.tuples(st.text("abcσ", min_size=1, max_size=3), st.integers()), max_size=5))
def test_named_tuples_against_dicts(pairs: list[tuple[str, int]]) -> None:
    d = dict(pairs)
    x = nt(d)
    assert (
        list(x) == list(d.values())
        and list(x.keys()) == list(d)
        and all(x[k] == getattr(x, k) == v for k, v in d.items())
    )


def test_values():
    assert list(nt(a=1, b="x").values()) == [1, "x"]
