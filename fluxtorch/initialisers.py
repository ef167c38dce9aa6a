"""Arrays that a layer's parameters start from: random weights, identities, zero biases.

Every random one is called in Flux's ways: `init(3, 4)` or `init((3, 4))`, `init(rng, 3, 4)` or
`init(3, 4, rng=rng)` with a `torch.Generator`, whose device the array is made on; and, without a
size, `init(gain=2)` or `init(rng)` for a function of the size, as a layer's `init` keyword takes it.

The result is Float32, needs no gradient, and has Flux's axes: a `Dense` weight is `(out, in)`, a
`Conv` kernel `(width, height, in, out)`.
"""

from __future__ import annotations

import functools
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from fluxtorch.arrays import array, ints, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.pairs import Pair

__all__ = [
    "create_bias",
    "glorot_normal",
    "glorot_uniform",
    "identity_init",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "nfan",
    "ones32",
    "orthogonal",
    "rand32",
    "randn32",
    "sparse_init",
    "truncated_normal",
    "zeros32",
]


def _size(given: tuple[Any, ...]) -> tuple[int, ...]:
    """The size as a tuple of ints, whether it was given as numbers or as one tuple of them."""
    # A Pair is a tuple too, but `in |to| out` has the opposite order of a weight's size.
    size = given[0] if len(given) == 1 and isinstance(given[0], tuple) and not isinstance(given[0], Pair) else given
    for n in size:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"a size consists of whole numbers, got {summary(n)}")
        if n < 0:
            raise ValueError(f"a size can't be negative, got {n} in {tuple(size)}")
    return tuple(map(operator.index, size))


def _make(fill: Callable[..., Tensor], size: tuple[int, ...], rng: Generator | None = None, **options: Any) -> Tensor:
    """`fill(size)`, on the generator's device and in the memory layout of the library."""
    options = {"dtype": torch.float32, "device": None if rng is None else rng.device, **options}
    # Kernels reach torch with their axes reversed and must be contiguous then; a matrix goes as it is.
    if len(size) <= 2:
        return fill(size, **options)
    return fill(size[::-1], **options).permute(*reversed(range(len(size))))


def _initialiser(draw: Callable[..., Tensor], number: bool = False) -> Callable[..., Any]:
    """Gives `draw(*size, rng=…, **options)` all of Flux's calling forms.

    Without a size and generator the result is a function, or one number if `number`.
    """

    @functools.wraps(draw)
    def init(*size: Any, rng: Generator | None = None, **options: Any) -> Any:
        if size and isinstance(size[0], Generator):
            if rng is not None:
                raise TypeError(f"{draw.__name__} got two generators: one as its first argument, one as rng=")
            rng, size = size[0], size[1:]
        if rng is not None and not isinstance(rng, Generator):
            raise TypeError(f"{draw.__name__} takes a torch.Generator as rng, got {summary(rng)}")
        if not size and not (number and rng is None):
            bound = options if rng is None else {"rng": rng, **options}
            return functools.update_wrapper(functools.partial(init, **bound), init)
        return draw(*_size(size), rng=rng, **options)

    return init


def nfan(*size: Any) -> tuple[int, int]:
    """The fans `(fan_in, fan_out)` of a weight of that size.

    `fan_in` is how many inputs reach one output, `fan_out` how many outputs one input reaches. A
    matrix is `(out, in)`, anything longer a kernel `(…, in, out)`, a vector of n an n×1 matrix. The
    size may be numbers or one tuple. Raises `TypeError` or `ValueError` if that is no size.

    >>> nfan(20, 10)
    (10, 20)
    >>> nfan(torch.empty(3, 3, 2, 10).shape)
    (18, 90)
    """
    dims = _size(size)
    if len(dims) < 2:
        return 1, math.prod(dims)
    if len(dims) == 2:
        return dims[1], dims[0]
    *kernel, n_in, n_out = dims
    taps = math.prod(kernel)
    return taps * n_in, taps * n_out


def _per_fan(variance: float, fan: int) -> float:
    """The square root of `variance / fan`; an array with no fan has no elements, so any number does."""
    return math.sqrt(variance / max(fan, 1))


