"""Initialisers: distributions, calling forms, memory layout; numbers from Flux's manual and its test/utils.jl."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fluxtorch import initialisers
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import (
    create_bias,
    glorot_normal,
    glorot_uniform,
    identity_init,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    nfan,
    ones32,
    orthogonal,
    rand32,
    randn32,
    sparse_init,
    truncated_normal,
    zeros32,
)
from fluxtorch.layers import Conv, ConvTranspose, CrossCor, Dense, Parallel, SamePad
from fluxtorch.pairs import to
from fluxtorch.printing import function_name
from fluxtorch.zygote import gradient


def half_sparse(*size, **options):
    return sparse_init(*size, sparsity=0.5, **options)


ANY_SIZE = [
    glorot_uniform,
    glorot_normal,
    kaiming_uniform,
    kaiming_normal,
    truncated_normal,
    lecun_normal,
    orthogonal,
    identity_init,
    rand32,
    randn32,
]
TAKES_RNG = [*ANY_SIZE, half_sparse]
RANDOM = [init for init in TAKES_RNG if init is not identity_init]
GAINED = [glorot_uniform, glorot_normal, kaiming_uniform, kaiming_normal, lecun_normal, orthogonal]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def reverse(x):
    return x.permute(*reversed(range(x.ndim)))


# --- fans


def test_fans():
    assert nfan() == nfan(()) == (1, 1)
    assert nfan(4) == (1, 4)
    assert nfan(4, 5) == nfan((4, 5)) == (5, 4)
    assert nfan(4, 5, 6) == nfan((4, 5, 6)) == (4 * 5, 4 * 6)
    assert nfan(100) == (1, 100)
    assert nfan(100, 200) == (200, 100)
    assert nfan(2, 30, 40) == (60, 80)
    assert nfan(2, 3, 40, 50) == (240, 300)
    assert nfan(2, 3, 4, 50, 60) == (1200, 1440)
    assert nfan(torch.empty(20, 10).shape) == (10, 20)
    assert nfan(torch.empty(3, 3, 2, 10).shape) == (18, 90)


# --- calling forms


@pytest.mark.parametrize("init", TAKES_RNG)
def test_all_calling_forms_agree(init):
    x = init(3, 4, rng=rng())
    assert x.shape == (3, 4)
    assert x.dtype == torch.float32
    assert not x.requires_grad
    for same in (
        init((3, 4), rng=rng()),
        init(torch.Size([3, 4]), rng=rng()),
        init(rng(), 3, 4),
        init(rng(), (3, 4)),
        init(rng())(3, 4),
        init(rng=rng())((3, 4)),
        init(torch.tensor(3), 4, rng=rng()),
    ):
        assert torch.equal(same, x)
    assert init(3, 4).shape == (3, 4)


@pytest.mark.parametrize("init", RANDOM)
def test_a_generator_is_advanced_and_the_global_one_left_alone(init):
    source, before = rng(), torch.get_rng_state()
    first, second = init(source, 6, 7), init(source, 6, 7)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    first = init(6, 7)
    torch.manual_seed(3)
    assert torch.equal(init(6, 7), first)


@pytest.mark.parametrize("init", GAINED)
def test_gain_scales_whatever_its_sign(init):
    # 900 inputs keep lecun_normal, which is cut at ±2, far from the cut.
    x = init(8, 900, rng=rng())
    default = math.sqrt(2) if init in (kaiming_uniform, kaiming_normal) else 1.0
    torch.testing.assert_close(init(8, 900, rng=rng(), gain=2.5 * default), 2.5 * x)
    torch.testing.assert_close(init(8, 900, rng=rng(), gain=-default).abs(), x.abs())
    assert (init(8, 900, gain=0) == 0).all()


def test_bound_settings_can_be_overridden():
    for init in (kaiming_uniform, kaiming_normal):
        partial = init(gain=1e9)
        assert partial(8, 8).max() > 1e9 / 2
        assert partial(8, 8, gain=1).max() < 1e9 / 2
    partial = sparse_init(sparsity=1)
    assert partial(8, 8).max() == 0
    assert partial(8, 8, sparsity=0).max() > 0
    # Flux's function of a size, too, gives a function if it still gets none.
    again = glorot_uniform(gain=2)(rng(1))
    assert torch.equal(again(3, 4), glorot_uniform(3, 4, gain=2, rng=rng(1)))


def test_a_bound_initialiser_goes_by_its_own_name_and_can_be_copied():
    init = glorot_normal(gain=100)
    assert init.__name__ == function_name(init) == "glorot_normal"
    torch.manual_seed(0)
    x = init(5, 5)
    for twin in (copy.deepcopy(init), pickle.loads(pickle.dumps(init))):
        torch.manual_seed(0)
        assert torch.equal(twin(5, 5), x)


def test_rand32_without_anything_is_one_number():
    for f in (rand32, randn32, ones32, zeros32):
        assert f().shape == ()
        assert f().dtype == torch.float32
    assert rand32(rng())(()).shape == ()


def test_ones_and_zeros():
    assert torch.equal(ones32(2, 3), torch.ones(2, 3))
    assert torch.equal(zeros32(2, 3), torch.zeros(2, 3))
    assert ones32((2, 3, 4)).shape == (2, 3, 4)
    assert ones32(2, 3).dtype == zeros32(2, 3).dtype == torch.float32


def test_the_generator_decides_on_the_device():
    with torch.device("meta"):
        for init in TAKES_RNG:
            assert init(3, 4).device.type == "meta"
            assert init(rng(), 3, 4).device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("init", TAKES_RNG)
def test_a_generator_on_the_gpu(init):
    x = init(torch.Generator("cuda").manual_seed(0), 3, 4)
    assert x.device.type == "cuda"
    assert torch.equal(init(torch.Generator("cuda").manual_seed(0))(3, 4), x)


def test_float32_whatever_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert {init(3, 4).dtype for init in [*TAKES_RNG, ones32, zeros32]} == {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("init", GAINED)
def test_float32_whatever_the_gain(init):
    assert init(3, 4, gain=1.5).dtype == torch.float32


@pytest.mark.parametrize("init", TAKES_RNG)
def test_constant_for_autograd(init):
    x = torch.tensor(5.0, requires_grad=True)
    w = init(3, 4, rng=rng())
    (dx,) = torch.autograd.grad((x * w).sum(), x)
    assert dx == w.sum()


# --- memory


@pytest.mark.parametrize("init", [*ANY_SIZE, ones32, zeros32])
@given(size=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple))
def test_kernels_are_contiguous_when_reversed_and_the_rest_as_it_is(init, size):
    x = init(*size)
    assert x.shape == size
    assert (reverse(x) if len(size) > 2 else x).is_contiguous()
    assert x.untyped_storage().nbytes() == 4 * x.numel()


def test_layout_of_sparse_and_shifted():
    assert half_sparse(4, 5).is_contiguous()
    assert identity_init(3, 4, shift=1).is_contiguous()
    assert reverse(identity_init(3, 5, 2, 4, shift=(1, 0, 1))).is_contiguous()


@pytest.mark.parametrize("size", [(0,), (3, 0), (0, 3), (0, 0), (3, 0, 5), (0, 2, 5), (3, 3, 0, 0), (0, 0, 0)])
def test_arrays_of_nothing(size):
    for init in [*ANY_SIZE, ones32, zeros32]:
        assert init(*size).shape == size


# --- distributions


def hits(x, low, high):
    """Whether x fills the interval and never leaves it."""
    width = high - low
    return bool(low <= x.min() < low + 0.02 * width and high - 0.02 * width < x.max() <= high)


@pytest.mark.parametrize(
    ("init", "size", "x"),
    [
        (glorot_uniform, (10, 100), 0.2336),
        (glorot_uniform, (100, 10), 0.2336),
        (glorot_uniform, (100, 100), 0.1733),
        (kaiming_uniform, (100, 10), 0.7746),
        (kaiming_uniform, (10, 100), 0.2450),
        (kaiming_uniform, (100, 100), 0.2450),
        (rand32, (100, 100), None),
    ],
)
def test_uniform_bounds(init, size, x):
    drawn = init(*size, rng=rng())
    assert hits(drawn, -x, x) if x else hits(drawn, 0, 1)


@pytest.mark.parametrize(
    ("init", "size", "std"),
    [
        (glorot_normal, (10, 1000), 0.0445),
        (glorot_normal, (1000, 10), 0.0445),
        (glorot_normal, (1000, 1000), 0.0316),
        (glorot_normal(gain=100), (1000, 10), 4.45),
        (kaiming_normal, (10, 1000), 0.0447),
        (kaiming_normal, (1000, 10), 0.447),
        (kaiming_normal, (1000, 1000), 0.0447),
        (lecun_normal, (10, 1000), 0.0316),
        (lecun_normal, (1000, 10), 0.316),
        (lecun_normal, (1000, 1000), 0.0316),
        (randn32, (1000, 10), 1.0),
    ],
)
def test_normal_spread(init, size, std):
    drawn = init(rng=rng())(*size)
    assert drawn.std().item() == pytest.approx(std, rel=0.03)
    assert drawn.mean().item() == pytest.approx(0, abs=0.04 * std)
    # Two out of three lie within one std if it is a normal distribution; uniform ones would be at 0.58.
    assert (drawn.abs() < std).float().mean().item() == pytest.approx(0.683, abs=0.015)


@pytest.mark.parametrize("init", [glorot_uniform, glorot_normal])
@pytest.mark.parametrize("size", [(1000,), (100, 100), (100, 400), (2, 3, 32, 64), (2, 3, 4, 32, 64)])
def test_glorot_variance(init, size):
    variance = 2 / sum(nfan(size))
    assert 0.9 * variance < init(*size, rng=rng(1)).var() < 1.1 * variance


@pytest.mark.parametrize(("n_out", "n_in"), [(100, 100), (100, 400)])
def test_kaiming_range_and_spread(n_out, n_in):
    assert hits(kaiming_uniform(n_out, n_in, rng=rng()), -math.sqrt(6 / n_in), math.sqrt(6 / n_in))
    std = math.sqrt(2 / n_in)
    assert 0.9 * std < kaiming_normal(n_out, n_in, rng=rng()).std() < 1.1 * std


def test_kaiming_goes_by_the_inputs_of_a_kernel():
    kernel = kaiming_normal(3, 3, 16, 128, rng=rng())
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * 16)), rel=0.03)


def test_truncated_normal():
    x = truncated_normal(10**5, rng=rng())
    assert hits(x, -2, 2)
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    # The variance of a normal distribution cut at ±a is 1 - 2aφ(a) / (2Φ(a) - 1).
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    assert x.var().item() == pytest.approx(1 - 4 * density / math.erf(math.sqrt(2)), rel=0.02)
    assert round(truncated_normal(10**5, lo=-100, hi=100, rng=rng()).std().item()) == 1


@pytest.mark.parametrize(("mean", "std", "lo", "hi"), [(0.0, 1, -2, 3), (1, 2, -4.0, 5.0)])
def test_truncated_normal_within_limits(mean, std, lo, hi):
    x = truncated_normal(100, 100, 100, mean=mean, std=std, lo=lo, hi=hi, rng=rng())
    assert x.mean().item() == pytest.approx(mean, abs=0.1)
    assert x.min().item() == pytest.approx(lo, abs=0.01)
    assert x.max().item() == pytest.approx(hi, abs=0.01)
    assert x.dtype == torch.float32


@pytest.mark.parametrize(("mean", "std", "lo", "hi"), [(6, 2, -100.0, 100), (-7.0, 10, -100, 100)])
def test_truncated_normal_with_far_limits(mean, std, lo, hi):
    x = truncated_normal(100, 100, 100, mean=mean, std=std, lo=lo, hi=hi, rng=rng())
    assert x.mean().item() == pytest.approx(mean, abs=0.1)
    assert x.std().item() == pytest.approx(std, abs=0.1)


def test_truncated_normal_in_the_tail():
    # Float32 has about ten numbers between erf(5/√2) and 1. The mean beyond 5 is φ(5) / Φ(-5) = 5.1865.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = truncated_normal(10**5, lo=5, hi=100, rng=rng())
    assert len(x.unique()) > 10**4
    assert x.min() >= 5
    assert x.mean().item() == pytest.approx(5.1865, abs=0.005)


def test_truncated_normal_warns_once_and_at_the_caller():
    initialisers._warn_mean_outside.cache_clear()
    with pytest.warns(UserWarning, match="more than 2 std outside") as caught:
        truncated_normal(3, mean=10)
        truncated_normal(3, mean=-10)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    initialisers._warn_mean_outside.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        truncated_normal(3, mean=3.9)
        truncated_normal(3, mean=-3.9, std=-1)


def test_truncated_normal_without_spread_is_its_mean():
    assert (truncated_normal(100, mean=1.5, std=0) == 1.5).all()
    with pytest.raises(ValueError, match="lo <= hi"):
        truncated_normal(3, lo=1, hi=0)


# --- orthogonal


@pytest.mark.parametrize("size", [(5, 3), (3, 5), (5, 7), (7, 5), (4, 4), (3, 4, 5), (2, 2, 5), (3, 3, 2, 4)])
@pytest.mark.parametrize("gain", [1, 1.5])
def test_orthogonal(size, gain):
    x = orthogonal(*size, gain=gain, rng=rng())
    # Julia's reshape(x, :, size[end]), written out by column.
    w = torch.stack([reverse(x[..., j]).flatten() for j in range(size[-1])], dim=1)
    rows, cols = w.shape
    product = w @ w.T if rows < cols else w.T @ w
    torch.testing.assert_close(product, gain**2 * torch.eye(min(rows, cols)), atol=1e-5, rtol=0)
    if rows > cols:
        assert not torch.allclose(w @ w.T, gain**2 * torch.eye(rows), atol=1e-2)


def test_orthogonal_is_uniform_over_rotations_and_reflections():
    # Without the sign of R's diagonal, Householder's QR would give entries of one sign in the corner.
    source = rng()
    corners = torch.stack([orthogonal(2, 2, rng=source) for _ in range(400)])
    assert corners.mean(dim=0).abs().max() < 0.15
    assert torch.linalg.det(corners).mean().abs() < 0.15


def test_orthogonal_vector_has_length_gain():
    assert orthogonal(3, gain=2).norm().item() == pytest.approx(2)


# --- sparse


def test_sparse_init():
    assert (sparse_init(10, 10, sparsity=1 / 5) == 0).sum() == 20
    assert (sparse_init(10, 11, sparsity=0.9) == 0).sum(dim=0).tolist() == [9] * 11
    assert (sparse_init(sparsity=0.5)(10, 3) == 0).sum(dim=0).tolist() == [5, 5, 5]
    assert (sparse_init(100, 100, sparsity=-0.1) == 0).sum() == 0
    assert (sparse_init(100, 100, sparsity=1.1) == 0).all()
    assert (sparse_init(3, 4, sparsity=0.34) == 0).sum(dim=0).tolist() == [2] * 4


@pytest.mark.parametrize(("rows", "cols", "sparsity", "std"), [(100, 100, 0.25, 0.1), (100, 400, 0.75, 0.01)])
def test_sparse_columns(rows, cols, sparsity, std):
    x = sparse_init(rows, cols, sparsity=sparsity, std=std, rng=rng())
    assert ((x == 0).sum(dim=0) == math.ceil(rows * sparsity)).all()
    assert 0.9 * std < x[x != 0].std() < 1.1 * std
    # The places differ from column to column, and no row is preferred.
    zero = (x == 0).float()
    assert len(zero.T.unique(dim=0)) == cols
    assert (zero.mean(dim=1) - sparsity).abs().max() < 0.2


@pytest.mark.parametrize("size", [(100,), (100, 100, 100), ()])
def test_sparse_init_makes_matrices_only(size):
    with pytest.raises(ValueError, match="matrices only"):
        sparse_init(size, sparsity=0.1)


def test_sparse_init_needs_its_sparsity():
    with pytest.raises(TypeError, match="sparsity"):
        sparse_init(3, 4)


# --- identity


def test_identity_matrix():
    assert identity_init(3, 5).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert identity_init(gain=3)(3, 3).tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert identity_init(2, 3)[:, -1].tolist() == [0, 0]
    assert identity_init(3, 2, shift=1).tolist() == [[0, 0], [1, 0], [0, 1]]
    assert identity_init(2, 3, shift=(0, -1)).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert identity_init(2, 2, shift=-1).tolist() == [[0, 1], [1, 0]]
    x = torch.tensor([1.0, -2, 3, -4, 5])
    assert F.relu(identity_init(3, 5) @ x).tolist() == [1, 0, 3]


def test_identity_bias_is_zero():
    assert identity_init(4, gain=2, shift=(1, 2)).tolist() == [0, 0, 0, 0]


def test_identity_kernel():
    x = identity_init(3, 3, 2, gain=100)
    assert x[:, :, 0].tolist() == [[0, 0, 0], [100, 0, 0], [0, 0, 0]]
    assert x[:, :, 1].tolist() == [[0, 0, 0], [0, 100, 0], [0, 0, 0]]
    assert (identity_init(1, 1, 3, 4)[..., -1] == 0).all()
    assert (identity_init(2, 1, 3, 3)[-1] == 0).all()
    assert (identity_init(1, 2, 3, 3)[:, -1] == 0).all()
    # Of an even number of taps, the one before the middle.
    for taps, centre in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]:
        assert identity_init(taps, 1, 1).flatten().nonzero().item() == centre


def test_identity_shift():
    x = identity_init(3, 5, 4, 6)
    assert torch.equal(identity_init(3, 5, 4, 6, shift=(1, 0, 2, 0)), x.roll((1, 2), (0, 2)))
    assert torch.equal(identity_init(3, 5, 4, 6, shift=1), x.roll(1, 0))
    assert torch.equal(identity_init(3, 5, 4, 6, shift=(0, -1)), x.roll(-1, 1))
    with pytest.raises(ValueError, match="3 axes"):
        identity_init(3, 4, shift=(0, 0, 1))


# --- in layers, as in Flux's manual and tests


def test_layers_of_the_manual():
    assert nfan(Dense(10, 20).weight.shape) == (10, 20)
    assert nfan(Conv((3, 3), 2 | to | 10).weight.shape) == (18, 90)
    m = Conv((3, 3), 3 | to | 2, F.relu, init=glorot_normal)
    assert repr(m) == "Conv((3, 3), 3 => 2, relu)  # 56 parameters" and m.bias.tolist() == [0, 0]
    for init in (glorot_uniform(gain=2), randn32(rng(1))):
        assert repr(Dense(4 | to | 5, torch.tanh, init=init)) == "Dense(4 => 5, tanh)  # 25 parameters"
    m = Dense(3 | to | 2, torch.tanh, init=glorot_uniform(rng(1)))
    assert repr(m) == "Dense(3 => 2, tanh)  # 8 parameters" and m.bias.tolist() == [0, 0]
    assert torch.equal(m.weight, glorot_uniform(2, 3, rng=rng(1)))
    m = Dense(10 | to | 1000, torch.tanh, init=glorot_normal(gain=100, rng=rng()))
    assert repr(m) == "Dense(10 => 1000, tanh)  # 11_000 parameters"
    assert m.weight.std().item() == pytest.approx(4.45, rel=0.03)
    m = Dense(10 | to | 1000, F.selu, init=lecun_normal(rng()))
    assert repr(m) == "Dense(10 => 1000, selu)  # 11_000 parameters"
    assert m.weight.std().item() == pytest.approx(0.313, rel=0.03)
    m = Dense(3 | to | 10, torch.tanh, init=sparse_init(sparsity=0.5))
    assert repr(m) == "Dense(3 => 10, tanh)  # 40 parameters"
    assert (m.weight == 0).sum(dim=0, keepdim=True).tolist() == [[5, 5, 5]]
    assert Dense(5 | to | 3, F.relu, init=identity_init)([1, -2, 3, -4, 5]).tolist() == [1, 0, 3]
    x4 = torch.arange(1, 10).view(3, 3, 1, 1)
    y4 = Conv((2, 2), 1 | to | 1, init=identity_init(gain=10), pad=SamePad())(x4)
    assert y4[:, :, 0, 0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]


def test_identity_layers():
    x = torch.randn(3, 3)
    assert torch.equal(Dense(3, 3, init=identity_init)(x), x)
    for layer in (Conv, ConvTranspose, CrossCor):
        for kernel in ((1,), (3,), (1, 3), (3, 5), (3, 5, 7)):
            x = torch.randn(*kernel, 3, 3)
            assert torch.equal(layer(kernel, 3 | to | 3, init=identity_init, pad=SamePad())(x), x)


def test_identity_of_an_inception_block():
    paths = [
        Conv((1, 3), 7 | to | 2, init=identity_init, pad=SamePad()),
        Conv((3, 5), 7 | to | 3, init=identity_init(shift=(0, 0, 2, 0)), pad=SamePad()),
        Conv((5, 7), 7 | to | 2, init=identity_init(shift=(0, 0, 5, 0)), pad=SamePad()),
    ]
    x = torch.randn(9, 9, 7, 2)
    assert torch.equal(Parallel(lambda *xs: torch.cat(xs, dim=2), *paths)(x), x)


def test_settings_from_gradients_arguments():
    """Inside of `gradient` a number is a tensor; what is drawn is a constant for it."""
    want = identity_init(3, 2, shift=1)
    assert gradient(lambda s, x: (x * (identity_init(3, 2, shift=s) == want)).sum(), 1, 2.0) == (None, 6.0)
    assert gradient(lambda n, x: (x * ones32(n, 2)).sum(), 3, 2.0) == (None, 6.0)
    assert gradient(lambda x: (x * glorot_uniform(3, 4)).sum(), 5.0)[0].__class__ is float


# --- bias


def test_bias_by_default_matches_the_weights():
    for dtype in (torch.float16, torch.float32, torch.float64):
        b = create_bias(torch.ones(3, 2, dtype=dtype), True, 3)
        assert b.dtype == dtype
        assert b.tolist() == [0, 0, 0]
    assert create_bias(torch.ones(3, 2, device="meta"), True, 3).device.type == "meta"
    assert create_bias(torch.nn.Parameter(torch.ones(3, 2)), True, 3).requires_grad is False
    cube = create_bias(torch.ones(2, 3, 4), True, 2, 3, 4)
    assert cube.shape == (2, 3, 4)
    assert reverse(cube).is_contiguous()


def test_no_bias():
    assert create_bias(torch.ones(3, 2), False, 3) is False


def test_a_bias_that_fits_is_taken_as_it_is():
    W, b = torch.ones(3, 2), torch.nn.Parameter(torch.rand(3))
    assert create_bias(W, b, 3) is b
    assert create_bias(W, b, (3,)) is b


def test_a_bias_is_converted_to_the_type_of_the_weights():
    W = torch.ones(4, 3, dtype=torch.float64)
    for bias in ([1, 2, 3, 4], torch.tensor([1, 2, 3, 4]), torch.tensor([1.0, 2, 3, 4]).numpy()):
        b = create_bias(W, bias, 4)
        assert b.dtype == torch.float64
        assert b.tolist() == [1, 2, 3, 4]
    b = torch.rand(4, requires_grad=True)
    (db,) = torch.autograd.grad((create_bias(W, b, 4) * torch.tensor([1.0, 2, 3, 4])).sum(), b)
    assert db.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bias", "size"),
    [(torch.rand(5), "(5,)"), (torch.rand(3, 1), "(3, 1)"), ([1.0], "(1,)"), (torch.tensor(1.0), "()")],
)
def test_a_bias_of_the_wrong_size(bias, size):
    with pytest.raises(DimensionMismatch) as error:
        create_bias(torch.ones(3, 2), bias, 3)
    assert str(error.value) == f"expected bias of size (3,), got size {size}"


@pytest.mark.parametrize("bias", [None, 0, 1, 0.5, "true", ["a", "b", "c"], [[1], [2, 3]], torch.relu])
def test_what_is_no_bias(bias):
    with pytest.raises(TypeError, match=r"bias must be True, False or an array of size \(3,\), got"):
        create_bias(torch.ones(3, 2), bias, 3)


def test_a_bias_is_never_cut_to_fit():
    with pytest.raises(TypeError, match="complex64"):
        create_bias(torch.ones(3, 2), torch.ones(3, dtype=torch.complex64), 3)
    with pytest.raises(TypeError, match="int64"):
        create_bias(torch.ones(3, 2, dtype=torch.int64), [0.5, 0.5, 0.5], 3)


# --- bad input


@pytest.mark.parametrize("f", [*TAKES_RNG, ones32, zeros32, nfan, lambda *size: create_bias(ones32(2), True, *size)])
def test_sizes_that_are_none(f):
    for size in [(2.5, 3), ("3", 4), (3, None), (True, 3), ((2, 3), 4), ([2, 3],), (3 | to | 4,), (3, rng())]:
        with pytest.raises(TypeError, match="whole number"):
            f(*size)
    for size in [(-1, 3), (3, -4), ((3, -4),)]:
        with pytest.raises(ValueError, match="can't be negative"):
            f(*size)


@pytest.mark.parametrize("init", TAKES_RNG)
def test_generators_that_are_none(init):
    with pytest.raises(TypeError, match=r"torch\.Generator as rng, got 1"):
        init(3, 4, rng=1)
    with pytest.raises(TypeError, match=r"torch\.Generator as rng, got 1"):
        init(rng=1)
    with pytest.raises(TypeError, match="two generators"):
        init(rng(), 3, 4, rng=rng())


def test_unknown_settings():
    with pytest.raises(TypeError, match="gian"):
        glorot_normal(gian=2)(3, 4)
    with pytest.raises(ValueError, match="orthogonal"):
        orthogonal(())
