"""Zygote.jl: gradients, explicit and implicit."""

from fluxtorch.zygote.gradient import (
    checkpointed,
    diaghessian,
    dropgrad,
    gradient,
    hessian,
    hessian_reverse,
    hook,
    ignore,
    ignore_derivatives,
    jacobian,
    non_differentiable,
    pullback,
    withgradient,
    withjacobian,
)
from fluxtorch.zygote.implicit import Grads, Params, params
from fluxtorch.zygote.scope import within_gradient

__all__ = [
    "Grads",
    "Params",
    "checkpointed",
    "diaghessian",
    "dropgrad",
    "gradient",
    "hessian",
    "hessian_reverse",
    "hook",
    "ignore",
    "ignore_derivatives",
    "jacobian",
    "non_differentiable",
    "params",
    "pullback",
    "withgradient",
    "within_gradient",
    "withjacobian",
]