@_initialiser
def glorot_uniform(*size: int, rng: Generator | None = None, gain: float = 1) -> Tensor:
    """Uniform between `-x` and `x` with `x = gain * sqrt(6 / (fan_in + fan_out))`: Xavier's, the layers' default.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. Raises
    `TypeError` for a size that is not whole numbers, `ValueError` for a negative one. Follows Glorot
    and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010).

    >>> W = glorot_uniform(100, 10, rng=torch.Generator().manual_seed(0))
    >>> W.shape, bool(W.abs().max() < 0.2336)
    (torch.Size([100, 10]), True)
    >>> init = glorot_uniform(gain=2)
    >>> init(3, 3, 1, 8).shape
    torch.Size([3, 3, 1, 8])
    """
    return _make(torch.rand, size, rng, generator=rng).sub_(0.5).mul_(2 * float(gain) * _per_fan(6, sum(nfan(size))))


@_initialiser
def glorot_normal(*size: int, rng: Generator | None = None, gain: float = 1) -> Tensor:
    """Normal around 0 with standard deviation `gain * sqrt(2 / (fan_in + fan_out))`.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. Raises
    `TypeError` for a size that is not whole numbers, `ValueError` for a negative one. Follows Glorot
    and Bengio (2010), as `glorot_uniform` does.

    >>> round(glorot_normal(1000, 1000, rng=torch.Generator().manual_seed(0)).std().item(), 3)
    0.032
    """
    return _make(torch.randn, size, rng, generator=rng).mul_(float(gain) * _per_fan(2, sum(nfan(size))))


@_initialiser
def kaiming_uniform(*size: int, rng: Generator | None = None, gain: float = math.sqrt(2)) -> Tensor:
    """Uniform between `-x` and `x` with `x = gain * sqrt(3 / fan_in)`, also called He's; `gain` is √2 unless given.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. Raises
    `TypeError` for a size that is not whole numbers, `ValueError` for a negative one. Follows He et
    al., "Delving deep into rectifiers" (2015).

    >>> W = kaiming_uniform(100, 100, rng=torch.Generator().manual_seed(0))
    >>> round(W.max().item(), 3)
    0.245
    """
    return _make(torch.rand, size, rng, generator=rng).sub_(0.5).mul_(2 * float(gain) * _per_fan(3, nfan(size)[0]))


@_initialiser
def kaiming_normal(*size: int, rng: Generator | None = None, gain: float = math.sqrt(2)) -> Tensor:
    """Normal around 0 with standard deviation `gain / sqrt(fan_in)`; `gain` is √2 unless given.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. Raises
    `TypeError` for a size that is not whole numbers, `ValueError` for a negative one. Follows He et
    al. (2015), as `kaiming_uniform` does.

    >>> round(kaiming_normal(1000, 1000, rng=torch.Generator().manual_seed(0)).std().item(), 3)
    0.045
    """
    return _make(torch.randn, size, rng, generator=rng).mul_(float(gain) * _per_fan(1, nfan(size)[0]))


@functools.cache
def _warn_mean_outside() -> None:
    # Cached, so once and no more, as in Flux. The levels skipped: this, truncated_normal, its wrapper.
    warnings.warn(
        "truncated_normal: the mean is more than 2 std outside of lo and hi, so the values may be inaccurate",
        stacklevel=4,
    )


@_initialiser
def truncated_normal(
    *size: int, rng: Generator | None = None, mean: float = 0, std: float = 1, lo: float = -2, hi: float = 2
) -> Tensor:
    """Normal numbers with this `mean` and `std`, but only those between `lo` and `hi`.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. They
    come from uniform ones through the inverse of the distribution function, which works best with
    `lo <= mean <= hi`; warns once when `mean` is more than two `std` outside. Raises `ValueError` for
    `lo > hi` or a negative size, `TypeError` for a size that is not whole numbers.

    >>> x = truncated_normal(10**5, rng=torch.Generator().manual_seed(0))
    >>> round(x.min().item(), 3), round(x.max().item(), 3)
    (-2.0, 2.0)
    """
    if lo > hi:
        raise ValueError(f"truncated_normal needs lo <= hi, got lo = {lo} and hi = {hi}")
    if not lo - 2 * abs(std) <= mean <= hi + 2 * abs(std):
        _warn_mean_outside()
    # With no spread there is nothing to cut, and the mean is all that is left.
    low, high = (math.erf((x - mean) / (std * math.sqrt(2))) if std else s for x, s in ((lo, -1.0), (hi, 1.0)))
    # In Float64, since Float32 has hardly a number left where the tails begin.
    x = _make(torch.rand, size, rng, generator=rng, dtype=torch.float64)
    x = x.mul_(high - low).add_(low).erfinv_().mul_(std * math.sqrt(2)).add_(mean).clamp_(lo, hi)
    return x.to(torch.float32)


