"""The rules of Optimisers.jl: formulas and defaults are its own, the state of each is what it prints there.

Each formula is written once, for a tensor or for `Tensors`; where torch has one kernel for a whole
step, `step_` calls that. Written with `η` for `eta`, `ρ` for `rho`, `β` for `beta`, `ε` for
`epsilon`, `λ` for `lambda_`, `g` for the gradient and `x` for the parameter.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
from typing_extensions import Self

from fluxtorch.arrays import is_spread, summary
from fluxtorch.errors import DomainError
from fluxtorch.optimisers.rule import AbstractRule, Arrays, States, Tensors, explicit, split
from fluxtorch.printing import show

__all__ = [
    "AMSGrad",
    "AccumGrad",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "Lion",
    "MixedPrecision",
    "Momentum",
    "NAdam",
    "Nesterov",
    "OAdam",
    "OptimiserChain",
    "RAdam",
    "RMSProp",
    "Rprop",
    "SignDecay",
    "WeightDecay",
]


class Descent(AbstractRule):
    """Gradient descent: `x -= η g`. No state.

    Unlike the others' learning rate, this one may be negative: that is ascent.

    >>> Descent(0.1).apply_(None, torch.tensor([1.0]), torch.tensor([4.0]))
    (None, tensor([0.4000]))
    """

    eta: float = 0.1
    grouped = True

    def __post_init__(self) -> None:
        pass

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx.mul(self.eta)

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        torch._foreach_add_(xs, dxs, alpha=-self.eta)
        return states


class Momentum(AbstractRule):
    """Descent with momentum: `v = ρ v + η g; x -= v`. State: `v`, in the size of `x`.

    >>> Momentum(0.1)
    Momentum(0.1, 0.9)
    """

    eta: float = 0.01
    rho: float = 0.9
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        v = state.mul_(self.rho).add_(dx, alpha=self.eta)
        return v, v

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        laid = _sgd_memory(xs, dxs, states) if self.rho else None  # without ρ, torch has no v
        if laid is None:
            return super().step_(states, xs, dxs)
        xs, gs, vs = laid
        if xs[0].dtype is torch.float32 and self.eta > 1e-6:
            # torch's v = ρ v + (1 - dampening) g, where 1 - (1 - η) is η but for the last digits of a double.
            _fused_sgd(xs, gs, vs, self.rho, dampening=1 - self.eta)
        else:
            _fused_sgd(xs, torch._foreach_mul(gs, self.eta), vs, self.rho)
        return states


class Nesterov(AbstractRule):
    """Nesterov's momentum: `x -= (1 + ρ) η g - ρ² v; v = ρ v - η g`. State: `v`, in the size of `x`.

    >>> Nesterov()
    Nesterov(0.001, 0.9)
    """

    eta: float = 0.001
    rho: float = 0.9
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        v = state.mul_(self.rho).sub_(dx, alpha=self.eta)
        # ρ² v + … of the old v is ρ v + … of the new one.
        return v, dx.mul(self.eta).sub_(v, alpha=self.rho)

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        laid = _sgd_memory(xs, dxs, states) if self.rho else None
        if laid is None:
            return super().step_(states, xs, dxs)
        xs, gs, vs = laid
        _fused_sgd(xs, torch._foreach_mul(gs, -self.eta), vs, self.rho, lr=-1.0, nesterov=True)
        return states


class RMSProp(AbstractRule):
    """RMSProp: `q = ρ q + (1 - ρ) |g|²; x -= η g / (√q + ε)`. State: `(q, false)`, or `(q, l)` if centred.

    Centred, it divides by an estimate of the deviation, `√(q - |l|²) + ε` with `l = ρ l + (1 - ρ) g`
    (arXiv:1308.0850). The keyword may be spelled `centered`.

    >>> RMSProp(centred=True)
    RMSProp(0.001, 0.9, 1.0e-8; centred = true)
    """

    eta: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8
    centred: bool = False
    grouped = True

    def __init__(
        self,
        eta: float = 0.001,
        rho: float = 0.9,
        epsilon: float = 1e-8,
        *,
        centred: bool = False,
        centered: bool = False,
    ) -> None:
        self.eta, self.rho, self.epsilon, self.centred = eta, rho, epsilon, centred or centered
        self.__post_init__()

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x) if self.centred else False

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        q, mean = state
        rest = 1 - self.rho
        spread = q.lerp_(dx.mul(dx.conj()), rest)
        if self.centred:
            mean.lerp_(dx, rest)
            spread = q.addcmul(mean, mean.conj(), value=-1)
        return (q, mean), dx.mul(self.eta).div_(spread.sqrt().add_(self.epsilon))

    def adjusted(self, **fields: Any) -> Self:
        if "centred" in fields or "centered" in fields:
            raise ValueError("RMSProp's centred can't be adjusted: the two variants have different states")
        return super().adjusted(**fields)

    def __repr__(self) -> str:
        numbers = ", ".join(show(value) for value in (self.eta, self.rho, self.epsilon))
        return f"{type(self).__name__}({numbers}; centred = {show(self.centred)})"


class Rprop(AbstractRule):
    """Rprop, which goes by the signs of the gradient alone, and is meant for whole data sets.

    Each number has a step of its own: multiplied by `ell[1]` while its gradient keeps its sign, by
    `ell[0]` when it changes (then nothing moves), and kept between the two of `gamma`. State: the
    last gradient and the steps, both in the size of `x`. (IEEE 1993, 298623.)

    >>> Rprop()
    Rprop(0.001, (0.5, 1.2), (1.0e-6, 50.0))
    """

    eta: float = 1e-3
    ell: tuple[float, float] = (0.5, 1.2)
    gamma: tuple[float, float] = (1e-6, 50.0)

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.full_like(x, self.eta)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        last, eta = state
        kept, turned = last * dx > 0, last * dx < 0
        longer = (eta * self.ell[1]).clamp_max_(self.gamma[1])
        shorter = (eta * self.ell[0]).clamp_min_(self.gamma[0])
        eta = torch.where(kept, longer, torch.where(turned, shorter, eta))
        # Flux multiplies by the last gradient again, so that a turned one counts as no gradient.
        last = dx.masked_fill(turned, 0)
        return (last, eta), eta * last.sign()


class Adam(AbstractRule):
    """Adam: `m = β₁ m + (1 - β₁) g; v = β₂ v + (1 - β₂) |g|²; x -= η m̂ / (√v̂ + ε)`.

    `m̂ = m / (1 - β₁ᵗ)` and `v̂ = v / (1 - β₂ᵗ)` at step `t`. State: `(m, v, (β₁ᵗ, β₂ᵗ))`, the first two
    in the size of `x`. (arXiv:1412.6980.)

    >>> Adam()
    Adam(0.001, (0.9, 0.999), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, powers = state
        _moments(m, v, dx, self.beta)
        scale, epsilon = self._scales(powers)
        return (m, v, _next(powers, self.beta)), m.mul(scale).div_(v.sqrt().add_(epsilon))

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        ms, vs, powers = zip(*states, strict=True)
        if powers.count(powers[0]) != len(powers):
            return _apart(self.step_, states, xs, dxs)
        laid = _as_memory(xs, dxs, ms, vs)
        if laid is None or 1.0 in self.beta:  # 1 - β^∞ isn't 1 then
            return super().step_(states, xs, dxs)
        eta, epsilon = self._scales(powers[0])
        _fused_adam(laid[0], laid[1], laid[2], laid[3], [], eta, epsilon, self.beta)
        after = _next(powers[0], self.beta)
        return [(m, v, after) for m, v in zip(ms, vs, strict=True)]

    def _scales(self, powers: tuple[float, float]) -> tuple[float, float]:
        """η and ε with the corrections for an early step put into them: η m̂ / (√v̂ + ε) = η' m / (√v + ε')."""
        root = math.sqrt(1 - powers[1])
        return self.eta * root / (1 - powers[0]), self.epsilon * root


class Lion(AbstractRule):
    """Lion, which steps by a sign: `m' = β₂ g + (1 - β₂) m; x -= η sign((β₂ - β₁) g + β₁ m')`. State: `m`.

    As Optimisers.jl has it, which differs from the paper in the roles of the `β`. (arXiv:2302.06675.)

    >>> Lion()
    Lion(0.001, (0.9, 0.999))
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        b1, b2 = self.beta
        m = state.lerp_(dx, b2)
        return m, m.mul(b1).add_(dx, alpha=b2 - b1).sgn().mul_(self.eta)


class RAdam(AbstractRule):
    """Rectified Adam: plain momentum for the first steps, then Adam with a factor that grows to one.

    State: `(m, v, (β₁ᵗ, β₂ᵗ), t)`. (arXiv:1908.03265.)

    >>> RAdam()
    RAdam(0.001, (0.9, 0.999), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta), 1

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, powers, t = state
        _moments(m, v, dx, self.beta)
        limit = 2 / (1 - self.beta[1]) - 1
        rho = limit - 2 * t * powers[1] / (1 - powers[1])
        step = m.mul(self.eta / (1 - powers[0]))
        if rho > 4:
            r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            step.div_(v.div(1 - powers[1]).sqrt_().add_(self.epsilon)).mul_(r)
        return (m, v, _next(powers, self.beta), t + 1), step


class AdaMax(AbstractRule):
    """Adam by the largest gradient seen: `u = max(β₂ u, |g|); x -= η m̂ / (u + ε)`. State: `(m, u, (β₁ᵗ, β₂ᵗ))`.

    (arXiv:1412.6980.)

    >>> AdaMax()
    AdaMax(0.001, (0.9, 0.999), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, u, powers = state
        m.lerp_(dx, 1 - self.beta[0])
        u = u.mul_(self.beta[1]).maximum(dx.abs())
        return (m, u, _next(powers, self.beta)), m.mul(self.eta / (1 - powers[0])).div_(u.add(self.epsilon))


class OAdam(AbstractRule):
    """Optimistic Adam, for adversarial training: `x -= 2 s - s'`, for Adam's step `s` and the one before it, `s'`.

    State: `(m, v, (β₁ᵗ, β₂ᵗ), s)`. (arXiv:1711.00141.)

    >>> OAdam()
    OAdam(0.001, (0.5, 0.9), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.5, 0.9)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta), torch.zeros_like(x)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, powers, before = state
        _moments(m, v, dx, self.beta)
        step = m.mul(self.eta / (1 - powers[0])).div_(v.div(1 - powers[1]).sqrt_().add_(self.epsilon))
        return (m, v, _next(powers, self.beta), step), step.mul(2).sub_(before)


class AdaGrad(AbstractRule):
    """AdaGrad: `a += |g|²; x -= η g / (√a + ε)`. State: `a`, of the size of `x`, filled with `ε` at first.

    (Duchi, Hazan, Singer 2011.)

    >>> AdaGrad()
    AdaGrad(0.1, 1.0e-8)
    """

    eta: float = 0.1
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.full_like(x, self.epsilon)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        a = state.addcmul_(dx, dx.conj())
        return a, dx.mul(self.eta).div_(a.sqrt().add_(self.epsilon))


class AdaDelta(AbstractRule):
    """AdaDelta, which has no learning rate: `a = ρ a + (1 - ρ) |g|²; s = g √(d + ε) / √(a + ε); x -= s`.

    Then `d = ρ d + (1 - ρ) |s|²`. State: `(a, d)`, in the size of `x`. (arXiv:1212.5701.)

    >>> AdaDelta()
    AdaDelta(0.9, 1.0e-8)
    """

    rho: float = 0.9
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        a, d = state
        rest = 1 - self.rho
        a.lerp_(dx.mul(dx.conj()), rest)
        step = d.add(self.epsilon).sqrt_().mul_(dx).div_(a.add(self.epsilon).sqrt_())
        d.lerp_(step.mul(step.conj()), rest)
        return (a, d), step


class AMSGrad(AbstractRule):
    """AMSGrad: Adam by the largest `v` so far, without corrections: `w = max(w, v); x -= η m / (√w + ε)`.

    State: `(m, v, w)`, in the size of `x`, filled with `ε` at first. (ICLR 2018, ryQu7f-RZ.)

    >>> AMSGrad()
    AMSGrad(0.001, (0.9, 0.999), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return tuple(torch.full_like(x, self.epsilon) for _ in range(3))

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, w = state
        _moments(m, v, dx, self.beta)
        w = w.maximum(v)
        return (m, v, w), m.mul(self.eta).div_(w.sqrt().add_(self.epsilon))

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        ms, vs, ws = zip(*states, strict=True)
        laid = _as_memory(xs, dxs, ms, vs, ws)
        if laid is None or 1.0 in self.beta:  # 1 - β^∞ isn't 1 then
            return super().step_(states, xs, dxs)
        _fused_adam(laid[0], laid[1], laid[2], laid[3], laid[4], self.eta, self.epsilon, self.beta)
        return states


class NAdam(AbstractRule):
    """Nesterov's Adam: `x -= η (β₁ m / (1 - β₁ β₁ᵗ) + (1 - β₁) g / (1 - β₁ᵗ)) / (√(β₂ v / (1 - β₂ᵗ)) + ε)`.

    State: `(m, v, (β₁ᵗ, β₂ᵗ))`. (OpenReview OM0jvwB8jIp57ZJjtNEZ.)

    >>> NAdam()
    NAdam(0.001, (0.9, 0.999), 1.0e-8)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, v, powers = state
        b1, b2 = self.beta
        _moments(m, v, dx, self.beta)
        ahead = m.mul(self.eta * b1 / (1 - b1 * powers[0])).add_(dx, alpha=self.eta * (1 - b1) / (1 - powers[0]))
        step = ahead.div_(v.mul(b2 / (1 - powers[1])).sqrt_().add_(self.epsilon))
        return (m, v, _next(powers, self.beta)), step


def AdamW(
    eta: float = 0.001, beta: tuple[float, float] = (0.9, 0.999), lambda_: float = 0.0, epsilon: float = 1e-8
) -> OptimiserChain:
    """Adam with weights that decay apart from it: `OptimiserChain(Adam(η, β, ε), WeightDecay(λ))`.

    The decay is not multiplied by the learning rate: `x -= s + λ x`, for Adam's step `s`, as in
    Optimisers.jl 0.3. (arXiv:1711.05101.)

    >>> AdamW(lambda_=0.3)
    OptimiserChain(Adam(0.001, (0.9, 0.999), 1.0e-8), WeightDecay(0.3))
    """
    return OptimiserChain(Adam(eta, beta, epsilon), WeightDecay(lambda_))


class AdaBelief(AbstractRule):
    """AdaBelief: Adam by how far gradients stray from `m`: `s = β₂ s + (1 - β₂) |g - m|² + ε; x -= η m̂ / (√ŝ + ε)`.

    State: `(m, s, (β₁ᵗ, β₂ᵗ))`. (arXiv:2010.07468.)

    >>> AdaBelief()
    AdaBelief(0.001, (0.9, 0.999), 1.0e-16)
    """

    eta: float = 0.001
    beta: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-16
    grouped = True

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), torch.zeros_like(x), tuple(self.beta)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        m, s, powers = state
        b1, b2 = self.beta
        m.lerp_(dx, 1 - b1)
        stray = dx.sub(m)
        s.lerp_(stray.mul(stray.conj()), 1 - b2).add_(self.epsilon)
        step = m.mul(self.eta / (1 - powers[0])).div_(s.div(1 - powers[1]).sqrt_().add_(self.epsilon))
        return (m, s, _next(powers, self.beta)), step


class WeightDecay(AbstractRule):
    """Adds `λ x` to the gradient: the same as `λ/2 * sum(abs2, x)` in the loss, if first in a chain. No state.

    >>> WeightDecay(0.1).apply_(None, torch.tensor([10.0]), torch.tensor([2.0]))
    (None, tensor([3.]))
    """

    lambda_: float = 5e-4
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx.add(x, alpha=self.lambda_)

    def adjusted(self, **fields: Any) -> Self:
        if "gamma" in fields:
            warnings.warn(
                "the strength of WeightDecay is its field lambda_, no longer gamma", DeprecationWarning, stacklevel=2
            )
            fields = {"lambda_": fields["gamma"], **fields}
        return super().adjusted(**fields)


class SignDecay(AbstractRule):
    """Adds `λ sign(x)` to the gradient: the same as `λ * sum(abs, x)` in the loss, if first in a chain. No state.

    >>> SignDecay(0.1).apply_(None, torch.tensor([-10.0]), torch.tensor([2.0]))
    (None, tensor([1.9000]))
    """

    lambda_: float = 1e-3
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx.add(x.sgn(), alpha=self.lambda_)


class ClipGrad(AbstractRule):
    """Keeps each number of the gradient between `-δ` and `δ`. No state.

    >>> ClipGrad(13).apply_(None, None, torch.tensor([1.0, 10.0, 100.0]))
    (None, tensor([ 1., 10., 13.]))
    """

    delta: float = 10.0
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx.clamp_max(self.delta).clamp_min_(-self.delta)


class ClipNorm(AbstractRule):
    """Scales a gradient whose `p`-norm is above `ω` down to that norm, each array by itself. No state.

    Raises `DomainError` if a norm is infinite or NaN. To know, it must wait for a GPU; `throw=False`
    doesn't look.

    >>> ClipNorm(5).apply_(None, torch.ones(2), torch.tensor([30.0, 40.0]))
    (None, tensor([3., 4.]))
    """

    omega: float = 10.0
    p: float = 2.0
    throw: bool = True
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        norm = dx.norm(self.p)
        if self.throw:
            several = type(norm) is Tensors
            norms = torch.stack(norm.tensors) if several else norm.reshape(1)
            if not bool(norms.isfinite().all()):
                i = int(norms.isfinite().logical_not().nonzero()[0])
                culprit = x.tensors[i] if several else x
                raise DomainError(f"gradient has {self.p}-norm {norms[i].item()}, for array {summary(culprit)}")
        return state, dx.div(norm.div(self.omega).clamp_min_(1.0))

    def may_raise(self, late: bool) -> bool:
        return self.throw and not late


class OptimiserChain(AbstractRule):
    """Rules one after the other, each given what the last one made of the gradient; the result is subtracted.

    Without any rule the gradient itself is subtracted, as by `Descent(1)`. State: a tuple of theirs.

    >>> o = OptimiserChain(ClipGrad(1.0), Descent(0.1))
    >>> o
    OptimiserChain(ClipGrad(1.0), Descent(0.1))
    >>> o.apply_((None, None), None, torch.tensor([0.3, 1.0, 7.0]))
    ((None, None), tensor([0.0300, 0.1000, 0.1000]))
    """

    opts: tuple[Any, ...]

    def __init__(self, *opts: Any) -> None:
        for opt in opts:
            if isinstance(opt, type) or not callable(getattr(opt, "apply_all_", None)):
                raise TypeError(f"{type(self).__name__} chains rules such as Adam(), and got {summary(opt)}")
            if isinstance(opt, MixedPrecision):
                raise ValueError("MixedPrecision must be around the whole chain, not inside it")
        self.opts = opts

    def init(self, x: torch.Tensor) -> Any:
        return tuple(opt.init(x) for opt in self.opts)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        (after,), (step,) = self.apply_all_([state], [x], [dx])
        return after, step

    def apply_all_(self, states: States, xs: Arrays, dxs: Arrays) -> tuple[States, States]:
        return _run(self.opts, states, xs, dxs, stepping=False)

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        return _run(self.opts, states, xs, dxs, stepping=True)[0]

    def may_raise(self, late: bool) -> bool:
        for opt in self.opts:
            if opt.may_raise(late):
                return True
            late = late and (type(opt).init is AbstractRule.init or isinstance(opt, AccumGrad))
        return False

    def explicit(self) -> AbstractRule:
        opts = [explicit(opt) for opt in self.opts]
        return self if all(new is opt for new, opt in zip(opts, self.opts, strict=True)) else OptimiserChain(*opts)

    def adjusted(self, **fields: Any) -> Self:
        new = copy.copy(self)
        new.opts = tuple(opt.adjusted(**fields) if isinstance(opt, AbstractRule) else opt for opt in self.opts)
        return new

    def __len__(self) -> int:
        return len(self.opts)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.opts)

    def __getitem__(self, i: int | slice) -> Any:
        return type(self)(*self.opts[i]) if isinstance(i, slice) else self.opts[i]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.opts))})"


class AccumGrad(AbstractRule):
    """Gathers `n` gradients before it hands on their mean; until then nothing is changed. First in a chain.

    State: the mean so far, in the size of `x`, and the number of the next gradient, from 1 to `n`.
    Raises `ValueError` unless `n` is a positive whole number.

    >>> AccumGrad(2).apply_((torch.tensor([16.5]), 2), None, torch.tensor([1.0]))
    ((tensor([17.]), 1), tensor([17.]))
    """

    n: int
    grouped = True

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"AccumGrad must gather a whole number of gradients, at least one, and got {show(self.n)}")

    def init(self, x: torch.Tensor) -> Any:
        return torch.zeros_like(x), 1

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        mean, i = state
        # A new tensor: when a later rule refuses it, the mean so far is what it was.
        mean = dx.div(self.n) if i == 1 else mean.add(dx, alpha=1 / self.n)
        return ((mean, i + 1), None) if i < self.n else ((mean, 1), mean)


class MixedPrecision(AbstractRule):
    """`rule` in the precision `dtype`, float32 if not given, for parameters of a lower one: `MixedPrecision(rule)`.

    A copy of the parameters in that precision is what `rule` changes, and they follow it. State:
    that copy, and the state of `rule` for it. (arXiv:1710.03740.)

    >>> MixedPrecision(Adam())
    MixedPrecision{Float32, Adam}(Adam(0.001, (0.9, 0.999), 1.0e-8))
    >>> MixedPrecision(torch.float64, Descent()).init(torch.ones(1))
    (tensor([1.], dtype=torch.float64), None)
    """

    dtype: torch.dtype
    rule: AbstractRule

    @overload
    def __init__(self, rule: Any, /) -> None: ...
    @overload
    def __init__(self, dtype: torch.dtype, rule: Any, /) -> None: ...
    def __init__(self, *args: Any) -> None:
        dtype, rule = args if len(args) == 2 else (torch.float32, *args) if len(args) == 1 else (None, None)
        if not isinstance(dtype, torch.dtype):
            raise TypeError("MixedPrecision needs a rule, if need be after an element type: MixedPrecision(Adam())")
        self.dtype, self.rule = dtype, explicit(rule)

    def init(self, x: torch.Tensor) -> Any:
        exact = x.detach().to(self.dtype, copy=True)
        return exact, self.rule.init(exact)

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return self.step_([state], [x], [dx])[0], None

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        exact = [same for same, _ in states]
        after = self.rule.step_([state for _, state in states], exact, [dx.to(self.dtype) for dx in dxs])
        torch._foreach_copy_(xs, exact)
        return list(zip(exact, after, strict=True))

    def may_raise(self, late: bool) -> bool:
        return self.rule.may_raise(late)

    def adjusted(self, **fields: Any) -> Self:
        new = copy.copy(self)
        new.rule = self.rule.adjusted(**fields)
        return new

    def __repr__(self) -> str:
        name = {
            torch.float32: "Float32",
            torch.float64: "Float64",
            torch.float16: "Float16",
            torch.bfloat16: "BFloat16",
        }
        return f"MixedPrecision{{{name.get(self.dtype, self.dtype)}, {type(self.rule).__name__}}}({self.rule!r})"


def _run(opts: States, states: States, xs: Arrays, dxs: Arrays, stepping: bool) -> tuple[States, States]:
    """`apply_all_`, or `step_`, for the rules `opts` in turn, with a tuple of their states for each of `xs`."""
    if not opts:
        if stepping:
            torch._foreach_sub_(xs, dxs)
        return states, dxs
    first, *rest = opts
    if stepping and not rest:
        return [(state,) for state in first.step_([state for (state,) in states], xs, dxs)], dxs
    if stepping and len(rest) == 1 and type(first).step_ is Adam.step_ and type(rest[0]).apply_ is WeightDecay.apply_:
        # Adam doesn't look at x, so that x may decay before, and Adam's step be torch's kernel.
        if rest[0].lambda_:
            torch._foreach_add_(xs, xs, alpha=-rest[0].lambda_)
        return [(state, None) for state in first.step_([state for state, _ in states], xs, dxs)], dxs
    heads, steps = first.apply_all_([state[0] for state in states], xs, dxs)
    tails: Any = [state[1:] for state in states]
    given = [i for i, step in enumerate(steps) if step is not None]
    if len(given) == len(xs):
        tails, steps = _run(rest, tails, xs, steps, stepping)
    elif given:
        steps = list(steps)
        after, moved = _run(
            rest, [tails[i] for i in given], [xs[i] for i in given], [steps[i] for i in given], stepping
        )
        for i, tail, step in zip(given, after, moved, strict=True):
            tails[i], steps[i] = tail, step
    return [(head, *tail) for head, tail in zip(heads, tails, strict=True)], steps


def _moments(m: Any, v: Any, dx: Any, beta: tuple[float, float]) -> None:
    m.lerp_(dx, 1 - beta[0])
    v.lerp_(dx.mul(dx.conj()), 1 - beta[1])


def _next(powers: tuple[float, float], beta: tuple[float, float]) -> tuple[float, float]:
    return powers[0] * beta[0], powers[1] * beta[1]


def _apart(step_: Any, states: States, xs: Arrays, dxs: Arrays) -> list[Any]:
    """`step_` for those tensors together whose states agree in the numbers."""
    new: list[Any] = [None] * len(xs)
    for part in split(states):
        after = step_([states[i] for i in part], [xs[i] for i in part], [dxs[i] for i in part])
        for i, state in zip(part, after, strict=True):
            new[i] = state
    return new


def _as_memory(xs: Arrays, dxs: Arrays, *states: Arrays) -> Sequence[Arrays] | None:
    """All of them with their axes in the order of memory; None if torch's fused kernels aren't for these tensors.

    The kernels run over memory as it lies, without a look at strides: one that differed would mix up
    the numbers. So a gradient of another layout is copied. Theirs is the faster way where axes are in order.
    """
    like = dxs[0]
    if not ((like.is_cpu or like.is_cuda) and like.is_floating_point()):
        return None
    if all(map(torch.Tensor.is_contiguous, itertools.chain(xs, dxs, *states))):
        return xs, dxs, *states
    rows: list[list[torch.Tensor]] = []
    for x, dx, *ss in zip(xs, dxs, *states, strict=True):
        strides = x.stride()
        for s in ss:
            if s.stride() != strides:  # states are dense, so x isn't
                return None
        row = [x, dx if dx.stride() == strides else torch.empty_like(x).copy_(dx), *ss]
        if not x.is_contiguous():
            axes = sorted(range(x.ndim), key=lambda d: -strides[d])
            row = [t.permute(axes) for t in row]
        rows.append(row)
    return list(map(list, zip(*rows, strict=True)))


def _sgd_memory(xs: Arrays, dxs: Arrays, states: Arrays) -> Sequence[Arrays] | None:
    """The same for the kernel of SGD, which isn't for tensors that are spread over processes, as Adam's is."""
    return None if is_spread(xs[0]) else _as_memory(xs, dxs, states)


def _fused_sgd(
    xs: Arrays, gs: Arrays, vs: Arrays, rho: float, lr: float = 1.0, dampening: float = 0.0, nesterov: bool = False
) -> None:
    """`v = ρ v + (1 - dampening) g; x -= lr v`, or with `nesterov` `x -= lr (g + ρ v)`."""
    torch._fused_sgd_(
        xs,
        gs,
        vs,
        lr=lr,
        momentum=rho,
        dampening=dampening,
        weight_decay=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )


def _fused_adam(
    xs: Arrays, gs: Arrays, ms: Arrays, vs: Arrays, ws: Arrays, eta: float, epsilon: float, beta: tuple[float, float]
) -> None:
    """Adam, or with `ws` AMSGrad, without corrections for early steps: those of the step infinity are none."""
    torch._fused_adam_(
        xs,
        gs,
        ms,
        vs,
        ws,
        [_infinity(gs[0].device)] * len(xs),
        lr=eta,
        beta1=beta[0],
        beta2=beta[1],
        weight_decay=0.0,
        eps=epsilon,
        amsgrad=bool(ws),
        maximize=False,
    )


@functools.cache
def _infinity(device: torch.device) -> torch.Tensor:
    return torch.full((), math.inf, dtype=torch.float32, device=device)