@_initialiser
def lecun_normal(*size: int, rng: Generator | None = None, gain: float = 1) -> Tensor:
    """Normal around 0 with standard deviation `gain * sqrt(1 / fan_in)`, cut off at -2 and 2; goes with `selu`.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. Raises
    `TypeError` for a size that is not whole numbers, `ValueError` for a negative one. Follows LeCun et
    al., "Efficient backprop" (1998).

    >>> round(lecun_normal(1000, 1000, rng=torch.Generator().manual_seed(0)).std().item(), 3)
    0.032
    """
    return truncated_normal(size, rng=rng, std=float(gain) * _per_fan(1, nfan(size)[0]))


@_initialiser
def orthogonal(*size: int, rng: Generator | None = None, gain: float = 1) -> Tensor:
    """A (semi-)orthogonal matrix times `gain`: its columns, or its rows if they are fewer, are orthonormal.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`. With
    more than two axes, it is a `prod(size[:-1])` by `size[-1]` matrix reshaped column-major; with one,
    a vector of length `gain`. Raises `ValueError` for a negative or an empty size, `TypeError` for one
    that is not whole numbers. Follows Saxe et al. (2014), https://arxiv.org/abs/1312.6120.

    >>> W = orthogonal(5, 7)
    >>> torch.allclose(W @ W.T, torch.eye(5), atol=1e-5)
    True
    """
    if not size:
        raise ValueError("orthogonal needs a size of at least one number, got ()")

    # torch goes by the first axis and Flux by the last, but torch is given the axes in reverse.
    def fill(size: tuple[int, ...], **options: Any) -> Tensor:
        rows = size if len(size) > 1 else (1, *size)
        return torch.nn.init.orthogonal_(torch.empty(rows, **options), float(gain), generator=rng).view(size)

    return _make(fill, size, rng)


@_initialiser
def sparse_init(*size: int, rng: Generator | None = None, sparsity: float, std: float = 0.01) -> Tensor:
    """A matrix in whose every column the fraction `sparsity` of the elements is 0, the others normal around 0.

    Without a size: a function of the size. Float32, of size `(rows, cols)`, on the device of `rng`; a
    column has `ceil(sparsity * rows)` zeros, at places drawn for each. Raises `ValueError` for any but
    two axes, `TypeError` if `sparsity` is missing. Follows Martens, "Deep learning via Hessian-free
    optimization" (2010).

    >>> (sparse_init(10, 11, sparsity=0.9) == 0).sum(dim=0)
    tensor([9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9])
    """
    if len(size) != 2:
        raise ValueError(f"sparse_init makes matrices only: it needs a size of 2 numbers, got {size}")
    zeros = math.ceil(min(1.0, sparsity) * size[0])
    # Sorting random numbers shuffles each column by itself.
    order = _make(torch.rand, size, rng, generator=rng).argsort(dim=0)
    return _make(torch.randn, size, rng, generator=rng).mul_(std).masked_fill_(order < zeros, 0.0)


@_initialiser
def identity_init(*size: int, rng: Generator | None = None, gain: float = 1, shift: int | Sequence[int] = 0) -> Tensor:
    """An array with which most layers give back their input times `gain`.

    Without a size: a function of the size. Float32, of the given size, on the device of `rng`, which
    has no other use here. A vector, for a bias, is zeros; a matrix the identity; anything longer, for
    a convolution, has `gain` at the centre of the kernel from each channel to itself. What goes beyond
    the square is zeros. Kernels need odd sizes and `SamePad`; recurrent and normalising layers are no
    identity with it.

    `shift` moves the result around, axis by axis (a number: along the first), as Julia's `circshift`
    does. Raises `ValueError` if it has more numbers than the size, or if the size is negative;
    `TypeError` for a size that is not whole numbers.

    >>> identity_init(3, 5)
    tensor([[1., 0., 0., 0., 0.],
            [0., 1., 0., 0., 0.],
            [0., 0., 1., 0., 0.]])
    >>> identity_init(3, 3, 2, gain=100)[:, :, 1]
    tensor([[  0.,   0.,   0.],
            [  0., 100.,   0.],
            [  0.,   0.,   0.]])
    """
    weight = _make(torch.zeros, size, rng)
    if len(size) < 2:
        return weight
    shifts = ints(shift)
    if len(shifts) > len(size):
        raise ValueError(f"identity_init of size {size} can't be shifted along {len(shifts)} axes, as by {shifts}")
    if not weight.numel():
        return weight
    weight[tuple((n - 1) // 2 for n in size[:-2])].diagonal().fill_(gain)
    # roll gives a row-major array, so its values go back into the one that is laid out as it should be.
    return weight.copy_(weight.roll(shifts, tuple(range(len(shifts))))) if any(shifts) else weight


def ones32(*size: Any) -> Tensor:
    """Ones, in Float32, of the given size.

    Raises `TypeError` for a size that is not whole numbers, `ValueError` for a negative one.

    >>> ones32(2, 3)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return _make(torch.ones, _size(size))


def zeros32(*size: Any) -> Tensor:
    """Zeros, in Float32, of the given size.

    Raises `TypeError` for a size that is not whole numbers, `ValueError` for a negative one.

    >>> zeros32((3,))
    tensor([0., 0., 0.])
    """
    return _make(torch.zeros, _size(size))


@functools.partial(_initialiser, number=True)
def rand32(*size: int, rng: Generator | None = None) -> Tensor:
    """Uniform between 0 and 1, in Float32, of the given size, on the device of `rng`.

    With a generator and no size: a function of the size. With neither: one number, 0-dimensional.
    Raises `TypeError` for a size that is not whole numbers, `ValueError` for a negative one.

    >>> rand32(torch.Generator().manual_seed(0))(2, 3).shape
    torch.Size([2, 3])
    """
    return _make(torch.rand, size, rng, generator=rng)


@functools.partial(_initialiser, number=True)
def randn32(*size: int, rng: Generator | None = None) -> Tensor:
    """Normal around 0 with standard deviation 1, in Float32, of the given size, on the device of `rng`.

    With a generator and no size: a function of the size. With neither: one number, 0-dimensional.
    Raises `TypeError` for a size that is not whole numbers, `ValueError` for a negative one.

    >>> randn32(3, 4, rng=torch.Generator().manual_seed(0)).dtype
    torch.float32
    """
    return _make(torch.randn, size, rng, generator=rng)


def create_bias(weights: Tensor, bias: Any, *size: Any) -> Any:
    """The bias of a layer with these `weights`, from what its keyword `bias` was.

    `True` gives zeros of the given size, with the element type and device of `weights`; `False` gives
    `False`. An array (a list of numbers, too) is taken over, with that type and device: as the very
    same tensor if it has them. Raises `DimensionMismatch` if the array has another size; `TypeError`
    if it can't be turned into the type of `weights`, or is no array.

    >>> W = glorot_uniform(3, 2)
    >>> create_bias(W, True, 3)
    tensor([0., 0., 0.])
    >>> create_bias(W, [1, 2, 3], 3)
    tensor([1., 2., 3.])
    >>> create_bias(W, False, 3)
    False
    >>> create_bias(W, [1, 2], 3)
    Traceback (most recent call last):
        ...
    fluxtorch.errors.DimensionMismatch: expected bias of size (3,), got size (2,)
    """
    expected = _size(size)
    if bias is True:
        return _make(torch.zeros, expected, dtype=weights.dtype, device=weights.device)
    if bias is False:
        return False
    b = array(bias)
    if not isinstance(b, Tensor):
        raise TypeError(f"bias must be True, False or an array of size {expected}, got {summary(bias)}")
    if b.shape != expected:
        raise DimensionMismatch(f"expected bias of size {expected}, got size {tuple(b.shape)}")
    if not torch.can_cast(b.dtype, weights.dtype):
        raise TypeError(f"bias is a {summary(b)}, which can't be turned into {weights.dtype}, the type of the weights")
    return b.to(weights)
